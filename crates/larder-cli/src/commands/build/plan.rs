//! From flags and environment to a request.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use larder_engine::request::{
    Attestations, BuildRequest, NamedContext, NoCache, NoCacheSteps, ProvenanceMode,
};
use larder_oci::Platform;

use super::input::{self, Stdin};
use super::secrets::FlagSecrets;
use super::ssh::{self, FlagSsh};
use super::{outputs, proxies, vcs};
use crate::args::{
    AttestArg, BuildArgs, CacheFromArg, CallArg, HostArg, KeyValue, Method, NoCacheArg, attest,
};
use crate::commands::Context;
use crate::environment::Environment;
use crate::progress::{Colors, Mode, Options};

/// Lines of output shown of each running step, unless `BUILDKIT_TTY_LOG_LINES` says otherwise.
const DEFAULT_LOG_LINES: usize = 6;
/// The build argument that dates an image; taken from the environment by itself.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// All that a build needs to begin.
pub(crate) struct Plan {
    pub(crate) request: BuildRequest,
    pub(crate) mode: Mode,
    pub(crate) display: Options,
    pub(crate) iidfile: Option<PathBuf>,
    pub(crate) metadata_file: Option<PathBuf>,
    /// Whether the metadata file has the warnings, too.
    pub(crate) metadata_warnings: bool,
    /// What to do in place of building.
    pub(crate) call: Option<CallArg>,
    /// What to tell the user before it begins.
    pub(crate) notes: Vec<String>,
}

impl Plan {
    /// Checks the flags and reads what they name.
    ///
    /// # Errors
    /// Names the flag whose value can't be used.
    pub(crate) fn new(
        args: BuildArgs,
        context: &Context<'_>,
        stdin: Stdin,
    ) -> anyhow::Result<Self> {
        let env = context.env;
        let mut notes = args.foreign.check().map_err(|problem| anyhow!(problem))?;
        let mode = display_mode(args.progress, args.quiet, env)?;
        let display = display_options(context, &mut notes);
        notes.extend(args.cache_to.iter().filter_map(|to| to.note.clone()));
        let (context_source, dockerfile) =
            input::resolve(&args.context, args.file.as_deref(), stdin)?;
        let outputs = outputs::resolve(&args)?;
        for (_, context) in &args.build_contexts {
            if let NamedContext::Directory(directory) = context {
                input::require_directory("--build-context", directory)?;
            }
        }
        let agents = ssh::for_context(&args.context, args.ssh);
        let attests: Vec<AttestArg> = args
            .attests
            .into_iter()
            .chain(args.provenance)
            .chain(args.sbom)
            .collect();
        let attestations = attestations(&attests, args.metadata_file.is_some(), env)?;
        let mut request = BuildRequest {
            llb: None,
            context: context_source,
            dockerfile,
            named_contexts: args.build_contexts.into_iter().collect(),
            target: args.target.filter(|target| !target.is_empty()),
            build_args: build_args(args.build_args, env, &mut notes),
            labels: args
                .labels
                .into_iter()
                .map(|label| (label.key, label.value.unwrap_or_default()))
                .collect(),
            platforms: platforms(&args.platforms, env)?,
            no_cache: no_cache(args.no_cache, args.no_cache_filters),
            pull: args.pull,
            network: args.network,
            extra_hosts: args.add_hosts.into_iter().map(extra_host).collect(),
            shm_size_bytes: args.shm_size.filter(|size| *size > 0),
            ulimits: args.ulimits,
            cgroup_parent: args.cgroup_parent.filter(|parent| !parent.is_empty()),
            resources: args
                .resources
                .resources()
                .map_err(|problem| anyhow!(problem))?,
            entitlements: args.allowed,
            host_ca: args.host_ca,
            secrets: Arc::new(FlagSecrets::new(args.secrets, env)?),
            ssh: Arc::new(FlagSsh::new(agents, env)?),
            tags: args.tags,
            outputs,
            cache_imports: args
                .cache_from
                .into_iter()
                .flat_map(|CacheFromArg(imports)| imports)
                .collect(),
            cache_exports: args.cache_to.into_iter().map(|to| to.export).collect(),
            attestations,
            source_policy: context.source_policy()?,
        };
        vcs::describe(&mut request, env, &mut notes);
        Ok(Self {
            request,
            mode,
            display,
            iidfile: args.iidfile,
            metadata_file: args.metadata_file,
            metadata_warnings: matches!(
                env.get("BUILDX_METADATA_WARNINGS"),
                Some("1" | "t" | "T" | "true" | "TRUE" | "True")
            ),
            call: call(args.check, args.call),
            notes,
        })
    }
}

