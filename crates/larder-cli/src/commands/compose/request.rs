//! From a target of a compose file to a request to the engine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use larder_compose::{BuildTarget, Dockerfile, Origin, TargetContext};
use larder_engine::TargetRequest;
use larder_engine::request::{
    Attestations, BuildRequest, ContextSource, DockerfileSource, Entitlement, ImageOutput,
    NamedContext, NoCache, NoCacheSteps, Output, PushOptions, Resources, Ulimit,
};
use larder_oci::{ImageRef, Platform};

use crate::args::{
    CacheFromArg, ComposeBuildArgs, HostArg, KeyValue, ResourceArg, ResourceArgs, SecretArg,
    SecretSource, attest, cache, values,
};
use crate::commands::Context;
use crate::commands::build::plan;
use crate::commands::build::secrets::FlagSecrets;
use crate::commands::build::ssh::{self, FlagSsh};
use crate::commands::build::vcs;

/// Returns the request of one target; `flags` hold for all targets.
///
/// # Errors
/// Names file, line and key of what can't be used.
pub(super) fn target_request(
    target: &BuildTarget,
    flags: &ComposeBuildArgs,
    context: &Context<'_>,
    notes: &mut Vec<String>,
) -> anyhow::Result<TargetRequest> {
    let (source, dockerfile) = files(target)?;
    let mut request = BuildRequest::new(source);
    request.source_policy = context.source_policy()?;
    request.dockerfile = dockerfile;
    let inputs = contexts(target, &mut request)?;
    request.target.clone_from(&target.target);
    request.build_args = build_args(target, flags, context, notes);
    request.labels.clone_from(&target.labels);
    request.platforms = platforms(target, context)?;
    request.no_cache = no_cache(target, flags);
    request.pull = target.pull || flags.pull;
    if let Some(network) = &target.network {
        request.network = values::network(network).map_err(|problem| {
            let problem = format!("`{network}` is no network of builds: {problem}");
            wrong(target, "network", &problem)
        })?;
    }
    request.extra_hosts = extra_hosts(target)?;
    request.shm_size_bytes = target.shm_size_bytes;
    request.ulimits = ulimits(target)?;
    request.entitlements = entitlements(target)?;
    request.resources = resources(flags)?;
    request.host_ca = flags.host_ca;
    request.secrets = secrets(target, context)?;
    request.ssh = agents(target, flags, context)?;
    request.tags = tags(target)?;
    for source in &target.cache_from {
        let imports = cache::cache_from(source);
        let CacheFromArg(imports) = imports
            .map_err(|problem| wrong(target, "cache_from", &format!("`{source}`: {problem}")))?;
        request.cache_imports.extend(imports);
    }
    for destination in &target.cache_to {
        let export = cache::cache_to(destination);
        let export = export
            .map_err(|problem| wrong(target, "cache_to", &format!("`{destination}`: {problem}")))?;
        notes.extend(export.note);
        request.cache_exports.push(export.export);
    }
    request.attestations = attestations(target, flags, context)?;
    if target.is_wanted {
        request.outputs = vec![Output::Image(ImageOutput {
            push: (flags.push && target.is_named).then(PushOptions::default),
            ..ImageOutput::default()
        })];
    }
    vcs::describe(&mut request, context.env, notes);
    Ok(TargetRequest {
        inputs,
        ..TargetRequest::new(&target.name, request)
    })
}

/// Returns what is attested: what flags say, else the service.
fn attestations(
    target: &BuildTarget,
    flags: &ComposeBuildArgs,
    context: &Context<'_>,
) -> anyhow::Result<Attestations> {
    let mut asked = Vec::new();
    for (kind, value) in &target.attestations {
        let arg = if kind == "sbom" {
            attest::sbom(value)
        } else {
            attest::provenance(value)
        };
        asked.push(arg.map_err(|problem| wrong(target, kind, &problem))?);
    }
    asked.extend(flags.provenance.clone());
    asked.extend(flags.sbom.clone());
    plan::attestations(&asked, false, context.env)
}

/// Returns an error that names file, line and key.
fn wrong(target: &BuildTarget, key: &str, problem: &str) -> anyhow::Error {
    let (at, service) = (&target.at, &target.service);
    anyhow!("{at}: services.{service}.build.{key}: {problem}")
}

