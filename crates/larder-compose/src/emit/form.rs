//! One way to write each value: keys in order, numbers as numbers, sizes in bytes.

use std::time::Duration;

use crate::error::{At, Error, Result};
use crate::node::{Entry, KeyPath, Map, Node, Value};
use crate::values;

/// What a tree is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// For people, and for compose to read again.
    Yaml,
    /// For programs: without `x-…`, with [`Form::Words`] and [`Form::Part`] that are not given.
    Json,
}

/// How a value is written. What says nothing (an empty text or list, `false`, 0) is left out of
/// the [`Object`](Form::Object) that it is in.
pub(super) enum Form {
    /// As it is, with sorted keys.
    Any,
    /// As text.
    Text,
    /// A list of texts.
    Texts,
    /// A list of texts that is also written when empty; `null` in JSON when not given.
    Words,
    /// A number.
    Number,
    /// A number that is also written when 0.
    Count,
    /// A truth value.
    Flag,
    /// A truth value that is also written when false.
    Optional,
    /// A number of bytes, as text.
    Bytes,
    /// A time, in Go's form.
    Time,
    /// The mode of a file: octal digits, as text.
    Mode,
    /// A number, or its `soft` and `hard` ones.
    Limit,
    /// A list.
    List(&'static Form),
    /// A mapping with any keys, which are sorted.
    Map(&'static Form),
    /// An [`Object`](Form::Object) that is left out when empty, but for JSON.
    Part(&'static [(&'static str, Form)]),
    /// A mapping with these keys in this order, then `x-…`.
    Object(&'static [(&'static str, Form)]),
}

/// Brings `node` into its form.
///
/// # Errors
/// With file, line and key of what is no number, size or time.
pub(super) fn apply(
    node: &mut Node,
    form: &Form,
    target: Target,
    path: &KeyPath<'_>,
) -> Result<()> {
    if node.is_null() {
        if matches!(form, Form::Text) {
            node.value = Value::Text(String::new());
        }
        return Ok(());
    }
    match form {
        Form::Any => sort_keys(node),
        Form::Text => scalar(node, |text| Some(Value::Text(text.to_owned())), path, "")?,
        Form::Number | Form::Count => scalar(node, number, path, "is no number")?,
        Form::Flag | Form::Optional => {
            let flag = |text: &str| values::flag(text).map(Value::Bool);
            scalar(node, flag, path, "is no boolean")?;
        }
        Form::Bytes => scalar(node, bytes, path, "is no size, as in `64m`")?,
        Form::Time => scalar(node, time, path, "is no time, as in `1m30s`")?,
        Form::Mode => mode(node),
        Form::Limit => apply(node, limit(node), target, path)?,
        Form::Texts | Form::Words => apply(node, &Form::List(&Form::Text), target, path)?,
        Form::List(form) => {
            if !matches!(node.value, Value::List(_)) {
                let item = Node::new(node.value.clone(), node.at.clone());
                node.value = Value::List(vec![item]);
            }
            if let Value::List(items) = &mut node.value {
                for (index, item) in items.iter_mut().enumerate() {
                    apply(item, form, target, &path.key(&format!("[{index}]")))?;
                }
            }
        }
        Form::Map(form) => {
            if let Value::Map(map) = &mut node.value {
                for entry in map.iter_mut() {
                    apply(&mut entry.node, form, target, &path.key(&entry.key))?;
                }
                sort(map);
            }
        }
        Form::Object(keys) | Form::Part(keys) => {
            if let Value::Map(map) = &mut node.value {
                object(map, keys, target, path)?;
            }
        }
    }
    Ok(())
}

