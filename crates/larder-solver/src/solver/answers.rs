//! The driver's answers.

use std::sync::Arc;

use super::state::{
    Ask, Content, Ending, Held, Ix, JobState, Owner, Phase, Remains, Request, Want,
};
use super::{Command, Error, Event, Progress, RequestId, Solver};
use crate::{CacheKey, CacheMap, Failure, JobId, Match};

impl<R, E> Event<R, E> {
    /// The request that it answers.
    fn request(&self) -> Option<RequestId> {
        match self {
            Self::AddJob { .. } | Self::CancelJob { .. } | Self::CloseJob { .. } => None,
            Self::CacheMap { request, .. }
            | Self::Queried { request, .. }
            | Self::ContentKey { request, .. }
            | Self::KeyLocked { request, .. }
            | Self::Executed { request, .. }
            | Self::Saved { request, .. }
            | Self::ResultLost { request, .. }
            | Self::Failed { request, .. }
            | Self::Canceled { request } => Some(*request),
        }
    }

    /// What an answer is called in messages.
    fn name(&self) -> &'static str {
        match self {
            Self::AddJob { .. } | Self::CancelJob { .. } | Self::CloseJob { .. } => "event",
            Self::CacheMap { .. } => "cache map",
            Self::Queried { .. } => "query result",
            Self::ContentKey { .. } => "content key",
            Self::KeyLocked { .. } => "lock",
            Self::Executed { .. } => "execution result",
            Self::Saved { .. } => "saved key",
            Self::ResultLost { .. } => "lost input",
            Self::Failed { .. } => "failure",
            Self::Canceled { .. } => "cancellation",
        }
    }
}

impl<R: Clone, E: Clone + From<Error>> Solver<R, E> {
    pub(super) fn take_answer(&mut self, answer: Event<R, E>) {
        let id = answer.request();
        let Some((id, request)) = id.and_then(|id| Some((id, self.requests.remove(&id)?))) else {
            tracing::warn!(answer = answer.name(), "answer to an unknown request");
            self.release_payload(answer);
            return;
        };
        match request.owner {
            Owner::Vertex(ix) => {
                self.vertex(ix).work.remove(&id);
                self.on_answer(ix, request, answer);
            }
            Owner::Remains(remains) => self.on_remains(remains, request, answer),
        }
    }

    fn on_answer(&mut self, ix: Ix, request: Request<R>, answer: Event<R, E>) {
        if let Ask::Execute { .. } = request.ask {
            let vertex = self.vertex(ix);
            vertex.phase = Phase::Idle;
            self.running -= usize::from(self.vertices[&ix].limited);
        }
        let mut held = request.held;
        match (request.ask, answer) {
            (Ask::CacheMap, Event::CacheMap { map, .. }) if self.fits(ix, &map) => {
                self.vertex(ix).map = Some(map);
                self.changed.insert(ix);
                self.tell_users(ix);
            }
            (
                Ask::Query { output, key },
                Event::Queried {
                    matches, linked, ..
                },
            ) if linked.len() == self.vertices[&ix].inputs.len() => {
                self.on_queried(ix, output, key, matches, linked);
            }
            (Ask::Content { input }, Event::ContentKey { digest, .. }) => {
                self.vertex(ix).inputs[input].content = Content::Known(digest);
                self.changed.insert(ix);
            }
            (Ask::Lock { lock }, Event::KeyLocked { waited, .. }) => {
                self.on_key_locked(ix, lock, waited);
            }
            (Ask::Execute { outputs }, Event::Executed { results, .. })
                if results.len() == outputs.len() =>
            {
                self.on_executed(ix, &outputs, results);
            }
            (Ask::Save { output }, Event::Saved { keys, .. }) if !keys.is_empty() => {
                if let Some(value) = held.pop() {
                    self.set_made(ix, output, value, keys);
                }
            }
            (Ask::Execute { .. }, Event::ResultLost { input, error, .. }) if input < held.len() => {
                self.unlock(ix);
                self.on_result_lost(ix, input, &held[input], error);
            }
            (Ask::Content { input }, Event::ResultLost { error, .. }) => {
                self.on_result_lost(ix, input, &held[0], error);
            }
            (ask, answer) => self.on_no_answer(ix, ask, answer),
        }
        for value in held {
            self.drop_result(value);
        }
    }

    /// Fails a vertex whose work failed, or was answered by something else.
    fn on_no_answer(&mut self, ix: Ix, ask: Ask, answer: Event<R, E>) {
        if let Ask::Lock { lock } = ask {
            let granted = matches!(answer, Event::KeyLocked { .. });
            self.vertex(ix).phase = Phase::Idle;
            self.free_lock(lock, granted);
        }
        let error = if let Event::Failed { error, .. } = answer {
            error
        } else {
            let vertex = self.vertices[&ix].digest().clone();
            let what = answer.name();
            self.release_payload(answer);
            E::from(Error::Answer { vertex, what })
        };
        self.fail(ix, error);
    }

    fn fits(&self, ix: Ix, map: &CacheMap) -> bool {
        let count = self.vertices[&ix].inputs.len();
        match map {
            CacheMap::Root { .. } => count == 0,
            CacheMap::Step { inputs, .. } => count > 0 && inputs.len() == count,
        }
    }

