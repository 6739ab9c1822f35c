//! The format on the disk, as `fs/erofs/erofs_fs.h` of Linux has it. All numbers are little-endian.

use rustix::fs::FileType;

/// The unit in which data and metadata lie.
pub(super) const BLOCK_BYTES: usize = 4096;

/// Inodes lie at multiples of this, by which they are numbered from the start of the image.
pub(super) const SLOT_BYTES: usize = 32;

/// The largest number of blocks that an image can have of its own. Those of its extra devices are numbered
/// from here on.
pub(super) const MAX_BLOCKS: u64 = 1 << 31;

/// The most extra devices of an image: their table lies in front of the superblock, where nothing else does.
pub(super) const MAX_DEVICES: usize = SUPERBLOCK_OFFSET / DEVICE_SLOT_BYTES;

/// What the table of devices has of each: a name, the number of its blocks, and of the first of them.
pub(super) const DEVICE_SLOT_BYTES: usize = 128;
pub(super) const DEVICE_NAME_BYTES: usize = 64;

/// Where the root directory's inode lies: in the first block, behind the superblock. The
/// superblock has but 16 bits for its number.
pub(super) const ROOT_OFFSET: usize = SUPERBLOCK_OFFSET + SUPERBLOCK_BYTES;

/// The longest name of a directory's entry.
pub(super) const MAX_NAME_BYTES: usize = 255;

pub(super) const SUPERBLOCK_OFFSET: usize = 1024;
const SUPERBLOCK_BYTES: usize = 128;
/// Where the superblock has the time of compact inodes.
pub(super) const EPOCH_OFFSET: usize = 24;
pub(super) const MAGIC: u32 = 0xe0f5_e1e2;

/// The superblock has a checksum.
const COMPAT_CHECKSUM: u32 = 1;
/// Times are those of modification, not of change.
const COMPAT_MTIME: u32 = 2;
/// There is a table of devices.
pub(super) const INCOMPAT_DEVICES: u32 = 8;

/// What stands for the address of no block.
pub(super) const NO_BLOCK: u32 = u32::MAX;

/// A time of modification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Time {
    pub(super) seconds: i64,
    pub(super) nanos: u32,
}

/// What the superblock tells.
#[derive(Debug)]
pub(super) struct Superblock {
    pub(super) inode_count: u64,
    /// The time of compact inodes, which have none.
    pub(super) epoch: Time,
    pub(super) block_count: u32,
    /// The block where shared attributes begin; 0 if there are none.
    pub(super) xattr_block: u32,
    pub(super) uuid: [u8; 16],
    pub(super) device_count: u16,
}

impl Superblock {
    /// Writes itself into the first block of the image, whose checksum covers all that follows.
    pub(super) fn encode(&self, block: &mut [u8]) {
        let bytes = &mut block[SUPERBLOCK_OFFSET..BLOCK_BYTES];
        let mut put = |offset: usize, value: &[u8]| {
            bytes[offset..offset + value.len()].copy_from_slice(value);
        };
        put(0, &MAGIC.to_le_bytes());
        put(8, &(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
        put(12, &[BLOCK_BYTES.trailing_zeros() as u8]);
        put(14, &((ROOT_OFFSET / SLOT_BYTES) as u16).to_le_bytes());
        put(16, &self.inode_count.to_le_bytes());
        put(EPOCH_OFFSET, &self.epoch.seconds.to_le_bytes());
        put(EPOCH_OFFSET + 8, &self.epoch.nanos.to_le_bytes());
        put(36, &self.block_count.to_le_bytes());
        put(44, &self.xattr_block.to_le_bytes());
        put(48, &self.uuid);
        if self.device_count > 0 {
            put(80, &INCOMPAT_DEVICES.to_le_bytes());
            put(86, &self.device_count.to_le_bytes());
        }
        let sum = checksum(bytes);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Returns the checksum of the first block from the superblock on, which has zeros in its place: a
/// CRC-32C that begins with ones and is not inverted at the end.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (POLYNOMIAL * (crc & 1))
        })
    })
}

/// How the data of an inode lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// In whole blocks.
    Plain,
    /// In whole blocks but for the end, which follows the inode.
    Inline,
}

/// What the four bytes mean that depend on the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Location {
    /// The first block of the data; `None` if no whole block holds any.
    Data(Option<u32>),
    /// A device, as [`encode_device`] has it.
    Device(u32),
}

/// An inode as it is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inode {
    /// Type and permissions.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) time: Time,
    pub(super) link_count: u32,
    pub(super) size: u64,
    pub(super) layout: Layout,
    pub(super) location: Location,
    /// What the attributes that follow take.
    pub(super) xattr_bytes: usize,
    /// What 32-bit programs see as its number.
    pub(super) number: u32,
}

impl Inode {
    /// Returns what it takes without what follows it: the short form has no time of its own.
    pub(super) fn length(&self, epoch: Time) -> usize {
        if self.is_compact(epoch) { 32 } else { 64 }
    }

    fn is_compact(&self, epoch: Time) -> bool {
        let limit = u32::from(u16::MAX);
        self.time == epoch
            && self.uid <= limit
            && self.gid <= limit
            && self.link_count <= limit
            && u32::try_from(self.size).is_ok()
    }

