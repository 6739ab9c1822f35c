//! Starting and stopping services.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use larder_compose::{Condition, Dependency};
use rustix::process::Signal;

use super::Context;
use super::spec::Spec;
use super::state::{Health, ProjectState, ServiceState, Status};
use crate::output;

/// How often files are looked at for what supervisors have written.
pub(super) const TICK: Duration = Duration::from_millis(20);
/// How long after the start of the last service it is watched for a command that can't be run.
const SETTLED_AFTER: Duration = Duration::from_millis(300);

/// Starts services of a project.
pub(super) struct Starter<'a> {
    project: &'a ProjectState,
    context: &'a Context<'a>,
    root: PathBuf,
    /// The supervisors that were started, so that none stays a zombie.
    children: Vec<Child>,
    /// The services whose containers were made anew.
    pub(super) created: BTreeSet<String>,
    /// How long a service that is made anew may take to end, if that is less than its own time.
    pub(super) timeout: Option<Duration>,
    /// Set when the user wants no more of it.
    pub(super) canceled: &'a AtomicBool,
}

impl<'a> Starter<'a> {
    pub(super) fn new(
        project: &'a ProjectState,
        context: &'a Context<'a>,
        canceled: &'a AtomicBool,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            project,
            context,
            root: context.state_root()?,
            children: Vec::new(),
            created: BTreeSet::new(),
            timeout: None,
            canceled,
        })
    }

    /// Makes a service what `spec` says: leaves it alone if it runs so already, else ends what
    /// runs and starts it.
    pub(super) fn bring_up(&mut self, spec: &Spec, recreate: bool) -> anyhow::Result<()> {
        let state = self.project.service(&spec.service);
        let name = spec.container_name();
        let is_live = state.is_live();
        if is_live && !recreate && state.spec().as_ref() == Some(spec) {
            tell(&name, "Running");
            return Ok(());
        }
        if is_live {
            tell(&name, "Recreate");
            let how = Stopping {
                kill: &AtomicBool::new(false),
                timeout: self.timeout,
            };
            stop(&[(spec.service.clone(), state.clone())], how, &mut || {});
        }
        state.create(spec)?;
        self.created.insert(spec.service.clone());
        tell(&name, if is_live { "Recreated" } else { "Created" });
        self.start(&state, &name)
    }

    /// Starts a service that is described and doesn't run.
    pub(super) fn start(&mut self, state: &ServiceState, name: &str) -> anyhow::Result<()> {
        tell(name, "Starting");
        state.remove_record()?;
        let mut child = self.spawn(state).context("cannot start a supervisor")?;
        loop {
            // Looked at first: what it wrote before it ended counts.
            let has_ended = child.try_wait()?.is_some();
            match state.record().map(|record| record.status) {
                Some(Status::Failed(message)) => bail!("{name}: {message}"),
                Some(Status::Running | Status::Exited(_)) => break,
                _ if has_ended => bail!("{name}: its supervisor ended unexpectedly"),
                _ => std::thread::sleep(TICK),
            }
        }
        self.children.push(child);
        tell(name, "Started");
        Ok(())
    }

    fn spawn(&self, state: &ServiceState) -> std::io::Result<Child> {
        // This very program, also if another version took its place meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("larder").arg("--root").arg(&self.root);
        if let Some(config) = &self.context.global.config {
            command.arg("--config").arg(std::path::absolute(config)?);
        }
        command
            .args(["compose", "supervise"])
            .arg(state.directory())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    }

    /// Waits until a needed service has become what it must.
    pub(super) fn await_dependency(
        &self,
        dependency: &Dependency,
        name: &str,
    ) -> anyhow::Result<()> {
        if dependency.condition == Condition::Started {
            return Ok(());
        }
        let state = self.project.service(&dependency.service);
        tell(name, "Waiting");
        loop {
            let record = state.record();
            let record = record.with_context(|| format!("dependency failed to start: {name}"))?;
            match (dependency.condition, &record.status, record.health) {
                (Condition::Healthy, Status::Running, Some(Health::Healthy)) => {
                    tell(name, "Healthy");
                    return Ok(());
                }
                (Condition::Healthy, Status::Running, Some(Health::Unhealthy)) => {
                    tell(name, "Error");
                    bail!("dependency failed to start: container {name} is unhealthy");
                }
                // A supervisor sets a health before it starts the process if there is a check.
                (Condition::Healthy, Status::Running, None) => {
                    bail!(
                        "dependency failed to start: container {name} has no healthcheck configured"
                    );
                }
                (Condition::Healthy, Status::Exited(code), _) => {
                    bail!("dependency failed to start: container {name} exited ({code})");
                }
                (Condition::CompletedSuccessfully, Status::Exited(0), _) => {
                    tell(name, "Exited");
                    return Ok(());
                }
                (Condition::CompletedSuccessfully, Status::Exited(code), _) => {
                    bail!(
                        "service {:?} didn't complete successfully: exit {code}",
                        dependency.service
                    );
                }
                (_, Status::Failed(message), _) => bail!("{name}: {message}"),
                _ => {}
            }
            if self.canceled.load(Ordering::SeqCst) {
                bail!("canceled");
            }
            std::thread::sleep(TICK);
        }
    }

    /// Waits for a moment, and fails if a service could not be started after all.
    pub(super) fn settle(&mut self, services: &[String]) -> anyhow::Result<()> {
        let end = Instant::now() + SETTLED_AFTER;
        loop {
            for service in services {
                let record = self.project.service(service).record();
                if let Some(Status::Failed(message)) = record.map(|record| record.status) {
                    bail!("{service}: {message}");
                }
            }
            self.reap();
            if Instant::now() >= end {
                return Ok(());
            }
            std::thread::sleep(TICK);
        }
    }

    /// Forgets supervisors that have ended.
    pub(super) fn reap(&mut self) {
        self.children
            .retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

/// A service that is about to end.
struct Ending<'a> {
    name: &'a str,
    state: &'a ServiceState,
    needs: Vec<String>,
    asked_at: Option<Instant>,
}

