//! `larder compose build`

use std::collections::BTreeSet;

use anyhow::bail;
use larder_compose::{BuildTarget, Project};
use larder_engine::request::BuildOutcome;
use larder_engine::{ManyOptions, TargetRequest};

use super::Context;
use super::{print, request};
use crate::args::{CallArg, ComposeBuildArgs, ProjectArgs};
use crate::commands::build::{self, plan};
use crate::exit::{self, Code};
use crate::output;
use crate::progress::{Mode, Options};

/// Builds the images of services.
pub(super) fn run(
    args: &ComposeBuildArgs,
    project_args: &ProjectArgs,
    context: &Context<'_>,
) -> anyhow::Result<Code> {
    let mut project = super::load(project_args, context)?;
    project.enable(&args.services)?;
    let services = services(args, &project)?;
    let targets = project.build_targets(&services)?;
    if args.print {
        output::print(&print::definition(&targets, args.push))?;
        return Ok(exit::SUCCESS);
    }
    if !targets.iter().any(|target| target.is_wanted) {
        output::tell("No services to build");
        return Ok(exit::SUCCESS);
    }
    if args.check {
        return check(&targets, args, project_args, context);
    }
    build(&targets, args, project_args, context)?;
    Ok(exit::SUCCESS)
}

/// Checks the Dockerfile of each target that was asked for, and tells what was found.
fn check(
    targets: &[BuildTarget],
    args: &ComposeBuildArgs,
    project_args: &ProjectArgs,
    context: &Context<'_>,
) -> anyhow::Result<Code> {
    let prepared = prepare(targets, args, project_args, context)?;
    let mut code = exit::SUCCESS;
    for (target, request) in targets.iter().zip(prepared.requests) {
        if !target.is_wanted {
            continue;
        }
        output::print(&format!("{}\n\n", target.name))?;
        let (mode, display) = (prepared.mode, prepared.display.clone());
        let found = build::call::run(request.request, CallArg::CHECK, mode, display, context);
        code = code.max(found?);
    }
    Ok(code)
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

/// What it takes to build targets.
struct Prepared {
    requests: Vec<TargetRequest>,
    mode: Mode,
    display: Options,
}

fn prepare(
    targets: &[BuildTarget],
    args: &ComposeBuildArgs,
    project_args: &ProjectArgs,
    context: &Context<'_>,
) -> anyhow::Result<Prepared> {
    let mut notes = ignored_flags(args);
    let progress = args.progress.or(project_args.progress);
    let mode = plan::display_mode(progress, args.quiet, context.env)?;
    let display = plan::display_options(context, &mut notes);
    let mut requests = Vec::new();
    for target in targets {
        requests.push(request::target_request(target, args, context, &mut notes)?);
    }
    let mut told = BTreeSet::new();
    notes.retain(|note| told.insert(note.clone()));
    for note in &notes {
        output::tell(&format!("WARNING: {note}"));
    }
    Ok(Prepared {
        requests,
        mode,
        display,
    })
}

/// Builds targets, all at once. Returns what came of each, in their order.
pub(super) fn build(
    targets: &[BuildTarget],
    args: &ComposeBuildArgs,
    project_args: &ProjectArgs,
    context: &Context<'_>,
) -> anyhow::Result<Vec<BuildOutcome>> {
    let Prepared {
        requests,
        mode,
        display,
    } = prepare(targets, args, project_args, context)?;
    let tells = !matches!(mode, Mode::Quiet | Mode::RawJson | Mode::None);
    let tell_each = |what: &str| {
        for target in targets.iter().filter(|target| target.is_wanted && tells) {
            output::tell(&format!(" Image {} {what} ", target.image));
        }
    };
    tell_each("Building");
    let many = ManyOptions {
        max_parallelism: parallelism(project_args, context)?,
    };
    let outcomes = build::build_many(requests, many, mode, display, context)?;
    tell_each("Built");
    Ok(outcomes)
}

/// Returns what to tell about flags without effect.
fn ignored_flags(args: &ComposeBuildArgs) -> Vec<String> {
    let ignored = [(
        "--builder",
        args.builder.is_some(),
        "there is one builder, in this process",
    )];
    let notes = ignored.iter().filter(|(_, is_given, _)| *is_given);
    notes
        .map(|(flag, _, why)| format!("`{flag}` is ignored: {why}"))
        .collect()
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
