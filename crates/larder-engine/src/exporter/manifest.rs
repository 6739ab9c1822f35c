//! An image's documents: config and manifest, over its layers.

use std::collections::BTreeMap;

use larder_cache::inline;
use larder_oci::{Descriptor, ImageConfig, ImageManifest, ImageRef, Platform, go_json, media_type};

use super::Export;
use super::config::{self, LayerFacts};
use crate::error::{BuildError, Result};
use crate::layers::{self, PackedLayer, Recipe};
use crate::progress::VertexProgress;
use crate::request::{AnnotationPlace, ImageOptions, ImageOutcome, LayerCompression};

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

/// Whether all layers of an image must be blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layers {
    /// What is not stored as a blob is not made one.
    AsTheyAre,
    /// All are.
    Blobs,
}

impl Export<'_> {
    /// Makes the image's documents, and its blobs as far as `layers` asks for them.
    ///
    /// # Errors
    /// `Invalid` for options that contradict each other or the build.
    pub(super) fn make_image(
        &self,
        options: &ImageOptions,
        layers: Layers,
        vertex: &VertexProgress<'_>,
    ) -> Result<MadeImage> {
        let epoch = options.source_date_epoch.or(self.lowered.source_date_epoch);
        refuse_index_annotations(options)?;
        let recipe = recipe(options, epoch)?;
        let status = vertex.status("exporting layers", 0);
        let packed = match (self.snapshot, layers) {
            (None, _) => self.far.iter().map(PackedLayer::from).collect(),
            (Some(snapshot), Layers::AsTheyAre) => {
                layers::plain_layers(self.lease, snapshot, &self.base_layers)?
            }
            (Some(snapshot), Layers::Blobs) => {
                layers::packed_layers(self.lease, snapshot, &recipe, &self.base_layers)?
            }
        };
        status.done();
        let mut config = self.config_of(&packed, epoch)?;
        self.set_inline_cache(&mut config, vertex)?;
        let uses_oci_types = options.oci_media_types || needs_oci_types(options);
        let platform = config.platform();
        let annotated = |place| annotations(options, place, &platform);
        let descriptors = packed
            .into_iter()
            .map(|layer| with_media_type(layer.descriptor, uses_oci_types));
        let (manifest_type, config_type) = if uses_oci_types {
            (media_type::MANIFEST, media_type::CONFIG)
        } else {
            (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG)
        };
        let config_bytes = config.to_json();
        let manifest = ImageManifest {
            schema_version: 2,
            media_type: manifest_type.to_owned(),
            config: Descriptor::of(config_type, &config_bytes),
            layers: descriptors.collect(),
            annotations: annotated(AnnotationPlace::Manifest),
        };
        let manifest_bytes = go_json(&manifest);
        let mut descriptor = Descriptor::of(manifest_type, &manifest_bytes);
        descriptor.annotations = annotated(AnnotationPlace::ManifestDescriptor);
        descriptor.platform = Some(platform);
        self.lease.put_blobs(&[&config_bytes, &manifest_bytes])?;
        vertex.status_done(format!("exporting manifest {}", descriptor.digest));
        vertex.status_done(format!("exporting config {}", manifest.config.digest));
        Ok(MadeImage {
            descriptor,
            manifest,
            config,
        })
    }

    /// Puts the records into the config that its layers are results of. What a base image holds is
    /// about that image.
    fn set_inline_cache(
        &self,
        config: &mut ImageConfig,
        vertex: &VertexProgress<'_>,
    ) -> Result<()> {
        config.other.remove(inline::FIELD);
        let Some(exporter) = self.inline_cache else {
            return Ok(());
        };
        let status = vertex.status("preparing layers for inline cache", 0);
        let records = exporter.inline_records(vertex)?;
        if let Some(value) = inline::value(&records, &config.rootfs.diff_ids) {
            config.other.insert(inline::FIELD.to_owned(), value.into());
        }
        status.done();
        Ok(())
    }

    fn config_of(&self, layers: &[PackedLayer], epoch: Option<i64>) -> Result<ImageConfig> {
        let facts = |layer: &PackedLayer| LayerFacts {
            diff_id: layer.diff_id.clone(),
            created_at: layer.created_at,
            description: layer.description.clone(),
        };
        let facts: Vec<LayerFacts> = layers.iter().map(facts).collect();
        let base = self.lowered.base.as_ref();
        let base_history = base.map_or(0, |(_, config)| config.history.len());
        let bad =
            |error| BuildError::invalid("SOURCE_DATE_EPOCH is out of range").with_source(error);
        let epoch = epoch.map(jiff::Timestamp::from_second).transpose();
        let config = self.lowered.config.clone();
        Ok(config::finish(
            config,
            &facts,
            base_history,
            epoch.map_err(bad)?,
        ))
    }
}

/// Returns how layers are packed.
fn recipe(options: &ImageOptions, epoch: Option<i64>) -> Result<Recipe> {
    if options.rewrite_timestamp && epoch.is_none() {
        return Err(
            BuildError::invalid("`rewrite-timestamp` needs SOURCE_DATE_EPOCH")
                .with_hint("set it with `--build-arg SOURCE_DATE_EPOCH=SECONDS`"),
        );
    }
    let compression = options.compression.unwrap_or_default();
    Ok(Recipe {
        compression,
        level: options.compression_level,
        // An image's files can only be read one by one if all its layers say where they are.
        force: options.force_compression || compression == LayerCompression::Estargz,
        clamp_mtime: epoch.filter(|_| options.rewrite_timestamp),
    })
}

fn refuse_index_annotations(options: &ImageOptions) -> Result<()> {
    let is_for_index = |place| {
        matches!(
            place,
            AnnotationPlace::Index | AnnotationPlace::IndexDescriptor
        )
    };
    if options.annotations.iter().any(|a| is_for_index(a.place)) {
        return Err(BuildError::invalid(
            "index annotations not supported for single platform export",
        ));
    }
    Ok(())
}

/// Returns whether Docker's media types can't say what is asked for.
fn needs_oci_types(options: &ImageOptions) -> bool {
    let compression = options.compression.unwrap_or_default();
    !options.annotations.is_empty()
        || matches!(
            compression,
            LayerCompression::Zstd | LayerCompression::Estargz
        )
}

/// Returns the annotations of one document. Those of the platform win over those of all.
fn annotations(
    options: &ImageOptions,
    place: AnnotationPlace,
    platform: &Platform,
) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for wanted in [None, Some(platform)] {
        for annotation in &options.annotations {
            if annotation.place == place && annotation.platform.as_ref() == wanted {
                found.insert(annotation.key.clone(), annotation.value.clone());
            }
        }
    }
    found
}

/// Gives a layer the media type of OCI or of Docker that says the same.
fn with_media_type(mut descriptor: Descriptor, is_oci: bool) -> Descriptor {
    let pairs = [
        (media_type::LAYER_GZIP, media_type::DOCKER_LAYER_GZIP),
        (media_type::LAYER, media_type::DOCKER_LAYER),
        (media_type::LAYER_ZSTD, media_type::DOCKER_LAYER_ZSTD),
    ];
    for (oci, docker) in pairs {
        if [oci, docker].contains(&descriptor.media_type.as_str()) {
            let media_type = if is_oci { oci } else { docker };
            media_type.clone_into(&mut descriptor.media_type);
        }
    }
    descriptor
}
