//! Views that are kept: a long chain is seen upon a mount of most of it, which an earlier step made.
//!
//! To mount an overlay costs the kernel as much as it has layers, and a step that copies one file needs
//! such a mount. So a view of every 64th snapshot of a chain stays mounted while a build goes on, and
//! serves the next ones as their lowest layer.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use larder_oci::{Layer, Mount, MountKind};
use rusqlite::Connection;
use rustix::fd::OwnedFd;

use super::chain::{Ancestry, Form, Of, Packing, Role};
use super::erofs::Mounter;
use super::info::missing;
use crate::{Error, Result, SnapshotId, Snapshotter, Store};

/// How many layers are mounted upon a kept view; more, and a new one is made.
const STRIDE: usize = 64;
/// How many views are kept. Those of one chain are used one after the other, in one direction.
const MAX_KEPT: usize = 8;

/// The views that this process keeps mounted.
#[derive(Debug, Default)]
pub(crate) struct Views(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Their roots, the latest last.
    roots: VecDeque<(SnapshotId, Arc<OwnedFd>)>,
    /// What layers in directories lie upon. That never changes.
    parents: HashMap<SnapshotId, SnapshotId>,
    /// Of which it is known that all layers lie in directories.
    in_directories: HashSet<SnapshotId>,
    /// Whether an overlay may lie upon such a mount; not known before it was tried.
    nests: Option<bool>,
}

impl Views {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn root(&self, id: &SnapshotId) -> Option<Arc<OwnedFd>> {
        let kept = self.kept();
        let mut roots = kept.roots.iter();
        roots
            .find(|(known, _)| known == id)
            .map(|(_, root)| root.clone())
    }

    /// Unmounts what nobody uses any more, so that removed layers give their room back.
    pub(crate) fn drop_idle(&self) {
        let mut kept = self.kept();
        kept.roots.retain(|(_, root)| Arc::strong_count(root) > 1);
        kept.parents.clear();
        kept.in_directories.clear();
    }
}

/// What a snapshot is seen through.
#[derive(Debug, Clone, Default)]
pub(super) struct Lowers {
    /// Topmost first.
    pub(super) layers: Vec<Layer>,
    /// Whether the lowest is a kept view, an overlay itself.
    pub(super) nested: bool,
}

impl Store {
    /// As [`Store::view`], for this process alone: an overlay upon it may be one too many.
    pub(super) fn near_view(&self, id: &SnapshotId) -> Result<Mount> {
        self.mount(self.near(id)?.layers, None)
    }

    /// Returns few layers that show `id`, for mounts that stay within this process.
    pub(super) fn near(&self, id: &SnapshotId) -> Result<Lowers> {
        if let Some(mounter) = self.mounter()
            && matches!(self.snapshotter(), Snapshotter::Overlay { .. })
            && self.views().kept().nests != Some(false)
            && let Some(layers) = self.upon_view(id, mounter)?
        {
            return Ok(Lowers {
                layers,
                nested: true,
            });
        }
        Ok(Lowers {
            layers: self.visible(id)?,
            nested: false,
        })
    }

    /// Returns the layers of `id` down to a view, made if it is too far below; `None` for a short
    /// chain, and where something else than plain layers comes first.
    fn upon_view(&self, id: &SnapshotId, mounter: &dyn Mounter) -> Result<Option<Vec<Layer>>> {
        let mut layers = Vec::new();
        let mut current = id.clone();
        while layers.len() < STRIDE {
            if let Some(root) = self.views().root(&current) {
                layers.push(Layer::Image(root));
                return Ok(Some(layers));
            }
            let known = self.views().kept().parents.get(&current).cloned();
            let parent = match known {
                Some(parent) => Some(parent),
                None => self.read(|db| self.plain_parent(db, &current))?,
            };
            let Some(parent) = parent else {
                return Ok(None);
            };
            layers.push(self.files(&current).into());
            current = parent;
        }
        let root = self.keep_view(id, mounter)?;
        Ok(root.map(|root| vec![Layer::Image(root)]))
    }

    /// Returns what a layer in a directory lies upon; `None` for the lowest, and for all else.
    fn plain_parent(&self, db: &Connection, id: &SnapshotId) -> Result<Option<SnapshotId>> {
        if let Some(parent) = self.views().kept().parents.get(id) {
            return Ok(Some(parent.clone()));
        }
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
            (Form::Directory, Packing::Directory, Some(parent), Some(Role::Below))
                if found.is_empty() =>
            {
                let parents = &mut self.views().kept().parents;
                parents.insert(id.clone(), parent.clone());
                Ok(Some(parent))
            }
            _ => Ok(None),
        }
    }

    /// Returns whether all layers of `id` lie in directories.
    pub(super) fn is_in_directories(&self, db: &Connection, id: &SnapshotId) -> Result<bool> {
        let mut above = Vec::new();
        let mut current = id.clone();
        while !self.views().kept().in_directories.contains(&current) {
            let Some(parent) = self.plain_parent(db, &current)? else {
                let layers = Ancestry::load(db, &current)?.layers(&current, Of::View);
                if layers.iter().any(|layer| layer.packing == Packing::Erofs) {
                    return Ok(false);
                }
                above.push(current);
                break;
            };
            above.push(std::mem::replace(&mut current, parent));
        }
        self.views().kept().in_directories.extend(above);
        Ok(true)
    }

    /// Mounts a view of `id` and keeps it; `None` where no overlay may lie upon it.
    fn keep_view(&self, id: &SnapshotId, mounter: &dyn Mounter) -> Result<Option<Arc<OwnedFd>>> {
        let layers = self.visible(id)?;
        if layers.iter().any(|layer| matches!(layer, Layer::Image(_))) {
            // An image is as much upon the disk's file system as an overlay is.
            return Ok(None);
        }
        let failed = |error| Error::io(format_args!("cannot mount snapshot `{id}`"), error);
        let view = self.mount(layers, None)?;
        let root = Arc::new(mounter.mount_view(&view).map_err(failed)?);
        let nests = self.views().kept().nests;
        if !nests.unwrap_or_else(|| self.may_nest(id, &root, mounter)) {
            self.views().kept().nests = Some(false);
            return Ok(None);
        }
        let mut kept = self.views().kept();
        kept.nests = Some(true);
        if kept.roots.len() >= MAX_KEPT {
            kept.roots.pop_front();
        }
        kept.roots.push_back((id.clone(), root.clone()));
        Ok(Some(root))
    }

    /// Tries to mount an overlay upon a view: older kernels want layers that are attached somewhere,
    /// and none stacks more than two file systems.
    fn may_nest(&self, id: &SnapshotId, view: &Arc<OwnedFd>, mounter: &dyn Mounter) -> bool {
        let kind = MountKind::Overlay {
            lowers: vec![self.files(id).into(), Layer::Image(view.clone())],
            upper: None,
            userxattr: matches!(self.snapshotter(), Snapshotter::Overlay { userxattr: true }),
        };
        let tried = mounter.mount_view(&Mount {
            kind,
            readonly: true,
        });
        if let Err(error) = &tried {
            tracing::debug!(%error, "long chains are mounted layer by layer");
        }
        tried.is_ok()
    }
}
