//! One blob on its way to a registry.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::header::RANGE;
use reqwest::{Method, Response, Url};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::endpoint::Endpoint;
use crate::error::Retry;
use crate::piece::{Piece, PieceState};
use crate::push::require_stored;
use crate::request::{Content, Request, Subject};
use crate::retry::Retries;
use crate::transport::location;
use crate::{BlobPush, Client, Error, ErrorKind};

/// The smallest piece that a registry takes, if it says so.
const MIN_PIECE: &str = "oci-chunk-min-length";
/// How often the caller hears how much was sent.
const TICK: Duration = Duration::from_millis(100);
/// For the connection to take more bytes.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// For an answer once all is sent: some registries copy the whole blob first.
const STORE_TIMEOUT: Duration = Duration::from_secs(600);

/// A blob that is sent in pieces, each to where the answer to the last one said; the last piece
/// closes the upload. A small blob is one piece.
pub(crate) struct Upload<'a> {
    client: &'a Client,
    endpoint: &'a Endpoint,
    push: &'a BlobPush<'a>,
    session: Session,
    piece_bytes: u64,
}

/// What the registry knows of the blob.
enum Session {
    /// Nothing.
    None,
    /// Nothing any more, or all of it: the answer to the last piece was lost.
    Lost,
    /// The first bytes, and where the next ones go.
    Open { at: Url, offset_bytes: u64 },
    /// Maybe more than these.
    Broken { at: Url, offset_bytes: u64 },
}

impl<'a> Upload<'a> {
    /// Returns an upload; one that `begun` began, if it did.
    pub(crate) fn new(
        client: &'a Client,
        endpoint: &'a Endpoint,
        push: &'a BlobPush<'a>,
        begun: Option<Response>,
    ) -> Self {
        let mut upload = Self {
            client,
            endpoint,
            push,
            session: Session::None,
            piece_bytes: client.transport.config.piece_bytes.max(1),
        };
        if let Some(answer) = begun {
            // A beginning that can't be used is made again.
            let _ = upload.begun(&answer);
        }
        upload
    }

