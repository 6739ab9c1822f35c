//! One form for everything: short forms become long ones, paths become absolute.

mod devices;
mod mounts;
mod pairs;
mod ports;

use std::path::{Component, Path, PathBuf};

use crate::error::{At, Error, Result};
use crate::node::{Entry, KeyPath, Map, Node, Value};
use crate::values;

/// What relative paths are relative to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Base<'a> {
    /// Absolute.
    pub(crate) directory: &'a Path,
    /// What `~` stands for.
    pub(crate) home: Option<&'a str>,
}

impl Base<'_> {
    /// Returns an absolute path without `.` and `..`.
    pub(crate) fn resolve(&self, path: &str) -> String {
        let path = match (path.strip_prefix('~'), self.home) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
                PathBuf::from(format!("{home}{rest}"))
            }
            _ => self.directory.join(path),
        };
        clean(&path).to_string_lossy().into_owned()
    }
}

/// Returns a path without `.` and `..`, by its text alone, as compose does.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// Brings a file that the schema allows into its one form.
///
/// # Errors
/// Names file, line and key of a short form that can't be read.
pub(crate) fn canonical(file: &mut Node, base: Base<'_>) -> Result<()> {
    let Value::Map(map) = &mut file.value else {
        return Ok(());
    };
    let ports = ports::Budget::default();
    each(map, "services", |service, path| {
        service_map(service, base, &ports, path)
    })?;
    for kind in ["secrets", "configs"] {
        each(map, kind, |resource, _| {
            resolve_key(resource, "file", base);
            Ok(())
        })?;
    }
    for kind in ["secrets", "configs", "volumes", "networks"] {
        each(map, kind, |resource, path| {
            pairs::to_map(resource, "labels", path)?;
            external_name(resource);
            Ok(())
        })?;
    }
    Ok(())
}