/// Returns where the files and the Dockerfile are.
fn files(target: &BuildTarget) -> anyhow::Result<(ContextSource, DockerfileSource)> {
    let directory = match &target.context {
        TargetContext::Directory(directory) => directory,
        TargetContext::Remote(url) => {
            let dockerfile = match &target.dockerfile {
                Dockerfile::Default => DockerfileSource::Default,
                Dockerfile::Path(path) => DockerfileSource::Path(path.into()),
                Dockerfile::Inline(text) => DockerfileSource::Text(text.clone().into_bytes()),
            };
            return Ok((ContextSource::Remote(url.clone()), dockerfile));
        }
        TargetContext::Target(_) => {
            return Err(wrong(
                target,
                "context",
                "a service can't be the context itself; use `additional_contexts`",
            ));
        }
        TargetContext::Image(other) | TargetContext::OciLayout(other) => {
            let problem = format!("unable to prepare context: `{other}` is not supported yet");
            return Err(wrong(target, "context", &problem));
        }
    };
    require_directory(target, "context", directory)?;
    let dockerfile = match &target.dockerfile {
        Dockerfile::Default => DockerfileSource::Path(default_dockerfile(directory)),
        Dockerfile::Path(path) => DockerfileSource::Path(directory.join(path)),
        Dockerfile::Inline(text) => DockerfileSource::Text(text.clone().into_bytes()),
    };
    Ok((ContextSource::Directory(directory.clone()), dockerfile))
}

/// Returns `Dockerfile`, or `dockerfile` where only that one is.
fn default_dockerfile(directory: &Path) -> PathBuf {
    let lower = directory.join("dockerfile");
    let usual = directory.join("Dockerfile");
    if lower.is_file() && !usual.exists() {
        lower
    } else {
        usual
    }
}

fn require_directory(target: &BuildTarget, key: &str, directory: &Path) -> anyhow::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let shown = directory.display();
    let problem = if directory.exists() {
        format!("unable to prepare context: \"{shown}\" is not a directory")
    } else {
        format!("unable to prepare context: path \"{shown}\" not found")
    };
    Err(wrong(target, key, &problem))
}

/// Adds the further contexts. Returns those that are results of other targets.
fn contexts(
    target: &BuildTarget,
    request: &mut BuildRequest,
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut inputs = BTreeMap::new();
    for (name, context) in &target.contexts {
        let mut add = |context| drop(request.named_contexts.insert(name.clone(), context));
        match context {
            TargetContext::Directory(directory) => {
                require_directory(target, "additional_contexts", directory)?;
                add(NamedContext::Directory(directory.clone()));
            }
            TargetContext::Target(other) => drop(inputs.insert(name.clone(), other.clone())),
            TargetContext::Image(image) => add(NamedContext::Image(image.clone())),
            TargetContext::OciLayout(layout) => {
                let value = values::named_context_value(&format!("oci-layout://{layout}"));
                add(value.map_err(|problem| {
                    let problem = format!("`{name}=oci-layout://{layout}`: {problem}");
                    wrong(target, "additional_contexts", &problem)
                })?);
            }
            TargetContext::Remote(url) => add(NamedContext::Remote(url.clone())),
        }
    }
    Ok(inputs)
}

/// Returns the target's build arguments, over which those of flags win.
fn build_args(
    target: &BuildTarget,
    flags: &ComposeBuildArgs,
    context: &Context<'_>,
    notes: &mut Vec<String>,
) -> Vec<(String, String)> {
    let is_given = |name: &str| flags.build_args.iter().any(|flag| flag.key == name);
    let own = target.args.iter().filter(|(name, _)| !is_given(name));
    let own = own.map(|(name, value)| KeyValue {
        key: name.clone(),
        value: Some(value.clone()),
    });
    let all = own.chain(flags.build_args.iter().cloned()).collect();
    plan::build_args(all, context.env, notes)
}

fn platforms(target: &BuildTarget, context: &Context<'_>) -> anyhow::Result<Vec<Platform>> {
    let wrong = |problem: String| wrong(target, "platforms", &problem);
    let asked = target.platforms.iter();
    let asked = asked.map(|platform| values::platform(platform).map_err(wrong));
    let asked = asked.collect::<anyhow::Result<Vec<_>>>()?;
    plan::platforms(&asked, context.env)
}

