//! What the solver knows of vertices, jobs and requests. Facts only ever grow, except that a
//! result can be lost; what is *wanted* is found anew when a job ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use larder_oci::Digest;

use crate::{CacheKey, CacheMap, Candidate, Failure, JobId, KeyId, Progress, RequestId};

/// A vertex in flight. Grows with every vertex, and inputs are loaded first, so that this is also
/// the graph's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ix(pub(super) u64);

/// What makes two vertices one while in flight.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) digest: Digest,
    pub(super) ignore_cache: bool,
    pub(super) inputs: Vec<(Ix, usize)>,
}

pub(super) struct Vertex<R, E> {
    pub(super) identity: Identity,
    pub(super) limited: bool,
    pub(super) inputs: Vec<Input>,
    /// Those that are read by other vertices or are targets.
    pub(super) outputs: BTreeMap<usize, Output<R>>,
    /// The vertices that read it.
    pub(super) users: BTreeSet<Ix>,
    /// The jobs that loaded it.
    pub(super) jobs: BTreeSet<JobId>,
    pub(super) map: Option<CacheMap>,
    pub(super) phase: Phase,
    /// The lock that it holds.
    pub(super) lock: Option<Digest>,
    /// Whether it ran in this flight.
    pub(super) executed: bool,
    /// Whether it was told why it runs.
    pub(super) miss_told: bool,
    pub(super) progress: Option<Progress<E>>,
    pub(super) failed: Option<E>,
    /// What the driver does for it.
    pub(super) work: BTreeSet<RequestId>,
}

pub(super) struct Input {
    pub(super) from: Ix,
    pub(super) output: usize,
    pub(super) want: Want,
    pub(super) content: Content,
}

/// How much of an edge somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Want {
    Nothing,
    /// A key, with or without a result.
    Keys,
    Result,
}

/// The content key of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    Unknown,
    /// To be computed once the input's result is there; computed then.
    UnderWay,
    Known(Digest),
}

/// An output of a vertex: the unit that is looked up.
pub(super) struct Output<R> {
    pub(super) want: Want,
    /// All nodes that it is known as; the next readers are looked up by any of them.
    pub(super) keys: Vec<KeyId>,
    pub(super) result: Option<Held<R>>,
    /// The key of the last query, and for each input whether it led anywhere.
    pub(super) asked: Option<CacheKey>,
    pub(super) linked: Vec<bool>,
    /// No query can find it (or its result) any more: it has to run.
    pub(super) exhausted: bool,
    /// Its result was found, and was lost.
    pub(super) lost: bool,
}

impl<R> Default for Output<R> {
    fn default() -> Self {
        Self {
            want: Want::Nothing,
            keys: Vec::new(),
            result: None,
            asked: None,
            linked: Vec::new(),
            exhausted: false,
            lost: false,
        }
    }
}

/// A result with the nodes that lead to it.
pub(super) struct Held<R> {
    pub(super) value: Arc<R>,
    pub(super) keys: Vec<KeyId>,
    /// Whether it was made, not found, in this flight.
    pub(super) made: bool,
}

/// How far the execution of a vertex is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not begun: looking for a record, or waiting for inputs.
    Idle,
    /// An equal key is being executed by another vertex.
    Parked,
    /// The lock was asked for.
    Locking,
    /// Waits for a place among the running ones.
    Queued,
    Running,
    /// So many outputs are still to be saved.
    Saving(usize),
}

pub(super) struct Request<R> {
    pub(super) owner: Owner,
    pub(super) ask: Ask,
    /// Results that the driver works with.
    pub(super) held: Vec<Arc<R>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Vertex(Ix),
    Remains(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    CacheMap,
    Query { output: usize, key: CacheKey },
    Content { input: usize },
    Lock { lock: Digest },
    Execute { outputs: Vec<usize> },
    Save { output: usize },
}

/// Work that was given up and is not answered yet.
pub(super) struct Remains {
    pub(super) vertex: Digest,
    /// How many requests are still to be answered.
    pub(super) requests: usize,
    /// Given back after the last answer.
    pub(super) lock: Option<Digest>,
    /// Whether it counts as running until the last answer.
    pub(super) slot: bool,
    /// Jobs that end after the last answer.
    pub(super) jobs: BTreeSet<JobId>,
}

pub(super) struct Job<R, E> {
    pub(super) vertices: BTreeSet<Ix>,
    pub(super) targets: Vec<(Ix, usize)>,
    /// The results of the targets, once all are there, with their keys.
    pub(super) results: Vec<(Arc<R>, Vec<KeyId>)>,
    pub(super) state: JobState<E>,
}

pub(super) enum JobState<E> {
    Active,
    /// Ends once its remains are answered.
    Ending(Ending<E>),
    /// Done; the driver holds on to its results.
    Held,
}

pub(super) enum Ending<E> {
    Built,
    Failed(Vec<Failure<E>>),
    Canceled,
}

impl<R, E> Vertex<R, E> {
    pub(super) fn digest(&self) -> &Digest {
        &self.identity.digest
    }

