//! From what a caller asks for to what the spawner is told.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;

use crate::cgroup::{self, Access, Rule};
use crate::container::resource;
use crate::mount;
use crate::network::OwnNetwork;
use crate::rootless::{self, IdMap};
use crate::spawner::protocol::{
    MAX_MOUNTS, Request, RequestDevice, RequestMount, RequestNetwork, RequestSource,
};
use crate::{
    Device, DeviceKind, Error, ErrorKind, MountPoint, MountSource, Network, ProcessSpec,
    ResourceLimits, Result, Security, Stdio, Ulimit,
};

/// The largest file that a secret may be, as BuildKit allows.
const MAX_SECRET_BYTES: usize = 500 << 10;

/// A request, and what goes with it.
pub(super) struct Prepared {
    /// Standard streams and the cgroup are still to be told.
    pub(super) request: Request,
    /// The bytes of its files.
    pub(super) files: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
    /// The root filesystem where the process gets one that it can't write to.
    pub(super) writable_root: Option<OwnedFd>,
    pub(super) stdio: Stdio,
    pub(super) signals: Option<OwnedFd>,
    /// User and group.
    pub(super) owner: (u32, u32),
    pub(super) cgroup_parent: Option<String>,
    pub(super) limits: ResourceLimits,
    /// Devices it may open.
    pub(super) access: Access,
    /// Given back after the run.
    pub(super) own_network: Option<OwnNetwork>,
}

/// Checks a specification and takes it apart.
pub(super) fn prepare(spec: ProcessSpec) -> Result<Prepared> {
    check(&spec)?;
    let rlimits = spec
        .ulimits
        .into_iter()
        .map(rlimit)
        .collect::<Result<Vec<_>>>()?;
    let mut files = Vec::new();
    let (root, writable_root) = if spec.readonly_root {
        let (root, writable) = mount::split(spec.root)?;
        (root, Some(writable))
    } else {
        (spec.root, None)
    };
    let mut descriptors = vec![root];
    let system = [
        ("/etc/resolv.conf", spec.resolv_conf),
        ("/etc/hosts", hosts(&spec.hostname, &spec.extra_hosts)?),
    ];
    let mut mounts = Vec::new();
    for (target, content) in system {
        mounts.push(RequestMount {
            target: target.to_owned(),
            source: store(&mut files, content.as_bytes(), 0o644, (0, 0)),
            readonly: true,
        });
    }
    for MountPoint {
        target,
        source,
        readonly,
    } in spec.mounts
    {
        let source = match source {
            MountSource::Bind(mount) => {
                descriptors.push(mount);
                RequestSource::Descriptor(descriptors.len() - 1)
            }
            MountSource::Tmpfs { size_bytes } => RequestSource::Tmpfs { size_bytes },
            MountSource::Secret {
                content,
                mode,
                uid,
                gid,
            } => store(&mut files, &content, mode, (uid, gid)),
        };
        mounts.push(RequestMount {
            target,
            source,
            readonly,
        });
    }
    let insecure = spec.security == Security::Insecure;
    let (network, own_network) = match spec.network {
        Network::Host => (RequestNetwork::Shared, None),
        Network::None => (RequestNetwork::New, None),
        Network::Own(mut own) => {
            if insecure {
                own.spoil();
            }
            descriptors.push(own.namespace()?);
            (RequestNetwork::Joined(descriptors.len() - 1), Some(own))
        }
    };
    let access = if insecure || rootless::id_map() != IdMap::Full {
        // In a user namespace device nodes are of no use anyway.
        Access::All
    } else if spec.devices.is_empty() {
        Access::Default
    } else {
        Access::Further(spec.devices.iter().filter_map(rule).collect())
    };
    Ok(Prepared {
        access,
        own_network,
        owner: (spec.user.uid, spec.user.gid),
        request: Request {
            args: spec.args,
            env: spec.env,
            cwd: spec.cwd,
            uid: spec.user.uid,
            gid: spec.user.gid,
            groups: spec.user.groups,
            hostname: spec.hostname,
            network,
            own_cgroup: false,
            insecure,
            hides_devices: false,
            devices: spec.devices.into_iter().map(device).collect(),
            rlimits,
            shm_bytes: spec.shm_bytes,
            mounts,
            stdio: [0; 3],
            root: 0,
            readonly_root: writable_root.is_some(),
        },
        files,
        descriptors,
        writable_root,
        stdio: spec.stdio,
        signals: spec.signals,
        cgroup_parent: spec.cgroup_parent,
        limits: spec.limits,
    })
}

