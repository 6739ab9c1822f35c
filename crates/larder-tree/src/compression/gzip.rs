use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use flate2::{Compress, FlushCompress};
use larder_oci::Digest;

use super::chunker::Chunker;
use crate::{Error, ErrorKind, Result};

/// A member without name and time, from an unknown system, as Go's compressor writes it.
const MEMBER_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// An empty last block, which ends the compressed data.
const LAST_BLOCK: [u8; 2] = [0x03, 0x00];

/// Names what makes chunks of one key compress to the same bytes: the compressor and how it is
/// driven. It changes with every version of either that compresses otherwise.
const CHUNK_FORMAT: &str = "zlib-rs 0.6 full-flush 1";

/// How many chunks may wait for or be in compression, per thread.
const CHUNKS_PER_THREAD: usize = 2;

/// Names the compressed form of a chunk: a digest over the chunk's bytes, the level and the
/// version of the compressor.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkKey(pub Digest);

/// Keeps compressed chunks from one export to the next. Called from several threads.
pub trait ChunkCache: Send + Sync {
    /// Returns what was put under `key`, if it is still there.
    fn get(&self, key: &ChunkKey) -> Option<Vec<u8>>;

    /// Keeps `compressed` under `key`, or doesn't.
    fn put(&self, key: &ChunkKey, compressed: &[u8]);
}

/// Compresses to one gzip member, in parallel and always to the same bytes.
///
/// The input is cut into chunks of about 256 KiB. Each is compressed by itself and ends in a full
/// flush, so chunks are joined by writing them one after the other; the checksums are combined.
/// Neither the number of threads nor the sizes of the writes change the output.
pub struct GzipEncoder<W: Write> {
    out: W,
    chunker: Chunker,
    compressor: Compressor,
    workers: Option<Workers>,
    pending: VecDeque<Receiver<Chunk>>,
    max_pending: usize,
    checksum: crc32fast::Hasher,
    length: u64,
}

/// A compressed chunk, with checksum and length of what it was made of.
struct Chunk {
    bytes: Vec<u8>,
    checksum: u32,
    length: u64,
}

#[derive(Clone)]
struct Compressor {
    level: u32,
    cache: Option<Arc<dyn ChunkCache>>,
}

struct Workers {
    jobs: SyncSender<(Vec<u8>, SyncSender<Chunk>)>,
}

impl<W: Write> GzipEncoder<W> {
    /// Starts a stream at `level` 0 (stored) to 9, compressed by `threads` threads; with one, by
    /// the caller's. Memory is about 2 MiB a thread.
    ///
    /// # Errors
    /// Those of writing the header and of starting threads.
    pub fn new(out: W, level: u32, threads: usize) -> Result<Self> {
        Self::start(out, Compressor { level, cache: None }, threads)
    }

    /// As [`new`](Self::new), taking chunks that `cache` knows from there.
    pub fn with_cache(
        out: W,
        level: u32,
        threads: usize,
        cache: Arc<dyn ChunkCache>,
    ) -> Result<Self> {
        let cache = Some(cache);
        Self::start(out, Compressor { level, cache }, threads)
    }

