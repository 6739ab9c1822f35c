use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use flate2::read::MultiGzDecoder;
use fs_err as fs;
use larder_oci::{Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, media_type};

/// An OCI image layout in a tar, read into memory. Every blob is checked against its name.
pub struct OciArchive {
    files: BTreeMap<String, Vec<u8>>,
}

/// An entry of a layer's tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As written in the tar, a leading `./` included.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits, with set-id and sticky.
    pub mode: u32,
    /// The owner.
    pub uid: u64,
    /// The owning group.
    pub gid: u64,
    /// Whole seconds since 1970.
    pub mtime: u64,
    /// Extended attributes, by name.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// What a tar entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A file and its content.
    File(Vec<u8>),
    /// A directory.
    Directory,
    /// A symbolic link and where it points.
    Symlink(String),
    /// Another name of the entry at this path.
    HardLink(String),
    /// A device, a fifo, or anything rarer.
    Special,
}

impl OciArchive {
    /// Reads the archive at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        Self::read(fs::File::open(path)?).with_context(|| format!("in {}", path.display()))
    }

    /// Reads an archive.
    pub fn read(archive: impl Read) -> Result<Self> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(archive).entries()? {
            let mut entry = entry?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = entry.path()?.to_string_lossy().into_owned();
            let path = path.strip_prefix("./").unwrap_or(&path).to_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            if let Some(hex) = path.strip_prefix("blobs/sha256/") {
                let digest = Digest::sha256(&bytes);
                ensure!(
                    digest.hex() == hex,
                    "blob {hex} holds the bytes of {digest}"
                );
            }
            ensure!(
                files.insert(path.clone(), bytes).is_none(),
                "`{path}` is there twice"
            );
        }
        Ok(Self { files })
    }

    /// Returns the content of a file of the layout, such as `index.json`.
    pub fn file(&self, path: &str) -> Result<&[u8]> {
        let bytes = self.files.get(path);
        bytes
            .map(Vec::as_slice)
            .with_context(|| format!("no `{path}` in the archive"))
    }

    /// Returns the bytes of a blob.
    pub fn blob(&self, digest: &Digest) -> Result<&[u8]> {
        self.file(&format!("blobs/{}/{}", digest.algorithm(), digest.hex()))
    }

    /// Returns the layout's index.
    pub fn index(&self) -> Result<ImageIndex> {
        Ok(serde_json::from_slice(self.file("index.json")?)?)
    }

    /// Returns the descriptor of the only image's manifest. An index that lies in between is
    /// followed to its first manifest.
    pub fn manifest_descriptor(&self) -> Result<Descriptor> {
        let mut manifests = self.index()?.manifests;
        loop {
            let first = manifests.into_iter().next().context("the index is empty")?;
            if !media_type::is_index(&first.media_type) {
                return Ok(first);
            }
            let index: ImageIndex = serde_json::from_slice(self.blob(&first.digest)?)?;
            manifests = index.manifests;
        }
    }

    /// Returns the only image's manifest.
    pub fn manifest(&self) -> Result<ImageManifest> {
        let bytes = self.blob(&self.manifest_descriptor()?.digest)?;
        Ok(serde_json::from_slice(bytes)?)
    }

    /// Returns the only image's config.
    pub fn config(&self) -> Result<ImageConfig> {
        Ok(serde_json::from_slice(
            self.blob(&self.manifest()?.config.digest)?,
        )?)
    }

    /// Returns the entries of each layer, lowest layer first, in the order of the tar. Checks each
    /// layer's diff ID.
    pub fn layers(&self) -> Result<Vec<Vec<Entry>>> {
        self.layer_tars()?.iter().map(|tar| entries(tar)).collect()
    }

    /// Returns the uncompressed tar of each layer, lowest layer first. Checks each layer's diff ID.
    pub fn layer_tars(&self) -> Result<Vec<Vec<u8>>> {
        let manifest = self.manifest()?;
        let diff_ids = self.config()?.rootfs.diff_ids;
        ensure!(
            diff_ids.len() == manifest.layers.len(),
            "{} diff IDs for {} layers",
            diff_ids.len(),
            manifest.layers.len()
        );
        let layers = manifest.layers.iter().zip(&diff_ids);
        layers
            .map(|(layer, diff_id)| {
                let tar = self.uncompressed(layer)?;
                let actual = Digest::sha256(&tar);
                ensure!(actual == *diff_id, "layer {diff_id} holds {actual}");
                Ok(tar)
            })
            .collect()
    }

    fn uncompressed(&self, layer: &Descriptor) -> Result<Vec<u8>> {
        let blob = self.blob(&layer.digest)?;
        ensure!(
            blob.len() as u64 == layer.size_bytes,
            "the size of {} is wrong",
            layer.digest
        );
        match layer.media_type.as_str() {
            media_type::LAYER | media_type::DOCKER_LAYER => Ok(blob.to_vec()),
            media_type::LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => {
                let mut tar = Vec::new();
                MultiGzDecoder::new(blob).read_to_end(&mut tar)?;
                Ok(tar)
            }
            media_type::LAYER_ZSTD => Ok(zstd::decode_all(blob)?),
            other => bail!("cannot read a layer of media type `{other}`"),
        }
    }
}

fn entries(tar: &[u8]) -> Result<Vec<Entry>> {
    const XATTR: &str = "SCHILY.xattr.";
    let mut found = Vec::new();
    for entry in tar::Archive::new(tar).entries()? {
        let mut entry = entry?;
        let mut xattrs = BTreeMap::new();
        if let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions {
                let extension = extension?;
                if let Some(name) = extension.key()?.strip_prefix(XATTR) {
                    xattrs.insert(name.to_owned(), extension.value_bytes().to_vec());
                }
            }
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let target = entry
            .link_name_bytes()
            .map(|bytes| text(&bytes))
            .unwrap_or_default();
        let kind = match entry.header().entry_type() {
            tar::EntryType::Directory => EntryKind::Directory,
            tar::EntryType::Symlink => EntryKind::Symlink(target),
            tar::EntryType::Link => EntryKind::HardLink(target),
            kind if kind.is_file() => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                EntryKind::File(content)
            }
            _ => EntryKind::Special,
        };
        let header = entry.header();
        found.push(Entry {
            path: text(&entry.path_bytes()),
            kind,
            mode: header.mode()? & 0o7777,
            uid: header.uid()?,
            gid: header.gid()?,
            mtime: header.mtime()?,
            xattrs,
        });
    }
    Ok(found)
}
