//! Running a vertex: the lock of its key, a place among the running ones, execution, saving.

use std::sync::Arc;

use larder_oci::{Digest, Sha256};

use super::state::{Ask, Content, Held, Ix, Phase};
use super::{Command, Error, Progress, Solver};
use crate::{CacheKey, CacheMap, KeyId, MissReason, MissedInput, SaveMode};

/// Starts the text that names a lock. All processes that share a store must agree on it.
const LOCK_DOMAIN: &str = "larder.lock.v1";

impl<R: Clone, E: Clone + From<Error>> Solver<R, E> {
    /// Names the lock of a vertex whose inputs all have results. Vertices that would find each
    /// other's records get the same name: each input enters by its content if the step is keyed
    /// by it, else by its key. `None` if an input has neither, since no other vertex is equal.
    pub(super) fn lock_name(&self, ix: Ix) -> Option<Digest> {
        let vertex = &self.vertices[&ix];
        let mut hasher = Sha256::new();
        let mut add = |field: &str| {
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field.as_bytes());
        };
        add(LOCK_DOMAIN);
        match vertex.map.as_ref()? {
            CacheMap::Root { .. } => {
                add("root");
                add(vertex.root_key()?.as_str());
            }
            CacheMap::Step { digest, .. } => {
                add("step");
                add(digest.as_str());
            }
        }
        for (i, input) in vertex.inputs.iter().enumerate() {
            let from = &self.vertices[&input.from];
            if let Content::Known(digest) = &input.content {
                add("content");
                add(digest.as_str());
            } else {
                if let Some(root) = from.root_key() {
                    add("root");
                    add(root.as_str());
                    add(&input.output.to_string());
                } else {
                    add("key");
                    let keys = from.outputs[&input.output].result_keys();
                    add(&keys.first()?.0.to_string());
                }
                add(vertex.input_map(i).0.map_or("", Digest::as_str));
            }
        }
        Some(hasher.finish())
    }

    /// Asks for a lock, or waits for the vertex that holds it.
    pub(super) fn lock(&mut self, ix: Ix, lock: Digest) {
        if let Some(waiting) = self.locks.get_mut(&lock) {
            waiting.insert(ix);
            self.vertex(ix).phase = Phase::Parked;
            return;
        }
        self.locks
            .insert(lock.clone(), std::collections::BTreeSet::new());
        self.vertex(ix).phase = Phase::Locking;
        let ask = Ask::Lock { lock: lock.clone() };
        self.request(ix, ask, Vec::new(), |request, vertex| Command::LockKey {
            request,
            vertex,
            lock,
        });
    }

    /// Has the key looked up once more: a record may have come between the last look and the lock.
    pub(super) fn on_key_locked(&mut self, ix: Ix, lock: Digest, waited: bool) {
        let vertex = self.vertex(ix);
        tracing::debug!(vertex = %vertex.digest(), waited, "key locked");
        vertex.lock = Some(lock);
        vertex.phase = Phase::Idle;
        self.forget_queries(ix);
        self.changed.insert(ix);
    }

    /// Gives back the lock of a vertex, if it has one.
    pub(super) fn unlock(&mut self, ix: Ix) {
        if let Some(lock) = self.vertex(ix).lock.take() {
            self.free_lock(lock, true);
        }
    }

    /// Ends the hold on a lock; those who waited for it look up their keys anew.
    pub(super) fn free_lock(&mut self, lock: Digest, granted: bool) {
        for ix in self.locks.remove(&lock).unwrap_or_default() {
            self.vertex(ix).phase = Phase::Idle;
            self.forget_queries(ix);
            self.changed.insert(ix);
        }
        if granted {
            self.commands.push(Command::UnlockKey { lock });
        }
    }

    fn forget_queries(&mut self, ix: Ix) {
        for output in self.vertex(ix).outputs.values_mut() {
            output.forget_query();
        }
    }

    /// Starts vertices in line, in the order of the graph, while there are places.
    pub(super) fn start_queued(&mut self) {
        let max = self.options.max_parallelism.unwrap_or(usize::MAX).max(1);
        let mut full = self.running >= max;
        for ix in std::mem::take(&mut self.queue) {
            if self.vertices[&ix].limited && full {
                self.queue.insert(ix);
            } else {
                self.execute(ix);
                full = self.running >= max;
            }
        }
    }

    fn execute(&mut self, ix: Ix) {
        self.tell_missed(ix);
        let vertex = self.vertex(ix);
        vertex.phase = Phase::Running;
        let limited = vertex.limited;
        if !matches!(vertex.progress, Some(Progress::Started)) {
            self.notify(ix, Progress::Started);
        }
        self.running += usize::from(limited);
        let vertex = &self.vertices[&ix];
        let lacking = vertex.outputs.iter().filter(|(_, o)| o.result.is_none());
        let outputs: Vec<_> = lacking.map(|(&index, _)| index).collect();
        let held = vertex.inputs.iter().filter_map(|input| {
            let from = &self.vertices[&input.from].outputs[&input.output];
            from.result.as_ref().map(|held| Arc::clone(&held.value))
        });
        let held: Vec<_> = held.collect();
        let inputs = held.iter().map(|value| R::clone(value)).collect();
        let ask = Ask::Execute {
            outputs: outputs.clone(),
        };
        self.request(ix, ask, held, |request, vertex| Command::Execute {
            request,
            vertex,
            outputs,
            inputs,
        });
    }

    fn tell_missed(&mut self, ix: Ix) {
        let vertex = &self.vertices[&ix];
        if vertex.miss_told || vertex.is_keyless() {
            return;
        }
        let Some(key) = self.query_key(ix) else {
            return;
        };
        let lacking = || vertex.outputs.values().filter(|o| o.result.is_none());
        let reason = if vertex.ignores_cache() {
            MissReason::IgnoreCache
        } else if lacking().any(|output| output.lost) {
            MissReason::ResultLost
        } else if lacking().any(|output| !output.keys.is_empty()) {
            MissReason::NoResult
        } else {
            MissReason::NoMatch
        };
        let linked = lacking().next().map_or(&[][..], |output| &output.linked);
        let inputs = vertex.inputs.iter().enumerate().map(|(i, input)| {
            let from = &self.vertices[&input.from];
            MissedInput {
                vertex: from.digest().clone(),
                executed: from.executed,
                linked: linked.get(i).copied(),
            }
        });
        self.commands.push(Command::Missed {
            vertex: vertex.digest().clone(),
            jobs: self.watchers(ix),
            reason,
            key,
            inputs: inputs.collect(),
        });
        self.vertex(ix).miss_told = true;
    }

    pub(super) fn on_executed(&mut self, ix: Ix, outputs: &[usize], results: Vec<R>) {
        let vertex = self.vertex(ix);
        vertex.executed = true;
        vertex.phase = Phase::Saving(outputs.len());
        let keyless = vertex.is_keyless();
        for (&output, result) in outputs.iter().zip(results) {
            let value = Arc::new(result);
            if keyless {
                self.set_made(ix, output, value, Vec::new());
            } else {
                self.save(ix, output, value);
            }
        }
    }

    fn save(&mut self, ix: Ix, output: usize, value: Arc<R>) {
        let Some(key) = self.save_key(ix) else {
            return;
        };
        let mode = if self.vertices[&ix].ignores_cache() {
            SaveMode::Replace
        } else {
            SaveMode::Keep
        };
        let result = R::clone(&value);
        self.request(ix, Ask::Save { output }, vec![value], |request, vertex| {
            Command::Save {
                request,
                vertex,
                output,
                key,
                result,
                mode,
            }
        });
    }

    /// The key of a vertex by which its result may be found again: of each input only the nodes
    /// that stand for the result that was used.
    pub(super) fn save_key(&self, ix: Ix) -> Option<CacheKey> {
        self.vertices[&ix].key(|input| {
            let from = &self.vertices[&input.from].outputs[&input.output];
            from.result_keys().to_vec()
        })
    }

    /// Takes a result that was made and, if `keys` are not empty, saved.
    pub(super) fn set_made(&mut self, ix: Ix, output: usize, value: Arc<R>, keys: Vec<KeyId>) {
        let known = self.output(ix, output);
        known.add_keys(keys.iter().copied());
        known.lost = false;
        known.result = Some(Held {
            value,
            keys,
            made: true,
        });
        self.tell_users(ix);
        let vertex = self.vertex(ix);
        vertex.phase = match vertex.phase {
            Phase::Saving(left) if left > 1 => Phase::Saving(left - 1),
            _ => Phase::Idle,
        };
        if vertex.phase == Phase::Idle {
            self.unlock(ix);
            self.notify(ix, Progress::Completed);
            self.changed.insert(ix);
        }
    }
}
