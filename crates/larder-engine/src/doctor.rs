//! What defeats the cache: a Dockerfile, its context and its builds so far, read with an eye to what
//! makes steps run again, or do more than they must when they run.
//!
//! [`diagnose`] is pure: a [`Patient`] goes in, [`Finding`]s come out. [`examine`] and
//! [`Engine::past_builds`](crate::Engine::past_builds) find the facts that need the disk.
//!
//! Each family of findings is a module. A finding must be true, and worth its reading: where the text
//! does not tell enough, nothing is said.

mod apt;
mod base;
mod context;
mod facts;
mod finding;
mod order;
mod packages;
mod past;
mod shell;
mod sources;
mod stages;
mod survey;
mod tools;
mod variables;

pub use facts::examine;
pub use finding::{Cost, Finding, FindingKind};
use larder_dockerfile::StageView;
pub use past::{PastBuild, PastStep};
pub use sources::{CacheSource, ImportRecord};
pub use survey::{Junk, Survey};

use stages::Stages;

/// A Dockerfile with what is known of its builds.
#[derive(Debug, Default)]
pub struct Patient {
    /// What the Dockerfile is called in findings.
    pub file: String,
    /// Its stages.
    pub stages: Vec<StageView>,
    /// Its context; `None` where there is none to look at.
    pub context: Option<Survey>,
    /// Its builds so far, the newest first.
    pub history: Vec<PastBuild>,
    /// The caches that its builds are told to import.
    pub sources: Vec<CacheSource>,
}

/// Returns what defeats the cache, in the order of files and lines.
pub fn diagnose(patient: &Patient) -> Vec<Finding> {
    let stages = Stages::new(patient);
    let mut findings = Vec::new();
    packages::look(&stages, &mut findings);
    apt::look(&stages, &mut findings);
    order::look(&stages, &mut findings);
    variables::look(&stages, &mut findings);
    context::look(&stages, &mut findings);
    base::look(&stages, &mut findings);
    sources::look(&stages, &mut findings);
    findings.sort_by(|a, b| (&a.file, a.line, a.kind).cmp(&(&b.file, b.line, b.kind)));
    findings
}

#[cfg(test)]
mod tests;
