//! The flags of `larder compose`: those of `docker compose`.

use std::path::PathBuf;

use super::attest::AttestArg;
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
    /// End the services of a project, and forget them
    Down(DownArgs),
    #[command(hide = true)]
    Exec(ExecArgs),
    /// Show what services write
    Logs(LogsArgs),
    /// List the services that run
    Ps(PsArgs),
    /// End services, and start them again
    Restart(ServicesArgs),
    /// Run one command in a service's container
    Run(Box<ComposeRunArgs>),
    /// Start services that were stopped
    Start(ServicesArgs),
    /// End services
    Stop(ServicesArgs),
    #[command(hide = true)]
    Supervise(SuperviseArgs),
    /// Start services, and follow what they write
    Up(Box<UpArgs>),
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
    /// List the volumes that are used
    #[arg(long)]
    pub(crate) volumes: bool,
    /// List the networks that are used
    #[arg(long)]
    pub(crate) networks: bool,
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
    #[arg(long)]
    pub(crate) check: bool,
    #[arg(long, hide = true, value_parser = progress)]
    pub(crate) progress: Option<Mode>,
    #[arg(long, hide = true)]
    pub(crate) ssh: Vec<String>,
    /// Say how images were made, as `larder build` does
    #[arg(long, value_name = "BOOL|KEY=VALUE", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = super::attest::provenance)]
    pub(crate) provenance: Option<AttestArg>,
    /// Say what images contain, as `larder build` does
    #[arg(long, value_name = "BOOL|KEY=VALUE", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = super::attest::sbom)]
    pub(crate) sbom: Option<AttestArg>,
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

/// `larder compose up`
#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
    /// Services to start, with those they need [default: all]
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    #[command(flatten)]
    pub(crate) timeout: TimeoutArgs,
    /// Leave the services running, and return
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Build images first
    #[arg(long)]
    pub(crate) build: bool,
    /// Build no image, even if it is missing
    #[arg(long, conflicts_with = "build")]
    pub(crate) no_build: bool,
    /// Do not start the services that they need
    #[arg(long)]
    pub(crate) no_deps: bool,
    /// Start services anew even if nothing changed
    #[arg(long)]
    pub(crate) force_recreate: bool,
    /// End services that are not in the file any more
    #[arg(long)]
    pub(crate) remove_orphans: bool,
    /// End all when one has ended
    #[arg(long, conflicts_with = "detach")]
    pub(crate) abort_on_container_exit: bool,
    /// End all when one has ended, and exit with this one's code
    #[arg(long, value_name = "SERVICE", conflicts_with = "detach")]
    pub(crate) exit_code_from: Option<String>,
    /// Show only what this service writes
    #[arg(long, value_name = "SERVICE")]
    pub(crate) attach: Vec<String>,
    /// Do not show what this service writes
    #[arg(long, value_name = "SERVICE")]
    pub(crate) no_attach: Vec<String>,
    /// Wait until all run and are healthy; implies --detach
    #[arg(long)]
    pub(crate) wait: bool,
    /// Show lines without the services' names
    #[arg(long)]
    pub(crate) no_log_prefix: bool,
    /// Show names without colour
    #[arg(long)]
    pub(crate) no_color: bool,
    /// Lend RUN steps and services the host's CA certificates and proxy settings
    #[arg(long)]
    pub(crate) host_ca: bool,
    // These say what larder does anyway.
    #[arg(long, hide = true)]
    pub(crate) quiet_pull: bool,
    #[arg(short = 'V', long, hide = true)]
    pub(crate) renew_anon_volumes: bool,
    #[arg(short = 'y', long, hide = true)]
    pub(crate) yes: bool,
}

