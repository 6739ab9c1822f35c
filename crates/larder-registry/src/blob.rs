mod parts;

use std::io;
use std::ops::Range;
use std::time::Duration;

use futures_util::{TryStreamExt as _, stream};
use larder_oci::{Descriptor, ImageRef, Sha256};
use reqwest::header::CONTENT_RANGE;
use reqwest::{Method, Response, StatusCode};
use tokio::time::{Instant, sleep};

use crate::answer::unreachable;
use crate::endpoint::Endpoint;
use crate::error::Retry;
use crate::request::{Content, Request, Span, Subject};
use crate::retry::Retries;
use crate::transport::{Host, Transport};
use crate::{Error, ErrorKind};
use parts::{Chunks, Parts};

/// A blob comes by one request for so long, before others ask for what follows.
const PATIENCE: Duration = Duration::from_millis(500);

/// A part is what one request brings in this time, within bounds: what is held in memory, and lost if
/// the program ends, is not much, and what a request costs is little beside it.
const PART_TIME: Duration = Duration::from_secs(4);
const MIN_PART_BYTES: u64 = 1 << 20;
const MAX_PART_BYTES: u64 = 16 << 20;

/// Where a blob's bytes go, in order.
pub trait BlobSink: Send {
    /// Appends `chunk`.
    fn write(&mut self, chunk: &[u8]) -> io::Result<()>;

    /// Drops all bytes, also those from before the fetch: they were wrong, and come anew. A sink
    /// that has passed them on already returns an error, which ends the fetch.
    fn restart(&mut self) -> io::Result<()>;

    /// Returns the hash over all bytes that it has, those from before the fetch included, if it computes
    /// one; else the fetch does.
    fn sha256(&self) -> Option<Sha256> {
        None
    }

    /// Tells that the server is asked from now on: before, other blobs had their turn.
    fn begun(&mut self) {}

    /// Tells how many bytes there will be in all, where the blob's descriptor does not.
    fn size_known(&mut self, size_bytes: u64) {
        let _ = size_bytes;
    }
}

impl BlobSink for Vec<u8> {
    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.extend_from_slice(chunk);
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.clear();
        Ok(())
    }
}

/// A file that is written at its end, as `File::create` and appending give it.
impl BlobSink for std::fs::File {
    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        io::Write::write_all(self, chunk)
    }

    fn restart(&mut self) -> io::Result<()> {
        self.set_len(0)?;
        io::Seek::rewind(self)
    }
}

/// The beginning of a blob that is there already. The default is none of it.
#[derive(Debug, Clone, Default)]
pub struct Partial {
    /// How many bytes.
    pub offset_bytes: u64,
    /// Over these bytes; without meaning where the sink [has](BlobSink::sha256) a hash.
    pub hash: Sha256,
}

/// One blob on its way.
pub(crate) struct Download<'a> {
    transport: &'a Transport,
    image_ref: &'a ImageRef,
    descriptor: &'a Descriptor,
    sink: &'a mut dyn BlobSink,
    /// Its hash is left alone where the sink has one.
    have: Partial,
    is_hashed_by_sink: bool,
    /// Whether parts of it can't be had at once.
    is_whole_only: bool,
}

impl<'a> Download<'a> {
    pub(crate) fn new(
        transport: &'a Transport,
        image_ref: &'a ImageRef,
        descriptor: &'a Descriptor,
        partial: Partial,
        sink: &'a mut dyn BlobSink,
    ) -> Self {
        Self {
            transport,
            image_ref,
            descriptor,
            is_hashed_by_sink: sink.sha256().is_some(),
            sink,
            have: partial,
            is_whole_only: false,
        }
    }

