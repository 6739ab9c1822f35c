//! Parts of blobs on their way to a registry.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use larder_oci::Digest;
use reqwest::Body;
use reqwest::header::HeaderValue;

use crate::{Error, ErrorKind};

/// Bytes read at a time. Many small frames cost more than they give.
const FRAME_BYTES: u64 = 128 << 10;

/// Where a blob's bytes come from. They are read again where an upload breaks off.
pub trait BlobSource: Send + Sync {
    /// Returns the blob from its byte `offset_bytes` on. It is read from the runtime's threads, so
    /// reading should not block for long.
    fn open(&self, offset_bytes: u64) -> io::Result<Box<dyn Read + Send + Sync>>;
}

impl BlobSource for Vec<u8> {
    fn open(&self, offset_bytes: u64) -> io::Result<Box<dyn Read + Send + Sync>> {
        let rest = self.get(offset_bytes as usize..).unwrap_or_default();
        Ok(Box::new(io::Cursor::new(rest.to_vec())))
    }
}

/// The whole file; its own position is of no account.
impl BlobSource for File {
    fn open(&self, offset_bytes: u64) -> io::Result<Box<dyn Read + Send + Sync>> {
        Ok(Box::new(FileFrom {
            file: self.try_clone()?,
            offset_bytes,
        }))
    }
}

struct FileFrom {
    file: File,
    offset_bytes: u64,
}

impl Read for FileFrom {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset_bytes)?;
        self.offset_bytes += count as u64;
        Ok(count)
    }
}

/// A part of a blob, to be sent, maybe more than once.
pub(crate) struct Piece<'a> {
    pub(crate) source: &'a dyn BlobSource,
    pub(crate) digest: &'a Digest,
    pub(crate) offset_bytes: u64,
    pub(crate) length_bytes: u64,
    /// Whether it is the whole blob.
    pub(crate) is_whole: bool,
    pub(crate) state: Arc<PieceState>,
}

/// How far the bodies of a piece came.
#[derive(Default)]
pub(crate) struct PieceState {
    /// Bytes of the blob that were given to the connection.
    pub(crate) sent_bytes: AtomicU64,
    /// Why the source could not be read.
    failure: Mutex<Option<io::Error>>,
}

impl Piece<'_> {
    /// Returns a body of the piece's bytes.
    ///
    /// # Errors
    /// `Source`.
    pub(crate) fn body(&self) -> Result<Body, Error> {
        self.state
            .sent_bytes
            .store(self.offset_bytes, Ordering::Relaxed);
        if self.length_bytes == 0 {
            return Ok(Body::from(""));
        }
        let opened = self.source.open(self.offset_bytes);
        Ok(Body::wrap(PieceBody {
            reader: opened.map_err(|error| self.unreadable(error))?,
            left_bytes: self.length_bytes,
            state: Arc::clone(&self.state),
        }))
    }

    /// Returns the header that tells which part it is; a whole blob needs none.
    pub(crate) fn content_range(&self) -> Option<HeaderValue> {
        if self.is_whole || self.length_bytes == 0 {
            return None;
        }
        let last = self.offset_bytes + self.length_bytes - 1;
        HeaderValue::try_from(format!("{}-{last}", self.offset_bytes)).ok()
    }

    /// Returns why the source could not be read, if that is why a request failed.
    pub(crate) fn failure(&self) -> Option<Error> {
        let mut failure = self
            .state
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        failure.take().map(|error| self.unreadable(error))
    }

    fn unreadable(&self, error: io::Error) -> Error {
        let message = format!("cannot read blob `{}`", self.digest);
        Error::new(ErrorKind::Source, message).with_source(error)
    }
}

/// A body that reads as it is sent.
struct PieceBody {
    reader: Box<dyn Read + Send + Sync>,
    left_bytes: u64,
    state: Arc<PieceState>,
}

impl PieceBody {
    fn next(&mut self) -> io::Result<Bytes> {
        let mut frame = vec![0; self.left_bytes.min(FRAME_BYTES) as usize];
        self.reader.read_exact(&mut frame)?;
        Ok(frame.into())
    }
}

impl http_body::Body for PieceBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Self::Data>>>> {
        if self.left_bytes == 0 {
            return Poll::Ready(None);
        }
        match self.next() {
            Ok(frame) => {
                let count = frame.len() as u64;
                self.left_bytes -= count;
                self.state.sent_bytes.fetch_add(count, Ordering::Relaxed);
                Poll::Ready(Some(Ok(Frame::data(frame))))
            }
            Err(error) => {
                let failure = io::Error::new(error.kind(), error.to_string());
                let mut slot = self
                    .state
                    .failure
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                *slot = Some(error);
                drop(slot);
                Poll::Ready(Some(Err(failure)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left_bytes == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left_bytes)
    }
}
