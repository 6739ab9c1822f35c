//! The invariant that keeps builds from hanging.

use super::state::{Ix, JobState, Phase};
use super::{Error, Solver};

impl<R: Clone, E: Clone + From<Error>> Solver<R, E> {
    /// Asserts that all that active jobs wait for is under way: each vertex has work with the
    /// driver, waits in a line that moves, or waits for an input (of which the same is true).
    pub(super) fn check(&self) {
        let needed = self.needed_by_active_jobs();
        for (ix, _) in needed.keys() {
            let vertex = &self.vertices[ix];
            assert!(vertex.failed.is_none(), "a job waits for a failed vertex");
            let waits = match vertex.phase {
                Phase::Parked => self.locks.values().any(|waiting| waiting.contains(ix)),
                Phase::Queued => self.queue.contains(ix) && self.running > 0,
                Phase::Idle | Phase::Locking | Phase::Running | Phase::Saving(_) => {
                    !vertex.work.is_empty() || self.waits_for_input(*ix)
                }
            };
            assert!(waits, "nothing is under way for {}", vertex.digest());
        }
        for job in self.jobs.values() {
            if let JobState::Ending(_) = job.state {
                assert!(!self.remains.is_empty(), "a job could have ended");
            }
        }
    }

    fn waits_for_input(&self, ix: Ix) -> bool {
        let mut inputs = self.vertices[&ix].inputs.iter();
        inputs.any(|input| self.vertices[&input.from].owes(input.output, input.want))
    }
}
