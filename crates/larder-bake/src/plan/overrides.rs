//! `--set target.key=value`

use std::collections::BTreeMap;

use super::{Granted, pattern};
use crate::config::Definition;
use crate::entry::{
    AttestEntry, CacheEntry, Entry, OutputEntry, SecretEntry, SshEntry, parse_list,
};
use crate::error::{Error, suggestion};
use crate::target::{RESOURCES, Target};
use crate::value::parse_bool;

/// Attributes of one value.
const SINGLE: [&str; 10] = [
    "call",
    "context",
    "dockerfile",
    "load",
    "network",
    "no-cache",
    "pull",
    "push",
    "shm-size",
    "target",
];

/// Attributes that are lists, of which several values may be given.
const LISTS: [&str; 13] = [
    "annotations",
    "attest",
    "cache-from",
    "cache-to",
    "entitlements",
    "no-cache-filter",
    "output",
    "platform",
    "policy",
    "secrets",
    "ssh",
    "tags",
    "ulimits",
];

/// Attributes that are maps, whose keys follow after a dot.
const MAPS: [&str; 6] = [
    "args",
    "contexts",
    "extra-hosts",
    "labels",
    "resources",
    "secret",
];

/// All that is set, by target.
#[derive(Debug, Default)]
pub(super) struct Overrides(BTreeMap<String, Vec<Override>>);

/// What one attribute is set to.
#[derive(Debug, Clone)]
struct Override {
    key: String,
    /// The key in a map.
    name: String,
    /// Several, if the attribute is a list.
    values: Vec<String>,
    appends: bool,
}

impl Overrides {
    pub(super) fn parse(texts: &[String], definition: &Definition) -> Result<Self, Error> {
        let mut overrides = Self::default();
        for text in texts {
            overrides
                .add(text, definition)
                .map_err(|error| error.in_key(text))?;
        }
        Ok(overrides)
    }

    fn add(&mut self, text: &str, definition: &Definition) -> Result<(), Error> {
        let (path, value) = match text.split_once('=') {
            Some((path, value)) => (path, Some(value)),
            None => (text, None),
        };
        let (path, appends) = match path.strip_suffix('+') {
            Some(path) => (path, true),
            None => (path, false),
        };
        let mut parts = path.splitn(3, '.');
        let target = parts.next().unwrap_or_default();
        let key = parts
            .next()
            .ok_or_else(|| Error::request("invalid override key, expected target.name"))?;
        let name = parts.next().unwrap_or_default();
        check_key(key, name)?;
        let value = match value {
            Some(value) => value,
            // An argument without a value is that of the environment, or left alone.
            None if key == "args" => match definition.options.environment.get(name) {
                Some(value) => value,
                None => return Ok(()),
            },
            None => {
                return Err(Error::request(
                    "invalid override, expected target.name=value",
                ));
            }
        };
        for target in targets(target, definition)? {
            self.push(target, key, name, value, appends);
        }
        Ok(())
    }

    fn push(&mut self, target: String, key: &str, name: &str, value: &str, appends: bool) {
        let all = self.0.entry(target).or_default();
        let given = all
            .iter_mut()
            .find(|other| other.key == key && other.name == name);
        match given {
            Some(given) => {
                if !LISTS.contains(&key) {
                    given.values.clear();
                }
                given.values.push(value.to_owned());
                given.appends = appends;
            }
            None => all.push(Override {
                key: key.to_owned(),
                name: name.to_owned(),
                values: vec![value.to_owned()],
                appends,
            }),
        }
    }

    /// Puts what is set over the target `name`.
    pub(super) fn apply(
        &self,
        name: &str,
        target: &mut Target,
        granted: &mut Granted,
    ) -> Result<(), Error> {
        for given in self.0.get(name).into_iter().flatten() {
            let place = format!("{name}.{}", given.key);
            given
                .apply(target, granted)
                .map_err(|error| error.in_key(&place))?;
        }
        Ok(())
    }
}

