//! One target, from request to graph.

mod ask;
mod check;
mod epoch;
pub(crate) mod inputs;
pub(crate) mod llb;
mod platforms;
mod policed;
mod remote;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use larder_dockerfile::{
    Dockerfile, ImageRequest, LocalContext, LowerOptions, Lowered, NamedContext, ResolveMode,
};
use larder_llb::SourceFile;
use larder_oci::{Digest, ImageRef, Platform};
use larder_store::Lease;

use crate::attest::{self, Scan, sbom};
use crate::cache::export;
use crate::cancel::CancelFlag;
use crate::engine::Engine;
use crate::entitlement::{Entitlement, Granted};
use crate::error::{BuildError, ErrorClass, Location, Result};
use crate::exporter;
use crate::history::IgnoreFile;
use crate::images::{ImageKey, PolicedImages, ResolvedImage};
use crate::layers::Recipe;
use crate::ops::git::Resolutions;
use crate::ops::local::ContextRoot;
use crate::policy::LocalNames;
use crate::progress::Reporter;
use crate::request::{
    self, BuildRequest, CacheExport, CacheImport, ContextSource, DockerfileSource, NetworkMode,
    NoCacheSteps, Output, Sbom, SecretProvider, SourcePolicy, SshProvider,
};
use crate::task::Tasks;
use crate::web::WebFiles;
pub use ask::Question;
pub use check::CheckOutcome;
use inputs::{DockerfileText, OpenContext, open_directory, read_ignore_patterns};

/// The name of the build's own context in LLB.
const CONTEXT: &str = "context";

/// Prepares a target.
pub(crate) struct Build<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) lease: &'a Lease,
    pub(crate) reporter: &'a Reporter<'a>,
    pub(crate) images: PolicedImages<'a>,
    pub(crate) web: &'a WebFiles<'a>,
    pub(crate) repositories: &'a Resolutions,
    pub(crate) cancel: &'a CancelFlag,
    /// What the target is called; empty where it has no name.
    pub(crate) name: &'a str,
    /// What the target reads of others, by the names of its contexts: what each of them is on each
    /// platform that it is built for.
    pub(crate) inputs: BTreeMap<String, Vec<OnPlatform>>,
}

/// What a target is on one platform.
#[derive(Clone)]
pub(crate) struct OnPlatform {
    pub(crate) platform: Platform,
    pub(crate) lowered: Arc<Lowered>,
    /// Names what is built, for its history; then what else may tell why a first build misses.
    pub(crate) scopes: (String, Option<String>),
    /// What lists the contents, if that is asked for.
    pub(crate) scan: Option<Arc<Scan>>,
}

/// A target that can be solved.
pub(crate) struct Prepared {
    /// What it is called; empty where it has no name.
    pub(crate) name: String,
    /// For each platform, in the order asked for; at least one.
    pub(crate) builds: Vec<OnPlatform>,
    /// Whether an image of it is an index, even if it is for one platform only.
    pub(crate) multi_platform: bool,
    /// The directories that it reads, by their names in LLB.
    pub(crate) contexts: Vec<(String, ContextRoot)>,
    /// Images that nobody else has looked up.
    pub(crate) images: HashMap<ImageKey, ResolvedImage>,
    pub(crate) ignore: IgnoreFile,
    pub(crate) no_cache_flag: String,
    pub(crate) keep_cache_mounts: bool,
    pub(crate) host_ca: bool,
    pub(crate) granted: Granted,
    pub(crate) secrets: Arc<dyn SecretProvider>,
    /// What builds that are nested in steps are held to, too.
    pub(crate) source_policy: SourcePolicy,
    pub(crate) ssh: Arc<dyn SshProvider>,
    pub(crate) cache_imports: Vec<CacheImport>,
    pub(crate) cache_exports: Vec<CacheExport>,
    pub(crate) tags: Vec<ImageRef>,
    /// What is said of the results.
    pub(crate) attest: attest::Plan,
    /// Taken when they are written.
    pub(crate) outputs: Mutex<Vec<Output>>,
}

