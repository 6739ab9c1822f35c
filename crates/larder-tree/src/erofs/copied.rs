use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::format::{BLOCK_BYTES, MAX_DEVICES};
use super::inodes::InodeRef;
use super::past::CHECKED_BYTES;

/// What the file of an image ends with, if it has a record. The last byte is the version of the
/// format: who knows another one takes nothing over.
pub(super) const MAGIC: [u8; 8] = *b"LRDCOPY\x02";

/// The magic, a CRC-32 of what comes before it, padding, and the length of that: [`Uses`], and the entries.
pub(super) const TRAILER_BYTES: usize = 24;

/// What an entry has besides its path: the length of that, the number of the inode, the digest.
pub(super) const ENTRY_BYTES: usize = 2 + 8 + 32;

/// A record is written if there are so many files, or so many bytes of them.
const WORTHWHILE_FILES: usize = 32;
const WORTHWHILE_BYTES: u64 = 256 << 10;

/// The record of an image: what its files were copied from. It lies behind the file system's last
/// block, where the kernel doesn't look.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// With their paths, in the order in which they were copied.
    files: Vec<(PathBuf, CopiedFile)>,
    size_bytes: u64,
}

/// A file that was copied.
#[derive(Debug)]
pub(super) struct CopiedFile {
    pub(super) inode: InodeRef,
    /// The digest that its source had, with attributes.
    pub(super) source: [u8; 32],
    pub(super) size: u64,
    /// The extra device that has its blocks; `None` if the image itself does.
    pub(super) device: Option<usize>,
}

/// How much of the blocks of an image and of its extra devices is in use by files that a later copy may
/// take over unread.
#[derive(Debug, Default)]
pub(super) struct Uses {
    pub(super) own_bytes: u64,
    pub(super) device_bytes: [u64; MAX_DEVICES],
}

impl Uses {
    /// What they take at the begin of a record.
    pub(super) const BYTES: usize = 8 * (1 + MAX_DEVICES);

    fn add(&mut self, file: &CopiedFile) {
        if file.size >= CHECKED_BYTES {
            *match file.device {
                None => &mut self.own_bytes,
                Some(index) => &mut self.device_bytes[index],
            } += file.size;
        }
    }

    fn encode(&self) -> Vec<u8> {
        let numbers = [self.own_bytes].into_iter().chain(self.device_bytes);
        numbers.flat_map(u64::to_le_bytes).collect()
    }

    pub(super) fn decode(record: &[u8]) -> Option<Self> {
        let (numbers, _) = record.get(..Self::BYTES)?.as_chunks();
        let mut numbers = numbers.iter().map(|bytes| u64::from_le_bytes(*bytes));
        let mut uses = Self {
            own_bytes: numbers.next()?,
            ..Self::default()
        };
        for bytes in &mut uses.device_bytes {
            *bytes = numbers.next()?;
        }
        Some(uses)
    }
}

impl Copied {
    /// Takes note of what lies at `path`.
    pub(super) fn add(&mut self, path: PathBuf, file: CopiedFile) {
        self.size_bytes += file.size;
        self.files.push((path, file));
    }

    /// Returns the record, to be appended to an image of whole blocks: of the files that are still
    /// where they were made, by the `number`s of their inodes; in the order of the paths' bytes. Empty if it
    /// is not worth it.
    pub(super) fn encode(mut self, number: impl Fn(&Path, InodeRef) -> Option<u64>) -> Vec<u8> {
        if self.files.len() < WORTHWHILE_FILES && self.size_bytes < WORTHWHILE_BYTES {
            return Vec::new();
        }
        self.files
            .sort_by(|(a, _), (b, _)| path_bytes(a).cmp(path_bytes(b)));
        let mut uses = Uses::default();
        let lengths = self.files.iter().map(|(path, _)| path_bytes(path).len());
        let room = Uses::BYTES + lengths.map(|length| ENTRY_BYTES + length).sum::<usize>();
        let mut body = Vec::with_capacity(room);
        body.resize(Uses::BYTES, 0);
        for (path, file) in &self.files {
            let number = number(path, file.inode);
            let path = path_bytes(path);
            let length = u16::try_from(path.len());
            if let (Ok(length), Some(number)) = (length, number) {
                uses.add(file);
                body.extend_from_slice(&length.to_le_bytes());
                body.extend_from_slice(path);
                body.extend_from_slice(&number.to_le_bytes());
                body.extend_from_slice(&file.source);
            }
        }
        body[..Uses::BYTES].copy_from_slice(&uses.encode());
        let length = body.len() + TRAILER_BYTES;
        let whole = length.next_multiple_of(BLOCK_BYTES);
        let mut record = Vec::with_capacity(whole);
        record.resize(whole - length, 0);
        record.extend_from_slice(&body);
        record.extend_from_slice(&MAGIC);
        record.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        record.extend_from_slice(&[0; 4]);
        record.extend_from_slice(&(body.len() as u64).to_le_bytes());
        record
    }
}

fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}
