//! What is read of an image, which may be damaged: the counterpart of `format`.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{FileType, Timespec};

use super::format::{
    BLOCK_BYTES, EPOCH_OFFSET, INCOMPAT_DEVICES, MAGIC, MAX_DEVICES, NO_BLOCK, SLOT_BYTES,
    SUPERBLOCK_OFFSET, Time, XATTR_HEADER_BYTES, XATTR_SPACES, checksum, file_type_of,
};
use crate::tar::Xattrs;

/// The longest name of an entry of a directory, and what an entry takes besides its name.
const MAX_NAME_BYTES: usize = 255;
const ENTRY_BYTES: usize = 12;

/// Returns the error of an image that is not as one is written.
pub(super) fn damaged(what: &str) -> io::Error {
    let message = format!("the image of a layer is damaged: {what}");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// What is read of the superblock.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadSuperblock {
    /// The number of the root directory's inode.
    pub(super) root: u64,
    /// The time of compact inodes.
    pub(super) epoch: Time,
    pub(super) block_count: u32,
    /// The block where shared attributes begin.
    pub(super) xattr_block: u32,
    /// How many extra devices there are.
    pub(super) device_count: usize,
}

impl ReadSuperblock {
    /// Reads the first block of an image as [`Superblock::encode`](super::format::Superblock::encode)
    /// writes it. `None` if it is none, or of a kind that is not written here.
    pub(super) fn decode(block: &[u8; BLOCK_BYTES]) -> Option<Self> {
        let bytes = &block[SUPERBLOCK_OFFSET..];
        let (magic, sum) = (word(bytes, 0)?, word(bytes, 4)?);
        let mut summed = bytes.to_vec();
        summed[4..8].fill(0);
        let device_count = match word(bytes, 80)? {
            0 => 0,
            INCOMPAT_DEVICES => usize::from(short(bytes, 86)?),
            _ => return None,
        };
        let is_known = magic == MAGIC
            && sum == checksum(&summed)
            && u32::from(bytes[12]) == BLOCK_BYTES.trailing_zeros()
            // Where inodes are numbered from, and where the table of devices is.
            && word(bytes, 40)? == 0
            && short(bytes, 88)? == 0
            && device_count <= MAX_DEVICES;
        is_known.then_some(Self {
            root: u64::from(short(bytes, 14)?),
            epoch: Time {
                seconds: long(bytes, EPOCH_OFFSET)? as i64,
                nanos: word(bytes, EPOCH_OFFSET + 8)?,
            },
            block_count: word(bytes, 36)?,
            xattr_block: word(bytes, 44)?,
            device_count,
        })
    }
}

/// What is read of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReadInode {
    /// In the file system.
    pub(crate) number: u64,
    /// Type and permissions, as in `st_mode`.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    time: Time,
    pub(crate) link_count: u32,
    pub(crate) size: u64,
    /// Bytes of the inode itself, and of the attributes that follow it.
    length: usize,
    pub(super) xattr_bytes: usize,
    has_inline_tail: bool,
    /// The first block of the data, or a device.
    location: u32,
}

impl ReadInode {
    /// Reads the inode `number` as [`Inode::encode`](super::format::Inode::encode) writes it, whose
    /// compact form has the time `epoch`. `None` for forms that are not written here.
    pub(super) fn decode(number: u64, bytes: &[u8], epoch: Time) -> Option<Self> {
        let (format, xattr_count) = (short(bytes, 0)?, usize::from(short(bytes, 2)?));
        let is_compact = format & 1 == 0;
        let has_inline_tail = match format >> 1 {
            0 => false,
            2 => true,
            _ => return None,
        };
        let (uid, gid, time, link_count) = if is_compact {
            let [uid, gid, link_count] = [24, 26, 6].map(|at| short(bytes, at).map(u32::from));
            (uid?, gid?, epoch, link_count?)
        } else {
            let time = Time {
                seconds: long(bytes, 32)? as i64,
                nanos: word(bytes, 40)?,
            };
            (word(bytes, 24)?, word(bytes, 28)?, time, word(bytes, 44)?)
        };
        let high = if is_compact { 0 } else { word(bytes, 12)? };
        Some(Self {
            number,
            mode: u32::from(short(bytes, 4)?),
            uid,
            gid,
            time,
            link_count,
            size: u64::from(word(bytes, 8)?) | u64::from(high) << 32,
            length: if is_compact { 32 } else { 64 },
            xattr_bytes: match xattr_count {
                0 => 0,
                count => XATTR_HEADER_BYTES + (count - 1) * 4,
            },
            has_inline_tail,
            location: word(bytes, 16)?,
        })
    }

    pub(crate) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    pub(crate) fn mtime(&self) -> Timespec {
        Timespec {
            tv_sec: self.time.seconds,
            tv_nsec: i64::from(self.time.nanos),
        }
    }

    /// Returns the first block of the data; `None` if no whole block holds any.
    pub(super) fn first_block(&self) -> Option<u32> {
        Some(self.location).filter(|block| *block != NO_BLOCK)
    }

