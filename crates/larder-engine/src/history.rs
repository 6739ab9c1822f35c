//! What earlier builds of the same Dockerfile were made of: read to explain misses, written for
//! the next build.

mod causes;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use larder_dockerfile::{EnvOrigin, Lowered};
use larder_llb::{Vertex, pb};
use larder_oci::{Digest, ImageRef};
use larder_store::{KeyId, NewStep, PackedReport, Store};
use larder_tree::checksum::{Manifest, Selector};
use serde::{Deserialize, Serialize};

use crate::doctor::ImportRecord;
use crate::error::{BuildError, Result};
use crate::event::MissCause;
use crate::explain::{self, BasePart, EnvPart, InputPart, ShortDigest, SourcePart, StepParts};
use crate::progress::VertexProgress;
use crate::request::StepReport;
use crate::solve::Missed;

/// Manifests are kept under their listing, whatever was built.
const MANIFESTS: &str = "manifests";
/// Manifests have no key of their own.
const NO_KEY: i64 = 0;

/// A build as the next one, and `larder explain`, see it.
///
/// Written as JSON. A report that can't be read counts as none.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct BuildReport {
    pub(crate) steps: Vec<StepReport>,
    pub(crate) parts: Vec<StepParts>,
    ignore_patterns: Vec<String>,
    /// Of several targets that were built together, which this is, and the scopes of all, in their
    /// order; empty for one alone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) target: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) run: Vec<String>,
    /// What came of imported caches; empty where none was read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) imports: Vec<ImportRecord>,
}

/// The history of one Dockerfile with its context.
pub(crate) struct History<'a> {
    store: &'a Store,
    scope: String,
    /// Where to look for the last build if there was none in the scope.
    other_scope: Option<String>,
    lowered: &'a Lowered,
    ignore_name: String,
    ignore_patterns: Vec<String>,
    no_cache_flag: String,
    past: OnceLock<Past>,
    notes: &'a Notes,
    /// See [`BuildReport::target`].
    run: (String, Vec<String>),
    /// Over all that the steps and images are made of that some step stands on.
    states: Mutex<HashMap<Digest, ShortDigest>>,
}

/// The steps, and what they were in the last build.
#[derive(Default)]
struct Past {
    earlier: BuildReport,
    /// The steps, without what they read and stand on: that is known when they run.
    steps: HashMap<Digest, StepParts>,
    /// Which of the earlier steps each was.
    counterparts: HashMap<Digest, usize>,
}

/// What becomes known of vertices while all targets of a run are built: what several of them need
/// is read and made in the name of one.
#[derive(Default)]
pub(crate) struct Notes(Mutex<State>);

#[derive(Default)]
struct State {
    /// The listings of what steps read of their inputs, by vertex and input.
    contents: HashMap<Digest, BTreeMap<usize, Digest>>,
    manifests: HashMap<Digest, Vec<u8>>,
    /// What was fetched, by vertex.
    sources: HashMap<Digest, SourcePart>,
    causes: HashMap<Digest, (MissCause, Vec<String>)>,
    /// The vertices that have a result.
    ended: HashSet<Digest>,
    /// The records whose results the vertices have.
    keys: HashMap<Digest, KeyId>,
    /// All records that the vertices were found as, with a result or without.
    found: HashMap<Digest, BTreeSet<KeyId>>,
}

/// The ignore file of a build.
#[derive(Default)]
pub(crate) struct IgnoreFile {
    pub(crate) name: String,
    pub(crate) patterns: Vec<String>,
}

/// Returns what was fetched for a vertex.
fn sources_of(state: &State, vertex: &Vertex) -> Vec<SourcePart> {
    let inputs = vertex.inputs.iter();
    let sources = inputs.filter_map(|input| state.sources.get(&input.vertex));
    sources.cloned().collect()
}

/// Names what is read of an input. The content's digest is not enough: it does not tell a file's
/// name.
pub(crate) fn listing(content: &Digest, selectors: &[Selector]) -> Digest {
    Digest::sha256(format!("{content} {selectors:?}"))
}

