//! The layers of a snapshot: diff IDs and blobs, each made once in the life of the layer.

mod chunks;
mod encode;
mod packer;

use std::collections::HashMap;
use std::io::Write;

use jiff::Timestamp;
use larder_oci::{Descriptor, Digest, media_type};
use larder_store::{LayerInfo, Lease, SnapshotId, SnapshotInfo, Store};
use larder_tree::diff::{DigestWriter, LayerOptions};
use rayon::prelude::*;

use crate::error::{BuildError, Result};
use crate::fetch::FarLayer;
use crate::request::LayerCompression;

pub(crate) use packer::{Packed, Packer};

/// Says of a layer to which time its files were bound; BuildKit's name.
const REWRITTEN: &str = "buildkit/rewritten-timestamp";

/// A layer with the form in which it travels.
#[derive(Debug, Clone)]
pub(crate) struct PackedLayer {
    pub(crate) descriptor: Descriptor,
    /// The digest of the blob's uncompressed bytes.
    pub(crate) diff_id: Digest,
    pub(crate) created_at: Timestamp,
    pub(crate) description: String,
}

impl From<&FarLayer> for PackedLayer {
    /// Takes the layer as it is elsewhere, without what a cache's manifest says of it.
    fn from(far: &FarLayer) -> Self {
        let blob = &far.descriptor;
        Self {
            descriptor: Descriptor::new(&blob.media_type, blob.digest.clone(), blob.size_bytes),
            diff_id: far.diff_id.clone(),
            created_at: far.created_at.unwrap_or(Timestamp::UNIX_EPOCH),
            description: String::new(),
        }
    }
}

/// How layers are made blobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Recipe {
    pub(crate) compression: LayerCompression,
    /// The compressor's usual level by default.
    pub(crate) level: Option<i32>,
    /// Whether layers of base images that are compressed otherwise are compressed again.
    pub(crate) force: bool,
    /// The time in seconds that files in new layers are bound to.
    pub(crate) clamp_mtime: Option<i64>,
}

impl Recipe {
    /// Returns whether a blob of `media_type` is compressed as this says.
    fn fits(&self, media_type: &str) -> bool {
        let compression = compression_of(media_type);
        self.compression != LayerCompression::Estargz && compression == Some(self.compression)
    }

    /// Returns whether blobs made so are kept as *the* blobs of their layers. Others depend on
    /// more than the media type tells.
    fn is_usual(&self) -> bool {
        self.level.is_none()
            && self.clamp_mtime.is_none()
            && self.compression != LayerCompression::Estargz
    }
}

/// Returns how blobs of `media_type` are compressed; `None` if it is no layer's.
pub(crate) fn compression_of(media_type: &str) -> Option<LayerCompression> {
    match media_type {
        media_type::LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => Some(LayerCompression::Gzip),
        media_type::LAYER_ZSTD | media_type::DOCKER_LAYER_ZSTD => Some(LayerCompression::Zstd),
        media_type::LAYER | media_type::DOCKER_LAYER => Some(LayerCompression::Uncompressed),
        _ => None,
    }
}

/// Returns the layers of `snapshot` as they are, lowest first: as images that the build stands on
/// (`known`, by diff ID) have them, else as uncompressed tars, of which no copies are kept. Diff
/// IDs that are not known yet are computed, all at once.
pub(crate) fn plain_layers(
    lease: &Lease,
    snapshot: &SnapshotId,
    known: &HashMap<Digest, Descriptor>,
) -> Result<Vec<PackedLayer>> {
    let store = lease.store();
    let infos = store.layers(store.chain(snapshot)?)?;
    let unknown: Vec<&SnapshotId> = infos
        .iter()
        .filter(|info| info.diff_id.is_none() || info.tar_bytes.is_none())
        .map(|info| &info.id)
        .collect();
    let digest = |id: &&SnapshotId| -> Result<_> {
        let (diff_id, tar_bytes) = digested(store, id)?;
        Ok(((*id).clone(), diff_id, tar_bytes))
    };
    let new: Vec<(SnapshotId, Digest, u64)> = match &unknown[..] {
        // Most builds change one layer, or none: that isn't worth a pool of threads.
        few @ ([] | [_]) => few.iter().map(digest).collect::<Result<_>>()?,
        many => many.par_iter().map(digest).collect::<Result<_>>()?,
    };
    if !new.is_empty() {
        store.set_diff_ids(&new)?;
    }
    let new = new
        .into_iter()
        .map(|(id, diff_id, tar_bytes)| (id, (diff_id, tar_bytes)));
    let mut new: HashMap<SnapshotId, (Digest, u64)> = new.collect();
    let plain = |info: LayerInfo| {
        let before = info.diff_id.zip(info.tar_bytes);
        let (diff_id, tar_bytes) = before
            .or_else(|| new.remove(&info.id))
            .ok_or_else(|| BuildError::internal("a layer was not digested"))?;
        let descriptor = known
            .get(&diff_id)
            .cloned()
            .unwrap_or_else(|| Descriptor::new(media_type::LAYER, diff_id.clone(), tar_bytes));
        Ok(PackedLayer {
            descriptor,
            diff_id,
            created_at: info.created_at,
            description: info.description,
        })
    };
    infos.into_iter().map(plain).collect()
}

