//! The flags of `larder compose`: those of `docker compose`.

use std::path::PathBuf;

use super::values::{self, KeyValue};
use crate::progress::Mode;

/// The flags of `larder compose`.
#[derive(Debug, clap::Args)]
pub(crate) struct ComposeArgs {
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
    #[command(subcommand)]
    pub(crate) command: ComposeCommand,
}

/// Which project is meant.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct ProjectArgs {
    /// Compose file, or `-` for standard input; later ones override earlier ones
    /// [env: COMPOSE_FILE] [default: compose.yaml]
    #[arg(short, long = "file", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Name of the project [env: COMPOSE_PROJECT_NAME] [default: the directory's]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) project_name: Option<String>,
    /// Directory that paths are relative to [default: the first file's]
    #[arg(long, value_name = "DIR")]
    pub(crate) project_directory: Option<PathBuf>,
    /// Profile to turn on, `*` for all [env: COMPOSE_PROFILES]
    #[arg(long = "profile", value_name = "PROFILE")]
    pub(crate) profiles: Vec<String>,
    /// File with variables [env: COMPOSE_ENV_FILES] [default: .env]
    #[arg(long = "env-file", value_name = "FILE")]
    pub(crate) env_files: Vec<PathBuf>,
    /// Steps that run at once; -1 for no limit of compose's
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true)]
    pub(crate) parallel: Option<i64>,
    /// How to show builds: auto, tty, plain, json or quiet
    #[arg(long, value_name = "MODE", value_parser = progress)]
    pub(crate) progress: Option<Mode>,
    #[arg(long, hide = true)]
    pub(crate) ansi: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) compatibility: bool,
    #[arg(long, hide = true)]
    pub(crate) all_resources: bool,
    #[arg(long, hide = true)]
    pub(crate) dry_run: bool,
}

/// Takes compose's name of the JSON form, too.
fn progress(text: &str) -> Result<Mode, String> {
    match text {
        "json" => Ok(Mode::RawJson),
        text => clap::ValueEnum::from_str(text, true)
            .map_err(|_: String| "expected auto, tty, plain, json or quiet".to_owned()),
    }
}

/// What to do with a project.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ComposeCommand {
    /// Build the images of services
    Build(Box<ComposeBuildArgs>),
    /// Show the project as it was understood
    #[command(visible_alias = "convert")]
    Config(ConfigArgs),
    /// Show the version
    Version(ComposeVersionArgs),
}

/// `larder compose config`
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigArgs {
    /// Only these services
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    /// `yaml` or `json`
    #[arg(long, value_name = "FORMAT", value_parser = ["yaml", "json"], default_value = "yaml")]
    pub(crate) format: String,
    /// Show nothing; only check
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Leave variables as they are
    #[arg(long)]
    pub(crate) no_interpolate: bool,
    /// List the services
    #[arg(long = "services")]
    pub(crate) list_services: bool,
    /// List the images
    #[arg(long)]
    pub(crate) images: bool,
    /// List the volumes
    #[arg(long)]
    pub(crate) volumes: bool,
    /// List the profiles
    #[arg(long)]
    pub(crate) profiles: bool,
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// `larder compose build`
#[derive(Debug, Default, clap::Args)]
pub(crate) struct ComposeBuildArgs {
    /// Services to build [default: all]
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    /// Build argument for all services; without a value, that of the environment
    #[arg(long = "build-arg", value_name = "KEY[=VALUE]", value_parser = values::key_value)]
    pub(crate) build_args: Vec<KeyValue>,
    /// Run all steps again
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Ask the registry for newer base images
    #[arg(long)]
    pub(crate) pull: bool,
    /// Push the images of services that have `image`
    #[arg(long)]
    pub(crate) push: bool,
    /// Show nothing
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Build the services that they depend on, too
    #[arg(long)]
    pub(crate) with_dependencies: bool,
    /// Show the bake definition that says the same, as JSON
    #[arg(long)]
    pub(crate) print: bool,
    /// Lend RUN steps the host's CA certificates and proxy settings
    #[arg(long)]
    pub(crate) host_ca: bool,
    /// Check the Dockerfiles and build nothing
    #[arg(long, hide = true)]
    pub(crate) check: bool,
    #[arg(long, hide = true, value_parser = progress)]
    pub(crate) progress: Option<Mode>,
    #[arg(long, hide = true)]
    pub(crate) ssh: Vec<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) provenance: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) sbom: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) builder: Option<String>,
    #[arg(short, long, hide = true)]
    pub(crate) memory: Option<String>,
    // These say what larder does anyway.
    #[arg(long, hide = true)]
    pub(crate) compress: bool,
    #[arg(long, hide = true)]
    pub(crate) rm: bool,
    #[arg(long, hide = true)]
    pub(crate) no_rm: bool,
    #[arg(long, hide = true)]
    pub(crate) force_rm: bool,
    #[arg(long, hide = true)]
    pub(crate) parallel: bool,
}

/// `larder compose version`
#[derive(Debug, clap::Args)]
pub(crate) struct ComposeVersionArgs {
    /// Show only the number
    #[arg(long)]
    pub(crate) short: bool,
}
