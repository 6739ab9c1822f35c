//! The short form of volumes: `[SOURCE:]TARGET[:MODE]`.

use crate::error::{At, Error, Result};
use crate::node::{KeyPath, Map, Node, Value};

use super::{Base, object};

pub(super) fn to_long(service: &mut Map, base: Base<'_>, path: &KeyPath<'_>) -> Result<()> {
    let path = path.key("volumes");
    let Some(Node {
        value: Value::List(items),
        ..
    }) = service.get_mut("volumes")
    else {
        return Ok(());
    };
    for (index, item) in items.iter_mut().enumerate() {
        let index = format!("[{index}]");
        let path = path.key(&index);
        if let Value::Text(text) = &item.value {
            let mount =
                short(text, &item.at).map_err(|message| Error::file(&item.at, path, message))?;
            item.value = mount;
        }
        let Value::Map(mount) = &mut item.value else {
            continue;
        };
        long(mount, base, &item.at, &path)?;
    }
    Ok(())
}

fn long(mount: &mut Map, base: Base<'_>, at: &At, path: &KeyPath<'_>) -> Result<()> {
    let text = |key: &str| mount.get(key).and_then(Node::as_text);
    let kind = text("type").ok_or_else(|| Error::file(at, path, "`type` is missing"))?;
    if !matches!(
        kind,
        "bind" | "volume" | "tmpfs" | "image" | "npipe" | "cluster"
    ) {
        let message = format!("`{kind}` is no type of mount (bind, volume, tmpfs, image)");
        return Err(Error::file(at, path.key("type"), message));
    }
    let target = text("target").filter(|target| !target.is_empty());
    let Some(target) = target else {
        return Err(Error::file(at, path, "`target` is missing"));
    };
    if !target.starts_with('/') {
        let message = format!("`{target}` is not an absolute path");
        return Err(Error::file(at, path.key("target"), message));
    }
    let target = super::clean(std::path::Path::new(target));
    let (kind, source) = (kind.to_owned(), text("source").map(str::to_owned));
    mount.set("target", Node::text(target.to_string_lossy(), at));
    match (kind.as_str(), source) {
        ("bind", Some(source)) => {
            mount.set("source", Node::text(base.resolve(&source), at));
        }
        ("bind", None) => return Err(Error::file(at, path, "`source` is missing")),
        _ => {}
    }
    Ok(())
}

fn short(text: &str, at: &At) -> Result<Value, String> {
    let invalid = || format!("invalid volume specification `{text}`");
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, mode] => (Some(source), target, mode),
        _ => return Err(invalid()),
    };
    if target.is_empty() || source == Some("") {
        return Err(invalid());
    }
    let is_path = source.is_some_and(|source| source.starts_with(['.', '/', '~']));
    let kind = if is_path { "bind" } else { "volume" };
    let mut value = object(at, [("type", Value::Text(kind.to_owned()))]);
    let Value::Map(mount) = &mut value else {
        return Ok(value);
    };
    if let Some(source) = source {
        mount.set("source", Node::text(source, at));
    }
    mount.set("target", Node::text(target, at));
    let options = if is_path {
        object(at, [("create_host_path", Value::Bool(true))])
    } else {
        Value::Map(Map::default())
    };
    mount.set(kind, Node::new(options, at.clone()));
    for option in mode.split(',').filter(|option| !option.is_empty()) {
        set_option(mount, kind, option, at);
    }
    Ok(value)
}

/// Sets what an option means; those that compose does not know mean nothing to it. What is
/// consistent is only a question where containers run in a virtual machine.
fn set_option(mount: &mut Map, kind: &str, option: &str, at: &At) {
    let (place, key, value) = match option {
        "ro" => (None, "read_only", Value::Bool(true)),
        "nocopy" if kind == "volume" => (Some(kind), "nocopy", Value::Bool(true)),
        "z" | "Z" if kind == "bind" => (Some(kind), "selinux", Value::Text(option.to_owned())),
        "shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate" if kind == "bind" => {
            (Some(kind), "propagation", Value::Text(option.to_owned()))
        }
        _ => return,
    };
    let node = Node::new(value, at.clone());
    match place.map(|place| mount.get_mut(place)) {
        None => mount.set(key, node),
        Some(Some(Node {
            value: Value::Map(options),
            ..
        })) => options.set(key, node),
        Some(_) => {}
    }
}
