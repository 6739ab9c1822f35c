//! The local image store, and the records of the state directory, as commands see them.

mod index;

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use larder_oci::{
    Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, ImageRef, Platform, go_json,
    media_type,
};
use larder_store::{Filter, ImageInfo, Lease, NewImage, PlatformImage, PruneRequest, UsageRecord};
use larder_tree::compression::Decoder;
use larder_tree::tar::{Kind, Reader};
use serde::Deserialize;

use crate::cancel::CancelFlag;
use crate::engine::Engine;
use crate::error::{BuildError, Result};
use crate::exporter::{ArchiveKind, ArchivedImage, ArchivedManifest, write_images};
use crate::fetch::{Fetcher, Origin};
use crate::history::BuildReport;
use crate::images::{
    MAX_DOCUMENT_BYTES, ResolvedImage, as_index, document, read_documents, read_meant,
};
use crate::layers::{self, Recipe};
use crate::output;
use crate::progress::{Reporter, of_target};
use crate::push::unpacked;
use crate::request::{Destination, ImageOutcome, StepReport};
pub(crate) use index::assemble;

/// A stored image with its documents.
#[derive(Debug, Clone)]
pub struct ImageDetails {
    /// What the store knows of it.
    pub info: ImageInfo,
    /// The platforms that it is for; of an index, those that are stored.
    pub platforms: Vec<String>,
    /// The manifest of the image asked for.
    pub manifest: ImageManifest,
    /// The config.
    pub config: ImageConfig,
    /// Bytes of the layers as the manifest names them.
    pub size_bytes: u64,
}

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
    /// Returns all stored images, the latest stored first.
    pub fn images(&self) -> Result<Vec<ImageInfo>> {
        Ok(self.store.images()?)
    }

    /// Returns the image that `text` means: a name, an id, or the beginning of an id. Of an index, the
    /// image for `platform`, else the one that stands for all.
    pub fn image(&self, text: &str, platform: Option<&Platform>) -> Result<ImageDetails> {
        let lease = self.store.lease()?;
        let info = self.store.resolve_image(text)?;
        let image = read_meant(&lease, &info, text, platform)?;
        let size_bytes = image
            .manifest
            .layers
            .iter()
            .map(|layer| layer.size_bytes)
            .sum();
        let platforms = info.images().into_iter().map(|image| image.platform);
        Ok(ImageDetails {
            platforms: platforms.collect(),
            info,
            manifest: image.manifest,
            config: image.config,
            size_bytes,
        })
    }

    /// Gives an image one more name.
    pub fn tag_image(&self, text: &str, name: &ImageRef) -> Result<()> {
        let info = self.store.resolve_image(text)?;
        Ok(self.store.tag(&info.manifest.digest, name)?)
    }

    /// Takes a name from an image, or removes the image with all its names if `text` is its id.
    /// Returns the names that went, and the image if it went with them. An image with several
    /// names is removed by id only with `force`.
    pub fn remove_image(
        &self,
        text: &str,
        force: bool,
    ) -> Result<(Vec<String>, Option<ImageInfo>)> {
        let info = self.store.resolve_image(text)?;
        let name = text
            .parse::<ImageRef>()
            .ok()
            .filter(|name| info.names.contains(&name.to_string()));
        if let Some(name) = name {
            return Ok((vec![name.to_string()], self.store.untag(&name)?));
        }
        if info.names.len() > 1 && !force {
            let message = format!("image `{text}` has {} names", info.names.len());
            return Err(
                BuildError::invalid(message).with_hint("remove it by name, or use `--force`")
            );
        }
        self.store.remove_image(&info.manifest.digest)?;
        Ok((info.names.clone(), Some(info)))
    }

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
        let packed = match unpacked(lease, image) {
            Some(snapshot) => {
                layers::packed_layers(lease, snapshot, &Recipe::default(), &HashMap::new())?
            }
            None => Vec::new(),
        };
        let clock = || self.now();
        let silent = |_event| {};
        let reporter = Reporter::new(&silent, &clock);
        let fetcher = Fetcher {
            engine: self,
            lease,
            progress: &reporter.begin_internal("save", ""),
            cancel: &CancelFlag::new(),
        };
        for position in missing {
            let layer = &mut manifest.layers[position];
            let diff_id = &image.config.rootfs.diff_ids[position];
            match packed.get(position).filter(|it| it.diff_id == *diff_id) {
                Some(made) => *layer = made.descriptor.clone(),
                None => fetcher
                    .blob(layer, &Origin::Noted)
                    .map_err(|error| error.context(format!("cannot fetch layer `{diff_id}`")))?,
            }
        }
        Ok(())
    }

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

    /// Returns what takes space in the state directory, oldest use first.
    pub fn disk_usage(&self, filters: &[Filter]) -> Result<Vec<UsageRecord>> {
        Ok(self.store.du(filters)?)
    }

    /// Removes what `request` says, telling of each record; returns the bytes freed.
    pub fn prune(
        &self,
        request: &PruneRequest,
        on_removed: &mut dyn FnMut(&UsageRecord),
    ) -> Result<u64> {
        larder_exec::sweep();
        Ok(self.store.prune(request, on_removed)?)
    }

    /// Returns the steps of the last build in this state directory; of several targets that were
    /// built together those of all, their names with the targets'.
    pub fn last_build(&self) -> Result<Option<Vec<StepReport>>> {
        let Some(report) = self.last_report(None)? else {
            return Ok(None);
        };
        if report.run.is_empty() {
            return Ok(Some(report.steps));
        }
        let mut steps = Vec::new();
        for scope in &report.run {
            let Some(report) = self.last_report(Some(scope))? else {
                continue;
            };
            for step in report.steps {
                let name = of_target(&report.target, &step.name);
                // What several platforms share is one step.
                if !steps.iter().any(|known: &StepReport| known.name == name) {
                    steps.push(StepReport { name, ..step });
                }
            }
        }
        Ok(Some(steps))
    }

    fn last_report(&self, scope: Option<&str>) -> Result<Option<BuildReport>> {
        let Some(build) = self.store.last_build(scope)? else {
            return Ok(None);
        };
        let report = serde_json::from_slice(&build.report).map_err(|error| {
            BuildError::internal("the report of the last build can't be read").with_source(error)
        })?;
        Ok(Some(report))
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

fn manifest_type(manifest: &ImageManifest) -> &str {
    match manifest.media_type.as_str() {
        "" => media_type::MANIFEST,
        own => own,
    }
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
