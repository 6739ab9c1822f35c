//! What a build is asked to do, and what comes of it.

mod attest;
mod cache;
mod llb;
mod ssh;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use larder_oci::{Descriptor, Digest, ImageRef, Platform};

use crate::event::MissCause;

pub use crate::entitlement::Entitlement;
pub use attest::{Attestations, Provenance, ProvenanceMode, Sbom, SlsaVersion, Vcs};
pub use cache::{CacheExport, CacheImport, CacheMode, CacheTarget};
pub use larder_cache::ManifestForm;
pub use larder_dockerfile::Resources;
pub use larder_llb::policy::{PolicyFileError, SourcePolicy};
pub use llb::{Llb, LlbInput};
pub use ssh::{NoSsh, SshAgent, SshProvider, is_behind_ssh, is_repository};

/// A build.
pub struct BuildRequest {
    /// The files that COPY, ADD and bind mounts read.
    pub context: ContextSource,
    /// The Dockerfile.
    pub dockerfile: DockerfileSource,
    /// What is built in place of the Dockerfile: then no context is read, and all that belongs to
    /// Dockerfiles has no effect.
    pub llb: Option<LlbInput>,
    /// What stages and images are replaced with, by name.
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// The stage to build; the last one by default.
    pub target: Option<String>,
    /// Build arguments, in the order given.
    pub build_args: Vec<(String, String)>,
    /// Labels of the image.
    pub labels: Vec<(String, String)>,
    /// What the image is for, each platform once; the host by default. An image for several is an
    /// index.
    pub platforms: Vec<Platform>,
    /// Which steps must run again.
    pub no_cache: NoCache,
    /// Whether base images are looked up in their registries even if they are in the store.
    pub pull: bool,
    /// The network of RUN steps.
    pub network: NetworkMode,
    /// Further lines of `/etc/hosts` in RUN steps: name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// The size of `/dev/shm` in RUN steps; 64 MiB by default.
    pub shm_size_bytes: Option<u64>,
    /// Resource limits of RUN steps.
    pub ulimits: Vec<Ulimit>,
    /// The cgroup below which RUN steps run; larder's own by default.
    pub cgroup_parent: Option<String>,
    /// What the processes of each RUN step may use together.
    pub resources: Resources,
    /// What steps may do beyond the usual.
    pub entitlements: Vec<Entitlement>,
    /// Whether RUN steps are lent the host's CA certificates and proxy settings.
    pub host_ca: bool,
    /// Where secrets come from.
    pub secrets: Arc<dyn SecretProvider>,
    /// Where SSH agents come from.
    pub ssh: Arc<dyn SshProvider>,
    /// The names the image gets.
    pub tags: Vec<ImageRef>,
    /// Where the result goes; an empty list keeps it in the cache only.
    pub outputs: Vec<Output>,
    /// Further caches that results may be taken from, beside the store.
    pub cache_imports: Vec<CacheImport>,
    /// Where results go for other machines; each target is named once.
    pub cache_exports: Vec<CacheExport>,
    /// What is attested of the result.
    pub attestations: Attestations,
    /// What may be fetched, and what is fetched in its place; no rules by default.
    pub source_policy: SourcePolicy,
}

impl BuildRequest {
    /// Returns a build of `context` with everything else at its default; the result stays in the
    /// cache.
    pub fn new(context: ContextSource) -> Self {
        Self {
            context,
            dockerfile: DockerfileSource::Default,
            llb: None,
            named_contexts: BTreeMap::new(),
            target: None,
            build_args: Vec::new(),
            labels: Vec::new(),
            platforms: Vec::new(),
            no_cache: NoCache::default(),
            pull: false,
            network: NetworkMode::Default,
            extra_hosts: Vec::new(),
            shm_size_bytes: None,
            ulimits: Vec::new(),
            cgroup_parent: None,
            resources: Resources::default(),
            entitlements: Vec::new(),
            host_ca: false,
            secrets: Arc::new(NoSecrets),
            ssh: Arc::new(NoSsh),
            tags: Vec::new(),
            outputs: Vec::new(),
            cache_imports: Vec::new(),
            cache_exports: Vec::new(),
            attestations: Attestations::default(),
            source_policy: SourcePolicy::default(),
        }
    }
}

/// The files of a build.
pub enum ContextSource {
    /// A directory, read where it lies.
    Directory(PathBuf),
    /// A stream: a tar, compressed or not; else the Dockerfile, with no files.
    Stream(Box<dyn Read + Send>),
    /// A git repository; or, `http` or `https`, an archive, else the Dockerfile.
    Remote(String),
    /// No files.
    Empty,
}

