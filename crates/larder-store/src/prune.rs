use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::mem;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use larder_oci::Digest;

use crate::db::{from_nanos, to_nanos};
use crate::lock::{FileLock, LockMode};
use crate::trash::Removers;
use crate::usage::{Kind, Loaded, load};
use crate::{
    Error, ErrorKind, Filter, RecordType, Result, SnapshotId, Store, UsageRecord, history, lease,
    reserve, usage,
};

mod remove;

pub(crate) use remove::remove_loose_blobs;

/// How many records are removed at first, in a transaction for which even a full disk has room.
const FIRST_BATCH: usize = 32;
/// How many records are removed at a time at most: meanwhile nothing can be committed.
const LAST_BATCH: usize = 1024;

/// What to prune. The default is all that is unused, but cache mounts.
#[derive(Debug, Clone, Default)]
pub struct PruneRequest {
    /// Whether internal and frontend records, and those that images share, are meant too. Of the
    /// latter the cache results go; their content stays with the image.
    pub all: bool,
    /// Whether cache mounts stay unless `all` is set or a filter names their type or an id.
    pub keep_cache_mounts: bool,
    /// Only records that match one of these; all if there are none.
    pub filters: Vec<Filter>,
    /// Only records not used for this long.
    pub keep_duration: Duration,
    /// Bytes that are left in any case; 0 for no such limit.
    pub reserved_space: u64,
    /// Bytes the store may take at most; 0 for no limit.
    pub max_used_space: u64,
    /// Bytes to be left free on the disk; 0 for no limit.
    pub min_free_space: u64,
}

impl PruneRequest {
    fn has_limit(&self) -> bool {
        self.reserved_space > 0 || self.max_used_space > 0 || self.min_free_space > 0
    }

    /// Returns the bytes down to which records go, given those in use and those free on the
    /// disk; 0 without limits.
    pub(crate) fn target_bytes(&self, used: u64, free: u64) -> u64 {
        let most = match self.max_used_space {
            0 => None,
            most => Some(most),
        };
        let fitting = match self.min_free_space {
            0 => None,
            wanted => Some(used.saturating_sub(wanted.saturating_sub(free))),
        };
        let target = [most, fitting].into_iter().flatten().min().unwrap_or(0);
        target.max(self.reserved_space)
    }

    /// Returns whether a record is meant.
    fn concerns(&self, loaded: &Loaded, now: Timestamp) -> bool {
        self.concerns_when_old(loaded, now) && self.is_old(&loaded.record, now)
    }

    fn is_old(&self, record: &UsageRecord, now: Timestamp) -> bool {
        let age = now.duration_since(record.last_touched_at());
        age.unsigned_abs() >= self.keep_duration || self.keep_duration.is_zero()
    }

    /// Returns whether a record is meant as soon as it is old enough.
    fn concerns_when_old(&self, loaded: &Loaded, now: Timestamp) -> bool {
        let record = &loaded.record;
        let by_type = match record.record_type {
            RecordType::Internal | RecordType::Frontend => self.all,
            RecordType::CacheMount => {
                let name = RecordType::CacheMount.as_str();
                let is_named = self.filters.iter().any(|filter| filter.asks_for(name));
                self.all || !self.keep_cache_mounts || is_named
            }
            _ => true,
        };
        // Under a limit, giving up a result whose content stays would free nothing.
        let by_sharing = !record.shared || (self.all && !self.has_limit());
        let matches = |filter: &Filter| filter.matches(record, now);
        !record.in_use
            && loaded.kind != Kind::Unfinished
            && by_type
            && by_sharing
            && (self.filters.is_empty() || self.filters.iter().any(matches))
    }
}

/// What a prune came to.
#[derive(Debug, Default)]
pub(crate) struct Pruned {
    pub(crate) freed_bytes: u64,
    /// If less could be freed than a limit asks for: when the next record will be old enough.
    pub(crate) short_until: Option<i64>,
}

