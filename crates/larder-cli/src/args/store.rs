//! The flags of the verbs that work on the store.

use std::path::PathBuf;

use jiff::SignedDuration;
use larder_engine::Volume;
use larder_oci::{ImageRef, Platform};

use super::values::{self, EnvArg, ImageFilter};

/// `larder images`
#[derive(Debug, clap::Args)]
pub(crate) struct ImagesArgs {
    /// Only images of this name
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: Option<String>,
    /// Show ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Only images that match: `dangling=true` for those without a name, `reference=NAME[:TAG]`
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = values::image_filter)]
    pub(crate) filters: Vec<ImageFilter>,
    /// Accepted as Docker's: there are no others than those shown.
    #[arg(short, long, hide = true)]
    all: bool,
    /// Show ids in full
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// `table`, `json`, or a template such as `{{.Repository}}:{{.Tag}}`
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

/// `larder rmi`
#[derive(Debug, clap::Args)]
pub(crate) struct RmiArgs {
    /// Names or ids
    #[arg(
        value_name = "IMAGE",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    pub(crate) images: Vec<String>,
    /// Remove all images
    #[arg(short, long, default_value = "false")]
    pub(crate) all: bool,
    /// Remove an image by id even if it has several names
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// `larder tag`
#[derive(Debug, clap::Args)]
pub(crate) struct TagArgs {
    /// Name or id
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// The further names
    #[arg(value_name = "NAME", required = true, value_parser = values::image_ref)]
    pub(crate) names: Vec<ImageRef>,
}

/// `larder inspect`
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
    /// The platform, where there are images for several [default: this machine's]
    #[arg(long, value_name = "PLATFORM", value_parser = values::platform)]
    pub(crate) platform: Option<Platform>,
    /// `json`, or a template such as `{{.Id}}`
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

/// `larder history`
#[derive(Debug, clap::Args)]
pub(crate) struct HistoryArgs {
    /// Name or id
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// The platform, where there are images for several [default: this machine's]
    #[arg(long, value_name = "PLATFORM", value_parser = values::platform)]
    pub(crate) platform: Option<Platform>,
    /// Show ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show all in full
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// `table`, `json`, or a template such as `{{.CreatedBy}}`
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

/// `larder save`
#[derive(Debug, clap::Args)]
pub(crate) struct SaveArgs {
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
    /// Save the image for one platform only [default: all that are stored]
    #[arg(long, value_name = "PLATFORM", value_parser = values::platform)]
    pub(crate) platform: Option<Platform>,
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// `larder load`
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// File to read [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Show nothing
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `larder import`
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// Archive: an OCI layout, or what `docker save` writes; `-` for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: String,
    /// Names to give, in place of those in the archive
    #[arg(value_name = "NAME", value_parser = values::image_ref)]
    pub(crate) names: Vec<ImageRef>,
}

/// `larder run`
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Variable of the environment; without a value, that of larder's environment
    #[arg(short, long = "env", value_name = "NAME[=VALUE]", value_parser = values::key_value)]
    pub(crate) env: Vec<EnvArg>,
    /// Directory or file to mount, `HOST:TARGET[:ro]`, or `TARGET` alone for an empty volume
    #[arg(short, long = "volume", value_name = "VOLUME", value_parser = values::volume)]
    pub(crate) volumes: Vec<Volume>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User, `NAME|UID[:GROUP|GID]`
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Program to run in place of the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// The platform, where there are images for several [default: this machine's]
    #[arg(long, value_name = "PLATFORM", value_parser = values::platform)]
    pub(crate) platform: Option<Platform>,
    /// Lend the command the host's CA certificates and proxy settings
    #[arg(long)]
    pub(crate) host_ca: bool,
    /// Forget what the command wrote, when it ends; what happens by default
    #[arg(long)]
    pub(crate) rm: bool,
    /// Accepted as Docker's: the command has larder's streams, be they a terminal or not.
    #[arg(short, long, hide = true)]
    interactive: bool,
    #[arg(short, long, hide = true)]
    tty: bool,
    #[arg(long, hide = true)]
    name: Option<String>,
    #[arg(long, hide = true)]
    init: bool,
    #[arg(short, long, hide = true)]
    pub(crate) detach: bool,
    #[arg(short, long, hide = true)]
    pub(crate) publish: Vec<String>,
    #[arg(long, hide = true, alias = "net")]
    pub(crate) network: Option<String>,
    /// Name or id
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Command and arguments [default: the image's]
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) command: Vec<String>,
}

/// `larder du`
#[derive(Debug, clap::Args)]
pub(crate) struct DuArgs {
    /// Only records that match, `type=exec.cachemount`
    #[arg(long = "filter", value_name = "KEY=VALUE", value_parser = values::filter)]
    pub(crate) filters: Vec<String>,
    /// `table`, `pretty`, `json`, or a template such as `{{.ID}} {{.Size}}`
    #[arg(long, value_name = "FORMAT", conflicts_with = "verbose")]
    pub(crate) format: Option<String>,
    /// Show records in full: `--format=pretty`
    #[arg(long)]
    pub(crate) verbose: bool,
    #[arg(long, hide = true, value_name = "DURATION", value_parser = values::duration)]
    pub(crate) timeout: Option<SignedDuration>,
    /// Accepted as buildx's: there is one builder.
    #[arg(long, hide = true)]
    builder: Option<String>,
}

/// `larder prune`
#[derive(Debug, clap::Args)]
pub(crate) struct PruneArgs {
    /// Cache mounts, internal records and shared ones too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only records that match, `until=24h`; `type=exec.cachemount` for cache mounts
    #[arg(long = "filter", value_name = "KEY=VALUE", value_parser = values::filter)]
    pub(crate) filters: Vec<String>,
    /// What the cache may always keep
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub(crate) reserved_space: Option<u64>,
    /// What `--reserved-space` was called.
    #[arg(long, hide = true, value_parser = values::size)]
    pub(crate) keep_storage: Option<u64>,
    /// The most the cache may keep
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub(crate) max_used_space: Option<u64>,
    /// What shall be free on the disk
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub(crate) min_free_space: Option<u64>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Show records in full
    #[arg(long)]
    pub(crate) verbose: bool,
    #[arg(long, hide = true, value_name = "DURATION", value_parser = values::duration)]
    pub(crate) timeout: Option<SignedDuration>,
    /// Accepted as buildx's: there is one builder.
    #[arg(long, hide = true)]
    builder: Option<String>,
}

/// `larder explain`
#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    /// Only this step: its number, or a part of its name
    #[arg(value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// `text` or `json`
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json"], default_value = "text")]
    pub(crate) format: String,
}
