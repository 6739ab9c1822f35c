use std::io;

use super::format::{BLOCK_BYTES, SLOT_BYTES, XATTR_HEADER_BYTES};
use super::stream::Stream;

/// How many blocks are held to be filled up. More would pack tighter, and take longer to search.
const MAX_OPEN: usize = 8;

/// What stands for the place of a block that is not written yet.
const UNWRITTEN: u32 = 0;

/// Packs inodes, each with its attributes and the end of its data, into blocks that go into the
/// stream as they are filled.
#[derive(Debug, Default)]
pub(super) struct Inodes {
    open: Vec<OpenBlock>,
    /// Where in the image each block of inodes is.
    blocks: Vec<u32>,
}

#[derive(Debug)]
struct OpenBlock {
    index: u32,
    bytes: Vec<u8>,
}

/// An inode that was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct InodeRef {
    /// Which block of inodes, in the order in which they were begun.
    block: u32,
    slot: u8,
}

/// Returns whether the end of the data can follow an inode that with its attributes takes
/// `head` bytes: it must lie in one block.
pub(super) fn fits_inline(head: usize, tail: usize) -> bool {
    let begin = if head <= BLOCK_BYTES {
        head
    } else {
        head % BLOCK_BYTES
    };
    begin + tail <= BLOCK_BYTES
}

impl Inodes {
    /// Places an inode with what follows it. `tail` must fit, as [`fits_inline`] tells.
    pub(super) fn place(
        &mut self,
        head: &[u8],
        tail: &[u8],
        stream: &mut Stream,
    ) -> io::Result<InodeRef> {
        let length = head.len() + tail.len();
        if length > BLOCK_BYTES {
            return self.place_alone(&[head, tail].concat(), stream);
        }
        // fsck.erofs 1.5 looks for attributes behind every inode, and must not meet the image's end.
        let needed = (length + XATTR_HEADER_BYTES).min(BLOCK_BYTES);
        let fitting = self.open.iter().enumerate();
        let fullest = fitting
            .filter(|(_, block)| block.room() >= needed)
            .min_by_key(|(_, block)| block.room())
            .map(|(position, _)| position);
        let position = match fullest {
            Some(position) => position,
            None => self.begin_block(stream)?,
        };
        let block = &mut self.open[position];
        let slot = (block.bytes.len() / SLOT_BYTES) as u8;
        block.bytes.extend_from_slice(head);
        block.bytes.extend_from_slice(tail);
        let end = block.bytes.len().next_multiple_of(SLOT_BYTES);
        block.bytes.resize(end, 0);
        Ok(InodeRef {
            block: block.index,
            slot,
        })
    }

    /// Writes what is left, so that every inode has its number.
    pub(super) fn flush(&mut self, stream: &mut Stream) -> io::Result<()> {
        self.open.sort_unstable_by_key(|block| block.index);
        for block in std::mem::take(&mut self.open) {
            self.write(&block, stream)?;
        }
        Ok(())
    }

    /// Returns an inode's number in the file system, once all is [flushed](Self::flush).
    pub(super) fn number(&self, inode: InodeRef) -> u64 {
        let block = u64::from(self.blocks[inode.block as usize]);
        debug_assert_ne!(block, u64::from(UNWRITTEN), "flushed");
        block * (BLOCK_BYTES / SLOT_BYTES) as u64 + u64::from(inode.slot)
    }

    /// Returns the place of a new block among the open ones.
    fn begin_block(&mut self, stream: &mut Stream) -> io::Result<usize> {
        if self.open.len() == MAX_OPEN {
            let blocks = self.open.iter().enumerate();
            let fullest = blocks.min_by_key(|(_, block)| block.room());
            let position = fullest.map_or(0, |(position, _)| position);
            let block = self.open.remove(position);
            self.write(&block, stream)?;
        }
        let index = self.blocks.len() as u32;
        self.blocks.push(UNWRITTEN);
        self.open.push(OpenBlock {
            index,
            bytes: Vec::with_capacity(BLOCK_BYTES),
        });
        Ok(self.open.len() - 1)
    }

    fn place_alone(&mut self, bytes: &[u8], stream: &mut Stream) -> io::Result<InodeRef> {
        let index = self.blocks.len() as u32;
        let first = stream.next_block() as u32;
        stream.append_padded(bytes)?;
        self.blocks.push(first);
        Ok(InodeRef {
            block: index,
            slot: 0,
        })
    }

    fn write(&mut self, block: &OpenBlock, stream: &mut Stream) -> io::Result<()> {
        self.blocks[block.index as usize] = stream.next_block() as u32;
        stream.append_padded(&block.bytes)
    }
}

impl OpenBlock {
    fn room(&self) -> usize {
        BLOCK_BYTES - self.bytes.len()
    }
}
