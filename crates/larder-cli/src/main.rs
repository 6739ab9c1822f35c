//! The `larder` command: flags, requests to the engine, progress, tables and exit codes.

mod args;
mod check;
mod commands;
mod du;
mod environment;
mod excerpt;
mod exit;
mod explain;
mod images;
mod output;
mod progress;
mod signals;
mod table;
mod text;
mod units;

use std::process::ExitCode;

use larder_engine::BuildError;

use args::Cli;
use environment::Environment;

fn main() -> ExitCode {
    // A process that is started to run containers is told apart by its first argument.
    larder_exec::init();
    let cli = match Cli::from_arguments(std::env::args_os()) {
        Ok(cli) => cli,
        Err(answer) => return answer_arguments(&answer),
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

/// Shows help or the version, or what is wrong with the arguments.
fn answer_arguments(answer: &clap::Error) -> ExitCode {
    let is_failure = answer.use_stderr();
    if answer.print().is_err() || is_failure {
        return ExitCode::from(exit::FAILURE);
    }
    ExitCode::from(exit::SUCCESS)
}

/// Tells why a command failed: the excerpt of the Dockerfile it is about, the error, what to try.
fn report(error: &anyhow::Error) {
    let build_error = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<BuildError>());
    if let Some(location) = build_error.and_then(BuildError::location) {
        output::tell(excerpt::of(&location.file, &location.ranges).trim_end());
    }
    output::tell(&format!("ERROR: {error:#}"));
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
