//! What is to be built.

mod group;
mod link;
mod overrides;
mod pattern;

use std::collections::BTreeMap;

use crate::config::{DEFAULT, Definition};
use crate::error::{Error, suggestion};
use crate::path;
use crate::target::{Group, Target};
use overrides::Overrides;

/// Longer chains of inheritance, links or groups are refused: each level takes stack.
const MAX_DEPTH: usize = 100;

/// What is to be built, with all that was asked for put in.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Groups that were asked for; what was asked for itself is in the group `default`.
    pub groups: BTreeMap<String, Group>,
    /// Targets, with their inheritance resolved; [`Target::context`] and [`Target::dockerfile`]
    /// are always given.
    pub targets: BTreeMap<String, Target>,
    /// What was allowed by overriding attributes, which needs no further consent.
    pub granted: Granted,
}

/// Access that overrides ask for, and thereby grant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granted {
    /// Paths that may be read.
    pub read: Vec<String>,
    /// Paths that may be written.
    pub write: Vec<String>,
    /// Further entitlements.
    pub entitlements: Vec<String>,
}

impl Definition {
    /// Returns what is to be built of `requested`: names or patterns of targets and groups,
    /// `default` if there are none. Overrides are `target.key=value`, as of `--set`.
    ///
    /// # Errors
    /// If there is no such target, or an override can't be applied.
    pub fn plan(&self, requested: &[String], overrides: &[String]) -> Result<Plan, Error> {
        let requested = self.names(requested)?;
        let overrides = Overrides::parse(overrides, self)?;
        let mut plan = Plan::default();
        for name in &requested {
            let (targets, groups) = self.members(name)?;
            for target in targets {
                if !plan.targets.contains_key(&target) {
                    let resolved = self.resolve(&target, &overrides, &mut plan.granted)?;
                    plan.targets.insert(target, resolved);
                }
            }
            for group in groups {
                if let Some(found) = self.groups.get(&group) {
                    plan.groups.insert(group, found.clone());
                }
            }
        }
        for group in plan.groups.values_mut() {
            remove_repeated(&mut group.targets);
        }
        plan.add_default_group(requested);
        self.link(&mut plan, &overrides)?;
        for (name, target) in &mut plan.targets {
            finish(target, self.options.is_remote)
                .map_err(|error| error.in_key(&format!("target.{name}")))?;
            if let Some(epoch) = &self.options.source_date_epoch {
                let arg = target.args.entry("SOURCE_DATE_EPOCH".to_owned());
                arg.or_insert_with(|| Some(epoch.clone()));
            }
        }
        Ok(plan)
    }

    /// Returns the names that are asked for, each once.
    fn names(&self, requested: &[String]) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        for name in requested {
            // Services may have dots in their names, targets may not.
            let name = name.replace('.', "_");
            if pattern::is_pattern(&name) {
                names.extend(self.matching(&name)?);
            } else {
                names.push(name);
            }
        }
        if names.is_empty() {
            names.push(DEFAULT.to_owned());
        }
        remove_repeated(&mut names);
        Ok(names)
    }

    fn matching(&self, pattern: &str) -> Result<Vec<String>, Error> {
        let none = || Error::request(format!("could not find any target matching `{pattern}`"));
        let regex = pattern::compile(pattern).ok_or_else(none)?;
        let targets = self.targets.iter().map(|(name, _)| name);
        let names = self
            .groups
            .keys()
            .chain(targets)
            .filter(|name| regex.is_match(name));
        let names: Vec<String> = names.cloned().collect();
        if names.is_empty() {
            Err(none())
        } else {
            Ok(names)
        }
    }

    /// Returns a target with what it inherits and what overrides it.
    fn resolve(
        &self,
        name: &str,
        overrides: &Overrides,
        granted: &mut Granted,
    ) -> Result<Target, Error> {
        let mut visited = BTreeMap::new();
        let target = self.inherit(name, overrides, granted, &mut visited, 0)?;
        // Only a target that is being resolved has none, and this is the first.
        let mut target = target.ok_or_else(|| self.not_found(name))?;
        target.inherits.clear();
        Ok(target)
    }

    /// Returns `None` for a target that inherits from itself, which adds nothing to it.
    fn inherit(
        &self,
        name: &str,
        overrides: &Overrides,
        granted: &mut Granted,
        visited: &mut BTreeMap<String, Option<Target>>,
        depth: usize,
    ) -> Result<Option<Target>, Error> {
        if let Some(target) = visited.get(name) {
            return Ok(target.clone());
        }
        if depth > MAX_DEPTH {
            return Err(Error::definition(
                "targets inherit from each other too deeply",
            ));
        }
        visited.insert(name.to_owned(), None);
        let own = self.find(name).ok_or_else(|| self.not_found(name))?;
        let mut target = Target::default();
        for parent in &own.inherits {
            if let Some(parent) = self.inherit(parent, overrides, granted, visited, depth + 1)? {
                target.merge(&parent);
            }
        }
        target.merge(own);
        overrides.apply(name, &mut target, granted)?;
        target.normalize();
        visited.insert(name.to_owned(), Some(target.clone()));
        Ok(Some(target))
    }

    fn not_found(&self, name: &str) -> Error {
        let targets = self.targets.iter().map(|(name, _)| name);
        let names = self.groups.keys().chain(targets).map(String::as_str);
        Error::request(format!(
            "failed to find target {name}{}",
            suggestion(name, names)
        ))
    }
}

impl Plan {
    /// Names what was asked for in the group `default`, unless that group itself was.
    fn add_default_group(&mut self, requested: Vec<String>) {
        for name in requested {
            if name == DEFAULT && self.groups.contains_key(DEFAULT) {
                continue;
            }
            self.groups
                .entry(DEFAULT.to_owned())
                .or_default()
                .targets
                .push(name);
        }
        if let Some(group) = self.groups.get_mut(DEFAULT) {
            remove_repeated(&mut group.targets);
            group.targets.sort();
        }
    }
}

/// Puts in defaults, and cleans paths.
fn finish(target: &mut Target, is_remote: bool) -> Result<(), Error> {
    let context = match (target.context.take(), &target.default_context) {
        (Some(context), _) => context,
        (None, Some(base)) => base.clone(),
        (None, None) => ".".to_owned(),
    };
    let dockerfile = target
        .dockerfile
        .take()
        .filter(|dockerfile| !dockerfile.is_empty());
    let dockerfile = dockerfile.unwrap_or_else(|| "Dockerfile".to_owned());
    for (key, value) in [("context", &context), ("dockerfile", &dockerfile)] {
        if value == "-" {
            return Err(Error::request(format!(
                "{key} from stdin not allowed in bake"
            )));
        }
    }
    target.context = Some(match context.strip_prefix("cwd://") {
        Some(_) if is_remote => context,
        Some(local) => path::clean(local),
        None if path::is_remote(&context) => context,
        None => path::clean(&context),
    });
    target.dockerfile = Some(dockerfile);
    Ok(())
}

fn remove_repeated(names: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
}
