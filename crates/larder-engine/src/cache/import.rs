//! The caches that a build may take results from: read when a look-up first misses, searched as
//! one.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use larder_oci::Digest;
use larder_store::{CacheKey, KeyDep, KeyId};

use super::index::{Index, Known, Node};
use super::remote::RemoteResult;
use super::source::{Loaded, Sources};
use crate::doctor::ImportRecord;
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
    uses: Mutex<Uses>,
}

/// What the caches were good for.
#[derive(Default)]
struct Uses {
    /// How many results were found in each, by name.
    hits: HashMap<String, usize>,
    /// How long it took to read them all.
    duration_ms: u64,
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

/// A record that the imported caches have.
pub(crate) struct FoundRecord {
    /// What it leads to; `None` if only records that depend on it have results.
    pub(crate) result: Option<Arc<RemoteResult>>,
    /// What the record may be known by from now on, for each input.
    pub(crate) deps: Vec<Vec<KeyDep>>,
}

impl<'a> Imports<'a> {
    pub(crate) fn new(sources: Sources<'a>, requests: Vec<CacheImport>) -> Self {
        Self {
            sources,
            requests,
            index: OnceLock::new(),
            trail: Mutex::default(),
            uses: Mutex::default(),
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
            Some(index) => {
                // What was noted before the caches were read may be what this one stands on.
                trail.catch_up(index);
                trail.add(index, &noted);
            }
            None => trail.pending.push(noted),
        }
    }

    /// Looks for a record of the imported caches. The first call reads the caches.
    pub(crate) fn find(
        &self,
        op: &Digest,
        output: i32,
        deps: &[Vec<KeyDep>],
    ) -> Option<FoundRecord> {
        if self.requests.is_empty() {
            return None;
        }
        let index = self.index.get_or_init(|| self.read());
        if index.is_empty() {
            return None;
        }
        let mut trail = self.trail.lock().unwrap_or_else(PoisonError::into_inner);
        trail.catch_up(index);
        let found = trail.find(index, op, output, deps);
        if found.is_empty() {
            return None;
        }
        let result = index.result(&found).cloned();
        if let Some(result) = &result {
            *self.uses().hits.entry(result.origin.name()).or_default() += 1;
        }
        let deps = trail.known_by(index, &found, deps);
        Some(FoundRecord { result, deps })
    }

    fn read(&self) -> Index {
        let begun = self.sources.engine.now();
        let mut index = Index::default();
        for Loaded { records } in self.sources.load(&self.requests) {
            index.add(records);
        }
        let time = self.sources.engine.now().duration_since(begun);
        self.uses().duration_ms = u64::try_from(time.as_millis()).unwrap_or_default();
        index
    }

    fn uses(&self) -> MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what came of each cache; nothing where none had to be read.
    pub(crate) fn records(&self) -> Vec<ImportRecord> {
        if self.index.get().is_none() {
            return Vec::new();
        }
        let uses = self.uses();
        let record = |request: &CacheImport| {
            let name = request.name();
            ImportRecord {
                hits: uses.hits.get(&name).copied().unwrap_or_default(),
                name,
                duration_ms: uses.duration_ms,
            }
        };
        self.requests.iter().map(record).collect()
    }

    /// Returns the index, if it was read, and the records in it that a key of the store stands for.
    pub(crate) fn nodes(&self, key: KeyId) -> Option<(&Index, BTreeSet<Node>)> {
        let index = self.index.get()?;
        let trail = self.trail.lock().unwrap_or_else(PoisonError::into_inner);
        Some((index, trail.nodes.get(&key)?.clone()))
    }

    /// Gives up all results that were not fetched.
    pub(crate) fn lose_far_results(&self) {
        for result in self.index.get().into_iter().flat_map(Index::results) {
            result.lose();
        }
    }

    /// Returns the result that the imported caches have of a key of the store.
    pub(crate) fn result(&self, key: KeyId) -> Option<Arc<RemoteResult>> {
        let index = self.index.get()?;
        let trail = self.trail.lock().unwrap_or_else(PoisonError::into_inner);
        index.result(trail.nodes.get(&key)?).cloned()
    }
}

impl Trail {
    /// Finds what was noted before the caches were read.
    fn catch_up(&mut self, index: &Index) {
        for noted in std::mem::take(&mut self.pending) {
            self.add(index, &noted);
        }
    }

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
        let inputs: Vec<Vec<Known>> = deps
            .iter()
            .map(|alternatives| {
                alternatives
                    .iter()
                    .map(|dep| self.known(index, dep))
                    .collect()
            })
            .collect();
        index.find(op, output, &inputs)
    }

    fn known(&self, index: &Index, dep: &KeyDep) -> Known {
        let nodes = match &dep.key {
            CacheKey::Record(key) => self.nodes.get(key).cloned().unwrap_or_default(),
            CacheKey::Root { digest, output } => index.find(digest, *output, &[]),
        };
        (nodes, dep.selector.clone())
    }

    /// Returns `deps` without the contents that none of the records `found` names: who found a
    /// record by an input's key knows nothing of the content that it was made of.
    fn known_by(
        &self,
        index: &Index,
        found: &BTreeSet<Node>,
        deps: &[Vec<KeyDep>],
    ) -> Vec<Vec<KeyDep>> {
        let is_named = |input: usize, dep: &KeyDep| {
            let (nodes, selector) = self.known(index, dep);
            let mut links = found
                .iter()
                .flat_map(|&node| &index.record(node).inputs[input]);
            links.any(|(selected, node)| *selected == selector && nodes.contains(node))
        };
        let named = |(input, alternatives): (usize, &Vec<KeyDep>)| {
            let named = alternatives.iter().filter(|dep| match dep.key {
                CacheKey::Record(_) => true,
                CacheKey::Root { .. } => is_named(input, dep),
            });
            named.cloned().collect()
        };
        deps.iter().enumerate().map(named).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::index::Record;

    fn record(name: &str, output: i32, inputs: Vec<Vec<(Option<Digest>, Node)>>) -> Record {
        Record {
            digest: Digest::sha256(format!("{}@{output}", Digest::sha256(name))),
            inputs,
            result: None,
        }
    }

    /// Else that content would lead to what was made of another one, for good.
    #[test]
    fn a_record_that_is_found_by_a_key_is_not_known_by_other_content() {
        let mut index = Index::default();
        let inputs = vec![vec![(None, 0), (None, 1)]];
        index.add(vec![
            record("stage", 0, Vec::new()),
            record("content", -1, Vec::new()),
            record("copy", 0, inputs),
        ]);
        let mut trail = Trail::default();
        let stage = KeyId::from(7);
        trail.nodes.insert(stage, BTreeSet::from([0]));
        let dep = |key| KeyDep {
            key,
            selector: None,
        };
        let by_key = || dep(CacheKey::Record(stage));
        let by_content = |name: &str| dep(CacheKey::content(Digest::sha256(name)));
        let cases = [
            (vec![by_key(), by_content("other")], vec![by_key()]),
            (
                vec![by_key(), by_content("content")],
                vec![by_key(), by_content("content")],
            ),
        ];
        for (alternatives, expected) in cases {
            let deps = vec![alternatives];
            let found = trail.find(&index, &Digest::sha256("copy"), 0, &deps);
            assert_eq!(found, BTreeSet::from([2]));
            assert_eq!(trail.known_by(&index, &found, &deps), [expected]);
        }
    }
}
