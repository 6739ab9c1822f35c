//! The flags of `larder llb`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use larder_engine::request::Entitlement;
use larder_oci::ImageRef;

use super::cache::{CacheFromArg, CacheToArg};
use super::output::OutputArg;
use super::values::{self, KeyValue, SecretArg, SshArg};
use crate::progress::Mode;

/// What is done with an LLB definition.
#[derive(Debug, Subcommand)]
pub(crate) enum LlbCommand {
    /// Build an LLB definition
    Build(Box<LlbBuildArgs>),
    /// Show an LLB definition as JSON
    Dump(LlbDumpArgs),
}

/// `larder llb build`: those flags of `buildctl build` that concern definitions.
#[derive(Debug, Args)]
pub(crate) struct LlbBuildArgs {
    /// File with the definition, `-` for standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub(crate) file: PathBuf,
    /// Directory of a local source
    #[arg(long = "local", value_name = "NAME=DIR", value_parser = values::key_value)]
    pub(crate) locals: Vec<KeyValue>,
    /// Directory of an OCI layout, by the name that sources have for it
    #[arg(long = "oci-layout", value_name = "NAME=DIR", value_parser = values::key_value)]
    pub(crate) layouts: Vec<KeyValue>,
    /// Name of the image, `name:tag`
    #[arg(short, long = "tag", value_name = "NAME", value_parser = values::image_ref)]
    pub(crate) tags: Vec<ImageRef>,
    /// Where the result goes: a directory, or `type=image|registry|oci|docker|tar|local[,dest=PATH]`
    /// [default: the cache; for an image with a name, the local image store]
    #[arg(short, long = "output", value_name = "DEST", value_parser = super::output::parse)]
    pub(crate) outputs: Vec<OutputArg>,
    /// Run all steps again
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Further cache to take results from: a name in a registry, or
    /// `type=registry|local[,ref=NAME][,src=DIR]`
    #[arg(long = "cache-from", visible_alias = "import-cache", value_name = "CACHE",
          value_parser = super::cache::cache_from)]
    pub(crate) cache_from: Vec<CacheFromArg>,
    /// Where to write a cache for other machines: a name in a registry, or
    /// `type=registry|local|inline[,ref=NAME][,dest=DIR][,mode=max]`
    #[arg(long = "cache-to", visible_alias = "export-cache", value_name = "CACHE",
          value_parser = super::cache::cache_to)]
    pub(crate) cache_to: Vec<CacheToArg>,
    /// Rules for what may be fetched, as JSON [env: EXPERIMENTAL_BUILDKIT_SOURCE_POLICY]
    #[arg(long, value_name = "FILE")]
    pub(crate) source_policy_file: Option<PathBuf>,
    /// Secret that steps can mount
    #[arg(long = "secret", value_name = "id=ID[,src=FILE|,env=NAME]", value_parser = values::secret)]
    pub(crate) secrets: Vec<SecretArg>,
    /// SSH agent or keys that steps can mount, and sources are fetched with
    #[arg(long = "ssh", value_name = "default|ID[=SOCKET|KEY[,KEY]]", value_parser = values::ssh)]
    pub(crate) ssh: Vec<SshArg>,
    /// Let steps do more than usual: `network.host`, `security.insecure`, `device[=NAME]`
    #[arg(long = "allow", value_name = "ENTITLEMENT", value_parser = values::entitlement)]
    pub(crate) allowed: Vec<Entitlement>,
    /// How to show the build: auto, tty, plain, quiet, none or rawjson [env: BUILDKIT_PROGRESS]
    #[arg(long, value_name = "MODE", hide_possible_values = true)]
    pub(crate) progress: Option<Mode>,
    /// Show nothing but the image's id
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Write what came of the build to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
}

/// `larder llb dump`
#[derive(Debug, Args)]
pub(crate) struct LlbDumpArgs {
    /// File with the definition, `-` for standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub(crate) file: PathBuf,
    /// Show it in the language of Graphviz
    #[arg(long)]
    pub(crate) dot: bool,
}
