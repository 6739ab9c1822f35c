use std::collections::{HashMap, HashSet};

use rusqlite::params;
use rustix::fs::Mode;

use super::active::SnapshotRow;
use super::chain::{Ancestry, Form, Layer, Of, Packing, Role, visible};
use super::flatten::{Files, flatten};
use crate::ceiling::Reservation;
use crate::{Error, Lease, RecordType, Result, SnapshotId, Snapshotter, Store, disk};

/// How many lower directories one overlay mount takes: overlayfs' own limit of 500, and one for
/// the layer about to be written.
const MAX_LOWERS: usize = 499;
/// How many of them may be images: each takes a descriptor, of which a process often has 1024.
const MAX_IMAGES: usize = 200;
/// How many layers at least stay above a flattened one, so that the next steps of a long chain
/// share it.
const UNFLATTENED: usize = 100;
/// What the directories of an empty snapshot take.
const EMPTY_BYTES: u64 = 8 << 10;

impl Lease {
    /// Makes the snapshot that has the layers of all `inputs`, later ones above earlier ones; an
    /// empty tree without a layer for no inputs. It shares their files and takes no space of its
    /// own. The lease must hold the inputs.
    ///
    /// # Errors
    /// `NotFound` if an input does not exist (any more); `Invalid` if one but the lowest is not
    /// [stackable](Store::is_stackable).
    pub fn merge(&self, inputs: &[SnapshotId], description: &str) -> Result<SnapshotId> {
        let store = self.store();
        if inputs.is_empty() {
            return self.empty(description);
        }
        let mut distinct: Vec<SnapshotId> = Vec::with_capacity(inputs.len());
        for input in inputs {
            distinct.retain(|earlier| earlier != input);
            distinct.push(input.clone());
        }
        for input in &distinct[1..] {
            if !store.is_stackable(input)? {
                return Err(Error::invalid(format_args!(
                    "snapshot `{input}` can't be stacked as it is"
                )));
            }
        }
        let id = SnapshotId::random();
        let row = merge_row(&id, &distinct, description, 0);
        store.write(|tx| row.insert(self, tx))?;
        Ok(id)
    }

    /// Makes the snapshot that has the own layers of `layers`, lowest first, without what lies
    /// below these, and that shows the files of `shown`: what the layers make when one is applied
    /// after the other. It takes no space of its own. The lease must hold them all.
    ///
    /// # Errors
    /// `NotFound` if one of them does not exist (any more); `Invalid` for no layers.
    pub fn stack(
        &self,
        layers: &[SnapshotId],
        shown: &SnapshotId,
        description: &str,
    ) -> Result<SnapshotId> {
        if layers.is_empty() {
            return Err(Error::invalid("a stack needs at least one layer"));
        }
        let id = SnapshotId::random();
        let parents = [layers, std::slice::from_ref(shown)].concat();
        let row = merge_row(&id, &parents, description, 0);
        self.store().write(|tx| {
            row.insert(self, tx)?;
            tx.prepare_cached(
                "UPDATE snapshot_parents SET role = iif(position < ?, ?, ?) WHERE child = ?",
            )?
            .execute(params![
                layers.len() as i64,
                Role::Layer.as_str(),
                Role::Shown.as_str(),
                id
            ])?;
            Ok(())
        })?;
        Ok(id)
    }

    /// Makes the snapshot of an empty tree without a layer.
    fn empty(&self, description: &str) -> Result<SnapshotId> {
        let store = self.store();
        let failed = |error| Error::io("cannot store an empty snapshot", error);
        let id = SnapshotId::random();
        let reservation = Reservation::new(self, EMPTY_BYTES)?;
        let directory = self.tmp()?.join(id.as_str());
        disk::make_private_dir(&directory)?;
        let (files, mode) = (directory.join("fs"), Mode::from_raw_mode(0o755));
        rustix::fs::mkdir(&files, mode).map_err(|errno| failed(errno.into()))?;
        rustix::fs::chmod(&files, mode).map_err(|errno| failed(errno.into()))?;
        let size_bytes = disk::allocated(&directory).map_err(failed)?;
        reservation.cover(size_bytes)?;
        let row = merge_row(&id, &[], description, size_bytes);
        let _publication = store.lock_publication()?;
        std::fs::rename(&directory, store.layout().snapshot(&id)).map_err(failed)?;
        store.write(|tx| row.insert(self, tx))?;
        Ok(id)
    }

    /// Makes the flattened form `id` of `parent`: the tree that `layers` (lowest first) show together.
    fn add_flat(
        &self,
        id: &SnapshotId,
        parent: &SnapshotId,
        description: &str,
        layers: &[Layer],
    ) -> Result<()> {
        let store = self.store();
        let failed = |error: std::io::Error| Error::io("cannot store a flattened snapshot", error);
        let located = || layers.iter().map(|layer| store.located(layer));
        let copies_bytes = store.copies_bytes(located(), Files::Linked)?;
        let reservation = Reservation::new(self, copies_bytes)?;
        let directory = self.tmp()?.join(id.as_str());
        disk::make_private_dir(&directory)?;
        let own_bytes = flatten(located(), &directory.join("fs"), Files::Linked)?;
        // Its other files are those of others.
        let size_bytes = own_bytes + disk::allocated_directories(&directory).map_err(failed)?;
        reservation.cover(size_bytes)?;
        let row = SnapshotRow {
            id,
            form: Form::Flat,
            packing: Packing::Directory,
            parents: std::slice::from_ref(parent),
            devices: &[],
            record_type: RecordType::Internal,
            description,
            size_bytes,
        };
        let _publication = store.lock_publication()?;
        std::fs::rename(&directory, store.layout().snapshot(id)).map_err(failed)?;
        store.write(|tx| row.insert(self, tx))
    }
}

