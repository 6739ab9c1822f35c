//! The records of a target, and the layers of their results.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use larder_cache::{Link, Record, RecordResult, RemoteLayer};
use larder_oci::Digest;
use larder_store::{ExportedRecord, KeyId, SnapshotId};

use super::CacheExporter;
use super::alternatives::Alternatives;
use crate::cache::remote::RemoteResult;
use crate::error::{BuildError, Result};
use crate::fetch::{Fetcher, Origin};
use crate::layers::{self, Packer, Recipe};
use crate::request::CacheMode;
use crate::worker::ResultRef;

/// What is told of layers.
#[derive(Clone, Copy)]
pub(super) enum Packing<'a> {
    /// Their diff IDs; no blobs are made.
    Plain,
    /// All: those of the store become blobs.
    Blobs(&'a Recipe),
}

/// What was gathered.
pub(super) struct Gathered {
    pub(super) records: Vec<Record>,
    /// Where blobs are that the store may lack.
    pub(super) origins: HashMap<Digest, Origin>,
}

type Layers = Vec<Arc<RemoteLayer>>;

/// Gathers the records of a target.
pub(super) struct Gatherer<'a> {
    exporter: &'a CacheExporter<'a>,
    fetcher: &'a Fetcher<'a>,
    packing: Packing<'a>,
    /// The layers of the store that were looked at, each for itself.
    known: HashMap<SnapshotId, Arc<RemoteLayer>>,
    origins: HashMap<Digest, Origin>,
}

impl<'a> Gatherer<'a> {
    pub(super) fn new(
        exporter: &'a CacheExporter<'a>,
        fetcher: &'a Fetcher<'a>,
        packing: Packing<'a>,
    ) -> Self {
        Self {
            exporter,
            fetcher,
            packing,
            known: HashMap::new(),
            origins: HashMap::new(),
        }
    }

    /// Returns the records, with the results that `mode` asks for. A target without result has
    /// those of all its steps: the next build begins there.
    pub(super) fn gather(mut self, mode: CacheMode) -> Result<Gathered> {
        let results = &self.exporter.results;
        let scope = if mode == CacheMode::Min && !results.is_empty() {
            let mut diff_ids = HashSet::new();
            for result in results {
                diff_ids.extend(self.diff_ids(result)?);
            }
            Some(diff_ids)
        } else {
            None
        };
        let own: HashSet<KeyId> = self.exporter.keys.iter().copied().collect();
        let store = self.exporter.lease.store();
        let exported = store.exported_records(&self.exporter.keys)?;
        let mut records = Vec::with_capacity(exported.len());
        let mut alternatives = Alternatives::new(self.exporter.imports, &exported);
        for record in exported {
            let is_imported = own.contains(&record.key) && self.is_imported(&record);
            // Sources are found by what they are: nobody needs their layers from here.
            let is_step = own.contains(&record.key) && !record.inputs.is_empty();
            let is_withheld = self.exporter.withheld.contains(&record.key);
            let result = if is_step && !is_withheld {
                self.result(&record, scope.as_ref())?
            } else {
                None
            };
            let mut inputs: Vec<Vec<Link>> = record.inputs.into_iter().map(links).collect();
            if is_imported {
                alternatives.add(record.key, &mut inputs);
            }
            records.push(Record {
                digest: record.digest,
                inputs,
                results: result.into_iter().collect(),
            });
        }
        records.extend(alternatives.into_sources());
        Ok(Gathered {
            records,
            origins: self.origins,
        })
    }

    /// Returns whether what is stored under a record was not made here.
    fn is_imported(&self, record: &ExportedRecord) -> bool {
        let Some(stored) = &record.result else {
            return true;
        };
        let imported = self.exporter.imports.result(record.key);
        imported.is_some_and(|result| result.fetched().as_ref() == Some(&stored.snapshot))
    }

    /// Returns the diff IDs of a result.
    fn diff_ids(&mut self, result: &ResultRef) -> Result<HashSet<Digest>> {
        let layers = match result {
            ResultRef::Snapshot(snapshot) => self.stored(snapshot, None)?,
            ResultRef::Remote(imported) => self.remote(&imported.result, None)?,
            ResultRef::Context(_) => None,
        };
        let layers = layers.into_iter().flatten();
        Ok(layers.map(|layer| layer.diff_id.clone()).collect())
    }

