//! One run: its targets are prepared, solved and exported.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use larder_store::{Lease, SnapshotId};
use larder_tree::beneath::Root;

use super::{ManyOptions, TargetError, TargetRequest, order};
use crate::attest::{Attestation, Scan, sbom};
use crate::build::{Build, OnPlatform, Prepared, located};
use crate::cache::export::{CacheExporter, is_inline};
use crate::cache::import::Imports;
use crate::cache::source::Sources;
use crate::cancel::CancelFlag;
use crate::engine::Engine;
use crate::error::{BuildError, ErrorClass, Result};
use crate::event::EventSink;
use crate::exporter::{self, Export};
use crate::history::{History, IgnoreFile, Notes};
use crate::images::{ImageKey, Images, ResolvedImage};
use crate::network::StepNetworks;
use crate::ops::git::Resolutions;
use crate::ops::local::ContextRoot;
use crate::progress::Reporter;
use crate::request::{BuildOutcome, CacheImport, ImageOutcome, Output, StepReport};
use crate::solve::{self, Job};
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

/// What a run has found out about sources that others may change meanwhile.
#[derive(Clone, Copy)]
struct Found<'a> {
    web: &'a WebFiles<'a>,
    repositories: &'a Resolutions,
}

/// What the targets of a run share.
struct Shared<'a> {
    /// By what their vertices are known by.
    images: HashMap<ImageKey, ResolvedImage>,
    /// By their names in LLB.
    contexts: BTreeMap<String, ContextRoot>,
    imports: Imports<'a>,
    web: &'a WebFiles<'a>,
    notes: Notes,
    emptied: Mutex<HashSet<String>>,
    repositories: &'a Resolutions,
    networks: StepNetworks,
    variables: &'a (dyn Fn(&str) -> Option<String> + Sync),
}

/// A target with all that its steps need.
struct Target<'a> {
    shared: &'a Shared<'a>,
    /// For each platform, in the order asked for.
    parts: Vec<Part<'a>>,
    reporter: &'a Reporter<'a>,
    prepared: &'a Prepared,
    /// How many platforms have no result yet.
    unsolved: AtomicUsize,
    /// Whether its cache is still to be exported.
    exports_cache: AtomicBool,
}

