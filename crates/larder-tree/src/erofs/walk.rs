use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::tree::{DirId, Found, Tree};
use crate::sink::walk::{self, Seen, Walk};

impl Walk for Tree {
    type Dir = DirId;

    fn look(&mut self, dir: &DirId, name: &OsStr) -> Result<Seen<DirId>, Errno> {
        let found = self.find(*dir, name)?;
        if let Some(target) = self.link_target(*dir, name, found)? {
            return Ok(Seen::Link(target));
        }
        match self.type_of(found) {
            None => Ok(Seen::Nothing),
            Some(FileType::Directory) => self.enter(*dir, name).map(Seen::Dir),
            Some(file_type) => Ok(Seen::Other(file_type)),
        }
    }
}

impl Tree {
    /// Returns the directory that `path` leads to beneath `root`, symlinks included.
    pub(super) fn open_dir(&mut self, root: DirId, path: &Path) -> Result<DirId, Errno> {
        walk::open_dir(self, &root, path)
    }

    /// Returns the type of what `path` leads to beneath `root`, symlinks included.
    pub(super) fn type_at(&mut self, root: DirId, path: &Path) -> Result<FileType, Errno> {
        walk::type_at(self, &root, path)
    }

    /// Returns the path that `path` leads to beneath `root`, as
    /// [`Root::resolve`](crate::beneath::Root::resolve) does.
    pub(super) fn resolve(&mut self, root: DirId, path: &Path) -> Result<PathBuf, Errno> {
        walk::resolve(self, &root, path)
    }

    /// Returns whether `path` leads to what it leads to in the tree beneath, or to nothing in both.
    pub(super) fn shows_beneath(&mut self, path: &Path) -> Result<bool, Errno> {
        let real = self.resolve(Self::ROOT, path)?;
        let Some(lower) = &self.lower else {
            return Ok(false);
        };
        if lower.resolve(path)? != real {
            return Ok(false);
        }
        let found = match (real.parent(), real.file_name()) {
            (Some(parent), Some(name)) => match self.open_dir(Self::ROOT, parent) {
                Ok(dir) => self.find(dir, name)?,
                Err(_) => Found::Nothing,
            },
            _ => return Ok(true),
        };
        match (found, &self.lower) {
            (Found::Beneath(_), _) => Ok(true),
            (Found::Entry(_), _) | (_, None) => Ok(false),
            (Found::Nothing, Some(lower)) => Ok(!lower.has(&real)?),
        }
    }
}
