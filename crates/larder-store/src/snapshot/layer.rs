use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use larder_oci::{Descriptor, Digest, Layer};
use larder_tree::apply::{ApplyOptions, LayerForm, Warning, apply_layer};
use larder_tree::beneath::Root;
use larder_tree::diff::{DigestWriter, LayerOptions, Style, Upper, write_layer, write_layer_upon};
use larder_tree::erofs::{Image, Reader};
use larder_tree::overlay::Lower;
use rusqlite::{OptionalExtension, params};
use rustix::fs::Mode;

use super::active::SnapshotRow;
use super::chain::{Form, Packing};
use super::flatten::{Files, drop_idle_whiteouts, flatten, inherit_attributes};
use super::image::create;
use super::info::{insert_layer_blob, missing};
use crate::ceiling::Reservation;
use crate::db::to_nanos;
use crate::id::random_text;
use crate::{Error, Lease, RecordType, Result, SnapshotId, Snapshotter, Store, disk, trash};

/// What the directories of an empty layer take.
const EMPTY_BYTES: u64 = 8 << 10;

/// Where an unpacked layer goes.
#[derive(Debug, Clone, Copy)]
pub struct NewLayer<'a> {
    /// The layers below; `None` for the lowest. The lease must hold it.
    pub parent: Option<&'a SnapshotId>,
    /// The chain ID of the layer and those below.
    pub chain_id: &'a Digest,
    /// The form in which it arrived.
    pub blob: Option<&'a Descriptor>,
    /// Where it came from, for `du`.
    pub description: &'a str,
    /// When it was made elsewhere; `None` for now.
    pub created_at: Option<Timestamp>,
}

/// A layer that is unpacked and verified, but not yet part of a snapshot. Dropped, it is
/// discarded.
#[derive(Debug)]
pub struct UnpackedLayer {
    id: SnapshotId,
    /// A directory with its files, or the file of the image.
    path: PathBuf,
    /// What is left to be written of an image.
    image: Option<Image>,
    diff_id: Digest,
    tar_bytes: u64,
    /// Directories that the archive has no entry for, the root included: they take the attributes
    /// of those below.
    implied: Vec<PathBuf>,
    whiteouts: Vec<PathBuf>,
    linked: bool,
    /// Keeps the files from being swept, as it keeps the lease. Released last, when the files
    /// are recorded or gone.
    reservation: Reservation,
}

impl Lease {
    /// Unpacks the layer that `stream` holds, compressed or not, and verifies that its diff ID is
    /// `diff_id`. Needs nothing of the layers below, so that all layers of an image can be
    /// unpacked at a time. `on_warning` is told what couldn't be restored.
    ///
    /// # Errors
    /// `Corrupt` for another diff ID, a damaged or hostile archive; `FullDisk`.
    pub fn unpack(
        &self,
        diff_id: &Digest,
        stream: impl Read,
        on_warning: &mut dyn FnMut(Warning),
    ) -> Result<UnpackedLayer> {
        let id = SnapshotId::random();
        let mut layer = UnpackedLayer {
            path: self.tmp()?.join(id.as_str()),
            id,
            image: None,
            diff_id: diff_id.clone(),
            tar_bytes: 0,
            implied: vec![PathBuf::new()],
            whiteouts: Vec::new(),
            linked: false,
            reservation: Reservation::new(self, EMPTY_BYTES)?,
        };
        let failed = |error| Error::tree(format_args!("cannot apply layer `{diff_id}`"), error);
        let form = unpacked_form(self.store());
        let options = ApplyOptions {
            ownership: self.store().ownership(),
            quota: &layer.reservation,
            ..ApplyOptions::new(on_warning)
        };
        let applied = if self.store().makes_images() {
            let image = layer.image.insert(Image::new(create(&layer.path)?));
            apply_layer(image, stream, form, options)
        } else {
            apply_layer(&make_files(&layer.path)?, stream, form, options)
        };
        let stats = applied.map_err(failed)?;
        if stats.diff_id != *diff_id {
            return Err(Error::corrupt(format_args!(
                "cannot apply layer `{diff_id}`: the archive is `{}`",
                stats.diff_id
            )));
        }
        layer.tar_bytes = stats.size_bytes;
        layer.implied.extend(stats.implied_dirs);
        layer.whiteouts = stats.whiteouts;
        Ok(layer)
    }