    /// Returns major and minor number of a device.
    pub(crate) fn device(&self) -> (u32, u32) {
        let device = self.location;
        (device >> 8 & 0xfff, device & 0xff | device >> 12 & !0xff)
    }

    /// Returns how much of the data follows the inode: what is less than a block.
    pub(super) fn tail_bytes(&self) -> u64 {
        if self.has_inline_tail {
            self.size % BLOCK_BYTES as u64
        } else {
            0
        }
    }

    /// Returns where in the image the attributes are, and behind them the end of the data. `None` for
    /// a number that no inode can have.
    pub(super) fn places(&self) -> Option<(u64, u64)> {
        let begin = self.number.checked_mul(SLOT_BYTES as u64)?;
        let xattrs = begin.checked_add(self.length as u64)?;
        Some((xattrs, xattrs.checked_add(self.xattr_bytes as u64)?))
    }
}

/// An entry of a directory.
#[derive(Debug, Clone)]
pub(crate) struct ReadEntry {
    pub(crate) name: OsString,
    /// Of its inode.
    pub(crate) number: u64,
    /// The type of that, as the directory tells it.
    pub(crate) file_type: FileType,
}

/// Appends the entries in one block of a directory; `.` and `..` are left out. `None` unless they have names, in
/// their order.
pub(super) fn read_entries(block: &[u8], entries: &mut Vec<ReadEntry>) -> Option<()> {
    let heads = usize::from(short(block, 8)?);
    if heads == 0 || !heads.is_multiple_of(ENTRY_BYTES) {
        return None;
    }
    for at in (0..heads).step_by(ENTRY_BYTES) {
        let begin = usize::from(short(block, at + 8)?);
        let is_last = at + ENTRY_BYTES == heads;
        let name = if is_last {
            let rest = block.get(begin..)?;
            rest.split(|byte| *byte == 0).next()?
        } else {
            let end = usize::from(short(block, at + ENTRY_BYTES + 8)?);
            block.get(begin..end)?
        };
        let is_name = (1..=MAX_NAME_BYTES).contains(&name.len())
            && !name.iter().any(|byte| matches!(byte, 0 | b'/'));
        if !is_name || begin < heads {
            return None;
        }
        if matches!(name, b"." | b"..") {
            continue;
        }
        let last = entries.last().map(|last| last.name.as_bytes());
        if last.is_some_and(|last| last >= name) {
            return None;
        }
        entries.push(ReadEntry {
            name: OsString::from_vec(name.to_vec()),
            number: long(block, at)?,
            file_type: file_type_of(*block.get(at + 10)?)?,
        });
    }
    Some(())
}

/// Attributes as they follow an inode: those that are its own, and where the shared ones begin, in
/// bytes from the first of all shared ones.
pub(super) fn read_xattrs(bytes: &[u8]) -> Option<(Xattrs, Vec<u64>)> {
    let count = usize::from(*bytes.get(4)?);
    let mut at = XATTR_HEADER_BYTES;
    let mut shared = Vec::with_capacity(count);
    for _ in 0..count {
        shared.push(u64::from(word(bytes, at)?) * 4);
        at += 4;
    }
    let mut own = Xattrs::new();
    while at < bytes.len() {
        let (name_bytes, value_bytes) = read_xattr_head(bytes.get(at..)?)?;
        let end = at + XATTR_ENTRY_BYTES + name_bytes + value_bytes;
        let (name, value) = read_xattr(bytes.get(at..end)?)?;
        own.insert(name, value);
        at = end.next_multiple_of(4);
    }
    Some((own, shared))
}

/// What comes before the name of an attribute.
pub(super) const XATTR_ENTRY_BYTES: usize = 4;

/// Returns the lengths of an attribute's name, without its space, and value.
pub(super) fn read_xattr_head(bytes: &[u8]) -> Option<(usize, usize)> {
    Some((usize::from(*bytes.first()?), usize::from(short(bytes, 2)?)))
}

/// Reads one attribute, which takes all of `bytes`.
pub(super) fn read_xattr(bytes: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (name_bytes, _) = read_xattr_head(bytes)?;
    let number = *bytes.get(1)?;
    let (prefix, _) = XATTR_SPACES.iter().find(|(_, known)| *known == number)?;
    let (name, value) = bytes[XATTR_ENTRY_BYTES..].split_at_checked(name_bytes)?;
    if name.contains(&0) {
        return None;
    }
    Some(([prefix, name].concat(), value.to_vec()))
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_has_a_name_that_the_kernel_takes() {
        let attribute = |name: &[u8]| {
            let head = [name.len() as u8, 1, 2, 0];
            read_xattr(&[&head, name, b"ab"].concat())
        };
        let read = (b"user.x=y".to_vec(), b"ab".to_vec());
        assert_eq!(attribute(b"x=y"), Some(read));
        assert_eq!(attribute(b"x\0y"), None);
    }
}
