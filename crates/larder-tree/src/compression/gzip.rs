use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use flate2::{Compress, FlushCompress};

use super::chunker::Chunker;
use super::deflate::{self, Deflater};
use super::pipeline::{Piece, Pipeline};
use crate::{Error, ErrorKind, Result};

/// A member without name and time, from an unknown system, as Go's compressor writes it.
const MEMBER_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// An empty last block, which ends the compressed data.
const LAST_BLOCK: [u8; 2] = [0x03, 0x00];

/// Names zlib-rs and how it is driven. It changes with every version that compresses otherwise.
const ZLIB_FORMAT: &str = "zlib-rs 0.6 full-flush 1";

/// Names the compressed form of a chunk: BLAKE3 over the chunk's bytes, the level and the version
/// of the compressor. SHA-256 would cost as much as the diff ID once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkKey(pub [u8; 32]);

/// Keeps compressed chunks from one export to the next. Called from several threads.
pub trait ChunkCache: Send + Sync {
    /// Returns what was once written under `key`, if it is still there.
    fn get(&self, key: &ChunkKey) -> Option<Vec<u8>>;

    /// Takes note that the chunk `key` is at `place` in the output, in bytes. Called in the order
    /// of the output.
    fn written(&self, key: &ChunkKey, place: Range<u64>);
}

/// Compresses to one gzip member, in parallel and always to the same bytes.
///
/// The input is cut into chunks of about 256 KiB. Each is compressed by itself and ends in a full
/// flush, so chunks are joined by writing them one after the other; the checksums are combined.
/// Neither the number of threads nor the sizes of the writes change the output. With several
/// threads, `out` is written by one of its own.
pub struct GzipEncoder<W: Write> {
    chunker: Chunker,
    pipeline: Pipeline<Member<W>, Chunk>,
    level: Option<u32>,
}

impl<W: Write + Send + 'static> GzipEncoder<W> {
    /// Starts a stream, compressed by `threads` threads; with one, by the caller's. `level` is
    /// zlib's, 0 (stored) to 9; `None` stands for a compressor of our own, which is several times
    /// faster and compresses about as well as zlib's level 2. Memory is about 3 MiB a thread.
    ///
    /// # Errors
    /// Those of writing the header and of starting threads.
    pub fn new(out: W, level: Option<u32>, threads: usize) -> Result<Self> {
        Self::start(out, level, threads, None)
    }

    /// As [`new`](Self::new), taking chunks that `cache` knows from there.
    pub fn with_cache(
        out: W,
        level: Option<u32>,
        threads: usize,
        cache: &Arc<dyn ChunkCache>,
    ) -> Result<Self> {
        Self::start(out, level, threads, Some(cache))
    }

    fn start(
        mut out: W,
        level: Option<u32>,
        threads: usize,
        cache: Option<&Arc<dyn ChunkCache>>,
    ) -> Result<Self> {
        if let Some(level @ 10..) = level {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("gzip has levels 0 to 9, not {level}"),
            ));
        }
        out.write_all(&MEMBER_HEADER).map_err(write_failed)?;
        let member = Member {
            out,
            cache: cache.cloned(),
            checksum: crc32fast::Hasher::new(),
            length: 0,
            offset: MEMBER_HEADER.len() as u64,
        };
        let compressor = || {
            let mut compressor = Compressor {
                level,
                cache: cache.cloned(),
                deflater: Deflater::default(),
            };
            move |input: &[u8]| compressor.compress(input)
        };
        let pipeline = Pipeline::start(member, threads, compressor)
            .map_err(|error| Error::io("cannot start a thread to compress", error))?;
        Ok(Self {
            chunker: Chunker::default(),
            pipeline,
            level,
        })
    }

    /// Compresses what is left and ends the stream.
    pub fn finish(mut self) -> Result<W> {
        if let Some(last) = self.chunker.finish() {
            self.pipeline.push(last).map_err(write_failed)?;
        }
        let member = self.pipeline.finish().map_err(write_failed)?;
        member.finish().map_err(write_failed)
    }
}

