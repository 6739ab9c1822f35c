use std::ops::Range;

use larder_oci::SavedSha256;

/// Names the compressed form of a chunk: BLAKE3 over the chunk's bytes, the level and the version
/// of the compressor. SHA-256 would cost as much as the diff ID once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkKey(pub [u8; 32]);

/// A compressed chunk of an earlier stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownChunk {
    /// The chunk's compressed bytes.
    pub bytes: Vec<u8>,
    /// The stream that has it, by a number of the cache's own.
    pub stream: u32,
    /// Where it begins there, in bytes.
    pub offset: u64,
}

/// How far two computations had come at the end of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Over the compressed bytes of the stream to the end of the chunk.
    pub packed: SavedSha256,
    /// Over the bytes that they were made of.
    pub plain: SavedSha256,
}

/// Keeps compressed chunks from one export to the next. Called from several threads.
pub trait ChunkCache: Send + Sync {
    /// Returns what was once written under `key`, if it is still there.
    fn get(&self, key: &ChunkKey) -> Option<KnownChunk>;

    /// Takes note that the chunk `key` is at `place` in the output, in bytes. Called in the order
    /// of the output.
    fn written(&self, key: &ChunkKey, place: Range<u64>);

    /// Returns what was marked in that stream at the end of the chunk that ends with its `end`th
    /// byte.
    fn mark(&self, _stream: u32, _end: u64) -> Option<Mark> {
        None
    }

    /// Takes note of the digests at the end of the chunk that ends with the output's `end`th byte.
    fn marked(&self, _end: u64, _mark: Mark) {}
}
