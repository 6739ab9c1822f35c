use std::path::{Path, PathBuf};

use crate::error::{At, Result};
use crate::node::Node;

use super::fields::Fields;
use super::mount::Grant;
use super::service::{self, Ulimit};

/// How a service's image is built.
#[derive(Debug, Clone, PartialEq)]
pub struct Build {
    /// An absolute path, or a URL.
    pub context: String,
    /// The Dockerfile.
    pub dockerfile: Dockerfile,
    /// The stage; the last one by default.
    pub target: Option<String>,
    /// Build arguments; those without a value take that of the environment.
    pub args: Vec<(String, Option<String>)>,
    /// Further contexts: absolute paths, URLs, `service:NAME`.
    pub additional_contexts: Vec<(String, String)>,
    /// Cache sources, each a reference or `type=…`.
    pub cache_from: Vec<String>,
    /// Cache destinations, each a reference or `type=…`.
    pub cache_to: Vec<String>,
    /// Labels of the image.
    pub labels: Vec<(String, Option<String>)>,
    /// Further names of the image.
    pub tags: Vec<String>,
    /// Whether all steps run again.
    pub no_cache: bool,
    /// Stages whose steps run again.
    pub no_cache_filter: Vec<String>,
    /// Whether base images are looked up in their registries.
    pub pull: bool,
    /// Secrets that RUN steps can mount.
    pub secrets: Vec<Grant>,
    /// SSH agents or keys, by id.
    pub ssh: Vec<(String, Option<String>)>,
    /// The network of RUN steps.
    pub network: Option<String>,
    /// The size of `/dev/shm` in RUN steps, in bytes.
    pub shm_size_bytes: Option<u64>,
    /// What the image is for.
    pub platforms: Vec<String>,
    /// Lines of `/etc/hosts` in RUN steps, `name=address`.
    pub extra_hosts: Vec<String>,
    /// Resource limits of RUN steps.
    pub ulimits: Vec<Ulimit>,
    /// What steps may do beyond the usual, `security.insecure` for `privileged`.
    pub entitlements: Vec<String>,
    /// What is said of attestations: `provenance`, `sbom`, with their values.
    pub attestations: Vec<(String, String)>,
    /// What other tools than compose read: keys that begin with `x-`.
    pub extensions: Vec<(String, Node)>,
    /// Where it is in the files.
    pub at: At,
    pub(super) dockerfile_and_inline: bool,
}

/// Where a Dockerfile is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dockerfile {
    /// `Dockerfile` in the context.
    Default,
    /// A file, relative to the context.
    Path(PathBuf),
    /// In the compose file.
    Inline(String),
}

impl Build {
    pub(super) fn read(fields: &Fields<'_>, directory: &Path) -> Result<Self> {
        let inline = fields.text("dockerfile_inline");
        let path = fields.text("dockerfile");
        let dockerfile_and_inline = inline.is_some() && path.is_some();
        let dockerfile = match (inline, path) {
            (Some(text), _) => Dockerfile::Inline(text),
            (None, Some(path)) => Dockerfile::Path(path.into()),
            (None, None) => Dockerfile::Default,
        };
        let texts = |key: &str| fields.texts(key).unwrap_or_default();
        let mut entitlements = texts("entitlements");
        if fields.flag("privileged")?.unwrap_or(false) {
            entitlements.push("security.insecure".to_owned());
        }
        let attestations = ["provenance", "sbom"]
            .into_iter()
            .filter_map(|kind| Some((kind.to_owned(), fields.text(kind)?)));
        let extensions = fields.map.into_iter();
        let extensions = extensions
            .filter(|entry| entry.key.starts_with("x-"))
            .map(|entry| (entry.key.clone(), entry.node.clone()));
        Ok(Self {
            context: fields
                .text("context")
                .unwrap_or_else(|| directory.to_string_lossy().into_owned()),
            dockerfile,
            target: fields.text("target").filter(|target| !target.is_empty()),
            args: fields.pairs("args"),
            additional_contexts: fields
                .pairs("additional_contexts")
                .into_iter()
                .map(|(name, location)| (name, location.unwrap_or_default()))
                .collect(),
            cache_from: texts("cache_from"),
            cache_to: texts("cache_to"),
            labels: fields.pairs("labels"),
            tags: texts("tags"),
            no_cache: fields.flag("no_cache")?.unwrap_or(false),
            no_cache_filter: texts("no_cache_filter"),
            pull: fields.flag("pull")?.unwrap_or(false),
            secrets: fields.each("secrets", Grant::read)?,
            ssh: fields.pairs("ssh"),
            network: fields.text("network").filter(|network| !network.is_empty()),
            shm_size_bytes: fields.size("shm_size")?,
            platforms: texts("platforms"),
            extra_hosts: texts("extra_hosts"),
            ulimits: service::ulimits(fields)?,
            entitlements,
            attestations: attestations.collect(),
            extensions: extensions.collect(),
            at: fields.at.clone(),
            dockerfile_and_inline,
        })
    }
}
