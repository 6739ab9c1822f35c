use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat, Timespec};
use rustix::io::Errno;

use super::directory::{self, Handle};
use super::operations::{Operations, Place};
use super::walk;
use crate::Result;
use crate::beneath::{DirAttributes, failed};
use crate::copy::ContentCopier;
use crate::overlay::{Upper, UpperDir};

impl Operations for Upper {
    type Dir = UpperDir;
    type File = OwnedFd;
    const IS_PARALLEL: bool = true;

    fn subtree(&self, dir: &UpperDir) -> Result<Self> {
        Ok(self.seen_from(dir))
    }

    fn open_dir(&self, path: &Path) -> Result<UpperDir> {
        let found = walk::open_dir(&mut &*self, self.base(), path);
        found.map_err(|errno| failed("open", path, errno))
    }

    fn resolve(&self, path: &Path) -> Result<PathBuf> {
        let found = walk::resolve(&mut &*self, self.base(), path);
        found.map_err(|errno| failed("resolve", path, errno))
    }

    fn type_at(&self, path: &Path) -> Result<FileType> {
        let found = walk::type_at(&mut &*self, self.base(), path);
        found.map_err(|errno| failed("look up", path, errno))
    }

    fn create_dir_all(
        &self,
        path: &Path,
        attributes: DirAttributes,
    ) -> Result<(UpperDir, Vec<PathBuf>)> {
        let create = || {
            let mut dir = self.base().clone();
            let (mut at, mut created, mut made) = (PathBuf::new(), Vec::new(), Vec::new());
            for name in &walk::resolve(&mut &*self, self.base(), path)? {
                at.push(name);
                dir = match self.enter(&dir, name) {
                    Err(Errno::NOENT) => {
                        Upper::make_dir(self, &dir, name)?;
                        let new = self.enter(&dir, name)?;
                        if let Some((uid, gid)) = attributes.owner {
                            self.set_owner(Place::Dir(&new), uid, gid)?;
                        }
                        self.set_mode(Place::Dir(&new), attributes.mode & 0o7777)?;
                        created.push(at.clone());
                        made.push(new.clone());
                        new
                    }
                    entered => entered?,
                };
            }
            // Making a child changes its parent's time, so the times come last.
            if let Some(time) = attributes.time {
                for dir in &made {
                    self.set_time(Place::Dir(dir), time)?;
                }
            }
            Ok((dir, created))
        };
        create().map_err(|errno| failed("create the directory", path, errno))
    }

    fn type_of(&self, dir: &UpperDir, name: &OsStr) -> Result<FileType, Errno> {
        self.find(dir, name)?.file_type().ok_or(Errno::NOENT)
    }

    fn enter(&self, dir: &UpperDir, name: &OsStr) -> Result<UpperDir, Errno> {
        Upper::enter(self, dir, name)
    }

    fn names(&self, dir: &UpperDir) -> Result<Vec<OsString>, Errno> {
        Upper::names(self, dir)
    }

    fn make_dir(&self, dir: &UpperDir, name: &OsStr) -> Result<(), Errno> {
        Upper::make_dir(self, dir, name)
    }

    fn make_symlink(&self, dir: &UpperDir, name: &OsStr, target: &OsStr) -> Result<(), Errno> {
        self.create(dir, name, |own| directory::make_symlink(own, name, target))
    }

    fn make_special(
        &self,
        dir: &UpperDir,
        name: &OsStr,
        file_type: FileType,
        device: u64,
    ) -> Result<(), Errno> {
        // A whiteout made by hand is for whoever knows what lies beneath; overlayfs refuses it, too.
        if file_type == FileType::CharacterDevice && device == 0 {
            return Err(Errno::PERM);
        }
        self.create(dir, name, |own| {
            directory::make_special(own, name, file_type, device)
        })
    }

    fn make_link(
        &self,
        original: (&UpperDir, &OsStr),
        name: (&UpperDir, &OsStr),
    ) -> Result<(), Errno> {
        let from = self.changeable(original.0, original.1)?;
        self.create(name.0, name.1, |own| {
            directory::make_link((&from, original.1), (own, name.1))
        })
    }

    fn make_file(&self, dir: &UpperDir, name: &OsStr) -> Result<OwnedFd, Errno> {
        self.create(dir, name, |own| directory::make_file(own, name))
    }

    fn rename(&self, dir: &UpperDir, from: &OsStr, to: &OsStr) -> Result<(), Errno> {
        Upper::rename(self, dir, from, to)
    }

    fn remove(&self, dir: &UpperDir, name: &OsStr) -> Result<bool, Errno> {
        Upper::remove(self, dir, name)
    }

    fn write(&self, file: &mut OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
        directory::write(file, bytes)
    }

    fn skip_to(&self, file: &mut OwnedFd, offset: u64) -> Result<(), Errno> {
        directory::skip_to(file, offset)
    }

    fn set_size(&self, file: &mut OwnedFd, size: u64) -> Result<(), Errno> {
        directory::set_size(file, size)
    }

    fn copy_content(
        &self,
        copier: &ContentCopier,
        source: BorrowedFd<'_>,
        stat: &Stat,
        file: &mut OwnedFd,
    ) -> Result<u64, Errno> {
        directory::copy_content(copier, source, stat, file)
    }

    fn close(&self, _file: OwnedFd) -> Result<(), Errno> {
        Ok(())
    }

    fn set_owner(&self, entry: Place<'_, Self>, uid: u32, gid: u32) -> Result<(), Errno> {
        self.change(entry, |handle| handle.set_owner(uid, gid))
    }

    fn set_mode(&self, entry: Place<'_, Self>, mode: u32) -> Result<(), Errno> {
        self.change(entry, |handle| handle.set_mode(mode))
    }

    fn set_time(&self, entry: Place<'_, Self>, time: Timespec) -> Result<(), Errno> {
        self.change(entry, |handle| handle.set_time(time))
    }

    fn set_xattr(&self, entry: Place<'_, Self>, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        self.change(entry, |handle| handle.set_xattr(name, value))
    }
}

impl Upper {
    fn change(
        &self,
        entry: Place<'_, Self>,
        change: impl FnOnce(Handle<'_>) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        match entry {
            Place::File(file) => change(Handle::Open(file.as_fd())),
            Place::Dir(dir) => change(Handle::Open(self.own(dir)?.as_fd())),
            Place::Entry(dir, name) => {
                change(Handle::Entry(self.changeable(dir, name)?.as_fd(), name))
            }
        }
    }
}
