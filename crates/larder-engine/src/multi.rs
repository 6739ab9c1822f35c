//! Several targets in one run: one graph, built together.
//!
//! Each target is prepared first (its Dockerfile read, its base images looked up, its graph made),
//! those that others read before these. Then all graphs are solved as one: a step that several
//! targets need is done once, and one limit holds for the steps of all. A target is exported as
//! soon as it has its result.
//!
//! What is done once is done in the name of the first target that needs it: with its secrets, and
//! under its name in the progress.

mod export;
mod order;
mod run;

use std::collections::BTreeMap;

use crate::cancel::CancelFlag;
use crate::engine::Engine;
use crate::error::{BuildError, Result};
use crate::event::EventSink;
use crate::request::{BuildOutcome, BuildRequest};
use run::Run;

/// One of several builds that are done together.
pub struct TargetRequest {
    /// What it is called; no other target of the run is called so. Names of vertices begin with
    /// it: `[name 2/3] RUN make`.
    pub name: String,
    /// The build. Its own named contexts are directories.
    pub request: BuildRequest,
    /// Further named contexts: results of other targets of the run, by their names.
    pub inputs: BTreeMap<String, String>,
}

impl TargetRequest {
    /// Returns a target that reads no other.
    pub fn new(name: impl Into<String>, request: BuildRequest) -> Self {
        Self {
            name: name.into(),
            request,
            inputs: BTreeMap::new(),
        }
    }
}

/// How several targets are built.
#[derive(Debug, Clone, Copy, Default)]
pub struct ManyOptions {
    /// How many steps of all targets run at once; what the configuration says by default.
    pub max_parallelism: Option<usize>,
}

/// Why a run of several targets failed.
#[derive(Debug)]
pub struct TargetError {
    /// The target whose failure ended all; `None` where it was none of a single one.
    pub target: Option<String>,
    /// What failed.
    pub error: Box<BuildError>,
}

impl From<BuildError> for TargetError {
    fn from(error: BuildError) -> Self {
        Self {
            target: None,
            error: Box::new(error),
        }
    }
}

impl Engine {
    /// Builds an image, and tells `sink` how it goes.
    ///
    /// # Errors
    /// The first failure. What had been finished stays in the cache.
    pub fn build(
        &self,
        request: BuildRequest,
        sink: &dyn EventSink,
        cancel: &CancelFlag,
    ) -> Result<BuildOutcome> {
        let targets = vec![TargetRequest::new("", request)];
        let built = self.build_many(targets, ManyOptions::default(), sink, cancel);
        let outcomes = built.map_err(|failed| *failed.error)?;
        let nothing = || BuildError::internal("a build came to nothing");
        outcomes.into_iter().next().ok_or_else(nothing)
    }

    /// Builds several targets at once, and tells `sink` how it goes. Where there are several, the
    /// names of all vertices begin with their target's; a step that several need is shown in the
    /// name of the first. Returns what came of each, in the order of the targets.
    ///
    /// # Errors
    /// The first failure; it ends the other targets. What had been finished stays in the cache,
    /// and images that were stored or pushed stay there. Also when targets read each other, or one
    /// that is not there.
    pub fn build_many(
        &self,
        targets: Vec<TargetRequest>,
        options: ManyOptions,
        sink: &dyn EventSink,
        cancel: &CancelFlag,
    ) -> Result<Vec<BuildOutcome>, TargetError> {
        let lease = self.store.lease().map_err(BuildError::from)?;
        let clock = || self.now();
        let outcomes = Run {
            engine: self,
            lease: lease.clone(),
            sink,
            clock: &clock,
            cancel,
            options,
        }
        .build(targets)?;
        lease.release().map_err(BuildError::from)?;
        self.gc();
        Ok(outcomes)
    }
}
