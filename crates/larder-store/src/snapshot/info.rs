use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use larder_oci::{Descriptor, Digest};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::db::from_nanos;
use crate::{Error, Result, SnapshotId, Store};

/// What a record of `du` came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordType {
    /// A step's result, or a layer of an image.
    Regular,
    /// Files sent by a client.
    LocalSource,
    /// A Git checkout.
    GitCheckout,
    /// A cache mount.
    CacheMount,
    /// A frontend's image.
    Frontend,
    /// The store's own.
    Internal,
}

impl RecordType {
    const ALL: [Self; 6] = [
        Self::Regular,
        Self::LocalSource,
        Self::GitCheckout,
        Self::CacheMount,
        Self::Frontend,
        Self::Internal,
    ];

    /// Returns the text that `du` shows and filters match.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::LocalSource => "source.local",
            Self::GitCheckout => "source.git.checkout",
            Self::CacheMount => "exec.cachemount",
            Self::Frontend => "frontend",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RecordType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|known| known.as_str() == text);
        known.ok_or_else(|| Error::invalid(format_args!("`{text}` is not a record type")))
    }
}

impl FromSql for RecordType {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        text.parse()
            .map_err(|error| FromSqlError::Other(Box::new(error)))
    }
}

/// What is known of a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotInfo {
    /// Its name.
    pub id: SnapshotId,
    /// What it builds on: its parent, or the inputs of a merge, lowest first.
    pub parents: Vec<SnapshotId>,
    /// The chain ID of its layers, if that was given.
    pub chain_id: Option<Digest>,
    /// The digest of its own layer as an uncompressed tar, once computed.
    pub diff_id: Option<Digest>,
    /// The length of that tar in bytes.
    pub tar_bytes: Option<u64>,
    /// The compressed forms of its own layer.
    pub blobs: Vec<LayerBlob>,
    /// What made it.
    pub description: String,
    /// What it came from.
    pub record_type: RecordType,
    /// When it was made.
    pub created_at: Timestamp,
    /// When a build last used it.
    pub last_used_at: Option<Timestamp>,
    /// How many builds used it.
    pub usage_count: u64,
    /// Allocated bytes of its own files, not of what it builds on.
    pub size_bytes: u64,
}

/// What is known of a snapshot's own layer, without the forms in which it travels.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerInfo {
    /// The snapshot.
    pub id: SnapshotId,
    /// See [`SnapshotInfo::diff_id`].
    pub diff_id: Option<Digest>,
    /// See [`SnapshotInfo::tar_bytes`].
    pub tar_bytes: Option<u64>,
    /// See [`SnapshotInfo::description`].
    pub description: String,
    /// See [`SnapshotInfo::created_at`].
    pub created_at: Timestamp,
}

/// A form in which a layer travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerBlob {
    /// Media type, digest and size.
    pub descriptor: Descriptor,
    /// Whether the blob is in the store.
    pub stored: bool,
}

impl Store {
    /// Returns what is known of a snapshot.
    ///
    /// # Errors
    /// `NotFound` if it does not exist (any more).
    pub fn snapshot(&self, id: &SnapshotId) -> Result<SnapshotInfo> {
        self.read(|db| load(db, id))
    }

    /// Returns what is known of snapshots, in their order.
    ///
    /// # Errors
    /// `NotFound` if one does not exist (any more).
    pub fn snapshots(&self, ids: &[SnapshotId]) -> Result<Vec<SnapshotInfo>> {
        self.read(|db| ids.iter().map(|id| load(db, id)).collect())
    }

    /// Returns what is known of the own layers of snapshots, in their order.
    ///
    /// # Errors
    /// `NotFound` if one does not exist (any more).
    pub fn layers(&self, ids: Vec<SnapshotId>) -> Result<Vec<LayerInfo>> {
        self.read(|db| {
            let mut find = db.prepare_cached(
                "SELECT diff_id, tar_bytes, description, created_at FROM snapshots WHERE id = ?",
            )?;
            let layer = |id: SnapshotId| {
                let found = find.query_row([&id], |row| {
                    Ok(LayerInfo {
                        id: id.clone(),
                        diff_id: optional_digest_column(row, 0)?,
                        tar_bytes: row.get::<_, Option<i64>>(1)?.map(|bytes| bytes as u64),
                        description: row.get(2)?,
                        created_at: from_nanos(row.get(3)?),
                    })
                });
                found.optional()?.ok_or_else(|| missing(&id))
            };
            ids.into_iter().map(layer).collect()
        })
    }

