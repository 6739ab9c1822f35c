//! `larder compose up`

mod attached;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use larder_compose::{Project, Service};

use self::attached::{Abort, Attached};
use super::images::{self, ImageOptions};
use super::logs::{Follower, Style};
use super::services::{self, Starter, TICK};
use super::spec::Spec;
use super::state::{Health, ProjectState, ServiceState, Status};
use super::{Context, checks};
use crate::args::{ComposeBuildArgs, ProjectArgs, TimeoutArgs, UpArgs};
use crate::exit::{self, Code};
use crate::output;
use crate::signals::{self, Stop};

/// How the user wants it to end.
#[derive(Default)]
pub(super) struct Ends {
    pub(super) stop: AtomicBool,
    pub(super) kill: AtomicBool,
}

/// Starts services, and follows them until they end.
pub(super) fn run(
    args: &UpArgs,
    project_args: &ProjectArgs,
    context: &Context<'_>,
) -> anyhow::Result<Code> {
    let mut project = super::load(project_args, context)?;
    project.enable(&args.services)?;
    let services = chosen(&project, &args.services, args.no_deps)?;
    let state = ProjectState::new(&context.state_root()?, &project.name);
    let ends = Arc::new(Ends::default());
    let up = Up {
        project: &project,
        state: &state,
        context,
        ends: &ends,
        recreate: args.force_recreate,
        host_ca: args.host_ca,
        timeout: args.timeout,
    };
    let flags = build_flags(args.host_ca);
    let options = ImageOptions {
        build: args.build,
        no_build: args.no_build,
        flags: &flags,
        project_args,
    };
    let specs = up.specs(&services, &options)?;
    let on_signal = Arc::clone(&ends);
    let _listener = signals::listen(move |stop| {
        on_signal.stop.store(true, Ordering::SeqCst);
        on_signal.kill.store(stop == Stop::Force, Ordering::SeqCst);
    })
    .context("cannot listen for signals")?;
    let names: Vec<String> = specs.iter().map(|spec| spec.service.clone()).collect();
    let attached = attached(args, &names);
    let mut followers = up.followers(args, &attached);
    let lock = state.lock()?;
    up.tell_orphans(args.remove_orphans)?;
    let mut starter = Starter::new(&state, context, &ends.stop)?;
    starter.timeout = args.timeout.stopping(&ends.kill).timeout;
    let done = up.start(&mut starter, &services, &specs);
    let done = match (done, args.detach || args.wait) {
        (Ok(()), true) => starter.settle(&names),
        (done, _) => done,
    };
    drop(lock);
    for follower in &mut followers {
        if starter.created.contains(follower.service()) {
            follower.start_over();
        }
    }
    if args.detach || args.wait {
        done?;
        return if args.wait {
            up.wait(&names).map(|()| exit::SUCCESS)
        } else {
            Ok(exit::SUCCESS)
        };
    }
    if let Err(error) = done {
        for follower in &mut followers {
            follower.show_new()?;
        }
        up.stop_all(&names, &mut || {});
        if ends.stop.load(Ordering::SeqCst) {
            return Ok(exit::CANCELED);
        }
        return Err(error);
    }
    Attached::new(&up, &names, followers, Abort::new(args)).run(&mut starter)
}

/// Returns the services to start, each after those it needs.
pub(super) fn chosen<'a>(
    project: &'a Project,
    names: &[String],
    no_deps: bool,
) -> anyhow::Result<Vec<&'a Service>> {
    let mut services = project.in_order(names)?;
    if no_deps && !names.is_empty() {
        services.retain(|service| names.contains(&service.name));
    }
    Ok(services)
}

/// Returns the services whose output is shown.
fn attached(args: &UpArgs, names: &[String]) -> Vec<String> {
    let is_wanted = |name: &&String| {
        let is_named = args.attach.is_empty() || args.attach.contains(name);
        is_named && !args.no_attach.contains(name)
    };
    names.iter().filter(is_wanted).cloned().collect()
}

/// What starting services takes.
pub(super) struct Up<'a> {
    pub(super) project: &'a Project,
    pub(super) state: &'a ProjectState,
    pub(super) context: &'a Context<'a>,
    pub(super) ends: &'a Ends,
    /// Whether also services that run unchanged are made anew.
    pub(super) recreate: bool,
    pub(super) host_ca: bool,
    pub(super) timeout: TimeoutArgs,
}

