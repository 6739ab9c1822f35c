//! `extends`: a service that begins as another one.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::merge;
use crate::node::{KeyPath, Map, Node, Value};

use super::{Loader, Scope};

/// A service may extend a service that extends a service …, this deep.
const MAX_DEPTH: usize = 32;

/// A service on its way to be resolved: its file, where that is not the first one, and its name.
type Step = (Option<PathBuf>, String);

impl Loader {
    /// Resolves `extends` in all services of a document.
    pub(super) fn apply_extends(&mut self, document: &mut Node, scope: &Scope) -> Result<()> {
        let Value::Map(map) = &document.value else {
            return Ok(());
        };
        let Some(Value::Map(services)) = map.get("services").map(|node| &node.value) else {
            return Ok(());
        };
        let mut resolved = Vec::new();
        for entry in services {
            if extends_of(&entry.node).is_some() {
                let mut steps = Vec::new();
                let service = self.resolve(&entry.key, services, None, scope, &mut steps)?;
                resolved.push((entry.key.clone(), service));
            }
        }
        let Value::Map(map) = &mut document.value else {
            return Ok(());
        };
        if let Some(Node {
            value: Value::Map(services),
            ..
        }) = map.get_mut("services")
        {
            for (name, service) in resolved {
                services.set(&name, service);
            }
        }
        Ok(())
    }

    /// Returns a service of `services`, which are those of `file`, merged into what it extends.
    fn resolve(
        &mut self,
        name: &str,
        services: &Map,
        file: Option<&Path>,
        scope: &Scope,
        steps: &mut Vec<Step>,
    ) -> Result<Node> {
        let Some(service) = services.get(name) else {
            return Ok(Node::new(Value::Null, crate::At::new(&"".into(), 0)));
        };
        let Some(extends) = extends_of(service) else {
            return Ok(service.clone());
        };
        let root = KeyPath::ROOT;
        let (services_key, extends_key) = (root.key("services"), "extends");
        let key = services_key.key(name);
        let key = key.key(extends_key);
        let step = (file.map(Path::to_owned), name.to_owned());
        if steps.contains(&step) || steps.len() >= MAX_DEPTH {
            let message = format!("circular reference: `{name}` extends itself");
            return Err(Error::file(&extends.at, key, message));
        }
        steps.push(step);
        let text = |key: &str| extends.as_map()?.get(key)?.as_text();
        let Some(base_name) = text("service") else {
            return Err(Error::file(&extends.at, key, "`service` is missing"));
        };
        let mut base = match text("file") {
            None => {
                let found = services.get(base_name).is_some();
                found
                    .then(|| self.resolve(base_name, services, file, scope, steps))
                    .transpose()?
            }
            Some(other) => {
                let path = PathBuf::from(scope.base().resolve(other));
                self.resolve_in_file(base_name, &path, Path::new(other), scope, steps)
                    .map_err(|error| error.named_at(&extends.at, key))?
            }
        }
        .ok_or_else(|| {
            let place = text("file")
                .map(|file| format!(" in `{file}`"))
                .unwrap_or_default();
            let message = format!("service `{base_name}` not found{place}");
            Error::file(&extends.at, key, message)
        })?;
        let mut own = service.clone();
        if let Value::Map(map) = &mut own.value {
            map.remove("extends");
        }
        if base.is_null() {
            return Ok(own);
        }
        merge::merge_service(&mut base, own, name)?;
        Ok(base)
    }

    /// Returns a service of another file, resolved; `None` if it isn't there.
    fn resolve_in_file(
        &mut self,
        name: &str,
        path: &Path,
        shown: &Path,
        scope: &Scope,
        steps: &mut Vec<Step>,
    ) -> Result<Option<Node>> {
        let inner = Scope {
            directory: path.parent().unwrap_or(Path::new("/")).to_owned(),
            variables: scope.variables.clone(),
        };
        for mut document in self.read(path, shown)? {
            self.prepare(&mut document, &inner)?;
            let services = document.as_map().and_then(|map| map.get("services"));
            let Some(services) = services.and_then(Node::as_map) else {
                continue;
            };
            if services.get(name).is_some() {
                let service = self.resolve(name, services, Some(path), &inner, steps)?;
                return Ok(Some(service));
            }
        }
        Ok(None)
    }
}

fn extends_of(service: &Node) -> Option<&Node> {
    service
        .as_map()?
        .get("extends")
        .filter(|node| !node.is_null())
}
