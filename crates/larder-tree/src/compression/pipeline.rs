use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::threads::Threads as Workers;

/// How many inputs may wait for or be in work, per thread.
const INPUTS_PER_THREAD: usize = 3;

/// Where inputs go with what was made of them, in the order of the inputs.
pub(super) trait Sink<P>: Send + 'static {
    /// Takes the next input and its piece.
    fn take(&mut self, input: Vec<u8>, piece: P) -> io::Result<()>;
}

/// Works on a sequence of inputs in several threads, and hands on what comes of it, in order, in
/// one more. How many threads there are doesn't show in the result.
pub(super) enum Pipeline<S, P> {
    /// Everything in the caller's thread.
    Inline(S, Work<P>),
    Threads(Threads<S, P>),
}

/// Makes a piece of an input.
type Work<P> = Box<dyn FnMut(&[u8]) -> P + Send>;

/// An input with its piece.
type Done<P> = (Vec<u8>, P);

/// An input, and where it goes when its piece is made.
type Job<P> = (Vec<u8>, SyncSender<Done<P>>);

/// To those who work, and to the one who hands on.
struct Senders<P> {
    jobs: SyncSender<Job<P>>,
    pieces: SyncSender<Receiver<Done<P>>>,
}

pub(super) struct Threads<S, P> {
    /// Until the end.
    senders: Option<Senders<P>>,
    workers: Vec<JoinHandle<()>>,
    writer: Option<JoinHandle<io::Result<S>>>,
}

impl<S: Sink<P>, P: Send + 'static> Pipeline<S, P> {
    /// Starts threads that each work with what `work` returns; with one, the caller's does all.
    pub(super) fn start<F>(
        sink: S,
        threads: &Workers,
        work: impl Fn() -> io::Result<F>,
    ) -> io::Result<Self>
    where
        F: FnMut(&[u8]) -> P + Send + 'static,
    {
        let count = threads.count();
        if count < 2 {
            return Ok(Self::Inline(sink, Box::new(work()?)));
        }
        let (jobs, queue) = sync_channel::<Job<P>>(count);
        let queue = Arc::new(Mutex::new(queue));
        let mut workers = Vec::with_capacity(count);
        for _ in 0..count {
            let (queue, work) = (Arc::clone(&queue), work()?);
            workers.push(threads.spawn("larder-compress", move || work_on(&queue, work))?);
        }
        let (pieces, ordered) = sync_channel(count * INPUTS_PER_THREAD);
        let writer = threads.spawn("larder-layer", move || hand_on(sink, &ordered))?;
        Ok(Self::Threads(Threads {
            senders: Some(Senders { jobs, pieces }),
            workers,
            writer: Some(writer),
        }))
    }

    /// Takes the next input.
    ///
    /// # Errors
    /// Those of the sink with an earlier piece; it takes no more then.
    pub(super) fn push(&mut self, input: Vec<u8>) -> io::Result<()> {
        match self {
            Self::Inline(sink, work) => {
                let piece = work(&input);
                sink.take(input, piece)
            }
            Self::Threads(threads) => {
                let (reply, piece) = sync_channel(1);
                let is_taken = threads.senders.as_ref().is_some_and(|senders| {
                    senders.pieces.send(piece).is_ok() && senders.jobs.send((input, reply)).is_ok()
                });
                if is_taken {
                    return Ok(());
                }
                threads.end().and(Err(died()))
            }
        }
    }

    /// Waits until the sink has all; returns it.
    pub(super) fn finish(self) -> io::Result<S> {
        match self {
            Self::Inline(sink, _) => Ok(sink),
            Self::Threads(mut threads) => threads.end(),
        }
    }
}

impl<S, P> Threads<S, P> {
    /// Waits until the sink has what was pushed, and no thread is left.
    fn end(&mut self) -> io::Result<S> {
        self.senders = None;
        let writer = self.writer.take().ok_or_else(died)?;
        let done = writer.join().unwrap_or_else(|_| Err(died()));
        for worker in self.workers.drain(..) {
            // What a worker left undone, the writer has told.
            let _ = worker.join();
        }
        done
    }
}

impl<S, P> Drop for Threads<S, P> {
    /// Waits, so that nothing is written once this value is gone.
    fn drop(&mut self) {
        drop(self.end());
    }
}

/// Works until there are no more jobs.
fn work_on<P>(queue: &Mutex<Receiver<Job<P>>>, mut work: impl FnMut(&[u8]) -> P) {
    let next = || queue.lock().ok()?.recv().ok();
    while let Some((input, reply)) = next() {
        let piece = work(&input);
        // Whoever asked may have given up meanwhile.
        let _ = reply.send((input, piece));
    }
}

fn hand_on<S: Sink<P>, P>(mut sink: S, ordered: &Receiver<Receiver<Done<P>>>) -> io::Result<S> {
    for piece in ordered {
        let (input, piece) = piece.recv().map_err(|_| died())?;
        sink.take(input, piece)?;
    }
    Ok(sink)
}

pub(super) fn died() -> io::Error {
    io::Error::other("a thread that compresses ended early")
}
