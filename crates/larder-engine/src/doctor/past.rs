//! Builds of the past, as far as they tell what something has cost.

use crate::event::MissCause;
use crate::history::BuildReport;

use super::finding::Cost;

/// A build of the past.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PastBuild {
    /// Its steps, in the order they were done.
    pub steps: Vec<PastStep>,
    /// What came of the caches it was told to import.
    pub imports: Vec<super::ImportRecord>,
}

/// A step of a build of the past.
#[derive(Debug, Clone, PartialEq)]
pub struct PastStep {
    /// As written in the Dockerfile, joined to one line.
    pub instruction: String,
    /// Why it ran; `None` where its result was found.
    pub cause: Option<MissCause>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Where files are the cause: how each differs.
    pub details: Vec<String>,
}

impl From<BuildReport> for PastBuild {
    fn from(report: BuildReport) -> Self {
        let steps = report.steps.into_iter().filter_map(|step| {
            let parts = report.parts.iter().find(|parts| parts.name == step.name)?;
            Some(PastStep {
                instruction: parts.instruction.clone(),
                cause: step.cause.filter(|_| !step.cached),
                duration_ms: step.duration_ms,
                details: step.details,
            })
        });
        Self {
            steps: steps.collect(),
            imports: report.imports,
        }
    }
}

impl PastStep {
    pub(super) fn ran(&self) -> bool {
        self.cause.is_some()
    }
}

/// Adds up over builds: `cost_of` returns how long steps ran because of something in a build, `None`
/// where it was of no effect. Returns nothing if it never was.
pub(super) fn cost(
    history: &[PastBuild],
    cost_of: impl Fn(&PastBuild) -> Option<u64>,
) -> Option<Cost> {
    let mut cost = Cost {
        builds: history.len(),
        ..Cost::default()
    };
    for milliseconds in history.iter().filter_map(cost_of) {
        cost.hits += 1;
        cost.milliseconds += milliseconds;
    }
    (cost.hits > 0).then_some(cost)
}

/// Returns how long the steps with this text have run.
pub(super) fn cost_of_runs(history: &[PastBuild], instruction: &str) -> Option<Cost> {
    cost(history, |build| {
        let steps = build.steps.iter();
        let ran = steps.filter(|step| step.ran() && step.instruction == instruction);
        let times: Vec<u64> = ran.map(|step| step.duration_ms).collect();
        (!times.is_empty()).then(|| times.iter().sum())
    })
}

/// Returns how long steps ran in builds where a step ran for a cause of this kind: that step and all
/// after it.
pub(super) fn cost_of_cause(
    history: &[PastBuild],
    is_it: impl Fn(&PastStep, &MissCause) -> bool,
) -> Option<Cost> {
    cost(history, |build| {
        let hit = |step: &PastStep| step.cause.as_ref().is_some_and(|cause| is_it(step, cause));
        let first = build.steps.iter().position(hit)?;
        let after = build.steps[first..].iter().filter(|step| step.ran());
        Some(after.map(|step| step.duration_ms).sum())
    })
}
