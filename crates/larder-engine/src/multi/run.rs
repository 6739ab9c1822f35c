//! One run: its targets are prepared, solved and exported.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use larder_dockerfile::Lowered;
use larder_store::{Lease, SnapshotId};

use super::{ManyOptions, TargetError, TargetRequest, order};
use crate::build::{Build, Prepared, located};
use crate::cache::export::{CacheExporter, is_inline};
use crate::cache::import::Imports;
use crate::cache::source::Sources;
use crate::cancel::CancelFlag;
use crate::engine::Engine;
use crate::error::{BuildError, ErrorClass, Result};
use crate::event::EventSink;
use crate::exporter::{self, Export};
use crate::fetch::FarLayer;
use crate::history::{History, IgnoreFile, Notes};
use crate::images::{Images, ResolvedImage};
use crate::ops::local::ContextRoot;
use crate::progress::Reporter;
use crate::request::{BuildOutcome, CacheImport, Output};
use crate::solve::{self, Job, Solved};
use crate::task::Tasks;
use crate::web::WebFiles;
use crate::worker::{BuildWorker, ResultRef};

pub(super) struct Run<'a> {
    pub(super) engine: &'a Engine,
    pub(super) lease: Lease,
    pub(super) sink: &'a dyn EventSink,
    pub(super) clock: &'a (dyn Fn() -> Timestamp + Send + Sync),
    pub(super) cancel: &'a CancelFlag,
    pub(super) options: ManyOptions,
}

/// What the targets of a run share.
struct Shared<'a> {
    /// By the identifiers of their vertices.
    images: HashMap<String, ResolvedImage>,
    /// By their names in LLB.
    contexts: BTreeMap<String, ContextRoot>,
    imports: Imports<'a>,
    web: &'a WebFiles<'a>,
    notes: Notes,
    emptied: Mutex<HashSet<String>>,
    variables: &'a (dyn Fn(&str) -> Option<String> + Sync),
}

/// A target with all that its steps need.
struct Target<'a> {
    worker: BuildWorker<'a>,
    reporter: &'a Reporter<'a>,
    prepared: &'a Prepared,
    /// Whether its cache is still to be exported.
    exports_cache: AtomicBool,
}

