//! A project: what the tree means.

mod build;
mod fields;
mod mount;
mod service;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::error::{At, Error, Result, Warning};
use crate::node::{KeyPath, Map, Node, Value};
use crate::variables::Variables;

pub use build::{Build, Dockerfile};
pub use mount::{Grant, Mount, MountKind, Port};
pub use service::{
    Condition, Dependency, EnvFile, HealthTest, Healthcheck, Restart, Service, Ulimit,
};

use fields::Fields;

/// A loaded project.
#[derive(Debug, Clone)]
pub struct Project {
    /// Its name.
    pub name: String,
    /// What relative paths are relative to; absolute.
    pub directory: PathBuf,
    /// The compose files, absolute, but for those that were included or extended.
    pub files: Vec<PathBuf>,
    /// The services whose profiles are on, by name.
    pub services: BTreeMap<String, Service>,
    /// The other services.
    pub disabled: BTreeMap<String, Service>,
    /// Named volumes.
    pub volumes: BTreeMap<String, Volume>,
    /// Secrets.
    pub secrets: BTreeMap<String, Resource>,
    /// Configs.
    pub configs: BTreeMap<String, Resource>,
    /// The variables by which values were interpolated.
    pub variables: Variables,
    /// What the user should know.
    pub warnings: Vec<Warning>,
    pub(crate) tree: Node,
}

/// A named volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name outside of the project.
    pub name: String,
    /// Whether it must exist already.
    pub is_external: bool,
    /// The driver, if one is named.
    pub driver: Option<String>,
    /// Where it is in the files.
    pub at: At,
}

/// A secret or a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Where its content comes from.
    pub origin: Origin,
    /// Where it is in the files.
    pub at: At,
}

/// Where the content of a secret or config comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file; absolute.
    File(PathBuf),
    /// A variable of the environment.
    Environment(String),
    /// The compose file itself.
    Content(String),
    /// Something that larder does not have.
    External,
}

impl std::fmt::Debug for Origin {
    /// Leaves the content out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Environment(name) => f.debug_tuple("Environment").field(name).finish(),
            Self::Content(_) => f.write_str("Content(…)"),
            Self::External => f.write_str("External"),
        }
    }
}

impl Project {
    /// Reads the model from a tree in its one form.
    pub(crate) fn new(
        tree: Node,
        name: String,
        directory: PathBuf,
        variables: Variables,
        profiles: &[String],
    ) -> Result<Self> {
        let nothing = Map::default();
        let section = |key: &str| -> &Map {
            let node = tree.as_map().and_then(|map| map.get(key));
            node.and_then(Node::as_map).unwrap_or(&nothing)
        };
        let mut services = BTreeMap::new();
        let mut disabled = BTreeMap::new();
        for entry in section("services") {
            let service = Service::read(&entry.key, &entry.node, &directory)?;
            let side = if service.is_enabled(profiles) {
                &mut services
            } else {
                &mut disabled
            };
            side.insert(entry.key.clone(), service);
        }
        let volumes = read_each(section("volumes"), "volumes", |key, fields| {
            let is_external = fields.flag("external")?.unwrap_or(false);
            if is_external
                && let Some(key) = ["driver", "driver_opts", "labels"]
                    .into_iter()
                    .find(|key| fields.get(key).is_some())
            {
                let message = format!("conflicting parameters `external` and `{key}` specified");
                return Err(fields.error(message));
            }
            let default = if is_external {
                key.to_owned()
            } else {
                format!("{name}_{key}")
            };
            Ok(Volume {
                name: fields.text("name").unwrap_or(default),
                is_external,
                driver: fields.text("driver"),
                at: fields.at.clone(),
            })
        })?;
        let resources =
            |kind: &'static str| read_each(section(kind), kind, |_, fields| read_resource(fields));
        let project = Self {
            secrets: resources("secrets")?,
            configs: resources("configs")?,
            services,
            disabled,
            volumes,
            name,
            directory,
            files: Vec::new(),
            variables,
            warnings: Vec::new(),
            tree,
        };
        project.check()?;
        Ok(project)
    }

