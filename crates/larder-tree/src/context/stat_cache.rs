use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::attributes::Stamp;
use super::record::FileDigest;
use crate::{Error, Result};

/// What the file begins with. The last byte is the version of the format: an older or newer
/// program ignores the file and writes its own.
const MAGIC: [u8; 8] = *b"LRDSTAT\x01";

/// The magic and a CRC-32 of the entries, padded.
const HEADER_BYTES: usize = 16;

/// Six numbers of a stamp, the age and two checksums; see [`CacheEntry::encode`].
const ENTRY_BYTES: usize = 88;

/// How many times the cache is written without an entry being of use before that is dropped.
const MAX_AGE: u8 = 16;

/// The digests of files from earlier scans of one build context, by the files' stamps.
///
/// One flat file: a header, then the entries, sorted by device and inode. It is read at once and
/// searched as it is. A cache that is missing, damaged or of another version is an empty one.
#[derive(Debug, Clone, Default)]
pub struct StatCache {
    /// Whole entries, encoded.
    entries: Vec<u8>,
}

/// One remembered digest.
#[derive(Debug, Clone, Copy)]
pub(super) struct CacheEntry {
    pub(super) stamp: Stamp,
    pub(super) digest: FileDigest,
    /// How many times the cache was written since the entry was last of use.
    pub(super) age: u8,
}

impl StatCache {
    /// Reads the file at `path`, a path of the host that is trusted.
    pub fn load(path: &Path) -> Self {
        std::fs::read(path)
            .ok()
            .and_then(Self::decode)
            .unwrap_or_default()
    }

    /// Writes the file at `path`: under a temporary name beside it, then renamed. The directory
    /// must exist.
    pub fn save(&self, path: &Path) -> Result<()> {
        let temporary = temporary_beside(path);
        let written = self
            .write(&temporary)
            .and_then(|()| std::fs::rename(&temporary, path));
        written.map_err(|error| {
            // What is left over is no use to anybody; the first error tells more.
            let _ = std::fs::remove_file(&temporary);
            Error::io("cannot write the stat cache", error)
        })
    }

    /// Returns how many files it knows.
    pub fn len(&self) -> usize {
        self.entries.len() / ENTRY_BYTES
    }

    /// Returns whether it knows no file.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the digest of the file in exactly that state.
    pub(super) fn get(&self, stamp: &Stamp) -> Option<FileDigest> {
        let index = self.find(stamp.device, stamp.inode)?;
        let entry = self.entry(index);
        (entry.stamp == *stamp).then_some(entry.digest)
    }

    /// Returns a cache of `fresh` entries and of those of `self` that are about other files and
    /// not too old.
    pub(super) fn renewed(&self, mut fresh: Vec<CacheEntry>) -> Self {
        fresh.sort_by_key(CacheEntry::key);
        fresh.dedup_by_key(|entry| entry.key());
        let mut entries = Vec::with_capacity(self.entries.len().max(fresh.len() * ENTRY_BYTES));
        let mut fresh = fresh.into_iter().peekable();
        for index in 0..self.len() {
            let old = self.entry(index);
            while let Some(entry) = fresh.next_if(|entry| entry.key() < old.key()) {
                entry.encode(&mut entries);
            }
            let is_known = fresh.peek().is_some_and(|entry| entry.key() == old.key());
            if !is_known && old.age < MAX_AGE {
                let age = old.age + 1;
                CacheEntry { age, ..old }.encode(&mut entries);
            }
        }
        for entry in fresh {
            entry.encode(&mut entries);
        }
        Self { entries }
    }

    /// Returns a cache with the entries of both: what scans of several parts of one context have
    /// learned. Of two about one file the one that was of use later.
    #[must_use]
    pub fn merged(self, other: &Self) -> Self {
        if other.is_empty() {
            return self;
        }
        let mut entries = Vec::with_capacity(self.entries.len().max(other.entries.len()));
        let mut theirs = (0..other.len()).map(|at| other.entry(at)).peekable();
        for index in 0..self.len() {
            let mut ours = self.entry(index);
            while let Some(entry) = theirs.next_if(|entry| entry.key() < ours.key()) {
                entry.encode(&mut entries);
            }
            if let Some(entry) = theirs.next_if(|entry| entry.key() == ours.key())
                && entry.age < ours.age
            {
                ours = entry;
            }
            ours.encode(&mut entries);
        }
        for entry in theirs {
            entry.encode(&mut entries);
        }
        Self { entries }
    }

    fn find(&self, device: u64, inode: u64) -> Option<usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let at = middle * ENTRY_BYTES;
            let number = |offset: usize| u64_at(&self.entries, at + offset);
            match (number(0), number(8)).cmp(&(device, inode)) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(middle),
            }
        }
        None
    }

    fn entry(&self, index: usize) -> CacheEntry {
        CacheEntry::decode(&self.entries[index * ENTRY_BYTES..][..ENTRY_BYTES])
    }

    fn decode(mut bytes: Vec<u8>) -> Option<Self> {
        let crc = bytes.get(8..12)?;
        let crc = u32::from_le_bytes(crc.try_into().expect("four bytes"));
        let entries = bytes.get(HEADER_BYTES..)?;
        let is_good = bytes.starts_with(&MAGIC)
            && entries.len().is_multiple_of(ENTRY_BYTES)
            && crc32fast::hash(entries) == crc;
        bytes.drain(..HEADER_BYTES);
        is_good.then_some(Self { entries: bytes })
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&crc32fast::hash(&self.entries).to_le_bytes());
        file.write_all(&header)?;
        file.write_all(&self.entries)
    }
}

