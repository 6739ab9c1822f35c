use std::collections::BTreeMap;
use std::path::PathBuf;

use rustix::fs::Timespec;

/// Extended attributes by their full names, such as `user.origin`.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What an entry of an archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A further name of the file at this path, which is relative to the root of the archive.
    HardLink(PathBuf),
    /// A symlink with this target.
    Symlink(PathBuf),
    /// A character device: major and minor number.
    CharDevice(u32, u32),
    /// A block device: major and minor number.
    BlockDevice(u32, u32),
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// The description of one entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The name: any bytes but NUL. As read, it may be absolute or hold `..`; a directory's may
    /// or may not end in `/`. The writer adds that slash.
    pub path: PathBuf,
    /// What the entry is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owning user.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Bytes of a file, holes included; 0 for all else.
    pub size: u64,
    /// Time of modification. The writer drops the nanoseconds.
    pub mtime: Timespec,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

impl Header {
    /// Returns the header of a file of root's with mode 0644, `size` bytes and time 0.
    pub fn file(path: impl Into<PathBuf>, size: u64) -> Self {
        Self {
            size,
            ..Self::new(path, Kind::File, 0o644)
        }
    }

    /// Returns the header of a directory of root's with mode 0755 and time 0.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self::new(path, Kind::Directory, 0o755)
    }

    /// Returns the header of an entry without contents that belongs to root, with time 0.
    pub fn new(path: impl Into<PathBuf>, kind: Kind, mode: u32) -> Self {
        Self {
            path: path.into(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            xattrs: Xattrs::new(),
        }
    }
}
