//! Jobs: loading their graphs, and ending them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use larder_oci::Digest;

use super::state::{Content, Ending, Identity, Input, Ix, Job, JobState, Phase, Vertex, Want};
use super::{Command, Error, Progress, Solver};
use crate::{Edge, Failure, JobId, KeyId, Outcome, Target, VertexSpec};

impl<R: Clone, E: Clone + From<Error>> Solver<R, E> {
    pub(super) fn add_job(&mut self, job: JobId, specs: Vec<VertexSpec>, targets: &[Edge]) {
        if self.jobs.contains_key(&job) {
            tracing::error!(job = job.0, "job id used twice");
            return;
        }
        if let Err(failure) = check_graph(&specs, targets) {
            let outcome = Outcome::Failed(vec![failure]);
            self.commands.push(Command::JobDone { job, outcome });
            return;
        }
        let mut loaded: HashMap<Digest, Ix> = HashMap::new();
        for spec in reachable(specs, targets) {
            if !loaded.contains_key(&spec.digest) {
                let digest = spec.digest.clone();
                let ix = self.load(job, spec, &loaded);
                loaded.insert(digest, ix);
            }
        }
        let targets: Vec<_> = targets
            .iter()
            .map(|edge| (loaded[&edge.vertex], edge.output))
            .collect();
        let known = Job {
            vertices: loaded.into_values().collect(),
            targets: targets.clone(),
            results: Vec::new(),
            state: JobState::Active,
        };
        self.jobs.insert(job, known);
        for (ix, output) in targets {
            self.want(ix, output, Want::Result);
        }
    }

    /// Finds or makes the vertex for `spec`.
    fn load(&mut self, job: JobId, spec: VertexSpec, loaded: &HashMap<Digest, Ix>) -> Ix {
        let inputs = spec.inputs.iter();
        let identity = Identity {
            digest: spec.digest,
            ignore_cache: spec.ignore_cache,
            inputs: inputs
                .map(|edge| (loaded[&edge.vertex], edge.output))
                .collect(),
        };
        if let Some(&ix) = self.index.get(&identity) {
            let vertex = self.vertex(ix);
            vertex.jobs.insert(job);
            if let Some(progress) = vertex.progress.clone() {
                self.notify_jobs(ix, vec![job], progress);
            }
            return ix;
        }
        let ix = self.vertices.next();
        let input = |&(from, output): &(Ix, usize)| Input {
            from,
            output,
            want: Want::Nothing,
            content: Content::Unknown,
        };
        for &(from, output) in &identity.inputs {
            self.vertex(from).users.insert(ix);
            self.vertex(from).outputs.entry(output).or_default();
        }
        let vertex = Vertex {
            inputs: identity.inputs.iter().map(input).collect(),
            identity: identity.clone(),
            limited: spec.limited,
            outputs: BTreeMap::new(),
            users: BTreeSet::new(),
            jobs: BTreeSet::from([job]),
            map: None,
            phase: Phase::Idle,
            lock: None,
            executed: false,
            miss_told: false,
            progress: None,
            failed: None,
            work: BTreeSet::new(),
        };
        let ix = self.vertices.add(vertex);
        self.index.insert(identity, ix);
        ix
    }

    pub(super) fn cancel_job(&mut self, job: JobId) {
        if let Some(JobState::Active) = self.jobs.get(&job).map(|job| &job.state) {
            self.end_job(job, Ending::Canceled);
        }
    }

    pub(super) fn close_job(&mut self, job: JobId) {
        if let Some(JobState::Held) = self.jobs.get(&job).map(|job| &job.state) {
            self.unload(job);
            let results = self.jobs.remove(&job).map(|job| job.results);
            for (value, _) in results.into_iter().flatten() {
                self.drop_result(value);
            }
        }
    }

