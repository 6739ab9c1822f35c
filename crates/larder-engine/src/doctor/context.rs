//! What is copied and no image needs.

use larder_dockerfile::{CopyView, InstructionView};

use super::finding::{Cost, Finding, FindingKind};
use super::past;
use super::stages::{Stages, cleaned};
use super::survey::{Junk, LARGE_BYTES, Survey};
use crate::event::{FileChange, MissCause};

pub(super) fn look(stages: &Stages<'_>, findings: &mut Vec<Finding>) {
    let Some(context) = &stages.patient.context else {
        return;
    };
    // The first copy that takes something in is where to say so.
    let mut told = Told::default();
    for (_, _, instruction, copy) in stages.copies() {
        let roots: Vec<String> = copy.sources.iter().map(|source| cleaned(source)).collect();
        let takes = |path: &str| roots.iter().any(|root| is_beneath(path, root));
        ignore_file(
            stages,
            context,
            instruction,
            copy,
            &takes,
            &mut told,
            findings,
        );
        large_files(stages, context, instruction, &takes, &mut told, findings);
        umask(stages, context, instruction, &takes, &mut told, findings);
    }
}

/// What was said of an earlier copy.
#[derive(Default)]
struct Told {
    junk: Vec<String>,
    no_ignore_file: bool,
    large: bool,
    umask: bool,
}

/// Whether a path lies beneath a directory; a file is beneath nothing but its own name.
fn is_beneath(path: &str, root: &str) -> bool {
    root.is_empty()
        || path
            .strip_prefix(root)
            .is_some_and(|rest| rest.starts_with('/'))
}

fn ignore_file(
    stages: &Stages<'_>,
    context: &Survey,
    instruction: &InstructionView,
    copy: &CopyView,
    takes: &dyn Fn(&str) -> bool,
    told: &mut Told,
    findings: &mut Vec<Finding>,
) {
    let mut junk: Vec<&Junk> = context
        .junk
        .iter()
        .filter(|junk| takes(&junk.example))
        .collect();
    junk.retain(|junk| !told.junk.contains(&junk.pattern));
    told.junk
        .extend(junk.iter().map(|junk| junk.pattern.clone()));
    let line = instruction.lines.start;
    let cost = cost_of_files(stages, &|path| junk.iter().any(|junk| junk.covers(path)));
    let mut fix: Vec<String> = junk.iter().map(|junk| junk.pattern.clone()).collect();
    let copied = described(&junk);
    let is_missing = context.ignore_file.is_none() && super::stages::takes_all(copy);
    let has_dockerfile = context
        .top
        .iter()
        .any(|name| name.starts_with("Dockerfile"));
    if is_missing && !told.no_ignore_file && (copied.is_some() || has_dockerfile) {
        told.no_ignore_file = true;
        let what = copied.unwrap_or_else(|| "the Dockerfile itself".to_owned());
        fix.push("Dockerfile*".to_owned());
        fix.push(".dockerignore".to_owned());
        let problem = format!("there is no `.dockerignore`: line {line} copies {what}");
        findings.push(Finding {
            file: ".dockerignore".to_owned(),
            cost,
            advice: "write one, with these lines".to_owned(),
            fix,
            ..stages.finding(FindingKind::NoIgnoreFile, 0, problem)
        });
    } else if let Some(what) = copied {
        let name = context.ignore_file.as_deref().unwrap_or(".dockerignore");
        let problem =
            format!("`{name}` lets through what line {line} copies and no image needs: {what}");
        findings.push(Finding {
            file: name.to_owned(),
            cost,
            advice: "add these lines".to_owned(),
            fix,
            ..stages.finding(FindingKind::LeakyContext, 0, problem)
        });
    }
}

/// Names junk with its size: `.git` (812 files, 45.1 MB).
fn described(junk: &[&Junk]) -> Option<String> {
    let parts: Vec<String> = junk
        .iter()
        .map(|junk| {
            let files = match junk.files_count {
                1 => "1 file".to_owned(),
                count => format!("{count} files"),
            };
            format!("`{}` ({files}, {})", junk.example, size(junk.bytes))
        })
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

fn large_files(
    stages: &Stages<'_>,
    context: &Survey,
    instruction: &InstructionView,
    takes: &dyn Fn(&str) -> bool,
    told: &mut Told,
    findings: &mut Vec<Finding>,
) {
    let large: Vec<&(String, u64)> = context
        .large
        .iter()
        .filter(|(path, _)| takes(path))
        .collect();
    let Some((largest, _)) = large.iter().max_by_key(|(_, bytes)| *bytes) else {
        return;
    };
    if std::mem::replace(&mut told.large, true) {
        return;
    }
    let bytes: u64 = large.iter().map(|(_, bytes)| bytes).sum();
    let count = match large.len() {
        1 => "a file".to_owned(),
        count => format!("{count} files"),
    };
    let problem = format!(
        "{count} of more than {} (`{largest}` above all), {} together, are read, copied and exported with all \
         others",
        size(LARGE_BYTES),
        size(bytes)
    );
    findings.push(Finding {
        cost: cost_of_files(stages, &|path| large.iter().any(|(known, _)| known == path)),
        advice: "leave them out by the ignore file, or copy them by a step of their own".to_owned(),
        fix: large.iter().map(|(path, _)| path.clone()).collect(),
        ..stages.finding(FindingKind::LeakyContext, instruction.lines.start, problem)
    });
}

fn umask(
    stages: &Stages<'_>,
    context: &Survey,
    instruction: &InstructionView,
    takes: &dyn Fn(&str) -> bool,
    told: &mut Told,
    findings: &mut Vec<Finding>,
) {
    let open: Vec<&String> = context
        .group_writable
        .iter()
        .filter(|path| takes(path))
        .collect();
    let closed = context.others.iter().any(|path| takes(path));
    let cost = past::cost_of_cause(&stages.patient.history, |step, cause| {
        let is_mode = matches!(
            cause,
            MissCause::File {
                change: FileChange::Mode,
                ..
            }
        );
        is_mode && step.instruction == instruction.text
    });
    let Some(example) = open.first().filter(|_| closed) else {
        return;
    };
    if std::mem::replace(&mut told.umask, true) {
        return;
    }
    let problem = format!(
        "`{example}` can be written by its group, other files can't: a checkout under another umask has \
         other modes, and finds nothing of this in the cache"
    );
    findings.push(Finding {
        cost,
        advice: "give all files the same modes before the build".to_owned(),
        fix: vec!["chmod -R u=rwX,go=rX .".to_owned()],
        ..stages.finding(FindingKind::UmaskModes, instruction.lines.start, problem)
    });
}

/// Returns how long steps ran because one of these files had changed.
fn cost_of_files(stages: &Stages<'_>, is_it: &dyn Fn(&str) -> bool) -> Option<Cost> {
    past::cost_of_cause(&stages.patient.history, |_, cause| {
        let path = match cause {
            MissCause::File { path, .. } => path,
            MissCause::Renamed { to, .. } => to,
            _ => return false,
        };
        is_it(path.to_string_lossy().trim_start_matches('/'))
    })
}
