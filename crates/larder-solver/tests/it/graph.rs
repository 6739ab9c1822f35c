//! Graphs whose ops are pure functions of what they see of their inputs.

use std::collections::BTreeMap;

use larder_oci::Digest;
use larder_solver::{CacheMap, Edge, InputMap, VertexSpec};

/// A graph; inputs come before their readers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<Node>,
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) ignore_cache: bool,
    pub(crate) fails: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Source {
        keys: Vec<String>,
        value: String,
    },
    Step {
        op: String,
        inputs: Vec<Read>,
        make: Make,
    },
}

/// What an op makes of its name (with the output's index) and of what it sees of its inputs.
pub(crate) type Make = fn(&str, &[String]) -> String;

/// How an op reads an input.
#[derive(Debug, Clone)]
pub(crate) struct Read {
    pub(crate) from: usize,
    pub(crate) output: usize,
    /// What it sees, if that is its content key; all of it otherwise.
    pub(crate) view: Option<View>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum View {
    /// The value after `name=`.
    Path(&'static str),
    /// One of few values, so that different inputs often look equal.
    Bucket,
}

/// How often each step was run anew (`ignore_cache`): that changes what it makes from then on.
pub(crate) type Epochs = BTreeMap<String, usize>;

pub(crate) fn hash(op: &str, seen: &[String]) -> String {
    let text = format!("{op}({})", seen.join(","));
    Digest::sha256(text).hex()[..12].to_owned()
}

impl View {
    pub(crate) fn of(self, value: &str) -> String {
        match self {
            Self::Path(path) => {
                let mut entries = value.split(';').filter_map(|entry| entry.split_once('='));
                entries
                    .find(|(name, _)| *name == path)
                    .unwrap()
                    .1
                    .to_owned()
            }
            Self::Bucket => value
                .bytes()
                .map(u32::from)
                .sum::<u32>()
                .rem_euclid(3)
                .to_string(),
        }
    }
}

impl Read {
    pub(crate) fn sees(&self, value: &str) -> String {
        self.view
            .map_or_else(|| value.to_owned(), |view| view.of(value))
    }

    pub(crate) fn content_digest(&self, value: &str) -> Digest {
        Digest::sha256(format!("content {}", self.sees(value)))
    }
}

impl Node {
    pub(crate) fn inputs(&self) -> &[Read] {
        match &self.kind {
            Kind::Source { .. } => &[],
            Kind::Step { inputs, .. } => inputs,
        }
    }

    pub(crate) fn cache_map(&self) -> CacheMap {
        match &self.kind {
            Kind::Source { keys, .. } => CacheMap::Root {
                keys: keys.iter().map(Digest::sha256).collect(),
            },
            Kind::Step { op, inputs, .. } => CacheMap::Step {
                digest: Digest::sha256(op),
                inputs: inputs
                    .iter()
                    .map(|read| InputMap {
                        selector: read.view.map(|view| Digest::sha256(format!("{view:?}"))),
                        content: read.view.is_some(),
                    })
                    .collect(),
            },
        }
    }

    /// What the world makes of this op for these inputs. Running it anew changes the world.
    pub(crate) fn run(&self, output: usize, values: &[String], epochs: &Epochs) -> String {
        match &self.kind {
            Kind::Source { value, .. } => value.clone(),
            Kind::Step { op, make, .. } => {
                let seen = self.sees(values);
                let epoch = epochs.get(&self.call(values)).copied().unwrap_or(0);
                make(&format!("{op}/{output}#{epoch}"), &seen)
            }
        }
    }

    fn sees(&self, values: &[String]) -> Vec<String> {
        let inputs = self.inputs().iter().zip(values);
        inputs.map(|(read, value)| read.sees(value)).collect()
    }

    /// Identifies the op with what it sees.
    pub(crate) fn call(&self, values: &[String]) -> String {
        match &self.kind {
            Kind::Source { keys, .. } if keys.is_empty() => self.name.clone(),
            Kind::Source { keys, .. } => keys[keys.len() - 1].clone(),
            Kind::Step { op, .. } => format!("{op}({})", self.sees(values).join(",")),
        }
    }
}

impl Graph {
    pub(crate) fn add(&mut self, name: &str, kind: Kind) -> usize {
        self.nodes.push(Node {
            name: name.to_owned(),
            kind,
            ignore_cache: false,
            fails: false,
        });
        self.nodes.len() - 1
    }

    /// Names a node with all below it.
    pub(crate) fn digest(&self, index: usize) -> Digest {
        let node = &self.nodes[index];
        let inputs: Vec<_> = node
            .inputs()
            .iter()
            .map(|read| format!("{} {}", self.digest(read.from), read.output))
            .collect();
        Digest::sha256(format!("{} {:?} {inputs:?}", node.name, node.cache_map()))
    }

    pub(crate) fn edge(&self, index: usize, output: usize) -> Edge {
        let vertex = self.digest(index);
        Edge { vertex, output }
    }

    pub(crate) fn specs(&self) -> Vec<VertexSpec> {
        let spec = |(index, node): (usize, &Node)| VertexSpec {
            digest: self.digest(index),
            inputs: node
                .inputs()
                .iter()
                .map(|read| self.edge(read.from, read.output))
                .collect(),
            ignore_cache: node.ignore_cache,
            limited: !node.inputs().is_empty(),
        };
        self.nodes.iter().enumerate().map(spec).collect()
    }

    /// The value of an edge, with no cache at all.
    pub(crate) fn value(&self, index: usize, output: usize, epochs: &Epochs) -> String {
        let node = &self.nodes[index];
        let inputs = node.inputs().iter();
        let values: Vec<_> = inputs
            .map(|read| self.value(read.from, read.output, epochs))
            .collect();
        node.run(output, &values, epochs)
    }
}