/// Returns the layers of `snapshot`, lowest first, all as blobs, which are made where the store
/// has none that fit. The lease holds them.
///
/// `known` has the layers of the images that the build stands on, by diff ID: these stay as they
/// are if their blobs are stored, unless the recipe says otherwise.
pub(crate) fn packed_layers(
    packer: &Packer<'_>,
    snapshot: &SnapshotId,
    recipe: &Recipe,
    known: &HashMap<Digest, Descriptor>,
) -> Result<Vec<PackedLayer>> {
    // One at a time: each takes all processors.
    let infos = infos(packer.lease.store(), snapshot)?.into_iter();
    infos
        .map(|info| packed_info(packer, info, recipe, known))
        .collect()
}

/// As [`packed_layers`], of the snapshot's own layer alone.
pub(crate) fn packed_layer(
    packer: &Packer<'_>,
    snapshot: &SnapshotId,
    recipe: &Recipe,
    known: &HashMap<Digest, Descriptor>,
) -> Result<PackedLayer> {
    let info = packer.lease.store().snapshot(snapshot)?;
    packed_info(packer, info, recipe, known)
}

fn packed_info(
    packer: &Packer<'_>,
    info: SnapshotInfo,
    recipe: &Recipe,
    known: &HashMap<Digest, Descriptor>,
) -> Result<PackedLayer> {
    let base = info.diff_id.as_ref().and_then(|id| known.get(id)).cloned();
    match base {
        Some(descriptor) => base_blob(packer, info, recipe, &descriptor),
        None => own_blob(packer, info, recipe),
    }
}

/// Makes a compressed blob of the stored tar `digest`, as layers usually are compressed.
pub(crate) fn compressed(packer: &Packer<'_>, digest: &Digest) -> Result<Descriptor> {
    Ok(encode::transcode(packer, digest, &Recipe::default())?.descriptor)
}

/// Writes a layer as an uncompressed tar.
pub(crate) fn write_tar(
    store: &Store,
    id: &SnapshotId,
    out: impl Write,
    options: &LayerOptions,
) -> Result<()> {
    Ok(store.pack_layer(id, out, options)?)
}

/// Returns when each layer of `snapshot` was made, lowest first.
pub(crate) fn created_at(store: &Store, snapshot: &SnapshotId) -> Result<Vec<Option<Timestamp>>> {
    let layers = store.layers(store.chain(snapshot)?)?.into_iter();
    Ok(layers.map(|layer| Some(layer.created_at)).collect())
}

fn infos(store: &Store, snapshot: &SnapshotId) -> Result<Vec<SnapshotInfo>> {
    Ok(store.snapshots(&store.chain(snapshot)?)?)
}

fn packed(info: SnapshotInfo, descriptor: Descriptor, diff_id: Digest) -> PackedLayer {
    PackedLayer {
        descriptor,
        diff_id,
        created_at: info.created_at,
        description: info.description,
    }
}

/// Computes a layer's diff ID and the length of its tar.
fn digested(store: &Store, id: &SnapshotId) -> Result<(Digest, u64)> {
    let mut tar = DigestWriter::new(std::io::sink());
    write_tar(store, id, &mut tar, &LayerOptions::default())?;
    let (_, digest, length) = tar.finish();
    Ok((digest, length))
}

