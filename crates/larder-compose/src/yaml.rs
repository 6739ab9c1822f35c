//! From YAML text to nodes: anchors, merge keys and tags resolved, within limits.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use crate::error::{At, Error, Result};
use crate::node::{Directive, Entry, Map, Node, Value};

/// The largest file that is read.
pub(crate) const MAX_FILE_BYTES: u64 = 16 << 20;
/// The most nodes a file may have when its aliases are resolved; what keeps a few lines of
/// aliases of aliases from filling the memory.
const MAX_NODES: usize = 100_000;
/// The deepest nesting; what keeps trees from overflowing the stack.
const MAX_DEPTH: usize = 64;

/// Parses all documents of a file.
///
/// # Errors
/// When it is no YAML, a key is there twice, or a limit is passed.
pub(crate) fn parse(text: &str, file: &Arc<str>) -> Result<Vec<Node>> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        file,
        anchors: HashMap::new(),
        node_count: 0,
    };
    let mut documents = Vec::new();
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Ok(documents),
            (Event::DocumentStart(_), _) => {
                let first = reader.next()?;
                documents.push(reader.node(first, 0)?);
            }
            _ => {}
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    file: &'a Arc<str>,
    /// What anchors name, with how many nodes that is.
    anchors: HashMap<usize, (Node, usize)>,
    node_count: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span)> {
        match self.parser.next() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let at = At::new(self.file, line(error.marker().line()));
                Err(Error::file(
                    &at,
                    "",
                    format!("no valid YAML: {}", error.info()),
                ))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, (event, span): (Event<'a>, Span), depth: usize) -> Result<Node> {
        let at = At::new(self.file, line(span.start.line()));
        if depth > MAX_DEPTH {
            let message = format!("nested deeper than {MAX_DEPTH} levels");
            return Err(Error::file(&at, "", message));
        }
        let before = self.node_count;
        self.count(1, &at)?;
        let (mut node, anchor, tag) = match event {
            Event::Alias(anchor) => return self.alias(anchor, &at),
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = style != ScalarStyle::Plain || is_string(tag.as_deref());
                let value = if is_text {
                    Value::Text(text.into_owned())
                } else {
                    plain_scalar(&text)
                };
                (Node::new(value, at), anchor, tag)
            }
            Event::SequenceStart(anchor, tag) => {
                let items = self.items(depth)?;
                (Node::new(Value::List(items), at), anchor, tag)
            }
            Event::MappingStart(anchor, tag) => {
                let map = self.map(depth)?;
                (Node::new(Value::Map(map), at), anchor, tag)
            }
            _ => return Err(Error::file(&at, "", "no valid YAML: a value is missing")),
        };
        node.directive = directive(tag.as_deref());
        if anchor != 0 {
            let size = self.node_count - before;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    fn items(&mut self, depth: usize) -> Result<Vec<Node>> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                first => items.push(self.node(first, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Map> {
        let mut map = Map::default();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let is_merge =
                matches!(&event, Event::Scalar(key, ScalarStyle::Plain, _, _) if key == "<<");
            let at = At::new(self.file, line(span.start.line()));
            let key = self.node((event, span), depth + 1)?;
            let first = self.next()?;
            let node = self.node(first, depth + 1)?;
            if is_merge {
                merged.push(node);
                continue;
            }
            let Some(key) = key.scalar() else {
                return Err(Error::file(&at, "", "a key must be a string"));
            };
            if let Some(other) = map.entry(&key) {
                let message = format!(
                    "mapping key `{key}` already defined at line {}",
                    other.at.line
                );
                return Err(Error::file(&at, "", message));
            }
            map.push(Entry { key, at, node });
        }
        for node in merged {
            Self::merge_key(&mut map, node)?;
        }
        Ok(map)
    }

    /// Adds what `<<` names to a mapping that does not say otherwise.
    fn merge_key(map: &mut Map, node: Node) -> Result<()> {
        let sources = match node.value {
            Value::Map(_) => vec![node],
            Value::List(items) => items,
            _ => {
                return Err(Error::file(
                    &node.at,
                    "<<",
                    "must be a mapping or a list of mappings",
                ));
            }
        };
        for source in sources {
            let Value::Map(entries) = source.value else {
                return Err(Error::file(&source.at, "<<", "must be a mapping"));
            };
            for entry in entries {
                if map.get(&entry.key).is_none() {
                    map.push(entry);
                }
            }
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, at: &At) -> Result<Node> {
        let Some((node, size)) = self.anchors.get(&anchor) else {
            return Err(Error::file(at, "", "an anchor contains an alias of itself"));
        };
        let (node, size) = (node.clone(), *size);
        self.count(size, at)?;
        Ok(node)
    }

    fn count(&mut self, nodes: usize, at: &At) -> Result<()> {
        self.node_count += nodes;
        if self.node_count > MAX_NODES {
            let message = format!("more than {MAX_NODES} values, aliases included");
            return Err(Error::file(at, "", message));
        }
        Ok(())
    }
}

fn line(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}

fn is_string(tag: Option<&Tag>) -> bool {
    tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str")
}

fn directive(tag: Option<&Tag>) -> Directive {
    match tag {
        Some(tag) if tag.handle == "!" && tag.suffix == "reset" => Directive::Reset,
        Some(tag) if tag.handle == "!" && tag.suffix == "override" => Directive::Override,
        _ => Directive::Merge,
    }
}

/// Returns what a plain scalar means to Go's YAML library, which compose uses: the core schema,
/// octal numbers with a leading zero, and digits grouped by underscores.
pub(crate) fn plain_scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    let is_numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    if !is_numeric {
        return Value::Text(text.to_owned());
    }
    integer(text)
        .map(Value::Int)
        .or_else(|| float(text).map(Value::Float))
        .unwrap_or_else(|| Value::Text(text.to_owned()))
}

fn integer(text: &str) -> Option<i64> {
    let digits = text.replace('_', "");
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", digits.strip_prefix('+').unwrap_or(&digits)),
    };
    let (radix, digits) = match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0o" | "0O") => (8, &digits[2..]),
        Some("0b" | "0B") => (2, &digits[2..]),
        _ if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
}

fn float(text: &str) -> Option<f64> {
    let is_float = text
        .chars()
        .all(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E'));
    if !is_float || !text.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Returns the only document of a text, for a value that stands for itself.
#[cfg(test)]
pub(crate) fn parse_one(text: &str) -> Node {
    let mut documents = parse(text, &Arc::from("test.yaml")).unwrap();
    assert_eq!(documents.len(), 1);
    documents.remove(0)
}
