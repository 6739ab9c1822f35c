//! Values to attributes.

use std::collections::BTreeMap;

use super::{Group, KEYS, Target};
use crate::entry::{AttestEntry, CacheEntry, OutputEntry, SecretEntry, SshEntry, read_list};
use crate::error::Error;
use crate::value::{Value, parse_bool};

/// Names of limits in `resources`.
pub(crate) const RESOURCES: [&str; 7] = [
    "memory",
    "memory-swap",
    "cpu-shares",
    "cpu-period",
    "cpu-quota",
    "cpuset-cpus",
    "cpuset-mems",
];

impl Target {
    /// Sets an attribute to what an expression came to; null leaves it unset.
    ///
    /// # Errors
    /// If there is no such attribute, or the value is not what it takes.
    pub(crate) fn set(&mut self, key: &str, value: &Value) -> Result<(), Error> {
        self.assign(key, value).map_err(|error| error.in_key(key))
    }

    fn assign(&mut self, key: &str, value: &Value) -> Result<(), Error> {
        if *value == Value::Null && (KEYS.contains(&key) || key == "inherits") {
            return Ok(());
        }
        match key {
            "description" => self.description = value.to_text()?,
            "inherits" => self.inherits = texts(value)?,
            "annotations" => self.annotations = Some(texts(value)?),
            "attest" => self.attest = Some(read_list::<AttestEntry>(value)?),
            "context" => self.context = Some(value.to_text()?),
            "contexts" => self.contexts = map(value)?,
            "dockerfile" => self.dockerfile = Some(value.to_text()?),
            "dockerfile-inline" => self.dockerfile_inline = Some(value.to_text()?),
            "args" => self.args = nullable(value)?,
            "labels" => self.labels = nullable(value)?,
            "tags" => self.tags = Some(texts(value)?),
            "cache-from" => self.cache_from = Some(read_list::<CacheEntry>(value)?),
            "cache-to" => self.cache_to = Some(read_list::<CacheEntry>(value)?),
            "target" => self.target = Some(value.to_text()?),
            "secret" => self.secrets = Some(read_list::<SecretEntry>(value)?),
            "ssh" => self.ssh = Some(read_list::<SshEntry>(value)?),
            "platforms" => self.platforms = Some(texts(value)?),
            "output" => self.outputs = Some(read_list::<OutputEntry>(value)?),
            "pull" => self.pull = Some(switch(value)?),
            "no-cache" => self.no_cache = Some(switch(value)?),
            "network" => self.network = Some(value.to_text()?),
            "no-cache-filter" => self.no_cache_filter = Some(texts(value)?),
            "shm-size" => self.shm_size = Some(value.to_text()?),
            "ulimits" => self.ulimits = Some(texts(value)?),
            "resources" => self.resources = resources(value)?,
            "call" => self.call = Some(value.to_text()?),
            "entitlements" => self.entitlements = Some(texts(value)?),
            "extra-hosts" => self.extra_hosts = nullable(value)?,
            "policy" => self.policy = Some(policies(value)?),
            _ => return Err(Error::definition("targets have no such attribute")),
        }
        Ok(())
    }
}

impl Group {
    /// Sets an attribute to what an expression came to.
    pub(crate) fn set(&mut self, key: &str, value: &Value) -> Result<(), Error> {
        let done = match key {
            "description" if *value == Value::Null => Ok(()),
            "description" => value.to_text().map(|text| self.description = text),
            "targets" => texts(value).map(|targets| self.targets = targets),
            "name" | "matrix" => Err(Error::definition("it is not supported for groups")),
            _ => Err(Error::definition("groups have no such attribute")),
        };
        done.map_err(|error| error.in_key(key))
    }

    /// Returns the value that references to an attribute see.
    pub(crate) fn get(&self, key: &str) -> Option<Value> {
        match key {
            "description" => Some(Value::text(&self.description)),
            "targets" => Some(Value::texts(&self.targets)),
            _ => None,
        }
    }
}

fn texts(value: &Value) -> Result<Vec<String>, Error> {
    value.elements()?.iter().map(Value::to_text).collect()
}

/// A boolean; `1` and `0` are taken too, as buildx's documentation has them.
fn switch(value: &Value) -> Result<bool, Error> {
    match value {
        Value::Number(_) | Value::String(_) => {
            parse_bool(&value.to_text()?).ok_or_else(|| Error::definition("a bool is required"))
        }
        other => other.to_bool(),
    }
}

fn nullable(value: &Value) -> Result<BTreeMap<String, Option<String>>, Error> {
    let entries = value.entries()?.iter().map(|(key, value)| {
        let text = match value {
            Value::Null => None,
            other => Some(other.to_text().map_err(|error| error.in_key(key))?),
        };
        Ok((key.clone(), text))
    });
    entries.collect()
}

fn map(value: &Value) -> Result<BTreeMap<String, String>, Error> {
    let entries = value.entries()?.iter().map(|(key, value)| {
        let text = value.to_text().map_err(|error| error.in_key(key))?;
        Ok((key.clone(), text))
    });
    entries.collect()
}

fn resources(value: &Value) -> Result<BTreeMap<String, String>, Error> {
    let given = nullable(value)?.into_iter();
    let given: BTreeMap<_, _> = given
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
    match given.keys().find(|key| !RESOURCES.contains(&key.as_str())) {
        Some(unknown) => Err(Error::definition(format!("there is no limit `{unknown}`"))),
        None => Ok(given),
    }
}

/// Policies are texts in the form of flags, or objects of the same fields.
fn policies(value: &Value) -> Result<Vec<String>, Error> {
    let policy = |element: &Value| match element {
        Value::Object(entries) => {
            let fields = entries
                .iter()
                .map(|(key, value)| Ok(format!("{key}={}", value.to_text()?)));
            Ok(fields.collect::<Result<Vec<_>, Error>>()?.join(","))
        }
        other => other.to_text(),
    };
    value.elements()?.iter().map(policy).collect()
}
