use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{self, FileType, Stat};
use rustix::io::Errno;

/// The kernel's limit on a list of names and on one value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const MAX_XATTR_BYTES: usize = 64 << 10;

/// Names and values of extended attributes, in the order of their names.
pub(crate) type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What `stat` tells of an entry, the owner as the tree has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky; 0777 for a symlink.
    pub mode: u32,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Bytes of a regular file; 0 for all else.
    pub size: u64,
    /// Time of modification, nanoseconds since 1970.
    pub modified_at_nanos: i64,
    /// Major and minor number of a device; 0 for all else.
    pub device: (u32, u32),
    /// How many names the file has.
    pub link_count: u64,
    /// What changes when the file does.
    pub(crate) stamp: Stamp,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symlink.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Identifies a state of a file. Two equal stamps mean equal content, if neither was taken within
/// the grain of the file system's clock after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) changed_at_nanos: i64,
    pub(crate) modified_at_nanos: i64,
    pub(crate) size: u64,
    pub(crate) mode: u32,
}

impl Attributes {
    pub(crate) fn new(stat: &Stat) -> Self {
        let kind = Kind::new(FileType::from_raw_mode(stat.st_mode));
        let is_device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
        Self {
            kind,
            mode: match kind {
                Kind::Symlink => 0o777,
                _ => stat.st_mode & 0o7777,
            },
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: match kind {
                Kind::File => stat.st_size as u64,
                _ => 0,
            },
            modified_at_nanos: nanos(stat.st_mtime, stat.st_mtime_nsec),
            device: if is_device {
                (fs::major(stat.st_rdev), fs::minor(stat.st_rdev))
            } else {
                (0, 0)
            },
            link_count: stat.st_nlink,
            stamp: Stamp::new(stat),
        }
    }

    /// Returns whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Dir
    }
}

impl Kind {
    fn new(file_type: FileType) -> Self {
        match file_type {
            FileType::Directory => Self::Dir,
            FileType::Symlink => Self::Symlink,
            FileType::CharacterDevice => Self::CharDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::RegularFile | FileType::Unknown => Self::File,
        }
    }
}

impl Stamp {
    pub(crate) fn new(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            changed_at_nanos: nanos(stat.st_ctime, stat.st_ctime_nsec),
            modified_at_nanos: nanos(stat.st_mtime, stat.st_mtime_nsec),
            size: stat.st_size as u64,
            mode: stat.st_mode,
        }
    }
}

fn nanos(seconds: i64, nanos: impl TryInto<i64>) -> i64 {
    let nanos = nanos.try_into().unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// Returns whether an extended attribute enters content digests, and is copied. Security labels
/// and access lists belong to the host; file capabilities to the file.
pub(crate) fn is_counted(name: &[u8]) -> bool {
    name == b"security.capability"
        || !(name.starts_with(b"security.") || name.starts_with(b"system."))
}

/// Reads the counted extended attributes of an open file; an `O_PATH` handle will do. A file
/// system without them has none.
pub(crate) fn read_xattrs(fd: impl AsFd) -> Result<Xattrs, Errno> {
    match list(|buffer| fs::flistxattr(&fd, spare_capacity(buffer))) {
        Ok(names) => select(&names, |name, buffer| {
            fs::fgetxattr(&fd, name, spare_capacity(buffer))
        }),
        Err(Errno::NOTSUP) => Ok(Xattrs::new()),
        // An `O_PATH` handle is only good for a path.
        Err(Errno::BADF) => read_xattrs_at(&format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())),
        Err(errno) => Err(errno),
    }
}

fn read_xattrs_at(path: &str) -> Result<Xattrs, Errno> {
    match list(|buffer| fs::listxattr(path, spare_capacity(buffer))) {
        Ok(names) => select(&names, |name, buffer| {
            fs::getxattr(path, name, spare_capacity(buffer))
        }),
        Err(Errno::NOTSUP) => Ok(Xattrs::new()),
        Err(errno) => Err(errno),
    }
}

/// Reads the values of the counted ones among `names`, each of which ends in a zero.
fn select(
    names: &[u8],
    read: impl Fn(&[u8], &mut Vec<u8>) -> Result<usize, Errno>,
) -> Result<Xattrs, Errno> {
    let mut xattrs = Xattrs::new();
    for name in names.split(|byte| *byte == 0) {
        if name.is_empty() || !is_counted(name) {
            continue;
        }
        match list(|buffer| read(name, buffer)) {
            Ok(value) => drop(xattrs.insert(name.to_vec(), value)),
            // Gone, or hidden from us.
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(xattrs)
}

/// Lets `read` fill a buffer, small at first.
fn list(read: impl Fn(&mut Vec<u8>) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = Vec::with_capacity(256);
    match read(&mut buffer) {
        Err(Errno::RANGE) => {
            buffer.reserve_exact(MAX_XATTR_BYTES);
            read(&mut buffer)?;
        }
        result => {
            result?;
        }
    }
    Ok(buffer)
}
