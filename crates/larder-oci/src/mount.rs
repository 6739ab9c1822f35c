use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

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
    /// A tree as it is.
    Bind {
        /// The tree.
        source: Layer,
    },
    /// Layers stacked by overlayfs.
    Overlay {
        /// The layers, topmost first; never empty.
        lowers: Vec<Layer>,
        /// Where writes go; `None` for a read-only view.
        upper: Option<OverlayUpper>,
        /// Whether overlay's own attributes lie in `user.overlay.*` instead of
        /// `trusted.overlay.*`, as an unprivileged mount needs.
        userxattr: bool,
    },
}

/// Where the files of a layer are.
#[derive(Debug, Clone)]
pub enum Layer {
    /// In a directory.
    Directory(PathBuf),
    /// In an image, whose root this is: a mount that is read-only, attached nowhere, and shared by all
    /// who see the layer.
    Image(Arc<OwnedFd>),
}

impl PartialEq for Layer {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Directory(path), Self::Directory(other)) => path == other,
            (Self::Image(root), Self::Image(other)) => Arc::ptr_eq(root, other),
            _ => false,
        }
    }
}

impl Eq for Layer {}

impl From<PathBuf> for Layer {
    fn from(path: PathBuf) -> Self {
        Self::Directory(path)
    }
}

/// The writable part of an overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayUpper {
    /// The directory that takes the writes.
    pub upper: PathBuf,
    /// An empty directory on the same filesystem, for overlayfs itself. Serves one mount.
    pub work: PathBuf,
}
