//! `$NAME` and `${NAME…}` in values.

use std::fmt;

/// Defaults in defaults may nest this deep.
const MAX_DEPTH: usize = 32;

/// Says what variables are set to.
pub(crate) trait Lookup {
    /// Returns a variable's value; `None` if it is not set.
    fn get(&self, name: &str) -> Option<String>;

    /// Takes note that a variable without a default is not set.
    fn unset(&mut self, name: &str);
}

/// Why a text can't be interpolated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TemplateError {
    /// What stands in braces is no variable.
    Invalid,
    /// A variable must be set and is not.
    Required {
        /// Its name.
        name: String,
        /// What the file says about it.
        message: String,
    },
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid => f.write_str(
                "invalid interpolation format; you may need to escape any `$` with another `$`",
            ),
            Self::Required { name, message } if message.is_empty() => {
                write!(f, "required variable `{name}` is missing a value")
            }
            Self::Required { name, message } => {
                write!(
                    f,
                    "required variable `{name}` is missing a value: {message}"
                )
            }
        }
    }
}

/// Returns `text` with its variables replaced.
pub(crate) fn substitute(text: &str, lookup: &mut dyn Lookup) -> Result<String, TemplateError> {
    substitute_nested(text, lookup, 0)
}

fn substitute_nested(
    text: &str,
    lookup: &mut dyn Lookup,
    depth: usize,
) -> Result<String, TemplateError> {
    if depth > MAX_DEPTH {
        return Err(TemplateError::Invalid);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(index) = rest.find('$') {
        out.push_str(&rest[..index]);
        let after = &rest[index + 1..];
        if let Some(escaped) = after.strip_prefix('$') {
            out.push('$');
            rest = escaped;
        } else if let Some(inner) = after.strip_prefix('{') {
            let end = closing_brace(inner).ok_or(TemplateError::Invalid)?;
            out.push_str(&expression(&inner[..end], lookup, depth)?);
            rest = &inner[end + 1..];
        } else if let Some(name) = name(after) {
            out.push_str(&plain(name, lookup));
            rest = &after[name.len()..];
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Returns the value of what stands in braces.
fn expression(inner: &str, lookup: &mut dyn Lookup, depth: usize) -> Result<String, TemplateError> {
    let name = name(inner).ok_or(TemplateError::Invalid)?;
    let operation = &inner[name.len()..];
    if operation.is_empty() {
        return Ok(plain(name, lookup));
    }
    let (counts_empty, operation) = match operation.strip_prefix(':') {
        Some(operation) => (true, operation),
        None => (false, operation),
    };
    let mut characters = operation.chars();
    let operator = characters.next();
    let word = characters.as_str();
    let value = lookup
        .get(name)
        .filter(|value| !counts_empty || !value.is_empty());
    match (operator, value) {
        (Some('-' | '?'), Some(value)) => Ok(value),
        (Some('-'), None) | (Some('+'), Some(_)) => substitute_nested(word, lookup, depth + 1),
        (Some('+'), None) => Ok(String::new()),
        (Some('?'), None) => Err(TemplateError::Required {
            name: name.to_owned(),
            message: substitute_nested(word, lookup, depth + 1)?,
        }),
        _ => Err(TemplateError::Invalid),
    }
}

fn plain(name: &str, lookup: &mut dyn Lookup) -> String {
    lookup.get(name).unwrap_or_else(|| {
        lookup.unset(name);
        String::new()
    })
}

/// Returns the name that `text` begins with.
fn name(text: &str) -> Option<&str> {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .unwrap_or(text.len());
    let name = &text[..end];
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    is_name.then_some(name)
}

/// Returns where the brace that was opened before `text` is closed.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 1_usize;
    let mut previous = '\0';
    for (index, c) in text.char_indices() {
        match c {
            '{' if previous == '$' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(index);
        }
        previous = c;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Vec<String>);

    impl Lookup for Fixed {
        fn get(&self, name: &str) -> Option<String> {
            match name {
                "SET" => Some("value".to_owned()),
                "EMPTY" => Some(String::new()),
                "_x1" => Some("x".to_owned()),
                _ => None,
            }
        }

        fn unset(&mut self, name: &str) {
            self.0.push(name.to_owned());
        }
    }

    fn check(text: &str, expect: Result<&str, &str>) {
        let result = substitute(text, &mut Fixed(Vec::new())).map_err(|error| error.to_string());
        match (&result, expect) {
            (Ok(value), Ok(expect)) => assert_eq!(value, expect, "{text}"),
            (Err(error), Err(expect)) => assert!(error.contains(expect), "{text}: {error}"),
            _ => panic!("{text}: {result:?}, not {expect:?}"),
        }
    }

    #[test]
    fn all_operators() {
        for (text, expect) in [
            ("plain", Ok("plain")),
            ("$SET", Ok("value")),
            ("a${SET}b", Ok("avalueb")),
            ("$_x1-", Ok("x-")),
            ("$$SET $${SET}", Ok("$SET ${SET}")),
            ("${UNSET:-d}", Ok("d")),
            ("${EMPTY:-d}", Ok("d")),
            ("${EMPTY-d}", Ok("")),
            ("${UNSET-d}", Ok("d")),
            ("${SET:-d}", Ok("value")),
            ("${SET:+r}", Ok("r")),
            ("${EMPTY:+r}", Ok("")),
            ("${EMPTY+r}", Ok("r")),
            ("${UNSET+r}", Ok("")),
            ("${SET?no}", Ok("value")),
            ("${EMPTY?no}", Ok("")),
            (
                "${EMPTY:?no}",
                Err("required variable `EMPTY` is missing a value: no"),
            ),
            (
                "${UNSET?}",
                Err("required variable `UNSET` is missing a value"),
            ),
            ("${UNSET:?set $SET}", Err("missing a value: set value")),
            ("${UNSET:-${EMPTY:-${SET}}}", Ok("value")),
            ("${UNSET:-a}${SET}", Ok("avalue")),
            ("${UNSET:-{}", Ok("{")),
            ("${UNSET-http://x:80/?a=b}", Ok("http://x:80/?a=b")),
            ("${SET:-${UNSET:?never asked}}", Ok("value")),
        ] {
            check(text, expect);
        }
    }

    #[test]
    fn a_dollar_that_begins_nothing_stands_for_itself() {
        for text in ["$", "a $ b", "$1"] {
            check(text, Ok(text));
        }
    }

    #[test]
    fn braces_that_hold_no_variable_are_an_error() {
        for text in [
            "${", "${}", "${1}", "${SET", "${SET!x}", "${SET:}", "${SET x}",
        ] {
            check(text, Err("invalid interpolation format"));
        }
        check(&"${A:-".repeat(100), Err("invalid"));
        let deep = format!("{}{}", "${A:-".repeat(100), "}".repeat(100));
        check(&deep, Err("invalid"));
    }

    #[test]
    fn what_is_not_set_is_told_once_a_use() {
        let mut lookup = Fixed(Vec::new());
        let value = substitute("$A ${B} ${C:-c} ${D+d}", &mut lookup).unwrap();
        assert_eq!(value, "  c ");
        assert_eq!(lookup.0, ["A", "B"]);
    }
}
