//! What the solver's driver needs done: cache maps, look-ups, content keys, and ops.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use larder_dockerfile::Lowered;
use larder_llb::blob::BlobSource;
use larder_llb::cache_map::{self, Selector};
use larder_llb::http::HttpSource;
use larder_llb::image::ImageSource;
use larder_llb::{Vertex, pb};
use larder_oci::{Descriptor, Digest, Platform};
use larder_solver::{CacheKey, CacheMap, Candidate, InputMap, KeyId, Match, SaveMode};
use larder_store::{
    ActiveSnapshot, KeyDep, KeyLock, KeyMatch, Lease, LookUps, NewKey, SnapshotId, Store,
};
use larder_tree::beneath::Root;
use larder_tree::checksum::{self, Manifest};
use larder_tree::context::Tree;
use larder_tree::quota::Quota;

use crate::ahead::Ahead;
use crate::attest::{Pin, material};
use crate::cache::import::Imports;
use crate::cache::remote::RemoteResult;
use crate::cancel::CancelFlag;
use crate::engine::Engine;
use crate::entitlement::Granted;
use crate::error::{BuildError, ErrorClass, Result};
use crate::fetch::{FarLayer, Fetcher, Origin, repository};
use crate::history::{self, History};
use crate::images::{ImageKey, Layouts, ResolvedImage};
use crate::network::StepNetworks;
use crate::ops::{self, host, local::LocalContext, stack::Stacker};
use crate::progress::{Reporter, VertexProgress};
use crate::request::{Output, SecretProvider, SourcePolicy, SshProvider, StepReport};
use crate::solve::{Found, Missed, WorkError, Worker};
use crate::web::WebFiles;

/// The result of a vertex.
#[derive(Debug, Clone)]
pub(crate) enum ResultRef {
    /// A tree in the store, held by the build's lease.
    Snapshot(SnapshotId),
    /// A directory of the user's, as it was when it was scanned.
    Context(Arc<LocalContext>),
    /// What an imported cache has.
    Remote(Imported),
}

impl ResultRef {
    /// Whether it was found in an imported cache, and could not be fetched.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self, Self::Remote(imported) if imported.result.is_lost())
    }
}

/// A result that was found in an imported cache.
#[derive(Debug, Clone)]
pub(crate) struct Imported {
    pub(crate) result: Arc<RemoteResult>,
    /// The record that it is the result of, in the store.
    key: larder_store::KeyId,
    /// The vertex it was found for, and its name.
    vertex: (Digest, String),
}

/// Does the work of one build.
pub(crate) struct BuildWorker<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) lease: Lease,
    pub(crate) lowered: &'a Lowered,
    /// The base images of all targets, by what their vertices are known by.
    pub(crate) images: &'a HashMap<ImageKey, ResolvedImage>,
    /// The OCI layouts of all targets.
    pub(crate) layouts: &'a Layouts,
    /// The local contexts of all targets, by name.
    pub(crate) contexts: &'a BTreeMap<String, ops::local::ContextRoot>,
    /// What the sources of nested builds go through.
    pub(crate) policy: &'a SourcePolicy,
    pub(crate) secrets: &'a dyn SecretProvider,
    pub(crate) ssh: &'a dyn SshProvider,
    /// Where references of git repositories lead, for all targets.
    pub(crate) repositories: &'a ops::git::Resolutions,
    pub(crate) variables: host::Variables<'a>,
    pub(crate) host_ca: bool,
    /// What the steps of the target may do.
    pub(crate) granted: &'a Granted,
    /// Networks of all targets' steps that choose none.
    pub(crate) networks: &'a StepNetworks,
    pub(crate) history: History<'a>,
    /// Cache mounts that were emptied in this run: `--no-cache` empties each only once.
    pub(crate) emptied: &'a Mutex<HashSet<String>>,
    /// What this target's steps have emptied.
    pub(crate) emptied_bytes: AtomicU64,
    /// How many builds this one is nested in.
    pub(crate) depth: usize,
    /// Whether steps that ignore the cache empty their cache mounts.
    pub(crate) empties_cache_mounts: bool,
    pub(crate) reports: Mutex<Vec<StepReport>>,
    pub(crate) imports: &'a Imports<'a>,
    pub(crate) web: &'a WebFiles<'a>,
    pub(crate) reporter: &'a Reporter<'a>,
    pub(crate) cancel: &'a CancelFlag,
    /// Packs the layers of steps that are done, where an output will ask for them.
    pub(crate) ahead: Option<&'a Ahead<'a>>,
}

