//! Pulling an image into the local store.

use larder_oci::{Descriptor, Digest, ImageRef, Platform};
use larder_store::NewImage;

use crate::cancel::CancelFlag;
use crate::engine::Engine;
use crate::error::{BuildError, ErrorClass, Result};
use crate::event::EventSink;
use crate::fetch::Fetcher;
use crate::images::{Images, ResolvedImage};
use crate::ops;
use crate::progress::{Reporter, VertexProgress};

/// What came of a pull.
#[derive(Debug, Clone)]
pub struct PullOutcome {
    /// What the name stands for: a manifest, or an index.
    pub target: Digest,
    /// The layers of the image for the platform, lowest first, and whether the store had each
    /// already, packed or unpacked.
    pub layers: Vec<(Descriptor, bool)>,
    /// Whether the name stood for something else before, or for nothing.
    pub is_new: bool,
}

impl Engine {
    /// Pulls the image that `image_ref` stands for in its registry, for `platform` or else for this
    /// machine's, and unpacks it.
    ///
    /// # Errors
    /// When the registry has no such image, none for the platform asked for, or can't be reached.
    pub fn pull(
        &self,
        image_ref: &ImageRef,
        platform: Option<&Platform>,
        sink: &dyn EventSink,
        cancel: &CancelFlag,
    ) -> Result<PullOutcome> {
        let clock = || self.now();
        let reporter = Reporter::new(sink, &clock);
        let mut progress = reporter.begin_internal(&format!("pulling {image_ref}"), "pull");
        let pulled = self.pull_with(image_ref, platform, &progress, cancel);
        match &pulled {
            Ok(_) => progress.complete(),
            Err(error) => progress.fail(&error.full_message()),
        };
        self.gc();
        pulled
    }

    fn pull_with(
        &self,
        image_ref: &ImageRef,
        platform: Option<&Platform>,
        progress: &VertexProgress<'_>,
        cancel: &CancelFlag,
    ) -> Result<PullOutcome> {
        let lease = self.store.lease()?;
        let before = self.store.image_by_name(image_ref)?;
        let host = Platform::host();
        let wanted = platform.unwrap_or(&host);
        let image = Images::new(self, &lease, true, cancel).resolve(image_ref, wanted)?;
        if platform.is_some() && !image.fits() {
            let own = image.config.platform();
            let message = format!("`{image_ref}` is an image for {own}, not for {wanted}");
            return Err(BuildError::new(ErrorClass::NotFound, message));
        }
        cancel.check()?;
        let is_new = before.is_none_or(|before| before.manifest.digest != image.target);
        let mut layers = Vec::new();
        for layer in image.layers() {
            let is_here = lease.hold_blobs(std::slice::from_ref(&layer.descriptor.digest))?;
            layers.push((layer.descriptor, is_here));
        }
        if !image.manifest.layers.is_empty() {
            let fetcher = Fetcher::new(self, &lease, progress, cancel);
            let snapshot = ops::image::pull(&fetcher, &image)?;
            let target = self.store.resolve_image(image.target.as_str())?.manifest;
            let new = NewImage {
                manifest: &target,
                config: &image.manifest.config.digest,
                platform: &image.config.platform().to_string(),
                created_at: created_at(&image),
                snapshot: Some(&snapshot),
                others: &[],
                blobs: &[],
            };
            lease.add_image(&new, names(image_ref))?;
        }
        lease.release()?;
        Ok(PullOutcome {
            target: image.target,
            layers,
            is_new,
        })
    }
}

fn created_at(image: &ResolvedImage) -> Option<jiff::Timestamp> {
    image.config.created.as_ref()?.parse().ok()
}

/// Returns the names that the image gets: a digest is none.
fn names(image_ref: &ImageRef) -> &[ImageRef] {
    match image_ref.digest() {
        None => std::slice::from_ref(image_ref),
        Some(_) => &[],
    }
}
