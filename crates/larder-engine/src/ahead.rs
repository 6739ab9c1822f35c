//! Packs layers before an output asks for them: those of finished steps, while later steps run.
//!
//! Which results an output's layers come from is known before anything is solved: the result, and
//! what each step builds upon, down to the base image. One layer is packed at a time, by threads
//! that give way to steps; memory is that of one layer's packing. What fails here is tried again
//! when the layer is asked for, and what nobody asks for in the end is one form more of a layer.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use larder_llb::{Definition, Edge, Vertex, pb};
use larder_oci::{Descriptor, Digest};
use larder_store::{Lease, SnapshotId};
use pb::op::Op;

use crate::build::Prepared;
use crate::cache::export::{is_inline, recipe_of};
use crate::cancel::CancelFlag;
use crate::layers::{self, Packed, Packer, Recipe};
use crate::request::CacheMode;
use crate::task::Tasks;
use crate::worker::ResultRef;

/// How the layers of each result are to be packed.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    by_edge: HashMap<Edge, Vec<Recipe>>,
}

impl Plan {
    /// Plans for the outputs and caches of all targets.
    pub(crate) fn of(targets: &[Prepared]) -> Self {
        let mut plan = Self::default();
        for target in targets {
            let definitions = target.builds.iter().map(|it| &it.lowered.definition);
            let outputs = target.outputs.lock();
            for output in &*outputs.unwrap_or_else(PoisonError::into_inner) {
                if let Some(recipe) = target.recipe_of(output) {
                    for definition in definitions.clone() {
                        plan.add_result(definition, &recipe);
                    }
                }
            }
            for export in target.cache_exports.iter().filter(|it| !is_inline(it)) {
                let recipe = recipe_of(export);
                for definition in definitions.clone() {
                    match export.mode {
                        CacheMode::Min => plan.add_result(definition, &recipe),
                        CacheMode::Max => plan.add_all(definition, &recipe),
                    }
                }
            }
        }
        plan
    }

    /// Plans for an output of what `definition` makes.
    fn add_result(&mut self, definition: &Definition, recipe: &Recipe) {
        let mut pending: Vec<Edge> = definition.result().into_iter().cloned().collect();
        let mut seen = HashSet::new();
        while let Some(edge) = pending.pop() {
            if let Some(vertex) = definition.get(&edge.vertex)
                && seen.insert(edge.clone())
            {
                pending.extend(below(vertex, edge.index).into_iter().cloned());
                self.add(edge, recipe);
            }
        }
    }

    /// Plans for a cache of all that `definition` says.
    fn add_all(&mut self, definition: &Definition, recipe: &Recipe) {
        let read = definition.vertices().iter().flat_map(|it| &it.inputs);
        for edge in read.chain(definition.result()) {
            let vertex = definition.get(&edge.vertex);
            // Nobody needs the layers of a source from a cache.
            if vertex.is_some_and(|it| !it.inputs.is_empty()) {
                self.add(edge.clone(), recipe);
            }
        }
    }

    fn add(&mut self, edge: Edge, recipe: &Recipe) {
        let recipes = self.by_edge.entry(edge).or_default();
        if !recipes.contains(recipe) {
            recipes.push(*recipe);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_edge.is_empty()
    }
}

/// Returns the inputs of a vertex whose layers its output has, too.
fn below(vertex: &Vertex, output: usize) -> Vec<&Edge> {
    let input = |index: i64| vertex.inputs.get(usize::try_from(index).ok()?);
    match &vertex.op.op {
        Some(Op::Exec(exec)) => {
            let position = larder_llb::output_mounts(exec).nth(output);
            let mount = position.and_then(|position| exec.mounts.get(position));
            mount
                .and_then(|mount| input(mount.input))
                .into_iter()
                .collect()
        }
        Some(Op::File(file)) => {
            let first_action = vertex.inputs.len();
            let action = |index: usize| file.actions.get(index.checked_sub(first_action)?);
            let is_last = |action: &&pb::FileAction| usize::try_from(action.output) == Ok(output);
            let last = file.actions.iter().find(is_last);
            // An action begins with what an input has, or another action made.
            let chain = std::iter::successors(last.map(|action| action.input), |&index| {
                action(usize::try_from(index).ok()?).map(|action| action.input)
            });
            let start = chain.take(file.actions.len() + 1).last();
            start.and_then(input).into_iter().collect()
        }
        Some(Op::Merge(merge)) => {
            let inputs = merge.inputs.iter();
            inputs.filter_map(|merged| input(merged.input)).collect()
        }
        Some(Op::Diff(diff)) => {
            let upper = diff.upper.as_ref().and_then(|upper| input(upper.input));
            upper.into_iter().collect()
        }
        Some(Op::Passthrough(passthrough)) => {
            let index = passthrough.outputs.get(output);
            index.and_then(|&index| input(index)).into_iter().collect()
        }
        Some(Op::Source(_) | Op::Build(_)) | None => Vec::new(),
    }
}

/// Packs the layers of a run's steps.
pub(crate) struct Ahead<'a> {
    pub(crate) lease: &'a Lease,
    pub(crate) packed: &'a Packed,
    /// The layers of the images that the run stands on, by diff ID.
    pub(crate) base_layers: HashMap<Digest, Descriptor>,
    pub(crate) plan: Plan,
    queue: Mutex<Queue>,
    changed: Condvar,
    stop: CancelFlag,
}

