//! Pushing an image of the local store.

use std::collections::HashMap;

use larder_oci::{Descriptor, ImageManifest, ImageRef, Platform, go_json, media_type};
use larder_store::{Lease, SnapshotId};

use super::{PushedBlob, push_image};
use crate::cancel::CancelFlag;
use crate::engine::Engine;
use crate::error::{BuildError, ErrorClass, Result};
use crate::event::EventSink;
use crate::exporter::ArchivedManifest;
use crate::fetch::Fetcher;
use crate::image_store::assemble;
use crate::images::{ResolvedImage, document};
use crate::layers::{self, Packed, Packer, Recipe, compression_of};
use crate::progress::Reporter;
use crate::request::{LayerCompression, PushOptions};

/// What came of a push.
#[derive(Debug, Clone)]
pub struct PushOutcome {
    /// The manifest or index, as the registry has it.
    pub descriptor: Descriptor,
    /// The layers, lowest first, and the config; of an index, those of all images, each once.
    pub blobs: Vec<PushedBlob>,
}

impl Engine {
    /// Pushes the stored image `name` to its registry, under that name: of an index, all images that
    /// are stored, or the one for `platform`. Layers that are not stored in a compressed form are
    /// compressed first, once, and the manifest says so.
    ///
    /// # Errors
    /// When there is no such image, or the registry does not take it.
    pub fn push(
        &self,
        name: &ImageRef,
        platform: Option<&Platform>,
        options: PushOptions,
        sink: &dyn EventSink,
        cancel: &CancelFlag,
    ) -> Result<PushOutcome> {
        let lease = self.store.lease()?;
        let clock = || self.now();
        let reporter = Reporter::new(sink, &clock);
        let mut progress = reporter.begin_internal(&format!("pushing {name}"), "push");
        let fetcher = Fetcher::new(self, &lease, &progress, cancel);
        let pushed = push_stored(&fetcher, name, platform, options);
        match &pushed {
            Ok(_) => progress.complete(),
            Err(error) => progress.fail(&error.full_message()),
        };
        lease.release()?;
        self.gc();
        pushed
    }
}

fn push_stored(
    fetcher: &Fetcher<'_>,
    name: &ImageRef,
    platform: Option<&Platform>,
    options: PushOptions,
) -> Result<PushOutcome> {
    let lease = fetcher.lease;
    let info = lease.store().image_by_name(name)?.ok_or_else(|| {
        let message = format!("no image of the local store is named `{name}`");
        BuildError::new(ErrorClass::NotFound, message)
    })?;
    let status = fetcher.progress.status("exporting layers", 0);
    let memory = Packed::default();
    let packer = Packer::new(lease, &memory, fetcher.cancel);
    let mut make = |image: &ResolvedImage| travelling(&packer, image);
    let descriptor = assemble(lease, &info, platform, &mut make)?.descriptor;
    status.done();
    let blobs = push_image(fetcher, &descriptor, std::slice::from_ref(name), options)?;
    Ok(PushOutcome { descriptor, blobs })
}

/// Returns the manifest of an image as registries get it: with compressed layers, all of them
/// stored or to be had from a registry.
fn travelling(packer: &Packer<'_>, image: &ResolvedImage) -> Result<ArchivedManifest> {
    let lease = packer.lease;
    let mut manifest = image.manifest.clone();
    let diff_ids = &image.config.rootfs.diff_ids;
    let mut ready = HashMap::new();
    for (layer, diff_id) in manifest.layers.iter().zip(diff_ids) {
        if travels(lease, layer)? {
            ready.insert(diff_id.clone(), layer.clone());
        }
    }
    if ready.len() == manifest.layers.len() {
        return stored(lease, image, manifest);
    }
    let own = match unpacked(lease, image) {
        Some(snapshot) => layers::packed_layers(packer, snapshot, &Recipe::default(), &ready)?,
        None => Vec::new(),
    };
    for (position, diff_id) in diff_ids.iter().enumerate() {
        if ready.contains_key(diff_id) {
            continue;
        }
        // A layer that came from elsewhere may be packed in another way, under another diff ID.
        let made = own.get(position).filter(|layer| layer.diff_id == *diff_id);
        let made = match made {
            Some(layer) => layer.descriptor.clone(),
            None => layers::compressed(packer, &manifest.layers[position].digest)?,
        };
        manifest.layers[position] = Descriptor {
            media_type: gzip_type(&manifest).to_owned(),
            ..made
        };
    }
    stored(lease, image, manifest)
}

/// Returns whether a layer goes to registries as the manifest has it: a registry has it so, or it
/// is compressed and stored.
fn travels(lease: &Lease, layer: &Descriptor) -> Result<bool> {
    if !lease.store().origins(&layer.digest)?.is_empty() {
        return Ok(true);
    }
    let is_plain = compression_of(&layer.media_type) == Some(LayerCompression::Uncompressed);
    Ok(!is_plain && lease.hold_blobs(std::slice::from_ref(&layer.digest))?)
}

/// Returns the topmost layer of an image whose layers are unpacked, held.
pub(crate) fn unpacked<'a>(lease: &Lease, image: &'a ResolvedImage) -> Option<&'a SnapshotId> {
    let snapshot = image.snapshot.as_ref()?;
    let is_held = lease.hold_snapshots(std::slice::from_ref(snapshot));
    matches!(is_held, Ok(true)).then_some(snapshot)
}

fn gzip_type(manifest: &ImageManifest) -> &'static str {
    if manifest.media_type == media_type::DOCKER_MANIFEST {
        media_type::DOCKER_LAYER_GZIP
    } else {
        media_type::LAYER_GZIP
    }
}

/// Stores a manifest, unless it is the image's own.
fn stored(
    lease: &Lease,
    image: &ResolvedImage,
    manifest: ImageManifest,
) -> Result<ArchivedManifest> {
    let media_type = match manifest.media_type.as_str() {
        "" => media_type::MANIFEST,
        own => own,
    };
    let mut descriptor = if manifest == image.manifest {
        let digest = image.manifest_digest.clone();
        let bytes = document(lease, &digest)?;
        Descriptor::new(media_type, digest, bytes.len() as u64)
    } else {
        let bytes = go_json(&manifest);
        lease.put_blob(&bytes)?;
        Descriptor::of(media_type, &bytes)
    };
    descriptor.platform = Some(image.config.platform());
    Ok(ArchivedManifest {
        descriptor,
        manifest,
    })
}
