use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::format::MAX_NAME_BYTES;
use super::image::time;
use super::tree::Attributes;
use super::xattrs;
use crate::overlay;
use crate::sink::walk::{self, Seen, Walk};

/// The tree beneath an image, of which only directories are read.
#[derive(Debug)]
pub(super) struct Lower(overlay::Lower);

impl Lower {
    pub(super) fn new(lower: overlay::Lower) -> Self {
        Self(lower)
    }

    /// Returns the type of what is under `name` in the directory `dir`.
    pub(super) fn file_type(&self, dir: &Path, name: &OsStr) -> Result<Option<FileType>, Errno> {
        if name.len() > MAX_NAME_BYTES {
            return Err(Errno::NAMETOOLONG);
        }
        Ok(self.0.find(dir, name)?.map(|found| found.file_type))
    }

    pub(super) fn read_link(&self, dir: &Path, name: &OsStr) -> Result<PathBuf, Errno> {
        let found = self.0.find(dir, name)?.ok_or(Errno::NOENT)?;
        self.0.read_link(found.layer, dir, name)
    }

    pub(super) fn resolve(&self, path: &Path) -> Result<PathBuf, Errno> {
        walk::resolve(&mut &*self, &PathBuf::new(), path)
    }

    /// Returns whether anything is at a path without symlinks.
    pub(super) fn has(&self, path: &Path) -> Result<bool, Errno> {
        has(&self.0, path)
    }

    pub(super) fn names(&self, dir: &Path) -> Result<Vec<OsString>, Errno> {
        self.0.names(dir)
    }

    /// Returns the attributes of the directory at `path`.
    pub(super) fn attributes(&self, path: &Path) -> Result<Attributes, Errno> {
        attributes(&self.0, path)?.ok_or(Errno::NOENT)
    }
}

impl Walk for &Lower {
    type Dir = PathBuf;

    fn look(&mut self, dir: &PathBuf, name: &OsStr) -> Result<Seen<PathBuf>, Errno> {
        match self.file_type(dir, name)? {
            None => Ok(Seen::Nothing),
            Some(FileType::Directory) => Ok(Seen::Dir(dir.join(name))),
            Some(FileType::Symlink) => self.read_link(dir, name).map(Seen::Link),
            Some(file_type) => Ok(Seen::Other(file_type)),
        }
    }
}

/// Returns whether `lower` shows anything at a path without symlinks.
pub(super) fn has(lower: &overlay::Lower, path: &Path) -> Result<bool, Errno> {
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => Ok(lower.find(dir, name)?.is_some()),
        _ => Ok(true),
    }
}

/// Returns the attributes of the directory at `path`, `None` if there is none.
pub(super) fn attributes(lower: &overlay::Lower, path: &Path) -> Result<Option<Attributes>, Errno> {
    let Some(dir) = lower.attributes(path)? else {
        return Ok(None);
    };
    let mut attributes = Attributes {
        mode: dir.mode,
        owner: dir.owner,
        time: time(dir.modified_at),
        ..Attributes::default()
    };
    for (name, value) in dir.xattrs {
        // What the image can't have is of no file system that a layer comes from.
        if xattrs::check(&attributes.xattrs, &name, &value).is_ok() {
            attributes.xattrs.insert(name, value);
        }
    }
    Ok(Some(attributes))
}
