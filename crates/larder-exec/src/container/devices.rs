//! `/dev`.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::HANDLE;
use super::beneath::{Builder, Missing};
use super::mounts::INERT;
use crate::mount::{attach, clone_of, filesystem};
use crate::spawner::failure::{Failure, Stage};
use crate::spawner::open_path;

/// Devices that every process may use: name, major and minor number.
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Links to what the kernel shows elsewhere.
const LINKS: [(&str, &str); 5] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Mounts `/dev` and what belongs in it, and returns it.
pub(super) fn set_up(builder: &mut Builder<'_>, shm_bytes: u64) -> Result<OwnedFd, Failure> {
    let failed =
        |target: &'static str| move |errno| Failure::new(Stage::SystemMount, target, errno);
    let missing = Missing {
        file: false,
        owner: None,
        stub: false,
    };
    let target = builder.open("/dev", missing).map_err(failed("/dev"))?;
    let dev = filesystem(
        "tmpfs",
        &[("mode", "755"), ("size", "65536k")],
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME,
    )
    .map_err(failed("/dev"))?;
    attach(&dev, target).map_err(failed("/dev"))?;
    nodes(&dev).map_err(failed("/dev"))?;
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, &dev, name).map_err(failed("/dev"))?;
    }
    directory(&dev, "pts", terminals).map_err(failed("/dev/pts"))?;
    directory(&dev, "shm", || {
        let size = shm_bytes.to_string();
        filesystem("tmpfs", &[("mode", "1777"), ("size", &size)], INERT)
    })
    .map_err(failed("/dev/shm"))?;
    directory(&dev, "mqueue", || filesystem("mqueue", &[], INERT))
        .map_err(failed("/dev/mqueue"))?;
    Ok(dev)
}

/// Makes the device nodes; where that is not allowed, shows the host's.
fn nodes(dev: &OwnedFd) -> rustix::io::Result<()> {
    // The mode of a node is not to be narrowed.
    let umask = rustix::process::umask(Mode::empty());
    let made = DEVICES.iter().try_for_each(|(name, major, minor)| {
        let all = Mode::from_raw_mode(0o666);
        let number = rustix::fs::makedev(*major, *minor);
        match rustix::fs::mknodat(dev, *name, FileType::CharacterDevice, all, number) {
            Err(Errno::PERM) => borrow(dev, name),
            made => made,
        }
    });
    rustix::process::umask(umask);
    made
}

/// Shows the host's device `name`.
fn borrow(dev: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(dev, name, flags, Mode::from_raw_mode(0o666))?;
    let host = clone_of(open_path(&format!("/dev/{name}"))?)?;
    attach(host, rustix::fs::openat(dev, name, HANDLE, Mode::empty())?)
}

/// Makes a directory in `/dev` and mounts something on it.
fn directory(
    dev: &OwnedFd,
    name: &str,
    mount: impl FnOnce() -> rustix::io::Result<OwnedFd>,
) -> rustix::io::Result<()> {
    rustix::fs::mkdirat(dev, name, Mode::from_raw_mode(0o755))?;
    let target = rustix::fs::openat(dev.as_fd(), name, HANDLE, Mode::empty())?;
    attach(mount()?, target)
}

/// Mounts pseudo-terminals.
fn terminals() -> rustix::io::Result<OwnedFd> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let options = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    match filesystem("devpts", &options, attributes) {
        // The group `tty` does not exist in this user namespace.
        Err(Errno::INVAL) => filesystem("devpts", &options[..2], attributes),
        mounted => mounted,
    }
}
