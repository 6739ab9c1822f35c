use std::time::Duration;

use larder_oci::Digest;
use rusqlite::{OptionalExtension, Transaction, params};

use crate::lock::{FileLock, LockMode};
use crate::prune::Pruned;
use crate::{Error, PruneRequest, Result, Store};

/// A policy that could not free enough is tried again when the store has grown by this part: with
/// each build a bit is added, and each look is one at all records.
const GROWTH: u64 = 100;
/// Or after this long: what a running build or an image needed may not be needed any more.
const RETRY: Duration = DAY;

const GB: u64 = 1_000_000_000;
const MB: u64 = 1_000_000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The disk that the state directory is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// All bytes of the filesystem.
    pub total_bytes: u64,
    /// Bytes that this user may still write.
    pub free_bytes: u64,
}

/// Returns the policies that apply where none are configured, as BuildKit's: first what is easily
/// made again, then what was not used for long, then anything, and at last what images share.
///
/// The limits: at least 10 % of the disk or 10 GB are for the store, at most 80 % or 100 GB, and
/// 20 % of the disk are left free.
pub fn default_policies(disk: DiskSpace) -> Vec<PruneRequest> {
    let percent = |count: u64| disk.total_bytes / 100 * count;
    let limits = PruneRequest {
        reserved_space: percent(10).min(10 * GB),
        max_used_space: percent(80).min(100 * GB),
        min_free_space: percent(20),
        ..PruneRequest::default()
    };
    let cheap = "type==source.local\ntype==exec.cachemount\ntype==source.git.checkout";
    vec![
        PruneRequest {
            filters: cheap
                .lines()
                .map(|filter| filter.parse().expect("the filters above are well-formed"))
                .collect(),
            keep_duration: 2 * DAY,
            max_used_space: 512 * MB,
            ..PruneRequest::default()
        },
        PruneRequest {
            keep_duration: 60 * DAY,
            ..limits.clone()
        },
        limits.clone(),
        PruneRequest {
            all: true,
            ..limits
        },
    ]
}

impl Store {
    /// Returns how large and how full the disk is.
    pub fn disk_space(&self) -> Result<DiskSpace> {
        let stat = rustix::fs::statvfs(self.root())
            .map_err(|errno| Error::io("cannot measure the disk", errno))?;
        Ok(DiskSpace {
            total_bytes: stat.f_blocks * stat.f_frsize,
            free_bytes: stat.f_bavail * stat.f_frsize,
        })
    }

    /// Removes what `policies` say, in their order, and what crashes left. To be called after
    /// each build: costs next to nothing as long as no limit is exceeded, and does nothing while
    /// another process is at it. Returns the bytes freed.
    pub fn gc(&self, policies: &[PruneRequest]) -> Result<u64> {
        let lock = self.layout().lock("gc");
        let Some(_others) = FileLock::attempt(&lock, LockMode::Exclusive)? else {
            return Ok(0);
        };
        self.sweep()?;
        self.settle_if_due()?;
        let free = self.disk_space()?.free_bytes;
        let used = self.known_bytes()?;
        let mut freed = 0;
        if let Some(ceiling) = self.ceiling() {
            freed += self.keep_below(&ceiling, used, free)?;
        }
        for policy in policies {
            let used = used.saturating_sub(freed);
            if used > policy.target_bytes(used, free + freed) && self.is_due(policy, used)? {
                let pruned = self.prune_locked(policy, &mut |_| {})?;
                freed += pruned.freed_bytes;
                self.note_collected(policy, used.saturating_sub(pruned.freed_bytes), &pruned)?;
            }
        }
        Ok(freed)
    }

    /// Returns the sum of the recorded sizes, without looking at the disk.
    pub(crate) fn known_bytes(&self) -> Result<u64> {
        self.read(|db| {
            let mut sum = db.prepare_cached("SELECT sum(bytes) FROM totals")?;
            Ok(sum.query_row([], |row| row.get::<_, i64>(0))? as u64)
        })
    }

    /// Returns whether `policy` may find something to remove, in a store that takes `used` bytes
    /// and so is over its limit.
    fn is_due(&self, policy: &PruneRequest, used: u64) -> Result<bool> {
        let last: Option<(i64, i64)> = self.read(|db| {
            let mut last =
                db.prepare_cached("SELECT used_bytes, due_at FROM collected WHERE policy = ?")?;
            let last = last.query_row([name_of(policy)], |row| Ok((row.get(0)?, row.get(1)?)));
            Ok(last.optional()?)
        })?;
        Ok(last.is_none_or(|(before, due_at)| {
            used > before as u64 + before as u64 / GROWTH || self.now() >= due_at
        }))
    }

    /// Takes note of what `policy` came to, which left the store at `used` bytes.
    fn note_collected(&self, policy: &PruneRequest, used: u64, pruned: &Pruned) -> Result<()> {
        let now = self.now();
        self.write(|tx| {
            // Those of policies of the past end here, too.
            tx.prepare_cached("DELETE FROM collected WHERE policy = ? OR due_at <= ?")?
                .execute(params![name_of(policy), now])?;
            if let Some(due_at) = pruned.short_until {
                let due_at = due_at.min(now.saturating_add(RETRY.as_nanos() as i64));
                tx.prepare_cached(
                    "INSERT INTO collected (policy, used_bytes, due_at) VALUES (?, ?, ?)",
                )?
                .execute(params![name_of(policy), used as i64, due_at])?;
            }
            Ok(())
        })
    }
}

/// Lets all policies be tried again: something is not needed any more.
pub(crate) fn forget_collected(tx: &Transaction<'_>) -> Result<()> {
    tx.prepare_cached("DELETE FROM collected")?.execute([])?;
    Ok(())
}

/// Names a policy by all that it says.
fn name_of(policy: &PruneRequest) -> String {
    Digest::sha256(format!("{policy:?}")).to_string()
}
