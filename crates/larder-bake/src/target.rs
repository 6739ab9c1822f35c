//! Targets: what one build is asked to do.

mod decode;
mod merge;

use std::collections::BTreeMap;

pub(crate) use decode::RESOURCES;

use crate::entry::{AttestEntry, CacheEntry, Entry, OutputEntry, SecretEntry, SshEntry};
use crate::value::Value;

/// A set of targets with a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// What it is for.
    pub description: String,
    /// Names of targets and of further groups.
    pub targets: Vec<String>,
}

/// One build. An attribute that is `None` is not given; an empty list is, and means none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// What it is for.
    pub description: String,
    /// Targets whose attributes it takes over; empty in a [`Plan`](crate::Plan).
    pub inherits: Vec<String>,
    /// `key=value`, with the kinds of objects they are put on before a colon.
    pub annotations: Option<Vec<String>>,
    /// Attestations, at most one of a kind.
    pub attest: Option<Vec<AttestEntry>>,
    /// A directory or URL; `.` in a plan if not given.
    pub context: Option<String>,
    /// Further contexts by name: paths, URLs, `target:NAME`, `docker-image://REF`, …
    pub contexts: BTreeMap<String, String>,
    /// A path, relative to the context; `Dockerfile` in a plan if not given.
    pub dockerfile: Option<String>,
    /// The text of a Dockerfile, instead of the path.
    pub dockerfile_inline: Option<String>,
    /// Build arguments; those that are null are left to the Dockerfile.
    pub args: BTreeMap<String, Option<String>>,
    /// Labels of the image.
    pub labels: BTreeMap<String, Option<String>>,
    /// Names of the image.
    pub tags: Option<Vec<String>>,
    /// Where cache records are imported from.
    pub cache_from: Option<Vec<CacheEntry>>,
    /// Where cache records are exported to.
    pub cache_to: Option<Vec<CacheEntry>>,
    /// The stage to build.
    pub target: Option<String>,
    /// Secrets that steps can mount.
    pub secrets: Option<Vec<SecretEntry>>,
    /// SSH agents that steps can mount.
    pub ssh: Option<Vec<SshEntry>>,
    /// Platforms of the image.
    pub platforms: Option<Vec<String>>,
    /// Where the result goes.
    pub outputs: Option<Vec<OutputEntry>>,
    /// Whether base images are looked up in their registries even if they are at hand.
    pub pull: Option<bool>,
    /// Whether all steps run again.
    pub no_cache: Option<bool>,
    /// The network of steps: `default`, `host` or `none`.
    pub network: Option<String>,
    /// Stages whose steps run again.
    pub no_cache_filter: Option<Vec<String>>,
    /// The size of `/dev/shm` in steps, with a unit.
    pub shm_size: Option<String>,
    /// `name=soft[:hard]`
    pub ulimits: Option<Vec<String>>,
    /// Limits of memory and processors, by name.
    pub resources: BTreeMap<String, String>,
    /// What to do instead of building: `check`, `outline`, `targets`.
    pub call: Option<String>,
    /// What the build must be allowed: `network.host`, `security.insecure`, …
    pub entitlements: Option<Vec<String>>,
    /// Lines of `/etc/hosts`: addresses by name.
    pub extra_hosts: BTreeMap<String, Option<String>>,
    /// Source policies, as flags.
    pub policy: Option<Vec<String>>,
    /// Whether it was not asked for, and is built only because another target reads its result.
    pub is_linked: bool,
    /// The directory that a context which is not given stands for; the working directory if none.
    pub default_context: Option<String>,
}

/// The attributes of targets, in the order in which they are printed.
pub(crate) const KEYS: [&str; 28] = [
    "description",
    "annotations",
    "attest",
    "context",
    "contexts",
    "dockerfile",
    "dockerfile-inline",
    "args",
    "labels",
    "tags",
    "cache-from",
    "cache-to",
    "target",
    "secret",
    "ssh",
    "platforms",
    "output",
    "pull",
    "no-cache",
    "network",
    "no-cache-filter",
    "shm-size",
    "ulimits",
    "resources",
    "call",
    "entitlements",
    "extra-hosts",
    "policy",
];

