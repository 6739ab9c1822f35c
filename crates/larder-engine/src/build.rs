//! One build, from request to report.

mod inputs;

use std::collections::BTreeMap;
use std::sync::Mutex;

use larder_dockerfile::{
    Dockerfile, LocalContext, LowerOptions, Lowered, NamedContext, ResolveMode,
};
use larder_llb::SourceFile;
use larder_oci::{Digest, ImageRef, Platform};
use larder_store::{KeyId, Lease};

use crate::cancel::CancelFlag;
use crate::engine::Engine;
use crate::error::{BuildError, ErrorClass, Location, Result};
use crate::event::EventSink;
use crate::exporter;
use crate::history::History;
use crate::images::Images;
use crate::ops::local::ContextRoot;
use crate::progress::Reporter;
use crate::request::{
    BuildOutcome, BuildRequest, ContextSource, DockerfileSource, NetworkMode, NoCacheSteps, Output,
};
use crate::solve;
use crate::task::Tasks;
use crate::worker::BuildWorker;
use inputs::{DockerfileText, open_directory, read_ignore_patterns};

/// The name of the build's own context in LLB.
const CONTEXT: &str = "context";

impl Engine {
    /// Builds an image, and tells `sink` how it goes.
    ///
    /// # Errors
    /// The first failure. What had been finished stays in the cache.
    pub fn build(
        &self,
        request: BuildRequest,
        sink: &dyn EventSink,
        cancel: &CancelFlag,
    ) -> Result<BuildOutcome> {
        if let Some(platform) = &request.platform
            && !platform.satisfies(&Platform::host())
        {
            let host = Platform::host();
            return Err(BuildError::invalid(format!(
                "`--platform {platform}`: this version of larder builds for {host} only, the platform it runs on"
            )));
        }
        let lease = self.store.lease()?;
        let clock = || self.now();
        let reporter = Reporter::new(sink, &clock);
        let outcome = Build {
            engine: self,
            lease: lease.clone(),
            reporter: &reporter,
            cancel,
        }
        .run(request);
        lease.release()?;
        if outcome.is_ok() {
            self.gc();
        }
        outcome
    }
}

/// A cache record, as the cache formats know it.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheRecord {
    /// `sha256("OP@OUTPUT")`.
    pub digest: Digest,
    /// For each input, the alternatives: what is selected of it, and the record's index.
    pub inputs: Vec<Vec<(Option<Digest>, usize)>>,
    /// Whether a result is stored.
    pub has_result: bool,
}

impl Engine {
    /// Returns the records that lead to the result of a build, each after all it refers to.
    pub fn cache_records(&self, outcome: &BuildOutcome) -> Result<Vec<CacheRecord>> {
        let keys: Vec<KeyId> = outcome.keys.iter().map(|&key| KeyId::from(key)).collect();
        let record = |record: larder_store::ExportedRecord| CacheRecord {
            digest: record.digest,
            inputs: record.inputs,
            has_result: record.result.is_some(),
        };
        Ok(self
            .store
            .exported_records(&keys)?
            .into_iter()
            .map(record)
            .collect())
    }
}

struct Build<'a> {
    engine: &'a Engine,
    lease: Lease,
    reporter: &'a Reporter<'a>,
    cancel: &'a CancelFlag,
}