impl Ending<'_> {
    fn ask(&mut self) {
        self.state.signal(Signal::TERM);
        self.asked_at.get_or_insert_with(Instant::now);
    }

    fn kill(&mut self) {
        // The second signal kills; two of one kind could become one.
        self.ask();
        self.state.signal(Signal::INT);
    }

    fn is_late(&self, timeout: Option<Duration>) -> bool {
        let waited = self.asked_at.map(|asked| asked.elapsed());
        timeout
            .zip(waited)
            .is_some_and(|(timeout, waited)| waited >= timeout)
    }
}

/// How services are ended.
#[derive(Clone, Copy)]
pub(super) struct Stopping<'a> {
    /// Set when they are to be killed.
    pub(super) kill: &'a AtomicBool,
    /// After which time they are killed, if that is sooner than their own grace period.
    pub(super) timeout: Option<Duration>,
}

/// Ends services, each before those it needs, and waits for them; meanwhile `tick` is called again
/// and again.
pub(super) fn stop(services: &[(String, ServiceState)], how: Stopping<'_>, tick: &mut dyn FnMut()) {
    let live = services.iter().filter(|(_, state)| state.is_live());
    let mut pending: Vec<Ending<'_>> = live
        .map(|(name, state)| Ending {
            name,
            state,
            needs: state.spec().map(|spec| spec.needs).unwrap_or_default(),
            asked_at: None,
        })
        .collect();
    while !pending.is_empty() {
        let needed: BTreeSet<String> = pending.iter().flat_map(|one| one.needs.clone()).collect();
        let is_circle = pending.iter().all(|one| needed.contains(one.name));
        for ending in &mut pending {
            if how.kill.load(Ordering::SeqCst) || ending.is_late(how.timeout) {
                ending.kill();
            } else if ending.asked_at.is_none() && (is_circle || !needed.contains(ending.name)) {
                ending.ask();
            }
        }
        std::thread::sleep(TICK);
        tick();
        pending.retain(|ending| ending.state.is_live());
    }
}

/// Tells what becomes of a container.
pub(super) fn tell(container: &str, what: &str) {
    output::tell(&format!(" Container {container} {what} "));
}
