use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::format::BLOCK_BYTES;
use super::inodes::InodeRef;

/// What the file of an image ends with, if it has a record. The last byte is the version of the
/// format: who knows another one takes nothing over.
pub(super) const MAGIC: [u8; 8] = *b"LRDCOPY\x01";

/// The magic, a CRC-32 of the entries, padding, and the length of the entries.
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
    /// By path, in the order of the bytes: the inodes of files, and the digests that their sources
    /// had, with attributes.
    files: BTreeMap<Box<[u8]>, (InodeRef, [u8; 32])>,
    size_bytes: u64,
}

impl Copied {
    /// Takes note of a file that came from one with the digest `source`.
    pub(super) fn add(&mut self, path: &Path, inode: InodeRef, source: [u8; 32], size: u64) {
        let path = path.as_os_str().as_bytes().into();
        self.files.insert(path, (inode, source));
        self.size_bytes += size;
    }

    /// Returns the record, to be appended to an image of whole blocks: of the files that are still
    /// where they were made, by the `number`s of their inodes. Empty if it is not worth it.
    pub(super) fn encode(&self, number: impl Fn(&Path, InodeRef) -> Option<u64>) -> Vec<u8> {
        if self.files.len() < WORTHWHILE_FILES && self.size_bytes < WORTHWHILE_BYTES {
            return Vec::new();
        }
        let mut entries = Vec::new();
        for (path, (inode, source)) in &self.files {
            let length = u16::try_from(path.len());
            let number = number(Path::new(OsStr::from_bytes(path)), *inode);
            if let (Ok(length), Some(number)) = (length, number) {
                entries.extend_from_slice(&length.to_le_bytes());
                entries.extend_from_slice(path);
                entries.extend_from_slice(&number.to_le_bytes());
                entries.extend_from_slice(source);
            }
        }
        let length = entries.len() + TRAILER_BYTES;
        let mut record = vec![0; length.next_multiple_of(BLOCK_BYTES) - length];
        record.extend_from_slice(&entries);
        record.extend_from_slice(&MAGIC);
        record.extend_from_slice(&crc32fast::hash(&entries).to_le_bytes());
        record.extend_from_slice(&[0; 4]);
        record.extend_from_slice(&(entries.len() as u64).to_le_bytes());
        record
    }
}