/// Calls `change` for each mapping below a key of the file.
fn each(
    file: &mut Map,
    kind: &str,
    change: impl Fn(&mut Map, &KeyPath<'_>) -> Result<()>,
) -> Result<()> {
    let Some(Node {
        value: Value::Map(map),
        ..
    }) = file.get_mut(kind)
    else {
        return Ok(());
    };
    let path = KeyPath::ROOT.key(kind);
    for entry in map.iter_mut() {
        if let Value::Map(resource) = &mut entry.node.value {
            change(resource, &path.key(&entry.key))?;
        }
    }
    Ok(())
}

fn service_map(
    service: &mut Map,
    base: Base<'_>,
    ports: &ports::Budget,
    path: &KeyPath<'_>,
) -> Result<()> {
    for key in ["command", "entrypoint"] {
        command(service, key, path)?;
    }
    for key in ["environment", "labels", "annotations", "sysctls"] {
        pairs::to_map(service, key, path)?;
    }
    for key in ["dns", "dns_search", "tmpfs", "label_file"] {
        to_list(service, key);
    }
    for key in ["secrets", "configs"] {
        grants(service, key);
    }
    wrap_text(service, "build", "context");
    wrap_text(service, "extends", "service");
    if let Some(Node {
        value: Value::Map(build),
        ..
    }) = service.get_mut("build")
    {
        build_map(build, base, &path.key("build"))?;
    }
    if let Some(Node {
        value: Value::Map(deploy),
        ..
    }) = service.get_mut("deploy")
    {
        pairs::to_map(deploy, "labels", &path.key("deploy"))?;
    }
    if let Some(Node {
        value: Value::Map(check),
        ..
    }) = service.get_mut("healthcheck")
    {
        test_command(check);
    }
    pairs::hosts_to_list(service, path)?;
    label_files(service, base);
    env_files(service, base);
    dependencies(service);
    names_to_map(service, "networks");
    names_to_map(service, "models");
    for key in ["post_start", "pre_stop"] {
        hooks(service, key, path)?;
    }
    watched_paths(service, base);
    devices::to_long(service, path)?;
    devices::count_gpus(service);
    ports::to_long(service, ports, path)?;
    mounts::to_long(service, base, path)
}

fn build_map(build: &mut Map, base: Base<'_>, path: &KeyPath<'_>) -> Result<()> {
    to_list(build, "ssh");
    to_list(build, "no_cache_filter");
    for key in ["args", "labels", "additional_contexts", "ssh"] {
        pairs::to_map(build, key, path)?;
    }
    pairs::hosts_to_list(build, path)?;
    grants(build, "secrets");
    ssh_paths(build, base);
    if let Some(node) = build.get_mut("context") {
        resolve_location(node, base);
    }
    if let Some(Node {
        value: Value::Map(contexts),
        ..
    }) = build.get_mut("additional_contexts")
    {
        for entry in contexts.iter_mut() {
            resolve_location(&mut entry.node, base);
        }
    }
    Ok(())
}

/// Makes the path of a context absolute; URLs, images and services stay.
fn resolve_location(node: &mut Node, base: Base<'_>) {
    if let Value::Text(text) = &mut node.value
        && !is_remote(text)
    {
        *text = base.resolve(text);
    }
}

/// Whether a context is something other than a directory.
pub(crate) fn is_remote(location: &str) -> bool {
    location.contains("://")
        || ["service:", "target:", "git@", "github.com/"]
            .iter()
            .any(|prefix| location.starts_with(prefix))
}

fn command(service: &mut Map, key: &str, path: &KeyPath<'_>) -> Result<()> {
    let Some(node) = service.get_mut(key) else {
        return Ok(());
    };
    if let Value::Text(text) = &node.value {
        let Some(words) = values::shell_words(text) else {
            return Err(Error::file(
                &node.at,
                path.key(key),
                "a quote is not closed",
            ));
        };
        node.value = texts(words, &node.at);
    }
    Ok(())
}

/// Brings the programs that run after a start, or before a stop, into one form.
fn hooks(service: &mut Map, key: &str, path: &KeyPath<'_>) -> Result<()> {
    let path = path.key(key);
    if let Some(Node {
        value: Value::List(items),
        ..
    }) = service.get_mut(key)
    {
        for (index, item) in items.iter_mut().enumerate() {
            let index = format!("[{index}]");
            if let Value::Map(hook) = &mut item.value {
                command(hook, "command", &path.key(&index))?;
                pairs::to_map(hook, "environment", &path.key(&index))?;
            }
        }
    }
    Ok(())
}

fn watched_paths(service: &mut Map, base: Base<'_>) {
    if let Some(Node {
        value: Value::Map(develop),
        ..
    }) = service.get_mut("develop")
        && let Some(Node {
            value: Value::List(items),
            ..
        }) = develop.get_mut("watch")
    {
        for item in items {
            if let Value::Map(watch) = &mut item.value {
                resolve_key(watch, "path", base);
            }
        }
    }
}

fn ssh_paths(build: &mut Map, base: Base<'_>) {
    if let Some(Node {
        value: Value::Map(keys),
        ..
    }) = build.get_mut("ssh")
    {
        for entry in keys.iter_mut() {
            if let Value::Text(path) = &mut entry.node.value
                && !path.is_empty()
            {
                *path = base.resolve(path);
            }
        }
    }
}

fn texts(words: impl IntoIterator<Item = String>, at: &At) -> Value {
    Value::List(words.into_iter().map(|word| Node::text(word, at)).collect())
}

fn test_command(check: &mut Map) {
    if let Some(node) = check.get_mut("test")
        && let Value::Text(text) = &node.value
    {
        node.value = texts(["CMD-SHELL".to_owned(), text.clone()], &node.at);
    }
}

/// Makes one text a list of it.
fn to_list(map: &mut Map, key: &str) {
    if let Some(node) = map.get_mut(key)
        && matches!(node.value, Value::Text(_))
    {
        let item = Node::new(node.value.clone(), node.at.clone());
        node.value = Value::List(vec![item]);
    }
}

/// Makes a text the mapping whose `inner` key it is.
fn wrap_text(map: &mut Map, key: &str, inner: &str) {
    if let Some(node) = map.get_mut(key) {
        wrap(node, inner);
    }
}

fn wrap(node: &mut Node, inner: &str) {
    if matches!(node.value, Value::Text(_)) {
        let text = Node::new(node.value.clone(), node.at.clone());
        node.value = object(&node.at, [(inner, text.value)]);
    }
}

/// Returns a mapping whose keys and values all stand at one place.
fn object<const N: usize>(at: &At, entries: [(&str, Value); N]) -> Value {
    let mut map = Map::default();
    for (key, value) in entries {
        map.push(Entry {
            key: key.to_owned(),
            at: at.clone(),
            node: Node::new(value, at.clone()),
        });
    }
    Value::Map(map)
}

fn grants(map: &mut Map, key: &str) {
    if let Some(Node {
        value: Value::List(items),
        ..
    }) = map.get_mut(key)
    {
        for item in items {
            wrap(item, "source");
        }
    }
}

fn env_files(service: &mut Map, base: Base<'_>) {
    to_list(service, "env_file");
    let Some(Node {
        value: Value::List(items),
        ..
    }) = service.get_mut("env_file")
    else {
        return;
    };
    for item in items {
        wrap(item, "path");
        if let Value::Map(map) = &mut item.value {
            resolve_key(map, "path", base);
            default(map, "required", &item.at, Value::Bool(true));
        }
    }
}

fn label_files(service: &mut Map, base: Base<'_>) {
    if let Some(Node {
        value: Value::List(items),
        ..
    }) = service.get_mut("label_file")
    {
        for item in items {
            if let Value::Text(text) = &mut item.value {
                *text = base.resolve(text);
            }
        }
    }
}

fn dependencies(service: &mut Map) {
    names_to_map(service, "depends_on");
    let Some(Node {
        value: Value::Map(map),
        ..
    }) = service.get_mut("depends_on")
    else {
        return;
    };
    for entry in map.iter_mut() {
        let at = entry.node.at.clone();
        if entry.node.is_null() {
            entry.node.value = Value::Map(Map::default());
        }
        if let Value::Map(dependency) = &mut entry.node.value {
            let started = Value::Text("service_started".to_owned());
            default(dependency, "condition", &at, started);
            default(dependency, "required", &at, Value::Bool(true));
        }
    }
}

/// Makes a list of names a mapping from them to nothing.
fn names_to_map(map: &mut Map, key: &str) {
    let Some(node) = map.get_mut(key) else {
        return;
    };
    if let Value::List(items) = &node.value {
        let mut names = Map::default();
        for item in items {
            if let Some(name) = item.as_text() {
                names.set(name, Node::new(Value::Null, item.at.clone()));
            }
        }
        node.value = Value::Map(names);
    }
}

fn default(map: &mut Map, key: &str, at: &At, value: Value) {
    if map.get(key).is_none_or(Node::is_null) {
        map.set(key, Node::new(value, at.clone()));
    }
}

fn resolve_key(map: &mut Map, key: &str, base: Base<'_>) {
    if let Some(Node {
        value: Value::Text(text),
        ..
    }) = map.get_mut(key)
    {
        *text = base.resolve(text);
    }
}

/// `external: {name: x}` is the old form of `external: true` and `name: x`.
fn external_name(resource: &mut Map) {
    let Some(external) = resource.get_mut("external") else {
        return;
    };
    if let Value::Map(map) = &mut external.value {
        let name = map.remove("name");
        external.value = Value::Bool(true);
        if let Some(name) = name {
            resource.set("name", name);
        }
    }
}
