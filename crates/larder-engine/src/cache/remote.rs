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
    /// Set once nothing more comes from where the cache is, for all results of the cache.
    is_dead: Arc<AtomicBool>,
    /// Its tree, once it was fetched.
    fetched: Mutex<Option<SnapshotId>>,
    lost: AtomicBool,
}

impl RemoteResult {
    /// Returns a result of a cache at `origin`. The results of one cache share `is_dead`.
    pub(crate) fn new(found: &RecordResult, origin: Origin, is_dead: &Arc<AtomicBool>) -> Self {
        Self {
            layers: found.layers.clone(),
            origin,
            is_dead: Arc::clone(is_dead),
            created_at: found.created_at,
            fetched: Mutex::default(),
            lost: AtomicBool::new(false),
        }
    }

    /// Returns the result with its tree, which the store has and the build's lease holds.
    pub(crate) fn with_tree(self, tree: SnapshotId) -> Self {
        let fetched = Mutex::new(Some(tree));
        Self { fetched, ..self }
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

    /// Whether it could not be fetched when it was needed, or need not be tried.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
            || (self.is_dead.load(Ordering::Relaxed) && !self.is_fetched())
    }

    /// Gives it up, unless it was fetched.
    pub(crate) fn lose(&self) {
        if !self.is_fetched() {
            self.lost.store(true, Ordering::Relaxed);
        }
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
    /// What kept it from being fetched. Unless that was the end of the build, the result counts as
    /// lost then, and the error is of class `NotFound`: a layer that is too large for the disk, or
    /// says so, is no reason not to make it again. Where a server does not answer, all results of
    /// the cache count as lost: to wait for each would hold up the build.
    pub(crate) fn tree(&self, fetcher: &Fetcher<'_>, description: &str) -> Result<SnapshotId> {
        let mut tree = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = &*tree {
            return Ok(snapshot.clone());
        }
        if self.is_dead.load(Ordering::Relaxed) {
            let message = format!("`{}` did not answer before", self.origin.name());
            return Err(BuildError::new(ErrorClass::NotFound, message));
        }
        let error = match fetcher.tree(&self.layers(), &self.origin, description) {
            Ok(snapshot) => return Ok(tree.insert(snapshot).clone()),
            Err(error) => error,
        };
        match error.class() {
            ErrorClass::Canceled | ErrorClass::Internal => return Err(error),
            ErrorClass::Unavailable => self.is_dead.store(true, Ordering::Relaxed),
            _ => {}
        }
        self.lost.store(true, Ordering::Relaxed);
        Err(BuildError::new(ErrorClass::NotFound, error.full_message()))
    }
}
