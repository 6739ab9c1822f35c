//! Where the compressed chunks of earlier layers are, so that of a layer that is much like one of
//! them only what is new is compressed.
//!
//! One file for all layers, rewritten after each. Its loss costs time only:
//!
//! ```text
//! "larder chunks 3\n"
//! u32                      number of blobs
//! [32]                     SHA-256 of each
//! u32                      number of marks
//! u32 u64 sum sum          for each mark, the latest first: the number of its blob, how far into
//!                          it, and the sums so far of the blob and of the tar that it is made of
//! [32] u32 u64 u32         for each chunk, the latest first: its key, the number of its blob,
//!                          offset and length therein
//! [32]                     SHA-256 of all before
//! ```
//!
//! A sum is `[u32; 8] u64 [63]`: the state of SHA-256 after the last full block, the number of bytes
//! that went in, and those of them that don't fill a block, padded with zeros.
//!
//! Numbers are little-endian. A file of another version is not read, and none that is damaged: a
//! wrong place would make a damaged layer.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use larder_oci::{Digest, SavedSha256};
use larder_store::Store;
use larder_tree::bulk::BulkSource;
use larder_tree::compression::{ChunkCache, ChunkKey, KnownChunk, Mark};

const MAGIC: &[u8] = b"larder chunks 3\n";

/// The name of the file among the caches of the store.
const FILE_NAME: &str = "layer-chunks";

/// How many chunks are remembered: of some 16 GB of layers.
const MAX_CHUNKS: usize = 64 << 10;

/// How many marks are remembered: of as many layers.
const MAX_MARKS: usize = 2 << 10;

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
    marked: Mutex<Vec<(u64, Mark)>>,
}

impl StoredChunks {
    pub(super) fn new(store: &Store) -> Self {
        Self {
            store: store.clone(),
            known: OnceLock::new(),
            written: Mutex::default(),
            marked: Mutex::default(),
        }
    }

    /// Remembers the chunks of the new blob `digest`.
    pub(super) fn keep(&self, digest: &Digest) {
        let written = std::mem::take(&mut *lock(&self.written));
        let marked = std::mem::take(&mut *lock(&self.marked));
        if let (Some(blob), FEWEST_CHUNKS..) = (digest.sha256_bytes(), written.len())
            && let Err(error) = self.write(blob, &written, marked)
        {
            tracing::debug!(%error, "the chunks of a layer are not remembered");
        }
    }

    fn write(
        &self,
        blob: Sum,
        written: &[(Sum, Range<u64>)],
        marked: Vec<(u64, Mark)>,
    ) -> io::Result<()> {
        let mut index = Index::default();
        for (key, place) in written {
            let length = (place.end - place.start) as u32;
            index.add(*key, blob, place.start, length);
        }
        for (end, mark) in marked {
            index.add_mark(blob, end, mark);
        }
        // Others may have added to it meanwhile.
        let mut before = Index::read(&self.path());
        for (key, blob, offset, length) in before.entries() {
            index.add(key, blob, offset, length);
        }
        for (place, mark) in std::mem::take(&mut before.marks) {
            index.add_mark(before.blobs[place.0 as usize], place.1, mark);
        }
        index.write(&self.path())
    }

    fn known(&self) -> &Known {
        self.known.get_or_init(|| {
            let mut index = Index::read(&self.path());
            Known {
                marks: std::mem::take(&mut index.marks).into_iter().collect(),
                index,
                files: Mutex::default(),
            }
        })
    }

    fn path(&self) -> PathBuf {
        self.store.contexts_dir().join(FILE_NAME)
    }
}

impl ChunkCache for StoredChunks {
    fn get(&self, key: &ChunkKey) -> Option<KnownChunk> {
        self.known().chunk(&self.store, &key.0)
    }

    fn written(&self, key: &ChunkKey, place: Range<u64>) {
        lock(&self.written).push((key.0, place));
    }

    fn mark(&self, stream: u32, end: u64) -> Option<Mark> {
        let marks = &self.known().marks;
        marks.get(&(stream, end)).cloned()
    }

    fn marked(&self, end: u64, mark: Mark) {
        lock(&self.marked).push((end, mark));
    }
}

/// The chunks of earlier layers, with the blobs that were opened for them.
struct Known {
    index: Index,
    marks: HashMap<MarkPlace, Mark>,
    /// `None` for a blob that is gone.
    files: Mutex<HashMap<u32, Option<Arc<BulkSource>>>>,
}

