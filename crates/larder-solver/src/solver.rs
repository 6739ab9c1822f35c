use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use larder_oci::Digest;

use crate::{Command, Error, Event, JobId, Progress, RequestId};

mod answers;
#[cfg(debug_assertions)]
mod check;
mod jobs;
mod lookup;
mod run;
mod state;
mod vertices;

use state::{Ask, Identity, Ix, Job, JobState, Owner, Phase, Remains, Request, Vertex, Want};
use vertices::Vertices;

/// How a solver behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// How many [limited](crate::VertexSpec::limited) vertices run at once, 1 or more; `None` for
    /// any number.
    pub max_parallelism: Option<usize>,
}

/// Finds the results of all jobs in flight. See the [crate](crate) for how it is driven.
///
/// `R` names a result, `E` is the failure of a step.
pub struct Solver<R, E> {
    options: Options,
    vertices: Vertices<R, E>,
    /// The vertices that new jobs can share.
    index: HashMap<Identity, Ix>,
    jobs: BTreeMap<JobId, Job<R, E>>,
    requests: BTreeMap<RequestId, Request<R>>,
    remains: BTreeMap<u64, Remains>,
    /// Locks that are held or asked for, each with the vertices that wait for its end.
    locks: BTreeMap<Digest, BTreeSet<Ix>>,
    /// Vertices that wait for a place among the running ones.
    queue: BTreeSet<Ix>,
    /// How many limited vertices run.
    running: usize,
    /// Vertices whose state, inputs or wants changed.
    changed: BTreeSet<Ix>,
    /// Whether a failure may concern further jobs.
    failures_changed: bool,
    commands: Vec<Command<R, E>>,
    next: u64,
}