fn check_key(key: &str, name: &str) -> Result<(), Error> {
    if MAPS.contains(&key) {
        return match name {
            "" => Err(Error::request(format!(
                "`{key}` requires a name: target.{key}.NAME=VALUE"
            ))),
            _ => Ok(()),
        };
    }
    if SINGLE.contains(&key) || LISTS.contains(&key) {
        return Ok(());
    }
    let known = suggestion(key, SINGLE.into_iter().chain(LISTS).chain(MAPS));
    Err(Error::request(format!("unknown key: {key}{known}")))
}

fn targets(pattern: &str, definition: &Definition) -> Result<Vec<String>, Error> {
    let names = || definition.targets.iter().map(|(name, _)| name);
    if names().any(|name| name == pattern) {
        return Ok(vec![pattern.to_owned()]);
    }
    let matching: Vec<String> = pattern::compile(pattern)
        .map(|regex| {
            names()
                .filter(|name| regex.is_match(name))
                .cloned()
                .collect()
        })
        .unwrap_or_default();
    if matching.is_empty() {
        let known = suggestion(pattern, names().map(String::as_str));
        return Err(Error::request(format!(
            "could not find any target matching '{pattern}'{known}"
        )));
    }
    Ok(matching)
}

impl Override {
    fn apply(&self, target: &mut Target, granted: &mut Granted) -> Result<(), Error> {
        let value = self.values.last().cloned().unwrap_or_default();
        match self.key.as_str() {
            "context" => target.context = Some(value),
            "dockerfile" => target.dockerfile = Some(value),
            "target" => target.target = Some(value),
            "call" => target.call = Some(value),
            "network" => target.network = Some(value),
            "shm-size" => target.shm_size = Some(value),
            "no-cache" => target.no_cache = Some(switch(&value)?),
            "pull" => target.pull = Some(switch(&value)?),
            "push" => set_push(target, switch(&value)?),
            "load" if switch(&value)? => set_load(target),
            "load" => {}
            "args" => drop(target.args.insert(self.name.clone(), Some(value))),
            "labels" => drop(target.labels.insert(self.name.clone(), Some(value))),
            "extra-hosts" => drop(target.extra_hosts.insert(self.name.clone(), Some(value))),
            "contexts" => drop(target.contexts.insert(self.name.clone(), value)),
            "resources" => self.set_resource(target, value)?,
            "secret" => self.set_secret(target, &value, granted)?,
            _ => self.apply_list(target, granted)?,
        }
        Ok(())
    }

    fn apply_list(&self, target: &mut Target, granted: &mut Granted) -> Result<(), Error> {
        match self.key.as_str() {
            "tags" => self.put(&mut target.tags, self.values.clone()),
            "platform" => self.put(&mut target.platforms, self.values.clone()),
            "no-cache-filter" => self.put(&mut target.no_cache_filter, self.values.clone()),
            "ulimits" => self.put(&mut target.ulimits, self.values.clone()),
            "policy" => self.put(&mut target.policy, self.values.clone()),
            "annotations" => append(&mut target.annotations, self.values.clone()),
            "attest" => append(&mut target.attest, self.entries::<AttestEntry>()?),
            "entitlements" => {
                granted.entitlements.extend(self.values.iter().cloned());
                append(&mut target.entitlements, self.values.clone());
            }
            "cache-from" => {
                self.put(&mut target.cache_from, self.entries::<CacheEntry>()?);
                granted
                    .read
                    .extend(local_paths(target.cache_from.as_ref(), "src"));
            }
            "cache-to" => {
                self.put(&mut target.cache_to, self.entries::<CacheEntry>()?);
                granted
                    .write
                    .extend(local_paths(target.cache_to.as_ref(), "dest"));
            }
            "secrets" => {
                self.put(&mut target.secrets, self.entries::<SecretEntry>()?);
                let files = target
                    .secrets
                    .iter()
                    .flatten()
                    .map(|secret| secret.file.clone());
                granted.read.extend(files.filter(|file| !file.is_empty()));
            }
            "ssh" => {
                self.put(&mut target.ssh, self.entries::<SshEntry>()?);
                let paths = target
                    .ssh
                    .iter()
                    .flatten()
                    .flat_map(|ssh| ssh.paths.clone());
                granted.read.extend(paths);
            }
            _ => {
                self.put(&mut target.outputs, self.entries::<OutputEntry>()?);
                let dests = target
                    .outputs
                    .iter()
                    .flatten()
                    .map(|output| output.destination.clone());
                granted.write.extend(dests.filter(|dest| !dest.is_empty()));
            }
        }
        Ok(())
    }

