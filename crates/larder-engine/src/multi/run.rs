//! One run: its targets are prepared and solved.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use larder_store::{Lease, PackedReport};

use super::{ManyOptions, TargetError, TargetRequest, order};
use crate::ahead::{Ahead, Plan};
use crate::build::{Build, OnPlatform, Prepared, located};
use crate::cache::import::Imports;
use crate::cache::source::Sources;
use crate::cancel::CancelFlag;
use crate::engine::Engine;
use crate::error::{BuildError, ErrorClass, Result};
use crate::event::EventSink;
use crate::history::{History, IgnoreFile, Notes};
use crate::images::{ImageKey, Images, Layouts, PolicedImages, ResolvedImage};
use crate::layers::Packed;
use crate::network::StepNetworks;
use crate::ops::git::Resolutions;
use crate::ops::local::ContextRoot;
use crate::progress::Reporter;
use crate::request::{BuildOutcome, CacheImport, Output, StepReport};
use crate::solve::{self, Job, Solved};
use crate::task::Tasks;
use crate::web::WebFiles;
use crate::worker::{BuildWorker, ResultRef, layers_of};

/// From so many vertices on, a thread of its own for their report is worth its start.
const MANY_STEPS: usize = 100;

pub(super) struct Run<'a> {
    pub(super) engine: &'a Engine,
    pub(super) lease: Lease,
    pub(super) sink: &'a dyn EventSink,
    pub(super) clock: &'a (dyn Fn() -> Timestamp + Send + Sync),
    pub(super) cancel: &'a CancelFlag,
    pub(super) options: ManyOptions,
}

/// What a run has found out about sources that others may change meanwhile.
#[derive(Clone, Copy)]
struct Found<'a> {
    web: &'a WebFiles<'a>,
    repositories: &'a Resolutions,
    layouts: &'a Layouts,
}

/// What the targets of a run share.
pub(super) struct Shared<'a> {
    /// By what their vertices are known by.
    images: HashMap<ImageKey, ResolvedImage>,
    /// By their names in LLB.
    contexts: BTreeMap<String, ContextRoot>,
    imports: Imports<'a>,
    web: &'a WebFiles<'a>,
    notes: Notes,
    emptied: Mutex<HashSet<String>>,
    repositories: &'a Resolutions,
    layouts: &'a Layouts,
    networks: StepNetworks,
    pub(super) packed: &'a Packed,
    /// Where an output will ask for layers.
    ahead: Option<&'a Ahead<'a>>,
    variables: &'a (dyn Fn(&str) -> Option<String> + Sync),
}

/// A target with all that its steps need.
pub(super) struct Target<'a> {
    pub(super) shared: &'a Shared<'a>,
    /// For each platform, in the order asked for.
    pub(super) parts: Vec<Part<'a>>,
    pub(super) reporter: &'a Reporter<'a>,
    pub(super) prepared: &'a Prepared,
    /// How many platforms have no result yet.
    pub(super) unsolved: AtomicUsize,
    /// Whether its cache is still to be exported.
    pub(super) exports_cache: AtomicBool,
}

