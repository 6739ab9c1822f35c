//! From services to what is built: the list of targets that compose gives to `buildx bake`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::canonical::is_remote;
use crate::error::{At, Error, Result};
use crate::model::{Build, Dockerfile, Origin, Project, Service, Ulimit};

/// One image to build. Neutral: no default of a builder is in it.
#[derive(Debug, Clone, PartialEq)]
pub struct BuildTarget {
    /// Its name: the service's, with `_` for `.`.
    pub name: String,
    /// The service.
    pub service: String,
    /// Whether it was asked for; otherwise another target needs it.
    pub is_wanted: bool,
    /// The image's name.
    pub image: String,
    /// Whether the service gives that name itself. Others are not pushed.
    pub is_named: bool,
    /// The files.
    pub context: TargetContext,
    /// The Dockerfile. A path is relative to the context, or absolute.
    pub dockerfile: Dockerfile,
    /// Further contexts, by name.
    pub contexts: Vec<(String, TargetContext)>,
    /// Build arguments with a value.
    pub args: Vec<(String, String)>,
    /// Labels, those of compose included.
    pub labels: Vec<(String, String)>,
    /// All names of the image.
    pub tags: Vec<String>,
    /// The stage.
    pub target: Option<String>,
    /// Cache sources, each a reference or `type=…`.
    pub cache_from: Vec<String>,
    /// Cache destinations, each a reference or `type=…`.
    pub cache_to: Vec<String>,
    /// Secrets.
    pub secrets: Vec<TargetSecret>,
    /// SSH agents or keys: `id` or `id=path`.
    pub ssh: Vec<String>,
    /// Platforms; none for the host's.
    pub platforms: Vec<String>,
    /// The network of RUN steps.
    pub network: Option<String>,
    /// Whether base images are looked up in their registries.
    pub pull: bool,
    /// Whether all steps run again.
    pub no_cache: bool,
    /// Stages whose steps run again.
    pub no_cache_filter: Vec<String>,
    /// The size of `/dev/shm`, in bytes.
    pub shm_size_bytes: Option<u64>,
    /// Resource limits.
    pub ulimits: Vec<Ulimit>,
    /// Lines of `/etc/hosts`: name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// What steps may do beyond the usual.
    pub entitlements: Vec<String>,
    /// Attestations asked for, with their values.
    pub attestations: Vec<(String, String)>,
    /// Where `build` is in the files.
    pub at: At,
}

/// Files of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetContext {
    /// A directory; absolute.
    Directory(PathBuf),
    /// The result of another target.
    Target(String),
    /// An image's files: a reference.
    Image(String),
    /// An OCI layout: a path, with a tag or digest.
    OciLayout(String),
    /// A git repository or an archive: a URL.
    Remote(String),
}

/// A secret of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetSecret {
    /// The id by which RUN mounts it.
    pub id: String,
    /// Where it comes from: a file or a variable.
    pub origin: Origin,
}

impl Project {
    /// Returns what must be built for `services`, each target after those it needs; for all
    /// services that have a `build` without names. Services without one are left out.
    ///
    /// # Errors
    /// When a service is not there, needs one that can't be built, or needs itself.
    pub fn build_targets<S: AsRef<str>>(&self, services: &[S]) -> Result<Vec<BuildTarget>> {
        let wanted: BTreeSet<&str> = match services {
            [] => self.services.keys().map(String::as_str).collect(),
            names => names.iter().map(AsRef::as_ref).collect(),
        };
        let mut plan = Plan {
            project: self,
            names: self.target_names(),
            wanted: &wanted,
            open: Vec::new(),
            done: Vec::new(),
        };
        for name in &wanted {
            let service = self.services.get(*name);
            let service =
                service.ok_or_else(|| Error::options(format!("no such service: {name}")))?;
            plan.visit(service)?;
        }
        Ok(plan.done)
    }

    /// Returns the target of each service. Names that collide when `.` becomes `_` get further
    /// ones, in the order of the services.
    fn target_names(&self) -> BTreeMap<&str, String> {
        let all: BTreeSet<&str> = self
            .services
            .keys()
            .chain(self.disabled.keys())
            .map(String::as_str)
            .collect();
        let mut used = BTreeSet::new();
        let mut names = BTreeMap::new();
        for service in all {
            let mut name = service.replace('.', "_");
            while !used.insert(name.clone()) {
                name.push('_');
            }
            names.insert(service, name);
        }
        names
    }
}

struct Plan<'a> {
    project: &'a Project,
    names: BTreeMap<&'a str, String>,
    wanted: &'a BTreeSet<&'a str>,
    open: Vec<&'a str>,
    done: Vec<BuildTarget>,
}

