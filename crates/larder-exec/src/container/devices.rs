//! `/dev`, and other devices that were asked for.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::HANDLE;
use super::beneath::{Builder, Missing};
use super::mounts::INERT;
use crate::mount::{attach, clone_of, filesystem};
use crate::spawner::failure::{Failure, Stage};
use crate::spawner::open_path;
use crate::spawner::protocol::{Request, RequestDevice};

/// Devices that every process may use: name, major and minor number.
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Devices that only a process without confinement has: name, major and minor number.
const FURTHER_DEVICES: [(&str, u32, u32); 6] = [
    ("kmsg", 1, 11),
    ("cuse", 10, 203),
    ("fuse", 10, 229),
    ("kvm", 10, 232),
    ("net/tun", 10, 200),
    ("loop-control", 10, 237),
];
/// How many loop devices it sees beyond those there are.
const FURTHER_LOOPS: u32 = 8;

/// Links to what the kernel shows elsewhere.
const LINKS: [(&str, &str); 5] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Mounts `/dev` and what belongs in it, and returns it.
pub(super) fn set_up(builder: &mut Builder<'_>, request: &Request) -> Result<OwnedFd, Failure> {
    let failed =
        |target: &'static str| move |errno| Failure::new(Stage::SystemMount, target, errno);
    let missing = Missing {
        file: false,
        owner: None,
        stub: false,
    };
    let target = builder.open("/dev", missing).map_err(failed("/dev"))?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    if request.hides_devices {
        attributes |= MountAttrFlags::MOUNT_ATTR_NODEV;
    }
    let dev = filesystem("tmpfs", &[("mode", "755"), ("size", "65536k")], attributes)
        .map_err(failed("/dev"))?;
    attach(&dev, target).map_err(failed("/dev"))?;
    nodes(&dev, request.hides_devices).map_err(failed("/dev"))?;
    if request.insecure {
        further_nodes(&dev).map_err(failed("/dev"))?;
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, &dev, name).map_err(failed("/dev"))?;
    }
    directory(&dev, "pts", terminals).map_err(failed("/dev/pts"))?;
    directory(&dev, "shm", || {
        let size = request.shm_bytes.to_string();
        filesystem("tmpfs", &[("mode", "1777"), ("size", &size)], INERT)
    })
    .map_err(failed("/dev/shm"))?;
    directory(&dev, "mqueue", || filesystem("mqueue", &[], INERT))
        .map_err(failed("/dev/mqueue"))?;
    Ok(dev)
}

/// Makes the device nodes; where that is not allowed, or they could not be used, shows the host's.
fn nodes(dev: &OwnedFd, are_hidden: bool) -> rustix::io::Result<()> {
    // The mode of a node is not to be narrowed.
    let umask = rustix::process::umask(Mode::empty());
    let made = DEVICES.iter().try_for_each(|(name, major, minor)| {
        if are_hidden {
            return borrow(dev, name);
        }
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

/// Makes the devices that a process without confinement has beside, as with BuildKit. In a user
/// namespace none can be made.
fn further_nodes(dev: &OwnedFd) -> rustix::io::Result<()> {
    let umask = rustix::process::umask(Mode::empty());
    rustix::fs::mkdirat(dev, "net", Mode::from_raw_mode(0o755))?;
    let loops = (0..loop_count()).map(|index| (format!("loop{index}"), 7, index));
    let characters = FURTHER_DEVICES.map(|(name, major, minor)| (name.to_owned(), major, minor));
    let blocks = loops.map(|(name, major, minor)| (name, FileType::BlockDevice, major, minor));
    let mut all = characters
        .into_iter()
        .map(|(name, major, minor)| (name, FileType::CharacterDevice, major, minor))
        .chain(blocks);
    let made = all.try_for_each(|(name, kind, major, minor)| {
        let owner_only = Mode::from_raw_mode(0o600);
        let number = rustix::fs::makedev(major, minor);
        match rustix::fs::mknodat(dev, name, kind, owner_only, number) {
            Err(Errno::PERM) => Ok(()),
            done => done,
        }
    });
    rustix::process::umask(umask);
    made
}

/// Returns how many loop devices to show: those there are, and as many more as BuildKit shows.
fn loop_count() -> u32 {
    let entries = fs_err::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten();
    let known = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"loop"));
    known.count() as u32 + FURTHER_LOOPS
}

/// Makes the nodes that were asked for, over all mounts.
pub(super) fn add(builder: &mut Builder<'_>, request: &Request) -> Result<(), Failure> {
    let umask = rustix::process::umask(Mode::empty());
    let added = request.devices.iter().try_for_each(|device| {
        add_one(builder, device, request.hides_devices)
            .map_err(|errno| Failure::new(Stage::Device, &device.path, errno))
    });
    rustix::process::umask(umask);
    added
}

fn add_one(
    builder: &mut Builder<'_>,
    device: &RequestDevice,
    are_hidden: bool,
) -> rustix::io::Result<()> {
    let (parent, name) = device.path.rsplit_once('/').ok_or(Errno::INVAL)?;
    let missing = |file| Missing {
        file,
        owner: None,
        stub: true,
    };
    // What is made there is gone after the run: `/dev` is in memory.
    if parent.starts_with("/dev") && !are_hidden {
        let directory = builder.open(parent, missing(false))?;
        let kind = FileType::from_raw_mode(device.mode);
        let mode = Mode::from_raw_mode(device.mode & 0o7777);
        let number = rustix::fs::makedev(device.major, device.minor);
        match rustix::fs::mknodat(&directory, name, kind, mode, number) {
            Err(Errno::PERM) => {}
            Err(errno) => return Err(errno),
            Ok(()) => {
                let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                return rustix::fs::chownat(&directory, name, Some(uid), Some(gid), flags);
            }
        }
    }
    let host = rustix::fs::openat(CWD, &device.host_path, HANDLE, Mode::empty())?;
    attach(clone_of(host)?, builder.open(&device.path, missing(true))?)
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