impl<R: Clone, E: Clone + From<Error>> Solver<R, E> {
    /// Makes a solver without jobs.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            vertices: Vertices::default(),
            index: HashMap::new(),
            jobs: BTreeMap::new(),
            requests: BTreeMap::new(),
            remains: BTreeMap::new(),
            locks: BTreeMap::new(),
            queue: BTreeSet::new(),
            running: 0,
            changed: BTreeSet::new(),
            failures_changed: false,
            commands: Vec::new(),
            next: 0,
        }
    }

    /// Takes an event and returns what is to be done now, in order. The same events in the same
    /// order give the same commands.
    ///
    /// Answers to requests that nobody made are ignored, but what they bring is released.
    pub fn step(&mut self, event: Event<R, E>) -> Vec<Command<R, E>> {
        self.take(event);
        loop {
            while let Some(ix) = self.changed.pop_first() {
                self.advance(ix);
            }
            self.start_queued();
            if !self.settle_jobs() && self.changed.is_empty() {
                break;
            }
        }
        #[cfg(debug_assertions)]
        self.check();
        std::mem::take(&mut self.commands)
    }

    /// Returns the jobs that load the vertex of a request, ascending: those in whose name the work
    /// is done, at this moment. Empty if the request was canceled or answered.
    pub fn jobs(&self, request: RequestId) -> Vec<JobId> {
        match self.requests.get(&request).map(|request| request.owner) {
            Some(Owner::Vertex(ix)) => self.watchers(ix),
            Some(Owner::Remains(_)) | None => Vec::new(),
        }
    }

    /// Returns whether no job, request, lock or result is left.
    pub fn is_idle(&self) -> bool {
        self.vertices.is_empty()
            && self.jobs.is_empty()
            && self.requests.is_empty()
            && self.locks.is_empty()
            && self.remains.is_empty()
    }

    fn take(&mut self, event: Event<R, E>) {
        match event {
            Event::AddJob {
                job,
                vertices,
                targets,
            } => self.add_job(job, vertices, &targets),
            Event::CancelJob { job } => self.cancel_job(job),
            Event::CloseJob { job } => self.close_job(job),
            answer => self.take_answer(answer),
        }
    }

    /// Brings a vertex as far as it can get with what is known.
    fn advance(&mut self, ix: Ix) {
        let Some(vertex) = self.vertices.get(ix) else {
            return;
        };
        if vertex.failed.is_some() {
            return;
        }
        if vertex.owed().is_empty() {
            if vertex.phase == Phase::Idle {
                self.unlock(ix);
            }
            return;
        }
        self.request_cache_map(ix);
        for input in 0..self.vertices[&ix].inputs.len() {
            self.want_input(ix, input, Want::Keys);
        }
        if self.vertices[&ix].map.is_none() || self.vertices[&ix].phase != Phase::Idle {
            return;
        }
        for output in self.vertices[&ix].owed() {
            self.look_up(ix, output);
        }
        self.request_content_keys(ix);
        let vertex = &self.vertices[&ix];
        let must_run = vertex.owed().iter().any(|&output| vertex.must_run(output));
        if must_run && !self.is_querying(ix) {
            self.prepare_run(ix);
        }
    }

    /// Raises what `ix` wants of one of its inputs.
    fn want_input(&mut self, ix: Ix, input: usize, want: Want) {
        let input = &mut self.vertex(ix).inputs[input];
        input.want = input.want.max(want);
        let (from, output, want) = (input.from, input.output, input.want);
        self.want(from, output, want);
    }

    /// Raises what is wanted of an edge.
    fn want(&mut self, ix: Ix, output: usize, want: Want) {
        let vertex = self.vertex(ix);
        let failed = vertex.failed.is_some();
        let known = vertex.outputs.entry(output).or_default();
        if known.want < want {
            known.want = want;
            self.changed.insert(ix);
        }
        self.failures_changed |= failed;
    }

    /// Has those who read `ix` look at it again.
    fn tell_users(&mut self, ix: Ix) {
        let users = &self.vertices[&ix].users;
        self.changed.extend(users.iter().copied());
    }

    fn vertex(&mut self, ix: Ix) -> &mut Vertex<R, E> {
        self.vertices
            .get_mut(ix)
            .expect("a vertex outlives what refers to it")
    }

    /// Registers work of a vertex; `command` makes the command for it.
    fn request(
        &mut self,
        ix: Ix,
        ask: Ask,
        held: Vec<Arc<R>>,
        command: impl FnOnce(RequestId, Digest) -> Command<R, E>,
    ) {
        let request = RequestId(self.next_id());
        let vertex = self.vertex(ix);
        vertex.work.insert(request);
        let digest = vertex.digest().clone();
        self.commands.push(command(request, digest));
        let owner = Owner::Vertex(ix);
        self.requests.insert(request, Request { owner, ask, held });
    }

    /// Whether the driver works on something for `ix` that `is` it.
    fn is_asking(&self, ix: Ix, is: impl Fn(&Ask) -> bool) -> bool {
        let work = &self.vertices[&ix].work;
        work.iter().any(|request| is(&self.requests[request].ask))
    }

    fn next_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Gives up one hold on a result; the last one releases it.
    fn drop_result(&mut self, value: Arc<R>) {
        if let Some(result) = Arc::into_inner(value) {
            self.commands.push(Command::Release { result });
        }
    }

    /// Sets the progress of a vertex and tells its jobs.
    fn notify(&mut self, ix: Ix, progress: Progress<E>) {
        self.vertex(ix).progress = Some(progress.clone());
        self.notify_jobs(ix, self.watchers(ix), progress);
    }

    /// The jobs that are told of a vertex: those that are not done.
    fn watchers(&self, ix: Ix) -> Vec<JobId> {
        let jobs = self.vertices[&ix].jobs.iter().copied();
        jobs.filter(|job| !matches!(self.jobs[job].state, JobState::Held))
            .collect()
    }

    fn notify_jobs(&mut self, ix: Ix, jobs: Vec<JobId>, progress: Progress<E>) {
        let vertex = self.vertices[&ix].digest().clone();
        self.commands.push(Command::Progress {
            vertex,
            jobs,
            progress,
        });
    }
}