impl Store {
    /// Removes what `request` means, the least valuable first, children before their parents,
    /// and what crashes left. `on_removed` is told of each record, with the bytes that it freed.
    /// Returns the sum.
    ///
    /// Never removes what a lease protects, a step is using, or an image with a name needs. Of
    /// several prunes at a time the later wait.
    pub fn prune(
        &self,
        request: &PruneRequest,
        on_removed: &mut dyn FnMut(&UsageRecord),
    ) -> Result<u64> {
        let _others = FileLock::wait(&self.layout().lock("gc"), LockMode::Exclusive)?;
        let mut prune = || {
            self.sweep()?;
            let pruned = self.prune_locked(request, on_removed)?;
            Ok::<_, Error>(pruned.freed_bytes)
        };
        let freed = match prune() {
            Err(error) if error.kind() == ErrorKind::FullDisk && reserve::spend(self.layout()) => {
                prune()
            }
            freed => freed,
        };
        reserve::fill(self.layout());
        freed
    }

    /// As [`Store::prune`], for a caller that holds the lock of the collector.
    pub(crate) fn prune_locked(
        &self,
        request: &PruneRequest,
        on_removed: &mut dyn FnMut(&UsageRecord),
    ) -> Result<Pruned> {
        let loaded = load(self)?;
        let now = from_nanos(self.now());
        let mut pruned = Pruned::default();
        let wanted = if request.has_limit() {
            let used = loaded.iter().map(|one| one.record.size_bytes).sum::<u64>()
                + usage::overhead(self)?.size_bytes;
            let target = request.target_bytes(used, self.disk_space()?.free_bytes);
            if used <= target {
                return Ok(pruned);
            }
            used - target
        } else {
            u64::MAX
        };
        let concerns = |one: &Loaded| request.concerns(one, now);
        pruned.freed_bytes = self.remove_some(&loaded, concerns, wanted, on_removed)?;
        if pruned.freed_bytes < wanted {
            let young = loaded.iter().filter(|one| {
                !request.is_old(&one.record, now) && request.concerns_when_old(one, now)
            });
            let touched = young.map(|one| one.record.last_touched_at()).min();
            let due = touched.map(|touched| {
                to_nanos(touched).saturating_add_unsigned(
                    u64::try_from(request.keep_duration.as_nanos()).unwrap_or(u64::MAX),
                )
            });
            pruned.short_until = Some(due.unwrap_or(i64::MAX));
        }
        self.remove_unreachable_keys()?;
        self.write(history::trim)?;
        Ok(pruned)
    }

    /// Removes those of `loaded` that are meant, the least valuable first, children before their
    /// parents, until `wanted` bytes are freed. Returns how many are.
    ///
    /// The files of what is removed go while more is; all are gone at the end.
    pub(crate) fn remove_some(
        &self,
        loaded: &[Loaded],
        is_meant: impl Fn(&Loaded) -> bool,
        wanted: u64,
        on_removed: &mut dyn FnMut(&UsageRecord),
    ) -> Result<u64> {
        let mut selection = Selection::new(loaded, is_meant);
        let mut freed = 0;
        let mut most = FIRST_BATCH;
        let mut removers = Removers::new();
        loop {
            let mut batch = Vec::new();
            let mut expected = freed;
            while batch.len() < most && expected < wanted {
                let Some(index) = selection.next() else { break };
                expected += loaded[index].record.size_bytes;
                batch.push(&loaded[index]);
            }
            if batch.is_empty() {
                break;
            }
            let removed = match self.remove_records(&batch, &mut removers) {
                // Room for the next transaction is on its way.
                Err(error) if error.kind() == ErrorKind::FullDisk && removers.have_begun() => {
                    mem::replace(&mut removers, Removers::new()).finish()?;
                    self.remove_records(&batch, &mut removers)?
                }
                removed => removed?,
            };
            for record in removed {
                freed += record.size_bytes;
                on_removed(&record);
            }
            most = LAST_BATCH.min(2 * most);
        }
        removers.finish()?;
        Ok(freed)
    }
}

/// The records to be removed, in order: of those whose children are gone, always the least
/// valuable.
struct Selection<'a> {
    loaded: &'a [Loaded],
    index: HashMap<&'a SnapshotId, usize>,
    children: Vec<usize>,
    scores: Vec<Option<u64>>,
    ready: BinaryHeap<Reverse<(u64, usize)>>,
}