    pub(super) fn ignores_cache(&self) -> bool {
        self.identity.ignore_cache
    }

    /// Whether it is known to have no definition key.
    pub(super) fn is_keyless(&self) -> bool {
        matches!(&self.map, Some(CacheMap::Root { keys }) if keys.is_empty())
    }

    /// For a source the key that most others share with it.
    pub(super) fn root_key(&self) -> Option<&Digest> {
        match &self.map {
            Some(CacheMap::Root { keys }) => keys.last(),
            _ => None,
        }
    }

    /// Whether `output` has still to be solved for somebody who wants `want` of it.
    pub(super) fn owes(&self, output: usize, want: Want) -> bool {
        let output = &self.outputs[&output];
        output.result.is_none()
            && match want {
                Want::Nothing => false,
                Want::Keys => output.keys.is_empty() && !self.is_keyless(),
                Want::Result => true,
            }
    }

    /// The outputs that have still to be solved.
    pub(super) fn owed(&self) -> Vec<usize> {
        let owed =
            |(&index, output): (&usize, &Output<R>)| self.owes(index, output.want).then_some(index);
        self.outputs.iter().filter_map(owed).collect()
    }

    /// Whether only running it helps those who wait for `output`.
    pub(super) fn must_run(&self, output: usize) -> bool {
        let known = &self.outputs[&output];
        self.owes(output, known.want)
            && (self.ignores_cache()
                || self.is_keyless()
                || known.exhausted
                || !known.keys.is_empty())
    }

    /// Whether `output` is going to get a key that was never used, and so leads to no record.
    pub(super) fn has_new_key(&self, output: usize) -> bool {
        let output = &self.outputs[&output];
        output.result.is_none()
            && output.keys.is_empty()
            && (output.exhausted || self.ignores_cache())
    }

    /// How input `i` enters the key; the default while the cache map is unknown.
    pub(super) fn input_map(&self, i: usize) -> (Option<&Digest>, bool) {
        match &self.map {
            Some(CacheMap::Step { inputs, .. }) => (inputs[i].selector.as_ref(), inputs[i].content),
            _ => (None, false),
        }
    }

    pub(super) fn content_under_way(&self) -> bool {
        self.inputs
            .iter()
            .any(|input| input.content == Content::UnderWay)
    }

    /// The vertex's key, with its inputs known by what `keys` says.
    pub(super) fn key(&self, keys: impl Fn(&Input) -> Vec<KeyId>) -> Option<CacheKey> {
        match self.map.as_ref()? {
            CacheMap::Root { keys } => Some(CacheKey::Root(keys.clone())),
            CacheMap::Step { digest, inputs } => {
                let candidates = self.inputs.iter().zip(inputs).map(|(input, map)| {
                    let fast = keys(input).into_iter().map(|key| Candidate::Key {
                        key,
                        selector: map.selector.clone(),
                    });
                    let slow = match &input.content {
                        Content::Known(digest) => Some(Candidate::Content(digest.clone())),
                        Content::Unknown | Content::UnderWay => None,
                    };
                    fast.chain(slow).collect()
                });
                Some(CacheKey::Step {
                    digest: digest.clone(),
                    inputs: candidates.collect(),
                })
            }
        }
    }
}

impl<R> Output<R> {
    /// The nodes that stand for its result; while there is none, all nodes it is known as.
    pub(super) fn result_keys(&self) -> &[KeyId] {
        self.result.as_ref().map_or(&self.keys, |held| &held.keys)
    }

    pub(super) fn add_keys(&mut self, keys: impl IntoIterator<Item = KeyId>) {
        for key in keys {
            if !self.keys.contains(&key) {
                self.keys.push(key);
            }
        }
    }

    /// Makes the next look-up ask the store again, whatever it said before.
    pub(super) fn forget_query(&mut self) {
        self.asked = None;
        self.linked.clear();
        self.exhausted = false;
    }
}

impl CacheKey {
    /// Whether every input has a candidate; no other key can match.
    pub(super) fn can_match(&self) -> bool {
        match self {
            Self::Root(keys) => !keys.is_empty(),
            Self::Step { inputs, .. } => inputs.iter().all(|candidates| !candidates.is_empty()),
        }
    }

    /// Whether an input is known by content and by a key of its own, which need not both lead to
    /// what was found.
    pub(super) fn has_both_kinds(&self) -> bool {
        let is_content = |candidate: &Candidate| matches!(candidate, Candidate::Content(_));
        match self {
            Self::Root(_) => false,
            Self::Step { inputs, .. } => inputs.iter().any(|candidates| {
                candidates.iter().any(is_content) && !candidates.iter().all(is_content)
            }),
        }
    }
}
