use std::fs::File;
use std::io;

use super::files::DeviceSlot;
use super::format::{
    BLOCK_BYTES, Inode, Layout, Location, MAX_BLOCKS, MAX_DEVICES, ROOT_OFFSET, SLOT_BYTES,
    Superblock, Time, link_count_patch,
};
use super::inodes::{InodeRef, Inodes, fits_inline};
use super::past::SharedBlocks;
use super::stream::Stream;
use super::tree::Attributes;
use super::xattrs::SharedXattrs;

/// Writes the parts of an image: first data, and inodes as they are complete; then directories,
/// shared attributes and the superblock.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) stream: Stream,
    pub(super) shared: SharedXattrs,
    inodes: Inodes,
    /// The time of compact inodes: that of the first one.
    epoch: Option<Time>,
    inode_count: u32,
    devices: Vec<DeviceSlot>,
    /// Digests all inodes with their attributes, and all directories.
    hasher: blake3::Hasher,
}

/// What an inode holds besides its attributes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content<'a> {
    /// The bits of the type, as in `st_mode`.
    pub(super) type_bits: u32,
    pub(super) size: u64,
    pub(super) location: Location,
    /// What of the data isn't in the stream yet: the end, less than a block.
    pub(super) tail: &'a [u8],
}

impl Writer {
    pub(super) fn new(file: File) -> Self {
        Self {
            stream: Stream::new(file),
            shared: SharedXattrs::default(),
            inodes: Inodes::default(),
            epoch: None,
            inode_count: 0,
            devices: Vec::new(),
            hasher: blake3::Hasher::new(),
        }
    }

    /// Returns which extra device has `blocks`, and the number that the first of them has in this image. `None` if
    /// there is no room for another device.
    pub(super) fn share(&mut self, blocks: SharedBlocks<'_>) -> Option<(usize, u32)> {
        let known = self
            .devices
            .iter()
            .position(|slot| slot.name == blocks.name);
        let index = match known {
            Some(index) => index,
            None => self.add_device(&blocks)?,
        };
        let block = self.devices[index].first_block.checked_add(blocks.first)?;
        Some((index, block))
    }

    fn add_device(&mut self, blocks: &SharedBlocks<'_>) -> Option<usize> {
        if self.devices.len() == MAX_DEVICES {
            return None;
        }
        let last = self.devices.last();
        let slot = DeviceSlot {
            name: blocks.name.to_owned(),
            block_count: blocks.block_count,
            first_block: last.map_or(MAX_BLOCKS as u32, |slot| {
                slot.first_block + slot.block_count
            }),
        };
        slot.first_block.checked_add(slot.block_count)?;
        slot.encode()?;
        self.devices.push(slot);
        Some(self.devices.len() - 1)
    }

    /// Returns the names of the extra devices.
    pub(super) fn device_names(&self) -> Vec<String> {
        self.devices.iter().map(|slot| slot.name.clone()).collect()
    }

    /// Places an inode that has `link_count` names, for now.
    pub(super) fn place(
        &mut self,
        attributes: &Attributes,
        content: Content<'_>,
        link_count: u32,
    ) -> io::Result<InodeRef> {
        let xattrs = self.shared.encode(&attributes.xattrs);
        let mut inode = self.inode(attributes, &content, link_count, xattrs.len());
        let epoch = self.epoch();
        let mut tail = content.tail;
        if !tail.is_empty() {
            if fits_inline(inode.length(epoch) + xattrs.len(), tail.len()) {
                inode.layout = Layout::Inline;
            } else {
                let block = self.stream.next_block() as u32;
                self.stream.append_padded(tail)?;
                if inode.location == Location::Data(None) {
                    inode.location = Location::Data(Some(block));
                }
                tail = &[];
            }
        }
        let head = self.head(&inode, &xattrs);
        self.inodes.place(&head, tail, &mut self.stream)
    }

    /// Returns an inode of the next number, whose layout is plain.
    pub(super) fn inode(
        &mut self,
        attributes: &Attributes,
        content: &Content<'_>,
        link_count: u32,
        xattr_bytes: usize,
    ) -> Inode {
        self.epoch.get_or_insert(attributes.time);
        self.inode_count += 1;
        Inode {
            mode: (content.type_bits | attributes.mode & 0o7777) as u16,
            uid: attributes.owner.0,
            gid: attributes.owner.1,
            time: attributes.time,
            link_count,
            size: content.size,
            layout: Layout::Plain,
            location: content.location,
            xattr_bytes,
            number: self.inode_count,
        }
    }

    /// Returns an inode with its attributes as they are written.
    pub(super) fn head(&mut self, inode: &Inode, xattrs: &[u8]) -> Vec<u8> {
        let mut head = Vec::with_capacity(64 + xattrs.len());
        inode.encode(self.epoch(), &mut head);
        head.extend_from_slice(xattrs);
        self.hasher.update(&head);
        head
    }

    pub(super) fn epoch(&self) -> Time {
        self.epoch.unwrap_or_default()
    }

    /// Takes note of what is in a directory.
    pub(super) fn digest(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// Writes what was placed, so that all has [numbers](Self::number).
    pub(super) fn flush_inodes(&mut self) -> io::Result<()> {
        self.inodes.flush(&mut self.stream)
    }

    /// Returns the number in the file system of an inode that is in the stream.
    pub(super) fn number(&self, inode: InodeRef) -> u64 {
        self.inodes.number(inode)
    }

    /// Changes how many names an inode in the stream has.
    pub(super) fn set_link_count(&mut self, inode: InodeRef, link_count: u32) -> io::Result<()> {
        let offset = self.number(inode) * SLOT_BYTES as u64;
        self.stream.patch(offset, SLOT_BYTES, |bytes| {
            link_count_patch(bytes, link_count)
        })
    }

    /// Writes the rest: shared attributes, and the first block with `root`, the inode of the root
    /// directory and what follows it. `dead_count` inodes have no name any more. `record` comes behind
    /// the last block. Returns how many blocks there are, and how many inodes.
    pub(super) fn finish(
        mut self,
        root: &[u8],
        dead_count: u64,
        record: &[u8],
    ) -> io::Result<(u32, u64)> {
        let has_shared = !self.shared.area().is_empty();
        let xattr_block = if has_shared {
            self.stream.next_block() as u32
        } else {
            0
        };
        self.stream.append_padded(self.shared.area())?;
        let inode_count = u64::from(self.inode_count) - dead_count;
        let epoch = self.epoch();
        let digest = self.hasher.finalize();
        let slots: Vec<u8> = (self.devices.iter())
            .filter_map(DeviceSlot::encode)
            .flatten()
            .collect();
        let block_count = self.stream.finish(record, |block_count| {
            let mut block = vec![0; BLOCK_BYTES];
            block[..slots.len()].copy_from_slice(&slots);
            block[ROOT_OFFSET..ROOT_OFFSET + root.len()].copy_from_slice(root);
            let superblock = Superblock {
                inode_count,
                epoch,
                block_count,
                xattr_block,
                uuid: uuid(digest.as_bytes()),
                device_count: self.devices.len() as u16,
            };
            superblock.encode(&mut block);
            block
        })?;
        Ok((block_count, inode_count))
    }
}

/// Returns a UUID of version 8, whose meaning is ours. Overlayfs tells lower file systems apart by
/// it, and does without stable inode numbers if they have none.
fn uuid(digest: &[u8; 32]) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&digest[..16]);
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}
