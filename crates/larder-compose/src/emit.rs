//! The resolved project as text.

use std::fmt::Write as _;

use serde_json::{Number, json};

use crate::error::Result;
use crate::model::Project;
use crate::node::{Map, Node, Value};
use crate::yaml::plain_scalar;

/// Spaces of one level.
const INDENT: usize = 2;
/// The sections of a file, in the order they are shown in.
const SECTIONS: [&str; 7] = [
    "name", "services", "networks", "volumes", "secrets", "configs", "models",
];

impl Project {
    /// Returns the resolved project as YAML: long forms, absolute paths, sorted keys, the services
    /// that are on. `$` in values is written `$$`, so that the text means the same when it is
    /// loaded again.
    ///
    /// # Errors
    /// When a service's env file can't be read.
    pub fn to_yaml(&self, escape_dollars: bool) -> Result<String> {
        let mut tree = self.resolved()?;
        if escape_dollars {
            escape(&mut tree);
        }
        Ok(to_yaml(&tree))
    }

    /// Returns the resolved project as JSON. See [`Self::to_yaml`].
    ///
    /// # Errors
    /// When a service's env file can't be read.
    pub fn to_json(&self, escape_dollars: bool) -> Result<String> {
        let mut tree = self.resolved()?;
        if escape_dollars {
            escape(&mut tree);
        }
        Ok(format!("{:#}\n", to_json(&tree)))
    }

    /// Returns the tree with all defaults that the model knows.
    fn resolved(&self) -> Result<Node> {
        let mut tree = self.tree.clone();
        let at = tree.at.clone();
        let Value::Map(map) = &mut tree.value else {
            return Ok(tree);
        };
        map.set("name", Node::text(&self.name, &at));
        if let Some(Node {
            value: Value::Map(services),
            ..
        }) = map.get_mut("services")
        {
            services.retain(|entry| self.services.contains_key(&entry.key));
            for entry in services.iter_mut() {
                self.resolve_service(&entry.key, &mut entry.node)?;
            }
        }
        if let Some(Node {
            value: Value::Map(volumes),
            ..
        }) = map.get_mut("volumes")
        {
            for entry in volumes.iter_mut() {
                let Some(volume) = self.volumes.get(&entry.key) else {
                    continue;
                };
                let name = Node::text(&volume.name, &entry.at);
                match &mut entry.node.value {
                    Value::Map(map) => map.set("name", name),
                    value => {
                        let mut map = Map::default();
                        map.set("name", name);
                        *value = Value::Map(map);
                    }
                }
            }
        }
        sort(&mut tree);
        Ok(tree)
    }

    fn resolve_service(&self, name: &str, node: &mut Node) -> Result<()> {
        let (Some(service), Value::Map(map)) = (self.services.get(name), &mut node.value) else {
            return Ok(());
        };
        for key in ["command", "entrypoint"] {
            if map.get(key).is_none() {
                map.set(key, Node::new(Value::Null, node.at.clone()));
            }
        }
        let environment = service.resolve_environment(&self.variables)?;
        map.remove("env_file");
        map.remove("environment");
        if !environment.is_empty() {
            let mut variables = Map::default();
            for (name, value) in environment {
                variables.set(&name, Node::text(value, &node.at));
            }
            map.set(
                "environment",
                Node::new(Value::Map(variables), node.at.clone()),
            );
        }
        if let (
            Some(build),
            Some(Node {
                value: Value::Map(map),
                at,
                ..
            }),
        ) = (&service.build, map.get_mut("build"))
        {
            let at = at.clone();
            map.set("context", Node::text(&build.context, &at));
            if map.get("dockerfile").is_none() && map.get("dockerfile_inline").is_none() {
                map.set("dockerfile", Node::text("Dockerfile", &at));
            }
        }
        Ok(())
    }
}

fn escape(node: &mut Node) {
    match &mut node.value {
        Value::Text(text) => *text = text.replace('$', "$$"),
        Value::List(items) => items.iter_mut().for_each(escape),
        Value::Map(map) => map.iter_mut().for_each(|entry| escape(&mut entry.node)),
        _ => {}
    }
}

/// Sorts the keys of all mappings; those of the file come in their usual order.
fn sort(tree: &mut Node) {
    sort_keys(tree);
    if let Value::Map(map) = &mut tree.value {
        let mut sorted = Map::default();
        for section in SECTIONS {
            if let Some(node) = map.remove(section) {
                sorted.set(section, node);
            }
        }
        for entry in std::mem::take(map) {
            sorted.push(entry);
        }
        *map = sorted;
    }
}

fn sort_keys(node: &mut Node) {
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(sort_keys),
        Value::Map(map) => {
            let mut entries: Vec<_> = std::mem::take(map).into_iter().collect();
            entries.sort_by(|a, b| a.key.cmp(&b.key));
            for mut entry in entries {
                sort_keys(&mut entry.node);
                map.push(entry);
            }
        }
        _ => {}
    }
}

fn to_json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => json!(null),
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!(value),
        Value::Float(value) => Number::from_f64(*value).map_or(json!(null), Into::into),
        Value::Text(text) => json!(text),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(map) => map
            .iter()
            .map(|entry| (entry.key.clone(), to_json(&entry.node)))
            .collect(),
    }
}

