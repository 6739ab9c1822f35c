use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::FileType;

use super::copied::{ENTRY_BYTES, MAGIC, TRAILER_BYTES};
use super::reader::Reader;

/// A larger record is not read.
const MAX_RECORD_BYTES: u64 = 256 << 20;

/// An image that a copy has made before: what in it came from files that have not changed is taken
/// over by the next copy, which need not read them.
///
/// Its record tells for each path the digest of the file that was copied there. The digest covers
/// content, permissions and extended attributes, and is what the copy's cache key was made of. Files
/// that have extended attributes, or several names, are not in the record.
#[derive(Debug)]
pub struct Past {
    image: Reader,
    /// As written.
    entries: Vec<u8>,
    /// Where each entry begins, in the order of the paths.
    offsets: Vec<usize>,
    /// The entry after the one that was found last: paths are mostly asked for in their order.
    next: AtomicUsize,
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
        let mut entries = vec![0; entries_bytes as usize];
        file.read_exact_at(&mut entries, offset).ok()?;
        let image = Reader::open(file).ok()?;
        // What lies within the file system are bytes of files, whatever they look like.
        if offset < image.length() {
            return None;
        }
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
            image,
            entries,
            offsets,
            next: AtomicUsize::new(0),
        })
    }

    /// Returns the content of the file at `path`, if it has `size` bytes and came from a file with
    /// the digest `source`.
    pub(crate) fn content(&self, path: &Path, source: &[u8; 32], size: u64) -> Option<PastContent> {
        let path = OsStr::new(path).as_bytes();
        let next = self.next.load(Ordering::Relaxed);
        let position = match self.offsets.get(next) {
            Some(&offset) if self.path(offset) == path => next,
            _ => {
                let found = self.offsets.binary_search_by(|&at| self.path(at).cmp(path));
                found.ok()?
            }
        };
        self.next.store(position + 1, Ordering::Relaxed);
        let offset = self.offsets[position];
        let rest = &self.entries[offset + 2 + self.path(offset).len()..][..ENTRY_BYTES - 2];
        if rest[8..] != *source {
            return None;
        }
        let number = u64::from_le_bytes(rest[..8].try_into().expect("eight bytes"));
        let inode = self.image.inode(number).ok()?;
        let is_plain = inode.file_type() == FileType::RegularFile && inode.xattr_bytes == 0;
        if !is_plain || inode.size != size {
            return None;
        }
        let (blocks_offset, tail) = self.image.content(&inode).ok()?;
        Some(PastContent {
            blocks_offset,
            blocks_bytes: size - tail.len() as u64,
            tail,
        })
    }

    /// Returns the image, to copy blocks from.
    pub(crate) fn image(&self) -> BorrowedFd<'_> {
        self.image.as_fd()
    }

    /// Returns the bytes of a file that is not too large to be held.
    pub(crate) fn read(&self, content: &PastContent) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; content.blocks_bytes as usize];
        self.image.read_at(content.blocks_offset, &mut bytes)?;
        bytes.extend_from_slice(&content.tail);
        Ok(bytes)
    }

    fn path(&self, offset: usize) -> &[u8] {
        let length = path_length(&self.entries[offset..offset + 2]);
        &self.entries[offset + 2..][..length]
    }
}

fn path_length(bytes: &[u8]) -> usize {
    usize::from(u16::from_le_bytes([bytes[0], bytes[1]]))
}
