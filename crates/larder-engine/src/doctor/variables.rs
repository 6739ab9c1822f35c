//! Variables that change often, above steps that don't read them.

use larder_dockerfile::{InstructionView, KindView};

use super::finding::{Cost, Finding, FindingKind};
use super::past;
use super::stages::{Stages, Step};
use super::tools;
use crate::event::MissCause;

/// Names that stand for something else in each build.
const VOLATILE: [&str; 22] = [
    "BUILD_DATE",
    "BUILD_ID",
    "BUILD_NUMBER",
    "BUILD_TIME",
    "BUILD_TIMESTAMP",
    "CACHEBUST",
    "CACHE_BUST",
    "CACHE_DATE",
    "CI_COMMIT_SHA",
    "COMMIT",
    "COMMIT_HASH",
    "COMMIT_SHA",
    "GITHUB_SHA",
    "GIT_COMMIT",
    "GIT_HASH",
    "GIT_REV",
    "GIT_REVISION",
    "GIT_SHA",
    "REVISION",
    "SOURCE_COMMIT",
    "VCS_REF",
    "VCS_REVISION",
];
/// Names that programs read without being told.
const READ_ANYWAY: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "DEBIAN_FRONTEND"];
/// In so many builds a variable must have changed to count as one that does.
const MIN_CHANGES: usize = 2;
/// A step that has run for so long is worth moving a line, in milliseconds.
const EXPENSIVE_MS: u64 = 2_000;

pub(super) fn look(stages: &Stages<'_>, findings: &mut Vec<Finding>) {
    for (stage, view) in stages.all().iter().enumerate() {
        let mut volatile: Vec<&str> = VOLATILE.to_vec();
        for (index, instruction) in view.instructions.iter().enumerate() {
            for declaration in declarations(instruction) {
                let Declaration { name, line, .. } = &declaration;
                let value = line.split_once('=').map(|(_, value)| value);
                if value.is_some_and(|value| volatile.iter().any(|known| reads(value, known))) {
                    volatile.push(name);
                }
                let is_volatile = volatile.contains(name);
                findings.extend(find(stages, (stage, index), &declaration, is_volatile));
            }
        }
    }
}

/// A variable that an instruction sets.
struct Declaration<'a> {
    keyword: &'static str,
    name: &'a str,
    /// How it is set by a line of its own.
    line: String,
    /// The number of its line.
    number: u32,
}

fn declarations(instruction: &InstructionView) -> Vec<Declaration<'_>> {
    let declaration = |keyword, name, line| Declaration {
        keyword,
        name,
        line,
        number: instruction.lines.start,
    };
    match &instruction.kind {
        KindView::Arg(pairs) => {
            let arg = |(name, default): &'_ (String, Option<String>)| match default {
                Some(default) => format!("ARG {name}={default}"),
                None => format!("ARG {name}"),
            };
            let pairs = pairs.iter();
            pairs
                .map(|pair| declaration("ARG", pair.0.as_str(), arg(pair)))
                .collect()
        }
        KindView::Env(pairs) => {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| declaration("ENV", name, format!("ENV {name}={value}")))
                .collect()
        }
        _ => Vec::new(),
    }
}

fn find(
    stages: &Stages<'_>,
    (stage, index): (usize, usize),
    declaration: &Declaration<'_>,
    is_volatile: bool,
) -> Option<Finding> {
    let Declaration {
        keyword,
        name,
        line,
        number,
    } = declaration;
    if READ_ANYWAY.contains(name) || name.to_ascii_lowercase().ends_with("_proxy") {
        return None;
    }
    let cost = cost(stages, name);
    let changes_often = cost.is_some_and(|cost| cost.hits >= MIN_CHANGES);
    if !changes_often && !is_volatile {
        return None;
    }
    let below = &stages.all()[stage].instructions[index + 1..];
    let reader = below
        .iter()
        .position(|instruction| reads(&instruction.text, name));
    let last = index + 1 + reader.unwrap_or(below.len());
    let spared = |step: &Step<'_>| step.stage == stage && (index + 1..last).contains(&step.index);
    let expensive: Vec<Step<'_>> = stages
        .steps()
        .filter(spared)
        .filter(|step| is_expensive(stages, step, name, changes_often))
        .collect();
    let worst = expensive.last()?;
    let at = worst.line();
    let problem = format!(
        "`{keyword} {name}` changes often, and the step in line {at} runs again with it without reading it"
    );
    Some(Finding {
        cost,
        advice: format!(
            "move it below line {}, down to where it is read",
            worst.instruction.lines.end
        ),
        fix: vec![line.clone()],
        ..stages.finding(FindingKind::VolatileVariable, *number, problem)
    })
}

/// Whether a step takes long, and nothing suggests that it reads the variable.
fn is_expensive(stages: &Stages<'_>, step: &Step<'_>, name: &str, by_history: bool) -> bool {
    let commands = step.commands();
    let mut uses = commands.iter().filter_map(tools::recognize);
    let lower = name.to_ascii_lowercase();
    if uses.any(|used| used.packages_only && !lower.starts_with(used.tool.name)) {
        return true;
    }
    let runs = stages.cost_of_runs(step);
    by_history && runs.is_some_and(|cost| cost.milliseconds >= EXPENSIVE_MS)
}

/// Whether a text has a name in it, as a word.
fn reads(text: &str, name: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    text.match_indices(name).any(|(at, found)| {
        !is_part(text[..at].chars().next_back())
            && !is_part(text[at + found.len()..].chars().next())
    })
}

/// Returns how long steps ran because the variable had changed.
fn cost(stages: &Stages<'_>, name: &str) -> Option<Cost> {
    past::cost_of_cause(&stages.patient.history, |step, cause| {
        let (MissCause::Arg { name: changed, .. } | MissCause::Env { name: changed, .. }) = cause
        else {
            return false;
        };
        changed == name && !reads(&step.instruction, name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words() {
        assert!(reads("RUN echo $GIT_SHA", "GIT_SHA"));
        assert!(reads("LABEL rev=${GIT_SHA:-x}", "GIT_SHA"));
        assert!(!reads("RUN echo $GIT_SHAS $MY_GIT_SHA", "GIT_SHA"));
    }
}
