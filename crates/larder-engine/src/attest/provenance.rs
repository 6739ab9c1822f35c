//! The predicate of a provenance, as BuildKit writes it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use larder_dockerfile::Lowered;
use larder_llb::pb;
use larder_oci::{Descriptor, Digest, Platform, go_json};
use serde_json::{Map, Value, json};

use super::material::{self, Material, Pin};
use super::steps::Steps;
use crate::request::{
    BuildRequest, ContextSource, NamedContext, NetworkMode, NoCacheSteps, Provenance,
    ProvenanceMode, SlsaVersion, Vcs,
};
use crate::web;

const BUILD_TYPE_V1: &str =
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
const BUILD_TYPE_V02: &str = "https://mobyproject.org/buildkit@v1";
const FRONTEND: &str = "dockerfile.v0";
/// Letters and digits of an invocation's id.
const ID_LENGTH: usize = 25;

/// What was asked for, as far as a provenance tells it.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestFacts {
    /// The Dockerfile's name.
    pub(crate) file_name: String,
    /// The context's URL if it is fetched, without a password.
    context: Option<String>,
    /// Options as a client of BuildKit sends them.
    args: BTreeMap<String, String>,
    /// The names of the directories that the client lends.
    locals: BTreeSet<String>,
    vcs: Option<Vcs>,
}

impl RequestFacts {
    /// Returns what `request` asks for; the Dockerfile's name is not known yet.
    pub(crate) fn of(request: &BuildRequest) -> Self {
        let mut args = BTreeMap::new();
        let mut add = |key: String, value: String| drop(args.insert(key, value));
        if let Some(target) = &request.target {
            add("target".to_owned(), target.clone());
        }
        for (name, value) in &request.build_args {
            add(format!("build-arg:{name}"), value.clone());
        }
        for (name, value) in &request.labels {
            add(format!("label:{name}"), value.clone());
        }
        let mut locals = BTreeSet::new();
        for (name, context) in &request.named_contexts {
            let value = match context {
                NamedContext::Directory(_) => {
                    locals.insert(name.clone());
                    format!("local:{name}")
                }
                NamedContext::Image(image) => format!("docker-image://{image}"),
                NamedContext::Remote(url) => web::shown(url),
                NamedContext::OciLayout(_) => format!("oci-layout://{name}"),
            };
            add(format!("context:{name}"), value);
        }
        match &request.no_cache.steps {
            NoCacheSteps::None => {}
            NoCacheSteps::All => add("no-cache".to_owned(), String::new()),
            NoCacheSteps::Stages(stages) => add("no-cache".to_owned(), stages.join(",")),
        }
        match request.network {
            NetworkMode::Default => {}
            NetworkMode::Host => add("force-network-mode".to_owned(), "host".to_owned()),
            NetworkMode::None => add("force-network-mode".to_owned(), "none".to_owned()),
        }
        if !request.extra_hosts.is_empty() {
            let hosts = request.extra_hosts.iter();
            let hosts: Vec<String> = hosts.map(|(name, ip)| format!("{name}={ip}")).collect();
            add("add-hosts".to_owned(), hosts.join(","));
        }
        if let Some(size) = request.shm_size_bytes {
            add("shm-size".to_owned(), size.to_string());
        }
        if !request.ulimits.is_empty() {
            let limits = request.ulimits.iter();
            let limits = limits.map(|l| format!("{}={}:{}", l.name, l.soft, l.hard));
            add("ulimit".to_owned(), limits.collect::<Vec<_>>().join(","));
        }
        let context = match &request.context {
            ContextSource::Remote(url) => Some(web::shown(url)),
            _ => None,
        };
        if context.is_none() {
            locals.extend(["context", "dockerfile"].map(str::to_owned));
        }
        Self {
            file_name: String::new(),
            context,
            args,
            locals,
            vcs: request.attestations.vcs.clone(),
        }
    }
}

