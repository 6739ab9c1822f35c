use larder_llb::SourceRange;
use larder_oci::go_json_pretty;
use serde_json::{Map, Value, json};

use super::{Answer, add, location, sources, table};
use crate::dockerfile::Dockerfile;

/// The stages of a Dockerfile, each of which can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    /// In the order of the file; never empty.
    pub targets: Vec<Target>,
    /// The Dockerfile's text.
    pub source: Vec<u8>,
}

/// A stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// In lower case; empty if it has none.
    pub name: String,
    /// Whether it is built if no target is named.
    pub is_default: bool,
    /// The comment above that begins with its name, without the name.
    pub description: String,
    /// What it is built from, as written.
    pub base: String,
    /// The platform that FROM asks for, as written; empty if it does not.
    pub platform: String,
    /// The lines of FROM.
    pub ranges: Vec<SourceRange>,
}

impl Dockerfile {
    /// Returns the stages, from the text alone.
    pub fn targets(&self) -> Targets {
        let last = self.stages.len() - 1;
        let stages = self.stages.iter().enumerate();
        let targets = stages.map(|(index, stage)| Target {
            name: stage.from.name.clone().unwrap_or_default(),
            is_default: index == last,
            description: stage.from.description.clone(),
            base: stage.from.base.clone(),
            platform: stage.from.platform.clone().unwrap_or_default(),
            ranges: stage.from.lines.ranges(),
        });
        Targets {
            targets: targets.collect(),
            source: self.text.clone(),
        }
    }
}

impl Targets {
    /// Returns the answer to `frontend.targets`.
    pub fn answer(&self) -> Answer {
        let targets: Vec<Value> = self.targets.iter().map(Target::json).collect();
        let names: Vec<String> = self.targets.iter().map(Target::shown).collect();
        let mut rows = vec![["TARGET", "DESCRIPTION"]];
        let described = names.iter().zip(&self.targets);
        rows.extend(described.map(|(name, target)| [name.as_str(), &target.description]));
        Answer {
            json: go_json_pretty(&json!({"targets": targets, "sources": sources(&self.source)})),
            text: table::table(&rows, 1),
        }
    }
}

impl Target {
    fn json(&self) -> Value {
        let mut object = Map::new();
        add(&mut object, "name", self.name.as_str());
        add(&mut object, "default", self.is_default);
        add(&mut object, "description", self.description.as_str());
        add(&mut object, "base", self.base.as_str());
        add(&mut object, "platform", self.platform.as_str());
        add(&mut object, "location", location(&self.ranges));
        object.into()
    }

    fn shown(&self) -> String {
        match (self.name.as_str(), self.is_default) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        }
    }
}