/// `larder compose down`
#[derive(Debug, clap::Args)]
pub(crate) struct DownArgs {
    /// Services to end [default: all]
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    #[command(flatten)]
    pub(crate) timeout: TimeoutArgs,
    /// Remove the project's named volumes, too
    #[arg(short, long)]
    pub(crate) volumes: bool,
    /// End services that are not in the file any more
    #[arg(long)]
    pub(crate) remove_orphans: bool,
    /// Remove the services' images, too: all, or those that have no name in the file
    #[arg(long, value_name = "WHICH")]
    pub(crate) rmi: Option<RemovedImages>,
}

/// Which images `larder compose down` removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RemovedImages {
    /// Those of all services
    All,
    /// Those that the file gives no name
    Local,
}

/// `larder compose stop`, `start` and `restart`
#[derive(Debug, clap::Args)]
pub(crate) struct ServicesArgs {
    /// Services [default: all]
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    #[command(flatten)]
    pub(crate) timeout: TimeoutArgs,
}

/// How long services may take to end.
#[derive(Debug, Default, Clone, Copy, clap::Args)]
pub(crate) struct TimeoutArgs {
    /// Seconds after which services are killed that do not end [default: their own grace period]
    #[arg(short, long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
}

/// `larder compose logs`
#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    /// Services [default: all]
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    /// Go on while they run
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Begin with so many lines of each, `all` for all
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = tail)]
    pub(crate) tail: Option<usize>,
    /// Show lines without the services' names
    #[arg(long)]
    pub(crate) no_log_prefix: bool,
    /// Show names without colour
    #[arg(long)]
    pub(crate) no_color: bool,
}

fn tail(text: &str) -> Result<usize, String> {
    match text {
        "all" | "-1" => Ok(usize::MAX),
        text => text
            .parse()
            .map_err(|_| "expected a number of lines, or all".to_owned()),
    }
}

/// `larder compose ps`
#[derive(Debug, clap::Args)]
pub(crate) struct PsArgs {
    /// Services [default: all]
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    /// Services that have ended, too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// `table`, `json`, or a template such as `{{.Name}} {{.State}}`
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "table",
        hide_default_value = true
    )]
    pub(crate) format: String,
    /// Show only names
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show only the names of services
    #[arg(long = "services")]
    pub(crate) list_services: bool,
}

/// `larder compose run`
#[derive(Debug, clap::Args)]
pub(crate) struct ComposeRunArgs {
    /// Build images first
    #[arg(long)]
    pub(crate) build: bool,
    /// Program to run in place of the entry point
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Variable of the environment; without a value, that of larder's environment
    #[arg(short, long = "env", value_name = "NAME[=VALUE]", value_parser = values::key_value)]
    pub(crate) env: Vec<KeyValue>,
    /// Do not start the services that it needs
    #[arg(long)]
    pub(crate) no_deps: bool,
    /// User, `NAME|UID[:GROUP|GID]`
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Directory or file to mount, `HOST:TARGET[:ro]`
    #[arg(short, long = "volume", value_name = "VOLUME", value_parser = values::volume)]
    pub(crate) volumes: Vec<larder_engine::Volume>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Lend the command the host's CA certificates and proxy settings
    #[arg(long)]
    pub(crate) host_ca: bool,
    #[arg(short, long, hide = true)]
    pub(crate) detach: bool,
    // These say what larder does anyway.
    #[arg(long, hide = true)]
    pub(crate) rm: bool,
    #[arg(short = 'T', long = "no-TTY", alias = "no-tty", hide = true)]
    pub(crate) no_tty: bool,
    #[arg(short, long, hide = true)]
    pub(crate) interactive: bool,
    #[arg(short = 'P', long, hide = true)]
    pub(crate) service_ports: bool,
    /// The service
    #[arg(value_name = "SERVICE")]
    pub(crate) service: String,
    /// Command and arguments [default: the service's]
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) command: Vec<String>,
}

/// `larder compose exec`
#[derive(Debug, clap::Args)]
pub(crate) struct ExecArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) words: Vec<String>,
}

/// What starts the process that runs one service.
#[derive(Debug, clap::Args)]
pub(crate) struct SuperviseArgs {
    /// The service's directory
    pub(crate) directory: PathBuf,
}
