//! A result that an imported cache has: layers somewhere else, fetched when they are needed.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use larder_cache::{RecordResult, RemoteLayer};
use larder_oci::Digest;
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
    /// What does not come from where the cache is.
    losses: Arc<Losses>,
    /// Its tree, once it was fetched.
    fetched: Mutex<Option<SnapshotId>>,
    lost: AtomicBool,
}

/// What does not come from where a cache is, as far as was found out: all its results share that, so
/// that nothing is asked for in vain twice.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// Set once the server has not answered.
    is_dead: AtomicBool,
    /// What is missing there, or damaged.
    blobs: Mutex<HashSet<Digest>>,
}

impl Losses {
    fn note(&self, error: &BuildError) {
        if error.class() == ErrorClass::Unavailable {
            self.is_dead.store(true, Ordering::Relaxed);
        } else if let Some(blob) = error.lost_blob() {
            self.blobs().insert(blob.clone());
        }
    }

    /// Whether one of the layers won't come.
    fn concern(&self, layers: &[Arc<RemoteLayer>]) -> bool {
        let blobs = self.blobs();
        let is_lost = |layer: &Arc<RemoteLayer>| blobs.contains(&layer.descriptor.digest);
        self.is_dead.load(Ordering::Relaxed) || (!blobs.is_empty() && layers.iter().any(is_lost))
    }

    fn blobs(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RemoteResult {
    /// Returns a result of a cache at `origin`. The results of one cache share `losses`.
    pub(crate) fn new(found: &RecordResult, origin: Origin, losses: &Arc<Losses>) -> Self {
        Self {
            layers: found.layers.clone(),
            origin,
            losses: Arc::clone(losses),
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
            || (self.losses.concern(&self.layers) && !self.is_fetched())
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
    /// says so, is no reason not to make it again. So do all results that need the layer; where a
    /// server does not answer, all of the cache: to wait for each would hold up the build.
    pub(crate) fn tree(&self, fetcher: &Fetcher<'_>, description: &str) -> Result<SnapshotId> {
        let mut tree = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = &*tree {
            return Ok(snapshot.clone());
        }
        if self.losses.concern(&self.layers) {
            let message = format!("it did not come from `{}` before", self.origin.name());
            return Err(BuildError::new(ErrorClass::NotFound, message));
        }
        let error = match fetcher
            .impatient()
            .tree(&self.layers(), &self.origin, description)
        {
            Ok(snapshot) => return Ok(tree.insert(snapshot).clone()),
            Err(error) => error,
        };
        if matches!(error.class(), ErrorClass::Canceled | ErrorClass::Internal) {
            return Err(error);
        }
        self.losses.note(&error);
        self.lost.store(true, Ordering::Relaxed);
        Err(BuildError::new(ErrorClass::NotFound, error.full_message()))
    }
}