/// A target on one platform.
pub(super) struct Part<'a> {
    pub(super) worker: BuildWorker<'a>,
    pub(super) build: &'a OnPlatform,
    /// What came of it; nothing before, and where the definition is empty.
    pub(super) result: Mutex<Option<ResultRef>>,
    /// Its report, if it was made before the end.
    report: Mutex<Option<Result<PackedReport>>>,
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
        let found = Found {
            web: &WebFiles::new(self.engine, &self.lease),
            repositories: &Resolutions::default(),
            layouts: &Layouts::default(),
        };
        let images = [false, true].map(|pull| {
            let images = Images::new(self.engine, &self.lease, pull, self.cancel);
            images.with_layouts(found.layouts.clone())
        });
        let prepared = self
            .prepare(targets, groups, &reporters, &images, found)
            .map_err(|(index, error)| failed(Some(index), error))?;
        let images = images.into_iter().flat_map(Images::into_found).collect();
        self.solve(prepared, &plain, &reporters, images, found)
            .map_err(|(index, error)| failed(index, error))
    }

    /// Prepares all targets; those of one group at once.
    fn prepare(
        &self,
        targets: Vec<TargetRequest>,
        groups: Vec<Vec<usize>>,
        reporters: &[Reporter<'_>],
        images: &[Images<'_>; 2],
        found: Found<'_>,
    ) -> Result<Vec<Prepared>, (usize, BuildError)> {
        let mut targets: BTreeMap<usize, TargetRequest> = targets.into_iter().enumerate().collect();
        let mut prepared: BTreeMap<usize, Prepared> = BTreeMap::new();
        let mut builds: HashMap<String, Vec<OnPlatform>> = HashMap::new();
        for group in groups {
            let ready = group.into_iter().filter_map(|index| {
                let target = targets.remove(&index)?;
                let inputs = target.inputs.iter();
                let inputs = inputs.map(|(context, name)| (context.clone(), builds[name].clone()));
                Some((index, inputs.collect(), target))
            });
            let ready: Vec<(usize, BTreeMap<String, Vec<OnPlatform>>, TargetRequest)> =
                ready.collect();
            let prepare = |(index, inputs, target): (usize, _, TargetRequest)| {
                let policy = target.request.source_policy.clone();
                let images = &images[usize::from(target.request.pull)];
                let build = Build {
                    engine: self.engine,
                    lease: &self.lease,
                    reporter: &reporters[index],
                    images: PolicedImages::new(images, &policy),
                    web: found.web,
                    repositories: found.repositories,
                    cancel: self.cancel,
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
                builds.insert(name, target.builds.clone());
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
        images: HashMap<ImageKey, ResolvedImage>,
        found: Found<'_>,
    ) -> Result<Vec<BuildOutcome>, (Option<usize>, BuildError)> {
        let contexts = prepared.iter_mut();
        let contexts = contexts.flat_map(|target| std::mem::take(&mut target.contexts));
        let contexts = contexts.collect();
        let mut images = images;
        for target in &mut prepared {
            images.extend(std::mem::take(&mut target.images));
        }
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
        let packed = Packed::default();
        let ahead = Some(Plan::of(&prepared)).filter(|plan| !plan.is_empty());
        let ahead = ahead.map(|plan| Ahead::new(&self.lease, &packed, layers_of(&images), plan));
        let shared = Shared {
            packed: &packed,
            ahead: ahead.as_ref(),
            contexts,
            images,
            imports: Imports::new(sources, cache_imports),
            web: found.web,
            notes: Notes::default(),
            emptied: Mutex::default(),
            repositories: found.repositories,
            layouts: found.layouts,
            networks: StepNetworks::new(self.engine.config.build.network),
            variables: &|name| std::env::var(name).ok(),
        };
        let targets = self.targets(&prepared, reporters, &shared);
        let places = targets.iter().enumerate().flat_map(|(index, target)| {
            let parts = 0..target.parts.len();
            parts.map(move |part| (index, part))
        });
        let places: Vec<(usize, usize)> = places.collect();
        let job = |&(target, part): &(usize, usize)| targets[target].job(part);
        let jobs: Vec<Job<'_, BuildWorker<'_>>> = places.iter().map(job).collect();
        let limit = self.engine.config.worker.oci.max_parallelism;
        let limit = self.options.max_parallelism.or(limit);
        let finish = |job, solved: Option<Solved<ResultRef>>, stop: &CancelFlag| {
            let (target, part): (usize, usize) = places[job];
            let target = &targets[target];
            target.parts[part].set_result(solved.map(|solved| solved.result));
            // Who is the last exports all.
            match target.unsolved.fetch_sub(1, Ordering::AcqRel) {
                1 if jobs.len() == 1 => self.export_alone(target, stop).map(Some),
                1 => self.export(target, stop).map(Some),
                _ => Ok(None),
            }
        };
        let solve = || {
            std::thread::scope(|scope| {
                let parts = targets.iter().flat_map(|target| &target.parts);
                for part in parts.filter(|part| part.has_many_steps()) {
                    // Where no thread can be started, it is read when it is needed.
                    let _ = Tasks::spawn(scope, "history", || part.worker.history.read());
                }
                solve::solve(&jobs, self.cancel, limit, &finish)
            })
        };
        let solved = match &ahead {
            Some(ahead) => ahead.during(solve),
            None => solve(),
        };
        targets.iter().for_each(Target::save_history);
        match solved {
            // One of a target's jobs has the outcome.
            Ok(outcomes) => Ok(outcomes_in_order(&places, outcomes)),
            Err(failed) => {
                if failed.error.class() != ErrorClass::Canceled {
                    self.export_unfinished(&targets);
                }
                let Some(job) = failed.job else {
                    return Err((None, failed.error));
                };
                let (target, part) = places[job];
                let lowered = &prepared[target].builds[part].lowered;
                Err((Some(target), located(failed.error, lowered)))
            }
        }
    }

    /// As [`Run::export`], for a target that is all there is of the run: if it has many steps, their report
    /// is made meanwhile.
    fn export_alone(&self, target: &Target<'_>, stop: &CancelFlag) -> Result<BuildOutcome> {
        let is_over = |part: &&Part<'_>| part.has_many_steps() && part.is_over();
        let Some(part) = target.parts.first().filter(is_over) else {
            return self.export(target, stop);
        };
        std::thread::scope(|scope| {
            // Where no thread can be started, it is made at the end.
            let _ = Tasks::spawn(scope, "report", || part.make_report());
            self.export(target, stop)
        })
    }

    fn targets<'a>(
        &'a self,
        prepared: &'a [Prepared],
        reporters: &'a [Reporter<'a>],
        shared: &'a Shared<'a>,
    ) -> Vec<Target<'a>> {
        let builds = prepared.iter().flat_map(|target| &target.builds);
        let scopes: Vec<String> = builds.map(|build| build.scopes.0.clone()).collect();
        let mut targets = Vec::with_capacity(prepared.len());
        for (prepared, reporter) in prepared.iter().zip(reporters) {
            let mut parts = Vec::with_capacity(prepared.builds.len());
            for build in &prepared.builds {
                let mut worker = self.worker(prepared, build, reporter, shared);
                if scopes.len() > 1 {
                    worker.history.set_run(&prepared.name, scopes.clone());
                }
                parts.push(Part {
                    worker,
                    build,
                    result: Mutex::default(),
                    report: Mutex::default(),
                });
            }
            targets.push(Target {
                shared,
                unsolved: AtomicUsize::new(parts.len()),
                parts,
                reporter,
                prepared,
                exports_cache: AtomicBool::new(true),
            });
        }
        targets
    }

    pub(super) fn worker<'a>(
        &'a self,
        prepared: &'a Prepared,
        build: &'a OnPlatform,
        reporter: &'a Reporter<'a>,
        shared: &'a Shared<'a>,
    ) -> BuildWorker<'a> {
        let ignore = IgnoreFile {
            name: prepared.ignore.name.clone(),
            patterns: prepared.ignore.patterns.clone(),
        };
        let history = History::new(
            &self.engine.store,
            build.scopes.clone(),
            &build.lowered,
            ignore,
            prepared.no_cache_flag.clone(),
            &shared.notes,
        );
        BuildWorker {
            engine: self.engine,
            lease: self.lease.clone(),
            lowered: &build.lowered,
            images: &shared.images,
            layouts: shared.layouts,
            contexts: &shared.contexts,
            policy: &prepared.source_policy,
            secrets: &*prepared.secrets,
            ssh: &*prepared.ssh,
            repositories: shared.repositories,
            variables: shared.variables,
            host_ca: prepared.host_ca,
            granted: &prepared.granted,
            networks: &shared.networks,
            history,
            emptied: &shared.emptied,
            emptied_bytes: AtomicU64::new(0),
            depth: 0,
            empties_cache_mounts: !prepared.keep_cache_mounts,
            reports: Mutex::default(),
            imports: &shared.imports,
            web: shared.web,
            reporter,
            cancel: self.cancel,
            ahead: shared.ahead,
        }
    }
}

