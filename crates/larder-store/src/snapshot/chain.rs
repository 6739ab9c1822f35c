//! Which directories make up a snapshot, and the mount of them.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use larder_oci::{Mount, MountKind, OverlayUpper};
use rusqlite::Connection;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};

use super::info::missing;
use crate::{Error, Result, SnapshotId, Snapshotter, Store};

/// What a snapshot's own files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The changes to its parent, in overlayfs's terms.
    Directory,
    /// A whole tree.
    Tree,
    /// None of its own: it stacks its parents. Without overlays, the whole tree that they show
    /// together.
    Merge,
    /// Its only parent's layers in one.
    Flat,
}

impl Form {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Tree => "tree",
            Self::Merge => "merge",
            Self::Flat => "flat",
        }
    }

    /// Whether nothing below it shows.
    pub(crate) fn is_whole(self) -> bool {
        matches!(self, Self::Tree | Self::Flat)
    }
}

impl FromSql for Form {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_str()? {
            "directory" => Ok(Self::Directory),
            "tree" => Ok(Self::Tree),
            "merge" => Ok(Self::Merge),
            "flat" => Ok(Self::Flat),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

/// A snapshot that has files of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Layer {
    pub(crate) id: SnapshotId,
    pub(crate) whole: bool,
}

impl Store {
    /// Returns the snapshots whose layers make up `id`, lowest first, merges resolved.
    ///
    /// # Errors
    /// `NotFound` if it does not exist (any more).
    pub fn chain(&self, id: &SnapshotId) -> Result<Vec<SnapshotId>> {
        let ancestry = self.read(|db| Ancestry::load(db, id))?;
        let layers = ancestry.layers(id);
        Ok(layers.into_iter().map(|layer| layer.id).collect())
    }

    /// Returns how to see `id`, read-only. The mount is good as long as a lease holds `id`.
    ///
    /// # Errors
    /// `NotFound` if it does not exist (any more).
    pub fn view(&self, id: &SnapshotId) -> Result<Mount> {
        self.mount(self.visible(id)?, None)
    }

    /// Returns a mount of `lowers`, topmost first, writable into `upper` if given.
    pub(super) fn mount(
        &self,
        mut lowers: Vec<PathBuf>,
        upper: Option<OverlayUpper>,
    ) -> Result<Mount> {
        let userxattr = matches!(self.snapshotter(), Snapshotter::Overlay { userxattr: true });
        let readonly = upper.is_none();
        let kind = match (upper, lowers.len()) {
            (Some(upper), 0) => MountKind::Bind {
                source: upper.upper,
            },
            (None, 0) => return Err(Error::invalid("a snapshot without layers can't be seen")),
            (None, 1) => MountKind::Bind {
                source: lowers.remove(0),
            },
            (upper, _) => MountKind::Overlay {
                lowers,
                upper,
                userxattr,
            },
        };
        Ok(Mount { kind, readonly })
    }

    /// Returns the directories that make up `id`, topmost first.
    pub(super) fn visible(&self, id: &SnapshotId) -> Result<Vec<PathBuf>> {
        let ancestry = self.read(|db| Ancestry::load(db, id))?;
        if self.snapshotter() == Snapshotter::Native {
            return Ok(vec![self.files(id)]);
        }
        let layers = self.bounded(&ancestry, id)?;
        let topmost_first = layers.iter().rev();
        Ok(topmost_first.map(|layer| self.files(&layer.id)).collect())
    }

    /// Returns the directory of a snapshot's own files.
    pub(super) fn files(&self, id: &SnapshotId) -> PathBuf {
        self.layout().snapshot(id).join("fs")
    }
}

/// A snapshot and all it builds on.
#[derive(Debug, Default)]
pub(super) struct Ancestry {
    forms: HashMap<SnapshotId, Form>,
    /// Each lowest first.
    pub(super) parents: HashMap<SnapshotId, Vec<SnapshotId>>,
}

impl Ancestry {
    pub(super) fn load(db: &Connection, id: &SnapshotId) -> Result<Self> {
        let mut list = db.prepare_cached(
            "WITH RECURSIVE below (id) AS ( \
               VALUES (?) UNION SELECT parent FROM snapshot_parents JOIN below ON child = below.id) \
             SELECT s.id, form, parent FROM below JOIN snapshots s USING (id) \
               LEFT JOIN snapshot_parents ON child = s.id ORDER BY s.id, position",
        )?;
        let mut ancestry = Self::default();
        let mut rows = list.query([id])?;
        while let Some(row) = rows.next()? {
            let id: SnapshotId = row.get(0)?;
            if let Some(parent) = row.get(2)? {
                ancestry.parents.entry(id.clone()).or_default().push(parent);
            }
            ancestry.forms.insert(id, row.get(1)?);
        }
        if ancestry.forms.contains_key(id) {
            Ok(ancestry)
        } else {
            Err(missing(id))
        }
    }

    /// Returns the layers that make up `id`, lowest first.
    ///
    /// What occurs twice, below two inputs of a merge, is listed at its topmost place only:
    /// applied again it does to the tree what it did before.
    pub(super) fn layers(&self, id: &SnapshotId) -> Vec<Layer> {
        let mut pending = vec![id];
        let mut seen = HashSet::new();
        let mut layers = Vec::new();
        while let Some(id) = pending.pop() {
            if !seen.insert(id) {
                continue;
            }
            // The last parent, the topmost, is the next to be taken.
            pending.extend(self.parents.get(id).into_iter().flatten());
            if let Some(form @ (Form::Directory | Form::Tree)) = self.forms.get(id) {
                layers.push(Layer {
                    id: id.clone(),
                    whole: form.is_whole(),
                });
            }
        }
        layers.reverse();
        layers
    }
}

/// Returns which of `layers`, lowest first, show: nothing below a whole tree does.
pub(super) fn visible(layers: &[Layer]) -> &[Layer] {
    let lowest = layers.iter().rposition(|layer| layer.whole).unwrap_or(0);
    &layers[lowest..]
}
