use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{self, FileType, Mode, OFlags, Timespec};
use rustix::io::Errno;

use super::content::{ContentCopier, read_through};
use super::options::{CopyOptions, timespec};
use crate::context::{
    Attributes, Entry, Kind, RecordHasher, Stamp, Tree, Xattrs, cannot_read, changed, read_xattrs,
};
use crate::erofs::{CHECKED_BYTES, Past, PastContent};
use crate::error::owner_failed;
use crate::quota::{self, Quota};
use crate::sink::Sink;
use crate::sink::operations::Place;
use crate::{Error, ErrorKind, Result};

/// Copies single entries.
pub(super) struct Transfer<'a, S> {
    pub(super) source: &'a Tree,
    pub(super) sink: &'a S,
    pub(super) options: &'a CopyOptions,
    pub(super) quota: &'a dyn Quota,
    /// What an earlier copy has made.
    pub(super) past: Option<&'a Past>,
    content: ContentCopier,
}

/// Where an entry goes: a name in an open directory.
pub(super) struct Target<'a, D> {
    pub(super) dir: &'a D,
    pub(super) name: &'a OsStr,
    /// The path in the destination, for messages.
    pub(super) path: &'a Path,
}

impl<'a, S: Sink> Transfer<'a, S> {
    pub(super) fn new(
        source: &'a Tree,
        sink: &'a S,
        options: &'a CopyOptions,
        quota: &'a dyn Quota,
    ) -> Self {
        Self {
            source,
            sink,
            options,
            quota,
            past: None,
            content: ContentCopier::default(),
        }
    }

    /// Takes what is about to be written at `path`.
    pub(super) fn take(&self, path: &Path, bytes: u64) -> Result<()> {
        let taken = self.quota.take(bytes);
        taken.map_err(|error| Error::io(format!("cannot write `{}`", shown(path)), error))
    }

    /// Copies what is not a directory, out of the open directory `dir`, and replaces what is at
    /// `target`; returns how many bytes a file had.
    pub(super) fn copy(
        &self,
        entry: &Entry<'_>,
        dir: impl AsFd,
        target: &Target<'_, S::Dir>,
    ) -> Result<u64> {
        let failed = |errno| cannot_write(target.path, errno);
        let attributes = entry.attributes();
        let (dir_to, name) = (target.dir, target.name);
        let link = quota::link_bytes(entry.link_target());
        self.take(target.path, quota::name_bytes(name.len()) + link)?;
        match attributes.kind {
            Kind::File => return self.copy_file(entry, dir.as_fd(), target),
            Kind::Symlink => self.make(target, || {
                let to = OsStr::from_bytes(entry.link_target());
                self.sink.make_symlink(dir_to, name, to)
            })?,
            kind => {
                let (major, minor) = attributes.device;
                let device = fs::makedev(major, minor);
                let file_type = file_type(kind);
                self.make(target, || {
                    self.sink.make_special(dir_to, name, file_type, device)
                })?;
            }
        }
        let (uid, gid) = self.owner(attributes);
        let made = || Place::Entry(dir_to, name);
        self.sink
            .set_owner(made(), uid, gid)
            .map_err(|errno| owner_failed(shown(target.path), errno))?;
        if attributes.kind != Kind::Symlink {
            self.sink
                .set_mode(made(), self.mode(attributes))
                .map_err(failed)?;
        }
        self.sink
            .set_time(made(), self.time(attributes))
            .map_err(failed)?;
        Ok(0)
    }

    /// Makes `target` a further name of the file `original`, which the copy made.
    pub(super) fn link(
        &self,
        original: (&S::Dir, &OsStr),
        target: &Target<'_, S::Dir>,
    ) -> Result<()> {
        self.make(target, || {
            self.sink.make_link(original, (target.dir, target.name))
        })
    }

