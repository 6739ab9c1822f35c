//! How vertices are shown: each once, in the name of the first job that needs it.

use std::collections::HashMap;
use std::time::Duration;

use larder_llb::Definition;
use larder_oci::Digest;
use larder_solver::{JobId, Progress};

use super::{Failure, Job};
use crate::event::ProgressGroup;
use crate::progress::VertexProgress;

/// The vertices of all jobs, as shown.
pub(super) struct Rows<'env> {
    rows: Vec<Row<'env>>,
    /// By the index of a job and the digest of a vertex of it.
    by_vertex: HashMap<(usize, Digest), usize>,
    /// Whether a job is still under way.
    active: Vec<bool>,
}

struct Row<'env> {
    /// The job in whose name it is shown.
    owner: usize,
    progress: VertexProgress<'env>,
}

impl<'env> Rows<'env> {
    pub(super) fn new<W>(jobs: &[Job<'env, W>]) -> Self {
        let mut rows = Self {
            rows: Vec::new(),
            by_vertex: HashMap::new(),
            active: vec![true; jobs.len()],
        };
        // By what makes vertices one for the solver, and by the digest they are shown under.
        let mut known: HashMap<Digest, (usize, Digest)> = HashMap::new();
        let mut taken: HashMap<Digest, Digest> = HashMap::new();
        for (owner, job) in jobs.iter().enumerate() {
            let identities = identities(job.definition);
            let mut shown_as: HashMap<&Digest, Digest> = HashMap::new();
            for vertex in job.definition.vertices() {
                let identity = &identities[&vertex.digest];
                let (row, shown) = known.entry(identity.clone()).or_insert_with(|| {
                    let digest = vertex.digest.clone();
                    let shown = match taken.get(&digest) {
                        Some(_) => identity.clone(),
                        None => digest.clone(),
                    };
                    taken.insert(digest, identity.clone());
                    let inputs = vertex.inputs.iter();
                    let inputs = inputs.map(|input| shown_as[&input.vertex].clone());
                    let group = vertex.metadata.progress_group.as_ref();
                    let group = group.map(|group| ProgressGroup {
                        id: group.id.clone(),
                        name: group.name.clone(),
                        weak: group.weak,
                    });
                    let (inputs, name) = (inputs.collect(), vertex.name());
                    let progress = job.reporter.announced(shown.clone(), inputs, &name, group);
                    rows.rows.push(Row { owner, progress });
                    (rows.rows.len() - 1, shown)
                });
                shown_as.insert(&vertex.digest, shown.clone());
                rows.by_vertex.insert((owner, vertex.digest.clone()), *row);
            }
        }
        rows
    }

    /// Returns how a vertex of a job is shown.
    pub(super) fn of(&self, vertex: &Digest, job: usize) -> &VertexProgress<'env> {
        &self.rows[self.by_vertex[&(job, vertex.clone())]].progress
    }

    /// Takes note that a job ended: what others need of it is from now on shown as they see it.
    pub(super) fn job_done(&mut self, job: usize) {
        self.active[job] = false;
    }

    /// Shows what became of a vertex, as some jobs see it. Returns how long it took.
    pub(super) fn show(
        &mut self,
        vertex: &Digest,
        jobs: &[JobId],
        state: &Progress<Failure>,
    ) -> Duration {
        let jobs = jobs.iter().map(|job| job.0 as usize);
        let rows = jobs.map(|job| (job, self.by_vertex[&(job, vertex.clone())]));
        // Jobs that share a vertex share its row. Its owner's view counts while it has one.
        let row = rows
            .filter(|&(job, row)| {
                let owner = self.rows[row].owner;
                owner == job || !self.active[owner]
            })
            .map(|(_, row)| row)
            .next();
        let Some(row) = row else {
            return Duration::ZERO;
        };
        let progress = &mut self.rows[row].progress;
        match state {
            Progress::Started => {
                *progress = progress.clone().start();
                Duration::ZERO
            }
            Progress::Cached => {
                progress.cached();
                Duration::ZERO
            }
            Progress::Completed => progress.complete(),
            Progress::Failed(error) => progress.fail(&error.0.full_message()),
            Progress::Canceled => progress.fail("context canceled"),
        }
    }
}

/// Returns, for each vertex, what the solver tells it by from those of other jobs: the digest, and
/// which of the vertices below ignore the cache.
fn identities(definition: &Definition) -> HashMap<Digest, Digest> {
    let mut identities: HashMap<Digest, Digest> = HashMap::new();
    for vertex in definition.vertices() {
        let digest = &vertex.digest;
        let ignores_cache = vertex.ignores_cache();
        let inputs = || vertex.inputs.iter().map(|input| &identities[&input.vertex]);
        let is_plain = !ignores_cache
            && inputs()
                .zip(&vertex.inputs)
                .all(|(identity, input)| *identity == input.vertex);
        let identity = if is_plain {
            digest.clone()
        } else {
            let inputs: Vec<&str> = inputs().map(Digest::as_str).collect();
            Digest::sha256(format!("{digest} {ignores_cache} {}", inputs.join(" ")))
        };
        identities.insert(digest.clone(), identity);
    }
    identities
}
