use larder_oci::Digest;

use crate::{CacheKey, JobId, KeyId, RequestId};

/// What the driver is to do. Those with a `request` are answered; the driver need not wait for
/// one before it starts the next.
///
/// `R` names a result: any copy of it is good until [`Command::Release`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<R, E> {
    /// Find out what `vertex` feeds into its key; for a source this resolves names. Answered by
    /// [`Event::CacheMap`](crate::Event::CacheMap).
    ComputeCacheMap {
        /// The request.
        request: RequestId,
        /// The vertex.
        vertex: Digest,
    },
    /// Look up records. Answered by [`Event::Queried`](crate::Event::Queried).
    Query {
        /// The request.
        request: RequestId,
        /// The vertex.
        vertex: Digest,
        /// Which of its outputs.
        output: usize,
        /// Its key, with all that is known of its inputs.
        key: CacheKey,
    },
    /// Digest what `vertex` reads of an input. Answered by
    /// [`Event::ContentKey`](crate::Event::ContentKey).
    ComputeContentKey {
        /// The request.
        request: RequestId,
        /// The vertex.
        vertex: Digest,
        /// Which of its inputs.
        input: usize,
        /// That input's result.
        result: R,
    },
    /// Take the lock of a key that is about to be executed, so that equal steps of other
    /// processes wait. Answered by [`Event::KeyLocked`](crate::Event::KeyLocked). The solver
    /// itself never asks for a lock that it holds.
    LockKey {
        /// The request.
        request: RequestId,
        /// The vertex.
        vertex: Digest,
        /// The lock's name; made of ids of this store, so of no use outside it.
        lock: Digest,
    },
    /// Give the lock back. Not answered.
    UnlockKey {
        /// The lock's name.
        lock: Digest,
    },
    /// Run the op. Answered by [`Event::Executed`](crate::Event::Executed), or
    /// [`Event::ResultLost`](crate::Event::ResultLost).
    Execute {
        /// The request.
        request: RequestId,
        /// The vertex.
        vertex: Digest,
        /// The outputs that are needed, ascending.
        outputs: Vec<usize>,
        /// The results of all inputs, in the op's order.
        inputs: Vec<R>,
    },
    /// Store a result under a key. Answered by [`Event::Saved`](crate::Event::Saved).
    Save {
        /// The request.
        request: RequestId,
        /// The vertex.
        vertex: Digest,
        /// Which of its outputs.
        output: usize,
        /// The key; every candidate of every input is to lead to the result. A candidate's node
        /// may have been pruned meanwhile: it is left out then.
        key: CacheKey,
        /// The result.
        result: R,
        /// What becomes of records that the key matches already.
        mode: SaveMode,
    },
    /// Let every candidate of `key` lead to the node `to`, which was found by some of them, so
    /// that the next look-up needs no content. Not answered; may be lost.
    Link {
        /// The vertex.
        vertex: Digest,
        /// Which of its outputs.
        output: usize,
        /// Its key.
        key: CacheKey,
        /// The node.
        to: KeyId,
    },
    /// Give up a request. It is still to be answered; if it failed by itself, with that failure.
    Cancel {
        /// The request.
        request: RequestId,
    },
    /// The solver holds this result no more. Once for each result that an event brought. Not
    /// answered.
    Release {
        /// The result.
        result: R,
    },
    /// The state of a vertex changed. Not answered.
    Progress {
        /// The vertex.
        vertex: Digest,
        /// Who is to know.
        jobs: Vec<JobId>,
        /// The new state.
        progress: Progress<E>,
    },
    /// A vertex is about to run, since no result was found. Not answered. Sources without a
    /// definition key always run, and don't tell.
    Missed {
        /// The vertex.
        vertex: Digest,
        /// Who is to know.
        jobs: Vec<JobId>,
        /// Why.
        reason: MissReason,
        /// Its key, with all that is known of its inputs.
        key: CacheKey,
        /// What became of its inputs, in the op's order.
        inputs: Vec<MissedInput>,
    },
    /// A job ended; nothing of it is pending. Not answered.
    JobDone {
        /// The job.
        job: JobId,
        /// How.
        outcome: Outcome<R, E>,
    },
}

/// What becomes of records that a saved key matches already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveMode {
    /// The result joins the node that the key matches, if there is one.
    Keep,
    /// The nodes that the key matches are forgotten with their results, and the result gets a
    /// node that was never used: what was made from older results is no longer found by it.
    Replace,
}

/// The state of a vertex, for those who watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress<E> {
    /// Its work began (for a source: it is being resolved). May come again after `Cached`, if
    /// the result that was found turned out to be lost.
    Started,
    /// It was found, and did not run.
    Cached,
    /// It ran.
    Completed,
    /// It failed.
    Failed(E),
    /// It was given up after it had started.
    Canceled,
}

/// Why a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissReason {
    /// No record matches.
    NoMatch,
    /// A record matches, but it has no result (any more), and the result is needed.
    NoResult,
    /// A result was found, but turned out to be lost when it was used.
    ResultLost,
    /// The vertex ignores the cache.
    IgnoreCache,
}

/// What became of an input of a step that missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissedInput {
    /// The input's vertex.
    pub vertex: Digest,
    /// Whether it ran in this flight.
    pub executed: bool,
    /// Whether any of its keys leads to a record of this step: `Some(false)` makes it (one of)
    /// the cause(s) of the miss. `None` if it was not looked up.
    pub linked: Option<bool>,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<R, E> {
    /// All targets are there. They are held until
    /// [`Event::CloseJob`](crate::Event::CloseJob).
    Built(Vec<Target<R>>),
    /// These vertices failed, the first failure first; never empty. The job is closed.
    Failed(Vec<Failure<E>>),
    /// The job was canceled. It is closed.
    Canceled,
}

/// The result of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<R> {
    /// The result.
    pub result: R,
    /// The key nodes that lead to it; empty for a source without a definition key.
    pub keys: Vec<KeyId>,
}

/// The failure of a vertex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure<E> {
    /// The vertex.
    pub vertex: Digest,
    /// Why.
    pub error: E,
}
