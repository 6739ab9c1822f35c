//! How the text behind an instruction is split: flags, words, JSON arrays, name-value pairs.

use crate::instruction::Pairs;

/// White space inside a line. A line feed is none: it only comes with heredocs.
pub(crate) fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Splits at white space, nothing else.
pub(crate) fn split_blank(text: &str) -> Vec<String> {
    text.split(is_blank)
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Reads a JSON array of strings; `None` when `text` is no JSON array.
///
/// # Errors
/// When it is an array with something else in it.
pub(crate) fn json_strings(text: &str) -> Result<Option<Vec<String>>, String> {
    if !text.trim_start().starts_with('[') {
        return Ok(None);
    }
    let Ok(items) = serde_json::from_str::<Vec<serde_json::Value>>(text) else {
        return Ok(None);
    };
    let strings: Option<Vec<String>> = items
        .into_iter()
        .map(|item| match item {
            serde_json::Value::String(text) => Some(text),
            _ => None,
        })
        .collect();
    match strings {
        Some(strings) => Ok(Some(strings)),
        None => {
            Err("when using JSON array syntax, arrays must be comprised of strings only".to_owned())
        }
    }
}

/// Takes the leading `--flag` words off `text`, quotes and escapes resolved; returns them and
/// what remains. A lone `--` ends them.
pub(crate) fn split_flags(text: &str) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let (flag, after) = unquoted_word(rest);
        rest = after;
        if flag == "--" {
            return (flags, rest);
        }
        flags.push(flag);
    }
}

/// Reads one word, quotes and backslashes resolved; returns it and what follows.
fn unquoted_word(text: &str) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => return (word, &text[at..]),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (_, '\\') => word.extend(chars.next().map(|(_, escaped)| escaped)),
            (_, c) => word.push(c),
        }
    }
    (word, "")
}

/// Splits at white space outside quotes. Quotes and escapes stay: they are resolved when
/// variables are expanded.
pub(crate) fn split_quoted(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if matches!(c, '\'' | '"') => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ => {}
        }
        // Nothing is escaped inside single quotes; an escape at the very end is dropped.
        if c == escape && quote != Some('\'') {
            let Some(escaped) = chars.next() else { break };
            word.push(c);
            word.push(escaped);
        } else {
            word.push(c);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Reads `name=value …`, or the legacy `name value`, for ENV and LABEL.
pub(crate) fn name_values(text: &str, keyword: &str, escape: char) -> Result<Pairs, String> {
    let words = split_quoted(text, escape);
    let Some(first) = words.first() else {
        return Err(format!("{keyword} requires at least one argument"));
    };
    if !first.contains('=') {
        let Some((name, value)) = text.split_once(is_blank) else {
            return Err(format!("{keyword} must have two arguments"));
        };
        let value = value.trim_start_matches(is_blank);
        return Ok(Pairs {
            pairs: vec![(name.to_owned(), value.to_owned())],
            is_legacy: true,
        });
    }
    let pairs: Result<_, String> = words
        .iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err(format!("{keyword} names can not be blank")),
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(format!(
                "Syntax error - can't find = in {}. Must be of the form: name=value",
                crate::golang::quote(word)
            )),
        })
        .collect();
    Ok(Pairs {
        pairs: pairs?,
        is_legacy: false,
    })
}

/// Reads one record of comma-separated values: a field that begins with `"` ends at the next
/// single `"`; `""` stands for `"` in it.
pub(crate) fn comma_separated(text: &str) -> Result<Vec<String>, String> {
    let fail = |reason: &str| Err(format!("failed to parse csv mounts: {reason}"));
    if text.is_empty() {
        return fail("EOF");
    }
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let mut field = String::new();
        if let Some(mut quoted) = rest.strip_prefix('"') {
            loop {
                let Some((part, after)) = quoted.split_once('"') else {
                    return fail("extraneous or missing \" in quoted-field");
                };
                field.push_str(part);
                let Some(more) = after.strip_prefix('"') else {
                    rest = after;
                    break;
                };
                field.push('"');
                quoted = more;
            }
            if !rest.is_empty() && !rest.starts_with(',') {
                return fail("extraneous or missing \" in quoted-field");
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            field.push_str(&rest[..end]);
            if field.contains('"') {
                return fail("bare \" in non-quoted-field");
            }
            rest = &rest[end..];
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => return Ok(fields),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_end_at_the_first_other_word() {
        for (text, flags, rest) in [
            ("--a --b=c d --e", &["--a", "--b=c"][..], "d --e"),
            ("--a='x y' z", &["--a=x y"], "z"),
            ("--a=x\\ y z", &["--a=x y"], "z"),
            ("--a -- --b", &["--a"], " --b"),
            ("- --a", &[], "- --a"),
            ("--a", &["--a"], ""),
        ] {
            let (found, remaining) = split_flags(text);
            assert_eq!(
                (&found[..], remaining),
                (
                    &flags.iter().map(|&f| f.to_owned()).collect::<Vec<_>>()[..],
                    rest
                ),
                "{text}"
            );
        }
    }

    #[test]
    fn words_keep_their_quotes() {
        assert_eq!(
            split_quoted(r#"a="b c" d\ e 'f\' g"h i""#, '\\'),
            [r#"a="b c""#, r"d\ e", r"'f\'", r#"g"h i""#]
        );
        assert_eq!(split_quoted("a \\", '\\'), ["a"]);
        assert_eq!(split_quoted("", '\\'), Vec::<String>::new());
    }

    #[test]
    fn pairs_come_in_two_forms() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let read = |text| {
            let read = name_values(text, "ENV", '\\')?;
            assert_eq!(read.is_legacy, !text.contains("a="), "{text}");
            Ok::<_, String>(read.pairs)
        };
        assert_eq!(
            read("a=b c=\"d e\""),
            Ok(vec![pair("a", "b"), pair("c", "\"d e\"")])
        );
        assert_eq!(read("a  b c=d"), Ok(vec![pair("a", "b c=d")]));
        for (text, message) in [
            ("a", "ENV must have two arguments"),
            ("", "ENV requires at least one argument"),
            ("=b", "ENV names can not be blank"),
            (
                "a=b c",
                "Syntax error - can't find = in \"c\". Must be of the form: name=value",
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), message);
        }
    }

    #[test]
    fn json_arrays_hold_strings() {
        assert_eq!(
            json_strings("[\"a\", \"b\"]"),
            Ok(Some(vec!["a".into(), "b".into()]))
        );
        assert_eq!(json_strings("[a]"), Ok(None));
        assert_eq!(json_strings("[\"a\"] x"), Ok(None));
        assert_eq!(json_strings("x"), Ok(None));
        assert!(json_strings("[1]").is_err());
        assert_eq!(json_strings(&"[".repeat(100_000)), Ok(None));
    }

    #[test]
    fn comma_separated_values_may_be_quoted() {
        assert_eq!(
            comma_separated("a,\"b,\"\"c\",").unwrap(),
            ["a", "b,\"c", ""]
        );
        for bad in ["", "a\"b", "\"a", "\"a\"b"] {
            assert!(comma_separated(bad).is_err(), "{bad}");
        }
    }
}
