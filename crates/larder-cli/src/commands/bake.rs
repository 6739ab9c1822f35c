//! `larder bake`

mod allow;
mod call;
mod compose;
mod remote;
mod request;

use std::collections::BTreeMap;
use std::io;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use larder_bake::{Definition, File, Options};
use larder_engine::ManyOptions;
use larder_oci::Platform;

use self::compose::Services;
use self::remote::Remote;
use self::request::BakeTarget;
use super::Context;
use super::build::{self, plan, report};
use crate::args::{BakeArgs, Listed, Method};
use crate::environment::Environment;
use crate::exit::{self, Code};
use crate::output;
use crate::progress::Mode;

/// Names files when `--file` does not, separated as [`SEPARATOR`] says.
const FILES: &str = "BUILDX_BAKE_FILE";
/// What separates the names in [`FILES`]; a colon if not set.
const SEPARATOR: &str = "BUILDX_BAKE_PATH_SEPARATOR";
/// Whether contexts are relative to the file that names them.
const RELATIVE: &str = "BUILDX_BAKE_FILE_RELATIVE_PATHS";
/// Whether variables are not taken from the environment.
const NO_ENVIRONMENT: &str = "BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP";
/// The build argument that dates an image.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Does what `larder bake` is asked for. Returns the exit code.
pub(crate) fn run(args: &BakeArgs, context: &Context<'_>) -> anyhow::Result<Code> {
    if args.print && args.list.is_some() {
        bail!("--print and --list are mutually exclusive");
    }
    let mut notes = check_flags(args)?;
    let mode = plan::display_mode(args.progress, false, context.env)?;
    let (remote, names) = Remote::split(&args.targets);
    let definition = read(args, remote.as_ref(), mode, context)?;
    let warnings = definition.warnings().iter();
    notes.extend(warnings.map(|warning| format!("bake file: {warning}")));
    if let Some(list) = args.list {
        output::print(&match list.what {
            Listed::Targets => definition.list_targets(list.format),
            Listed::Variables => definition.list_variables(list.format),
        })?;
        return Ok(exit::SUCCESS);
    }
    let mut plan = definition.plan(names, &overrides(args))?;
    if args.print {
        output::print(&plan.to_json())?;
        return Ok(exit::SUCCESS);
    }
    if let Some(remote) = &remote {
        remote.place(&mut plan)?;
    }
    // Programs that read the progress have nobody to ask, as with buildx.
    if mode != Mode::RawJson {
        allow::check(&plan, &args.allowed, context.env)?;
    }
    let targets = request::targets(&plan, args, context, &mut notes)?;
    tell_notes(&notes, mode);
    if let Some(calls) = call::asked_for(args, &plan)? {
        return call::run(targets, &plan, calls, mode, context);
    }
    build(targets, args, mode, context)?;
    Ok(exit::SUCCESS)
}

/// Builds all targets, and writes the metadata file.
fn build(
    targets: Vec<BakeTarget>,
    args: &BakeArgs,
    mode: Mode,
    context: &Context<'_>,
) -> anyhow::Result<()> {
    let display = plan::display_options(context, &mut Vec::new());
    let names: Vec<String> = targets.iter().map(|target| target.name.clone()).collect();
    let requests = targets.into_iter().map(BakeTarget::into_request).collect();
    let outcomes = build::build_many(requests, ManyOptions::default(), mode, display, context)?;
    if let Some(file) = &args.metadata_file {
        let outcomes = names.iter().map(String::as_str).zip(&outcomes);
        fs_err::write(file, report::metadata_of_targets(outcomes))?;
    }
    Ok(())
}

/// Reads the files that flags, environment or habit name.
fn read(
    args: &BakeArgs,
    remote: Option<&Remote>,
    mode: Mode,
    context: &Context<'_>,
) -> anyhow::Result<Definition> {
    let mut directory = std::env::current_dir().context("there is no working directory")?;
    let mut files = match &args.files[..] {
        [] => files_of(context.env),
        files => files.to_vec(),
    };
    let mut options = options(args, context)?;
    let fetched;
    if let Some(remote) = remote {
        fetched = remote.fetch(&mut files, &directory, mode, context)?;
        fetched.path().clone_into(&mut directory);
        options.is_remote = true;
        options.command_context = remote.command_context();
    }
    let files = File::read_all(&files, &directory, &mut io::stdin())?;
    let services = Services::new(directory, &options);
    Ok(Definition::read(files, &services, options)?)
}

