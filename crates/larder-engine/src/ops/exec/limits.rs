//! What steps may use, and what is said when they need more.

use larder_exec::ResourceLimits;
use larder_llb::pb;

/// Returns the limits that the metadata of a vertex name.
pub(super) fn of(resources: Option<&pb::LinuxResources>) -> ResourceLimits {
    let Some(given) = resources else {
        return ResourceLimits::default();
    };
    let positive = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    let signed = |value: i64| Some(value).filter(|value| *value != 0);
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    ResourceLimits {
        memory_bytes: positive(given.memory),
        memory_swap_bytes: signed(given.memory_swap),
        cpu_shares: positive(given.cpu_shares),
        cpu_quota_micros: signed(given.cpu_quota),
        cpu_period_micros: positive(given.cpu_period),
        cpuset_cpus: text(&given.cpuset_cpus),
        cpuset_mems: text(&given.cpuset_mems),
        pids_count: None,
    }
}

/// Returns what to add to the end of a step in which the kernel killed for want of memory.
pub(super) fn out_of_memory(limits: &ResourceLimits) -> String {
    match limits.memory_bytes {
        Some(bytes) => format!(": out of memory (its limit is {})", shown(bytes)),
        None => ": out of memory".to_owned(),
    }
}

/// Returns a size in the largest unit that divides it.
fn shown(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units
        .iter()
        .find(|(_, shift)| bytes >> shift > 0 && bytes.trailing_zeros() >= *shift);
    match unit {
        Some((unit, shift)) => format!("{} {unit}", bytes >> shift),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_no_limit() {
        assert_eq!(
            of(Some(&pb::LinuxResources::default())),
            ResourceLimits::default()
        );
        let given = pb::LinuxResources {
            memory: 64 << 20,
            memory_swap: -1,
            cpuset_cpus: "0".to_owned(),
            ..pb::LinuxResources::default()
        };
        let limits = of(Some(&given));
        assert_eq!(limits.memory_swap_bytes, Some(-1));
        assert_eq!(limits.cpuset_cpus.as_deref(), Some("0"));
        assert_eq!(
            out_of_memory(&limits),
            ": out of memory (its limit is 64 MiB)"
        );
        assert_eq!(shown(1000), "1000 bytes");
    }
}
