//! What a service is, in full: what its supervisor needs to run it.

mod mounts;

use std::time::Duration;

use anyhow::anyhow;
use larder_compose::{HealthTest, Healthcheck, Project, Restart, Service};
use larder_engine::request::Ulimit;
use larder_engine::{ContainerRequest, ImageDetails, Volume};
use larder_oci::Digest;
use serde::{Deserialize, Serialize};

use self::mounts::MountSpec;
use crate::args::{HostArg, values};
use crate::commands::build::plan;

/// How long a service may take to end, unless it says otherwise; as compose has it.
const GRACE: Duration = Duration::from_secs(10);
/// What a service is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Spec {
    pub(super) format: u32,
    pub(super) project: String,
    pub(super) service: String,
    /// The image's name, for people.
    pub(super) image: String,
    /// The image's id.
    pub(super) image_id: Digest,
    /// What runs, for people.
    pub(super) shown_command: String,
    pub(super) entrypoint: Option<Vec<String>>,
    pub(super) command: Option<Vec<String>>,
    env: Vec<String>,
    workdir: Option<String>,
    user: Option<String>,
    hostname: Option<String>,
    mounts: Vec<MountSpec>,
    extra_hosts: Vec<(String, String)>,
    ulimits: Vec<(String, i64, i64)>,
    shm_size_bytes: Option<u64>,
    host_ca: bool,
    pub(super) healthcheck: CheckSpec,
    pub(super) restart: RestartSpec,
    pub(super) stop_signal: Option<String>,
    pub(super) grace: Duration,
    /// As `ps` shows them.
    pub(super) ports: String,
    /// The services it depends on: they are stopped after it.
    pub(super) needs: Vec<String>,
}

/// What a service says about its health check; the rest is the image's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct CheckSpec {
    /// As in image configs: `["CMD", …]`.
    pub(super) test: Option<Vec<String>>,
    pub(super) interval: Option<Duration>,
    pub(super) timeout: Option<Duration>,
    pub(super) start_period: Option<Duration>,
    pub(super) start_interval: Option<Duration>,
    pub(super) retries: Option<u32>,
}

/// Whether a service is started again when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RestartSpec {
    No,
    Always,
    OnFailure(Option<u32>),
}

impl Spec {
    /// Changes when older specifications can't be read any more; they are then as if not there.
    pub(super) const FORMAT: u32 = 1;

    /// Returns what `service` is with `image`.
    ///
    /// # Errors
    /// Names file, line and key of what can't be run.
    pub(super) fn new(
        project: &Project,
        service: &Service,
        image: &ImageDetails,
        host_ca: bool,
    ) -> anyhow::Result<Self> {
        let env = service.resolve_environment(&project.variables)?;
        Ok(Self {
            format: Self::FORMAT,
            project: project.name.clone(),
            service: service.name.clone(),
            image: service.image_name(&project.name),
            image_id: image.manifest.config.digest.clone(),
            shown_command: shown_command(service, image),
            entrypoint: service.entrypoint.clone(),
            command: service.command.clone(),
            env: env
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            workdir: service.working_dir.clone(),
            user: service.user.clone(),
            hostname: service.hostname.clone(),
            mounts: mounts::of(project, service)?,
            extra_hosts: extra_hosts(project, service)?,
            ulimits: ulimits(service)?,
            shm_size_bytes: service.shm_size_bytes,
            host_ca,
            healthcheck: service
                .healthcheck
                .as_ref()
                .map(CheckSpec::new)
                .unwrap_or_default(),
            restart: match service.restart {
                Restart::No => RestartSpec::No,
                Restart::Always | Restart::UnlessStopped => RestartSpec::Always,
                Restart::OnFailure(limit) => RestartSpec::OnFailure(limit),
            },
            stop_signal: service.stop_signal.clone(),
            grace: service.stop_grace_period.unwrap_or(GRACE),
            ports: ports(service),
            needs: service
                .depends_on
                .iter()
                .map(|dependency| dependency.service.clone())
                .collect(),
        })
    }

    /// Returns the name of the container, as compose names the first one.
    pub(super) fn container_name(&self) -> String {
        format!("{}-{}-1", self.project, self.service)
    }

