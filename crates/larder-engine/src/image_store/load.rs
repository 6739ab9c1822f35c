//! Reads images from archives.

use std::collections::BTreeMap;
use std::io::Read;

use larder_oci::{
    Descriptor, Digest, ImageIndex, ImageManifest, ImageRef, Platform, go_json, media_type,
};
use larder_store::{Lease, NewImage, PlatformImage};
use larder_tree::compression::Decoder;
use larder_tree::tar::{Kind, Reader};
use serde::Deserialize;

use crate::engine::Engine;
use crate::error::{BuildError, Result};
use crate::images::{MAX_DOCUMENT_BYTES, ResolvedImage, as_index, document, read_documents};
use crate::request::ImageOutcome;

/// An entry of the `manifest.json` that `docker save` writes.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Engine {
    /// Reads images from a tar, compressed or not: an OCI layout, or what `docker save` writes.
    /// `names` are given in place of those in the archive.
    ///
    /// # Errors
    /// Of class `Invalid` when the archive is neither, or what it holds has other digests than it
    /// says.
    pub fn load_images(
        &self,
        archive: &mut dyn Read,
        names: &[ImageRef],
    ) -> Result<Vec<ImageOutcome>> {
        let lease = self.store.lease()?;
        let content = read_archive(&lease, archive)?;
        let images = match (&content.index, &content.docker) {
            (Some(index), _) => index
                .manifests
                .iter()
                .map(|descriptor| load_oci(&lease, descriptor, names))
                .collect::<Result<Vec<_>>>()?,
            (None, Some(docker)) => docker
                .iter()
                .map(|image| load_docker(&lease, image, &content.files, names))
                .collect::<Result<Vec<_>>>()?,
            (None, None) => {
                let message =
                    "the archive holds no image: it has neither `index.json` nor `manifest.json`";
                return Err(BuildError::invalid(message));
            }
        };
        lease.release()?;
        Ok(merge_names(images))
    }
}

fn load_oci(lease: &Lease, descriptor: &Descriptor, names: &[ImageRef]) -> Result<ImageOutcome> {
    let images = read_all(lease, descriptor)?;
    let annotation = |key: &str| descriptor.annotations.get(key);
    let names = match names {
        [] => {
            let full = annotation("io.containerd.image.name");
            let short = annotation("org.opencontainers.image.ref.name");
            let name = full.or(short.filter(|name| name.contains([':', '/'])));
            name.map(|name| name.parse())
                .transpose()
                .map_err(bad_name)?
                .into_iter()
                .collect()
        }
        names => names.to_vec(),
    };
    keep(lease, descriptor, &images, names)
}

/// Reads what an entry of an archive leads to: one image, or those of an index that the archive has.
fn read_all(lease: &Lease, descriptor: &Descriptor) -> Result<Vec<ResolvedImage>> {
    let host = Platform::host();
    let read = |platform: &Platform| read_documents(lease, &descriptor.digest, platform);
    let Some(index) = as_index(&document(lease, &descriptor.digest)?) else {
        return Ok(vec![read(&host)?]);
    };
    let mut images: Vec<ResolvedImage> = Vec::new();
    for image in index.images() {
        let platform = image.platform.as_ref().unwrap_or(&host);
        if lease.store().has_blob(&image.digest)? {
            images.push(read(platform)?);
        }
    }
    // The host's comes first: it stands for all.
    images.sort_by_key(|image| {
        let rank = image.config.platform().rank_for(&host);
        rank.unwrap_or(usize::MAX)
    });
    Ok(images)
}

fn load_docker(
    lease: &Lease,
    image: &DockerImage,
    files: &BTreeMap<String, Descriptor>,
    names: &[ImageRef],
) -> Result<ImageOutcome> {
    let file = |path: &String| {
        let missing = || {
            BuildError::invalid(format!(
                "the archive lacks `{path}`, which `manifest.json` names"
            ))
        };
        files.get(path).cloned().ok_or_else(missing)
    };
    let mut layers = Vec::with_capacity(image.layers.len());
    for path in &image.layers {
        let blob = file(path)?;
        let compressed =
            larder_tree::compression::Format::detect(&first_bytes(lease, &blob.digest)?);
        let kind = match compressed {
            larder_tree::compression::Format::Gzip => media_type::LAYER_GZIP,
            larder_tree::compression::Format::Zstd => media_type::LAYER_ZSTD,
            _ => media_type::LAYER,
        };
        layers.push(Descriptor {
            media_type: kind.to_owned(),
            ..blob
        });
    }
    let manifest = ImageManifest {
        schema_version: 2,
        media_type: media_type::MANIFEST.to_owned(),
        config: Descriptor {
            media_type: media_type::CONFIG.to_owned(),
            ..file(&image.config)?
        },
        layers,
        annotations: BTreeMap::new(),
    };
    let bytes = go_json(&manifest);
    lease.put_blob(&bytes)?;
    let descriptor = Descriptor::of(media_type::MANIFEST, &bytes);
    let names = match names {
        [] => {
            let tags = image.repo_tags.iter().flatten();
            tags.map(|tag| tag.parse().map_err(bad_name))
                .collect::<Result<_>>()?
        }
        names => names.to_vec(),
    };
    let found = read_documents(lease, &descriptor.digest, &Platform::host())?;
    keep(lease, &descriptor, &[found], names)
}

