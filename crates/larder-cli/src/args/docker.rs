//! The flags of `larder shim`, and of what only Docker's command lines ask for.

use std::path::PathBuf;

use clap::Subcommand;

use super::values;

/// `larder shim`
#[derive(Debug, Subcommand)]
pub(crate) enum ShimCommand {
    /// Make `docker`, `docker-compose` and `docker-buildx` in a directory: links to larder, which
    /// then answers Docker's command lines
    Install(ShimInstallArgs),
}

/// `larder shim install`
#[derive(Debug, clap::Args)]
pub(crate) struct ShimInstallArgs {
    /// Directory, made if it is not there; put it into `PATH`
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Replace what is there
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// Verbs that Docker's command lines are put into, where larder has none of its own.
#[derive(Debug, Subcommand)]
pub(crate) enum DockerCommand {
    Verbs,
    Line(NameArgs),
    Plugin(NameArgs),
    Version(FormatArgs),
    Info(FormatArgs),
    Df(DfArgs),
    ImagePrune(DockerPruneArgs),
    SystemPrune(DockerPruneArgs),
    BuildxVersion(BuilderArgs),
    ComposeVersion(ComposeVersionArgs),
    Builders(BuildersArgs),
    Builder(BuilderArgs),
    ImagetoolsInspect(ImagetoolsArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct NameArgs {
    pub(crate) name: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct FormatArgs {
    #[arg(short, long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ComposeVersionArgs {
    #[arg(long)]
    pub(crate) short: bool,
    #[arg(short, long, value_parser = ["pretty", "json"])]
    pub(crate) format: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DfArgs {
    #[arg(short, long)]
    pub(crate) verbose: bool,
    #[arg(long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DockerPruneArgs {
    #[arg(short, long)]
    pub(crate) all: bool,
    #[arg(short, long)]
    pub(crate) force: bool,
    #[arg(long)]
    pub(crate) volumes: bool,
    #[arg(long = "filter", value_parser = values::filter)]
    pub(crate) filters: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct BuildersArgs {
    #[arg(long)]
    pub(crate) format: Option<String>,
    #[arg(long)]
    pub(crate) no_trunc: bool,
    #[arg(long)]
    pub(crate) builder: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct BuilderArgs {
    pub(crate) name: Option<String>,
    #[arg(long)]
    pub(crate) bootstrap: bool,
    #[arg(long)]
    pub(crate) builder: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ImagetoolsArgs {
    #[arg(value_parser = values::image_ref)]
    pub(crate) name: larder_oci::ImageRef,
    #[arg(long)]
    pub(crate) raw: bool,
    #[arg(long)]
    pub(crate) format: Option<String>,
    #[arg(long)]
    pub(crate) builder: Option<String>,
}