    /// Turns services on by their names, with all others of their profiles.
    ///
    /// # Errors
    /// When there is no service of a name.
    pub fn enable<S: AsRef<str>>(&mut self, names: &[S]) -> Result<()> {
        for name in names {
            let name = name.as_ref();
            if let Some(service) = self.disabled.remove(name) {
                let profiles = service.profiles.clone();
                self.services.insert(name.to_owned(), service);
                self.turn_on(&profiles);
            }
            if !self.services.contains_key(name) {
                return Err(Error::options(format!("no such service: {name}")));
            }
        }
        Ok(())
    }

    fn turn_on(&mut self, profiles: &[String]) {
        for (name, service) in std::mem::take(&mut self.disabled) {
            let side = if service.is_enabled(profiles) {
                &mut self.services
            } else {
                &mut self.disabled
            };
            side.insert(name, service);
        }
    }

    /// Returns `names` and all services that they depend on, sorted so that each comes after those
    /// it needs; all services for no names.
    ///
    /// # Errors
    /// When a needed service is not there, or services need each other.
    pub fn in_order<S: AsRef<str>>(&self, names: &[S]) -> Result<Vec<&Service>> {
        let mut order = Order {
            project: self,
            done: Vec::new(),
            open: Vec::new(),
            seen: BTreeSet::new(),
        };
        if names.is_empty() {
            for service in self.services.values() {
                order.visit(service)?;
            }
        }
        for name in names {
            let name = name.as_ref();
            let service = self.services.get(name);
            order.visit(
                service.ok_or_else(|| Error::options(format!("no such service: {name}")))?,
            )?;
        }
        Ok(order.done)
    }

    /// Returns all profiles that services name, sorted.
    pub fn profiles(&self) -> BTreeSet<&str> {
        let services = self.services.values().chain(self.disabled.values());
        services
            .flat_map(|service| service.profiles.iter().map(String::as_str))
            .collect()
    }

    /// Checks what services say about each other and about volumes, secrets and configs.
    fn check(&self) -> Result<()> {
        for service in self.services.values() {
            self.check_service(service)?;
        }
        Ok(())
    }

    fn check_service(&self, service: &Service) -> Result<()> {
        let wrong = |message: String| Err(Error::file(&service.at, service.key(), message));
        if service.image.is_none() && service.build.is_none() && !service.has_provider {
            return wrong("has neither an image nor a build context specified".to_owned());
        }
        for dependency in &service.depends_on {
            let name = &dependency.service;
            let is_known = self.services.contains_key(name) || self.disabled.contains_key(name);
            if dependency.is_required && !is_known {
                return wrong(format!("depends on undefined service `{name}`"));
            }
        }
        for network in self.attached(service) {
            let networks = self.tree.as_map().and_then(|map| map.get("networks"));
            let networks = networks.and_then(Node::as_map);
            let is_known = networks.is_some_and(|networks| networks.get(network).is_some());
            if network != "default" && !is_known {
                return wrong(format!("refers to undefined network `{network}`"));
            }
        }
        for mount in &service.mounts {
            if let (MountKind::Volume, Some(source)) = (&mount.kind, &mount.source)
                && !self.volumes.contains_key(source)
            {
                return wrong(format!("refers to undefined volume `{source}`"));
            }
        }
        let kinds = [
            ("secret", &service.secrets, &self.secrets),
            ("config", &service.configs, &self.configs),
        ];
        for (kind, grants, known) in kinds {
            if let Some(grant) = grants
                .iter()
                .find(|grant| !known.contains_key(&grant.source))
            {
                return wrong(format!("refers to undefined {kind} `{}`", grant.source));
            }
        }
        if let Some(build) = &service.build {
            self.check_build(build, service)?;
        }
        Ok(())
    }

