use larder_llb::SourceRange;
use larder_oci::go_json_pretty;
use serde_json::{Map, Value, json};

use super::{Answer, add, location, sources, table};

/// Blanks between the columns of a list.
const GAP: usize = 3;

/// What building a target takes: of its own stage, and of those that it needs. Each list is in the
/// order of the lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outline {
    /// The target's name; empty if it has none.
    pub name: String,
    /// What the comment above the target says.
    pub description: String,
    /// The build arguments that have an effect.
    pub args: Vec<OutlineArg>,
    /// The secrets that steps mount.
    pub secrets: Vec<OutlineMount>,
    /// The SSH agents that steps mount.
    pub ssh: Vec<OutlineMount>,
    /// The cache mounts.
    pub caches: Vec<OutlineCache>,
    /// The Dockerfile's text.
    pub source: Vec<u8>,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// What the comment above its ARG says.
    pub description: String,
    /// Its value in this build; empty if it has none.
    pub value: String,
    /// The lines of its ARG.
    pub ranges: Vec<SourceRange>,
}

/// A secret or an SSH agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineMount {
    /// Its id.
    pub name: String,
    /// Whether the build fails without it.
    pub is_required: bool,
    /// The lines of the first RUN that mounts it.
    pub ranges: Vec<SourceRange>,
}

/// A cache mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineCache {
    /// Its id.
    pub id: String,
    /// The lines of the first RUN that mounts it.
    pub ranges: Vec<SourceRange>,
}

impl Outline {
    /// Returns the answer to `frontend.outline`.
    pub fn answer(&self) -> Answer {
        Answer {
            json: self.json(),
            text: self.text(),
        }
    }

    fn json(&self) -> String {
        let args = self.args.iter().map(|arg| {
            let mut object = named(&arg.name);
            add(&mut object, "description", arg.description.as_str());
            add(&mut object, "value", arg.value.as_str());
            add(&mut object, "location", location(&arg.ranges));
            Value::Object(object)
        });
        let caches = self.caches.iter().map(|cache| {
            let mut object = Map::from_iter([("ID".to_owned(), json!(cache.id))]);
            add(&mut object, "location", location(&cache.ranges));
            Value::Object(object)
        });
        let mut object = Map::new();
        add(&mut object, "name", self.name.as_str());
        add(&mut object, "description", self.description.as_str());
        add(&mut object, "args", args.collect::<Vec<_>>());
        add(&mut object, "secrets", mounts(&self.secrets));
        add(&mut object, "ssh", mounts(&self.ssh));
        add(&mut object, "cache", caches.collect::<Vec<_>>());
        add(&mut object, "sources", sources(&self.source));
        go_json_pretty(&object)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if !self.name.is_empty() || !self.description.is_empty() {
            let name = match self.name.as_str() {
                "" => "(default)",
                name => name,
            };
            let mut rows = vec![["TARGET:", name]];
            if !self.description.is_empty() {
                rows.push(["DESCRIPTION:", &self.description]);
            }
            text += &table::table(&rows, 1);
            text.push('\n');
        }
        if !self.args.is_empty() {
            let mut rows = vec![["BUILD ARG", "VALUE", "DESCRIPTION"]];
            let args = self.args.iter();
            rows.extend(args.map(|arg| [arg.name.as_str(), &arg.value, &arg.description]));
            text += &table::table(&rows, GAP);
            text.push('\n');
        }
        for (heading, mounts) in [("SECRET", &self.secrets), ("SSH", &self.ssh)] {
            if mounts.is_empty() {
                continue;
            }
            let mut rows = vec![[heading, "REQUIRED"]];
            rows.extend(mounts.iter().map(|mount| {
                let required = if mount.is_required { "true" } else { "" };
                [mount.name.as_str(), required]
            }));
            text += &table::table(&rows, GAP);
            text.push('\n');
        }
        text
    }
}

fn mounts(mounts: &[OutlineMount]) -> Vec<Value> {
    let mounts = mounts.iter().map(|mount| {
        let mut object = named(&mount.name);
        add(&mut object, "required", mount.is_required);
        add(&mut object, "location", location(&mount.ranges));
        Value::Object(object)
    });
    mounts.collect()
}

fn named(name: &str) -> Map<String, Value> {
    Map::from_iter([("name".to_owned(), json!(name))])
}
