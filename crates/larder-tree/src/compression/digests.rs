use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender, sync_channel};
use std::thread::JoinHandle;

use larder_oci::{SavedSha256, Sha256};

use super::chunks::{ChunkCache, Mark};
use super::pipeline::died;
use super::threads::Threads;

/// How many bytes of the input lie between two marks, at least. What follows the last mark before
/// a change is hashed again.
const MARK_BYTES: u64 = 8 << 20;

/// The most that is held back in the hope of a mark.
const MAX_HELD_BYTES: u64 = 4 * MARK_BYTES;

/// How many chunks may wait to be hashed.
const WAITING_CHUNKS: usize = 8;

/// Where a chunk is in an earlier stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) stream: u32,
    pub(super) offset: u64,
}

/// Computes the digests of a stream before and after it is compressed.
///
/// What an earlier stream began with is not hashed again. As long as each chunk is known, and
/// stands in one earlier stream at the same place as here, both streams have the same chunks from
/// the first on, so their digests have come equally far, compressed or not. That chunks are the
/// same is known by their keys, which are digests themselves.
pub(super) struct Digests {
    packed: Hasher,
    plain: PlainHasher,
    cache: Arc<dyn ChunkCache>,
    beginning: Beginning,
    plain_bytes: u64,
    /// How much of the input there was at the last mark.
    marked_at: u64,
    marks: Vec<(u64, SavedSha256)>,
}

/// What the stream so far has in common with an earlier one.
enum Beginning {
    /// Nothing was written but the header.
    Header,
    /// It is how this one begins.
    Of(u32),
    /// It is none's.
    New,
}

impl Digests {
    /// Starts with the `header` written. `spare` gets the inputs when they are hashed.
    pub(super) fn start(
        header: &[u8],
        cache: &Arc<dyn ChunkCache>,
        spare: Sender<Vec<u8>>,
        threads: &Threads,
    ) -> io::Result<Self> {
        let mut packed = Hasher::default();
        packed.add(header);
        Ok(Self {
            packed,
            plain: PlainHasher::start(spare, threads)?,
            cache: Arc::clone(cache),
            beginning: Beginning::Header,
            plain_bytes: 0,
            marked_at: 0,
            marks: Vec::new(),
        })
    }

    /// Adds a chunk that is at `place` now.
    pub(super) fn add(
        &mut self,
        input: Vec<u8>,
        bytes: Vec<u8>,
        origin: Option<Origin>,
        place: &Range<u64>,
    ) -> io::Result<()> {
        self.plain_bytes += input.len() as u64;
        let common = self.common(origin, place.start);
        let mark = common.and_then(|stream| self.cache.mark(stream, place.end));
        let step = match (common, &mark) {
            (None, _) => Step::Add,
            (Some(_), None) => Step::Hold,
            (Some(_), Some(mark)) => Step::GoTo(mark.plain.clone()),
        };
        match (common, mark) {
            (None, _) => self.packed.add(&bytes),
            (Some(_), None) => self.packed.held.push(bytes),
            (Some(_), Some(mark)) => self.packed.go_to(&mark.packed)?,
        }
        let is_mark =
            self.packed.held.is_empty() && self.plain_bytes - self.marked_at >= MARK_BYTES;
        if is_mark {
            self.marks.push((place.end, self.packed.sha.save()));
            self.marked_at = self.plain_bytes;
        }
        self.plain.send(Part {
            input,
            step,
            is_mark,
        })
    }

    /// Adds what ends the stream; returns the computations over it, compressed and not.
    pub(super) fn finish(mut self, trailer: &[u8]) -> io::Result<(Sha256, Sha256)> {
        self.packed.add(trailer);
        let (plain, plain_marks) = self.plain.finish()?;
        for ((end, packed), plain) in self.marks.into_iter().zip(plain_marks) {
            self.cache.marked(end, Mark { packed, plain });
        }
        Ok((self.packed.sha, plain))
    }

    /// Returns the earlier stream that begins as this one does, with a chunk at `offset` that is
    /// at `origin` in it.
    fn common(&mut self, origin: Option<Origin>, offset: u64) -> Option<u32> {
        let is_long = self.plain_bytes - self.marked_at > MAX_HELD_BYTES;
        let origin = origin.filter(|origin| origin.offset == offset && !is_long);
        let common = match (&self.beginning, origin) {
            (Beginning::Header, Some(origin)) => Some(origin.stream),
            (Beginning::Of(stream), Some(origin)) if origin.stream == *stream => Some(*stream),
            _ => None,
        };
        self.beginning = common.map_or(Beginning::New, Beginning::Of);
        common
    }
}

/// A computation that may be behind.
#[derive(Default)]
struct Hasher {
    sha: Sha256,
    /// What is to be added before all else, unless it turns out that it needn't.
    held: Vec<Vec<u8>>,
}

impl Hasher {
    fn add(&mut self, bytes: &[u8]) {
        for held in self.held.drain(..) {
            self.sha.update(&held);
        }
        self.sha.update(bytes);
    }

    /// Goes to where an earlier computation over the same bytes was, what is held included.
    fn go_to(&mut self, saved: &SavedSha256) -> io::Result<()> {
        self.held.clear();
        let resumed = Sha256::resume(saved);
        self.sha = resumed.ok_or_else(|| io::Error::other("a saved digest is damaged"))?;
        Ok(())
    }
}

/// What happens with the next part of the input.
enum Step {
    Add,
    Hold,
    GoTo(SavedSha256),
}

struct Part {
    input: Vec<u8>,
    step: Step,
    is_mark: bool,
}

/// What comes of hashing: the state at the end, and those at the marks.
type Hashed = io::Result<(Sha256, Vec<SavedSha256>)>;

/// Hashes the input in a thread of its own: with that of the output, it takes the time of two.
struct PlainHasher {
    parts: Option<SyncSender<Part>>,
    thread: Option<JoinHandle<Hashed>>,
}

impl PlainHasher {
    fn start(spare: Sender<Vec<u8>>, threads: &Threads) -> io::Result<Self> {
        let (sender, parts) = sync_channel::<Part>(WAITING_CHUNKS);
        let work = move || {
            let mut hasher = Hasher::default();
            let mut marks = Vec::new();
            let give_back = |mut input: Vec<u8>| {
                input.clear();
                // Nobody may need it any more.
                let _ = spare.send(input);
            };
            for Part {
                input,
                step,
                is_mark,
            } in parts
            {
                match step {
                    Step::Add => {
                        hasher.add(&input);
                        give_back(input);
                    }
                    Step::Hold => hasher.held.push(input),
                    Step::GoTo(saved) => {
                        hasher.go_to(&saved)?;
                        give_back(input);
                    }
                }
                if is_mark {
                    marks.push(hasher.sha.save());
                }
            }
            hasher.add(&[]);
            Ok((hasher.sha, marks))
        };
        Ok(Self {
            parts: Some(sender),
            thread: Some(threads.spawn("larder-digest", work)?),
        })
    }

    fn send(&mut self, part: Part) -> io::Result<()> {
        let is_taken = self
            .parts
            .as_ref()
            .is_some_and(|parts| parts.send(part).is_ok());
        if is_taken {
            return Ok(());
        }
        self.end().and(Err(died()))
    }

    fn finish(mut self) -> io::Result<(Sha256, Vec<SavedSha256>)> {
        self.end()
    }

    fn end(&mut self) -> io::Result<(Sha256, Vec<SavedSha256>)> {
        self.parts = None;
        let thread = self.thread.take().ok_or_else(died)?;
        thread.join().unwrap_or_else(|_| Err(died()))
    }
}
