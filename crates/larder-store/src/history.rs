//! What earlier builds were made of: the material of `explain`.

use std::io::Read;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use crate::db::from_nanos;
use crate::{Error, KeyId, Result, Store};

/// How many records a step keeps.
const RECORDS_PER_STEP: i64 = 3;
/// How many builds a scope keeps.
const BUILDS_PER_SCOPE: i64 = 20;
/// How many records all steps keep together.
const STEP_RECORDS: i64 = 20_000;
/// How many pruned results are remembered.
const TOMBSTONES: i64 = 20_000;
/// zstd's default: fast, and good enough for texts of some kilobytes.
const ZSTD_LEVEL: i32 = 3;
/// More than what a step or a report is made of.
const MAX_BYTES: u64 = 64 << 20;

/// What the key of a step was made of in an earlier build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRecord {
    /// The key.
    pub key: KeyId,
    /// As it was given.
    pub parts: Vec<u8>,
    /// When.
    pub created_at: Timestamp,
}

/// A step to be recorded.
#[derive(Debug, Clone, Copy)]
pub struct NewStep<'a> {
    /// What the step is within its scope.
    pub step: &'a str,
    /// Its key.
    pub key: KeyId,
    /// What the key was made of; the store doesn't look at it.
    pub parts: &'a [u8],
}

/// A build of the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRecord {
    /// Grows with time.
    pub number: i64,
    /// What was built.
    pub scope: String,
    /// As it was given.
    pub report: Vec<u8>,
    /// When.
    pub created_at: Timestamp,
}

/// The report of a build, compressed as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedReport(Vec<u8>);

impl PackedReport {
    /// Compresses a report.
    pub fn of(report: &[u8]) -> Result<Self> {
        compress(report).map(Self)
    }
}

impl Store {
    /// Records what the steps of a build in `scope` were made of. A step whose key is that of
    /// its last record adds nothing.
    pub fn save_steps(&self, scope: &str, steps: &[NewStep<'_>]) -> Result<()> {
        let mut changed = Vec::new();
        for step in steps {
            let last = self.last_steps(scope, step.step, 1)?;
            if last.first().map(|last| last.key) != Some(step.key) {
                changed.push((step, compress(step.parts)?));
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        self.write(|tx| {
            for (step, parts) in &changed {
                tx.prepare_cached(
                    "INSERT INTO steps (scope, step, key, parts, created_at) \
                     VALUES (?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    scope,
                    step.step,
                    step.key,
                    parts,
                    self.now()
                ])?;
                tx.prepare_cached(
                    "DELETE FROM steps WHERE scope = ?1 AND step = ?2 AND number NOT IN \
                       (SELECT number FROM steps WHERE scope = ?1 AND step = ?2 \
                        ORDER BY number DESC LIMIT ?3)",
                )?
                .execute(params![scope, step.step, RECORDS_PER_STEP])?;
            }
            Ok(())
        })
    }

    /// Returns up to `count` of the latest records of a step, newest first.
    pub fn last_steps(&self, scope: &str, step: &str, count: usize) -> Result<Vec<StepRecord>> {
        let rows = self.read(|db| {
            let mut list = db.prepare_cached(
                "SELECT key, parts, created_at FROM steps WHERE scope = ? AND step = ? \
                 ORDER BY number DESC LIMIT ?",
            )?;
            let rows = list.query_map(params![scope, step, count as i64], |row| {
                Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?, row.get(2)?))
            })?;
            Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
        })?;
        let record = |(key, parts, created_at): (KeyId, Vec<u8>, i64)| {
            Ok(StepRecord {
                key,
                parts: decompress(&parts)?,
                created_at: from_nanos(created_at),
            })
        };
        rows.into_iter().map(record).collect()
    }

    /// Records the report of a build in `scope`; the last 20 are kept. A report that is the same
    /// as the latest of all adds nothing.
    pub fn save_build(&self, scope: &str, report: &[u8]) -> Result<()> {
        self.save_packed_build(scope, &PackedReport::of(report)?)
    }

