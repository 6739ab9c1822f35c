//! What a service is, in full: what its supervisor needs to run it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use larder_compose::{
    Grant, HealthTest, Healthcheck, Mount, MountKind, Origin, Project, Resource, Restart, Service,
};
use larder_engine::request::{SecretBytes, Ulimit};
use larder_engine::{ContainerMount, ContainerRequest, ContainerSource, VolumeName};
use larder_oci::Digest;
use serde::{Deserialize, Serialize};

use crate::args::{HostArg, values};
use crate::commands::build::plan;

/// How long a service may take to end, unless it says otherwise; as compose has it.
const GRACE: Duration = Duration::from_secs(10);
/// Where secrets are seen.
const SECRETS: &str = "/run/secrets";
/// The permission bits of secrets and configs, unless they say otherwise.
const FILE_MODE: u32 = 0o444;

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

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct MountSpec {
    source: SourceSpec,
    target: String,
    readonly: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SourceSpec {
    Anonymous,
    Host {
        path: PathBuf,
        create: bool,
    },
    Volume {
        name: String,
        copy: bool,
    },
    Memory {
        size_bytes: Option<u64>,
    },
    File {
        origin: OriginSpec,
        mode: u32,
        uid: u32,
        gid: u32,
    },
}

/// Where a secret comes from. The secret itself is not written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OriginSpec {
    File(PathBuf),
    Environment(String),
    Content(String),
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

    /// Returns what `service` is with the image `image_id`.
    ///
    /// # Errors
    /// Names file, line and key of what can't be run.
    pub(super) fn new(
        project: &Project,
        service: &Service,
        image_id: Digest,
        host_ca: bool,
    ) -> anyhow::Result<Self> {
        let env = service.resolve_environment(&project.variables)?;
        Ok(Self {
            format: Self::FORMAT,
            project: project.name.clone(),
            service: service.name.clone(),
            image: service.image_name(&project.name),
            image_id,
            entrypoint: service.entrypoint.clone(),
            command: service.command.clone(),
            env: env
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            workdir: service.working_dir.clone(),
            user: service.user.clone(),
            hostname: service.hostname.clone(),
            mounts: mounts(project, service)?,
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
        let mounts = self.mounts.iter().map(|mount| {
            let source = mount.source.open();
            Ok(ContainerMount {
                source: source.with_context(|| format!("cannot mount `{}`", mount.target))?,
                target: mount.target.clone(),
                readonly: mount.readonly,
            })
        });
        Ok(ContainerRequest {
            image: self.image_id.to_string(),
            env: self.env.clone(),
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            hostname: self.hostname.clone(),
            mounts: mounts.collect::<anyhow::Result<_>>()?,
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
    pub(super) fn add_volumes(&mut self, volumes: Vec<larder_engine::Volume>) {
        for volume in volumes {
            self.mounts.retain(|mount| mount.target != volume.target);
            self.mounts.push(MountSpec {
                source: match volume.source {
                    Some(path) => SourceSpec::Host { path, create: true },
                    None => SourceSpec::Anonymous,
                },
                target: volume.target,
                readonly: volume.readonly,
            });
        }
        sort(&mut self.mounts);
    }
}

impl SourceSpec {
    fn open(&self) -> anyhow::Result<ContainerSource> {
        Ok(match self {
            Self::Anonymous => ContainerSource::Anonymous,
            Self::Host { path, create } => ContainerSource::Host {
                path: path.clone(),
                create: *create,
            },
            Self::Volume { name, copy } => ContainerSource::Volume {
                name: VolumeName::new(name)?,
                copy: *copy,
            },
            Self::Memory { size_bytes } => ContainerSource::Memory {
                size_bytes: *size_bytes,
            },
            Self::File {
                origin,
                mode,
                uid,
                gid,
            } => ContainerSource::File {
                content: SecretBytes::new(origin.read()?),
                mode: *mode,
                uid: *uid,
                gid: *gid,
            },
        })
    }
}

impl OriginSpec {
    fn read(&self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::File(path) => Ok(fs_err::read(path)?),
            Self::Environment(name) => std::env::var(name)
                .map(String::into_bytes)
                .map_err(|_| anyhow!("the variable `{name}` is not set")),
            Self::Content(text) => Ok(text.clone().into_bytes()),
        }
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

/// Returns an error that names the service and where its key stands.
pub(super) fn wrong(service: &Service, key: &str, problem: &str) -> anyhow::Error {
    let place = service.keys.iter().find(|(name, _)| name == key);
    let at = place.map_or(&service.at, |(_, at)| at);
    anyhow!("{at}: {}.{key}: {problem}", service.key())
}

fn mounts(project: &Project, service: &Service) -> anyhow::Result<Vec<MountSpec>> {
    let mut mounts = Vec::new();
    for mount in &service.mounts {
        mounts.push(MountSpec {
            source: mount_source(project, service, mount)?,
            target: mount.target.clone(),
            readonly: mount.is_readonly,
        });
    }
    for text in &service.tmpfs {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        let size = options
            .split(',')
            .find_map(|option| option.strip_prefix("size="));
        let size = size.map(crate::units::parse_size).transpose();
        mounts.push(MountSpec {
            source: SourceSpec::Memory {
                size_bytes: size.map_err(|problem| wrong(service, "tmpfs", &problem))?,
            },
            target: target.to_owned(),
            readonly: false,
        });
    }
    let kinds = [
        ("secrets", &service.secrets, &project.secrets, SECRETS),
        ("configs", &service.configs, &project.configs, ""),
    ];
    for (key, grants, known, directory) in kinds {
        for grant in grants {
            let resource = known.get(&grant.source);
            let resource = resource.with_context(|| format!("`{}` is not known", grant.source))?;
            mounts.push(granted(service, key, grant, resource, directory)?);
        }
    }
    sort(&mut mounts);
    Ok(mounts)
}

/// Puts what lies in another mount after it.
fn sort(mounts: &mut [MountSpec]) {
    mounts.sort_by_key(|mount| Path::new(&mount.target).components().count());
}

fn mount_source(project: &Project, service: &Service, mount: &Mount) -> anyhow::Result<SourceSpec> {
    let not_there = |what: &str| {
        Err(wrong(
            service,
            "volumes",
            &format!("{what} is not supported"),
        ))
    };
    if mount.subpath.is_some() {
        return not_there("`subpath`");
    }
    Ok(match (&mount.kind, &mount.source) {
        (MountKind::Bind, Some(source)) => SourceSpec::Host {
            path: source.into(),
            create: mount.creates_host_path,
        },
        (MountKind::Volume, Some(key)) => {
            let volume = project.volumes.get(key);
            let volume = volume.with_context(|| format!("volume `{key}` is not known"))?;
            if let Some(driver) = volume.driver.as_deref().filter(|driver| *driver != "local") {
                bail!(
                    "{}: volumes.{key}.driver: `{driver}` is not supported",
                    volume.at
                );
            }
            SourceSpec::Volume {
                name: volume.name.clone(),
                copy: !mount.no_copy,
            }
        }
        (MountKind::Bind | MountKind::Volume, None) => SourceSpec::Anonymous,
        (MountKind::Tmpfs, _) => SourceSpec::Memory {
            size_bytes: mount.size_bytes,
        },
        (MountKind::Other(kind), _) => return not_there(&format!("type `{kind}`")),
    })
}

fn granted(
    service: &Service,
    key: &str,
    grant: &Grant,
    resource: &Resource,
    directory: &str,
) -> anyhow::Result<MountSpec> {
    let origin = match &resource.origin {
        Origin::File(path) => OriginSpec::File(path.clone()),
        Origin::Environment(name) => OriginSpec::Environment(name.clone()),
        Origin::Content(text) => OriginSpec::Content(text.clone()),
        Origin::External => {
            let problem = format!("`{}` is external, which is not supported", grant.source);
            return Err(wrong(service, key, &problem));
        }
    };
    let name = grant.target.as_ref().unwrap_or(&grant.source);
    Ok(MountSpec {
        source: SourceSpec::File {
            origin,
            mode: grant.mode.unwrap_or(FILE_MODE),
            uid: grant.uid.unwrap_or(0),
            gid: grant.gid.unwrap_or(0),
        },
        target: if name.starts_with('/') {
            name.clone()
        } else {
            format!("{directory}/{name}")
        },
        readonly: true,
    })
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
