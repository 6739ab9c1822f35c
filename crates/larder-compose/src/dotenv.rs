//! Env files: `NAME=value` lines, quoted or not.

use std::sync::Arc;

use crate::error::{At, Error, ErrorKind, Result};
use crate::template::{self, Lookup};
use crate::variables::Variables;

/// How the values of an env file are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EnvFormat {
    /// Quotes are taken off, variables are replaced.
    #[default]
    Interpolated,
    /// Values are what stands there.
    Raw,
}

/// Parses an env file. A name without `=` takes its value from `known`; it is left out if there is
/// none. Values may use variables of `known` and of the lines before them; `known` wins.
///
/// # Errors
/// With file and line.
pub(crate) fn parse(
    text: &str,
    file: &Arc<str>,
    format: EnvFormat,
    known: &Variables,
) -> Result<Vec<(String, String)>> {
    let mut scanner = Scanner {
        rest: text.strip_prefix('\u{feff}').unwrap_or(text),
        line: 1,
        file,
        pairs: Vec::new(),
    };
    while scanner.skip_blank() {
        scanner.statement(format, known)?;
    }
    Ok(scanner.pairs)
}

struct Scanner<'a> {
    rest: &'a str,
    line: u32,
    file: &'a Arc<str>,
    pairs: Vec<(String, String)>,
}

/// Looks up what was set outside, then what earlier lines set.
struct Scope<'a> {
    known: &'a Variables,
    pairs: &'a [(String, String)],
}

impl Lookup for Scope<'_> {
    fn get(&self, name: &str) -> Option<String> {
        let earlier = || {
            let pair = self.pairs.iter().rev().find(|(key, _)| key == name)?;
            Some(pair.1.clone())
        };
        self.known.get(name).map(str::to_owned).or_else(earlier)
    }

    // An env file may name what only some shells set.
    fn unset(&mut self, _name: &str) {}
}

impl<'a> Scanner<'a> {
    /// Goes to the next statement; returns whether there is one.
    fn skip_blank(&mut self) -> bool {
        loop {
            let trimmed = self.rest.trim_start();
            self.advance(self.rest.len() - trimmed.len());
            if !trimmed.starts_with('#') {
                return !trimmed.is_empty();
            }
            self.advance(trimmed.find('\n').unwrap_or(trimmed.len()));
        }
    }

    fn advance(&mut self, bytes: usize) {
        let (passed, rest) = self.rest.split_at(bytes);
        self.line += u32::try_from(passed.matches('\n').count()).unwrap_or(0);
        self.rest = rest;
    }

    fn statement(&mut self, format: EnvFormat, known: &Variables) -> Result<()> {
        let line_end = self.rest.find('\n').unwrap_or(self.rest.len());
        let whole = self.rest[..line_end].trim_end();
        let own = match whole.strip_prefix("export") {
            Some(own) if own.starts_with([' ', '\t']) => own.trim_start(),
            _ => whole,
        };
        let skipped = whole.len() - own.len();
        let key_end = own.find(['=', ':']).unwrap_or(own.len());
        let key = own[..key_end].trim_end();
        self.check_key(key)?;
        if key_end == own.len() {
            if let Some(value) = known.get(key) {
                self.pairs.push((key.to_owned(), value.to_owned()));
            }
            self.advance(line_end);
            return Ok(());
        }
        self.advance(skipped + key_end + 1);
        let value = match format {
            EnvFormat::Raw => self.take_line().trim_end_matches('\r').to_owned(),
            EnvFormat::Interpolated => self.value(key, known)?,
        };
        self.pairs.push((key.to_owned(), value));
        Ok(())
    }

    fn check_key(&self, key: &str) -> Result<()> {
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']');
        if key.is_empty() {
            return Err(self.error(key, "a name is missing before `=`"));
        }
        match key.chars().find(|c| !is_name(*c)) {
            Some(c) => Err(self.error("", &format!("unexpected character `{c}` in variable name"))),
            None => Ok(()),
        }
    }

    fn value(&mut self, key: &str, known: &Variables) -> Result<String> {
        let trimmed = self.rest.trim_start_matches([' ', '\t']);
        self.advance(self.rest.len() - trimmed.len());
        let raw = match trimmed.chars().next() {
            Some('\'') => return self.quoted(key, '\'').map(str::to_owned),
            Some('"') => unescape(self.quoted(key, '"')?),
            _ => without_comment(self.take_line()).trim_end().to_owned(),
        };
        let mut scope = Scope {
            known,
            pairs: &self.pairs,
        };
        template::substitute(&raw, &mut scope).map_err(|error| self.error(key, &error.to_string()))
    }

    fn take_line(&mut self) -> &'a str {
        let end = self.rest.find('\n').unwrap_or(self.rest.len());
        let line = &self.rest[..end];
        self.advance(end);
        line
    }

    /// Returns what stands between quotes, which may be several lines, and passes the end of the
    /// last.
    fn quoted(&mut self, key: &str, quote: char) -> Result<&'a str> {
        let inner = &self.rest[1..];
        let mut is_escaped = false;
        let end = inner.char_indices().find(|(_, c)| {
            let ends = *c == quote && !is_escaped;
            is_escaped = *c == '\\' && !is_escaped;
            ends
        });
        let Some((end, _)) = end else {
            return Err(self.error(key, "unterminated quoted value"));
        };
        self.advance(end + 2);
        let after = self.take_line().trim();
        if !after.is_empty() && !after.starts_with('#') {
            return Err(self.error(key, "unexpected text after the closing quote"));
        }
        Ok(&inner[..end])
    }

    fn error(&self, key: &str, message: &str) -> Error {
        Error::file(&At::new(self.file, self.line), key, message)
    }
}