/// All that a provenance is made from.
pub(crate) struct Facts<'a> {
    pub(crate) request: &'a RequestFacts,
    pub(crate) lowered: &'a Lowered,
    /// What the result is for.
    pub(crate) platform: &'a Platform,
    /// What was fetched beside what the graph names.
    pub(crate) further: Vec<Material>,
    /// When the first and the last of the result's new layers were made.
    pub(crate) times: Option<(Timestamp, Timestamp)>,
    /// The result's layers, lowest first, where they are blobs.
    pub(crate) layers: &'a [Descriptor],
    /// What pins the sources that were fetched, by their vertices.
    pub(crate) fetched: &'a BTreeMap<Digest, Pin>,
}

/// Returns the type of the predicate, and the predicate.
pub(crate) fn predicate(options: &Provenance, facts: &Facts<'_>) -> (&'static str, Value) {
    let parts = Parts::new(options, facts);
    match options.version {
        SlsaVersion::V1 => ("https://slsa.dev/provenance/v1", with_id(|id| parts.v1(id))),
        SlsaVersion::V02 => (
            "https://slsa.dev/provenance/v0.2",
            with_id(|id| parts.v02(id)),
        ),
    }
}

/// Leaves out what tells of one invocation and of the graph, as clients of BuildKit do in their
/// metadata files.
pub(crate) fn without_details(mut predicate: Value) -> Value {
    if let Some(fields) = predicate.as_object_mut() {
        fields.shift_remove("buildConfig");
        fields.shift_remove("metadata");
        for (outer, inner) in [
            ("buildDefinition", "internalParameters"),
            ("runDetails", ""),
        ] {
            let Some(part) = fields.get_mut(outer).and_then(Value::as_object_mut) else {
                continue;
            };
            part.shift_remove("metadata");
            if let Some(part) = part.get_mut(inner).and_then(Value::as_object_mut) {
                part.shift_remove("buildConfig");
            }
        }
    }
    predicate
}

/// Gives a predicate an id that is made from the rest of it.
fn with_id(predicate: impl Fn(&str) -> Value) -> Value {
    let sum = Digest::sha256(go_json(&predicate("")));
    let bytes = sum.sha256_bytes().unwrap_or_default();
    let digits = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let digit = |byte: &u8| char::from(digits[usize::from(*byte) % digits.len()]);
    let id: String = bytes.iter().take(ID_LENGTH).map(digit).collect();
    predicate(&id)
}

/// What both versions are made of.
struct Parts<'a> {
    options: &'a Provenance,
    facts: &'a Facts<'a>,
    materials: Vec<Value>,
    parameters: Value,
    /// Whether the parameters are all that were given, and the materials all that were read.
    is_complete: (bool, bool),
    is_hermetic: bool,
    build_config: Option<Value>,
    /// BuildKit's own part of the metadata.
    own_metadata: Value,
}

impl<'a> Parts<'a> {
    fn new(options: &'a Provenance, facts: &'a Facts<'a>) -> Self {
        let inputs = material::inputs(facts.lowered, facts.platform, facts.fetched);
        let mut materials = inputs.materials;
        materials.extend(facts.further.iter().cloned());
        materials.sort();
        materials.dedup();
        let is_closed = !inputs.is_open && facts.request.locals.is_empty();
        let is_max = options.mode == ProvenanceMode::Max;
        let (parameters, has_all) = parameters(facts, is_max);
        let steps = is_max.then(|| Steps::new(&facts.lowered.definition));
        let mut own_metadata = Map::new();
        own_metadata.extend(
            facts
                .request
                .vcs
                .iter()
                .map(|it| ("vcs".to_owned(), vcs(it))),
        );
        if let Some(steps) = &steps {
            own_metadata.extend(steps.source().map(|source| ("source".to_owned(), source)));
            if let (Some(result), false) = (steps.result(), facts.layers.is_empty()) {
                own_metadata.insert("layers".to_owned(), json!({result: [facts.layers]}));
            }
        }
        Self {
            options,
            facts,
            materials: materials.iter().map(Material::to_json).collect(),
            parameters,
            is_complete: (has_all, is_closed),
            is_hermetic: is_closed && !uses_network(facts.lowered),
            build_config: steps.map(|steps| steps.build_config()),
            own_metadata: own_metadata.into(),
        }
    }