impl<'a> Selection<'a> {
    fn new(loaded: &'a [Loaded], concerns: impl Fn(&Loaded) -> bool) -> Self {
        let index: HashMap<_, _> = loaded
            .iter()
            .enumerate()
            .map(|(index, one)| (&one.record.id, index))
            .collect();
        let mut children = vec![0; loaded.len()];
        for parent in loaded.iter().flat_map(|one| &one.record.parents) {
            if let Some(parent) = index.get(parent) {
                children[*parent] += 1;
            }
        }
        let chosen: Vec<usize> = (0..loaded.len())
            .filter(|index| concerns(&loaded[*index]))
            .collect();
        let mut selection = Self {
            loaded,
            index,
            children,
            scores: scores(loaded, &chosen),
            ready: BinaryHeap::new(),
        };
        for index in chosen {
            selection.offer(index);
        }
        selection
    }

    /// Adds a record whose turn may have come. One that an image shares only loses its results,
    /// so its children don't matter.
    fn offer(&mut self, index: usize) {
        if let Some(score) = self.scores[index]
            && (self.children[index] == 0 || self.loaded[index].record.shared)
        {
            self.scores[index] = None;
            self.ready.push(Reverse((score, index)));
        }
    }

    fn next(&mut self) -> Option<usize> {
        let Reverse((_, index)) = self.ready.pop()?;
        if !self.loaded[index].record.shared {
            for parent in &self.loaded[index].record.parents {
                if let Some(parent) = self.index.get(parent).copied() {
                    self.children[parent] -= 1;
                    self.offer(parent);
                }
            }
        }
        Some(index)
    }
}

/// Scores the `chosen` records by how recently and by how often they were used, both by rank and
/// of equal weight, as BuildKit does: the lowest goes first.
fn scores(loaded: &[Loaded], chosen: &[usize]) -> Vec<Option<u64>> {
    /// Ranks are scaled to this range.
    const RANGE: u64 = 1 << 20;

    fn ranks<K: Ord>(chosen: &[usize], key: impl Fn(usize) -> K) -> HashMap<usize, u64> {
        let mut sorted = chosen.to_vec();
        sorted.sort_by_key(|index| key(*index));
        let mut rank = 0;
        let mut ranks = HashMap::new();
        for (position, index) in sorted.iter().enumerate() {
            if position > 0 && key(sorted[position - 1]) != key(*index) {
                rank += 1;
            }
            ranks.insert(*index, rank);
        }
        let scale = RANGE / rank.max(1);
        for rank in ranks.values_mut() {
            *rank *= scale;
        }
        ranks
    }

    let by_time = ranks(chosen, |index| loaded[index].record.last_touched_at());
    let by_count = ranks(chosen, |index| loaded[index].record.usage_count);
    let mut scores = vec![None; loaded.len()];
    for index in chosen {
        scores[*index] = Some(by_time[index] + by_count[index]);
    }
    scores
}

impl Store {
    /// Removes the keys that lead to no result. Not while a build may be about to link to them.
    pub(crate) fn remove_unreachable_keys(&self) -> Result<()> {
        if !lease::living(self)?.is_empty() {
            return Ok(());
        }
        // No lease begins from here on.
        let _publications = self.lock_removal()?;
        if !lease::living(self)?.is_empty() {
            return Ok(());
        }
        self.write(|tx| {
            // Replaced keys, to which nothing leads.
            tx.execute(
                "DELETE FROM keys WHERE root = 0 AND id NOT IN (SELECT child FROM links)",
                [],
            )?;
            tx.execute(
                "DELETE FROM keys WHERE id NOT IN ( \
                   WITH RECURSIVE leading (id) AS (SELECT key FROM results \
                     UNION SELECT parent FROM links JOIN leading ON links.child = leading.id) \
                   SELECT id FROM leading)",
                [],
            )?;
            Ok(())
        })
    }

    pub(crate) fn blob_file(&self, digest: &Digest) -> PathBuf {
        self.layout().blob(digest)
    }
}
