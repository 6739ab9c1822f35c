use larder_oci::Digest;

use crate::{CacheMap, KeyId};

/// A build that waits for targets; chosen by the driver, not used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Work that the driver was asked to do; each is answered exactly once, by the event that the
/// command names or by [`Event::Failed`], even after [`Cancel`](crate::Command::Cancel).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One output of a vertex.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// The vertex.
    pub vertex: Digest,
    /// Which of its outputs, from 0.
    pub output: usize,
}

/// A vertex as a job loads it.
///
/// While in flight, vertices that are equal in digest, `ignore_cache` and inputs (these equal in
/// the same way) are one, whichever job loads them. So a source whose meaning can change while
/// its op stays equal (a client's directory) needs something in its op that tells it apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VertexSpec {
    /// Names the op with all that is below it.
    pub digest: Digest,
    /// What it reads, in the op's order; defined before it.
    pub inputs: Vec<Edge>,
    /// Whether it is to run even if a record of it exists.
    pub ignore_cache: bool,
    /// Whether its execution counts against [`max_parallelism`](crate::Options::max_parallelism).
    pub limited: bool,
}

/// A key node that a query found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match<R> {
    /// The node.
    pub key: KeyId,
    /// Its result, not materialised; `None` if there is none (any more). The solver owns it and
    /// releases it.
    pub result: Option<R>,
}

/// What can happen. All events are sent by the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<R, E> {
    /// A build begins. Ends with one [`JobDone`](crate::Command::JobDone).
    AddJob {
        /// The new job.
        job: JobId,
        /// Its graph, inputs before their readers.
        vertices: Vec<VertexSpec>,
        /// The edges it waits for.
        targets: Vec<Edge>,
    },
    /// A build is no longer wanted. Nothing happens if it has ended.
    CancelJob {
        /// The job.
        job: JobId,
    },
    /// The driver is done with the results of a job that was
    /// [`Built`](crate::Outcome::Built); they are released unless other jobs hold them.
    CloseJob {
        /// The job.
        job: JobId,
    },
    /// Answers [`ComputeCacheMap`](crate::Command::ComputeCacheMap).
    CacheMap {
        /// The request.
        request: RequestId,
        /// What the vertex feeds into its key.
        map: CacheMap,
    },
    /// Answers [`Query`](crate::Command::Query).
    Queried {
        /// The request.
        request: RequestId,
        /// The nodes that match for every input, best first (of those with a result: the one to
        /// use).
        matches: Vec<Match<R>>,
        /// For each input whether any of its candidates leads to a record of this op and output;
        /// empty for a root. It tells which content keys can still help.
        linked: Vec<bool>,
    },
    /// Answers [`ComputeContentKey`](crate::Command::ComputeContentKey).
    ContentKey {
        /// The request.
        request: RequestId,
        /// The digest of what the step reads of the input.
        digest: Digest,
    },
    /// Answers [`LockKey`](crate::Command::LockKey): the lock is held now.
    KeyLocked {
        /// The request.
        request: RequestId,
        /// Whether somebody else held it first. Only for the log: the key is looked up once more
        /// in any case.
        waited: bool,
    },
    /// Answers [`Execute`](crate::Command::Execute).
    Executed {
        /// The request.
        request: RequestId,
        /// One for each output that was asked for, in that order. The solver owns and releases
        /// them.
        results: Vec<R>,
    },
    /// Answers [`Save`](crate::Command::Save).
    Saved {
        /// The request.
        request: RequestId,
        /// The nodes that lead to the result now: one for each digest of a root key, else one.
        keys: Vec<KeyId>,
    },
    /// Answers [`Execute`](crate::Command::Execute) or
    /// [`ComputeContentKey`](crate::Command::ComputeContentKey): an input's result turned out to
    /// be gone or corrupt. Its vertex runs again, then the request is made anew.
    ResultLost {
        /// The request.
        request: RequestId,
        /// Which input of the vertex.
        input: usize,
        /// Why. The input's vertex fails with it if its result was made, not found, in this
        /// flight: then making it once more does not help.
        error: E,
    },
    /// Answers any request: it could not be done.
    Failed {
        /// The request.
        request: RequestId,
        /// Why.
        error: E,
    },
    /// Answers any request after [`Cancel`](crate::Command::Cancel): it was given up and has left
    /// nothing behind.
    Canceled {
        /// The request.
        request: RequestId,
    },
}
