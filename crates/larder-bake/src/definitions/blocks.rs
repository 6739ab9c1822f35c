//! Targets and groups: matrices, and references to their attributes.

use std::collections::{BTreeMap, BTreeSet};

use super::{Definitions, Slot, check_name};
use crate::error::{Error, suggestion};
use crate::eval::{Scope, evaluate};
use crate::source::Span;
use crate::syntax::{Block, Expr};
use crate::target::{Group, KEYS, Target};
use crate::value::Value;

/// More than any file has use for.
const MAX_TARGETS: usize = 4096;

/// Attributes that say how many targets a block makes, and how they are called.
const META: [&str; 2] = ["matrix", "name"];

/// A target that a block makes: the block's only one, or one for each combination of its matrix.
#[derive(Debug)]
pub(crate) struct Instance {
    /// The index of the block.
    block: usize,
    pub(crate) name: String,
    /// The index of the file.
    pub(crate) file: usize,
    /// Values of the matrix.
    locals: Vec<(String, Value)>,
}

impl Definitions {
    /// Returns all targets of all blocks, in the order of the files.
    pub(crate) fn instances(&self) -> Result<&[Instance], Error> {
        if let Some(instances) = self.instances.get() {
            return Ok(instances);
        }
        let mut instances = Vec::new();
        for (index, block) in self.targets.iter().enumerate() {
            let expanded = self
                .expand(index, block)
                .map_err(|error| error.at(block.span))?;
            instances.extend(expanded);
            if instances.len() > MAX_TARGETS {
                return Err(Error::definition("the file has too many targets").at(block.span));
            }
        }
        Ok(self.instances.get_or_init(|| instances))
    }

    fn expand(&self, index: usize, block: &Block) -> Result<Vec<Instance>, Error> {
        let label = &block.labels[0];
        check_name(label, block.span)?;
        let attribute = |key: &str| block.body.attributes.iter().find(|other| other.key == key);
        let (matrix, name) = (attribute("matrix"), attribute("name"));
        if let (Some(name), None) = (name, matrix) {
            return Err(Error::definition("`name` requires `matrix`").at(name.span));
        }
        let combinations = match matrix {
            Some(matrix) => self.combinations(&matrix.value)?,
            None => vec![Vec::new()],
        };
        let mut instances = Vec::with_capacity(combinations.len());
        let mut names = BTreeSet::new();
        for locals in combinations {
            let name = match name {
                Some(name) => self.instance_name(&name.value, &locals)?,
                None => label.clone(),
            };
            if !names.insert(name.clone()) {
                return Err(Error::definition(format!("duplicate name `{name}`")));
            }
            instances.push(Instance {
                block: index,
                name,
                file: block.span.file,
                locals,
            });
        }
        Ok(instances)
    }

    fn instance_name(&self, expr: &Expr, locals: &[(String, Value)]) -> Result<String, Error> {
        let name = evaluate(expr, &Scope::new(self, locals.to_vec()))?
            .to_text()
            .map_err(|error| error.in_key("name").at(expr.span))?;
        check_name(&name, expr.span)?;
        Ok(name)
    }

    /// Returns the values of each combination, those of the first key changing last.
    fn combinations(&self, matrix: &Expr) -> Result<Vec<Vec<(String, Value)>>, Error> {
        let wrong = |message: &str| Error::definition(message.to_owned()).at(matrix.span);
        let value = evaluate(matrix, &Scope::new(self, Vec::new()))?;
        let axes = value
            .entries()
            .map_err(|_| wrong("`matrix` must be a map"))?;
        let mut combinations: Vec<Vec<(String, Value)>> = vec![Vec::new()];
        for (key, values) in axes {
            let values = values
                .elements()
                .map_err(|_| wrong("values of `matrix` must be lists"))?;
            if combinations.len().saturating_mul(values.len()) > MAX_TARGETS {
                return Err(wrong("`matrix` has too many combinations"));
            }
            let mut longer = Vec::with_capacity(combinations.len() * values.len());
            for combination in &combinations {
                for value in &values {
                    let mut combination = combination.clone();
                    combination.push((key.clone(), value.clone()));
                    longer.push(combination);
                }
            }
            combinations = longer;
        }
        Ok(combinations)
    }

    /// Returns the names that each label stands for, if not for itself alone.
    pub(crate) fn renamed(&self) -> Result<BTreeMap<String, Vec<String>>, Error> {
        let mut renamed: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for block in &self.targets {
            renamed.entry(block.labels[0].clone()).or_default();
        }
        for instance in self.instances()? {
            let label = &self.targets[instance.block].labels[0];
            let names = renamed.entry(label.clone()).or_default();
            if !names.contains(&instance.name) {
                names.push(instance.name.clone());
            }
        }
        renamed.retain(|label, names| names.as_slice() != std::slice::from_ref(label));
        Ok(renamed)
    }

