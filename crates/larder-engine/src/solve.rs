//! Drives the solver: performs its commands, on threads where they take long, and feeds the
//! answers back.

mod rows;
mod threads;

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder_llb::pb::op::Op;
use larder_llb::{Definition, Vertex};
use larder_oci::Digest;
use larder_solver::{
    CacheKey, CacheMap, Command, Event, JobId, KeyId, MissReason, MissedInput, Options, Outcome,
    Progress, RequestId, SaveMode, Solver, VertexSpec,
};

use crate::cancel::CancelFlag;
use crate::error::{BuildError, Result};
use crate::progress::{Reporter, VertexProgress};
use crate::request::StepReport;
use rows::Rows;
use threads::Threads;

/// How soon a cancellation is noticed while nothing else happens.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// What the driver can't do by itself: the meaning of ops and of the store.
pub(crate) trait Worker: Sync {
    /// Names a result; cheap to copy.
    type Result: Clone + Send + Sync + std::fmt::Debug;
    /// An exclusive right to execute a key; given back when dropped.
    type Lock: Send;
    /// What look-ups that follow one another share; the default before the first.
    type LookUps: Default;

    /// Returns what a vertex feeds into its key. May wait for the network if
    /// [`Worker::cache_map_waits`].
    fn cache_map(
        &self,
        vertex: &Vertex,
        progress: &VertexProgress<'_>,
        cancel: &CancelFlag,
    ) -> Result<CacheMap>;

    /// Whether somebody else must be asked what a vertex feeds into its key.
    fn cache_map_waits(&self, vertex: &Vertex) -> bool;

    /// Looks up records. May wait for the network if [`Worker::query_waits`].
    ///
    /// As long as there are `look_ups`, others may have to wait: nothing but look-ups is done meanwhile.
    fn query(
        &self,
        vertex: &Vertex,
        output: usize,
        key: &CacheKey,
        look_ups: &mut Self::LookUps,
    ) -> Result<Found<Self::Result>>;

    /// Whether a look-up may wait for imported caches.
    fn query_waits(&self) -> bool;

    /// Whether an input must be fetched before it can be digested.
    fn digest_waits(&self, result: &Self::Result) -> bool;

    /// Digests what `vertex` reads of an input.
    fn content_key(
        &self,
        vertex: &Vertex,
        input: usize,
        result: &Self::Result,
    ) -> Result<Digest, WorkError>;

    /// Takes the lock of a key if it is free.
    fn try_lock(&self, lock: &Digest) -> Result<Option<Self::Lock>>;

    /// Waits for the lock of a key.
    fn lock(&self, lock: &Digest, cancel: &CancelFlag) -> Result<Self::Lock>;

    /// Runs the op; returns a result for each of `outputs`.
    fn execute(
        &self,
        vertex: &Vertex,
        outputs: &[usize],
        inputs: &[Self::Result],
        missed: Option<Missed>,
        progress: &VertexProgress<'_>,
        cancel: &CancelFlag,
    ) -> Result<Vec<Self::Result>, WorkError>;

    /// Stores a result under a key. Does not block for long.
    fn save(
        &self,
        vertex: &Vertex,
        output: usize,
        key: &CacheKey,
        result: &Self::Result,
        mode: SaveMode,
    ) -> Result<Vec<KeyId>>;

    /// Lets all of `key` lead to the node `to`. Does not block for long.
    fn link(&self, output: usize, key: &CacheKey, to: KeyId) -> Result<()>;

    /// Takes note of how a step ended.
    fn ended(&self, vertex: &Vertex, report: StepReport);
}

/// The result of a definition.
pub(crate) struct Solved<R> {
    pub(crate) result: R,
}

/// What a query found.
pub(crate) struct Found<R> {
    pub(crate) matches: Vec<larder_solver::Match<R>>,
    pub(crate) linked: Vec<bool>,
}

/// Why a step runs.
#[derive(Debug, Clone)]
pub(crate) struct Missed {
    pub(crate) reason: MissReason,
    /// The inputs that ran in this build.
    pub(crate) inputs: Vec<MissedInput>,
}

/// Why work came to nothing.
#[derive(Debug)]
pub(crate) enum WorkError {
    /// The work failed.
    Failed(BuildError),
    /// The result of an input is gone.
    InputLost(usize, BuildError),
}

impl From<BuildError> for WorkError {
    fn from(error: BuildError) -> Self {
        Self::Failed(error)
    }
}

/// A failure that the solver can copy.
#[derive(Debug, Clone)]
pub(crate) struct Failure(pub(crate) Arc<BuildError>);

