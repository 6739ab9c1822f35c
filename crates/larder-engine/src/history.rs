//! What earlier builds of the same Dockerfile were made of: read to explain misses, written for
//! the next build.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use larder_dockerfile::{EnvOrigin, Lowered};
use larder_llb::{Vertex, pb};
use larder_oci::{Digest, ImageRef};
use larder_solver::MissReason;
use larder_store::{KeyId, NewStep, Store};
use larder_tree::checksum::{Change, Difference, Manifest};
use larder_tree::pattern::PatternMatcher;
use serde::{Deserialize, Serialize};

use crate::error::{BuildError, Result};
use crate::event::{BuildEvent, FileChange, MissCause, MissEvent};
use crate::explain::{self, BasePart, EnvPart, StepParts};
use crate::progress::VertexProgress;
use crate::request::StepReport;
use crate::solve::Missed;

/// Manifests are kept under the digest of the content that they list, whatever was built.
const MANIFESTS: &str = "manifests";
/// Manifests have no key of their own.
const NO_KEY: i64 = 0;
/// How many differing files of a step are kept for `larder explain`.
const MAX_DETAILS: usize = 100;

/// A build as the next one, and `larder explain`, see it.
///
/// Written as JSON. A report that can't be read counts as none.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct BuildReport {
    pub(crate) steps: Vec<StepReport>,
    parts: Vec<StepParts>,
    ignore_patterns: Vec<String>,
}

/// The history of one Dockerfile with its context.
pub(crate) struct History<'a> {
    store: &'a Store,
    scope: String,
    lowered: &'a Lowered,
    ignore_name: String,
    ignore_patterns: Vec<String>,
    no_cache_flag: String,
    earlier: BuildReport,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The digests of what steps read of their inputs, by vertex and input.
    contents: HashMap<Digest, BTreeMap<usize, Digest>>,
    manifests: HashMap<Digest, Vec<u8>>,
    causes: HashMap<Digest, (MissCause, Vec<String>)>,
    /// The vertices that have a result.
    ended: HashSet<Digest>,
}

/// The ignore file of a build.
pub(crate) struct IgnoreFile {
    pub(crate) name: String,
    pub(crate) patterns: Vec<String>,
}

