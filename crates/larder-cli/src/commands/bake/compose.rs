//! Compose files as bake files: each service that is built is a target.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larder_bake::{
    AttestEntry, CacheEntry, ComposeReader, File, Options, OutputEntry, SecretEntry, SshEntry,
    Target,
};
use larder_compose::{Build, Dockerfile, LoadOptions, Node, Origin, Project, Service, Variables};

use crate::units;

type Failed = Box<dyn Error + Send + Sync>;

/// What projects are called whose files don't say.
const PROJECT: &str = "bake";

/// Attributes of targets that compose files have no keys for.
const EXTENSION: &str = "x-bake";

/// Reads compose files for bake.
pub(super) struct Services {
    directory: PathBuf,
    variables: BTreeMap<String, String>,
}

impl Services {
    pub(super) fn new(directory: PathBuf, options: &Options) -> Self {
        let mut variables = options.environment.clone();
        variables.extend(options.variables.clone());
        Self {
            directory,
            variables,
        }
    }

    fn load(&self, files: &[Arc<File>]) -> Result<Project, Failed> {
        let pairs = self
            .variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let name = self
            .variables
            .get("COMPOSE_PROJECT_NAME")
            .filter(|name| !name.is_empty());
        let stdin = files.iter().find(|file| file.name == "-");
        let options = LoadOptions {
            working_directory: self.directory.clone(),
            files: files.iter().map(|file| PathBuf::from(&file.name)).collect(),
            project_directory: Some(self.directory.clone()),
            project_name: Some(name.map_or(PROJECT, String::as_str).to_owned()),
            profiles: vec!["*".to_owned()],
            stdin: stdin.map(|file| file.text.clone()),
            variables: Variables::of(pairs),
            ..LoadOptions::default()
        };
        Ok(options.load()?)
    }
}

impl ComposeReader for Services {
    fn read(&self, files: &[Arc<File>]) -> Result<Vec<(String, Target)>, Failed> {
        let project = self.load(files)?;
        let mut targets = Vec::new();
        for service in project.services.values() {
            if let Some(build) = &service.build {
                let name = service.name.replace('.', "_");
                let target = self.target(&project, service, build);
                let target =
                    target.map_err(|error| format!("service `{}`: {error}", service.name))?;
                targets.push((name, target));
            }
        }
        Ok(targets)
    }
}

impl Services {
    fn target(
        &self,
        project: &Project,
        service: &Service,
        build: &Build,
    ) -> Result<Target, Failed> {
        let label = |(key, value): &(String, Option<String>)| {
            (key.clone(), Some(value.clone().unwrap_or_default()))
        };
        let mut target = Target {
            context: Some(self.relative(&build.context)),
            contexts: contexts(build, self),
            args: args(project, service, build),
            labels: build.labels.iter().map(label).collect(),
            tags: tags(service, build),
            target: build.target.clone(),
            network: build.network.clone(),
            platforms: given(build.platforms.clone()),
            no_cache: build.no_cache.then_some(true),
            no_cache_filter: given(build.no_cache_filter.clone()),
            pull: build.pull.then_some(true),
            shm_size: build.shm_size_bytes.map(shown_size),
            entitlements: given(build.entitlements.clone()),
            ..Target::default()
        };
        match &build.dockerfile {
            Dockerfile::Default => {}
            Dockerfile::Path(path) => target.dockerfile = Some(path.to_string_lossy().into_owned()),
            Dockerfile::Inline(text) => target.dockerfile_inline = Some(text.clone()),
        }
        let ulimits = build.ulimits.iter();
        let ulimits = ulimits.map(|limit| format!("{}={}:{}", limit.name, limit.soft, limit.hard));
        target.ulimits = given(ulimits.collect());
        let hosts = build
            .extra_hosts
            .iter()
            .filter_map(|host| host.split_once('='));
        for (name, address) in hosts {
            let addresses = target.extra_hosts.entry(name.to_owned()).or_default();
            *addresses = Some(match addresses.take() {
                Some(others) => format!("{others},{address}"),
                None => address.to_owned(),
            });
        }
        target.cache_from = given(caches(&build.cache_from)?);
        target.cache_to = given(caches(&build.cache_to)?);
        target.attest = given(attestations(build)?);
        target.secrets = given(secrets(project, build, self)?);
        let ssh = build.ssh.iter().map(|(id, path)| SshEntry {
            id: id.clone(),
            paths: path.iter().cloned().collect(),
        });
        let mut ssh: Vec<SshEntry> = ssh.collect();
        ssh.sort();
        target.ssh = given(ssh);
        let extensions = build.extensions.iter();
        for (_, node) in extensions.filter(|(key, _)| key == EXTENSION) {
            extend(&mut target, node)
                .map_err(|error| format!("{}: {EXTENSION}: {error}", node.at))?;
        }
        Ok(target)
    }

    /// Returns a path below the working directory as relative to it, as bake prints it.
    fn relative(&self, location: &str) -> String {
        match Path::new(location).strip_prefix(&self.directory) {
            Ok(inner) if inner.as_os_str().is_empty() => ".".to_owned(),
            Ok(inner) => inner.to_string_lossy().into_owned(),
            Err(_) => location.to_owned(),
        }
    }
}

