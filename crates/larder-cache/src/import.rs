//! Reading: from a config and the descriptors of its layers to records.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use larder_oci::{Descriptor, Digest};
use serde::Deserialize;

use crate::error::{Error, Result, check_limit};
use crate::format::{CacheConfig, LayerAnnotations, LayerEntry, NO_PARENT, RecordEntry, nullable};
use crate::record::{Link, Record, RecordResult, RemoteLayer, annotation};
use crate::{inline, limit, order};

/// A cache that was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Imported {
    /// The records, each after all it refers to. No index leads out of the list, and no input is
    /// without alternatives.
    pub records: Vec<Record>,
}

impl Imported {
    /// Reads the config of a cache. `blobs` are the layers that the manifest lists; a layer that
    /// is not among them counts if the config itself describes it.
    ///
    /// A result with a layer that is not described is left out; its record stays, since others may
    /// refer to it.
    ///
    /// # Errors
    /// `TooLarge` where a [`limit`](crate::limit) is passed; `Invalid` where it is no config, an
    /// index leads nowhere, layers or records form a circle, or an input has no alternative.
    pub fn parse(config: &[u8], blobs: &[Descriptor]) -> Result<Self> {
        Self::from_config(&CacheConfig::parse(config)?, blobs)
    }

    /// Reads the cache that an image's config may hold inline; `None` if it holds none, or if the
    /// image's layers are not those of the config.
    ///
    /// `layers` are those of the image's manifest, lowest first.
    ///
    /// # Errors
    /// As [`Imported::parse`].
    pub fn from_image(config: &[u8], layers: &[Descriptor]) -> Result<Option<Self>> {
        check_limit("bytes of image config", config.len(), limit::CONFIG_BYTES)?;
        let image: InlineImage = serde_json::from_slice(config).map_err(|error| {
            Error::invalid(format!("the image config is not well-formed: {error}"))
        })?;
        let Some(cache) = image.cache.filter(|cache| !cache.is_empty()) else {
            return Ok(None);
        };
        if image.rootfs.diff_ids.len() != layers.len() {
            return Ok(None);
        }
        let json = BASE64_STANDARD.decode(cache).ok();
        let records = json.and_then(|json| serde_json::from_slice::<Option<_>>(&json).ok());
        let records = records.map(Option::unwrap_or_default).ok_or_else(|| {
            let field = inline::FIELD;
            Error::invalid(format!("`{field}` of the image config is not well-formed"))
        })?;
        let made_by = image.history.iter().filter(|entry| !entry.empty_layer);
        let mut made_by = made_by.map(Some).chain(std::iter::repeat(None));
        let mut blobs = Vec::with_capacity(layers.len());
        for (layer, diff_id) in layers.iter().zip(&image.rootfs.diff_ids) {
            let entry = made_by.next().flatten();
            blobs.push(annotated(layer, diff_id, entry));
        }
        let config = CacheConfig {
            layers: image_layers(layers),
            records,
        };
        Self::from_config(&config, &blobs).map(Some)
    }

    /// Reads a config; see [`Imported::parse`].
    ///
    /// # Errors
    /// As there.
    pub fn from_config(config: &CacheConfig, blobs: &[Descriptor]) -> Result<Self> {
        check_limit(
            "layers",
            config.layers.len().max(blobs.len()),
            limit::LAYERS,
        )?;
        check_limit("records", config.records.len(), limit::RECORDS)?;
        let inputs_of = config.records.iter().flat_map(|record| &record.inputs);
        let links = inputs_of
            .map(|alternatives| alternatives.len().max(1))
            .sum();
        check_limit("links", links, limit::LINKS)?;
        let mut layers = Layers::new(&config.layers, blobs)?;
        let mut records = Vec::with_capacity(config.records.len());
        for (index, entry) in config.records.iter().enumerate() {
            records.push(Record {
                digest: entry.digest.clone(),
                inputs: inputs(entry, index, config.records.len())?,
                results: layers.results(entry)?,
            });
        }
        let order = order::strict(&records).ok_or_else(|| {
            Error::invalid("records of the cache refer to each other in a circle")
        })?;
        Ok(Self {
            records: reordered(records, &order),
        })
    }
}

/// What of an image's config matters here.
#[derive(Deserialize)]
struct InlineImage {
    #[serde(default)]
    rootfs: InlineRootFs,
    #[serde(rename = "moby.buildkit.cache.v0", default)]
    cache: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    history: Vec<InlineHistory>,
}

#[derive(Default, Deserialize)]
struct InlineRootFs {
    #[serde(default, deserialize_with = "nullable")]
    diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct InlineHistory {
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    created_by: Option<String>,
    #[serde(default)]
    empty_layer: bool,
}

fn annotated(layer: &Descriptor, diff_id: &Digest, made_by: Option<&InlineHistory>) -> Descriptor {
    let mut layer = layer.clone();
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            layer.annotations.insert(key.to_owned(), value);
        }
    };
    add(annotation::DIFF_ID, Some(diff_id.to_string()));
    add(
        annotation::CREATED_AT,
        made_by.and_then(|by| by.created.clone()),
    );
    add(
        annotation::DESCRIPTION,
        made_by.and_then(|by| by.created_by.clone()),
    );
    layer
}

