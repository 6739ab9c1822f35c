//! The `larder` command: flags, requests to the engine, progress, tables and exit codes.

mod args;
mod check;
mod commands;
mod doctor;
mod du;
mod environment;
mod excerpt;
mod exit;
mod explain;
mod images;
mod output;
mod progress;
mod shim;
mod signals;
mod table;
mod text;
mod units;

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use larder_engine::BuildError;

use args::Cli;
use environment::Environment;
use shim::Program;

fn main() -> ExitCode {
    // A process that is started to run containers is told apart by its first argument.
    larder_exec::init();
    let arguments = match command_line() {
        Ok(arguments) => arguments,
        Err(error) => {
            report(&error);
            return ExitCode::from(exit::FAILURE);
        }
    };
    let cli = match Cli::from_arguments(&arguments) {
        Ok(cli) => cli,
        Err(answer) => return answer_arguments(&answer, &arguments),
    };
    let env = Environment::of_process();
    if cli.global.debug {
        start_tracing(output::stderr_is_terminal() && !env.no_color());
    }
    let done = commands::run(cli, &env);
    larder_exec::shutdown();
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            report(&error);
            exit::code(&error)
        }
    }
}

/// Returns larder's command line, also where this process is called as a program of Docker's.
fn command_line() -> anyhow::Result<Vec<OsString>> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let Some(program) = arguments.first().and_then(|name| Program::called(name)) else {
        return Ok(arguments);
    };
    let call = program
        .call(&arguments[1..])
        .map_err(|problem| anyhow!(problem))?;
    if let Some(directory) = &call.docker_config {
        // All that reads Docker's configuration finds it by this variable.
        let larder = std::env::current_exe().context("cannot tell where larder is")?;
        let error = std::process::Command::new(larder)
            .args(&call.words)
            .env("DOCKER_CONFIG", directory)
            .exec();
        return Err(error).context("cannot start larder with another `DOCKER_CONFIG`");
    }
    let larder = std::iter::once(OsString::from("larder"));
    Ok(larder.chain(call.words).collect())
}

/// Shows help or the version, or what is wrong with the arguments.
fn answer_arguments(answer: &clap::Error, arguments: &[OsString]) -> ExitCode {
    let is_failure = answer.use_stderr();
    let plain = answer.render().to_string();
    let told = match text::without_credentials(&plain) {
        Cow::Borrowed(_) => answer.print(),
        Cow::Owned(text) => {
            output::tell(text.trim_end());
            Ok(())
        }
    };
    if told.is_ok() && !is_failure {
        return ExitCode::from(exit::SUCCESS);
    }
    let mut verbs = arguments.iter().skip(1);
    let verb = verbs.find(|word| !word.as_encoded_bytes().starts_with(b"-"));
    ExitCode::from(match verb {
        // Its other codes are those of the command it runs.
        Some(verb) if verb == "run" => exit::NOT_RUN,
        _ => exit::FAILURE,
    })
}

/// Tells why a command failed: the excerpt of the Dockerfile it is about, the error, what to try.
pub(crate) fn report(error: &anyhow::Error) {
    let build_error = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<BuildError>());
    if let Some(location) = build_error.and_then(BuildError::location) {
        output::tell(excerpt::of(&location.file, &location.ranges).trim_end());
    }
    let bake_error = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<larder_bake::Error>());
    if let Some(place) = bake_error.and_then(larder_bake::Error::place) {
        output::tell(excerpt::of_bake_file(place).trim_end());
    }
    let message = format!("ERROR: {error:#}");
    output::tell(&text::without_credentials(&message));
    if let Some(hint) = build_error.and_then(BuildError::hint) {
        output::tell(&format!("hint: {hint}"));
    }
}

fn start_tracing(has_colors: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("LARDER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("larder=debug,warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(has_colors)
        .init();
}
