//! The variables of a stage.

use std::collections::BTreeMap;

use crate::expand::Variables;

/// What set a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvOrigin {
    /// The base image, or the default `PATH`.
    Base,
    /// An ENV on this line.
    Env {
        /// 1-based.
        line: u32,
    },
    /// An ARG on this line.
    Arg {
        /// 1-based.
        line: u32,
        /// Whether the value was given with the build, not by the Dockerfile.
        given: bool,
    },
}

/// A variable.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Variable {
    value: String,
    origin: EnvOrigin,
    /// Later ones have higher numbers.
    order: usize,
}

/// Variables in the order in which they were set last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Env {
    variables: BTreeMap<String, Variable>,
    next_order: usize,
}

impl Env {
    /// Sets a variable. One that was set before moves to the end, as in BuildKit: the order is
    /// part of the cache key.
    pub(super) fn set(&mut self, name: &str, value: &str, origin: EnvOrigin) {
        let variable = Variable {
            value: value.to_owned(),
            origin,
            order: self.next_order,
        };
        self.variables.insert(name.to_owned(), variable);
        self.next_order += 1;
    }

    /// Sets a variable again that an image config holds; what set it first stays known.
    pub(super) fn inherit(&mut self, name: &str, value: &str) {
        let origin = match self.variables.get(name) {
            Some(known) if known.value == value => known.origin.clone(),
            _ => EnvOrigin::Base,
        };
        self.set(name, value, origin);
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }

    /// Returns what set a variable, with its value.
    pub(super) fn lookup(&self, name: &str) -> Option<(&str, &EnvOrigin)> {
        let found = self.variables.get(name)?;
        Some((&found.value, &found.origin))
    }

    /// Returns what set each variable.
    pub(super) fn origins(&self) -> BTreeMap<String, EnvOrigin> {
        let entries = self.variables.iter();
        entries
            .map(|(name, variable)| (name.clone(), variable.origin.clone()))
            .collect()
    }

    /// Returns how many bytes names and values take.
    pub(super) fn bytes(&self) -> usize {
        let entries = self.variables.iter();
        entries
            .map(|(name, variable)| name.len() + variable.value.len())
            .sum()
    }

    /// Returns `NAME=value` texts.
    pub(super) fn to_list(&self) -> Vec<String> {
        let mut entries: Vec<_> = self.variables.iter().collect();
        entries.sort_by_key(|(_, variable)| variable.order);
        let entries = entries.into_iter();
        entries
            .map(|(name, variable)| format!("{name}={}", variable.value))
            .collect()
    }
}

impl Variables for Env {
    fn get(&self, name: &str) -> Option<&str> {
        self.lookup(name).map(|(value, _)| value)
    }
}

/// Variables whose values come from secrets: names show that, not what they are.
pub(super) struct Masked<'a> {
    pub(super) env: &'a Env,
    pub(super) secrets: Vec<String>,
}

impl Variables for Masked<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        if self.secrets.iter().any(|secret| secret == name) {
            return Some("****");
        }
        self.env.get(name)
    }
}

/// Splits `NAME=value`; a text without `=` is a name with the empty value.
pub(super) fn split_pair(text: &str) -> (&str, &str) {
    text.split_once('=').unwrap_or((text, ""))
}