/// Returns a layer that an image has as `descriptor`.
fn base_blob(
    packer: &Packer<'_>,
    info: SnapshotInfo,
    recipe: &Recipe,
    descriptor: &Descriptor,
) -> Result<PackedLayer> {
    let lease = packer.lease;
    let is_stored = is_held(lease, &descriptor.digest)?;
    if is_stored && (!recipe.force || recipe.fits(&descriptor.media_type)) {
        let diff_id = known_diff_id(&info)?;
        return Ok(packed(info, descriptor.clone(), diff_id));
    }
    // The times in base layers are not this build's to change.
    let recipe = Recipe {
        clamp_mtime: None,
        ..*recipe
    };
    if !is_stored {
        return own_blob(packer, info, &recipe);
    }
    if let Some(blob) = stored_blob(lease, &info, &recipe)? {
        let diff_id = known_diff_id(&info)?;
        return Ok(packed(info, blob, diff_id));
    }
    let encoded = encode::transcode(packer, &descriptor.digest, &recipe)?;
    keep(lease, info, &recipe, encoded)
}

/// Returns a layer in a form that this store makes.
fn own_blob(packer: &Packer<'_>, info: SnapshotInfo, recipe: &Recipe) -> Result<PackedLayer> {
    packer.once(&info.id.clone(), recipe, || {
        make_own_blob(packer, info, recipe)
    })
}

fn make_own_blob(packer: &Packer<'_>, info: SnapshotInfo, recipe: &Recipe) -> Result<PackedLayer> {
    let lease = packer.lease;
    if let Some(blob) = stored_blob(lease, &info, recipe)? {
        let diff_id = known_diff_id(&info)?;
        return Ok(packed(info, blob, diff_id));
    }
    let options = LayerOptions {
        clamp_mtime: recipe.clamp_mtime,
    };
    let mut encoded = encode::encode(packer, recipe, |out| {
        write_tar(lease.store(), &info.id, out, &options)
    })?;
    if let Some(epoch) = recipe.clamp_mtime {
        let annotations = &mut encoded.descriptor.annotations;
        annotations.insert(REWRITTEN.to_owned(), epoch.to_string());
    }
    keep(lease, info, recipe, encoded)
}

/// Remembers a new blob, and the diff ID that came with it.
fn keep(
    lease: &Lease,
    info: SnapshotInfo,
    recipe: &Recipe,
    encoded: encode::Encoded,
) -> Result<PackedLayer> {
    let store = lease.store();
    if recipe.is_usual() {
        match &info.diff_id {
            None => store.set_diff_id(&info.id, &encoded.diff_id, encoded.tar_bytes)?,
            // A layer that came from elsewhere may have been packed in another way: then the new
            // blob is not the layer with that diff ID.
            Some(known) if *known != encoded.diff_id => {
                return Ok(packed(info, encoded.descriptor, encoded.diff_id));
            }
            Some(_) => {}
        }
        store.add_layer_blob(&info.id, &encoded.descriptor)?;
    }
    Ok(packed(info, encoded.descriptor, encoded.diff_id))
}

/// Returns the blob of a layer that is stored as the recipe has it, held.
fn stored_blob(lease: &Lease, info: &SnapshotInfo, recipe: &Recipe) -> Result<Option<Descriptor>> {
    if !recipe.is_usual() || info.diff_id.is_none() {
        return Ok(None);
    }
    for blob in &info.blobs {
        let fits = blob.stored && recipe.fits(&blob.descriptor.media_type);
        if fits && is_held(lease, &blob.descriptor.digest)? {
            return Ok(Some(blob.descriptor.clone()));
        }
    }
    Ok(None)
}

fn known_diff_id(info: &SnapshotInfo) -> Result<Digest> {
    info.diff_id
        .clone()
        .ok_or_else(|| BuildError::internal(format!("layer `{}` has no diff ID", info.id)))
}

fn is_held(lease: &Lease, digest: &Digest) -> Result<bool> {
    Ok(lease.hold_blobs(std::slice::from_ref(digest))?)
}
