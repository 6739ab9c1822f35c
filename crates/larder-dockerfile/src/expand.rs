//! Shell words as the Dockerfile language has them: quotes, escapes and variables.

mod pattern;
mod scanner;

use std::collections::BTreeSet;

use scanner::Scanner;

use crate::golang;

/// Where variables are looked up.
pub(crate) trait Variables {
    /// Returns the value of a variable, `None` when it is not set.
    fn get(&self, name: &str) -> Option<&str>;
}

/// No variable is set.
pub(crate) struct NoVariables;

impl Variables for NoVariables {
    fn get(&self, _: &str) -> Option<&str> {
        None
    }
}

/// How words are expanded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expander {
    /// `\` or `` ` ``.
    pub(crate) escape: char,
    /// Whether quotes stay in the result.
    pub(crate) raw_quotes: bool,
    /// Whether escape characters stay in the result.
    pub(crate) raw_escapes: bool,
    /// Whether quotes are ordinary characters.
    pub(crate) ignore_quotes: bool,
    /// Whether references to variables that are not set stay as they are.
    pub(crate) keep_unset: bool,
}

/// The outcome of an expansion.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Expansion {
    /// The result as one word.
    pub(crate) text: String,
    /// The result split at white space that is neither quoted nor escaped.
    pub(crate) words: Vec<String>,
    /// The variables that were looked up and found.
    pub(crate) matched: BTreeSet<String>,
    /// The variables that were looked up and not found.
    pub(crate) unmatched: BTreeSet<String>,
}

impl Expander {
    pub(crate) fn new(escape: char) -> Self {
        Self {
            escape,
            raw_quotes: false,
            raw_escapes: false,
            ignore_quotes: false,
            keep_unset: false,
        }
    }

    /// Expands `word`.
    ///
    /// # Errors
    /// A message for the user, when quotes or braces are not closed, a modifier is unknown, a
    /// required variable is missing, or the result is too long.
    pub(crate) fn expand(
        self,
        word: &str,
        variables: &impl Variables,
    ) -> Result<Expansion, String> {
        let mut scanner = Scanner::new(word, self, variables);
        let (text, words) = scanner
            .until(None, self.raw_escapes)
            .map_err(|error| format!("failed to process {}: {error}", golang::quote(word)))?;
        Ok(Expansion {
            text,
            words: words.finish(),
            matched: scanner.matched,
            unmatched: scanner.unmatched,
        })
    }
}

#[cfg(test)]
#[path = "expand_tests.rs"]
mod tests;
