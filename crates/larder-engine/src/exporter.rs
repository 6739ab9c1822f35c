//! Writes results out: to the image store, as archives, as file trees.

mod archive;
mod config;
mod image;
mod manifest;
mod tree;

use std::collections::HashMap;

use larder_dockerfile::Lowered;
use larder_oci::{Descriptor, Digest, ImageRef};
use larder_store::{Lease, SnapshotId};

use crate::cache::export::CacheExporter;
use crate::cancel::CancelFlag;
use crate::engine::Engine;
use crate::fetch::FarLayer;
use crate::progress::Reporter;

pub(crate) use archive::{ArchiveKind, ArchivedImage, write_images};

/// A result to be written out.
pub(crate) struct Export<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) cancel: &'a CancelFlag,
    pub(crate) lease: &'a Lease,
    pub(crate) reporter: &'a Reporter<'a>,
    /// The result's tree; `None` for an empty one, and for one that is far.
    pub(crate) snapshot: Option<&'a SnapshotId>,
    /// The layers of a result whose tree is not in the store, lowest first: an image is made
    /// without fetching them.
    pub(crate) far: &'a [FarLayer],
    pub(crate) lowered: &'a Lowered,
    /// The layers of all images that the build stands on, by diff ID.
    pub(crate) base_layers: HashMap<Digest, Descriptor>,
    pub(crate) tags: &'a [ImageRef],
    /// The cache that images are to hold, if they are.
    pub(crate) inline_cache: Option<&'a CacheExporter<'a>>,
}

impl Export<'_> {
    /// Returns the request's tags and `further` names, each once.
    fn names(&self, further: &[ImageRef]) -> Vec<ImageRef> {
        let mut names: Vec<ImageRef> = Vec::new();
        for name in self.tags.iter().chain(further) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }
}
