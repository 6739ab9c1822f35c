use std::io::{self, BufReader, Read};

use crate::{Error, ErrorKind, Result};

/// Bytes that are enough to recognise a compressed format.
const MAGIC_BYTES: usize = 6;

/// Size of the buffer in front of a decoder.
const BUFFER_BYTES: usize = 128 << 10;

/// Memory that an xz stream may demand; its strongest preset needs 65 MiB.
const MAX_XZ_MEMORY: u64 = 256 << 20;

/// Logarithm of the window that a zstd frame may demand, 128 MiB: what zstd itself allows.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;

/// The format of a stream of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Not compressed, as far as the first bytes tell.
    Plain,
    /// gzip, RFC 1952.
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// Zstandard, RFC 8878.
    Zstd,
}

impl Format {
    /// Returns the format of a stream that begins with `bytes`, of which six are enough.
    pub fn detect(bytes: &[u8]) -> Self {
        match bytes {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            // A frame, or one to be skipped, as seekable variants begin with.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// Reads a stream decompressed, whatever its format; several concatenated ones as one.
pub struct Decoder<R: Read> {
    format: Format,
    inner: Inner<R>,
    /// Bytes that may still be given out.
    allowance: u64,
}

/// A stream whose first bytes were read already, buffered.
type Source<R> = BufReader<io::Chain<io::Cursor<Vec<u8>>, Marked<R>>>;

/// Marks the errors of the stream, to tell them from those of decoding it.
struct Marked<R>(R);

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct StreamError(io::Error);

enum Inner<R: Read> {
    Plain(Source<R>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<Source<R>>>),
    Bzip2(Box<bzip2::bufread::MultiBzDecoder<Source<R>>>),
    Xz(Box<liblzma::bufread::XzDecoder<Source<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Source<R>>>),
}

impl<R: Read> Decoder<R> {
    /// Recognises the format of `stream` from its first bytes.
    ///
    /// # Errors
    /// Those of reading the stream's beginning.
    pub fn new(stream: R) -> Result<Self> {
        let (head, stream) = peek(stream)?;
        let format = Format::detect(&head);
        let inner = match format {
            Format::Plain => Inner::Plain(stream),
            Format::Gzip => Inner::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(stream))),
            Format::Bzip2 => Inner::Bzip2(Box::new(bzip2::bufread::MultiBzDecoder::new(stream))),
            Format::Xz => {
                let flags = liblzma::stream::CONCATENATED;
                let state = liblzma::stream::Stream::new_stream_decoder(MAX_XZ_MEMORY, flags)
                    .map_err(|error| Error::io("cannot start to read xz", error))?;
                Inner::Xz(Box::new(liblzma::bufread::XzDecoder::new_stream(
                    stream, state,
                )))
            }
            Format::Zstd => {
                let failed = |error| Error::io("cannot start to read zstd", error);
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(stream).map_err(failed)?;
                decoder
                    .window_log_max(MAX_ZSTD_WINDOW_LOG)
                    .map_err(failed)?;
                Inner::Zstd(Box::new(decoder))
            }
        };
        Ok(Self {
            format,
            inner,
            allowance: u64::MAX,
        })
    }

    /// Makes reading fail with `LimitExceeded` after `bytes` of output.
    #[must_use]
    pub fn with_limit(mut self, bytes: u64) -> Self {
        self.allowance = bytes;
        self
    }

    /// Returns the format that was recognised.
    pub fn format(&self) -> Format {
        self.format
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.inner {
            Inner::Plain(stream) => stream.read(buffer),
            Inner::Gzip(stream) => stream.read(buffer),
            Inner::Bzip2(stream) => stream.read(buffer),
            Inner::Xz(stream) => stream.read(buffer),
            Inner::Zstd(stream) => stream.read(buffer),
        };
        let count = count.map_err(unmark)?;
        self.allowance = self.allowance.checked_sub(count as u64).ok_or_else(|| {
            Error::new(
                ErrorKind::LimitExceeded,
                "a compressed stream unpacks to more than it may",
            )
        })?;
        Ok(count)
    }
}

impl<R: Read> Read for Marked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            kind => io::Error::new(kind, StreamError(error)),
        })
    }
}

impl<R: Read> std::fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

/// Reads the first bytes of the stream, fewer only if it ends early, and puts them back before it.
fn peek<R: Read>(mut stream: R) -> Result<(Vec<u8>, Source<R>)> {
    let mut head = Vec::with_capacity(MAGIC_BYTES);
    (&mut stream)
        .take(MAGIC_BYTES as u64)
        .read_to_end(&mut head)
        .map_err(|error| Error::io("cannot read the stream", error))?;
    let whole = io::Cursor::new(head.clone()).chain(Marked(stream));
    Ok((head, BufReader::with_capacity(BUFFER_BYTES, whole)))
}

/// Returns a stream's own error as it was; all others mean that its data is corrupt.
fn unmark(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::Interrupted {
        return error;
    }
    match error.downcast::<StreamError>() {
        Ok(StreamError(error)) => error,
        Err(error) => {
            let message = format!("the compressed data is corrupt or cut short: {error}");
            Error::new(ErrorKind::InvalidInput, message).into()
        }
    }
}
