//! Which layers make up a snapshot, and the mount of them.

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
    /// None: it stacks its parents; with no parent it is an empty tree.
    Merge,
    /// Its only parent's layers in one; or, as [`Role::Layer`], that one's own, which is an image.
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

/// How a snapshot's own files lie on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Packing {
    /// In a directory.
    Directory,
    /// In an EROFS image, which is one file.
    Erofs,
}

impl Packing {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Erofs => "erofs",
        }
    }
}

impl FromSql for Packing {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_str()? {
            "directory" => Ok(Self::Directory),
            "erofs" => Ok(Self::Erofs),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

/// A snapshot that has files of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Layer {
    pub(crate) id: SnapshotId,
    pub(crate) whole: bool,
    pub(crate) packing: Packing,
}

impl Store {
    /// Returns the snapshots whose layers make up `id`, lowest first, merges and stacks resolved;
    /// none for an empty tree.
    ///
    /// # Errors
    /// `NotFound` if it does not exist (any more).
    pub fn chain(&self, id: &SnapshotId) -> Result<Vec<SnapshotId>> {
        let ancestry = self.read(|db| Ancestry::load(db, id))?;
        let layers = ancestry.layers(id, Of::Export);
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
        mut lowers: Vec<larder_oci::Layer>,
        upper: Option<OverlayUpper>,
    ) -> Result<Mount> {
        let userxattr = matches!(self.snapshotter(), Snapshotter::Overlay { userxattr: true });
        let readonly = upper.is_none();
        let kind = match (upper, lowers.len()) {
            (Some(upper), 0) => MountKind::Bind {
                source: upper.upper.into(),
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

    /// Returns where the files are that make up `id`, topmost layer first.
    pub(super) fn visible(&self, id: &SnapshotId) -> Result<Vec<larder_oci::Layer>> {
        let ancestry = self.read(|db| Ancestry::load(db, id))?;
        let layers = self.bounded(&ancestry, id)?;
        if layers.is_empty() {
            return Ok(vec![self.files(id).into()]);
        }
        let topmost_first = layers.iter().rev();
        topmost_first.map(|layer| self.located(layer)).collect()
    }

    /// Returns where a layer's files are.
    pub(super) fn located(&self, layer: &Layer) -> Result<larder_oci::Layer> {
        match layer.packing {
            Packing::Directory => Ok(self.files(&layer.id).into()),
            Packing::Erofs => match self.image_mounter() {
                Some(mounter) => Ok(larder_oci::Layer::Image(
                    self.image_root(&layer.id, mounter)?,
                )),
                None => Ok(self.unpacked(&layer.id)?.into()),
            },
        }
    }

    /// Returns the directory of a snapshot's own files, if they lie in one.
    pub(super) fn files(&self, id: &SnapshotId) -> PathBuf {
        self.layout().snapshot(id).join("fs")
    }
}

/// What a parent is to its child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The child lies upon it.
    Below,
    /// Its own layer is one of the child's, without what lies below it.
    Layer,
    /// It has the files that the child shows.
    Shown,
}

impl Role {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Below => "below",
            Self::Layer => "layer",
            Self::Shown => "shown",
        }
    }
}

impl FromSql for Role {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_str()? {
            "below" => Ok(Self::Below),
            "layer" => Ok(Self::Layer),
            "shown" => Ok(Self::Shown),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

/// What layers are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// What is mounted.
    View,
    /// What is exported.
    Export,
}

/// A snapshot and all it builds on.
#[derive(Debug, Default)]
pub(super) struct Ancestry {
    forms: HashMap<SnapshotId, (Form, Packing)>,
    /// Each lowest first.
    parents: HashMap<SnapshotId, Vec<(SnapshotId, Role)>>,
}

impl Ancestry {
    pub(super) fn load(db: &Connection, id: &SnapshotId) -> Result<Self> {
        let mut list = db.prepare_cached(
            "WITH RECURSIVE below (id) AS ( \
               VALUES (?) UNION SELECT parent FROM snapshot_parents JOIN below ON child = below.id) \
             SELECT s.id, form, parent, role, packing FROM below JOIN snapshots s USING (id) \
               LEFT JOIN snapshot_parents ON child = s.id ORDER BY s.id, position",
        )?;
        let mut ancestry = Self::default();
        let mut rows = list.query([id])?;
        while let Some(row) = rows.next()? {
            let id: SnapshotId = row.get(0)?;
            if let Some(parent) = row.get(2)? {
                let parents = ancestry.parents.entry(id.clone()).or_default();
                parents.push((parent, row.get(3)?));
            }
            ancestry.forms.insert(id, (row.get(1)?, row.get(4)?));
        }
        if ancestry.forms.contains_key(id) {
            Ok(ancestry)
        } else {
            Err(missing(id))
        }
    }

    /// Returns how the files of `id` lie, if it is known.
    pub(super) fn packing(&self, id: &SnapshotId) -> Option<Packing> {
        self.forms.get(id).map(|(_, packing)| *packing)
    }

    /// Returns what `id` lies upon; `None` for nothing, and for a merge or a stack.
    pub(super) fn below(&self, id: &SnapshotId) -> Option<&SnapshotId> {
        match self.parents.get(id).map(Vec::as_slice) {
            Some([(parent, Role::Below)]) => Some(parent),
            _ => None,
        }
    }

    /// Returns whether `id` lies upon nothing.
    pub(super) fn is_lowest(&self, id: &SnapshotId) -> bool {
        !self.parents.contains_key(id)
    }

    /// Returns the layers that make up `id`, lowest first.
    ///
    /// What occurs twice, below two inputs of a merge, is listed at its topmost place only:
    /// applied again it does to the tree what it did before.
    pub(super) fn layers(&self, id: &SnapshotId, of: Of) -> Vec<Layer> {
        let mut pending = vec![(id, Role::Below)];
        let (mut seen, mut listed) = (HashSet::new(), HashSet::new());
        let mut layers = Vec::new();
        while let Some((id, role)) = pending.pop() {
            if role == Role::Below && !seen.insert(id) {
                continue;
            }
            if let Some((form @ (Form::Directory | Form::Tree), packing)) = self.forms.get(id)
                && listed.insert(id)
            {
                layers.push(Layer {
                    id: id.clone(),
                    whole: form.is_whole(),
                    packing: *packing,
                });
            }
            if role == Role::Below {
                // The last parent, the topmost, is the next to be taken.
                pending.extend(self.sources(id, of));
            }
        }
        layers.reverse();
        layers
    }

    /// Returns the parents that `id` has layers of, lowest first: all of their layers, or, as
    /// [`Role::Layer`], but their own.
    fn sources(&self, id: &SnapshotId, of: Of) -> impl Iterator<Item = (&SnapshotId, Role)> {
        let parents = self.parents.get(id).into_iter().flatten();
        parents.filter_map(move |(parent, role)| match (role, of) {
            (Role::Below, _) | (Role::Layer, Of::Export) => Some((parent, *role)),
            (Role::Shown, Of::View) => Some((parent, Role::Below)),
            (Role::Layer, Of::View) | (Role::Shown, Of::Export) => None,
        })
    }
}

/// Returns which of `layers`, lowest first, show: nothing below a whole tree does.
pub(super) fn visible(layers: &[Layer]) -> &[Layer] {
    let lowest = layers.iter().rposition(|layer| layer.whole).unwrap_or(0);
    &layers[lowest..]
}