/// Returns the layers of an image, each on the one before.
pub(crate) fn image_layers(layers: &[Descriptor]) -> Vec<LayerEntry> {
    let entry = |(index, layer): (usize, &Descriptor)| LayerEntry {
        blob: layer.digest.clone(),
        parent: index as i64 - 1,
        annotations: None,
    };
    layers.iter().enumerate().map(entry).collect()
}

fn inputs(entry: &RecordEntry, index: usize, count: usize) -> Result<Vec<Vec<Link>>> {
    let mut inputs = Vec::with_capacity(entry.inputs.len());
    for (number, alternatives) in entry.inputs.iter().enumerate() {
        if alternatives.is_empty() {
            return Err(Error::invalid(format!(
                "record {index} of the cache: input {number} has no alternative"
            )));
        }
        let mut links = Vec::with_capacity(alternatives.len());
        for alternative in alternatives {
            links.push(Link {
                selector: alternative.selector.clone(),
                record: index_below(alternative.link, count, "record")?,
            });
        }
        inputs.push(links);
    }
    Ok(inputs)
}

fn index_below(index: i64, count: usize, what: &str) -> Result<usize> {
    usize::try_from(index)
        .ok()
        .filter(|&index| index < count)
        .ok_or_else(|| Error::invalid(format!("the cache refers to {what} {index} of {count}")))
}

/// Puts `records` into `order`, and makes their links follow.
fn reordered(records: Vec<Record>, order: &[usize]) -> Vec<Record> {
    let mut position = vec![0; records.len()];
    for (new, &old) in order.iter().enumerate() {
        position[old] = new;
    }
    let mut placed: Vec<Option<Record>> = vec![None; records.len()];
    for (old, mut record) in records.into_iter().enumerate() {
        for link in record.inputs.iter_mut().flatten() {
            link.record = position[link.record];
        }
        placed[position[old]] = Some(record);
    }
    placed.into_iter().flatten().collect()
}

/// The layers of a config.
struct Layers {
    layers: Vec<Option<Arc<RemoteLayer>>>,
    parents: Vec<Option<usize>>,
    /// How many layers the results so far have, each counted as often as it occurs.
    used: usize,
}

impl Layers {
    fn new(entries: &[LayerEntry], blobs: &[Descriptor]) -> Result<Self> {
        let blobs: HashMap<&Digest, &Descriptor> =
            blobs.iter().map(|blob| (&blob.digest, blob)).collect();
        let mut layers = Vec::with_capacity(entries.len());
        let mut parents = Vec::with_capacity(entries.len());
        for entry in entries {
            let described = match (blobs.get(&entry.blob), &entry.annotations) {
                (Some(blob), _) => RemoteLayer::from_descriptor(blob),
                (None, Some(annotations)) => from_annotations(&entry.blob, annotations),
                (None, None) => None,
            };
            layers.push(described.map(Arc::new));
            parents.push(match entry.parent {
                NO_PARENT => None,
                parent => Some(index_below(parent, entries.len(), "layer")?),
            });
        }
        Ok(Self {
            layers,
            parents,
            used: 0,
        })
    }

    /// Returns the results of a record, the newest first.
    fn results(&mut self, entry: &RecordEntry) -> Result<Vec<RecordResult>> {
        let mut results = Vec::with_capacity(entry.results.len() + entry.chains.len());
        for result in &entry.results {
            let chain = self.chain(result.layer)?;
            results.extend(self.result(&chain, result.created_at)?);
        }
        for listed in &entry.chains {
            check_limit(
                "layers in one result",
                listed.layers.len(),
                limit::LAYERS_OF_RESULT,
            )?;
            let chain = listed
                .layers
                .iter()
                .map(|&layer| index_below(layer, self.layers.len(), "layer"))
                .collect::<Result<Vec<_>>>()?;
            results.extend(self.result(&chain, listed.created_at)?);
        }
        results.sort_by_key(|result| std::cmp::Reverse(result.created_at));
        Ok(results)
    }

    /// Returns a layer and all below it, lowest first.
    fn chain(&self, top: i64) -> Result<Vec<usize>> {
        let mut chain = Vec::new();
        let mut next = Some(index_below(top, self.layers.len(), "layer")?);
        while let Some(index) = next {
            chain.push(index);
            if chain.len() > self.layers.len() {
                return Err(Error::invalid(
                    "layers of the cache lie on each other in a circle",
                ));
            }
            check_limit("layers in one result", chain.len(), limit::LAYERS_OF_RESULT)?;
            next = self.parents[index];
        }
        chain.reverse();
        Ok(chain)
    }

    /// Returns a result; `None` if it has no layers, or one that is not described.
    fn result(
        &mut self,
        chain: &[usize],
        created_at: Option<jiff::Timestamp>,
    ) -> Result<Option<RecordResult>> {
        self.used += chain.len();
        check_limit("layers in all results", self.used, limit::LAYERS_OF_RESULTS)?;
        let layers: Option<Vec<_>> = chain.iter().map(|&i| self.layers[i].clone()).collect();
        Ok(layers
            .filter(|layers| !layers.is_empty())
            .map(|layers| RecordResult { layers, created_at }))
    }
}

fn from_annotations(blob: &Digest, annotations: &LayerAnnotations) -> Option<RemoteLayer> {
    let size_bytes = u64::try_from(annotations.size_bytes).ok()?;
    Some(RemoteLayer {
        descriptor: Descriptor::new(&annotations.media_type, blob.clone(), size_bytes),
        diff_id: annotations.diff_id.clone()?,
        created_at: annotations.created_at,
    })
}
