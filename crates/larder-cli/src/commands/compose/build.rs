//! `larder compose build`

use anyhow::bail;
use larder_compose::{BuildTarget, Project};
use larder_engine::ManyOptions;
use larder_engine::request::BuildOutcome;

use super::Context;
use super::{print, request};
use crate::args::{ComposeBuildArgs, ProjectArgs};
use crate::commands::build::{self, plan};
use crate::output;
use crate::progress::Mode;

/// Builds the images of services.
pub(super) fn run(
    args: &ComposeBuildArgs,
    project_args: &ProjectArgs,
    context: &Context<'_>,
) -> anyhow::Result<()> {
    let mut project = super::load(project_args, context)?;
    project.enable(&args.services)?;
    let services = services(args, &project)?;
    let targets = project.build_targets(&services)?;
    if args.print {
        output::print(&print::definition(&targets))?;
        return Ok(());
    }
    if !targets.iter().any(|target| target.is_wanted) {
        output::tell("No services to build");
        return Ok(());
    }
    build(&targets, args, project_args, context)?;
    Ok(())
}

/// Returns the names of the services to build; none for all.
fn services(args: &ComposeBuildArgs, project: &Project) -> anyhow::Result<Vec<String>> {
    if !args.with_dependencies || args.services.is_empty() {
        return Ok(args.services.clone());
    }
    let needed = project.in_order(&args.services)?;
    Ok(needed
        .into_iter()
        .map(|service| service.name.clone())
        .collect())
}

/// Builds targets, all at once. Returns what came of each, in their order.
pub(super) fn build(
    targets: &[BuildTarget],
    args: &ComposeBuildArgs,
    project_args: &ProjectArgs,
    context: &Context<'_>,
) -> anyhow::Result<Vec<BuildOutcome>> {
    let mut notes = check_flags(args)?;
    let progress = args.progress.or(project_args.progress);
    let mode = plan::display_mode(progress, args.quiet, context.env)?;
    let display = plan::display_options(context, &mut notes);
    let mut requests = Vec::new();
    for target in targets {
        requests.push(request::target_request(target, args, context, &mut notes)?);
    }
    notes.dedup();
    for note in &notes {
        output::tell(&format!("WARNING: {note}"));
    }
    let wanted = || targets.iter().filter(|target| target.is_wanted);
    let tells = !args.quiet && mode != Mode::RawJson && mode != Mode::None;
    if tells {
        wanted().for_each(|target| output::tell(&format!(" Image {} Building ", target.image)));
    }
    let many = ManyOptions {
        max_parallelism: parallelism(project_args, context)?,
    };
    let outcomes = build::build_many(requests, many, mode, display, context)?;
    if tells {
        wanted().for_each(|target| output::tell(&format!(" Image {} Built ", target.image)));
    }
    Ok(outcomes)
}

/// Returns what to tell about flags without effect.
fn check_flags(args: &ComposeBuildArgs) -> anyhow::Result<Vec<String>> {
    let is_asked_for = |value: &Option<String>| {
        value
            .as_deref()
            .is_some_and(|value| !matches!(value, "" | "false" | "disabled=true"))
    };
    let missing = [
        ("--check", args.check),
        ("--ssh", !args.ssh.is_empty()),
        ("--provenance", is_asked_for(&args.provenance)),
        ("--sbom", is_asked_for(&args.sbom)),
    ];
    if let Some((flag, _)) = missing.iter().find(|(_, is_given)| *is_given) {
        bail!("`{flag}` is not supported yet");
    }
    let ignored = [
        (
            "--builder",
            args.builder.is_some(),
            "there is one builder, in this process",
        ),
        (
            "--memory",
            args.memory.is_some(),
            "the resources of steps are not limited",
        ),
    ];
    let notes = ignored.iter().filter(|(_, is_given, _)| *is_given);
    Ok(notes
        .map(|(flag, _, why)| format!("`{flag}` is ignored: {why}"))
        .collect())
}

/// Returns how many steps run at once: what `--parallel` or `COMPOSE_PARALLEL_LIMIT` says.
fn parallelism(args: &ProjectArgs, context: &Context<'_>) -> anyhow::Result<Option<usize>> {
    let limit = match args.parallel {
        Some(limit) => limit,
        None => match context.env.non_empty("COMPOSE_PARALLEL_LIMIT") {
            None => return Ok(None),
            Some(text) => match text.parse() {
                Ok(limit) => limit,
                Err(_) => bail!("COMPOSE_PARALLEL_LIMIT: `{text}` is no number"),
            },
        },
    };
    match usize::try_from(limit) {
        Ok(0) => bail!("`--parallel` must not be 0"),
        Ok(limit) => Ok(Some(limit)),
        Err(_) => Ok(None),
    }
}
