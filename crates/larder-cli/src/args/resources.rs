//! What the processes of a step may use.

use std::str::FromStr;

use larder_engine::request::Resources;

use crate::units;

/// The flags of `docker build` for resources, and `--resource`, by which `docker buildx build` names
/// them.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ResourceArgs {
    /// Bound on what each RUN step uses: memory, memory-swap, cpu-shares, cpu-period, cpu-quota,
    /// cpuset-cpus or cpuset-mems
    #[arg(long = "resource", value_name = "NAME=VALUE")]
    pub(crate) resources: Vec<ResourceArg>,
    #[arg(short, long, hide = true)]
    memory: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    memory_swap: Option<String>,
    #[arg(short, long, hide = true)]
    cpu_shares: Option<String>,
    #[arg(long, hide = true)]
    cpu_period: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    cpu_quota: Option<String>,
    #[arg(long, hide = true)]
    cpuset_cpus: Option<String>,
    #[arg(long, hide = true)]
    cpuset_mems: Option<String>,
}

/// A bound on one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ResourceArg {
    Memory(i64),
    MemorySwap(i64),
    CpuShares(i64),
    CpuPeriod(i64),
    CpuQuota(i64),
    CpusetCpus(String),
    CpusetMems(String),
}

impl ResourceArg {
    /// Reads the bound on the resource `name`.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn new(name: &str, value: &str) -> Result<Self, String> {
        Ok(match name {
            "memory" => Self::Memory(bytes(value)?),
            "memory-swap" if value == "-1" => Self::MemorySwap(-1),
            "memory-swap" => Self::MemorySwap(bytes(value)?),
            "cpu-shares" => Self::CpuShares(number(value)?),
            "cpu-period" => Self::CpuPeriod(number(value)?),
            "cpu-quota" => Self::CpuQuota(number(value)?),
            "cpuset-cpus" => Self::CpusetCpus(list(value)?),
            "cpuset-mems" => Self::CpusetMems(list(value)?),
            _ => return Err(format!("`{name}` is no resource that can be bounded")),
        })
    }

    fn set(self, resources: &mut Resources) {
        match self {
            Self::Memory(bytes) => resources.memory_bytes = bytes,
            Self::MemorySwap(bytes) => resources.memory_swap_bytes = bytes,
            Self::CpuShares(shares) => resources.cpu_shares = shares,
            Self::CpuPeriod(micros) => resources.cpu_period_micros = micros,
            Self::CpuQuota(micros) => resources.cpu_quota_micros = micros,
            Self::CpusetCpus(list) => resources.cpuset_cpus = list,
            Self::CpusetMems(list) => resources.cpuset_mems = list,
        }
    }
}

impl FromStr for ResourceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("expected `NAME=VALUE`")?;
        Self::new(name, value)
    }
}

impl ResourceArgs {
    /// Returns the bounds of all flags.
    ///
    /// # Errors
    /// Names the flag whose value can't be used.
    pub(crate) fn resources(self) -> Result<Resources, String> {
        let mut resources = Resources::default();
        for resource in self.resources {
            resource.set(&mut resources);
        }
        for (name, value) in [
            ("memory", self.memory),
            ("memory-swap", self.memory_swap),
            ("cpu-shares", self.cpu_shares),
            ("cpu-period", self.cpu_period),
            ("cpu-quota", self.cpu_quota),
            ("cpuset-cpus", self.cpuset_cpus),
            ("cpuset-mems", self.cpuset_mems),
        ] {
            if let Some(value) = value {
                ResourceArg::new(name, &value)
                    .map_err(|problem| format!("`--{name}`: `{value}`: {problem}"))?
                    .set(&mut resources);
            }
        }
        Ok(resources)
    }

    /// Returns the flags of bounds that are given in other ways.
    pub(crate) fn of(resources: Vec<ResourceArg>) -> Self {
        Self {
            resources,
            ..Self::default()
        }
    }
}

fn bytes(text: &str) -> Result<i64, String> {
    let bytes = units::parse_size(text)?;
    i64::try_from(bytes).map_err(|_| "it is too large".to_owned())
}

fn number(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| "expected a number".to_owned())
}

/// Checks a list of numbers and ranges, `0-2,5`.
fn list(text: &str) -> Result<String, String> {
    let is_number = |text: &str| text.parse::<u16>().is_ok();
    let is_part = |part: &str| match part.split_once('-') {
        Some((first, last)) => is_number(first) && is_number(last),
        None => is_number(part),
    };
    if text.split(',').all(is_part) {
        Ok(text.to_owned())
    } else {
        Err("expected a list as in `0-2,5`".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read() {
        let args = ResourceArgs {
            memory: Some("1g".to_owned()),
            memory_swap: Some("-1".to_owned()),
            ..ResourceArgs::of(vec![
                "memory=64m".parse().unwrap(),
                "cpu-quota=50000".parse().unwrap(),
                "cpuset-cpus=0-1,3".parse().unwrap(),
            ])
        };
        let resources = args.resources().unwrap();
        assert_eq!(resources.memory_bytes, 1 << 30);
        assert_eq!(resources.memory_swap_bytes, -1);
        assert_eq!(resources.cpu_quota_micros, 50_000);
        assert_eq!(resources.cpuset_cpus, "0-1,3");
        for bad in [
            "memory",
            "memory=x",
            "disk=1",
            "cpuset-cpus=a",
            "cpu-shares=1.5",
        ] {
            assert!(bad.parse::<ResourceArg>().is_err(), "{bad}");
        }
        let wrong = ResourceArgs {
            cpu_shares: Some("x".to_owned()),
            ..ResourceArgs::default()
        };
        assert_eq!(
            wrong.resources().unwrap_err(),
            "`--cpu-shares`: `x`: expected a number"
        );
    }
}
