//! The search for the cause of a miss.

use std::path::PathBuf;

use jiff::Timestamp;
use larder_llb::Vertex;
use larder_oci::Digest;
use larder_solver::MissReason;
use larder_store::KeyId;
use larder_tree::checksum::{Change, Difference, Manifest};
use larder_tree::pattern::PatternMatcher;

use super::{History, MANIFESTS};
use crate::event::{FileChange, MissCause};
use crate::explain::{self, InputPart, StepParts};
use crate::solve::Missed;

/// How many differing files of a step are kept for `larder explain`.
const MAX_DETAILS: usize = 100;

impl<'a> History<'a> {
    /// Returns the cause of a miss, and each file that differs.
    pub(super) fn find_cause(&self, vertex: &Vertex, missed: &Missed) -> (MissCause, Vec<String>) {
        let plain = |cause| (cause, Vec::new());
        if missed.reason == MissReason::IgnoreCache {
            let flag = self.no_cache_flag.clone();
            return plain(MissCause::NoCache { flag });
        }
        if missed.reason == MissReason::ResultLost {
            return plain(MissCause::Lost);
        }
        let (Some(now), Some(before)) = (self.now(vertex), self.before(&vertex.digest)) else {
            return plain(MissCause::FirstBuild);
        };
        if let Some(found) = self.own_cause(vertex) {
            return found;
        }
        let mut ran = missed.inputs.iter().filter(|input| input.executed);
        if let Some(step) = ran.find_map(|input| self.step_name(&input.vertex)) {
            return plain(MissCause::Input { step });
        }
        if let Some(found) = self.input_cause(vertex, &now, before) {
            return found;
        }
        plain(
            explain::base_variable_difference(&now, before).unwrap_or_else(|| MissCause::Pruned {
                at: before.key.and_then(|key| self.pruned_at(key)),
            }),
        )
    }

    /// Returns when a result was pruned, if that is still on record.
    fn pruned_at(&self, key: i64) -> Option<Timestamp> {
        self.store.pruned_at(KeyId::from(key)).ok().flatten()
    }

    /// Returns how a step differs from what it was, apart from what it stands on.
    fn own_cause(&self, vertex: &Vertex) -> Option<(MissCause, Vec<String>)> {
        let (now, before) = (
            self.past().steps.get(&vertex.digest)?,
            self.before(&vertex.digest)?,
        );
        explain::difference(now, before)
            .or_else(|| {
                let sources = super::sources_of(&self.state(), vertex);
                explain::source_difference(&sources, &before.sources)
            })
            .map(|cause| (cause, Vec::new()))
            .or_else(|| self.file_cause(vertex, before))
    }

    /// Returns why a step stands on something else than before, though no input of it ran in this
    /// build: one was found that another build had made, or its place is another.
    fn input_cause(
        &self,
        vertex: &Vertex,
        now: &StepParts,
        before: &StepParts,
    ) -> Option<(MissCause, Vec<String>)> {
        let first = self.changed_input(vertex, now, before)?;
        let mut changed = Some(first.0);
        while let Some(input) = changed {
            if let Some(found) = self.own_cause(input) {
                return Some(found);
            }
            changed = match (self.now(input), self.before(&input.digest)) {
                (Some(now), Some(before)) => self
                    .changed_input(input, &now, before)
                    .map(|(input, _)| input),
                _ => None,
            };
        }
        let (input, part) = first;
        let is_moved = !before
            .inputs
            .iter()
            .any(|old| old.instruction == part.instruction);
        let cause = match self.step_name(&input.digest) {
            Some(step) if !is_moved => MissCause::Input { step },
            _ => MissCause::Moved {
                after: part.instruction,
            },
        };
        Some((cause, Vec::new()))
    }

