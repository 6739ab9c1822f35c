//! What is copied before packages are installed.

use larder_dockerfile::{CopyView, InstructionView};

use super::finding::{Cost, Finding, FindingKind};
use super::past;
use super::stages::{Stages, Step, takes_all};
use super::tools::{self, Use};
use crate::event::MissCause;

pub(super) fn look(stages: &Stages<'_>, findings: &mut Vec<Finding>) {
    for (stage, index, instruction, copy) in stages.copies() {
        if !takes_all(copy) {
            continue;
        }
        let in_stage = || stages.steps().filter(move |step| step.stage == stage);
        let before: Vec<Use> = in_stage()
            .filter(|step| step.index < index)
            .flat_map(|step| installs(&step))
            .collect();
        let late = in_stage()
            .filter(|step| step.index > index)
            .find_map(|step| {
                let mut uses = installs(&step).into_iter();
                // What is installed above as well was thought about.
                let used = uses.find(|used| before.iter().all(|known| known.tool != used.tool))?;
                Some((step, used))
            });
        if let Some((step, used)) = late {
            findings.push(finding(stages, instruction, copy, &step, &used));
        }
    }
}

/// Returns the calls of package managers that need no file but those that name packages.
fn installs(step: &Step<'_>) -> Vec<Use> {
    let commands = step.commands();
    let uses = commands.iter().filter_map(tools::recognize);
    uses.filter(|used| used.packages_only).collect()
}

fn finding(
    stages: &Stages<'_>,
    instruction: &InstructionView,
    copy: &CopyView,
    step: &Step<'_>,
    used: &Use,
) -> Finding {
    let line = step.line();
    let verb = &used.verb;
    let problem = format!(
        "all files are copied before `{verb}` in line {line}: a change of any file installs everything again"
    );
    let manifests = manifests(stages, used);
    let mut fix = copy_lines(&manifests);
    fix.extend(text_lines(step.instruction));
    fix.extend(text_lines(instruction));
    let advice = if manifests.is_empty() {
        "install first".to_owned()
    } else {
        "copy what names the packages, install, and copy the rest after that".to_owned()
    };
    Finding {
        cost: cost(stages, instruction, step),
        advice,
        fix,
        ..stages.finding(
            FindingKind::CopyBeforeInstall,
            instruction.lines.start,
            problem,
        )
    }
    .with_destination(copy)
}

impl Finding {
    /// Leaves the directory of a copy as it is.
    fn with_destination(mut self, copy: &CopyView) -> Self {
        let destination = copy.destination.trim_end_matches("/.");
        let is_here = matches!(destination, "." | "./");
        for line in self.fix.iter_mut().filter(|_| !is_here) {
            if line.starts_with("COPY ") && line.ends_with(" ./") {
                let rest = line.len() - "./".len();
                line.truncate(rest);
                line.push_str(&format!("{}/", destination.trim_end_matches('/')));
            }
        }
        self
    }
}

/// Returns the files that name the packages, as far as they are there.
fn manifests(stages: &Stages<'_>, used: &Use) -> Vec<String> {
    let given = used.manifests.iter();
    let given = given.filter(|name| !name.contains('$') && !name.contains("://"));
    let names = given.map(|name| match name.strip_prefix('/') {
        // An absolute path is one in the image.
        Some(path) => path.rsplit('/').next().unwrap_or(path).to_owned(),
        None => name.trim_start_matches("./").to_owned(),
    });
    match &stages.patient.context {
        Some(context) => names
            .filter(|name| name.contains('/') || context.top.contains(name))
            .collect(),
        None => names.collect(),
    }
}

fn copy_lines(manifests: &[String]) -> Vec<String> {
    let (deep, flat): (Vec<&String>, Vec<&String>) =
        manifests.iter().partition(|name| name.contains('/'));
    let mut lines = Vec::new();
    if !flat.is_empty() {
        let names: Vec<&str> = flat.iter().map(|name| name.as_str()).collect();
        lines.push(format!("COPY {} ./", names.join(" ")));
    }
    lines.extend(deep.iter().map(|name| format!("COPY {name} {name}")));
    lines
}

fn text_lines(instruction: &InstructionView) -> Vec<String> {
    let words: Vec<&str> = instruction.text.split_whitespace().collect();
    vec![words.join(" ")]
}

/// Returns how long the packages were installed because a copied file had changed.
fn cost(stages: &Stages<'_>, copy: &InstructionView, step: &Step<'_>) -> Option<Cost> {
    past::cost(&stages.patient.history, |build| {
        let is_file = |cause: &MissCause| {
            matches!(
                cause,
                MissCause::File { .. } | MissCause::Renamed { .. } | MissCause::IgnoreFile { .. }
            )
        };
        let find = |text: &str| {
            let mut steps = build.steps.iter();
            steps.find(move |known| known.instruction == text)
        };
        find(&copy.text)?
            .cause
            .as_ref()
            .filter(|cause| is_file(cause))?;
        let installed = find(&step.instruction.text)?;
        matches!(installed.cause, Some(MissCause::Input { .. })).then_some(installed.duration_ms)
    })
}
