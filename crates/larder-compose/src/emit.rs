//! The resolved project as text.

mod form;
mod resolve;
mod spec;
mod yaml;

use serde_json::{Number, json};

use crate::error::Result;
use crate::model::Project;
use crate::node::{KeyPath, Map, Node, Value};

use form::Target;

impl Project {
    /// Returns the resolved project as YAML, as `docker compose config` writes it: long forms,
    /// absolute paths, keys in compose's order, the services that are on and what they use. `$` in
    /// values is written `$$`, so that the text means the same when it is loaded again.
    ///
    /// # Errors
    /// When a service's env file can't be read, or something is no number, size or time.
    pub fn to_yaml(&self, escape_dollars: bool) -> Result<String> {
        Ok(yaml::to_yaml(&self.shown(Target::Yaml, escape_dollars)?))
    }

    /// Returns the resolved project as JSON, without a line end. See [`Self::to_yaml`].
    ///
    /// # Errors
    /// When a service's env file can't be read, or something is no number, size or time.
    pub fn to_json(&self, escape_dollars: bool) -> Result<String> {
        let tree = self.shown(Target::Json, escape_dollars)?;
        Ok(format!("{:#}", to_json(&tree)))
    }

    fn shown(&self, target: Target, escape_dollars: bool) -> Result<Node> {
        let mut tree = self.resolved()?;
        if let Value::Map(map) = &mut tree.value {
            sections(map, target)?;
        }
        if escape_dollars {
            escape(&mut tree);
        }
        Ok(tree)
    }
}

/// Brings the sections of a file into their forms and their order.
fn sections(map: &mut Map, target: Target) -> Result<()> {
    let mut rest = std::mem::take(map);
    for (section, form) in spec::SECTIONS {
        let Some(mut node) = rest.remove(section) else {
            continue;
        };
        form::apply(&mut node, &form, target, &KeyPath::ROOT.key(section))?;
        let is_empty = node.is_null() || node.as_map().is_some_and(Map::is_empty);
        if section == "services" || !is_empty {
            map.set(section, node);
        }
    }
    form::sort(&mut rest);
    for mut entry in rest {
        form::sort_keys(&mut entry.node);
        map.push(entry);
    }
    if target == Target::Json {
        form::sort(map);
    }
    Ok(())
}

fn escape(node: &mut Node) {
    match &mut node.value {
        Value::Text(text) => *text = text.replace('$', "$$"),
        Value::List(items) => items.iter_mut().for_each(escape),
        Value::Map(map) => map.iter_mut().for_each(|entry| escape(&mut entry.node)),
        _ => {}
    }
}

fn to_json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => json!(null),
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!(value),
        Value::Float(value) => Number::from_f64(*value).map_or(json!(null), Into::into),
        Value::Text(text) => json!(text),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(map) => map
            .iter()
            .map(|entry| (entry.key.clone(), to_json(&entry.node)))
            .collect(),
    }
}
