use std::io::{self, Write};

use larder_oci::{Digest, Sha256};

/// Passes a stream on, and tells its digest and length: of an uncompressed layer, the diff ID.
///
/// Over [`io::sink`] it only computes them.
#[derive(Debug)]
pub struct DigestWriter<W> {
    inner: W,
    hasher: Sha256,
    length: u64,
}

impl<W: Write> DigestWriter<W> {
    /// Starts with no bytes written.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
            length: 0,
        }
    }

    /// Returns the number of bytes written so far.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Returns whether nothing was written so far.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns the stream beneath, and the digest and number of the bytes that went through.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, self.hasher.finish(), self.length)
    }
}

impl<W: Write> Write for DigestWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.length += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