    /// Gives the attributes of a source directory to an open one.
    pub(super) fn set_dir_attributes(
        &self,
        source: &Entry<'_>,
        dir: &S::Dir,
        path: &Path,
    ) -> Result<()> {
        let shown = source.path();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let source_fd = self.source.root().open_file(shown, flags, Mode::empty())?;
        let xattrs = read_xattrs(source_fd).map_err(|errno| cannot_read(shown, errno))?;
        self.set_attributes(source.attributes(), &xattrs, Place::Dir(dir), path)
    }

    /// Gives the time of a source directory to an open one.
    pub(super) fn set_dir_times(
        &self,
        source: &Entry<'_>,
        dir: &S::Dir,
        path: &Path,
    ) -> Result<()> {
        self.sink
            .set_time(Place::Dir(dir), self.time(source.attributes()))
            .map_err(|errno| cannot_write(path, errno))
    }

    fn copy_file(
        &self,
        entry: &Entry<'_>,
        dir: BorrowedFd<'_>,
        target: &Target<'_, S::Dir>,
    ) -> Result<u64> {
        if let Some(kept) = entry.take_kept() {
            let mut file = self.begin_file(target, entry.attributes().size, &kept.xattrs)?;
            let written = self.sink.write(&mut file, &kept.bytes);
            written.map_err(|errno| cannot_write(target.path, errno))?;
            return self.end_file(file, entry, &kept.xattrs, target);
        }
        if let Some(past) = self.past
            && let Some(content) = find_past(past, entry, target.path)
        {
            return self.copy_past((past, &content), entry, target);
        }
        self.copy_source(entry, dir, target)
    }

    fn copy_past(
        &self,
        (past, content): (&Past, &PastContent),
        entry: &Entry<'_>,
        target: &Target<'_, S::Dir>,
    ) -> Result<u64> {
        let failed = |errno| cannot_write(target.path, errno);
        let no_xattrs = Xattrs::new();
        let written = if S::SHARES_BLOCKS {
            past.own_bytes(content)
        } else {
            entry.attributes().size
        };
        let mut file = self.begin_file(target, written, &no_xattrs)?;
        if content.blocks_bytes > 0 {
            self.sink
                .write_past(&mut file, past, content)
                .map_err(failed)?;
        }
        self.sink.write(&mut file, &content.tail).map_err(failed)?;
        self.end_file(file, entry, &no_xattrs, target)
    }

    fn copy_source(
        &self,
        entry: &Entry<'_>,
        dir: BorrowedFd<'_>,
        target: &Target<'_, S::Dir>,
    ) -> Result<u64> {
        let unreadable = |errno| cannot_read(entry.path(), errno);
        let failed = |errno| cannot_write(target.path, errno);
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
        let mut file = self.begin_file(target, allocated, &xattrs)?;
        let count = match verified {
            Some(expected) => {
                let mut hasher = RecordHasher::new(attributes, &[], &xattrs);
                let count = read_through(source.as_fd(), |bytes| {
                    hasher.update(bytes);
                    self.sink.write(&mut file, bytes)
                });
                if hasher.finish() != expected {
                    return Err(changed(entry.path()));
                }
                count
            }
            None => self
                .sink
                .copy_content(&self.content, source.as_fd(), &stat, &mut file),
        };
        let count = count.map_err(failed)?;
        let after = fs::fstat(&source).map_err(unreadable)?;
        if count != attributes.size || Stamp::new(&after) != attributes.stamp {
            return Err(changed(entry.path()));
        }
        self.end_file(file, entry, &xattrs, target)
    }

    /// Makes a file, after taking the room for it.
    fn begin_file(
        &self,
        target: &Target<'_, S::Dir>,
        allocated: u64,
        xattrs: &Xattrs,
    ) -> Result<S::File> {
        let pairs = xattrs.iter().map(|(name, value)| (&name[..], &value[..]));
        let bytes = quota::content_bytes(allocated) + quota::xattrs_bytes(pairs);
        self.take(target.path, bytes)?;
        let make = || self.sink.make_file(target.dir, target.name);
        self.make(target, make)
    }