impl Prepared {
    /// Returns how `output` will have the layers packed; `None` if it takes them as they are, or
    /// its options are wrong, which it says itself.
    pub(crate) fn recipe_of(&self, output: &Output) -> Option<Recipe> {
        let options = match output {
            Output::Oci(archive) | Output::Docker(archive) => &archive.options,
            Output::Image(image) => {
                let inline = image.options.inline_attestations;
                let inline = inline.unwrap_or(image.push.is_some());
                let is_attested = self.attest.provenance(inline).is_some()
                    || self.builds.iter().any(|build| build.scan.is_some());
                (is_attested || exporter::leaves_store(image)).then_some(&image.options)?
            }
            Output::Tar(_) | Output::Local(_) => return None,
        };
        let epoch = self.builds.first()?.lowered.source_date_epoch;
        exporter::recipe(options, options.source_date_epoch.or(epoch)).ok()
    }
}

/// What a target is made of, read and not lowered yet.
struct Inputs {
    text: DockerfileText,
    dockerfile: Dockerfile,
    /// For each platform; at least one.
    options: Vec<LowerOptions>,
    /// The directories that it reads, by their names in LLB.
    contexts: Vec<(String, ContextRoot)>,
    locals: LocalNames,
    scope: String,
    ignore: IgnoreFile,
}

