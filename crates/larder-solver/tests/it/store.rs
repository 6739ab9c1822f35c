//! The key store as the solver's commands describe it: key nodes, links between them, results.

use std::collections::{BTreeMap, BTreeSet};

use larder_oci::Digest;
use larder_solver::{CacheKey, Candidate, KeyId, SaveMode};

/// The output index of content keys.
const CONTENT: i64 = -1;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Link {
    from: KeyId,
    input: usize,
    op: Digest,
    output: usize,
    selector: Option<Digest>,
}

/// What a query finds: the nodes with their results, and which inputs led anywhere.
pub(crate) type Found = (Vec<(KeyId, Option<String>)>, Vec<bool>);

#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    next: i64,
    roots: BTreeMap<(Digest, i64), KeyId>,
    links: BTreeMap<Link, BTreeSet<KeyId>>,
    results: BTreeMap<KeyId, String>,
}

impl Store {
    /// The nodes that match for every input; those with a result first, then the newest.
    pub(crate) fn query(&self, key: &CacheKey, output: usize) -> Found {
        let (nodes, linked) = match key {
            CacheKey::Root(digests) => {
                let root = |digest: &Digest| self.roots.get(&(digest.clone(), output as i64));
                (digests.iter().filter_map(root).copied().collect(), vec![])
            }
            CacheKey::Step { digest, inputs } => {
                let sets = inputs.iter().enumerate().map(|(input, candidates)| {
                    let targets = candidates.iter().filter_map(|candidate| {
                        let link = self.find_link(candidate, input, digest, output)?;
                        self.links.get(&link)
                    });
                    targets.flatten().copied().collect::<BTreeSet<_>>()
                });
                let sets: Vec<_> = sets.collect();
                let linked = sets.iter().map(|set| !set.is_empty()).collect();
                let both = sets.into_iter().reduce(|a, b| &a & &b);
                (both.unwrap_or_default(), linked)
            }
        };
        let result = |&node: &KeyId| (node, self.results.get(&node).cloned());
        let mut matches: Vec<_> = nodes.iter().map(result).collect();
        matches.sort_by_key(|(node, result)| (result.is_none(), std::cmp::Reverse(*node)));
        (matches, linked)
    }

    pub(crate) fn save(
        &mut self,
        key: &CacheKey,
        output: usize,
        result: &str,
        mode: SaveMode,
    ) -> Vec<KeyId> {
        let matched: Vec<KeyId> = self.query(key, output).0.iter().map(|m| m.0).collect();
        if mode == SaveMode::Replace {
            for &node in &matched {
                self.remove(node);
            }
        }
        let nodes = match key {
            CacheKey::Root(digests) => {
                let roots = digests.iter();
                roots
                    .map(|digest| self.root(digest, output as i64))
                    .collect()
            }
            CacheKey::Step { .. } => {
                let reuse = matched.first().filter(|_| mode == SaveMode::Keep);
                let node = reuse.copied().unwrap_or_else(|| self.fresh());
                self.link(key, output, node);
                vec![node]
            }
        };
        for &node in &nodes {
            self.results.insert(node, result.to_owned());
        }
        nodes
    }

    pub(crate) fn link(&mut self, key: &CacheKey, output: usize, to: KeyId) {
        let CacheKey::Step { digest, inputs } = key else {
            return;
        };
        for (input, candidates) in inputs.iter().enumerate() {
            for candidate in candidates {
                if let Candidate::Content(content) = candidate {
                    self.root(content, CONTENT);
                }
                if let Some(link) = self.find_link(candidate, input, digest, output) {
                    self.links.entry(link).or_default().insert(to);
                }
            }
        }
    }

    fn find_link(
        &self,
        candidate: &Candidate,
        input: usize,
        op: &Digest,
        output: usize,
    ) -> Option<Link> {
        let (from, selector) = match candidate {
            Candidate::Key { key, selector } => (*key, selector.clone()),
            Candidate::Content(digest) => (*self.roots.get(&(digest.clone(), CONTENT))?, None),
        };
        let op = op.clone();
        Some(Link {
            from,
            input,
            op,
            output,
            selector,
        })
    }

    fn root(&mut self, digest: &Digest, output: i64) -> KeyId {
        if let Some(&node) = self.roots.get(&(digest.clone(), output)) {
            return node;
        }
        let node = self.fresh();
        self.roots.insert((digest.clone(), output), node);
        node
    }

    fn fresh(&mut self) -> KeyId {
        self.next += 1;
        KeyId(self.next)
    }

    /// Forgets a node with its result, and all that leads to it.
    pub(crate) fn remove(&mut self, node: KeyId) {
        self.results.remove(&node);
        self.roots.retain(|_, known| *known != node);
        self.links.retain(|link, targets| {
            targets.remove(&node);
            link.from != node && !targets.is_empty()
        });
    }

    /// Forgets the result of a node; the node stays.
    pub(crate) fn drop_result(&mut self, node: KeyId) {
        self.results.remove(&node);
    }

    pub(crate) fn result(&self, node: KeyId) -> Option<&String> {
        self.results.get(&node)
    }

    pub(crate) fn nodes_with_results(&self) -> Vec<KeyId> {
        self.results.keys().copied().collect()
    }
}
