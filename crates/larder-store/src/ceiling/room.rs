//! Making room: what goes, and in which order.

use super::balance::Balance;
use crate::usage::{Kind, Loaded, load};
use crate::{Ceiling, Result, Store};

impl Store {
    /// Removes records until `bytes` more can be reserved, if that can be reached at all: cache
    /// mounts beyond their budget first, the others last, and in between all else that is not in
    /// use, the least valuable first.
    pub(crate) fn make_room(&self, ceiling: &Ceiling, bytes: u64) -> Result<()> {
        // Who has it may wait for what this process has not made known yet.
        let _others = self.lock_flushing(&self.layout().lock("gc"))?;
        self.sweep()?;
        self.make_room_locked(ceiling, bytes)
    }

    /// As [`Store::make_room`], for the collector.
    pub(crate) fn make_room_locked(&self, ceiling: &Ceiling, bytes: u64) -> Result<()> {
        let balance = Balance::read(self, ceiling)?;
        let excess = balance.excess_bytes(ceiling, bytes);
        if excess == 0 {
            return Ok(());
        }
        let most = balance.freeable_bytes(ceiling, bytes);
        let loaded = load(self)?;
        let idle = loaded.iter().filter(|one| is_idle(one));
        let removable: u64 = idle.map(|one| one.record.size_bytes).sum();
        if removable.min(most) < excess {
            // Emptying the cache would be of no use.
            return Ok(());
        }
        let mut freed = self.trim_mounts(ceiling)?;
        if freed < excess {
            let wanted = (excess - freed).saturating_add(ceiling.headroom_bytes());
            let is_meant = |one: &Loaded| is_idle(one) && one.kind != Kind::CacheMount;
            freed += self.remove_some(&load(self)?, is_meant, wanted.min(most), &mut |_| {})?;
        }
        if freed < excess {
            let is_meant = |one: &Loaded| is_idle(one) && one.kind == Kind::CacheMount;
            freed += self.remove_some(&load(self)?, is_meant, excess - freed, &mut |_| {})?;
        }
        self.set_made_room();
        tracing::debug!(bytes, excess, freed, "made room below the ceiling");
        Ok(())
    }

    /// Sees after a build to what no reservation does: the budget of cache mounts, and bounds that
    /// were lowered. `used` and `free` bytes tell whether there is anything to do. Returns the bytes
    /// freed.
    pub(crate) fn keep_below(&self, ceiling: &Ceiling, used: u64, free: u64) -> Result<u64> {
        let freed = self.trim_mounts(ceiling)?;
        let most = ceiling.max_bytes.saturating_sub(ceiling.margin_bytes());
        if used > most || free < ceiling.min_free_bytes {
            self.make_room_locked(ceiling, 0)?;
        }
        // A build that makes room has a lease, and so leaves the keys.
        if self.has_made_room() {
            self.remove_unreachable_keys()?;
        }
        Ok(freed)
    }

    /// Removes the least valuable cache mounts until all are within their budget; the one used
    /// last stays. Returns the bytes freed. The caller holds the lock of the collector.
    pub(crate) fn trim_mounts(&self, ceiling: &Ceiling) -> Result<u64> {
        if self.mounts_bytes()? <= ceiling.mounts_bytes {
            return Ok(0);
        }
        let mut mounts = load(self)?;
        mounts.retain(|one| one.kind == Kind::CacheMount);
        let used: u64 = mounts.iter().map(|one| one.record.size_bytes).sum();
        let latest = mounts.iter().map(|one| &one.record);
        let latest = latest.max_by_key(|record| (record.last_touched_at(), record.id.clone()));
        let latest = latest.map(|record| record.id.clone());
        let is_meant = |one: &Loaded| is_idle(one) && Some(&one.record.id) != latest.as_ref();
        let wanted = used.saturating_sub(ceiling.mounts_bytes);
        self.remove_some(&mounts, is_meant, wanted, &mut |_| {})
    }

    /// Returns the sum of the recorded sizes of cache mounts.
    fn mounts_bytes(&self) -> Result<u64> {
        self.read(|db| {
            let mut sum =
                db.prepare_cached("SELECT bytes FROM totals WHERE kind = 'cache_mounts'")?;
            Ok(sum.query_row([], |row| row.get::<_, i64>(0))? as u64)
        })
    }
}

/// Whether nothing needs a record: no running build, no image with a name.
fn is_idle(one: &Loaded) -> bool {
    !one.record.in_use && !one.record.shared && one.kind != Kind::Unfinished
}
