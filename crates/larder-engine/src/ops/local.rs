//! The local source: a directory of the user's, read where it lies.

mod metadata;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use larder_llb::pb;
use larder_oci::Digest;
use larder_store::{ActiveSnapshot, Lease, NewSnapshot, RecordType, SnapshotId};
use larder_tree::beneath::Root;
use larder_tree::context::{ScanOptions, StatCache, Tree, scan};
use larder_tree::copy::{self, CopyOptions};

use crate::error::{BuildError, Result};
use crate::ops::file::many::has_many;
use crate::progress::VertexProgress;
use crate::worker::{BuildWorker, ResultRef};

/// Where a local source's files are.
pub(crate) struct ContextRoot {
    pub(crate) root: Root,
    /// What names its stat cache: its absolute path. `None` for one that won't be seen again.
    pub(crate) cache_name: Option<String>,
    /// The snapshot that stands for no files at all; removed when this is dropped.
    pub(crate) _empty: Option<ActiveSnapshot>,
    /// What the scans of this run have written of its stat cache: targets may scan other parts.
    pub(crate) stat_cache: Arc<Mutex<StatCache>>,
}

/// A scanned context.
pub(crate) struct LocalContext {
    tree: Tree,
    cache_file: Option<PathBuf>,
    stat_cache: Arc<Mutex<StatCache>>,
    copied: Mutex<Option<SnapshotId>>,
}

impl std::fmt::Debug for LocalContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalContext").finish_non_exhaustive()
    }
}

impl LocalContext {
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Returns a snapshot with a copy of all files, made when first asked for: bind mounts show
    /// the context as it was scanned, without what is ignored, owned by root.
    pub(crate) fn snapshot(&self, lease: &Lease) -> Result<SnapshotId> {
        let mut copied = self.copied.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = &*copied {
            return Ok(id.clone());
        }
        let new = NewSnapshot {
            parent: None,
            description: "local source for context",
            record_type: RecordType::LocalSource,
        };
        if has_many(self.tree.top())?
            && let Some(image) = lease.prepare_image(&new)?
        {
            copy::copy_within(&self.tree, image.tree(), &whole_tree(), image.quota())?;
            let id = image.commit()?;
            *copied = Some(id.clone());
            return Ok(id);
        }
        let active = lease.prepare(&new)?;
        let target = Root::from_fd(larder_exec::mount::open(&active.mount()?)?);
        copy::copy_within(&self.tree, &target, &whole_tree(), active.quota())?;
        drop(target);
        let id = active.commit()?;
        *copied = Some(id.clone());
        Ok(id)
    }

    /// Keeps the digests that this build has computed, for the next one.
    fn save_cache(&self) {
        let (Some(file), Some(cache)) = (&self.cache_file, self.tree.updated_cache()) else {
            return;
        };
        let mut written = self
            .stat_cache
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *written = cache.merged(&written);
        if let Err(error) = written.save(file) {
            tracing::warn!(%error, "the stat cache was not written");
        }
    }
}

impl Drop for LocalContext {
    fn drop(&mut self) {
        self.save_cache();
    }
}

/// Returns the options that copy all of a tree into the top of another.
pub(crate) fn whole_tree() -> CopyOptions {
    CopyOptions {
        src: "/".to_owned(),
        dest: "/".to_owned(),
        dir_copy_contents: true,
        create_dest_path: true,
        ..CopyOptions::default()
    }
}

/// Scans the context `name`.
pub(crate) fn load(
    worker: &BuildWorker<'_>,
    name: &str,
    source: &pb::SourceOp,
    progress: &VertexProgress<'_>,
) -> Result<ResultRef> {
    let context = worker.contexts.get(name).ok_or_else(|| {
        BuildError::invalid(format!(
            "no directory was given for the local source `{name}`"
        ))
    })?;
    let list = |key: &str| -> Result<Option<Vec<String>>> {
        let Some(text) = source.attrs.get(key) else {
            return Ok(None);
        };
        let bad = |error| {
            BuildError::invalid(format!("`{key}` of local source `{name}` is no list"))
                .with_source(error)
        };
        serde_json::from_str(text).map(Some).map_err(bad)
    };
    let listed = metadata::is_asked_for(source)?;
    let exceptions = list("local.metadatatransferexclude")?.unwrap_or_default();
    let excludes = list("local.excludepatterns")?.unwrap_or_default();
    let includes = list("local.includepattern")?.unwrap_or_default();
    let follow_paths = list("local.followpaths")?;
    let cache_file = context.cache_name.as_ref().map(|name| {
        worker
            .store()
            .contexts_dir()
            .join(Digest::sha256(name).hex())
    });
    let status = progress.status("transferring context:", 0);
    let started_at_nanos = i64::try_from(worker.engine.now().as_nanosecond()).unwrap_or(i64::MAX);
    let options = ScanOptions {
        excludes: &excludes,
        includes: &includes,
        follow_paths: follow_paths.as_deref(),
        started_at_nanos,
    };
    let cache = cache_file
        .as_deref()
        .map(StatCache::load)
        .unwrap_or_default();
    let tree = scan(context.root.try_clone()?, &options, cache)?;
    status.set(tree.file_bytes());
    status.done();
    let context = LocalContext {
        tree,
        cache_file,
        stat_cache: Arc::clone(&context.stat_cache),
        copied: Mutex::new(None),
    };
    if listed {
        let snapshot = metadata::snapshot(&worker.lease, context.tree(), exceptions)?;
        return Ok(ResultRef::Snapshot(snapshot));
    }
    Ok(ResultRef::Context(Arc::new(context)))
}