/// A target on one platform.
struct Part<'a> {
    worker: BuildWorker<'a>,
    build: &'a OnPlatform,
    /// What came of it; nothing before, and where the definition is empty.
    result: Mutex<Option<ResultRef>>,
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
        };
        let images = [false, true].map(|pull| Images::new(self.engine, &self.lease, pull));
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
                let build = Build {
                    engine: self.engine,
                    lease: &self.lease,
                    reporter: &reporters[index],
                    images: &images[usize::from(target.request.pull)],
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
        let shared = Shared {
            contexts,
            images,
            imports: Imports::new(sources, cache_imports),
            web: found.web,
            notes: Notes::default(),
            emptied: Mutex::default(),
            repositories: found.repositories,
            networks: StepNetworks::new(self.engine.config.build.network),
            variables: &|name| std::env::var(name).ok(),
        };
        let targets = self.targets(&prepared, reporters, &shared)?;
        let places = targets.iter().enumerate().flat_map(|(index, target)| {
            let parts = 0..target.parts.len();
            parts.map(move |part| (index, part))
        });
        let places: Vec<(usize, usize)> = places.collect();
        let job = |&(target, part): &(usize, usize)| targets[target].job(part);
        let jobs: Vec<Job<'_, BuildWorker<'_>>> = places.iter().map(job).collect();
        let limit = self.engine.config.worker.oci.max_parallelism;
        let limit = self.options.max_parallelism.or(limit);
        let solved = solve::solve(&jobs, self.cancel, limit, &|job, solved, stop| {
            let (target, part) = places[job];
            let target = &targets[target];
            target.parts[part].set_result(solved.map(|solved| solved.result));
            // Who is the last exports all.
            match target.unsolved.fetch_sub(1, Ordering::AcqRel) {
                1 => self.export(target, stop).map(Some),
                _ => Ok(None),
            }
        });
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

    fn targets<'a>(
        &'a self,
        prepared: &'a [Prepared],
        reporters: &'a [Reporter<'a>],
        shared: &'a Shared<'a>,
    ) -> Result<Vec<Target<'a>>, (Option<usize>, BuildError)> {
        let builds = prepared.iter().flat_map(|target| &target.builds);
        let scopes: Vec<String> = builds.map(|build| build.scopes.0.clone()).collect();
        let mut targets = Vec::with_capacity(prepared.len());
        for (prepared, reporter) in prepared.iter().zip(reporters) {
            let mut parts = Vec::with_capacity(prepared.builds.len());
            for build in &prepared.builds {
                let worker = self.worker(prepared, build, reporter, shared);
                let mut worker = worker.map_err(|error| (Some(targets.len()), error))?;
                if scopes.len() > 1 {
                    worker.history.set_run(&prepared.name, scopes.clone());
                }
                parts.push(Part {
                    worker,
                    build,
                    result: Mutex::default(),
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
        Ok(targets)
    }

    fn worker<'a>(
        &'a self,
        prepared: &'a Prepared,
        build: &'a OnPlatform,
        reporter: &'a Reporter<'a>,
        shared: &'a Shared<'a>,
    ) -> Result<BuildWorker<'a>> {
        let ignore = IgnoreFile {
            name: prepared.ignore.name.clone(),
            patterns: prepared.ignore.patterns.clone(),
        };
        let history = History::open(
            &self.engine.store,
            build.scopes.clone(),
            &build.lowered,
            ignore,
            prepared.no_cache_flag.clone(),
            &shared.notes,
        )?;
        Ok(BuildWorker {
            engine: self.engine,
            lease: self.lease.clone(),
            lowered: &build.lowered,
            images: &shared.images,
            contexts: &shared.contexts,
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
        })
    }

    fn export(&self, target: &Target<'_>, stop: &CancelFlag) -> Result<BuildOutcome> {
        stop.check()?;
        let outputs = target.take_outputs();
        let results: Vec<Option<ResultRef>> = target.parts.iter().map(Part::result).collect();
        let caches = &target.prepared.cache_exports;
        let is_inline = caches.iter().any(is_inline);
        let inline: Vec<CacheExporter<'_>> = target
            .parts
            .iter()
            .zip(&results)
            .map(|(part, result)| self.cache_exporter(target, &[part], result.iter().collect()))
            .collect();
        let mut parts = Vec::with_capacity(target.parts.len());
        for ((part, result), inline) in target.parts.iter().zip(&results).zip(&inline) {
            let worker = &part.worker;
            let mut made = exporter::Part {
                platform: &part.build.platform,
                snapshot: None,
                far: Vec::new(),
                lowered: &part.build.lowered,
                inline_cache: is_inline.then_some(inline),
                attest: &target.prepared.attest,
                sbom: Vec::new(),
                generator: None,
                fetched: worker.fetched(),
            };
            if let Some(result) = result {
                made.far = worker.far_layers(result, &outputs)?;
                if made.far.is_empty() && !outputs.is_empty() {
                    made.snapshot = Some(self.tree(target, part, result)?);
                }
            }
            if let Some(scan) = &part.build.scan {
                made.sbom = self.contents(target, part, scan)?;
                made.generator = Some(scan.material.clone());
            }
            parts.push(made);
        }
        let mut export = Export {
            engine: self.engine,
            cancel: stop,
            lease: &self.lease,
            reporter: target.reporter,
            parts,
            multi_platform: target.prepared.multi_platform,
            base_layers: target.parts[0].worker.base_layers(),
            tags: &target.prepared.tags,
        };
        let mut image = None;
        for output in outputs {
            stop.check()?;
            let made = self.write(output, &mut export, target, &results)?;
            image = image.or(made);
        }
        target.exports_cache.store(false, Ordering::Relaxed);
        let all: Vec<&Part<'_>> = target.parts.iter().collect();
        let cache = self.cache_exporter(target, &all, results.iter().flatten().collect());
        let emptied = |part: &Part<'_>| part.worker.emptied_bytes.load(Ordering::Relaxed);
        let told = target.prepared.attest.asked.told;
        let told = told.map(|mode| export.provenance(mode)).transpose()?;
        let platforms = target.prepared.builds.iter();
        let platforms = platforms.map(|build| build.platform.clone());
        Ok(BuildOutcome {
            image,
            provenance: platforms.zip(told.into_iter().flatten()).collect(),
            cache_manifest: cache.export(caches)?,
            steps: target.parts.iter().flat_map(Part::reports).collect(),
            emptied_cache_bytes: target.parts.iter().map(emptied).sum(),
        })
    }

    /// Writes one output. What was to be sent on from elsewhere and can't be had is made here, and
    /// stays in `export` for the outputs that follow.
    fn write(
        &self,
        output: Output,
        export: &mut Export<'_>,
        target: &Target<'_>,
        results: &[Option<ResultRef>],
    ) -> Result<Option<ImageOutcome>> {
        match output {
            Output::Image(image) => {
                let made = export.to_image(&image);
                let is_far = export.parts.iter().any(|part| !part.far.is_empty());
                match made {
                    Err(error) if error.is_of_fetch() && is_far => {
                        export.cancel.check()?;
                        target.parts[0].worker.imports.lose_far_results();
                        let places = target.parts.iter().zip(results);
                        for (part, (place, result)) in export.parts.iter_mut().zip(places) {
                            part.far.clear();
                            if let Some(result) = result {
                                part.snapshot = Some(self.tree(target, place, result)?);
                            }
                        }
                        export.to_image(&image).map(Some)
                    }
                    made => made.map(Some),
                }
            }
            Output::Oci(archive) => {
                let made = export.to_archive(archive, exporter::ArchiveKind::Oci)?;
                Ok(Some(made))
            }
            Output::Docker(archive) => {
                let made = export.to_archive(archive, exporter::ArchiveKind::Docker)?;
                Ok(Some(made))
            }
            Output::Tar(tar) => export.to_tar(tar).map(|()| None),
            Output::Local(local) => export.to_directory(&local).map(|()| None),
        }
    }

    /// Lets a generator list what is in a part's result; returns what it says.
    fn contents(
        &self,
        target: &Target<'_>,
        part: &Part<'_>,
        scan: &Scan,
    ) -> Result<Vec<Attestation>> {
        let (scope, _) = &part.build.scopes;
        let build = OnPlatform {
            platform: part.build.platform.clone(),
            lowered: Arc::new(scan.lowered.clone()),
            scopes: (format!("{scope}-sbom"), None),
            scan: None,
        };
        let worker = self.worker(target.prepared, &build, target.reporter, target.shared)?;
        let job = Job {
            worker: &worker,
            definition: &build.lowered.definition,
            reporter: target.reporter,
        };
        let solved = solve::solve(&[job], self.cancel, None, &|_, solved, _| {
            solved.ok_or_else(|| BuildError::internal("a generator's step came to nothing"))
        });
        let solved = solved.map_err(|failed| located(failed.error, &build.lowered))?;
        let Some(solved) = solved.first() else {
            return Err(BuildError::internal("a job came to nothing"));
        };
        let snapshot = worker.snapshot_of(&solved.result)?;
        let mount = self.lease.store().view(&snapshot)?;
        sbom::read(&Root::from_fd(larder_exec::mount::open(&mount)?))
    }

    /// Returns what exports the caches of some of a target's platforms, as one.
    fn cache_exporter<'a>(
        &'a self,
        target: &'a Target<'_>,
        parts: &[&'a Part<'_>],
        results: Vec<&'a ResultRef>,
    ) -> CacheExporter<'a> {
        let keys = parts.iter().flat_map(|part| part.worker.history.found());
        let keys: BTreeSet<_> = keys.collect();
        CacheExporter {
            engine: self.engine,
            lease: &self.lease,
            reporter: target.reporter,
            cancel: self.cancel,
            imports: target.parts[0].worker.imports,
            base_layers: target.parts[0].worker.base_layers(),
            keys: keys.into_iter().collect(),
            results,
        }
    }

    /// Exports the caches of targets that did not come so far: what was done is done.
    fn export_unfinished(&self, targets: &[Target<'_>]) {
        for target in targets {
            if target.exports_cache.load(Ordering::Relaxed) {
                let exports = target.prepared.cache_exports.iter();
                let exports = exports.filter(|export| export.on_failure);
                let parts: Vec<&Part<'_>> = target.parts.iter().collect();
                // It is told where it happened; what the build failed for is told at the end.
                let _ = self
                    .cache_exporter(target, &parts, Vec::new())
                    .export(exports);
            }
        }
    }

    /// Returns the tree of a result. Where an imported one can't be fetched, the steps that make it
    /// run.
    fn tree(&self, target: &Target<'_>, part: &Part<'_>, result: &ResultRef) -> Result<SnapshotId> {
        let error = match part.worker.snapshot_of(result) {
            Err(error) if result.is_lost() => error,
            tree => return tree,
        };
        let job = part.job(target.reporter);
        let solved = solve::solve(&[job], self.cancel, None, &|_, solved, _| {
            let solved = solved.ok_or_else(|| BuildError::internal("a result came to nothing"))?;
            Ok(solved.result)
        });
        match solved.map_err(|failed| failed.error)?.first() {
            Some(again) if !again.is_lost() => self.tree(target, part, again),
            _ => Err(error),
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

    fn take_outputs(&self) -> Vec<Output> {
        let outputs = self.prepared.outputs.lock();
        std::mem::take(&mut *outputs.unwrap_or_else(PoisonError::into_inner))
    }

    fn save_history(&self) {
        for part in &self.parts {
            let imports = part.worker.imports.records();
            if let Err(error) = part.worker.history.save(part.reports(), imports) {
                tracing::warn!(
                    error = error.full_message(),
                    "the report of the build was not kept"
                );
            }
        }
    }
}

impl<'a> Part<'a> {
    fn job<'job>(&'job self, reporter: &'job Reporter<'job>) -> Job<'job, BuildWorker<'a>>
    where
        'a: 'job,
    {
        Job {
            worker: &self.worker,
            definition: &self.build.lowered.definition,
            reporter,
        }
    }

    fn reports(&self) -> Vec<StepReport> {
        let reports = self.worker.reports.lock();
        reports.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_result(&self, result: Option<ResultRef>) {
        *self.result.lock().unwrap_or_else(PoisonError::into_inner) = result;
    }

    fn result(&self) -> Option<ResultRef> {
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