impl Build<'_> {
    /// Reads what `request` names, and lowers its Dockerfile.
    pub(crate) fn prepare(self, mut request: BuildRequest) -> Result<Prepared> {
        let cache_exports = export::requested(&mut request)?;
        if let Some(llb) = request.llb.take() {
            return self.prepare_llb(llb, request, cache_exports);
        }
        let mut attest = attest::Plan::of(&mut request);
        let inputs = self.read(&mut request, false)?;
        attest.request.file_name.clone_from(&inputs.text.name);
        let mut builds = Vec::with_capacity(inputs.options.len());
        let mut images = HashMap::new();
        for (index, options) in inputs.options.iter().enumerate() {
            let lowered = inputs.dockerfile.lower(options, &self.images);
            // What is wrong with the file is wrong on all platforms, and told once.
            let warn = |warnings: &[_]| {
                if index == 0 {
                    self.warn(warnings, &inputs.text);
                }
            };
            let mut lowered = lowered.map_err(|error| {
                warn(error.warnings());
                dockerfile_error(&error, &inputs.text)
            })?;
            warn(&lowered.warnings);
            images.extend(self.police(&mut lowered, &inputs.locals)?);
            let asked = options.platform.clone();
            let platform = asked.clone();
            let platform = platform.unwrap_or_else(|| lowered.config.platform());
            let mut scan = match &attest.asked.sbom {
                Some(sbom) if !request.outputs.is_empty() => {
                    self.scan(sbom, &lowered, &platform)?
                }
                _ => None,
            };
            if let Some(scan) = &mut scan {
                images.extend(self.police(&mut scan.lowered, &inputs.locals)?);
            }
            builds.push(OnPlatform {
                scopes: platforms::scopes(&inputs.scope, asked.as_ref()),
                platform,
                lowered: Arc::new(lowered),
                scan: scan.map(Arc::new),
            });
        }
        let granted = self.grant(&request, builds.iter().map(|build| &*build.lowered))?;
        Ok(Prepared {
            granted,
            name: self.name.to_owned(),
            builds,
            multi_platform: inputs.options[0].multi_platform,
            contexts: inputs.contexts,
            images,
            ignore: inputs.ignore,
            no_cache_flag: no_cache_flag(&request),
            keep_cache_mounts: request.no_cache.keep_cache_mounts,
            host_ca: request.host_ca || self.engine.config.build.host_ca,
            secrets: request.secrets,
            source_policy: request.source_policy,
            ssh: request.ssh,
            cache_imports: request.cache_imports,
            cache_exports,
            tags: request.tags,
            attest,
            outputs: Mutex::new(request.outputs),
        })
    }

    /// Grants what the request allows, and checks that it is all that the steps want.
    fn grant<'l>(
        &self,
        request: &BuildRequest,
        lowered: impl Iterator<Item = &'l Lowered>,
    ) -> Result<Granted> {
        let config = &self.engine.config;
        let mut allowed = request.entitlements.clone();
        if request.network == NetworkMode::Host {
            allowed.push(Entitlement::NetworkHost);
        }
        let permitted = config.insecure_entitlements.as_deref();
        let granted = Granted::new(&allowed, permitted, config.cdi.directories())?;
        for lowered in lowered {
            let checked = granted.check(&lowered.definition);
            checked.map_err(|error| located(error, lowered))?;
        }
        Ok(granted)
    }

    /// Returns what lists the contents of a result, with its generator looked up.
    fn scan(&self, sbom: &Sbom, lowered: &Lowered, platform: &Platform) -> Result<Option<Scan>> {
        let host = Platform::host();
        let request = ImageRequest {
            image_ref: sbom.generator.clone(),
            platform: host.clone(),
            log_name: format!("[internal] load metadata for {}", sbom.generator),
            layout: None,
        };
        self.images.look_up(&request, self.reporter);
        let generator = self.images.resolve(&request);
        let generator = generator.map_err(|error| {
            error.context(format!(
                "cannot resolve the sbom generator `{}`",
                sbom.generator
            ))
        })?;
        sbom::scan(sbom, &generator, lowered, (platform, &host))
    }

    /// Reads what `request` names: the context, the Dockerfile, the ignore file, and what the base
    /// images are.
    fn read(&self, request: &mut BuildRequest, all_stages: bool) -> Result<Inputs> {
        let source = std::mem::replace(&mut request.context, ContextSource::Empty);
        let context = self.open_context(source, request)?;
        let scope = scope(context.name(), &request.dockerfile, self.name);
        let (text, dockerfile) = self.parse_dockerfile(&context, request)?;
        let mut options = lower_options(request);
        options.all_stages = all_stages;
        match &context {
            OpenContext::Local(local) => {
                options.context = LocalContext::new(&self.local_name(CONTEXT, local));
            }
            OpenContext::Remote(remote) => {
                options.remote_context = Some(Arc::clone(&remote.definition));
            }
        }
        self.check_frontend(&dockerfile, &mut options)?;
        let (mut contexts, mut locals) = self.named_contexts(request, &mut options)?;
        self.set_epoch(&dockerfile, &text, request, &mut options)?;
        let local_context = options.context.name.clone();
        let mut options = platforms::on_each(request, &options, &self.inputs)?;
        self.find_base_images(&dockerfile, &options)
            .map_err(|error| dockerfile_error(&error, &text))?;
        let ignore = self.read_ignore(&context, &text)?;
        for options in &mut options {
            options.context.excludes.clone_from(&ignore.patterns);
            options.ignored = check::ignored(&ignore.patterns);
        }
        if let OpenContext::Local(context) = context {
            locals.push((local_context.clone(), CONTEXT.to_owned()));
            contexts.push((local_context, context));
        }
        Ok(Inputs {
            text,
            dockerfile,
            options,
            contexts,
            locals,
            scope,
            ignore,
        })
    }

    fn parse_dockerfile(
        &self,
        context: &OpenContext,
        request: &BuildRequest,
    ) -> Result<(DockerfileText, Dockerfile)> {
        let text = self.read_dockerfile(context, request)?;
        let dockerfile = Dockerfile::parse(&text.bytes, &text.name)
            .map_err(|error| dockerfile_error(&error, &text))?;
        Ok((text, dockerfile))
    }

    /// Opens the directories that stand in for stages and images, and adds them, and what else does
    /// so, to the options. Returns what the directories are called in LLB, too.
    fn named_contexts(
        &self,
        request: &BuildRequest,
        options: &mut LowerOptions,
    ) -> Result<(Vec<(String, ContextRoot)>, LocalNames)> {
        let mut contexts = Vec::new();
        let mut locals = Vec::new();
        for (name, context) in &request.named_contexts {
            let named = match context {
                request::NamedContext::Directory(path) => {
                    let context = open_directory(path)?;
                    let local = LocalContext {
                        excludes: read_ignore_patterns(&context.root)?,
                        ..LocalContext::new(&self.local_name(name, &context))
                    };
                    locals.push((local.name.clone(), name.clone()));
                    contexts.push((local.name.clone(), context));
                    NamedContext::Local(local)
                }
                request::NamedContext::Image(image) => self.image_context(image)?,
                request::NamedContext::Remote(url) => remote::named_context(url)
                    .map_err(|error| error.context(format!("build context `{name}`")))?,
                request::NamedContext::OciLayout(image) => {
                    let layout = self.images.add_layout(image);
                    let named =
                        |error: BuildError| error.context(format!("build context `{name}`"));
                    NamedContext::OciLayout(layout.map_err(named)?)
                }
            };
            options.named_contexts.insert(name.clone(), named);
        }
        Ok((contexts, locals))
    }

    /// Names a directory in LLB: by what it is to the build; for targets, by its path, so that
    /// those that share a directory share what is read of it.
    fn local_name(&self, name: &str, context: &ContextRoot) -> String {
        match &context.cache_name {
            _ if self.name.is_empty() => name.to_owned(),
            Some(path) => Digest::sha256(path).hex().to_owned(),
            None => format!("{}/{name}", self.name),
        }
    }

    /// Looks up the base images of all platforms at once.
    fn find_base_images(
        &self,
        dockerfile: &Dockerfile,
        options: &[LowerOptions],
    ) -> Result<(), larder_dockerfile::Error> {
        let mut requests = Vec::new();
        for options in options {
            for request in dockerfile.base_images(options)? {
                if !requests.contains(&request) {
                    requests.push(request);
                }
            }
        }
        let look_up = |request| self.images.look_up(request, self.reporter);
        if let [only] = &requests[..] {
            look_up(only);
            return Ok(());
        }
        std::thread::scope(|scope| {
            for request in &requests {
                // What could not be looked up now is looked up when it is asked for.
                if Tasks::spawn(scope, "metadata", move || look_up(request)).is_err() {
                    break;
                }
            }
        });
        Ok(())
    }
}

