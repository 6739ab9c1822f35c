//! Writes an image of one layer as an OCI archive, the same bytes every time.

use std::io::{BufWriter, Read, Write};
use std::path::Path;

use anyhow::Result;
use flate2::Compression;
use flate2::write::GzEncoder;
use fs_err as fs;
use larder_oci::{Descriptor, Platform, Sha256, media_type};
use serde_json::json;

use super::recipe::{EPOCH, EPOCH_RFC3339};

/// How much is compressed at once.
const BLOCK_BYTES: usize = 64 << 10;

/// What an image's config says.
pub(super) struct Image<'a> {
    /// Name and tag.
    pub(super) name: &'a str,
    pub(super) env: &'a [&'a str],
    pub(super) command: &'a str,
}

/// Writes `image`, whose only layer is the tar `layer`, to `out`.
pub(super) fn write(
    image: &Image<'_>,
    mut layer: impl Read,
    work: &Path,
    out: &Path,
) -> Result<()> {
    let layer_path = work.join("layer");
    let blob = Hashing::new(BufWriter::new(fs::File::create(&layer_path)?));
    let mut tar = Hashing::new(GzEncoder::new(blob, Compression::default()));
    // What the compressor makes depends on how its input is cut.
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    while layer
        .by_ref()
        .take(BLOCK_BYTES as u64)
        .read_to_end(&mut block)?
        > 0
    {
        tar.write_all(&block)?;
        block.clear();
    }
    let diff_id = tar.hash.finish();
    let mut blob = tar.inner.finish()?;
    blob.flush()?;
    let layer = Descriptor::new(media_type::LAYER_GZIP, blob.hash.finish(), blob.length);

    let platform = Platform::host();
    let config = serde_json::to_vec(&json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "created": EPOCH_RFC3339,
        "config": { "Env": image.env, "Cmd": [image.command] },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created": EPOCH_RFC3339, "created_by": format!("base {}", image.name) }],
    }))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": media_type::MANIFEST,
        "config": Descriptor::of(media_type::CONFIG, &config),
        "layers": [layer],
    }))?;
    let mut described = Descriptor::of(media_type::MANIFEST, &manifest);
    described.platform = Some(platform);
    let (_, tag) = image.name.split_once(':').expect("base names have a tag");
    described.annotations = [
        (
            "io.containerd.image.name",
            format!("docker.io/library/{}", image.name),
        ),
        ("org.opencontainers.image.ref.name", tag.to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": media_type::INDEX,
        "manifests": [described],
    }))?;

    let mut archive = TreeWriter::to(BufWriter::new(fs::File::create(out)?));
    archive.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    archive.file("index.json", 0o644, &index)?;
    archive.dir("blobs", 0o755)?;
    archive.dir("blobs/sha256", 0o755)?;
    for bytes in [&manifest, &config] {
        let path = format!("blobs/sha256/{}", larder_oci::Digest::sha256(bytes).hex());
        archive.file(&path, 0o644, bytes)?;
    }
    let path = format!("blobs/sha256/{}", layer.digest.hex());
    archive.stream(&path, layer.size_bytes, fs::File::open(layer_path)?)?;
    archive.into_inner()?.flush()?;
    Ok(())
}

/// Writes tar entries owned by root, all of one time.
pub(super) struct TreeWriter<W: Write>(tar::Builder<W>);

impl Default for TreeWriter<Vec<u8>> {
    fn default() -> Self {
        Self::to(Vec::new())
    }
}

impl<W: Write> TreeWriter<W> {
    pub(super) fn to(out: W) -> Self {
        Self(tar::Builder::new(out))
    }

    pub(super) fn dir(&mut self, path: &str, mode: u32) -> Result<()> {
        let mut header = header(tar::EntryType::Directory, mode, 0);
        Ok(self.0.append_data(&mut header, path, std::io::empty())?)
    }

    pub(super) fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        let mut header = header(tar::EntryType::Regular, mode, bytes.len() as u64);
        Ok(self.0.append_data(&mut header, path, bytes)?)
    }

    pub(super) fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        Ok(self.0.append_link(&mut header, path, target)?)
    }

    fn stream(&mut self, path: &str, length: u64, from: impl Read) -> Result<()> {
        let mut header = header(tar::EntryType::Regular, 0o644, length);
        Ok(self.0.append_data(&mut header, path, from)?)
    }

    fn into_inner(self) -> Result<W> {
        Ok(self.0.into_inner()?)
    }
}

impl TreeWriter<Vec<u8>> {
    pub(super) fn finish(self) -> Result<Vec<u8>> {
        self.into_inner()
    }
}

fn header(kind: tar::EntryType, mode: u32, length: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(EPOCH);
    header.set_size(length);
    header
}

/// Hashes and counts what passes.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    length: u64,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            length: 0,
        }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