/// Cuts off a comment, which a blank must precede.
fn without_comment(line: &str) -> &str {
    let is_comment =
        |index: usize| index == 0 || line[..index].ends_with(|c: char| c.is_whitespace());
    line.match_indices('#')
        .find(|(index, _)| is_comment(*index))
        .map_or(line, |(index, _)| &line[..index])
}

/// Replaces the escapes of a double-quoted value; `\$` stays a dollar that begins nothing.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match characters.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('$') => out.push_str("$$"),
            Some(other @ ('"' | '\\')) => out.push(other),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

/// Reads an env file.
///
/// # Errors
/// When it can't be read or parsed.
pub(crate) fn read(
    path: &std::path::Path,
    format: EnvFormat,
    known: &Variables,
) -> Result<Vec<(String, String)>> {
    let name: Arc<str> = Arc::from(path.to_string_lossy());
    let text = crate::load::read_text(path).map_err(|error| {
        Error::new(
            ErrorKind::NotFound,
            format!("cannot read env file `{name}`"),
        )
        .caused_by(error)
    })?;
    parse(&text, &name, format, known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_with(text: &str, known: &[(&str, &str)]) -> Result<Vec<(String, String)>> {
        let known = Variables::of(known.iter().copied());
        parse(text, &Arc::from(".env"), EnvFormat::Interpolated, &known)
    }

    fn check(text: &str, expect: &[(&str, &str)]) {
        let pairs = parse_with(text, &[("SHELL_VAR", "shell")]).unwrap();
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(pairs, expect, "{text}");
    }

    #[test]
    fn the_forms_of_a_line() {
        check("", &[]);
        check("# comment\n\nA=1\nB: 2\n", &[("A", "1"), ("B", "2")]);
        check(
            "export A=1\r\nexported=2\r\n",
            &[("A", "1"), ("exported", "2")],
        );
        check(
            "A = spaced out  # comment\nB=a#b",
            &[("A", "spaced out"), ("B", "a#b")],
        );
        check("A=\nB=''\nC=\"\"", &[("A", ""), ("B", ""), ("C", "")]);
        check("A='$B ${C} \\n # x' # y", &[("A", "$B ${C} \\n # x")]);
        check("A=\"a\\nb\\t\\\"c\\\"\\$d\"", &[("A", "a\nb\t\"c\"$d")]);
        check("A=\"two\nlines\"\nB=1", &[("A", "two\nlines"), ("B", "1")]);
        check(
            "A=1\nB=$A-${A}-${C:-3}-$SHELL_VAR",
            &[("A", "1"), ("B", "1-1-3-shell")],
        );
        check("SHELL_VAR\nOTHER\n", &[("SHELL_VAR", "shell")]);
        check("a.b-c=1", &[("a.b-c", "1")]);
    }

    #[test]
    fn mistakes_name_file_and_line() {
        for (text, expect) in [
            (
                "A=1\nB C=2",
                ".env:2: unexpected character ` ` in variable name",
            ),
            ("\n=1", ".env:2: a name is missing before `=`"),
            ("A='open\nB=1", ".env:1: A: unterminated quoted value"),
            (
                "A='x' y",
                ".env:1: A: unexpected text after the closing quote",
            ),
            ("A=${B", ".env:1: A: invalid interpolation format"),
            (
                "A=${B:?why}",
                "required variable `B` is missing a value: why",
            ),
        ] {
            let error = parse_with(text, &[]).unwrap_err().to_string();
            assert!(error.contains(expect), "{text}: {error}");
        }
    }

    #[test]
    fn raw_values_are_what_stands_there() {
        let file = Arc::from("raw.env");
        let pairs = parse("A='$B' # c\n", &file, EnvFormat::Raw, &Variables::default()).unwrap();
        assert_eq!(pairs, [("A".to_owned(), "'$B' # c".to_owned())]);
    }
}
