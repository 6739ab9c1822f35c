//! apt: two mounts, both locked; lists and packages that stay.

use larder_dockerfile::InstructionView;

use super::finding::{Finding, FindingKind};
use super::packages;
use super::shell::Command;
use super::stages::{self, Stages, Step};
use super::tools::{self, APT};

/// Debian's images have it: it removes each package as soon as it is installed.
const DOCKER_CLEAN: &str = "docker-clean";

pub(super) fn look(stages: &Stages<'_>, findings: &mut Vec<Finding>) {
    for step in stages.steps() {
        let commands = step.commands();
        if installs(&commands) {
            mounts(stages, &step, findings);
        } else if commands.iter().any(is_update) {
            update_alone(stages, &step, findings);
        }
    }
}

fn installs(commands: &[Command]) -> bool {
    let mut used = commands.iter().filter_map(tools::recognize);
    used.any(|used| *used.tool == APT)
}

fn is_update(command: &Command) -> bool {
    let mut words = command.words.iter().filter(|word| !word.starts_with('-'));
    let program = words.next().map(String::as_str);
    matches!(program, Some("apt-get" | "apt")) && words.next().is_some_and(|word| word == "update")
}

fn mounts(stages: &Stages<'_>, step: &Step<'_>, findings: &mut Vec<Finding>) {
    let state = |cache: &str| {
        let mut mounts = step.cache_mounts();
        mounts.find(|mount| mount.target.trim_end_matches('/') == cache)
    };
    let missing: Vec<&str> = APT
        .caches
        .iter()
        .copied()
        .filter(|cache| state(cache).is_none())
        .collect();
    let unlocked: Vec<&str> = APT
        .caches
        .iter()
        .copied()
        .filter(|cache| state(cache).is_some_and(|mount| !mount.is_locked))
        .collect();
    let problem = match (&missing[..], &unlocked[..]) {
        ([_, _], _) => Some(
            "`apt-get install` has no cache mounts: each time this step runs, package lists and \
             packages are downloaded again"
                .to_owned(),
        ),
        ([cache], _) => Some(format!(
            "`apt-get install` has no cache mount for `{cache}`"
        )),
        ([], [cache, ..]) => Some(format!(
            "the cache mount `{cache}` is not locked: apt fails when two steps use it at once"
        )),
        _ => None,
    };
    if let Some(problem) = problem {
        let wanted = packages::mounts(stages, step, &APT);
        let rest = step.rest();
        let own = rest.split(' ').filter(|word| {
            let is_apt = |cache: &&str| word.contains(&format!("target={cache}"));
            !(word.starts_with("--mount=type=cache") && APT.caches.iter().any(is_apt))
        });
        let own = own.collect::<Vec<_>>().join(" ");
        let mut fix = Vec::new();
        if missing.len() == 2 && !is_clean_removed(stages, step) {
            fix.extend(keep_packages());
        }
        fix.extend(stages::with_mounts(&wanted, &own));
        findings.push(Finding {
            cost: stages.cost_of_runs(step),
            advice: "mount both directories, locked".to_owned(),
            fix,
            ..stages.finding(FindingKind::AptMounts, step.line(), problem)
        });
    }
    let keeps_packages = state(APT.caches[0]).is_some();
    if keeps_packages && !is_clean_removed(stages, step) {
        let problem = "the base image's `docker-clean` removes each package from the cache mount as \
                       soon as it is installed";
        findings.push(Finding {
            cost: stages.cost_of_runs(step),
            advice: "let apt keep what it downloads, above this step".to_owned(),
            fix: keep_packages().to_vec(),
            ..stages.finding(FindingKind::DockerClean, step.line(), problem.to_owned())
        });
    }
}

/// Returns the lines that make apt keep what it downloads.
fn keep_packages() -> [String; 2] {
    let keep = "'Binary::apt::APT::Keep-Downloaded-Packages \"true\";'";
    [
        format!("RUN rm -f /etc/apt/apt.conf.d/{DOCKER_CLEAN}; \\"),
        format!("    echo {keep} > /etc/apt/apt.conf.d/keep-cache"),
    ]
}

/// Whether the step, or one above it, takes `docker-clean` away or tells apt to keep packages.
fn is_clean_removed(stages: &Stages<'_>, step: &Step<'_>) -> bool {
    let deals = |instruction: &InstructionView| {
        let text = &instruction.text;
        text.contains(DOCKER_CLEAN) || text.contains("Keep-Downloaded-Packages")
    };
    deals(step.instruction) || stages.above(step.stage, step.index).any(deals)
}

fn update_alone(stages: &Stages<'_>, step: &Step<'_>, findings: &mut Vec<Finding>) {
    let problem = "`apt-get update` is a step of its own: its lists stay cached and grow old, while the \
                   steps below install from them";
    let install = stages
        .steps()
        .filter(|later| later.stage == step.stage && later.index > step.index)
        .find(|later| installs(&later.commands()));
    let Some(install) = install else {
        return;
    };
    findings.push(Finding {
        advice: format!(
            "update and install in one step, in place of line {}",
            install.line()
        ),
        fix: stages::with_mounts(
            &packages::mounts(stages, step, &APT),
            &format!("{} && {}", step.rest(), install.rest()),
        ),
        ..stages.finding(FindingKind::AptUpdateAlone, step.line(), problem.to_owned())
    });
}