    /// Records the diff ID of a snapshot's own layer, and the length of its tar in bytes.
    pub fn set_diff_id(&self, id: &SnapshotId, diff_id: &Digest, tar_bytes: u64) -> Result<()> {
        self.set_diff_ids(&[(id.clone(), diff_id.clone(), tar_bytes)])
    }

    /// Records the diff IDs of the own layers of snapshots, each with the length of its tar in bytes.
    pub fn set_diff_ids(&self, diff_ids: &[(SnapshotId, Digest, u64)]) -> Result<()> {
        self.write(|tx| {
            let sql = "UPDATE snapshots SET diff_id = ?, tar_bytes = ? WHERE id = ?";
            let mut update = tx.prepare_cached(sql)?;
            for (id, diff_id, tar_bytes) in diff_ids {
                if update.execute(params![diff_id.as_str(), *tar_bytes as i64, id])? == 0 {
                    return Err(missing(id));
                }
            }
            Ok(())
        })
    }

    /// Records that `descriptor` is a form of a snapshot's own layer. Its blob, if stored, lives
    /// as long as the snapshot does.
    pub fn add_layer_blob(&self, id: &SnapshotId, descriptor: &Descriptor) -> Result<()> {
        self.write(|tx| {
            if !tx
                .prepare_cached("SELECT 1 FROM snapshots WHERE id = ?")?
                .exists([id])?
            {
                return Err(missing(id));
            }
            insert_layer_blob(tx, id, descriptor)
        })
    }
}

fn load(db: &Connection, id: &SnapshotId) -> Result<SnapshotInfo> {
    let mut info = db
        .prepare_cached(
            "SELECT id, chain_id, diff_id, tar_bytes, description, record_type, \
               created_at, last_used_at, usage_count, size_bytes \
             FROM snapshots WHERE id = ?",
        )?
        .query_row([id], from_row)
        .optional()?
        .ok_or_else(|| missing(id))?;
    info.parents = db
        .prepare_cached("SELECT parent FROM snapshot_parents WHERE child = ? ORDER BY position")?
        .query_map([id], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    info.blobs = db
        .prepare_cached(
            "SELECT media_type, l.digest, l.size_bytes, b.digest IS NOT NULL \
             FROM layer_blobs l LEFT JOIN blobs b ON b.digest = l.digest \
             WHERE snapshot = ? ORDER BY l.digest",
        )?
        .query_map([id], blob_from_row)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(info)
}

pub(super) fn insert_layer_blob(
    tx: &rusqlite::Transaction<'_>,
    id: &SnapshotId,
    descriptor: &Descriptor,
) -> Result<()> {
    tx.prepare_cached(
        "INSERT OR IGNORE INTO layer_blobs (snapshot, digest, media_type, size_bytes) \
         VALUES (?, ?, ?, ?)",
    )?
    .execute(params![
        id,
        descriptor.digest.as_str(),
        descriptor.media_type,
        descriptor.size_bytes as i64
    ])?;
    Ok(())
}

pub(crate) fn missing(id: &SnapshotId) -> Error {
    Error::not_found(format_args!("snapshot `{id}`"))
}

/// Reads a digest that this crate has written.
pub(crate) fn digest_column(row: &Row<'_>, index: usize) -> rusqlite::Result<Digest> {
    optional_digest_column(row, index)?.ok_or(rusqlite::Error::InvalidQuery)
}

/// As [`digest_column`], of a column that may be null.
pub(crate) fn optional_digest_column(
    row: &Row<'_>,
    index: usize,
) -> rusqlite::Result<Option<Digest>> {
    let Some(text) = row.get::<_, Option<String>>(index)? else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|error| {
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(index, kind, Box::new(error))
    })
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<SnapshotInfo> {
    Ok(SnapshotInfo {
        id: row.get(0)?,
        parents: Vec::new(),
        chain_id: optional_digest_column(row, 1)?,
        diff_id: optional_digest_column(row, 2)?,
        tar_bytes: row.get::<_, Option<i64>>(3)?.map(|bytes| bytes as u64),
        blobs: Vec::new(),
        description: row.get(4)?,
        record_type: row.get(5)?,
        created_at: from_nanos(row.get(6)?),
        last_used_at: row.get::<_, Option<i64>>(7)?.map(from_nanos),
        usage_count: row.get::<_, i64>(8)? as u64,
        size_bytes: row.get::<_, i64>(9)? as u64,
    })
}

fn blob_from_row(row: &Row<'_>) -> rusqlite::Result<LayerBlob> {
    let media_type: String = row.get(0)?;
    let size_bytes = row.get::<_, i64>(2)? as u64;
    Ok(LayerBlob {
        descriptor: Descriptor::new(&media_type, digest_column(row, 1)?, size_bytes),
        stored: row.get(3)?,
    })
}
