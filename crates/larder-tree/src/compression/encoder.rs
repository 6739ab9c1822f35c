use std::io::{self, Write};
use std::sync::Arc;

use super::gzip::{ChunkCache, GzipEncoder};
use crate::{Error, Result};

/// How to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    Uncompressed,
    /// gzip.
    Gzip {
        /// zlib's: 0 stores, 1 is fastest, 9 smallest. `None` stands for a faster compressor of
        /// our own.
        level: Option<u32>,
    },
    /// Zstandard at one of its levels.
    Zstd {
        /// 1 is fastest, 22 smallest; 0 stands for the usual 3.
        level: i32,
    },
}

impl Compression {
    /// Returns gzip as it is fastest.
    pub fn gzip() -> Self {
        Self::Gzip { level: None }
    }

    /// Returns Zstandard at the usual level, 3.
    pub fn zstd() -> Self {
        Self::Zstd { level: 3 }
    }
}

/// Writes a stream compressed. Equal input makes equal output, at any number of threads.
pub struct Encoder<W: Write> {
    inner: Inner<W>,
}

enum Inner<W: Write> {
    Uncompressed(W),
    Gzip(GzipEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write + Send + 'static> Encoder<W> {
    /// Starts a stream; gzip uses `threads` threads.
    pub fn new(out: W, compression: Compression, threads: usize) -> Result<Self> {
        let inner = match compression {
            Compression::Uncompressed => Inner::Uncompressed(out),
            Compression::Gzip { level } => Inner::Gzip(GzipEncoder::new(out, level, threads)?),
            Compression::Zstd { level } => {
                // One thread: with more, zstd's output depends on how many.
                let encoder = zstd::stream::write::Encoder::new(out, level);
                Inner::Zstd(encoder.map_err(|error| Error::io("cannot start zstd", error))?)
            }
        };
        Ok(Self { inner })
    }

    /// As [`new`](Self::new); gzip takes chunks that `cache` knows from there.
    pub fn with_cache(
        out: W,
        compression: Compression,
        threads: usize,
        cache: &Arc<dyn ChunkCache>,
    ) -> Result<Self> {
        match compression {
            Compression::Gzip { level } => {
                let gzip = GzipEncoder::with_cache(out, level, threads, cache)?;
                let inner = Inner::Gzip(gzip);
                Ok(Self { inner })
            }
            other => Self::new(out, other, threads),
        }
    }

    /// Ends the stream and returns what it was written to, not flushed.
    pub fn finish(self) -> Result<W> {
        match self.inner {
            Inner::Uncompressed(out) => Ok(out),
            Inner::Gzip(encoder) => encoder.finish(),
            Inner::Zstd(encoder) => encoder
                .finish()
                .map_err(|error| Error::io("cannot write compressed data", error)),
        }
    }
}

impl<W: Write + Send + 'static> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Uncompressed(out) => out.write(bytes),
            Inner::Gzip(encoder) => encoder.write(bytes),
            Inner::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.inner {
            Inner::Uncompressed(out) => out.flush(),
            Inner::Gzip(encoder) => encoder.flush(),
            Inner::Zstd(encoder) => encoder.flush(),
        }
    }
}

impl<W: Write> std::fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let format = match &self.inner {
            Inner::Uncompressed(_) => "uncompressed",
            Inner::Gzip(_) => "gzip",
            Inner::Zstd(_) => "zstd",
        };
        f.debug_struct("Encoder")
            .field("format", &format)
            .finish_non_exhaustive()
    }
}
