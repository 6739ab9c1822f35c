//! Source policies: what may be fetched, and what is fetched in its place. Forms and meaning are
//! those of BuildKit's `sourcepolicy`.
//!
//! A policy is a list of rules. Each has a selector, for identifiers and attributes of sources.
//! Of the `ALLOW` and `DENY` rules that select a source, the last holds; what none selects is
//! allowed. A `CONVERT` rule changes the source, which then goes through all rules again.

mod format;
mod selector;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::pb;
pub use format::PolicyFileError;
use selector::Selector;

/// How often one source may be changed: BuildKit's bound.
const MAX_CHANGES: usize = 20;

/// Rules for sources. Cheap to clone; without rules by default.
#[derive(Debug, Clone, Default)]
pub struct SourcePolicy {
    rules: Arc<[Rule]>,
}

#[derive(Debug)]
struct Rule {
    selector: Selector,
    action: Action,
}

#[derive(Debug)]
enum Action {
    Allow,
    Deny,
    Convert(Updates),
}

#[derive(Debug)]
struct Updates {
    /// What becomes of the identifier, with references to what was matched; `None` if it stays.
    identifier: Option<String>,
    attrs: BTreeMap<String, String>,
}

/// A source that a policy does not let through. The words are BuildKit's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A rule denies it.
    #[error("source {identifier:?} denied by policy: source denied by policy")]
    Denied {
        /// The source, after what other rules have made of it.
        identifier: String,
    },
    /// Rules change it on and on.
    #[error("too many mutations on a single source: too many operations")]
    Endless,
}

impl SourcePolicy {
    /// Reads a policy. `file` is its name, for messages.
    ///
    /// # Errors
    /// [`PolicyFileError`] with file, line and key when it is no policy.
    pub fn from_json(bytes: &[u8], file: &str) -> Result<Self, PolicyFileError> {
        let rules = format::read(bytes, file)?.into();
        Ok(Self { rules })
    }

    /// Returns whether all sources are let through as they are.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Makes of a source what the policy says. Returns whether that is another one; it then goes
    /// through the policy as it is.
    ///
    /// # Errors
    /// When the policy denies the source, or has no end of changing it.
    pub fn evaluate(&self, source: &mut pb::SourceOp) -> Result<bool, PolicyError> {
        for change in 0..=MAX_CHANGES {
            if !self.change(source)? {
                return Ok(change > 0);
            }
        }
        Err(PolicyError::Endless)
    }

    /// Goes through the rules, up to the first that changes the source. Returns whether one did.
    fn change(&self, source: &mut pb::SourceOp) -> Result<bool, PolicyError> {
        let mut is_denied = false;
        for rule in &*self.rules {
            if !rule.selector.selects(source) {
                continue;
            }
            match &rule.action {
                Action::Allow => is_denied = false,
                Action::Deny => is_denied = true,
                Action::Convert(updates) => {
                    if updates.apply(&rule.selector, source) {
                        return Ok(true);
                    }
                }
            }
        }
        if is_denied {
            let identifier = source.identifier.clone();
            return Err(PolicyError::Denied { identifier });
        }
        Ok(false)
    }
}

impl Updates {
    /// Changes a source that `selector` has selected. Returns whether it is another one now.
    fn apply(&self, selector: &Selector, source: &mut pb::SourceOp) -> bool {
        let before = source.clone();
        if let Some(template) = &self.identifier {
            let identifier = selector.expand(&source.identifier, template);
            if !identifier.is_empty() {
                source.identifier = identifier;
            }
        }
        for (key, value) in &self.attrs {
            // An attribute that says nothing is as good as none.
            if source.attrs.get(key).map_or("", String::as_str) != value {
                source.attrs.insert(key.clone(), value.clone());
            }
        }
        *source != before
    }
}
