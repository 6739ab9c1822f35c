//! An image: layers, config, manifest.

use larder_oci::{Descriptor, ImageConfig, ImageManifest, ImageRef, go_json, media_type};
use larder_store::NewImage;
use larder_tree::compression::Compression;
use larder_tree::diff::LayerOptions;

use super::Export;
use super::config::{self, LayerFacts};
use crate::error::{BuildError, Result};
use crate::layers::{self, Layer};
use crate::progress::VertexProgress;
use crate::request::{ImageOutcome, LayerCompression};

/// Says of a layer to which time its files were bound; BuildKit's name.
const REWRITTEN: &str = "buildkit/rewritten-timestamp";

/// An image whose config and manifest are in the store.
pub(super) struct MadeImage {
    pub(super) descriptor: Descriptor,
    pub(super) manifest: ImageManifest,
    pub(super) config: ImageConfig,
}

impl MadeImage {
    pub(super) fn outcome(&self, names: &[ImageRef]) -> ImageOutcome {
        ImageOutcome {
            descriptor: self.descriptor.clone(),
            config_digest: self.manifest.config.digest.clone(),
            names: names.to_vec(),
        }
    }
}

/// How the layers of an image are packed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Packing {
    /// As they are: what is not stored as a blob is not made one.
    Plain,
    /// All as blobs, new ones compressed so.
    Blobs(LayerCompression),
    /// As `Blobs`, with times in new layers bound by `SOURCE_DATE_EPOCH`.
    Rewritten(LayerCompression),
}

impl Export<'_> {
    /// Stores the image under the request's tags.
    pub(crate) fn to_store(&self) -> Result<ImageOutcome> {
        let mut vertex = self.reporter.begin_internal("exporting to image", "store");
        let made = self.make_image(Packing::Plain, &vertex).and_then(|made| {
            self.add_to_store(&made)?;
            Ok(made)
        });
        match made {
            Ok(made) => {
                for name in self.tags {
                    vertex.status_done(format!("naming to {name}"));
                }
                vertex.complete();
                Ok(made.outcome(self.tags))
            }
            Err(error) => {
                vertex.fail(&error.full_message());
                Err(error)
            }
        }
    }

    fn add_to_store(&self, made: &MadeImage) -> Result<()> {
        let mut blobs = vec![made.manifest.config.digest.clone()];
        for layer in &made.manifest.layers {
            if self.lease.store().has_blob(&layer.digest)? {
                blobs.push(layer.digest.clone());
            }
        }
        let new = NewImage {
            manifest: &made.descriptor,
            config: &made.manifest.config.digest,
            platform: &made.config.platform().to_string(),
            created_at: made
                .config
                .created
                .as_ref()
                .and_then(|time| time.parse().ok()),
            snapshot: self.snapshot,
            blobs: &blobs,
        };
        Ok(self.lease.add_image(&new, self.tags)?)
    }

    /// Makes the image's documents, and the blobs that `packing` asks for.
    pub(super) fn make_image(
        &self,
        packing: Packing,
        vertex: &VertexProgress<'_>,
    ) -> Result<MadeImage> {
        let status = vertex.status("exporting layers", 0);
        let layers = match self.snapshot {
            Some(snapshot) => layers::layers_of(self.lease, snapshot)?,
            None => Vec::new(),
        };
        let packed: Vec<(Descriptor, LayerFacts)> = layers
            .iter()
            .map(|layer| self.pack(layer, packing))
            .collect::<Result<_>>()?;
        status.done();
        let (descriptors, facts): (Vec<_>, Vec<_>) = packed.into_iter().unzip();
        let base_history = self
            .lowered
            .base
            .as_ref()
            .map_or(0, |(_, config)| config.history.len());
        let config = config::finish(
            self.lowered.config.clone(),
            &facts,
            base_history,
            self.epoch()?,
        );
        let config_bytes = config.to_json();
        let manifest = ImageManifest {
            schema_version: 2,
            media_type: media_type::MANIFEST.to_owned(),
            config: Descriptor::of(media_type::CONFIG, &config_bytes),
            layers: descriptors,
            annotations: std::collections::BTreeMap::new(),
        };
        let manifest_bytes = go_json(&manifest);
        let mut descriptor = Descriptor::of(media_type::MANIFEST, &manifest_bytes);
        descriptor.platform = Some(config.platform());
        self.lease.put_blobs(&[&config_bytes, &manifest_bytes])?;
        vertex.status_done(format!("exporting manifest {}", descriptor.digest));
        vertex.status_done(format!("exporting config {}", manifest.config.digest));
        Ok(MadeImage {
            descriptor,
            manifest,
            config,
        })
    }

    fn pack(&self, layer: &Layer, packing: Packing) -> Result<(Descriptor, LayerFacts)> {
        let facts = |diff_id| LayerFacts {
            diff_id,
            created_at: layer.created_at,
            description: layer.description.clone(),
        };
        let is_base = self.base_layers.contains_key(&layer.diff_id);
        match packing {
            Packing::Plain => Ok((
                layers::plain_descriptor(layer, &self.base_layers),
                facts(layer.diff_id.clone()),
            )),
            Packing::Rewritten(compression) if !is_base => {
                let epoch = self.lowered.source_date_epoch.ok_or_else(|| {
                    BuildError::invalid("`rewrite-timestamp` needs SOURCE_DATE_EPOCH")
                        .with_hint("set it with `--build-arg SOURCE_DATE_EPOCH=SECONDS`")
                })?;
                let options = LayerOptions {
                    clamp_mtime: Some(epoch),
                };
                let (media_type, encoding) = encoding(compression);
                let (mut descriptor, diff_id) =
                    layers::pack(self.lease, &layer.snapshot, media_type, encoding, &options)?;
                descriptor
                    .annotations
                    .insert(REWRITTEN.to_owned(), epoch.to_string());
                Ok((descriptor, facts(diff_id)))
            }
            Packing::Blobs(compression) | Packing::Rewritten(compression) => {
                let descriptor = layers::blob(self.lease, layer, compression, &self.base_layers)?;
                Ok((descriptor, facts(layer.diff_id.clone())))
            }
        }
    }
}

/// Returns the media type and the encoder of a compression.
pub(super) fn encoding(compression: LayerCompression) -> (&'static str, Compression) {
    match compression {
        LayerCompression::Gzip => (media_type::LAYER_GZIP, Compression::gzip()),
        LayerCompression::Zstd => (media_type::LAYER_ZSTD, Compression::Zstd { level: 0 }),
        LayerCompression::Uncompressed => (media_type::LAYER, Compression::Uncompressed),
    }
}
