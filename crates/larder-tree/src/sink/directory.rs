use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;

use super::operations::{Operations, Place};
use crate::beneath::{DirAttributes, Root, read_names, remove_entry};
use crate::copy::{ContentCopier, write_all};
use crate::{Error, Result};

const NEW: Mode = Mode::RUSR.union(Mode::WUSR);

impl Operations for Root {
    type Dir = Arc<OwnedFd>;
    type File = OwnedFd;
    const IS_PARALLEL: bool = true;

    fn subtree(&self, dir: &Self::Dir) -> Result<Self> {
        let dir = dir.try_clone().map(Root::from_fd);
        dir.map_err(|error| Error::io("cannot duplicate a directory handle", error))
    }

    fn open_dir(&self, path: &Path) -> Result<Self::Dir> {
        Root::open_dir(self, path).map(Arc::new)
    }

    fn resolve(&self, path: &Path) -> Result<PathBuf> {
        Root::resolve(self, path)
    }

    fn type_at(&self, path: &Path) -> Result<FileType> {
        self.metadata(path)
            .map(|stat| FileType::from_raw_mode(stat.st_mode))
    }

    fn create_dir_all(
        &self,
        path: &Path,
        attributes: DirAttributes,
    ) -> Result<(Self::Dir, Vec<PathBuf>)> {
        let made = Root::create_dir_all(self, path, attributes)?;
        Ok((Arc::new(made.fd), made.created))
    }

    fn type_of(&self, dir: &Self::Dir, name: &OsStr) -> Result<FileType, Errno> {
        let stat = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    }

    fn enter(&self, dir: &Self::Dir, name: &OsStr) -> Result<Self::Dir, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(dir, name, flags, Mode::empty()).map(Arc::new)
    }

    fn names(&self, dir: &Self::Dir) -> Result<Vec<OsString>, Errno> {
        read_names(dir)
    }

    fn make_dir(&self, dir: &Self::Dir, name: &OsStr) -> Result<(), Errno> {
        fs::mkdirat(dir, name, Mode::RWXU)
    }

    fn make_symlink(&self, dir: &Self::Dir, name: &OsStr, target: &OsStr) -> Result<(), Errno> {
        fs::symlinkat(target, dir, name)
    }

    fn make_special(
        &self,
        dir: &Self::Dir,
        name: &OsStr,
        file_type: FileType,
        device: u64,
    ) -> Result<(), Errno> {
        // A mark of overlayfs is told by its kind alone, and has no permissions.
        let is_mark = file_type == FileType::CharacterDevice && device == 0;
        let mode = if is_mark { Mode::empty() } else { NEW };
        fs::mknodat(dir, name, file_type, mode, device)
    }

    fn make_link(
        &self,
        original: (&Self::Dir, &OsStr),
        name: (&Self::Dir, &OsStr),
    ) -> Result<(), Errno> {
        fs::linkat(original.0, original.1, name.0, name.1, AtFlags::empty())
    }

    fn make_file(&self, dir: &Self::Dir, name: &OsStr) -> Result<Self::File, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        fs::openat(dir, name, flags | OFlags::CLOEXEC, NEW)
    }

    fn rename(&self, dir: &Self::Dir, from: &OsStr, to: &OsStr) -> Result<(), Errno> {
        fs::renameat(dir, from, dir, to)
    }

    fn remove(&self, dir: &Self::Dir, name: &OsStr) -> Result<bool, Errno> {
        remove_entry(dir, name)
    }

    fn write(&self, file: &mut Self::File, bytes: &[u8]) -> Result<(), Errno> {
        write_all(file.as_fd(), bytes)
    }

    fn skip_to(&self, file: &mut Self::File, offset: u64) -> Result<(), Errno> {
        fs::seek(file, SeekFrom::Start(offset)).map(drop)
    }

    fn set_size(&self, file: &mut Self::File, size: u64) -> Result<(), Errno> {
        fs::ftruncate(file, size)
    }

    fn copy_content(
        &self,
        copier: &ContentCopier,
        source: BorrowedFd<'_>,
        stat: &Stat,
        file: &mut Self::File,
    ) -> Result<u64, Errno> {
        copier.copy(source, stat, file.as_fd())
    }

    fn close(&self, _file: Self::File) -> Result<(), Errno> {
        Ok(())
    }

    fn set_owner(&self, entry: Place<'_, Self>, uid: u32, gid: u32) -> Result<(), Errno> {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match open(&entry) {
            Ok(fd) => fs::fchown(fd, uid, gid),
            Err((dir, name)) => fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    fn set_mode(&self, entry: Place<'_, Self>, mode: u32) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(mode);
        match open(&entry) {
            Ok(fd) => fs::fchmod(fd, mode),
            Err((dir, name)) => fs::chmodat(dir, name, mode, AtFlags::empty()),
        }
    }

    fn set_time(&self, entry: Place<'_, Self>, time: Timespec) -> Result<(), Errno> {
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        match open(&entry) {
            Ok(fd) => fs::futimens(fd, &times),
            Err((dir, name)) => fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    fn set_xattr(&self, entry: Place<'_, Self>, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        match open(&entry) {
            Ok(fd) => fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Err(_) => Err(Errno::OPNOTSUPP),
        }
    }
}

/// Returns the handle of what is open, or directory and name of what isn't.
fn open<'a>(entry: &'a Place<'_, Root>) -> Result<BorrowedFd<'a>, (BorrowedFd<'a>, &'a OsStr)> {
    match entry {
        Place::Dir(dir) => Ok(dir.as_fd()),
        Place::File(file) => Ok(file.as_fd()),
        Place::Entry(dir, name) => Err((dir.as_fd(), name)),
    }
}
