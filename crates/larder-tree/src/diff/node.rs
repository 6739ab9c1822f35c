use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat, Timespec};
use rustix::io::Errno;

use crate::tar::{Header, Kind};
use crate::xattr::Attributes;

/// How much of two files is compared at once.
const COMPARE_BYTES: usize = 64 << 10;

/// An entry of a directory that is held open.
pub(super) struct Node<'a> {
    parent: BorrowedFd<'a>,
    name: &'a OsStr,
    pub(super) stat: Stat,
    pub(super) file_type: FileType,
    handle: OnceCell<OwnedFd>,
    attributes: OnceCell<Attributes>,
}

impl<'a> Node<'a> {
    /// Looks the entry up; `None` if there is none.
    pub(super) fn find(parent: &'a impl AsFd, name: &'a OsStr) -> Result<Option<Self>, Errno> {
        match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Self {
                parent: parent.as_fd(),
                name,
                stat,
                file_type: FileType::from_raw_mode(stat.st_mode),
                handle: OnceCell::new(),
                attributes: OnceCell::new(),
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    pub(super) fn is_dir(&self) -> bool {
        self.file_type == FileType::Directory
    }

    pub(super) fn is_file(&self) -> bool {
        self.file_type == FileType::RegularFile
    }

    /// Returns the entry, which is a file or directory, open for reading.
    pub(super) fn handle(&self) -> Result<&OwnedFd, Errno> {
        if let Some(handle) = self.handle.get() {
            return Ok(handle);
        }
        // Should it have become a pipe, opening must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let handle = fs::openat(self.parent, self.name, flags, Mode::empty())?;
        Ok(self.handle.get_or_init(|| handle))
    }

    /// Returns the attributes; only files and directories have any that matter.
    pub(super) fn attributes(&self) -> Result<&Attributes, Errno> {
        if let Some(attributes) = self.attributes.get() {
            return Ok(attributes);
        }
        let attributes = if self.is_dir() || self.is_file() {
            Attributes::read(self.handle()?)?
        } else {
            Attributes::default()
        };
        Ok(self.attributes.get_or_init(|| attributes))
    }

    /// Returns whether the entry only says that there is none: a device 0:0, or an empty file
    /// with overlayfs' mark.
    pub(super) fn is_whiteout(&self) -> Result<bool, Errno> {
        match self.file_type {
            FileType::CharacterDevice => Ok(self.stat.st_rdev == 0),
            FileType::RegularFile if self.stat.st_size == 0 => {
                Ok(self.attributes()?.overlay.contains_key(&b"whiteout"[..]))
            }
            _ => Ok(false),
        }
    }

    /// Identifies the file among its hard links; `None` if it has but one name.
    pub(super) fn link_id(&self) -> Option<(u64, u64)> {
        let has_more = !self.is_dir() && self.stat.st_nlink > 1;
        has_more.then_some((self.stat.st_dev, self.stat.st_ino))
    }

    /// Describes the entry, to be written under `path`; `None` for a socket.
    pub(super) fn header(&self, path: PathBuf) -> Result<Option<Header>, Errno> {
        let device = || {
            let number = self.stat.st_rdev;
            (fs::major(number), fs::minor(number))
        };
        let kind = match self.file_type {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink(self.link_target()?),
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice => Kind::CharDevice(device().0, device().1),
            FileType::BlockDevice => Kind::BlockDevice(device().0, device().1),
            FileType::Socket | FileType::Unknown => return Ok(None),
        };
        Ok(Some(Header {
            path,
            size: if self.is_file() {
                self.stat.st_size as u64
            } else {
                0
            },
            kind,
            mode: self.stat.st_mode & 0o7777,
            uid: self.stat.st_uid,
            gid: self.stat.st_gid,
            mtime: mtime(&self.stat),
            xattrs: self.attributes()?.kept.clone(),
        }))
    }

    /// Returns whether this entry is what `below` is, so that copying it up changed nothing.
    ///
    /// Times of directories don't count. A file whose time has no nanoseconds may have been
    /// unpacked from an archive, which drops them; then its contents decide.
    pub(super) fn is_same_as(&self, below: &Node<'_>) -> Result<bool, Errno> {
        let (ours, theirs) = (&self.stat, &below.stat);
        if (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino) {
            return Ok(true);
        }
        let basics = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev);
        if basics(ours) != basics(theirs) {
            return Ok(false);
        }
        if !self.is_dir() && (ours.st_size, mtime(ours)) != (theirs.st_size, mtime(theirs)) {
            return Ok(false);
        }
        if self.attributes()?.kept != below.attributes()?.kept {
            return Ok(false);
        }
        if self.is_dir() || mtime(ours).tv_nsec != 0 {
            return Ok(true);
        }
        match self.file_type {
            FileType::Symlink => Ok(self.link_target()? == below.link_target()?),
            FileType::RegularFile => have_same_contents(self.handle()?, below.handle()?),
            _ => Ok(true),
        }
    }

    fn link_target(&self) -> Result<PathBuf, Errno> {
        let target = fs::readlinkat(self.parent, self.name, Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }
}

fn mtime(stat: &Stat) -> Timespec {
    Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: stat.st_mtime_nsec as i64,
    }
}

fn have_same_contents(ours: &OwnedFd, theirs: &OwnedFd) -> Result<bool, Errno> {
    let mut buffers = (vec![0; COMPARE_BYTES], vec![0; COMPARE_BYTES]);
    let mut offset = 0;
    loop {
        let count = read_full(ours, &mut buffers.0, offset)?;
        let other = read_full(theirs, &mut buffers.1, offset)?;
        if buffers.0[..count] != buffers.1[..other] {
            return Ok(false);
        }
        if count < COMPARE_BYTES {
            return Ok(true);
        }
        offset += count as u64;
    }
}

/// Fills the buffer from `offset` on, as far as the file goes. The file's own position stays.
fn read_full(file: &OwnedFd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::pread(file, &mut buffer[filled..], offset + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}