fn merge_row<'a>(
    id: &'a SnapshotId,
    parents: &'a [SnapshotId],
    description: &'a str,
    size_bytes: u64,
) -> SnapshotRow<'a> {
    SnapshotRow {
        id,
        form: Form::Merge,
        packing: Packing::Directory,
        parents,
        devices: &[],
        record_type: RecordType::Regular,
        description,
        size_bytes,
    }
}

impl Store {
    /// Returns whether the layers of a snapshot may be stacked upon any others as they are: the
    /// directories of a layer that was written above another have marks that hide what lay there,
    /// and files that did not change.
    ///
    /// # Errors
    /// `NotFound` if it does not exist (any more).
    pub fn is_stackable(&self, id: &SnapshotId) -> Result<bool> {
        if self.snapshotter() == Snapshotter::Native {
            return Ok(false);
        }
        let ancestry = self.read(|db| Ancestry::load(db, id))?;
        let layers = ancestry.layers(id, Of::Export);
        // Stacks show a tree that their layers are not parts of.
        let is_merge = layers == ancestry.layers(id, Of::View);
        Ok(is_merge && layers.iter().all(|layer| ancestry.is_lowest(&layer.id)))
    }

    /// Returns the layers of `id`, lowest first, or others that show the same and are few enough
    /// to be mounted.
    pub(super) fn bounded(&self, ancestry: &Ancestry, id: &SnapshotId) -> Result<Vec<Layer>> {
        let layers = ancestry.layers(id, Of::View);
        let shown = visible(&layers);
        let images = shown.iter().filter(|layer| layer.packing == Packing::Erofs);
        if shown.len() <= MAX_LOWERS && images.count() <= MAX_IMAGES {
            return Ok(shown.to_vec());
        }
        let (below, flat) = self.flattening_point(ancestry, id)?;
        let covered: HashSet<_> = ancestry.layers(&below, Of::View).into_iter().collect();
        let flat = match flat {
            Some(flat) => flat,
            None => self.flatten_snapshot(ancestry, &below)?,
        };
        let mut bounded = vec![Layer {
            id: flat,
            whole: true,
            packing: Packing::Directory,
        }];
        bounded.extend(
            shown
                .iter()
                .filter(|layer| !covered.contains(*layer))
                .cloned(),
        );
        Ok(bounded)
    }

    /// Returns the snapshot to be flattened, and its flattened form if it has one: the topmost
    /// that has one and leaves few enough layers above, else one not far below `id`; `id` itself
    /// if a merge is in the way.
    fn flattening_point(
        &self,
        ancestry: &Ancestry,
        id: &SnapshotId,
    ) -> Result<(SnapshotId, Option<SnapshotId>)> {
        let flats = self.flats_below(id)?;
        let mut current = id;
        let mut candidate = id;
        let mut image_count = 0;
        for above in 0..MAX_LOWERS - 1 {
            if image_count > MAX_IMAGES {
                break;
            }
            if let Some(flat) = flats.get(current) {
                return Ok((current.clone(), Some(flat.clone())));
            }
            if above <= UNFLATTENED {
                candidate = current;
            }
            image_count += usize::from(ancestry.packing(current) == Some(Packing::Erofs));
            match ancestry.below(current) {
                Some(parent) => current = parent,
                None => break,
            }
        }
        Ok((candidate.clone(), None))
    }

    /// Returns the flattened forms of `id` and all it builds on.
    fn flats_below(&self, id: &SnapshotId) -> Result<HashMap<SnapshotId, SnapshotId>> {
        self.read(|db| {
            let mut list = db.prepare_cached(
                "WITH RECURSIVE below (id) AS (VALUES (?) UNION \
                   SELECT parent FROM snapshot_parents JOIN below ON child = below.id) \
                 SELECT p.parent, s.id FROM below \
                   JOIN snapshot_parents p ON p.parent = below.id \
                   JOIN snapshots s ON s.id = p.child AND s.form = 'flat' AND p.role = 'below'",
            )?;
            let rows = list.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    fn flatten_snapshot(&self, ancestry: &Ancestry, id: &SnapshotId) -> Result<SnapshotId> {
        let layers = ancestry.layers(id, Of::View);
        let flat = SnapshotId::random();
        let description = format!("layers of {id} in one");
        let lease = self.lease()?;
        lease.add_flat(&flat, id, &description, visible(&layers))?;
        tracing::debug!(snapshot = %id, layers = layers.len(), "flattened a long chain");
        Ok(flat)
    }
}
