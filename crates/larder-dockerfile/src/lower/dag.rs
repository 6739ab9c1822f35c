//! The graph while it grows: ops whose inputs are other nodes, before digests are known.

use std::collections::BTreeMap;
use std::sync::Arc;

use larder_llb::{Definition, Edge, GraphBuilder, SourceFile, pb};
use larder_oci::{Digest, Platform};

use super::{Lowered, StepInfo};
use crate::error::{Error, Lines};

/// One output of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeRef(usize);

/// An op. Where it names an input by index, it counts in `inputs`.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) op: pb::op::Op,
    pub(super) platform: Option<Platform>,
    pub(super) inputs: Vec<NodeRef>,
    pub(super) metadata: pb::OpMetadata,
    /// Where it stands; `None` for what no instruction asks for.
    pub(super) lines: Option<Lines>,
    pub(super) step: Option<StepInfo>,
    /// What stands in place of the op.
    input: Option<Input>,
}

/// A graph that was made elsewhere.
#[derive(Debug, Clone)]
enum Input {
    /// What another Dockerfile builds, with the name that it has here.
    Lowered(String, Arc<Lowered>),
    /// What fetches a build context.
    Context(Arc<Definition>),
}

impl Node {
    /// Returns a node with the name shown in progress, no platform and no inputs.
    pub(super) fn new(op: pb::op::Op, name: String) -> Self {
        let mut metadata = pb::OpMetadata::default();
        let description = &mut metadata.description;
        description.insert("llb.customname".to_owned(), name);
        Self {
            op,
            platform: None,
            inputs: Vec::new(),
            metadata,
            lines: None,
            step: None,
            input: None,
        }
    }

    /// Returns a node that stands for what another Dockerfile builds.
    pub(super) fn input(name: &str, lowered: &Arc<Lowered>) -> Self {
        Self::of(Input::Lowered(name.to_owned(), Arc::clone(lowered)))
    }

    /// Returns a node that stands for a build context that is fetched.
    pub(super) fn context(definition: &Arc<Definition>) -> Self {
        Self::of(Input::Context(Arc::clone(definition)))
    }

    fn of(input: Input) -> Self {
        let placeholder = pb::op::Op::Source(pb::SourceOp::default());
        Self {
            input: Some(input),
            ..Self::new(placeholder, String::new())
        }
    }

    /// Records the instruction's text.
    pub(super) fn command(mut self, code: &str) -> Self {
        let key = "com.docker.dockerfile.v1.command".to_owned();
        self.metadata.description.insert(key, code.to_owned());
        self
    }

    /// Records a capability that who solves this must have.
    pub(super) fn cap(&mut self, name: &str) {
        self.metadata.caps.insert(name.to_owned(), true);
    }

    pub(super) fn at(mut self, lines: Lines) -> Self {
        self.lines = Some(lines);
        self
    }
}

/// The nodes.
#[derive(Debug, Clone, Default)]
pub(super) struct Dag {
    nodes: Vec<Node>,
}

impl Dag {
    pub(super) fn add(&mut self, node: Node) -> NodeRef {
        self.nodes.push(node);
        NodeRef(self.nodes.len() - 1)
    }

    pub(super) fn node_mut(&mut self, node: NodeRef) -> &mut Node {
        &mut self.nodes[node.0]
    }