fn object(
    map: &mut Map,
    keys: &[(&'static str, Form)],
    target: Target,
    path: &KeyPath<'_>,
) -> Result<()> {
    let mut rest = std::mem::take(map);
    for (key, form) in keys {
        let is_always = target == Target::Json && matches!(form, Form::Words | Form::Part(_));
        let mut node = match rest.remove(key).filter(|node| !node.is_null()) {
            Some(node) => node,
            None if is_always => nothing(form),
            None => continue,
        };
        apply(&mut node, form, target, &path.key(key))?;
        if is_always || says_something(&node, form) {
            map.set(key, node);
        }
    }
    rest.retain(|entry| target == Target::Yaml && entry.key.starts_with("x-"));
    sort(&mut rest);
    for mut entry in rest {
        sort_keys(&mut entry.node);
        map.push(entry);
    }
    Ok(())
}

fn nothing(form: &Form) -> Node {
    let value = match form {
        Form::Part(_) => Value::Map(Map::default()),
        _ => Value::Null,
    };
    Node::new(value, At::new(&"".into(), 0))
}

fn says_something(node: &Node, form: &Form) -> bool {
    match (&node.value, form) {
        (Value::Null, _) | (Value::Int(0), Form::Number) | (Value::Bool(false), Form::Flag) => {
            false
        }
        (Value::Text(text), Form::Bytes) => text != "0",
        (Value::Text(text), _) => !text.is_empty(),
        (Value::List(items), form) => !items.is_empty() || matches!(form, Form::Words),
        (Value::Map(map), Form::Map(_) | Form::Part(_)) => !map.is_empty(),
        _ => true,
    }
}

fn scalar(
    node: &mut Node,
    read: impl Fn(&str) -> Option<Value>,
    path: &KeyPath<'_>,
    problem: &str,
) -> Result<()> {
    let Some(text) = node.scalar() else {
        return Ok(());
    };
    node.value =
        read(&text).ok_or_else(|| Error::file(&node.at, path, format!("`{text}` {problem}")))?;
    Ok(())
}

fn number(text: &str) -> Option<Value> {
    if let Ok(number) = text.parse() {
        return Some(Value::Int(number));
    }
    let number: f64 = text
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite())?;
    // Go writes a whole number without its point.
    let is_whole = number.fract() == 0.0 && number.abs() < 1e15;
    Some(if is_whole {
        Value::Int(number as i64)
    } else {
        Value::Float(number)
    })
}

fn bytes(text: &str) -> Option<Value> {
    // No limit is -1.
    let is_negative = text.parse::<i64>().is_ok_and(|number| number < 0);
    let text = if is_negative {
        text.to_owned()
    } else {
        values::size(text)?.to_string()
    };
    Some(Value::Text(text))
}

fn time(text: &str) -> Option<Value> {
    values::duration(text).map(|duration| Value::Text(go_duration(duration)))
}

/// Returns a time as Go writes it: `1h0m0s`, `1.5s`, `100ms`.
fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let (unit, name): (u128, _) = match nanos {
        0 => return "0s".to_owned(),
        1..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let minutes = nanos / 60_000_000_000;
    let rest = if minutes == 0 {
        nanos
    } else {
        nanos % 60_000_000_000
    };
    let digits = usize::try_from(unit.ilog10()).unwrap_or_default();
    let fraction = format!("{:0digits$}", rest % unit);
    let fraction = match fraction.trim_end_matches('0') {
        "" => String::new(),
        digits => format!(".{digits}"),
    };
    let seconds = format!("{}{fraction}{name}", rest / unit);
    match (minutes / 60, minutes % 60) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

fn mode(node: &mut Node) {
    // What YAML has read as a number was octal; in quotes it is still the digits.
    let digits = match &node.value {
        Value::Int(bits) => format!("0{bits:o}"),
        Value::Text(text) => format!("0{}", text.trim_start_matches('0')),
        _ => return,
    };
    node.value = Value::Text(digits);
}

fn limit(node: &Node) -> &'static Form {
    const PAIR: Form = Form::Object(&[("soft", Form::Count), ("hard", Form::Count)]);
    match node.value {
        Value::Map(_) => &PAIR,
        _ => &Form::Count,
    }
}

/// Sorts the keys of a mapping.
pub(super) fn sort(map: &mut Map) {
    let mut entries: Vec<Entry> = std::mem::take(map).into_iter().collect();
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    for entry in entries {
        map.push(entry);
    }
}

/// Sorts the keys of all mappings.
pub(super) fn sort_keys(node: &mut Node) {
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(sort_keys),
        Value::Map(map) => {
            sort(map);
            for entry in map.iter_mut() {
                sort_keys(&mut entry.node);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_does() {
        for (text, expect) in [
            ("0", "0s"),
            ("90s", "1m30s"),
            ("25h", "25h0m0s"),
            ("1h1m1s1ms", "1h1m1.001s"),
            ("100ms", "100ms"),
            ("1500us", "1.5ms"),
            ("1.5s", "1.5s"),
            ("2m", "2m0s"),
        ] {
            assert_eq!(time(text), Some(Value::Text(expect.to_owned())), "{text}");
        }
        assert_eq!(time("x"), None);
    }

    #[test]
    fn numbers_and_sizes_come_from_text() {
        assert_eq!(number("1.0"), Some(Value::Int(1)));
        assert_eq!(number("0.5"), Some(Value::Float(0.5)));
        assert_eq!(number("abc"), None);
        assert_eq!(bytes("1k"), Some(Value::Text("1024".to_owned())));
        assert_eq!(bytes("-1"), Some(Value::Text("-1".to_owned())));
        assert_eq!(bytes("1x"), None);
    }
}
