//! Package managers and their cache mounts.

use super::finding::{Finding, FindingKind};
use super::stages::{self, Stages, Step};
use super::tools::{self, APT, PIP, Tool, Use};

/// What removes what a tool has cached, by the words it begins with.
const EMPTIERS: [(&str, &[&str]); 6] = [
    ("pip", &["pip", "cache", "purge"]),
    ("apt", &["apt-get", "clean"]),
    ("apt", &["apt", "clean"]),
    ("dnf", &["dnf", "clean"]),
    ("yum", &["yum", "clean"]),
    ("npm", &["npm", "cache", "clean"]),
];

pub(super) fn look(stages: &Stages<'_>, findings: &mut Vec<Finding>) {
    for step in stages.steps() {
        let commands = step.commands();
        let uses: Vec<Use> = commands.iter().filter_map(tools::recognize).collect();
        let mut seen: Vec<&str> = Vec::new();
        for used in &uses {
            // apt's mounts are a family of their own.
            if *used.tool == APT || seen.contains(&used.tool.name) {
                continue;
            }
            seen.push(used.tool.name);
            if has_cache(stages, &step, used, &uses) {
                cache_off(stages, &step, used, findings);
                unlocked(stages, &step, used, findings);
            } else {
                no_mount(stages, &step, used, findings);
            }
        }
        emptied(stages, &step, findings);
    }
}

/// Whether a cache mount serves a call: it lies where the tool caches, or where it is told to, or no
/// other tool of the step is known to use it.
fn has_cache(stages: &Stages<'_>, step: &Step<'_>, used: &Use, all: &[Use]) -> bool {
    let moved = used.tool.moved_by.iter();
    let moved: Vec<&str> = moved
        .filter_map(|name| Some(stages.variable(step, name)?.0))
        .collect();
    step.cache_mounts().any(|mount| {
        let target = mount.target.as_str();
        let serves = |tool: &Tool| tool.caches.iter().any(|cache| overlap(target, cache));
        let others = all.iter().filter(|other| other.tool != used.tool);
        serves(used.tool)
            || moved.iter().any(|moved| overlap(target, moved))
            || target.contains(used.tool.name)
            || !others.clone().any(|other| serves(other.tool))
    })
}

/// Whether one path is the other, or lies below it.
fn overlap(a: &str, b: &str) -> bool {
    let (a, b) = (a.trim_end_matches('/'), b.trim_end_matches('/'));
    let below = |inner: &str, outer: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    below(a, b) || below(b, a)
}

/// Returns the mounts that a tool should have in a step.
pub(super) fn mounts(stages: &Stages<'_>, step: &Step<'_>, tool: &Tool) -> Vec<String> {
    let moved = tool.moved_by.iter().find_map(|name| {
        let (value, _) = stages.variable(step, name)?;
        (value.starts_with('/') && !value.contains('$') && *name != "XDG_CACHE_HOME")
            .then_some(value)
    });
    let user = stages.user(step);
    let home = |cache: &str| match user {
        Some(user) if user.parse::<u32>().is_err() && cache.starts_with("/root/") => {
            format!("/home/{user}/{}", &cache["/root/".len()..])
        }
        _ => cache.to_owned(),
    };
    let targets: Vec<String> = match moved {
        Some(moved) => vec![moved.to_owned()],
        None => tool.wanted().iter().map(|cache| home(cache)).collect(),
    };
    let owner = match user.map(str::parse::<u32>) {
        Some(Ok(uid)) => format!(",uid={uid}"),
        Some(Err(_)) => ",uid=1000".to_owned(),
        None => String::new(),
    };
    let sharing = if tool.locked { ",sharing=locked" } else { "" };
    targets
        .iter()
        .map(|target| format!("type=cache,target={target}{owner}{sharing}"))
        .collect()
}

fn no_mount(stages: &Stages<'_>, step: &Step<'_>, used: &Use, findings: &mut Vec<Finding>) {
    let verb = &used.verb;
    let problem = format!(
        "`{verb}` has no cache mount: each time this step runs, everything is downloaded again"
    );
    let mounts = mounts(stages, step, used.tool);
    let mut advice = "mount the tool's cache".to_owned();
    if let Some(user) = stages
        .user(step)
        .filter(|user| user.parse::<u32>().is_err())
    {
        advice = format!("mount the tool's cache; `uid` is that of `{user}`");
    }
    findings.push(Finding {
        cost: stages.cost_of_runs(step),
        advice,
        fix: stages::with_mounts(&mounts, &without_flags(step, used.tool)),
        ..stages.finding(FindingKind::NoCacheMount, step.line(), problem)
    });
}