/// Returns what is attested: what is asked for, else what the environment leaves of the default.
pub(crate) fn attestations(
    asked: &[AttestArg],
    writes_metadata: bool,
    env: &Environment,
) -> anyhow::Result<Attestations> {
    let declined = env.get("BUILDX_NO_DEFAULT_ATTESTATIONS");
    let has_default = !declined.and_then(attest::truth).unwrap_or(false);
    let mut attestations =
        attest::resolve(asked, has_default).map_err(|problem| anyhow!(problem))?;
    if writes_metadata {
        attestations.told = match env.get("BUILDX_METADATA_PROVENANCE") {
            Some("max") => Some(ProvenanceMode::Max),
            Some("disabled" | "false" | "0") => None,
            _ => Some(ProvenanceMode::Min),
        };
    }
    Ok(attestations)
}

/// Returns what is done in place of building, if something is.
fn call(check: bool, call: Option<CallArg>) -> Option<CallArg> {
    if check {
        return Some(CallArg::CHECK);
    }
    call.filter(|call| call.method != Method::Build)
}

/// Returns how a build is shown: as `--progress` and `--quiet` say, else the environment.
pub(crate) fn display_mode(
    progress: Option<Mode>,
    quiet: bool,
    env: &Environment,
) -> anyhow::Result<Mode> {
    let asked = match progress {
        Some(mode) => mode,
        None => env
            .non_empty("BUILDKIT_PROGRESS")
            .map(|text| {
                clap::ValueEnum::from_str(text, true).map_err(|_: String| {
                    anyhow!("BUILDKIT_PROGRESS: `{text}` is no way to show a build")
                })
            })
            .transpose()?
            .unwrap_or(Mode::Auto),
    };
    match (quiet, asked) {
        (false, Mode::Tty) if !crate::output::stderr_is_terminal() => {
            bail!("`--progress tty`: standard error is no terminal")
        }
        (false, mode) => Ok(mode.resolve()),
        (true, Mode::Auto | Mode::Quiet) => Ok(Mode::Quiet),
        // The environment asks for every build; a flag for this one.
        (true, _) if progress.is_none() => Ok(Mode::Quiet),
        (true, _) => bail!("`--progress` and `--quiet` cannot be used together"),
    }
}

/// Returns what the environment says about the display, and adds to `notes` what is wrong with it,
/// and what it says in vain.
pub(crate) fn display_options(context: &Context<'_>, notes: &mut Vec<String>) -> Options {
    let env = context.env;
    let (colors, problems) = Colors::parse(env.get("BUILDKIT_COLORS").unwrap_or_default());
    notes.extend(problems);
    if matches!(env.get("DOCKER_BUILDKIT"), Some("0" | "false")) {
        notes.push("`DOCKER_BUILDKIT` is ignored: there is one builder".to_owned());
    }
    let log_lines = env
        .get("BUILDKIT_TTY_LOG_LINES")
        .and_then(|text| text.parse().ok())
        .filter(|lines| *lines > 0);
    Options {
        heading: "building with \"default\" instance using larder driver".to_owned(),
        colors: (!env.no_color()).then_some(colors),
        log_lines: log_lines.unwrap_or(DEFAULT_LOG_LINES),
        debug: context.global.debug,
    }
}

/// Takes values that flags leave out from the environment; those it lacks are not passed at all.
/// What no flag sets comes from the environment and Docker's configuration.
pub(crate) fn build_args(
    args: Vec<KeyValue>,
    env: &Environment,
    notes: &mut Vec<String>,
) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = args
        .into_iter()
        .filter_map(|KeyValue { key, value }| {
            let value = value.or_else(|| env.get(&key).map(str::to_owned))?;
            Some((key, value))
        })
        .collect();
    let proxies = env
        .docker_config()
        .map_or(Ok(Vec::new()), |directory| proxies::build_args(&directory));
    let proxies = proxies.unwrap_or_else(|error| {
        notes.push(format!("{error:#}"));
        Vec::new()
    });
    for (key, value) in proxies.into_iter().chain(epoch(env)) {
        if !pairs.iter().any(|(given, _)| *given == key) {
            pairs.push((key, value));
        }
    }
    pairs
}