fn files_of(env: &Environment) -> Vec<String> {
    let separator = env.non_empty(SEPARATOR).unwrap_or(":");
    let files = env.get(FILES).unwrap_or_default().split(separator);
    files
        .map(str::trim)
        .filter(|file| !file.is_empty())
        .map(str::to_owned)
        .collect()
}

fn options(args: &BakeArgs, context: &Context<'_>) -> anyhow::Result<Options> {
    let env = context.env;
    let platform = Platform::host().to_string();
    let mut options = Options::new(platform, Timestamp::now(), random);
    options.variables = args.variables.iter().cloned().collect();
    if !switch(env, NO_ENVIRONMENT, false)? {
        let all = env
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        options.environment = all.collect::<BTreeMap<_, _>>();
    }
    options.source_date_epoch = env.non_empty(EPOCH).map(str::to_owned);
    options.is_relative_to_files = switch(env, RELATIVE, false)?;
    Ok(options)
}

/// Returns bytes that nobody can foresee.
fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    let flags = rustix::rand::GetRandomFlags::empty();
    rustix::rand::getrandom(&mut bytes, flags).expect("a small request of the kernel's is whole");
    bytes
}

/// Returns what a variable says that is true or false.
fn switch(env: &Environment, name: &str, default: bool) -> anyhow::Result<bool> {
    match env.get(name).map(str::trim) {
        None | Some("") => Ok(default),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some(other) => bail!("{name}: `{other}` is neither true nor false"),
    }
}

/// Returns the overrides that flags stand for, after those that are given.
fn overrides(args: &BakeArgs) -> Vec<String> {
    let mut overrides = args.overrides.clone();
    let mut set = |key: &str, value: String| overrides.push(format!("*.{key}={value}"));
    if args.push {
        set("push", "true".to_owned());
    }
    if args.load {
        set("load", "true".to_owned());
    }
    if let Some(no_cache) = args.no_cache {
        set("no-cache", no_cache.to_string());
    }
    if let Some(pull) = args.pull {
        set("pull", pull.to_string());
    }
    for (kind, value) in [("sbom", &args.sbom), ("provenance", &args.provenance)] {
        match value.as_deref() {
            None | Some("") => {}
            Some("true" | "1") => set("attest", format!("type={kind},disabled=false")),
            Some("false" | "0") => set("attest", format!("type={kind},disabled=true")),
            Some(other) => set("attest", format!("type={kind},{other}")),
        }
    }
    let call = args.call.map(|call| call.method);
    match if args.check {
        Some(Method::Check)
    } else {
        call
    } {
        None | Some(Method::Build) => {}
        // The name that the method has below buildx.
        Some(Method::Check) => set("call", "lint".to_owned()),
        Some(method) => set("call", method.name().to_owned()),
    }
    overrides
}

/// Returns what to tell about flags without effect.
fn check_flags(args: &BakeArgs) -> anyhow::Result<Vec<String>> {
    if !args.policy.is_empty() {
        bail!("`--policy` is not supported yet");
    }
    if let Some(mode) = args
        .execution
        .as_deref()
        .filter(|mode| *mode != "fail-fast")
    {
        bail!("`--execution {mode}` is not supported yet: the first failure ends all builds");
    }
    let ignored = [
        (
            "--builder",
            args.builder.is_some(),
            "there is one builder, in this process",
        ),
        (
            "--jobs",
            args.jobs.is_some_and(|jobs| jobs > 0),
            "all targets are one graph; the configuration limits its steps",
        ),
    ];
    let given = ignored.iter().filter(|(_, is_given, _)| *is_given);
    Ok(given
        .map(|(flag, _, why)| format!("`{flag}` is ignored: {why}"))
        .collect())
}

/// Tells notes to people; programs read the lines of their progress.
fn tell_notes(notes: &[String], mode: Mode) {
    if mode != Mode::RawJson {
        for note in notes {
            output::tell(&format!("WARNING: {note}"));
        }
    }
}
