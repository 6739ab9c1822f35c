use std::collections::HashMap;
use std::hash::Hash;

use super::parts::StepParts;

/// Returns, for each step of `now`, which of the `earlier` steps it was, if any.
///
/// The same instruction of the same stage comes first, then that of another stage: a stage gets
/// another name when it moves. What is left over was edited, if it is in the same stage and of the
/// same kind as something that is no longer there.
pub(crate) fn counterparts(now: &[&StepParts], earlier: &[StepParts]) -> Vec<Option<usize>> {
    let mut pairing = Pairing {
        now,
        earlier,
        found: vec![None; now.len()],
        is_taken: vec![false; earlier.len()],
    };
    pairing.pair_by(|step| (step.stage.clone(), step.instruction.clone()));
    pairing.pair_by(|step| step.instruction.clone());
    pairing.pair_nearest();
    pairing.found
}

struct Pairing<'a> {
    now: &'a [&'a StepParts],
    earlier: &'a [StepParts],
    found: Vec<Option<usize>>,
    is_taken: Vec<bool>,
}

impl Pairing<'_> {
    /// Pairs steps with equal keys, the first with the first.
    fn pair_by<K: Eq + Hash>(&mut self, key: impl Fn(&StepParts) -> K) {
        let mut free: HashMap<K, Vec<usize>> = HashMap::new();
        for position in (0..self.earlier.len()).rev() {
            if !self.is_taken[position] {
                let step = &self.earlier[position];
                free.entry(key(step)).or_default().push(position);
            }
        }
        for (found, step) in self.found.iter_mut().zip(self.now) {
            if found.is_none() {
                *found = free.get_mut(&key(step)).and_then(Vec::pop);
                if let Some(position) = *found {
                    self.is_taken[position] = true;
                }
            }
        }
    }

    fn pair_nearest(&mut self) {
        for (found, step) in self.found.iter_mut().zip(self.now) {
            if found.is_some() {
                continue;
            }
            let alike = (0..self.earlier.len()).filter(|&position| {
                let old = &self.earlier[position];
                !self.is_taken[position] && old.stage == step.stage && verb(old) == verb(step)
            });
            let distance =
                |position: &usize| self.earlier[*position].ordinal.abs_diff(step.ordinal);
            *found = alike.min_by_key(distance);
            if let Some(position) = *found {
                self.is_taken[position] = true;
            }
        }
    }
}

fn verb(step: &StepParts) -> String {
    let word = step.instruction.split_whitespace().next();
    word.unwrap_or_default().to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn steps(stage: &str, instructions: &[&str]) -> Vec<StepParts> {
        let step = |(index, instruction): (usize, &&str)| StepParts {
            stage: stage.into(),
            ordinal: index + 1,
            name: String::new(),
            instruction: (*instruction).into(),
            line: None,
            platform: None,
            fields: vec![],
            env: vec![],
            bases: vec![],
            sources: vec![],
            contents: BTreeMap::new(),
            inputs: vec![],
            key: None,
        };
        instructions.iter().enumerate().map(step).collect()
    }

    fn check(now: &[StepParts], earlier: &[StepParts], expected: &[Option<usize>]) {
        let now: Vec<&StepParts> = now.iter().collect();
        assert_eq!(counterparts(&now, earlier), expected);
    }

    #[test]
    fn a_step_is_known_by_its_instruction_and_then_by_its_place() {
        let before = steps("a", &["RUN 1", "COPY x", "RUN 2"]);
        let check = |now: &[&str], expected: &[Option<usize>]| {
            check(&steps("a", now), &before, expected);
        };
        check(&["RUN 1", "COPY x", "RUN 2"], &[Some(0), Some(1), Some(2)]);
        check(&["COPY x", "RUN 2", "RUN 1"], &[Some(1), Some(2), Some(0)]);
        check(
            &["RUN 1", "RUN 9", "COPY x", "RUN 2"],
            &[Some(0), None, Some(1), Some(2)],
        );
        check(
            &["RUN 1", "RUN 1", "COPY x", "RUN 2"],
            &[Some(0), None, Some(1), Some(2)],
        );
        check(&["RUN 1", "COPY x", "run 3"], &[Some(0), Some(1), Some(2)]);
        check(&["RUN 1", "ADD x", "RUN 2"], &[Some(0), None, Some(2)]);
    }

    #[test]
    fn equal_instructions_belong_to_their_stage_if_it_is_there() {
        let mut before = steps("a", &["RUN 1"]);
        before.extend(steps("b", &["RUN 1"]));
        check(&steps("b", &["RUN 1"]), &before, &[Some(1)]);
        check(&steps("c", &["RUN 1", "RUN 2"]), &before, &[Some(0), None]);
    }
}
