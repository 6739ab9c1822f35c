use std::fmt;

use larder_tree::erofs::Reader;
use rusqlite::Connection;

use crate::snapshot::{Packing, digest_column};
use crate::{Error, Result, SnapshotId, Store};

/// Something in the store that should not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The database contradicts itself.
    Database(String),
    /// A record's files are missing, or not as long as they were: the record is useless.
    Missing(String),
    /// Files belong to no record. A [`Store::sweep`] removes them.
    Leftover(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(what) => write!(f, "the state database is inconsistent: {what}"),
            Self::Missing(what) => write!(f, "{what} has lost its files"),
            Self::Leftover(what) => write!(f, "`{what}` belongs to no record"),
        }
    }
}

impl Store {
    /// Looks for contradictions between the database and the files. Builds may go on meanwhile.
    pub fn check(&self) -> Result<Vec<Problem>> {
        let _publications = self.lock_removal()?;
        let mut problems = self.read(check_database)?;
        let snapshots: Vec<(SnapshotId, Packing)> = self.read(|db| {
            let mut list = db.prepare(
                "SELECT id, packing FROM snapshots WHERE form <> 'merge' \
                   OR NOT EXISTS (SELECT 1 FROM snapshot_parents WHERE child = id)",
            )?;
            let rows = list.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })?;
        for (id, packing) in snapshots {
            let path = self.layout().snapshot(&id);
            let is_there = match packing {
                Packing::Directory => path.join("fs").is_dir(),
                Packing::Erofs => self
                    .open_image(&id)
                    .is_ok_and(|it| Reader::open(it).is_ok()),
            };
            if !is_there {
                problems.push(Problem::Missing(format!("snapshot `{id}`")));
            }
        }
        let mounts: Vec<SnapshotId> = self.read(|db| {
            let mut list = db.prepare("SELECT id FROM cache_mounts")?;
            let ids = list.query_map([], |row| row.get(0))?;
            Ok(ids.collect::<rusqlite::Result<_>>()?)
        })?;
        for id in mounts {
            if !self.layout().cache_mount(&id).join("fs").is_dir() {
                problems.push(Problem::Missing(format!("cache mount `{id}`")));
            }
        }
        let blobs = self.read(|db| {
            let mut list = db.prepare("SELECT digest, size_bytes FROM blobs")?;
            let rows = list.query_map([], |row| {
                Ok((digest_column(row, 0)?, row.get::<_, i64>(1)? as u64))
            })?;
            Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
        })?;
        for (digest, size_bytes) in blobs {
            let length = std::fs::metadata(self.layout().blob(&digest)).map(|stat| stat.len());
            if length.ok() != Some(size_bytes) {
                problems.push(Problem::Missing(format!("blob `{digest}`")));
            }
        }
        for path in self.unreferenced()? {
            let name = path.strip_prefix(self.root()).unwrap_or(&path);
            problems.push(Problem::Leftover(name.display().to_string()));
        }
        Ok(problems)
    }
}

fn check_database(db: &Connection) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    let mut check = db.prepare("PRAGMA quick_check")?;
    for line in check.query_map([], |row| row.get::<_, String>(0))? {
        match line.map_err(Error::from)? {
            line if line == "ok" => {}
            line => problems.push(Problem::Database(line)),
        }
    }
    let mut check = db.prepare("PRAGMA foreign_key_check")?;
    for table in check.query_map([], |row| row.get::<_, String>(0))? {
        problems.push(Problem::Database(format!(
            "dangling reference in `{}`",
            table?
        )));
    }
    let mismatched = "SELECT count(*) FROM links JOIN keys ON keys.id = child \
                      WHERE keys.op <> links.op OR keys.output <> links.output";
    let count: i64 = db.query_row(mismatched, [], |row| row.get(0))?;
    if count > 0 {
        problems.push(Problem::Database(format!(
            "{count} links to keys of another op"
        )));
    }
    Ok(problems)
}