/// Where the Dockerfile is.
pub enum DockerfileSource {
    /// `Dockerfile` in the context, else `dockerfile`.
    Default,
    /// A file: by the working directory, or inside a context that is no directory. There, an
    /// absolute one is still a file of the user's, unless the context is a stream.
    Path(PathBuf),
    /// A URL, `http` or `https`.
    Remote(String),
    /// Its text.
    Text(Vec<u8>),
}

/// What stands in for a stage or an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory, read where it lies, without what its own ignore file names.
    Directory(PathBuf),
    /// An image, as written, for messages and progress.
    Image(String),
    /// A git repository; or, `http` or `https`, one file, called `context`.
    Remote(String),
    /// An image in a directory.
    OciLayout(LayoutImage),
}

/// An image in an OCI layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutImage {
    /// The directory.
    pub directory: PathBuf,
    /// Its name there; `latest` by default, or the only image that there is.
    pub tag: Option<String>,
    /// Its manifest or index, which wins over the tag.
    pub digest: Option<Digest>,
}

/// Which steps must run again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoCache {
    /// The steps.
    pub steps: NoCacheSteps,
    /// Whether the cache mounts of those steps keep what they hold; they are emptied otherwise.
    pub keep_cache_mounts: bool,
}

/// See [`NoCache::steps`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NoCacheSteps {
    /// None: all may be cached.
    #[default]
    None,
    /// All.
    All,
    /// Those of these stages.
    Stages(Vec<String>),
}

/// The network of RUN steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// What larder chooses: one of their own where a helper of the machine gives it, else the host's.
    #[default]
    Default,
    /// The host's, as asked for, and so allowed.
    Host,
    /// None but loopback.
    None,
}

/// A resource limit, named as in `ulimit`: `nofile`, `nproc`, …
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// The resource.
    pub name: String,
    /// What a process may raise no further without asking.
    pub soft: i64,
    /// What it may raise the soft limit to.
    pub hard: i64,
}

/// Gives secrets. Implemented by whoever asks for the build.
pub trait SecretProvider: Send + Sync {
    /// Returns the secret `id`; `None` if there is none.
    ///
    /// # Errors
    /// When the secret is there and can't be read.
    fn secret(&self, id: &str) -> std::io::Result<Option<SecretBytes>>;
}

/// The bytes of a secret. Never shown.
#[derive(Clone)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Wraps `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretBytes(…)")
    }
}

/// Knows no secret.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSecrets;

impl SecretProvider for NoSecrets {
    fn secret(&self, _id: &str) -> std::io::Result<Option<SecretBytes>> {
        Ok(None)
    }
}

/// Where a result goes.
pub enum Output {
    /// An image: in the local store, in registries, or both.
    Image(ImageOutput),
    /// An OCI layout, as one tar.
    Oci(ArchiveOutput),
    /// What `docker load` reads: an OCI layout with a `manifest.json`, as one tar.
    Docker(ArchiveOutput),
    /// The file tree, as one tar.
    Tar(TreeOutput<Destination>),
    /// The file tree, in a directory.
    Local(TreeOutput<PathBuf>),
}

/// File trees. Those of several platforms lie in directories called `linux_amd64` and so on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TreeOutput<D> {
    /// Where they go.
    pub destination: D,
    /// Whether each tree has such a directory of its own; by default if there may be several.
    pub platform_split: Option<bool>,
    /// What the names of files with attestations begin with.
    pub attestation_prefix: String,
}

impl<D> TreeOutput<D> {
    /// Returns an output with everything else at its default.
    pub fn new(destination: D) -> Self {
        Self {
            destination,
            platform_split: None,
            attestation_prefix: String::new(),
        }
    }

    /// Returns the same output at another destination.
    #[must_use]
    pub fn to<E>(self, destination: E) -> TreeOutput<E> {
        TreeOutput {
            destination,
            platform_split: self.platform_split,
            attestation_prefix: self.attestation_prefix,
        }
    }
}

/// An image under the request's tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageOutput {
    /// Further names, beside the request's tags.
    pub names: Vec<ImageRef>,
    /// What it is made like.
    pub options: ImageOptions,
    /// Whether the local store keeps it, under its names.
    pub store: bool,
    /// Whether progress tells of unpacking; what is stored always is unpacked.
    pub unpack: bool,
    /// Whether it is also named by its digest.
    pub canonical_name: bool,
    /// What an image without a name is called, followed by its digest.
    pub dangling_prefix: Option<String>,
    /// How it goes to the registries of its names, if it does.
    pub push: Option<PushOptions>,
}