    fn start(mut out: W, compressor: Compressor, threads: usize) -> Result<Self> {
        if compressor.level > 9 {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("gzip has levels 0 to 9, not {}", compressor.level),
            ));
        }
        out.write_all(&MEMBER_HEADER).map_err(write_failed)?;
        let max_pending = threads * CHUNKS_PER_THREAD;
        let workers = match threads {
            0 | 1 => None,
            _ => Some(Workers::start(&compressor, threads, max_pending)?),
        };
        Ok(Self {
            out,
            chunker: Chunker::default(),
            compressor,
            workers,
            pending: VecDeque::new(),
            max_pending,
            checksum: crc32fast::Hasher::new(),
            length: 0,
        })
    }

    /// Compresses what is left and ends the stream.
    pub fn finish(mut self) -> Result<W> {
        if let Some(last) = self.chunker.finish() {
            self.submit(last).map_err(write_failed)?;
        }
        while self.write_next().map_err(write_failed)? {}
        let checksum = self.checksum.finalize().to_le_bytes();
        let length = (self.length as u32).to_le_bytes();
        let end = [&LAST_BLOCK[..], &checksum, &length].concat();
        self.out.write_all(&end).map_err(write_failed)?;
        Ok(self.out)
    }

    fn submit(&mut self, input: Vec<u8>) -> io::Result<()> {
        let Some(workers) = &self.workers else {
            let chunk = self.compressor.compress(&input);
            return self.write_chunk(&chunk);
        };
        let (reply, result) = sync_channel(1);
        workers
            .jobs
            .send((input, reply))
            .map_err(|_| worker_died())?;
        self.pending.push_back(result);
        if self.pending.len() >= self.max_pending {
            self.write_next()?;
        }
        Ok(())
    }

    /// Writes the oldest pending chunk; returns whether there was one.
    fn write_next(&mut self) -> io::Result<bool> {
        let Some(result) = self.pending.pop_front() else {
            return Ok(false);
        };
        let chunk = result.recv().map_err(|_| worker_died())?;
        self.write_chunk(&chunk).map(|()| true)
    }

    fn write_chunk(&mut self, chunk: &Chunk) -> io::Result<()> {
        let checksum = crc32fast::Hasher::new_with_initial_len(chunk.checksum, chunk.length);
        self.checksum.combine(&checksum);
        self.length += chunk.length;
        self.out.write_all(&chunk.bytes)
    }
}

impl<W: Write> Write for GzipEncoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (taken, chunk) = self.chunker.push(bytes);
        if let Some(chunk) = chunk {
            self.submit(chunk)?;
        }
        Ok(taken)
    }

    /// Does nothing to the chunk being collected: a flush would change the output.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> std::fmt::Debug for GzipEncoder<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GzipEncoder")
            .field("level", &self.compressor.level)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

impl Workers {
    /// Starts threads that end when the sender of jobs is dropped.
    fn start(compressor: &Compressor, threads: usize, queued: usize) -> Result<Self> {
        let (jobs, queue) = sync_channel::<(Vec<u8>, SyncSender<Chunk>)>(queued);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let (queue, compressor) = (Arc::clone(&queue), compressor.clone());
            let next = move || queue.lock().ok()?.recv().ok();
            thread::Builder::new()
                .name("larder-gzip".into())
                .spawn(move || {
                    while let Some((input, reply)) = next() {
                        // The encoder may have been dropped meanwhile.
                        let _ = reply.send(compressor.compress(&input));
                    }
                })
                .map_err(|error| Error::io("cannot start a thread to compress", error))?;
        }
        Ok(Self { jobs })
    }
}

impl Compressor {
    fn compress(&self, input: &[u8]) -> Chunk {
        let bytes = match &self.cache {
            None => deflate(input, self.level),
            Some(cache) => {
                let key = self.key(input);
                cache.get(&key).unwrap_or_else(|| {
                    let bytes = deflate(input, self.level);
                    cache.put(&key, &bytes);
                    bytes
                })
            }
        };
        Chunk {
            bytes,
            checksum: crc32fast::hash(input),
            length: input.len() as u64,
        }
    }

    fn key(&self, input: &[u8]) -> ChunkKey {
        let mut hasher = larder_oci::Sha256::new();
        hasher.update(format!("{CHUNK_FORMAT}\0level {}\0", self.level).as_bytes());
        hasher.update(input);
        ChunkKey(hasher.finish())
    }
}

/// Compresses `input` to blocks of deflate that neither refer back nor end the data.
fn deflate(input: &[u8], level: u32) -> Vec<u8> {
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

fn worker_died() -> io::Error {
    io::Error::other("a thread that compresses ended early")
}
