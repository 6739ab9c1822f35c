use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::dotenv::{self, EnvFormat};
use crate::error::{At, Error, Result};
use crate::node::{KeyPath, Map, Node};
use crate::variables::Variables;

use super::build::Build;
use super::fields::Fields;
use super::mount::{Grant, Mount, Port};

/// A service.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// The image it runs, or the name that its build gives.
    pub image: Option<String>,
    /// How its image is built.
    pub build: Option<Build>,
    /// The command, in place of the image's CMD.
    pub command: Option<Vec<String>>,
    /// The entry point, in place of the image's.
    pub entrypoint: Option<Vec<String>>,
    /// Variables; those without a value take that of the environment.
    pub environment: Vec<(String, Option<String>)>,
    /// Files with variables, which `environment` overrides.
    pub env_files: Vec<EnvFile>,
    /// The working directory, in place of the image's.
    pub working_dir: Option<String>,
    /// The user, in place of the image's.
    pub user: Option<String>,
    /// The host's name inside.
    pub hostname: Option<String>,
    /// Volumes.
    pub mounts: Vec<Mount>,
    /// Ports.
    pub ports: Vec<Port>,
    /// The services it needs.
    pub depends_on: Vec<Dependency>,
    /// How its health is found out, in place of the image's way.
    pub healthcheck: Option<Healthcheck>,
    /// What happens when it ends.
    pub restart: Restart,
    /// The signal that asks it to end, in place of the image's.
    pub stop_signal: Option<String>,
    /// How long it may take to end.
    pub stop_grace_period: Option<Duration>,
    /// Lines of `/etc/hosts`, `name=address`.
    pub extra_hosts: Vec<String>,
    /// Secrets it may read.
    pub secrets: Vec<Grant>,
    /// Configs it may read.
    pub configs: Vec<Grant>,
    /// Paths that are in memory, with options: `/run:size=1m`.
    pub tmpfs: Vec<String>,
    /// Resource limits.
    pub ulimits: Vec<Ulimit>,
    /// The size of `/dev/shm`, in bytes.
    pub shm_size_bytes: Option<u64>,
    /// The profiles that turn it on; none for always.
    pub profiles: Vec<String>,
    /// What its image must be for.
    pub platform: Option<String>,
    /// When its image is pulled.
    pub pull_policy: Option<String>,
    /// How many containers of it run.
    pub scale: u32,
    /// Where it is in the files.
    pub at: At,
    /// All keys it has, with their places.
    pub keys: Vec<(String, At)>,
    pub(super) has_provider: bool,
}

/// A file with variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvFile {
    /// Absolute.
    pub path: PathBuf,
    /// Whether it must be there.
    pub is_required: bool,
    /// How its values are read.
    pub format: EnvFormat,
}

/// A service that another one needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// Its name.
    pub service: String,
    /// What it must have become.
    pub condition: Condition,
    /// Whether it must be there at all.
    pub is_required: bool,
}

/// What a needed service must have become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Started.
    Started,
    /// Healthy.
    Healthy,
    /// Ended, with exit code 0.
    CompletedSuccessfully,
}

/// How a service's health is found out. What is not given is the image's, or the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// The test.
    pub test: Option<HealthTest>,
    /// The time between tests.
    pub interval: Option<Duration>,
    /// How long a test may take.
    pub timeout: Option<Duration>,
    /// How long failures do not count.
    pub start_period: Option<Duration>,
    /// The time between tests while failures do not count.
    pub start_interval: Option<Duration>,
    /// Failures in a row that make it unhealthy.
    pub retries: Option<u32>,
}

/// What tests a service's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthTest {
    /// Nothing.
    Disabled,
    /// A program.
    Command(Vec<String>),
    /// A line for the shell.
    Shell(String),
}

/// What happens when a service ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Restart {
    /// Nothing.
    #[default]
    No,
    /// It is started again.
    Always,
    /// It is started again unless its exit code is 0, this often at most.
    OnFailure(Option<u32>),
    /// It is started again, unless it was stopped.
    UnlessStopped,
}

/// A resource limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// `nofile`, `nproc`, …
    pub name: String,
    /// What is in force; -1 for none.
    pub soft: i64,
    /// What it may be raised to; -1 for any.
    pub hard: i64,
}

