//! What snapshots show, without a mount: for what is written upon them by this process, and for what
//! their layers change.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use larder_tree::erofs::Reader;
use larder_tree::overlay::{self, Lower};
use rusqlite::Connection;
use rustix::fd::OwnedFd;

use super::chain::{Ancestry, Form, Layer, Of, Packing, Role, visible};
use super::info::missing;
use crate::store::WeakStore;
use crate::{Error, Result, SnapshotId, Store};

/// What this process knows of the trees that snapshots show. What it says never changes.
#[derive(Debug, Default)]
pub(crate) struct Lowers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    trees: HashMap<SnapshotId, Lower>,
}

impl Lowers {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets all, to give the memory back.
    pub(crate) fn clear(&self) {
        *self.known() = Known::default();
    }
}

impl Store {
    /// Returns the tree that `id` shows. It is good as long as a lease holds `id`.
    ///
    /// # Errors
    /// `NotFound` if it does not exist (any more).
    pub(super) fn lower(&self, id: &SnapshotId) -> Result<Lower> {
        let mut above = Vec::new();
        let mut current = id.clone();
        let mut lower = loop {
            let known = self.lowers().known().trees.get(&current).cloned();
            if let Some(lower) = known {
                break lower;
            }
            match self.read(|db| plain_parent(db, &current))? {
                Some((parent, packing)) => {
                    above.push((std::mem::replace(&mut current, parent), packing));
                }
                None => break self.lowest(&current)?,
            }
        };
        self.lowers().known().trees.insert(current, lower.clone());
        for (id, packing) in above.into_iter().rev() {
            lower = self.raise(&lower, id, packing);
        }
        Ok(lower)
    }

    /// Returns what is seen when a layer lies upon `lower`, and remembers that it is the tree of its
    /// snapshot.
    pub(super) fn raise(&self, lower: &Lower, id: SnapshotId, packing: Packing) -> Lower {
        let raised = lower.with(self.files_of(&id, packing));
        self.lowers().known().trees.insert(id, raised.clone());
        raised
    }

    /// Returns the tree of a snapshot that does more than lie upon another one.
    fn lowest(&self, id: &SnapshotId) -> Result<Lower> {
        let ancestry = self.read(|db| Ancestry::load(db, id))?;
        let layers = ancestry.layers(id, Of::View);
        let layers = visible(&layers).iter();
        let mut files: Vec<_> = layers
            .map(|layer: &Layer| self.files_of(&layer.id, layer.packing))
            .collect();
        if files.is_empty() {
            files.push(self.files_of(id, Packing::Directory));
        }
        Ok(Lower::new(files))
    }

    fn files_of(&self, id: &SnapshotId, packing: Packing) -> Arc<dyn overlay::Layer> {
        Arc::new(Files {
            store: self.downgrade(),
            id: id.clone(),
            packing,
            image: OnceLock::new(),
        })
    }
}

/// Returns what a layer lies upon, and how its files lie; `None` for the lowest, and for what is more, or
/// less, than a layer upon another.
fn plain_parent(db: &Connection, id: &SnapshotId) -> Result<Option<(SnapshotId, Packing)>> {
    let mut list = db.prepare_cached(
        "SELECT form, packing, parent, role FROM snapshots s \
         LEFT JOIN snapshot_parents ON child = s.id WHERE s.id = ?",
    )?;
    let rows = list.query_map([id], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    })?;
    let mut found: Vec<(Form, Packing, Option<SnapshotId>, Option<Role>)> =
        rows.collect::<rusqlite::Result<_>>()?;
    let only = found.pop().ok_or_else(|| missing(id))?;
    match only {
        (Form::Directory, packing, Some(parent), Some(Role::Below)) if found.is_empty() => {
            Ok(Some((parent, packing)))
        }
        _ => Ok(None),
    }
}

/// The files of one snapshot.
#[derive(Debug)]
struct Files {
    store: WeakStore,
    id: SnapshotId,
    packing: Packing,
    /// Once it was asked for.
    image: OnceLock<Arc<Reader>>,
}

impl Files {
    fn open(&self) -> Result<Arc<OwnedFd>> {
        let store = self.store()?;
        let path = match (self.packing, store.image_mounter()) {
            (Packing::Erofs, Some(mounter)) => return store.image_root(&self.id, mounter),
            (Packing::Erofs, None) => store.unpacked(&self.id)?,
            (Packing::Directory, _) => store.files(&self.id),
        };
        let failed = |error| Error::io(format_args!("cannot read snapshot `{}`", self.id), error);
        let opened = File::open(path).map_err(failed)?;
        Ok(Arc::new(opened.into()))
    }

    fn reader(&self) -> Result<Option<Arc<Reader>>> {
        if self.packing == Packing::Directory {
            return Ok(None);
        }
        if let Some(image) = self.image.get() {
            return Ok(Some(Arc::clone(image)));
        }
        let failed = |error| Error::tree(format_args!("cannot read snapshot `{}`", self.id), error);
        let image = Reader::open(self.store()?.open_image(&self.id)?).map_err(failed)?;
        Ok(Some(Arc::clone(self.image.get_or_init(|| Arc::new(image)))))
    }

    fn store(&self) -> Result<Store> {
        let store = self.store.upgrade();
        store.ok_or_else(|| Error::invalid("a store that was closed is read"))
    }
}

impl overlay::Layer for Files {
    fn root(&self) -> io::Result<Arc<OwnedFd>> {
        self.open().map_err(io::Error::other)
    }

    fn image(&self) -> io::Result<Option<Arc<Reader>>> {
        self.reader().map_err(io::Error::other)
    }
}