    fn check_build(&self, build: &Build, service: &Service) -> Result<()> {
        let wrong = |message: String| {
            Err(Error::file(
                &build.at,
                format!("{}.build", service.key()),
                message,
            ))
        };
        if build.dockerfile_and_inline {
            return wrong(
                "declares mutually exclusive `dockerfile` and `dockerfile_inline`".to_owned(),
            );
        }
        if let Some(secret) = build
            .secrets
            .iter()
            .find(|secret| !self.secrets.contains_key(&secret.source))
        {
            return wrong(format!(
                "refers to undefined build secret `{}`",
                secret.source
            ));
        }
        for (name, location) in &build.additional_contexts {
            let Some(other) = location.strip_prefix("service:") else {
                continue;
            };
            if !self.services.contains_key(other) && !self.disabled.contains_key(other) {
                return wrong(format!(
                    "additional context `{name}` is of undefined service `{other}`"
                ));
            }
        }
        match &service.platform {
            Some(platform)
                if !build.platforms.is_empty() && !build.platforms.contains(platform) =>
            {
                wrong(format!(
                    "`platforms` must contain the service's platform `{platform}`"
                ))
            }
            _ => Ok(()),
        }
    }
}

struct Order<'a> {
    project: &'a Project,
    done: Vec<&'a Service>,
    open: Vec<&'a str>,
    seen: BTreeSet<&'a str>,
}

impl<'a> Order<'a> {
    fn visit(&mut self, service: &'a Service) -> Result<()> {
        let name = service.name.as_str();
        if self.open.contains(&name) {
            let cycle: Vec<&str> = self.open.iter().copied().chain([name]).collect();
            let message = format!("dependency cycle detected: {}", cycle.join(" -> "));
            return Err(Error::file(&service.at, service.key(), message));
        }
        if !self.seen.insert(name) {
            return Ok(());
        }
        self.open.push(name);
        for dependency in &service.depends_on {
            let needed = &dependency.service;
            match self.project.services.get(needed) {
                Some(other) => self.visit(other)?,
                None if !dependency.is_required => {}
                None => {
                    let message = match self.project.disabled.get(needed) {
                        Some(other) => format!(
                            "service `{needed}` is required by `{name}` but is disabled; it can be enabled by profiles [{}]",
                            other.profiles.join(" ")
                        ),
                        None => format!("depends on undefined service `{needed}`"),
                    };
                    return Err(Error::file(&service.at, service.key(), message));
                }
            }
        }
        self.open.pop();
        self.done.push(service);
        Ok(())
    }
}

fn read_each<T>(
    section: &Map,
    kind: &str,
    read: impl Fn(&str, &Fields<'_>) -> Result<T>,
) -> Result<BTreeMap<String, T>> {
    let nothing = Map::default();
    let path = KeyPath::ROOT.key(kind);
    let mut resources = BTreeMap::new();
    for entry in section {
        let fields = Fields {
            map: entry.node.as_map().unwrap_or(&nothing),
            at: &entry.at,
            path: path.key(&entry.key),
        };
        resources.insert(entry.key.clone(), read(&entry.key, &fields)?);
    }
    Ok(resources)
}

fn read_resource(fields: &Fields<'_>) -> Result<Resource> {
    let sources = ["file", "environment", "content"].into_iter();
    let given: Vec<&str> = sources.filter(|key| fields.get(key).is_some()).collect();
    let origin = if fields.flag("external")?.unwrap_or(false) {
        Origin::External
    } else if let [first, second, ..] = given[..] {
        let message = format!("`{first}` and `{second}` are mutually exclusive");
        return Err(fields.error(message));
    } else if let Some(file) = fields.text("file") {
        Origin::File(file.into())
    } else if let Some(name) = fields.text("environment") {
        Origin::Environment(name)
    } else if let Some(content) = fields.text("content") {
        Origin::Content(content)
    } else {
        return Err(fields.error("one of `file`, `environment` and `external` must be set"));
    };
    Ok(Resource {
        origin,
        at: fields.at.clone(),
    })
}

/// Whether a node says something.
fn is_given(node: &Node) -> bool {
    node.value != Value::Null
}