/// Names what is built, for its history: the context, the Dockerfile, the target.
pub(crate) fn scope(context: &str, dockerfile: &DockerfileSource, target: &str) -> String {
    let mut scope = format!("{context}\0");
    match dockerfile {
        DockerfileSource::Default => scope.push_str("Dockerfile"),
        DockerfileSource::Path(path) => {
            let path = fs_err::canonicalize(path).unwrap_or_else(|_| path.clone());
            scope.push_str(&path.to_string_lossy());
        }
        DockerfileSource::Remote(url) => scope.push_str(url),
        DockerfileSource::Text(_) => scope.push('-'),
    }
    if !target.is_empty() {
        scope.push('\0');
        scope.push_str(target);
    }
    Digest::sha256(scope).hex().to_owned()
}

fn lower_options(request: &BuildRequest) -> LowerOptions {
    let host = Platform::host();
    LowerOptions {
        target: request.target.clone(),
        build_args: request.build_args.iter().cloned().collect(),
        labels: request.labels.iter().cloned().collect(),
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
        cgroup_parent: request.cgroup_parent.clone(),
        resources: request.resources.clone(),
        resolve_mode: if request.pull {
            ResolveMode::Pull
        } else {
            ResolveMode::Default
        },
        ..LowerOptions::default()
    }
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

/// Adds to an error where its vertex stands in the Dockerfile.
pub(crate) fn located(error: BuildError, lowered: &Lowered) -> BuildError {
    let definition = &lowered.definition;
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
