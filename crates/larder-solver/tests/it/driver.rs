//! Performs the solver's commands and checks that they keep to the rules.

use std::collections::{BTreeMap, BTreeSet};

use larder_oci::Digest;
use larder_solver::{
    Command, Error, Event, JobId, Match, Options, Outcome, Progress, RequestId, Solver,
};

use crate::graph::{Epochs, Graph, Node};
use crate::store::Store;

/// A handle of a result: the name of this one hold, and the value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Handle {
    pub(crate) id: u64,
    pub(crate) value: String,
}

/// A failure: the name of the node, or the solver's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault(pub(crate) String);

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

pub(crate) type Cmd = Command<Handle, Fault>;
pub(crate) type Evt = Event<Handle, Fault>;

pub(crate) struct Driver {
    pub(crate) solver: Solver<Handle, Fault>,
    pub(crate) store: Store,
    pub(crate) epochs: Epochs,
    /// What running a step anew sets its epoch to.
    pub(crate) epoch: usize,
    nodes: BTreeMap<Digest, Node>,
    /// Commands that are to be answered, oldest first.
    pub(crate) pending: Vec<(RequestId, Cmd)>,
    pub(crate) canceled: BTreeSet<RequestId>,
    asked: BTreeSet<RequestId>,
    /// The results that the solver holds.
    pub(crate) held: BTreeSet<u64>,
    /// Results that can't be used, with the node that offers them.
    pub(crate) lost: BTreeMap<u64, larder_solver::KeyId>,
    /// Whether the next results found are lost ones.
    pub(crate) lose: bool,
    locks: BTreeSet<Digest>,
    running: usize,
    max_parallelism: usize,
    /// The calls that were executed, in order, with their outputs.
    pub(crate) executed: Vec<(String, Vec<usize>)>,
    pub(crate) done: BTreeMap<JobId, Outcome<Handle, Fault>>,
    /// All commands in order, answered or not.
    pub(crate) log: Vec<Cmd>,
    next: u64,
}

impl Driver {
    pub(crate) fn new(store: Store, max_parallelism: Option<usize>) -> Self {
        Self {
            solver: Solver::new(Options { max_parallelism }),
            store,
            epochs: Epochs::new(),
            epoch: 1,
            nodes: BTreeMap::new(),
            pending: Vec::new(),
            canceled: BTreeSet::new(),
            asked: BTreeSet::new(),
            held: BTreeSet::new(),
            lost: BTreeMap::new(),
            lose: false,
            locks: BTreeSet::new(),
            running: 0,
            max_parallelism: max_parallelism.unwrap_or(usize::MAX),
            executed: Vec::new(),
            done: BTreeMap::new(),
            log: Vec::new(),
            next: 0,
        }
    }

    pub(crate) fn add_job(&mut self, job: u64, graph: &Graph, targets: &[(usize, usize)]) {
        for (index, node) in graph.nodes.iter().enumerate() {
            self.nodes.insert(graph.digest(index), node.clone());
        }
        let targets = targets
            .iter()
            .map(|&(index, output)| graph.edge(index, output));
        self.send(Event::AddJob {
            job: JobId(job),
            vertices: graph.specs(),
            targets: targets.collect(),
        });
    }

    pub(crate) fn send(&mut self, event: Evt) {
        for command in self.solver.step(event) {
            self.log.push(command.clone());
            self.take(command);
        }
        assert!(self.running <= self.max_parallelism);
    }

    fn take(&mut self, command: Cmd) {
        match &command {
            Command::ComputeCacheMap { request, .. }
            | Command::Query { request, .. }
            | Command::ComputeContentKey { request, .. }
            | Command::LockKey { request, .. }
            | Command::Execute { request, .. }
            | Command::Save { request, .. } => {
                assert!(self.asked.insert(*request), "{request:?} was used twice");
                self.check_held(&command);
                if let Command::Execute { vertex, .. } = &command {
                    self.running += usize::from(!self.nodes[vertex].inputs().is_empty());
                }
                self.pending.push((*request, command));
            }
            Command::UnlockKey { lock } => assert!(self.locks.remove(lock), "not locked"),
            Command::Link {
                output, key, to, ..
            } => self.store.link(key, *output, *to),
            Command::Cancel { request } => {
                assert!(self.pending.iter().any(|(id, _)| id == request));
                assert!(self.canceled.insert(*request), "canceled twice");
            }
            Command::Release { result } => assert!(self.held.remove(&result.id), "not held"),
            Command::Progress { .. } | Command::Missed { .. } => {}
            Command::JobDone { job, outcome } => {
                assert!(
                    self.done.insert(*job, outcome.clone()).is_none(),
                    "done twice"
                );
            }
        }
    }

    fn check_held(&self, command: &Cmd) {
        let results = match command {
            Command::ComputeContentKey { result, .. } | Command::Save { result, .. } => {
                std::slice::from_ref(result)
            }
            Command::Execute { inputs, .. } => inputs,
            _ => &[],
        };
        assert!(results.iter().all(|result| self.held.contains(&result.id)));
    }

    /// Answers the pending command at `index`, truly.
    pub(crate) fn answer(&mut self, index: usize) {
        let (request, command) = self.pending.remove(index);
        let event = self.perform(request, &command);
        self.send(event);
    }

