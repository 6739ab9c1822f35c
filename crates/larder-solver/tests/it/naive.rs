//! The same decisions as a recursive function that does one thing at a time. Correct only where
//! no two vertices can be equal.

use std::collections::{BTreeMap, BTreeSet};

use larder_oci::Digest;
use larder_solver::{CacheKey, CacheMap, Candidate, KeyId, SaveMode};

use crate::graph::{Epochs, Graph, Node};
use crate::store::Store;

pub(crate) struct Naive<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) store: Store,
    pub(crate) epochs: Epochs,
    pub(crate) epoch: usize,
    /// The calls that were executed.
    pub(crate) executed: BTreeSet<String>,
    keys: BTreeMap<(usize, usize), Vec<KeyId>>,
    values: BTreeMap<(usize, usize), (String, Vec<KeyId>)>,
    contents: BTreeMap<(usize, usize), Digest>,
    used: BTreeMap<usize, BTreeSet<usize>>,
}

impl<'a> Naive<'a> {
    pub(crate) fn new(graph: &'a Graph, targets: &[(usize, usize)], store: Store) -> Self {
        let mut used: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        let reads = graph.nodes.iter().flat_map(Node::inputs);
        let edges = reads.map(|read| (read.from, read.output));
        for (index, output) in edges.chain(targets.iter().copied()) {
            used.entry(index).or_default().insert(output);
        }
        Self {
            graph,
            store,
            epochs: Epochs::new(),
            epoch: 1,
            executed: BTreeSet::new(),
            keys: BTreeMap::new(),
            values: BTreeMap::new(),
            contents: BTreeMap::new(),
            used,
        }
    }

    fn keyless(&self, index: usize) -> bool {
        self.graph.nodes[index].cache_map() == CacheMap::Root { keys: vec![] }
    }

    /// Finds a key of an edge, or runs it.
    fn find(&mut self, index: usize, output: usize) {
        if self.keyless(index) || !self.known(index, output).is_empty() {
            return;
        }
        if self.graph.nodes[index].ignore_cache {
            return self.run(index);
        }
        for read in self.graph.nodes[index].inputs() {
            self.find(read.from, read.output);
        }
        loop {
            let linked = self.query(index, output);
            if !self.known(index, output).is_empty() {
                return;
            }
            let (mut hopeless, mut needed, mut helpful) = (false, vec![], vec![]);
            for (i, read) in self.graph.nodes[index].inputs().iter().enumerate() {
                let fruitless = linked.as_ref().is_some_and(|linked| !linked[i]);
                let fast_key_fails = fruitless || self.keyless(read.from);
                if self.contents.contains_key(&(index, i)) {
                    hopeless |= fruitless;
                } else if read.view.is_none() {
                    hopeless |= fast_key_fails;
                } else if fast_key_fails {
                    needed.push(i);
                } else {
                    helpful.push(i);
                }
            }
            let wanted = if needed.is_empty() { helpful } else { needed };
            if hopeless || wanted.is_empty() {
                return self.run(index);
            }
            for i in wanted {
                self.content(index, i);
            }
        }
    }

    /// The value of an edge: found, or made.
    pub(crate) fn value(&mut self, index: usize, output: usize) -> String {
        self.find(index, output);
        if !self.values.contains_key(&(index, output)) {
            self.run(index);
        }
        self.values[&(index, output)].0.clone()
    }

    fn content(&mut self, index: usize, input: usize) {
        let read = &self.graph.nodes[index].inputs()[input];
        let value = self.value(read.from, read.output);
        let digest = read.content_digest(&value);
        self.contents.insert((index, input), digest);
    }

    fn run(&mut self, index: usize) {
        let node = &self.graph.nodes[index];
        let mut values = Vec::new();
        for (i, read) in node.inputs().iter().enumerate() {
            values.push(self.value(read.from, read.output));
            if read.view.is_some() {
                self.content(index, i);
            }
        }
        let used: Vec<_> = self.used[&index].iter().copied().collect();
        let lacks = |naive: &Self, output| !naive.values.contains_key(&(index, output));
        if !node.ignore_cache {
            for &output in &used {
                if lacks(self, output) {
                    self.query(index, output);
                }
            }
        }
        let outputs: Vec<_> = used.into_iter().filter(|&o| lacks(self, o)).collect();
        if outputs.is_empty() {
            return;
        }
        self.executed.insert(node.call(&values));
        if node.ignore_cache {
            self.epochs.insert(node.call(&values), self.epoch);
        }
        for output in outputs {
            let value = node.run(output, &values, &self.epochs);
            let mut keys = vec![];
            if !self.keyless(index) {
                let mode = if node.ignore_cache {
                    SaveMode::Replace
                } else {
                    SaveMode::Keep
                };
                keys = self.store.save(&self.key(index), output, &value, mode);
            }
            self.keys.entry((index, output)).or_default().extend(&keys);
            self.values.insert((index, output), (value, keys));
        }
    }

    fn known(&self, index: usize, output: usize) -> Vec<KeyId> {
        self.keys.get(&(index, output)).cloned().unwrap_or_default()
    }

    fn key(&self, index: usize) -> CacheKey {
        match self.graph.nodes[index].cache_map() {
            CacheMap::Root { keys } => CacheKey::Root(keys),
            CacheMap::Step { digest, inputs } => {
                let reads = self.graph.nodes[index].inputs().iter().zip(inputs);
                let inputs = reads.enumerate().map(|(i, (read, map))| {
                    let fast = self.known(read.from, read.output).into_iter();
                    let fast = fast.map(|key| Candidate::Key {
                        key,
                        selector: map.selector.clone(),
                    });
                    let slow = self.contents.get(&(index, i)).cloned();
                    fast.chain(slow.map(Candidate::Content)).collect()
                });
                CacheKey::Step {
                    digest,
                    inputs: inputs.collect(),
                }
            }
        }
    }

    /// Looks an edge up, if all its inputs are known somehow; returns which led anywhere.
    fn query(&mut self, index: usize, output: usize) -> Option<Vec<bool>> {
        let key = self.key(index);
        if let CacheKey::Step { inputs, .. } = &key
            && inputs.iter().any(Vec::is_empty)
        {
            return None;
        }
        let (matches, linked) = self.store.query(&key, output);
        for (key, value) in matches {
            let keys = self.keys.entry((index, output)).or_default();
            if !keys.contains(&key) {
                keys.push(key);
            }
            if let Some(value) = value {
                let edge = (index, output);
                self.values.entry(edge).or_insert((value, vec![key]));
            }
        }
        Some(linked)
    }
}
