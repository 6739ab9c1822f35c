//! A YAML tree whose nodes know where they come from.

use std::fmt;

use crate::error::At;

/// A value of a compose file.
#[derive(Debug, Clone)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it begins.
    pub at: At,
    /// What its tag tells a merge to do.
    pub(crate) directive: Directive,
}

/// What a [`Node`] holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another number.
    Float(f64),
    /// A text.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping.
    Map(Map),
}

/// What is done with what a node overrides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Directive {
    /// They are merged by the rules of their key.
    #[default]
    Merge,
    /// `!reset`: the key is gone.
    Reset,
    /// `!override`: this takes its place.
    Override,
}

impl PartialEq for Node {
    /// Compares values; places do not count.
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Node {
    pub(crate) fn new(value: Value, at: At) -> Self {
        Self {
            value,
            at,
            directive: Directive::Merge,
        }
    }

    pub(crate) fn text(text: impl Into<String>, at: &At) -> Self {
        Self::new(Value::Text(text.into()), at.clone())
    }

    /// Returns the text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the items, if it is a list.
    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// Returns the mapping, if it is one.
    pub fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    /// Returns what a scalar is as text, as Go prints it; `None` for lists and mappings, and for
    /// nothing.
    pub fn scalar(&self) -> Option<String> {
        match &self.value {
            Value::Text(text) => Some(text.clone()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Int(value) => Some(value.to_string()),
            Value::Float(value) => Some(value.to_string()),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Returns how the kind of value is called in messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// A mapping, in the order of the file. Keys are unique.
#[derive(Debug, Clone, Default)]
pub struct Map(Vec<Entry>);

/// A key with its value.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub at: At,
    /// The value.
    pub node: Node,
}

impl PartialEq for Map {
    /// Compares keys with values; their order does not count.
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self
                .0
                .iter()
                .all(|entry| other.get(&entry.key) == Some(&entry.node))
    }
}

impl Map {
    /// Returns a key's value.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// Returns a key with its place.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.key == key)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        let entry = self.0.iter_mut().find(|entry| entry.key == key)?;
        Some(&mut entry.node)
    }

    /// Returns all entries.
    pub fn iter(&self) -> std::slice::Iter<'_, Entry> {
        self.0.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Entry> {
        self.0.iter_mut()
    }

    /// Returns whether it has no keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets a key, in its old place if it has one.
    pub(crate) fn set(&mut self, key: &str, node: Node) {
        match self.get_mut(key) {
            Some(old) => *old = node,
            None => self.0.push(Entry {
                key: key.to_owned(),
                at: node.at.clone(),
                node,
            }),
        }
    }

    /// Adds an entry whose key is not there yet.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.0.push(entry);
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<Node> {
        let index = self.0.iter().position(|entry| entry.key == key)?;
        Some(self.0.remove(index).node)
    }

    pub(crate) fn retain(&mut self, keep: impl FnMut(&Entry) -> bool) {
        self.0.retain(keep);
    }
}

impl IntoIterator for Map {
    type Item = Entry;
    type IntoIter = std::vec::IntoIter<Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a mut Map {
    type Item = &'a mut Entry;
    type IntoIter = std::slice::IterMut<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl<'a> IntoIterator for &'a Map {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The keys that lead to a node, `services.api.ports.[0]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyPath<'a> {
    parent: Option<&'a KeyPath<'a>>,
    name: &'a str,
}

impl<'a> KeyPath<'a> {
    /// Returns the path of the whole file.
    pub(crate) const ROOT: KeyPath<'static> = KeyPath {
        parent: None,
        name: "",
    };

    pub(crate) fn key(&'a self, name: &'a str) -> Self {
        Self {
            parent: Some(self),
            name,
        }
    }

    /// Returns whether it is `pattern`, in which `*` stands for any one key.
    pub(crate) fn matches(&self, pattern: &str) -> bool {
        let mut names = pattern.rsplit('.');
        let mut here = Some(self);
        while let Some(path) = here.filter(|path| path.parent.is_some()) {
            match names.next() {
                Some(name) if name == "*" || name == path.name => {}
                _ => return false,
            }
            here = path.parent;
        }
        names.next().is_none()
    }
}

impl fmt::Display for KeyPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(parent) = self.parent else {
            return Ok(());
        };
        if parent.parent.is_some() {
            write!(f, "{parent}.")?;
        }
        f.write_str(self.name)
    }
}