/// Returns the instruction's text without the flags that turn a cache off.
fn without_flags(step: &Step<'_>, tool: &Tool) -> String {
    let rest = step.rest();
    let words = rest.split(' ').filter(|word| {
        // A short flag may be another command's.
        !(word.starts_with("--") && tool.off_flags.contains(word))
    });
    words.collect::<Vec<_>>().join(" ")
}

fn cache_off(stages: &Stages<'_>, step: &Step<'_>, used: &Use, findings: &mut Vec<Finding>) {
    let tool = used.tool;
    let words = &used.command.words;
    let flag = words
        .iter()
        .find(|word| tool.off_flags.contains(&word.as_str()));
    if let Some(flag) = flag {
        let problem = format!(
            "`{flag}` keeps `{}` from the cache mount beside it",
            used.verb
        );
        findings.push(Finding {
            cost: stages.cost_of_runs(step),
            advice: format!("leave out `{flag}`"),
            fix: vec![format!("RUN {}", without_flags(step, tool))],
            ..stages.finding(FindingKind::CacheOff, step.line(), problem)
        });
    }
    for name in tool.off_variables {
        let own = used.command.assignments.iter().find_map(|assignment| {
            let (known, value) = assignment.split_once('=')?;
            (known == *name).then_some((value, step.line()))
        });
        let above = || {
            let (value, instruction) = stages.variable(step, name)?;
            Some((value, instruction.lines.start))
        };
        let Some((value, line)) = own.or_else(above) else {
            continue;
        };
        let is_on = !matches!(
            value.to_ascii_lowercase().as_str(),
            "" | "0" | "no" | "off" | "false"
        );
        let is_known = findings
            .iter()
            .any(|known| known.kind == FindingKind::CacheOff && known.line == line);
        if is_on && !is_known {
            let at = step.line();
            let problem = format!(
                "`{name}` keeps `{}` in line {at} from its cache mount",
                used.verb
            );
            findings.push(Finding {
                cost: stages.cost_of_runs(step),
                advice: format!("leave out `{name}`"),
                ..stages.finding(FindingKind::CacheOff, line, problem)
            });
        }
    }
}

fn unlocked(stages: &Stages<'_>, step: &Step<'_>, used: &Use, findings: &mut Vec<Finding>) {
    let serves = |target: &str| used.tool.caches.iter().any(|cache| overlap(target, cache));
    let Some(mount) = step
        .cache_mounts()
        .find(|mount| !mount.is_locked && serves(&mount.target))
    else {
        return;
    };
    // pip copes with neighbours, mostly; only steps of several stages run at once.
    let is_shared = stages.steps().any(|other| {
        let mut mounts = other.cache_mounts();
        other.stage != step.stage && mounts.any(|other| other.id == mount.id)
    });
    if !used.tool.locked || *used.tool == PIP && !is_shared {
        return;
    }
    let target = &mount.target;
    let problem = format!(
        "steps at once may write to the cache mount `{target}` of `{}`, which is not made for that",
        used.verb
    );
    findings.push(Finding {
        advice: "let one step at a time use it".to_owned(),
        fix: vec![format!("--mount=type=cache,target={target},sharing=locked")],
        ..stages.finding(FindingKind::UnlockedCache, step.line(), problem)
    });
}

/// Looks for commands that remove what the step's cache mounts are to keep.
fn emptied(stages: &Stages<'_>, step: &Step<'_>, findings: &mut Vec<Finding>) {
    let is_emptier = |words: &[String]| {
        let by_tool = EMPTIERS.iter().any(|(name, begin)| {
            let serves = |target: &str| {
                [APT, PIP].iter().any(|tool| {
                    tool.name == *name && tool.caches.iter().any(|cache| overlap(target, cache))
                }) || target.contains(name)
            };
            let begins =
                words.len() >= begin.len() && words.iter().zip(*begin).all(|(a, b)| a == b);
            begins && step.cache_mounts().any(|mount| serves(&mount.target))
        });
        let is_rm = words.first().is_some_and(|word| word == "rm");
        let removed = words.iter().skip(1).filter(|word| word.starts_with('/'));
        by_tool
            || is_rm
                && removed
                    .map(|path| path.trim_end_matches(['*', '/']))
                    .any(|path| {
                        step.cache_mounts()
                            .any(|mount| overlap(path, &mount.target))
                    })
    };
    for command in step.commands() {
        if is_emptier(&command.words) {
            let words = command.words.join(" ");
            let problem = format!("`{words}` removes what the step's cache mount is to keep");
            findings.push(Finding {
                advice: "leave it out: what is in a cache mount is no part of the image".to_owned(),
                cost: stages.cost_of_runs(step),
                ..stages.finding(FindingKind::CacheEmptied, step.line(), problem)
            });
        }
    }
}