impl Build<'_> {
    fn run(&self, mut request: BuildRequest) -> Result<BuildOutcome> {
        let source = std::mem::replace(&mut request.context, ContextSource::Empty);
        let outputs = std::mem::take(&mut request.outputs);
        let context = self.open_context(source, &mut request)?;
        let scope = scope(&context, &request);
        let text = self.read_dockerfile(&context.root, &request)?;
        let dockerfile = Dockerfile::parse(&text.bytes, &text.name)
            .map_err(|error| dockerfile_error(&error, &text))?;
        let images = Images::new(self.engine, &self.lease, request.pull);
        let mut options = lower_options(&request);
        let mut contexts = BTreeMap::new();
        for (name, path) in &request.named_contexts {
            let context = open_directory(path)?;
            let excludes = read_ignore_patterns(&context.root)?;
            let local = LocalContext {
                excludes,
                ..LocalContext::new(name)
            };
            options
                .named_contexts
                .insert(name.clone(), NamedContext::Local(local));
            contexts.insert(name.clone(), context);
        }
        self.find_base_images(&dockerfile, &options, &images)
            .map_err(|error| dockerfile_error(&error, &text))?;
        let ignore = self.read_ignore(&context.root, &text)?;
        options.context.excludes.clone_from(&ignore.patterns);
        let lowered = dockerfile
            .lower(&options, &images)
            .map_err(|error| dockerfile_error(&error, &text))?;
        contexts.insert(CONTEXT.to_owned(), context);
        let history = History::open(
            &self.engine.store,
            scope,
            &lowered,
            ignore,
            no_cache_flag(&request),
        )?;
        let variables = |name: &str| std::env::var(name).ok();
        let worker = BuildWorker {
            engine: self.engine,
            lease: self.lease.clone(),
            lowered: &lowered,
            images: images.into_found(),
            contexts,
            secrets: &*request.secrets,
            variables: &variables,
            host_ca: request.host_ca || self.engine.config.build.host_ca,
            history,
            emptied: Mutex::default(),
            empties_cache_mounts: !request.no_cache.keep_cache_mounts,
            reports: Mutex::default(),
        };
        let outcome = self.solve_and_export(&worker, &lowered, &request.tags, outputs);
        let steps = worker
            .reports
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        if let Err(error) = worker.history.save(steps) {
            tracing::warn!(
                error = error.full_message(),
                "the report of the build was not kept"
            );
        }
        outcome
    }

    fn solve_and_export(
        &self,
        worker: &BuildWorker<'_>,
        lowered: &Lowered,
        tags: &[ImageRef],
        outputs: Vec<Output>,
    ) -> Result<BuildOutcome> {
        let (result, keys) = if lowered.definition.result().is_some() {
            let limit = self.engine.config.worker.oci.max_parallelism;
            let solved = solve::solve(
                worker,
                &lowered.definition,
                self.reporter,
                self.cancel,
                limit,
            );
            let solved = solved.map_err(|errors| first_error(errors, lowered))?;
            (Some(worker.snapshot_of(&solved.result)?), solved.keys)
        } else {
            (None, Vec::new())
        };
        self.cancel.check()?;
        let mut outcome = BuildOutcome {
            image: None,
            keys: keys.into_iter().map(|key| key.0).collect(),
            steps: worker
                .reports
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .clone(),
            emptied_cache_bytes: worker
                .emptied
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .values()
                .sum(),
        };
        let export = exporter::Export {
            lease: &self.lease,
            reporter: self.reporter,
            snapshot: result.as_ref(),
            lowered,
            base_layers: worker.base_layers(),
            tags,
        };
        for output in outputs {
            self.cancel.check()?;
            let made = match output {
                Output::Store => Some(export.to_store()?),
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
        Ok(outcome)
    }

    /// Looks up all base images at once.
    fn find_base_images(
        &self,
        dockerfile: &Dockerfile,
        options: &LowerOptions,
        images: &Images<'_>,
    ) -> Result<(), larder_dockerfile::Error> {
        let requests = dockerfile.base_images(options)?;
        let look_up = |request: &larder_dockerfile::ImageRequest| {
            let mut vertex = self.reporter.begin_internal(&request.log_name, "");
            match images.resolve(&request.image_ref, &request.platform) {
                Ok(_) => {
                    vertex.complete();
                }
                Err(error) => {
                    vertex.fail(&error.full_message());
                    images.keep_failure(request, error);
                }
            }
        };
        if let [only] = &requests[..] {
            look_up(only);
            return Ok(());
        }
        std::thread::scope(|scope| {
            for request in &requests {
                // What could not be looked up now is looked up when it is asked for.
                if Tasks::spawn(scope, "metadata", || look_up(request)).is_err() {
                    break;
                }
            }
        });
        Ok(())
    }
}

fn lower_options(request: &BuildRequest) -> LowerOptions {
    let host = Platform::host();
    LowerOptions {
        target: request.target.clone(),
        build_args: request.build_args.iter().cloned().collect(),
        labels: request.labels.iter().cloned().collect(),
        platform: request.platform.clone(),
        build_platform: host,
        no_cache: match &request.no_cache.steps {
            NoCacheSteps::None => larder_dockerfile::NoCache::None,
            NoCacheSteps::All => larder_dockerfile::NoCache::All,
            NoCacheSteps::Stages(stages) => larder_dockerfile::NoCache::Stages(stages.clone()),
        },
        network: match request.network {
            NetworkMode::Default => larder_dockerfile::Network::Sandbox,
            NetworkMode::Host => larder_dockerfile::Network::Host,
            NetworkMode::None => larder_dockerfile::Network::None,
        },
        extra_hosts: request.extra_hosts.clone(),
        shm_size_bytes: request.shm_size_bytes.unwrap_or(0) as i64,
        ulimits: request
            .ulimits
            .iter()
            .map(|limit| larder_dockerfile::Ulimit {
                name: limit.name.clone(),
                soft: limit.soft,
                hard: limit.hard,
            })
            .collect(),
        resolve_mode: if request.pull {
            ResolveMode::Pull
        } else {
            ResolveMode::Default
        },
        context: LocalContext::new(CONTEXT),
        ..LowerOptions::default()
    }
}

/// Names what is built, for its history: the context, the Dockerfile.
fn scope(context: &ContextRoot, request: &BuildRequest) -> String {
    let directory = context.cache_name.clone().unwrap_or_default();
    let dockerfile = match &request.dockerfile {
        DockerfileSource::Default => "Dockerfile".to_owned(),
        DockerfileSource::Path(path) => fs_err::canonicalize(path)
            .unwrap_or_else(|_| path.clone())
            .to_string_lossy()
            .into_owned(),
        DockerfileSource::Text(_) => "-".to_owned(),
    };
    Digest::sha256(format!("{directory}\0{dockerfile}"))
        .hex()
        .to_owned()
}

fn no_cache_flag(request: &BuildRequest) -> String {
    match &request.no_cache.steps {
        NoCacheSteps::Stages(stages) => format!("--no-cache-filter={}", stages.join(",")),
        _ if request.no_cache.keep_cache_mounts => "--no-cache=layers".to_owned(),
        _ => "--no-cache".to_owned(),
    }
}

fn dockerfile_error(error: &larder_dockerfile::Error, text: &DockerfileText) -> BuildError {
    let class = match error.kind() {
        larder_dockerfile::ErrorKind::Internal => ErrorClass::Internal,
        _ => ErrorClass::Invalid,
    };
    let source = std::error::Error::source(error);
    let cause = source.and_then(|source| source.downcast_ref::<BuildError>());
    let mut built = match (cause, source) {
        // The frontend's message has the text of its cause.
        (Some(cause), _) => BuildError::new(cause.class(), error.to_string()),
        (None, Some(source)) => BuildError::new(class, format!("{error}: {source}")),
        (None, None) => BuildError::new(class, error.to_string()),
    };
    if let Some(hint) = cause.and_then(BuildError::hint) {
        built = built.with_hint(hint);
    }
    let ranges = error.ranges().to_vec();
    if ranges.is_empty() {
        return built;
    }
    built.with_location(Location {
        file: source_file(text),
        ranges,
    })
}

fn source_file(text: &DockerfileText) -> SourceFile {
    SourceFile {
        filename: text.name.clone(),
        data: text.bytes.clone(),
        language: "Dockerfile".to_owned(),
    }
}

/// Returns the first error, with where its vertex stands in the Dockerfile.
fn first_error(errors: Vec<BuildError>, lowered: &Lowered) -> BuildError {
    let definition = &lowered.definition;
    let Some(error) = errors.into_iter().next() else {
        return BuildError::internal("a build failed without an error");
    };
    if error.location().is_some() {
        return error;
    }
    let location = error
        .vertex()
        .and_then(|vertex| definition.locations(vertex).first());
    let location = location.and_then(|(index, ranges)| {
        let file = definition.sources().get(*index)?.clone();
        Some(Location {
            file,
            ranges: ranges.clone(),
        })
    });
    match location {
        Some(location) => error.with_location(location),
        None => error,
    }
}
