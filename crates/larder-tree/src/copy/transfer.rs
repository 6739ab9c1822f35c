use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timestamps, Uid};
use rustix::io::Errno;

use super::content::{ContentCopier, read_and_write};
use super::options::{CopyOptions, timespec};
use crate::beneath::remove_entry;
use crate::context::{
    Attributes, Entry, Kind, RecordHasher, Stamp, Tree, Xattrs, cannot_read, changed, read_xattrs,
};
use crate::error::owner_failed;
use crate::quota::{self, Quota};
use crate::{Error, ErrorKind, Result};

/// Copies single entries.
pub(super) struct Transfer<'a> {
    pub(super) source: &'a Tree,
    pub(super) options: &'a CopyOptions,
    pub(super) quota: &'a dyn Quota,
    content: ContentCopier,
}

/// Where an entry goes: a name in an open directory.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) dir: BorrowedFd<'a>,
    pub(super) name: &'a OsStr,
    /// The path in the destination, for messages.
    pub(super) path: &'a Path,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(source: &'a Tree, options: &'a CopyOptions, quota: &'a dyn Quota) -> Self {
        Self {
            source,
            options,
            quota,
            content: ContentCopier::default(),
        }
    }

    /// Takes what is about to be written at `path`.
    pub(super) fn take(&self, path: &Path, bytes: u64) -> Result<()> {
        let taken = self.quota.take(bytes);
        taken.map_err(|error| Error::io(format!("cannot write `{}`", shown(path)), error))
    }

    /// Copies what is not a directory, out of the open directory `dir`, and replaces what is at
    /// `place`; returns how many bytes a file had.
    pub(super) fn copy(&self, entry: &Entry<'_>, dir: impl AsFd, place: Place<'_>) -> Result<u64> {
        let failed = |errno| cannot_write(place.path, errno);
        let attributes = entry.attributes();
        let link = quota::link_bytes(entry.link_target());
        self.take(place.path, quota::name_bytes(place.name.len()) + link)?;
        match attributes.kind {
            Kind::File => return self.copy_file(entry, dir.as_fd(), place),
            Kind::Symlink => self.make(place, || {
                fs::symlinkat(entry.link_target(), place.dir, place.name)
            })?,
            kind => {
                let (major, minor) = attributes.device;
                let device = fs::makedev(major, minor);
                let file_type = file_type(kind);
                self.make(place, || {
                    fs::mknodat(place.dir, place.name, file_type, Mode::empty(), device)
                })?;
            }
        }
        let (uid, gid) = self.owner(attributes);
        fs::chownat(place.dir, place.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| owner_failed(shown(place.path), errno))?;
        if attributes.kind != Kind::Symlink {
            fs::chmodat(
                place.dir,
                place.name,
                self.mode(attributes),
                AtFlags::empty(),
            )
            .map_err(failed)?;
        }
        let times = self.times(attributes);
        fs::utimensat(place.dir, place.name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        Ok(0)
    }

    /// Makes `place` a further name of the file `original`, which the copy made.
    pub(super) fn link(&self, original: Place<'_>, place: Place<'_>) -> Result<()> {
        self.make(place, || {
            let flags = AtFlags::empty();
            fs::linkat(original.dir, original.name, place.dir, place.name, flags)
        })
    }

    /// Gives the attributes of a source directory to an open one.
    pub(super) fn set_dir_attributes(
        &self,
        source: &Entry<'_>,
        fd: &OwnedFd,
        path: &Path,
    ) -> Result<()> {
        let shown = source.path();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let source_fd = self.source.root().open_file(shown, flags, Mode::empty())?;
        let xattrs = read_xattrs(source_fd).map_err(|errno| cannot_read(shown, errno))?;
        self.set_attributes(source.attributes(), &xattrs, fd, path)
    }

    /// Gives the time of a source directory to an open one.
    pub(super) fn set_dir_times(
        &self,
        source: &Entry<'_>,
        fd: &OwnedFd,
        path: &Path,
    ) -> Result<()> {
        fs::futimens(fd, &self.times(source.attributes())).map_err(|e| cannot_write(path, e))
    }

    fn copy_file(&self, entry: &Entry<'_>, dir: BorrowedFd<'_>, place: Place<'_>) -> Result<u64> {
        let unreadable = |errno| cannot_read(entry.path(), errno);
        let failed = |errno| cannot_write(place.path, errno);
        // A pipe may stand here by now; opening it must not wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let name = OsStr::from_bytes(entry.name());
        let source = fs::openat(dir, name, flags, Mode::empty()).map_err(unreadable)?;
        let stat = fs::fstat(&source).map_err(unreadable)?;
        let attributes = entry.attributes();
        if Stamp::new(&stat) != attributes.stamp {
            return Err(changed(entry.path()));
        }
        let xattrs = read_xattrs(&source).map_err(unreadable)?;
        // What is untrusted is read, so that its holes are filled.
        let verified = entry
            .known_digest()
            .filter(|_| !self.source.is_trusted(&attributes.stamp));
        let allocated = match verified {
            Some(_) => attributes.size,
            None => attributes.size.min(stat.st_blocks as u64 * 512),
        };
        let pairs = xattrs.iter().map(|(name, value)| (&name[..], &value[..]));
        let bytes = quota::content_bytes(allocated) + quota::xattrs_bytes(pairs);
        self.take(place.path, bytes)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let target = self.make(place, || fs::openat(place.dir, place.name, flags, mode))?;
        let (from, to) = (source.as_fd(), target.as_fd());
        let count = match verified {
            Some(expected) => {
                let mut hasher = RecordHasher::new(attributes, &[], &xattrs);
                let count = read_and_write(from, to, |bytes| hasher.update(bytes));
                if hasher.finish() != expected {
                    return Err(changed(entry.path()));
                }
                count
            }
            None => self.content.copy(from, &stat, to),
        };
        let count = count.map_err(failed)?;
        let after = fs::fstat(&source).map_err(unreadable)?;
        if count != attributes.size || Stamp::new(&after) != attributes.stamp {
            return Err(changed(entry.path()));
        }
        self.set_attributes(attributes, &xattrs, &target, place.path)?;
        Ok(count)
    }

    /// Runs `create`, again if something is in the way that may be removed.
    fn make<T>(&self, place: Place<'_>, create: impl Fn() -> Result<T, Errno>) -> Result<T> {
        let failed = |errno| cannot_write(place.path, errno);
        match create() {
            Err(Errno::EXIST) => {}
            result => return result.map_err(failed),
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let stat = fs::statat(place.dir, place.name, flags).map_err(failed)?;
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_dir && !self.options.always_replace_existing_dest_paths {
            let message = format!(
                "cannot replace to directory `{}` with file",
                shown(place.path)
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        remove_entry(place.dir, place.name).map_err(failed)?;
        create().map_err(failed)
    }

    fn set_attributes(
        &self,
        attributes: &Attributes,
        xattrs: &Xattrs,
        fd: &OwnedFd,
        path: &Path,
    ) -> Result<()> {
        let failed = |errno| cannot_write(path, errno);
        // A change of owner takes set-id bits and capabilities away, so it comes first.
        let (uid, gid) = self.owner(attributes);
        fs::fchown(fd, uid, gid).map_err(|errno| owner_failed(shown(path), errno))?;
        fs::fchmod(fd, self.mode(attributes)).map_err(failed)?;
        for (name, value) in xattrs {
            // Marks of overlayfs would change what the snapshot shows.
            if !is_overlay_mark(name) {
                // The file system may not have them; BuildKit ignores that too.
                let _ = fs::fsetxattr(fd, name.as_slice(), value, fs::XattrFlags::empty());
            }
        }
        fs::futimens(fd, &self.times(attributes)).map_err(failed)
    }

    fn owner(&self, attributes: &Attributes) -> (Option<Uid>, Option<Gid>) {
        let (uid, gid) = self
            .options
            .owner
            .unwrap_or((attributes.uid, attributes.gid));
        (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
    }

    fn mode(&self, attributes: &Attributes) -> Mode {
        let mode = match &self.options.mode {
            Some(change) => change.apply(attributes.mode, attributes.is_dir()),
            None => attributes.mode,
        };
        Mode::from_raw_mode(mode)
    }

    fn times(&self, attributes: &Attributes) -> Timestamps {
        let nanos = self
            .options
            .timestamp
            .unwrap_or(attributes.modified_at_nanos);
        Timestamps {
            last_access: timespec(nanos),
            last_modification: timespec(nanos),
        }
    }
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::CharDevice => FileType::CharacterDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
    }
}

fn is_overlay_mark(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Returns a path of the destination as its users see it.
pub(super) fn shown(path: &Path) -> String {
    format!("/{}", path.display())
}

pub(super) fn cannot_write(path: &Path, errno: Errno) -> Error {
    Error::io(format!("cannot write `{}`", shown(path)), errno)
}
