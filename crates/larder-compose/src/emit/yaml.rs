//! Nodes to YAML, in the style of Go's library.

use std::fmt::Write as _;

use crate::node::{Map, Node, Value};
use crate::yaml::plain_scalar;

/// Spaces of one level.
const INDENT: usize = 2;
/// A longer key, in bytes, is marked as one. Readers don't look further than 1024 for the colon.
const MAX_SIMPLE_KEY: usize = 128;

/// Returns a tree as a YAML document.
pub(crate) fn to_yaml(node: &Node) -> String {
    let mut out = String::new();
    match &node.value {
        Value::Map(map) if !map.is_empty() => write_map(map, 0, &mut out),
        Value::List(items) if !items.is_empty() => write_list(items, 0, &mut out),
        _ => write_scalar(node, 0, &mut out),
    }
    out
}

fn write_map(map: &Map, indent: usize, out: &mut String) {
    for (index, entry) in map.iter().enumerate() {
        // The first key stands behind the dash of a list's item.
        if index > 0 || !out.ends_with("- ") {
            pad(indent, out);
        }
        let key = entry.key.as_str();
        let is_long = key.len() > MAX_SIMPLE_KEY;
        if is_long {
            out.push_str("? ");
        }
        // Bare, this key would merge what it names.
        match key {
            "<<" => out.push_str("\"<<\""),
            key => out.push_str(&one_line(key)),
        }
        if is_long {
            out.push('\n');
            pad(indent, out);
        }
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
            out.push(' ');
            write_scalar(node, indent + INDENT, out);
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
            _ => write_scalar(item, indent + INDENT, out),
        }
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// Writes a scalar with its line end; further lines of it stand `indent` deep.
fn write_scalar(node: &Node, indent: usize, out: &mut String) {
    match &node.value {
        Value::Text(text) if is_block(text) => write_block(text, indent.max(INDENT), out),
        _ => {
            out.push_str(&scalar(node));
            out.push('\n');
        }
    }
}

fn scalar(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Text(text) => one_line(text),
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

/// Whether a text can be a block, which shows its lines as they are.
fn is_block(text: &str) -> bool {
    text.contains('\n')
        && !text.ends_with(' ')
        && !text.contains(" \n")
        && text
            .chars()
            .all(|c| c == '\n' || c == '\t' || is_printable(c))
}

fn write_block(text: &str, indent: usize, out: &mut String) {
    out.push('|');
    if text.starts_with([' ', '\n']) {
        let _ = write!(out, "{INDENT}");
    }
    let body = text.strip_suffix('\n');
    match body {
        None => out.push('-'),
        Some(body) if body.is_empty() || body.ends_with('\n') => out.push('+'),
        Some(_) => {}
    }
    out.push('\n');
    for line in body.unwrap_or(text).split('\n') {
        if !line.is_empty() {
            pad(indent, out);
            out.push_str(line);
        }
        out.push('\n');
    }
}

/// Returns a text on one line: bare where that means the same, else in single quotes; in double
/// ones where only these can hold it, or where it would be no text without them.
fn one_line(text: &str) -> String {
    if text.contains('\n') || means_otherwise(text) || !is_quotable(text) {
        return double_quoted(text);
    }
    if is_plain(text) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "''"))
}

/// Whether a bare text is read as something else than a text.
fn means_otherwise(text: &str) -> bool {
    const OLD_BOOLEANS: [&str; 6] = ["y", "n", "yes", "no", "on", "off"];
    !matches!(plain_scalar(text), Value::Text(_))
        || OLD_BOOLEANS.contains(&text.to_ascii_lowercase().as_str())
        || is_date(text)
        || is_base_60(text)
}

/// Whether a text can stand in single quotes.
fn is_quotable(text: &str) -> bool {
    text.chars().all(is_printable)
}

