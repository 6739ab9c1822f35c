//! The mounts of a container: the root, the system's own, and those asked for.

use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::beneath::{Builder, Missing, open_in_root};
use super::{HANDLE, devices};
use crate::mount::{attach, clone_of, filesystem};
use crate::spawner::failure::{Failure, Stage};
use crate::spawner::open_path;
use crate::spawner::protocol::{Request, RequestMount, RequestSource};
use crate::sys;

/// What a container must not see of `/proc`, beneath it.
const MASKED_PROC: [&str; 9] = [
    "acpi",
    "asound",
    "kcore",
    "keys",
    "latency_stats",
    "timer_list",
    "timer_stats",
    "sched_debug",
    "scsi",
];

/// What a container must not see of `/sys`, beneath it.
const MASKED_SYS: [&str; 2] = ["firmware", "devices/virtual/powercap"];

/// What a container must not change of `/proc`, beneath it.
const READONLY_PROC: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// A directory of the system's own that an image may lack; it stays in the layer, as with runc.
const SYSTEM_DIRECTORY: Missing = Missing {
    file: false,
    owner: None,
    stub: false,
};

/// No set-uid programs, no devices, no programs at all.
pub(super) const INERT: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Attaches all mounts: the root on top of the namespace's root directory, the others in it.
pub(super) fn set_up(
    request: &Request,
    files: &[u8],
    descriptors: &[OwnedFd],
    builder: &mut Builder<'_>,
) -> Result<(), Failure> {
    let scratch = Scratch::create().map_err(|errno| system("scratch", errno))?;
    let on_top = open_path("/").map_err(|errno| system("/", errno))?;
    attach(builder.root(), on_top).map_err(|errno| system("/", errno))?;
    if request.hides_devices {
        set_nodev(builder.root()).map_err(|errno| system("/", errno))?;
    }
    make_working_directory(request, builder)?;
    let dev = devices::set_up(builder, request)?;
    let proc = proc(builder).map_err(|errno| system("/proc", errno))?;
    let sys = sysfs(builder, request)?;
    if !request.insecure {
        mask(&scratch, &dev, &proc, &MASKED_PROC).map_err(|errno| system("/proc", errno))?;
        mask(&scratch, &dev, &sys, &MASKED_SYS).map_err(|errno| system("/sys", errno))?;
        for name in READONLY_PROC {
            freeze(&proc, name).map_err(|errno| system("/proc", errno))?;
        }
    }
    let user_mount = |mount: &RequestMount, builder: &mut Builder<'_>| {
        let source = UserMount::open(mount, files, descriptors, &scratch)?;
        if request.hides_devices {
            set_nodev(source.as_fd())?;
        }
        source.attach(builder)
    };
    for mount in &request.mounts {
        user_mount(mount, builder)
            .map_err(|errno| Failure::new(Stage::UserMount, &mount.target, errno))?;
    }
    devices::add(builder, request)
}

fn system(target: &str, errno: Errno) -> Failure {
    Failure::new(Stage::SystemMount, target, errno)
}

/// Makes the working directory; on the root filesystem itself, so that it stays.
fn make_working_directory(request: &Request, builder: &mut Builder<'_>) -> Result<(), Failure> {
    let missing = Missing {
        file: false,
        owner: Some((request.uid, request.gid)).filter(|owner| *owner != (0, 0)),
        stub: false,
    };
    builder
        .open(&request.cwd, missing)
        .map(drop)
        .map_err(|errno| Failure::new(Stage::WorkingDirectory, &request.cwd, errno))
}

fn proc(builder: &mut Builder<'_>) -> rustix::io::Result<OwnedFd> {
    let target = builder.open("/proc", SYSTEM_DIRECTORY)?;
    let proc = filesystem("proc", &[], INERT)?;
    attach(&proc, target)?;
    Ok(proc)
}

/// Mounts `/sys`, and the cgroup of the container in it.
fn sysfs(builder: &mut Builder<'_>, request: &Request) -> Result<OwnedFd, Failure> {
    let failed = |errno| system("/sys", errno);
    let target = builder.open("/sys", SYSTEM_DIRECTORY).map_err(failed)?;
    let attributes = if request.insecure {
        INERT
    } else {
        INERT | MountAttrFlags::MOUNT_ATTR_RDONLY
    };
    let sys = match filesystem("sysfs", &[], attributes) {
        // The network namespace is not ours: show what larder sees.
        Err(Errno::PERM) => open_path("/sys").and_then(|host| {
            let sys = clone_of(host)?;
            set_readonly(&sys)?;
            Ok(sys)
        }),
        mounted => mounted,
    }
    .map_err(failed)?;
    attach(&sys, target).map_err(failed)?;
    if request.own_cgroup {
        let failed = |errno| system("/sys/fs/cgroup", errno);
        let target = open_in_root(sys.as_fd(), "fs/cgroup", HANDLE).map_err(failed)?;
        let cgroup = filesystem("cgroup2", &[], attributes).map_err(failed)?;
        attach(cgroup, target).map_err(failed)?;
    }
    Ok(sys)
}

