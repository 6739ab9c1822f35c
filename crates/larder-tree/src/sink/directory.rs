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
        make_symlink(dir, name, target)
    }

    fn make_special(
        &self,
        dir: &Self::Dir,
        name: &OsStr,
        file_type: FileType,
        device: u64,
    ) -> Result<(), Errno> {
        make_special(dir, name, file_type, device)
    }

    fn make_link(
        &self,
        original: (&Self::Dir, &OsStr),
        name: (&Self::Dir, &OsStr),
    ) -> Result<(), Errno> {
        make_link((original.0, original.1), (name.0, name.1))
    }

    fn make_file(&self, dir: &Self::Dir, name: &OsStr) -> Result<Self::File, Errno> {
        make_file(dir, name)
    }

    fn rename(&self, dir: &Self::Dir, from: &OsStr, to: &OsStr) -> Result<(), Errno> {
        fs::renameat(dir, from, dir, to)
    }

    fn remove(&self, dir: &Self::Dir, name: &OsStr) -> Result<bool, Errno> {
        remove_entry(dir, name)
    }

    fn write(&self, file: &mut Self::File, bytes: &[u8]) -> Result<(), Errno> {
        write(file, bytes)
    }

    fn skip_to(&self, file: &mut Self::File, offset: u64) -> Result<(), Errno> {
        skip_to(file, offset)
    }

    fn set_size(&self, file: &mut Self::File, size: u64) -> Result<(), Errno> {
        set_size(file, size)
    }

    fn copy_content(
        &self,
        copier: &ContentCopier,
        source: BorrowedFd<'_>,
        stat: &Stat,
        file: &mut Self::File,
    ) -> Result<u64, Errno> {
        copy_content(copier, source, stat, file)
    }

    fn close(&self, _file: Self::File) -> Result<(), Errno> {
        Ok(())
    }

    fn set_owner(&self, entry: Place<'_, Self>, uid: u32, gid: u32) -> Result<(), Errno> {
        handle(&entry).set_owner(uid, gid)
    }

    fn set_mode(&self, entry: Place<'_, Self>, mode: u32) -> Result<(), Errno> {
        handle(&entry).set_mode(mode)
    }

    fn set_time(&self, entry: Place<'_, Self>, time: Timespec) -> Result<(), Errno> {
        handle(&entry).set_time(time)
    }

    fn set_xattr(&self, entry: Place<'_, Self>, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        handle(&entry).set_xattr(name, value)
    }
}

pub(super) fn make_symlink(dir: &OwnedFd, name: &OsStr, target: &OsStr) -> Result<(), Errno> {
    fs::symlinkat(target, dir, name)
}

pub(super) fn make_special(
    dir: &OwnedFd,
    name: &OsStr,
    file_type: FileType,
    device: u64,
) -> Result<(), Errno> {
    // A mark of overlayfs is told by its kind alone, and has no permissions.
    let is_mark = file_type == FileType::CharacterDevice && device == 0;
    let mode = if is_mark { Mode::empty() } else { NEW };
    fs::mknodat(dir, name, file_type, mode, device)
}

pub(super) fn make_link(
    original: (&OwnedFd, &OsStr),
    name: (&OwnedFd, &OsStr),
) -> Result<(), Errno> {
    fs::linkat(original.0, original.1, name.0, name.1, AtFlags::empty())
}

pub(super) fn make_file(dir: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    fs::openat(dir, name, flags | OFlags::CLOEXEC, NEW)
}

pub(super) fn write(file: &OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
    write_all(file.as_fd(), bytes)
}

pub(super) fn skip_to(file: &OwnedFd, offset: u64) -> Result<(), Errno> {
    fs::seek(file, SeekFrom::Start(offset)).map(drop)
}

pub(super) fn set_size(file: &OwnedFd, size: u64) -> Result<(), Errno> {
    fs::ftruncate(file, size)
}

pub(super) fn copy_content(
    copier: &ContentCopier,
    source: BorrowedFd<'_>,
    stat: &Stat,
    file: &OwnedFd,
) -> Result<u64, Errno> {
    copier.copy(source, stat, file.as_fd())
}

/// What attributes are given to: something open, or a directory's entry.
pub(super) enum Handle<'a> {
    Open(BorrowedFd<'a>),
    Entry(BorrowedFd<'a>, &'a OsStr),
}

impl Handle<'_> {
    pub(super) fn set_owner(&self, uid: u32, gid: u32) -> Result<(), Errno> {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match self {
            Self::Open(fd) => fs::fchown(fd, uid, gid),
            Self::Entry(dir, name) => fs::chownat(dir, *name, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    pub(super) fn set_mode(&self, mode: u32) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(mode);
        match self {
            Self::Open(fd) => fs::fchmod(fd, mode),
            Self::Entry(dir, name) => fs::chmodat(dir, *name, mode, AtFlags::empty()),
        }
    }

    pub(super) fn set_time(&self, time: Timespec) -> Result<(), Errno> {
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        match self {
            Self::Open(fd) => fs::futimens(fd, &times),
            Self::Entry(dir, name) => fs::utimensat(dir, *name, &times, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    pub(super) fn set_xattr(&self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Entry(..) => Err(Errno::OPNOTSUPP),
        }
    }
}

/// Returns the handle of what is open, or directory and name of what isn't.
fn handle<'a>(entry: &'a Place<'_, Root>) -> Handle<'a> {
    match entry {
        Place::Dir(dir) => Handle::Open(dir.as_fd()),
        Place::File(file) => Handle::Open(file.as_fd()),
        Place::Entry(dir, name) => Handle::Entry(dir.as_fd(), name),
    }
}
