//! What stages ask for: the build arguments, secrets, agents and caches of an outline.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::Lowering;
use super::stages::Stages;
use crate::error::Lines;
use crate::parse::{Mount, MountType};
use crate::path;
use crate::subrequest::{Outline, OutlineArg, OutlineCache, OutlineMount};

/// What one stage asks for.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    args: Args,
    /// The arguments that have an effect on it, of its own and of those before the first FROM.
    used: BTreeSet<String>,
    secrets: BTreeMap<String, Needed>,
    ssh: BTreeMap<String, Needed>,
    caches: BTreeMap<String, Lines>,
}

/// Arguments by name.
pub(super) type Args = BTreeMap<String, DeclaredArg>;

/// An ARG.
#[derive(Debug, Clone, Default)]
pub(super) struct DeclaredArg {
    pub(super) value: String,
    pub(super) description: String,
    pub(super) lines: Lines,
    /// The arguments that its value is made of.
    pub(super) parts: BTreeSet<String>,
}

/// A mount that the build may fail without.
#[derive(Debug, Clone, Copy)]
struct Needed {
    is_required: bool,
    lines: Lines,
}

impl Asked {
    /// Notes that arguments have an effect.
    pub(super) fn uses<'a>(&mut self, names: impl IntoIterator<Item = &'a String>) {
        self.used.extend(names.into_iter().cloned());
    }

    /// Notes an ARG of the stage.
    pub(super) fn declares(&mut self, name: &str, arg: DeclaredArg) {
        self.args.insert(name.to_owned(), arg);
    }

    /// Notes a mount. Of several with one id the first counts.
    pub(super) fn mounts(&mut self, mount: &Mount, lines: Lines) {
        let needed = Needed {
            is_required: mount.required,
            lines,
        };
        match mount.kind {
            MountType::Secret => drop(self.secrets.entry(secret_id(mount)).or_insert(needed)),
            MountType::Ssh => {
                let id = Some(&mount.id).filter(|id| !id.is_empty());
                let id = id.map_or("default", String::as_str);
                self.ssh.entry(id.to_owned()).or_insert(needed);
            }
            MountType::Cache => drop(self.caches.entry(mount.id.clone()).or_insert(lines)),
            MountType::Bind | MountType::Tmpfs => {}
        }
    }

    /// Returns the names of all arguments with an effect, those that others are made of included.
    fn effective(&self, global: &Args) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut open: Vec<&String> = self.used.iter().collect();
        while let Some(name) = open.pop() {
            if found.insert(name.clone())
                && let Some(arg) = self.args.get(name).or_else(|| global.get(name))
            {
                open.extend(&arg.parts);
            }
        }
        found
    }
}

/// Returns the id by which a secret mount asks for its secret.
pub(super) fn secret_id(mount: &Mount) -> String {
    let given = [&mount.source, &mount.id];
    let given = given.into_iter().find(|text| !text.is_empty());
    given.map_or_else(|| path::base_name(&mount.target).to_owned(), Clone::clone)
}

impl Lowering<'_> {
    /// Returns what the target and the stages that it needs ask for, once they are lowered. What
    /// several ask for is told of the first on the way from the target.
    pub(super) fn outline(&self) -> Outline {
        let stages = &self.stages;
        let mut args: BTreeMap<String, &DeclaredArg> = BTreeMap::new();
        let (mut secrets, mut ssh) = (BTreeMap::new(), BTreeMap::new());
        let mut caches = BTreeMap::new();
        for id in on_the_way(stages) {
            let asked = &stages.states[id].asked;
            for name in asked.effective(&stages.global_args) {
                let declared = asked.args.get(&name);
                if let Some(arg) = declared.or_else(|| stages.global_args.get(&name)) {
                    args.entry(name).or_insert(arg);
                }
            }
            for (id, needed) in &asked.secrets {
                secrets.entry(id).or_insert(*needed);
            }
            for (id, needed) in &asked.ssh {
                ssh.entry(id).or_insert(*needed);
            }
            for (id, lines) in &asked.caches {
                caches.entry(id).or_insert(*lines);
            }
        }
        let mut args: Vec<_> = args.into_iter().collect();
        args.sort_by_key(|(_, arg)| arg.lines.start);
        let mut caches: Vec<_> = caches.into_iter().collect();
        caches.sort_by_key(|(_, lines)| lines.start);
        let target = self.dockerfile.stages.get(stages.target);
        let args = args.into_iter().map(|(name, arg)| OutlineArg {
            name,
            description: arg.description.clone(),
            value: arg.value.clone(),
            ranges: arg.lines.ranges(),
        });
        let caches = caches.into_iter().map(|(id, lines)| OutlineCache {
            id: id.clone(),
            ranges: lines.ranges(),
        });
        Outline {
            name: target
                .and_then(|stage| stage.from.name.clone())
                .unwrap_or_default(),
            description: target
                .map(|stage| stage.from.description.clone())
                .unwrap_or_default(),
            args: args.collect(),
            secrets: needed(secrets),
            ssh: needed(ssh),
            caches: caches.collect(),
            source: self.dockerfile.text.clone(),
        }
    }
}

/// Returns the stages that the target needs, itself first: of each the one that it is built from
/// before those that it reads.
fn on_the_way(stages: &Stages) -> Vec<usize> {
    let mut order = Vec::new();
    let mut seen = HashSet::new();
    let mut open = vec![stages.target];
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        order.push(id);
        open.extend(stages.states[id].read_stages().rev());
        open.extend(stages.states[id].base);
    }
    order
}

fn needed(mounts: BTreeMap<&String, Needed>) -> Vec<OutlineMount> {
    let mut mounts: Vec<_> = mounts.into_iter().collect();
    mounts.sort_by_key(|(_, needed)| needed.lines.start);
    let mounts = mounts.into_iter().map(|(id, needed)| OutlineMount {
        name: id.clone(),
        is_required: needed.is_required,
        ranges: needed.lines.ranges(),
    });
    mounts.collect()
}
