use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::format::MAX_NAME_BYTES;
use super::tree::{DirId, Found, Tree};
use crate::beneath::{MAX_SYMLINKS, Step, steps};

/// The kernel's limit on a path, with the zero at its end.
const MAX_PATH_BYTES: usize = 4096;

/// What a step leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reached {
    Dir(DirId),
    Other(FileType),
    Nothing,
}

impl Tree {
    /// Returns the directory that `path` leads to beneath `root`, symlinks included.
    pub(super) fn open_dir(&mut self, root: DirId, path: &Path) -> Result<DirId, Errno> {
        match self.follow(root, path)? {
            Reached::Dir(dir) => Ok(dir),
            Reached::Other(_) => Err(Errno::NOTDIR),
            Reached::Nothing => Err(Errno::NOENT),
        }
    }

    /// Returns the type of what `path` leads to beneath `root`, symlinks included.
    pub(super) fn type_at(&mut self, root: DirId, path: &Path) -> Result<FileType, Errno> {
        match self.follow(root, path)? {
            Reached::Dir(_) => Ok(FileType::Directory),
            Reached::Other(file_type) => Ok(file_type),
            Reached::Nothing => Err(Errno::NOENT),
        }
    }

    /// Returns the path that `path` leads to beneath `root`, as
    /// [`Root::resolve`](crate::beneath::Root::resolve) does.
    pub(super) fn resolve(&mut self, root: DirId, path: &Path) -> Result<PathBuf, Errno> {
        let reached = self.walk(root, path, false)?;
        Ok(reached.into_iter().map(|(name, _)| name).collect())
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

    fn follow(&mut self, root: DirId, path: &Path) -> Result<Reached, Errno> {
        if path.as_os_str().len() >= MAX_PATH_BYTES {
            return Err(Errno::NAMETOOLONG);
        }
        let last = self.walk(root, path, true)?.pop();
        Ok(last.map_or(Reached::Dir(root), |(_, reached)| reached))
    }

    /// Follows `path` name by name. With `must_exist`, all but the last name must be directories.
    fn walk(
        &mut self,
        root: DirId,
        path: &Path,
        must_exist: bool,
    ) -> Result<Vec<(OsString, Reached)>, Errno> {
        let mut pending: VecDeque<Step> = steps(path).collect();
        let mut reached: Vec<(OsString, Reached)> = Vec::new();
        let mut symlinks = 0;
        while let Some(step) = pending.pop_front() {
            let parent = reached.last();
            let parent = parent.map_or(Reached::Dir(root), |(_, reached)| *reached);
            if must_exist && !matches!((parent, &step), (Reached::Dir(_), _) | (_, Step::Root)) {
                let is_missing = parent == Reached::Nothing;
                return Err(if is_missing {
                    Errno::NOENT
                } else {
                    Errno::NOTDIR
                });
            }
            let name = match step {
                Step::Root => {
                    reached.clear();
                    continue;
                }
                Step::Up => {
                    reached.pop();
                    continue;
                }
                Step::Name(name) => name,
            };
            let Reached::Dir(dir) = parent else {
                reached.push((name, Reached::Nothing));
                continue;
            };
            if name.as_bytes().len() > MAX_NAME_BYTES {
                return Err(Errno::NAMETOOLONG);
            }
            let found = self.find(dir, &name)?;
            if let Some(target) = self.link_target(dir, &name, found)? {
                symlinks += 1;
                if symlinks > MAX_SYMLINKS {
                    return Err(Errno::LOOP);
                }
                for step in steps(&target).rev() {
                    pending.push_front(step);
                }
                continue;
            }
            let next = match self.type_of(found) {
                None => Reached::Nothing,
                Some(FileType::Directory) => Reached::Dir(self.enter(dir, &name)?),
                Some(file_type) => Reached::Other(file_type),
            };
            reached.push((name, next));
        }
        Ok(reached)
    }
}
