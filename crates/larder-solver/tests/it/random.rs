//! Random graphs, orders of completion and cache contents against the naive evaluation.

use std::collections::BTreeSet;

use larder_solver::{JobId, Outcome};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::driver::Driver;
use crate::graph::{Epochs, Graph, Kind, Node, Read, View, hash};
use crate::naive::Naive;
use crate::store::Store;

/// One vertex. Numbers are taken modulo what there is.
#[derive(Debug, Clone)]
struct Plan {
    source: bool,
    op: u8,
    /// The input, which of its outputs, whether it is keyed by content.
    inputs: Vec<(u8, u8, bool)>,
}

/// One build, or two that overlap.
#[derive(Debug, Clone)]
struct Round {
    /// Which of the pending answers is the next to come.
    order: Vec<u8>,
    /// What is forgotten beforehand: a node, and whether only its result is.
    prune: Vec<(u8, bool)>,
    version: u8,
    ignored_ops: u8,
    failing: u8,
    /// Whether results that are found turn out to be lost.
    lose: bool,
    /// After how many answers a second job comes.
    second_job: Option<u8>,
    /// After how many answers the first job is canceled.
    cancel: Option<u8>,
    max_parallelism: Option<usize>,
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let input = (any::<u8>(), 0..2u8, any::<bool>());
    let plan = (any::<u8>(), any::<u8>(), vec(input, 1..4));
    let plan = plan.prop_map(|(source, op, inputs)| Plan {
        source: source % 4 == 0,
        op,
        inputs,
    });
    vec(plan, 1..10)
}

fn rounds(calm: bool) -> impl Strategy<Value = Vec<Round>> {
    let often = move |p: f64| proptest::bool::weighted(if calm { 0.0 } else { p });
    let some = move |p: f64| (often(p), 0..30u8).prop_map(|(some, at)| some.then_some(at));
    let mask = |p: f64| (proptest::bool::weighted(p), any::<u8>());
    let mask = move |p: f64| mask(p).prop_map(|(some, mask)| if some { mask & 0x55 } else { 0 });
    let round = (
        vec(any::<u8>(), 1..40),
        vec((any::<u8>(), proptest::bool::weighted(0.8)), 0..6),
        0..2u8,
        mask(0.4),
        mask(if calm { 0.0 } else { 0.3 }),
        often(0.2),
        some(0.4),
        some(0.3),
        prop_oneof![Just(None), Just(Some(1)), Just(Some(2))],
    );
    let round = round.prop_map(
        |(order, prune, version, ignored, failing, lose, second_job, cancel, max)| Round {
            order,
            prune,
            version,
            // A build that ends early leaves the world, but not the cache, changed.
            ignored_ops: if failing == 0 && cancel.is_none() {
                ignored
            } else {
                0
            },
            failing,
            lose,
            second_job,
            cancel,
            max_parallelism: max,
        },
    );
    vec(round, 1..5)
}

/// Makes the graph of a round. With `aliases`, different vertices may be the same step.
fn graph(plans: &[Plan], round: &Round, aliases: bool) -> Graph {
    let mut graph = Graph::default();
    for (index, plan) in plans.iter().enumerate() {
        let op = if aliases {
            usize::from(plan.op % 3)
        } else {
            index
        };
        let kind = if plan.source || index == 0 {
            source(plan.op, op, round.version)
        } else {
            let inputs = plan.inputs.iter().map(|&(from, output, content)| {
                let from = usize::from(from) % index;
                let is_source = matches!(graph.nodes[from].kind, Kind::Source { .. });
                Read {
                    from,
                    output: if is_source { 0 } else { usize::from(output) },
                    view: content.then_some(View::Bucket),
                }
            });
            let inputs: Vec<_> = inputs.collect();
            let shape = inputs
                .iter()
                .map(|read| if read.view.is_some() { 'c' } else { 'k' });
            Kind::Step {
                op: format!("op{op}{}", shape.collect::<String>()),
                inputs,
                make: hash,
            }
        };
        let node = graph.add(&format!("n{index}"), kind);
        let is_step = !graph.nodes[node].inputs().is_empty();
        graph.nodes[node].ignore_cache = is_step && round.ignored_ops >> (op % 8) & 1 == 1;
        graph.nodes[node].fails = round.failing >> (index % 8) & 1 == 1;
    }
    graph
}

fn source(kind: u8, id: usize, version: u8) -> Kind {
    match kind / 4 % 3 {
        0 => Kind::Source {
            keys: vec![],
            value: hash(&format!("local{id}"), &[version.to_string()]),
        },
        1 => Kind::Source {
            keys: vec![format!("manifest{id}.{version}"), format!("chain{id}")],
            value: hash(&format!("chain{id}"), &[]),
        },
        _ => Kind::Source {
            keys: vec![format!("commit{id}.{version}")],
            value: hash(&format!("commit{id}"), &[version.to_string()]),
        },
    }
}

/// Whether equal steps always find each other: not below a local source that is read whole.
fn is_mergeable(graph: &Graph) -> bool {
    let is_local = |index: usize| matches!(&graph.nodes[index].kind, Kind::Source { keys, .. } if keys.is_empty());
    let mut reads = graph.nodes.iter().flat_map(Node::inputs);
    !reads.any(|read| read.view.is_none() && is_local(read.from))
}

