use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use larder_oci::Sha256;

use super::chunker::Chunker;
use super::chunks::{ChunkCache, ChunkKey};
use super::codec::{Codec, Compressor};
use super::digests::{Digests, Origin};
use super::pipeline::{Pipeline, Sink};
use super::threads::Threads;
use crate::{Error, Result};

/// Compresses in parallel, and always to the same bytes.
///
/// The input is cut into chunks of about 256 KiB. Each is compressed by itself, so that chunks are
/// joined by writing them one after the other: gzip's end in a full flush, and their checksums are
/// combined to that of the one member; zstd's are frames. Neither the number of threads nor the
/// sizes of the writes change the output. With several threads, `out` is written by one of its
/// own. Memory is about 3 MiB a thread.
pub(super) struct ChunkedEncoder<W: Write> {
    chunker: Chunker,
    pipeline: Pipeline<Output<W>, Chunk>,
    /// Buffers of inputs that nobody needs any more.
    spare: Receiver<Vec<u8>>,
    codec: Codec,
}

impl<W: Write + Send + 'static> ChunkedEncoder<W> {
    /// Starts a stream, compressed by `threads`. With a cache, the chunks that it knows are taken from there, and digests are computed.
    ///
    /// # Errors
    /// Those of writing the header and of starting threads.
    pub(super) fn new(
        mut out: W,
        codec: Codec,
        threads: &Threads,
        cache: Option<&Arc<dyn ChunkCache>>,
    ) -> Result<Self> {
        let no_thread = |error| Error::io("cannot start a thread to compress", error);
        out.write_all(codec.header()).map_err(write_failed)?;
        let (recycled, spare) = channel();
        let digests =
            cache.map(|cache| Digests::start(codec.header(), cache, recycled.clone(), threads));
        let output = Output {
            out,
            codec,
            cache: cache.cloned(),
            digests: digests.transpose().map_err(no_thread)?,
            recycled,
            checksum: crc32fast::Hasher::new(),
            length: 0,
            offset: codec.header().len() as u64,
        };
        let worker = || {
            let mut compressor = Compressor::new(codec)?;
            let cache = cache.cloned();
            Ok(move |input: &[u8]| Chunk::new(input, codec, &mut compressor, cache.as_ref()))
        };
        Ok(Self {
            chunker: Chunker::default(),
            pipeline: Pipeline::start(output, threads, worker).map_err(no_thread)?,
            spare,
            codec,
        })
    }

    /// Compresses what is left and ends the stream. Returns what it was written to, and if there
    /// is a cache, the computations over the compressed stream and over the input.
    pub(super) fn finish(mut self) -> Result<(W, Option<(Sha256, Sha256)>)> {
        if let Some(last) = self.chunker.finish() {
            self.pipeline.push(last).map_err(write_failed)?;
        }
        let output = self.pipeline.finish().map_err(write_failed)?;
        output.finish().map_err(write_failed)
    }
}

impl<W: Write + Send + 'static> Write for ChunkedEncoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (taken, chunk) = self.chunker.push(bytes);
        if let Some(chunk) = chunk {
            self.pipeline.push(chunk)?;
            self.chunker.recycle(self.spare.try_recv().ok());
        }
        Ok(taken)
    }

    /// Does nothing: a flush would change the output.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> std::fmt::Debug for ChunkedEncoder<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkedEncoder")
            .field("codec", &self.codec)
            .finish_non_exhaustive()
    }
}

/// A compressed chunk, with checksum and length of what it was made of.
struct Chunk {
    bytes: Vec<u8>,
    checksum: u32,
    /// Where there is a cache.
    key: Option<ChunkKey>,
    /// Where it was taken from.
    origin: Option<Origin>,
}

impl Chunk {
    fn new(
        input: &[u8],
        codec: Codec,
        compressor: &mut Compressor,
        cache: Option<&Arc<dyn ChunkCache>>,
    ) -> Self {
        let key = cache.map(|_| codec.key(input));
        let known = cache.zip(key.as_ref());
        let known = known.and_then(|(cache, key)| cache.get(key));
        let origin = known.as_ref().map(|known| Origin {
            stream: known.stream,
            offset: known.offset,
        });
        Self {
            bytes: known.map_or_else(|| compressor.chunk(input), |known| known.bytes),
            checksum: codec.checksum(input),
            key,
            origin,
        }
    }
}

/// The stream as far as it is written.
struct Output<W> {
    out: W,
    codec: Codec,
    cache: Option<Arc<dyn ChunkCache>>,
    digests: Option<Digests>,
    /// For inputs that are done with.
    recycled: Sender<Vec<u8>>,
    checksum: crc32fast::Hasher,
    length: u64,
    offset: u64,
}

impl<W: Write + Send + 'static> Sink<Chunk> for Output<W> {
    fn take(&mut self, input: Vec<u8>, chunk: Chunk) -> io::Result<()> {
        let length = input.len() as u64;
        let checksum = crc32fast::Hasher::new_with_initial_len(chunk.checksum, length);
        self.checksum.combine(&checksum);
        self.length += length;
        self.out.write_all(&chunk.bytes)?;
        let place = self.offset..self.offset + chunk.bytes.len() as u64;
        if let (Some(cache), Some(key)) = (&self.cache, &chunk.key) {
            cache.written(key, place.clone());
        }
        self.offset = place.end;
        if let Some(digests) = &mut self.digests {
            return digests.add(input, chunk.bytes, chunk.origin, &place);
        }
        // Nobody may need it any more.
        let _ = self.recycled.send(input);
        Ok(())
    }
}

impl<W: Write> Output<W> {
    fn finish(mut self) -> io::Result<(W, Option<(Sha256, Sha256)>)> {
        let trailer = self.codec.trailer(self.checksum.finalize(), self.length);
        self.out.write_all(&trailer)?;
        let digests = self.digests.map(|digests| digests.finish(&trailer));
        Ok((self.out, digests.transpose()?))
    }
}

fn write_failed(error: io::Error) -> Error {
    Error::io("cannot write compressed data", error)
}
