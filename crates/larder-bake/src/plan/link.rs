//! Targets that read other targets' results: `contexts = { base = "target:other" }`.

use std::collections::BTreeSet;

use super::overrides::Overrides;
use super::{MAX_DEPTH, Plan};
use crate::config::Definition;
use crate::entry::OutputEntry;
use crate::error::Error;
use crate::target::Target;

/// Before the name of a target, in a context.
pub(crate) const TARGET_PREFIX: &str = "target:";

impl Definition {
    /// Adds all targets that others read, which are kept in the cache only.
    pub(super) fn link(&self, plan: &mut Plan, overrides: &Overrides) -> Result<(), Error> {
        let names: Vec<String> = plan.targets.keys().cloned().collect();
        let mut done = BTreeSet::new();
        for name in names {
            self.link_from(&name, plan, overrides, &mut Vec::new(), &mut done)?;
        }
        Ok(())
    }

    fn link_from(
        &self,
        name: &str,
        plan: &mut Plan,
        overrides: &Overrides,
        within: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Result<(), Error> {
        if done.contains(name) {
            return Ok(());
        }
        if within.len() > MAX_DEPTH {
            return Err(Error::definition(
                "targets read each other's results too deeply",
            ));
        }
        within.push(name.to_owned());
        let links: Vec<String> = plan.targets[name].links().map(str::to_owned).collect();
        for other in links {
            if other == name {
                return Err(Error::definition(format!(
                    "target {other} cannot link to itself"
                )));
            }
            if within.contains(&other) {
                return Err(Error::definition(format!(
                    "infinite loop from {name} to {other}"
                )));
            }
            if !plan.targets.contains_key(&other) {
                let mut linked = self.resolve(&other, overrides, &mut plan.granted)?;
                linked.outputs = Some(vec![OutputEntry::cache_only()]);
                linked.is_linked = true;
                plan.targets.insert(other.clone(), linked);
            }
            self.link_from(&other, plan, overrides, within, done)?;
            join(plan, name, &other)?;
        }
        within.pop();
        done.insert(name.to_owned());
        Ok(())
    }
}

/// Hands entitlements on to the target that reads, and compares platforms.
fn join(plan: &mut Plan, name: &str, other: &str) -> Result<(), Error> {
    let linked = plan.targets[other].clone();
    let Some(target) = plan.targets.get_mut(name) else {
        return Ok(());
    };
    for entitlement in linked.entitlements.iter().flatten() {
        let own = target.entitlements.get_or_insert_default();
        if !own.contains(entitlement) {
            own.push(entitlement.clone());
        }
    }
    let (own, linked) = (
        target.platforms.iter().flatten(),
        linked.platforms.unwrap_or_default(),
    );
    let own: Vec<&String> = own.collect();
    if own.len() > 1 && linked.len() > 1 && !own.iter().all(|platform| linked.contains(platform)) {
        return Err(Error::definition(format!(
            "target {other} can't be used by {name} because its platforms {linked:?} lack some of {own:?}"
        )));
    }
    Ok(())
}

impl Target {
    /// Returns the names of targets whose results this one reads.
    fn links(&self) -> impl Iterator<Item = &str> {
        self.contexts
            .values()
            .filter_map(|context| context.strip_prefix(TARGET_PREFIX))
    }
}