fn prune(store: &mut Store, round: &Round) {
    for &(which, only_result) in &round.prune {
        let nodes = store.nodes_with_results();
        if nodes.is_empty() {
            return;
        }
        let node = nodes[usize::from(which) % nodes.len()];
        if only_result {
            store.drop_result(node);
        } else {
            store.remove(node);
        }
    }
}

fn drive(driver: &mut Driver, round: &Round, graph: &Graph, targets: [(usize, usize); 2]) {
    driver.lose = round.lose;
    driver.add_job(1, graph, &[targets[0]]);
    let mut order = round.order.iter().copied().cycle();
    for count in 0.. {
        if round.second_job == Some(count) {
            driver.add_job(2, graph, &[targets[1], targets[0]]);
        }
        if round.cancel == Some(count) {
            driver.send(larder_solver::Event::CancelJob { job: JobId(1) });
        }
        if driver.pending.is_empty() {
            break;
        }
        let choice = usize::from(order.next().unwrap());
        let index = choice % driver.pending.len();
        if driver.canceled.contains(&driver.pending[index].0) && choice % 2 == 0 {
            driver.answer_canceled(index);
        } else {
            driver.answer(index);
        }
        // What was made anew is sound.
        driver.lose &= count < 40;
        assert!(count < 200, "it does not end");
    }
}

fn check_outcome(
    driver: &Driver,
    job: u64,
    graph: &Graph,
    targets: &[(usize, usize)],
    round: &Round,
) {
    let outcome = driver.done.get(&JobId(job)).expect("the job has ended");
    match outcome {
        Outcome::Built(found) => {
            let found: Vec<_> = found
                .iter()
                .map(|target| target.result.value.clone())
                .collect();
            let made = targets
                .iter()
                .map(|&(index, o)| graph.value(index, o, &driver.epochs));
            assert_eq!(found, made.collect::<Vec<_>>(), "a false hit");
        }
        Outcome::Failed(failures) => {
            assert!(!failures.is_empty());
            for failure in failures {
                let failed = graph.nodes.iter().find(|node| node.name == failure.error.0);
                assert!(failed.unwrap().fails);
            }
        }
        Outcome::Canceled => assert!(job == 1 && round.cancel.is_some()),
    }
}

/// Two targets: the last vertex, and another.
fn targets(graph: &Graph, round: &Round) -> [(usize, usize); 2] {
    let last = graph.nodes.len() - 1;
    [(last, 0), (usize::from(round.version) * last / 2, 0)]
}

fn check_rounds(plans: &[Plan], rounds: &[Round]) {
    let mut store = Store::default();
    let mut epochs = Epochs::new();
    for (epoch, round) in rounds.iter().enumerate() {
        let graph = graph(plans, round, true);
        let targets = targets(&graph, round);
        prune(&mut store, round);
        let mut driver = Driver::new(store, round.max_parallelism);
        driver.epochs = epochs;
        driver.epoch = epoch + 1;
        drive(&mut driver, round, &graph, targets);
        driver.finish();
        check_outcome(&driver, 1, &graph, &targets[..1], round);
        if driver.done.len() > 1 {
            check_outcome(&driver, 2, &graph, &[targets[1], targets[0]], round);
        }
        let calm = round.failing == 0 && round.cancel.is_none() && !round.lose;
        if calm && round.second_job.is_none() && round.ignored_ops == 0 && is_mergeable(&graph) {
            let mut once = BTreeSet::new();
            for (call, outputs) in &driver.executed {
                for output in outputs {
                    assert!(once.insert((call, output)), "{call} ran twice");
                }
            }
        }
        (store, epochs) = (driver.store, driver.epochs);
    }
}

fn check_executions(plans: &[Plan], rounds: &[Round]) {
    let mut store = Store::default();
    let mut epochs = Epochs::new();
    for (epoch, round) in rounds.iter().enumerate() {
        let graph = graph(plans, round, false);
        let (target, output) = targets(&graph, round)[0];
        prune(&mut store, round);
        let mut driver = Driver::new(store.clone(), round.max_parallelism);
        driver.epochs.clone_from(&epochs);
        driver.epoch = epoch + 1;
        drive(&mut driver, round, &graph, [(target, output); 2]);
        driver.finish();
        let mut naive = Naive::new(&graph, &[(target, output)], store);
        naive.epochs = epochs;
        naive.epoch = epoch + 1;
        naive.value(target, output);
        let executed = driver.executed.iter().map(|(call, _)| call.clone());
        assert_eq!(executed.collect::<BTreeSet<_>>(), naive.executed);
        assert_eq!(
            driver.executed.len(),
            naive.executed.len(),
            "something ran twice"
        );
        (store, epochs) = (driver.store, driver.epochs);
    }
}

proptest! {
    /// Never a false hit, nothing left pending or held, equal steps run once; with failures,
    /// cancellation, lost results and overlapping jobs.
    #[test]
    fn results_are_those_of_a_build_without_cache(
        plans in plans(),
        rounds in rounds(false),
    ) {
        check_rounds(&plans, &rounds);
    }

    /// The same steps run as in the naive solver, whatever the order of completion.
    #[test]
    fn runs_what_the_naive_solver_runs(plans in plans(), rounds in rounds(true)) {
        check_executions(&plans, &rounds);
    }
}