/// Returns a tree as a YAML document.
pub(crate) fn to_yaml(node: &Node) -> String {
    let mut out = String::new();
    match &node.value {
        Value::Map(map) if !map.is_empty() => write_map(map, 0, &mut out),
        Value::List(items) if !items.is_empty() => write_list(items, 0, &mut out),
        _ => out = format!("{}\n", scalar(node)),
    }
    out
}

fn write_map(map: &Map, indent: usize, out: &mut String) {
    for (index, entry) in map.iter().enumerate() {
        // The first key stands behind the dash of a list's item.
        if index > 0 || !out.ends_with("- ") {
            pad(indent, out);
        }
        out.push_str(&text(&entry.key));
        out.push(':');
        write_value(&entry.node, indent, out);
    }
}

fn write_value(node: &Node, indent: usize, out: &mut String) {
    match &node.value {
        Value::Map(map) if !map.is_empty() => {
            out.push('\n');
            write_map(map, indent + INDENT, out);
        }
        Value::List(items) if !items.is_empty() => {
            out.push('\n');
            write_list(items, indent + INDENT, out);
        }
        _ => {
            // Writing to a string does not fail.
            let _ = writeln!(out, " {}", scalar(node));
        }
    }
}

fn write_list(items: &[Node], indent: usize, out: &mut String) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 || !out.ends_with("- ") {
            pad(indent, out);
        }
        out.push_str("- ");
        match &item.value {
            Value::Map(map) if !map.is_empty() => write_map(map, indent + INDENT, out),
            Value::List(items) if !items.is_empty() => write_list(items, indent + INDENT, out),
            _ => {
                let _ = writeln!(out, "{}", scalar(item));
            }
        }
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn scalar(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Text(value) => text(value),
        Value::Float(value) if value.is_nan() => ".nan".to_owned(),
        Value::Float(value) if value.is_infinite() => {
            if value.is_sign_positive() {
                ".inf".to_owned()
            } else {
                "-.inf".to_owned()
            }
        }
        Value::Float(value) => format!("{value:?}"),
        Value::List(_) => "[]".to_owned(),
        Value::Map(_) => "{}".to_owned(),
        _ => node.scalar().unwrap_or_default(),
    }
}

/// Returns a string as YAML: bare where that means the same, else in double quotes.
fn text(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_printable(c) => out.push(c),
            c => {
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
        }
    }
    out.push('"');
    out
}

fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}')
}

fn is_plain(text: &str) -> bool {
    const OLD_BOOLEANS: [&str; 6] = ["y", "n", "yes", "no", "on", "off"];
    let Some(first) = text.chars().next() else {
        return false;
    };
    let is_dash_word = first == '-' && text.chars().nth(1).is_some_and(|c| !c.is_whitespace());
    let begins_plain = is_dash_word
        || first.is_alphanumeric()
        || matches!(
            first,
            '_' | '/' | '.' | '$' | '(' | ')' | '+' | '=' | ';' | '^' | '~'
        );
    begins_plain
        && text != "="
        && !text.starts_with("---")
        && !text.starts_with("...")
        && text.chars().all(is_printable)
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.ends_with([':', ' '])
        && !OLD_BOOLEANS.contains(&text.to_ascii_lowercase().as_str())
        && matches!(plain_scalar(text), Value::Text(_))
        && !is_date(text)
}

/// Whether other YAML libraries would take a text for a date.
fn is_date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let mut is_number = || {
        let part = parts.next().unwrap_or_default();
        part.starts_with(|c: char| c.is_ascii_digit())
    };
    text.len() >= 8 && is_number() && is_number() && is_number()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::At;
    use crate::yaml::parse_one;

    fn values() -> impl Strategy<Value = Node> {
        let at = || At::new(&"x".into(), 0);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<f64>()
                .prop_filter("not a number", |f| f.is_finite())
                .prop_map(Value::Float),
            any::<String>().prop_map(Value::Text),
            "[a-z0-9:#\\-? ,.'\"\\[{&*!|>%@`=~]{0,12}".prop_map(Value::Text),
        ];
        let leaf = leaf.prop_map(move |value| Node::new(value, at()));
        leaf.prop_recursive(4, 32, 5, move |inner| {
            let map = prop::collection::vec(("[ -~]{1,8}", inner.clone()), 0..5);
            prop_oneof![
                prop::collection::vec(inner, 0..5).prop_map(Value::List),
                map.prop_map(|pairs| {
                    let mut map = Map::default();
                    for (key, node) in pairs {
                        map.set(&key, node);
                    }
                    Value::Map(map)
                }),
            ]
            .prop_map(move |value| Node::new(value, at()))
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(node in values()) {
            let text = to_yaml(&node);
            prop_assert_eq!(parse_one(&text), node, "{}", text);
        }
    }

    #[test]
    fn strings_that_mean_something_else_are_quoted() {
        for (value, expect) in [
            ("plain text", "plain text"),
            ("8000", "\"8000\""),
            ("yes", "\"yes\""),
            ("true", "\"true\""),
            ("", "\"\""),
            ("a: b", "\"a: b\""),
            ("-c", "-c"),
            ("- c", "\"- c\""),
            ("2020-01-02", "\"2020-01-02\""),
            ("two\nlines", "\"two\\nlines\""),
        ] {
            assert_eq!(text(value), expect);
        }
    }
}