impl<'a> History<'a> {
    /// Makes a history for the first of `scopes`. If nothing was built in it, the last build is that of the
    /// other, which is about another platform. It is read when it is first needed.
    pub(crate) fn new(
        store: &'a Store,
        (scope, other_scope): (String, Option<String>),
        lowered: &'a Lowered,
        ignore: IgnoreFile,
        no_cache_flag: String,
        notes: &'a Notes,
    ) -> Self {
        Self {
            store,
            scope,
            other_scope,
            lowered,
            ignore_name: ignore.name,
            ignore_patterns: ignore.patterns,
            no_cache_flag,
            past: OnceLock::new(),
            notes,
            run: Default::default(),
            states: Mutex::default(),
        }
    }

    /// Returns the history of a build within this one. It is not kept, but what becomes known of
    /// its vertices is known here, too.
    pub(crate) fn nested<'n>(&'n self, lowered: &'n Lowered) -> History<'n> {
        History {
            store: self.store,
            scope: String::new(),
            other_scope: None,
            lowered,
            ignore_name: String::new(),
            ignore_patterns: Vec::new(),
            no_cache_flag: String::new(),
            past: Past::default().into(),
            notes: self.notes,
            run: Default::default(),
            states: Mutex::default(),
        }
    }

    /// Takes note that this is one of several targets, and of the scopes of all.
    pub(crate) fn set_run(&mut self, target: &str, scopes: Vec<String>) {
        self.run = (target.to_owned(), scopes);
    }

    /// Reads the last build, unless that was done. One that can't be read counts as none.
    pub(crate) fn read(&self) {
        self.past();
    }

    fn past(&self) -> &Past {
        self.past.get_or_init(|| {
            let earlier = self.last_report().unwrap_or_else(|error| {
                tracing::warn!(%error, "the report of the last build can't be read");
                None
            });
            self.compare(earlier.unwrap_or_default())
        })
    }

    fn last_report(&self) -> larder_store::Result<Option<BuildReport>> {
        let mut last = self.store.last_build(Some(&self.scope))?;
        if let (None, Some(other)) = (&last, &self.other_scope) {
            last = self.store.last_build(Some(other))?;
        }
        Ok(last.and_then(|build| serde_json::from_slice(&build.report).ok()))
    }

    fn compare(&self, earlier: BuildReport) -> Past {
        let vertices = self.lowered.definition.vertices();
        let parts = |vertex: &Vertex| Some((vertex.digest.clone(), self.parts(vertex)?));
        let (digests, steps): (Vec<_>, Vec<_>) = vertices.iter().filter_map(parts).unzip();
        let found = explain::counterparts(&steps.iter().collect::<Vec<_>>(), &earlier.parts);
        let pairs = digests.iter().zip(found);
        let counterparts = pairs.filter_map(|(digest, found)| Some((digest.clone(), found?)));
        Past {
            counterparts: counterparts.collect(),
            steps: digests.into_iter().zip(steps).collect(),
            earlier,
        }
    }

    /// Returns what is known of the step when it last had a result.
    fn before(&self, vertex: &Digest) -> Option<&StepParts> {
        let past = self.past();
        Some(&past.earlier.parts[*past.counterparts.get(vertex)?])
    }