    /// As [`Store::save_build`].
    pub fn save_packed_build(&self, scope: &str, report: &PackedReport) -> Result<()> {
        let PackedReport(report) = report;
        let is_news = self.read(|db| {
            let mut same = db.prepare_cached(
                "SELECT 1 FROM builds WHERE number = (SELECT max(number) FROM builds) \
                   AND scope = ? AND report = ?",
            )?;
            Ok(!same.exists(params![scope, report])?)
        })?;
        if !is_news {
            return Ok(());
        }
        self.write(|tx| {
            tx.prepare_cached("INSERT INTO builds (scope, report, created_at) VALUES (?, ?, ?)")?
                .execute(params![scope, report, self.now()])?;
            tx.prepare_cached(
                "DELETE FROM builds WHERE scope = ?1 AND number NOT IN \
                   (SELECT number FROM builds WHERE scope = ?1 ORDER BY number DESC LIMIT ?2)",
            )?
            .execute(params![scope, BUILDS_PER_SCOPE])?;
            Ok(())
        })
    }

    /// Returns the latest build, in `scope` if one is given.
    pub fn last_build(&self, scope: Option<&str>) -> Result<Option<BuildRecord>> {
        let row = self.read(|db| {
            let columns = "SELECT number, scope, report, created_at FROM builds";
            let found = match scope {
                Some(scope) => db
                    .prepare_cached(&format!(
                        "{columns} WHERE scope = ? ORDER BY number DESC LIMIT 1"
                    ))?
                    .query_row([scope], build_from_row),
                None => db
                    .prepare_cached(&format!("{columns} ORDER BY number DESC LIMIT 1"))?
                    .query_row([], build_from_row),
            };
            Ok(found.optional()?)
        })?;
        row.map(|mut build| {
            build.report = decompress(&build.report)?;
            Ok(build)
        })
        .transpose()
    }

    /// Returns the builds of a scope that are kept, the newest first.
    pub fn builds(&self, scope: &str) -> Result<Vec<BuildRecord>> {
        let rows = self.read(|db| {
            let mut list = db.prepare_cached(
                "SELECT number, scope, report, created_at FROM builds \
                 WHERE scope = ? ORDER BY number DESC",
            )?;
            let rows = list.query_map([scope], build_from_row)?;
            Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
        })?;
        let unpacked = rows.into_iter().map(|mut build| {
            build.report = decompress(&build.report)?;
            Ok(build)
        });
        unpacked.collect()
    }

    /// Returns when the key's result was pruned, if it was and the key has none again.
    pub fn pruned_at(&self, key: KeyId) -> Result<Option<Timestamp>> {
        self.read(|db| {
            let mut find = db.prepare_cached("SELECT pruned_at FROM tombstones WHERE key = ?")?;
            let found = find.query_row([key], |row| row.get(0)).optional()?;
            Ok(found.map(from_nanos))
        })
    }
}

/// Deletes the oldest records of steps, and tombstones, beyond what is kept.
pub(crate) fn trim(tx: &Transaction<'_>) -> Result<()> {
    tx.execute(
        "DELETE FROM steps WHERE number <= (SELECT max(number) FROM steps) - ?",
        [STEP_RECORDS],
    )?;
    tx.execute(
        "DELETE FROM tombstones WHERE key NOT IN \
           (SELECT key FROM tombstones ORDER BY pruned_at DESC LIMIT ?)",
        [TOMBSTONES],
    )?;
    Ok(())
}

fn build_from_row(row: &Row<'_>) -> rusqlite::Result<BuildRecord> {
    Ok(BuildRecord {
        number: row.get(0)?,
        scope: row.get(1)?,
        report: row.get(2)?,
        created_at: from_nanos(row.get(3)?),
    })
}

fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    zstd::bulk::compress(bytes, ZSTD_LEVEL)
        .map_err(|error| Error::io("cannot compress a record", error))
}

fn decompress(bytes: &[u8]) -> Result<Vec<u8>> {
    let failed = |error| Error::io("cannot read a record of an earlier build", error);
    let mut text = Vec::new();
    let stream = zstd::stream::read::Decoder::new(bytes).map_err(failed)?;
    stream
        .take(MAX_BYTES)
        .read_to_end(&mut text)
        .map_err(failed)?;
    Ok(text)
}