impl Up<'_> {
    /// Returns what the services are, with images that are there.
    pub(super) fn specs(
        &self,
        services: &[&Service],
        options: &ImageOptions<'_>,
    ) -> anyhow::Result<Vec<Spec>> {
        let mut warnings = Vec::new();
        for service in services {
            warnings.extend(checks::check(service)?);
        }
        for warning in warnings {
            output::tell(&format!("WARNING: {warning}"));
        }
        let engine = self.context.engine()?;
        let images = images::resolve(self.project, services, options, &engine, self.context)?;
        let spec = |service: &&Service| {
            let image = images.get(&service.name).context("an image is missing")?;
            Spec::new(self.project, service, image, self.host_ca)
        };
        services.iter().map(spec).collect()
    }

    /// Starts services in order, each when those it needs have become what they must.
    pub(super) fn start(
        &self,
        starter: &mut Starter<'_>,
        services: &[&Service],
        specs: &[Spec],
    ) -> anyhow::Result<()> {
        let chosen: BTreeSet<&str> = specs.iter().map(|spec| spec.service.as_str()).collect();
        for (service, spec) in services.iter().zip(specs) {
            for dependency in &service.depends_on {
                let name = &dependency.service;
                if chosen.contains(name.as_str()) {
                    let container = format!("{}-{name}-1", self.project.name);
                    starter.await_dependency(dependency, &container)?;
                }
            }
            anyhow::ensure!(!self.ends.stop.load(Ordering::SeqCst), "canceled");
            starter.bring_up(spec, self.recreate)?;
        }
        Ok(())
    }

    fn followers(&self, args: &UpArgs, attached: &[String]) -> Vec<Follower> {
        let style = Style::new(attached, args.no_log_prefix, args.no_color, self.context);
        let follower = |(index, name): (usize, &String)| {
            let state = self.state.service(name);
            let mut follower = Follower::new(name, &state.log(), index, style);
            // What ran before is not shown again.
            follower.skip_old();
            follower
        };
        attached.iter().enumerate().map(follower).collect()
    }

    /// Ends services; meanwhile `tick` is called again and again.
    fn stop_all(&self, names: &[String], tick: &mut dyn FnMut()) {
        // Whoever else starts or stops services now has the same wish or will tell.
        let lock = self.state.lock();
        let services: Vec<(String, ServiceState)> = names
            .iter()
            .map(|name| (name.clone(), self.state.service(name)))
            .filter(|(_, state)| state.is_live())
            .collect();
        let container = |name: &str| format!("{}-{name}-1", self.project.name);
        for (name, _) in &services {
            services::tell(&container(name), "Stopping");
        }
        services::stop(&services, self.timeout.stopping(&self.ends.kill), tick);
        for (name, _) in &services {
            services::tell(&container(name), "Stopped");
        }
        drop(lock);
    }

    /// Waits until all services run, and are healthy where they have a check.
    fn wait(&self, names: &[String]) -> anyhow::Result<()> {
        for name in names {
            let state = self.state.service(name);
            loop {
                let record = state.record().context("a service is gone")?;
                match (&record.status, record.health) {
                    (Status::Running, None | Some(Health::Healthy)) | (Status::Exited(0), _) => {
                        break;
                    }
                    (Status::Running, Some(Health::Unhealthy)) => {
                        anyhow::bail!("container {}-{name}-1 is unhealthy", self.project.name)
                    }
                    (Status::Exited(code), _) => {
                        anyhow::bail!("container {}-{name}-1 exited ({code})", self.project.name)
                    }
                    (Status::Failed(message), _) => anyhow::bail!("{name}: {message}"),
                    _ if self.ends.stop.load(Ordering::SeqCst) => anyhow::bail!("canceled"),
                    _ => std::thread::sleep(TICK),
                }
            }
        }
        Ok(())
    }

    /// Tells of services that the files do not name any more; removes them if asked to.
    fn tell_orphans(&self, removes: bool) -> anyhow::Result<()> {
        let is_known = |name: &String| {
            self.project.services.contains_key(name) || self.project.disabled.contains_key(name)
        };
        let mut orphans = self.state.services()?;
        orphans.retain(|(name, _)| !is_known(name));
        if orphans.is_empty() {
            return Ok(());
        }
        if removes {
            return super::down::remove(
                &self.project.name,
                &orphans,
                self.timeout.stopping(&self.ends.kill),
            );
        }
        let names: Vec<&str> = orphans.iter().map(|(name, _)| name.as_str()).collect();
        output::tell(&format!(
            "WARNING: Found orphan containers ([{}]) for this project. If you removed or renamed this service in your compose file, you can run this command with the --remove-orphans flag to clean it up.",
            names.join(" ")
        ));
        Ok(())
    }
}

/// Returns the flags of the builds that come before services are started.
pub(super) fn build_flags(host_ca: bool) -> ComposeBuildArgs {
    ComposeBuildArgs {
        host_ca,
        ..ComposeBuildArgs::default()
    }
}
