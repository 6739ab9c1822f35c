//! A stored image as it leaves the store: of an index, its images, put together again.

use std::collections::BTreeMap;

use larder_oci::{Descriptor, Digest, ImageIndex, ImageManifest, Platform, annotation};
use larder_store::{ImageInfo, Lease};

use crate::error::{BuildError, ErrorClass, Result};
use crate::exporter::{ArchivedManifest, IndexEntry, write_index};
use crate::images::{ResolvedImage, as_index, document, read_image};

/// An image, or an index with its images, whose documents are in the store.
pub(crate) struct Assembled {
    /// The only image's manifest, or the index.
    pub(crate) descriptor: Descriptor,
    /// The manifests: the one that stands for all comes first.
    pub(crate) manifests: Vec<ArchivedManifest>,
}

/// Puts together what is stored of an image: all its platforms, or the one asked for. `make` says of
/// each image how it leaves the store. Of an index of which but one image is stored, that is what
/// comes out.
///
/// What is attached to an image goes along if the image's manifest is the same as before.
///
/// # Errors
/// `NotFound` if the platform is not there; what `make` returns.
pub(crate) fn assemble(
    lease: &Lease,
    info: &ImageInfo,
    platform: Option<&Platform>,
    make: &mut dyn FnMut(&ResolvedImage) -> Result<ArchivedManifest>,
) -> Result<Assembled> {
    let index = as_index(&document(lease, &info.manifest.digest)?);
    let images = match (index, platform) {
        (Some(index), None) => stored_images(lease, info, index)?,
        _ => Stored::single(read_image(lease, info, platform)?),
    };
    let Stored { index, images } = images;
    let mut ready: BTreeMap<Digest, ArchivedManifest> = BTreeMap::new();
    for image in &images {
        ready.insert(image.manifest_digest.clone(), make(image)?);
    }
    let Some(index) = index else {
        let only = ready.into_values().next().ok_or_else(nothing)?;
        return Ok(Assembled {
            descriptor: only.descriptor.clone(),
            manifests: vec![only],
        });
    };
    let mut attached = Vec::new();
    let descriptor = reassemble(lease, info, &index, &ready, &mut attached)?;
    let mut manifests: Vec<ArchivedManifest> = images
        .iter()
        .filter_map(|image| ready.remove(&image.manifest_digest))
        .collect();
    manifests.extend(attached);
    Ok(Assembled {
        descriptor,
        manifests,
    })
}

/// What is stored of an image.
struct Stored {
    /// `None` where a single image goes by itself.
    index: Option<ImageIndex>,
    /// The one that stands for all comes first.
    images: Vec<ResolvedImage>,
}

impl Stored {
    fn single(image: ResolvedImage) -> Self {
        Self {
            index: None,
            images: vec![image],
        }
    }
}

/// Reads the images of an index that are stored.
fn stored_images(lease: &Lease, info: &ImageInfo, index: ImageIndex) -> Result<Stored> {
    let mut images: Vec<ResolvedImage> = Vec::new();
    for platform in info.images().iter().map(|image| image.platform.parse()) {
        let Ok(platform) = platform else { continue };
        let image = match read_image(lease, info, Some(&platform)) {
            Ok(image) => image,
            Err(error) if error.class() == ErrorClass::NotFound => continue,
            Err(error) => return Err(error),
        };
        let is_same = |other: &ResolvedImage| other.manifest_digest == image.manifest_digest;
        if !images.iter().any(is_same) {
            images.push(image);
        }
    }
    let is_whole = index.images().count() == images.len();
    match images.len() {
        0 => Err(nothing()),
        1 if !is_whole => Ok(Stored::single(images.remove(0))),
        _ => Ok(Stored {
            index: Some(index),
            images,
        }),
    }
}

/// Writes the index of what was made of images; returns it as it is if nothing changed. Adds to
/// `attached` what goes along.
fn reassemble(
    lease: &Lease,
    info: &ImageInfo,
    index: &ImageIndex,
    made: &BTreeMap<Digest, ArchivedManifest>,
    attached: &mut Vec<ArchivedManifest>,
) -> Result<Descriptor> {
    let about = |descriptor: &Descriptor| -> Option<Digest> {
        let digest = descriptor.annotations.get(annotation::REFERENCE_DIGEST)?;
        digest.parse().ok()
    };
    let mut entries = Vec::new();
    for image in index.images() {
        let Some(made) = made.get(&image.digest) else {
            continue;
        };
        let manifest = Descriptor {
            annotations: image.annotations.clone(),
            platform: image.platform.clone(),
            ..made.descriptor.clone()
        };
        let mut entry = IndexEntry {
            attached: Vec::new(),
            manifest,
        };
        let is_same = entry.manifest.digest == image.digest;
        let about_it = index
            .manifests
            .iter()
            .filter(|other| is_same && about(other).as_ref() == Some(&image.digest));
        for other in about_it {
            if let Ok(manifest) = attached_manifest(lease, other) {
                entry.attached.push(other.clone());
                attached.push(manifest);
            }
        }
        entries.push(entry);
    }
    let count: usize = entries.iter().map(|entry| 1 + entry.attached.len()).sum();
    let is_same = |entry: &IndexEntry| made.contains_key(&entry.manifest.digest);
    if entries.iter().all(is_same) && index.manifests.len() == count {
        return Ok(info.manifest.clone());
    }
    let annotations = index.annotations.clone();
    write_index(lease, &info.manifest.media_type, entries, annotations)
}

/// Reads a manifest that is attached to an image, and holds it with its blobs.
fn attached_manifest(lease: &Lease, descriptor: &Descriptor) -> Result<ArchivedManifest> {
    let bytes = document(lease, &descriptor.digest)?;
    let manifest: ImageManifest = serde_json::from_slice(&bytes).map_err(|error| {
        let message = format!("manifest `{}` is not valid", descriptor.digest);
        BuildError::invalid(message).with_source(error)
    })?;
    let mut blobs = vec![descriptor.digest.clone(), manifest.config.digest.clone()];
    blobs.extend(manifest.layers.iter().map(|layer| layer.digest.clone()));
    if !lease.hold_blobs(&blobs)? {
        return Err(nothing());
    }
    Ok(ArchivedManifest {
        descriptor: descriptor.clone(),
        manifest,
    })
}

fn nothing() -> BuildError {
    let message = "the store has the index, but none of its images";
    BuildError::new(ErrorClass::NotFound, message)
}
