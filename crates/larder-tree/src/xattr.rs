//! Extended attributes: which belong to a layer, and the marks that overlayfs keeps in them.

use std::os::fd::AsFd;

use rustix::fs;
use rustix::io::Errno;

use crate::tar::Xattrs;

/// Bytes of a list of names that is read at once; longer ones take a second call.
const SHORT_LIST_BYTES: usize = 1024;

/// The kernel's limit on a list of names and on one value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const MAX_BYTES: usize = 64 << 10;

/// Capabilities of files.
const CAPABILITY: &[u8] = b"security.capability";

/// Capabilities that belong to the root of some user namespace: the revision, and how long they are
/// with and without its id (`struct vfs_ns_cap_data`).
const CAPABILITY_REVISION: std::ops::Range<usize> = 3..4;
const OWNED_CAPABILITY: (u8, usize) = (3, 24);
const CAPABILITY_OF_ALL: (u8, usize) = (2, 20);

/// The attributes of one file or directory.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    /// Those that belong to a layer.
    pub(crate) kept: Xattrs,
    /// Those of overlayfs, without the name of its space: `opaque`, `redirect`.
    pub(crate) overlay: Xattrs,
}

impl Attributes {
    /// Sorts the attributes that a file system holds; what the kernel doesn't show as it lies there is
    /// changed as it would do.
    pub(crate) fn of(xattrs: Xattrs) -> Self {
        let mut attributes = Self::default();
        for (name, mut value) in xattrs {
            if let Some(mark) = overlay_mark(&name) {
                attributes.overlay.insert(mark.to_vec(), value);
            } else if is_kept(&name) {
                if name == CAPABILITY {
                    show_capability(&mut value);
                }
                attributes.kept.insert(name, value);
            }
        }
        attributes
    }

    /// Reads the attributes of an open file or directory; a file system without them has none.
    pub(crate) fn read(fd: impl AsFd) -> Result<Self, Errno> {
        let mut attributes = Self::default();
        for name in names(&fd)?.split(|byte| *byte == 0) {
            if name.is_empty() {
                continue;
            }
            let place = if let Some(mark) = overlay_mark(name) {
                Some((&mut attributes.overlay, mark))
            } else if is_kept(name) {
                Some((&mut attributes.kept, name))
            } else {
                None
            };
            if let Some((attributes, key)) = place
                && let Some(value) = value(&fd, name)?
            {
                attributes.insert(key.to_vec(), value);
            }
        }
        Ok(attributes)
    }

    pub(crate) fn is_opaque(&self) -> bool {
        self.overlay
            .get(&b"opaque"[..])
            .is_some_and(|value| value == b"y")
    }
}

/// Reads all attributes of an open file or directory but those of overlayfs: what a copy on the same
/// host keeps.
pub(crate) fn read_all(fd: impl AsFd) -> Result<Xattrs, Errno> {
    let mut attributes = Xattrs::new();
    for name in names(&fd)?.split(|byte| *byte == 0) {
        if !name.is_empty()
            && overlay_mark(name).is_none()
            && let Some(value) = value(&fd, name)?
        {
            attributes.insert(name.to_vec(), value);
        }
    }
    Ok(attributes)
}

/// Returns all attributes but those of overlayfs.
pub(crate) fn without_marks(mut xattrs: Xattrs) -> Xattrs {
    xattrs.retain(|name, _| overlay_mark(name).is_none());
    xattrs
}

/// Returns whether an attribute belongs to a layer: users' own and file capabilities. The rest
/// belongs to the host: its labels, access lists and administrators.
pub(crate) fn is_kept(name: &[u8]) -> bool {
    name == CAPABILITY || (name.starts_with(b"user.") && overlay_mark(name).is_none())
}

/// Makes capabilities of the host's root those of no root in particular, as the kernel does.
fn show_capability(value: &mut Vec<u8>) {
    let (revision, length) = OWNED_CAPABILITY;
    let (shown_revision, shown_length) = CAPABILITY_OF_ALL;
    if value.len() == length
        && value[CAPABILITY_REVISION] == [revision]
        && value[shown_length..] == [0; 4]
    {
        value.truncate(shown_length);
        value[CAPABILITY_REVISION].copy_from_slice(&[shown_revision]);
    }
}

fn overlay_mark(name: &[u8]) -> Option<&[u8]> {
    name.strip_prefix(b"trusted.overlay.")
        .or_else(|| name.strip_prefix(b"user.overlay."))
}

fn names(fd: impl AsFd) -> Result<Vec<u8>, Errno> {
    let mut list = Vec::with_capacity(SHORT_LIST_BYTES);
    match fs::flistxattr(&fd, rustix::buffer::spare_capacity(&mut list)) {
        Ok(_) | Err(Errno::NOTSUP) => Ok(list),
        Err(Errno::RANGE) => {
            list.reserve(MAX_BYTES);
            fs::flistxattr(&fd, rustix::buffer::spare_capacity(&mut list))?;
            Ok(list)
        }
        Err(errno) => Err(errno),
    }
}

/// Returns a value, `None` if the attribute is gone or hidden from us.
fn value(fd: impl AsFd, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let mut value = Vec::with_capacity(MAX_BYTES);
    match fs::fgetxattr(&fd, name, rustix::buffer::spare_capacity(&mut value)) {
        Ok(_) => {
            value.shrink_to_fit();
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(errno) => Err(errno),
    }
}