    /// Fetches what is missing from `endpoint`, and checks the whole.
    ///
    /// If it is wrong and this endpoint did not send all of it, it is fetched anew: the fault may
    /// be another's.
    pub(crate) async fn fetch_from(&mut self, endpoint: &Endpoint) -> Result<(), Error> {
        let host = self.transport.host(endpoint)?;
        let permit = host.downloads().acquire().await;
        let _permit = permit.expect("the semaphore is never closed");
        self.sink.begun();
        let mut is_mixed = self.have.offset_bytes > 0;
        self.is_whole_only = false;
        loop {
            let fetched = self
                .fetch_rest(endpoint, &host)
                .await
                .and_then(|()| self.check(endpoint));
            match fetched {
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    self.restart()?;
                    if !is_mixed {
                        return Err(error);
                    }
                    is_mixed = false;
                }
                fetched => return fetched,
            }
        }
    }

    async fn fetch_rest(&mut self, endpoint: &Endpoint, host: &Host) -> Result<(), Error> {
        let mut retries = Retries::new(&self.transport.config, &endpoint.host);
        while self.have.offset_bytes < self.descriptor.size_bytes {
            let before_bytes = self.have.offset_bytes;
            if let Err(error) = self.fetch_once(endpoint, host).await {
                if self.have.offset_bytes > before_bytes {
                    retries.reset();
                }
                retries.pause(error).await?;
            }
        }
        Ok(())
    }

    /// Sends a request and takes what comes, until the end or until it breaks off. What takes long
    /// is asked for in parts.
    async fn fetch_once(&mut self, endpoint: &Endpoint, host: &Host) -> Result<(), Error> {
        let (first, size_bytes) = (self.have.offset_bytes, self.descriptor.size_bytes);
        let request = self.request(endpoint, Span { first, end: None });
        let response = self.transport.send(&request).await?;
        // A server that knows no ranges sends the blob from its beginning.
        let mut known_bytes = self.require_range(&response, endpoint)?;
        self.is_whole_only |= known_bytes > 0;
        let mut parts = Parts::new(chunks(response, endpoint), size_bytes);
        let begun = Instant::now();
        let patience = sleep(PATIENCE);
        tokio::pin!(patience);
        let mut part_bytes = None;
        loop {
            let chunk = tokio::select! {
                chunk = parts.next() => chunk?,
                () = &mut patience, if part_bytes.is_none() => {
                    let taken_bytes = self.have.offset_bytes - first;
                    part_bytes = Some(part_size(taken_bytes, begun.elapsed()));
                    self.ask_ahead(&mut parts, part_bytes, endpoint, host);
                    continue;
                }
            };
            let Some(chunk) = chunk else { break };
            let skipped = known_bytes.min(chunk.len() as u64);
            known_bytes -= skipped;
            self.take(&chunk[skipped as usize..], endpoint)?;
            self.ask_ahead(&mut parts, part_bytes, endpoint, host);
        }
        self.is_whole_only |= parts.is_broken();
        if self.have.offset_bytes < parts.end_bytes() && !parts.is_broken() {
            let digest = &self.descriptor.digest;
            let message = format!("`{}` ended blob `{digest}` too early", endpoint.host);
            return Err(Error::new(ErrorKind::Unavailable, message).with_retry(Retry::Backoff));
        }
        Ok(())
    }

    fn request<'p>(&self, endpoint: &'p Endpoint, span: Span) -> Request<'p>
    where
        'a: 'p,
    {
        Request {
            endpoint,
            image_ref: Some(self.image_ref),
            method: Method::GET,
            subject: Subject::Blob(&self.descriptor.digest, span),
            content: Content::Nothing,
        }
    }

    /// Asks for parts that follow those that are on their way, as long as the registry may be asked
    /// for more at once, and nobody waits for that.
    fn ask_ahead<'p>(
        &self,
        parts: &mut Parts<'p>,
        part_bytes: Option<u64>,
        endpoint: &'p Endpoint,
        host: &'p Host,
    ) where
        'a: 'p,
    {
        let Some(part_bytes) = part_bytes.filter(|_| !self.is_whole_only && !parts.is_broken())
        else {
            return;
        };
        let (have_bytes, size_bytes) = (self.have.offset_bytes, self.descriptor.size_bytes);
        if parts.is_whole() && size_bytes - have_bytes < 2 * part_bytes {
            return;
        }
        while (parts.is_whole() || parts.end_bytes() < size_bytes)
            && let Ok(permit) = host.downloads().try_acquire()
        {
            if parts.is_whole() {
                parts.cut(part_bytes, have_bytes + part_bytes);
            }
            let first = parts.end_bytes();
            let end = size_bytes.min(first + part_bytes);
            parts.push(self.part(endpoint, first..end), end - first, permit);
        }
    }

    /// Returns what comes of a part of the blob. Nothing is asked for before that is polled.
    fn part<'p>(&self, endpoint: &'p Endpoint, range: Range<u64>) -> Chunks<'p>
    where
        'a: 'p,
    {
        let transport = self.transport;
        let span = Span {
            first: range.start,
            end: Some(range.end),
        };
        let request = self.request(endpoint, span);
        Box::pin(
            stream::once(async move {
                let response = transport.send(&request).await?;
                let is_part = response.status() == StatusCode::PARTIAL_CONTENT
                    && content_range(&response).is_some_and(|(first, _)| first == range.start);
                if !is_part {
                    let message = format!("`{}` does not send parts of blobs", endpoint.host);
                    return Err(Error::new(ErrorKind::Unsupported, message));
                }
                Ok(chunks(response, endpoint))
            })
            .try_flatten(),
        )
    }

    /// Returns how many bytes at the beginning of the answer are there already.
    fn require_range(&self, response: &Response, endpoint: &Endpoint) -> Result<u64, Error> {
        let (offset_bytes, size_bytes) = (self.have.offset_bytes, self.descriptor.size_bytes);
        let (known_bytes, total_bytes) = match response.status() {
            StatusCode::OK => (offset_bytes, response.content_length()),
            StatusCode::PARTIAL_CONTENT => match content_range(response) {
                Some((first, total)) if first == offset_bytes => (0, total),
                _ => return Err(self.lies(endpoint, "sent another range of")),
            },
            _ => return Err(self.lies(endpoint, "sent no bytes of")),
        };
        match total_bytes {
            Some(total) if total != size_bytes => {
                let what = format!("says that {total} bytes, not {size_bytes}, are the size of");
                Err(self.lies(endpoint, &what))
            }
            _ => Ok(known_bytes),
        }
    }

    fn take(&mut self, chunk: &[u8], endpoint: &Endpoint) -> Result<(), Error> {
        if chunk.is_empty() {
            return Ok(());
        }
        if self.have.offset_bytes + chunk.len() as u64 > self.descriptor.size_bytes {
            let what = format!("sent more than the {} bytes of", self.descriptor.size_bytes);
            return Err(self.lies(endpoint, &what));
        }
        self.sink
            .write(chunk)
            .map_err(|error| self.sink_failed(error))?;
        if !self.is_hashed_by_sink {
            self.have.hash.update(chunk);
        }
        self.have.offset_bytes += chunk.len() as u64;
        let observer = &self.transport.config.observer;
        observer.received(self.descriptor, self.have.offset_bytes);
        Ok(())
    }

    fn check(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let is_whole = self.have.offset_bytes == self.descriptor.size_bytes;
        let hash = || self.sink.sha256().unwrap_or_else(|| self.have.hash.clone());
        if is_whole && hash().finish() == self.descriptor.digest {
            return Ok(());
        }
        Err(self.lies(endpoint, "sent other bytes as"))
    }

    fn restart(&mut self) -> Result<(), Error> {
        self.sink
            .restart()
            .map_err(|error| self.sink_failed(error))?;
        self.have = Partial::default();
        self.transport.config.observer.received(self.descriptor, 0);
        Ok(())
    }

    fn lies(&self, endpoint: &Endpoint, what: &str) -> Error {
        let message = format!(
            "`{}` {what} blob `{}`",
            endpoint.host, self.descriptor.digest
        );
        Error::new(ErrorKind::Corrupt, message)
    }

    fn sink_failed(&self, error: io::Error) -> Error {
        let message = format!("cannot store blob `{}`", self.descriptor.digest);
        Error::new(ErrorKind::Sink, message).with_source(error)
    }
}

/// Returns how large parts are, if `taken_bytes` came in the time `elapsed`.
fn part_size(taken_bytes: u64, elapsed: Duration) -> u64 {
    let times = PART_TIME.as_secs_f64() / elapsed.as_secs_f64().max(PATIENCE.as_secs_f64());
    let bytes = (taken_bytes as f64 * times) as u64;
    bytes.clamp(MIN_PART_BYTES, MAX_PART_BYTES)
}

/// Returns the content of an answer, as it comes.
fn chunks(response: Response, endpoint: &Endpoint) -> Chunks<'_> {
    let chunks = response.bytes_stream();
    Box::pin(chunks.map_err(|error| unreachable(&endpoint.host, error)))
}

/// Reads `Content-Range: bytes FIRST-LAST/TOTAL`; the total may be `*`.
pub(crate) fn content_range(response: &Response) -> Option<(u64, Option<u64>)> {
    let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, total.trim().parse().ok()))
}
