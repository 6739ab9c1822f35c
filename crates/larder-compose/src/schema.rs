//! What may stand where in a compose file.

mod spec;

use crate::error::{Error, Result};
use crate::node::{Directive, KeyPath, Map, Node, Value};

/// What a value may be. Nothing (`key:` alone) may stand for any of them: it means that the key is
/// not given.
pub(crate) enum Shape {
    /// Anything.
    Any,
    /// A string.
    Text,
    /// A number, or a string that holds one.
    Number,
    /// A truth value, or a string that holds one.
    Flag,
    /// A string, number or truth value.
    Scalar,
    /// A list.
    List(&'static Shape),
    /// A mapping with any keys.
    Map(&'static Shape),
    /// A mapping whose keys are names of services, volumes, …
    Named(&'static Shape),
    /// A mapping with these keys, and `x-…`.
    Object(&'static [(&'static str, Shape)]),
    /// The first of these that fits.
    OneOf(&'static [Shape]),
}

/// Checks a whole file.
///
/// # Errors
/// Names file, line and key of the first thing that must not stand where it does.
pub(crate) fn validate(file: &Node) -> Result<()> {
    if file.as_map().is_none() {
        return Err(Error::file(&file.at, "", "the file must be a mapping"));
    }
    check(file, &spec::FILE, &KeyPath::ROOT)
}

fn check(node: &Node, shape: &Shape, path: &KeyPath<'_>) -> Result<()> {
    match (shape, &node.value) {
        // What is taken away may have any shape.
        _ if node.directive == Directive::Reset => Ok(()),
        (Shape::OneOf(shapes), _) => {
            let fitting = shapes.iter().find(|shape| accepts(shape, node));
            match fitting {
                Some(shape) => check(node, shape, path),
                None => Err(wrong_kind(node, shape, path)),
            }
        }
        _ if !accepts(shape, node) => Err(wrong_kind(node, shape, path)),
        (Shape::List(shape), Value::List(items)) => {
            for (index, item) in items.iter().enumerate() {
                check(item, shape, &path.key(&format!("[{index}]")))?;
            }
            Ok(())
        }
        (Shape::Map(shape), Value::Map(map)) => check_each(map, shape, path),
        (Shape::Named(shape), Value::Map(map)) => {
            check_names(map, path)?;
            check_each(map, shape, path)
        }
        (Shape::Object(keys), Value::Map(map)) => check_object(map, keys, path),
        _ => Ok(()),
    }
}

fn check_each(map: &Map, shape: &Shape, path: &KeyPath<'_>) -> Result<()> {
    for entry in map {
        check(&entry.node, shape, &path.key(&entry.key))?;
    }
    Ok(())
}

fn check_names(map: &Map, path: &KeyPath<'_>) -> Result<()> {
    let is_name = |key: &str| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        // Dots alone are no name: names become those of files.
        key.chars().all(is_part) && key.chars().any(|c| c != '.')
    };
    match map.iter().find(|entry| !is_name(&entry.key)) {
        Some(entry) => Err(not_allowed(&entry.at, path, &entry.key)),
        None => Ok(()),
    }
}

fn check_object(map: &Map, keys: &[(&'static str, Shape)], path: &KeyPath<'_>) -> Result<()> {
    for entry in map {
        match keys.iter().find(|(key, _)| *key == entry.key) {
            Some((key, shape)) => check(&entry.node, shape, &path.key(key))?,
            None if entry.key.starts_with("x-") => {}
            None => return Err(not_allowed(&entry.at, path, &entry.key)),
        }
    }
    Ok(())
}

fn not_allowed(at: &crate::error::At, path: &KeyPath<'_>, key: &str) -> Error {
    Error::file(
        at,
        path,
        format!("additional properties '{key}' not allowed"),
    )
}

fn accepts(shape: &Shape, node: &Node) -> bool {
    match (shape, &node.value) {
        (Shape::OneOf(shapes), _) => shapes.iter().any(|shape| accepts(shape, node)),
        (Shape::Any, _)
        | (_, Value::Null)
        | (Shape::Text | Shape::Number | Shape::Flag | Shape::Scalar, Value::Text(_))
        | (Shape::Number | Shape::Scalar, Value::Int(_) | Value::Float(_))
        | (Shape::Flag | Shape::Scalar, Value::Bool(_))
        | (Shape::List(_), Value::List(_))
        | (Shape::Map(_) | Shape::Named(_) | Shape::Object(_), Value::Map(_)) => true,
        _ => false,
    }
}

fn wrong_kind(node: &Node, shape: &Shape, path: &KeyPath<'_>) -> Error {
    let message = format!("must be {}, not {}", name(shape), node.kind());
    Error::file(&node.at, path, message)
}

fn name(shape: &Shape) -> String {
    match shape {
        Shape::Any => "anything".to_owned(),
        Shape::Text => "a string".to_owned(),
        Shape::Number => "a number".to_owned(),
        Shape::Flag => "a boolean".to_owned(),
        Shape::Scalar => "a string, number or boolean".to_owned(),
        Shape::List(_) => "a list".to_owned(),
        Shape::Map(_) | Shape::Named(_) | Shape::Object(_) => "a mapping".to_owned(),
        Shape::OneOf(shapes) => {
            let names: Vec<String> = shapes.iter().map(name).collect();
            names.join(" or ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::parse_one;

    fn error(text: &str) -> String {
        validate(&parse_one(text)).unwrap_err().to_string()
    }

    #[test]
    fn unknown_keys_are_named_with_their_line() {
        for (text, expect) in [
            (
                "services:\n  api:\n    image: a\n    colour: red\n",
                "test.yaml:4: services.api: additional properties 'colour' not allowed",
            ),
            (
                "services:\n  api:\n    build:\n      contex: .\n",
                "test.yaml:4: services.api.build: additional properties 'contex' not allowed",
            ),
            (
                "service: {}\n",
                "test.yaml:1: additional properties 'service' not allowed",
            ),
            (
                "services:\n  '..': {}\n",
                "test.yaml:2: services: additional properties '..' not allowed",
            ),
            (
                "services:\n  'a b': {}\n",
                "test.yaml:2: services: additional properties 'a b' not allowed",
            ),
        ] {
            assert_eq!(error(text), expect);
        }
    }

    #[test]
    fn wrong_kinds_are_named() {
        for (text, expect) in [
            (
                "services: [a]\n",
                "test.yaml:1: services: must be a mapping, not a list",
            ),
            (
                "services:\n  api:\n    image: 5\n",
                "test.yaml:3: services.api.image: must be a string, not a number",
            ),
            (
                "services:\n  api:\n    ports:\n      - [a]\n",
                "test.yaml:4: services.api.ports.[0]: must be a number or a string or a mapping, not a list",
            ),
            (
                "services:\n  api:\n    depends_on: x\n",
                "test.yaml:3: services.api.depends_on: must be a list or a mapping, not a string",
            ),
            ("- a\n", "test.yaml:1: the file must be a mapping"),
        ] {
            assert_eq!(error(text), expect);
        }
    }

    #[test]
    fn extensions_and_empty_values_pass() {
        let file = "x-a: [1]\nservices:\n  a:\n    image: i\n    x-b: {c: d}\n    ports:\n";
        validate(&parse_one(file)).unwrap();
    }
}
