//! Groups to their members.

use super::{MAX_DEPTH, remove_repeated};
use crate::config::Definition;
use crate::error::Error;

impl Definition {
    /// Returns the targets that `name` stands for, and the groups that lead to them.
    pub(super) fn members(&self, name: &str) -> Result<(Vec<String>, Vec<String>), Error> {
        let (mut targets, mut groups) = (Vec::new(), Vec::new());
        self.collect(name, &mut Vec::new(), &mut targets, &mut groups)?;
        remove_repeated(&mut targets);
        Ok((targets, groups))
    }

    fn collect(
        &self,
        name: &str,
        within: &mut Vec<String>,
        targets: &mut Vec<String>,
        groups: &mut Vec<String>,
    ) -> Result<(), Error> {
        let Some(group) = self.groups.get(name) else {
            targets.push(name.to_owned());
            return Ok(());
        };
        if within.iter().any(|outer| outer == name) {
            // A group may hold the target of its own name.
            if self.find(name).is_none() {
                let path = within.join(" > ");
                return Err(Error::definition(format!(
                    "group cycle not allowed: {path} > {name}"
                )));
            }
            targets.push(name.to_owned());
            return Ok(());
        }
        if within.len() > MAX_DEPTH {
            return Err(Error::definition("groups hold each other too deeply"));
        }
        // What a group holds is collected once.
        if groups.iter().any(|done| done == name) {
            return Ok(());
        }
        groups.push(name.to_owned());
        within.push(name.to_owned());
        for member in &group.targets {
            self.collect(member, within, targets, groups)?;
        }
        within.pop();
        Ok(())
    }
}
