use std::io::Write as _;
use std::path::Path;

use anyhow::Result;
use fs_err as fs;
use larder_oci::{Descriptor, Digest, Platform, media_type};
use serde_json::json;

use crate::{EntryKind, Registry};

/// The size of a tar's blocks.
const BLOCK_BYTES: usize = 512;

/// An image with layers of the test's own making, which may well be hostile.
#[derive(Debug, Clone)]
pub struct MadeImage {
    layers: Vec<Vec<u8>>,
    config: Vec<u8>,
    manifest: Vec<u8>,
    platform: Platform,
}

impl MadeImage {
    /// Makes an image of `layers`, uncompressed tars, the lowest first, for this machine.
    pub fn new(layers: &[Vec<u8>]) -> Self {
        Self::for_platform(Platform::host(), layers)
    }

    /// Makes an image for `platform`.
    pub fn for_platform(platform: Platform, layers: &[Vec<u8>]) -> Self {
        let diff_ids: Vec<Digest> = layers.iter().map(Digest::sha256).collect();
        let config = to_json(&json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        }));
        let layer = |layer: &Vec<u8>| Descriptor::of(media_type::LAYER, layer);
        let manifest = to_json(&json!({
            "schemaVersion": 2,
            "mediaType": media_type::MANIFEST,
            "config": Descriptor::of(media_type::CONFIG, &config),
            "layers": layers.iter().map(layer).collect::<Vec<_>>(),
        }));
        Self {
            layers: layers.to_vec(),
            config,
            manifest,
            platform,
        }
    }

    /// Returns the descriptor of its manifest, with the platform.
    pub fn descriptor(&self) -> Descriptor {
        let mut descriptor = Descriptor::of(media_type::MANIFEST, &self.manifest);
        descriptor.platform = Some(self.platform.clone());
        descriptor
    }

    /// Returns the digest of a layer's blob.
    pub fn layer_digest(&self, index: usize) -> Digest {
        Digest::sha256(&self.layers[index])
    }

    /// Writes it as an OCI archive.
    pub fn write(&self, path: &Path) -> Result<()> {
        let index = to_json(&json!({
            "schemaVersion": 2,
            "mediaType": media_type::INDEX,
            "manifests": [self.descriptor()],
        }));
        let mut files = vec![
            (
                "oci-layout".to_owned(),
                br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
            ),
            ("index.json".to_owned(), index),
        ];
        for bytes in self.layers.iter().chain([&self.config, &self.manifest]) {
            let path = format!("blobs/sha256/{}", Digest::sha256(bytes).hex());
            files.push((path, bytes.clone()));
        }
        let entries: Vec<_> = files
            .into_iter()
            .map(|(path, bytes)| (path, EntryKind::File(bytes)))
            .collect();
        Ok(fs::write(path, tar_of(&entries))?)
    }

    /// Stores it as `repository:tag`.
    pub fn push(&self, registry: &Registry, repository: &str, tag: &str) -> Result<Descriptor> {
        for blob in self.layers.iter().chain([&self.config]) {
            registry.push_blob(repository, blob)?;
        }
        registry.push_manifest(repository, tag, media_type::MANIFEST, &self.manifest)
    }
}

fn to_json(value: &serde_json::Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("a value can be written")
}

/// Returns a tar of `entries`, owned by root, whose paths and link targets are written just as they
/// are given, `../` and all. [`EntryKind::Special`] is the null device. Paths and targets may have
/// 100 bytes.
pub fn tar_of<P: AsRef<str>>(entries: &[(P, EntryKind)]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (path, kind) in entries {
        let (entry_type, target, content) = match kind {
            EntryKind::File(content) => (tar::EntryType::Regular, "", &content[..]),
            EntryKind::Directory => (tar::EntryType::Directory, "", &[][..]),
            EntryKind::Symlink(target) => (tar::EntryType::Symlink, target.as_str(), &[][..]),
            EntryKind::HardLink(target) => (tar::EntryType::Link, target.as_str(), &[][..]),
            EntryKind::Special => (tar::EntryType::Char, "", &[][..]),
        };
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(entry_type);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        if entry_type == tar::EntryType::Char {
            header.set_device_major(1).expect("the number fits");
            header.set_device_minor(3).expect("the number fits");
        }
        let old = header.as_old_mut();
        old.name[..path.as_ref().len()].copy_from_slice(path.as_ref().as_bytes());
        old.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        tar.extend_from_slice(header.as_bytes());
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(BLOCK_BYTES), 0);
    }
    tar.write_all(&[0; 2 * BLOCK_BYTES])
        .expect("memory can be written");
    tar
}