impl Target {
    /// Returns the value that references to an attribute see; `None` if there is no such attribute.
    pub(crate) fn get(&self, key: &str) -> Option<Value> {
        Some(match key {
            "description" => Value::text(&self.description),
            "inherits" => Value::texts(&self.inherits),
            "annotations" => texts(self.annotations.as_ref()),
            "attest" => entries(self.attest.as_ref()),
            "context" => text(self.context.as_ref()),
            "contexts" => map(&self.contexts),
            "dockerfile" => text(self.dockerfile.as_ref()),
            "dockerfile-inline" => text(self.dockerfile_inline.as_ref()),
            "args" => nullable(&self.args),
            "labels" => nullable(&self.labels),
            "tags" => texts(self.tags.as_ref()),
            "cache-from" => entries(self.cache_from.as_ref()),
            "cache-to" => entries(self.cache_to.as_ref()),
            "target" => text(self.target.as_ref()),
            "secret" => entries(self.secrets.as_ref()),
            "ssh" => entries(self.ssh.as_ref()),
            "platforms" => texts(self.platforms.as_ref()),
            "output" => entries(self.outputs.as_ref()),
            "pull" => self.pull.map_or(Value::Null, Value::Bool),
            "no-cache" => self.no_cache.map_or(Value::Null, Value::Bool),
            "network" => text(self.network.as_ref()),
            "no-cache-filter" => texts(self.no_cache_filter.as_ref()),
            "shm-size" => text(self.shm_size.as_ref()),
            "ulimits" => texts(self.ulimits.as_ref()),
            "resources" => map(&self.resources),
            "call" => text(self.call.as_ref()),
            "entitlements" => texts(self.entitlements.as_ref()),
            "extra-hosts" => nullable(&self.extra_hosts),
            "policy" => texts(self.policy.as_ref()),
            _ => return None,
        })
    }

    /// Returns the attribute as it is printed; `None` if it is empty, or there is none.
    pub(crate) fn printed(&self, key: &str) -> Option<serde_json::Value> {
        use serde_json::Value as Json;
        let json = match key {
            "attest" => printed_entries(self.attest.as_ref()),
            "cache-from" => printed_entries(self.cache_from.as_ref()),
            "cache-to" => printed_entries(self.cache_to.as_ref()),
            "secret" => printed_entries(self.secrets.as_ref()),
            "ssh" => printed_entries(self.ssh.as_ref()),
            "output" => printed_entries(self.outputs.as_ref()),
            // What is printed can be read again, where these are templates.
            "annotations" | "dockerfile-inline" | "args" | "labels" | "extra-hosts" => {
                escaped(self.get(key)?.to_json())
            }
            _ => self.get(key)?.to_json(),
        };
        let is_empty = match &json {
            Json::Null => true,
            Json::String(text) => key == "description" && text.is_empty(),
            Json::Array(elements) => elements.is_empty(),
            Json::Object(entries) => entries.is_empty(),
            Json::Bool(_) | Json::Number(_) => false,
        };
        (!is_empty).then_some(json)
    }
}

fn text(text: Option<&String>) -> Value {
    text.map_or(Value::Null, Value::text)
}

fn texts(texts: Option<&Vec<String>>) -> Value {
    texts.map_or(Value::Null, Value::texts)
}

fn entries<E: Entry>(entries: Option<&Vec<E>>) -> Value {
    entries.map_or(Value::Null, |entries| {
        Value::List(entries.iter().map(E::to_value).collect())
    })
}

fn printed_entries<E: Entry>(entries: Option<&Vec<E>>) -> serde_json::Value {
    entries.into_iter().flatten().map(E::to_json).collect()
}

fn map(entries: &BTreeMap<String, String>) -> Value {
    Value::Object(
        entries
            .iter()
            .map(|(key, value)| (key.clone(), Value::text(value)))
            .collect(),
    )
}

fn nullable(entries: &BTreeMap<String, Option<String>>) -> Value {
    let entries = entries
        .iter()
        .map(|(key, value)| (key.clone(), text(value.as_ref())));
    Value::Object(entries.collect())
}

/// Escapes what would begin a template.
fn escaped(json: serde_json::Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match json {
        Json::String(text) => Json::String(text.replace("${", "$${").replace("%{", "%%{")),
        Json::Array(elements) => elements.into_iter().map(escaped).collect(),
        Json::Object(entries) => entries
            .into_iter()
            .map(|(key, value)| (key, escaped(value)))
            .collect(),
        other => other,
    }
}