    /// Returns the record that the step's result had in the last build.
    pub(crate) fn key_before(&self, vertex: &Vertex) -> Option<KeyId> {
        self.before(&vertex.digest)?.key.map(KeyId::from)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let Notes(state) = self.notes;
        state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn states(&self) -> MutexGuard<'_, HashMap<Digest, ShortDigest>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the manifest of a listing is not on record yet.
    pub(crate) fn wants_manifest(&self, vertex: &Vertex, listing: &Digest) -> bool {
        let known = self.before(&vertex.digest);
        !known.is_some_and(|known| known.contents.values().any(|known| known == listing))
    }

    pub(crate) fn add_manifest(&self, listing: &Digest, manifest: &Manifest) {
        self.state()
            .manifests
            .insert(listing.clone(), manifest.encode());
    }

    pub(crate) fn add_content(&self, vertex: &Vertex, input: usize, listing: Digest) {
        self.state()
            .contents
            .entry(vertex.digest.clone())
            .or_default()
            .insert(input, listing);
    }

    /// Takes note of what a vertex stands for that was fetched.
    pub(crate) fn add_source(&self, vertex: &Vertex, source: SourcePart) {
        let mut state = self.state();
        state.sources.insert(vertex.digest.clone(), source);
    }

    /// Takes note of the record that a vertex's result was found in, or stored under.
    pub(crate) fn set_key(&self, vertex: &Vertex, key: KeyId) {
        self.state().keys.insert(vertex.digest.clone(), key);
    }

    /// Takes note of a record that a vertex is found as.
    pub(crate) fn add_found(&self, vertex: &Vertex, key: KeyId) {
        let mut state = self.state();
        let found = state.found.entry(vertex.digest.clone()).or_default();
        found.insert(key);
    }

    /// Returns the records that this target's vertices were found as, sorted.
    pub(crate) fn found(&self) -> Vec<KeyId> {
        let state = self.state();
        let vertices = self.lowered.definition.vertices().iter();
        let found = vertices.filter_map(|vertex| state.found.get(&vertex.digest));
        let found: BTreeSet<KeyId> = found.flatten().copied().collect();
        found.into_iter().collect()
    }

    /// Returns those of the records whose results their vertices want kept out of exported caches,
    /// and no other vertex has.
    pub(crate) fn withheld(&self) -> HashSet<KeyId> {
        let state = self.state();
        let found = |is_withheld: bool| -> HashSet<KeyId> {
            let vertices = self.lowered.definition.vertices().iter();
            let vertices = vertices.filter(|vertex| vertex.withholds_result() == is_withheld);
            let found = vertices.filter_map(|vertex| state.found.get(&vertex.digest));
            found.flatten().copied().collect()
        };
        let others = found(false);
        let mut withheld = found(true);
        withheld.retain(|key| !others.contains(key));
        withheld
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
        if !self.past().steps.contains_key(&vertex.digest) {
            return;
        }
        let (cause, details) = self.find_cause(vertex, missed);
        tracing::debug!(vertex = vertex.name(), %cause, "miss");
        let is_news = cause != MissCause::FirstBuild || !self.past().earlier.parts.is_empty();
        // That nothing is cached in a first build is known without being told at each step.
        if is_news {
            progress.miss(cause.clone());
        }
        self.state()
            .causes
            .insert(vertex.digest.clone(), (cause, details));
    }

    /// Returns the inputs that are steps or images.
    fn step_inputs<'v>(&self, vertex: &'v Vertex) -> impl Iterator<Item = &'v Digest> {
        let inputs = vertex.inputs.iter().map(|input| &input.vertex);
        inputs.filter(|input| self.lowered.steps.contains_key(*input))
    }

    /// Returns what a step's key is made of, apart from its inputs; `None` for what is no step of
    /// the Dockerfile.
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
                platform: explain::platform(self.lowered.definition.get(&input.vertex)?),
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
            sources: Vec::new(),
            contents: BTreeMap::new(),
            inputs: Vec::new(),
            key: None,
        })
    }

    /// Returns all that a step of this build is made of. What it reads and stands on must be known.
    fn now(&self, vertex: &Vertex) -> Option<StepParts> {
        let mut pending = vec![vertex];
        while let Some(&last) = pending.last() {
            let is_unknown = |input: &&Digest| !self.states().contains_key(*input);
            let unknown = self.step_inputs(last).filter(is_unknown);
            let unknown = unknown.filter_map(|input| self.lowered.definition.get(input));
            let count = pending.len();
            pending.extend(unknown.collect::<Vec<_>>());
            if pending.len() == count {
                pending.pop();
                if !pending.is_empty() {
                    let state = match self.with_inputs(last) {
                        Some(parts) => parts.state(),
                        None => self.image_state(last),
                    };
                    self.states().insert(last.digest.clone(), state);
                }
            }
        }
        self.with_inputs(vertex)
    }

    /// Adds to a step what it reads and what it stands on. What was not read, because the step was
    /// found without, is taken to be as it was.
    fn with_inputs(&self, vertex: &Vertex) -> Option<StepParts> {
        let mut parts = self.past().steps.get(&vertex.digest)?.clone();
        let state = self.state();
        parts.contents = state
            .contents
            .get(&vertex.digest)
            .cloned()
            .unwrap_or_default();
        for (input, content) in self
            .before(&vertex.digest)
            .iter()
            .flat_map(|step| &step.contents)
        {
            let read = parts.contents.entry(*input);
            read.or_insert_with(|| content.clone());
        }
        let input = |input: &Digest| InputPart {
            instruction: self.lowered.steps[input].instruction.clone(),
            state: self.states().get(input).copied().unwrap_or_default(),
        };
        parts.inputs = self.step_inputs(vertex).map(input).collect();
        parts.sources = sources_of(&state, vertex);
        parts.key = state.keys.get(&vertex.digest).map(|key| key.get());
        Some(parts)
    }

    /// Returns a digest over what an image is.
    fn image_state(&self, vertex: &Vertex) -> ShortDigest {
        let platform = explain::platform(vertex);
        explain::short(format!(
            "{:?}{platform:?}",
            self.image_digest(&vertex.digest)
        ))
    }

    fn image_digest(&self, vertex: &Digest) -> Option<Digest> {
        let Some(pb::op::Op::Source(source)) = &self.lowered.definition.get(vertex)?.op.op else {
            return None;
        };
        let image_ref: ImageRef = source
            .identifier
            .strip_prefix("docker-image://")
            .or_else(|| source.identifier.strip_prefix("oci-layout://"))?
            .parse()
            .ok()?;
        image_ref.digest().cloned()
    }

    /// Records the build.
    pub(crate) fn save(&self, report: &PackedReport) -> Result<()> {
        let state = self.state();
        let manifests = state.manifests.iter().map(|(content, bytes)| NewStep {
            step: content.as_str(),
            key: KeyId::from(NO_KEY),
            parts: bytes.as_slice(),
        });
        let manifests: Vec<NewStep<'_>> = manifests.collect();
        self.store.save_steps(MANIFESTS, &manifests)?;
        Ok(self.store.save_packed_build(&self.scope, report)?)
    }

    /// Returns the report of the build, which must be over. Steps that were not reached keep what is known
    /// of them.
    pub(crate) fn report(
        &self,
        mut steps: Vec<StepReport>,
        imports: Vec<ImportRecord>,
    ) -> Result<PackedReport> {
        let state = self.state();
        let details = state.causes.iter().filter_map(|(vertex, (_, details))| {
            let name = self.lowered.definition.get(vertex)?.name();
            Some((name, details))
        });
        let details: HashMap<String, &Vec<String>> = details.collect();
        for step in &mut steps {
            let details = details.get(&step.name).copied();
            step.details = details.cloned().unwrap_or_default();
        }
        drop(state);
        let (target, run) = self.run.clone();
        let report = BuildReport {
            parts: self.all_parts(),
            steps,
            target,
            run,
            ignore_patterns: self.ignore_patterns.clone(),
            imports,
        };
        let bytes = serde_json::to_vec(&report).map_err(|error| {
            BuildError::internal("cannot encode the report of a build").with_source(error)
        })?;
        Ok(PackedReport::of(&bytes)?)
    }

    /// Returns what is known of each step after this build. What has no result is as it was.
    fn all_parts(&self) -> Vec<StepParts> {
        let mut all = Vec::new();
        for vertex in self.lowered.definition.vertices() {
            if self.state().ended.contains(&vertex.digest) {
                let now = self.now(vertex);
                if let Some(parts) = &now {
                    // For those that stand on it.
                    let mut states = self.states();
                    let state = states.entry(vertex.digest.clone());
                    state.or_insert_with(|| parts.state());
                }
                all.extend(now);
            } else {
                all.extend(self.before(&vertex.digest).cloned());
            }
        }
        let stages: HashSet<_> = self.lowered.steps.values().map(|it| &it.stage).collect();
        let parts = self.past().earlier.parts.iter();
        let other_stages = parts.filter(|before| !stages.contains(&before.stage));
        all.extend(other_stages.cloned());
        all
    }
}
