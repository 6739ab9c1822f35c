//! The records of the store, as `du` shows and prune weighs them.

use std::collections::{HashMap, HashSet};

use larder_oci::Digest;
use rusqlite::Connection;

use super::UsageRecord;
use crate::db::from_nanos;
use crate::layout::VOLUMES;
use crate::snapshot::digest_column;
use crate::{Error, RecordType, Result, SnapshotId, Store, disk, lease};

/// A record, and what prune has to know of it.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) record: UsageRecord,
    pub(crate) kind: Kind,
    /// Whether a cache key leads to it.
    pub(crate) has_result: bool,
}

/// What a record is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Snapshot,
    CacheMount,
    /// A blob that belongs to no snapshot.
    Blob(Digest),
    /// Something being written.
    Unfinished,
}

/// What keeps snapshots and blobs.
struct Roots {
    snapshots: HashSet<SnapshotId>,
    blobs: HashSet<Digest>,
}

/// Loads all records but the overhead.
pub(crate) fn load(store: &Store) -> Result<Vec<Loaded>> {
    let leases = lease::living(store)?;
    let held = lease::held(store, &leases)?;
    let mut loaded = store.read(|db| {
        let mut snapshots = snapshots(db)?;
        let named = named(db)?;
        let in_use = closure(&snapshots, held.snapshots);
        let shared = closure(&snapshots, named.snapshots);
        for loaded in &mut snapshots {
            loaded.record.shared = shared.contains(&loaded.record.id);
            // What only an image keeps can't be reclaimed: the image must go first.
            loaded.record.in_use =
                in_use.contains(&loaded.record.id) || (loaded.record.shared && !loaded.has_result);
        }
        let loose = blobs(db, &mut snapshots, &held.blobs, &named.blobs)?;
        snapshots.extend(loose);
        Ok(snapshots)
    })?;
    loaded.extend(cache_mounts(store)?);
    loaded.extend(unfinished(store, &leases)?);
    Ok(loaded)
}

/// Returns the record of all that is no record: databases, locks, directories, caches about
/// contexts, rests of downloads, and what a crash left.
pub(crate) fn overhead(store: &Store) -> Result<UsageRecord> {
    let failed = |error: std::io::Error| Error::io("cannot measure the state directory", error);
    let mut size_bytes = overhead_bytes(store, &[])?;
    for path in store.unreferenced()? {
        size_bytes += if path.is_dir() {
            disk::allocated(&path)
        } else {
            disk::allocated_entry(&path)
        }
        .map_err(failed)?;
    }
    Ok(UsageRecord {
        id: SnapshotId::overhead(),
        parents: Vec::new(),
        created_at: from_nanos(store.now()),
        last_used_at: None,
        usage_count: 0,
        size_bytes,
        mutable: true,
        in_use: true,
        shared: false,
        description: "indexes, locks, context caches and partial downloads".to_owned(),
        record_type: RecordType::Internal,
    })
}

/// Returns what all takes that is no record, nor a volume of the user's, without the directories `left_out` and what a crash
/// left among the records.
pub(crate) fn overhead_bytes(store: &Store, left_out: &[&str]) -> Result<u64> {
    let layout = store.layout();
    let failed = |error: std::io::Error| Error::io("cannot measure the state directory", error);
    let mut size_bytes = disk::allocated_entry(layout.root()).map_err(failed)?;
    for name in disk::entries(layout.root())? {
        let path = layout.root().join(&name);
        size_bytes += match name.as_str() {
            name if name == VOLUMES || left_out.contains(&name) => Ok(0),
            "blobs" | "cache-mounts" | "snapshots" | "tmp" => disk::allocated_entry(&path),
            _ if path.is_dir() => disk::allocated(&path),
            _ => disk::allocated_entry(&path),
        }
        .map_err(failed)?;
    }
    for name in disk::entries(&layout.tmp())? {
        size_bytes += disk::allocated_entry(&layout.tmp().join(name)).map_err(failed)?;
    }
    Ok(size_bytes + disk::allocated_entry(&layout.blobs()).map_err(failed)?)
}

