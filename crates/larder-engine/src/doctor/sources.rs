//! Caches that are imported and never of use.

use serde::{Deserialize, Serialize};

use super::finding::{Finding, FindingKind};
use super::stages::Stages;

/// In so many builds a source must have been of no use.
const MIN_BUILDS: usize = 3;

/// A cache that builds are told to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSource {
    /// The file that names it.
    pub file: String,
    /// The line; 0 where it is not known.
    pub line: u32,
    /// What it is called in the history.
    pub name: String,
}

/// What came of a cache source in one build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportRecord {
    /// What the source is called.
    pub name: String,
    /// How many steps took their result from it.
    pub hits: usize,
    /// How long it took to read it, in milliseconds.
    pub duration_ms: u64,
}

pub(super) fn look(stages: &Stages<'_>, findings: &mut Vec<Finding>) {
    for source in &stages.patient.sources {
        let builds = stages.patient.history.iter();
        let records = builds.flat_map(|build| &build.imports);
        let records: Vec<&ImportRecord> = records
            .filter(|record| record.name == source.name)
            .collect();
        let is_cold = records.iter().all(|record| record.hits == 0);
        if records.len() < MIN_BUILDS || !is_cold {
            continue;
        }
        let name = &source.name;
        let count = records.len();
        let problem = format!(
            "the cache source `{name}` was read in {count} builds, and no step was found in it"
        );
        findings.push(Finding {
            file: source.file.clone(),
            cost: super::past::cost(&stages.patient.history, |build| {
                let mut imports = build.imports.iter();
                imports
                    .find(|record| record.name == *name)
                    .map(|record| record.duration_ms)
            }),
            advice: "write it with `cache_to` and `mode=max`, or leave it out".to_owned(),
            ..stages.finding(FindingKind::ColdSource, source.line, problem)
        });
    }
}
