use std::io;

use flate2::{Compress, FlushCompress};

use super::chunks::ChunkKey;
use super::deflate::{self, Deflater};
use crate::{Error, ErrorKind, Result};

/// A member without name and time, from an unknown system, as Go's compressor writes it.
const MEMBER_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// An empty last block, which ends the compressed data.
const LAST_BLOCK: [u8; 2] = [0x03, 0x00];

/// A frame of zstd that says that it has no contents, with one raw block of none.
const EMPTY_FRAME: [u8; 9] = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00];

/// Names zlib-rs and how it is driven. It changes with every version that compresses otherwise.
const ZLIB_FORMAT: &str = "zlib-rs 0.6 full-flush 1";

/// Names zstd and how it is driven. It changes with every version that compresses otherwise.
const ZSTD_FORMAT: &str = "zstd 1.5 frames 1";

/// How chunks are compressed, each for itself, so that one after the other they are a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    /// Blocks of one gzip member. The level is zlib's; `None` stands for our own compressor.
    Gzip { level: Option<u32> },
    /// Each a frame of zstd.
    Zstd { level: i32 },
}

impl Codec {
    /// # Errors
    /// `InvalidInput` if there is no such level.
    pub(super) fn gzip(level: Option<u32>) -> Result<Self> {
        if let Some(level @ 10..) = level {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("gzip has levels 0 to 9, not {level}"),
            ));
        }
        Ok(Self::Gzip { level })
    }

    /// Returns what stands before the chunks, always the same.
    pub(super) fn header(self) -> &'static [u8] {
        match self {
            Self::Gzip { .. } => &MEMBER_HEADER,
            Self::Zstd { .. } => &[],
        }
    }

    /// Returns what stands after chunks that were made of `length` bytes of this checksum.
    pub(super) fn trailer(self, checksum: u32, length: u64) -> Vec<u8> {
        match self {
            Self::Gzip { .. } => {
                let (checksum, length) = (checksum.to_le_bytes(), (length as u32).to_le_bytes());
                [&LAST_BLOCK[..], &checksum, &length].concat()
            }
            // No bytes at all would not be recognised.
            Self::Zstd { .. } if length == 0 => EMPTY_FRAME.to_vec(),
            Self::Zstd { .. } => Vec::new(),
        }
    }

    /// Returns the name of a chunk's compressed form.
    pub(super) fn key(self, input: &[u8]) -> ChunkKey {
        let format = match self {
            Self::Gzip { level: None } => deflate::FORMAT.to_owned(),
            Self::Gzip { level: Some(level) } => format!("{ZLIB_FORMAT}, level {level}"),
            Self::Zstd { level } => format!("{ZSTD_FORMAT}, level {level}"),
        };
        ChunkKey(blake3::derive_key(&format, input))
    }

    /// Returns the checksum of a chunk, if the trailer tells it.
    pub(super) fn checksum(self, input: &[u8]) -> u32 {
        match self {
            Self::Gzip { .. } => crc32fast::hash(input),
            Self::Zstd { .. } => 0,
        }
    }
}

/// What one thread compresses with.
pub(super) struct Compressor {
    codec: Codec,
    deflater: Deflater,
    zstd: zstd::bulk::Compressor<'static>,
}

impl Compressor {
    pub(super) fn new(codec: Codec) -> io::Result<Self> {
        let level = match codec {
            Codec::Gzip { .. } => 0,
            Codec::Zstd { level } => level,
        };
        Ok(Self {
            codec,
            deflater: Deflater::default(),
            zstd: zstd::bulk::Compressor::new(level)?,
        })
    }

    /// Compresses a chunk.
    pub(super) fn chunk(&mut self, input: &[u8]) -> Vec<u8> {
        match self.codec {
            Codec::Gzip { level: None } => self.deflater.compress(input),
            Codec::Gzip { level: Some(level) } => zlib(input, level),
            Codec::Zstd { .. } => {
                let frame = self.zstd.compress(input);
                frame.expect("there is room for what can't be compressed")
            }
        }
    }

    /// Compresses a whole stream by itself.
    pub(super) fn stream(&mut self, input: &[u8]) -> Vec<u8> {
        let checksum = self.codec.checksum(input);
        let trailer = self.codec.trailer(checksum, input.len() as u64);
        [self.codec.header(), &self.chunk(input), &trailer].concat()
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
