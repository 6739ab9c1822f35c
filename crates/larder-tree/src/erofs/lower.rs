use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::format::Time;
use super::tree::{Attributes, DirId};
use super::xattrs;
use crate::beneath::{Root, read_names};
use crate::xattr;
use crate::{Error, ErrorKind};

/// The tree beneath an image, of which only directories are read.
#[derive(Debug)]
pub(super) struct Lower {
    root: Root,
    /// The directory that was looked into last, which most often is the next one too; nothing if
    /// it isn't there.
    last: Option<(DirId, Option<OwnedFd>)>,
}

impl Lower {
    pub(super) fn new(root: Root) -> Self {
        Self { root, last: None }
    }

    /// Returns the type of what is under `name` in the directory at `path`, which the image knows
    /// as `id`.
    pub(super) fn file_type(
        &mut self,
        id: DirId,
        path: &Path,
        name: &OsStr,
    ) -> Result<Option<FileType>, Errno> {
        if self.last.as_ref().is_none_or(|(last, _)| *last != id) {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let fd = found(self.root.open_file(path, flags, Mode::empty()))?;
            self.last = Some((id, fd));
        }
        let Some((_, Some(dir))) = &self.last else {
            return Ok(None);
        };
        match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    pub(super) fn read_link(&self, path: &Path) -> Result<PathBuf, Errno> {
        self.root.read_link(path).map_err(|error| errno(&error))
    }

    pub(super) fn resolve(&self, path: &Path) -> Result<PathBuf, Errno> {
        self.root.resolve(path).map_err(|error| errno(&error))
    }

    pub(super) fn has(&self, path: &Path) -> Result<bool, Errno> {
        found(self.root.open_path(path)).map(|found| found.is_some())
    }

    pub(super) fn names(&self, path: &Path) -> Result<Vec<OsString>, Errno> {
        match found(self.root.open_dir(path))? {
            Some(dir) => read_names(dir),
            None => Ok(Vec::new()),
        }
    }

    /// Returns the attributes of the directory at `path`.
    pub(super) fn attributes(&self, path: &Path) -> Result<Attributes, Errno> {
        attributes(&self.root, path)?.ok_or(Errno::NOENT)
    }
}

/// Returns the attributes of the directory at `path`, `None` if there is none.
pub(super) fn attributes(root: &Root, path: &Path) -> Result<Option<Attributes>, Errno> {
    let Some(dir) = found(root.open_dir(path))? else {
        return Ok(None);
    };
    let stat = fs::fstat(&dir)?;
    let mut attributes = Attributes {
        mode: stat.st_mode & 0o7777,
        owner: (stat.st_uid, stat.st_gid),
        time: Time {
            seconds: stat.st_mtime,
            nanos: stat.st_mtime_nsec as u32,
        },
        ..Attributes::default()
    };
    for (name, value) in xattr::read_all(&dir)? {
        // What the image can't have is of no file system that a layer comes from.
        if xattrs::check(&attributes.xattrs, &name, &value).is_ok() {
            attributes.xattrs.insert(name, value);
        }
    }
    Ok(Some(attributes))
}

/// Returns `None` for what isn't there.
fn found<T>(opened: crate::Result<T>) -> Result<Option<T>, Errno> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => match errno(&error) {
            Errno::NOTDIR => Ok(None),
            errno => Err(errno),
        },
    }
}

fn errno(error: &Error) -> Errno {
    let errno = error.io_source().and_then(Errno::from_io_error);
    errno.unwrap_or(Errno::IO)
}
