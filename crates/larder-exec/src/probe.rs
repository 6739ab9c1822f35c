//! What this kernel lets this user do.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use larder_oci::{Mount, MountKind, OverlayUpper};
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::rootless::{self, IdMap};
use crate::{Error, Result, mount};

/// Whether snapshots can be overlays.
#[derive(Debug)]
pub enum Overlay {
    /// They can.
    Available {
        /// Whether overlay's attributes must be `user.overlay.*`.
        userxattr: bool,
    },
    /// They can't: the kernel has no overlayfs, forbids it, or refuses this filesystem.
    Unavailable(Error),
}

/// Tries an overlay with its layers in `directory`, which must exist: one that takes a file and a
/// deletion. Leaves nothing behind.
pub fn overlay(directory: &Path) -> Overlay {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let scratch = directory.join(format!(".probe-{}-{number}", std::process::id()));
    let userxattr = rootless::id_map() != IdMap::Full;
    let tried = try_overlay(&scratch, userxattr);
    if let Err(error) = fs_err::remove_dir_all(&scratch) {
        tracing::debug!(%error, "probe stays");
    }
    match tried {
        Ok(()) => Overlay::Available { userxattr },
        Err(error) => Overlay::Unavailable(error),
    }
}

fn try_overlay(scratch: &Path, userxattr: bool) -> Result<()> {
    let failed = |error| Error::system("cannot try an overlay", error);
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| scratch.join(name));
    for path in [&lower, &upper, &work] {
        fs_err::create_dir_all(path).map_err(failed)?;
    }
    fs_err::write(lower.join("below"), "").map_err(failed)?;
    let root = mount::open(&Mount {
        kind: MountKind::Overlay {
            lowers: vec![lower.into()],
            upper: Some(OverlayUpper { upper, work }),
            userxattr,
        },
        readonly: false,
    })?;
    let failed = |errno: rustix::io::Errno| failed(errno.into());
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(&root, "new", flags, Mode::from_raw_mode(0o644)).map_err(failed)?;
    rustix::fs::unlinkat(&root, "below", AtFlags::empty()).map_err(failed)
}
