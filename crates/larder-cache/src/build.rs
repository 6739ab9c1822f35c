//! Normalization: the same records, in whatever order and however often, make the same config.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use larder_oci::Digest;

use crate::format::{CacheConfig, InputEntry, LayerEntry, NO_PARENT, RecordEntry, ResultEntry};
use crate::order;
use crate::record::{Record, RemoteLayer};

/// Returns the config of `records`, and the layer behind each of its layer entries.
pub(crate) fn config(records: &[Record]) -> (CacheConfig, Vec<Arc<RemoteLayer>>) {
    let mut records = merged(records);
    let order = order::relaxed(&mut records);
    let ids = ids(&records, &order);
    let mut sorted = order;
    sorted.sort_by(|&a, &b| (&records[a].digest, &ids[a]).cmp(&(&records[b].digest, &ids[b])));
    let mut position = vec![0; records.len()];
    for (new, &old) in sorted.iter().enumerate() {
        position[old] = new as i64;
    }
    let mut tree = LayerTree::default();
    let tops: Vec<Vec<usize>> = sorted
        .iter()
        .map(|&index| tree.add_results(&records[index]))
        .collect();
    let (layer_position, layers) = tree.sorted();
    let entries = sorted.iter().zip(&tops).map(|(&index, tops)| {
        let record = &records[index];
        RecordEntry {
            results: results(record, tops, &layer_position),
            chains: Vec::new(),
            digest: record.digest.clone(),
            inputs: inputs(record, &position),
        }
    });
    let config = CacheConfig {
        records: entries.collect(),
        layers: tree.entries(&layers, &layer_position),
    };
    let layers = layers.iter().map(|&node| tree.nodes[node].layer.clone());
    (config, layers.collect())
}

fn results(record: &Record, tops: &[usize], layer_position: &[i64]) -> Vec<ResultEntry> {
    let with_layers = record
        .results
        .iter()
        .filter(|result| !result.layers.is_empty());
    let mut entries: Vec<ResultEntry> = with_layers
        .zip(tops)
        .map(|(result, &top)| ResultEntry {
            layer: layer_position[top],
            created_at: result.created_at,
        })
        .collect();
    // Of equal layers, the newest result counts.
    entries.sort_by_key(|entry| (entry.layer, std::cmp::Reverse(entry.created_at)));
    entries.dedup_by_key(|entry| entry.layer);
    entries.sort_by_key(|entry| (std::cmp::Reverse(entry.created_at), entry.layer));
    entries
}

fn inputs(record: &Record, position: &[i64]) -> Vec<Vec<InputEntry>> {
    let input = |links: &Vec<crate::Link>| {
        let mut entries: Vec<InputEntry> = links
            .iter()
            .map(|link| InputEntry {
                selector: link.selector.clone(),
                link: position[link.record],
            })
            .collect();
        entries.sort_by(|a, b| (a.link, &a.selector).cmp(&(b.link, &b.selector)));
        entries.dedup();
        entries
    };
    record.inputs.iter().map(input).collect()
}

/// Joins records that are the same: of one digest, and for every input with an alternative in
/// common. Joining two may make their dependents the same, so it goes on until nothing changes.
fn merged(records: &[Record]) -> Vec<Record> {
    let mut groups: BTreeMap<&Digest, Vec<usize>> = BTreeMap::new();
    for (index, record) in records.iter().enumerate() {
        groups.entry(&record.digest).or_default().push(index);
    }
    groups.retain(|_, group| group.len() > 1);
    let mut records = records.to_vec();
    let mut joined_to: Vec<usize> = (0..records.len()).collect();
    loop {
        let mut changed = false;
        for group in groups.values_mut() {
            let mut kept: Vec<usize> = Vec::new();
            for &index in &*group {
                match kept
                    .iter()
                    .find(|&&other| is_same(&records[other], &records[index]))
                {
                    Some(&other) => {
                        join(&mut records, other, index);
                        joined_to[index] = other;
                        changed = true;
                    }
                    None => kept.push(index),
                }
            }
            *group = kept;
        }
        if !changed {
            break;
        }
        for record in &mut records {
            for link in record.inputs.iter_mut().flatten() {
                link.record = root(&joined_to, link.record);
            }
        }
    }
    without_joined(records, &joined_to)
}