    /// Ends the jobs that can be ended; returns whether there were any.
    pub(super) fn settle_jobs(&mut self) -> bool {
        let look_for_failures = std::mem::take(&mut self.failures_changed);
        let mut settled = false;
        for job in self.jobs.keys().copied().collect::<Vec<_>>() {
            match &self.jobs[&job].state {
                JobState::Active => {
                    if let Some(results) = self.results(job) {
                        if let Some(known) = self.jobs.get_mut(&job) {
                            known.results = results;
                        }
                        self.end_job(job, Ending::Built);
                        settled = true;
                    } else if look_for_failures {
                        let failures = self.failures(job);
                        if !failures.is_empty() {
                            self.end_job(job, Ending::Failed(failures));
                            settled = true;
                        }
                    }
                }
                JobState::Ending(_) => {
                    if !self.remains.values().any(|rest| rest.jobs.contains(&job)) {
                        self.finish_job(job);
                        settled = true;
                    }
                }
                JobState::Held => {}
            }
        }
        settled
    }

    /// The results of a job's targets, if all are there.
    fn results(&self, job: JobId) -> Option<Vec<(Arc<R>, Vec<KeyId>)>> {
        let targets = self.jobs[&job].targets.iter();
        let result = |(ix, output): &(Ix, usize)| {
            let held = self.vertices[ix].outputs[output].result.as_ref()?;
            Some((Arc::clone(&held.value), held.keys.clone()))
        };
        targets.map(result).collect()
    }

    /// The failures of the vertices that a job waits for.
    fn failures(&self, job: JobId) -> Vec<Failure<E>> {
        let needed = self.needed(self.jobs[&job].targets.iter().copied());
        let vertices: BTreeSet<Ix> = needed.into_keys().map(|(ix, _)| ix).collect();
        let failure = |ix: Ix| {
            let vertex = &self.vertices[&ix];
            let error = vertex.failed.clone()?;
            let vertex = vertex.digest().clone();
            Some(Failure { vertex, error })
        };
        vertices.into_iter().filter_map(failure).collect()
    }

    /// What has still to be solved for `targets`, and how far.
    pub(super) fn needed(
        &self,
        targets: impl Iterator<Item = (Ix, usize)>,
    ) -> BTreeMap<(Ix, usize), Want> {
        let mut needed = BTreeMap::new();
        let mut rest: Vec<_> = targets.map(|(ix, o)| (ix, o, Want::Result)).collect();
        while let Some((ix, output, want)) = rest.pop() {
            let vertex = &self.vertices[&ix];
            let known = needed.entry((ix, output)).or_insert(Want::Nothing);
            if want <= *known || !vertex.owes(output, want) {
                continue;
            }
            *known = want;
            let inputs = vertex.inputs.iter();
            rest.extend(inputs.map(|input| (input.from, input.output, input.want)));
        }
        needed.retain(|_, want| *want > Want::Nothing);
        needed
    }

    pub(super) fn needed_by_active_jobs(&self) -> BTreeMap<(Ix, usize), Want> {
        let active = |job: &&Job<R, E>| matches!(job.state, JobState::Active);
        let jobs = self.jobs.values().filter(active);
        self.needed(jobs.flat_map(|job| job.targets.iter().copied()))
    }

    /// Stops what only this job needs.
    fn end_job(&mut self, job: JobId, ending: Ending<E>) {
        let built = matches!(ending, Ending::Built);
        let Some(known) = self.jobs.get_mut(&job) else {
            return;
        };
        known.state = JobState::Ending(ending);
        let vertices = known.vertices.clone();
        let needed = self.needed_by_active_jobs();
        for ix in vertices {
            let needed = self.restrict(ix, job, &needed);
            self.tell_end(ix, job, built, needed);
        }
        if !built {
            self.unload(job);
        }
    }

    /// Lowers what is wanted of a vertex to what active jobs need, and gives up its work if that
    /// is nothing; returns whether it is something.
    fn restrict(&mut self, ix: Ix, job: JobId, needed: &BTreeMap<(Ix, usize), Want>) -> bool {
        let mut is_needed = false;
        let vertex = self.vertex(ix);
        for (&output, known) in &mut vertex.outputs {
            let want = needed.get(&(ix, output)).copied();
            known.want = want.unwrap_or(Want::Nothing);
            is_needed |= want.is_some();
        }
        if !is_needed {
            for input in &mut vertex.inputs {
                input.want = Want::Nothing;
            }
            self.drop_work(ix, BTreeSet::from([job]));
        }
        is_needed
    }