impl Service {
    pub(super) fn read(name: &str, node: &Node, directory: &Path) -> Result<Self> {
        let nothing = Map::default();
        let services = KeyPath::ROOT.key("services");
        let fields = Fields {
            map: node.as_map().unwrap_or(&nothing),
            at: &node.at,
            path: services.key(name),
        };
        let texts = |key: &str| fields.texts(key).unwrap_or_default();
        let deploy = fields.fields("deploy");
        let replicas = match &deploy {
            Some(deploy) => deploy.number("replicas")?,
            None => None,
        };
        check_values(&fields, replicas)?;
        Ok(Self {
            name: name.to_owned(),
            image: fields.text("image").filter(|image| !image.is_empty()),
            build: fields
                .fields("build")
                .map(|build| Build::read(&build, directory))
                .transpose()?,
            command: fields.texts("command"),
            entrypoint: fields.texts("entrypoint"),
            environment: fields.pairs("environment"),
            env_files: fields.each("env_file", env_file)?,
            working_dir: fields.text("working_dir"),
            user: fields.text("user"),
            hostname: fields.text("hostname"),
            mounts: fields.each("volumes", Mount::read)?,
            ports: fields.each("ports", Port::read)?,
            depends_on: dependencies(&fields)?,
            healthcheck: fields
                .fields("healthcheck")
                .map(|check| healthcheck(&check))
                .transpose()?,
            restart: restart(&fields)?,
            stop_signal: fields.text("stop_signal"),
            stop_grace_period: fields.duration("stop_grace_period")?,
            extra_hosts: texts("extra_hosts"),
            secrets: fields.each("secrets", Grant::read)?,
            configs: fields.each("configs", Grant::read)?,
            tmpfs: texts("tmpfs"),
            ulimits: ulimits(&fields)?,
            shm_size_bytes: fields.size("shm_size")?,
            profiles: texts("profiles"),
            platform: fields.text("platform"),
            pull_policy: fields.text("pull_policy"),
            scale: fields.number("scale")?.or(replicas).unwrap_or(1),
            at: node.at.clone(),
            keys: fields
                .map
                .iter()
                .filter(|entry| super::is_given(&entry.node))
                .map(|entry| (entry.key.clone(), entry.at.clone()))
                .collect(),
            has_provider: fields.get("provider").is_some(),
        })
    }

    /// Returns what the files say about it.
    pub(crate) fn node<'a>(&self, tree: &'a Node) -> Option<&'a Map> {
        let services = tree.as_map()?.get("services")?.as_map()?;
        services.get(&self.name)?.as_map()
    }

    /// Returns its key in the files.
    pub fn key(&self) -> String {
        format!("services.{}", self.name)
    }

    /// Returns the name of its image: its own, or that of the project's build.
    pub fn image_name(&self, project: &str) -> String {
        match &self.image {
            Some(image) => image.clone(),
            None => format!("{project}-{}", self.name),
        }
    }

    /// Returns its variables: those of its files, then its own, then what `variables` have for
    /// names without a value; sorted by name.
    ///
    /// # Errors
    /// When a file that must be there can't be read.
    pub fn resolve_environment(&self, variables: &Variables) -> Result<Vec<(String, String)>> {
        let mut resolved = std::collections::BTreeMap::new();
        for file in &self.env_files {
            if !file.path.is_file() && !file.is_required {
                continue;
            }
            let pairs = dotenv::read(&file.path, file.format, variables)
                .map_err(|error| self.env_file_error(file, error))?;
            resolved.extend(pairs);
        }
        for (name, value) in &self.environment {
            match value.as_deref().or_else(|| variables.get(name)) {
                Some(value) => resolved.insert(name.clone(), value.to_owned()),
                None => resolved.remove(name),
            };
        }
        Ok(resolved.into_iter().collect())
    }

    fn env_file_error(&self, file: &EnvFile, error: Error) -> Error {
        if error.at().is_some() {
            return error;
        }
        let at = self.keys.iter().find(|(key, _)| key == "env_file");
        let at = at.map_or(&self.at, |(_, at)| at);
        let key = format!("{}.env_file", self.key());
        let message = format!("env file `{}` not found", file.path.display());
        Error::file(at, key, message)
    }

    pub(super) fn is_enabled(&self, profiles: &[String]) -> bool {
        let is_on = |profile: &String| profiles.iter().any(|on| on == "*" || on == profile);
        self.profiles.is_empty() || self.profiles.iter().any(is_on)
    }
}

/// Checks what compose does not let through, though larder makes no use of it.
fn check_values(fields: &Fields<'_>, replicas: Option<u32>) -> Result<()> {
    let scale: Option<u32> = fields.number("scale")?;
    if let (Some(scale), Some(replicas)) = (scale, replicas)
        && scale != replicas
    {
        let message = "can't set distinct values on `scale` and `deploy.replicas`";
        return Err(fields.error(message));
    }
    let networks = fields.get("networks").and_then(Node::as_map);
    if fields.text("network_mode").is_some() && networks.is_some_and(|map| !map.is_empty()) {
        return Err(fields.error("declares mutually exclusive `network_mode` and `networks`"));
    }
    if let Some(name) = fields.text("container_name") {
        let mut characters = name.chars();
        let is_name = characters.next().is_some_and(|c| c.is_ascii_alphanumeric())
            && name.len() > 1
            && characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        if !is_name {
            let pattern = "[a-zA-Z0-9][a-zA-Z0-9_.-]+";
            let message = format!("`container_name`: `{name}` does not match pattern `{pattern}`");
            return Err(fields.error(message));
        }
    }
    if let Some(policy) = fields.text("pull_policy") {
        let is_known = matches!(
            policy.as_str(),
            "always"
                | "never"
                | "build"
                | "if_not_present"
                | "missing"
                | "refresh"
                | "daily"
                | "weekly"
        );
        if !is_known && !policy.starts_with("every_") {
            let message = format!(
                "`pull_policy`: `{policy}` is no policy (always, never, build, missing, daily, weekly, every_TIME)"
            );
            return Err(fields.error(message));
        }
    }
    Ok(())
}

