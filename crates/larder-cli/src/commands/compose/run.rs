//! `larder compose run`: one command in a service's container, in the foreground.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context as _, bail};
use larder_engine::{CancelFlag, ProcessRequest};

use super::Context;
use super::images::ImageOptions;
use super::services::Starter;
use super::state::ProjectState;
use super::up::{self, Ends, Up};
use crate::args::{ComposeRunArgs, ProjectArgs, TimeoutArgs};
use crate::commands::run::stdio;
use crate::exit::{self, Code};
use crate::signals;

/// Starts what a service needs, then runs a command in a container like the service's. Returns its
/// exit code.
pub(super) fn run(
    args: ComposeRunArgs,
    project_args: &ProjectArgs,
    context: &Context<'_>,
) -> anyhow::Result<Code> {
    if args.detach {
        bail!("`compose run --detach` is not supported yet");
    }
    let mut project = super::load(project_args, context)?;
    let name = args.service.clone();
    project.enable(std::slice::from_ref(&name))?;
    let services = up::chosen(&project, std::slice::from_ref(&name), args.no_deps)?;
    let state = ProjectState::new(&context.state_root()?, &project.name);
    let ends = Arc::new(Ends::default());
    let up = Up {
        project: &project,
        state: &state,
        context,
        ends: &ends,
        recreate: false,
        host_ca: args.host_ca,
        timeout: TimeoutArgs::default(),
    };
    let flags = up::build_flags(args.host_ca);
    let options = ImageOptions {
        build: args.build,
        no_build: false,
        flags: &flags,
        project_args,
    };
    let mut specs = up.specs(&services, &options)?;
    let mut spec = specs.pop().context("there is no such service")?;
    {
        let on_signal = Arc::clone(&ends);
        let _listener = signals::listen(move |_| on_signal.stop.store(true, Ordering::SeqCst))?;
        let _lock = state.lock()?;
        let mut starter = Starter::new(&state, context, &ends.stop)?;
        up.start(&mut starter, &services[..specs.len()], &specs)?;
        if let Some(service) = services.last() {
            for dependency in &service.depends_on {
                if !args.no_deps && project.services.contains_key(&dependency.service) {
                    let container = format!("{}-{}-1", project.name, dependency.service);
                    starter.await_dependency(dependency, &container)?;
                }
            }
        }
    }
    spec.add_env(args.env.into_iter().filter_map(|variable| {
        let value = variable
            .value
            .or_else(|| context.env.get(&variable.key).map(str::to_owned))?;
        Some(format!("{}={value}", variable.key))
    }));
    spec.add_volumes(args.volumes);
    spec.replace(args.user, args.workdir);
    let entrypoint = args
        .entrypoint
        .map(|program| vec![program])
        .or(spec.entrypoint.clone());
    let command = if args.command.is_empty() {
        spec.command.clone()
    } else {
        Some(args.command)
    };
    let engine = context.engine()?;
    let cancel = CancelFlag::new();
    let on_signal = cancel.clone();
    let (signals, forward) = io::pipe().context("cannot make a pipe for signals")?;
    let _listener =
        signals::forward(forward, move || on_signal.set()).context("cannot listen for signals")?;
    let container = engine.container(spec.container()?, &cancel)?;
    let process = ProcessRequest {
        args: container.command(entrypoint.as_deref(), command.as_deref())?,
        stdio: stdio().context("cannot hand on the standard streams")?,
        signals: Some(signals.into()),
    };
    let code = container.run(process, &cancel)?;
    Ok(Code::try_from(code).unwrap_or(exit::FAILURE))
}
