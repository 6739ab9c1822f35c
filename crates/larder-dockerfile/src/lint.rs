//! Build checks: what is allowed in a Dockerfile, and better avoided.
//!
//! The rules, their texts and what they find are BuildKit's. [`file`] holds those that need the
//! text alone, [`build`] those that need to know what is built; the lowering asks for them where it
//! knows what they need.

mod build;
mod file;
mod options;
mod rules;

use std::cell::{Cell, RefCell};
use std::fmt;

use larder_llb::SourceRange;

use crate::error::Lines;

pub(crate) use file::{check_file, check_statement};
pub(crate) use options::{LintOptions, first_word};
pub use rules::Rule;

/// What a build check found.
///
/// `Display` gives the one line that users see: `Rule: message (line N)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The rule.
    pub rule: Rule,
    /// What is wrong, as BuildKit says it.
    pub message: String,
    /// The lines, one range each; never empty.
    pub ranges: Vec<SourceRange>,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule.name(), self.message)?;
        match self.ranges.first() {
            Some(range) => write!(f, " (line {})", range.start),
            None => Ok(()),
        }
    }
}

/// A warning before it is known which rules the build wants.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub(crate) warning: Warning,
    /// What the comment above the instruction says of checks.
    pub(crate) own: LintOptions,
}

/// Gathers the warnings of one build.
#[derive(Debug, Default)]
pub(crate) struct Lint {
    options: LintOptions,
    /// The instruction that is lowered now.
    lines: Cell<Lines>,
    own: RefCell<LintOptions>,
    warnings: RefCell<Vec<Warning>>,
}

impl Lint {
    pub(crate) fn new(options: LintOptions) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }

    /// Names the instruction that the next warnings are about.
    pub(crate) fn enter(&self, lines: Lines, own: &LintOptions) {
        self.lines.set(lines);
        self.own.borrow_mut().clone_from(own);
    }

    /// Takes a warning about the instruction that is lowered now.
    pub(crate) fn warn(&self, rule: Rule, message: String) {
        self.warn_at(rule, self.lines.get(), message);
    }

    /// Takes a warning about other lines than those of the instruction that is lowered now.
    pub(crate) fn warn_at(&self, rule: Rule, lines: Lines, message: String) {
        let own = self.own.borrow().clone();
        let warning = Warning {
            rule,
            message,
            ranges: lines.ranges(),
        };
        self.add(Finding { warning, own });
    }

    /// Takes a finding, if the build wants to know. What was said is not said again.
    pub(crate) fn add(&self, finding: Finding) {
        let Finding { warning, own } = finding;
        let wanted = self.options.wants(warning.rule, &own);
        let mut warnings = self.warnings.borrow_mut();
        if wanted && !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// Returns the warnings so far, and forgets them.
    pub(crate) fn take(&self) -> Vec<Warning> {
        self.warnings.take()
    }

    /// Returns the error that the warnings so far are, if they are to be one.
    pub(crate) fn violation(&self) -> Option<String> {
        let warnings = self.warnings.borrow();
        let mut names: Vec<&str> = warnings.iter().map(|w| w.rule.name()).collect();
        names.sort_unstable();
        names.dedup();
        let fails = self.options.warnings_are_errors() && !names.is_empty();
        fails.then(|| format!("lint violation found for rules: {}", names.join(", ")))
    }
}
