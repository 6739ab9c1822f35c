//! `larder build`

pub(crate) mod call;
pub(crate) mod input;
pub(crate) mod outputs;
pub(crate) mod plan;
mod proxies;
pub(crate) mod report;
pub(crate) mod secrets;
pub(crate) mod ssh;
pub(crate) mod vcs;

use std::io;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use larder_engine::event::{BuildEvent, EventSink, WarningEvent};
use larder_engine::request::{BuildOutcome, BuildRequest};
use larder_engine::{CancelFlag, Engine, ManyOptions, TargetRequest};

use self::plan::Plan;
use super::Context;
use crate::args::BuildArgs;
use crate::exit::{self, Code};
use crate::output;
use crate::progress::{Display, Mode, Options};
use crate::signals::{self, Stop};
use crate::units::human_size;

/// Significant digits of sizes.
const SIZE_DIGITS: usize = 4;

/// Builds, or does what is asked for in place of that. Returns the exit code.
pub(crate) fn run(args: BuildArgs, context: &Context<'_>) -> anyhow::Result<Code> {
    let plan = Plan::new(args, context, Box::new(io::stdin()))?;
    for note in &plan.notes {
        output::tell(&format!("WARNING: {note}"));
    }
    if let Some(call) = plan.call {
        return call::run(plan.request, call, plan.mode, plan.display, context);
    }
    if let Some(iidfile) = &plan.iidfile {
        report::remove_stale(iidfile)?;
    }
    let (outcome, warnings) = build(plan.request, plan.mode, plan.display, context)?;
    if let (Some(iidfile), Some(image)) = (&plan.iidfile, &outcome.image) {
        report::write_iidfile(iidfile, image)?;
    }
    if let Some(file) = &plan.metadata_file {
        let warnings: &[_] = if plan.metadata_warnings {
            &warnings
        } else {
            &[]
        };
        fs_err::write(file, report::metadata(&outcome, warnings))?;
    }
    tell(&outcome, plan.mode)?;
    Ok(exit::SUCCESS)
}

/// Builds one image. Returns what came of it, and what the user was warned of.
pub(crate) fn build(
    request: BuildRequest,
    mode: Mode,
    options: Options,
    context: &Context<'_>,
) -> anyhow::Result<(BuildOutcome, Vec<WarningEvent>)> {
    let warnings = Mutex::default();
    let outcome = shown(mode, options, context, |engine, sink, cancel| {
        let gathering = |event: BuildEvent| {
            if let BuildEvent::Warning(warning) = &event {
                let mut warnings = warnings.lock().unwrap_or_else(PoisonError::into_inner);
                Vec::push(&mut warnings, warning.clone());
            }
            sink.event(event);
        };
        engine.build(request, &gathering, cancel)
    })?
    .map_err(anyhow::Error::new)
    .context("failed to solve")
    .context("failed to build")?;
    let warnings = warnings.into_inner();
    Ok((outcome, warnings.unwrap_or_else(PoisonError::into_inner)))
}

/// Builds several targets at once. Returns what came of each, in their order.
pub(crate) fn build_many(
    targets: Vec<TargetRequest>,
    many: ManyOptions,
    mode: Mode,
    options: Options,
    context: &Context<'_>,
) -> anyhow::Result<Vec<BuildOutcome>> {
    shown(mode, options, context, |engine, sink, cancel| {
        engine.build_many(targets, many, sink, cancel)
    })?
    .map_err(|failed| {
        let error = anyhow::Error::new(*failed.error).context("failed to solve");
        match failed.target {
            Some(target) => error.context(format!("target {target}")),
            None => error,
        }
    })
}

/// Runs the engine while the display shows what it does. Signals cancel it.
pub(crate) fn shown<T>(
    mode: Mode,
    options: Options,
    context: &Context<'_>,
    work: impl FnOnce(&Engine, &dyn EventSink, &CancelFlag) -> T,
) -> anyhow::Result<T> {
    let engine = context.engine()?;
    let cancel = CancelFlag::new();
    let on_signal = cancel.clone();
    let _listener = signals::listen(move |stop| match stop {
        Stop::Cancel => on_signal.set(),
        // Processes die with larder; what is left on the disk is the next command's to sweep.
        Stop::Force => std::process::exit(i32::from(exit::CANCELED)),
    })
    .context("cannot listen for signals")?;
    let display = Display::start(mode, options).context("cannot start the progress display")?;
    let done = work(&engine, &display.sink(), &cancel);
    display.finish();
    Ok(done)
}

/// Tells what came of a build that worked.
pub(crate) fn tell(outcome: &BuildOutcome, mode: Mode) -> io::Result<()> {
    if let (Mode::Quiet, Some(image)) = (mode, &outcome.image) {
        output::print(&format!("{}\n", image.id()))?;
    }
    let is_for_people = matches!(mode, Mode::Tty | Mode::Plain);
    if is_for_people && outcome.emptied_cache_bytes > 0 {
        let size = human_size(outcome.emptied_cache_bytes, SIZE_DIGITS);
        output::tell(&format!(
            "\n`--no-cache` removed {size} from cache mounts; `--no-cache=layers` keeps them"
        ));
    }
    Ok(())
}