fn is_same(a: &Record, b: &Record) -> bool {
    let overlap = |(a, b): (&Vec<_>, &Vec<_>)| a.iter().any(|link| b.contains(link));
    a.inputs.len() == b.inputs.len() && a.inputs.iter().zip(&b.inputs).all(overlap)
}

fn join(records: &mut [Record], into: usize, from: usize) {
    let from = std::mem::replace(&mut records[from], Record::new(Digest::sha256("")));
    let into = &mut records[into];
    for (into, from) in into.inputs.iter_mut().zip(from.inputs) {
        into.extend(from);
    }
    into.results.extend(from.results);
}

fn root(joined_to: &[usize], mut index: usize) -> usize {
    while joined_to[index] != index {
        index = joined_to[index];
    }
    index
}

fn without_joined(records: Vec<Record>, joined_to: &[usize]) -> Vec<Record> {
    let mut position = vec![0; records.len()];
    let mut count = 0;
    for (index, &to) in joined_to.iter().enumerate() {
        position[index] = count;
        count += usize::from(to == index);
    }
    let kept = records.into_iter().enumerate();
    kept.filter(|(index, _)| joined_to[*index] == *index)
        .map(|(_, mut record)| {
            for link in record.inputs.iter_mut().flatten() {
                link.record = position[link.record];
            }
            record
        })
        .collect()
}

/// Returns for each record in `order` a digest of all that leads to it.
fn ids(records: &[Record], order: &[usize]) -> Vec<Option<Digest>> {
    let mut ids: Vec<Option<Digest>> = vec![None; records.len()];
    for &index in order {
        let record = &records[index];
        let mut text = format!("{}\n", record.digest);
        for input in &record.inputs {
            let alternative = |link: &crate::Link| {
                let text = |digest: &Option<Digest>| {
                    digest.as_ref().map(Digest::to_string).unwrap_or_default()
                };
                format!("{} {}\n", text(&link.selector), text(&ids[link.record]))
            };
            let alternatives: BTreeSet<String> = input.iter().map(alternative).collect();
            text.extend(alternatives);
            text.push('\n');
        }
        ids[index] = Some(Digest::sha256(text));
    }
    ids
}

/// All layers, each on the one below it.
#[derive(Default)]
struct LayerTree {
    nodes: Vec<LayerNode>,
    known: HashMap<(Option<usize>, Digest), usize>,
}

struct LayerNode {
    layer: Arc<RemoteLayer>,
    parent: Option<usize>,
}

impl LayerTree {
    /// Returns the top layers of a record's results that have layers.
    fn add_results(&mut self, record: &Record) -> Vec<usize> {
        let tops = record.results.iter().filter_map(|result| {
            let mut parent = None;
            for layer in &result.layers {
                let key = (parent, layer.descriptor.digest.clone());
                let next = self.nodes.len();
                let node = *self.known.entry(key).or_insert(next);
                let age = |layer: &RemoteLayer| layer.created_at;
                if node == next {
                    let layer = layer.clone();
                    self.nodes.push(LayerNode { layer, parent });
                } else if age(layer) < age(&self.nodes[node].layer) {
                    // Equal blobs made twice: which of them counts must not depend on the order.
                    self.nodes[node].layer = layer.clone();
                }
                parent = Some(node);
            }
            parent
        });
        tops.collect()
    }

    /// Returns the position of each node, and the nodes in order: by blob, then by the blobs below.
    fn sorted(&self) -> (Vec<i64>, Vec<usize>) {
        let mut nodes: Vec<usize> = (0..self.nodes.len()).collect();
        nodes.sort_by(|&a, &b| self.blobs_down(a).cmp(self.blobs_down(b)));
        let mut position = vec![0; nodes.len()];
        for (new, &node) in nodes.iter().enumerate() {
            position[node] = new as i64;
        }
        (position, nodes)
    }

    fn blobs_down(&self, node: usize) -> impl Iterator<Item = &Digest> {
        std::iter::successors(Some(node), |&node| self.nodes[node].parent)
            .map(|node| &self.nodes[node].layer.descriptor.digest)
    }

    fn entries(&self, sorted: &[usize], position: &[i64]) -> Vec<LayerEntry> {
        let entry = |&node: &usize| LayerEntry {
            blob: self.nodes[node].layer.descriptor.digest.clone(),
            parent: self.nodes[node]
                .parent
                .map_or(NO_PARENT, |parent| position[parent]),
            annotations: None,
        };
        sorted.iter().map(entry).collect()
    }
}
