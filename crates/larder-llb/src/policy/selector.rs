//! What a rule is for.

use regex::Regex;

use crate::pb;

/// Selects sources by identifier and attributes.
#[derive(Debug)]
pub(super) struct Selector {
    /// As written; equal identifiers are always selected.
    identifier: String,
    pattern: Pattern,
    constraints: Vec<Constraint>,
}

#[derive(Debug)]
enum Pattern {
    Exact,
    Regex(Regex),
    Wildcard(Regex),
}

/// How identifiers are compared.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum MatchType {
    /// `*` stands for any text.
    #[default]
    Wildcard,
    Exact,
    /// The expression matches anywhere.
    Regex,
}

/// What an attribute has to be. One that is not there is empty.
#[derive(Debug)]
pub(super) struct Constraint {
    pub(super) key: String,
    pub(super) wanted: Wanted,
}

#[derive(Debug)]
pub(super) enum Wanted {
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Selector {
    /// Returns a selector.
    ///
    /// # Errors
    /// What is wrong with the pattern.
    pub(super) fn new(
        identifier: String,
        match_type: MatchType,
        constraints: Vec<Constraint>,
    ) -> Result<Self, String> {
        let pattern = match match_type {
            MatchType::Exact => Pattern::Exact,
            MatchType::Regex => Pattern::Regex(regex(&identifier)?),
            MatchType::Wildcard => Pattern::Wildcard(wildcard(&identifier)?),
        };
        Ok(Self {
            identifier,
            pattern,
            constraints,
        })
    }

    pub(super) fn selects(&self, source: &pb::SourceOp) -> bool {
        let identifier = &source.identifier;
        let is_named = *identifier == self.identifier
            || match &self.pattern {
                Pattern::Exact => false,
                Pattern::Regex(regex) | Pattern::Wildcard(regex) => regex.is_match(identifier),
            };
        is_named && self.constraints.iter().all(|it| it.holds(source))
    }

    /// Returns `template` with what was matched in place of `$1`, `${1}`, `${name}`.
    pub(super) fn expand(&self, identifier: &str, template: &str) -> String {
        match &self.pattern {
            Pattern::Exact => template.to_owned(),
            Pattern::Regex(regex) => regex.replace_all(identifier, template).into_owned(),
            Pattern::Wildcard(regex) => {
                let Some(found) = regex.captures(identifier) else {
                    return identifier.to_owned();
                };
                let mut expanded = String::new();
                found.expand(template, &mut expanded);
                expanded
            }
        }
    }
}

impl Constraint {
    fn holds(&self, source: &pb::SourceOp) -> bool {
        let value = source.attrs.get(&self.key).map_or("", String::as_str);
        match &self.wanted {
            Wanted::Equal(wanted) => value == wanted,
            Wanted::NotEqual(unwanted) => value != unwanted,
            Wanted::Matches(regex) => regex.is_match(value),
        }
    }
}

/// Compiles a regular expression.
///
/// # Errors
/// What is wrong with it.
pub(super) fn regex(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| match error {
        // The message has the expression, and a line with an arrow below it.
        regex::Error::Syntax(message) => {
            let cause = message.lines().last().unwrap_or_default();
            let cause = cause.trim_start_matches("error: ");
            format!("`{text}` is no regular expression: {cause}")
        }
        other => format!("`{text}` is no regular expression: {other}"),
    })
}

fn wildcard(text: &str) -> Result<Regex, String> {
    if text.contains("**") {
        return Err(format!("invalid wildcard `{text}`: `**` means nothing"));
    }
    let pieces: Vec<String> = text.split('*').map(regex::escape).collect();
    regex(&format!("^{}$", pieces.join("(.*)")))
}
