//! `larder build --check`

use larder_engine::request::BuildRequest;

use super::shown;
use crate::args::CallArg;
use crate::check;
use crate::commands::Context;
use crate::exit::{self, Code};
use crate::output;
use crate::progress::{Mode, Options};

/// Checks the Dockerfile of a build, and tells what was found.
pub(crate) fn run(
    request: BuildRequest,
    call: CallArg,
    mode: Mode,
    options: Options,
    context: &Context<'_>,
) -> anyhow::Result<Code> {
    let outcome = shown(mode, options, context, |engine, sink, _| {
        engine.check(request, sink)
    })??;
    output::print(&if call.json {
        check::json(&outcome)
    } else {
        check::text(&outcome)
    })?;
    let found = !outcome.warnings.is_empty();
    match outcome.error {
        Some(error) => Err(error.into()),
        None if found && !call.ignore_status => Ok(exit::FAILURE),
        None => Ok(exit::SUCCESS),
    }
}
