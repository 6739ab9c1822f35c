//! The command line: flags and verbs, read into plain values.

pub(crate) mod attest;
mod bake;
mod build;
pub(crate) mod cache;
mod call;
mod compose;
mod docker;
mod doctor;
mod llb;
pub(crate) mod output;
mod registry;
mod resources;
mod store;
pub(crate) mod values;

use std::ffi::OsString;
use std::mem::ManuallyDrop;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};

pub(crate) use attest::AttestArg;
pub(crate) use bake::{BakeArgs, Listed};
pub(crate) use build::{BuildArgs, ForeignArgs, NoCacheArg};
pub(crate) use cache::CacheFromArg;
pub(crate) use call::{CallArg, Method};
pub(crate) use compose::{
    ComposeArgs, ComposeBuildArgs, ComposeCommand, ComposeRunArgs, ComposeVersionArgs, ConfigArgs,
    DownArgs, LogsArgs, ProjectArgs, PsArgs, RemovedImages, ServicesArgs, TimeoutArgs, UpArgs,
};
pub(crate) use docker::{
    BuilderArgs, BuildersArgs, DfArgs, DockerCommand, DockerPruneArgs, ImagetoolsArgs, ShimCommand,
    ShimInstallArgs,
};
pub(crate) use doctor::DoctorArgs;
pub(crate) use llb::{LlbBuildArgs, LlbCommand, LlbDumpArgs};
pub(crate) use output::{OutputArg, OutputKind};
pub(crate) use registry::{LoginArgs, LogoutArgs, PullArgs, PushArgs};
pub(crate) use resources::{ResourceArg, ResourceArgs};
pub(crate) use store::{
    DuArgs, ExplainArgs, HistoryArgs, ImagesArgs, ImportArgs, InspectArgs, LoadArgs, PruneArgs,
    RmiArgs, RunArgs, SaveArgs, TagArgs,
};
pub(crate) use values::{HostArg, ImageFilter, KeyValue, SecretArg, SecretSource, SshArg};

/// Builds container images, and never does finished work twice.
#[derive(Debug, Parser)]
#[command(
    name = "larder",
    version,
    args_override_self = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the help lists them.
const GLOBAL: &str = "Global options";

/// Flags of every verb.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct GlobalArgs {
    /// State directory [env: LARDER_ROOT]
    #[arg(long, global = true, value_name = "DIR", help_heading = GLOBAL)]
    pub(crate) root: Option<PathBuf>,
    /// Configuration file [env: LARDER_CONFIG]
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub(crate) config: Option<PathBuf>,
    /// Show more of what happens and why
    #[arg(short = 'D', long, global = true, help_heading = GLOBAL)]
    pub(crate) debug: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    #[command(visible_alias = "b")]
    Build(Box<BuildArgs>),
    /// Build the targets of bake files
    #[command(visible_alias = "f")]
    Bake(Box<BakeArgs>),
    /// Build and run the services of a compose file
    Compose(Box<ComposeArgs>),
    /// Build and show LLB definitions
    #[command(subcommand)]
    Llb(LlbCommand),
    /// Tell what defeats the cache, what it costs, and how to mend it
    Doctor(DoctorArgs),
    /// Explain why the steps of the last build were not cached
    Explain(ExplainArgs),
    /// List images
    Images(ImagesArgs),
    /// Remove images
    Rmi(RmiArgs),
    /// Give an image further names
    Tag(TagArgs),
    /// Show images in full, as JSON
    Inspect(InspectArgs),
    /// Show how an image was made
    History(HistoryArgs),
    /// Write images to an archive
    Save(SaveArgs),
    /// Read images from an archive
    Load(LoadArgs),
    /// Read images from an archive, and name them
    Import(ImportArgs),
    /// Push an image to its registry
    Push(PushArgs),
    /// Pull an image from its registry
    Pull(PullArgs),
    /// Log in at a registry
    Login(LoginArgs),
    /// Log out from a registry
    Logout(LogoutArgs),
    /// Run a command in an image
    Run(Box<RunArgs>),
    /// Show what the cache holds and the disk space it takes
    Du(DuArgs),
    /// Remove records from the cache; cache mounts only if asked for
    Prune(PruneArgs),
    /// Answer the command lines of `docker`, `docker-compose` and `docker-buildx`
    #[command(subcommand)]
    Shim(ShimCommand),
    /// Show how steps run here: network, devices, snapshots
    Info,
    /// Show the version
    Version,
    #[command(subcommand, hide = true)]
    Docker(DockerCommand),
}

