//! The records of imported caches, and the search in them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use larder_oci::Digest;

use super::remote::RemoteResult;

/// A record's place in an index.
pub(crate) type Node = usize;

/// A record of an imported cache.
#[derive(Debug)]
pub(crate) struct Record {
    /// `sha256("OP@OUTPUT")`.
    pub(crate) digest: Digest,
    /// For each input, the alternatives: what is selected of it, and its record.
    pub(crate) inputs: Vec<Vec<(Option<Digest>, Node)>>,
    pub(crate) result: Option<Arc<RemoteResult>>,
}

/// What an input of an op is known as: records, and what is selected of them.
pub(crate) type Known = (BTreeSet<Node>, Option<Digest>);

/// All records of the caches that a build may use.
#[derive(Debug, Default)]
pub(crate) struct Index {
    records: Vec<Record>,
    by_digest: HashMap<Digest, Vec<Node>>,
}

impl Index {
    /// Adds the records of one cache, whose inputs name each other by their place in `records`.
    pub(crate) fn add(&mut self, records: Vec<Record>) {
        let offset = self.records.len();
        for (place, mut record) in records.into_iter().enumerate() {
            for (_, node) in record.inputs.iter_mut().flatten() {
                *node += offset;
            }
            self.by_digest
                .entry(record.digest.clone())
                .or_default()
                .push(offset + place);
            self.records.push(record);
        }
    }

    /// Returns the record at a place.
    pub(crate) fn record(&self, node: Node) -> &Record {
        &self.records[node]
    }

    /// Returns all results.
    pub(crate) fn results(&self) -> impl Iterator<Item = &RemoteResult> {
        self.records
            .iter()
            .filter_map(|record| record.result.as_deref())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Returns the records of the op's output that have, for every input, one of what it is known
    /// as. Without inputs: those of the source, or content.
    pub(crate) fn find(&self, op: &Digest, output: i32, inputs: &[Vec<Known>]) -> BTreeSet<Node> {
        let digest = Digest::sha256(format!("{op}@{output}"));
        let nodes = self.by_digest.get(&digest).into_iter().flatten();
        nodes
            .copied()
            .filter(|&node| {
                let record = &self.records[node];
                record.inputs.len() == inputs.len()
                    && record
                        .inputs
                        .iter()
                        .zip(inputs)
                        .all(|(alternatives, known)| is_met(alternatives, known))
            })
            .collect()
    }

    /// Returns the first result of `nodes` that can be had.
    pub(crate) fn result(&self, nodes: &BTreeSet<Node>) -> Option<&Arc<RemoteResult>> {
        nodes
            .iter()
            .filter_map(|&node| self.records[node].result.as_ref())
            .find(|result| !result.is_lost())
    }
}

fn is_met(alternatives: &[(Option<Digest>, Node)], known: &[Known]) -> bool {
    alternatives.iter().any(|(selector, node)| {
        known
            .iter()
            .any(|(nodes, selected)| selected == selector && nodes.contains(node))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(op: &str, inputs: &[&[(Option<&str>, Node)]]) -> Record {
        let inputs = inputs.iter().map(|alternatives| {
            let alternative =
                |(selector, node): &(Option<&str>, Node)| (selector.map(Digest::sha256), *node);
            alternatives.iter().map(alternative).collect()
        });
        Record {
            digest: Digest::sha256(format!("{}@0", Digest::sha256(op))),
            inputs: inputs.collect(),
            result: None,
        }
    }

    fn known(nodes: &[Node], selector: Option<&str>) -> Known {
        (
            nodes.iter().copied().collect(),
            selector.map(Digest::sha256),
        )
    }

    #[test]
    fn every_input_must_be_met_by_some_alternative() {
        let mut index = Index::default();
        index.add(vec![record("other", &[])]);
        index.add(vec![
            record("base", &[]),
            record("files", &[]),
            record("copy", &[&[(None, 0)], &[(Some("src"), 1), (None, 1)]]),
            record("copy", &[&[(None, 0)], &[(Some("lib"), 1)]]),
        ]);
        let find = |op: &str, inputs: &[Vec<Known>]| -> Vec<Node> {
            let found = index.find(&Digest::sha256(op), 0, inputs);
            found.into_iter().collect()
        };
        assert_eq!(find("base", &[]), [1]);
        assert_eq!(find("absent", &[]), [0; 0]);
        let base = || vec![known(&[1], None)];
        let cases: [(Vec<Vec<Known>>, &[Node]); 6] = [
            (vec![base(), vec![known(&[2], Some("src"))]], &[3]),
            (vec![base(), vec![known(&[2], Some("lib"))]], &[4]),
            (vec![base(), vec![known(&[2], None)]], &[3]),
            (vec![base(), vec![known(&[1], None)]], &[]),
            (vec![vec![], vec![known(&[2], None)]], &[]),
            (vec![base()], &[]),
        ];
        for (inputs, expected) in cases {
            assert_eq!(find("copy", &inputs), expected, "{inputs:?}");
        }
    }
}
