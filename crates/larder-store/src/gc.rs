use std::time::Duration;

use crate::lock::{FileLock, LockMode};
use crate::{Error, PruneRequest, Result, Store};

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
            let is_over = used > policy.target_bytes(used, free + freed);
            if is_over && self.any_unused_for(policy.keep_duration)? {
                freed += self.prune_locked(policy, &mut |_| {})?;
            }
        }
        Ok(freed)
    }

    /// Returns the sum of the recorded sizes, without looking at the disk.
    pub(crate) fn known_bytes(&self) -> Result<u64> {
        self.read(|db| {
            let mut sum = db.prepare_cached(
                "SELECT (SELECT total(size_bytes) FROM snapshots) \
                   + (SELECT total(allocated_bytes) FROM blobs) \
                   + (SELECT total(size_bytes) FROM cache_mounts)",
            )?;
            Ok(sum.query_row([], |row| row.get::<_, f64>(0))? as u64)
        })
    }

    fn any_unused_for(&self, duration: Duration) -> Result<bool> {
        let latest = self.now().saturating_sub(duration.as_nanos() as i64);
        self.read(|db| {
            let mut find = db.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM snapshots \
                     WHERE coalesce(last_used_at, created_at) <= ?1) \
                   OR EXISTS (SELECT 1 FROM cache_mounts \
                     WHERE coalesce(last_used_at, created_at) <= ?1) \
                   OR EXISTS (SELECT 1 FROM blobs \
                     WHERE coalesce(last_used_at, created_at) <= ?1)",
            )?;
            Ok(find.query_row([latest], |row| row.get(0))?)
        })
    }
}
