use larder_oci::Digest;
use rusqlite::params;

use crate::{Lease, Result, SnapshotId};

/// How many snapshots are remembered for a source.
const SNAPSHOTS_PER_SOURCE: i64 = 5;

/// What was fetched from somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedSource {
    /// What came.
    pub snapshot: SnapshotId,
    /// What was said of it; the store doesn't look at it.
    pub about: Vec<u8>,
}

impl Lease {
    /// Notes that `snapshot`, which the lease holds, was fetched from `source`: a digest over
    /// what was asked for. It is remembered as long as the snapshot exists, of one source the
    /// latest five.
    pub fn add_fetched(&self, source: &Digest, fetched: &FetchedSource) -> Result<()> {
        let store = self.store();
        store.write(|tx| {
            tx.prepare_cached(
                "INSERT OR REPLACE INTO fetched (source, snapshot, about, noted_at) \
                 VALUES (?, ?, ?, ?)",
            )?
            .execute(params![
                source.as_str(),
                fetched.snapshot,
                fetched.about,
                store.now()
            ])?;
            tx.prepare_cached(
                "DELETE FROM fetched WHERE source = ?1 AND snapshot NOT IN \
                   (SELECT snapshot FROM fetched WHERE source = ?1 \
                    ORDER BY noted_at DESC LIMIT ?2)",
            )?
            .execute(params![source.as_str(), SNAPSHOTS_PER_SOURCE])?;
            Ok(())
        })
    }

    /// Returns what was fetched from `source`, the latest first, and protects it.
    pub fn fetched(&self, source: &Digest) -> Result<Vec<FetchedSource>> {
        let store = self.store();
        let found: Vec<FetchedSource> = store.read(|db| {
            let mut list = db.prepare_cached(
                "SELECT snapshot, about FROM fetched WHERE source = ? \
                 ORDER BY noted_at DESC, snapshot",
            )?;
            let rows = list.query_map([source.as_str()], |row| {
                Ok(FetchedSource {
                    snapshot: row.get(0)?,
                    about: row.get(1)?,
                })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })?;
        let mut held = Vec::with_capacity(found.len());
        for fetched in found {
            // It may be pruned at this moment.
            if self.hold_snapshots(std::slice::from_ref(&fetched.snapshot))? {
                held.push(fetched);
            }
        }
        Ok(held)
    }
}
