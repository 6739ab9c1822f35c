//! Where the compressed chunks of earlier layers are, so that of a layer that is much like one of
//! them only what is new is compressed.
//!
//! One file for all layers, rewritten after each. Its loss costs time only:
//!
//! ```text
//! "larder chunks 2\n"
//! u32                      number of blobs
//! [32]                     SHA-256 of each
//! [32] u32 u64 u32         for each chunk, the latest first: its key, the number of its blob,
//!                          offset and length therein
//! [32]                     SHA-256 of all before
//! ```
//!
//! Numbers are little-endian. A file of another version is not read, and none that is damaged: a
//! wrong place would make a damaged layer.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use larder_oci::Digest;
use larder_store::Store;
use larder_tree::compression::{ChunkCache, ChunkKey};

const MAGIC: &[u8] = b"larder chunks 2\n";

/// The name of the file among the caches of the store.
const FILE_NAME: &str = "layer-chunks";

/// How many chunks are remembered: of some 16 GB of layers.
const MAX_CHUNKS: usize = 64 << 10;

/// Smaller layers are compressed sooner than the file is written.
const FEWEST_CHUNKS: usize = 8;

/// No compressed chunk is longer.
const MAX_CHUNK_BYTES: u32 = 1 << 20;

/// A digest: SHA-256 of a blob, or the key of a chunk.
type Sum = [u8; 32];

/// Finds chunks in the blobs of a store, and takes note of those of a new one.
pub(super) struct StoredChunks {
    store: Store,
    /// What was there at the beginning, read when the first chunk is looked for.
    known: OnceLock<Known>,
    written: Mutex<Vec<(Sum, Range<u64>)>>,
}

impl StoredChunks {
    pub(super) fn new(store: &Store) -> Self {
        Self {
            store: store.clone(),
            known: OnceLock::new(),
            written: Mutex::default(),
        }
    }

    /// Remembers the chunks of the new blob `digest`.
    pub(super) fn keep(&self, digest: &Digest) {
        let written = std::mem::take(&mut *lock(&self.written));
        if let (Some(blob), FEWEST_CHUNKS..) = (digest.sha256_bytes(), written.len())
            && let Err(error) = self.write(blob, &written)
        {
            tracing::debug!(%error, "the chunks of a layer are not remembered");
        }
    }

    fn write(&self, blob: Sum, written: &[(Sum, Range<u64>)]) -> io::Result<()> {
        let mut index = Index::default();
        for (key, place) in written {
            let length = (place.end - place.start) as u32;
            index.add(*key, blob, place.start, length);
        }
        // Others may have added to it meanwhile.
        for (key, blob, offset, length) in Index::read(&self.path()).entries() {
            index.add(key, blob, offset, length);
        }
        index.write(&self.path())
    }

    fn path(&self) -> PathBuf {
        self.store.contexts_dir().join(FILE_NAME)
    }
}

impl ChunkCache for StoredChunks {
    fn get(&self, key: &ChunkKey) -> Option<Vec<u8>> {
        let known = self.known.get_or_init(|| Known {
            index: Index::read(&self.path()),
            files: Mutex::default(),
        });
        known.chunk(&self.store, &key.0)
    }

    fn written(&self, key: &ChunkKey, place: Range<u64>) {
        lock(&self.written).push((key.0, place));
    }
}

/// The chunks of earlier layers, with the blobs that were opened for them.
struct Known {
    index: Index,
    /// `None` for a blob that is gone.
    files: Mutex<HashMap<u32, Option<Arc<File>>>>,
}

impl Known {
    fn chunk(&self, store: &Store, key: &Sum) -> Option<Vec<u8>> {
        let place = self.index.places.get(key)?;
        let file = lock(&self.files)
            .entry(place.blob)
            .or_insert_with(|| open(store, self.index.blobs[place.blob as usize]))
            .clone()?;
        let mut bytes = vec![0; place.length as usize];
        file.read_exact_at(&mut bytes, place.offset).ok()?;
        Some(bytes)
    }
}

