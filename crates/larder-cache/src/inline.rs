//! The cache inside of an image: records in the image's config, results in the image's layers.

use std::collections::HashMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use larder_oci::{Digest, go_json};

use crate::export::Exported;
use crate::format::{CacheConfig, ChainEntry, RecordEntry, ResultEntry};
use crate::record::Record;

/// The field of the image config.
pub const FIELD: &str = "moby.buildkit.cache.v0";

/// Returns the value of [`FIELD`] for an image with the layers `diff_ids`, lowest first. Results
/// that these layers don't make up are left out; `None` if that leaves none.
///
/// Layers are compared by their diff IDs: descriptors of `records` don't matter.
pub fn value(records: &[Record], diff_ids: &[Digest]) -> Option<String> {
    let mut index = HashMap::new();
    for (position, diff_id) in diff_ids.iter().enumerate() {
        index.entry(diff_id.clone()).or_insert(position);
    }
    let mut fitting = records.to_vec();
    for record in &mut fitting {
        record.results.retain(|result| {
            let mut layers = result.layers.iter();
            layers.all(|layer| index.contains_key(&layer.diff_id))
        });
    }
    let exported = Exported::new(&fitting);
    let config = exported.config();
    if config.layers.is_empty() {
        return None;
    }
    let diff_id_of = |layer: usize| exported.layers()[layer].diff_id.clone();
    let records: Vec<RecordEntry> = config
        .records
        .iter()
        .map(|record| placed(record, config, diff_ids, &diff_id_of, &index))
        .collect();
    Some(BASE64_STANDARD.encode(go_json(&records)))
}

/// Returns a record whose results refer to the image's layers: a result that is the lowest ones by
/// the topmost of them, any other by a list.
fn placed(
    record: &RecordEntry,
    config: &CacheConfig,
    diff_ids: &[Digest],
    diff_id_of: &dyn Fn(usize) -> Digest,
    index: &HashMap<Digest, usize>,
) -> RecordEntry {
    let mut results = Vec::new();
    let mut chains = Vec::new();
    for result in &record.results {
        let mut chain = Vec::new();
        let mut next = result.layer;
        while let Ok(layer) = usize::try_from(next) {
            chain.push(diff_id_of(layer));
            next = config.layers[layer].parent;
        }
        chain.reverse();
        if diff_ids.starts_with(&chain) {
            results.push(ResultEntry {
                layer: chain.len() as i64 - 1,
                created_at: result.created_at,
            });
        } else {
            chains.push(ChainEntry {
                layers: chain.iter().map(|diff_id| index[diff_id] as i64).collect(),
                created_at: result.created_at,
            });
        }
    }
    RecordEntry {
        results,
        chains,
        ..record.clone()
    }
}