fn check(spec: &ProcessSpec) -> Result<()> {
    let input = |message: String| Err(Error::new(ErrorKind::Input, message));
    if spec.args.is_empty() {
        return input("cannot run a process without a command".to_owned());
    }
    if !spec.cwd.starts_with('/') {
        return input(format!("working directory `{}` is not absolute", spec.cwd));
    }
    if spec.mounts.len() > MAX_MOUNTS {
        return input(format!("a process can have {MAX_MOUNTS} mounts at most"));
    }
    let words = spec.args.iter().chain(&spec.env);
    if let Some(word) = words.into_iter().find(|word| word.contains('\0')) {
        return input(format!("{word:?} contains a NUL byte"));
    }
    if let Some(device) = spec.devices.iter().find(|it| !it.path.starts_with('/')) {
        return input(format!("device `{}` is no absolute path", device.path));
    }
    for mount in &spec.mounts {
        let target = &mount.target;
        if !target.starts_with('/') || target.split('/').all(|name| matches!(name, "" | ".")) {
            return input(format!("cannot mount on `{target}`"));
        }
        if let MountSource::Secret { content, .. } = &mount.source
            && content.len() > MAX_SECRET_BYTES
        {
            return input(format!("secret for `{target}` is larger than 500 KiB"));
        }
    }
    Ok(())
}

/// Returns the node to make of a device.
fn device(device: Device) -> RequestDevice {
    let kind = match device.kind {
        DeviceKind::Block => libc::S_IFBLK,
        DeviceKind::Character => libc::S_IFCHR,
        DeviceKind::Fifo => libc::S_IFIFO,
    };
    RequestDevice {
        path: device.path,
        host_path: device.host_path,
        mode: kind | device.mode & 0o7777,
        major: device.major,
        minor: device.minor,
        uid: device.uid,
        gid: device.gid,
    }
}

/// Returns what lets a device be opened; pipes need nothing.
fn rule(device: &Device) -> Option<Rule> {
    if device.kind == DeviceKind::Fifo {
        return None;
    }
    let bit = |is_set, bit| if is_set { bit } else { 0 };
    Some(Rule {
        is_block: device.kind == DeviceKind::Block,
        major: device.major,
        minor: Some(device.minor),
        access: cgroup::MAKE
            | bit(device.can_read, cgroup::READ)
            | bit(device.can_write, cgroup::WRITE),
    })
}

/// Returns a limit by which the kernel's name and values.
fn rlimit(ulimit: Ulimit) -> Result<(String, Option<u64>, Option<u64>)> {
    if resource(&ulimit.name).is_none() {
        let message = format!("unknown ulimit `{}`", ulimit.name);
        return Err(Error::new(ErrorKind::Input, message));
    }
    // -1 means none, and no other negative number has a meaning.
    let value = |number: i64| u64::try_from(number).ok();
    Ok((ulimit.name, value(ulimit.soft), value(ulimit.hard)))
}

/// Adds the bytes of a file.
fn store(files: &mut Vec<u8>, content: &[u8], mode: u32, owner: (u32, u32)) -> RequestSource {
    let start = files.len();
    files.extend_from_slice(content);
    RequestSource::File {
        start,
        end: files.len(),
        mode,
        uid: owner.0,
        gid: owner.1,
    }
}

/// Returns the text of `/etc/hosts`, as BuildKit writes it.
fn hosts(hostname: &str, extra: &[crate::ExtraHost]) -> Result<String> {
    let mut text =
        format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for host in extra {
        if host.ip.contains('\n') || host.name.contains('\n') {
            return Err(Error::new(ErrorKind::Input, "host name with a line break"));
        }
        writeln!(text, "{}\t{}", host.ip, host.name)
            .map_err(|_| Error::new(ErrorKind::System, "cannot write `/etc/hosts`"))?;
    }
    Ok(text)
}
