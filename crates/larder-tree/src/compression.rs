//! Compressed streams: recognised by their first bytes, decoded with limits, and encoded so that
//! equal input makes equal output.
//!
//! ```
//! use std::io::{Read, Write};
//! use larder_tree::compression::{Compression, Decoder, Encoder, Format};
//!
//! let mut encoder = Encoder::new(Vec::new(), Compression::gzip(), 2).unwrap();
//! encoder.write_all(b"hello").unwrap();
//! let packed = encoder.finish().unwrap();
//!
//! let mut decoder = Decoder::new(packed.as_slice()).unwrap();
//! assert_eq!(decoder.format(), Format::Gzip);
//! let mut text = String::new();
//! decoder.read_to_string(&mut text).unwrap();
//! assert_eq!(text, "hello");
//! ```
//!
//! **Limitations**: bzip2 and xz are read only. eStargz is written by one thread.

mod chunked;
mod chunker;
mod chunks;
mod codec;
mod decoder;
mod deflate;
mod digests;
mod encoder;
mod estargz;
mod layer;
mod pipeline;
mod threads;

pub use chunks::{ChunkCache, ChunkKey, KnownChunk, Mark};
pub use decoder::{Decoder, Format};
pub use encoder::{Compression, Encoder};
pub use estargz::{Estargz, write_estargz};
pub use layer::{EncodedLayer, LayerEncoder};
pub use threads::Threads;
