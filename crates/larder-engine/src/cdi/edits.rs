//! What a step sees of its devices.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use larder_exec::mount::{self, Access};
use larder_exec::{Device, DeviceKind, MountPoint, MountSource};
use rustix::fs::FileType;

use super::spec::{ContainerEdits, DeviceNode, Mount};
use crate::error::{BuildError, ErrorClass, Result};

/// Edits of several devices, joined.
#[derive(Debug, Default)]
pub(crate) struct DeviceEdits {
    /// Variables, each `NAME=value`.
    pub(crate) env: Vec<String>,
    pub(crate) nodes: Vec<Device>,
    pub(crate) mounts: Vec<MountPoint>,
    /// Groups of the process beside its own.
    pub(crate) groups: Vec<u32>,
}

impl DeviceEdits {
    /// Adds those of the device `name`.
    ///
    /// # Errors
    /// When the machine lacks what they name, or they ask for what larder can't do.
    pub(super) fn add(&mut self, edits: &ContainerEdits, name: &str) -> Result<()> {
        let hook = edits.hooks.first().map(|hook| {
            let (when, path) = (&hook.hook_name, &hook.path);
            format!("hooks (`{when}`: `{path}`)")
        });
        let rdt = || edits.intel_rdt.as_ref().map(|_| "`intelRdt`".to_owned());
        let net = || edits.net_devices.first().map(|_| "`netDevices`".to_owned());
        if let Some(what) = hook.or_else(rdt).or_else(net) {
            return Err(BuildError::invalid(format!(
                "device {name} has {what}, which larder does not support"
            )));
        }
        self.env.extend(edits.env.iter().cloned());
        self.groups.extend(&edits.additional_gids);
        for node in &edits.device_nodes {
            self.nodes.push(device(node).map_err(|problem| {
                let path = &node.path;
                let message = format!("device {name}: `{path}` {problem}");
                BuildError::new(ErrorClass::NotFound, message)
            })?);
        }
        for mount in &edits.mounts {
            self.mounts.push(mount_point(mount).map_err(|error| {
                let path = mount.host_path.display();
                error.context(format!("device {name}: cannot mount `{path}`"))
            })?);
        }
        Ok(())
    }
}

/// Returns the node that a specification describes, completed by the host's.
fn device(node: &DeviceNode) -> Result<Device, String> {
    let host_path = node.host_path.as_deref().unwrap_or(Path::new(&node.path));
    let found = fs_err::metadata(host_path);
    let kind = match (node.kind.as_deref(), &found) {
        (Some("b"), _) => DeviceKind::Block,
        (Some("c" | "u"), _) => DeviceKind::Character,
        (Some("p"), _) => DeviceKind::Fifo,
        (Some(other), _) if !other.is_empty() => return Err(format!("is of the type `{other}`")),
        (_, Ok(found)) => match FileType::from_raw_mode(found.mode()) {
            FileType::BlockDevice => DeviceKind::Block,
            FileType::CharacterDevice => DeviceKind::Character,
            FileType::Fifo => DeviceKind::Fifo,
            _ => return Err("is no device on this machine".to_owned()),
        },
        (_, Err(_)) => return Err("is not on this machine".to_owned()),
    };
    let number = found.as_ref().map_or(0, std::fs::Metadata::rdev);
    let mode = found.as_ref().map_or(0o666, |found| found.mode() & 0o777);
    let access = node.permissions.as_deref().unwrap_or("rwm");
    Ok(Device {
        path: node.path.clone(),
        host_path: host_path.to_owned(),
        kind,
        major: node.major.unwrap_or_else(|| rustix::fs::major(number)),
        minor: node.minor.unwrap_or_else(|| rustix::fs::minor(number)),
        mode: node.file_mode.map_or(mode, |mode| mode & 0o777),
        uid: node.uid.unwrap_or(0),
        gid: node.gid.unwrap_or(0),
        can_read: access.contains('r'),
        can_write: access.contains('w'),
    })
}

fn mount_point(mount: &Mount) -> Result<MountPoint> {
    let readonly = mount.options.iter().any(|option| option == "ro");
    let source = match mount.kind.as_deref() {
        Some("tmpfs") => MountSource::Tmpfs { size_bytes: None },
        Some(kind) if !matches!(kind, "" | "bind" | "none") => {
            return Err(BuildError::invalid(format!(
                "mounts of the type `{kind}` are not supported"
            )));
        }
        _ => {
            let access = if readonly {
                Access::ReadOnly
            } else {
                Access::ReadWrite
            };
            MountSource::Bind(mount::bind(&mount.host_path, access)?)
        }
    };
    Ok(MountPoint {
        target: mount.container_path.clone(),
        source,
        readonly,
    })
}
