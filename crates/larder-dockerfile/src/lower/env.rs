//! The variables of a stage.

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
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) origin: EnvOrigin,
}

/// Variables in the order in which they were set last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Env {
    variables: Vec<Variable>,
}

impl Env {
    /// Sets a variable. One that was set before moves to the end, as in BuildKit: the order is
    /// part of the cache key.
    pub(super) fn set(&mut self, name: &str, value: &str, origin: EnvOrigin) {
        self.variables.retain(|known| known.name != name);
        self.variables.push(Variable {
            name: name.to_owned(),
            value: value.to_owned(),
            origin,
        });
    }

    /// Sets a variable again that an image config holds; what set it first stays known.
    pub(super) fn inherit(&mut self, name: &str, value: &str) {
        let known = self.variables.iter().find(|known| known.name == name);
        let origin = match known {
            Some(known) if known.value == value => known.origin.clone(),
            _ => EnvOrigin::Base,
        };
        self.set(name, value, origin);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Variable> {
        self.variables.iter()
    }

    /// Returns `NAME=value` texts.
    pub(super) fn to_list(&self) -> Vec<String> {
        let texts = self.iter().map(|v| format!("{}={}", v.name, v.value));
        texts.collect()
    }
}

impl Variables for Env {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.variables.iter().find(|known| known.name == name);
        found.map(|known| known.value.as_str())
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
