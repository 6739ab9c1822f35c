use jiff::Timestamp;

use crate::{Filter, RecordType, Result, SnapshotId, Store};

mod load;

pub(crate) use load::{Kind, Loaded, load, overhead, overhead_bytes};

/// One line of `du`.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageRecord {
    /// The record's name.
    pub id: SnapshotId,
    /// What it builds on.
    pub parents: Vec<SnapshotId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When a build last used it.
    pub last_used_at: Option<Timestamp>,
    /// How many builds used it.
    pub usage_count: u64,
    /// Allocated bytes that only this record takes.
    pub size_bytes: u64,
    /// Whether it may still change.
    pub mutable: bool,
    /// Whether a running process needs it, so that prune leaves it alone.
    pub in_use: bool,
    /// Whether an image with a name needs its content, too.
    pub shared: bool,
    /// What made it.
    pub description: String,
    /// What it came from.
    pub record_type: RecordType,
}

impl UsageRecord {
    /// Returns when it was last used, or else made.
    pub fn last_touched_at(&self) -> Timestamp {
        self.last_used_at.unwrap_or(self.created_at)
    }
}

impl Store {
    /// Returns what takes space, oldest use first: the records that match one of `filters`, or
    /// all if there are none.
    ///
    /// Together, all records make up what the state directory takes on the disk.
    pub fn du(&self, filters: &[Filter]) -> Result<Vec<UsageRecord>> {
        let now = crate::db::from_nanos(self.now());
        let mut records: Vec<UsageRecord> = load(self)?
            .into_iter()
            .map(|loaded| loaded.record)
            .collect();
        records.push(overhead(self)?);
        records.retain(|record| {
            filters.is_empty() || filters.iter().any(|filter| filter.matches(record, now))
        });
        records.sort_by(|a, b| (a.last_touched_at(), &a.id).cmp(&(b.last_touched_at(), &b.id)));
        Ok(records)
    }
}