    /// Returns the first input that is not what it was.
    fn changed_input(
        &self,
        vertex: &Vertex,
        now: &StepParts,
        before: &StepParts,
    ) -> Option<(&'a Vertex, InputPart)> {
        let inputs = self.step_inputs(vertex).zip(&now.inputs).enumerate();
        inputs
            .filter(|(position, (_, part))| {
                before.inputs.get(*position).map(|old| old.state) != Some(part.state)
            })
            .find_map(|(_, (input, part))| {
                Some((self.lowered.definition.get(input)?, part.clone()))
            })
    }

    /// Returns the name of a step of the Dockerfile that is no image.
    fn step_name(&self, vertex: &Digest) -> Option<String> {
        self.past()
            .steps
            .contains_key(vertex)
            .then(|| self.lowered.definition.get(vertex).map(Vertex::name))?
    }

    /// Returns the difference in what a step reads of its inputs.
    fn file_cause(&self, vertex: &Vertex, before: &StepParts) -> Option<(MissCause, Vec<String>)> {
        let contents = self
            .state()
            .contents
            .get(&vertex.digest)
            .cloned()
            .unwrap_or_default();
        contents
            .iter()
            .filter_map(|(input, now)| Some((now, before.contents.get(input)?)))
            .filter(|(now, old)| now != old)
            .find_map(|(now, old)| {
                let now = self.manifest(now)?;
                let differences = Manifest::compare(&self.manifest(old)?, &now);
                let details = differences
                    .iter()
                    .take(MAX_DETAILS)
                    .map(|difference| file_change(difference, 0).to_string());
                let details = details.collect();
                self.ignore_cause(&differences)
                    .or_else(|| first_file(&differences))
                    .map(|cause| (cause, details))
            })
    }

    /// Returns the manifest of a content: of this build, or of an earlier one.
    fn manifest(&self, content: &Digest) -> Option<Manifest> {
        let bytes = match self.state().manifests.get(content) {
            Some(bytes) => bytes.clone(),
            None => {
                self.store
                    .last_steps(MANIFESTS, content.as_str(), 1)
                    .ok()?
                    .pop()?
                    .parts
            }
        };
        Manifest::decode(&bytes).ok()
    }

    /// Returns the ignore file as the cause, if it is why a file comes or goes.
    fn ignore_cause(&self, differences: &[Difference]) -> Option<MissCause> {
        if self.ignore_patterns == self.past().earlier.ignore_patterns {
            return None;
        }
        let ignored = |patterns: &[String], path: &str| {
            PatternMatcher::new(patterns).is_ok_and(|matcher| {
                matcher.matches_or_parent_matches(path.trim_start_matches('/').as_bytes())
            })
        };
        let decided = differences
            .iter()
            .find(|difference| match difference.change {
                Change::Added => ignored(&self.past().earlier.ignore_patterns, &difference.path),
                Change::Removed => ignored(&self.ignore_patterns, &difference.path),
                _ => false,
            })?;
        Some(MissCause::IgnoreFile {
            name: self.ignore_name.clone(),
            path: PathBuf::from(&decided.path),
        })
    }
}

fn first_file(differences: &[Difference]) -> Option<MissCause> {
    // A directory changes with what is in it; the file tells more.
    let first = differences
        .iter()
        .find(|difference| !difference.path.is_empty())
        .or(differences.first())?;
    Some(file_change(first, differences.len() - 1))
}

fn file_change(difference: &Difference, others_count: usize) -> MissCause {
    let path = PathBuf::from(&difference.path);
    let change = match &difference.change {
        Change::Renamed { from } => {
            return MissCause::Renamed {
                from: PathBuf::from(from),
                to: path,
                others_count,
            };
        }
        Change::Added => FileChange::Added,
        Change::Removed => FileChange::Removed,
        Change::Content => FileChange::Content,
        Change::Mode => FileChange::Mode,
        Change::Owner => FileChange::Owner,
        Change::Kind | Change::Attributes => FileChange::Kind,
    };
    MissCause::File {
        path,
        change,
        others_count,
    }
}
