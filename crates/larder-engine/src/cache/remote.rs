//! A result that an imported cache has: layers somewhere else, fetched when they are needed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use larder_cache::{RecordResult, RemoteLayer};
use larder_store::SnapshotId;

use crate::error::{BuildError, ErrorClass, Result};
use crate::fetch::{FarLayer, Fetcher, Origin};

/// The result of a record of an imported cache.
#[derive(Debug)]
pub(crate) struct RemoteResult {
    /// Its layers, lowest first; at least one. Results that lie on each other share them: copies
    /// would take more memory than a cache is allowed to.
    layers: Vec<Arc<RemoteLayer>>,
    pub(crate) origin: Origin,
    /// When it was made, where that is known.
    pub(crate) created_at: Option<Timestamp>,
    /// Its tree, once it was fetched.
    fetched: Mutex<Option<SnapshotId>>,
    lost: AtomicBool,
}

impl RemoteResult {
    /// Returns a result; `tree` is its tree where the store has it, held by the build's lease.
    pub(crate) fn new(found: &RecordResult, origin: Origin, tree: Option<SnapshotId>) -> Self {
        Self {
            layers: found.layers.clone(),
            origin,
            created_at: found.created_at,
            fetched: Mutex::new(tree),
            lost: AtomicBool::new(false),
        }
    }

    /// Returns its layers, lowest first; at least one.
    pub(crate) fn layers(&self) -> Vec<FarLayer> {
        let far = |layer: &Arc<RemoteLayer>| FarLayer {
            descriptor: layer.descriptor.clone(),
            diff_id: layer.diff_id.clone(),
            created_at: layer.created_at.or(self.created_at),
        };
        self.layers.iter().map(far).collect()
    }

    /// Whether it could not be fetched when it was needed.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether its tree is in the store.
    pub(crate) fn is_fetched(&self) -> bool {
        self.fetched().is_some()
    }

    /// Returns its tree, if that is in the store.
    pub(crate) fn fetched(&self) -> Option<SnapshotId> {
        let fetched = self.fetched.lock();
        fetched.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns its tree. The first caller fetches what the store lacks, others wait.
    ///
    /// # Errors
    /// What kept it from being fetched. Unless that was a full disk or the end of the build, the
    /// result counts as lost then, and the error is of class `NotFound`.
    pub(crate) fn tree(&self, fetcher: &Fetcher<'_>, description: &str) -> Result<SnapshotId> {
        let mut known = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = &*known {
            return Ok(snapshot.clone());
        }
        match fetcher.tree(&self.layers(), &self.origin, description) {
            Ok(snapshot) => Ok(known.insert(snapshot).clone()),
            Err(error) => match error.class() {
                ErrorClass::Canceled | ErrorClass::Exhausted | ErrorClass::Internal => Err(error),
                _ => {
                    self.lost.store(true, Ordering::Relaxed);
                    Err(BuildError::new(ErrorClass::NotFound, error.full_message()))
                }
            },
        }
    }
}