    /// Gives a file that has its content the attributes of `entry`; returns how many bytes it has.
    fn end_file(
        &self,
        mut file: S::File,
        entry: &Entry<'_>,
        xattrs: &Xattrs,
        target: &Target<'_, S::Dir>,
    ) -> Result<u64> {
        let attributes = entry.attributes();
        self.set_attributes(attributes, xattrs, Place::File(&mut file), target.path)?;
        if let Some(digest) = entry.known_digest()
            && xattrs.is_empty()
            && attributes.link_count == 1
        {
            self.sink
                .note_source(&mut file, target.path, &digest.record);
        }
        let closed = self.sink.close(file);
        closed.map_err(|errno| cannot_write(target.path, errno))?;
        Ok(attributes.size)
    }

    /// Runs `create`, again if something is in the way that may be removed.
    fn make<T>(
        &self,
        target: &Target<'_, S::Dir>,
        create: impl Fn() -> Result<T, Errno>,
    ) -> Result<T> {
        let failed = |errno| cannot_write(target.path, errno);
        match create() {
            Err(Errno::EXIST) => {}
            result => return result.map_err(failed),
        }
        let file_type = self.sink.type_of(target.dir, target.name);
        let is_dir = file_type.map_err(failed)? == FileType::Directory;
        if is_dir && !self.options.always_replace_existing_dest_paths {
            let message = format!(
                "cannot replace to directory `{}` with file",
                shown(target.path)
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        self.sink.remove(target.dir, target.name).map_err(failed)?;
        create().map_err(failed)
    }

    fn set_attributes(
        &self,
        attributes: &Attributes,
        xattrs: &Xattrs,
        mut made: Place<'_, S>,
        path: &Path,
    ) -> Result<()> {
        let failed = |errno| cannot_write(path, errno);
        // A change of owner takes set-id bits and capabilities away, so it comes first.
        let (uid, gid) = self.owner(attributes);
        self.sink
            .set_owner(made.again(), uid, gid)
            .map_err(|errno| owner_failed(shown(path), errno))?;
        self.sink
            .set_mode(made.again(), self.mode(attributes))
            .map_err(failed)?;
        for (name, value) in xattrs {
            // Marks of overlayfs would change what the snapshot shows.
            if !is_overlay_mark(name) {
                // The file system may not have them; BuildKit ignores that too.
                let _ = self.sink.set_xattr(made.again(), name, value);
            }
        }
        self.sink
            .set_time(made, self.time(attributes))
            .map_err(failed)
    }

    fn owner(&self, attributes: &Attributes) -> (u32, u32) {
        self.options
            .owner
            .unwrap_or((attributes.uid, attributes.gid))
    }

    fn mode(&self, attributes: &Attributes) -> u32 {
        match &self.options.mode {
            Some(change) => change.apply(attributes.mode, attributes.is_dir()),
            None => attributes.mode,
        }
    }

    fn time(&self, attributes: &Attributes) -> Timespec {
        timespec(
            self.options
                .timestamp
                .unwrap_or(attributes.modified_at_nanos),
        )
    }
}

/// Returns what the image that an earlier copy made has of the file, if the file is as it was
/// then. What is small is checked; a layer is believed as in any other use of it.
fn find_past(past: &Past, entry: &Entry<'_>, path: &Path) -> Option<PastContent> {
    let (attributes, digest) = (entry.attributes(), entry.known_digest()?);
    let mut content = past.content(path, &digest.record, attributes.size)?;
    if attributes.size < CHECKED_BYTES {
        let bytes = past.read(&content).ok()?;
        let mut hasher = RecordHasher::new(attributes, &[], &Xattrs::new());
        hasher.update(&bytes);
        if hasher.finish().record != digest.record {
            return None;
        }
        content = PastContent::of_bytes(bytes);
    }
    Some(content)
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
