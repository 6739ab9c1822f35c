//! The cache as larder sees it: records, linked, with results that are lists of layers.

use std::sync::Arc;

use jiff::Timestamp;
use larder_oci::{Descriptor, Digest, media_type};

/// Annotations of a layer's descriptor in a cache manifest.
pub mod annotation {
    /// The layer's diff ID.
    pub const DIFF_ID: &str = "containerd.io/uncompressed";
    /// When the layer was made, RFC 3339.
    pub const CREATED_AT: &str = "buildkit/createdat";
    /// Which step made the layer.
    pub const DESCRIPTION: &str = "buildkit/description";
}

/// A cache record: one output of an op, over one combination of inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// `sha256("<op digest>@<output>")`; of contents, the output is -1.
    pub digest: Digest,
    /// For each input of the op, the alternatives that it is known by. Empty for a source or for
    /// a content.
    pub inputs: Vec<Vec<Link>>,
    /// What is stored, the newest first. Most records have one result or none.
    pub results: Vec<RecordResult>,
}

impl Record {
    /// Returns a record without inputs and results.
    pub fn new(digest: Digest) -> Self {
        Self {
            digest,
            inputs: Vec::new(),
            results: Vec::new(),
        }
    }
}

/// One of the alternatives of an input.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// The digest of what is selected from the input; `None` for all of it, and for contents.
    pub selector: Option<Digest>,
    /// The record's index in the list of all.
    pub record: usize,
}

/// A stored result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordResult {
    /// The layers, lowest first; never empty where a cache was read.
    pub layers: Vec<Arc<RemoteLayer>>,
    /// When it was made, if known.
    pub created_at: Option<Timestamp>,
}

/// A layer that is stored elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteLayer {
    /// The blob, with the annotations that its manifest has.
    pub descriptor: Descriptor,
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// When it was made, if known.
    pub created_at: Option<Timestamp>,
}

impl RemoteLayer {
    /// Reads a layer from a descriptor of a cache manifest; `None` if that does not tell the diff
    /// ID, without which a layer can't be checked.
    pub fn from_descriptor(descriptor: &Descriptor) -> Option<Self> {
        let annotations = &descriptor.annotations;
        let diff_id = match annotations.get(annotation::DIFF_ID) {
            Some(text) => text.parse().ok()?,
            None if is_uncompressed(&descriptor.media_type) => descriptor.digest.clone(),
            None => return None,
        };
        let created_at = annotations
            .get(annotation::CREATED_AT)
            .and_then(|time| time.parse().ok());
        Some(Self {
            descriptor: descriptor.clone(),
            diff_id,
            created_at,
        })
    }

    /// Returns the descriptor with annotations that tell all of the layer.
    pub(crate) fn annotated(&self) -> Descriptor {
        let mut descriptor = self.descriptor.clone();
        let annotations = &mut descriptor.annotations;
        annotations.insert(annotation::DIFF_ID.to_owned(), self.diff_id.to_string());
        if let Some(created_at) = self.created_at {
            annotations.insert(annotation::CREATED_AT.to_owned(), created_at.to_string());
        }
        descriptor
    }
}

fn is_uncompressed(media_type: &str) -> bool {
    matches!(media_type, media_type::LAYER | media_type::DOCKER_LAYER)
}
