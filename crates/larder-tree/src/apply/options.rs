use std::fmt;
use std::path::{Path, PathBuf};

use larder_oci::Digest;
use rustix::fs::Timespec;

use crate::beneath::{DirAttributes, Root};
use crate::quota::{Quota, Unlimited};

/// How many bytes an archive may unpack to unless [`ApplyOptions::max_bytes`] says otherwise.
const MAX_BYTES: u64 = 1 << 40;

/// What a layer is made into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerForm {
    /// A layer directory of overlayfs; the root must be empty. Whiteouts become devices 0:0,
    /// opaque directories get a `trusted.overlay` attribute.
    Overlay,
    /// As `Overlay`, for mounts with the `userxattr` option: the attribute is a `user.overlay`
    /// one. Devices 0:0 can be made in user namespaces since Linux 5.8.
    OverlayUser,
    /// A plain tree that holds the layers beneath: whiteouts remove.
    Tree,
}

/// Who owns what is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Ownership {
    /// The archive tells.
    #[default]
    Preserve,
    /// The process, as where a user namespace maps but one id.
    Current,
    /// This user and group.
    Fixed(u32, u32),
}

/// Something that couldn't be restored, and was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// A device was skipped: we may not make it.
    Device(PathBuf),
    /// A device 0:0 was skipped: overlayfs would take it for a whiteout.
    WhiteoutDevice(PathBuf),
    /// An extended attribute, by name, that the file system or the process may not set.
    Xattr(PathBuf, String),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path) => write!(f, "device `{}` was left out", path.display()),
            Self::WhiteoutDevice(path) => {
                write!(f, "device 0:0 `{}` was left out", path.display())
            }
            Self::Xattr(path, name) => {
                write!(f, "attribute `{name}` of `{}` was left out", path.display())
            }
        }
    }
}

/// Options of [`apply_layer`](super::apply_layer) and [`unpack`](super::unpack).
pub struct ApplyOptions<'a> {
    /// Who owns the entries.
    pub ownership: Ownership,
    /// What directories get that lead to an entry but have none themselves.
    pub implied: DirAttributes,
    /// The merged view of the layers beneath: implied directories take its attributes.
    pub lower: Option<&'a Root>,
    /// How many bytes the archive may have, uncompressed.
    pub max_bytes: u64,
    /// Bounds what is written.
    pub quota: &'a dyn Quota,
    /// Told of each thing that was left out.
    pub on_warning: &'a mut dyn FnMut(Warning),
}

impl<'a> ApplyOptions<'a> {
    /// Returns options that preserve owners and give implied directories mode 0755, root as owner
    /// and time 0. Nothing but the archive's length is bounded.
    pub fn new(on_warning: &'a mut dyn FnMut(Warning)) -> Self {
        Self {
            ownership: Ownership::Preserve,
            implied: DirAttributes {
                mode: 0o755,
                owner: Some((0, 0)),
                time: Some(Timespec::default()),
            },
            lower: None,
            max_bytes: MAX_BYTES,
            quota: &Unlimited,
            on_warning,
        }
    }

    pub(super) fn warn(&mut self, warning: impl FnOnce(PathBuf) -> Warning, path: &Path) {
        (self.on_warning)(warning(path.to_owned()));
    }
}

impl fmt::Debug for ApplyOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplyOptions")
            .field("ownership", &self.ownership)
            .field("implied", &self.implied)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

/// What [`apply_layer`](super::apply_layer) did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyStats {
    /// Digest of the uncompressed archive to its last byte. It is for the caller to compare.
    pub diff_id: Digest,
    /// Bytes of the uncompressed archive.
    pub size_bytes: u64,
    /// Entries of the archive, whiteouts included.
    pub entries: u64,
    /// Directories that the archive has no entry for, parents first in each branch. As part of an
    /// overlay they would hide the attributes of the same directories beneath, unless
    /// [`ApplyOptions::lower`] was given.
    pub implied_dirs: Vec<PathBuf>,
    /// Where whiteouts were made for overlayfs, which a later entry may have replaced.
    pub whiteouts: Vec<PathBuf>,
}

/// What [`unpack`](super::unpack) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnpackStats {
    /// Bytes of the uncompressed archive.
    pub size_bytes: u64,
    /// Entries of the archive.
    pub entries: u64,
}
