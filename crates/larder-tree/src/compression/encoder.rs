use std::io::{self, Write};

use super::chunked::ChunkedEncoder;
use super::codec::Codec;
use super::threads::Threads;
use crate::Result;

/// How to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    Uncompressed,
    /// gzip, one member.
    Gzip {
        /// zlib's: 0 stores, 1 is fastest, 9 smallest. `None` stands for a compressor of our own,
        /// which is several times faster and compresses about as well as zlib's level 1.
        level: Option<u32>,
    },
    /// Zstandard at one of its levels, in frames of about 256 KiB.
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

    /// Returns Zstandard as it is fastest. At its usual level, 3, it takes half as long again and
    /// saves 4 %.
    pub fn zstd() -> Self {
        Self::Zstd { level: 1 }
    }

    pub(super) fn codec(self) -> Result<Option<Codec>> {
        Ok(match self {
            Self::Uncompressed => None,
            Self::Gzip { level } => Some(Codec::gzip(level)?),
            Self::Zstd { level } => Some(Codec::Zstd { level }),
        })
    }
}

/// Writes a stream compressed. Equal input makes equal output, at any number of threads.
#[derive(Debug)]
pub struct Encoder<W: Write> {
    inner: Inner<W>,
}

#[derive(Debug)]
enum Inner<W: Write> {
    Uncompressed(W),
    Chunked(Box<ChunkedEncoder<W>>),
}

impl<W: Write + Send + 'static> Encoder<W> {
    /// Starts a stream, which is compressed by `threads` threads; with one, by the caller's.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such level; else those of writing and of starting threads.
    pub fn new(out: W, compression: Compression, threads: usize) -> Result<Self> {
        let inner = match compression.codec()? {
            None => Inner::Uncompressed(out),
            Some(codec) => {
                let encoder = ChunkedEncoder::new(out, codec, &Threads::new(threads), None)?;
                Inner::Chunked(Box::new(encoder))
            }
        };
        Ok(Self { inner })
    }

    /// Ends the stream and returns what it was written to, not flushed.
    pub fn finish(self) -> Result<W> {
        match self.inner {
            Inner::Uncompressed(out) => Ok(out),
            Inner::Chunked(encoder) => Ok(encoder.finish()?.0),
        }
    }
}

impl<W: Write + Send + 'static> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Uncompressed(out) => out.write(bytes),
            Inner::Chunked(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.inner {
            Inner::Uncompressed(out) => out.flush(),
            Inner::Chunked(encoder) => encoder.flush(),
        }
    }
}
