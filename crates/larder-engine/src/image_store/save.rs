//! Writes stored images as archives.

use std::collections::HashMap;

use larder_oci::{Descriptor, ImageManifest, ImageRef, Platform, go_json, media_type};
use larder_store::Lease;

use super::assemble;
use crate::cancel::CancelFlag;
use crate::engine::Engine;
use crate::error::Result;
use crate::exporter::{ArchiveKind, ArchivedImage, ArchivedManifest, write_images};
use crate::fetch::{Fetcher, Origin};
use crate::images::{ResolvedImage, document};
use crate::layers::{self, Packed, Packer, Recipe};
use crate::output;
use crate::progress::Reporter;
use crate::push::unpacked;
use crate::request::Destination;

impl Engine {
    /// Writes images as one tar that `docker load` and OCI tools read: of an index, all images that
    /// are stored, or the one for `platform`. Layers that are not stored as blobs are compressed
    /// first, and the manifest says so; those that are not stored at all are fetched.
    pub fn save_images(
        &self,
        images: &[String],
        platform: Option<&Platform>,
        destination: Destination,
    ) -> Result<()> {
        let lease = self.store.lease()?;
        let mut archived: Vec<ArchivedImage> = Vec::new();
        for text in images {
            let image = self.archived(&lease, text, platform)?;
            let same = archived
                .iter_mut()
                .find(|other| other.descriptor.digest == image.descriptor.digest);
            match same {
                Some(other) => {
                    let is_new = |name: &ImageRef| !other.names.contains(name);
                    let further: Vec<_> = image.names.into_iter().filter(is_new).collect();
                    other.names.extend(further);
                }
                None => archived.push(image),
            }
        }
        output::write(destination, |out| {
            write_images(&self.store, &archived, ArchiveKind::Docker, out)
        })?;
        Ok(lease.release()?)
    }

    /// Finds the image that `text` names, and sees that all its blobs are stored. It keeps this
    /// name; named by its id, all it has.
    fn archived(
        &self,
        lease: &Lease,
        text: &str,
        platform: Option<&Platform>,
    ) -> Result<ArchivedImage> {
        let info = self.store.resolve_image(text)?;
        let names: Vec<ImageRef> = match text.parse::<ImageRef>() {
            Ok(name) if info.names.contains(&name.to_string()) => vec![name],
            _ => info
                .names
                .iter()
                .filter_map(|name| name.parse().ok())
                .collect(),
        };
        let mut make = |image: &ResolvedImage| self.with_blobs(lease, image);
        let assembled = assemble(lease, &info, platform, &mut make)?;
        Ok(ArchivedImage {
            descriptor: assembled.descriptor,
            manifests: assembled.manifests,
            names,
        })
    }

    /// Returns the manifest of an image whose layers are all stored as blobs.
    fn with_blobs(&self, lease: &Lease, image: &ResolvedImage) -> Result<ArchivedManifest> {
        let mut manifest = image.manifest.clone();
        self.store_layers(lease, image, &mut manifest)?;
        let bytes = go_json(&manifest);
        let mut descriptor = Descriptor::of(media_type::MANIFEST, &bytes);
        if manifest == image.manifest {
            let own = image.manifest_digest.clone();
            let size_bytes = document(lease, &own)?.len() as u64;
            descriptor = Descriptor::new(manifest_type(&manifest), own, size_bytes);
        } else {
            lease.put_blob(&bytes)?;
        }
        descriptor.platform = Some(image.config.platform());
        Ok(ArchivedManifest {
            descriptor,
            manifest,
        })
    }

    /// Makes blobs of the layers that have none: of what is unpacked if that gives the same layers,
    /// else they are fetched.
    fn store_layers(
        &self,
        lease: &Lease,
        image: &ResolvedImage,
        manifest: &mut ImageManifest,
    ) -> Result<()> {
        let mut missing = Vec::new();
        for (position, layer) in manifest.layers.iter().enumerate() {
            if !lease.hold_blobs(std::slice::from_ref(&layer.digest))? {
                missing.push(position);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let (memory, cancel) = (Packed::default(), CancelFlag::new());
        let packer = Packer::new(lease, &memory, &cancel);
        let own = match unpacked(lease, image) {
            Some(snapshot) => {
                layers::packed_layers(&packer, snapshot, &Recipe::default(), &HashMap::new())?
            }
            None => Vec::new(),
        };
        let clock = || self.now();
        let silent = |_event| {};
        let reporter = Reporter::new(&silent, &clock);
        let progress = reporter.begin_internal("save", "");
        let fetcher = Fetcher::new(self, lease, &progress, &cancel);
        for position in missing {
            let layer = &mut manifest.layers[position];
            let diff_id = &image.config.rootfs.diff_ids[position];
            match own.get(position).filter(|it| it.diff_id == *diff_id) {
                Some(made) => *layer = made.descriptor.clone(),
                None => fetcher
                    .blob(layer, &Origin::Noted)
                    .map_err(|error| error.context(format!("cannot fetch layer `{diff_id}`")))?,
            }
        }
        Ok(())
    }
}

fn manifest_type(manifest: &ImageManifest) -> &str {
    match manifest.media_type.as_str() {
        "" => media_type::MANIFEST,
        own => own,
    }
}
