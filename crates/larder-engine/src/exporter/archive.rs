//! An image as one tar: an OCI layout, for Docker with a `manifest.json` as well.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use larder_oci::{Descriptor, ImageIndex, ImageManifest, ImageRef, go_json, media_type};
use larder_store::Store;
use larder_tree::tar::{Header, Writer};
use serde::Serialize;

use super::Export;
use super::image::Packing;
use crate::error::{BuildError, ErrorClass, Result};
use crate::output;
use crate::request::{ArchiveOutput, ImageOutcome};

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
        let packing = if archive.rewrite_timestamp {
            Packing::Rewritten(archive.compression)
        } else {
            Packing::Blobs(archive.compression)
        };
        let mut names = self.tags.to_vec();
        names.extend(archive.names);
        let done = self.make_image(packing, &vertex).and_then(|made| {
            let status = vertex.status("sending tarball", 0);
            let mut descriptor = made.descriptor.clone();
            if let Some(created) = &made.config.created {
                let created = created
                    .split('.')
                    .next()
                    .unwrap_or(created)
                    .trim_end_matches('Z')
                    .to_owned()
                    + "Z";
                descriptor
                    .annotations
                    .insert("org.opencontainers.image.created".to_owned(), created);
            }
            output::write(archive.destination, |out| {
                write_image(
                    self.lease.store(),
                    &descriptor,
                    &made.manifest,
                    &names,
                    kind,
                    out,
                )
            })?;
            status.done();
            Ok(made.outcome(&names))
        });
        match &done {
            Ok(_) => vertex.complete(),
            Err(error) => vertex.fail(&error.full_message()),
        };
        done
    }
}

/// Writes a stored image, all of whose blobs are stored, as one tar. The entries are sorted, their
/// times are zero.
pub(crate) fn write_image(
    store: &Store,
    descriptor: &Descriptor,
    manifest: &ImageManifest,
    names: &[ImageRef],
    kind: ArchiveKind,
    out: &mut dyn Write,
) -> Result<()> {
    let mut blobs: BTreeMap<String, Descriptor> = BTreeMap::new();
    for blob in manifest.layers.iter().chain([&manifest.config, descriptor]) {
        blobs.insert(blob_path(blob), blob.clone());
    }
    let index = ImageIndex {
        schema_version: 2,
        media_type: media_type::INDEX.to_owned(),
        manifests: entries(descriptor, names),
        annotations: BTreeMap::new(),
    };
    let mut tar = Writer::new(out);
    for directory in ["blobs/", "blobs/sha256/"] {
        tar.append(&Header::directory(directory))?;
    }
    for (path, blob) in &blobs {
        tar.append(&Header::file(path, blob.size_bytes))?;
        let mut content = store.open_blob(&blob.digest)?.take(blob.size_bytes);
        io::copy(&mut content, &mut tar).map_err(output::failed)?;
    }
    append(&mut tar, "index.json", &go_json(&index))?;
    if kind == ArchiveKind::Docker {
        let image = DockerImage {
            config: blob_path(&manifest.config),
            repo_tags: names.iter().map(ImageRef::familiar).collect(),
            layers: manifest.layers.iter().map(blob_path).collect(),
        };
        append(&mut tar, "manifest.json", &go_json(&[image]))?;
    }
    append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar.finish()?;
    Ok(())
}

/// Returns the entries of the index: one a name, one without for an image that has none.
fn entries(descriptor: &Descriptor, names: &[ImageRef]) -> Vec<Descriptor> {
    if names.is_empty() {
        return vec![descriptor.clone()];
    }
    let entry_of = |name: &ImageRef| {
        let mut entry = descriptor.clone();
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
    names.iter().map(entry_of).collect()
}

fn blob_path(blob: &Descriptor) -> String {
    format!("blobs/{}/{}", blob.digest.algorithm(), blob.digest.hex())
}

fn append<W: Write>(tar: &mut Writer<W>, name: &str, bytes: &[u8]) -> Result<()> {
    tar.append(&Header::file(name, bytes.len() as u64))?;
    tar.write_all(bytes).map_err(|source| {
        BuildError::new(ErrorClass::Exhausted, "cannot write the archive").with_source(source)
    })
}
