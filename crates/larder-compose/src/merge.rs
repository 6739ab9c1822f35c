//! How a later file changes an earlier one. Both are in their one form.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::node::{Directive, Entry, KeyPath, Map, Node, Value};

/// Keys whose value is replaced, never merged.
const REPLACED: &[&str] = &[
    "services.*.command",
    "services.*.entrypoint",
    "services.*.healthcheck.test",
];

/// Mappings in which a name without a value overrides one with a value: it takes the value of the
/// environment.
const PAIRS: &[&str] = &[
    "services.*.environment",
    "services.*.labels",
    "services.*.build.args",
    "services.*.build.labels",
];

/// Returns what tells an item of a list apart from others; `None` where only equality does.
type Identity = fn(&Node) -> Option<String>;

/// Lists in which a later item takes the place of an earlier one with the same identity.
const KEYED: &[(&str, Identity)] = &[
    ("services.*.ports", |node| Some(port(node))),
    ("services.*.volumes", |mount| text(mount, "target")),
    ("services.*.secrets", grant),
    ("services.*.configs", grant),
    ("services.*.build.secrets", grant),
    ("services.*.env_file", |file| text(file, "path")),
    ("services.*.extra_hosts", whole),
    ("services.*.build.extra_hosts", whole),
];

/// Merges a file into what the files before it said.
///
/// # Errors
/// When the two hold values of kinds that can't be merged.
pub(crate) fn merge(base: &mut Node, over: Node) -> Result<()> {
    merge_nodes(base, over, &KeyPath::ROOT)
}

/// Merges a service into the one that it extends.
pub(crate) fn merge_service(base: &mut Node, over: Node, name: &str) -> Result<()> {
    let services = KeyPath::ROOT.key("services");
    merge_nodes(base, over, &services.key(name))
}

/// Takes away what `!reset` stands for where nothing was overridden.
pub(crate) fn drop_resets(node: &mut Node) {
    node.directive = Directive::Merge;
    match &mut node.value {
        Value::Map(map) => {
            map.retain(|entry| entry.node.directive != Directive::Reset);
            map.iter_mut()
                .for_each(|entry| drop_resets(&mut entry.node));
        }
        Value::List(items) => {
            items.retain(|item| item.directive != Directive::Reset);
            items.iter_mut().for_each(drop_resets);
        }
        _ => {}
    }
}

fn merge_nodes(base: &mut Node, over: Node, path: &KeyPath<'_>) -> Result<()> {
    let is_replaced = over.directive == Directive::Override
        || base.is_null()
        || REPLACED.iter().any(|pattern| path.matches(pattern));
    match (&mut base.value, over.value) {
        (_, Value::Null) if over.directive != Directive::Override => Ok(()),
        (_, value) if is_replaced => {
            *base = Node {
                value,
                at: over.at,
                directive: over.directive,
            };
            Ok(())
        }
        (Value::Map(map), Value::Map(other)) => {
            if path.matches("services.*.logging") && drivers_differ(map, &other) {
                *map = other;
                return Ok(());
            }
            merge_maps(map, other, path)
        }
        (Value::List(items), Value::List(others)) => {
            merge_lists(items, others, path);
            Ok(())
        }
        (Value::Map(_) | Value::List(_), other) if !path.matches("services.*.ulimits.*") => {
            let other = Node::new(other, over.at);
            let message = format!("cannot override {} with {}", base.kind(), other.kind());
            Err(Error::file(&other.at, path, message))
        }
        (_, value) => {
            *base = Node {
                value,
                at: over.at,
                directive: over.directive,
            };
            Ok(())
        }
    }
}

fn merge_maps(map: &mut Map, other: Map, path: &KeyPath<'_>) -> Result<()> {
    let are_pairs = PAIRS.iter().any(|pattern| path.matches(pattern));
    for Entry { key, at, node } in other {
        if node.directive == Directive::Reset {
            map.remove(&key);
            continue;
        }
        match map.get_mut(&key) {
            Some(base) if are_pairs || key.starts_with("x-") => *base = node,
            Some(base) => merge_nodes(base, node, &path.key(&key))?,
            None => map.push(Entry { key, at, node }),
        }
    }
    Ok(())
}