/// Whether a text can stand bare.
fn is_plain(text: &str) -> bool {
    const INDICATORS: &str = "#,[]{}&*!|>'\"%@`";
    let mut characters = text.chars();
    let (Some(first), second) = (characters.next(), characters.next()) else {
        return false;
    };
    let is_alone = second.is_none_or(|c| c == ' ');
    let begins_otherwise = INDICATORS.contains(first)
        || (matches!(first, '-' | '?' | ':') && is_alone)
        || [" ", "---", "..."]
            .iter()
            .any(|start| text.starts_with(start));
    !begins_otherwise && !text.ends_with([' ', ':']) && !text.contains(": ") && !text.contains(" #")
}

fn double_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\0' => out.push_str("\\0"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\x0b' => out.push_str("\\v"),
            '\x0c' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            '\x1b' => out.push_str("\\e"),
            '\u{85}' => out.push_str("\\N"),
            '\u{2028}' => out.push_str("\\L"),
            '\u{2029}' => out.push_str("\\P"),
            c if is_printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                // Writing to a string does not fail.
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02X}"),
                    0x100..=0xffff => write!(out, "\\u{code:04X}"),
                    _ => write!(out, "\\U{code:08X}"),
                };
            }
        }
    }
    out.push('"');
    out
}

fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}')
}

/// Whether Go's library takes a text for a date.
fn is_date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let year = parts.next().unwrap_or_default();
    let is_digit = |c: char| c.is_ascii_digit();
    year.len() == 4
        && year.chars().all(is_digit)
        && [parts.next(), parts.next()]
            .iter()
            .all(|part| part.is_some_and(|part| part.starts_with(is_digit)))
}

/// Whether YAML 1.1 takes a text for a number with the base 60, `12:30`.
fn is_base_60(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let mut parts = text.split(':');
    let first = parts.next().unwrap_or_default();
    let is_sixtieth = |part: &str| part.len() <= 2 && part.parse().is_ok_and(|part: u8| part < 60);
    let mut parts: Vec<&str> = parts.collect();
    if let Some(last) = parts.last_mut() {
        *last = last.split('.').next().unwrap_or_default();
    }
    first.starts_with(|c: char| c.is_ascii_digit())
        && first.chars().all(|c| c.is_ascii_digit() || c == '_')
        && !parts.is_empty()
        && parts.into_iter().all(is_sixtieth)
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
            "[a-z0-9:#\\-? ,.'\"\\[{&*!|>%@`=~\n\t]{0,12}".prop_map(Value::Text),
        ];
        let leaf = leaf.prop_map(move |value| Node::new(value, at()));
        leaf.prop_recursive(4, 32, 5, move |inner| {
            let key = prop_oneof![9 => "[ -~]{1,8}", 1 => "[ -~]{120,1200}"];
            let map = prop::collection::vec((key, inner.clone()), 0..5);
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
    fn texts_are_quoted_as_go_does() {
        for (value, expect) in [
            ("plain text", "plain text"),
            ("8000", "\"8000\""),
            ("yes", "\"yes\""),
            ("true", "\"true\""),
            ("", "\"\""),
            ("a: b", "'a: b'"),
            ("-c", "-c"),
            ("- c", "'- c'"),
            ("#x", "'#x'"),
            ("=x", "=x"),
            ("@x", "'@x'"),
            (" lead", "' lead'"),
            ("q'uote", "q'uote"),
            ("12:30", "\"12:30\""),
            ("1000:1000", "1000:1000"),
            ("<<", "<<"),
            ("2020-01-02", "\"2020-01-02\""),
            ("tab\tx", "\"tab\\tx\""),
            ("\u{7}", "\"\\a\""),
            ("two\nlines", "|-\n  two\n  lines"),
            ("two\nlines\n", "|\n  two\n  lines"),
            ("  two\n lines", "|2-\n    two\n   lines"),
            ("\n", "|2+\n"),
            ("trail \nx", "\"trail \\nx\""),
        ] {
            let node = Node::text(value, &At::new(&"x".into(), 0));
            assert_eq!(to_yaml(&node), format!("{expect}\n"));
        }
    }
}
