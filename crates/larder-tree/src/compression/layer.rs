use std::io::{self, Write};
use std::sync::Arc;

use larder_oci::Digest;

use super::chunked::ChunkedEncoder;
use super::chunks::ChunkCache;
use super::encoder::Compression;
use super::threads::Threads;
use crate::Result;
use crate::diff::DigestWriter;

/// Writes a layer compressed, and computes its digests on the way. Equal input makes equal output,
/// at any number of threads.
pub struct LayerEncoder<W: Write> {
    inner: Inner<W>,
}

/// A layer that was written.
#[derive(Debug)]
pub struct EncodedLayer<W> {
    /// What it was written to, not flushed.
    pub out: W,
    /// The digest of the compressed bytes.
    pub digest: Digest,
    /// How many they are.
    pub size_bytes: u64,
    /// The digest of what they were made of.
    pub diff_id: Digest,
    /// How many bytes that was.
    pub tar_bytes: u64,
}

enum Inner<W: Write> {
    Uncompressed(DigestWriter<W>),
    Chunked(Box<ChunkedEncoder<W>>),
}

impl<W: Write + Send + 'static> LayerEncoder<W> {
    /// Starts a layer, which is compressed by `threads`. Chunks that `cache` knows are
    /// taken from there.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such level; else those of writing and of starting threads.
    pub fn new(
        out: W,
        compression: Compression,
        threads: &Threads,
        cache: &Arc<dyn ChunkCache>,
    ) -> Result<Self> {
        let inner = match compression.codec()? {
            None => Inner::Uncompressed(DigestWriter::new(out)),
            Some(codec) => {
                let encoder = ChunkedEncoder::new(out, codec, threads, Some(cache))?;
                Inner::Chunked(Box::new(encoder))
            }
        };
        Ok(Self { inner })
    }

    /// Ends the layer.
    pub fn finish(self) -> Result<EncodedLayer<W>> {
        let (out, packed, plain) = match self.inner {
            Inner::Uncompressed(out) => {
                let (out, digest, length) = out.finish();
                return Ok(EncodedLayer {
                    out,
                    digest: digest.clone(),
                    size_bytes: length,
                    diff_id: digest,
                    tar_bytes: length,
                });
            }
            Inner::Chunked(encoder) => {
                let (out, digests) = encoder.finish()?;
                let (packed, plain) = digests.expect("with a cache digests are computed");
                (out, packed, plain)
            }
        };
        let (size_bytes, tar_bytes) = (packed.length(), plain.length());
        Ok(EncodedLayer {
            out,
            digest: packed.finish(),
            size_bytes,
            diff_id: plain.finish(),
            tar_bytes,
        })
    }
}

impl<W: Write + Send + 'static> Write for LayerEncoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Uncompressed(out) => out.write(bytes),
            Inner::Chunked(encoder) => encoder.write(bytes),
        }
    }

    /// Does nothing: a flush would change the output.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> std::fmt::Debug for LayerEncoder<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerEncoder").finish_non_exhaustive()
    }
}