    /// Tells a job that ends what became of a vertex that has not ended by itself. A job that was
    /// built may have needed no more than its key.
    fn tell_end(&mut self, ix: Ix, job: JobId, built: bool, needed: bool) {
        let vertex = &self.vertices[&ix];
        let found = built && vertex.outputs.values().any(|known| !known.keys.is_empty());
        let progress = match (&vertex.progress, found) {
            (None | Some(Progress::Started), true) => Progress::Cached,
            (Some(Progress::Started), false) => Progress::Canceled,
            _ => return,
        };
        if needed {
            self.notify_jobs(ix, vec![job], progress);
            return;
        }
        self.notify(ix, progress);
        if !found {
            self.vertex(ix).progress = None;
        }
    }

    /// Takes the job's hold off its vertices, and drops those that no other job holds.
    fn unload(&mut self, job: JobId) {
        let Some(known) = self.jobs.get_mut(&job) else {
            return;
        };
        known.targets.clear();
        for ix in std::mem::take(&mut known.vertices).into_iter().rev() {
            let vertex = self.vertex(ix);
            vertex.jobs.remove(&job);
            if vertex.jobs.is_empty() {
                self.remove(ix);
            }
        }
    }

    fn remove(&mut self, ix: Ix) {
        let Some(vertex) = self.vertices.remove(ix) else {
            return;
        };
        self.unindex(ix, &vertex.identity);
        self.changed.remove(&ix);
        for (from, _) in &vertex.identity.inputs {
            self.vertex(*from).users.remove(&ix);
        }
        for output in vertex.outputs.into_values() {
            if let Some(held) = output.result {
                self.drop_result(held.value);
            }
        }
    }

    /// Keeps later jobs from sharing a vertex.
    pub(super) fn unindex(&mut self, ix: Ix, identity: &Identity) {
        if self.index.get(identity) == Some(&ix) {
            self.index.remove(identity);
        }
    }

    fn finish_job(&mut self, job: JobId) {
        let Some(mut known) = self.jobs.remove(&job) else {
            return;
        };
        let outcome = match std::mem::replace(&mut known.state, JobState::Held) {
            JobState::Ending(Ending::Built) => {
                let targets = known.results.iter().map(|(value, keys)| Target {
                    result: R::clone(value),
                    keys: keys.clone(),
                });
                let outcome = Outcome::Built(targets.collect());
                self.jobs.insert(job, known);
                outcome
            }
            JobState::Ending(Ending::Failed(failures)) => Outcome::Failed(failures),
            _ => Outcome::Canceled,
        };
        self.commands.push(Command::JobDone { job, outcome });
    }
}

/// Checks that inputs come before their readers, and that targets exist.
fn check_graph<E: From<Error>>(specs: &[VertexSpec], targets: &[Edge]) -> Result<(), Failure<E>> {
    let mut known: HashSet<&Digest> = HashSet::new();
    let check = |known: &HashSet<&Digest>, edges: &[Edge]| match edges
        .iter()
        .find(|edge| !known.contains(&edge.vertex))
    {
        None => Ok(()),
        Some(Edge { vertex, .. }) => Err(Failure {
            vertex: vertex.clone(),
            error: E::from(Error::UnknownVertex {
                vertex: vertex.clone(),
            }),
        }),
    };
    for spec in specs {
        check(&known, &spec.inputs)?;
        known.insert(&spec.digest);
    }
    check(&known, targets)
}

/// Keeps what the targets need, in the same order.
fn reachable(specs: Vec<VertexSpec>, targets: &[Edge]) -> Vec<VertexSpec> {
    let mut needed: HashSet<Digest> = targets.iter().map(|edge| edge.vertex.clone()).collect();
    let mut kept = Vec::with_capacity(specs.len());
    for spec in specs.into_iter().rev() {
        if needed.contains(&spec.digest) {
            needed.extend(spec.inputs.iter().map(|edge| edge.vertex.clone()));
            kept.push(spec);
        }
    }
    kept.reverse();
    kept
}
