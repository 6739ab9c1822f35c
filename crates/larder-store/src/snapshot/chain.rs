//! Which directories make up a snapshot, and the mount of them.

use std::collections::HashSet;
use std::path::PathBuf;

use larder_oci::{Mount, MountKind, OverlayUpper};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension};

use super::info::missing;
use crate::{Error, Result, SnapshotId, Snapshotter, Store};

/// What a snapshot's own files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The changes to its parent, in overlayfs's terms.
    Directory,
    /// A whole tree.
    Tree,
    /// None: it stacks its parents.
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
        let layers = self.read(|db| layers(db, id))?;
        Ok(layers.into_iter().map(|layer| layer.id).collect())
    }

    /// Returns how to see `id`, read-only. The mount is good as long as a lease holds `id`.
    ///
    /// # Errors
    /// `NotFound` if it does not exist (any more).
    pub fn view(&self, id: &SnapshotId) -> Result<Mount> {
        self.mount(Some(id), None)
    }

    /// Returns a mount of `id`, writable into `upper` if given.
    pub(super) fn mount(
        &self,
        id: Option<&SnapshotId>,
        upper: Option<OverlayUpper>,
    ) -> Result<Mount> {
        let mut lowers = match id {
            Some(id) => self.visible(id)?,
            None => Vec::new(),
        };
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
        let layers = self.bounded(id, self.read(|db| layers(db, id))?)?;
        let topmost_first = layers.iter().rev();
        Ok(topmost_first.map(|layer| self.files(&layer.id)).collect())
    }

    /// Returns the directory of a snapshot's own files.
    pub(super) fn files(&self, id: &SnapshotId) -> PathBuf {
        self.layout().snapshot(id).join("fs")
    }
}

/// Returns the layers that make up `id`, lowest first.
///
/// What occurs twice, below two inputs of a merge, is listed at its topmost place only: applied
/// again it does to the tree what it did before.
pub(super) fn layers(db: &Connection, id: &SnapshotId) -> Result<Vec<Layer>> {
    let mut form = db.prepare_cached("SELECT form FROM snapshots WHERE id = ?")?;
    let mut parents =
        db.prepare_cached("SELECT parent FROM snapshot_parents WHERE child = ? ORDER BY position")?;
    let mut pending = vec![id.clone()];
    let mut seen = HashSet::new();
    let mut layers = Vec::new();
    while let Some(id) = pending.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let form: Option<Form> = form.query_row([&id], |row| row.get(0)).optional()?;
        let form = form.ok_or_else(|| missing(&id))?;
        // The last parent, the topmost, is the next to be taken.
        for parent in parents.query_map([&id], |row| row.get(0))? {
            pending.push(parent?);
        }
        if matches!(form, Form::Directory | Form::Tree) {
            let whole = form.is_whole();
            layers.push(Layer { id, whole });
        }
    }
    layers.reverse();
    Ok(layers)
}

/// Returns which of `layers`, lowest first, show: nothing below a whole tree does.
pub(super) fn visible(layers: &[Layer]) -> &[Layer] {
    let lowest = layers.iter().rposition(|layer| layer.whole).unwrap_or(0);
    &layers[lowest..]
}