    /// Makes the definition that ends in `result`, and tells which step each vertex is. The lines
    /// of nodes are those of `source`.
    pub(super) fn finish(
        self,
        result: Option<NodeRef>,
        source: Option<SourceFile>,
    ) -> Result<(Definition, BTreeMap<Digest, StepInfo>), Error> {
        let Some(result) = result else {
            return Ok((Definition::empty(), BTreeMap::new()));
        };
        let mut builder = GraphBuilder::new();
        let source = source.map(|source| builder.add_source(source));
        let mut steps = BTreeMap::new();
        let mut edges: Vec<Option<Edge>> = vec![None; self.nodes.len()];
        let mut nodes: Vec<Option<Node>> = self.nodes.into_iter().map(Some).collect();
        let mut caps = vec!["constraints", "meta.description", "platform"];
        // Depth first, inputs before their readers, without recursion: a chain may be long. Where
        // equal ops meet, what is written last wins, so the order matters.
        let mut stack = vec![(result, 0)];
        while let Some((NodeRef(at), next)) = stack.pop() {
            let inputs = nodes[at].as_ref().map_or(&[][..], |node| &node.inputs);
            if let Some(&input) = inputs.get(next) {
                stack.push((NodeRef(at), next + 1));
                if edges[input.0].is_none() {
                    stack.push((input, 0));
                }
                continue;
            }
            let mut node = nodes[at].take().expect("each node is finished once");
            if let Some(input) = node.input {
                let definition = input.definition();
                builder.add_definition(definition);
                edges[at] = definition.result().cloned();
                for (vertex, step) in input.steps() {
                    steps.entry(vertex).or_insert(step);
                }
                continue;
            }
            let edge = |input: &NodeRef| edges[input.0].clone().expect("inputs come first");
            let inputs = node.inputs.iter().map(edge).collect();
            let inputs = merge_equal_inputs(&mut node.op, inputs);
            let op = pb::Op {
                inputs: Vec::new(),
                op: Some(node.op),
                platform: node.platform.as_ref().map(platform_to_pb),
                constraints: Some(pb::WorkerConstraints::default()),
            };
            if node.metadata.ignore_cache && !caps.contains(&"meta.ignorecache") {
                caps.push("meta.ignorecache");
            }
            let lines = node.lines.map(Lines::ranges);
            let location = source.zip(lines);
            let vertex = builder.add(op, &inputs, node.metadata, location)?;
            if let Some(step) = node.step {
                steps.insert(vertex.clone(), step);
            }
            edges[at] = Some(Edge { vertex, index: 0 });
        }
        builder.set_tail_caps(&caps);
        let result = edges[result.0].clone().expect("the result was visited");
        let definition = builder.finish(result)?;
        Ok((definition, steps))
    }
}

impl Input {
    fn definition(&self) -> &Definition {
        match self {
            Self::Lowered(_, lowered) => &lowered.definition,
            Self::Context(definition) => definition,
        }
    }

    fn steps(&self) -> Vec<(Digest, StepInfo)> {
        match self {
            Self::Lowered(name, lowered) => {
                let steps = lowered.steps.iter();
                steps.map(|step| input_step(name, step)).collect()
            }
            Self::Context(_) => Vec::new(),
        }
    }
}

/// Tells a step of another Dockerfile from those of this one.
fn input_step(name: &str, (vertex, step): (&Digest, &StepInfo)) -> (Digest, StepInfo) {
    let step = StepInfo {
        context: Some(name.to_owned()),
        stage: format!("{name}:{}", step.stage),
        ..step.clone()
    };
    (vertex.clone(), step)
}

fn platform_to_pb(platform: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    }
}

/// Two nodes may turn out to be the same vertex; exec and file ops then list it once.
fn merge_equal_inputs(op: &mut pb::op::Op, inputs: Vec<Edge>) -> Vec<Edge> {
    if !matches!(op, pb::op::Op::Exec(_) | pb::op::Op::File(_)) {
        return inputs;
    }
    let mut distinct: Vec<Edge> = Vec::with_capacity(inputs.len());
    let count = inputs.len() as i64;
    let places: Vec<i64> = inputs
        .into_iter()
        .map(|input| {
            let known = distinct.iter().position(|known| *known == input);
            known.unwrap_or_else(|| {
                distinct.push(input);
                distinct.len() - 1
            }) as i64
        })
        .collect();
    let removed = count - distinct.len() as i64;
    // Behind the inputs the outputs of earlier actions are counted.
    let place = |index: &mut i64| {
        if *index >= count {
            *index -= removed;
        } else if *index >= 0 {
            *index = places[*index as usize];
        }
    };
    match op {
        pb::op::Op::Exec(exec) => exec.mounts.iter_mut().for_each(|m| place(&mut m.input)),
        pb::op::Op::File(file) => {
            for action in &mut file.actions {
                place(&mut action.input);
                place(&mut action.secondary_input);
                owners(action, &place);
            }
        }
        _ => {}
    }
    distinct
}

/// Applies `place` to where user names are looked up.
fn owners(action: &mut pb::FileAction, place: &impl Fn(&mut i64)) {
    use pb::file_action::Action;
    let owner = match &mut action.action {
        Some(Action::Copy(copy)) => copy.owner.as_mut(),
        Some(Action::Mkfile(mkfile)) => mkfile.owner.as_mut(),
        Some(Action::Mkdir(mkdir)) => mkdir.owner.as_mut(),
        _ => None,
    };
    let Some(owner) = owner else { return };
    for user in [&mut owner.user, &mut owner.group].into_iter().flatten() {
        if let Some(pb::user_opt::User::ByName(named)) = &mut user.user {
            place(&mut named.input);
        }
    }
}