impl Cli {
    /// Parses the arguments of the process.
    ///
    /// # Errors
    /// With the text to show; asking for help or the version counts as one.
    pub(crate) fn from_arguments<I, T>(arguments: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString>,
    {
        // To take the definition apart would take as long as to read the arguments, and the process soon ends.
        let mut command = ManuallyDrop::new(accept_values(Self::command()));
        let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        let matches = command
            .try_get_matches_from_mut(&arguments)
            .map_err(|answer| plain_help(answer, &arguments))?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }
}

/// Lets all switches of a command take values, and the last of a repeated flag count; those of a verb when it is
/// the one that is called.
fn accept_values(command: clap::Command) -> clap::Command {
    command
        .args_override_self(true)
        .mut_args(accept_value)
        .mut_subcommands(|verb| verb.defer(accept_values))
}

/// Returns help without the values that switches may take: they would tell on each line what
/// hardly anyone needs.
fn plain_help(answer: clap::Error, arguments: &[OsString]) -> clap::Error {
    if answer.kind() != ErrorKind::DisplayHelp {
        return answer;
    }
    match Cli::command().try_get_matches_from(arguments) {
        Err(plain) if plain.kind() == ErrorKind::DisplayHelp => plain,
        _ => answer,
    }
}

/// Lets a switch take a value, `--pull=false`, as the flags of Docker's tools do.
fn accept_value(arg: Arg) -> Arg {
    if !matches!(arg.get_action(), ArgAction::SetTrue) {
        return arg;
    }
    arg.action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .default_value("false")
        .hide_default_value(true)
        .hide_possible_values(true)
        .value_name("BOOL")
        .value_parser(BoolishValueParser::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        Cli::from_arguments(std::iter::once("larder").chain(line.split_whitespace()))
            .map(|cli| cli.command)
            .map_err(|error| error.to_string())
    }

    fn build(line: &str) -> BuildArgs {
        match parse(&format!("build {line}")) {
            Ok(Command::Build(args)) => *args,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn switches_take_values_as_docker_s_do() {
        assert!(build("--pull .").pull);
        assert!(build("--pull=true .").pull);
        assert!(build("--pull=1 .").pull);
        assert!(!build("--pull=false .").pull);
        assert!(!build("--pull --pull=false .").pull);
        assert!(build("-q .").quiet);
        let error = parse("build --pull=maybe .").unwrap_err();
        assert!(error.contains("'maybe' for '--pull"), "{error}");
    }

    #[test]
    fn short_switches_join() {
        let Ok(Command::Prune(args)) = parse("prune -af") else {
            panic!("not a prune");
        };
        assert!(args.all && args.force);
    }

    #[test]
    fn the_last_of_a_repeated_flag_counts() {
        assert_eq!(
            build("--target a --target b .").target.as_deref(),
            Some("b")
        );
    }

    #[test]
    fn docker_s_other_flags_are_taken() {
        let args =
            build("--rm --force-rm=false -m 1g --memory-swap -1 --provenance=false --squash .");
        let notes = args.foreign.check().unwrap();
        assert_eq!(notes.len(), 1, "{notes:?}");
        let resources = args.resources.resources().unwrap();
        assert_eq!(
            (resources.memory_bytes, resources.memory_swap_bytes),
            (1 << 30, -1)
        );
    }

    #[test]
    fn global_flags_may_stand_anywhere() {
        for line in ["larder --root /r -D build .", "larder build --root /r -D ."] {
            let cli = Cli::from_arguments(line.split(' ')).unwrap();
            assert_eq!(cli.global.root, Some(PathBuf::from("/r")), "{line}");
            assert!(cli.global.debug);
        }
    }

    #[test]
    fn help_shows_switches_as_switches() {
        for line in ["build --help", "build -h", "build --pull=false --help"] {
            let help = parse(line).unwrap_err();
            assert!(help.contains("\n      --pull"), "{line}: {help}");
            assert_eq!(
                help.contains("[=<BOOL>]"),
                line.contains("=false"),
                "{line}"
            );
        }
    }

    #[test]
    fn no_cache_has_three_values() {
        assert_eq!(build(".").no_cache, NoCacheArg::Off);
        assert_eq!(build("--no-cache .").no_cache, NoCacheArg::All);
        assert_eq!(build("--no-cache=false .").no_cache, NoCacheArg::Off);
        assert_eq!(build("--no-cache=layers .").no_cache, NoCacheArg::Layers);
        let error = parse("build --no-cache=all .").unwrap_err();
        assert!(error.contains("expected true, false or layers"), "{error}");
    }

    #[test]
    fn the_context_is_required_and_only_one() {
        assert!(parse("build").unwrap_err().contains("CONTEXT"));
        assert!(parse("build a b").unwrap_err().contains("'b'"));
    }

    #[test]
    fn a_run_command_keeps_its_own_flags() {
        let Ok(Command::Run(args)) = parse("run --rm -v /v -e A=b python -c --rm -x") else {
            panic!("not a run");
        };
        assert_eq!(args.image, "python");
        assert_eq!(args.command, ["-c", "--rm", "-x"]);
    }

    #[test]
    fn every_wrong_value_names_its_flag() {
        for (line, flag) in [
            ("build --ulimit x .", "--ulimit"),
            ("build --resource x .", "--resource"),
            ("build --allow x .", "--allow"),
            ("build --shm-size x .", "--shm-size"),
            ("build --add-host x .", "--add-host"),
            ("build --secret src=x .", "--secret"),
            ("build --output type=nope .", "--output"),
            ("build --build-arg =x .", "--build-arg"),
            ("build --label = .", "--label"),
            ("build --network bridge .", "--network"),
            ("build --progress fancy .", "--progress"),
            ("build --platform a/b/c/d .", "--platform"),
            ("build -t A: .", "--tag"),
            ("build --build-context x .", "--build-context"),
            ("prune --max-used-space x", "--max-used-space"),
            ("du --filter =", "--filter"),
            ("du --timeout 5", "--timeout"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(flag), "{line}: {error}");
        }
    }
}
