//! `larder build`

mod input;
mod outputs;
mod plan;
mod proxies;
mod report;
mod secrets;

use std::io;

use anyhow::Context as _;
use larder_engine::CancelFlag;
use larder_engine::request::{BuildOutcome, BuildRequest};

use self::plan::Plan;
use super::Context;
use crate::args::BuildArgs;
use crate::exit;
use crate::output;
use crate::progress::{Display, Mode, Options};
use crate::signals::{self, Stop};
use crate::units::human_size;

/// Significant digits of sizes.
const SIZE_DIGITS: usize = 4;

/// Builds.
pub(crate) fn run(args: BuildArgs, context: &Context<'_>) -> anyhow::Result<()> {
    let plan = Plan::new(args, context, Box::new(io::stdin()))?;
    for note in &plan.notes {
        output::tell(&format!("WARNING: {note}"));
    }
    if let Some(iidfile) = &plan.iidfile {
        report::remove_stale(iidfile)?;
    }
    let outcome = build(plan.request, plan.mode, plan.display, context)?;
    if let (Some(iidfile), Some(image)) = (&plan.iidfile, &outcome.image) {
        report::write_iidfile(iidfile, image)?;
    }
    if let Some(file) = &plan.metadata_file {
        fs_err::write(file, report::metadata(outcome.image.as_ref()))?;
    }
    Ok(tell(&outcome, plan.mode)?)
}

/// Runs the engine while the display shows what it does.
fn build(
    request: BuildRequest,
    mode: Mode,
    options: Options,
    context: &Context<'_>,
) -> anyhow::Result<BuildOutcome> {
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
    let outcome = engine.build(request, &display.sink(), &cancel);
    display.finish();
    outcome
        .map_err(anyhow::Error::new)
        .context("failed to solve")
        .context("failed to build")
}

/// Tells what came of a build that worked.
fn tell(outcome: &BuildOutcome, mode: Mode) -> io::Result<()> {
    if let (Mode::Quiet, Some(image)) = (mode, &outcome.image) {
        output::print(&format!("{}\n", image.config_digest))?;
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
