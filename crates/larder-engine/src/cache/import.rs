//! The caches that a build may take results from: read when a look-up first misses, searched as
//! one.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use larder_oci::Digest;
use larder_store::{CacheKey, KeyDep, KeyId};

use super::index::{Index, Known, Node};
use super::remote::RemoteResult;
use super::source::{Loaded, Sources};
use crate::request::CacheImport;

/// The imported caches of one build.
///
/// Nothing is asked for before the first look-up that the store can't answer, so a build that
/// hits in the store waits for nobody.
pub(crate) struct Imports<'a> {
    sources: Sources<'a>,
    requests: Vec<CacheImport>,
    index: OnceLock<Index>,
    trail: Mutex<Trail>,
}

/// Which imported records the keys of the store stand for.
#[derive(Default)]
struct Trail {
    nodes: HashMap<KeyId, BTreeSet<Node>>,
    /// What was noted before the caches were read, in its order: inputs first.
    pending: Vec<Noted>,
}

/// A key of the store, and what it is found by.
struct Noted {
    key: KeyId,
    op: Digest,
    output: i32,
    deps: Vec<Vec<KeyDep>>,
}

impl<'a> Imports<'a> {
    pub(crate) fn new(sources: Sources<'a>, requests: Vec<CacheImport>) -> Self {
        Self {
            sources,
            requests,
            index: OnceLock::new(),
            trail: Mutex::default(),
        }
    }

    /// Whether [`Imports::find`] answers at once.
    pub(crate) fn are_ready(&self) -> bool {
        self.requests.is_empty() || self.index.get().is_some()
    }

    /// Takes note that `key` of the store is found so.
    pub(crate) fn note(&self, key: KeyId, op: &Digest, output: i32, deps: &[Vec<KeyDep>]) {
        if self.requests.is_empty() {
            return;
        }
        let noted = Noted {
            key,
            op: op.clone(),
            output,
            deps: deps.to_vec(),
        };
        let mut trail = self.trail.lock().unwrap_or_else(PoisonError::into_inner);
        match self.index.get() {
            Some(index) => trail.add(index, &noted),
            None => trail.pending.push(noted),
        }
    }

    /// Looks for a record of the imported caches: `None` if there is none, `Some(None)` if it has
    /// no result. The first call reads the caches.
    pub(crate) fn find(
        &self,
        op: &Digest,
        output: i32,
        deps: &[Vec<KeyDep>],
    ) -> Option<Option<Arc<RemoteResult>>> {
        if self.requests.is_empty() {
            return None;
        }
        let index = self.index.get_or_init(|| {
            let mut index = Index::default();
            for Loaded { records } in self.sources.load(&self.requests) {
                index.add(records);
            }
            index
        });
        if index.is_empty() {
            return None;
        }
        let mut trail = self.trail.lock().unwrap_or_else(PoisonError::into_inner);
        for noted in std::mem::take(&mut trail.pending) {
            trail.add(index, &noted);
        }
        let found = trail.find(index, op, output, deps);
        (!found.is_empty()).then(|| index.result(&found).cloned())
    }

    /// Returns the result that the imported caches have of a key of the store.
    pub(crate) fn result(&self, key: KeyId) -> Option<Arc<RemoteResult>> {
        let index = self.index.get()?;
        let trail = self.trail.lock().unwrap_or_else(PoisonError::into_inner);
        index.result(trail.nodes.get(&key)?).cloned()
    }
}

impl Trail {
    fn add(&mut self, index: &Index, noted: &Noted) {
        let found = self.find(index, &noted.op, noted.output, &noted.deps);
        self.nodes.entry(noted.key).or_default().extend(found);
    }

    fn find(
        &self,
        index: &Index,
        op: &Digest,
        output: i32,
        deps: &[Vec<KeyDep>],
    ) -> BTreeSet<Node> {
        let known = |dep: &KeyDep| -> Known {
            let nodes = match &dep.key {
                CacheKey::Record(key) => self.nodes.get(key).cloned().unwrap_or_default(),
                CacheKey::Root { digest, output } => index.find(digest, *output, &[]),
            };
            (nodes, dep.selector.clone())
        };
        let inputs: Vec<Vec<Known>> = deps
            .iter()
            .map(|alternatives| alternatives.iter().map(known).collect())
            .collect();
        index.find(op, output, &inputs)
    }
}