    fn on_queried(
        &mut self,
        ix: Ix,
        output: usize,
        key: CacheKey,
        matches: Vec<Match<R>>,
        linked: Vec<bool>,
    ) {
        let is_root = matches!(key, CacheKey::Root(_));
        let may_learn = key.has_both_kinds();
        let known = self.output(ix, output);
        known.asked = Some(key);
        known.linked = linked;
        known.add_keys(matches.iter().map(|found| found.key));
        let all_keys = known.keys.clone();
        let mut hit = None;
        for found in matches {
            let Some(result) = found.result else { continue };
            let known = self.output(ix, output);
            if known.result.is_some() {
                self.commands.push(Command::Release { result });
                continue;
            }
            // All keys of a root say the same of it; nodes of a step may hold different results.
            let keys = if is_root {
                all_keys.clone()
            } else {
                vec![found.key]
            };
            known.result = Some(Held {
                value: Arc::new(result),
                keys,
                made: false,
            });
            hit = Some(found.key);
        }
        if let Some(to) = hit {
            if may_learn {
                self.link(ix, output, to);
            }
            let vertex = &self.vertices[&ix];
            if !vertex.executed && !matches!(vertex.progress, Some(Progress::Cached)) {
                self.notify(ix, Progress::Cached);
            }
        }
        self.changed.insert(ix);
        self.tell_users(ix);
    }

    fn link(&mut self, ix: Ix, output: usize, to: crate::KeyId) {
        if let Some(key) = self.save_key(ix) {
            let vertex = self.vertices[&ix].digest().clone();
            self.commands.push(Command::Link {
                vertex,
                output,
                key,
                to,
            });
        }
    }

    /// `used` is the result of an input of `ix` that can't be used.
    fn on_result_lost(&mut self, ix: Ix, input: usize, used: &Arc<R>, error: E) {
        self.changed.insert(ix);
        let input = &self.vertices[&ix].inputs[input];
        let (from, output) = (input.from, input.output);
        let known = self.output(from, output);
        let is_current = |held: &mut Held<R>| Arc::ptr_eq(&held.value, used);
        let Some(held) = known.result.take_if(is_current) else {
            return;
        };
        let made = held.made;
        known.lost = true;
        known.want = Want::Result;
        self.drop_result(held.value);
        if made {
            self.fail(from, error);
        } else {
            self.changed.insert(from);
            self.tell_users(from);
        }
    }

    pub(super) fn fail(&mut self, ix: Ix, error: E) {
        let jobs = self.vertices[&ix].jobs.clone();
        self.drop_work(ix, jobs);
        let vertex = self.vertex(ix);
        vertex.failed = Some(error.clone());
        let identity = vertex.identity.clone();
        self.unindex(ix, &identity);
        self.notify(ix, Progress::Failed(error));
        self.failures_changed = true;
    }

    /// Gives up all work of a vertex. Jobs in `jobs` that end do so only after it has ended.
    pub(super) fn drop_work(&mut self, ix: Ix, jobs: std::collections::BTreeSet<JobId>) {
        self.queue.remove(&ix);
        for waiting in self.locks.values_mut() {
            waiting.remove(&ix);
        }
        let id = self.next_id();
        let vertex = self.vertex(ix);
        let slot = vertex.phase == Phase::Running && vertex.limited;
        vertex.phase = Phase::Idle;
        for input in &mut vertex.inputs {
            if input.content == Content::UnderWay {
                input.content = Content::Unknown;
            }
        }
        let work = std::mem::take(&mut vertex.work);
        if work.is_empty() {
            self.unlock(ix);
            return;
        }
        let remains = Remains {
            vertex: vertex.digest().clone(),
            requests: work.len(),
            lock: vertex.lock.take(),
            slot,
            jobs,
        };
        self.remains.insert(id, remains);
        for request in work {
            if let Some(known) = self.requests.get_mut(&request) {
                known.owner = Owner::Remains(id);
                self.commands.push(Command::Cancel { request });
            }
        }
    }

    /// Takes the answer to a request that was given up.
    fn on_remains(&mut self, id: u64, request: Request<R>, answer: Event<R, E>) {
        if let Ask::Lock { lock } = request.ask {
            let granted = matches!(answer, Event::KeyLocked { .. });
            self.free_lock(lock, granted);
        }
        for value in request.held {
            self.drop_result(value);
        }
        let remains = self
            .remains
            .get_mut(&id)
            .expect("remains outlive their requests");
        remains.requests -= 1;
        if let Event::Failed { error, .. } = &answer {
            for job in &remains.jobs {
                if let Some(JobState::Ending(Ending::Failed(failures))) =
                    self.jobs.get_mut(job).map(|job| &mut job.state)
                {
                    failures.push(Failure {
                        vertex: remains.vertex.clone(),
                        error: error.clone(),
                    });
                }
            }
        }
        if remains.requests == 0
            && let Some(remains) = self.remains.remove(&id)
        {
            self.running -= usize::from(remains.slot);
            if let Some(lock) = remains.lock {
                self.free_lock(lock, true);
            }
        }
        self.release_payload(answer);
    }

    /// Releases what an answer brought that nobody needs.
    fn release_payload(&mut self, answer: Event<R, E>) {
        let results: Vec<R> = match answer {
            Event::Queried { matches, .. } => matches
                .into_iter()
                .filter_map(|found| found.result)
                .collect(),
            Event::Executed { results, .. } => results,
            _ => Vec::new(),
        };
        for result in results {
            self.commands.push(Command::Release { result });
        }
    }
}
