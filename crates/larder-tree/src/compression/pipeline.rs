use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// How many inputs may wait for or be in work, per thread.
const INPUTS_PER_THREAD: usize = 3;

/// What comes out of the work on one input, to be written in the order of the inputs.
pub(super) trait Piece<S>: Send + 'static {
    /// Writes it after those before.
    fn write_to(self, sink: &mut S) -> io::Result<()>;
}

/// Works on a sequence of inputs in several threads, and writes what comes of it, in order, in
/// one more. How many threads there are doesn't show in what is written.
pub(super) enum Pipeline<S, P> {
    /// Everything in the caller's thread.
    Inline(S, Work<P>),
    Threads(Threads<S, P>),
}

/// Makes a piece of an input.
type Work<P> = Box<dyn FnMut(&[u8]) -> P + Send>;

/// An input, and where its piece goes.
type Job<P> = (Vec<u8>, SyncSender<P>);

/// To those who work, and to the one who writes.
struct Senders<P> {
    jobs: SyncSender<Job<P>>,
    pieces: SyncSender<Receiver<P>>,
}

pub(super) struct Threads<S, P> {
    /// Until the end.
    senders: Option<Senders<P>>,
    /// Buffers of inputs that were worked on.
    spare: Receiver<Vec<u8>>,
    writer: Option<JoinHandle<io::Result<S>>>,
}

impl<S: Send + 'static, P: Piece<S>> Pipeline<S, P> {
    /// Starts `threads` threads that each work with what `work` returns; with one, the caller's
    /// does all.
    pub(super) fn start<F>(sink: S, threads: usize, work: impl Fn() -> F) -> io::Result<Self>
    where
        F: FnMut(&[u8]) -> P + Send + 'static,
    {
        if threads < 2 {
            return Ok(Self::Inline(sink, Box::new(work())));
        }
        let (jobs, queue) = sync_channel::<Job<P>>(threads);
        let (recycled, spare) = channel();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let (queue, recycled, work) = (Arc::clone(&queue), recycled.clone(), work());
            named("larder-compress").spawn(move || work_on(&queue, &recycled, work))?;
        }
        let (pieces, ordered) = sync_channel(threads * INPUTS_PER_THREAD);
        let writer = named("larder-layer").spawn(move || write_all(sink, &ordered))?;
        Ok(Self::Threads(Threads {
            senders: Some(Senders { jobs, pieces }),
            spare,
            writer: Some(writer),
        }))
    }

    /// Takes the next input. Returns an empty buffer for another one, if there is one to spare.
    ///
    /// # Errors
    /// Those of writing an earlier piece; nothing more can be written then.
    pub(super) fn push(&mut self, input: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::Inline(sink, work) => {
                work(&input).write_to(sink)?;
                Ok(Some(input))
            }
            Self::Threads(threads) => {
                let (reply, piece) = sync_channel(1);
                let is_taken = threads.senders.as_ref().is_some_and(|senders| {
                    senders.pieces.send(piece).is_ok() && senders.jobs.send((input, reply)).is_ok()
                });
                if is_taken {
                    return Ok(threads.spare.try_recv().ok());
                }
                threads.end().and(Err(died()))
            }
        }
    }

    /// Waits until all is written; returns what it was written to.
    pub(super) fn finish(self) -> io::Result<S> {
        match self {
            Self::Inline(sink, _) => Ok(sink),
            Self::Threads(mut threads) => threads.end(),
        }
    }
}

impl<S, P> Threads<S, P> {
    /// Waits until what was pushed is written.
    fn end(&mut self) -> io::Result<S> {
        self.senders = None;
        let writer = self.writer.take().ok_or_else(died)?;
        writer.join().unwrap_or_else(|_| Err(died()))
    }
}

impl<S, P> Drop for Threads<S, P> {
    /// Waits, so that nothing is written once this value is gone.
    fn drop(&mut self) {
        drop(self.end());
    }
}

fn named(name: &str) -> thread::Builder {
    thread::Builder::new().name(name.to_owned())
}

/// Works until there are no more jobs.
fn work_on<P>(
    queue: &Mutex<Receiver<Job<P>>>,
    recycled: &Sender<Vec<u8>>,
    mut work: impl FnMut(&[u8]) -> P,
) {
    let next = || queue.lock().ok()?.recv().ok();
    while let Some((mut input, reply)) = next() {
        // Whoever asked may have given up meanwhile.
        let _ = reply.send(work(&input));
        input.clear();
        let _ = recycled.send(input);
    }
}

fn write_all<S, P: Piece<S>>(mut sink: S, ordered: &Receiver<Receiver<P>>) -> io::Result<S> {
    for piece in ordered {
        piece.recv().map_err(|_| died())?.write_to(&mut sink)?;
    }
    Ok(sink)
}

fn died() -> io::Error {
    io::Error::other("a thread that compresses ended early")
}
