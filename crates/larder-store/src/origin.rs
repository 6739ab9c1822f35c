use larder_oci::Digest;
use rusqlite::params;

use crate::{Result, Store};

/// How many origins are kept, the latest noted ones.
const ORIGINS: i64 = 100_000;

impl Store {
    /// Notes that the blobs `digests` can be fetched from `repository`, as in
    /// `registry.example.com/team/app`. Nothing is written if that is known.
    pub fn add_origin(&self, repository: &str, digests: &[&Digest]) -> Result<()> {
        let is_known = self.read(|db| {
            let mut known =
                db.prepare_cached("SELECT 1 FROM origins WHERE digest = ? AND repository = ?")?;
            for digest in digests {
                if !known.exists([digest.as_str(), repository])? {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        if is_known {
            return Ok(());
        }
        self.write(|tx| {
            for digest in digests {
                tx.prepare_cached(
                    "INSERT OR REPLACE INTO origins (digest, repository, noted_at) \
                     VALUES (?, ?, ?)",
                )?
                .execute(params![digest.as_str(), repository, self.now()])?;
            }
            tx.prepare_cached(
                "DELETE FROM origins WHERE noted_at < \
                   (SELECT noted_at FROM origins ORDER BY noted_at DESC LIMIT 1 OFFSET ?)",
            )?
            .execute([ORIGINS])?;
            Ok(())
        })
    }

    /// Returns the repositories that the blob can be fetched from, the latest noted first.
    pub fn origins(&self, digest: &Digest) -> Result<Vec<String>> {
        self.read(|db| {
            let mut list = db.prepare_cached(
                "SELECT repository FROM origins WHERE digest = ? \
                 ORDER BY noted_at DESC, repository",
            )?;
            let rows = list.query_map([digest.as_str()], |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }
}
