//! Pushes images and caches to registries: blobs first, all at once, manifests last.

mod blobs;
mod stored;

use larder_oci::{Descriptor, Digest, ImageIndex, ImageManifest, ImageRef, media_type};
pub use larder_registry::Pushed;
use larder_store::Lease;

pub use self::stored::PushOutcome;
pub(crate) use self::stored::unpacked;

use self::blobs::until_canceled;
use crate::error::{BuildError, Result};
use crate::fetch::{Fetcher, repository};
use crate::images::MAX_DOCUMENT_BYTES;
use crate::request::PushOptions;

/// A blob of a pushed image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedBlob {
    /// The blob.
    pub descriptor: Descriptor,
    /// How the registry came to it.
    pub pushed: Pushed,
}

/// Pushes `image`, a manifest or an index in the store, under `names`; returns what became of its
/// blobs, in the order of the manifests, for each repository.
///
/// Blobs that the store lacks are taken from where they are known to be: by the registry itself if
/// that is in one of its repositories, else by way of the store.
pub(crate) fn push_image(
    fetcher: &Fetcher<'_>,
    image: &Descriptor,
    names: &[ImageRef],
    options: PushOptions,
) -> Result<Vec<PushedBlob>> {
    let content = Content::of(fetcher.lease, image)?;
    let mut pushed = Vec::new();
    for (position, name) in names.iter().enumerate() {
        let is_known = |other: &ImageRef| repository(other) == repository(name);
        if names[..position].iter().any(is_known) {
            continue;
        }
        let group = names[position..].iter().filter(|other| is_known(other));
        let group: Vec<&ImageRef> = group.collect();
        pushed.extend(push_to(fetcher, &content, &group, options)?);
    }
    Ok(pushed)
}

/// Pushes to one repository, under one name or several.
fn push_to(
    fetcher: &Fetcher<'_>,
    content: &Content,
    names: &[&ImageRef],
    options: PushOptions,
) -> Result<Vec<PushedBlob>> {
    let registry = names[0].registry();
    let client = if options.insecure {
        fetcher.engine.registry().trusting(registry)
    } else {
        fetcher.engine.registry().clone()
    };
    let status = fetcher.progress.status("pushing layers", 0);
    let pushed = blobs::push_all(fetcher, &client, names[0], &content.blobs)?;
    status.done();
    let push = |name: &ImageRef, manifest: &Manifest| {
        let media_type = &manifest.descriptor.media_type;
        let sent = client.push_manifest(name, media_type, &manifest.bytes);
        until_canceled(fetcher, sent)
    };
    let (top, parts) = content.manifests.split_last().ok_or_else(no_manifest)?;
    for part in parts {
        push(&by_digest(names[0], &part.descriptor.digest)?, part)?;
    }
    for name in names {
        let digest = &top.descriptor.digest;
        let pinned = name.with_digest(digest.clone());
        let status = fetcher
            .progress
            .status(format!("pushing manifest for {pinned}"), 0);
        if options.by_digest {
            push(&by_digest(name, digest)?, top)?;
        } else {
            push(name, top)?;
        }
        status.done();
    }
    let digests: Vec<&Digest> = content.blobs.iter().map(|blob| &blob.digest).collect();
    let store = fetcher.lease.store();
    store.add_origin(&repository(names[0]), &digests)?;
    Ok(pushed)
}

fn no_manifest() -> BuildError {
    BuildError::internal("an image came out without a manifest")
}

/// Returns the name of what has `digest` in the repository of `name`, which has no tag there.
fn by_digest(name: &ImageRef, digest: &Digest) -> Result<ImageRef> {
    format!("{}@{digest}", repository(name))
        .parse()
        .map_err(|error| BuildError::internal("a digest is no reference").with_source(error))
}

/// All that belongs to an image.
struct Content {
    /// The parts of an index before it; the last is the image itself.
    manifests: Vec<Manifest>,
    /// Each once.
    blobs: Vec<Descriptor>,
}

struct Manifest {
    descriptor: Descriptor,
    bytes: Vec<u8>,
}

impl Content {
    /// Reads the documents of `image` from the store.
    fn of(lease: &Lease, image: &Descriptor) -> Result<Self> {
        let mut content = Self {
            manifests: Vec::new(),
            blobs: Vec::new(),
        };
        content.add(lease, image, true)?;
        Ok(content)
    }

    fn add(&mut self, lease: &Lease, descriptor: &Descriptor, may_be_index: bool) -> Result<()> {
        let bytes = lease
            .store()
            .read_blob(&descriptor.digest, MAX_DOCUMENT_BYTES)?;
        let unread = |error| {
            let message = format!("manifest `{}` is not valid", descriptor.digest);
            BuildError::invalid(message).with_source(error)
        };
        if media_type::is_index(&descriptor.media_type) && may_be_index {
            let index: ImageIndex = serde_json::from_slice(&bytes).map_err(unread)?;
            for part in index.manifests {
                // A cache's index names blobs, too.
                if media_type::is_manifest(&part.media_type) {
                    self.add(lease, &part, false)?;
                } else {
                    self.add_blob(part);
                }
            }
        } else {
            let manifest: ImageManifest = serde_json::from_slice(&bytes).map_err(unread)?;
            for blob in manifest.layers.into_iter().chain([manifest.config]) {
                self.add_blob(blob);
            }
        }
        self.manifests.push(Manifest {
            descriptor: descriptor.clone(),
            bytes,
        });
        Ok(())
    }

    fn add_blob(&mut self, blob: Descriptor) {
        if self.blobs.iter().all(|known| known.digest != blob.digest) {
            self.blobs.push(blob);
        }
    }
}