impl Run<'_> {
    pub(super) fn build(
        &self,
        targets: Vec<TargetRequest>,
    ) -> Result<Vec<BuildOutcome>, TargetError> {
        let groups = order::groups(&targets)?;
        let names: Vec<String> = targets.iter().map(|target| target.name.clone()).collect();
        let several = names.len() > 1;
        let plain = Reporter::new(self.sink, self.clock);
        let reporter = |name: &String| plain.for_target(several.then_some(name));
        let reporters: Vec<Reporter<'_>> = names.iter().map(reporter).collect();
        let failed = |target: Option<usize>, error| TargetError {
            target: target.filter(|_| several).map(|index| names[index].clone()),
            error: Box::new(error),
        };
        let web = WebFiles::new(self.engine, &self.lease);
        let images = [false, true].map(|pull| Images::new(self.engine, &self.lease, pull));
        let prepared = self
            .prepare(targets, groups, &reporters, &images)
            .map_err(|(index, error)| failed(Some(index), error))?;
        let images = images.into_iter().flat_map(Images::into_found).collect();
        self.solve(prepared, &plain, &reporters, images, &web)
            .map_err(|(index, error)| failed(index, error))
    }

    /// Prepares all targets; those of one group at once.
    fn prepare(
        &self,
        targets: Vec<TargetRequest>,
        groups: Vec<Vec<usize>>,
        reporters: &[Reporter<'_>],
        images: &[Images<'_>; 2],
    ) -> Result<Vec<Prepared>, (usize, BuildError)> {
        let mut targets: BTreeMap<usize, TargetRequest> = targets.into_iter().enumerate().collect();
        let mut prepared: BTreeMap<usize, Prepared> = BTreeMap::new();
        let mut lowered: HashMap<String, Arc<Lowered>> = HashMap::new();
        for group in groups {
            let ready = group.into_iter().filter_map(|index| {
                let target = targets.remove(&index)?;
                let inputs = target.inputs.iter();
                let inputs = inputs.map(|(context, name)| (context.clone(), lowered[name].clone()));
                Some((index, inputs.collect(), target))
            });
            let ready: Vec<(usize, BTreeMap<String, Arc<Lowered>>, TargetRequest)> =
                ready.collect();
            let prepare = |(index, inputs, target): (usize, _, TargetRequest)| {
                let build = Build {
                    engine: self.engine,
                    lease: &self.lease,
                    reporter: &reporters[index],
                    images: &images[usize::from(target.request.pull)],
                    name: &target.name,
                    inputs,
                };
                let prepared = self
                    .cancel
                    .check()
                    .and_then(|()| build.prepare(target.request));
                match prepared {
                    Ok(prepared) => Ok((index, target.name, prepared)),
                    Err(error) => Err((index, error)),
                }
            };
            for done in at_once(ready, &prepare) {
                let (index, name, target) = done?;
                lowered.insert(name, Arc::clone(&target.lowered));
                prepared.insert(index, target);
            }
        }
        Ok(prepared.into_values().collect())
    }

    fn solve(
        &self,
        mut prepared: Vec<Prepared>,
        plain: &Reporter<'_>,
        reporters: &[Reporter<'_>],
        images: HashMap<String, ResolvedImage>,
        web: &WebFiles<'_>,
    ) -> Result<Vec<BuildOutcome>, (Option<usize>, BuildError)> {
        let contexts = prepared.iter_mut();
        let contexts = contexts.flat_map(|target| std::mem::take(&mut target.contexts));
        let contexts = contexts.collect();
        let mut cache_imports: Vec<CacheImport> = Vec::new();
        for import in prepared
            .iter_mut()
            .flat_map(|target| target.cache_imports.drain(..))
        {
            if !cache_imports.contains(&import) {
                cache_imports.push(import);
            }
        }
        let sources = Sources {
            engine: self.engine,
            lease: &self.lease,
            reporter: plain,
            cancel: self.cancel,
        };
        let shared = Shared {
            contexts,
            images,
            imports: Imports::new(sources, cache_imports),
            web,
            notes: Notes::default(),
            emptied: Mutex::default(),
            variables: &|name| std::env::var(name).ok(),
        };
        let scopes: Vec<String> = prepared.iter().map(|target| target.scope.clone()).collect();
        let mut targets = Vec::with_capacity(prepared.len());
        for (prepared, reporter) in prepared.iter().zip(reporters) {
            let worker = self.worker(prepared, reporter, &shared);
            let mut worker = worker.map_err(|error| (Some(targets.len()), error))?;
            if scopes.len() > 1 {
                worker.history.set_run(&prepared.name, scopes.clone());
            }
            targets.push(Target {
                worker,
                reporter,
                prepared,
                exports_cache: AtomicBool::new(true),
            });
        }
        let jobs = targets.iter().map(Target::job);
        let jobs: Vec<Job<'_, BuildWorker<'_>>> = jobs.collect();
        let limit = self.engine.config.worker.oci.max_parallelism;
        let limit = self.options.max_parallelism.or(limit);
        let solved = solve::solve(&jobs, self.cancel, limit, &|index, solved, stop| {
            self.export(&targets[index], solved.as_ref(), stop)
        });
        for target in &targets {
            target.save_history();
        }
        if let Err(failed) = &solved
            && failed.error.class() != ErrorClass::Canceled
        {
            self.export_unfinished(&targets);
        }
        solved.map_err(|failed| {
            let Some(index) = failed.job else {
                return (None, failed.error);
            };
            (Some(index), located(failed.error, &prepared[index].lowered))
        })
    }

    fn worker<'a>(
        &'a self,
        prepared: &'a Prepared,
        reporter: &'a Reporter<'a>,
        shared: &'a Shared<'a>,
    ) -> Result<BuildWorker<'a>> {
        let ignore = IgnoreFile {
            name: prepared.ignore.name.clone(),
            patterns: prepared.ignore.patterns.clone(),
        };
        let history = History::open(
            &self.engine.store,
            prepared.scope.clone(),
            &prepared.lowered,
            ignore,
            prepared.no_cache_flag.clone(),
            &shared.notes,
        )?;
        Ok(BuildWorker {
            engine: self.engine,
            lease: self.lease.clone(),
            lowered: &prepared.lowered,
            images: &shared.images,
            contexts: &shared.contexts,
            secrets: &*prepared.secrets,
            variables: shared.variables,
            host_ca: prepared.host_ca,
            history,
            emptied: &shared.emptied,
            emptied_bytes: AtomicU64::new(0),
            empties_cache_mounts: !prepared.keep_cache_mounts,
            reports: Mutex::default(),
            imports: &shared.imports,
            web: shared.web,
            reporter,
            cancel: self.cancel,
        })
    }

    fn export(
        &self,
        target: &Target<'_>,
        solved: Option<&Solved<ResultRef>>,
        stop: &CancelFlag,
    ) -> Result<BuildOutcome> {
        stop.check()?;
        let worker = &target.worker;
        let outputs = target.take_outputs();
        let mut far: Vec<FarLayer> = Vec::new();
        let mut result = None;
        if let Some(solved) = solved {
            far = worker.far_layers(&solved.result, &outputs)?;
            if far.is_empty() && !outputs.is_empty() {
                result = Some(self.tree(target, &solved.result)?);
            }
        }
        let caches = &target.prepared.cache_exports;
        let cache = self.cache_exporter(target, solved.map(|solved| &solved.result));
        let mut outcome = BuildOutcome {
            image: None,
            cache_manifest: None,
            steps: target.reports(),
            emptied_cache_bytes: worker.emptied_bytes.load(Ordering::Relaxed),
        };
        let again = OnceCell::new();
        let mut export = Export {
            engine: self.engine,
            cancel: stop,
            lease: &self.lease,
            reporter: target.reporter,
            snapshot: result.as_ref(),
            far: &far,
            lowered: &target.prepared.lowered,
            base_layers: worker.base_layers(),
            tags: &target.prepared.tags,
            inline_cache: caches.iter().any(is_inline).then_some(&cache),
        };
        for output in outputs {
            stop.check()?;
            let made = match output {
                Output::Image(image) => match (export.to_image(&image), solved) {
                    // What was to be sent on from elsewhere is made here.
                    (Err(error), Some(solved)) if error.is_of_fetch() && !export.far.is_empty() => {
                        stop.check()?;
                        worker.imports.lose_far_results();
                        let tree = self.tree(target, &solved.result)?;
                        export.snapshot = Some(again.get_or_init(|| tree));
                        export.far = &[];
                        Some(export.to_image(&image)?)
                    }
                    (made, _) => Some(made?),
                },
                Output::Oci(archive) => {
                    Some(export.to_archive(archive, exporter::ArchiveKind::Oci)?)
                }
                Output::Docker(archive) => {
                    Some(export.to_archive(archive, exporter::ArchiveKind::Docker)?)
                }
                Output::Tar(destination) => {
                    export.to_tar(destination)?;
                    None
                }
                Output::Local(directory) => {
                    export.to_directory(&directory)?;
                    None
                }
            };
            outcome.image = outcome.image.or(made);
        }
        target.exports_cache.store(false, Ordering::Relaxed);
        outcome.cache_manifest = cache.export(caches)?;
        Ok(outcome)
    }

    fn cache_exporter<'a>(
        &'a self,
        target: &'a Target<'_>,
        result: Option<&'a ResultRef>,
    ) -> CacheExporter<'a> {
        CacheExporter {
            engine: self.engine,
            lease: &self.lease,
            reporter: target.reporter,
            cancel: self.cancel,
            imports: target.worker.imports,
            base_layers: target.worker.base_layers(),
            keys: target.worker.history.found(),
            result,
        }
    }

    /// Exports the caches of targets that did not come so far: what was done is done.
    fn export_unfinished(&self, targets: &[Target<'_>]) {
        for target in targets {
            if target.exports_cache.load(Ordering::Relaxed) {
                let exports = target.prepared.cache_exports.iter();
                let exports = exports.filter(|export| export.on_failure);
                // It is told where it happened; what the build failed for is told at the end.
                let _ = self.cache_exporter(target, None).export(exports);
            }
        }
    }

    /// Returns the tree of a target's result. Where an imported one can't be fetched, the steps
    /// that make it run.
    fn tree(&self, target: &Target<'_>, result: &ResultRef) -> Result<SnapshotId> {
        let error = match target.worker.snapshot_of(result) {
            Err(error) if result.is_lost() => error,
            tree => return tree,
        };
        let solved = solve::solve(&[target.job()], self.cancel, None, &|_, solved, _| {
            let solved = solved.ok_or_else(|| BuildError::internal("a result came to nothing"))?;
            Ok(solved.result)
        });
        match solved.map_err(|failed| failed.error)?.first() {
            Some(again) if !again.is_lost() => self.tree(target, again),
            _ => Err(error),
        }
    }
}

