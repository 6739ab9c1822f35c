//! An image as one tar: an OCI layout, for Docker with a `manifest.json` as well.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::mpsc::{channel, sync_channel};

use larder_oci::{Descriptor, ImageIndex, ImageManifest, ImageRef, go_json, media_type};
use larder_store::Store;
use larder_tree::bulk::{BulkReader, Part};
use larder_tree::tar::{Header, Writer};
use serde::Serialize;

use super::Export;
use super::attest::Attests;
use super::manifest::{Layers, MadeImage, MadeImages, Wanted};
use crate::error::{BuildError, Result};
use crate::output;
use crate::progress::VertexProgress;
use crate::request::{ArchiveOutput, ImageOutcome};
use crate::task::Tasks;

/// Smaller blobs are copied sooner than a thread is started.
const ALONE_BYTES: u64 = 16 << 20;

/// How many parts may be read before they are written.
const WAITING_PARTS: usize = 2;

/// What kind of archive is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArchiveKind {
    /// An OCI layout.
    Oci,
    /// What `docker load` reads.
    Docker,
}

impl ArchiveKind {
    fn vertex_name(self) -> &'static str {
        match self {
            Self::Oci => "exporting to oci image format",
            Self::Docker => "exporting to docker image format",
        }
    }
}

/// An entry of Docker's `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl Export<'_> {
    /// Writes the image as one tar.
    pub(crate) fn to_archive(
        &self,
        archive: ArchiveOutput,
        kind: ArchiveKind,
    ) -> Result<ImageOutcome> {
        let mut vertex = self.reporter.begin_internal(kind.vertex_name(), "archive");
        let done = self.write_archive(archive, kind, &vertex);
        match &done {
            Ok(_) => vertex.complete(),
            Err(error) => vertex.fail(&error.full_message()),
        };
        done
    }

    fn write_archive(
        &self,
        archive: ArchiveOutput,
        kind: ArchiveKind,
        vertex: &VertexProgress<'_>,
    ) -> Result<ImageOutcome> {
        if kind == ArchiveKind::Docker && self.multi_platform {
            return Err(BuildError::invalid(
                "docker exporter does not currently support exporting manifest lists",
            )
            .with_hint("use `type=oci` for an archive, or `type=image` for the local store"));
        }
        let names = self.names(&archive.names);
        let attests = match kind {
            ArchiveKind::Oci => Attests::Of {
                inline: archive.options.inline_attestations.unwrap_or(false),
            },
            // `docker load` takes no index.
            ArchiveKind::Docker => Attests::Nothing,
        };
        let wanted = Wanted {
            options: &archive.options,
            layers: Layers::Blobs,
            names: &names,
            attests,
        };
        let made = self.make_images(wanted, vertex)?;
        let status = vertex.status("sending tarball", 0);
        let mut image = ArchivedImage::of(&made, names);
        if let Some(created) = &made.images[0].config.created {
            let created = created
                .split('.')
                .next()
                .unwrap_or(created)
                .trim_end_matches('Z')
                .to_owned()
                + "Z";
            let annotations = &mut image.descriptor.annotations;
            annotations.insert("org.opencontainers.image.created".to_owned(), created);
        }
        let images = std::slice::from_ref(&image);
        output::write(archive.destination, |out| {
            write_images(self.lease.store(), images, kind, out)
        })?;
        status.done();
        Ok(made.outcome(&image.names))
    }
}

/// An image of an archive. All its blobs are stored.
pub(crate) struct ArchivedImage {
    /// The only image's manifest, or the index.
    pub(crate) descriptor: Descriptor,
    /// The manifests: the one that stands for all comes first. Those about images are among them.
    pub(crate) manifests: Vec<ArchivedManifest>,
    pub(crate) names: Vec<ImageRef>,
}

/// A manifest of an archive.
pub(crate) struct ArchivedManifest {
    pub(crate) descriptor: Descriptor,
    pub(crate) manifest: ImageManifest,
}

impl ArchivedManifest {
    fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let own = [&self.manifest.config, &self.descriptor];
        self.manifest.layers.iter().chain(own)
    }
}

impl ArchivedImage {
    fn of(made: &MadeImages, names: Vec<ImageRef>) -> Self {
        let archived = |image: &MadeImage| ArchivedManifest {
            descriptor: image.descriptor.clone(),
            manifest: image.manifest.clone(),
        };
        let mut manifests: Vec<ArchivedManifest> = made.images.iter().map(archived).collect();
        manifests.swap(0, made.representative());
        let attached = made.images.iter().flat_map(|image| &image.attached);
        manifests.extend(attached.map(|attached| ArchivedManifest {
            descriptor: attached.descriptor.clone(),
            manifest: attached.manifest.clone(),
        }));
        Self {
            descriptor: made.descriptor.clone(),
            manifests,
            names,
        }
    }