impl BuildWorker<'_> {
    pub(crate) fn store(&self) -> &Store {
        self.lease.store()
    }

    /// Returns the snapshot of a result. A context is copied into one, the first time.
    pub(crate) fn snapshot_of(&self, result: &ResultRef) -> Result<SnapshotId> {
        match result {
            ResultRef::Snapshot(id) => Ok(id.clone()),
            ResultRef::Context(context) => context.snapshot(&self.lease),
            ResultRef::Remote(imported) => self.fetch(imported),
        }
    }

    /// Fetches what an imported cache has, and keeps it as the result of its record.
    fn fetch(&self, imported: &Imported) -> Result<SnapshotId> {
        let (vertex, name) = &imported.vertex;
        let progress = self
            .reporter
            .announced(vertex.clone(), Vec::new(), name, None);
        let fetcher = Fetcher::new(self.engine, &self.lease, &progress, self.cancel);
        let was_lost = imported.result.is_lost();
        let tree = imported.result.tree(&fetcher, name);
        match &tree {
            Ok(snapshot) => self.lease.save_result(imported.key, snapshot)?,
            Err(error) if !was_lost && imported.result.is_lost() => {
                progress.warn(format!(
                    "the imported result can't be fetched: {}",
                    error.full_message()
                ));
            }
            Err(_) => {}
        }
        tree
    }

    /// Returns what pins the sources that this build fetched, by their vertices.
    pub(crate) fn fetched(&self) -> BTreeMap<Digest, Pin> {
        let vertices = self.lowered.definition.vertices().iter();
        let fetched = vertices.filter_map(|vertex| {
            let Some(pb::op::Op::Source(source)) = &vertex.op.op else {
                return None;
            };
            let pin = if ops::git::is_git(source) {
                material::commit(&self.repositories.known_commit(source)?)
            } else {
                let source = HttpSource::parse(source)?.ok()?;
                material::pair(&self.web.known(&source)?)
            };
            Some((vertex.digest.clone(), pin))
        });
        fetched.collect()
    }

    /// Returns the layers of a result that is in a registry and not in the store, where `outputs`
    /// need no more of it; else none.
    pub(crate) fn far_layers(
        &self,
        result: &ResultRef,
        outputs: &[Output],
    ) -> Result<Vec<FarLayer>> {
        let needs_no_tree = |output: &Output| match output {
            Output::Image(image) => {
                let options = &image.options;
                !options.rewrite_timestamp && !options.force_compression
            }
            _ => false,
        };
        let ResultRef::Remote(imported) = result else {
            return Ok(Vec::new());
        };
        let Origin::Registry(image_ref) = &imported.result.origin else {
            return Ok(Vec::new());
        };
        if imported.result.is_fetched() || !outputs.iter().all(needs_no_tree) {
            return Ok(Vec::new());
        }
        let layers = imported.result.layers();
        let digests: Vec<&Digest> = layers.iter().map(|it| &it.descriptor.digest).collect();
        self.store().add_origin(&repository(image_ref), &digests)?;
        Ok(layers)
    }

    /// Opens a result for reading: a detached mount.
    pub(crate) fn open_view(&self, result: &ResultRef) -> Result<OwnedFd> {
        let mount = self.store().view(&self.snapshot_of(result)?)?;
        Ok(larder_exec::mount::open(&mount)?)
    }

    /// Makes a writable snapshot, of which the mounts must be closed, the result of a step: saved under its
    /// key next.
    pub(crate) fn commit(active: ActiveSnapshot) -> Result<ResultRef> {
        Ok(ResultRef::Snapshot(active.commit_soon()?))
    }

    /// Returns the selectors by which an input of a vertex is digested.
    fn selectors(vertex: &Vertex, input: usize) -> Result<Vec<checksum::Selector>> {
        let content = cache_map::content(vertex, input).ok_or_else(|| {
            BuildError::internal("an input without content key is to be digested")
        })?;
        Ok(content.into_iter().map(selector).collect())
    }

    /// Lists a result, for its content to be digested or copied.
    pub(crate) fn tree<T>(
        &self,
        result: &ResultRef,
        work: impl FnOnce(&Tree) -> Result<T>,
    ) -> Result<T> {
        match result {
            ResultRef::Context(context) => work(context.tree()),
            ResultRef::Snapshot(_) | ResultRef::Remote(_) => {
                work(&Tree::view(Root::from_fd(self.open_view(result)?))?)
            }
        }
    }

    /// Copies the tree of a snapshot into a directory: the start of a new cache mount.
    pub(crate) fn copy_out(
        &self,
        snapshot: &SnapshotId,
        target: &Root,
        quota: &dyn Quota,
    ) -> larder_tree::Result<()> {
        let failed = |error: BuildError| {
            larder_tree::Error::new(larder_tree::ErrorKind::Io, error.full_message())
        };
        let view = self
            .open_view(&ResultRef::Snapshot(snapshot.clone()))
            .map_err(failed)?;
        let tree = Tree::view(Root::from_fd(view))?;
        larder_tree::copy::copy_within(&tree, target, &ops::local::whole_tree(), quota).map(drop)
    }

    /// Empties the cache mounts of a step that ignores the cache, once each in a build.
    pub(crate) fn empty_cache_mounts(
        &self,
        exec: &pb::ExecOp,
        progress: &VertexProgress<'_>,
    ) -> Result<()> {
        let mut emptied = self.emptied.lock().unwrap_or_else(PoisonError::into_inner);
        for mount in exec
            .mounts
            .iter()
            .filter(|mount| mount.mount_type() == pb::MountType::Cache)
        {
            let id = mount
                .cache_opt
                .as_ref()
                .map(|option| option.id.clone())
                .unwrap_or_default();
            if emptied.contains(&id) {
                continue;
            }
            let bytes = self.store().empty_cache_mounts(&[&id])?;
            if bytes > 0 {
                // The first `/` is that of the namespace.
                let shown = id.strip_prefix('/').unwrap_or(&id);
                let status = progress.status(format!("emptying cache mount {shown}:"), 0);
                status.set(bytes);
                status.done();
            }
            self.emptied_bytes.fetch_add(bytes, Ordering::Relaxed);
            emptied.insert(id);
        }
        Ok(())
    }

    /// Returns an exec as it is keyed: with the devices that it gets, for what its own names stand for
    /// depends on the machine. `None` for one without devices, and for other ops.
    fn with_devices(&self, vertex: &Vertex) -> Result<Option<Vertex>> {
        match &vertex.op.op {
            Some(pb::op::Op::Exec(exec)) if !exec.cdi_devices.is_empty() => {
                let device = |name| pb::CdiDevice {
                    name,
                    optional: false,
                };
                let names = self.granted.resolve(exec)?;
                let mut exec = exec.clone();
                exec.cdi_devices = names.into_iter().map(device).collect();
                let mut keyed = vertex.clone();
                keyed.op.op = Some(pb::op::Op::Exec(exec));
                Ok(Some(keyed))
            }
            _ => Ok(None),
        }
    }

    /// Returns the layers of all base images, by diff ID.
    pub(crate) fn base_layers(&self) -> HashMap<Digest, Descriptor> {
        layers_of(self.images)
    }

    /// Looks up records of the store, and where these have no result, of the imported caches.
    fn matches(
        &self,
        vertex: &Vertex,
        op: &Digest,
        output: i32,
        deps: &[Vec<KeyDep>],
        look_ups: &mut Option<LookUps>,
    ) -> Result<Vec<Match<ResultRef>>> {
        let together = match look_ups.take() {
            Some(together) => together,
            None => self.lease.look_ups()?,
        };
        let found = together.query(op, output, deps)?;
        for record in &found {
            self.imports.note(record.key, op, output, deps);
            self.history.add_found(vertex, record.key);
        }
        let to_match = |found: KeyMatch| Match {
            key: KeyId(found.key.get()),
            result: found
                .result
                .map(|result| ResultRef::Snapshot(result.snapshot)),
        };
        let mut matches: Vec<_> = found.into_iter().map(to_match).collect();
        if matches.iter().any(|found| found.result.is_some()) {
            *look_ups = Some(together);
            return Ok(matches);
        }
        drop(together);
        if let Some(found) = self.imports.find(op, output, deps) {
            let key = self.lease.ensure_key(op, output, &found.deps)?;
            self.imports.note(key, op, output, &found.deps);
            self.history.add_found(vertex, key);
            matches.retain(|found| found.key.0 != key.get());
            let result = found.result.map(|result| {
                ResultRef::Remote(Imported {
                    result,
                    key,
                    vertex: (vertex.digest.clone(), vertex.name()),
                })
            });
            let key = KeyId(key.get());
            matches.insert(0, Match { key, result });
        }
        Ok(matches)
    }

    fn deps(inputs: &[Vec<Candidate>]) -> Vec<Vec<KeyDep>> {
        let dep = |candidate: &Candidate| match candidate {
            Candidate::Key { key, selector } => KeyDep {
                key: larder_store::CacheKey::Record(larder_store::KeyId::from(key.0)),
                selector: selector.clone(),
            },
            Candidate::Content(digest) => KeyDep {
                key: larder_store::CacheKey::content(digest.clone()),
                selector: None,
            },
        };
        inputs
            .iter()
            .map(|candidates| candidates.iter().map(dep).collect())
            .collect()
    }
}