impl Known {
    fn chunk(&self, store: &Store, key: &Sum) -> Option<KnownChunk> {
        let place = self.index.places.get(key)?;
        let file = lock(&self.files)
            .entry(place.blob)
            .or_insert_with(|| open(store, self.index.blobs[place.blob as usize]))
            .clone()?;
        Some(KnownChunk {
            bytes: file.read_at(place.offset, place.length as usize).ok()?,
            stream: place.blob,
            offset: place.offset,
        })
    }
}

/// Opens a blob. A file that the store doesn't know may be the rest of a crash.
fn open(store: &Store, sum: Sum) -> Option<Arc<BulkSource>> {
    let digest = Digest::from_sha256(sum);
    let is_stored = store.has_blob(&digest).unwrap_or_default();
    let file = is_stored.then(|| store.open_blob(&digest))?;
    Some(Arc::new(BulkSource::new(file.ok()?)))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Index {
    blobs: Vec<Sum>,
    places: HashMap<Sum, Place>,
    /// The keys of `places`, the latest first.
    order: Vec<Sum>,
    /// The latest first.
    marks: Vec<(MarkPlace, Mark)>,
}

/// The number of a blob, and how far into it.
type MarkPlace = (u32, u64);

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
        let place = Place {
            blob: self.number(blob),
            offset,
            length,
        };
        self.places.insert(key, place);
        self.order.push(key);
    }

    /// Adds a mark, unless there are enough, or no chunk of that blob is known any more.
    fn add_mark(&mut self, blob: Sum, end: u64, mark: Mark) {
        if self.marks.len() < MAX_MARKS && self.blobs.contains(&blob) {
            let place = (self.number(blob), end);
            self.marks.push((place, mark));
        }
    }

    fn number(&mut self, blob: Sum) -> u32 {
        let known = self.blobs.iter().rposition(|known| *known == blob);
        let number = known.unwrap_or_else(|| {
            self.blobs.push(blob);
            self.blobs.len() - 1
        });
        number as u32
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
        bytes.extend((self.marks.len() as u32).to_le_bytes());
        for ((blob, end), mark) in &self.marks {
            bytes.extend(blob.to_le_bytes());
            bytes.extend(end.to_le_bytes());
            put_sum(&mut bytes, &mark.packed);
            put_sum(&mut bytes, &mark.plain);
        }
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
        for _ in 0..u32::from_le_bytes(take(rest)?) {
            let place = (
                u32::from_le_bytes(take(rest)?),
                u64::from_le_bytes(take(rest)?),
            );
            let mark = Mark {
                packed: take_sum(rest)?,
                plain: take_sum(rest)?,
            };
            ((place.0 as usize) < index.blobs.len()).then_some(())?;
            index.marks.push((place, mark));
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

fn put_sum(bytes: &mut Vec<u8>, sum: &SavedSha256) {
    bytes.extend(sum.state.iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend(sum.length.to_le_bytes());
    let mut pending = [0; 63];
    pending[..sum.pending.len()].copy_from_slice(&sum.pending);
    bytes.extend(pending);
}

fn take_sum(bytes: &mut &[u8]) -> Option<SavedSha256> {
    let mut state = [0; 8];
    for word in &mut state {
        *word = u32::from_le_bytes(take(bytes)?);
    }
    let length = u64::from_le_bytes(take(bytes)?);
    let pending = take::<63>(bytes)?[..(length % 64) as usize].to_vec();
    Some(SavedSha256 {
        state,
        length,
        pending,
    })
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
    use larder_oci::Sha256;

    use super::*;

    fn mark() -> Mark {
        let (mut packed, mut plain) = (Sha256::new(), Sha256::new());
        packed.update(&[1; 100]);
        plain.update(&[2; 1000]);
        Mark {
            packed: packed.save(),
            plain: plain.save(),
        }
    }

    #[test]
    fn an_index_is_read_as_it_was_written() {
        let mut index = Index::default();
        index.add([1; 32], [9; 32], 10, 20);
        index.add([2; 32], [9; 32], 30, 5);
        index.add([3; 32], [8; 32], 10, 20);
        index.add_mark([8; 32], 30, mark());
        // None of its chunks is there.
        index.add_mark([7; 32], 30, mark());
        assert_eq!(index.marks.len(), 1);
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
        index.add_mark([9; 32], 30, mark());
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