    fn v1(&self, id: &str) -> Value {
        let mut definition = Map::from_iter([("buildType".to_owned(), BUILD_TYPE_V1.into())]);
        if !self.materials.is_empty() {
            let materials = self.materials.clone().into();
            definition.insert("resolvedDependencies".to_owned(), materials);
        }
        let external = json!({
            "configSource": self.config_source("path"),
            "request": self.parameters,
        });
        definition.insert("externalParameters".to_owned(), external);
        let mut internal = Map::new();
        if let Some(config) = &self.build_config {
            internal.insert("buildConfig".to_owned(), config.clone());
        }
        internal.insert("builderPlatform".to_owned(), builder_platform());
        definition.insert("internalParameters".to_owned(), internal.into());
        let mut metadata = self.run(id, ["invocationId", "startedOn", "finishedOn"]);
        metadata.insert("buildkit_metadata".to_owned(), self.own_metadata.clone());
        if self.is_hermetic {
            metadata.insert("buildkit_hermetic".to_owned(), true.into());
        }
        let (request, dependencies) = self.is_complete;
        metadata.insert(
            "buildkit_completeness".to_owned(),
            json!({"request": request, "resolvedDependencies": dependencies}),
        );
        if self.options.is_reproducible {
            metadata.insert("buildkit_reproducible".to_owned(), true.into());
        }
        json!({
            "buildDefinition": definition,
            "runDetails": {"builder": {"id": self.options.builder_id}, "metadata": metadata},
        })
    }

    fn v02(&self, id: &str) -> Value {
        let mut predicate = Map::from_iter([
            ("builder".to_owned(), json!({"id": self.options.builder_id})),
            ("buildType".to_owned(), BUILD_TYPE_V02.into()),
        ]);
        if !self.materials.is_empty() {
            predicate.insert("materials".to_owned(), self.materials.clone().into());
        }
        let invocation = json!({
            "configSource": self.config_source("entryPoint"),
            "parameters": self.parameters,
            "environment": {"platform": builder_platform()},
        });
        predicate.insert("invocation".to_owned(), invocation);
        if let Some(config) = &self.build_config {
            predicate.insert("buildConfig".to_owned(), config.clone());
        }
        let names = ["buildInvocationID", "buildStartedOn", "buildFinishedOn"];
        let mut metadata = self.run(id, names);
        let (parameters, materials) = self.is_complete;
        metadata.insert(
            "completeness".to_owned(),
            json!({"parameters": parameters, "environment": true, "materials": materials}),
        );
        let reproducible = self.options.is_reproducible.into();
        metadata.insert("reproducible".to_owned(), reproducible);
        let own = |name: &str| format!("{BUILD_TYPE_V02}#{name}");
        metadata.insert(own("metadata"), self.own_metadata.clone());
        if self.is_hermetic {
            metadata.insert(own("hermetic"), true.into());
        }
        predicate.insert("metadata".to_owned(), metadata.into());
        predicate.into()
    }

    /// Returns what is known of the run, under the names that a version has.
    fn run(&self, id: &str, [invocation, started, finished]: [&str; 3]) -> Map<String, Value> {
        let mut run = Map::from_iter([(invocation.to_owned(), id.into())]);
        if let Some((first, last)) = self.facts.times {
            run.insert(started.to_owned(), first.to_string().into());
            run.insert(finished.to_owned(), last.to_string().into());
        }
        run
    }

