//! What a project says without saying it: names, defaults, values from the environment.

use std::path::Path;

use crate::dotenv::{self, EnvFormat};
use crate::error::{At, Result};
use crate::model::Project;
use crate::node::{Map, Node, Value};

/// Sections whose entries have names outside of the project.
const NAMED: [&str; 4] = ["networks", "volumes", "secrets", "configs"];

impl Project {
    /// Returns the tree of the services that are on and of what they use, with all defaults.
    pub(super) fn resolved(&self) -> Result<Node> {
        let mut tree = self.tree.clone();
        let at = tree.at.clone();
        let Value::Map(map) = &mut tree.value else {
            return Ok(tree);
        };
        map.set("name", Node::text(&self.name, &at));
        let services = section(map, "services", &at);
        services.retain(|entry| self.services.contains_key(&entry.key));
        for entry in services.iter_mut() {
            self.resolve_service(&entry.key, &mut entry.node)?;
        }
        let default = self.uses_default_network();
        if default && section(map, "networks", &at).get("default").is_none() {
            let network = Node::new(Value::Map(Map::default()), at.clone());
            section(map, "networks", &at).set("default", network);
        }
        for kind in NAMED {
            let used = self.in_use(kind);
            let resources = section(map, kind, &at);
            resources.retain(|entry| used.contains(&*entry.key));
            for entry in resources.iter_mut() {
                if entry.node.is_null() {
                    entry.node.value = Value::Map(Map::default());
                }
                let at = entry.at.clone();
                if let Value::Map(resource) = &mut entry.node.value
                    && resource.get("name").is_none_or(Node::is_null)
                {
                    let is_external = resource
                        .get("external")
                        .is_some_and(|node| node.value == Value::Bool(true));
                    let name = if is_external {
                        entry.key.clone()
                    } else {
                        format!("{}_{}", self.name, entry.key)
                    };
                    resource.set("name", Node::text(name, &at));
                }
            }
        }
        Ok(tree)
    }

    fn resolve_service(&self, name: &str, node: &mut Node) -> Result<()> {
        let at = node.at.clone();
        let (Some(service), Value::Map(map)) = (self.services.get(name), &mut node.value) else {
            return Ok(());
        };
        let mut environment = Map::default();
        for (name, _) in &service.environment {
            environment.set(name, Node::new(Value::Null, at.clone()));
        }
        for (name, value) in service.resolve_environment(&self.variables)? {
            environment.set(&name, Node::text(value, &at));
        }
        map.remove("env_file");
        self.resolve_labels(map, &at)?;
        map.set(
            "environment",
            Node::new(Value::Map(environment), at.clone()),
        );
        if self.attached(service).contains(&"default") {
            let is_given = map.get("networks").and_then(Node::as_map);
            if is_given.is_none_or(Map::is_empty) {
                section(map, "networks", &at).set("default", Node::new(Value::Null, at.clone()));
            }
        }
        if map.get("pull_policy").and_then(Node::as_text) == Some("if_not_present") {
            map.set("pull_policy", Node::text("missing", &at));
        }
        if let Some(Node {
            value: Value::List(secrets),
            ..
        }) = map.get_mut("secrets")
        {
            secrets.iter_mut().for_each(default_target);
        }
        if let (
            Some(build),
            Some(Node {
                value: Value::Map(map),
                at,
                ..
            }),
        ) = (&service.build, map.get_mut("build"))
        {
            map.set("context", Node::text(&build.context, at));
            if map.get("dockerfile").is_none() && map.get("dockerfile_inline").is_none() {
                map.set("dockerfile", Node::text("Dockerfile", at));
            }
            self.resolve_args(map);
            ssh_list(map);
        }
        Ok(())
    }

    /// Adds the labels of files to those that the service says itself, which win.
    fn resolve_labels(&self, service: &mut Map, at: &At) -> Result<()> {
        let Some(files) = service.remove("label_file") else {
            return Ok(());
        };
        let mut labels = Map::default();
        let files = files.as_list().unwrap_or_default().iter();
        for path in files.filter_map(Node::as_text) {
            let pairs = dotenv::read(Path::new(path), EnvFormat::Interpolated, &self.variables)?;
            for (name, value) in pairs {
                labels.set(&name, Node::text(value, at));
            }
        }
        for entry in std::mem::take(section(service, "labels", at)) {
            labels.set(&entry.key, entry.node);
        }
        *section(service, "labels", at) = labels;
        Ok(())
    }

    /// Gives build arguments without a value that of the environment; those that are not there,
    /// either, are not given.
    fn resolve_args(&self, build: &mut Map) {
        let Some(Node {
            value: Value::Map(args),
            ..
        }) = build.get_mut("args")
        else {
            return;
        };
        for entry in args.iter_mut() {
            if let (true, Some(value)) = (entry.node.is_null(), self.variables.get(&entry.key)) {
                entry.node.value = Value::Text(value.to_owned());
            }
        }
        args.retain(|entry| !entry.node.is_null());
    }
}

/// Returns a section, which is there after this.
fn section<'a>(map: &'a mut Map, key: &str, at: &At) -> &'a mut Map {
    if map.get(key).and_then(Node::as_map).is_none() {
        map.set(key, Node::new(Value::Map(Map::default()), at.clone()));
    }
    match map.get_mut(key) {
        Some(Node {
            value: Value::Map(section),
            ..
        }) => section,
        _ => unreachable!("it was set to a mapping"),
    }
}

/// A secret is seen in `/run/secrets` by its name, unless it says otherwise.
fn default_target(secret: &mut Node) {
    let at = secret.at.clone();
    if let Value::Map(grant) = &mut secret.value
        && grant.get("target").is_none_or(Node::is_null)
        && let Some(source) = grant.get("source").and_then(Node::as_text)
    {
        let target = format!("/run/secrets/{source}");
        grant.set("target", Node::text(target, &at));
    }
}

/// Makes `ssh` a list of `id` and `id=path`.
fn ssh_list(build: &mut Map) {
    if let Some(node) = build.get_mut("ssh")
        && let Value::Map(keys) = &node.value
    {
        let items = keys.iter().map(|entry| {
            let text = match entry.node.scalar().filter(|path| !path.is_empty()) {
                Some(path) => format!("{}={path}", entry.key),
                None => entry.key.clone(),
            };
            Node::text(text, &entry.at)
        });
        node.value = Value::List(items.collect());
    }
}
