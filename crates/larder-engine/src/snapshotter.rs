//! How the snapshots of a state directory are made visible: decided once, when it is made.

use std::path::Path;

use larder_exec::probe::{self, Overlay};
use larder_store::Snapshotter;

use crate::config::SnapshotterConfig;
use crate::error::{BuildError, ErrorClass, Result};

/// Names the snapshotter that a state directory was made with.
const FILE: &str = "snapshotter";

/// The snapshotters by the names in [`FILE`].
const NAMES: [(&str, Snapshotter); 3] = [
    ("overlay", Snapshotter::Overlay { userxattr: false }),
    (
        "overlay-userxattr",
        Snapshotter::Overlay { userxattr: true },
    ),
    ("native", Snapshotter::Native),
];

/// Returns the snapshotter of the state directory `root`: the one it was made with, else the one
/// that is `wanted`, by default what this kernel and user can.
///
/// # Errors
/// When the directory can't be written, was made with another snapshotter than the one that is
/// wanted, or overlays are wanted and can't be had.
pub(crate) fn choose(root: &Path, wanted: SnapshotterConfig) -> Result<Snapshotter> {
    let file = root.join(FILE);
    let known = fs_err::read_to_string(&file).unwrap_or_default();
    if let Some((_, known)) = NAMES.iter().find(|(name, _)| *name == known.trim()) {
        return check(*known, wanted);
    }
    let failed = |source: std::io::Error| {
        let class = match source.kind() {
            std::io::ErrorKind::StorageFull => ErrorClass::Exhausted,
            _ => ErrorClass::Denied,
        };
        let message = format!("cannot write to the state directory `{}`", root.display());
        BuildError::new(class, message)
            .with_source(source)
            .with_hint("choose another with `--root` or `LARDER_ROOT`")
    };
    std::fs::create_dir_all(root).map_err(failed)?;
    let snapshotter = match wanted {
        SnapshotterConfig::Native => Snapshotter::Native,
        SnapshotterConfig::Auto => overlay(root).unwrap_or_else(|error| {
            tracing::warn!(%error, "overlayfs is not available: snapshots are copies");
            Snapshotter::Native
        }),
        SnapshotterConfig::Overlayfs => overlay(root).map_err(|error| {
            BuildError::new(ErrorClass::Denied, "overlayfs is not available")
                .with_source(error)
                .with_hint("`snapshotter = \"auto\"` takes copies where it is not")
        })?,
    };
    let name = NAMES.iter().find(|(_, known)| *known == snapshotter);
    let (name, _) = name.expect("each snapshotter has a name");
    let temporary = root.join(format!("{FILE}.{}", std::process::id()));
    std::fs::write(&temporary, name).map_err(failed)?;
    std::fs::rename(&temporary, &file).map_err(failed)?;
    Ok(snapshotter)
}

fn overlay(root: &Path) -> std::result::Result<Snapshotter, larder_exec::Error> {
    match probe::overlay(root) {
        Overlay::Available { userxattr } => Ok(Snapshotter::Overlay { userxattr }),
        Overlay::Unavailable(error) => Err(error),
    }
}

/// Checks that the snapshotter of a state directory is the one that is wanted: what was made with
/// one can't be read with another.
fn check(known: Snapshotter, wanted: SnapshotterConfig) -> Result<Snapshotter> {
    let (name, fits) = match known {
        Snapshotter::Native => ("native", wanted != SnapshotterConfig::Overlayfs),
        Snapshotter::Overlay { .. } => ("overlayfs", wanted != SnapshotterConfig::Native),
    };
    if fits {
        return Ok(known);
    }
    let message = format!("the state directory was made with the snapshotter `{name}`");
    Err(BuildError::invalid(message)
        .with_hint("choose another with `--root`, or leave `worker.oci.snapshotter` away"))
}
