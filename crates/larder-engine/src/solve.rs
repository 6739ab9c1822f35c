//! Drives the solver: performs its commands, on threads where they take long, and feeds the
//! answers back.

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::Scope;
use std::time::Duration;

use larder_llb::{Definition, Vertex};
use larder_oci::Digest;
use larder_solver::{
    CacheKey, CacheMap, Command, Event, JobId, KeyId, MissReason, MissedInput, Options, Outcome,
    Progress, RequestId, SaveMode, Solver, VertexSpec,
};

use crate::cancel::CancelFlag;
use crate::error::{BuildError, Result};
use crate::event::ProgressGroup;
use crate::progress::{Reporter, VertexProgress};
use crate::request::StepReport;
use crate::task::Tasks;

/// How soon a cancellation is noticed while nothing else happens.
const CANCEL_POLL: Duration = Duration::from_millis(50);
const JOB: JobId = JobId(0);

/// What the driver can't do by itself: the meaning of ops and of the store.
pub(crate) trait Worker: Sync {
    /// Names a result; cheap to copy.
    type Result: Clone + Send + Sync + std::fmt::Debug;
    /// An exclusive right to execute a key; given back when dropped.
    type Lock: Send;

    /// Returns what a vertex feeds into its key. Does not block.
    fn cache_map(&self, vertex: &Vertex) -> Result<CacheMap>;

    /// Looks up records. Does not block.
    fn query(&self, vertex: &Vertex, output: usize, key: &CacheKey) -> Result<Found<Self::Result>>;

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
    /// The key nodes that lead to it.
    pub(crate) keys: Vec<KeyId>,
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

/// Solves `definition` and returns its result.
///
/// # Errors
/// All failures that were there when the build ended, the first one first; or that it was
/// canceled.
pub(crate) fn solve<W: Worker>(
    worker: &W,
    definition: &Definition,
    reporter: &Reporter<'_>,
    cancel: &CancelFlag,
    max_parallelism: Option<usize>,
) -> Result<Solved<W::Result>, Vec<BuildError>> {
    let Some(target) = definition.result() else {
        return Err(vec![BuildError::internal(
            "an empty definition was to be solved",
        )]);
    };
    let (answers, inbox) = channel();
    std::thread::scope(|scope| {
        let mut driver = Driver {
            worker,
            definition,
            reporter,
            scope,
            solver: Solver::new(Options { max_parallelism }),
            queue: VecDeque::new(),
            answers,
            progress: HashMap::new(),
            missed: HashMap::new(),
            cancels: HashMap::new(),
            locks: Arc::default(),
        };
        driver.add_job(larder_solver::Edge {
            vertex: target.vertex.clone(),
            output: target.index,
        });
        driver.run(&inbox, cancel)
    })
}

type SolverEvent<W> = Event<<W as Worker>::Result, Failure>;
type SolverCommand<W> = Command<<W as Worker>::Result, Failure>;
type Locks<W> = Arc<Mutex<HashMap<Digest, <W as Worker>::Lock>>>;

struct Driver<'scope, 'env, W: Worker> {
    worker: &'env W,
    definition: &'env Definition,
    reporter: &'env Reporter<'env>,
    scope: &'scope Scope<'scope, 'env>,
    solver: Solver<W::Result, Failure>,
    queue: VecDeque<SolverCommand<W>>,
    answers: Sender<SolverEvent<W>>,
    progress: HashMap<Digest, VertexProgress<'env>>,
    missed: HashMap<Digest, Missed>,
    cancels: HashMap<RequestId, CancelFlag>,
    locks: Locks<W>,
}

impl<'scope, 'env, W: Worker> Driver<'scope, 'env, W> {
    fn add_job(&mut self, target: larder_solver::Edge) {
        let edge = |edge: &larder_llb::Edge| larder_solver::Edge {
            vertex: edge.vertex.clone(),
            output: edge.index,
        };
        let vertices = self.definition.vertices().iter().map(|vertex| VertexSpec {
            digest: vertex.digest.clone(),
            inputs: vertex.inputs.iter().map(edge).collect(),
            ignore_cache: vertex.ignores_cache(),
            limited: !matches!(vertex.op.op, Some(larder_llb::pb::op::Op::Source(_))),
        });
        let job = Event::AddJob {
            job: JOB,
            vertices: vertices.collect(),
            targets: vec![target],
        };
        for vertex in self.definition.vertices() {
            let inputs = vertex
                .inputs
                .iter()
                .map(|input| input.vertex.clone())
                .collect();
            let group = vertex
                .metadata
                .progress_group
                .as_ref()
                .map(|group| ProgressGroup {
                    id: group.id.clone(),
                    name: group.name.clone(),
                    weak: group.weak,
                });
            let progress =
                self.reporter
                    .announced(vertex.digest.clone(), inputs, &vertex.name(), group);
            self.progress.insert(vertex.digest.clone(), progress);
        }
        self.feed(job);
    }

    fn run(
        &mut self,
        inbox: &Receiver<SolverEvent<W>>,
        cancel: &CancelFlag,
    ) -> Result<Solved<W::Result>, Vec<BuildError>> {
        let mut canceled = false;
        loop {
            while let Some(command) = self.queue.pop_front() {
                if let Command::JobDone { outcome, .. } = command {
                    return self.finish(outcome);
                }
                self.perform(command);
            }
            if cancel.is_set() && !canceled {
                canceled = true;
                self.feed(Event::CancelJob { job: JOB });
                continue;
            }
            match inbox.recv_timeout(CANCEL_POLL) {
                Ok(event) => self.feed(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(vec![BuildError::internal(
                        "the solver waits for an answer that will not come",
                    )]);
                }
            }
        }
    }

