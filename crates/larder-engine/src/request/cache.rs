//! Caches beyond the store: where a build takes results from, and where it leaves them.

use std::path::PathBuf;

use larder_cache::ManifestForm;
use larder_oci::{Digest, ImageRef};

use super::LayerCompression;

/// A cache that results may be taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheImport {
    /// A cache in a registry, or an image with inline cache.
    Registry {
        /// Its name.
        image_ref: ImageRef,
        /// Whether plain http and unknown certificates will do.
        insecure: bool,
    },
    /// A cache in an OCI layout.
    Local {
        /// The layout's directory.
        path: PathBuf,
        /// The manifest; found by the tag by default.
        digest: Option<Digest>,
        /// The tag; `latest` by default.
        tag: Option<String>,
    },
}

impl CacheImport {
    /// Returns what it is called in progress, and on record.
    pub fn name(&self) -> String {
        match self {
            Self::Registry { image_ref, .. } => image_ref.to_string(),
            Self::Local { path, .. } => format!("local:{}", path.display()),
        }
    }
}

/// A cache that results go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheExport {
    /// Where it is.
    pub target: CacheTarget,
    /// Whose layers it holds.
    pub mode: CacheMode,
    /// How layers that this build made are compressed.
    pub compression: LayerCompression,
    /// How hard, in the compressor's own numbers; its usual level by default.
    pub compression_level: Option<i32>,
    /// Whether the layers of base images are compressed likewise; they stay as they are otherwise.
    pub force_compression: bool,
    /// What its manifest is written as.
    pub form: ManifestForm,
    /// Whether a failure to write it is told of, and fails nothing.
    pub ignore_error: bool,
    /// Whether it is written even if the build fails, with the steps that were done by then.
    pub on_failure: bool,
}

impl CacheExport {
    /// Returns an export to `target` with everything else as BuildKit has it by default, but that
    /// it is also done when the build fails.
    pub fn new(target: CacheTarget) -> Self {
        Self {
            target,
            mode: CacheMode::Min,
            compression: LayerCompression::default(),
            compression_level: None,
            force_compression: false,
            form: ManifestForm::default(),
            ignore_error: false,
            on_failure: true,
        }
    }
}

/// Where a cache is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheTarget {
    /// A name in a registry.
    Registry {
        /// The name.
        image_ref: ImageRef,
        /// Whether plain http and unknown certificates will do.
        insecure: bool,
    },
    /// An OCI layout, made if absent. Blobs that none of its caches refers to are removed.
    Local {
        /// The layout's directory.
        path: PathBuf,
        /// The tag; `latest` by default.
        tag: Option<String>,
        /// Whether the caches under other tags go.
        reset: bool,
    },
    /// The config of the images that the build exports. Only results that the image's own layers
    /// make up are in it.
    Inline,
}

/// Whose layers a cache holds. The records are those of all steps, whatever the mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// Those of the result.
    #[default]
    Min,
    /// Those of all steps, also in other stages.
    Max,
}
