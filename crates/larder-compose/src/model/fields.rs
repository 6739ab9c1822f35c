//! Reading the keys of a mapping.

use std::time::Duration;

use crate::error::{At, Error, Result};
use crate::node::{KeyPath, Map, Node};
use crate::values;

use super::is_given;

/// A mapping, with where it stands.
pub(super) struct Fields<'a> {
    pub(super) map: &'a Map,
    pub(super) at: &'a At,
    pub(super) path: KeyPath<'a>,
}

impl<'a> Fields<'a> {
    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        self.map.get(key).filter(|node| is_given(node))
    }

    /// Returns a scalar as text.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.get(key)?.scalar()
    }

    /// Returns the scalars of a list.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<String>> {
        let items = self.get(key)?.as_list()?;
        Some(items.iter().filter_map(Node::scalar).collect())
    }

    /// Returns names with their values.
    pub(super) fn pairs(&self, key: &str) -> Vec<(String, Option<String>)> {
        let map = self.get(key).and_then(Node::as_map);
        map.into_iter()
            .flatten()
            .map(|entry| (entry.key.clone(), entry.node.scalar()))
            .collect()
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.parse(key, values::flag, "is no boolean")
    }

    pub(super) fn size(&self, key: &str) -> Result<Option<u64>> {
        self.parse(key, values::size, "is no size, as in `64m`")
    }

    pub(super) fn duration(&self, key: &str) -> Result<Option<Duration>> {
        self.parse(key, values::duration, "is no time, as in `1m30s`")
    }

    pub(super) fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>> {
        self.parse(key, |text| text.parse().ok(), "is no number that fits")
    }

    fn parse<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Option<T>,
        problem: &str,
    ) -> Result<Option<T>> {
        let Some(node) = self.get(key) else {
            return Ok(None);
        };
        let text = node.scalar().unwrap_or_default();
        if let Some(value) = parse(&text) {
            Ok(Some(value))
        } else {
            let message = format!("`{text}` {problem}");
            Err(Error::file(&node.at, self.path.key(key), message))
        }
    }

    /// Calls `read` for each mapping of a list.
    pub(super) fn each<T>(
        &self,
        key: &str,
        read: impl Fn(&Fields<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let items = self.get(key).and_then(Node::as_list).unwrap_or_default();
        let path = self.path.key(key);
        let nothing = Map::default();
        let mut values = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let index = format!("[{index}]");
            values.push(read(&Fields {
                map: item.as_map().unwrap_or(&nothing),
                at: &item.at,
                path: path.key(&index),
            })?);
        }
        Ok(values)
    }

    /// Returns a mapping below this one.
    pub(super) fn fields<'b>(&'b self, key: &'b str) -> Option<Fields<'b>> {
        let node = self.get(key)?;
        Some(Fields {
            map: node.as_map()?,
            at: &node.at,
            path: self.path.key(key),
        })
    }

    pub(super) fn error(&self, message: impl Into<String>) -> Error {
        Error::file(self.at, self.path, message)
    }
}