/// Returns the build argument that dates an image, if the environment has it.
pub(crate) fn epoch(env: &Environment) -> Option<(String, String)> {
    let epoch = env.non_empty(EPOCH)?;
    Some((EPOCH.to_owned(), epoch.to_owned()))
}

/// Returns what the image is for, each platform once: what is asked, else what the environment
/// says.
pub(crate) fn platforms(asked: &[Platform], env: &Environment) -> anyhow::Result<Vec<Platform>> {
    if let ([], Some(text)) = (asked, env.non_empty("DOCKER_DEFAULT_PLATFORM")) {
        let platforms = text.split(',').map(str::parse);
        let platforms: Result<Vec<_>, _> = platforms.collect();
        return platforms.context("DOCKER_DEFAULT_PLATFORM");
    }
    let mut platforms: Vec<Platform> = Vec::new();
    for platform in asked {
        if !platforms.contains(platform) {
            platforms.push(platform.clone());
        }
    }
    Ok(platforms)
}

fn no_cache(asked: NoCacheArg, stages: Vec<String>) -> NoCache {
    let steps = match asked {
        NoCacheArg::All | NoCacheArg::Layers => NoCacheSteps::All,
        NoCacheArg::Off if stages.is_empty() => NoCacheSteps::None,
        NoCacheArg::Off => NoCacheSteps::Stages(stages),
    };
    NoCache {
        steps,
        keep_cache_mounts: asked == NoCacheArg::Layers,
    }
}

/// Returns a line of `/etc/hosts`; what `host-gateway` is depends on the network.
pub(crate) fn extra_host(host: HostArg) -> (String, String) {
    (host.name, host.address)
}

#[cfg(test)]
mod tests {
    use std::cell::OnceCell;

    use larder_engine::request::{ContextSource, DockerfileSource, Output};

    use super::*;
    use crate::args::{Cli, Command};

    fn plan_with(env: &[(&str, &str)], line: &str, stdin: &'static [u8]) -> anyhow::Result<Plan> {
        let words = std::iter::once("larder").chain(line.split_whitespace());
        let cli = Cli::from_arguments(words).unwrap();
        let Command::Build(args) = cli.command else {
            panic!("not a build: {line}");
        };
        let context = Context {
            global: cli.global,
            env: &Environment::of(env),
            source_policy: OnceCell::new(),
        };
        Plan::new(*args, &context, Box::new(stdin))
    }

    fn plan(line: &str) -> Plan {
        plan_with(&[], line, b"").unwrap_or_else(|error| panic!("{line}: {error:#}"))
    }