impl<'a> Plan<'a> {
    fn visit(&mut self, service: &'a Service) -> Result<()> {
        let name = service.name.as_str();
        let Some(build) = &service.build else {
            return Ok(());
        };
        if self.open.contains(&name) {
            let cycle: Vec<&str> = self.open.iter().copied().chain([name]).collect();
            let message = format!("dependency cycle detected: {}", cycle.join(" -> "));
            return Err(wrong(build, service, "additional_contexts", message));
        }
        if self.done.iter().any(|target| target.service == name) {
            return Ok(());
        }
        self.open.push(name);
        for (_, location) in &build.additional_contexts {
            let Some(other) = location.strip_prefix("service:") else {
                continue;
            };
            let services = [&self.project.services, &self.project.disabled];
            let needed = services.into_iter().find_map(|all| all.get(other));
            match needed {
                Some(needed) if needed.build.is_some() => self.visit(needed)?,
                _ => {
                    let message = format!("service `{other}` has no `build`");
                    return Err(wrong(build, service, "additional_contexts", message));
                }
            }
        }
        self.open.pop();
        let target = self.target(service, build)?;
        self.done.push(target);
        Ok(())
    }

    fn target(&self, service: &Service, build: &Build) -> Result<BuildTarget> {
        let project = self.project;
        let image = service.image_name(&project.name);
        let value_of = |(name, value): &(String, Option<String>)| {
            let known = || project.variables.get(name).map(str::to_owned);
            Some((name.clone(), value.clone().or_else(known)?))
        };
        let contexts = build.additional_contexts.iter();
        let contexts = contexts.map(|(name, location)| (name.clone(), self.context(location)));
        let mut tags = build.tags.clone();
        if !tags.contains(&image) {
            tags.push(image.clone());
        }
        Ok(BuildTarget {
            name: self.target_of(&service.name),
            service: service.name.clone(),
            is_wanted: self.wanted.contains(service.name.as_str()),
            is_named: service.image.is_some(),
            context: self.context(&build.context),
            dockerfile: build.dockerfile.clone(),
            contexts: contexts.collect(),
            args: build.args.iter().filter_map(value_of).collect(),
            labels: labels(project, service, build),
            tags,
            image,
            target: build.target.clone(),
            cache_from: build.cache_from.clone(),
            cache_to: build.cache_to.clone(),
            secrets: self.secrets(service, build)?,
            ssh: build
                .ssh
                .iter()
                .map(|(id, path)| match path {
                    Some(path) => format!("{id}={path}"),
                    None => id.clone(),
                })
                .collect(),
            platforms: match (&build.platforms[..], &service.platform) {
                ([], Some(platform)) => vec![platform.clone()],
                (platforms, _) => platforms.to_vec(),
            },
            network: build.network.clone(),
            pull: build.pull,
            no_cache: build.no_cache,
            no_cache_filter: build.no_cache_filter.clone(),
            shm_size_bytes: build.shm_size_bytes,
            ulimits: build.ulimits.clone(),
            extra_hosts: build
                .extra_hosts
                .iter()
                .filter_map(|host| host.split_once('='))
                .map(|(name, address)| (name.to_owned(), address.to_owned()))
                .collect(),
            entitlements: build.entitlements.clone(),
            attestations: build.attestations.clone(),
            at: build.at.clone(),
        })
    }

    fn target_of(&self, service: &str) -> String {
        let name = self.names.get(service);
        name.cloned().unwrap_or_else(|| service.to_owned())
    }

    fn context(&self, location: &str) -> TargetContext {
        if let Some(service) = location.strip_prefix("service:") {
            TargetContext::Target(self.target_of(service))
        } else if let Some(target) = location.strip_prefix("target:") {
            TargetContext::Target(target.to_owned())
        } else if let Some(image) = location.strip_prefix("docker-image://") {
            TargetContext::Image(image.to_owned())
        } else if let Some(layout) = location.strip_prefix("oci-layout://") {
            TargetContext::OciLayout(layout.to_owned())
        } else if is_remote(location) {
            TargetContext::Remote(location.to_owned())
        } else {
            TargetContext::Directory(Path::new(location).to_owned())
        }
    }

    fn secrets(&self, service: &Service, build: &Build) -> Result<Vec<TargetSecret>> {
        let mut secrets = Vec::new();
        for grant in &build.secrets {
            let id = grant.target.clone().unwrap_or_else(|| grant.source.clone());
            let secret = self.project.secrets.get(&grant.source);
            let origin = secret.map(|secret| secret.origin.clone());
            if let Some(origin @ (Origin::File(_) | Origin::Environment(_))) = origin {
                secrets.push(TargetSecret { id, origin });
            } else {
                let message = format!(
                    "`{}` is external: builds need a file or a variable",
                    grant.source
                );
                return Err(wrong(build, service, "secrets", message));
            }
        }
        Ok(secrets)
    }
}

/// Returns the build's own labels, and those by which compose knows its images.
fn labels(project: &Project, service: &Service, build: &Build) -> Vec<(String, String)> {
    let mut labels: BTreeMap<String, String> = build
        .labels
        .iter()
        .map(|(name, value)| (name.clone(), value.clone().unwrap_or_default()))
        .collect();
    let own = [
        ("project", project.name.as_str()),
        ("service", &service.name),
        ("version", env!("CARGO_PKG_VERSION")),
    ];
    for (key, value) in own {
        labels.insert(format!("com.docker.compose.{key}"), value.to_owned());
    }
    labels.into_iter().collect()
}

fn wrong(build: &Build, service: &Service, key: &str, message: String) -> Error {
    Error::file(&build.at, format!("{}.build.{key}", service.key()), message)
}
