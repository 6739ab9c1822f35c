//! Normalization: the same records, in whatever order and however often, make the same config.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use larder_oci::Digest;

use crate::format::{CacheConfig, InputEntry, LayerEntry, NO_PARENT, RecordEntry, ResultEntry};
use crate::order;
use crate::record::{Record, RecordResult, RemoteLayer};

/// Returns the config of `records`, and the layer behind each of its layer entries.
pub(crate) fn config(records: &[Record]) -> (CacheConfig, Vec<Arc<RemoteLayer>>) {
    let mut records = records.to_vec();
    let order = order::relaxed(&mut records);
    let ids = ids(&records, &order);
    // Records to which all the same leads are one.
    let mut distinct: BTreeMap<(&Digest, &Option<Digest>), Vec<usize>> = BTreeMap::new();
    for &index in &order {
        let group = distinct.entry((&records[index].digest, &ids[index]));
        group.or_default().push(index);
    }
    let mut position = vec![0; records.len()];
    for (new, group) in distinct.values().enumerate() {
        for &old in group {
            position[old] = new as i64;
        }
    }
    let mut tree = LayerTree::default();
    let results: Vec<Vec<(usize, Option<Timestamp>)>> = distinct
        .values()
        .map(|group| {
            let results = group.iter().flat_map(|&index| &records[index].results);
            results.filter_map(|result| tree.add(result)).collect()
        })
        .collect();
    let (layer_position, layers) = tree.sorted();
    let entries = distinct.values().zip(results).map(|(group, results)| {
        let record = &records[group[0]];
        RecordEntry {
            results: result_entries(results, &layer_position),
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

fn result_entries(
    results: Vec<(usize, Option<Timestamp>)>,
    layer_position: &[i64],
) -> Vec<ResultEntry> {
    let entry = |(top, created_at): (usize, Option<Timestamp>)| ResultEntry {
        layer: layer_position[top],
        created_at,
    };
    let mut entries: Vec<ResultEntry> = results.into_iter().map(entry).collect();
    // Of equal layers, the newest result counts.
    entries.sort_by_key(|entry| (entry.layer, Reverse(entry.created_at)));
    entries.dedup_by_key(|entry| entry.layer);
    entries.sort_by_key(|entry| (Reverse(entry.created_at), entry.layer));
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
    /// Adds the layers of a result; returns the top one, and when the result was made. `None` for a
    /// result without layers.
    fn add(&mut self, result: &RecordResult) -> Option<(usize, Option<Timestamp>)> {
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
        Some((parent?, result.created_at))
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
