//! In which order targets are prepared.

use std::collections::HashMap;

use super::TargetRequest;
use crate::error::{BuildError, Result};

/// Groups the targets, by index: none reads one of its own or a later group.
///
/// # Errors
/// When a target reads one that is not there, when targets read each other, and when two have one
/// name.
pub(super) fn groups(targets: &[TargetRequest]) -> Result<Vec<Vec<usize>>> {
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    for (index, target) in targets.iter().enumerate() {
        if by_name.insert(&target.name, index).is_some() {
            let message = format!("two targets are called `{}`", target.name);
            return Err(BuildError::invalid(message));
        }
    }
    let mut reads: Vec<Vec<usize>> = Vec::with_capacity(targets.len());
    for target in targets {
        let read = |(context, name): (&String, &String)| {
            by_name.get(name.as_str()).copied().ok_or_else(|| {
                BuildError::invalid(format!(
                    "target `{}`: build context `{context}` is target `{name}`, which is not built",
                    target.name
                ))
            })
        };
        reads.push(target.inputs.iter().map(read).collect::<Result<_>>()?);
    }
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut grouped = vec![false; targets.len()];
    while let Some(waiting) = grouped.iter().position(|grouped| !grouped) {
        let is_ready =
            |&target: &usize| !grouped[target] && reads[target].iter().all(|&read| grouped[read]);
        let group: Vec<usize> = (0..targets.len()).filter(is_ready).collect();
        if group.is_empty() {
            return Err(circle(targets, &reads, &grouped, waiting));
        }
        for &target in &group {
            grouped[target] = true;
        }
        groups.push(group);
    }
    Ok(groups)
}

/// Returns the error that names a circle of targets which read each other; `start` is one whose
/// turn never comes.
fn circle(
    targets: &[TargetRequest],
    reads: &[Vec<usize>],
    grouped: &[bool],
    start: usize,
) -> BuildError {
    let mut path = vec![start];
    loop {
        let last = path[path.len() - 1];
        // Its turn never comes because of another whose turn never comes.
        let next = reads[last].iter().copied().find(|&read| !grouped[read]);
        let next = next.unwrap_or(last);
        let met = path.iter().position(|&target| target == next);
        path.push(next);
        if let Some(met) = met {
            let names = path[met..]
                .iter()
                .map(|&target| format!("`{}`", targets[target].name));
            let names: Vec<String> = names.collect();
            return BuildError::invalid(format!(
                "targets read each other: {}",
                names.join(" reads ")
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{BuildRequest, ContextSource};

    /// Makes targets of lines such as `a: b c`, where `a` reads `b` and `c`.
    fn targets(lines: &[&str]) -> Vec<TargetRequest> {
        let target = |line: &&str| {
            let (name, reads) = line.split_once(':').unwrap();
            let inputs = reads.split_whitespace();
            TargetRequest {
                inputs: inputs
                    .map(|read| (format!("{read}-context"), read.to_owned()))
                    .collect(),
                ..TargetRequest::new(name, BuildRequest::new(ContextSource::Empty))
            }
        };
        lines.iter().map(target).collect()
    }

    #[test]
    fn what_is_read_comes_first() {
        for (lines, expected) in [
            (&["a:", "b:"][..], vec![vec![0, 1]]),
            (&["a: b", "b: c", "c:"], vec![vec![2], vec![1], vec![0]]),
            (
                &["a: b c", "b:", "c: b", "d:"],
                vec![vec![1, 3], vec![2], vec![0]],
            ),
            (&[], vec![]),
        ] {
            assert_eq!(groups(&targets(lines)).unwrap(), expected, "{lines:?}");
        }
    }

    #[test]
    fn what_can_t_be_ordered_is_named() {
        for (lines, expected) in [
            (&["a: a"][..], "targets read each other: `a` reads `a`"),
            (
                &["x: a", "a: b y", "b: c", "c: a", "y:"],
                "targets read each other: `a` reads `b` reads `c` reads `a`",
            ),
            (
                &["a: b"],
                "target `a`: build context `b-context` is target `b`, which is not built",
            ),
            (&["a:", "a:"], "two targets are called `a`"),
        ] {
            let error = groups(&targets(lines)).unwrap_err();
            assert_eq!(error.to_string(), expected, "{lines:?}");
        }
    }
}