/// Returns a size as buildx writes it, unless that would be another one.
fn shown_size(bytes: u64) -> String {
    let shown = units::human_binary_size(bytes);
    match units::parse_size(&shown) {
        Ok(size) if size == bytes => shown,
        _ => bytes.to_string(),
    }
}

fn given<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn contexts(build: &Build, services: &Services) -> BTreeMap<String, String> {
    let contexts = build.additional_contexts.iter();
    let contexts = contexts.map(|(name, location)| {
        let target = location
            .strip_prefix("service:")
            .or(location.strip_prefix("target:"));
        let location = match target {
            Some(target) => format!("target:{}", target.replace('.', "_")),
            None => services.relative(location),
        };
        (name.clone(), location)
    });
    contexts.collect()
}

/// Arguments without a value take the service's variable, else that of the environment.
fn args(project: &Project, service: &Service, build: &Build) -> BTreeMap<String, Option<String>> {
    let args = build.args.iter().filter_map(|(name, value)| {
        let of_service = || {
            let variables = service.environment.iter();
            variables
                .filter(|(other, _)| other == name)
                .find_map(|(_, value)| value.clone())
        };
        let value = value.clone().or_else(of_service);
        let value = value.or_else(|| project.variables.get(name).map(str::to_owned))?;
        Some((name.clone(), Some(value)))
    });
    args.collect()
}

/// The image's name counts where the build names none.
fn tags(service: &Service, build: &Build) -> Option<Vec<String>> {
    given(build.tags.clone()).or_else(|| service.image.clone().map(|image| vec![image]))
}

fn caches(texts: &[String]) -> Result<Vec<CacheEntry>, Failed> {
    let mut caches = Vec::new();
    for text in texts {
        caches.extend(CacheEntry::parse(text)?);
    }
    Ok(caches)
}

fn attestations(build: &Build) -> Result<Vec<AttestEntry>, Failed> {
    let attestations = build.attestations.iter().map(|(kind, value)| {
        let options = match value.as_str() {
            "true" | "1" => "disabled=false",
            "false" | "0" => "disabled=true",
            other => other,
        };
        Ok(AttestEntry::parse(&format!("type={kind},{options}"))?)
    });
    attestations.collect()
}

fn secrets(
    project: &Project,
    build: &Build,
    services: &Services,
) -> Result<Vec<SecretEntry>, Failed> {
    let secrets = build.secrets.iter().map(|grant| {
        let mut secret = SecretEntry {
            id: grant.source.clone(),
            ..SecretEntry::default()
        };
        match project
            .secrets
            .get(&grant.source)
            .map(|secret| &secret.origin)
        {
            Some(Origin::File(path)) => secret.file = services.relative(&path.to_string_lossy()),
            Some(Origin::Environment(name)) => secret.variable.clone_from(name),
            Some(Origin::External) => {
                return Err(format!("unsupported external secret `{}`", grant.source).into());
            }
            Some(Origin::Content(_)) | None => {
                return Err(format!(
                    "the secret `{}` has neither file nor variable",
                    grant.source
                )
                .into());
            }
        }
        Ok(secret)
    });
    secrets.collect()
}

/// Adds the attributes of [`EXTENSION`]; keys that bake does not know mean nothing, as with buildx.
fn extend(target: &mut Target, extension: &Node) -> Result<(), Failed> {
    for entry in extension.as_map().into_iter().flatten() {
        let texts = texts(&entry.node);
        match entry.key.as_str() {
            "tags" => add(&mut target.tags, texts),
            "platforms" => add(&mut target.platforms, texts),
            "no-cache-filter" => add(&mut target.no_cache_filter, texts),
            "cache-from" => add(&mut target.cache_from, caches(&texts)?),
            "cache-to" => add(&mut target.cache_to, caches(&texts)?),
            "secret" => add(&mut target.secrets, each(&texts, SecretEntry::parse)?),
            "output" => add(&mut target.outputs, each(&texts, OutputEntry::parse)?),
            "ssh" => {
                add(
                    &mut target.ssh,
                    texts.iter().map(|text| SshEntry::parse(text)).collect(),
                );
                target.ssh.iter_mut().for_each(|ssh| ssh.sort());
            }
            "pull" => target.pull = Some(switch(&entry.node)?),
            "no-cache" => target.no_cache = Some(switch(&entry.node)?),
            "contexts" => {
                for context in entry.node.as_map().into_iter().flatten() {
                    let value = context.node.scalar().unwrap_or_default();
                    target.contexts.entry(context.key.clone()).or_insert(value);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns the texts of a list, or the words of a text.
fn texts(node: &Node) -> Vec<String> {
    if let Some(items) = node.as_list() {
        return items.iter().filter_map(Node::scalar).collect();
    }
    let text = node.scalar().unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

fn each<T>(
    texts: &[String],
    read: impl Fn(&str) -> Result<T, larder_bake::Error>,
) -> Result<Vec<T>, Failed> {
    Ok(texts
        .iter()
        .map(|text| read(text))
        .collect::<Result<_, _>>()?)
}

/// Adds what is not there.
fn add<T: PartialEq>(list: &mut Option<Vec<T>>, further: Vec<T>) {
    let list = list.get_or_insert_default();
    for item in further {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

fn switch(node: &Node) -> Result<bool, Failed> {
    match node.scalar().as_deref() {
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        _ => Err(format!("{}: expected true or false", node.at).into()),
    }
}