#[derive(Default)]
struct Queue {
    seen: HashSet<(SnapshotId, Recipe)>,
    waiting: VecDeque<Work>,
}

/// A snapshot's layers to be packed.
struct Work {
    snapshot: SnapshotId,
    recipe: Recipe,
    /// Whether those below were taken care of.
    is_own_only: bool,
}

impl<'a> Ahead<'a> {
    pub(crate) fn new(
        lease: &'a Lease,
        packed: &'a Packed,
        base_layers: HashMap<Digest, Descriptor>,
        plan: Plan,
    ) -> Self {
        Self {
            lease,
            packed,
            base_layers,
            plan,
            queue: Mutex::default(),
            changed: Condvar::new(),
            stop: CancelFlag::new(),
        }
    }

    /// Takes what a step builds upon: it is cached, or was made before.
    pub(crate) fn step_begins(&self, vertex: &Vertex, inputs: &[ResultRef]) {
        for (edge, input) in vertex.inputs.iter().zip(inputs) {
            self.take(edge, input, false);
        }
    }

    /// Takes what a step has made.
    pub(crate) fn step_ended(&self, vertex: &Vertex, outputs: &[usize], results: &[ResultRef]) {
        // What lies below came when the step began.
        let is_own_only = matches!(vertex.op.op, Some(Op::Exec(_) | Op::File(_)));
        for (&index, result) in outputs.iter().zip(results) {
            let edge = Edge {
                vertex: vertex.digest.clone(),
                index,
            };
            self.take(&edge, result, is_own_only);
        }
    }

    fn take(&self, edge: &Edge, result: &ResultRef, is_own_only: bool) {
        let (Some(recipes), ResultRef::Snapshot(snapshot)) = (self.plan.by_edge.get(edge), result)
        else {
            return;
        };
        let mut queue = self.lock();
        for recipe in recipes {
            if queue.seen.insert((snapshot.clone(), *recipe)) {
                queue.waiting.push_back(Work {
                    snapshot: snapshot.clone(),
                    recipe: *recipe,
                    is_own_only,
                });
                self.changed.notify_one();
            }
        }
    }