/// Returns the snapshots; a flattened one counts as part of the snapshot that it shows. What has blocks of a
/// snapshot's image is one of its parents.
fn snapshots(db: &Connection) -> Result<Vec<Loaded>> {
    let mut parents: HashMap<SnapshotId, Vec<SnapshotId>> = HashMap::new();
    for list in [
        "SELECT child, parent FROM snapshot_parents ORDER BY child, position",
        "SELECT snapshot, device FROM snapshot_devices ORDER BY snapshot, device",
    ] {
        let mut list = db.prepare_cached(list)?;
        for row in list.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
            let (child, parent) = row?;
            parents.entry(child).or_default().push(parent);
        }
    }
    let mut list = db.prepare_cached(
        "SELECT id, created_at, last_used_at, usage_count, \
           size_bytes + (SELECT CAST(total(f.size_bytes) AS INTEGER) \
             FROM snapshot_parents p JOIN snapshots f ON f.id = p.child AND f.form = 'flat' \
             WHERE p.parent = s.id), \
           description, record_type, EXISTS (SELECT 1 FROM results WHERE snapshot = id) \
         FROM snapshots s WHERE form <> 'flat' ORDER BY id",
    )?;
    let rows = list.query_map([], |row| {
        let id: SnapshotId = row.get(0)?;
        Ok(Loaded {
            record: UsageRecord {
                parents: parents.remove(&id).unwrap_or_default(),
                id,
                created_at: from_nanos(row.get(1)?),
                last_used_at: row.get::<_, Option<i64>>(2)?.map(from_nanos),
                usage_count: row.get::<_, i64>(3)? as u64,
                size_bytes: row.get::<_, i64>(4)? as u64,
                mutable: false,
                in_use: false,
                shared: false,
                description: row.get(5)?,
                record_type: row.get(6)?,
            },
            kind: Kind::Snapshot,
            has_result: row.get(7)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Adds to `roots` all that they build on.
fn closure(snapshots: &[Loaded], roots: HashSet<SnapshotId>) -> HashSet<SnapshotId> {
    let parents: HashMap<&SnapshotId, &[SnapshotId]> = snapshots
        .iter()
        .map(|loaded| (&loaded.record.id, loaded.record.parents.as_slice()))
        .collect();
    let mut pending: Vec<SnapshotId> = roots.iter().cloned().collect();
    let mut closed = roots;
    while let Some(id) = pending.pop() {
        for parent in parents.get(&id).copied().unwrap_or_default() {
            if closed.insert(parent.clone()) {
                pending.push(parent.clone());
            }
        }
    }
    closed
}

/// Returns what images with names keep.
fn named(db: &Connection) -> Result<Roots> {
    let mut list = db.prepare_cached(
        "SELECT snapshot FROM images JOIN tags USING (manifest) WHERE snapshot IS NOT NULL \
         UNION SELECT snapshot FROM image_platforms JOIN tags ON tags.manifest = image \
         WHERE snapshot IS NOT NULL",
    )?;
    let snapshots = list
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut list = db.prepare_cached(
        "SELECT DISTINCT digest FROM image_blobs JOIN tags ON tags.manifest = image",
    )?;
    let blobs = list
        .query_map([], |row| digest_column(row, 0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Roots { snapshots, blobs })
}

/// Adds each blob to the first snapshot that has it as a form of its layer; returns the others.
fn blobs(
    db: &Connection,
    snapshots: &mut [Loaded],
    held: &HashSet<Digest>,
    named: &HashSet<Digest>,
) -> Result<Vec<Loaded>> {
    let index: HashMap<SnapshotId, usize> = snapshots
        .iter()
        .enumerate()
        .map(|(index, loaded)| (loaded.record.id.clone(), index))
        .collect();
    let mut list = db.prepare_cached(
        "SELECT digest, allocated_bytes, created_at, last_used_at, usage_count, \
           (SELECT min(snapshot) FROM layer_blobs l WHERE l.digest = b.digest) \
         FROM blobs b",
    )?;
    let mut rows = list.query([])?;
    let mut loose = Vec::new();
    while let Some(row) = rows.next()? {
        let digest = digest_column(row, 0)?;
        let size_bytes = row.get::<_, i64>(1)? as u64;
        let owner: Option<SnapshotId> = row.get(5)?;
        if let Some(index) = owner.and_then(|id| index.get(&id)) {
            let record = &mut snapshots[*index].record;
            record.size_bytes += size_bytes;
            record.in_use |= held.contains(&digest);
            continue;
        }
        let is_named = named.contains(&digest);
        loose.push(Loaded {
            record: UsageRecord {
                id: SnapshotId::of_digest(&digest),
                parents: Vec::new(),
                created_at: from_nanos(row.get(2)?),
                last_used_at: row.get::<_, Option<i64>>(3)?.map(from_nanos),
                usage_count: row.get::<_, i64>(4)? as u64,
                size_bytes,
                mutable: false,
                in_use: is_named || held.contains(&digest),
                shared: is_named,
                description: format!("blob {digest}"),
                record_type: RecordType::Internal,
            },
            kind: Kind::Blob(digest),
            has_result: false,
        });
    }
    Ok(loose)
}

fn cache_mounts(store: &Store) -> Result<Vec<Loaded>> {
    let mut loaded = store.read(|db| {
        let mut list = db.prepare_cached(
            "SELECT id, created_at, last_used_at, usage_count, size_bytes, description \
             FROM cache_mounts",
        )?;
        let rows = list.query_map([], |row| {
            Ok(Loaded {
                record: UsageRecord {
                    id: row.get(0)?,
                    parents: Vec::new(),
                    created_at: from_nanos(row.get(1)?),
                    last_used_at: row.get::<_, Option<i64>>(2)?.map(from_nanos),
                    usage_count: row.get::<_, i64>(3)? as u64,
                    size_bytes: row.get::<_, i64>(4)? as u64,
                    mutable: true,
                    in_use: false,
                    shared: false,
                    description: row.get(5)?,
                    record_type: RecordType::CacheMount,
                },
                kind: Kind::CacheMount,
                has_result: false,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<Vec<Loaded>>>()?)
    })?;
    for mount in &mut loaded {
        let record = &mut mount.record;
        record.in_use = store.is_cache_mount_used(&record.id)?;
        if record.in_use {
            record.size_bytes = disk::allocated(&store.layout().cache_mount(&record.id))
                .map_err(|error| Error::io("cannot measure a cache mount", error))?;
        }
    }
    Ok(loaded)
}

/// Returns what is being written: active snapshots, layers being unpacked, blobs.
fn unfinished(store: &Store, leases: &HashSet<String>) -> Result<Vec<Loaded>> {
    let mut loaded = Vec::new();
    let failed = |error: std::io::Error| Error::io("cannot measure an active snapshot", error);
    for lease in disk::entries(&store.layout().tmp())? {
        let directory = store.layout().tmp().join(&lease);
        for name in disk::entries(&directory)? {
            let path = directory.join(&name);
            let size_bytes = if path.is_dir() {
                disk::allocated(&path)
            } else {
                disk::allocated_entry(&path)
            };
            loaded.push(Loaded {
                record: UsageRecord {
                    id: name.parse()?,
                    parents: Vec::new(),
                    created_at: from_nanos(store.now()),
                    last_used_at: None,
                    usage_count: 0,
                    size_bytes: size_bytes.map_err(failed)?,
                    mutable: true,
                    in_use: leases.contains(&lease),
                    shared: false,
                    description: "being written".to_owned(),
                    record_type: RecordType::Regular,
                },
                kind: Kind::Unfinished,
                has_result: false,
            });
        }
    }
    Ok(loaded)
}
