//! `larder compose down`, `stop`, `start` and `restart`

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use larder_compose::Project;
use larder_engine::{Engine, VolumeName};
use larder_oci::ImageRef;

use super::Context;
use super::services::{self, Starter, Stopping, tell};
use super::state::{ProjectState, ServiceState};
use crate::args::{DownArgs, ProjectArgs, RemovedImages, ServicesArgs, TimeoutArgs};
use crate::output;
use crate::signals::{self, Stop};

/// Ends the services of a project, and forgets them; removes its volumes if asked to.
pub(super) fn run(
    args: &DownArgs,
    project_args: &ProjectArgs,
    context: &Context<'_>,
) -> anyhow::Result<()> {
    let project = super::load_if_there(project_args, context)?;
    let name = match &project {
        Some(project) => project.name.clone(),
        None => super::project_name(project_args, context)?,
    };
    let state = ProjectState::new(&context.state_root()?, &name);
    // Opened while there is but one thread: an ordinary user's namespace is entered with it.
    let needs_engine = args.volumes || args.rmi.is_some();
    let engine = needs_engine.then(|| context.engine()).transpose()?;
    let kill = Arc::new(AtomicBool::new(false));
    let _listener = kill_on_second_signal(&kill)?;
    if let Some(project) = &project {
        project.in_order::<&str>(&[])?;
    }
    let lock = state.lock()?;
    let mut services = state.services()?;
    if !args.services.is_empty() {
        services.retain(|(name, _)| args.services.contains(name));
    } else if let Some(project) = &project
        && !args.remove_orphans
    {
        services.retain(|(name, _)| {
            project.services.contains_key(name) || project.disabled.contains_key(name)
        });
    }
    remove(&name, &services, args.timeout.stopping(&kill))?;
    if let (Some(project), Some(engine)) = (&project, &engine) {
        if args.volumes {
            remove_volumes(project, engine)?;
        }
        if let Some(which) = args.rmi {
            remove_images(project, &args.services, which, engine)?;
        }
    }
    drop(lock);
    Ok(state.remove_if_empty()?)
}

fn remove_volumes(project: &Project, engine: &Engine) -> anyhow::Result<()> {
    let volumes = project.volumes.values();
    for volume in volumes.filter(|volume| !volume.is_external) {
        if engine.remove_volume(&VolumeName::new(&volume.name)?)? {
            output::tell(&format!(" Volume {} Removed ", volume.name));
        }
    }
    Ok(())
}

/// Removes the names of images that services run, and images with their last one: of `chosen`
/// services, or of all if there are none.
fn remove_images(
    project: &Project,
    chosen: &[String],
    which: RemovedImages,
    engine: &Engine,
) -> anyhow::Result<()> {
    let services = project.services.values().filter(|service| {
        let is_meant = which == RemovedImages::All || service.image.is_none();
        is_meant && (chosen.is_empty() || chosen.contains(&service.name))
    });
    let images: BTreeSet<String> = services
        .map(|service| service.image_name(&project.name))
        .collect();
    let stored = engine.images()?;
    for image in images {
        // What is no name in the store may be the beginning of an image's id.
        let name = image.parse::<ImageRef>()?.to_string();
        if stored.iter().any(|info| info.names.contains(&name)) {
            engine.remove_image(&name, false)?;
            output::tell(&format!(" Image {image} Removed "));
        } else {
            output::tell(&format!(
                " Image {image} Warning: No resource found to remove "
            ));
        }
    }
    Ok(())
}

impl TimeoutArgs {
    /// Returns how services are ended.
    pub(super) fn stopping(self, kill: &AtomicBool) -> Stopping<'_> {
        Stopping {
            kill,
            timeout: self.timeout.map(std::time::Duration::from_secs),
        }
    }
}

/// Ends services, and forgets them.
pub(super) fn remove(
    project: &str,
    services: &[(String, ServiceState)],
    how: Stopping<'_>,
) -> anyhow::Result<()> {
    end(project, services, how);
    for (name, state) in services {
        state.remove()?;
        tell(&format!("{project}-{name}-1"), "Removed");
    }
    Ok(())
}

fn end(project: &str, services: &[(String, ServiceState)], how: Stopping<'_>) {
    let live = services.iter().filter(|(_, state)| state.is_live());
    let live: Vec<&String> = live.map(|(name, _)| name).collect();
    let tell_all = |what: &str| {
        for name in &live {
            tell(&format!("{project}-{name}-1"), what);
        }
    };
    tell_all("Stopping");
    services::stop(services, how, &mut || {});
    tell_all("Stopped");
}

/// A project as it was started, whatever its files say now.
struct Known {
    name: String,
    state: ProjectState,
    /// Set by the second signal.
    kill: Arc<AtomicBool>,
    _listener: signals::Listener,
}

impl Known {
    fn open(project_args: &ProjectArgs, context: &Context<'_>) -> anyhow::Result<Self> {
        let name = super::project_name(project_args, context)?;
        let kill = Arc::new(AtomicBool::new(false));
        Ok(Self {
            state: ProjectState::new(&context.state_root()?, &name),
            _listener: kill_on_second_signal(&kill)?,
            name,
            kill,
        })
    }
}

/// Ends services, and keeps what is known of them.
pub(super) fn stop(
    args: &ServicesArgs,
    project_args: &ProjectArgs,
    context: &Context<'_>,
) -> anyhow::Result<()> {
    let project = Known::open(project_args, context)?;
    let _lock = project.state.lock()?;
    let services = super::chosen(&project.state, &args.services)?;
    end(
        &project.name,
        &services,
        args.timeout.stopping(&project.kill),
    );
    Ok(())
}

/// Starts services again that are known; ends them first for `restart`.
pub(super) fn start(
    args: &ServicesArgs,
    restart: bool,
    project_args: &ProjectArgs,
    context: &Context<'_>,
) -> anyhow::Result<()> {
    let project = Known::open(project_args, context)?;
    let _lock = project.state.lock()?;
    let chosen = super::chosen(&project.state, &args.services)?;
    if restart {
        end(&project.name, &chosen, args.timeout.stopping(&project.kill));
    }
    let mut starter = Starter::new(&project.state, context, &project.kill)?;
    let mut names: Vec<String> = Vec::new();
    for (service, service_state) in in_order(chosen) {
        if service_state.is_live() {
            continue;
        }
        let spec = service_state.spec();
        let spec = spec.with_context(|| format!("service {service} has no container to start"))?;
        starter.start(&service_state, &spec.container_name())?;
        names.push(service);
    }
    starter.settle(&names)
}

/// Sorts services so that each comes after those it needs.
fn in_order(mut services: Vec<(String, ServiceState)>) -> Vec<(String, ServiceState)> {
    let mut sorted: Vec<(String, ServiceState)> = Vec::new();
    while !services.is_empty() {
        let waits = |state: &ServiceState| {
            let needs = state.spec().map(|spec| spec.needs).unwrap_or_default();
            needs
                .iter()
                .any(|need| services.iter().any(|(name, _)| name == need))
        };
        // Services that need each other come in any order.
        let next = services.iter().position(|(_, state)| !waits(state));
        sorted.push(services.remove(next.unwrap_or(0)));
    }
    sorted
}

/// The first signal lets the services end as they are about to; the second kills them.
fn kill_on_second_signal(kill: &Arc<AtomicBool>) -> anyhow::Result<signals::Listener> {
    let kill = Arc::clone(kill);
    let listener = signals::listen(move |stop| {
        kill.store(stop == Stop::Force, Ordering::SeqCst);
    });
    listener.context("cannot listen for signals")
}