fn no_cache(target: &BuildTarget, flags: &ComposeBuildArgs) -> NoCache {
    let steps = if target.no_cache || flags.no_cache {
        NoCacheSteps::All
    } else if target.no_cache_filter.is_empty() {
        NoCacheSteps::None
    } else {
        NoCacheSteps::Stages(target.no_cache_filter.clone())
    };
    NoCache {
        steps,
        keep_cache_mounts: false,
    }
}

fn extra_hosts(target: &BuildTarget) -> anyhow::Result<Vec<(String, String)>> {
    let host = |(name, address): &(String, String)| {
        let host: Result<HostArg, String> = values::host(&format!("{name}={address}"));
        host.map(plan::extra_host)
            .map_err(|problem| wrong(target, "extra_hosts", &problem))
    };
    target.extra_hosts.iter().map(host).collect()
}

/// Returns what the compose file lets steps do: who runs it has written it, as for compose.
fn entitlements(target: &BuildTarget) -> anyhow::Result<Vec<Entitlement>> {
    let read = |text: &String| {
        values::entitlement(text).map_err(|problem| wrong(target, "entitlements", &problem))
    };
    target.entitlements.iter().map(read).collect()
}

fn resources(flags: &ComposeBuildArgs) -> anyhow::Result<Resources> {
    let memory = flags.memory.iter();
    let memory = memory.map(|value| ResourceArg::new("memory", value));
    let memory = memory.collect::<Result<_, _>>();
    let resources = memory.and_then(|memory| ResourceArgs::of(memory).resources());
    resources.map_err(|problem| anyhow!("`--memory`: {problem}"))
}

fn ulimits(target: &BuildTarget) -> anyhow::Result<Vec<Ulimit>> {
    let ulimit = |limit: &larder_compose::Ulimit| {
        values::ulimit(&format!("{}={}:{}", limit.name, limit.soft, limit.hard))
            .map_err(|problem| wrong(target, "ulimits", &problem))
    };
    target.ulimits.iter().map(ulimit).collect()
}

fn secrets(target: &BuildTarget, context: &Context<'_>) -> anyhow::Result<Arc<FlagSecrets>> {
    let mut secrets = Vec::new();
    for secret in &target.secrets {
        let source = match &secret.origin {
            Origin::File(path) => SecretSource::File(path.clone()),
            Origin::Environment(name) => SecretSource::Env(name.clone()),
            Origin::Content(_) | Origin::External => {
                bail!("secret `{}` is neither a file nor a variable", secret.id)
            }
        };
        secrets.push(SecretArg {
            id: secret.id.clone(),
            source,
        });
    }
    let secrets = FlagSecrets::new(secrets, context.env);
    let secrets = secrets.with_context(|| {
        let (at, service) = (&target.at, &target.service);
        format!("{at}: services.{service}.build.secrets")
    })?;
    Ok(Arc::new(secrets))
}

/// Returns the agents that flags and file name; the flags' come first.
fn agents(
    target: &BuildTarget,
    flags: &ComposeBuildArgs,
    context: &Context<'_>,
) -> anyhow::Result<Arc<FlagSsh>> {
    let parse = |text: &String| {
        values::ssh(text).map_err(|problem| wrong(target, "ssh", &format!("`{text}`: {problem}")))
    };
    let mut agents = flags.ssh.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    for text in &target.ssh {
        let agent = parse(text)?;
        if !agents.iter().any(|known| known.id == agent.id) {
            agents.push(agent);
        }
    }
    if let TargetContext::Remote(url) = &target.context {
        agents = ssh::for_context(url, agents);
    }
    let agents = FlagSsh::new(agents, context.env);
    Ok(Arc::new(agents.map_err(|error| {
        wrong(target, "ssh", &format!("{error:#}"))
    })?))
}

fn tags(target: &BuildTarget) -> anyhow::Result<Vec<ImageRef>> {
    let tag = |tag: &String| {
        values::image_ref(tag).map_err(|problem| {
            let key = if *tag == target.image {
                "image"
            } else {
                "tags"
            };
            wrong(target, key, &problem)
        })
    };
    target.tags.iter().map(tag).collect()
}
