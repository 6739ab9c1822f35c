//! What older kernels allow only in a mount namespace: done in a thread that has one of its own,
//! so that nothing shows elsewhere and all goes with the thread.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;

use super::{attach, clone_of};
use crate::sys;

/// Runs `work` in a thread with a mount namespace of its own, from which nothing spreads.
pub(super) fn in_own_namespace<T: Send>(
    work: impl FnOnce() -> rustix::io::Result<T> + Send,
) -> rustix::io::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            sys::unshare(libc::CLONE_NEWNS)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            rustix::mount::mount_change(
                "/",
                MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
            )?;
            work()
        });
        thread.join().unwrap_or(Err(Errno::IO))
    })
}

/// Returns a mount of `found`, which lies beneath the detached mount `root`.
///
/// The mount behind `root` is then attached nowhere for good: it can be worked beneath, but not be
/// moved any more.
pub(super) fn clone_beneath(root: BorrowedFd<'_>, found: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    in_own_namespace(|| {
        attach(root, root_directory()?)?;
        clone_of(found)
    })
}

/// Returns two mounts of the detached mount `mount`, which can't be moved any more for good.
pub(super) fn split(mount: &OwnedFd) -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    in_own_namespace(|| {
        attach(mount, root_directory()?)?;
        Ok((clone_of(mount)?, clone_of(mount)?))
    })
}

/// Opens the root directory, which is always there to mount on.
pub(super) fn root_directory() -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}