impl<W: Write + Send + 'static> Write for GzipEncoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (taken, chunk) = self.chunker.push(bytes);
        if let Some(chunk) = chunk {
            let spare = self.pipeline.push(chunk)?;
            self.chunker.recycle(spare);
        }
        Ok(taken)
    }

    /// Does nothing: a flush would change the output.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> std::fmt::Debug for GzipEncoder<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GzipEncoder")
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

/// Compresses all of `input` to one member, by itself.
pub(super) struct MemberMaker(Compressor);

impl MemberMaker {
    /// Takes the levels that [`GzipEncoder::new`] takes.
    pub(super) fn new(level: Option<u32>) -> Self {
        Self(Compressor {
            level,
            cache: None,
            deflater: Deflater::default(),
        })
    }

    pub(super) fn make(&mut self, input: &[u8]) -> Vec<u8> {
        let chunk = self.0.compress(input);
        let checksum = chunk.checksum.to_le_bytes();
        let length = (chunk.length as u32).to_le_bytes();
        [
            &MEMBER_HEADER[..],
            &chunk.bytes,
            &LAST_BLOCK,
            &checksum,
            &length,
        ]
        .concat()
    }
}

/// The member as far as it is written.
struct Member<W> {
    out: W,
    cache: Option<Arc<dyn ChunkCache>>,
    checksum: crc32fast::Hasher,
    length: u64,
    offset: u64,
}

/// A compressed chunk, with checksum and length of what it was made of.
struct Chunk {
    bytes: Vec<u8>,
    checksum: u32,
    length: u64,
    /// Where there is a cache.
    key: Option<ChunkKey>,
}

impl<W: Write> Piece<Member<W>> for Chunk {
    fn write_to(self, member: &mut Member<W>) -> io::Result<()> {
        let checksum = crc32fast::Hasher::new_with_initial_len(self.checksum, self.length);
        member.checksum.combine(&checksum);
        member.length += self.length;
        member.out.write_all(&self.bytes)?;
        let end = member.offset + self.bytes.len() as u64;
        if let (Some(cache), Some(key)) = (&member.cache, &self.key) {
            cache.written(key, member.offset..end);
        }
        member.offset = end;
        Ok(())
    }
}

impl<W: Write> Member<W> {
    fn finish(mut self) -> io::Result<W> {
        let checksum = self.checksum.finalize().to_le_bytes();
        let length = (self.length as u32).to_le_bytes();
        let end = [&LAST_BLOCK[..], &checksum, &length].concat();
        self.out.write_all(&end)?;
        Ok(self.out)
    }
}

/// What one thread compresses with.
struct Compressor {
    level: Option<u32>,
    cache: Option<Arc<dyn ChunkCache>>,
    deflater: Deflater,
}

impl Compressor {
    fn compress(&mut self, input: &[u8]) -> Chunk {
        let key = self.cache.is_some().then(|| self.key(input));
        let cache = self.cache.as_ref().zip(key.as_ref());
        let known = cache.and_then(|(cache, key)| cache.get(key));
        let bytes = known.unwrap_or_else(|| match self.level {
            None => self.deflater.compress(input),
            Some(level) => zlib(input, level),
        });
        Chunk {
            bytes,
            checksum: crc32fast::hash(input),
            length: input.len() as u64,
            key,
        }
    }

    fn key(&self, input: &[u8]) -> ChunkKey {
        let format = match self.level {
            None => deflate::FORMAT.to_owned(),
            Some(level) => format!("{ZLIB_FORMAT}, level {level}"),
        };
        ChunkKey(blake3::derive_key(&format, input))
    }
}

/// Compresses `input` to blocks of deflate that neither refer back nor end the data.
fn zlib(input: &[u8], level: u32) -> Vec<u8> {
    let mut state = Compress::new(flate2::Compression::new(level), false);
    let mut out = Vec::with_capacity(input.len() / 2 + 1024);
    loop {
        let consumed = state.total_in() as usize;
        out.reserve(64 << 10);
        state
            .compress_vec(&input[consumed..], &mut out, FlushCompress::Full)
            .expect("a compressor that was just made takes any input");
        // With room left over, the flush is complete.
        if out.len() < out.capacity() {
            return out;
        }
    }
}

fn write_failed(error: io::Error) -> Error {
    Error::io("cannot write compressed data", error)
}
