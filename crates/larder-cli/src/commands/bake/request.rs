//! From a target of a bake file to a request to the engine, by way of the flags of
//! `larder build`: each attribute means what the flag does.

use std::collections::BTreeMap;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use larder_bake::{Plan, Target};
use larder_engine::TargetRequest;
use larder_engine::request::{BuildRequest, NetworkMode};
use larder_oci::Platform;

use crate::args::{
    BakeArgs, BuildArgs, ForeignArgs, HostArg, KeyValue, NoCacheArg, ResourceArg, ResourceArgs,
    SecretArg, SecretSource, SshArg, attest, cache, output, values,
};
use crate::commands::Context;
use crate::commands::build::input::Stdin;
use crate::commands::build::plan;

/// Contexts that are other targets' results.
const TARGET_PREFIX: &str = "target:";
/// A path relative to the working directory, also if the bake file is elsewhere.
pub(super) const LOCAL_PREFIX: &str = "cwd://";

/// A target, ready to be built.
pub(super) struct BakeTarget {
    pub(super) name: String,
    pub(super) request: BuildRequest,
    /// Named contexts that are other targets' results.
    inputs: BTreeMap<String, String>,
}

impl BakeTarget {
    pub(super) fn into_request(self) -> TargetRequest {
        TargetRequest {
            inputs: self.inputs,
            ..TargetRequest::new(self.name, self.request)
        }
    }
}