    /// Packs while `work` is done, and ends with it, even with a layer half done.
    pub(crate) fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        struct End<'e, 'a>(&'e Ahead<'a>);
        impl Drop for End<'_, '_> {
            fn drop(&mut self) {
                self.0.end();
            }
        }
        std::thread::scope(|scope| {
            let _end = End(self);
            if let Err(error) = Tasks::spawn(scope, "ahead", || self.run()) {
                tracing::debug!(%error, "layers are not packed ahead");
            }
            work()
        })
    }

    fn run(&self) {
        let packer = Packer::new(self.lease, self.packed, &self.stop).giving_way();
        while let Some(work) = self.next() {
            if let Err(error) = self.pack(&packer, &work)
                && !self.stop.is_set()
            {
                let error = error.full_message();
                tracing::debug!(error, snapshot = %work.snapshot, "a layer is not packed ahead");
            }
        }
    }

    fn pack(&self, packer: &Packer<'_>, work: &Work) -> crate::Result<()> {
        let layers = if work.is_own_only {
            vec![work.snapshot.clone()]
        } else {
            self.lease.store().chain(&work.snapshot)?
        };
        for layer in layers {
            self.stop.check()?;
            layers::packed_layer(packer, &layer, &work.recipe, &self.base_layers)?;
        }
        Ok(())
    }

    /// Waits for the next work; `None` at the end.
    fn next(&self) -> Option<Work> {
        let mut queue = self.lock();
        loop {
            if self.stop.is_set() {
                return None;
            }
            if let Some(work) = queue.waiting.pop_front() {
                return Some(work);
            }
            queue = self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn end(&self) {
        let _queue = self.lock();
        self.stop.set();
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use larder_llb::{GraphBuilder, VertexMetadata};

    use super::*;

    /// Adds a vertex that reads `inputs`, and returns its first output.
    fn add(graph: &mut GraphBuilder, op: Op, inputs: &[&Edge]) -> Edge {
        let op = pb::Op {
            op: Some(op),
            ..pb::Op::default()
        };
        let inputs: Vec<Edge> = inputs.iter().map(|&edge| edge.clone()).collect();
        let vertex = graph
            .add(op, &inputs, VertexMetadata::default(), None)
            .unwrap();
        Edge { vertex, index: 0 }
    }

    fn source(name: &str) -> Op {
        Op::Source(pb::SourceOp {
            identifier: format!("docker-image://{name}"),
            ..Default::default()
        })
    }

    /// Runs a command upon the first input, with the second mounted.
    fn exec(command: &str) -> Op {
        let mount = |input, dest: &str, output| pb::Mount {
            input,
            dest: dest.to_owned(),
            output,
            ..Default::default()
        };
        Op::Exec(pb::ExecOp {
            meta: Some(pb::Meta {
                args: vec![command.to_owned()],
                cwd: "/".to_owned(),
                ..Default::default()
            }),
            mounts: vec![mount(1, "/in", 0), mount(0, "/", 1)],
            ..Default::default()
        })
    }

    /// Copies out of the second input into a directory made upon the first.
    fn copy() -> Op {
        let action = |input, secondary_input, output, action| pb::FileAction {
            input,
            secondary_input,
            output,
            action: Some(action),
        };
        let mkdir = pb::file_action::Action::Mkdir(pb::FileActionMkDir {
            path: "/app".to_owned(),
            ..Default::default()
        });
        let copy = pb::file_action::Action::Copy(pb::FileActionCopy {
            src: "/".to_owned(),
            dest: "/app".to_owned(),
            ..Default::default()
        });
        Op::File(pb::FileOp {
            actions: vec![action(0, -1, -1, mkdir), action(2, 1, 0, copy)],
        })
    }

    #[test]
    fn the_layers_of_an_image_are_those_of_what_each_step_stands_on() {
        let mut graph = GraphBuilder::new();
        let base = add(&mut graph, source("base"), &[]);
        let tools = add(&mut graph, source("tools"), &[]);
        let built = add(&mut graph, exec("build"), &[&tools, &base]);
        let upon_tools = Edge { index: 1, ..built };
        let copied = add(&mut graph, copy(), &[&base, &upon_tools]);
        let ran = add(&mut graph, exec("run"), &[&copied, &tools]);
        let result = Edge { index: 1, ..ran };
        let definition = graph.finish(result.clone()).unwrap();
        let planned = |plan: Plan| plan.by_edge.into_keys().collect::<HashSet<Edge>>();

        let mut plan = Plan::default();
        plan.add_result(&definition, &Recipe::default());
        let expected = [result.clone(), copied.clone(), base];
        assert_eq!(planned(plan), HashSet::from(expected));

        // A cache of all steps has what other stages made, too.
        let mut plan = Plan::default();
        plan.add_all(&definition, &Recipe::default());
        assert_eq!(planned(plan), HashSet::from([result, copied, upon_tools]));
    }

    #[test]
    fn a_result_is_planned_once_for_each_form() {
        let mut graph = GraphBuilder::new();
        let base = add(&mut graph, source("base"), &[]);
        let definition = graph.finish(base.clone()).unwrap();
        let mut plan = Plan::default();
        let zstd = Recipe {
            compression: crate::request::LayerCompression::Zstd,
            ..Recipe::default()
        };
        for recipe in [Recipe::default(), zstd, Recipe::default()] {
            plan.add_result(&definition, &recipe);
        }
        assert_eq!(plan.by_edge[&base], [Recipe::default(), zstd]);
    }
}
