//! `larder build --call`

use anyhow::{Context as _, bail};
use larder_engine::request::BuildRequest;
use larder_engine::{Answer, Question};

use super::shown;
use crate::args::{CallArg, Method};
use crate::check;
use crate::commands::Context;
use crate::exit::{self, Code};
use crate::output;
use crate::progress::{Mode, Options};

/// Does what is asked for in place of building.
pub(crate) fn run(
    request: BuildRequest,
    call: CallArg,
    mode: Mode,
    options: Options,
    context: &Context<'_>,
) -> anyhow::Result<Code> {
    match call.method {
        Method::Llb => print_llb(request, call.json, mode, options, context),
        Method::Ask(question) => ask(question, request, call.json, mode, options, context),
        Method::Check | Method::Build => run_checks(request, call, mode, options, context),
    }
}

/// Answers a question about the input.
fn ask(
    question: Question,
    request: BuildRequest,
    json: bool,
    mode: Mode,
    options: Options,
    context: &Context<'_>,
) -> anyhow::Result<Code> {
    let answer = shown(mode, options, context, |engine, sink, _| {
        engine.ask(question, request, sink)
    })?
    .map_err(anyhow::Error::new)
    .context("failed to solve")
    .context("failed to build")?;
    output::print(&told(&answer, json))?;
    Ok(exit::SUCCESS)
}

/// Writes the graph that would be built.
fn print_llb(
    request: BuildRequest,
    json: bool,
    mode: Mode,
    options: Options,
    context: &Context<'_>,
) -> anyhow::Result<Code> {
    let llb = shown(mode, options, context, |engine, sink, _| {
        engine.llb(request, sink)
    })?
    .map_err(anyhow::Error::new)
    .context("failed to solve")
    .context("failed to build")?;
    if json {
        output::print(&llb.to_json()?)?;
    } else if output::stdout_is_terminal() {
        bail!("a definition is not for terminals: send it to a file, or ask for `format=json`");
    } else {
        output::print_bytes(&llb.to_bytes())?;
    }
    Ok(exit::SUCCESS)
}

/// Returns what is printed of an answer.
pub(crate) fn told(answer: &Answer, json: bool) -> String {
    if json {
        format!("{}\n", answer.json)
    } else {
        answer.text.clone()
    }
}

/// Checks the Dockerfile, and tells what was found.
fn run_checks(
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
