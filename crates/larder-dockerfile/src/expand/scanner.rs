//! Reads a word character by character.

use std::collections::BTreeSet;

use super::pattern::Pattern;
use super::{Expander, Variables};

/// How deep `${a:-${b:-…}}` may nest.
const MAX_NESTING: usize = 64;
/// How much longer than its text a word may become. The kernel takes no environment variable
/// beyond 128 KiB; without a limit a short Dockerfile doubles a value line by line.
const MAX_GROWTH_BYTES: usize = 1 << 20;

#[derive(Default)]
pub(super) struct Words {
    word: String,
    words: Vec<String>,
    in_word: bool,
}

impl Words {
    /// Adds text in which white space separates words.
    fn add(&mut self, text: &str) {
        for c in text.chars() {
            if !c.is_whitespace() {
                self.word.push(c);
                self.in_word = true;
            } else if self.in_word && !self.word.is_empty() {
                self.words.push(std::mem::take(&mut self.word));
                self.in_word = false;
            }
        }
    }

    fn add_raw(&mut self, text: &str) {
        self.word.push_str(text);
        self.in_word = true;
    }

    pub(super) fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

pub(super) struct Scanner<'a, V> {
    chars: Vec<char>,
    at: usize,
    options: Expander,
    variables: &'a V,
    raw_escapes: bool,
    depth: usize,
    max_bytes: usize,
    pub(super) matched: BTreeSet<String>,
    pub(super) unmatched: BTreeSet<String>,
}

impl<'a, V: Variables> Scanner<'a, V> {
    pub(super) fn new(word: &str, options: Expander, variables: &'a V) -> Self {
        Self {
            chars: word.chars().collect(),
            at: 0,
            options,
            variables,
            raw_escapes: options.raw_escapes,
            depth: 0,
            max_bytes: word.len() + MAX_GROWTH_BYTES,
            matched: BTreeSet::new(),
            unmatched: BTreeSet::new(),
        }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += usize::from(c.is_some());
        c
    }

    /// Reads up to the end, or up to and over `stop`.
    pub(super) fn until(
        &mut self,
        stop: Option<char>,
        raw_escapes: bool,
    ) -> Result<(String, Words), String> {
        if self.depth == MAX_NESTING {
            return Err(format!("substitutions nest deeper than {MAX_NESTING}"));
        }
        self.depth += 1;
        let outer = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        let result = self.read_until(stop);
        self.raw_escapes = outer;
        self.depth -= 1;
        result
    }