    /// Returns the container to make. Reads secrets, so it is done when it starts.
    ///
    /// # Errors
    /// When a secret can't be read.
    pub(super) fn container(&self) -> anyhow::Result<ContainerRequest> {
        Ok(ContainerRequest {
            image: self.image_id.to_string(),
            env: self.env.clone(),
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            hostname: self.hostname.clone(),
            mounts: self
                .mounts
                .iter()
                .map(MountSpec::open)
                .collect::<anyhow::Result<_>>()?,
            extra_hosts: self.extra_hosts.clone(),
            ulimits: self
                .ulimits
                .iter()
                .map(|(name, soft, hard)| Ulimit {
                    name: name.clone(),
                    soft: *soft,
                    hard: *hard,
                })
                .collect(),
            shm_size_bytes: self.shm_size_bytes,
            host_ca: self.host_ca,
            ..ContainerRequest::default()
        })
    }

    /// Adds variables, over those it has.
    pub(super) fn add_env(&mut self, variables: impl IntoIterator<Item = String>) {
        // The container takes the last of each name.
        self.env.extend(variables);
    }

    /// Takes another user or working directory.
    pub(super) fn replace(&mut self, user: Option<String>, workdir: Option<String>) {
        self.user = user.or(self.user.take());
        self.workdir = workdir.or(self.workdir.take());
    }

    /// Adds directories of the host.
    pub(super) fn add_volumes(&mut self, volumes: Vec<Volume>) {
        for volume in volumes {
            self.mounts.retain(|mount| mount.target != volume.target);
            self.mounts.push(volume.into());
        }
        mounts::sort(&mut self.mounts);
    }
}

impl CheckSpec {
    fn new(check: &Healthcheck) -> Self {
        let words = |kind: &str, rest: &[String]| {
            std::iter::once(kind.to_owned())
                .chain(rest.iter().cloned())
                .collect()
        };
        Self {
            test: check.test.as_ref().map(|test| match test {
                HealthTest::Disabled => words("NONE", &[]),
                HealthTest::Command(command) => words("CMD", command),
                HealthTest::Shell(line) => words("CMD-SHELL", std::slice::from_ref(line)),
            }),
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        }
    }
}

fn shown_command(service: &Service, image: &ImageDetails) -> String {
    let config = &image.config.config;
    let entrypoint = service.entrypoint.as_ref();
    let command = match (&service.command, entrypoint) {
        (Some(command), _) => Some(command),
        (None, None) => config.cmd.as_ref(),
        (None, Some(_)) => None,
    };
    let entrypoint = entrypoint.or(config.entrypoint.as_ref());
    let words: Vec<String> = entrypoint
        .into_iter()
        .chain(command)
        .flatten()
        .cloned()
        .collect();
    words.join(" ")
}

/// Returns an error that names the service and where its key stands.
pub(super) fn wrong(service: &Service, key: &str, problem: &str) -> anyhow::Error {
    let place = service.keys.iter().find(|(name, _)| name == key);
    let at = place.map_or(&service.at, |(_, at)| at);
    anyhow!("{at}: {}.{key}: {problem}", service.key())
}

/// Returns the service's own lines of `/etc/hosts`, and the names of all services: they share the
/// host's network.
fn extra_hosts(project: &Project, service: &Service) -> anyhow::Result<Vec<(String, String)>> {
    let mut hosts = Vec::new();
    for text in &service.extra_hosts {
        let host: HostArg =
            values::host(text).map_err(|problem| wrong(service, "extra_hosts", &problem))?;
        hosts.push(plan::extra_host(host));
    }
    for name in project.services.keys() {
        hosts.push((name.clone(), "127.0.0.1".to_owned()));
    }
    Ok(hosts)
}

fn ulimits(service: &Service) -> anyhow::Result<Vec<(String, i64, i64)>> {
    let mut ulimits = Vec::new();
    for limit in &service.ulimits {
        let text = format!("{}={}:{}", limit.name, limit.soft, limit.hard);
        let limit = values::ulimit(&text).map_err(|problem| wrong(service, "ulimits", &problem))?;
        ulimits.push((limit.name, limit.soft, limit.hard));
    }
    Ok(ulimits)
}

fn ports(service: &Service) -> String {
    let port = |port: &larder_compose::Port| format!("{}/{}", port.target, port.protocol);
    let ports: Vec<String> = service.ports.iter().map(port).collect();
    ports.join(", ")
}
