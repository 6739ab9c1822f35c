use std::collections::BTreeMap;
use std::sync::Arc;

use larder_llb::Definition;
use larder_llb::git::GitRef;
use larder_oci::{Digest, ImageConfig, ImageRef, Platform};

use crate::lower::Lowered;

/// What a build asks of a Dockerfile.
#[derive(Debug, Clone)]
pub struct LowerOptions {
    /// The stage to build; the last one by default.
    pub target: Option<String>,
    /// `--build-arg` values. Names that the Dockerfile does not declare have no effect, apart
    /// from the predefined ones.
    pub build_args: BTreeMap<String, String>,
    /// Labels for the image; they win over LABEL.
    pub labels: BTreeMap<String, String>,
    /// What the image is to run on. `None` takes the build platform, or whatever the base image
    /// is for.
    pub platform: Option<Platform>,
    /// What the build runs on.
    pub build_platform: Platform,
    /// Whether the same Dockerfile is built for several platforms: step names then tell which.
    pub multi_platform: bool,
    /// Which steps must run even if a record of them exists.
    pub no_cache: NoCache,
    /// The network of RUN, where it does not choose its own.
    pub network: Network,
    /// Names for `/etc/hosts`, with their addresses.
    pub extra_hosts: Vec<(String, String)>,
    /// The size of `/dev/shm`; 0 for the executor's default.
    pub shm_size_bytes: i64,
    /// Limits of the processes.
    pub ulimits: Vec<Ulimit>,
    /// The host name in RUN; the executor's default if there is none.
    pub hostname: Option<String>,
    /// The cgroup below which RUN steps run.
    pub cgroup_parent: Option<String>,
    /// What the processes of each RUN step may use together.
    pub resources: Resources,
    /// Where base images are looked for.
    pub resolve_mode: ResolveMode,
    /// The build context.
    pub context: LocalContext,
    /// The build context in place of a local one: the result of this graph, with all its files.
    pub remote_context: Option<Arc<Definition>>,
    /// Tells what the context's ignore file leaves out, for the check of COPY and ADD. `None` where
    /// nothing is left out, or where an exception makes the answer depend on more than a path.
    pub ignored: Option<PathMatcher>,
    /// Whether stages that the target does not need are lowered, too: what the checks find in them
    /// counts, and what they depend on must be there.
    pub all_stages: bool,
    /// `--build-context` values. They stand in for stages and images of their name.
    pub named_contexts: BTreeMap<String, NamedContext>,
}

impl Default for LowerOptions {
    fn default() -> Self {
        Self {
            target: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            platform: None,
            build_platform: Platform::host(),
            multi_platform: false,
            no_cache: NoCache::None,
            network: Network::Sandbox,
            extra_hosts: Vec::new(),
            shm_size_bytes: 0,
            ulimits: Vec::new(),
            hostname: None,
            cgroup_parent: None,
            resources: Resources::default(),
            resolve_mode: ResolveMode::Default,
            context: LocalContext::new("context"),
            remote_context: None,
            ignored: None,
            all_stages: false,
            named_contexts: BTreeMap::new(),
        }
    }
}

impl LowerOptions {
    /// Returns what the image is to run on.
    pub fn target_platform(&self) -> &Platform {
        self.platform.as_ref().unwrap_or(&self.build_platform)
    }
}

/// Which steps ignore the cache.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NoCache {
    /// None.
    #[default]
    None,
    /// All RUN, COPY and ADD steps.
    All,
    /// Those of the named stages; case does not matter.
    Stages(Vec<String>),
}

impl NoCache {
    pub(crate) fn covers(&self, stage: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Stages(names) => names.iter().any(|name| name.eq_ignore_ascii_case(stage)),
        }
    }
}

/// The network of a RUN step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// The executor's default.
    #[default]
    Sandbox,
    /// The host's.
    Host,
    /// None.
    None,
}

/// Where base images are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResolveMode {
    /// As the engine thinks best.
    #[default]
    Default,
    /// Always ask the registry (`--pull`).
    Pull,
    /// A local image, if there is one.
    Local,
}

/// What the processes of a step may use together; 0 and empty for no bound of one's own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// Memory.
    pub memory_bytes: i64,
    /// Memory and swap together; -1 for no bound on swap.
    pub memory_swap_bytes: i64,
    /// The weight against other steps, where 1024 is the usual.
    pub cpu_shares: i64,
    /// The period in which time on processors is shared out.
    pub cpu_period_micros: i64,
    /// The time on processors in each period.
    pub cpu_quota_micros: i64,
    /// Processors, as in `0-2,5`.
    pub cpuset_cpus: String,
    /// Memory nodes, as in `0-1`.
    pub cpuset_mems: String,
}

/// A limit of a process's resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// `nofile`, `nproc`, …
    pub name: String,
    /// What applies.
    pub soft: i64,
    /// How far a process may raise it.
    pub hard: i64,
}

/// A directory of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalContext {
    /// The name that the LLB has for it, `local://NAME`.
    pub name: String,
    /// The session that serves it: directories of different clients must not be taken for the
    /// same one.
    pub session: Option<String>,
    /// What is left out, as [`parse_ignore`](crate::parse_ignore) returns it.
    pub excludes: Vec<String>,
}

impl LocalContext {
    /// Returns a context without session and excludes.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            session: None,
            excludes: Vec::new(),
        }
    }
}

/// Tells of a path whether it belongs to a set.
#[derive(Clone)]
pub struct PathMatcher(Arc<dyn Fn(&str) -> bool + Send + Sync>);

impl PathMatcher {
    /// Wraps `contains`. It is asked about cleaned paths relative to the context.
    pub fn new(contains: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(contains))
    }

    pub(crate) fn contains(&self, path: &str) -> bool {
        (self.0)(path)
    }
}

impl std::fmt::Debug for PathMatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PathMatcher(…)")
    }
}

/// What a named context stands for.
#[derive(Debug, Clone)]
pub enum NamedContext {
    /// A directory of the client.
    Local(LocalContext),
    /// An image, as written: `docker-image://REF`.
    Image(String),
    /// What another Dockerfile builds, with its image config.
    Input(Arc<Lowered>),
    /// A file on a web server, by its URL: a tree that holds it as `context`.
    Http(String),
    /// An image in a directory of the client.
    OciLayout(OciLayout),
    /// The files of a git repository.
    Git(GitRef),
}

/// An image in an OCI layout.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OciLayout {
    /// The name that the LLB has for the directory.
    pub store: String,
    /// The session that serves it, as for a [`LocalContext`].
    pub session: Option<String>,
    /// The image's manifest or index.
    pub digest: Digest,
}

/// An image to resolve.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRequest {
    /// The image, with a tag or a digest.
    pub image_ref: ImageRef,
    /// The platform wanted.
    pub platform: Platform,
    /// The name of the look-up in the progress: `[internal] load metadata for …`.
    pub log_name: String,
    /// Where the image is, if in no registry; the reference has its digest then.
    pub layout: Option<OciLayout>,
}

/// A resolved image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// The image: as asked for, or what is taken in its place.
    pub image_ref: ImageRef,
    /// The digest that the image's name stands for: of an index if there is one.
    pub digest: Digest,
    /// The config for the platform.
    pub config: ImageConfig,
}

/// Why an image could not be resolved. Its text ends up in the user's message.
pub type ResolveError = Box<dyn std::error::Error + Send + Sync>;

/// Finds images; implemented by the engine.
pub trait ImageResolver {
    /// Returns the digest and the config of an image.
    ///
    /// # Errors
    /// Whatever kept it from being found.
    fn resolve_image_config(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError>;
}
