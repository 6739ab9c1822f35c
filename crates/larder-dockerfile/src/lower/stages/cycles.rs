//! Stages that need each other.

use super::Stages;
use crate::error::Error;

impl Stages {
    /// Refuses a stage that needs itself, be it by way of others.
    pub(super) fn check_cycles(&self) -> Result<(), Error> {
        let mut seen = vec![false; self.states.len()];
        let mut on_path = vec![false; self.states.len()];
        for root in 0..self.states.len() {
            // Without recursion: a chain of stages may be long.
            let mut path: Vec<(usize, usize)> = Vec::new();
            if !seen[root] {
                path.push((root, 0));
            }
            while let Some((id, next)) = path.pop() {
                (seen[id], on_path[id]) = (true, true);
                let Some(&(dependency, _)) = self.states[id].dependencies.get(next) else {
                    on_path[id] = false;
                    continue;
                };
                path.push((id, next + 1));
                if on_path[dependency] {
                    return Err(self.cycle(root, &path));
                }
                if !seen[dependency] {
                    path.push((dependency, 0));
                }
            }
        }
        Ok(())
    }

    fn cycle(&self, root: usize, path: &[(usize, usize)]) -> Error {
        let lines = path
            .iter()
            .map(|&(id, next)| self.states[id].dependencies[next - 1].1);
        let message = format!(
            "circular dependency detected on stage: {}",
            self.states[root].shown
        );
        Error::dockerfile(message).at_each(lines.collect())
    }
}
