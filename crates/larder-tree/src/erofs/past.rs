use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::copied::{ENTRY_BYTES, MAGIC, TRAILER_BYTES};
use super::format::{BLOCK_BYTES, FileInode, SLOT_BYTES, file_system_bytes};

/// A larger record is not read.
const MAX_RECORD_BYTES: u64 = 256 << 20;

/// How much of the image is read at once, to look for inodes that mostly follow each other.
const WINDOW_BYTES: usize = 64 << 10;

/// An image that a copy has made before: what in it came from files that have not changed is taken
/// over by the next copy, which need not read them.
///
/// Its record tells for each path the digest of the file that was copied there. The digest covers
/// content, permissions and extended attributes, and is what the copy's cache key was made of. Files
/// that have extended attributes, or several names, are not in the record.
#[derive(Debug)]
pub struct Past {
    file: File,
    /// As written.
    entries: Vec<u8>,
    /// Where each entry begins, in the order of the paths.
    offsets: Vec<usize>,
    reading: Mutex<Reading>,
}

#[derive(Debug, Default)]
struct Reading {
    /// The entry after the one that was found last: paths are mostly asked for in their order.
    next: usize,
    /// A part of the image, and where it begins.
    window: Vec<u8>,
    window_offset: u64,
}

/// What a file of an image holds: first whole blocks, then the rest.
#[derive(Debug)]
pub(crate) struct PastContent {
    pub(crate) blocks_offset: u64,
    pub(crate) blocks_bytes: u64,
    pub(crate) tail: Vec<u8>,
}

impl PastContent {
    /// Returns what a file holds that is less than a block, or in memory.
    pub(crate) fn of_bytes(bytes: Vec<u8>) -> Self {
        Self {
            blocks_offset: 0,
            blocks_bytes: 0,
            tail: bytes,
        }
    }
}

impl Past {
    /// Opens the image in `file`, which is complete. `None` if it has no record that can be read.
    pub fn open(file: File) -> Option<Self> {
        let length = file.metadata().ok()?.len();
        let trailer_offset = length.checked_sub(TRAILER_BYTES as u64)?;
        let mut trailer = [0; TRAILER_BYTES];
        file.read_exact_at(&mut trailer, trailer_offset).ok()?;
        let entries_bytes = u64::from_le_bytes(trailer[16..].try_into().expect("eight bytes"));
        if !trailer.starts_with(&MAGIC) || entries_bytes > MAX_RECORD_BYTES {
            return None;
        }
        let offset = trailer_offset.checked_sub(entries_bytes)?;
        // What lies within the file system are bytes of files, whatever they look like.
        if offset < file_system_bytes(&file).ok()? {
            return None;
        }
        let mut entries = vec![0; entries_bytes as usize];
        file.read_exact_at(&mut entries, offset).ok()?;
        let crc = u32::from_le_bytes(trailer[8..12].try_into().expect("four bytes"));
        if crc32fast::hash(&entries) != crc {
            return None;
        }
        let mut offsets = Vec::new();
        let mut at = 0;
        while at < entries.len() {
            offsets.push(at);
            at += ENTRY_BYTES + path_length(entries.get(at..at + 2)?);
        }
        (at == entries.len()).then_some(Self {
            file,
            entries,
            offsets,
            reading: Mutex::default(),
        })
    }

    /// Returns the content of the file at `path`, if it has `size` bytes and came from a file with
    /// the digest `source`.
    pub(crate) fn content(&self, path: &Path, source: &[u8; 32], size: u64) -> Option<PastContent> {
        let path = OsStr::new(path).as_bytes();
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let position = match self.offsets.get(reading.next) {
            Some(&offset) if self.path(offset) == path => reading.next,
            _ => {
                let found = self.offsets.binary_search_by(|&at| self.path(at).cmp(path));
                found.ok()?
            }
        };
        reading.next = position + 1;
        let offset = self.offsets[position];
        let rest = &self.entries[offset + 2 + self.path(offset).len()..][..ENTRY_BYTES - 2];
        if rest[8..] != *source {
            return None;
        }
        let number = u64::from_le_bytes(rest[..8].try_into().expect("eight bytes"));
        reading.content(&self.file, number, size)
    }

    /// Returns the image, to copy blocks from.
    pub(crate) fn image(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Returns the bytes of a file that is not too large to be held.
    pub(crate) fn read(&self, content: &PastContent) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; content.blocks_bytes as usize];
        self.file.read_exact_at(&mut bytes, content.blocks_offset)?;
        bytes.extend_from_slice(&content.tail);
        Ok(bytes)
    }

    fn path(&self, offset: usize) -> &[u8] {
        let length = path_length(&self.entries[offset..offset + 2]);
        &self.entries[offset + 2..][..length]
    }
}

impl Reading {
    /// Returns what the inode `number` holds, if it is that of a file of `size` bytes.
    fn content(&mut self, file: &File, number: u64, size: u64) -> Option<PastContent> {
        let offset = number.checked_mul(SLOT_BYTES as u64)?;
        let inode = FileInode::decode(self.block_from(file, offset)?)?;
        if inode.size != size {
            return None;
        }
        let tail_bytes = if inode.has_inline_tail {
            (size % BLOCK_BYTES as u64) as usize
        } else {
            0
        };
        let block = self.block_from(file, offset)?;
        let tail = block.get(inode.length..inode.length + tail_bytes)?.to_vec();
        let blocks_bytes = size - tail_bytes as u64;
        let blocks_offset = match inode.first_block {
            Some(block) => u64::from(block) * BLOCK_BYTES as u64,
            None if blocks_bytes == 0 => 0,
            None => return None,
        };
        Some(PastContent {
            blocks_offset,
            blocks_bytes,
            tail,
        })
    }

    /// Returns the bytes of the block that `offset` lies in, from there on.
    fn block_from(&mut self, file: &File, offset: u64) -> Option<&[u8]> {
        let end = (offset + 1).next_multiple_of(BLOCK_BYTES as u64);
        let window_end = self.window_offset + self.window.len() as u64;
        if offset < self.window_offset || end > window_end {
            self.window_offset = end - BLOCK_BYTES as u64;
            self.window.resize(WINDOW_BYTES, 0);
            let mut filled = 0;
            while filled < self.window.len() {
                let at = self.window_offset + filled as u64;
                match file.read_at(&mut self.window[filled..], at).ok()? {
                    0 => break,
                    count => filled += count,
                }
            }
            self.window.truncate(filled);
        }
        let start = (offset - self.window_offset) as usize;
        let end = (end - self.window_offset) as usize;
        self.window.get(start..end)
    }
}

fn path_length(bytes: &[u8]) -> usize {
    usize::from(u16::from_le_bytes([bytes[0], bytes[1]]))
}
