//! From limits to what is written into the files of cgroups.

use crate::{Error, ErrorKind, ResourceLimits, Result};

/// The period in which processor time is shared out, in microseconds (the kernel's default).
const CPU_PERIOD_MICROS: u64 = 100_000;

/// The least and the most of `cpu.shares` (`kernel/sched/sched.h`).
const SHARES: (u64, u64) = (2, 262_144);

/// A limit, in both versions' words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// What is limited, as users know it.
    pub(super) what: &'static str,
    /// What was asked for.
    pub(super) given: String,
    pub(super) controller: &'static str,
    /// Files and what to write into them, in order.
    pub(super) unified: Vec<(&'static str, String)>,
    /// The same, for version 1.
    pub(super) legacy: Vec<(&'static str, String)>,
}

/// Returns what to write for `limits`.
pub(super) fn settings(limits: &ResourceLimits) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    let mut set = |what, given: String, controller, unified, legacy| {
        settings.push(Setting {
            what,
            given,
            controller,
            unified,
            legacy,
        });
    };
    if let Some(bytes) = limits.memory_bytes {
        let bytes = bytes.to_string();
        set(
            "memory",
            bytes.clone(),
            "memory",
            vec![("memory.max", bytes.clone())],
            vec![("memory.limit_in_bytes", bytes)],
        );
    }
    if let Some(swap) = limits.memory_swap_bytes {
        set(
            "swap",
            swap.to_string(),
            "memory",
            vec![("memory.swap.max", beyond_memory(swap, limits.memory_bytes)?)],
            vec![("memory.memsw.limit_in_bytes", swap.to_string())],
        );
    }
    if let Some(shares) = limits.cpu_shares {
        set(
            "CPU shares",
            shares.to_string(),
            "cpu",
            vec![("cpu.weight", weight(shares).to_string())],
            vec![("cpu.shares", shares.to_string())],
        );
    }
    if limits.cpu_quota_micros.is_some() || limits.cpu_period_micros.is_some() {
        let period = limits.cpu_period_micros.unwrap_or(CPU_PERIOD_MICROS);
        let quota = limits.cpu_quota_micros.filter(|quota| *quota > 0);
        let max = quota.map_or("max".to_owned(), |quota| quota.to_string());
        set(
            "CPU time",
            format!("{max} of {period} µs"),
            "cpu",
            vec![("cpu.max", format!("{max} {period}"))],
            vec![
                ("cpu.cfs_period_us", period.to_string()),
                ("cpu.cfs_quota_us", quota.unwrap_or(-1).to_string()),
            ],
        );
    }
    for (what, file, value) in [
        ("CPUs", "cpuset.cpus", &limits.cpuset_cpus),
        ("memory nodes", "cpuset.mems", &limits.cpuset_mems),
    ] {
        if let Some(value) = value {
            let write = || vec![(file, value.clone())];
            set(what, value.clone(), "cpuset", write(), write());
        }
    }
    if let Some(count) = limits.pids_count {
        let write = || vec![("pids.max", count.to_string())];
        set("pids", count.to_string(), "pids", write(), write());
    }
    Ok(settings)
}

/// Returns how much swap may be used, of a bound on memory and swap together.
fn beyond_memory(both: i64, memory: Option<u64>) -> Result<String> {
    let input = |message: &str| Err(Error::new(ErrorKind::Input, message));
    let Ok(both) = u64::try_from(both) else {
        return Ok("max".to_owned());
    };
    let Some(memory) = memory else {
        return input("swap can be limited only together with memory");
    };
    match both.checked_sub(memory) {
        Some(swap) => Ok(swap.to_string()),
        None => input("the limit of memory and swap together is below that of memory"),
    }
}

/// Returns what shares of version 1 are in version 2, where 1024 of 2 to 262144 become 39 of 1 to
/// 10000 (as runc and systemd convert them).
fn weight(shares: u64) -> u64 {
    let (least, most) = SHARES;
    let shares = shares.clamp(least, most);
    1 + (shares - least) * 9999 / (most - least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_told_in_both_versions_words() {
        let limits = ResourceLimits {
            memory_bytes: Some(100),
            memory_swap_bytes: Some(150),
            cpu_shares: Some(1024),
            cpu_quota_micros: Some(50_000),
            cpu_period_micros: None,
            cpuset_cpus: Some("0-1".to_owned()),
            cpuset_mems: None,
            pids_count: Some(7),
        };
        let settings = settings(&limits).unwrap();
        let told = |unified: bool| -> Vec<String> {
            let writes = settings.iter().flat_map(|setting| {
                if unified {
                    &setting.unified
                } else {
                    &setting.legacy
                }
            });
            let told = writes.map(|(file, value)| format!("{file}={value}"));
            told.collect()
        };
        assert_eq!(
            told(true),
            [
                "memory.max=100",
                "memory.swap.max=50",
                "cpu.weight=39",
                "cpu.max=50000 100000",
                "cpuset.cpus=0-1",
                "pids.max=7"
            ]
        );
        assert_eq!(
            told(false),
            [
                "memory.limit_in_bytes=100",
                "memory.memsw.limit_in_bytes=150",
                "cpu.shares=1024",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "cpuset.cpus=0-1",
                "pids.max=7"
            ]
        );
    }

    #[test]
    fn swap_goes_with_memory() {
        assert_eq!(beyond_memory(-1, None).unwrap(), "max");
        assert_eq!(beyond_memory(100, Some(100)).unwrap(), "0");
        assert!(beyond_memory(99, Some(100)).is_err());
        assert!(beyond_memory(99, None).is_err());
        assert_eq!((weight(0), weight(2), weight(262_144)), (1, 1, 10_000));
    }
}