impl<'a> History<'a> {
    /// Reads the last build in `scope`.
    pub(crate) fn open(
        store: &'a Store,
        scope: String,
        lowered: &'a Lowered,
        ignore: IgnoreFile,
        no_cache_flag: String,
    ) -> Result<Self> {
        let last = store.last_build(Some(&scope))?;
        let earlier = last
            .and_then(|build| serde_json::from_slice(&build.report).ok())
            .unwrap_or_default();
        Ok(Self {
            store,
            scope,
            lowered,
            ignore_name: ignore.name,
            ignore_patterns: ignore.patterns,
            no_cache_flag,
            earlier,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the manifest of a content is not on record yet.
    pub(crate) fn wants_manifest(&self, vertex: &Vertex, content: &Digest) -> bool {
        let parts = self.parts(vertex);
        let known = parts
            .as_ref()
            .and_then(|parts| explain::counterpart(parts, &self.earlier.parts));
        !known.is_some_and(|known| known.contents.values().any(|known| known == content))
    }

    pub(crate) fn add_manifest(&self, content: &Digest, manifest: &Manifest) {
        self.state()
            .manifests
            .insert(content.clone(), manifest.encode());
    }

    pub(crate) fn add_content(&self, vertex: &Vertex, input: usize, content: &Digest) {
        self.state()
            .contents
            .entry(vertex.digest.clone())
            .or_default()
            .insert(input, content.clone());
    }

    /// Takes note that a vertex has a result.
    pub(crate) fn ended(&self, vertex: &Vertex) {
        self.state().ended.insert(vertex.digest.clone());
    }

    /// Returns why a step of this build ran; `None` where it did not.
    pub(crate) fn cause(&self, vertex: &Digest) -> Option<MissCause> {
        self.state()
            .causes
            .get(vertex)
            .map(|(cause, _)| cause.clone())
    }

    /// Finds out why a step runs, and tells.
    pub(crate) fn explain(&self, vertex: &Vertex, missed: &Missed, progress: &VertexProgress<'_>) {
        let Some(now) = self.parts(vertex) else {
            return;
        };
        let (cause, details) = self.find_cause(vertex, &now, missed);
        tracing::debug!(vertex = vertex.name(), %cause, "miss");
        let is_news = cause != MissCause::FirstBuild || !self.earlier.parts.is_empty();
        // That nothing is cached in a first build is known without being told at each step.
        if is_news {
            progress.send(BuildEvent::Miss(MissEvent {
                vertex: vertex.digest.clone(),
                cause: cause.clone(),
            }));
        }
        self.state()
            .causes
            .insert(vertex.digest.clone(), (cause, details));
    }

    fn find_cause(
        &self,
        vertex: &Vertex,
        now: &StepParts,
        missed: &Missed,
    ) -> (MissCause, Vec<String>) {
        if missed.reason == MissReason::IgnoreCache {
            return (
                MissCause::NoCache {
                    flag: self.no_cache_flag.clone(),
                },
                Vec::new(),
            );
        }
        let Some(before) = explain::counterpart(now, &self.earlier.parts) else {
            return (MissCause::FirstBuild, Vec::new());
        };
        if let Some(cause) = explain::difference(now, before) {
            return (cause, Vec::new());
        }
        if let Some(found) = self.file_cause(vertex, before) {
            return found;
        }
        let input = missed
            .inputs
            .iter()
            .filter(|input| input.executed)
            .find_map(|input| {
                let step = self.lowered.steps.get(&input.vertex)?;
                (step.base_image.is_none())
                    .then(|| self.lowered.definition.get(&input.vertex).map(Vertex::name))?
            });
        match input {
            Some(step) => (MissCause::Input { step }, Vec::new()),
            None => (MissCause::Pruned { at: None }, Vec::new()),
        }
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
        if self.ignore_patterns == self.earlier.ignore_patterns {
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
                Change::Added => ignored(&self.earlier.ignore_patterns, &difference.path),
                Change::Removed => ignored(&self.ignore_patterns, &difference.path),
                _ => false,
            })?;
        Some(MissCause::IgnoreFile {
            name: self.ignore_name.clone(),
            path: PathBuf::from(&decided.path),
        })
    }

    /// Returns what a step's key is made of; `None` for what is no step of the Dockerfile.
    fn parts(&self, vertex: &Vertex) -> Option<StepParts> {
        let info = self.lowered.steps.get(&vertex.digest)?;
        if info.base_image.is_some() {
            return None;
        }
        let env = match &vertex.op.op {
            Some(pb::op::Op::Exec(exec)) => exec
                .meta
                .as_ref()
                .map(|meta| meta.env.as_slice())
                .unwrap_or_default(),
            _ => &[],
        };
        let env = env
            .iter()
            .filter_map(|entry| entry.split_once('='))
            .map(|(name, value)| {
                let origin = info.env.get(name);
                EnvPart {
                    name: name.to_owned(),
                    value: explain::short(value),
                    is_arg: matches!(origin, Some(EnvOrigin::Arg { .. })),
                    line: match origin {
                        Some(EnvOrigin::Arg { line, .. } | EnvOrigin::Env { line }) => Some(*line),
                        Some(EnvOrigin::Base) | None => None,
                    },
                }
            });
        let bases = vertex.inputs.iter().filter_map(|input| {
            let base = self.lowered.steps.get(&input.vertex)?.base_image.as_ref()?;
            Some(BasePart {
                image_ref: base.clone(),
                digest: self.image_digest(&input.vertex)?,
            })
        });
        Some(StepParts {
            stage: info.stage.clone(),
            ordinal: info.ordinal,
            name: vertex.name(),
            instruction: info.instruction.clone(),
            line: Some(info.lines.0),
            platform: explain::platform(vertex),
            fields: explain::fields(vertex),
            env: env.collect(),
            bases: bases.collect(),
            contents: self
                .state()
                .contents
                .get(&vertex.digest)
                .cloned()
                .unwrap_or_default(),
        })
    }

    fn image_digest(&self, vertex: &Digest) -> Option<Digest> {
        let Some(pb::op::Op::Source(source)) = &self.lowered.definition.get(vertex)?.op.op else {
            return None;
        };
        let image_ref: ImageRef = source
            .identifier
            .strip_prefix("docker-image://")?
            .parse()
            .ok()?;
        image_ref.digest().cloned()
    }

    /// Records the build. Steps that were not reached keep what is known of them.
    pub(crate) fn save(&self, mut steps: Vec<StepReport>) -> Result<()> {
        let state = self.state();
        for step in &mut steps {
            let details = state.causes.iter().find_map(|(vertex, (_, details))| {
                let name = self.lowered.definition.get(vertex)?.name();
                (name == step.name).then_some(details)
            });
            step.details = details.cloned().unwrap_or_default();
        }
        let manifests: Vec<(&str, &[u8])> = state
            .manifests
            .iter()
            .map(|(content, bytes)| (content.as_str(), bytes.as_slice()))
            .collect();
        let manifests: Vec<NewStep<'_>> = manifests
            .iter()
            .map(|(step, parts)| NewStep {
                step,
                key: KeyId::from(NO_KEY),
                parts,
            })
            .collect();
        self.store.save_steps(MANIFESTS, &manifests)?;
        drop(state);
        let report = BuildReport {
            parts: self.all_parts(),
            steps,
            ignore_patterns: self.ignore_patterns.clone(),
        };
        let bytes = serde_json::to_vec(&report).map_err(|error| {
            BuildError::internal("cannot encode the report of a build").with_source(error)
        })?;
        Ok(self.store.save_build(&self.scope, &bytes)?)
    }

    /// Returns what is known of each step after this build. What has no result is as it was.
    fn all_parts(&self) -> Vec<StepParts> {
        let mut all = Vec::new();
        for vertex in self.lowered.definition.vertices() {
            let Some(mut parts) = self.parts(vertex) else {
                continue;
            };
            let before = explain::counterpart(&parts, &self.earlier.parts);
            if !self.state().ended.contains(&vertex.digest) {
                all.extend(before.cloned());
                continue;
            }
            if let Some(before) = before {
                for (input, content) in &before.contents {
                    parts
                        .contents
                        .entry(*input)
                        .or_insert_with(|| content.clone());
                }
            }
            all.push(parts);
        }
        let other_stages = self.earlier.parts.iter().filter(|before| {
            let stage_of = |step: &larder_dockerfile::StepInfo| step.stage == before.stage;
            !self.lowered.steps.values().any(stage_of)
        });
        all.extend(other_stages.cloned());
        all
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
