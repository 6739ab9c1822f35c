use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::FileType;

use super::copied::{ENTRY_BYTES, MAGIC, TRAILER_BYTES, Uses};
use super::files::Files;
use super::format::{BLOCK_BYTES, MAX_DEVICES};
use super::reader::Reader;

/// What is taken over is checked up to this size: it is in memory anyway, and is copied.
pub(crate) const CHECKED_BYTES: u64 = 64 << 10;

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
    /// What the record says of the use of blocks.
    uses: Uses,
    /// The images whose blocks may be used further, instead of copied.
    shared: Vec<Shared>,
    /// As written.
    entries: Vec<u8>,
    /// Where each entry begins, in the order of the paths.
    offsets: Vec<usize>,
    /// The entry after the one that was found last: paths are mostly asked for in their order.
    next: AtomicUsize,
}

/// An image whose blocks may be used.
#[derive(Debug)]
struct Shared {
    /// Which extra device of the earlier image it is; `None` for that itself.
    device: Option<usize>,
    name: String,
    block_count: u32,
    used_bytes: u64,
}

/// What a file of an image holds: first whole blocks, then the rest.
#[derive(Debug)]
pub struct PastContent {
    /// Which extra device holds the blocks; `None` for the image's own file.
    device: Option<usize>,
    pub(crate) blocks_offset: u64,
    pub(crate) blocks_bytes: u64,
    pub(crate) tail: Vec<u8>,
}

/// Blocks of an image that are used as they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct SharedBlocks<'a> {
    /// The name of the image, and how many blocks it has.
    pub(super) name: &'a str,
    pub(super) block_count: u32,
    /// The first of the blocks, counted from the begin of that image.
    pub(super) first: u32,
}

impl Shared {
    fn is_worth_it(&self) -> bool {
        self.used_bytes > 0
            && self.used_bytes >= u64::from(self.block_count) * BLOCK_BYTES as u64 / 2
    }
}

impl PastContent {
    /// Returns what a file holds that is less than a block, or in memory.
    pub(crate) fn of_bytes(bytes: Vec<u8>) -> Self {
        Self {
            device: None,
            blocks_offset: 0,
            blocks_bytes: 0,
            tail: bytes,
        }
    }
}

impl Past {
    /// Opens the image in `files`, which is complete. `None` if it has no record that can be read.
    pub fn open(files: impl Into<Files>) -> Option<Self> {
        let files = files.into();
        let file = files.own();
        let length = file.metadata().ok()?.len();
        let trailer_offset = length.checked_sub(TRAILER_BYTES as u64)?;
        let mut trailer = [0; TRAILER_BYTES];
        file.read_exact_at(&mut trailer, trailer_offset).ok()?;
        let record_bytes = u64::from_le_bytes(trailer[16..].try_into().expect("eight bytes"));
        if !trailer.starts_with(&MAGIC) || record_bytes > MAX_RECORD_BYTES {
            return None;
        }
        let offset = trailer_offset.checked_sub(record_bytes)?;
        let mut record = vec![0; record_bytes as usize];
        file.read_exact_at(&mut record, offset).ok()?;
        let image = Reader::open(files).ok()?;
        // What lies within the file system are bytes of files, whatever they look like.
        if offset < image.length() {
            return None;
        }
        let crc = u32::from_le_bytes(trailer[8..12].try_into().expect("four bytes"));
        if crc32fast::hash(&record) != crc {
            return None;
        }
        let uses = Uses::decode(&record)?;
        let entries = record.split_off(Uses::BYTES);
        let mut offsets = Vec::new();
        let mut at = 0;
        while at < entries.len() {
            offsets.push(at);
            at += ENTRY_BYTES + path_length(entries.get(at..at + 2)?);
        }
        (at == entries.len()).then_some(Self {
            image,
            uses,
            shared: Vec::new(),
            entries,
            offsets,
            next: AtomicUsize::new(0),
        })
    }

    /// Lets the next copy use blocks of the image, and of its devices, where they are: they become extra devices of the
    /// new image, this one under `name`. An image of which less than half is still in use is none; what is left
    /// of it is copied.
    #[must_use]
    pub fn shared_as(mut self, name: &str) -> Self {
        let block_count = (self.image.length() / BLOCK_BYTES as u64) as u32;
        let itself = Shared {
            device: None,
            name: name.to_owned(),
            block_count,
            used_bytes: self.uses.own_bytes,
        };
        let slots = self.image.files().device_slots().enumerate();
        let devices = slots.map(|(index, slot)| Shared {
            device: Some(index),
            name: slot.name.clone(),
            block_count: slot.block_count,
            used_bytes: self.uses.device_bytes[index],
        });
        let mut shared: Vec<_> = devices.chain([itself]).collect();
        shared.retain(Shared::is_worth_it);
        shared.sort_by_key(|shared| std::cmp::Reverse(shared.used_bytes));
        shared.truncate(MAX_DEVICES);
        self.shared = shared;
        self
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
        let (located, tail) = self.image.content(&inode).ok()?;
        Some(PastContent {
            device: located.and_then(|located| located.device),
            blocks_offset: located.map_or(0, |located| located.offset),
            blocks_bytes: size - tail.len() as u64,
            tail,
        })
    }

    /// Returns the file that has the blocks of `content`, to copy them from.
    pub(crate) fn holder(&self, content: &PastContent) -> BorrowedFd<'_> {
        let files = self.image.files();
        let device = content.device.and_then(|index| files.devices().nth(index));
        device.unwrap_or(files.own()).as_fd()
    }

    /// Returns the blocks of `content` as they may be used where they are; `None` if they must be copied.
    pub(super) fn shared(&self, content: &PastContent) -> Option<SharedBlocks<'_>> {
        let mut candidates = self.shared.iter();
        let shared = candidates.find(|shared| shared.device == content.device)?;
        Some(SharedBlocks {
            name: &shared.name,
            block_count: shared.block_count,
            first: (content.blocks_offset / BLOCK_BYTES as u64) as u32,
        })
    }

    /// Returns how many bytes of `content` an image that takes it over will have of its own.
    pub(crate) fn own_bytes(&self, content: &PastContent) -> u64 {
        let tail = content.tail.len() as u64;
        match self.shared(content) {
            Some(_) => tail,
            None => content.blocks_bytes + tail,
        }
    }

    /// Returns the bytes of a file that is not too large to be held.
    pub(crate) fn read(&self, content: &PastContent) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; content.blocks_bytes as usize];
        self.image
            .read_held(content.device, content.blocks_offset, &mut bytes)?;
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