    /// Appends itself to `out`.
    pub(super) fn encode(&self, epoch: Time, out: &mut Vec<u8>) {
        let is_compact = self.is_compact(epoch);
        let layout = match self.layout {
            Layout::Plain => 0,
            Layout::Inline => 2,
        };
        let format = u16::from(!is_compact) | layout << 1;
        let xattr_count = match self.xattr_bytes {
            0 => 0,
            bytes => ((bytes - XATTR_HEADER_BYTES) / 4 + 1) as u16,
        };
        let location = match self.location {
            Location::Data(block) => block.unwrap_or(NO_BLOCK),
            Location::Device(device) => device,
        };
        out.extend(format.to_le_bytes());
        out.extend(xattr_count.to_le_bytes());
        out.extend(self.mode.to_le_bytes());
        if is_compact {
            out.extend((self.link_count as u16).to_le_bytes());
            out.extend((self.size as u32).to_le_bytes());
            out.extend([0; 4]);
            out.extend(location.to_le_bytes());
            out.extend(self.number.to_le_bytes());
            out.extend((self.uid as u16).to_le_bytes());
            out.extend((self.gid as u16).to_le_bytes());
            out.extend([0; 4]);
        } else {
            out.extend([0; 2]);
            out.extend(self.size.to_le_bytes());
            out.extend(location.to_le_bytes());
            out.extend(self.number.to_le_bytes());
            out.extend(self.uid.to_le_bytes());
            out.extend(self.gid.to_le_bytes());
            out.extend(self.time.seconds.to_le_bytes());
            out.extend(self.time.nanos.to_le_bytes());
            out.extend(self.link_count.to_le_bytes());
            out.extend([0; 16]);
        }
    }
}

/// Returns where in an encoded inode the number of its links lies, and its new bytes.
pub(super) fn link_count_patch(inode: &[u8], link_count: u32) -> (usize, Vec<u8>) {
    let is_compact = inode[0] & 1 == 0;
    if is_compact {
        (6, (link_count as u16).to_le_bytes().to_vec())
    } else {
        (44, link_count.to_le_bytes().to_vec())
    }
}

/// Returns a device as an inode holds it; `None` if its numbers are too large for Linux.
pub(super) fn encode_device(major: u32, minor: u32) -> Option<u32> {
    (major < 1 << 12 && minor < 1 << 20)
        .then_some(minor & 0xff | major << 8 | (minor & !0xff) << 12)
}

/// Returns how a directory's entry tells a type.
pub(super) fn entry_type(file_type: FileType) -> u8 {
    match file_type {
        FileType::RegularFile => 1,
        FileType::Directory => 2,
        FileType::CharacterDevice => 3,
        FileType::BlockDevice => 4,
        FileType::Fifo => 5,
        FileType::Socket => 6,
        FileType::Symlink => 7,
        FileType::Unknown => 0,
    }
}

/// Returns the type that a directory has as `number`.
pub(super) fn file_type_of(number: u8) -> Option<FileType> {
    let types = [
        FileType::RegularFile,
        FileType::Directory,
        FileType::CharacterDevice,
        FileType::BlockDevice,
        FileType::Fifo,
        FileType::Socket,
        FileType::Symlink,
    ];
    types.into_iter().find(|known| entry_type(*known) == number)
}

/// What comes before the attributes of an inode.
pub(super) const XATTR_HEADER_BYTES: usize = 12;

/// The name spaces of attributes: the prefix of the name, and the number that stands for it.
pub(super) const XATTR_SPACES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];

#[cfg(test)]
mod tests {
    use super::*;

    const INODE: Inode = Inode {
        mode: 0o100_644,
        uid: 1,
        gid: 2,
        time: Time {
            seconds: 7,
            nanos: 8,
        },
        link_count: 1,
        size: 5,
        layout: Layout::Inline,
        location: Location::Data(None),
        xattr_bytes: 0,
        number: 3,
    };

    #[test]
    fn the_checksum_is_the_castagnoli_one() {
        // The check value of CRC-32C is inverted at the end.
        assert_eq!(!checksum(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn an_inode_is_short_if_all_fits() {
        let length = |change: fn(&mut Inode)| {
            let mut inode = INODE;
            change(&mut inode);
            let mut bytes = Vec::new();
            inode.encode(INODE.time, &mut bytes);
            assert_eq!(bytes.len(), inode.length(INODE.time));
            bytes.len()
        };
        assert_eq!(length(|_| ()), 32);
        assert_eq!(length(|inode| inode.time.nanos += 1), 64);
        assert_eq!(length(|inode| inode.uid = 65_535), 32);
        assert_eq!(length(|inode| inode.uid = 65_536), 64);
        assert_eq!(length(|inode| inode.gid = 65_536), 64);
        assert_eq!(length(|inode| inode.link_count = 65_536), 64);
        assert_eq!(length(|inode| inode.size = 1 << 32), 64);
    }

    #[test]
    fn devices_are_encoded_as_linux_does() {
        assert_eq!(encode_device(0, 0), Some(0));
        assert_eq!(encode_device(8, 1), Some(0x801));
        assert_eq!(encode_device(1, 0x12345), Some(0x1230_0145));
        assert_eq!(encode_device(4096, 0), None);
        assert_eq!(encode_device(0, 1 << 20), None);
    }
}