    fn config_source(&self, key: &str) -> Value {
        let request = self.facts.request;
        let mut source = Map::new();
        if let Some(url) = &request.context {
            source.insert("uri".to_owned(), url.as_str().into());
            let fetched = self.materials.iter().find(|it| it["uri"] == *url);
            let digest = fetched.and_then(|material| material.get("digest"));
            source.extend(digest.map(|digest| ("digest".to_owned(), digest.clone())));
        }
        source.insert(key.to_owned(), request.file_name.as_str().into());
        source.into()
    }
}

fn vcs(vcs: &Vcs) -> Value {
    let told = [
        ("localdir:context", &vcs.context),
        ("localdir:dockerfile", &vcs.dockerfile),
        ("revision", &vcs.revision),
        ("source", &vcs.source),
    ];
    let told = told.into_iter();
    let told = told.filter_map(|(key, value)| Some((key.to_owned(), value.as_deref()?.into())));
    told.collect::<Map<_, _>>().into()
}

fn builder_platform() -> Value {
    Platform::host().to_string().into()
}

/// Returns what was asked for, and whether that is all of it.
fn parameters(facts: &Facts<'_>, is_max: bool) -> (Value, bool) {
    let mut is_all = true;
    let mut args = Map::new();
    for (key, value) in &facts.request.args {
        if !is_max && (key.starts_with("build-arg:") || key.starts_with("label:")) {
            is_all = false;
        } else {
            args.insert(key.clone(), value.as_str().into());
        }
    }
    let mut parameters = Map::from_iter([("frontend".to_owned(), FRONTEND.into())]);
    if !args.is_empty() {
        parameters.insert("args".to_owned(), args.into());
    }
    if is_max {
        let (secrets, ssh) = secrets(facts.lowered);
        for (key, entries) in [("secrets", secrets), ("ssh", ssh)] {
            if !entries.is_empty() {
                parameters.insert(key.to_owned(), entries.into());
            }
        }
    }
    let locals = facts
        .request
        .locals
        .iter()
        .map(|name| json!({"name": name}));
    let locals: Vec<Value> = locals.collect();
    if !locals.is_empty() {
        parameters.insert("locals".to_owned(), locals.into());
    }
    (parameters.into(), is_all)
}

/// Returns the secrets and the agents that steps mount, by their ids.
fn secrets(lowered: &Lowered) -> (Vec<Value>, Vec<Value>) {
    let (mut secrets, mut ssh) = (BTreeMap::new(), BTreeMap::new());
    // One that is needed once is needed.
    let add = |map: &mut BTreeMap<String, bool>, id: &str, optional: bool| {
        *map.entry(id.to_owned()).or_insert(true) &= optional;
    };
    for exec in execs(lowered) {
        for mount in &exec.mounts {
            if let Some(secret) = &mount.secret_opt {
                add(&mut secrets, &secret.id, secret.optional);
            }
            if let Some(agent) = &mount.ssh_opt {
                add(&mut ssh, &agent.id, agent.optional);
            }
        }
        for secret in &exec.secretenv {
            add(&mut secrets, &secret.id, secret.optional);
        }
    }
    let list = |map: BTreeMap<String, bool>| {
        let entries = map.into_iter().map(|(id, optional)| {
            if optional {
                json!({"id": id, "optional": true})
            } else {
                json!({"id": id})
            }
        });
        entries.collect()
    };
    (list(secrets), list(ssh))
}

fn uses_network(lowered: &Lowered) -> bool {
    execs(lowered).any(|exec| exec.network() != pb::NetMode::None)
}

fn execs(lowered: &Lowered) -> impl Iterator<Item = &pb::ExecOp> {
    let vertices = lowered.definition.vertices().iter();
    vertices.filter_map(|vertex| match &vertex.op.op {
        Some(pb::op::Op::Exec(exec)) => Some(exec),
        _ => None,
    })
}

#[cfg(test)]
#[path = "provenance_tests.rs"]
mod tests;
