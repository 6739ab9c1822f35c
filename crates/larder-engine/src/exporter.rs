//! Writes results out: to the image store, as archives, as file trees.

mod archive;
mod attest;
mod config;
mod image;
mod index;
mod manifest;
mod recipe;
mod tree;

use std::collections::{BTreeMap, HashMap};

use larder_dockerfile::Lowered;
use larder_oci::{Descriptor, Digest, ImageRef, Platform};
use larder_store::{Lease, SnapshotId};

use crate::attest::{Attestation, Material, Pin, Plan};
use crate::cache::export::CacheExporter;
use crate::cancel::CancelFlag;
use crate::engine::Engine;
use crate::fetch::FarLayer;
use crate::layers::Packed;
use crate::progress::Reporter;

pub(crate) use archive::{ArchiveKind, ArchivedImage, ArchivedManifest, write_images};
pub(crate) use index::{IndexEntry, write_index};
pub(crate) use recipe::{leaves_store, recipe};

/// A result to be written out.
pub(crate) struct Export<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) cancel: &'a CancelFlag,
    pub(crate) lease: &'a Lease,
    pub(crate) packed: &'a Packed,
    pub(crate) reporter: &'a Reporter<'a>,
    /// What was built for each platform, in the order asked for; at least one.
    pub(crate) parts: Vec<Part<'a>>,
    /// Whether there may be several platforms: an image is an index then.
    pub(crate) multi_platform: bool,
    /// The layers of all images that the build stands on, by diff ID.
    pub(crate) base_layers: HashMap<Digest, Descriptor>,
    pub(crate) tags: &'a [ImageRef],
}

/// What was built for one platform.
#[derive(Clone)]
pub(crate) struct Part<'a> {
    pub(crate) platform: &'a Platform,
    /// The result's tree; `None` for an empty one, and for one that is far.
    pub(crate) snapshot: Option<SnapshotId>,
    /// The layers of a result whose tree is not in the store, lowest first: an image is made
    /// without fetching them.
    pub(crate) far: Vec<FarLayer>,
    pub(crate) lowered: &'a Lowered,
    /// The cache that the image is to hold, if it is.
    pub(crate) inline_cache: Option<&'a CacheExporter<'a>>,
    /// What is said of it, beside what a generator says.
    pub(crate) attest: &'a Plan,
    /// What a generator says of it.
    pub(crate) sbom: Vec<Attestation>,
    /// The generator's image.
    pub(crate) generator: Option<Material>,
    /// What pins the sources that were fetched, by their vertices.
    pub(crate) fetched: BTreeMap<Digest, Pin>,
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

    /// Returns what the build argument `SOURCE_DATE_EPOCH` says; it is the same for all platforms.
    fn source_date_epoch(&self) -> Option<i64> {
        self.parts.first()?.lowered.source_date_epoch
    }
}