fn env_file(fields: &Fields<'_>) -> Result<EnvFile> {
    let format = match fields.text("format").as_deref() {
        None | Some("") => EnvFormat::Interpolated,
        Some("raw") => EnvFormat::Raw,
        Some(other) => return Err(fields.error(format!("`format`: `{other}` is no format (raw)"))),
    };
    Ok(EnvFile {
        path: fields.text("path").unwrap_or_default().into(),
        is_required: fields.flag("required")?.unwrap_or(true),
        format,
    })
}

fn dependencies(fields: &Fields<'_>) -> Result<Vec<Dependency>> {
    let Some(map) = fields.fields("depends_on") else {
        return Ok(Vec::new());
    };
    let mut dependencies = Vec::new();
    for entry in map.map {
        let Some(fields) = map.fields(&entry.key) else {
            continue;
        };
        let condition = match fields.text("condition").as_deref() {
            None | Some("service_started") => Condition::Started,
            Some("service_healthy") => Condition::Healthy,
            Some("service_completed_successfully") => Condition::CompletedSuccessfully,
            Some(other) => {
                return Err(fields.error(format!(
                    "`condition`: `{other}` is none (service_started, service_healthy, service_completed_successfully)"
                )));
            }
        };
        dependencies.push(Dependency {
            service: entry.key.clone(),
            condition,
            is_required: fields.flag("required")?.unwrap_or(true),
        });
    }
    Ok(dependencies)
}

fn healthcheck(fields: &Fields<'_>) -> Result<Healthcheck> {
    let is_disabled = fields.flag("disable")?.unwrap_or(false);
    let words = fields.texts("test");
    let test = match words.as_deref() {
        _ if is_disabled => Some(HealthTest::Disabled),
        None | Some([]) => None,
        Some([kind, rest @ ..]) => Some(match (kind.as_str(), rest) {
            ("NONE", _) => HealthTest::Disabled,
            ("CMD", [_, ..]) => HealthTest::Command(rest.to_vec()),
            ("CMD-SHELL", [line]) => HealthTest::Shell(line.clone()),
            _ => {
                return Err(fields.error("`test` must begin with NONE, CMD or CMD-SHELL"));
            }
        }),
    };
    Ok(Healthcheck {
        test,
        interval: fields.duration("interval")?,
        timeout: fields.duration("timeout")?,
        start_period: fields.duration("start_period")?,
        start_interval: fields.duration("start_interval")?,
        retries: fields.number("retries")?,
    })
}

fn restart(fields: &Fields<'_>) -> Result<Restart> {
    let text = fields.text("restart").unwrap_or_default();
    let (policy, limit) = text.split_once(':').unwrap_or((&text, ""));
    match (policy, limit) {
        ("" | "no", "") => Ok(Restart::No),
        ("always", "") => Ok(Restart::Always),
        ("unless-stopped", "") => Ok(Restart::UnlessStopped),
        ("on-failure", "") => Ok(Restart::OnFailure(None)),
        ("on-failure", limit) if limit.parse::<u32>().is_ok() => {
            Ok(Restart::OnFailure(limit.parse().ok()))
        }
        _ => Err(fields.error(format!(
            "`restart`: `{text}` is no policy (no, always, on-failure[:N], unless-stopped)"
        ))),
    }
}

pub(super) fn ulimits(fields: &Fields<'_>) -> Result<Vec<Ulimit>> {
    let Some(map) = fields.fields("ulimits") else {
        return Ok(Vec::new());
    };
    let mut ulimits = Vec::new();
    for entry in map.map {
        let name = entry.key.clone();
        let (soft, hard) = if let Some(limits) = map.fields(&entry.key) {
            (limits.number("soft")?, limits.number("hard")?)
        } else {
            let both = map.number(&entry.key)?;
            (both, both)
        };
        let (Some(soft), Some(hard)) = (soft.or(hard), hard.or(soft)) else {
            continue;
        };
        ulimits.push(Ulimit { name, soft, hard });
    }
    Ok(ulimits)
}
