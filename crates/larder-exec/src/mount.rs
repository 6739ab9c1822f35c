//! Detached mounts: mounts that are attached nowhere and live as long as their descriptor.
//!
//! Callers work beneath the descriptor; a run moves the mount into its own namespace. Since nothing
//! is ever attached to this process's tree, nothing is left behind when it is killed.
//!
//! Uses the mount API of Linux 5.12 and later only.

mod isolated;
mod overlay;

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use larder_oci::{Layer, MountKind};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use crate::{Error, ErrorKind, Result, sys};

/// Whether a mount can be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Writes are refused.
    ReadOnly,
    /// Writes are possible.
    ReadWrite,
}

/// Mounts a snapshot's tree.
///
/// # Errors
/// [`ErrorKind::Input`] for an overlay without layers or with more than 500;
/// [`ErrorKind::Unsupported`] where overlayfs can't be mounted; [`ErrorKind::System`] otherwise.
pub fn open(mount: &larder_oci::Mount) -> Result<OwnedFd> {
    let access = if mount.readonly {
        Access::ReadOnly
    } else {
        Access::ReadWrite
    };
    match &mount.kind {
        MountKind::Bind { source } => bind_layer(source, access),
        MountKind::Overlay {
            lowers,
            upper,
            userxattr,
        } => match (lowers.as_slice(), upper) {
            ([], _) => Err(Error::new(
                ErrorKind::Input,
                "cannot mount an overlay of no layers",
            )),
            // overlayfs refuses a single layer.
            ([only], None) => bind_layer(only, Access::ReadOnly),
            (lowers, upper) => overlay::open(lowers, upper.as_ref(), *userxattr, access),
        },
    }
}

fn bind_layer(layer: &Layer, access: Access) -> Result<OwnedFd> {
    match layer {
        Layer::Directory(path) => bind(path, access),
        // Images are read-only in any case.
        Layer::Image(root) => {
            clone_of(root).map_err(|errno| Error::system("cannot show an image's files", errno))
        }
    }
}

/// Mounts the EROFS image in `file`, read-only, which uses blocks of other images: its extra `devices`. Its files are read as
/// they are asked for; all of them may be unlinked meanwhile.
///
/// # Errors
/// [`ErrorKind::Unsupported`] where the kernel has no EROFS, or none that takes files (Linux 6.12);
/// [`ErrorKind::System`] otherwise, also for a file that is no image.
pub fn image(file: impl AsFd, devices: &[BorrowedFd<'_>]) -> Result<OwnedFd> {
    let path = |file: BorrowedFd<'_>| format!("/proc/self/fd/{}", file.as_raw_fd());
    let mount = || {
        let context = rustix::mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(context.as_fd(), "source", path(file.as_fd()))?;
        for device in devices {
            rustix::mount::fsconfig_set_string(context.as_fd(), "device", path(*device))?;
        }
        rustix::mount::fsconfig_set_flag(context.as_fd(), "ro")?;
        create(&context, MountAttrFlags::MOUNT_ATTR_RDONLY)
    };
    mount().map_err(|errno| match errno {
        Errno::NODEV => Error::caused(ErrorKind::Unsupported, "the kernel has no EROFS", errno),
        Errno::NOTBLK => {
            let text = "the kernel mounts EROFS from block devices only";
            Error::caused(ErrorKind::Unsupported, text, errno)
        }
        errno => Error::system("cannot mount an EROFS image", errno),
    })
}

/// Mounts a directory or file of this process's tree, with what is mounted beneath it. Symbolic
/// links in `source` are followed.
pub fn bind(source: impl AsRef<Path>, access: Access) -> Result<OwnedFd> {
    let mount = rustix::mount::open_tree(CWD, source.as_ref(), clone_flags())
        .map_err(|errno| Error::system("cannot bind a directory", errno))?;
    restrict(&mount, access)?;
    Ok(mount)
}

/// Mounts a directory or file beneath `root`, which may itself lie in a detached mount. No
/// symbolic link leads out of `root`.
///
/// # Errors
/// [`ErrorKind::Input`] if there is no such path.
pub fn bind_beneath(
    root: BorrowedFd<'_>,
    path: impl AsRef<Path>,
    access: Access,
) -> Result<OwnedFd> {
    let path = path.as_ref();
    let failed = |errno: Errno| {
        let message = format!("cannot bind `{}`", path.display());
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => {
                Error::caused(ErrorKind::Input, message, errno)
            }
            _ => Error::system(message, errno),
        }
    };
    let relative = path.strip_prefix("/").unwrap_or(path);
    let relative = if relative.as_os_str().is_empty() {
        Path::new(".")
    } else {
        relative
    };
    let found = rustix::fs::openat2(
        root,
        relative,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    )
    .map_err(failed)?;
    let mount = match clone_of(&found) {
        // Before Linux 6.15 only what is attached to one's own namespace can be cloned.
        Err(Errno::INVAL) => isolated::clone_beneath(root, &found),
        cloned => cloned,
    }
    .map_err(failed)?;
    restrict(&mount, access)?;
    Ok(mount)
}

/// Returns two mounts of what `mount`, which is detached, shows. Each can be given to a run, or be
/// split again.
pub fn split(mount: OwnedFd) -> Result<(OwnedFd, OwnedFd)> {
    match clone_of(&mount) {
        Ok(other) => Ok((mount, other)),
        // Before Linux 6.15 only what is attached to one's own namespace can be cloned.
        Err(Errno::INVAL) => isolated::split(&mount),
        Err(errno) => Err(errno),
    }
    .map_err(|errno| Error::system("cannot mount a tree twice", errno))
}

/// Mounts an empty directory in memory with the given size, and permission bits of its root.
pub fn tmpfs(size_bytes: Option<u64>, mode: u32) -> Result<OwnedFd> {
    let mode = format!("{mode:o}");
    let size = size_bytes.map(|bytes| bytes.to_string());
    let mut options = vec![("mode", mode.as_str())];
    options.extend(size.as_deref().map(|size| ("size", size)));
    filesystem(
        "tmpfs",
        &options,
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV,
    )
    .map_err(|errno| Error::system("cannot mount a directory in memory", errno))
}

/// Mounts a new filesystem of a type with options.
pub(crate) fn filesystem(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    // What tables of mounts show as the device.
    rustix::mount::fsconfig_set_string(context.as_fd(), "source", kind)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)?;
    }
    create(&context, attributes)
}

/// Mounts the filesystem that was configured.
fn create(context: &OwnedFd, attributes: MountAttrFlags) -> rustix::io::Result<OwnedFd> {
    rustix::mount::fsconfig_create(context.as_fd())?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Returns another mount of what an open path shows, with what is mounted beneath it.
pub(crate) fn clone_of(path: impl AsFd) -> rustix::io::Result<OwnedFd> {
    rustix::mount::open_tree(
        path.as_fd(),
        "",
        clone_flags() | OpenTreeFlags::AT_EMPTY_PATH,
    )
}

fn clone_flags() -> OpenTreeFlags {
    OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE
}

/// Moves a detached mount onto an open path of this process's mount namespace.
pub(crate) fn attach(mount: impl AsFd, target: impl AsFd) -> rustix::io::Result<()> {
    rustix::mount::move_mount(
        mount.as_fd(),
        "",
        target.as_fd(),
        "",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
}

fn restrict(mount: &OwnedFd, access: Access) -> Result<()> {
    if access == Access::ReadOnly {
        sys::set_readonly(mount.as_fd(), true)
            .map_err(|error| Error::system("cannot make a mount read-only", error))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "mount_tests.rs"]
mod tests;
