use std::path::PathBuf;

/// How to make a snapshot's tree visible. Made by the store, mounted by the executor.
///
/// Paths are absolute host paths below the state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What to mount.
    pub kind: MountKind,
    /// Whether writes are refused.
    pub readonly: bool,
}

/// What a [`Mount`] is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A directory as it is.
    Bind {
        /// The directory.
        source: PathBuf,
    },
    /// Directories stacked by overlayfs.
    Overlay {
        /// The layers, topmost first; never empty.
        lowers: Vec<PathBuf>,
        /// Where writes go; `None` for a read-only view.
        upper: Option<OverlayUpper>,
        /// Whether overlay's own attributes lie in `user.overlay.*` instead of
        /// `trusted.overlay.*`, as an unprivileged mount needs.
        userxattr: bool,
    },
}

/// The writable part of an overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayUpper {
    /// The directory that takes the writes.
    pub upper: PathBuf,
    /// An empty directory on the same filesystem, for overlayfs itself. Serves one mount.
    pub work: PathBuf,
}
