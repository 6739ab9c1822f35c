//! Build checks: told while a build goes on, or run in its place.

use std::collections::BTreeMap;

use larder_dockerfile::{PathMatcher, Warning};
use larder_llb::SourceFile;
use larder_tree::pattern::PatternMatcher;

use super::{Build, dockerfile_error, source_file};
use crate::build::inputs::DockerfileText;
use crate::cancel::CancelFlag;
use crate::engine::Engine;
use crate::error::{BuildError, Result};
use crate::event::{EventSink, WarningEvent};
use crate::images::{Images, PolicedImages};
use crate::ops::git::Resolutions;
use crate::progress::Reporter;
use crate::request::BuildRequest;
use crate::web::WebFiles;

/// BuildKit's level of what its checks find.
const LEVEL: u32 = 1;

/// What the build checks say of a Dockerfile.
#[derive(Debug)]
pub struct CheckOutcome {
    /// What they found, in the order of the lines.
    pub warnings: Vec<Warning>,
    /// The Dockerfile.
    pub source: SourceFile,
    /// Why not all could be checked: the Dockerfile can't be built.
    pub error: Option<BuildError>,
}

impl Engine {
    /// Checks the Dockerfile of a build, and builds nothing. Without a target, all stages are
    /// checked. Base images are looked up, as for the build.
    ///
    /// # Errors
    /// When the Dockerfile can't be read or parsed.
    pub fn check(&self, request: BuildRequest, sink: &dyn EventSink) -> Result<CheckOutcome> {
        self.in_place_of_build(request, sink, |build, mut request| {
            let all_stages = request.target.is_none();
            let read = build.read(&mut request, all_stages)?;
            let lowered = read.dockerfile.lower(&read.options[0], &build.images);
            let (mut warnings, error) = match lowered {
                Ok(lowered) => (lowered.warnings, None),
                Err(error) => (
                    error.warnings().to_vec(),
                    Some(dockerfile_error(&error, &read.text)),
                ),
            };
            warnings.sort_by_key(|warning| warning.ranges.first().map(|range| range.start));
            Ok(CheckOutcome {
                warnings,
                source: source_file(&read.text),
                error,
            })
        })
    }

    /// Does something with the input of a build that builds nothing.
    pub(super) fn in_place_of_build<T>(
        &self,
        request: BuildRequest,
        sink: &dyn EventSink,
        work: impl FnOnce(&Build<'_>, BuildRequest) -> Result<T>,
    ) -> Result<T> {
        let lease = self.store.lease()?;
        let clock = || self.now();
        let reporter = Reporter::new(sink, &clock);
        let cancel = CancelFlag::new();
        let images = Images::new(self, &lease, request.pull, &cancel);
        let policy = request.source_policy.clone();
        let web = WebFiles::new(self, &lease);
        let repositories = Resolutions::default();
        let build = Build {
            engine: self,
            lease: &lease,
            reporter: &reporter,
            images: PolicedImages::new(&images, &policy),
            web: &web,
            repositories: &repositories,
            cancel: &cancel,
            name: "",
            inputs: BTreeMap::new(),
        };
        let done = work(&build, request)?;
        lease.release()?;
        Ok(done)
    }
}

impl Build<'_> {
    /// Tells of warnings, as being about the Dockerfile's own vertex.
    pub(super) fn warn(&self, warnings: &[Warning], text: &DockerfileText) {
        for warning in warnings {
            self.reporter.warning(WarningEvent {
                vertex: text.vertex.clone(),
                level: LEVEL,
                short: warning.to_string(),
                detail: vec![warning.rule.description().to_owned()],
                url: warning.rule.url().to_owned(),
                source: Some(source_file(text)),
                ranges: warning.ranges.clone(),
            });
        }
    }
}

/// Returns what tells of a path whether the context's ignore file leaves it out; `None` where an
/// exception makes that depend on what is beneath the path.
pub(super) fn ignored(patterns: &[String]) -> Option<PathMatcher> {
    if patterns.is_empty() || patterns.iter().any(|pattern| pattern.starts_with('!')) {
        return None;
    }
    let matcher = PatternMatcher::new(patterns).ok()?;
    let contains = move |path: &str| matcher.matches_or_parent_matches(path.as_bytes());
    Some(PathMatcher::new(contains))
}
