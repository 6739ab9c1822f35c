//! An image's documents: configs and manifests over their layers, and the index of several.

use std::collections::BTreeMap;

use larder_cache::inline;
use larder_oci::{Descriptor, ImageConfig, ImageManifest, ImageRef, Platform, go_json, media_type};

use super::attest::{Attached, Attests};
use super::config::{self, LayerFacts};
use super::{Export, IndexEntry, Part, recipe, write_index};
use crate::error::{BuildError, Result};
use crate::layers::{self, PackedLayer, Packer, Recipe};
use crate::progress::VertexProgress;
use crate::request::{AnnotationPlace, ImageOptions, ImageOutcome, LayerCompression};

/// An image whose config and manifest are in the store.
pub(super) struct MadeImage {
    /// The manifest's, with the platform.
    pub(super) descriptor: Descriptor,
    pub(super) manifest: ImageManifest,
    pub(super) config: ImageConfig,
    /// What is said about it.
    pub(super) attached: Option<Attached>,
}

/// The images of all platforms, with their index if they have one.
pub(super) struct MadeImages {
    /// The only image's manifest, or the index.
    pub(super) descriptor: Descriptor,
    /// In the order asked for; at least one.
    pub(super) images: Vec<MadeImage>,
}

impl MadeImages {
    pub(super) fn outcome(&self, names: &[ImageRef]) -> ImageOutcome {
        let is_index = media_type::is_index(&self.descriptor.media_type);
        let config = &self.images[0].manifest.config.digest;
        ImageOutcome {
            descriptor: self.descriptor.clone(),
            config_digest: (!is_index).then(|| config.clone()),
            names: names.to_vec(),
        }
    }

    /// Returns the position of the image that stands for all: the host's if it is among them.
    pub(super) fn representative(&self) -> usize {
        let host = Platform::host();
        let rank = |image: &MadeImage| image.config.platform().rank_for(&host);
        let ranked = self.images.iter().enumerate();
        ranked
            .filter_map(|(position, image)| Some((rank(image)?, position)))
            .min()
            .map_or(0, |(_, position)| position)
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

/// How an output wants its images.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) options: &'a ImageOptions,
    pub(super) layers: Layers,
    /// What the images are called.
    pub(super) names: &'a [ImageRef],
    pub(super) attests: Attests,
}

impl Export<'_> {
    /// Makes the images' documents, and their blobs as far as `layers` asks for them.
    ///
    /// # Errors
    /// `Invalid` for options that contradict each other or the build.
    pub(super) fn make_images(
        &self,
        wanted: Wanted<'_>,
        vertex: &VertexProgress<'_>,
    ) -> Result<MadeImages> {
        let options = wanted.options;
        let epoch = options.source_date_epoch.or(self.source_date_epoch());
        self.check_annotations(&wanted)?;
        let recipe = recipe(options, epoch)?;
        let status = vertex.status("exporting layers", 0);
        let packed: Vec<Vec<PackedLayer>> = self
            .parts
            .iter()
            .map(|part| self.pack(part, &recipe, wanted.layers))
            .collect::<Result<_>>()?;
        status.done();
        let mut images = Vec::with_capacity(packed.len());
        for (part, packed) in self.parts.iter().zip(packed) {
            images.push(self.make_image(part, packed, &wanted, vertex)?);
        }
        let descriptor = match &images[..] {
            [only] if !self.multi_platform && only.attached.is_none() => only.descriptor.clone(),
            images => self.make_index(images, &wanted, vertex)?,
        };
        Ok(MadeImages { descriptor, images })
    }

    fn pack(&self, part: &Part<'_>, recipe: &Recipe, layers: Layers) -> Result<Vec<PackedLayer>> {
        match (&part.snapshot, layers) {
            (None, _) => Ok(part.far.iter().map(PackedLayer::from).collect()),
            (Some(snapshot), Layers::AsTheyAre) => {
                layers::plain_layers(self.lease, snapshot, &self.base_layers)
            }
            (Some(snapshot), Layers::Blobs) => {
                let packer = Packer::new(self.lease, self.packed, self.cancel);
                layers::packed_layers(&packer, snapshot, recipe, &self.base_layers)
            }
        }
    }

    fn make_index(
        &self,
        images: &[MadeImage],
        wanted: &Wanted<'_>,
        vertex: &VertexProgress<'_>,
    ) -> Result<Descriptor> {
        let options = wanted.options;
        let entry = |image: &MadeImage| IndexEntry {
            manifest: image.descriptor.clone(),
            attached: image
                .attached
                .iter()
                .map(|it| it.descriptor.clone())
                .collect(),
        };
        let media_type = if self.uses_oci_types(wanted) {
            media_type::INDEX
        } else {
            media_type::DOCKER_MANIFEST_LIST
        };
        let mut descriptor = write_index(
            self.lease,
            media_type,
            images.iter().map(entry).collect(),
            annotations(options, AnnotationPlace::Index, None),
        )?;
        vertex.status_done(format!("exporting manifest list {}", descriptor.digest));
        descriptor.annotations = annotations(options, AnnotationPlace::IndexDescriptor, None);
        Ok(descriptor)
    }

