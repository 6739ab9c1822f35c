//! Directories as a whole: how much they take, and how they go away.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, Dir, FileType, IFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::{Error, Result};

/// The unit of `st_blocks`, whatever the filesystem's own block size.
const BLOCK_BYTES: u64 = 512;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Returns the allocated bytes of one file or directory, as `stat` gives them.
pub(crate) fn allocated_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK_BYTES
}

/// Returns the allocated bytes of `path` itself; 0 if there is nothing.
pub(crate) fn allocated_entry(path: &Path) -> io::Result<u64> {
    match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(allocated_of(&stat)),
        Err(Errno::NOENT) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}

/// Returns the allocated bytes of the directory `path` with all beneath it, hard links counted
/// once; 0 if it does not exist.
///
/// Only one directory is open at a time, so no depth is too deep. What vanishes or moves
/// meanwhile is not counted.
pub(crate) fn allocated(path: &Path) -> io::Result<u64> {
    Ok(measure(path)?.bytes)
}

/// As [`allocated`], of an open directory.
pub(crate) fn allocated_beneath(directory: &OwnedFd) -> io::Result<u64> {
    let top = rustix::fs::openat(directory, ".", DIRECTORY, Mode::empty())?;
    Ok(count_from(top, false)?.bytes)
}

/// As [`allocated`], of directories only.
pub(crate) fn allocated_directories(path: &Path) -> io::Result<u64> {
    Ok(count(path, true)?.bytes)
}

/// As [`allocated`], with the number of entries.
pub(crate) fn measure(path: &Path) -> io::Result<Measured> {
    count(path, false)
}

/// How large a directory is, with all beneath it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measured {
    pub(crate) bytes: u64,
    pub(crate) entry_count: u64,
}

fn count(path: &Path, only_directories: bool) -> io::Result<Measured> {
    match rustix::fs::open(path, DIRECTORY, Mode::empty()) {
        Ok(top) => count_from(top, only_directories),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(Measured::default()),
        Err(errno) => Err(errno.into()),
    }
}

fn count_from(top: OwnedFd, only_directories: bool) -> io::Result<Measured> {
    let mut current = top;
    let mut total = Measured {
        bytes: allocated_of(&rustix::fs::fstat(&current)?),
        entry_count: 1,
    };
    let mut linked = HashSet::new();
    let mut frames = vec![Frame::read(
        &current,
        only_directories,
        &mut total,
        &mut linked,
    )?];
    while let Some(frame) = frames.last_mut() {
        if let Some(name) = frame.directories.pop() {
            match rustix::fs::openat(&current, &name, DIRECTORY, Mode::empty()) {
                Ok(fd) => current = fd,
                // A directory that may not be read is counted, its content can't be.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => continue,
                Err(errno) => return Err(errno.into()),
            }
            frames.push(Frame::read(
                &current,
                only_directories,
                &mut total,
                &mut linked,
            )?);
        } else {
            frames.pop();
            let Some(parent) = frames.last() else { break };
            current = rustix::fs::openat(&current, "..", DIRECTORY, Mode::empty())?;
            if inode(&rustix::fs::fstat(&current)?) != parent.inode {
                break;
            }
        }
    }
    Ok(total)
}

/// A directory whose subdirectories are still to be counted.
struct Frame {
    inode: (u64, u64),
    directories: Vec<CString>,
}

impl Frame {
    fn read(
        fd: &OwnedFd,
        only_directories: bool,
        total: &mut Measured,
        linked: &mut HashSet<(u64, u64)>,
    ) -> io::Result<Self> {
        let mut directories = Vec::new();
        for entry in Dir::read_from(fd)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if is_dir {
                directories.push(name.to_owned());
            } else if only_directories || (stat.st_nlink > 1 && !linked.insert(inode(&stat))) {
                continue;
            }
            total.bytes += allocated_of(&stat);
            total.entry_count += 1;
        }
        Ok(Self {
            inode: inode(&rustix::fs::fstat(fd)?),
            directories,
        })
    }
}

fn inode(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Removes the file or directory at `path` with all beneath it; nothing if it does not exist.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let failed = |error| Error::tree("cannot remove files of the store", error);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::invalid("cannot remove a root directory"));
    };
    let root = match larder_tree::beneath::Root::open(parent) {
        Ok(root) => root,
        Err(error) if error.kind() == larder_tree::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    root.remove_all(name).map(|_| ()).map_err(failed)
}

/// Returns the names in the directory `path`, sorted; none if it does not exist.
pub(crate) fn entries(path: &Path) -> Result<Vec<String>> {
    let failed = |error: io::Error| Error::io("cannot list a directory of the store", error);
    let listing = match std::fs::read_dir(path) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in listing {
        names.extend(entry.map_err(failed)?.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

/// Asks the file system to keep the directories made in `path` apart from each other.
///
/// Ext4 puts a directory near its parent, where it searches for free inodes past all that were
/// deleted within the last minutes: files that are made where thousands were just removed cost ten
/// times as much. This makes it look for an empty place. Not all file systems know the wish, or need
/// it.
pub(crate) fn spread(path: &Path) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let done = rustix::fs::open(path, flags, Mode::empty()).and_then(|directory| {
        let flags = rustix::fs::ioctl_getflags(&directory)?;
        rustix::fs::ioctl_setflags(&directory, flags | IFlags::TOPDIR)
    });
    if let Err(error) = done {
        tracing::debug!(%error, "directories are placed as the file system likes");
    }
}

/// Makes the directory `path`, for its owner alone.
pub(crate) fn make_private_dir(path: &Path) -> Result<()> {
    rustix::fs::mkdir(path, Mode::RWXU)
        .map_err(|errno| Error::io("cannot make a directory of the store", errno))
}