/// Hides what is beneath `directory`: files behind the null device, directories behind an empty
/// one.
fn mask(
    scratch: &Scratch,
    dev: &OwnedFd,
    directory: &OwnedFd,
    names: &[&str],
) -> rustix::io::Result<()> {
    for name in names {
        let target = match rustix::fs::openat(directory, *name, HANDLE, Mode::empty()) {
            Ok(target) => target,
            Err(Errno::NOENT | Errno::ACCESS) => continue,
            Err(errno) => return Err(errno),
        };
        let cover = if is_directory(&target)? {
            scratch.empty_directory()?
        } else {
            clone_of(rustix::fs::openat(dev, "null", HANDLE, Mode::empty())?)?
        };
        attach(cover, target)?;
    }
    Ok(())
}

/// Makes what is beneath `directory` read-only.
fn freeze(directory: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    let target = match rustix::fs::openat(directory, name, HANDLE, Mode::empty()) {
        Err(Errno::NOENT | Errno::ACCESS) => return Ok(()),
        opened => opened?,
    };
    let frozen = clone_of(&target)?;
    set_readonly(&frozen)?;
    attach(frozen, target)
}

/// A mount that was asked for, before it is where it is to be seen.
struct UserMount<'a> {
    mount: &'a RequestMount,
    source: Source<'a>,
}

enum Source<'a> {
    Given(BorrowedFd<'a>),
    Made(OwnedFd),
}

impl<'a> UserMount<'a> {
    fn open(
        mount: &'a RequestMount,
        files: &[u8],
        descriptors: &'a [OwnedFd],
        scratch: &Scratch,
    ) -> rustix::io::Result<Self> {
        let source = match &mount.source {
            RequestSource::Descriptor(index) => Source::Given(descriptors[*index].as_fd()),
            RequestSource::Tmpfs { size_bytes } => {
                let size = size_bytes.map(|bytes| bytes.to_string());
                let options: Vec<_> = size.iter().map(|size| ("size", size.as_str())).collect();
                let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID;
                Source::Made(filesystem("tmpfs", &options, attributes)?)
            }
            RequestSource::File {
                start,
                end,
                mode,
                uid,
                gid,
            } => Source::Made(scratch.file(&files[*start..*end], *mode, (*uid, *gid))?),
        };
        Ok(Self { mount, source })
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.source {
            Source::Given(mount) => mount.as_fd(),
            Source::Made(mount) => mount.as_fd(),
        }
    }

    fn attach(&self, builder: &mut Builder<'_>) -> rustix::io::Result<()> {
        let source = self.as_fd();
        if self.mount.readonly {
            set_readonly(source)?;
        }
        let is_file = !is_directory(source)?;
        let missing = Missing {
            file: is_file,
            owner: None,
            stub: true,
        };
        let target = builder.open(&self.mount.target, missing)?;
        match (is_file, is_directory(&target)?) {
            (false, false) => Err(Errno::NOTDIR),
            (true, true) => Err(Errno::ISDIR),
            _ => attach(source, target),
        }
    }
}

fn set_nodev(mount: BorrowedFd<'_>) -> rustix::io::Result<()> {
    sys::set_nodev(mount).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn set_readonly(mount: impl std::os::fd::AsFd) -> rustix::io::Result<()> {
    sys::set_readonly(mount.as_fd(), true)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn is_directory(path: impl std::os::fd::AsFd) -> rustix::io::Result<bool> {
    let status = rustix::fs::fstat(path)?;
    Ok(rustix::fs::FileType::from_raw_mode(status.st_mode).is_dir())
}

/// A place in memory for files and an empty directory to mount from. It is attached to the old
/// root, and goes with it.
struct Scratch {
    directory: OwnedFd,
    next: std::cell::Cell<u32>,
}

impl Scratch {
    fn create() -> rustix::io::Result<Self> {
        let directory = filesystem("tmpfs", &[("mode", "755")], INERT)?;
        // Only what is attached can be cloned. Not on the root directory: there it would lie
        // between the old root and the new one, and the way back would stay open.
        attach(&directory, open_path("/proc")?)?;
        rustix::fs::mkdirat(&directory, "empty", Mode::from_raw_mode(0o555))?;
        Ok(Self {
            directory,
            next: std::cell::Cell::new(0),
        })
    }

    /// Returns a mount of an empty, read-only directory.
    fn empty_directory(&self) -> rustix::io::Result<OwnedFd> {
        let directory = clone_of(rustix::fs::openat(
            &self.directory,
            "empty",
            HANDLE,
            Mode::empty(),
        )?)?;
        set_readonly(&directory)?;
        Ok(directory)
    }

    /// Returns a mount of a new file.
    fn file(
        &self,
        content: &[u8],
        mode: u32,
        (uid, gid): (u32, u32),
    ) -> rustix::io::Result<OwnedFd> {
        let number = self.next.get();
        self.next.set(number + 1);
        let file = rustix::fs::openat(
            &self.directory,
            format!("{number}"),
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        if (uid, gid) != (0, 0) {
            rustix::fs::fchown(
                &file,
                Some(rustix::fs::Uid::from_raw(uid)),
                Some(rustix::fs::Gid::from_raw(gid)),
            )?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        let mut file = std::fs::File::from(file);
        file.write_all(content)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        clone_of(&file)
    }
}
