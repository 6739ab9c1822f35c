use std::borrow::Cow;

use super::automaton::Automaton;
use super::clean::clean;
use super::glob::{Class, Glob};
use crate::{Error, ErrorKind, Result};

/// A list of patterns in the dialect of `.dockerignore`; the last one that matches decides.
#[derive(Debug, Clone)]
pub struct PatternMatcher {
    patterns: Vec<Pattern>,
    /// Which patterns are mere paths, sorted by these: there may be as many as there are files, so
    /// a file must not be compared with all of them.
    exact: Vec<usize>,
    /// Which patterns are not, in order.
    inexact: Vec<usize>,
}

/// Which patterns matched a directory, so that they need not be tried on its parents again for
/// each entry. The default value knows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MatchInfo {
    /// Places in the list of patterns, in order.
    matched: Option<Vec<usize>>,
}

#[derive(Debug, Clone)]
struct Pattern {
    /// Whether it stood after a `!`.
    exception: bool,
    /// Cleaned, without `!`.
    text: String,
    kind: Kind,
}

/// How a path is compared, cheapest first.
#[derive(Debug, Clone)]
enum Kind {
    Exact,
    /// `text` without the `**` at its end is a prefix.
    Prefix,
    /// `text` without the `**` at its start is a suffix.
    Suffix,
    Automaton(Automaton),
}

impl PatternMatcher {
    /// Parses patterns, the first one of least weight. Empty ones are skipped.
    ///
    /// # Errors
    /// `InvalidInput` for a pattern that [`Glob`] refuses, and for a lone `!`.
    pub fn new<P: AsRef<str>>(patterns: impl IntoIterator<Item = P>) -> Result<Self> {
        let mut parsed = Vec::new();
        for pattern in patterns {
            let pattern = pattern.as_ref().trim();
            if !pattern.is_empty() {
                parsed.push(Pattern::parse(pattern)?);
            }
        }
        let is_exact = |index: &usize| matches!(parsed[*index].kind, Kind::Exact);
        let (mut exact, inexact): (Vec<_>, Vec<_>) = (0..parsed.len()).partition(is_exact);
        exact.sort_by_key(|index| &parsed[*index].text);
        Ok(Self {
            patterns: parsed,
            exact,
            inexact,
        })
    }

    /// Returns whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Returns whether `path` matches, by itself or through one of its parents.
    pub fn matches_or_parent_matches(&self, path: &[u8]) -> bool {
        self.matches(path, &MatchInfo::default())
    }

    /// Returns whether `path` matches, where `parent` is what
    /// [`PatternMatcher::matches_dir`] of this matcher returned for the directory that `path` lies
    /// in.
    pub fn matches(&self, path: &[u8], parent: &MatchInfo) -> bool {
        self.evaluate(path, parent, |_| {})
    }

    /// Like [`PatternMatcher::matches`] for a directory; returns also what its entries need.
    pub fn matches_dir(&self, path: &[u8], parent: &MatchInfo) -> (bool, MatchInfo) {
        let mut matched = Vec::new();
        let result = self.evaluate(path, parent, |index| matched.push(index));
        let matched = Some(matched);
        (result, MatchInfo { matched })
    }

    /// Returns whether a path beneath the directory `dir` can match a pattern that is not an
    /// exception. If not, and `dir` does not match, none beneath it does.
    pub fn may_match_below(&self, dir: &[u8]) -> bool {
        self.may_decide_below(dir, false)
    }

    /// Returns whether a path beneath the directory `dir` can match an exception. If not, and
    /// `dir` matches, all beneath it does.
    pub fn may_except_below(&self, dir: &[u8]) -> bool {
        self.may_decide_below(dir, true)
    }

    fn may_decide_below(&self, dir: &[u8], exception: bool) -> bool {
        let below: Cow<'_, [u8]> = match dir {
            [] => dir.into(),
            dir => [dir, b"/"].concat().into(),
        };
        let exact = self.exact_from(&below);
        let exact = exact.take_while(|(_, text)| text.starts_with(&below));
        let mut all = exact
            .map(|(index, _)| index)
            .chain(self.inexact.iter().copied())
            .map(|index| &self.patterns[index]);
        all.any(|pattern| pattern.exception == exception && pattern.may_match_below(&below))
    }

    /// Returns the patterns that are mere paths from `start` on, sorted by these.
    fn exact_from(&self, start: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
        let text = |index: usize| self.patterns[index].text.as_bytes();
        let first = self.exact.partition_point(|index| text(*index) < start);
        self.exact[first..]
            .iter()
            .map(move |index| (*index, text(*index)))
    }

    /// Returns which patterns are `path`, or one of its parents if these are to be tried, too; in
    /// order.
    fn exact_matches(&self, path: &[u8], with_parents: bool) -> Vec<usize> {
        let mut found = Vec::new();
        if self.exact.is_empty() {
            return found;
        }
        let parents = parents(path).filter(|_| with_parents);
        for path in parents.chain([path]) {
            let equal = self.exact_from(path).take_while(|(_, text)| *text == path);
            found.extend(equal.map(|(index, _)| index));
        }
        found.sort_unstable();
        found
    }

    /// Goes through the patterns in their order, as an exception is tried only on what matched
    /// before it, and other patterns only on what didn't. Those that are not tried do not count as
    /// matched for entries of `path`; so it is in moby's matcher. `record` gets those that match.
    fn evaluate(&self, path: &[u8], parent: &MatchInfo, mut record: impl FnMut(usize)) -> bool {
        let knows_parent = parent.matched.is_some();
        let inherited = parent.matched.as_deref().unwrap_or_default();
        let exact = self.exact_matches(path, !knows_parent);
        let mut candidates = [inherited, &exact, &self.inexact];
        let mut matched = false;
        while let Some(index) = candidates.iter().filter_map(|list| list.first()).min() {
            let index = *index;
            let [is_inherited, is_exact, _] = candidates.each_mut().map(|list| {
                let is_next = list.first() == Some(&index);
                *list = &list[usize::from(is_next)..];
                is_next
            });
            let pattern = &self.patterns[index];
            let is_match = is_inherited
                || pattern.exception == matched
                    && (is_exact
                        || pattern.matches(path)
                        || !knows_parent && parents(path).any(|parent| pattern.matches(parent)));
            if is_match {
                record(index);
                matched = !pattern.exception;
            }
        }
        matched
    }
}

