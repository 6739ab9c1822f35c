//! Writing: a cache as a config with a manifest.

use std::sync::Arc;

use larder_oci::Descriptor;

use crate::build;
use crate::format::{self, CacheConfig};
use crate::manifest::{self, ManifestForm};
use crate::record::{Record, RemoteLayer};

/// A cache about to be written.
#[derive(Debug, Clone)]
pub struct Exported {
    config: CacheConfig,
    config_bytes: Vec<u8>,
    layers: Vec<Arc<RemoteLayer>>,
}

/// A manifest as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenManifest {
    /// Names [`WrittenManifest::bytes`].
    pub descriptor: Descriptor,
    /// The JSON.
    pub bytes: Vec<u8>,
}

impl Exported {
    /// Normalizes `records`, which may come in any order and more than once: records to which all
    /// the same leads are joined, links that close a circle are left out, and so are records that no
    /// combination of alternatives leads to. All links must lead into the list.
    ///
    /// Records that have only some alternatives in common stay apart: joined, they would say that
    /// what the others name is the same, too.
    pub fn new(records: &[Record]) -> Self {
        let (config, layers) = build::config(records);
        Self {
            config_bytes: config.to_json(),
            config,
            layers,
        }
    }

    /// Returns the config.
    pub fn config(&self) -> &CacheConfig {
        &self.config
    }

    /// Returns the config as it is written.
    pub fn config_bytes(&self) -> &[u8] {
        &self.config_bytes
    }

    /// Names [`Exported::config_bytes`].
    pub fn config_descriptor(&self) -> Descriptor {
        Descriptor::of(format::MEDIA_TYPE, &self.config_bytes)
    }

    /// Returns the layers in the order of the config. A blob that lies on several others occurs as
    /// often.
    pub fn layers(&self) -> &[Arc<RemoteLayer>] {
        &self.layers
    }

    /// Returns a manifest of config and layers.
    pub fn manifest(&self, form: ManifestForm) -> WrittenManifest {
        let layers = self.layers.iter().map(|layer| layer.annotated()).collect();
        manifest::write(form, self.config_descriptor(), layers)
    }
}
