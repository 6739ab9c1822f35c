//! Who a process is, and what it may do.

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::spawner::failure::{Failure, Stage};
use crate::spawner::protocol::Request;

/// Docker's default capabilities.
pub(crate) const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::AUDIT_WRITE)
    .union(CapabilitySet::SETFCAP);

/// Returns the resource of a limit's name, if there is one.
pub(crate) fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}

/// Sets limits, each `(name, soft, hard)`.
pub(super) fn set_limits(limits: &[(String, Option<u64>, Option<u64>)]) -> Result<(), Failure> {
    for (name, soft, hard) in limits {
        let failed = |errno| Failure::new(Stage::Limit, name, errno);
        let resource = resource(name).ok_or_else(|| failed(Errno::INVAL))?;
        let limit = Rlimit {
            current: *soft,
            maximum: *hard,
        };
        rustix::process::setrlimit(resource, limit).map_err(failed)?;
    }
    Ok(())
}

/// Becomes the user, with no more than the default capabilities, or with all.
pub(super) fn assume(request: &Request) -> Result<(), Failure> {
    let (uid, gid) = (request.uid, request.gid);
    let failed = |errno| Failure::new(Stage::Identity, format!("{uid}:{gid}"), errno);
    if request.insecure {
        rustix::thread::set_keep_capabilities(true).map_err(failed)?;
    } else {
        bound_capabilities().map_err(failed)?;
    }
    let permitted = rustix::thread::capabilities(None)
        .map_err(failed)?
        .permitted;
    set_groups(&request.groups).map_err(failed)?;
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(group, group, group).map_err(failed)?;
    // Takes all capabilities from who is not root, unless they are kept.
    rustix::thread::set_thread_res_uid(user, user, user).map_err(failed)?;
    if request.insecure {
        return grant_all(permitted).map_err(failed);
    }
    if uid == 0 {
        let granted = permitted & CAPABILITIES;
        let sets = CapabilitySets {
            effective: granted,
            permitted: granted,
            inheritable: CapabilitySet::empty(),
        };
        rustix::thread::set_capabilities(None, sets).map_err(failed)?;
    }
    Ok(())
}

/// Takes all capabilities there are, for whatever is executed, too.
fn grant_all(permitted: CapabilitySet) -> rustix::io::Result<()> {
    let sets = CapabilitySets {
        effective: permitted,
        permitted,
        inheritable: permitted,
    };
    rustix::thread::set_capabilities(None, sets)?;
    let each = (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number));
    for capability in each.filter(|capability| permitted.contains(*capability)) {
        rustix::thread::configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

/// Drops what no program that this process or its copies execute shall get.
fn bound_capabilities() -> rustix::io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if CAPABILITIES.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // Beyond the last one that this kernel knows.
            Err(Errno::INVAL) => break,
            removed => removed?,
        }
    }
    rustix::thread::clear_ambient_capability_set()
}

/// Sets the supplementary groups. In a user namespace that maps a single id that is forbidden,
/// and the user's own stay.
fn set_groups(groups: &[u32]) -> rustix::io::Result<()> {
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    match rustix::thread::set_thread_groups(&groups) {
        Err(Errno::PERM) if crate::rootless::groups_are_fixed() => Ok(()),
        set => set,
    }
}