impl Default for ImageOutput {
    /// Returns what goes to the local store only.
    fn default() -> Self {
        Self {
            names: Vec::new(),
            options: ImageOptions::default(),
            store: true,
            unpack: false,
            canonical_name: false,
            dangling_prefix: None,
            push: None,
        }
    }
}

/// How an image is pushed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PushOptions {
    /// Whether the registry gets no tag: the image is found there by its digest only.
    pub by_digest: bool,
    /// Whether plain http and unknown certificates will do.
    pub insecure: bool,
}

/// An image as one tar.
pub struct ArchiveOutput {
    /// Where the bytes go.
    pub destination: Destination,
    /// Further names, beside the request's tags.
    pub names: Vec<ImageRef>,
    /// What the image is made like.
    pub options: ImageOptions,
}

/// What an image is made like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageOptions {
    /// How layers that this build made are compressed. By default with gzip, and not at all as
    /// long as the image doesn't leave the store.
    pub compression: Option<LayerCompression>,
    /// How hard, in the compressor's own numbers; its usual level by default.
    pub compression_level: Option<i32>,
    /// Whether the layers of base images are compressed likewise; they stay as they are otherwise.
    pub force_compression: bool,
    /// Whether documents and layers have OCI's media types, or Docker's.
    pub oci_media_types: bool,
    /// Further facts that go into manifest and descriptor.
    pub annotations: Vec<Annotation>,
    /// Whether times inside of layers later than the epoch are set to it.
    pub rewrite_timestamp: bool,
    /// The time in seconds that nothing new in the image is to be later than; by default what the
    /// build argument `SOURCE_DATE_EPOCH` says.
    pub source_date_epoch: Option<i64>,
    /// Whether attestations are in artifacts that name their subject, or in the form of images.
    pub oci_artifact: bool,
    /// Whether attestations for images in registries only are with it; by default if it is pushed.
    pub inline_attestations: Option<bool>,
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self {
            compression: None,
            compression_level: None,
            force_compression: false,
            oci_media_types: true,
            annotations: Vec::new(),
            rewrite_timestamp: false,
            source_date_epoch: None,
            oci_artifact: true,
            inline_attestations: None,
        }
    }
}

/// A fact about an image, in one of its documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// Which document says so.
    pub place: AnnotationPlace,
    /// The platform whose image it is about; all by default.
    pub platform: Option<Platform>,
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// Where an annotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnnotationPlace {
    /// In the manifest.
    Manifest,
    /// In what refers to the manifest.
    ManifestDescriptor,
    /// In the index of several images.
    Index,
    /// In what refers to that index.
    IndexDescriptor,
}

/// How layers are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum LayerCompression {
    /// gzip.
    #[default]
    Gzip,
    /// gzip, each file for itself and with an index at the end, so that files can be read from a
    /// registry one by one.
    Estargz,
    /// zstd.
    Zstd,
    /// Not at all.
    Uncompressed,
}

/// Where bytes go.
pub enum Destination {
    /// A file, which appears when it is complete.
    File(PathBuf),
    /// A stream.
    Stream(Box<dyn Write + Send>),
}

/// What came of a build.
#[derive(Debug, Clone, Default)]
pub struct BuildOutcome {
    /// The image, if an output made one.
    pub image: Option<ImageOutcome>,
    /// The steps, in the order they were done.
    pub steps: Vec<StepReport>,
    /// Bytes that `--no-cache` removed from cache mounts.
    pub emptied_cache_bytes: u64,
    /// The manifest of the exported cache; of several, the last.
    pub cache_manifest: Option<Descriptor>,
    /// How the result was made, for each platform, as [`Attestations::told`] asks for it.
    pub provenance: Vec<(Platform, serde_json::Value)>,
}

/// An image that was made.
#[derive(Debug, Clone)]
pub struct ImageOutcome {
    /// The manifest, or the index of several.
    pub descriptor: Descriptor,
    /// The config's digest: the image id. `None` for an index.
    pub config_digest: Option<Digest>,
    /// The names given.
    pub names: Vec<ImageRef>,
}

impl ImageOutcome {
    /// Returns what the image is known by: its config's digest, for an index the index's.
    pub fn id(&self) -> &Digest {
        let config = self.config_digest.as_ref();
        config.unwrap_or(&self.descriptor.digest)
    }
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct StepReport {
    /// As shown, `[2/5] RUN make`.
    pub name: String,
    /// Whether its result was found and not made.
    pub cached: bool,
    /// Whether it failed, and has no result.
    #[serde(default)]
    pub failed: bool,
    /// Why it was made; `None` where it was cached.
    pub cause: Option<MissCause>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Where files are the cause: each difference, 100 at most.
    #[serde(default)]
    pub details: Vec<String>,
}