    /// Returns an attribute of a target or group, or all of them.
    pub(crate) fn block_value(
        &self,
        kind: &str,
        name: &str,
        key: Option<&str>,
    ) -> Result<Value, Error> {
        let value = |key: &str| match kind {
            "group" => self.group_value(name, key),
            _ => self.target_value(name, key),
        };
        let keys: &[&str] = if kind == "group" {
            &["description", "targets"]
        } else {
            &KEYS
        };
        match key {
            // Asks for another attribute to know that there is such a block.
            Some("name") => value("description").map(|_| Value::text(name)),
            Some(key) => value(key),
            None => {
                let mut entries = BTreeMap::from([("name".to_owned(), Value::text(name))]);
                for key in keys {
                    entries.insert((*key).to_owned(), value(key)?);
                }
                Ok(Value::Object(entries))
            }
        }
    }

    fn group_value(&self, name: &str, key: &str) -> Result<Value, Error> {
        let block = self.groups.iter().rfind(|block| block.labels[0] == name);
        let block =
            block.ok_or_else(|| Error::definition(format!("there is no group named `{name}`")))?;
        let mut group = Group::default();
        if let Some(attribute) = block.body.attributes.iter().find(|other| other.key == key) {
            group.set(
                key,
                &evaluate(&attribute.value, &Scope::new(self, Vec::new()))?,
            )?;
        }
        group
            .get(key)
            .ok_or_else(|| Error::definition(format!("groups have no attribute `{key}`")))
    }

    fn target_value(&self, name: &str, key: &str) -> Result<Value, Error> {
        let Some(instances) = self.instances.get() else {
            return Err(Error::definition(
                "targets cannot be referred to where their names are made",
            ));
        };
        let mut merged: Option<Target> = None;
        for (index, instance) in instances.iter().enumerate() {
            if instance.name == name {
                let mut target = Target::default();
                if let Some((value, span)) = self.instance_value(index, key)? {
                    target.set(key, &value).map_err(|error| error.at(span))?;
                }
                merged.get_or_insert_default().merge(&target);
            }
        }
        let merged = merged.ok_or_else(|| {
            let known = suggestion(
                name,
                instances.iter().map(|instance| instance.name.as_str()),
            );
            Error::definition(format!("there is no target named `{name}`{known}"))
        })?;
        merged
            .get(key)
            .ok_or_else(|| Error::definition(format!("targets have no attribute `{key}`")))
    }

    /// Evaluates an attribute of an instance, once.
    fn instance_value(&self, index: usize, key: &str) -> Result<Option<(Value, Span)>, Error> {
        let instance = &self.instances()?[index];
        let block = &self.targets[instance.block];
        let Some(attribute) = block.body.attributes.iter().rfind(|other| other.key == key) else {
            return Ok(None);
        };
        let span = attribute.value.span;
        let slot = (index, key.to_owned());
        match self.target_values.borrow().get(&slot) {
            Some(Slot::Done(value)) => return Ok(Some((value.clone(), span))),
            Some(Slot::InProgress) => {
                return Err(Error::definition(format!(
                    "reference cycle not allowed for `target.{}.{key}`",
                    instance.name
                )));
            }
            None => {}
        }
        self.target_values
            .borrow_mut()
            .insert(slot.clone(), Slot::InProgress);
        let value = evaluate(&attribute.value, &Scope::new(self, instance.locals.clone()));
        let mut values = self.target_values.borrow_mut();
        match &value {
            Ok(value) => drop(values.insert(slot, Slot::Done(value.clone()))),
            Err(_) => drop(values.remove(&slot)),
        }
        value.map(|value| Some((value, span)))
    }

    /// Evaluates all attributes of an instance.
    pub(crate) fn target(&self, index: usize) -> Result<Target, Error> {
        let instance = &self.instances()?[index];
        let block = &self.targets[instance.block];
        let in_target = |error: Error| error.in_key(&format!("target.{}", instance.name));
        if let Some(inner) = block.body.blocks.first() {
            let message = format!("targets have no blocks `{}`", inner.kind);
            return Err(in_target(Error::definition(message).at(inner.span)));
        }
        let mut target = Target::default();
        let attributes = block.body.attributes.iter();
        for attribute in attributes.filter(|attribute| !META.contains(&attribute.key.as_str())) {
            let key = attribute.key.as_str();
            if let Some((value, span)) = self.instance_value(index, key).map_err(in_target)? {
                target
                    .set(key, &value)
                    .map_err(|error| in_target(error.at(span)))?;
            }
        }
        Ok(target)
    }

    /// Evaluates all groups; the last definition of each name counts.
    pub(crate) fn groups(&self) -> Result<BTreeMap<String, Group>, Error> {
        let mut groups = BTreeMap::new();
        let scope = Scope::new(self, Vec::new());
        for block in &self.groups {
            let name = &block.labels[0];
            check_name(name, block.span)?;
            let mut group = Group::default();
            for attribute in &block.body.attributes {
                evaluate(&attribute.value, &scope)
                    .and_then(|value| group.set(&attribute.key, &value))
                    .map_err(|error| error.at(attribute.span).in_key(&format!("group.{name}")))?;
            }
            if !block
                .body
                .attributes
                .iter()
                .any(|attribute| attribute.key == "targets")
            {
                let message = format!("group `{name}` needs `targets`");
                return Err(Error::definition(message).at(block.span));
            }
            groups.insert(name.clone(), group);
        }
        Ok(groups)
    }
}
