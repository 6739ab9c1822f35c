//! `larder run`

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context as _, bail};
use larder_engine::{CancelFlag, RunRequest};

use super::Context;
use crate::args::RunArgs;
use crate::exit::{self, Code};
use crate::signals;

/// Runs a command in an image. Returns its exit code, or Docker's for what kept it from running.
pub(crate) fn run(args: RunArgs, context: &Context<'_>) -> Code {
    run_command(args, context).unwrap_or_else(|error| {
        crate::report(&error);
        exit::code_of_run(&error)
    })
}

fn run_command(args: RunArgs, context: &Context<'_>) -> anyhow::Result<Code> {
    check(&args)?;
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
        platform: args.platform,
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

/// Refuses what a container of larder's can't have.
fn check(args: &RunArgs) -> anyhow::Result<()> {
    if args.detach {
        bail!(
            "`--detach` is not available: larder runs no containers in the background but those of `larder compose up`"
        );
    }
    if args
        .network
        .as_deref()
        .is_some_and(|network| network != "host")
    {
        bail!("`--network`: a command runs in the host's network");
    }
    for port in &args.publish {
        let ports = port.split('/').next().unwrap_or(port);
        let mut ports = ports.rsplit(':');
        let (inside, outside) = (ports.next(), ports.next());
        if outside.is_some_and(|outside| Some(outside) != inside) {
            bail!(
                "`--publish {port}`: a command runs in the host's network, its ports can't be mapped to other numbers"
            );
        }
    }
    Ok(())
}

/// Returns copies of the standard streams, to hand on.
pub(crate) fn stdio() -> io::Result<[OwnedFd; 3]> {
    Ok([
        io::stdin().as_fd().try_clone_to_owned()?,
        io::stdout().as_fd().try_clone_to_owned()?,
        io::stderr().as_fd().try_clone_to_owned()?,
    ])
}