    fn read_until(&mut self, stop: Option<char>) -> Result<(String, Words), String> {
        let mut text = String::new();
        let mut words = Words::default();
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.next();
                return Ok((text, words));
            }
            match c {
                '\'' | '"' if !self.options.ignore_quotes => {
                    let quoted = if c == '"' {
                        self.double_quoted()?
                    } else {
                        self.single_quoted()?
                    };
                    text.push_str(&quoted);
                    words.add_raw(&quoted);
                }
                '$' => {
                    let value = self.dollar()?;
                    text.push_str(&value);
                    words.add(&value);
                }
                c => {
                    self.next();
                    if c != self.options.escape {
                        text.push(c);
                        words.add(c.encode_utf8(&mut [0; 4]));
                        continue;
                    }
                    if self.raw_escapes {
                        text.push(c);
                        words.add_raw(c.encode_utf8(&mut [0; 4]));
                    }
                    let Some(escaped) = self.next() else { break };
                    text.push(escaped);
                    words.add_raw(escaped.encode_utf8(&mut [0; 4]));
                }
            }
            self.check_length(&text)?;
        }
        match stop {
            Some(stop) => Err(format!(
                "unexpected end of statement while looking for matching {stop}"
            )),
            None => Ok((text, words)),
        }
    }

    fn check_length(&self, text: &str) -> Result<(), String> {
        if text.len() > self.max_bytes {
            return Err(format!(
                "the result is longer than {} bytes",
                self.max_bytes
            ));
        }
        Ok(())
    }

    fn single_quoted(&mut self) -> Result<String, String> {
        let mut out = String::new();
        let raw = self.options.raw_quotes;
        out.extend(self.next().filter(|_| raw));
        loop {
            match self.next() {
                None => {
                    return Err(
                        "unexpected end of statement while looking for matching single-quote"
                            .to_owned(),
                    );
                }
                Some('\'') => {
                    out.extend(Some('\'').filter(|_| raw));
                    return Ok(out);
                }
                Some(c) => out.push(c),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<String, String> {
        let mut out = String::new();
        let raw = self.options.raw_quotes;
        out.extend(self.next().filter(|_| raw));
        loop {
            match self.peek() {
                None => {
                    return Err(
                        "unexpected end of statement while looking for matching double-quote"
                            .to_owned(),
                    );
                }
                Some('"') => {
                    out.extend(self.next().filter(|_| raw));
                    return Ok(out);
                }
                Some('$') => out.push_str(&self.dollar()?),
                Some(c) => {
                    self.next();
                    let mut written = c;
                    if c == self.options.escape {
                        if self.raw_escapes {
                            out.push(c);
                        }
                        match self.peek() {
                            None => continue,
                            Some(next @ ('"' | '$')) => {
                                self.next();
                                written = next;
                            }
                            Some(next) if next == self.options.escape => {
                                self.next();
                                written = next;
                            }
                            Some(_) => {}
                        }
                    }
                    out.push(written);
                }
            }
            self.check_length(&out)?;
        }
    }

    fn dollar(&mut self) -> Result<String, String> {
        self.next();
        if self.peek() == Some('{') {
            self.next();
            return self.braced();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        match self.lookup(&name) {
            None if self.options.keep_unset => Ok(format!("${name}")),
            value => Ok(value.unwrap_or_default()),
        }
    }

    /// Reads what follows `${`.
    fn braced(&mut self) -> Result<String, String> {
        match self.peek() {
            None => return Err("syntax error: missing '}'".to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        let name = self.name();
        let Some(mut modifier) = self.next() else {
            return Err("syntax error: missing '}'".to_owned());
        };
        let mut sign = modifier.to_string();
        match modifier {
            '}' => {
                return match self.lookup(&name) {
                    None if self.options.keep_unset => Ok(format!("${{{name}}}")),
                    value => Ok(value.unwrap_or_default()),
                };
            }
            '/' => return self.replacement(&name),
            ':' => {
                modifier = self.next().ok_or("syntax error: missing '}'")?;
                sign.push(modifier);
            }
            '+' | '-' | '?' | '#' | '%' => {}
            _ => return Err(format!("unsupported modifier ({sign}) in substitution")),
        }
        let word = self.operand('}', matches!(modifier, '#' | '%'))?;
        let value = self.lookup(&name);
        if value.is_none() && self.options.keep_unset {
            return Ok(format!("${{{name}{sign}{word}}}"));
        }
        let empty_is_unset = sign.starts_with(':');
        let present = value.clone().filter(|v| !(empty_is_unset && v.is_empty()));
        match modifier {
            '-' => Ok(present.unwrap_or(word)),
            '+' => Ok(present.map(|_| word).unwrap_or_default()),
            '?' => present.ok_or_else(|| {
                let reason = match (word.is_empty(), &value) {
                    (false, _) => word.as_str(),
                    (true, None) => "is not allowed to be unset",
                    (true, Some(_)) => "is not allowed to be empty",
                };
                format!("{name}: {reason}")
            }),
            '#' | '%' => trim(&value.unwrap_or_default(), modifier, &word),
            _ => Err(format!("unsupported modifier ({sign}) in substitution")),
        }
    }

    /// Reads `/pattern/replacement}` or `//pattern/replacement}`, behind its first slash.
    fn replacement(&mut self, name: &str) -> Result<String, String> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.until('/'.into(), true).map(|(text, _)| text);
        let pattern = self.or_missing(pattern, "syntax error: missing '/' in ${}")?;
        let replacement = self.operand('}', true)?;
        let Some(value) = self.lookup(name) else {
            return Ok(if self.options.keep_unset {
                let slash = if all { "//" } else { "/" };
                format!("${{{name}{slash}{pattern}/{replacement}}}")
            } else {
                String::new()
            });
        };
        let compiled = compile(&pattern, &value)?;
        let result = compiled.replace(&value, &replacement, all, self.max_bytes);
        result.ok_or_else(|| format!("the result is longer than {} bytes", self.max_bytes))
    }

    fn operand(&mut self, stop: char, raw_escapes: bool) -> Result<String, String> {
        let word = self.until(Some(stop), raw_escapes).map(|(text, _)| text);
        self.or_missing(word, "syntax error: missing '}'")
    }

    fn or_missing(&self, read: Result<String, String>, missing: &str) -> Result<String, String> {
        read.map_err(|error| {
            if self.peek().is_none() {
                missing.to_owned()
            } else {
                error
            }
        })
    }

    fn lookup(&mut self, name: &str) -> Option<String> {
        let value = self.variables.get(name);
        let seen = match value {
            Some(_) => &mut self.matched,
            None => &mut self.unmatched,
        };
        seen.insert(name.to_owned());
        value.map(str::to_owned)
    }

    /// Reads a name: letters, digits and `_`; or a number; or one special character.
    fn name(&mut self) -> String {
        let Some(first) = self.peek() else {
            return String::new();
        };
        if !first.is_ascii_digit() && "@*#?-$!".contains(first) {
            self.next();
            return first.to_string();
        }
        let numeric = first.is_numeric();
        let belongs = |c: char| {
            if numeric {
                c.is_numeric()
            } else {
                c.is_alphanumeric() || c == '_'
            }
        };
        let mut name = String::new();
        while let Some(c) = self.peek().filter(|&c| belongs(c)) {
            self.next();
            name.push(c);
        }
        name
    }
}

fn compile(pattern: &str, value: &str) -> Result<Pattern, String> {
    Pattern::new(pattern, value.len())
        .map_err(|error| format!("invalid pattern ({pattern}) in substitution: {error}"))
}

/// Removes the prefix (`#`) or suffix (`%`) that matches; the longest if the sign is doubled.
fn trim(value: &str, sign: char, word: &str) -> Result<String, String> {
    let (pattern, longest) = match word.strip_prefix(sign) {
        Some(pattern) => (pattern, true),
        None => (word, false),
    };
    let compiled = compile(pattern, value)?;
    Ok(if sign == '#' {
        compiled.trim_prefix(value, longest)
    } else {
        compiled.trim_suffix(value, longest)
    })
}
