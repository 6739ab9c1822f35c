//! `include`: other projects' files, with their own directory and env files.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::merge;
use crate::node::{KeyPath, Map, Node, Value};

use super::{Loader, Scope, add_env_files};

/// Includes may nest this deep.
const MAX_DEPTH: usize = 32;

/// The files that are being included, outermost first.
#[derive(Debug, Default)]
pub(super) struct Stack(Vec<PathBuf>);

impl Loader {
    /// Returns a document with all that it includes; what it says itself wins.
    pub(super) fn with_includes(
        &mut self,
        mut document: Node,
        scope: &Scope,
        stack: &mut Stack,
    ) -> Result<Node> {
        let Value::Map(map) = &mut document.value else {
            return Ok(document);
        };
        let Some(list) = map.remove("include") else {
            return Ok(document);
        };
        let mut merged: Option<Node> = None;
        for (index, item) in list.as_list().unwrap_or_default().iter().enumerate() {
            let index = format!("[{index}]");
            let key = KeyPath::ROOT.key("include");
            let included = self.include(item, &key.key(&index), scope, stack)?;
            match &mut merged {
                Some(merged) => {
                    check_conflicts(merged, &included)?;
                    merge::merge(merged, included)?;
                }
                None => merged = Some(included),
            }
        }
        match merged {
            None => Ok(document),
            Some(mut merged) => {
                check_conflicts(&merged, &document)?;
                merge::merge(&mut merged, document)?;
                Ok(merged)
            }
        }
    }

    fn include(
        &mut self,
        item: &Node,
        key: &KeyPath<'_>,
        scope: &Scope,
        stack: &mut Stack,
    ) -> Result<Node> {
        let nothing = Map::default();
        let map = item.as_map().unwrap_or(&nothing);
        let paths = match map.get("path") {
            Some(paths) => texts(paths),
            None => texts(item),
        };
        let Some(first) = paths.first() else {
            return Err(Error::file(&item.at, key, "`path` is missing"));
        };
        if let Some(remote) = paths.iter().find(|path| crate::canonical::is_remote(path)) {
            let message = format!("`{remote}`: only local files can be included");
            return Err(Error::file(&item.at, key, message));
        }
        let base = scope.base();
        let paths: Vec<PathBuf> = paths.iter().map(|path| base.resolve(path).into()).collect();
        let directory =
            if let Some(directory) = map.get("project_directory").and_then(Node::as_text) {
                base.resolve(directory).into()
            } else {
                let first = PathBuf::from(base.resolve(first));
                first.parent().unwrap_or(Path::new("/")).to_owned()
            };
        let mut variables = scope.variables.clone();
        let env_files = map.get("env_file").map(texts).unwrap_or_default();
        let env_files: Vec<PathBuf> = env_files
            .iter()
            .map(|path| base.resolve(path).into())
            .collect();
        add_env_files(&mut variables, &env_files, &directory)
            .map_err(|error| error.named_at(&item.at, key))?;
        let inner = Scope {
            directory,
            variables,
        };
        let mut merged: Option<Node> = None;
        for path in paths {
            let file = self.included_file(&path, item, key, &inner, stack)?;
            match &mut merged {
                Some(merged) => merge::merge(merged, file)?,
                None => merged = Some(file),
            }
        }
        let mut merged = merged.unwrap_or_else(|| item.clone());
        merge::drop_resets(&mut merged);
        if let Value::Map(map) = &mut merged.value {
            // The name is that of the project that includes it.
            map.remove("name");
        }
        Ok(merged)
    }

    fn included_file(
        &mut self,
        path: &Path,
        item: &Node,
        key: &KeyPath<'_>,
        scope: &Scope,
        stack: &mut Stack,
    ) -> Result<Node> {
        if stack.0.iter().any(|outer| outer == path) || stack.0.len() >= MAX_DEPTH {
            let message = format!(
                "include cycle detected: `{}` includes itself",
                path.display()
            );
            return Err(Error::file(&item.at, key, message));
        }
        let documents = self.read(path, path);
        let documents = documents.map_err(|error| error.named_at(&item.at, key))?;
        stack.0.push(path.to_owned());
        let file = self.documents(documents, scope, stack);
        stack.0.pop();
        file
    }
}

/// Refuses what is included under a name that is also used otherwise.
fn check_conflicts(included: &Node, other: &Node) -> Result<()> {
    for section in ["services", "volumes", "networks", "secrets", "configs"] {
        let entries = |node: &Node| {
            let section = node.as_map()?.get(section)?.as_map()?;
            Some(section.clone())
        };
        let known = entries(included).unwrap_or_default();
        for entry in &entries(other).unwrap_or_default() {
            if known
                .get(&entry.key)
                .is_some_and(|node| *node != entry.node)
            {
                let key = format!("{section}.{}", entry.key);
                return Err(Error::file(
                    &entry.at,
                    key,
                    "conflicts with imported resource",
                ));
            }
        }
    }
    Ok(())
}

fn texts(node: &Node) -> Vec<&str> {
    match node.as_list() {
        Some(items) => items.iter().filter_map(Node::as_text).collect(),
        None => node.as_text().into_iter().collect(),
    }
}
