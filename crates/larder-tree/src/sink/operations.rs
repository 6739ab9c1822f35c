use std::ffi::{OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat, Timespec};
use rustix::io::Errno;

use crate::Result;
use crate::beneath::DirAttributes;
use crate::copy::ContentCopier;
use crate::erofs::{Past, PastContent};

/// How much of a range is read at once.
const RANGE_BUFFER_BYTES: usize = 256 << 10;

/// What is done to a tree in the making: the system calls on directories, by handle and name.
///
/// Paths are resolved beneath the root of the tree, as [`Root`](crate::beneath::Root) tells.
/// Attributes of a new entry are given last; until then it is the process's, and of the present.
pub trait Operations: Sync {
    /// The handle of a directory.
    type Dir: Clone + Send + Sync;

    /// A file that is being written; [`close`](Self::close) ends that.
    type File;

    /// Whether several threads may make entries at a time.
    const IS_PARALLEL: bool;

    /// Whether files may use blocks of an earlier image, where that lets them.
    const SHARES_BLOCKS: bool = false;

    /// Returns the tree of a directory, out of which paths do not lead.
    fn subtree(&self, dir: &Self::Dir) -> Result<Self>
    where
        Self: Sized;

    /// Opens the directory that `path` leads to.
    fn open_dir(&self, path: &Path) -> Result<Self::Dir>;

    /// Returns the path without symlinks that `path` leads to, whether or not that exists.
    fn resolve(&self, path: &Path) -> Result<PathBuf>;

    /// Returns the type of what `path` leads to.
    fn type_at(&self, path: &Path) -> Result<FileType>;

    /// Opens the directory that `path` leads to, made with its parents where they are missing;
    /// returns the real paths of those made, parents first.
    fn create_dir_all(
        &self,
        path: &Path,
        attributes: DirAttributes,
    ) -> Result<(Self::Dir, Vec<PathBuf>)>;

    /// Returns the type of an entry.
    fn type_of(&self, dir: &Self::Dir, name: &OsStr) -> Result<FileType, Errno>;

    /// Opens a directory; `LOOP` or `NOTDIR` if it is something else.
    fn enter(&self, dir: &Self::Dir, name: &OsStr) -> Result<Self::Dir, Errno>;

    /// Returns the names in a directory, in no order.
    fn names(&self, dir: &Self::Dir) -> Result<Vec<OsString>, Errno>;

    /// Makes a directory that its owner may use.
    fn make_dir(&self, dir: &Self::Dir, name: &OsStr) -> Result<(), Errno>;

    /// Makes a symlink.
    fn make_symlink(&self, dir: &Self::Dir, name: &OsStr, target: &OsStr) -> Result<(), Errno>;

    /// Makes a pipe, socket or device; `device` is 0 but for the last.
    fn make_special(
        &self,
        dir: &Self::Dir,
        name: &OsStr,
        file_type: FileType,
        device: u64,
    ) -> Result<(), Errno>;

    /// Makes another name, the second, for the first.
    fn make_link(
        &self,
        original: (&Self::Dir, &OsStr),
        name: (&Self::Dir, &OsStr),
    ) -> Result<(), Errno>;

    /// Makes an empty file, to be written from its start.
    fn make_file(&self, dir: &Self::Dir, name: &OsStr) -> Result<Self::File, Errno>;

    /// Renames an entry within its directory; what has the new name goes.
    fn rename(&self, dir: &Self::Dir, from: &OsStr, to: &OsStr) -> Result<(), Errno>;

    /// Removes an entry with all beneath it; returns whether there was one.
    fn remove(&self, dir: &Self::Dir, name: &OsStr) -> Result<bool, Errno>;

    /// Appends to a file.
    fn write(&self, file: &mut Self::File, bytes: &[u8]) -> Result<(), Errno>;

    /// Makes a hole of what lies between the end of a file and `offset`, from where on it is
    /// written next.
    fn skip_to(&self, file: &mut Self::File, offset: u64) -> Result<(), Errno>;

    /// Ends a file at `size`: behind what was written comes a hole.
    fn set_size(&self, file: &mut Self::File, size: u64) -> Result<(), Errno>;

    /// Copies the bytes of `source`, whose attributes are `stat`, into the empty `file`; returns
    /// how many there were.
    fn copy_content(
        &self,
        copier: &ContentCopier,
        source: BorrowedFd<'_>,
        stat: &Stat,
        file: &mut Self::File,
    ) -> Result<u64, Errno>;

    /// Appends the whole blocks of `content` to the empty `file`.
    fn write_past(
        &self,
        file: &mut Self::File,
        past: &Past,
        content: &PastContent,
    ) -> Result<(), Errno> {
        let (offset, length) = (content.blocks_offset, content.blocks_bytes);
        let mut buffer = vec![0; RANGE_BUFFER_BYTES.min(length as usize)];
        let mut at = 0;
        while at < length {
            let wanted = buffer.len().min((length - at) as usize);
            match rustix::io::pread(past.holder(content), &mut buffer[..wanted], offset + at) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => {
                    self.write(file, &buffer[..count])?;
                    at += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Takes note that the file, to be at `path`, is a copy of one with the digest `source`.
    fn note_source(&self, _file: &mut Self::File, _path: &Path, _source: &[u8; 32]) {}

    /// Ends the writing of a file.
    fn close(&self, file: Self::File) -> Result<(), Errno>;

    /// Changes user and group.
    fn set_owner(&self, entry: Place<'_, Self>, uid: u32, gid: u32) -> Result<(), Errno>;

    /// Changes permission bits with setuid, setgid and sticky; not those of a symlink.
    fn set_mode(&self, entry: Place<'_, Self>, mode: u32) -> Result<(), Errno>;

    /// Changes the times of modification and access.
    fn set_time(&self, entry: Place<'_, Self>, time: Timespec) -> Result<(), Errno>;

    /// Sets an extended attribute of what is open.
    fn set_xattr(&self, entry: Place<'_, Self>, name: &[u8], value: &[u8]) -> Result<(), Errno>;
}

/// What attributes are given to.
#[derive(Debug)]
pub enum Place<'a, S: Operations + ?Sized> {
    /// An open directory.
    Dir(&'a S::Dir),
    /// A file that is being written.
    File(&'a mut S::File),
    /// A directory's entry, itself where it is a symlink.
    Entry(&'a S::Dir, &'a OsStr),
}

impl<S: Operations + ?Sized> Place<'_, S> {
    /// Returns the same, to be used again.
    pub(crate) fn again(&mut self) -> Place<'_, S> {
        match self {
            Place::Dir(dir) => Place::Dir(*dir),
            Place::File(file) => Place::File(&mut **file),
            Place::Entry(dir, name) => Place::Entry(*dir, name),
        }
    }
}