    /// Makes an unpacked layer a snapshot. If there already is one with its chain ID, that one
    /// is held and returned, and the layer discarded.
    ///
    /// # Errors
    /// `NotFound` if the parent does not exist (any more).
    pub fn link(&self, mut layer: UnpackedLayer, new: &NewLayer<'_>) -> Result<SnapshotId> {
        if let Some(existing) = self.snapshot_by_chain_id(new.chain_id)? {
            return Ok(existing);
        }
        let failed = |error: std::io::Error| Error::io("cannot store a layer", error);
        let store = self.store();
        let (form, packing) = self.settle_on(&mut layer, new.parent)?;
        let size_bytes = match packing {
            Packing::Directory => disk::allocated(&layer.path),
            Packing::Erofs => disk::allocated_entry(&layer.path),
        };
        let size_bytes = size_bytes.map_err(failed)?;
        layer.reservation.cover(size_bytes)?;
        let _publication = store.lock_publication()?;
        std::fs::rename(&layer.path, store.layout().snapshot(&layer.id)).map_err(failed)?;
        layer.linked = true;
        let winner = store.write(|tx| {
            let found = tx
                .prepare_cached("SELECT id FROM snapshots WHERE chain_id = ?")?
                .query_row([new.chain_id.as_str()], |row| row.get(0))
                .optional()?;
            if let Some(winner) = found {
                self.protect(std::slice::from_ref(&winner), &[])?;
                return Ok(winner);
            }
            let row = SnapshotRow {
                id: &layer.id,
                form,
                packing,
                parents: new.parent.map_or(&[], std::slice::from_ref),
                devices: &[],
                record_type: RecordType::Regular,
                description: new.description,
                size_bytes,
            };
            row.insert(self, tx)?;
            tx.prepare_cached(
                "UPDATE snapshots SET chain_id = ?, diff_id = ?, tar_bytes = ?, \
                   created_at = coalesce(?, created_at) WHERE id = ?",
            )?
            .execute(params![
                new.chain_id.as_str(),
                layer.diff_id.as_str(),
                layer.tar_bytes as i64,
                new.created_at.map(to_nanos),
                layer.id
            ])?;
            if let Some(blob) = new.blob {
                insert_layer_blob(tx, &layer.id, blob)?;
            }
            Ok(layer.id.clone())
        })?;
        if winner != layer.id {
            trash::discard(store.layout(), &store.layout().snapshot(&layer.id))?;
        }
        Ok(winner)
    }

    /// Adapts an unpacked layer to what it will lie upon, and returns its final form.
    fn settle_on(
        &self,
        layer: &mut UnpackedLayer,
        parent: Option<&SnapshotId>,
    ) -> Result<(Form, Packing)> {
        if let Some(image) = layer.image.take() {
            self.finish(image, layer, parent)?;
            return Ok((Form::Directory, Packing::Erofs));
        }
        let below = match parent {
            Some(parent) => self.store().visible(parent)?,
            None => Vec::new(),
        };
        let failed = |error: std::io::Error| Error::io("cannot store a layer", error);
        drop_idle_whiteouts(&layer.files(), &layer.whiteouts, &below).map_err(failed)?;
        inherit_attributes(&layer.files(), &layer.implied, &below).map_err(failed)?;
        if self.store().snapshotter() != Snapshotter::Native {
            return Ok((Form::Directory, Packing::Directory));
        }
        let lowest_first = || {
            let own = std::iter::once(Layer::Directory(layer.files()));
            below.iter().rev().cloned().chain(own).map(Ok)
        };
        let copies_bytes = self.store().copies_bytes(lowest_first(), Files::Copied)?;
        layer.reservation.add(copies_bytes)?;
        let whole = self.tmp()?.join(random_text());
        disk::make_private_dir(&whole)?;
        flatten(lowest_first(), &whole.join("fs"), Files::Copied)?;
        disk::remove(&layer.path)?;
        layer.path = whole;
        Ok((Form::Tree, Packing::Directory))
    }