    /// Answers the pending command at `index`, which was canceled, with that.
    pub(crate) fn answer_canceled(&mut self, index: usize) {
        let (request, command) = self.pending.remove(index);
        assert!(self.canceled.contains(&request));
        self.leave(&command);
        self.send(Event::Canceled { request });
    }

    fn leave(&mut self, command: &Cmd) {
        if let Command::Execute { vertex, .. } = command {
            self.running -= usize::from(!self.nodes[vertex].inputs().is_empty());
        }
    }

    fn perform(&mut self, request: RequestId, command: &Cmd) -> Evt {
        self.leave(command);
        match command {
            Command::ComputeCacheMap { vertex, .. } => Event::CacheMap {
                request,
                map: self.nodes[vertex].cache_map(),
            },
            Command::Query { output, key, .. } => self.query(request, key, *output),
            Command::ComputeContentKey {
                vertex,
                input,
                result,
                ..
            } => self
                .lose_one(request, &[(*input, result)])
                .unwrap_or_else(|| {
                    let read = &self.nodes[vertex].inputs()[*input];
                    let digest = read.content_digest(&result.value);
                    Event::ContentKey { request, digest }
                }),
            Command::LockKey { lock, .. } => {
                assert!(self.locks.insert(lock.clone()), "locked twice");
                let waited = false;
                Event::KeyLocked { request, waited }
            }
            Command::Execute {
                vertex,
                outputs,
                inputs,
                ..
            } => {
                let inputs: Vec<_> = inputs.iter().enumerate().collect();
                self.lose_one(request, &inputs)
                    .unwrap_or_else(|| self.execute(request, vertex, outputs, &inputs))
            }
            Command::Save {
                output,
                key,
                result,
                mode,
                ..
            } => Event::Saved {
                request,
                keys: self.store.save(key, *output, &result.value, *mode),
            },
            other => panic!("{other:?} has no answer"),
        }
    }

    fn query(&mut self, request: RequestId, key: &larder_solver::CacheKey, output: usize) -> Evt {
        let (found, linked) = self.store.query(key, output);
        let mut matches = Vec::new();
        for (key, value) in found {
            let result = value.map(|value| self.handle(value));
            if let Some(result) = result.as_ref().filter(|_| self.lose) {
                self.lost.insert(result.id, key);
            }
            matches.push(Match { key, result });
        }
        Event::Queried {
            request,
            matches,
            linked,
        }
    }

    /// Answers that one of these inputs is lost, if one is.
    fn lose_one(&mut self, request: RequestId, inputs: &[(usize, &Handle)]) -> Option<Evt> {
        let (input, key) = inputs
            .iter()
            .find_map(|(input, result)| Some((*input, *self.lost.get(&result.id)?)))?;
        self.store.drop_result(key);
        let error = Fault("lost".to_owned());
        Some(Event::ResultLost {
            request,
            input,
            error,
        })
    }

    fn execute(
        &mut self,
        request: RequestId,
        vertex: &Digest,
        outputs: &[usize],
        inputs: &[(usize, &Handle)],
    ) -> Evt {
        let node = self.nodes[vertex].clone();
        let values: Vec<_> = inputs
            .iter()
            .map(|(_, result)| result.value.clone())
            .collect();
        self.executed.push((node.call(&values), outputs.to_vec()));
        if node.fails {
            let error = Fault(node.name);
            return Event::Failed { request, error };
        }
        if node.ignore_cache {
            self.epochs.insert(node.call(&values), self.epoch);
        }
        let results = outputs.iter().map(|&output| {
            let value = node.run(output, &values, &self.epochs);
            self.handle(value)
        });
        let results = results.collect();
        Event::Executed { request, results }
    }

    pub(crate) fn handle(&mut self, value: String) -> Handle {
        self.next += 1;
        self.held.insert(self.next);
        Handle {
            id: self.next,
            value,
        }
    }

    /// Answers everything in the order in which it was asked.
    pub(crate) fn run(&mut self) {
        while !self.pending.is_empty() {
            self.answer(0);
        }
    }

    /// Closes the jobs, and checks that nothing is left.
    pub(crate) fn finish(&mut self) {
        assert!(self.pending.is_empty());
        for job in self.done.keys().copied().collect::<Vec<_>>() {
            self.send(Event::CloseJob { job });
        }
        assert!(self.solver.is_idle());
        assert!(self.held.is_empty(), "results {:?} were kept", self.held);
        assert!(self.locks.is_empty());
        self.check_progress();
    }

    /// For each job and vertex: it starts at most once before it ends, and all that started ends.
    fn check_progress(&self) {
        let mut open = BTreeSet::new();
        let mut done = BTreeSet::new();
        for command in &self.log {
            match command {
                Command::Progress {
                    vertex,
                    jobs,
                    progress,
                } => {
                    for job in jobs {
                        assert!(!done.contains(job), "told of {vertex} after its end");
                        let at = (*job, vertex.clone());
                        assert!(
                            !matches!(progress, Progress::Started) || open.insert(at.clone()),
                            "started twice"
                        );
                        if !matches!(progress, Progress::Started) {
                            open.remove(&at);
                        }
                    }
                }
                Command::JobDone { job, .. } => {
                    assert!(open.iter().all(|(open, _)| open != job), "still running");
                    done.insert(*job);
                }
                _ => {}
            }
        }
    }

    pub(crate) fn names(&self) -> BTreeMap<Digest, String> {
        let names = self.nodes.iter();
        names
            .map(|(digest, node)| (digest.clone(), node.name.clone()))
            .collect()
    }
}
