//! Extended attributes: which belong to a layer, and the marks that overlayfs keeps in them.

use std::os::fd::AsFd;

use rustix::fs;
use rustix::io::Errno;

use crate::tar::Xattrs;

/// Bytes of a list of names that is read at once; longer ones take a second call.
const SHORT_LIST_BYTES: usize = 1024;

/// The kernel's limit on a list of names and on one value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const MAX_BYTES: usize = 64 << 10;

/// The attributes of one file or directory.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    /// Those that belong to a layer.
    pub(crate) kept: Xattrs,
    /// Those of overlayfs, without the name of its space: `opaque`, `redirect`.
    pub(crate) overlay: Xattrs,
}

impl Attributes {
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

/// Returns whether an attribute belongs to a layer: users' own and file capabilities. The rest
/// belongs to the host: its labels, access lists and administrators.
pub(crate) fn is_kept(name: &[u8]) -> bool {
    name == b"security.capability" || (name.starts_with(b"user.") && overlay_mark(name).is_none())
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
