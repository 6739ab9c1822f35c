//! `larder run`

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context as _;
use larder_engine::{CancelFlag, RunRequest};

use super::Context;
use crate::args::RunArgs;
use crate::exit::{self, Code};
use crate::signals;

/// Runs a command in an image, and returns its exit code.
pub(crate) fn run(args: RunArgs, context: &Context<'_>) -> anyhow::Result<Code> {
    let env = args
        .env
        .into_iter()
        .filter_map(|variable| {
            let name = variable.key;
            let value = variable
                .value
                .or_else(|| context.env.get(&name).map(str::to_owned))?;
            Some(format!("{name}={value}"))
        })
        .collect();
    let request = RunRequest {
        image: args.image,
        args: args.command,
        entrypoint: args.entrypoint.map(|program| vec![program]),
        env,
        workdir: args.workdir,
        user: args.user,
        volumes: args.volumes,
        host_ca: args.host_ca,
        stdio: stdio().context("cannot hand on the standard streams")?,
        signals: None,
    };
    let engine = context.engine()?;
    let cancel = CancelFlag::new();
    let on_signal = cancel.clone();
    let (signals, forward) = io::pipe().context("cannot make a pipe for signals")?;
    let request = RunRequest {
        signals: Some(signals.into()),
        ..request
    };
    let _listener =
        signals::forward(forward, move || on_signal.set()).context("cannot listen for signals")?;
    let code = engine.run(request, &cancel)?;
    Ok(Code::try_from(code).unwrap_or(exit::FAILURE))
}

fn stdio() -> io::Result<[OwnedFd; 3]> {
    Ok([
        io::stdin().as_fd().try_clone_to_owned()?,
        io::stdout().as_fd().try_clone_to_owned()?,
        io::stderr().as_fd().try_clone_to_owned()?,
    ])
}
