//! Directories of the client: which paths of them a build needs is known at its end.

use std::collections::{BTreeMap, BTreeSet};

use larder_llb::pb;
use larder_oci::go_json;

use super::dag::{Dag, Node, NodeRef};
use crate::options::{LocalContext, LowerOptions};
use crate::path;

/// Names a set of used paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct PathsId(usize);

impl PathsId {
    pub(super) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The directories that are used, and their used paths.
#[derive(Debug, Default)]
pub(super) struct Locals {
    context: Option<NodeRef>,
    context_paths: BTreeSet<String>,
    paths: BTreeMap<PathsId, BTreeSet<String>>,
    named: Vec<NamedLocal>,
}

#[derive(Debug)]
struct NamedLocal {
    node: NodeRef,
    /// The context's name.
    name: String,
    local: LocalContext,
    paths: PathsId,
}

impl Locals {
    /// Returns the build context.
    pub(super) fn context(&mut self, dag: &mut Dag) -> NodeRef {
        let placeholder = || Node::new(source_op(pb::SourceOp::default()), String::new());
        *self.context.get_or_insert_with(|| dag.add(placeholder()))
    }

    /// Notes that a path of the build context is used.
    pub(super) fn use_context_path(&mut self, used: &str) {
        self.context_paths.insert(path::absolute("/", used));
    }

    /// Notes that a path of a stage is used.
    pub(super) fn use_path(&mut self, paths: PathsId, used: &str) {
        let set = self.paths.entry(paths).or_default();
        set.insert(path::absolute("/", used));
    }

    /// Adds a directory that is a named context.
    pub(super) fn add_named(
        &mut self,
        dag: &mut Dag,
        name: &str,
        local: &LocalContext,
        paths: PathsId,
    ) -> NodeRef {
        let node = dag.add(Node::new(source_op(pb::SourceOp::default()), String::new()));
        self.named.push(NamedLocal {
            node,
            name: name.to_owned(),
            local: local.clone(),
            paths,
        });
        node
    }

    /// Writes the sources, now that the used paths are known.
    pub(super) fn finish(&self, options: &LowerOptions, dag: &mut Dag) {
        if let Some(node) = self.context {
            let local = &options.context;
            *dag.node_mut(node) = match &options.remote_context {
                Some(definition) => Node::context(definition),
                None => local_node(
                    local,
                    &local.name,
                    "[internal] load build context".to_owned(),
                    &self.context_paths,
                ),
            };
        }
        let none = BTreeSet::new();
        for named in &self.named {
            let name = &named.name;
            *dag.node_mut(named.node) = local_node(
                &named.local,
                &format!("context:{name}"),
                format!("[context {name}] load from client"),
                self.paths.get(&named.paths).unwrap_or(&none),
            );
        }
    }
}

fn source_op(source: pb::SourceOp) -> pb::op::Op {
    pb::op::Op::Source(source)
}

fn local_node(
    local: &LocalContext,
    shared_key: &str,
    name: String,
    paths: &BTreeSet<String>,
) -> Node {
    let list = |items: &[String]| String::from_utf8(go_json(&items)).expect("JSON of text is text");
    let mut attrs: Vec<(&str, String)> = vec![("sharedkeyhint", shared_key.to_owned())];
    if let Some(session) = &local.session {
        attrs.push(("session", session.clone()));
    }
    if !local.excludes.is_empty() {
        attrs.push(("excludepatterns", list(&local.excludes)));
    }
    if !paths.is_empty() && !paths.contains("/") {
        let relative = paths.iter().map(|path| path[1..].to_owned());
        let mut relative: Vec<String> = relative.collect();
        relative.sort();
        attrs.push(("followpaths", list(&relative)));
    }
    let source = pb::SourceOp {
        identifier: format!("local://{}", local.name),
        attrs: attrs
            .iter()
            .map(|(name, value)| (format!("local.{name}"), value.clone()))
            .collect(),
    };
    let mut node = Node::new(source_op(source), name);
    node.cap("source.local");
    for (name, _) in attrs {
        let cap = if name == "session" { "sessionid" } else { name };
        node.cap(&format!("source.local.{cap}"));
    }
    node
}