impl From<larder_solver::Error> for Failure {
    fn from(error: larder_solver::Error) -> Self {
        Self(Arc::new(BuildError::internal(error.to_string())))
    }
}

/// A definition to be solved, with who does the work.
pub(crate) struct Job<'env, W> {
    pub(crate) worker: &'env W,
    pub(crate) definition: &'env Definition,
    pub(crate) reporter: &'env Reporter<'env>,
}

/// Why jobs ended.
pub(crate) struct JobError {
    /// The index of the first job that failed; `None` where all were canceled.
    pub(crate) job: Option<usize>,
    pub(crate) error: BuildError,
}

/// Solves all jobs at once: what they have in common is done once, in the name of the first. As
/// soon as a job has its result (`None` where its definition is empty), `finish` takes it, on a
/// thread of its own; the flag tells it that other jobs failed, or all were canceled. Returns what
/// it returned, in the order of the jobs.
///
/// # Errors
/// The first failure, which ends all jobs; or that they were canceled.
pub(crate) fn solve<W: Worker, T: Send>(
    jobs: &[Job<'_, W>],
    cancel: &CancelFlag,
    max_parallelism: Option<usize>,
    finish: Finish<'_, W, T>,
) -> Result<Vec<T>, JobError> {
    let (answers, inbox) = channel();
    std::thread::scope(|scope| {
        let mut driver = Driver {
            jobs,
            finish,
            finished: jobs.iter().map(|_| None).collect(),
            unfinished: jobs.len(),
            failed: None,
            stop: CancelFlag::new(),
            cancel: cancel.clone(),
            threads: Threads::new(scope),
            solver: Solver::new(Options { max_parallelism }),
            queue: VecDeque::new(),
            answers,
            rows: Rows::new(jobs),
            missed: HashMap::new(),
            cancels: HashMap::new(),
            locks: Arc::default(),
            look_ups: W::LookUps::default(),
        };
        for job in 0..jobs.len() {
            driver.add_job(job);
        }
        driver.run(&inbox, cancel)
    })
}

type SolverEvent<W> = Event<<W as Worker>::Result, Failure>;
type SolverCommand<W> = Command<<W as Worker>::Result, Failure>;
type Locks<W> = Arc<Mutex<HashMap<Digest, <W as Worker>::Lock>>>;
/// Takes the result of a job, by its index.
pub(crate) type Finish<'env, W, T> =
    &'env (dyn Fn(usize, Option<Solved<<W as Worker>::Result>>, &CancelFlag) -> Result<T> + Sync);

/// What threads tell the driver.
enum Answer<W: Worker, T> {
    /// For the solver.
    Solver(SolverEvent<W>),
    /// What came of a job's result.
    Finished(usize, Result<T>),
}

struct Driver<'scope, 'env, W: Worker, T> {
    jobs: &'env [Job<'env, W>],
    finish: Finish<'env, W, T>,
    /// What came of each job.
    finished: Vec<Option<T>>,
    /// How many jobs have neither failed nor finished.
    unfinished: usize,
    failed: Option<JobError>,
    /// Set when all is to end.
    stop: CancelFlag,
    /// Set when the caller wants it to.
    cancel: CancelFlag,
    threads: Threads<'scope, 'env>,
    solver: Solver<W::Result, Failure>,
    queue: VecDeque<SolverCommand<W>>,
    answers: Sender<Answer<W, T>>,
    rows: Rows<'env>,
    missed: HashMap<Digest, Missed>,
    cancels: HashMap<RequestId, CancelFlag>,
    locks: Locks<W>,
    look_ups: W::LookUps,
}

