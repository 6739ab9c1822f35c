use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::copy_file_range;
use rustix::io::Errno;

use super::format::{BLOCK_BYTES, MAX_BLOCKS};

/// How much is written at once.
const BUFFER_BYTES: usize = 1 << 20;

/// The most that the kernel copies at once, less than its own limit.
const MAX_RANGE_BYTES: u64 = 1 << 30;

/// The image's blocks, written one after the other from the second on.
#[derive(Debug)]
pub(super) struct Stream {
    file: File,
    /// Whole blocks that are not in the file yet.
    pending: Vec<u8>,
    /// The block where `pending` begins.
    start: u64,
}

impl Stream {
    pub(super) fn new(file: File) -> Self {
        Self {
            file,
            pending: Vec::new(),
            start: 1,
        }
    }

    /// Returns the number of the next block.
    pub(super) fn next_block(&self) -> u64 {
        self.start + (self.pending.len() / BLOCK_BYTES) as u64
    }

    /// Appends whole blocks.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        debug_assert!(bytes.len().is_multiple_of(BLOCK_BYTES), "whole blocks");
        self.check_room(bytes.len() as u64)?;
        if self.pending.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if bytes.len() >= BUFFER_BYTES {
            self.file.write_all_at(bytes, self.offset())?;
            self.start += (bytes.len() / BLOCK_BYTES) as u64;
        } else {
            self.pending.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Appends blocks that begin with `bytes` and are zero from there on.
    pub(super) fn append_padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        let whole = bytes.len() - bytes.len() % BLOCK_BYTES;
        self.append(&bytes[..whole])?;
        if whole < bytes.len() {
            let mut last = [0; BLOCK_BYTES];
            last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            self.append(&last)?;
        }
        Ok(())
    }

    /// Leaves out blocks that are all zero.
    pub(super) fn skip(&mut self, block_count: u64) -> io::Result<()> {
        self.check_room(block_count.saturating_mul(BLOCK_BYTES as u64))?;
        self.flush()?;
        self.start += block_count;
        Ok(())
    }

    /// Appends `length` bytes, whole blocks, of `source` from `offset` on, within the kernel.
    /// Returns how many it copied: less if the source is shorter, or if the file systems can't.
    pub(super) fn append_range(
        &mut self,
        source: impl AsFd,
        offset: u64,
        length: u64,
    ) -> io::Result<u64> {
        self.check_room(length)?;
        self.flush()?;
        let mut copied = 0;
        while copied < length {
            let (mut from, mut to) = (offset + copied, self.offset() + copied);
            let wanted = (length - copied).min(MAX_RANGE_BYTES) as usize;
            match copy_file_range(&source, Some(&mut from), &self.file, Some(&mut to), wanted) {
                // The source ends, or the file systems can't.
                Ok(0)
                | Err(
                    Errno::NOSYS
                    | Errno::XDEV
                    | Errno::PERM
                    | Errno::INVAL
                    | Errno::OPNOTSUPP
                    | Errno::IO,
                ) => break,
                Ok(count) => copied += count as u64,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        // A part of a block is written again.
        copied -= copied % BLOCK_BYTES as u64;
        self.start += copied / BLOCK_BYTES as u64;
        Ok(copied)
    }

    /// Changes the bytes at `offset`, which were appended before; `change` is given `length` of
    /// them, and returns where among them what is to be written.
    pub(super) fn patch(
        &mut self,
        offset: u64,
        length: usize,
        change: impl FnOnce(&[u8]) -> (usize, Vec<u8>),
    ) -> io::Result<()> {
        self.flush()?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        let (at, new) = change(&bytes);
        self.file.write_all_at(&new, offset + at as u64)
    }

    /// Writes what is pending, what comes `behind` the last block, then the first block, and returns
    /// the number of blocks.
    pub(super) fn finish(
        mut self,
        behind: &[u8],
        first_block: impl FnOnce(u32) -> Vec<u8>,
    ) -> io::Result<u32> {
        self.flush()?;
        let block_count = self.start as u32;
        // What comes last may be a hole.
        self.file.set_len(self.offset())?;
        self.file.write_all_at(behind, self.offset())?;
        self.file.write_all_at(&first_block(block_count), 0)?;
        Ok(block_count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.pending, self.offset())?;
        self.start = self.next_block();
        self.pending.clear();
        Ok(())
    }

    fn offset(&self) -> u64 {
        self.start * BLOCK_BYTES as u64
    }

    fn check_room(&self, bytes: u64) -> io::Result<()> {
        if self.next_block() + bytes.div_ceil(BLOCK_BYTES as u64) > MAX_BLOCKS {
            return Err(Errno::FBIG.into());
        }
        Ok(())
    }
}
