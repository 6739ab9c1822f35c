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
        // What is installed above as well was thought about.
        let is_new = |used: &Use| before.iter().all(|known| known.tool != used.tool);
        let late: Vec<(Step<'_>, Use)> = in_stage()
            .filter(|step| step.index > index)
            .filter_map(|step| {
                let used = installs(&step).into_iter().find(is_new)?;
                Some((step, used))
            })
            .collect();
        if !late.is_empty() {
            findings.push(finding(stages, instruction, copy, &late));
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
    late: &[(Step<'_>, Use)],
) -> Finding {
    let places: Vec<String> = late
        .iter()
        .map(|(step, used)| format!("`{}` in line {}", used.verb, step.line()))
        .collect();
    let problem = format!(
        "all files are copied before {}: a change of any file installs everything again",
        places.join(" and ")
    );
    let mut fix = Vec::new();
    let mut advice = "install first";
    for (step, used) in late {
        let manifests = manifests(stages, used);
        if !manifests.is_empty() {
            advice = "copy what names the packages, install, and copy the rest after that";
        }
        fix.extend(copy_lines(&manifests));
        fix.push(text_line(step.instruction));
    }
    fix.push(text_line(instruction));
    Finding {
        cost: cost(stages, instruction, late),
        advice: advice.to_owned(),
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
                line.push_str(destination.trim_end_matches('/'));
                line.push('/');
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

fn text_line(instruction: &InstructionView) -> String {
    let words: Vec<&str> = instruction.text.split_whitespace().collect();
    words.join(" ")
}

/// Returns how long packages were installed because a copied file had changed.
fn cost(stages: &Stages<'_>, copy: &InstructionView, late: &[(Step<'_>, Use)]) -> Option<Cost> {
    past::cost(&stages.patient.history, |build| {
        let find = |text: &str| {
            let mut steps = build.steps.iter();
            steps.find(move |known| known.instruction == text)
        };
        find(&copy.text)?.cause.as_ref().filter(|cause| {
            matches!(
                cause,
                MissCause::File { .. } | MissCause::Renamed { .. } | MissCause::IgnoreFile { .. }
            )
        })?;
        let times = late
            .iter()
            .filter_map(|(step, _)| find(&step.instruction.text))
            .filter(|installed| matches!(installed.cause, Some(MissCause::Input { .. })))
            .map(|installed| installed.duration_ms);
        times.reduce(|sum, time| sum + time)
    })
}