    /// Writes the rest of an image, adapted to what it will lie upon.
    fn finish(
        &self,
        image: Image,
        layer: &UnpackedLayer,
        parent: Option<&SnapshotId>,
    ) -> Result<()> {
        let failed = |error| Error::tree("cannot store a layer", error);
        let below = match parent {
            Some(parent) => self.store().lower(parent)?,
            None => Lower::new(Vec::new()),
        };
        image.inherit(&layer.implied, &below).map_err(failed)?;
        image
            .drop_whiteouts(&layer.whiteouts, &below)
            .map_err(failed)?;
        image.finish().map(drop).map_err(failed)
    }
}

impl UnpackedLayer {
    fn files(&self) -> PathBuf {
        self.path.join("fs")
    }
}

/// Returns how layers are unpacked into directories of `store`.
pub(super) fn unpacked_form(store: &Store) -> LayerForm {
    match store.snapshotter() {
        Snapshotter::Overlay { userxattr: false } => LayerForm::Overlay,
        Snapshotter::Overlay { userxattr: true } | Snapshotter::Native => LayerForm::OverlayUser,
    }
}

/// Makes a snapshot's directory with an empty one for its files, which it opens.
pub(super) fn make_files(directory: &Path) -> Result<Root> {
    disk::make_private_dir(directory)?;
    let (files, mode) = (directory.join("fs"), Mode::from_raw_mode(0o755));
    rustix::fs::mkdir(&files, mode)
        .and_then(|()| rustix::fs::chmod(&files, mode))
        .map_err(|errno| Error::io("cannot make a layer's directory", errno))?;
    Root::open(&files).map_err(|error| Error::tree("cannot make a layer's directory", error))
}

impl Drop for UnpackedLayer {
    fn drop(&mut self) {
        if self.linked {
            return;
        }
        if let Err(error) = disk::remove(&self.path) {
            tracing::warn!(%error, "a discarded layer is left for the next prune");
        }
    }
}

impl Store {
    /// Writes a snapshot's own layer as an uncompressed tar. Returns the diff ID and the length in
    /// bytes; [`Store::set_diff_id`] keeps them.
    ///
    /// # Errors
    /// `NotFound` if it does not exist (any more); `Invalid` if it has no layer of its own.
    pub fn write_layer(
        &self,
        id: &SnapshotId,
        out: impl Write,
        options: &LayerOptions,
    ) -> Result<(Digest, u64)> {
        let mut out = DigestWriter::new(out);
        self.pack_layer(id, &mut out, options)?;
        let (_, diff_id, length) = out.finish();
        Ok((diff_id, length))
    }

    /// As [`write_layer`](Self::write_layer), for someone who computes the diff ID.
    pub fn pack_layer(
        &self,
        id: &SnapshotId,
        out: impl Write,
        options: &LayerOptions,
    ) -> Result<()> {
        let (form, packing): (Form, Packing) = self.read(|db| {
            db.prepare_cached("SELECT form, packing FROM snapshots WHERE id = ?")?
                .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?
                .ok_or_else(|| missing(id))
        })?;
        let style = match form {
            Form::Directory => Style::Overlay,
            Form::Tree => Style::Tree,
            Form::Merge | Form::Flat => {
                return Err(Error::invalid(format_args!(
                    "snapshot `{id}` has no layer of its own"
                )));
            }
        };
        let failed = |error| Error::tree(format_args!("cannot pack snapshot `{id}`"), error);
        let lower = self.parent_of(id)?.map(|parent| self.lower(&parent));
        let lower = lower.transpose()?;
        let write = |upper: Upper<'_>| match &lower {
            Some(lower) => write_layer_upon(upper, lower, style, out, options),
            None => write_layer(upper, None, style, out, options).map(drop),
        };
        let packed = match packing {
            Packing::Directory => {
                let upper = Root::open(&self.files(id)).map_err(failed)?;
                write(Upper::from(&upper))
            }
            Packing::Erofs => {
                let upper = Reader::open(self.open_image(id)?).map_err(failed)?;
                write(Upper::from(&upper))
            }
        };
        packed.map_err(failed)
    }

    /// Returns what a snapshot that has a layer of its own lies upon.
    fn parent_of(&self, id: &SnapshotId) -> Result<Option<SnapshotId>> {
        self.read(|db| {
            let mut find =
                db.prepare_cached("SELECT parent FROM snapshot_parents WHERE child = ?")?;
            Ok(find.query_row([id], |row| row.get(0)).optional()?)
        })
    }
}
