use std::collections::{HashMap, HashSet};

use super::active::SnapshotRow;
use super::chain::{Ancestry, Form, Layer, visible};
use super::flatten::{Files, flatten};
use crate::ceiling::Reservation;
use crate::{Error, Lease, RecordType, Result, SnapshotId, Snapshotter, Store, disk};

/// How many lower directories one overlay mount takes: overlayfs' own limit of 500, and one for
/// the layer about to be written.
const MAX_LOWERS: usize = 499;
/// How many layers at least stay above a flattened one, so that the next steps of a long chain
/// share it.
const UNFLATTENED: usize = 100;

impl Lease {
    /// Makes the snapshot that has the layers of all `inputs`, later ones above earlier ones. With
    /// overlays it shares their files and takes no space of its own; else it is a copy of what
    /// they show together. The lease must hold the inputs.
    ///
    /// # Errors
    /// `NotFound` if an input does not exist (any more); `Invalid` for no inputs.
    pub fn merge(&self, inputs: &[SnapshotId], description: &str) -> Result<SnapshotId> {
        if inputs.is_empty() {
            return Err(Error::invalid("a merge needs at least one input"));
        }
        let mut distinct: Vec<SnapshotId> = Vec::with_capacity(inputs.len());
        for input in inputs {
            distinct.retain(|earlier| earlier != input);
            distinct.push(input.clone());
        }
        let id = SnapshotId::random();
        match self.store().snapshotter() {
            Snapshotter::Overlay { .. } => {
                let row = SnapshotRow {
                    id: &id,
                    form: Form::Merge,
                    parents: &distinct,
                    record_type: RecordType::Regular,
                    description,
                    size_bytes: 0,
                };
                self.store().write(|tx| row.insert(self, tx))?;
            }
            Snapshotter::Native => {
                let mut directories = Vec::new();
                for input in distinct.iter().rev() {
                    directories.extend(self.store().visible(input)?);
                }
                self.add_whole(&id, &distinct, Form::Merge, description, &directories)?;
            }
        }
        Ok(id)
    }

    /// Makes a snapshot `id` with the tree that `directories` (topmost first) show together.
    fn add_whole(
        &self,
        id: &SnapshotId,
        parents: &[SnapshotId],
        form: Form,
        description: &str,
        directories: &[std::path::PathBuf],
    ) -> Result<()> {
        let store = self.store();
        let failed = |error: std::io::Error| Error::io("cannot store a flattened snapshot", error);
        let files = match form {
            Form::Flat => Files::Linked,
            _ => Files::Copied,
        };
        let reservation = Reservation::new(self, store.copies_bytes(directories, files)?)?;
        let directory = self.tmp()?.join(id.as_str());
        disk::make_private_dir(&directory)?;
        let made_bytes = flatten(directories, &directory.join("fs"), files)?;
        let own = disk::allocated_entry(&directory).map_err(failed)?;
        reservation.cover(made_bytes + own)?;
        let row = SnapshotRow {
            id,
            form,
            parents,
            record_type: match form {
                Form::Flat => RecordType::Internal,
                _ => RecordType::Regular,
            },
            description,
            size_bytes: made_bytes + own,
        };
        let _publication = store.lock_publication()?;
        std::fs::rename(&directory, store.layout().snapshot(id)).map_err(failed)?;
        store.write(|tx| row.insert(self, tx))
    }
}

impl Store {
    /// Returns the layers of `id`, lowest first, or others that show the same and are few enough
    /// to be mounted.
    pub(super) fn bounded(&self, ancestry: &Ancestry, id: &SnapshotId) -> Result<Vec<Layer>> {
        let layers = ancestry.layers(id);
        let shown = visible(&layers);
        if shown.len() <= MAX_LOWERS {
            return Ok(shown.to_vec());
        }
        let (below, flat) = self.flattening_point(ancestry, id)?;
        let covered: HashSet<_> = ancestry.layers(&below).into_iter().collect();
        let flat = match flat {
            Some(flat) => flat,
            None => self.flatten_snapshot(ancestry, &below)?,
        };
        let mut bounded = vec![Layer {
            id: flat,
            whole: true,
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
        for above in 0..MAX_LOWERS - 1 {
            if let Some(flat) = flats.get(current) {
                return Ok((current.clone(), Some(flat.clone())));
            }
            if above <= UNFLATTENED {
                candidate = current;
            }
            match ancestry.parents.get(current).map(Vec::as_slice) {
                Some([parent]) => current = parent,
                _ => break,
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
                   JOIN snapshots s ON s.id = p.child AND s.form = 'flat'",
            )?;
            let rows = list.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    fn flatten_snapshot(&self, ancestry: &Ancestry, id: &SnapshotId) -> Result<SnapshotId> {
        let layers = ancestry.layers(id);
        let topmost_first = visible(&layers).iter().rev();
        let directories: Vec<_> = topmost_first.map(|layer| self.files(&layer.id)).collect();
        let flat = SnapshotId::random();
        let description = format!("layers of {id} in one");
        self.lease()?.add_whole(
            &flat,
            std::slice::from_ref(id),
            Form::Flat,
            &description,
            &directories,
        )?;
        tracing::debug!(snapshot = %id, layers = layers.len(), "flattened a long chain");
        Ok(flat)
    }
}