/// Returns all targets of a plan.
///
/// # Errors
/// Names the target and the attribute that can't be used.
pub(super) fn targets(
    plan: &Plan,
    args: &BakeArgs,
    context: &Context<'_>,
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<BakeTarget>> {
    let mut targets = Vec::new();
    for (name, target) in &plan.targets {
        let target = request(name, target, args, context, notes);
        targets.push(target.with_context(|| format!("target.{name}"))?);
    }
    let mut told = std::collections::BTreeSet::new();
    notes.retain(|note| told.insert(note.clone()));
    Ok(targets)
}

fn request(
    name: &str,
    target: &Target,
    args: &BakeArgs,
    context: &Context<'_>,
    notes: &mut Vec<String>,
) -> anyhow::Result<BakeTarget> {
    check_supported(target)?;
    let inputs = target.contexts.iter().filter_map(|(name, context)| {
        let other = context.strip_prefix(TARGET_PREFIX)?;
        Some((name.clone(), other.to_owned()))
    });
    let inputs = inputs.collect();
    let (file, stdin) = dockerfile(target);
    let args = build_args(target, file, args)?;
    let plan = plan::Plan::new(args, context, stdin)?;
    notes.extend(plan.notes);
    Ok(BakeTarget {
        name: name.to_owned(),
        request: plan.request,
        inputs,
    })
}

/// Refuses what larder lacks and what must not be left out silently.
fn check_supported(target: &Target) -> anyhow::Result<()> {
    let policies = target.policy.iter().flatten();
    if let Some(policy) = policies
        .into_iter()
        .find(|policy| *policy != "disabled=true")
    {
        bail!("`policy`: `{policy}` is not supported yet");
    }
    Ok(())
}

/// Returns `--file`, and what is to be read from standard input for it.
fn dockerfile(target: &Target) -> (Option<String>, Stdin) {
    if let Some(text) = &target.dockerfile_inline {
        return (
            Some("-".to_owned()),
            Box::new(Cursor::new(text.clone().into_bytes())),
        );
    }
    let context = target.context.as_deref().unwrap_or(".");
    let path = match target.dockerfile.as_deref() {
        None | Some("Dockerfile") => None,
        Some(path) => Some(match path.strip_prefix(LOCAL_PREFIX) {
            Some(local) => PathBuf::from(local),
            // It is looked for in what is there.
            None if values::is_url(context) || values::is_url(path) => PathBuf::from(path),
            None => Path::new(context).join(path),
        }),
    };
    let path = path.map(|path| path.to_string_lossy().into_owned());
    (path, Box::new(io::empty()))
}

fn build_args(
    target: &Target,
    file: Option<String>,
    flags: &BakeArgs,
) -> anyhow::Result<BuildArgs> {
    let pairs = |pairs: &BTreeMap<String, Option<String>>| {
        let given = pairs
            .iter()
            .filter_map(|(key, value)| Some((key, value.clone()?)));
        let pair = |(key, value): (&String, String)| KeyValue {
            key: key.clone(),
            value: Some(value),
        };
        given.map(pair).collect()
    };
    let directories = target
        .contexts
        .iter()
        .filter(|(_, value)| !value.starts_with(TARGET_PREFIX));
    let directories = directories.map(|(name, value)| {
        let value = value.strip_prefix(LOCAL_PREFIX).unwrap_or(value);
        format!("{name}={value}")
    });
    let caches_from = target
        .cache_from
        .iter()
        .flatten()
        .map(larder_bake::CacheEntry::to_flag);
    let caches_to = target
        .cache_to
        .iter()
        .flatten()
        .map(larder_bake::CacheEntry::to_flag);
    let outputs = target
        .outputs
        .iter()
        .flatten()
        .map(larder_bake::OutputEntry::to_flag);
    let attests = target
        .attest
        .iter()
        .flatten()
        .map(larder_bake::AttestEntry::to_flag);
    let lists = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    Ok(BuildArgs {
        context: target.context.clone().unwrap_or_else(|| ".".to_owned()),
        file,
        tags: parse("tags", lists(&target.tags), values::image_ref)?,
        target: target.target.clone(),
        build_args: pairs(&target.args),
        build_contexts: parse("contexts", directories, values::named_context)?,
        labels: pairs(&target.labels),
        no_cache: match target.no_cache {
            Some(true) => NoCacheArg::All,
            _ => NoCacheArg::Off,
        },
        no_cache_filters: lists(&target.no_cache_filter),
        pull: target.pull.unwrap_or(false),
        cache_from: parse("cache-from", caches_from, cache::cache_from)?,
        cache_to: parse("cache-to", caches_to, cache::cache_to)?,
        secrets: target.secrets.iter().flatten().map(secret).collect(),
        ssh: target.ssh.iter().flatten().map(agent).collect(),
        outputs: parse("output", outputs, output::parse)?,
        load: false,
        push: false,
        annotations: parse(
            "annotations",
            lists(&target.annotations),
            output::annotation_flag,
        )?,
        attests: parse("attest", attests, attest::attest)?,
        provenance: None,
        sbom: None,
        progress: None,
        quiet: false,
        iidfile: None,
        metadata_file: flags.metadata_file.clone(),
        network: match &target.network {
            Some(network) => one("network", network, values::network)?,
            None => NetworkMode::Default,
        },
        add_hosts: hosts(target)?,
        shm_size: target
            .shm_size
            .as_ref()
            .map(|size| one("shm-size", size, values::size))
            .transpose()?,
        ulimits: parse("ulimits", lists(&target.ulimits), values::ulimit)?,
        cgroup_parent: None,
        resources: resources(target)?,
        // Consent to them was asked for.
        allowed: parse(
            "entitlements",
            lists(&target.entitlements),
            values::entitlement,
        )?,
        platforms: parse("platforms", lists(&target.platforms), platform)?,
        host_ca: flags.host_ca,
        check: false,
        call: None,
        foreign: ForeignArgs::default(),
    })
}

fn one<T>(key: &str, text: &str, read: impl Fn(&str) -> Result<T, String>) -> anyhow::Result<T> {
    read(text).map_err(|problem| anyhow!("`{key}`: `{text}`: {problem}"))
}

fn parse<T>(
    key: &str,
    texts: impl IntoIterator<Item = String>,
    read: impl Fn(&str) -> Result<T, String>,
) -> anyhow::Result<Vec<T>> {
    texts
        .into_iter()
        .map(|text| one(key, &text, &read))
        .collect()
}

/// Reads a platform; `local` is the host's.
fn platform(text: &str) -> Result<Platform, String> {
    match text {
        "local" => Ok(Platform::host()),
        text => values::platform(text),
    }
}

fn resources(target: &Target) -> anyhow::Result<ResourceArgs> {
    let resources = target.resources.iter().map(|(name, value)| {
        ResourceArg::new(name, value)
            .map_err(|problem| anyhow!("`resources`: `{name}`: `{value}`: {problem}"))
    });
    Ok(ResourceArgs::of(resources.collect::<anyhow::Result<_>>()?))
}

fn hosts(target: &Target) -> anyhow::Result<Vec<HostArg>> {
    let given = target.extra_hosts.iter();
    let given = given.filter_map(|(name, address)| Some((name, address.as_ref()?)));
    // A host may have several addresses.
    let lines = given.flat_map(|(name, addresses)| {
        addresses
            .split(',')
            .map(move |address| format!("{name}={}", address.trim()))
    });
    parse("extra-hosts", lines, values::host)
}

fn secret(secret: &larder_bake::SecretEntry) -> SecretArg {
    let id = secret.id.clone();
    let source = match (secret.file.as_str(), secret.variable.as_str()) {
        ("", "") => SecretSource::ById,
        ("", variable) => SecretSource::Env(variable.to_owned()),
        (file, _) => SecretSource::File(PathBuf::from(file)),
    };
    SecretArg { id, source }
}

fn agent(entry: &larder_bake::SshEntry) -> SshArg {
    let mut agent = SshArg::default();
    if !entry.id.is_empty() {
        agent.id.clone_from(&entry.id);
    }
    agent.paths = entry.paths.iter().map(PathBuf::from).collect();
    agent
}