    fn feed(&mut self, event: SolverEvent<W>) {
        self.queue.extend(self.solver.step(event));
    }

    fn finish(
        &mut self,
        outcome: Outcome<W::Result, Failure>,
    ) -> Result<Solved<W::Result>, Vec<BuildError>> {
        match outcome {
            Outcome::Built(targets) => {
                let solved = targets.into_iter().next().map(|target| Solved {
                    result: target.result,
                    keys: target.keys,
                });
                self.feed(Event::CloseJob { job: JOB });
                self.queue.clear();
                solved.ok_or_else(|| vec![BuildError::internal("the solver built no target")])
            }
            Outcome::Failed(failures) => {
                self.queue.clear();
                self.solver = Solver::new(Options::default());
                let error = |failure: larder_solver::Failure<Failure>| {
                    let vertex = failure.vertex;
                    match Arc::try_unwrap(failure.error.0) {
                        Ok(error) => error.with_vertex(vertex),
                        Err(shared) => BuildError::new(shared.class(), shared.full_message())
                            .with_vertex(vertex),
                    }
                };
                self.progress.clear();
                Err(failures.into_iter().map(error).collect())
            }
            Outcome::Canceled => Err(vec![BuildError::canceled()]),
        }
    }

    fn vertex(&self, digest: &Digest) -> &'env Vertex {
        self.definition
            .get(digest)
            .expect("the solver knows the definition's vertices only")
    }

    fn perform(&mut self, command: SolverCommand<W>) {
        match command {
            Command::ComputeCacheMap { request, vertex } => {
                let map = self.worker.cache_map(self.vertex(&vertex));
                self.answer(request, map, |map| Event::CacheMap { request, map });
            }
            Command::Query {
                request,
                vertex,
                output,
                key,
            } => {
                let found = self.worker.query(self.vertex(&vertex), output, &key);
                self.answer(request, found, |found| Event::Queried {
                    request,
                    matches: found.matches,
                    linked: found.linked,
                });
            }
            Command::ComputeContentKey {
                request,
                vertex,
                input,
                result,
            } => {
                let (worker, vertex) = (self.worker, self.vertex(&vertex));
                self.spawn(request, "content key", move |_| {
                    let digest = worker.content_key(vertex, input, &result)?;
                    Ok(Event::ContentKey { request, digest })
                });
            }
            Command::LockKey { request, lock, .. } => self.lock_key(request, lock),
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
                let progress = self.progress[&vertex].clone();
                let (worker, vertex) = (self.worker, self.vertex(&vertex));
                self.spawn(request, "step", move |cancel| {
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
                let vertex = self.vertex(&vertex);
                let keys = self.worker.save(vertex, output, &key, &result, mode);
                self.answer(request, keys, |keys| Event::Saved { request, keys });
            }
            Command::Link {
                output, key, to, ..
            } => {
                if let Err(error) = self.worker.link(output, &key, to) {
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
            Command::Release { .. } | Command::JobDone { .. } => {}
            Command::Progress {
                vertex, progress, ..
            } => self.show(&vertex, &progress),
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

    fn answer<T>(
        &mut self,
        request: RequestId,
        result: Result<T>,
        event: impl FnOnce(T) -> SolverEvent<W>,
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

    fn lock_key(&mut self, request: RequestId, lock: Digest) {
        match self.worker.try_lock(&lock) {
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
                let (worker, locks) = (self.worker, self.locks.clone());
                self.spawn(request, "lock", move |cancel| {
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

    /// Does `work` on a thread of its own and answers the request with its event.
    fn spawn(
        &mut self,
        request: RequestId,
        name: &str,
        work: impl FnOnce(&CancelFlag) -> Result<SolverEvent<W>, WorkError> + Send + 'scope,
    ) where
        W::Result: 'scope,
        W::Lock: 'scope,
    {
        let cancel = CancelFlag::new();
        self.cancels.insert(request, cancel.clone());
        let answers = self.answers.clone();
        let spawned = Tasks::spawn(self.scope, name, move || {
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
            let _ = answers.send(event);
        });
        if let Err(source) = spawned {
            let error = BuildError::new(crate::ErrorClass::Exhausted, "cannot start a thread")
                .with_source(source);
            self.answer(request, Err(error), |()| Event::Canceled { request });
        }
    }

    fn show(&mut self, digest: &Digest, state: &Progress<Failure>) {
        let vertex = self.vertex(digest);
        let Some(progress) = self.progress.remove(digest) else {
            return;
        };
        let report = |cached, duration: Duration| StepReport {
            name: vertex.name(),
            cached,
            failed: matches!(state, Progress::Failed(_)),
            cause: None,
            duration_ms: duration.as_millis() as u64,
            details: Vec::new(),
        };
        let mut progress = match state {
            Progress::Started => progress.start(),
            _ => progress,
        };
        match state {
            Progress::Started => {}
            Progress::Cached => {
                progress.cached();
                self.worker.ended(vertex, report(true, Duration::ZERO));
            }
            Progress::Completed => {
                let duration = progress.complete();
                self.worker.ended(vertex, report(false, duration));
            }
            Progress::Failed(error) => {
                let duration = progress.fail(&error.0.full_message());
                self.worker.ended(vertex, report(false, duration));
            }
            Progress::Canceled => {
                progress.fail("context canceled");
            }
        }
        self.progress.insert(digest.clone(), progress);
    }
}