    /// Makes the documents of the image for one platform.
    fn make_image(
        &self,
        part: &Part<'_>,
        packed: Vec<PackedLayer>,
        wanted: &Wanted<'_>,
        vertex: &VertexProgress<'_>,
    ) -> Result<MadeImage> {
        let options = wanted.options;
        let epoch = options.source_date_epoch.or(self.source_date_epoch());
        let mut config = config_of(part, &packed, epoch)?;
        set_inline_cache(part, &mut config, vertex)?;
        let uses_oci_types = self.uses_oci_types(wanted);
        let annotated = |place| annotations(options, place, Some(part.platform));
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
        descriptor.platform = Some(part.platform.clone());
        self.lease.put_blobs(&[&config_bytes, &manifest_bytes])?;
        vertex.status_done(format!("exporting manifest {}", descriptor.digest));
        vertex.status_done(format!("exporting config {}", manifest.config.digest));
        let said_of = (&descriptor, &manifest.layers[..]);
        let attached = self.attach(part, said_of, wanted, vertex)?;
        Ok(MadeImage {
            descriptor,
            manifest,
            config,
            attached,
        })
    }

    /// Returns whether documents have OCI's media types: as is asked for, and where Docker's can't
    /// say what is.
    fn uses_oci_types(&self, wanted: &Wanted<'_>) -> bool {
        let options = wanted.options;
        options.oci_media_types || needs_oci_types(options) || self.attests_any(wanted)
    }

    /// Returns whether anything is said of any image, for which they need an index.
    fn attests_any(&self, wanted: &Wanted<'_>) -> bool {
        self.parts.iter().any(|part| wanted.attests.any(part))
    }

    fn check_annotations(&self, wanted: &Wanted<'_>) -> Result<()> {
        use AnnotationPlace::{Index, IndexDescriptor};
        let is_for_index = |place| matches!(place, Index | IndexDescriptor);
        let has_index = self.multi_platform || self.attests_any(wanted);
        for annotation in &wanted.options.annotations {
            if !has_index && is_for_index(annotation.place) {
                return Err(BuildError::invalid(
                    "index annotations not supported for single platform export",
                ));
            }
            if let Some(platform) = &annotation.platform
                && self.multi_platform
                && !self.parts.iter().any(|part| part.platform == platform)
            {
                return Err(BuildError::invalid(format!(
                    "invalid annotation: no platform {platform} found in source"
                )));
            }
        }
        Ok(())
    }
}

/// Puts the records into the config that its layers are results of. What a base image holds is
/// about that image.
fn set_inline_cache(
    part: &Part<'_>,
    config: &mut ImageConfig,
    vertex: &VertexProgress<'_>,
) -> Result<()> {
    config.other.remove(inline::FIELD);
    let Some(exporter) = part.inline_cache else {
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

fn config_of(part: &Part<'_>, layers: &[PackedLayer], epoch: Option<i64>) -> Result<ImageConfig> {
    let facts = |layer: &PackedLayer| LayerFacts {
        diff_id: layer.diff_id.clone(),
        created_at: layer.created_at,
        description: layer.description.clone(),
    };
    let facts: Vec<LayerFacts> = layers.iter().map(facts).collect();
    let base = part.lowered.base.as_ref();
    let base_history = base.map_or(0, |(_, config)| config.history.len());
    let bad = |error| BuildError::invalid("SOURCE_DATE_EPOCH is out of range").with_source(error);
    let epoch = epoch.map(jiff::Timestamp::from_second).transpose();
    let config = part.lowered.config.clone();
    Ok(config::finish(
        config,
        &facts,
        base_history,
        epoch.map_err(bad)?,
    ))
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
    platform: Option<&Platform>,
) -> BTreeMap<String, String> {
    let (of_all, of_platform): (Vec<_>, Vec<_>) = options
        .annotations
        .iter()
        .filter(|annotation| annotation.place == place)
        .filter(|annotation| [None, platform].contains(&annotation.platform.as_ref()))
        .partition(|annotation| annotation.platform.is_none());
    let annotations = of_all.into_iter().chain(of_platform);
    annotations
        .map(|annotation| (annotation.key.clone(), annotation.value.clone()))
        .collect()
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