fn selector(selector: Selector) -> checksum::Selector {
    checksum::Selector {
        path: selector.path,
        wildcard: selector.wildcard,
        follow_links: selector.follow_links,
        include_patterns: selector.include_patterns,
        exclude_patterns: selector.exclude_patterns,
        required_paths: selector.required_paths,
    }
}

impl Worker for BuildWorker<'_> {
    type Result = ResultRef;
    type Lock = KeyLock;
    type LookUps = Option<LookUps>;

    fn cache_map_waits(&self, vertex: &Vertex) -> bool {
        matches!(&vertex.op.op, Some(pb::op::Op::Source(source))
            if ops::http::is_http(source) || ops::git::is_git(source))
    }

    fn cache_map(
        &self,
        vertex: &Vertex,
        progress: &VertexProgress<'_>,
        cancel: &CancelFlag,
    ) -> Result<CacheMap> {
        let with_devices = self.with_devices(vertex)?;
        let keyed = with_devices.as_ref().unwrap_or(vertex);
        if let Some(map) = cache_map::cache_map(keyed, &Platform::host()) {
            let input = |keys: cache_map::InputKeys| InputMap {
                selector: keys.selector,
                content: keys.content.is_some(),
            };
            if map.inputs.is_empty() {
                return Ok(CacheMap::Root {
                    keys: vec![map.digest],
                });
            }
            return Ok(CacheMap::Step {
                digest: map.digest,
                inputs: map.inputs.into_iter().map(input).collect(),
            });
        }
        match &vertex.op.op {
            Some(pb::op::Op::Source(source)) if source.identifier.starts_with("local://") => {
                Ok(CacheMap::Root { keys: Vec::new() })
            }
            Some(pb::op::Op::Source(source)) if ops::http::is_http(source) => {
                let digest = ops::http::resolve(self, vertex, source, progress, cancel)?;
                Ok(CacheMap::Root { keys: vec![digest] })
            }
            Some(pb::op::Op::Source(source)) if ops::git::is_git(source) => {
                let digest = ops::git::resolve(self, vertex, source, progress, cancel)?;
                Ok(CacheMap::Root { keys: vec![digest] })
            }
            Some(pb::op::Op::Source(source)) => {
                if let Some(blob) = blob_source(source)? {
                    let keys = vec![blob.cache_digest()];
                    return Ok(CacheMap::Root { keys });
                }
                let (image, layer_limit) = self.image(vertex, source)?;
                let chain_id = cache_map::chain_id(&image.config.rootfs.diff_ids);
                let keys = cache_map::image_source_digests(
                    &image.manifest_digest,
                    &image.platform,
                    layer_limit,
                    chain_id.as_ref(),
                );
                Ok(CacheMap::Root { keys })
            }
            _ => Err(unavailable("an op of this kind")),
        }
    }

    fn query(
        &self,
        vertex: &Vertex,
        output: usize,
        key: &CacheKey,
        look_ups: &mut Option<LookUps>,
    ) -> Result<Found<ResultRef>> {
        let output = output as i32;
        match key {
            CacheKey::Root(digests) => {
                let mut matches = Vec::new();
                for digest in digests {
                    matches.extend(self.matches(vertex, digest, output, &[], look_ups)?);
                }
                matches.sort_by_key(|found| found.result.is_none());
                Ok(Found {
                    matches,
                    linked: Vec::new(),
                })
            }
            CacheKey::Step { digest, inputs } => {
                let deps = Self::deps(inputs);
                let matches = self.matches(vertex, digest, output, &deps, look_ups)?;
                if let Some(found) = matches.first().filter(|found| found.result.is_some()) {
                    self.history
                        .set_key(vertex, larder_store::KeyId::from(found.key.0));
                }
                let linked = if matches.is_empty() {
                    self.store().linked(digest, output, &deps)?
                } else {
                    vec![true; deps.len()]
                };
                Ok(Found { matches, linked })
            }
        }
    }

    fn query_waits(&self) -> bool {
        !self.imports.are_ready()
    }

    fn digest_waits(&self, result: &ResultRef) -> bool {
        matches!(result, ResultRef::Remote(_))
    }

    fn content_key(
        &self,
        vertex: &Vertex,
        input: usize,
        result: &ResultRef,
    ) -> Result<Digest, WorkError> {
        let selectors = Self::selectors(vertex, input)?;
        let digest = self.tree(result, |tree| {
            let digest = checksum::content_digest(tree, &selectors)?;
            let listing = history::listing(&digest, &selectors);
            if self.history.wants_manifest(vertex, &listing) {
                self.history
                    .add_manifest(&listing, &Manifest::of(tree, &selectors)?);
            }
            self.history.add_content(vertex, input, listing);
            Ok(digest)
        });
        digest.map_err(|error| {
            let what = match &vertex.op.op {
                Some(pb::op::Op::File(_)) => ops::file::CHECKSUM_FAILED,
                _ => "failed to compute cache key",
            };
            match result {
                ResultRef::Remote(imported) if imported.result.is_lost() => {
                    WorkError::InputLost(input, error.context(what))
                }
                _ => WorkError::Failed(error.context(what)),
            }
        })
    }

    fn try_lock(&self, lock: &Digest) -> Result<Option<KeyLock>> {
        Ok(self.lease.try_lock_key(lock)?)
    }

    fn lock(&self, lock: &Digest, cancel: &CancelFlag) -> Result<KeyLock> {
        Ok(self.lease.lock_key(lock, &|| cancel.is_set())?)
    }

    fn execute(
        &self,
        vertex: &Vertex,
        outputs: &[usize],
        inputs: &[ResultRef],
        missed: Option<Missed>,
        progress: &VertexProgress<'_>,
        cancel: &CancelFlag,
    ) -> Result<Vec<ResultRef>, WorkError> {
        cancel.check()?;
        if let Some(missed) = missed {
            self.history.explain(vertex, &missed, progress);
        }
        if let Some(ahead) = self.ahead {
            ahead.step_begins(vertex, inputs);
        }
        let results = self.run(vertex, outputs, inputs, progress, cancel)?;
        if let Some(ahead) = self.ahead {
            ahead.step_ended(vertex, outputs, &results);
        }
        Ok(results)
    }

    fn save(
        &self,
        vertex: &Vertex,
        output: usize,
        key: &CacheKey,
        result: &ResultRef,
        mode: SaveMode,
    ) -> Result<Vec<KeyId>> {
        let ResultRef::Snapshot(snapshot) = result else {
            return Err(BuildError::internal(
                "a local source has no key to be saved under",
            ));
        };
        let mode = match mode {
            SaveMode::Keep => larder_store::SaveMode::Keep,
            SaveMode::Replace => larder_store::SaveMode::Replace,
        };
        let save = |op: &Digest, deps: &[Vec<KeyDep>]| -> Result<KeyId> {
            let new = NewKey {
                op,
                output: output as i32,
                deps,
                snapshot,
                mode,
            };
            let key = self.lease.save(&new)?.key;
            // What imported caches made of an older result must not be found by the new one.
            if mode == larder_store::SaveMode::Keep {
                self.imports.note(key, op, output as i32, deps);
            }
            self.history.add_found(vertex, key);
            self.history.set_key(vertex, key);
            Ok(KeyId(key.get()))
        };
        match key {
            CacheKey::Root(digests) => digests.iter().map(|digest| save(digest, &[])).collect(),
            CacheKey::Step { digest, inputs } => Ok(vec![save(digest, &Self::deps(inputs))?]),
        }
    }

    fn link(&self, output: usize, key: &CacheKey, to: KeyId) -> Result<()> {
        let CacheKey::Step { digest, inputs } = key else {
            return Ok(());
        };
        let to = larder_store::KeyId::from(to.0);
        Ok(self
            .store()
            .link_key(digest, output as i32, &Self::deps(inputs), to)?)
    }

    fn ended(&self, vertex: &Vertex, report: StepReport) {
        if !report.failed {
            self.history.ended(vertex);
        }
        // Steps that come with another target are reported there.
        let step = self.lowered.steps.get(&vertex.digest);
        if step.is_some_and(|step| step.context.is_none()) {
            let cause = self.history.cause(&vertex.digest);
            let report = StepReport { cause, ..report };
            self.reports
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(report);
        }
    }
}