impl<'a> Target<'a> {
    fn job<'job>(&'job self) -> Job<'job, BuildWorker<'a>>
    where
        'a: 'job,
    {
        Job {
            worker: &self.worker,
            definition: &self.prepared.lowered.definition,
            reporter: self.reporter,
        }
    }

    fn reports(&self) -> Vec<crate::request::StepReport> {
        let reports = self.worker.reports.lock();
        reports.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take_outputs(&self) -> Vec<Output> {
        let outputs = self.prepared.outputs.lock();
        std::mem::take(&mut *outputs.unwrap_or_else(PoisonError::into_inner))
    }

    fn save_history(&self) {
        let imports = self.worker.imports.records();
        if let Err(error) = self.worker.history.save(self.reports(), imports) {
            tracing::warn!(
                error = error.full_message(),
                "the report of the build was not kept"
            );
        }
    }
}

/// Does `work` on all items at once, and returns what came of each, in order.
fn at_once<I: Send, T: Send>(
    items: Vec<I>,
    work: &(dyn Fn(I) -> Result<T, (usize, BuildError)> + Sync),
) -> Vec<Result<T, (usize, BuildError)>> {
    if items.len() == 1 {
        return items.into_iter().map(work).collect();
    }
    std::thread::scope(|scope| {
        let threads = items.into_iter().enumerate().map(|(index, item)| {
            let thread = Tasks::spawn(scope, "prepare", move || work(item));
            (index, thread)
        });
        let threads: Vec<_> = threads.collect();
        let joined = threads.into_iter().map(|(index, thread)| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|_| {
                let error = BuildError::internal("the thread of a target panicked");
                Err((index, error))
            }),
            Err(source) => {
                let error = BuildError::new(ErrorClass::Exhausted, "cannot start a thread");
                Err((index, error.with_source(source)))
            }
        });
        joined.collect()
    })
}
