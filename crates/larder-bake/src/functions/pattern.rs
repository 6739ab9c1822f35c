//! Regular expressions. Both Go's and Rust's are RE2's; they differ in rare escapes only.

use std::collections::BTreeMap;

use regex::{Captures, Regex};

use super::{Done, exactly};
use crate::error::Error;
use crate::value::Value;

fn compile(pattern: &Value) -> Result<Regex, Error> {
    let pattern = pattern.to_text()?;
    Regex::new(&pattern)
        .map_err(|_| Error::definition(format!("`{pattern}` is no valid regular expression")))
}

/// What a match is: its text, or its unnamed groups as a list, or its named groups as an object.
fn matched(regex: &Regex, captures: &Captures<'_>) -> Done {
    let text = |group: Option<regex::Match<'_>>| {
        group.map_or(Value::Null, |group| Value::text(group.as_str()))
    };
    let named: Vec<&str> = regex.capture_names().flatten().collect();
    match (regex.captures_len() - 1, named.len()) {
        (0, _) => Ok(text(captures.get(0))),
        (_, 0) => Ok(Value::List(captures.iter().skip(1).map(text).collect())),
        (groups, count) if groups == count => Ok(Value::Object(
            named
                .into_iter()
                .map(|name| (name.to_owned(), text(captures.name(name))))
                .collect::<BTreeMap<_, _>>(),
        )),
        _ => Err(Error::definition(
            "named and unnamed groups cannot be mixed",
        )),
    }
}

/// `regex(pattern, text)`
pub(super) fn regex(args: &[Value]) -> Done {
    let [pattern, text] = exactly(args)?;
    let regex = compile(pattern)?;
    let text = text.to_text()?;
    match regex.captures(&text) {
        Some(captures) => matched(&regex, &captures),
        None => Err(Error::definition(
            "the pattern did not match any part of the text",
        )),
    }
}

pub(super) fn regex_all(args: &[Value]) -> Done {
    let [pattern, text] = exactly(args)?;
    let regex = compile(pattern)?;
    let text = text.to_text()?;
    let all = regex
        .captures_iter(&text)
        .map(|captures| matched(&regex, &captures));
    all.collect::<Result<_, _>>().map(Value::List)
}

/// `regex_replace(text, pattern, replacement)`
pub(super) fn regex_replace(args: &[Value]) -> Done {
    /// The replacement stands in for each match.
    const MAX_BYTES: usize = 64 << 20;
    let [text, pattern, replacement] = exactly(args)?;
    let regex = compile(pattern)?;
    let (text, replacement) = (text.to_text()?, replacement.to_text()?);
    // Each `$0` of the replacement may be as long as the text.
    let longest = replacement.len() + replacement.matches('$').count() * text.len();
    if regex.find_iter(&text).count().saturating_mul(longest) > MAX_BYTES {
        return Err(Error::definition("the result is too long"));
    }
    Ok(Value::String(
        regex.replace_all(&text, replacement).into_owned(),
    ))
}
