//! A blob that arrives by several requests at once, taken in order.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::SemaphorePermit;

use crate::Error;

/// What a request brings, as it comes.
pub(super) type Chunks<'a> = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send + 'a>>;

/// Parts of a blob that follow each other. The first one's bytes are passed on as they come; those
/// of the others are held until it is their turn.
pub(super) struct Parts<'a> {
    /// In their order. Only the first one may be without an end of its own.
    window: VecDeque<Part<'a>>,
    end_bytes: u64,
}

struct Part<'a> {
    chunks: Chunks<'a>,
    /// `None` where all is taken that comes.
    missing_bytes: Option<u64>,
    state: State,
    held: VecDeque<Bytes>,
    /// Whether it is another one than that of the first request.
    is_further: bool,
    /// Of a part that comes beside the one in turn.
    permit: Option<SemaphorePermit<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Arriving,
    /// No more is taken.
    Ended,
    /// It did not come as a whole.
    Lost,
}

impl<'a> Parts<'a> {
    /// Begins with what comes by the first request: the blob's rest, to `size_bytes`.
    pub(super) fn new(chunks: Chunks<'a>, size_bytes: u64) -> Self {
        Self {
            window: [Part::new(chunks, None, None)].into(),
            end_bytes: size_bytes,
        }
    }

    /// Where the last part ends in the blob.
    pub(super) fn end_bytes(&self) -> u64 {
        self.end_bytes
    }

    /// Returns whether all comes by the first request.
    pub(super) fn is_whole(&self) -> bool {
        let first = self.window.front();
        first.is_some_and(|part| part.missing_bytes.is_none())
    }

    /// Returns whether a part was lost. None is to follow it.
    pub(super) fn is_broken(&self) -> bool {
        self.window.iter().any(|part| part.state == State::Lost)
    }

    /// Ends the first request's part `bytes` from here, at `end_bytes` of the blob.
    pub(super) fn cut(&mut self, bytes: u64, end_bytes: u64) {
        if let Some(first) = self.window.front_mut() {
            first.missing_bytes = Some(bytes);
            self.end_bytes = end_bytes;
        }
    }

    /// Adds the part of `bytes` that follows the last one.
    pub(super) fn push(&mut self, chunks: Chunks<'a>, bytes: u64, permit: SemaphorePermit<'a>) {
        let part = Part::new(chunks, Some(bytes), Some(permit));
        self.window.push_back(part);
        self.end_bytes += bytes;
    }

    /// Returns the blob's next bytes, `None` after the last part or before a lost one.
    ///
    /// # Errors
    /// Those of the first request. Others' only lose their part.
    ///
    /// # Cancellation
    /// Nothing is lost when it is dropped.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let Some(first) = self.window.front_mut() else {
                return Ok(None);
            };
            if let Some(chunk) = first.held.pop_front() {
                return Ok(Some(chunk));
            }
            match first.state {
                State::Arriving => poll_fn(|cx| self.poll(cx)).await?,
                State::Lost => return Ok(None),
                State::Ended => {
                    self.window.pop_front();
                    // It goes on by the permit of the blob.
                    if let Some(next) = self.window.front_mut() {
                        next.permit = None;
                    }
                }
            }
        }
    }

    /// Takes what has come of each part.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut progress = Poll::Pending;
        for part in &mut self.window {
            match part.poll(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => progress = Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) if !part.is_further => return Poll::Ready(Err(error)),
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "a part of a blob did not come");
                    part.end(State::Lost);
                    progress = Poll::Ready(Ok(()));
                }
            }
        }
        progress
    }
}

impl<'a> Part<'a> {
    fn new(
        chunks: Chunks<'a>,
        missing_bytes: Option<u64>,
        permit: Option<SemaphorePermit<'a>>,
    ) -> Self {
        Self {
            chunks,
            missing_bytes,
            state: State::Arriving,
            held: VecDeque::new(),
            is_further: permit.is_some(),
            permit,
        }
    }

    /// Takes what has come. Ready if there was something, or it has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.state != State::Arriving {
            return Poll::Pending;
        }
        let Some(mut chunk) = ready!(self.chunks.as_mut().poll_next(cx)).transpose()? else {
            let is_whole = self.missing_bytes.is_none_or(|missing| missing == 0);
            self.end(if is_whole { State::Ended } else { State::Lost });
            return Poll::Ready(Ok(()));
        };
        if let Some(missing) = &mut self.missing_bytes {
            chunk.truncate(usize::try_from(*missing).unwrap_or(usize::MAX));
            *missing -= chunk.len() as u64;
            if *missing == 0 {
                self.end(State::Ended);
            }
        }
        self.held.push_back(chunk);
        Poll::Ready(Ok(()))
    }

    /// Lets go of the connection.
    fn end(&mut self, state: State) {
        self.state = state;
        self.chunks = Box::pin(futures_util::stream::empty());
        self.permit = None;
    }
}