    fn error(line: &str) -> String {
        match plan_with(&[], line, b"") {
            Ok(_) => panic!("{line}: no error"),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn a_plain_build_goes_to_the_store() {
        let plan = plan("build -t a -t b:1 .");
        assert!(
            matches!(&plan.request.outputs[..], [Output::Image(image)] if image.push.is_none())
        );
        assert!(matches!(plan.request.context, ContextSource::Directory(_)));
        assert!(matches!(plan.request.dockerfile, DockerfileSource::Default));
        let tags: Vec<_> = plan.request.tags.iter().map(ToString::to_string).collect();
        assert_eq!(
            tags,
            ["docker.io/library/a:latest", "docker.io/library/b:1"]
        );
    }

    #[test]
    fn build_args_come_from_the_environment_too() {
        let env = [("FROM_ENV", "x"), (EPOCH, "5")];
        let plan = plan_with(
            &env,
            "build --build-arg A=1 --build-arg FROM_ENV --build-arg UNSET --build-arg E= .",
            b"",
        )
        .unwrap();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            plan.request.build_args,
            [
                pair("A", "1"),
                pair("FROM_ENV", "x"),
                pair("E", ""),
                pair(EPOCH, "5")
            ]
        );
        let own = plan_with(&env, "build --build-arg SOURCE_DATE_EPOCH=7 .", b"").unwrap();
        assert_eq!(own.request.build_args, [pair(EPOCH, "7")]);
    }

    #[test]
    fn proxies_come_from_docker_s_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.json");
        let env = [("DOCKER_CONFIG", directory.path().to_str().unwrap())];
        fs_err::write(
            &config,
            r#"{"proxies": {"default": {"httpsProxy": "http://p"}}}"#,
        )
        .unwrap();
        let plan = plan_with(&env, "build --build-arg HTTPS_PROXY=mine .", b"").unwrap();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            plan.request.build_args,
            [pair("HTTPS_PROXY", "mine"), pair("https_proxy", "http://p")]
        );
        fs_err::write(&config, "{").unwrap();
        let plan = plan_with(&env, "build .", b"").unwrap();
        assert!(plan.request.build_args.is_empty());
        assert!(plan.notes[0].contains("cannot read proxies"));
    }

    #[test]
    fn no_cache_and_its_filters() {
        for (line, steps, keep) in [
            ("build .", NoCacheSteps::None, false),
            ("build --no-cache .", NoCacheSteps::All, false),
            ("build --no-cache=layers .", NoCacheSteps::All, true),
            (
                "build --no-cache-filter a,b .",
                NoCacheSteps::Stages(vec!["a".to_owned(), "b".to_owned()]),
                false,
            ),
        ] {
            let expected = NoCache {
                steps,
                keep_cache_mounts: keep,
            };
            assert_eq!(plan(line).request.no_cache, expected, "{line}");
        }
    }

    #[test]
    fn quiet_wins_over_the_environment_but_not_over_a_flag() {
        let env = [("BUILDKIT_PROGRESS", "plain")];
        assert_eq!(plan_with(&env, "build .", b"").unwrap().mode, Mode::Plain);
        assert_eq!(
            plan_with(&env, "build -q .", b"").unwrap().mode,
            Mode::Quiet
        );
        assert!(error("build -q --progress plain .").contains("cannot be used together"));
        let bad = plan_with(&[("BUILDKIT_PROGRESS", "fancy")], "build .", b"");
        assert!(
            bad.err()
                .unwrap()
                .to_string()
                .contains("BUILDKIT_PROGRESS: `fancy`")
        );
    }

    #[test]
    fn the_platform_of_the_environment_is_the_default() {
        let env = [("DOCKER_DEFAULT_PLATFORM", "linux/arm64")];
        for (line, expected) in [
            ("build .", &["linux/arm64"][..]),
            ("build --platform linux/amd64 .", &["linux/amd64"]),
            (
                "build --platform linux/arm/v6,linux/amd64 --platform linux/x86_64 .",
                &["linux/arm/v6", "linux/amd64"],
            ),
        ] {
            let platforms = plan_with(&env, line, b"").unwrap().request.platforms;
            let platforms: Vec<String> = platforms.iter().map(ToString::to_string).collect();
            assert_eq!(platforms, expected, "{line}");
        }
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (line, expected) in [
            (
                "build /does/not/exist",
                "path \"/does/not/exist\" not found",
            ),
            ("build -f - -", "standard input"),
            (
                "build --build-context a=/does/not/exist .",
                "--build-context",
            ),
            ("build --secret id=a,src=/does/not/exist .", "`a`"),
            ("build --iidfile i -o out .", "`--iidfile`"),
            ("build -o - -o type=oci,dest=- .", "standard output"),
            ("build -q -o - .", "standard output"),
        ] {
            let message = error(line);
            assert!(message.contains(expected), "{line}: {message}");
        }
    }

    #[test]
    fn caches_are_asked_for_as_given() {
        let plan = plan("build --cache-from a,b --cache-from c --cache-to type=inline,mode=x .");
        assert_eq!(plan.request.cache_imports.len(), 3);
        assert_eq!(plan.request.cache_exports.len(), 1);
        assert_eq!(plan.notes.len(), 1, "{:?}", plan.notes);
    }

    #[test]
    fn standard_input_is_the_context_or_the_dockerfile() {
        let context = plan_with(&[], "build -f d/File -", b"bytes")
            .unwrap()
            .request;
        assert!(
            matches!(context.dockerfile, DockerfileSource::Path(path) if path.ends_with("d/File"))
        );
        let ContextSource::Stream(mut stream) = context.context else {
            panic!("no stream");
        };
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"bytes");

        let given = plan_with(&[], "build -f - .", b"FROM a").unwrap().request;
        assert!(matches!(given.dockerfile, DockerfileSource::Text(text) if text == b"FROM a"));
    }

    #[test]
    fn hosts_have_names_and_addresses() {
        let plan = plan("build --add-host a:host-gateway,b:1.2.3.4 .");
        let pair = |name: &str, address: &str| (name.to_owned(), address.to_owned());
        assert_eq!(
            plan.request.extra_hosts,
            [pair("a", "host-gateway"), pair("b", "1.2.3.4")]
        );
    }
}