    /// Sends what the registry does not have, until it has all.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let mut retries = Retries::new(&self.client.transport.config, &self.endpoint.host);
        let mut furthest_bytes = 0;
        loop {
            match self.step().await {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    if let Session::Open { offset_bytes, .. } = self.session
                        && offset_bytes > furthest_bytes
                    {
                        furthest_bytes = offset_bytes;
                        retries.reset();
                    }
                }
                Err(error) => retries.pause(error).await?,
            }
        }
    }

    /// Sends one request that brings the blob further. Returns whether all is done.
    async fn step(&mut self) -> Result<bool, Error> {
        match &self.session {
            Session::None => {
                let digest = &self.push.descriptor.digest;
                let subject = Subject::NewUpload(digest, None);
                let request = self.request(Method::POST, subject, Content::Nothing);
                let answer = self.client.transport.send(&request).await?;
                self.begun(&answer)?;
                Ok(false)
            }
            Session::Lost => {
                let (image_ref, digest) = (self.push.image_ref, &self.push.descriptor.digest);
                let has = self.client.has_blob_at(self.endpoint, image_ref, digest);
                let has = has.await?;
                self.session = Session::None;
                Ok(has)
            }
            Session::Open { at, offset_bytes } => self.send(at.clone(), *offset_bytes).await,
            Session::Broken { at, offset_bytes } => {
                self.ask(at.clone(), *offset_bytes).await?;
                Ok(false)
            }
        }
    }

    /// Takes note of where a new upload goes.
    fn begun(&mut self, answer: &Response) -> Result<(), Error> {
        let smallest = answer.headers().get(MIN_PIECE);
        let smallest = smallest.and_then(|value| value.to_str().ok()?.parse().ok());
        self.piece_bytes = self.piece_bytes.max(smallest.unwrap_or_default());
        self.session = Session::Open {
            at: location(answer, &self.endpoint.host)?,
            offset_bytes: 0,
        };
        Ok(())
    }

    /// Sends the next piece. Returns whether it was the last.
    async fn send(&mut self, at: Url, offset_bytes: u64) -> Result<bool, Error> {
        let digest = &self.push.descriptor.digest;
        let left_bytes = self.push.descriptor.size_bytes - offset_bytes;
        let is_last = left_bytes <= self.piece_bytes;
        let piece = Piece {
            source: self.push.source,
            digest,
            offset_bytes,
            length_bytes: left_bytes.min(self.piece_bytes),
            is_whole: is_last && offset_bytes == 0,
            state: Arc::default(),
        };
        let (method, to) = if is_last {
            (Method::PUT, closing(&at, digest.as_str()))
        } else {
            (Method::PATCH, at.clone())
        };
        let subject = Subject::Upload(digest, &to);
        let request = self.request(method, subject, Content::Piece(&piece));
        let sent = self.watch(&request, &piece).await;
        match sent {
            Ok(answer) if is_last => {
                require_stored(&answer, digest, self.endpoint)?;
                (self.push.on_sent)(self.push.descriptor.size_bytes);
                Ok(true)
            }
            Ok(answer) => {
                self.session = Session::Open {
                    at: location(&answer, &self.endpoint.host)?,
                    offset_bytes: offset_bytes + piece.length_bytes,
                };
                Ok(false)
            }
            Err(error) => Err(match piece.failure() {
                Some(failure) => failure,
                None => self.broke(error, at, &piece),
            }),
        }
    }

    /// Takes note of a piece that was not taken. Returns the error, with whether it is worth another
    /// attempt.
    fn broke(&mut self, error: Error, at: Url, piece: &Piece<'_>) -> Error {
        let is_refused = matches!(error.kind(), ErrorKind::Rejected | ErrorKind::NotFound);
        if !is_refused || error.status() == Some(413) {
            let offset_bytes = piece.offset_bytes;
            self.session = Session::Broken { at, offset_bytes };
            return error;
        }
        self.session = Session::None;
        if piece.is_whole {
            return error;
        }
        // Some registries take a blob in one piece only, and some lose their way in several. That is
        // tried once, whatever went wrong before.
        self.piece_bytes = u64::MAX;
        error.with_retry(Retry::Backoff)
    }

    /// Asks how much of the blob the registry has.
    async fn ask(&mut self, at: Url, offset_bytes: u64) -> Result<(), Error> {
        let digest = &self.push.descriptor.digest;
        let request = self.request(Method::GET, Subject::Upload(digest, &at), Content::Nothing);
        let answer = match self.client.transport.send(&request).await {
            Ok(answer) => answer,
            Err(error) if error.status().is_some() && error.retry() == Retry::Never => {
                if error.kind() == ErrorKind::Denied {
                    return Err(error);
                }
                self.session = Session::Lost;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let known_bytes = received(&answer).unwrap_or(offset_bytes);
        self.session = if known_bytes <= self.push.descriptor.size_bytes {
            let at = location(&answer, &self.endpoint.host).unwrap_or(at);
            let offset_bytes = known_bytes;
            Session::Open { at, offset_bytes }
        } else {
            Session::Lost
        };
        Ok(())
    }

    /// Sends a piece, tells how far it came, and gives up when it comes no further.
    async fn watch(&self, request: &Request<'_>, piece: &Piece<'_>) -> Result<Response, Error> {
        let state: &PieceState = &piece.state;
        let sending = self.client.transport.send(request);
        tokio::pin!(sending);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end_bytes = piece.offset_bytes + piece.length_bytes;
        let mut last = (0, Instant::now());
        loop {
            tokio::select! {
                sent = &mut sending => return sent,
                _ = ticks.tick() => {}
            }
            let sent_bytes = state.sent_bytes.load(Ordering::Relaxed);
            if sent_bytes != last.0 {
                last = (sent_bytes, Instant::now());
                (self.push.on_sent)(sent_bytes);
            }
            let timeout = if sent_bytes == end_bytes {
                STORE_TIMEOUT
            } else {
                SEND_TIMEOUT
            };
            if last.1.elapsed() > timeout {
                let message = format!("`{}` takes no more bytes", self.endpoint.host);
                let error = Error::new(ErrorKind::Unavailable, message);
                return Err(error.with_retry(Retry::Backoff));
            }
        }
    }

    fn request<'r>(&self, method: Method, subject: Subject<'r>, content: Content<'r>) -> Request<'r>
    where
        'a: 'r,
    {
        Request {
            endpoint: self.endpoint,
            image_ref: Some(self.push.image_ref),
            method,
            subject,
            content,
        }
    }
}

/// Returns where the last piece goes.
fn closing(at: &Url, digest: &str) -> Url {
    let mut url = at.clone();
    url.query_pairs_mut().append_pair("digest", digest);
    url
}

/// Reads `Range: 0-LAST` (distribution specification, "Pushing a blob in chunks"). `0-0` is what
/// registries say of nothing, too: that one byte is sent again.
fn received(answer: &Response) -> Option<u64> {
    let text = answer.headers().get(RANGE)?.to_str().ok()?;
    let range = text.strip_prefix("bytes=").unwrap_or(text);
    let (_, last) = range.split_once('-')?;
    match last.trim().parse().ok()? {
        0 => Some(0),
        last => u64::checked_add(last, 1),
    }
}