    /// Returns the entries of the index: one a name, one without for an image that has none.
    fn entries(&self) -> Vec<Descriptor> {
        if self.names.is_empty() {
            return vec![self.descriptor.clone()];
        }
        let entry_of = |name: &ImageRef| {
            let mut entry = self.descriptor.clone();
            entry
                .annotations
                .insert("io.containerd.image.name".to_owned(), name.to_string());
            if let Some(tag) = name.tag() {
                entry.annotations.insert(
                    "org.opencontainers.image.ref.name".to_owned(),
                    tag.to_owned(),
                );
            }
            entry
        };
        self.names.iter().map(entry_of).collect()
    }

    fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let own = std::iter::once(&self.descriptor);
        self.manifests
            .iter()
            .flat_map(ArchivedManifest::blobs)
            .chain(own)
    }

    fn docker_entry(&self) -> Option<DockerImage> {
        let manifest = &self.manifests.first()?.manifest;
        Some(DockerImage {
            config: blob_path(&manifest.config),
            repo_tags: self.names.iter().map(ImageRef::familiar).collect(),
            layers: manifest.layers.iter().map(blob_path).collect(),
        })
    }
}

/// Writes stored images as one tar. The entries are sorted, their times are zero.
pub(crate) fn write_images(
    store: &Store,
    images: &[ArchivedImage],
    kind: ArchiveKind,
    out: &mut dyn Write,
) -> Result<()> {
    let mut blobs: BTreeMap<String, &Descriptor> = BTreeMap::new();
    for blob in images.iter().flat_map(ArchivedImage::blobs) {
        blobs.insert(blob_path(blob), blob);
    }
    let index = ImageIndex {
        schema_version: 2,
        media_type: media_type::INDEX.to_owned(),
        manifests: images.iter().flat_map(ArchivedImage::entries).collect(),
        annotations: BTreeMap::new(),
    };
    let mut tar = Writer::new(out);
    for directory in ["blobs/", "blobs/sha256/"] {
        tar.append(&Header::directory(directory))?;
    }
    for (path, blob) in &blobs {
        tar.append(&Header::file(path, blob.size_bytes))?;
        let content = store.open_blob(&blob.digest)?;
        if blob.size_bytes < ALONE_BYTES {
            let mut bytes = Vec::with_capacity(blob.size_bytes as usize);
            let read = content.take(blob.size_bytes).read_to_end(&mut bytes);
            let copied = read.and_then(|_| tar.write_all(&bytes));
            copied.map_err(output::failed)?;
        } else {
            let content = BulkReader::new(content, blob.size_bytes);
            copy(content, &mut tar).map_err(output::failed)?;
        }
    }
    append(&mut tar, "index.json", &go_json(&index))?;
    if kind == ArchiveKind::Docker {
        let entries = images.iter().filter_map(ArchivedImage::docker_entry);
        let entries: Vec<DockerImage> = entries.collect();
        append(&mut tar, "manifest.json", &go_json(&entries))?;
    }
    append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar.finish()?;
    Ok(())
}

/// Copies a large file: one thread reads while the other writes.
fn copy(mut from: BulkReader, to: &mut impl Write) -> io::Result<()> {
    std::thread::scope(|scope| {
        let (sender, parts) = sync_channel(WAITING_PARTS);
        let (give_back, spare) = channel();
        Tasks::spawn(scope, "archive", move || {
            loop {
                let mut part: Part = spare.try_recv().unwrap_or_default();
                let read = from.read(&mut part);
                let is_last = read.is_err() || part.as_slice().is_empty();
                // The writer may have failed.
                if sender.send(read.map(|()| part)).is_err() || is_last {
                    return;
                }
            }
        })?;
        for read in parts {
            let part = read?;
            to.write_all(part.as_slice())?;
            // There may be nothing more to read.
            let _ = give_back.send(part);
        }
        Ok(())
    })
}

fn blob_path(blob: &Descriptor) -> String {
    format!("blobs/{}/{}", blob.digest.algorithm(), blob.digest.hex())
}

fn append<W: Write>(tar: &mut Writer<W>, name: &str, bytes: &[u8]) -> Result<()> {
    tar.append(&Header::file(name, bytes.len() as u64))?;
    tar.write_all(bytes).map_err(output::failed)
}