impl BuildWorker<'_> {
    /// Does what a vertex says; returns a result for each of `outputs`.
    fn run(
        &self,
        vertex: &Vertex,
        outputs: &[usize],
        inputs: &[ResultRef],
        progress: &VertexProgress<'_>,
        cancel: &CancelFlag,
    ) -> Result<Vec<ResultRef>, WorkError> {
        match &vertex.op.op {
            Some(pb::op::Op::Source(source)) => {
                if let Some(name) = source.identifier.strip_prefix("local://") {
                    return Ok(vec![ops::local::load(self, name, source, progress)?]);
                }
                if ops::http::is_http(source) {
                    return Ok(vec![ops::http::load(self, source, progress, cancel)?]);
                }
                if ops::git::is_git(source) {
                    return Ok(vec![ops::git::load(self, source, progress, cancel)?]);
                }
                let fetcher = Fetcher::new(self.engine, &self.lease, progress, cancel);
                if let Some(blob) = blob_source(source)? {
                    let snapshot = ops::blob::load(&fetcher, &blob, self.layouts)?;
                    return Ok(vec![ResultRef::Snapshot(snapshot)]);
                }
                let (image, _) = self.image(vertex, source)?;
                let snapshot = ops::image::pull(&fetcher, &image)?;
                Ok(vec![ResultRef::Snapshot(snapshot)])
            }
            Some(pb::op::Op::Exec(exec)) => {
                if vertex.ignores_cache() && self.empties_cache_mounts {
                    self.empty_cache_mounts(exec, progress)?;
                }
                ops::exec::run(self, vertex, exec, outputs, inputs, progress, cancel)
            }
            Some(pb::op::Op::File(file)) => {
                ops::file::run(self, vertex, file, outputs, inputs, progress)
            }
            Some(pb::op::Op::Merge(merge)) => {
                let indexes = merge.inputs.iter().map(|input| input.input);
                let layers = self.inputs(inputs, indexes)?;
                let merged = self.stacker(vertex, progress).merge(&layers)?;
                Ok(vec![ResultRef::Snapshot(merged)])
            }
            Some(pb::op::Op::Diff(diff)) => {
                let side = |index: Option<i64>| self.inputs(inputs, index.filter(|it| *it >= 0));
                let lower = side(diff.lower.map(|lower| lower.input))?;
                let upper = side(diff.upper.map(|upper| upper.input))?;
                let stacker = self.stacker(vertex, progress);
                let difference = stacker.diff(lower.first(), upper.first())?;
                Ok(vec![ResultRef::Snapshot(difference)])
            }
            Some(pb::op::Op::Passthrough(passthrough)) => {
                let indexes = outputs.iter().map(|&output| passthrough.outputs[output]);
                let results = self.inputs(inputs, indexes)?.into_iter();
                Ok(results.map(ResultRef::Snapshot).collect())
            }
            Some(pb::op::Op::Build(build)) => {
                let result = ops::nested::run(self, build, inputs, cancel)?;
                Ok(vec![ResultRef::Snapshot(result)])
            }
            None => Err(unavailable("an op of this kind").into()),
        }
    }

    /// Returns who does the work of a build within this one.
    pub(crate) fn nested<'n>(
        &'n self,
        lowered: &'n Lowered,
        images: &'n HashMap<ImageKey, ResolvedImage>,
    ) -> BuildWorker<'n> {
        BuildWorker {
            lease: self.lease.clone(),
            lowered,
            images,
            history: self.history.nested(lowered),
            emptied_bytes: AtomicU64::new(0),
            depth: self.depth + 1,
            reports: Mutex::default(),
            ..*self
        }
    }

    /// Returns the snapshots of those of a vertex' inputs that `indexes` name.
    fn inputs(
        &self,
        inputs: &[ResultRef],
        indexes: impl IntoIterator<Item = i64>,
    ) -> Result<Vec<SnapshotId>, WorkError> {
        let snapshot = |index: i64| {
            let index = index as usize;
            let snapshot = self.snapshot_of(&inputs[index]);
            snapshot.map_err(|error| match error.class() {
                ErrorClass::NotFound => WorkError::InputLost(index, error),
                _ => WorkError::Failed(error),
            })
        };
        indexes.into_iter().map(snapshot).collect()
    }

    fn stacker<'w>(&'w self, vertex: &Vertex, progress: &'w VertexProgress<'_>) -> Stacker<'w> {
        Stacker {
            lease: &self.lease,
            name: vertex.name(),
            progress,
        }
    }

    /// Returns the image that a source is, with the layers that it takes, and their limit.
    fn image(
        &self,
        vertex: &Vertex,
        source: &pb::SourceOp,
    ) -> Result<(Cow<'_, ResolvedImage>, Option<usize>)> {
        let scheme = source.identifier.split("://").next().unwrap_or_default();
        let parsed = ImageSource::parse(source)
            .ok_or_else(|| unavailable(&format!("the source `{scheme}://`")))?;
        let limit = parsed
            .map_err(|problem| BuildError::invalid(problem.to_string()))?
            .layer_limit;
        let platform = vertex.op.platform.as_ref();
        let platform = platform.map_or_else(Platform::host, cache_map::platform_of);
        let key = (source.identifier.clone(), platform);
        let image = self.images.get(&key).ok_or_else(|| {
            let (image, platform) = key;
            BuildError::internal(format!(
                "image `{image}` for {platform} was not resolved before the build"
            ))
        })?;
        let image = match limit {
            Some(limit) => Cow::Owned(image.limited(&self.lease, limit)?),
            None => Cow::Borrowed(image),
        };
        Ok((image, limit))
    }
}

/// Returns the layers of all these images, by diff ID.
pub(crate) fn layers_of(images: &HashMap<ImageKey, ResolvedImage>) -> HashMap<Digest, Descriptor> {
    let layers = images.values().flat_map(|image| {
        let diff_ids = image.config.rootfs.diff_ids.iter();
        diff_ids.cloned().zip(image.manifest.layers.iter().cloned())
    });
    layers.collect()
}

/// Reads a source of a blob; `None` for another kind of source.
fn blob_source(source: &pb::SourceOp) -> Result<Option<BlobSource>> {
    let parsed = BlobSource::parse(source).transpose();
    parsed.map_err(|problem| BuildError::invalid(problem.to_string()))
}

fn unavailable(what: &str) -> BuildError {
    BuildError::new(
        ErrorClass::Invalid,
        format!("{what} is not available in this version of larder"),
    )
}