/// Puts images that were read into the store, under `names`.
fn keep(
    lease: &Lease,
    descriptor: &Descriptor,
    images: &[ResolvedImage],
    names: Vec<ImageRef>,
) -> Result<ImageOutcome> {
    let Some((first, others)) = images.split_first() else {
        return Err(BuildError::invalid(format!(
            "the archive has none of the images of index `{}`",
            descriptor.digest
        )));
    };
    let mut blobs = Vec::new();
    for image in images {
        blobs.push(image.manifest_digest.clone());
        for layer in &image.manifest.layers {
            if !lease.hold_blobs(std::slice::from_ref(&layer.digest))? {
                return Err(BuildError::invalid(format!(
                    "the archive lacks layer `{}`",
                    layer.digest
                )));
            }
            blobs.push(layer.digest.clone());
        }
    }
    let other = |image: &ResolvedImage| PlatformImage {
        config: image.manifest.config.digest.clone(),
        platform: image.config.platform().to_string(),
        snapshot: None,
    };
    let others: Vec<PlatformImage> = others.iter().map(other).collect();
    let config = &first.manifest.config.digest;
    let new = NewImage {
        manifest: descriptor,
        config,
        platform: &first.config.platform().to_string(),
        created_at: first
            .config
            .created
            .as_ref()
            .and_then(|time| time.parse().ok()),
        snapshot: None,
        others: &others,
        blobs: &blobs,
    };
    lease.add_image(&new, &names)?;
    let is_index = media_type::is_index(&descriptor.media_type);
    Ok(ImageOutcome {
        descriptor: descriptor.clone(),
        config_digest: (!is_index).then(|| config.clone()),
        names,
    })
}

fn bad_name(error: larder_oci::ImageRefError) -> BuildError {
    BuildError::invalid("the archive names its image wrongly").with_source(error)
}

/// Joins entries of one image under several names.
fn merge_names(images: Vec<ImageOutcome>) -> Vec<ImageOutcome> {
    let mut merged: Vec<ImageOutcome> = Vec::new();
    for image in images {
        match merged
            .iter_mut()
            .find(|known| known.descriptor.digest == image.descriptor.digest)
        {
            Some(known) => known.names.extend(image.names),
            None => merged.push(image),
        }
    }
    merged
}

/// What an archive of images holds. Its other files are blobs of the store by now.
#[derive(Default)]
struct ArchiveContent {
    index: Option<ImageIndex>,
    docker: Option<Vec<DockerImage>>,
    files: BTreeMap<String, Descriptor>,
}

fn read_archive(lease: &Lease, archive: &mut dyn Read) -> Result<ArchiveContent> {
    let unreadable = |source| BuildError::invalid("cannot read the archive").with_source(source);
    let mut reader = Reader::new(Decoder::new(archive)?);
    let mut content = ArchiveContent::default();
    while let Some(header) = reader.next_entry()? {
        if header.kind != Kind::File {
            continue;
        }
        let path = header
            .path
            .to_string_lossy()
            .trim_start_matches("./")
            .to_owned();
        match path.as_str() {
            "index.json" => content.index = Some(json(&path, reader.contents())?),
            "manifest.json" => content.docker = Some(json(&path, reader.contents())?),
            "oci-layout" | "repositories" => {}
            _ => {
                let named: Option<Digest> = path
                    .strip_prefix("blobs/sha256/")
                    .and_then(|hex| format!("sha256:{hex}").parse().ok());
                let expected = named.map(|digest| (digest, header.size));
                let mut blob = lease.blob_writer(expected)?;
                // What an earlier attempt has left is the same again.
                blob.restart()?;
                let length =
                    std::io::copy(&mut reader.contents(), &mut blob).map_err(unreadable)?;
                let digest = blob.commit()?;
                content
                    .files
                    .insert(path, Descriptor::new("", digest, length));
            }
        }
    }
    Ok(content)
}

fn json<T: serde::de::DeserializeOwned>(path: &str, content: impl Read) -> Result<T> {
    serde_json::from_reader(content.take(MAX_DOCUMENT_BYTES)).map_err(|error| {
        BuildError::invalid(format!("`{path}` of the archive is not valid")).with_source(error)
    })
}

fn first_bytes(lease: &Lease, digest: &Digest) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    let file = lease.store().open_blob(digest)?;
    file.take(16)
        .read_to_end(&mut head)
        .map_err(|error| BuildError::internal("cannot read a blob").with_source(error))?;
    Ok(head)
}