impl CacheEntry {
    /// What entries are sorted by.
    fn key(&self) -> (u64, u64) {
        (self.stamp.device, self.stamp.inode)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let stamp = &self.stamp;
        out.extend_from_slice(&stamp.device.to_le_bytes());
        out.extend_from_slice(&stamp.inode.to_le_bytes());
        out.extend_from_slice(&stamp.changed_at_nanos.to_le_bytes());
        out.extend_from_slice(&stamp.modified_at_nanos.to_le_bytes());
        out.extend_from_slice(&stamp.size.to_le_bytes());
        out.extend_from_slice(&stamp.mode.to_le_bytes());
        out.extend_from_slice(&u32::from(self.age).to_le_bytes());
        out.extend_from_slice(&self.digest.content_crc.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.digest.record);
    }

    fn decode(bytes: &[u8]) -> Self {
        Self {
            stamp: Stamp {
                device: u64_at(bytes, 0),
                inode: u64_at(bytes, 8),
                changed_at_nanos: u64_at(bytes, 16) as i64,
                modified_at_nanos: u64_at(bytes, 24) as i64,
                size: u64_at(bytes, 32),
                mode: u32_at(bytes, 40),
            },
            age: u32_at(bytes, 44) as u8,
            digest: FileDigest {
                content_crc: u32_at(bytes, 48),
                record: bytes[56..88].try_into().expect("32 bytes"),
            },
        }
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Returns a name in the same directory that no other thread or process uses.
fn temporary_beside(path: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let mut name = path.as_os_str().to_owned();
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".{}-{number}.tmp", std::process::id()));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(inode: u64, age: u8) -> CacheEntry {
        CacheEntry {
            stamp: Stamp {
                device: 1,
                inode,
                changed_at_nanos: -5,
                modified_at_nanos: 7,
                size: 3,
                mode: 0o100_644,
            },
            digest: FileDigest {
                record: [inode as u8; 32],
                content_crc: 9,
            },
            age,
        }
    }

    #[test]
    fn a_saved_cache_knows_exactly_its_stamps() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        let cache = StatCache::default().renewed((0..100).rev().map(|i| entry(i, 0)).collect());
        cache.save(&path).unwrap();
        let loaded = StatCache::load(&path);
        assert_eq!(loaded.len(), 100);
        for inode in 0..100 {
            let known = entry(inode, 0);
            assert_eq!(loaded.get(&known.stamp), Some(known.digest));
            for changed in [
                Stamp {
                    changed_at_nanos: 0,
                    ..known.stamp
                },
                Stamp {
                    modified_at_nanos: 0,
                    ..known.stamp
                },
                Stamp {
                    size: 4,
                    ..known.stamp
                },
                Stamp {
                    mode: 0,
                    ..known.stamp
                },
                Stamp {
                    device: 2,
                    ..known.stamp
                },
                Stamp {
                    inode: 100,
                    ..known.stamp
                },
            ] {
                assert_eq!(loaded.get(&changed), None);
            }
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_cache_is_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        let cache = StatCache::default().renewed(vec![entry(1, 0), entry(2, 0)]);
        cache.save(&path).unwrap();
        let good = std::fs::read(&path).unwrap();
        for index in [0, 7, 8, 16, 60, good.len() - 1] {
            let mut bad = good.clone();
            bad[index] ^= 1;
            std::fs::write(&path, bad).unwrap();
            assert!(StatCache::load(&path).is_empty(), "byte {index}");
        }
        for length in [0, 5, 12, 16, good.len() - 1] {
            std::fs::write(&path, &good[..length]).unwrap();
            assert!(StatCache::load(&path).is_empty(), "length {length}");
        }
        assert!(StatCache::load(&dir.path().join("none")).is_empty());
    }

    #[test]
    fn entries_out_of_use_are_kept_for_a_while() {
        let mut cache = StatCache::default().renewed(vec![entry(1, 0), entry(2, 0)]);
        for _ in 0..MAX_AGE {
            cache = cache.renewed(vec![entry(1, 0)]);
            assert_eq!(cache.len(), 2);
        }
        assert_eq!(cache.renewed(vec![entry(1, 0)]).len(), 1);
    }

    #[test]
    fn scans_of_parts_add_up() {
        let known = StatCache::default().renewed(vec![entry(1, 0), entry(2, 0)]);
        let first = known.renewed(vec![entry(1, 0), entry(3, 0)]);
        let second = known.renewed(vec![entry(2, 0)]);
        for merged in [first.clone().merged(&second), second.merged(&first)] {
            let entries: Vec<_> = (0..merged.len()).map(|at| merged.entry(at)).collect();
            let entries: Vec<_> = entries.iter().map(|it| (it.stamp.inode, it.age)).collect();
            assert_eq!(entries, [(1, 0), (2, 0), (3, 0)]);
        }
        assert_eq!(first.merged(&StatCache::default()).len(), 3);
    }
}
