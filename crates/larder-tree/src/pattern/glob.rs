use crate::{Error, ErrorKind, Result};

/// A pattern of Go's `path.Match`.
///
/// The whole path must match. `*` and `?` do not match `/`; a class such as `[^a]` does, as it
/// does in Go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    chunks: Vec<Chunk>,
}

/// A run of tokens without a star.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chunk {
    /// Whether a star stands in front.
    after_star: bool,
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(char),
    AnyChar,
    Class(Class),
}

/// A character class, `[a-z]` or `[^a-z]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Class {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Glob {
    /// Parses `pattern`.
    ///
    /// # Errors
    /// `InvalidInput` for an open class, an empty one, or a `\` at the end.
    pub fn new(pattern: &str) -> Result<Self> {
        let fail = || {
            let message = format!("syntax error in pattern `{pattern}`");
            Error::new(ErrorKind::InvalidInput, message)
        };
        let mut chunks = vec![Chunk {
            after_star: false,
            tokens: Vec::new(),
        }];
        let mut rest = pattern;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            let chunk = chunks.last_mut().expect("there is a first chunk");
            match c {
                '*' if chunk.after_star && chunk.tokens.is_empty() => {}
                '*' => chunks.push(Chunk {
                    after_star: true,
                    tokens: Vec::new(),
                }),
                '?' => chunk.tokens.push(Token::AnyChar),
                '[' => {
                    let (class, after) = Class::parse(rest).ok_or_else(fail)?;
                    chunk.tokens.push(Token::Class(class));
                    rest = after;
                }
                '\\' => {
                    let escaped = rest.chars().next().ok_or_else(fail)?;
                    rest = &rest[escaped.len_utf8()..];
                    chunk.tokens.push(Token::Literal(escaped));
                }
                c => chunk.tokens.push(Token::Literal(c)),
            }
        }
        Ok(Self { chunks })
    }

    /// Returns whether the whole of `path` matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        let mut rest = path;
        for (index, chunk) in self.chunks.iter().enumerate() {
            let last = index + 1 == self.chunks.len();
            if last && chunk.after_star && chunk.tokens.is_empty() {
                return !rest.contains(&b'/');
            }
            match chunk.find(rest, last) {
                Some(after) => rest = after,
                None => return false,
            }
        }
        rest.is_empty()
    }
}

impl Chunk {
    /// Returns what follows the first place where the chunk matches; the last chunk must reach
    /// the end.
    fn find<'a>(&self, path: &'a [u8], last: bool) -> Option<&'a [u8]> {
        let mut start = path;
        loop {
            match self.strip(start) {
                Some(after) if after.is_empty() || !last => return Some(after),
                _ => {}
            }
            match start {
                [b'/', ..] | [] => return None,
                _ if !self.after_star => return None,
                [_, after @ ..] => start = after,
            }
        }
    }

    /// Returns what follows the chunk if `path` begins with it.
    fn strip<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        let mut rest = path;
        for token in &self.tokens {
            let (c, length) = next_char(rest)?;
            let fits = match token {
                Token::Literal(literal) => c == *literal,
                Token::AnyChar => c != '/',
                Token::Class(class) => class.contains(c),
            };
            if !fits {
                return None;
            }
            rest = &rest[length..];
        }
        Some(rest)
    }
}

impl Class {
    /// Parses what follows a `[`; returns the class and what follows its `]`.
    pub(super) fn parse(text: &str) -> Option<(Self, &str)> {
        let (negated, mut rest) = match text.strip_prefix('^') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let mut ranges = Vec::new();
        loop {
            if let Some(after) = rest.strip_prefix(']')
                && !ranges.is_empty()
            {
                return Some((Self { negated, ranges }, after));
            }
            let (low, after) = class_char(rest)?;
            let (high, after) = match after.strip_prefix('-') {
                Some(after) => class_char(after)?,
                None => (low, after),
            };
            ranges.push((low, high));
            rest = after;
        }
    }

    pub(super) fn contains(&self, c: char) -> bool {
        let within = self
            .ranges
            .iter()
            .any(|&(low, high)| (low..=high).contains(&c));
        within != self.negated
    }
}

fn class_char(text: &str) -> Option<(char, &str)> {
    let text = match text.chars().next()? {
        '-' | ']' => return None,
        '\\' => &text[1..],
        _ => text,
    };
    let c = text.chars().next()?;
    Some((c, &text[c.len_utf8()..]))
}

/// Returns the first character of `bytes` and its length; a byte that is not UTF-8 counts as one
/// U+FFFD, as in Go.
pub(super) fn next_char(bytes: &[u8]) -> Option<(char, usize)> {
    let first = *bytes.first()?;
    if first.is_ascii() {
        return Some((char::from(first), 1));
    }
    let chunk = bytes[..bytes.len().min(4)].utf8_chunks().next()?;
    match chunk.valid().chars().next() {
        Some(c) => Some((c, c.len_utf8())),
        None => Some((char::REPLACEMENT_CHARACTER, 1)),
    }
}

/// Returns whether `text` has a `*`, `?` or `[` that is not escaped, which makes it a pattern.
pub fn has_wildcards(text: &str) -> bool {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

/// Splits a cleaned path into the names before the first one with a wildcard, and the rest.
pub(crate) fn split_wildcards(path: &str) -> (String, String) {
    let names: Vec<&str> = path.split('/').collect();
    let first = names.iter().position(|name| has_wildcards(name));
    let (before, after) = names.split_at(first.unwrap_or(names.len()));
    let before = before.join("/");
    let before = if before.is_empty() && path.starts_with('/') {
        "/".to_owned()
    } else {
        before
    };
    (before, after.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_go_does() {
        for (pattern, path, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a\u{263a}b", true),
            ("a???b", "a\u{263a}b", false),
            ("a[^a]b", "a\u{263a}b", true),
            ("[a-\u{3b6}]*", "\u{3b1}", true),
            ("*[a-\u{3b6}]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("a[^x]b", "a/b", true),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "z", false),
            ("*x", "xxx", true),
            ("", "", true),
            ("", "a", false),
            ("**", "ab", true),
        ] {
            let glob = Glob::new(pattern).unwrap();
            assert_eq!(glob.matches(path.as_bytes()), expected, "{pattern} {path}");
        }
        for bad in [
            "[]a]", "[-]", "[x-]", "[-x]", "[", "[^", "[^bc", "a[", "a\\", "[a-b-c]",
        ] {
            assert!(Glob::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_byte_that_is_not_text_counts_as_one_character() {
        assert!(Glob::new("a?b").unwrap().matches(b"a\xffb"));
        assert!(!Glob::new("a?b").unwrap().matches(b"a\xff\xffb"));
    }

    #[test]
    fn wildcards_split_a_path_at_a_name() {
        for (path, before, after) in [
            ("/*.txt", "/", "*.txt"),
            ("/src/*/x", "/src", "*/x"),
            ("/a/b", "/a/b", ""),
            ("/a\\*/b?", "/a\\*", "b?"),
            ("/", "/", ""),
        ] {
            let split = (before.to_owned(), after.to_owned());
            assert_eq!(split_wildcards(path), split, "{path}");
        }
    }
}