    /// Returns what is stored under a record, if all its layers are in `scope`.
    fn result(
        &mut self,
        record: &ExportedRecord,
        scope: Option<&HashSet<Digest>>,
    ) -> Result<Option<RecordResult>> {
        let (layers, created_at) = match &record.result {
            Some(stored) => (
                self.stored(&stored.snapshot, scope)?,
                Some(stored.created_at),
            ),
            None => match self.exporter.imports.result(record.key) {
                Some(remote) => (self.remote(&remote, scope)?, remote.created_at),
                None => (None, None),
            },
        };
        Ok(layers
            .filter(|layers| !layers.is_empty())
            .map(|layers| RecordResult { layers, created_at }))
    }

    /// Returns the layers of a snapshot. Those whose diff ID is not known yet are in no scope.
    fn stored(
        &mut self,
        snapshot: &SnapshotId,
        scope: Option<&HashSet<Digest>>,
    ) -> Result<Option<Layers>> {
        let lease = self.exporter.lease;
        let chain = lease.store().chain(snapshot)?;
        if let Some(scope) = scope {
            for id in &chain {
                let diff_id = lease.store().snapshot(id)?.diff_id;
                if !diff_id.is_some_and(|diff_id| scope.contains(&diff_id)) {
                    return Ok(None);
                }
            }
        }
        if chain.iter().any(|id| !self.known.contains_key(id)) {
            let base_layers = &self.exporter.base_layers;
            let packed = match self.packing {
                Packing::Plain => layers::plain_layers(lease, snapshot, base_layers)?,
                Packing::Blobs(recipe) => {
                    self.fetcher.cancel.check()?;
                    let exporter = self.exporter;
                    let packer = Packer::new(lease, exporter.packed, exporter.cancel);
                    layers::packed_layers(&packer, snapshot, recipe, base_layers)?
                }
            };
            for (id, layer) in chain.iter().zip(packed) {
                // When the layer of a base image was made, that image's manifest says or no one.
                let is_base = base_layers.contains_key(&layer.diff_id);
                let layer = RemoteLayer {
                    descriptor: layer.descriptor,
                    diff_id: layer.diff_id,
                    created_at: (!is_base).then_some(layer.created_at),
                };
                self.known
                    .entry(id.clone())
                    .or_insert_with(|| Arc::new(layer));
            }
        }
        let layers = chain.iter().map(|id| self.known.get(id).cloned());
        let lacks = || BuildError::internal("a snapshot has more layers than were packed");
        layers
            .collect::<Option<Layers>>()
            .map(Some)
            .ok_or_else(lacks)
    }

    /// Returns the layers of a result that is stored elsewhere: as they are, without being
    /// fetched.
    fn remote(
        &mut self,
        remote: &RemoteResult,
        scope: Option<&HashSet<Digest>>,
    ) -> Result<Option<Layers>> {
        if remote.is_lost() {
            return Ok(None);
        }
        let layers = remote.layers();
        let is_in = |diff_id| scope.is_none_or(|scope| scope.contains(diff_id));
        if !layers.iter().all(|layer| is_in(&layer.diff_id)) {
            return Ok(None);
        }
        let is_repacked = matches!(self.packing, Packing::Blobs(recipe) if recipe.force);
        if is_repacked || remote.is_fetched() {
            return match remote.tree(self.fetcher, "imported from a cache") {
                Ok(tree) => self.stored(&tree, scope),
                Err(_) if remote.is_lost() => Ok(None),
                Err(error) => Err(error),
            };
        }
        let layer = |layer: &crate::fetch::FarLayer| {
            Arc::new(RemoteLayer {
                descriptor: layer.descriptor.clone(),
                diff_id: layer.diff_id.clone(),
                created_at: layer.created_at,
            })
        };
        for layer in &layers {
            let blob = layer.descriptor.digest.clone();
            self.origins.insert(blob, remote.origin.clone());
        }
        Ok(Some(layers.iter().map(layer).collect()))
    }
}

fn links(alternatives: Vec<(Option<Digest>, usize)>) -> Vec<Link> {
    let links = alternatives.into_iter();
    links
        .map(|(selector, record)| Link { selector, record })
        .collect()
}