fn merge_lists(items: &mut Vec<Node>, others: Vec<Node>, path: &KeyPath<'_>) {
    let identity = KEYED
        .iter()
        .find(|(pattern, _)| path.matches(pattern))
        .map_or(whole as Identity, |(_, identity)| *identity);
    let mut places: HashMap<String, usize> = items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| Some((identity(item)?, index)))
        .collect();
    for other in others {
        let id = identity(&other);
        let place = match &id {
            Some(id) => places.get(id).copied(),
            None => items.iter().position(|item| *item == other),
        };
        if let Some(place) = place {
            items[place] = other;
            continue;
        }
        if let Some(id) = id {
            places.insert(id, items.len());
        }
        items.push(other);
    }
}

fn drivers_differ(map: &Map, other: &Map) -> bool {
    match (map.get("driver"), other.get("driver")) {
        (Some(driver), Some(other)) => driver != other,
        _ => false,
    }
}

fn text(node: &Node, key: &str) -> Option<String> {
    node.as_map()?.get(key)?.scalar()
}

/// Scalars are what they say; equal mappings are found as such.
fn whole(node: &Node) -> Option<String> {
    node.scalar()
}

fn grant(node: &Node) -> Option<String> {
    text(node, "target").or_else(|| text(node, "source"))
}

fn port(node: &Node) -> String {
    let part = |key| text(node, key).unwrap_or_default();
    format!(
        "{}:{}:{}/{}",
        part("host_ip"),
        part("published"),
        part("target"),
        part("protocol")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::parse_one;

    fn check(base: &str, over: &str, expect: &str) {
        let service = |text: &str| {
            parse_one(&format!(
                "services:\n  a:\n    {}\n",
                text.replace('\n', "\n    ")
            ))
        };
        let mut merged = service(base);
        merge(&mut merged, service(over)).unwrap();
        drop_resets(&mut merged);
        assert_eq!(merged, service(expect), "{base}\n--\n{over}\n{merged:#?}");
    }

    #[test]
    fn values_merge_by_the_rules_of_their_key() {
        check("image: a", "image: b", "image: b");
        check("image: a", "image:", "image: a");
        check("command: [a]", "command: [b]", "command: [b]");
        check(
            "environment: {A: '1', B: '2'}",
            "environment: {B: , C: '3'}",
            "environment: {A: '1', B: , C: '3'}",
        );
        check("dns: [a, b]", "dns: [b, c]", "dns: [a, b, c]");
        check(
            "volumes: [{target: /a, source: x}, {target: /b}]",
            "volumes: [{target: /a, source: y}]",
            "volumes: [{target: /a, source: y}, {target: /b}]",
        );
        check(
            "ports: [{target: 80, published: '80'}]",
            "ports: [{target: 80, published: '81'}, {target: 80, published: '80'}]",
            "ports: [{target: 80, published: '80'}, {target: 80, published: '81'}]",
        );
        check(
            "logging: {driver: a, options: {x: y}}",
            "logging: {driver: b}",
            "logging: {driver: b}",
        );
        check(
            "logging: {driver: a}",
            "logging: {options: {x: y}}",
            "logging: {driver: a, options: {x: y}}",
        );
        check(
            "ulimits: {nofile: 5}",
            "ulimits: {nofile: {soft: 1, hard: 2}}",
            "ulimits: {nofile: {soft: 1, hard: 2}}",
        );
        check(
            "build: {args: {A: '1'}, target: x}",
            "build: {args: {B: '2'}}",
            "build: {args: {A: '1', B: '2'}, target: x}",
        );
    }

    #[test]
    fn tags_reset_and_override() {
        check("image: a\nports: [1, 2]", "ports: !reset []", "image: a");
        check("ports: [1, 2]", "ports: !override [3]", "ports: [3]");
        check(
            "environment: {A: '1', B: '2'}",
            "environment: {A: !reset null}",
            "environment: {B: '2'}",
        );
        check(
            "build: {args: {A: '1'}, target: x}",
            "build: !override {context: .}",
            "build: {context: .}",
        );
        check("image: a\nports: !reset [1]", "image: b", "image: b");
    }

    #[test]
    fn kinds_that_do_not_fit_are_an_error() {
        let mut base = parse_one("services: {a: {labels: [x]}}");
        let over = parse_one("services: {a: {labels: text}}");
        let error = merge(&mut base, over).unwrap_err();
        assert_eq!(error.key(), "services.a.labels");
    }
}
