//! The manifests that lead to a cache, or to images with inline cache.

use larder_oci::{Descriptor, ImageManifest, go_json, media_type};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result, check_limit};
use crate::export::WrittenManifest;
use crate::{format, limit};

/// A layer's media type for OCI, and the same for Docker.
const LAYER_TYPES: [(&str, &str); 3] = [
    (media_type::LAYER, media_type::DOCKER_LAYER),
    (media_type::LAYER_GZIP, media_type::DOCKER_LAYER_GZIP),
    (media_type::LAYER_ZSTD, media_type::DOCKER_LAYER_ZSTD),
];

/// What a cache's manifest is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ManifestForm {
    /// An OCI image manifest, the config being the cache's: what all registries take.
    #[default]
    Image,
    /// An OCI index whose entries are the layers, and the config last.
    Index,
    /// The same as Docker's list of manifests.
    DockerList,
}

impl ManifestForm {
    /// Chooses as BuildKit does by the attributes `image-manifest`, where given, and
    /// `oci-mediatypes`.
    ///
    /// # Errors
    /// `Options` for an image manifest with Docker's media types.
    pub fn choose(image_manifest: Option<bool>, oci_media_types: bool) -> Result<Self> {
        match (image_manifest, oci_media_types) {
            (Some(true), false) => Err(Error::new(
                ErrorKind::Options,
                "`image-manifest=true` and `oci-mediatypes=false` exclude each other",
            )),
            (None | Some(true), true) => Ok(Self::Image),
            (Some(false), true) => Ok(Self::Index),
            (None | Some(false), false) => Ok(Self::DockerList),
        }
    }

    /// Returns the media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Image => media_type::MANIFEST,
            Self::Index => media_type::INDEX,
            Self::DockerList => media_type::DOCKER_MANIFEST_LIST,
        }
    }
}

/// What a manifest turns out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manifest {
    /// A cache: read its config, then [`Imported::parse`](crate::Imported::parse).
    Cache {
        /// The config's blob.
        config: Descriptor,
        /// The layers.
        layers: Vec<Descriptor>,
    },
    /// An image, whose config may hold inline cache: read that, then
    /// [`Imported::from_image`](crate::Imported::from_image).
    Image {
        /// The image config's blob.
        config: Descriptor,
        /// The layers, lowest first.
        layers: Vec<Descriptor>,
    },
    /// Images, or further lists of them, down to [`limit::INDEX_DEPTH`]; what else an index may
    /// list, such as attestations, is left out.
    Images(Vec<Descriptor>),
}

/// Both kinds of manifest: which one it is shows by what it has.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnyManifest {
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

impl Manifest {
    /// Reads what a reference or a layout leads to, whatever media type it came with.
    ///
    /// # Errors
    /// `TooLarge` for more bytes than [`limit::MANIFEST_BYTES`] or more entries than
    /// [`limit::LAYERS`]; `Invalid` if it is no manifest.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        check_limit("bytes of manifest", bytes.len(), limit::MANIFEST_BYTES)?;
        let any: AnyManifest = serde_json::from_slice(bytes)
            .map_err(|error| Error::invalid(format!("the manifest is not well-formed: {error}")))?;
        if let Some(manifests) = any.manifests {
            check_limit("entries", manifests.len(), limit::LAYERS)?;
            return Ok(Self::from_list(manifests));
        }
        let Some(config) = any.config else {
            let kind = any.media_type.unwrap_or_else(|| "unknown".to_owned());
            return Err(Error::invalid(format!(
                "a manifest of the type `{kind}` leads to no cache"
            )));
        };
        let layers = any.layers.unwrap_or_default();
        check_limit("layers", layers.len(), limit::LAYERS)?;
        if config.media_type == format::MEDIA_TYPE {
            return Ok(Self::Cache { config, layers });
        }
        Ok(Self::Image { config, layers })
    }

    fn from_list(manifests: Vec<Descriptor>) -> Self {
        let (mut configs, others): (Vec<_>, Vec<_>) = manifests
            .into_iter()
            .partition(|entry| entry.media_type == format::MEDIA_TYPE);
        if let Some(config) = configs.pop() {
            return Self::Cache {
                config,
                layers: others,
            };
        }
        let is_image = |entry: &Descriptor| {
            media_type::is_manifest(&entry.media_type) || media_type::is_index(&entry.media_type)
        };
        Self::Images(others.into_iter().filter(is_image).collect())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Descriptor>,
}

pub(crate) fn write(
    form: ManifestForm,
    config: Descriptor,
    mut layers: Vec<Descriptor>,
) -> WrittenManifest {
    for layer in &mut layers {
        layer.media_type = layer_type(&layer.media_type, form);
    }
    let bytes = if form == ManifestForm::Image {
        go_json(&ImageManifest {
            schema_version: 2,
            media_type: form.media_type().to_owned(),
            config,
            layers,
            annotations: std::collections::BTreeMap::new(),
        })
    } else {
        layers.push(config);
        go_json(&List {
            schema_version: 2,
            media_type: form.media_type(),
            manifests: layers,
        })
    };
    WrittenManifest {
        descriptor: Descriptor::of(form.media_type(), &bytes),
        bytes,
    }
}

/// Returns the media type of a layer as a manifest of this form has it.
fn layer_type(media_type: &str, form: ManifestForm) -> String {
    let known = LAYER_TYPES
        .iter()
        .find(|(oci, docker)| media_type == *oci || media_type == *docker);
    match (known, form) {
        (Some((_, docker)), ManifestForm::DockerList) => (*docker).to_owned(),
        (Some((oci, _)), _) => (*oci).to_owned(),
        (None, _) => media_type.to_owned(),
    }
}