    fn entries<E: Entry>(&self) -> Result<Vec<E>, Error> {
        parse_list(&self.values)
    }

    fn put<T>(&self, list: &mut Option<Vec<T>>, values: Vec<T>) {
        match list {
            Some(list) if self.appends => list.extend(values),
            _ => *list = Some(values),
        }
    }

    fn set_resource(&self, target: &mut Target, value: String) -> Result<(), Error> {
        if !RESOURCES.contains(&self.name.as_str()) {
            return Err(Error::request(format!("there is no limit `{}`", self.name)));
        }
        target.resources.insert(self.name.clone(), value);
        Ok(())
    }

    /// Changes where a secret that the target has comes from.
    fn set_secret(
        &self,
        target: &mut Target,
        value: &str,
        granted: &mut Granted,
    ) -> Result<(), Error> {
        let given = SecretEntry::parse(value)?;
        if !given.id.is_empty() && given.id != self.name {
            return Err(Error::request(format!(
                "secret override id \"{}\" does not match declared secret \"{}\"",
                given.id, self.name
            )));
        }
        let mut secrets = target.secrets.iter_mut().flatten();
        let secret = secrets
            .find(|secret| secret.id == self.name)
            .ok_or_else(|| {
                Error::request(format!(
                    "secret \"{}\" must be declared before it can be overridden",
                    self.name
                ))
            })?;
        if !given.file.is_empty() {
            granted.read.push(given.file.clone());
        }
        *secret = SecretEntry {
            id: self.name.clone(),
            ..given
        };
        Ok(())
    }
}

fn append<T>(list: &mut Option<Vec<T>>, values: Vec<T>) {
    list.get_or_insert_default().extend(values);
}

fn switch(value: &str) -> Result<bool, Error> {
    parse_bool(value)
        .ok_or_else(|| Error::request(format!("invalid value {value} for a boolean key")))
}

fn local_paths(entries: Option<&Vec<CacheEntry>>, key: &str) -> Vec<String> {
    let local = entries
        .into_iter()
        .flatten()
        .filter(|entry| entry.kind == "local");
    local
        .filter_map(|entry| entry.attributes.get(key).cloned())
        .collect()
}

/// Pushes images that are made, and makes one to push if nothing else is.
fn set_push(target: &mut Target, pushes: bool) {
    let outputs = target.outputs.get_or_insert_default();
    if !pushes {
        outputs.retain(|output| output.kind != "registry");
    }
    for output in outputs.iter_mut().filter(|output| output.kind == "image") {
        output
            .attributes
            .insert("push".to_owned(), pushes.to_string());
    }
    if pushes && outputs.iter().all(|output| output.kind == "docker") {
        outputs.push(OutputEntry {
            kind: "image".to_owned(),
            destination: String::new(),
            attributes: BTreeMap::from([("push".to_owned(), "true".to_owned())]),
        });
    }
}

/// Loads the image, unless something is made that is none, or it is loaded already.
fn set_load(target: &mut Target) {
    let outputs = target.outputs.get_or_insert_default();
    let keeps = |output: &OutputEntry| match output.kind.as_str() {
        "docker" => !output.destination.is_empty(),
        kind => matches!(kind, "image" | "registry" | "oci"),
    };
    if outputs.iter().all(keeps) {
        outputs.push(OutputEntry {
            kind: "docker".to_owned(),
            destination: String::new(),
            attributes: BTreeMap::new(),
        });
    }
}
