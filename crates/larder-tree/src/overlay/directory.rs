//! What is read of the directories of a layer: as the kernel shows them, or as they lie in an image.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, Dir, FileType, Stat, Timespec};
use rustix::io::Errno;

use super::lower::{Layer, enter, open_dir, read_link_at};
use crate::erofs::{ReadEntry, ReadInode, Reader};
use crate::tar::Xattrs;
use crate::xattr;

/// What overlayfs keeps the mark of a directory in that hides what is beneath it.
const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// What an entry of a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Whiteout,
    Opaque,
    Other(FileType),
}

/// The attributes of a file or directory, without marks.
#[derive(Debug)]
pub(crate) struct Attributes {
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) accessed_at: Timespec,
    pub(crate) modified_at: Timespec,
    pub(crate) xattrs: Xattrs,
}

impl Attributes {
    /// Returns those of an open file or directory, which `stat` tells of.
    pub(super) fn of(fd: impl AsFd, stat: &Stat) -> Result<Self, Errno> {
        Ok(Self {
            mode: stat.st_mode & 0o7777,
            owner: (stat.st_uid, stat.st_gid),
            accessed_at: Timespec {
                tv_sec: stat.st_atime,
                tv_nsec: stat.st_atime_nsec as _,
            },
            modified_at: Timespec {
                tv_sec: stat.st_mtime,
                tv_nsec: stat.st_mtime_nsec as _,
            },
            xattrs: xattr::read_all(fd)?,
        })
    }
}

/// A directory of a layer, open for its entries to be looked up.
#[derive(Debug, Clone)]
pub(crate) enum LayerDir {
    Open(Arc<OwnedFd>),
    /// In an image: its entries, in the order of their names.
    Listed(Arc<Reader>, Arc<[ReadEntry]>),
}

/// Opens a directory of a layer.
pub(super) fn open(layer: &dyn Layer, dir: &Path) -> Result<LayerDir, Errno> {
    if let Some(image) = image(layer)? {
        let found = find_dir(&image, dir)?;
        let entries = image.list(&found).map_err(|error| errno(&error))?;
        return Ok(LayerDir::Listed(image, entries.into()));
    }
    Ok(LayerDir::Open(Arc::new(open_dir(layer, dir)?)))
}

/// Gives the entries of a directory of a layer to `take`, each with what tells its kind. That is asked whether
/// something lies below, as marks of a directory matter only then.
pub(super) fn list(
    layer: &dyn Layer,
    dir: &Path,
    mut take: impl FnMut(OsString, &dyn Fn(bool) -> Result<Kind, Errno>) -> Result<(), Errno>,
) -> Result<(), Errno> {
    if let Some(image) = image(layer)? {
        let found = find_dir(&image, dir)?;
        for entry in image.list(&found).map_err(|error| errno(&error))? {
            let kind = |is_below| {
                let kind = kind_in_image(&image, entry.number, entry.file_type, is_below);
                kind.map_err(|error| errno(&error))
            };
            take(entry.name, &kind)?;
        }
        return Ok(());
    }
    let mut entries = Dir::new(open_dir(layer, dir)?)?;
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let name = OsString::from_vec(name.to_vec());
        let dir = entries.fd()?;
        let shown = name.clone();
        take(name, &|is_below| {
            kind_in_directory(dir, &shown, entry.file_type(), is_below)
        })?;
    }
    Ok(())
}

/// Returns the attributes of a directory of a layer.
pub(super) fn attributes(layer: &dyn Layer, dir: &Path) -> Result<Attributes, Errno> {
    if let Some(image) = image(layer)? {
        let found = find_dir(&image, dir)?;
        let xattrs = image.xattrs(&found).map_err(|error| errno(&error))?;
        return Ok(Attributes {
            mode: found.mode & 0o7777,
            owner: (found.uid, found.gid),
            accessed_at: found.mtime(),
            modified_at: found.mtime(),
            xattrs: xattr::without_marks(xattrs),
        });
    }
    let dir = open_dir(layer, dir)?;
    Attributes::of(&dir, &fs::fstat(&dir)?)
}

/// Returns the target of a symlink in a directory of a layer.
pub(super) fn read_link(layer: &dyn Layer, dir: &Path, name: &OsStr) -> Result<PathBuf, Errno> {
    let Some(image) = image(layer)? else {
        return read_link_at(open_dir(layer, dir)?, name);
    };
    let found = image.find(&dir.join(name)).map_err(|error| errno(&error))?;
    let found = found.ok_or(Errno::NOENT)?;
    if found.file_type() != FileType::Symlink {
        return Err(Errno::INVAL);
    }
    image.link_target(&found).map_err(|error| errno(&error))
}

/// Returns whether a directory hides what is beneath it.
pub(super) fn is_opaque(dir: impl AsFd) -> bool {
    OPAQUE.iter().any(|mark| {
        let mut value = [0; 1];
        fs::fgetxattr(&dir, *mark, &mut value[..]) == Ok(1) && value == *b"y"
    })
}

fn kind_in_directory(
    dir: impl AsFd,
    name: &OsStr,
    known: FileType,
    is_below: bool,
) -> Result<Kind, Errno> {
    let mut file_type = known;
    if matches!(known, FileType::Unknown | FileType::CharacterDevice) {
        let stat = fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        file_type = FileType::from_raw_mode(stat.st_mode);
        if file_type == FileType::CharacterDevice && stat.st_rdev == 0 {
            return Ok(Kind::Whiteout);
        }
    }
    if file_type == FileType::Directory && is_below && is_opaque(enter(&dir, name)?) {
        return Ok(Kind::Opaque);
    }
    Ok(Kind::Other(file_type))
}

fn kind_in_image(
    image: &Reader,
    number: u64,
    file_type: FileType,
    is_below: bool,
) -> io::Result<Kind> {
    match file_type {
        FileType::CharacterDevice if image.inode(number)?.device() == (0, 0) => Ok(Kind::Whiteout),
        FileType::Directory if is_below => {
            let xattrs = image.xattrs(&image.inode(number)?)?;
            let marks = OPAQUE.map(|mark| xattrs.get(mark.as_bytes()));
            if marks.into_iter().flatten().any(|value| value == b"y") {
                return Ok(Kind::Opaque);
            }
            Ok(Kind::Other(file_type))
        }
        _ => Ok(Kind::Other(file_type)),
    }
}

fn image(layer: &dyn Layer) -> Result<Option<Arc<Reader>>, Errno> {
    layer.image().map_err(|error| errno(&error))
}

fn find_dir(image: &Reader, dir: &Path) -> Result<ReadInode, Errno> {
    let found = image.find(dir).map_err(|error| errno(&error))?;
    match found.ok_or(Errno::NOENT)? {
        dir if dir.file_type() == FileType::Directory => Ok(dir),
        _ => Err(Errno::NOTDIR),
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