impl<'a> Target<'a> {
    fn job<'job>(&'job self, part: usize) -> Job<'job, BuildWorker<'a>>
    where
        'a: 'job,
    {
        self.parts[part].job(self.reporter)
    }

    pub(super) fn take_outputs(&self) -> Vec<Output> {
        let outputs = self.prepared.outputs.lock();
        std::mem::take(&mut *outputs.unwrap_or_else(PoisonError::into_inner))
    }

    fn save_history(&self) {
        for part in &self.parts {
            let report = part.take_report().unwrap_or_else(|| part.new_report());
            let saved = report.and_then(|report| part.worker.history.save(&report));
            if let Err(error) = saved {
                tracing::warn!(
                    error = error.full_message(),
                    "the report of the build was not kept"
                );
            }
        }
    }
}

impl<'a> Part<'a> {
    pub(super) fn job<'job>(
        &'job self,
        reporter: &'job Reporter<'job>,
    ) -> Job<'job, BuildWorker<'a>>
    where
        'a: 'job,
    {
        Job {
            worker: &self.worker,
            definition: &self.build.lowered.definition,
            reporter,
        }
    }

    fn has_many_steps(&self) -> bool {
        self.build.lowered.definition.vertices().len() >= MANY_STEPS
    }

    /// Returns whether no output can have any of its steps run.
    fn is_over(&self) -> bool {
        matches!(self.result(), Some(ResultRef::Snapshot(_))) && self.build.scan.is_none()
    }

    fn make_report(&self) {
        let report = self.new_report();
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
    }

    fn take_report(&self) -> Option<Result<PackedReport>> {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.take()
    }

    fn new_report(&self) -> Result<PackedReport> {
        let imports = self.worker.imports.records();
        self.worker.history.report(self.reports(), imports)
    }

    pub(super) fn reports(&self) -> Vec<StepReport> {
        let reports = self.worker.reports.lock();
        reports.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_result(&self, result: Option<ResultRef>) {
        *self.result.lock().unwrap_or_else(PoisonError::into_inner) = result;
    }

    pub(super) fn result(&self) -> Option<ResultRef> {
        let result = self.result.lock();
        result.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Returns the outcomes of targets, each of which one of the target's jobs has, in order.
fn outcomes_in_order(
    places: &[(usize, usize)],
    outcomes: Vec<Option<BuildOutcome>>,
) -> Vec<BuildOutcome> {
    let mut by_target: BTreeMap<usize, BuildOutcome> = BTreeMap::new();
    for ((target, _), outcome) in places.iter().zip(outcomes) {
        if let Some(outcome) = outcome {
            by_target.insert(*target, outcome);
        }
    }
    by_target.into_values().collect()
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