/// Returns the directories on the way to `path`, outermost first.
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    ends.map(|(end, _)| &path[..end])
}

impl Pattern {
    fn parse(pattern: &str) -> Result<Self> {
        let cleaned = clean(pattern);
        let (exception, text) = match cleaned.strip_prefix('!') {
            Some("") => {
                let message = "illegal exclusion pattern: `!`";
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
            Some(text) => (true, text),
            None => (false, cleaned.as_str()),
        };
        Glob::new(text)?;
        Ok(Self {
            exception,
            text: text.to_owned(),
            kind: Kind::of(text),
        })
    }

    fn matches(&self, path: &[u8]) -> bool {
        let text = self.text.as_bytes();
        match &self.kind {
            Kind::Exact => path == text,
            Kind::Prefix => path.starts_with(&text[..text.len() - 2]),
            Kind::Suffix => {
                let suffix = &text[2..];
                path.ends_with(suffix) || suffix.strip_prefix(b"/") == Some(path)
            }
            Kind::Automaton(automaton) => automaton.matches(path),
        }
    }

    /// Compares the text before the first wildcard with `below`, a directory with a `/` behind
    /// its name, or nothing for the root.
    fn may_match_below(&self, below: &[u8]) -> bool {
        let text = self.text.as_bytes();
        let wildcard = text.iter().position(|byte| b"*?[\\".contains(byte));
        match wildcard {
            None => text.starts_with(below),
            Some(end) => text[..end].starts_with(below) || below.starts_with(&text[..end]),
        }
    }
}

impl Kind {
    /// Chooses the comparison for a cleaned pattern. The text of the pattern is compared as it
    /// is, escapes included, unless an automaton is needed; so it is in moby's matcher.
    fn of(pattern: &str) -> Self {
        let mut automaton = Automaton::default();
        let mut kind = Self::Exact;
        let mut needs_automaton = false;
        let mut rest = pattern;
        let mut first = true;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            match c {
                '*' if rest.starts_with('*') => {
                    rest = &rest[1..];
                    rest = rest.strip_prefix('/').unwrap_or(rest);
                    let is_plain = !needs_automaton && matches!(kind, Self::Exact);
                    let is_prefix = is_plain && rest.is_empty();
                    needs_automaton |= !first && !is_prefix;
                    if rest.is_empty() {
                        automaton.rest();
                    } else {
                        automaton.dirs();
                    }
                    kind = if first { Self::Suffix } else { Self::Prefix };
                }
                '*' => {
                    automaton.star();
                    needs_automaton = true;
                }
                '?' => {
                    automaton.any_char();
                    needs_automaton = true;
                }
                '[' => {
                    let (class, after) = Class::parse(rest).expect("the glob was checked");
                    automaton.class(class);
                    rest = after;
                    needs_automaton = true;
                }
                ']' => {
                    automaton.literal(c);
                    needs_automaton = true;
                }
                '\\' => {
                    let escaped = rest.chars().next().expect("the glob was checked");
                    automaton.literal(escaped);
                    rest = &rest[escaped.len_utf8()..];
                    needs_automaton = true;
                }
                c => automaton.literal(c),
            }
            first = false;
        }
        if needs_automaton {
            Self::Automaton(automaton.finish())
        } else {
            kind
        }
    }
}

/// Returns the patterns in the text of a `.dockerignore` file, ready for
/// [`PatternMatcher::new`].
///
/// Lines that begin with `#` and empty ones are dropped, paths are cleaned, and a `/` in front is
/// taken away. What is not UTF-8 is replaced.
pub fn read_ignore_file(text: &[u8]) -> Vec<String> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = String::from_utf8_lossy(text);
    text.lines().filter_map(ignore_line).collect()
}

fn ignore_line(line: &str) -> Option<String> {
    if line.starts_with('#') || line.trim().is_empty() {
        return None;
    }
    let line = line.trim();
    let (mark, pattern) = match line.strip_prefix('!') {
        Some(pattern) => ("!", pattern.trim()),
        None => ("", line),
    };
    if pattern.is_empty() {
        return Some(mark.to_owned());
    }
    let cleaned = clean(pattern);
    let relative = cleaned.strip_prefix('/').filter(|rest| !rest.is_empty());
    Some(format!("{mark}{}", relative.unwrap_or(&cleaned)))
}

#[cfg(test)]
#[path = "ignore_tests.rs"]
mod tests;