/// Opens a blob. A file that the store doesn't know may be the rest of a crash.
fn open(store: &Store, sum: Sum) -> Option<Arc<File>> {
    let digest = Digest::from_sha256(sum);
    let is_stored = store.has_blob(&digest).unwrap_or_default();
    let file = is_stored.then(|| store.open_blob(&digest))?;
    file.ok().map(Arc::new)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Index {
    blobs: Vec<Sum>,
    places: HashMap<Sum, Place>,
    /// The keys of `places`, the latest first.
    order: Vec<Sum>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    blob: u32,
    offset: u64,
    length: u32,
}

impl Index {
    /// Adds a chunk, unless it is known or there are enough.
    fn add(&mut self, key: Sum, blob: Sum, offset: u64, length: u32) {
        if self.order.len() == MAX_CHUNKS || self.places.contains_key(&key) {
            return;
        }
        let known = self.blobs.iter().rposition(|known| *known == blob);
        let number = known.unwrap_or_else(|| {
            self.blobs.push(blob);
            self.blobs.len() - 1
        });
        let place = Place {
            blob: number as u32,
            offset,
            length,
        };
        self.places.insert(key, place);
        self.order.push(key);
    }

    fn entries(&self) -> impl Iterator<Item = (Sum, Sum, u64, u32)> {
        self.order.iter().map(|key| {
            let place = &self.places[key];
            let blob = self.blobs[place.blob as usize];
            (*key, blob, place.offset, place.length)
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend((self.blobs.len() as u32).to_le_bytes());
        bytes.extend(self.blobs.iter().flatten());
        for key in &self.order {
            let place = &self.places[key];
            bytes.extend(key);
            bytes.extend(place.blob.to_le_bytes());
            bytes.extend(place.offset.to_le_bytes());
            bytes.extend(place.length.to_le_bytes());
        }
        bytes.extend(Digest::sha256(&bytes).sha256_bytes().unwrap_or_default());
        bytes
    }

    /// Replaces the file. Of several at once, from whatever thread or process, the last one wins.
    fn write(&self, path: &Path) -> io::Result<()> {
        static WRITTEN: AtomicU64 = AtomicU64::new(0);
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("{}-{number}", std::process::id()));
        let done = std::fs::write(&temporary, self.encode())
            .and_then(|()| std::fs::rename(&temporary, path));
        if done.is_err() {
            // The first error tells more than a left-over would.
            let _ = std::fs::remove_file(&temporary);
        }
        done
    }

    /// Reads the file; an absent, foreign or damaged one is as good as empty.
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_default();
        Self::decode(&bytes).unwrap_or_default()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (mut bytes, sum) = bytes.split_last_chunk::<32>()?;
        (Digest::sha256(bytes).sha256_bytes()? == *sum).then_some(())?;
        let rest = &mut bytes;
        (take::<16>(rest)? == MAGIC).then_some(())?;
        let mut index = Self::default();
        for _ in 0..u32::from_le_bytes(take(rest)?) {
            index.blobs.push(take(rest)?);
        }
        while !rest.is_empty() {
            let key = take(rest)?;
            let place = Place {
                blob: u32::from_le_bytes(take(rest)?),
                offset: u64::from_le_bytes(take(rest)?),
                length: u32::from_le_bytes(take(rest)?),
            };
            let is_sound =
                (place.blob as usize) < index.blobs.len() && place.length <= MAX_CHUNK_BYTES;
            is_sound.then_some(())?;
            if index.places.insert(key, place).is_none() {
                index.order.push(key);
            }
        }
        Some(index)
    }
}

/// Takes the next `N` bytes.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_read_as_it_was_written() {
        let mut index = Index::default();
        index.add([1; 32], [9; 32], 10, 20);
        index.add([2; 32], [9; 32], 30, 5);
        index.add([3; 32], [8; 32], 10, 20);
        // The first one stays.
        index.add([1; 32], [8; 32], 99, 1);
        assert_eq!(index.blobs.len(), 2);
        let bytes = index.encode();
        assert_eq!(Index::decode(&bytes).unwrap(), index);
        let entries: Vec<_> = index.entries().collect();
        assert_eq!(entries[0], ([1; 32], [9; 32], 10, 20));
    }

    #[test]
    fn what_is_damaged_is_not_read() {
        let mut index = Index::default();
        index.add([1; 32], [9; 32], 10, 20);
        let bytes = index.encode();
        for end in 0..bytes.len() {
            assert_eq!(Index::decode(&bytes[..end]), None, "{end}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(Index::decode(&damaged), None, "{at}");
        }
    }

    #[test]
    fn writing_at_once_leaves_one_of_them_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        std::thread::scope(|scope| {
            for blob in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    let mut index = Index::default();
                    for key in 0..(blob + 1) * 50 {
                        index.add([key; 32], [blob; 32], u64::from(key), 1);
                    }
                    for _ in 0..50 {
                        index.write(path).unwrap();
                        assert!(!Index::read(path).order.is_empty());
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn there_is_a_limit() {
        let mut index = Index::default();
        for number in 0..MAX_CHUNKS as u32 + 10 {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&number.to_le_bytes());
            index.add(key, [1; 32], 0, 1);
        }
        assert_eq!(index.order.len(), MAX_CHUNKS);
    }
}