impl<'scope, 'env, W: Worker, T: Send + 'scope> Driver<'scope, 'env, W, T>
where
    W::Result: 'scope,
    W::Lock: 'scope,
{
    fn add_job(&mut self, index: usize) {
        let definition = self.jobs[index].definition;
        let Some(target) = definition.result() else {
            self.finish_job(index, None);
            return;
        };
        let edge = |edge: &larder_llb::Edge| larder_solver::Edge {
            vertex: edge.vertex.clone(),
            output: edge.index,
        };
        let vertices = definition.vertices().iter().map(|vertex| VertexSpec {
            digest: vertex.digest.clone(),
            inputs: vertex.inputs.iter().map(edge).collect(),
            ignore_cache: vertex.ignores_cache(),
            limited: !matches!(vertex.op.op, Some(Op::Source(_) | Op::Build(_))),
        });
        self.feed(Event::AddJob {
            job: JobId(index as u64),
            vertices: vertices.collect(),
            targets: vec![edge(target)],
        });
    }

    fn run(
        mut self,
        inbox: &Receiver<Answer<W, T>>,
        cancel: &CancelFlag,
    ) -> Result<Vec<T>, JobError> {
        loop {
            while let Some(command) = self.queue.pop_front() {
                self.perform(command);
            }
            if self.unfinished == 0 {
                return self.end();
            }
            if (cancel.is_set() || self.failed.is_some()) && !self.stop.is_set() {
                self.stop.set();
                for job in 0..self.jobs.len() {
                    self.feed(Event::CancelJob {
                        job: JobId(job as u64),
                    });
                }
                continue;
            }
            let answer = inbox.try_recv().or_else(|_| {
                self.look_ups = W::LookUps::default();
                inbox.recv_timeout(CANCEL_POLL)
            });
            match answer {
                Ok(Answer::Solver(event)) => self.feed(event),
                Ok(Answer::Finished(job, result)) => self.take(job, result),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let error = "the solver waits for an answer that will not come";
                    return Err(JobError {
                        job: None,
                        error: BuildError::internal(error),
                    });
                }
            }
        }
    }

    fn end(self) -> Result<Vec<T>, JobError> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        // A job without a result was canceled.
        let finished: Option<Vec<T>> = self.finished.into_iter().collect();
        finished.ok_or_else(|| JobError {
            job: None,
            error: BuildError::canceled(),
        })
    }

    fn feed(&mut self, event: SolverEvent<W>) {
        let commands = self.solver.step(event);
        if commands.iter().any(|command| self.loads_source(command)) {
            // A thread does it while the rest is done here.
            for command in commands.into_iter().rev() {
                self.queue.push_front(command);
            }
        } else {
            self.queue.extend(commands);
        }
    }

    fn loads_source(&self, command: &SolverCommand<W>) -> bool {
        match command {
            Command::Execute { vertex, inputs, .. } if inputs.is_empty() => {
                let job = &self.jobs[self.any_job_of(vertex)];
                matches!(vertex_of(job, vertex).op.op, Some(Op::Source(_)))
            }
            _ => false,
        }
    }

    fn job_done(&mut self, job: JobId, outcome: Outcome<W::Result, Failure>) {
        let index = job.0 as usize;
        self.rows.job_done(index);
        match outcome {
            Outcome::Built(targets) => {
                let solved = targets.into_iter().next().map(|target| Solved {
                    result: target.result,
                });
                self.feed(Event::CloseJob { job });
                self.finish_job(index, solved);
            }
            Outcome::Failed(failures) => {
                let failure = failures.into_iter().next().map(|failure| {
                    let error = Arc::try_unwrap(failure.error.0);
                    let error = error.unwrap_or_else(|shared| shared.duplicate());
                    error.with_vertex(failure.vertex)
                });
                let nothing = || BuildError::internal("a build failed without an error");
                self.take(index, Err(failure.unwrap_or_else(nothing)));
            }
            Outcome::Canceled => self.unfinished -= 1,
        }
    }

    /// Hands on the result of a job, on another thread if there is anything left to be done by this
    /// one.
    fn finish_job(&mut self, job: usize, solved: Option<Solved<W::Result>>) {
        let finish = self.finish;
        let finished = move |solved, stop: &CancelFlag| {
            let work = std::panic::AssertUnwindSafe(|| finish(job, solved, stop));
            let panicked = |_| Err(BuildError::internal("an export panicked"));
            std::panic::catch_unwind(work).unwrap_or_else(panicked)
        };
        if self.jobs.len() == 1 {
            let result = finished(solved, &self.cancel);
            return self.take(job, result);
        }
        let (answers, stop) = (self.answers.clone(), self.stop.clone());
        let spawned = self.threads.spawn(move || {
            // The driver is gone only after it has all answers.
            let _ = answers.send(Answer::Finished(job, finished(solved, &stop)));
        });
        if let Err(source) = spawned {
            self.take(job, Err(no_thread(source)));
        }
    }

    /// Takes note of how a job ended.
    fn take(&mut self, job: usize, result: Result<T>) {
        self.unfinished -= 1;
        match result {
            Ok(value) => self.finished[job] = Some(value),
            Err(error) if self.failed.is_none() => {
                // That all are to end is no failure of this one.
                let is_own = error.class() != crate::ErrorClass::Canceled;
                let job = is_own.then_some(job);
                self.failed = Some(JobError { job, error });
            }
            // The first failure has ended the others.
            Err(_) => {}
        }
    }

    /// Returns the index of the first job that a request is made for: its worker does the work.
    fn job_of(&self, request: RequestId, vertex: &Digest) -> usize {
        let jobs = self.solver.jobs(request);
        let first = jobs.first().map(|job| job.0 as usize);
        first.unwrap_or_else(|| self.any_job_of(vertex))
    }

    fn any_job_of(&self, vertex: &Digest) -> usize {
        let mut jobs = self.jobs.iter();
        jobs.position(|job| job.definition.get(vertex).is_some())
            .expect("the solver knows the definitions' vertices only")
    }

    /// Returns who does the work of a request, and the vertex that it is about.
    fn worker(&self, request: RequestId, vertex: &Digest) -> (&'env W, &'env Vertex) {
        let job = &self.jobs[self.job_of(request, vertex)];
        (job.worker, vertex_of(job, vertex))
    }

    fn perform(&mut self, command: SolverCommand<W>) {
        if !matches!(command, Command::Query { .. } | Command::Progress { .. }) {
            self.look_ups = W::LookUps::default();
        }
        match command {
            Command::ComputeCacheMap { request, vertex } => {
                let job = self.job_of(request, &vertex);
                let mut progress = self.rows.of(&vertex, job).clone();
                let (worker, vertex) = self.worker(request, &vertex);
                if worker.cache_map_waits(vertex) {
                    self.spawn(request, move |cancel| {
                        let map = worker.cache_map(vertex, &progress, cancel)?;
                        // This may have been all: its result need not be asked for.
                        progress.complete();
                        Ok(Event::CacheMap { request, map })
                    });
                } else {
                    let map = worker.cache_map(vertex, &progress, &CancelFlag::new());
                    self.answer(request, map, |map| Event::CacheMap { request, map });
                }
            }
            Command::Query {
                request,
                vertex,
                output,
                key,
            } => {
                let (worker, vertex) = self.worker(request, &vertex);
                let queried = move |found: Found<W::Result>| Event::Queried {
                    request,
                    matches: found.matches,
                    linked: found.linked,
                };
                if worker.query_waits() {
                    self.spawn(request, move |_| {
                        let look_ups = &mut W::LookUps::default();
                        Ok(queried(worker.query(vertex, output, &key, look_ups)?))
                    });
                } else {
                    let found = worker.query(vertex, output, &key, &mut self.look_ups);
                    self.answer(request, found, queried);
                }
            }
            Command::ComputeContentKey {
                request,
                vertex,
                input,
                result,
            } => {
                let (worker, vertex) = self.worker(request, &vertex);
                let waits = worker.digest_waits(&result);
                let work = move |_: &CancelFlag| {
                    let digest = worker.content_key(vertex, input, &result)?;
                    Ok(Event::ContentKey { request, digest })
                };
                if waits {
                    self.spawn(request, work);
                } else {
                    self.enqueue(request, work);
                }
            }
            Command::LockKey {
                request,
                vertex,
                lock,
            } => {
                let (worker, vertex) = self.worker(request, &vertex);
                if matches!(vertex.op.op, Some(Op::Build(_))) {
                    // A build may be nested in itself, and would wait for itself.
                    let waited = false;
                    self.feed(Event::KeyLocked { request, waited });
                } else {
                    self.lock_key(worker, request, lock);
                }
            }
            Command::UnlockKey { lock } => {
                self.locks
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .remove(&lock);
            }
            Command::Execute {
                request,
                vertex,
                outputs,
                inputs,
            } => {
                let missed = self.missed.remove(&vertex);
                let progress = self.rows.of(&vertex, self.job_of(request, &vertex)).clone();
                let (worker, vertex) = self.worker(request, &vertex);
                self.spawn(request, move |cancel| {
                    let results =
                        worker.execute(vertex, &outputs, &inputs, missed, &progress, cancel)?;
                    Ok(Event::Executed { request, results })
                });
            }
            Command::Save {
                request,
                vertex,
                output,
                key,
                result,
                mode,
            } => {
                let (worker, vertex) = self.worker(request, &vertex);
                let keys = worker.save(vertex, output, &key, &result, mode);
                self.answer(request, keys, |keys| Event::Saved { request, keys });
            }
            Command::Link {
                vertex,
                output,
                key,
                to,
            } => {
                let job = &self.jobs[self.any_job_of(&vertex)];
                if let Err(error) = job.worker.link(output, &key, to) {
                    tracing::warn!(
                        error = error.full_message(),
                        "a cache key could not be linked"
                    );
                }
            }
            Command::Cancel { request } => {
                if let Some(cancel) = self.cancels.get(&request) {
                    cancel.set();
                }
            }
            Command::Release { .. } => {}
            Command::JobDone { job, outcome } => self.job_done(job, outcome),
            Command::Progress {
                vertex,
                jobs,
                progress,
            } => self.show(&vertex, &jobs, &progress),
            Command::Missed {
                vertex,
                reason,
                inputs,
                ..
            } => {
                self.missed.insert(vertex, Missed { reason, inputs });
            }
        }
    }

    fn answer<A>(
        &mut self,
        request: RequestId,
        result: Result<A>,
        event: impl FnOnce(A) -> SolverEvent<W>,
    ) {
        let event = match result {
            Ok(value) => event(value),
            Err(error) => Event::Failed {
                request,
                error: Failure(Arc::new(error)),
            },
        };
        self.feed(event);
    }

    fn lock_key(&mut self, worker: &'env W, request: RequestId, lock: Digest) {
        match worker.try_lock(&lock) {
            Ok(Some(held)) => {
                self.locks
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .insert(lock, held);
                self.feed(Event::KeyLocked {
                    request,
                    waited: false,
                });
            }
            Ok(None) => {
                let locks = self.locks.clone();
                self.spawn(request, move |cancel| {
                    let held = worker.lock(&lock, cancel)?;
                    locks
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .insert(lock, held);
                    Ok(Event::KeyLocked {
                        request,
                        waited: true,
                    })
                });
            }
            Err(error) => self.answer(request, Err(error), |()| Event::Canceled { request }),
        }
    }

    /// Does `work` on another thread and answers the request with its event.
    fn spawn(
        &mut self,
        request: RequestId,
        work: impl FnOnce(&CancelFlag) -> Result<SolverEvent<W>, WorkError> + Send + 'scope,
    ) {
        let work = self.answering(request, work);
        if let Err(source) = self.threads.spawn(work) {
            let failed = Err(no_thread(source));
            self.answer(request, failed, |()| Event::Canceled { request });
        }
    }

    /// As [`spawn`](Self::spawn), for work that waits for nothing: it takes its turn.
    fn enqueue(
        &mut self,
        request: RequestId,
        work: impl FnOnce(&CancelFlag) -> Result<SolverEvent<W>, WorkError> + Send + 'scope,
    ) {
        let work = self.answering(request, work);
        self.threads.enqueue(work);
    }

    /// Returns what does `work` and answers the request with its event. It doesn't panic.
    fn answering(
        &mut self,
        request: RequestId,
        work: impl FnOnce(&CancelFlag) -> Result<SolverEvent<W>, WorkError> + Send + 'scope,
    ) -> Box<dyn FnOnce() + Send + 'scope> {
        let cancel = CancelFlag::new();
        self.cancels.insert(request, cancel.clone());
        let answers = self.answers.clone();
        Box::new(move || {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&cancel)));
            let failed = |error| Event::Failed {
                request,
                error: Failure(Arc::new(error)),
            };
            let event = match done {
                Ok(Ok(event)) => event,
                Ok(Err(WorkError::Failed(error)))
                    if cancel.is_set() && error.class() == crate::ErrorClass::Canceled =>
                {
                    Event::Canceled { request }
                }
                Ok(Err(WorkError::Failed(error))) => failed(error),
                Ok(Err(WorkError::InputLost(input, error))) => Event::ResultLost {
                    request,
                    input,
                    error: Failure(Arc::new(error)),
                },
                Err(_) => failed(BuildError::internal("a step's thread panicked")),
            };
            // The driver is gone only after it has all answers.
            let _ = answers.send(Answer::Solver(event));
        })
    }

    fn show(&mut self, digest: &Digest, jobs: &[JobId], state: &Progress<Failure>) {
        let duration = self.rows.show(digest, jobs, state);
        let (cached, failed) = match state {
            Progress::Started | Progress::Canceled => return,
            Progress::Cached => (true, false),
            Progress::Completed => (false, false),
            Progress::Failed(_) => (false, true),
        };
        for job in jobs {
            let job = &self.jobs[job.0 as usize];
            let vertex = vertex_of(job, digest);
            let report = StepReport {
                name: vertex.name(),
                cached,
                failed,
                cause: None,
                duration_ms: duration.as_millis() as u64,
                details: Vec::new(),
            };
            job.worker.ended(vertex, report);
        }
    }
}

fn vertex_of<'env, W>(job: &Job<'env, W>, digest: &Digest) -> &'env Vertex {
    job.definition
        .get(digest)
        .expect("a job needs its definition's vertices only")
}

fn no_thread(source: std::io::Error) -> BuildError {
    BuildError::new(crate::ErrorClass::Exhausted, "cannot start a thread").with_source(source)
}
