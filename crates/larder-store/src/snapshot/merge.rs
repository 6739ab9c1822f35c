use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use larder_tree::apply::{ApplyOptions, LayerForm, apply_layer};
use larder_tree::beneath::Root;
use larder_tree::diff::{LayerOptions, Style, write_layer};

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
            Snapshotter::Native => self.merge_copies(&id, &distinct, description)?,
        }
        Ok(id)
    }

    /// Makes a merge where snapshots are copies: that of one of `inputs`, and upon it what each
    /// further layer of the others changed.
    fn merge_copies(
        &self,
        id: &SnapshotId,
        inputs: &[SnapshotId],
        description: &str,
    ) -> Result<()> {
        let store = self.store();
        let mut chains = Vec::with_capacity(inputs.len());
        let mut layers: Vec<SnapshotId> = Vec::new();
        for input in inputs {
            let chain = store.chain(input)?;
            layers.retain(|layer| !chain.contains(layer));
            layers.extend_from_slice(&chain);
            chains.push((input, chain));
        }
        chains.retain(|(_, chain)| layers.starts_with(chain));
        let base = chains.iter().max_by_key(|(_, chain)| chain.len());
        let (base, above) = base.map_or((None, &layers[..]), |(input, chain)| {
            (Some(store.files(input)), &layers[chain.len()..])
        });
        let changed = above.iter().map(|layer| store.files(layer));
        let copied: Vec<PathBuf> = base.iter().cloned().chain(changed).collect();
        let reservation = Reservation::new(self, store.copies_bytes(&copied, Files::Copied)?)?;
        let directory = self.tmp()?.join(id.as_str());
        disk::make_private_dir(&directory)?;
        flatten(base.as_slice(), &directory.join("fs"), Files::Copied)?;
        for layer in above {
            self.apply_changes(layer, &directory)?;
        }
        self.publish_whole(
            id,
            inputs,
            Form::Merge,
            description,
            &directory,
            &reservation,
        )
    }

    /// Makes in the tree of `directory`, a snapshot that is being made, the changes that `layer`
    /// made to its parent.
    fn apply_changes(&self, layer: &SnapshotId, directory: &Path) -> Result<()> {
        let store = self.store();
        let failed = |error| Error::tree(format_args!("cannot merge snapshot `{layer}`"), error);
        let parent = store.snapshot(layer)?.parents.into_iter().next();
        let parent = parent.map(|parent| Root::open(&store.files(&parent)));
        let parent = parent.transpose().map_err(failed)?;
        let path = directory.join("layer.tar");
        let file = std::fs::File::create(&path);
        let file = file.map_err(|error| Error::io("cannot merge snapshots", error))?;
        let own = Root::open(&store.files(layer)).map_err(failed)?;
        let options = LayerOptions::default();
        write_layer(&own, parent.as_ref(), Style::Tree, &mut &file, &options).map_err(failed)?;
        drop(file);
        let reader = std::fs::File::open(&path);
        let reader = reader.map_err(|error| Error::io("cannot merge snapshots", error))?;
        let target = Root::open(&directory.join("fs")).map_err(failed)?;
        let mut on_warning = |warning| tracing::debug!(snapshot = %layer, %warning, "merged");
        let options = ApplyOptions {
            ownership: store.ownership(),
            ..ApplyOptions::new(&mut on_warning)
        };
        apply_layer(&target, reader, LayerForm::Tree, options).map_err(failed)?;
        disk::remove(&path)
    }

    /// Makes the snapshot `id` that shows what `parent` does, as one directory of the same files.
    /// `directories`, topmost first, are what it shows.
    fn flatten(&self, id: &SnapshotId, parent: &SnapshotId, directories: &[PathBuf]) -> Result<()> {
        let store = self.store();
        let reservation = Reservation::new(self, store.copies_bytes(directories, Files::Linked)?)?;
        let directory = self.tmp()?.join(id.as_str());
        disk::make_private_dir(&directory)?;
        flatten(directories, &directory.join("fs"), Files::Linked)?;
        let description = format!("layers of {parent} in one");
        let parents = std::slice::from_ref(parent);
        self.publish_whole(
            id,
            parents,
            Form::Flat,
            &description,
            &directory,
            &reservation,
        )
    }

    /// Makes `directory`, which has a whole tree, the snapshot `id`.
    fn publish_whole(
        &self,
        id: &SnapshotId,
        parents: &[SnapshotId],
        form: Form,
        description: &str,
        directory: &Path,
        reservation: &Reservation,
    ) -> Result<()> {
        let store = self.store();
        let failed = |error: std::io::Error| Error::io("cannot store a flattened snapshot", error);
        let (record_type, size_bytes) = match form {
            // Its files are those of others.
            Form::Flat => (RecordType::Internal, disk::allocated_directories(directory)),
            _ => (RecordType::Regular, disk::allocated(directory)),
        };
        let size_bytes = size_bytes.map_err(failed)?;
        reservation.cover(size_bytes)?;
        let row = SnapshotRow {
            id,
            form,
            parents,
            record_type,
            description,
            size_bytes,
        };
        let _publication = store.lock_publication()?;
        std::fs::rename(directory, store.layout().snapshot(id)).map_err(failed)?;
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
        self.lease()?.flatten(&flat, id, &directories)?;
        tracing::debug!(snapshot = %id, layers = layers.len(), "flattened a long chain");
        Ok(flat)
    }
}
