//! What the solver does in the corners, one scenario a test.

use larder_oci::Digest;
use larder_solver::{
    CacheKey, CacheMap, Candidate, Command, Edge, Error, ErrorKind, Event, JobId, KeyId, Match,
    MissReason, Options, Outcome, Progress, Solver, VertexSpec,
};

use crate::driver::{Cmd, Driver, Fault, Handle};
use crate::graph::{Graph, Kind, Read, View, hash};
use crate::store::Store;
use crate::traces::trace;

fn image(keys: &[&str]) -> Kind {
    Kind::Source {
        keys: keys.iter().map(ToString::to_string).collect(),
        value: keys[keys.len() - 1].to_owned(),
    }
}

fn step(op: &str, inputs: &[usize]) -> Kind {
    Kind::Step {
        op: op.to_owned(),
        inputs: inputs.iter().map(|&from| read(from, 0, None)).collect(),
        make: hash,
    }
}

fn copy(op: &str, inputs: &[(usize, bool)]) -> Kind {
    let view = |content: bool| content.then_some(View::Bucket);
    let read = |&(from, content): &(usize, bool)| read(from, 0, view(content));
    Kind::Step {
        op: op.to_owned(),
        inputs: inputs.iter().map(read).collect(),
        make: hash,
    }
}

fn read(from: usize, output: usize, view: Option<View>) -> Read {
    Read { from, output, view }
}

/// An image with steps over it, each over the image alone.
fn fan(steps: usize) -> Graph {
    let mut graph = Graph::default();
    let image = graph.add("image", image(&["image"]));
    for i in 0..steps {
        graph.add(&format!("step{i}"), step(&format!("step{i}"), &[image]));
    }
    graph
}

/// Answers all but executions; returns the vertices that are to be executed.
fn run_to_executions(driver: &mut Driver) -> Vec<String> {
    let is_execution =
        |command: &Cmd| matches!(command, Command::Execute { inputs, .. } if !inputs.is_empty());
    while let Some(next) = driver.pending.iter().position(|(_, c)| !is_execution(c)) {
        driver.answer(next);
    }
    let names = driver.names();
    let name = |(_, command): &(_, Cmd)| match command {
        Command::Execute { vertex, .. } => Some(names[vertex].clone()),
        _ => None,
    };
    driver.pending.iter().filter_map(name).collect()
}

fn count(driver: &Driver, is: impl Fn(&Cmd) -> bool) -> usize {
    driver.log.iter().filter(|command| is(command)).count()
}

fn is_built(driver: &Driver, job: u64) -> bool {
    matches!(driver.done.get(&JobId(job)), Some(Outcome::Built(_)))
}

fn failures(driver: &Driver, job: u64) -> Vec<String> {
    match &driver.done[&JobId(job)] {
        Outcome::Failed(failures) => failures.iter().map(|f| f.error.0.clone()).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn equal_steps_run_once() {
    let mut graph = Graph::default();
    let latest = graph.add("latest", image(&["manifest", "chain"]));
    let pinned = graph.add("pinned", image(&["other-manifest", "chain"]));
    let one = graph.add("one", step("run", &[latest]));
    let two = graph.add("two", step("run", &[pinned]));
    let both = graph.add("both", step("both", &[one, two]));
    let mut driver = Driver::new(Store::default(), None);
    driver.add_job(1, &graph, &[(both, 0)]);
    driver.run();
    let executed: Vec<_> = driver
        .executed
        .iter()
        .map(|(call, _)| call.as_str())
        .collect();
    let run = &graph.value(one, 0, &driver.epochs);
    assert_eq!(
        executed,
        ["chain", "run(chain)", &format!("both({run},{run})")]
    );
    driver.finish();
}

#[test]
fn what_another_process_made_before_the_lock_is_found() {
    let graph = fan(1);
    let mut other = Driver::new(Store::default(), None);
    other.add_job(1, &graph, &[(1, 0)]);
    other.run();
    let mut driver = Driver::new(Store::default(), None);
    driver.add_job(1, &graph, &[(1, 0)]);
    while !matches!(driver.pending[0].1, Command::LockKey { .. }) {
        driver.answer(0);
    }
    driver.store = other.store;
    driver.run();
    assert!(is_built(&driver, 1) && driver.executed.is_empty());
    driver.finish();
}

#[test]
fn a_record_without_result_is_looked_up_again_before_it_runs() {
    // Both names of the image have lost their result; the second is needed only after the first
    // has been made again.
    let mut graph = fan(1);
    let alias = graph.add("alias", image(&["image"]));
    graph.add("over", step("over", &[1, alias]));
    let mut driver = Driver::new(Store::default(), None);
    driver.add_job(1, &graph, &[(3, 0)]);
    driver.run();
    let mut store = driver.store;
    for node in store.nodes_with_results() {
        store.drop_result(node);
    }
    let mut driver = Driver::new(store, None);
    driver.add_job(1, &graph, &[(1, 0)]);
    driver.add_job(2, &graph, &[(3, 0)]);
    let is_alias = |driver: &Driver, command: &Cmd| matches!(command, Command::LockKey { vertex, .. } if driver.names()[vertex] == "alias");
    while let Some(next) =
        (0..driver.pending.len()).find(|&i| !is_alias(&driver, &driver.pending[i].1))
    {
        driver.answer(next);
    }
    driver.run();
    let images = driver.executed.iter().filter(|(call, _)| call == "image");
    assert_eq!(images.count(), 1, "{}", trace(&driver));
    driver.finish();
}

#[test]
fn a_lost_result_is_made_again() {
    let mut graph = fan(1);
    let mut driver = Driver::new(Store::default(), None);
    driver.add_job(1, &graph, &[(1, 0)]);
    driver.run();
    graph.add("more", step("more", &[1]));
    let mut driver = Driver::new(driver.store, None);
    driver.lose = true;
    driver.add_job(1, &graph, &[(2, 0)]);
    driver.run();
    assert!(is_built(&driver, 1));
    let lost = |c: &Cmd| {
        matches!(
            c,
            Command::Missed {
                reason: MissReason::ResultLost,
                ..
            }
        )
    };
    assert_eq!(count(&driver, lost), 2, "{}", trace(&driver));
    driver.finish();
}

#[test]
fn a_result_that_was_just_made_and_is_lost_fails_its_vertex() {
    let mut graph = fan(1);
    graph.add("more", step("more", &[1]));
    let mut driver = Driver::new(Store::default(), None);
    driver.add_job(1, &graph, &[(2, 0)]);
    assert_eq!(run_to_executions(&mut driver), ["step0"]);
    driver.answer(0);
    assert_eq!(run_to_executions(&mut driver), ["more"]);
    // The same answer as the driver would give for a lost result.
    let Some((_, Command::Execute { inputs, .. })) = driver.pending.first() else {
        panic!("{:?}", driver.pending);
    };
    driver.lost.insert(inputs[0].id, larder_solver::KeyId(0));
    driver.run();
    assert_eq!(failures(&driver, 1), ["lost"]);
    let Outcome::Failed(failures) = &driver.done[&JobId(1)] else {
        unreachable!()
    };
    assert_eq!(failures[0].vertex, graph.digest(1));
    driver.finish();
}

#[test]
fn only_so_many_steps_run_at_once_in_the_order_of_the_graph() {
    let mut graph = fan(4);
    graph.add("all", step("all", &[4, 3, 2, 1]));
    let mut driver = Driver::new(Store::default(), Some(2));
    driver.add_job(1, &graph, &[(5, 0)]);
    assert_eq!(run_to_executions(&mut driver), ["step0", "step1"]);
    driver.answer(1);
    assert_eq!(run_to_executions(&mut driver), ["step0", "step2"]);
    driver.run();
    assert!(is_built(&driver, 1));
    driver.finish();
}

#[test]
fn canceling_stops_only_what_no_other_job_needs() {
    let mut driver = Driver::new(Store::default(), None);
    let graph = fan(2);
    driver.add_job(1, &graph, &[(1, 0), (2, 0)]);
    driver.add_job(2, &graph, &[(2, 0)]);
    assert_eq!(run_to_executions(&mut driver), ["step0", "step1"]);
    let (first, second) = (driver.pending[0].0, driver.pending[1].0);
    assert_eq!(driver.solver.jobs(first), [JobId(1)]);
    assert_eq!(driver.solver.jobs(second), [JobId(1), JobId(2)]);
    driver.send(Event::CancelJob { job: JobId(1) });
    assert_eq!(driver.canceled.len(), 1);
    assert!(driver.done.is_empty(), "its work has not ended");
    assert!(driver.canceled.contains(&first));
    assert_eq!(driver.solver.jobs(second), [JobId(2)]);
    driver.answer_canceled(0);
    assert_eq!(driver.done[&JobId(1)], Outcome::Canceled);
    driver.run();
    assert!(is_built(&driver, 2));
    driver.finish();
}

#[test]
fn canceling_leaves_alone_what_another_job_has_but_does_not_need() {
    // Job 2 has the result of the second step only by key: job 1 makes it run.
    let mut graph = fan(1);
    graph.add("keyed", step("keyed", &[1]));
    graph.add("wants", step("wants", &[1]));
    let mut driver = Driver::new(Store::default(), None);
    driver.add_job(1, &graph, &[(2, 0)]);
    driver.run();
    let mut store = driver.store;
    let step0 = graph.value(1, 0, &driver.epochs);
    drop_result_of(&mut store, &step0);
    let mut driver = Driver::new(store, None);
    graph.add("slow", step("slow", &[0]));
    driver.add_job(2, &graph, &[(2, 0), (4, 0)]);
    driver.add_job(1, &graph, &[(3, 0)]);
    assert_eq!(run_to_executions(&mut driver), ["slow", "step0"]);
    driver.send(Event::CancelJob { job: JobId(1) });
    assert!(driver.canceled.contains(&driver.pending[1].0));
    driver.run();
    assert!(is_built(&driver, 2));
    driver.finish();
}

#[test]
fn all_failures_that_are_there_are_told() {
    let mut graph = fan(3);
    graph.add("all", step("all", &[1, 2, 3]));
    graph.nodes[1].fails = true;
    graph.nodes[3].fails = true;
    let mut driver = Driver::new(Store::default(), None);
    driver.add_job(1, &graph, &[(4, 0)]);
    assert_eq!(run_to_executions(&mut driver), ["step0", "step1", "step2"]);
    driver.answer(2);
    assert_eq!(driver.canceled.len(), 2);
    driver.answer_canceled(1);
    assert!(driver.done.is_empty());
    driver.answer(0);
    assert_eq!(failures(&driver, 1), ["step2", "step0"]);
    let saved = count(&driver, |c| matches!(c, Command::Save { .. }));
    assert_eq!(saved, 1, "only the image is recorded");
    driver.finish();
}

#[test]
fn a_failure_ends_only_the_jobs_that_need_the_vertex() {
    let mut graph = fan(2);
    graph.nodes[1].fails = true;
    let mut driver = Driver::new(Store::default(), None);
    driver.add_job(1, &graph, &[(1, 0)]);
    driver.add_job(2, &graph, &[(1, 0), (2, 0)]);
    driver.add_job(3, &graph, &[(2, 0)]);
    driver.run();
    assert_eq!(failures(&driver, 1), ["step0"]);
    assert_eq!(failures(&driver, 2), ["step0"]);
    assert!(is_built(&driver, 3));
    // A later job tries again.
    graph.nodes[1].fails = false;
    driver.add_job(4, &graph, &[(1, 0)]);
    driver.run();
    assert!(is_built(&driver, 4));
    driver.finish();
}

#[test]
fn a_lock_is_given_back_only_after_canceled_work_has_ended() {
    let graph = fan(1);
    let mut alias = Graph::default();
    let image = alias.add("alias", image(&["image"]));
    alias.add("same", step("step0", &[image]));
    let mut driver = Driver::new(Store::default(), None);
    driver.add_job(1, &graph, &[(1, 0)]);
    run_to_executions(&mut driver);
    driver.add_job(2, &alias, &[(1, 0)]);
    assert_eq!(
        run_to_executions(&mut driver),
        ["step0"],
        "the equal step waits"
    );
    driver.send(Event::CancelJob { job: JobId(1) });
    assert_eq!(run_to_executions(&mut driver), ["step0"], "it still waits");
    driver.answer_canceled(0);
    assert_eq!(run_to_executions(&mut driver), ["same"]);
    driver.run();
    assert!(is_built(&driver, 2));
    driver.finish();
}

#[test]
fn a_result_that_comes_after_the_cancellation_is_released() {
    let graph = fan(1);
    let mut driver = Driver::new(Store::default(), None);
    driver.add_job(1, &graph, &[(1, 0)]);
    run_to_executions(&mut driver);
    driver.send(Event::CancelJob { job: JobId(1) });
    driver.answer(0);
    assert_eq!(driver.done[&JobId(1)], Outcome::Canceled);
    assert!(driver.held.is_empty());
    driver.finish();
}

#[test]
fn ignoring_and_using_the_cache_are_different_vertices() {
    let mut graph = fan(1);
    graph.add("over", step("over", &[1]));
    let mut driver = Driver::new(Store::default(), None);
    driver.add_job(1, &graph, &[(2, 0)]);
    driver.run();
    let mut fresh = graph.clone();
    fresh.nodes[1].ignore_cache = true;
    let mut driver = Driver::new(driver.store, None);
    driver.add_job(1, &graph, &[(2, 0)]);
    driver.add_job(2, &fresh, &[(2, 0)]);
    driver.run();
    let executed: Vec<_> = driver
        .executed
        .iter()
        .map(|(call, _)| call.as_str())
        .collect();
    assert_eq!(executed.len(), 2, "{executed:?}");
    let Outcome::Built(old) = &driver.done[&JobId(1)] else {
        panic!("{:?}", driver.done)
    };
    let Outcome::Built(new) = &driver.done[&JobId(2)] else {
        panic!("{:?}", driver.done)
    };
    assert_ne!(old[0].result.value, new[0].result.value);
    driver.finish();
}

#[test]
fn content_keys_are_computed_only_where_they_can_help() {
    // `copy` reads two stages by content; then only the second one changes.
    let build = |driver: &mut Driver, second: &str| {
        let mut graph = Graph::default();
        let image = graph.add("image", image(&["image"]));
        let first = graph.add("first", step("first", &[image]));
        let second = graph.add(second, step(second, &[image]));
        graph.add(
            "copy",
            copy("copy", &[(image, false), (first, true), (second, true)]),
        );
        driver.add_job(1, &graph, &[(3, 0)]);
        driver.run();
        assert!(is_built(driver, 1));
    };
    let contents = |driver: &Driver| {
        let lines = trace(driver).lines().map(str::to_owned).collect::<Vec<_>>();
        lines
            .into_iter()
            .filter(|line| line.starts_with("content"))
            .collect::<Vec<_>>()
    };
    let mut driver = Driver::new(Store::default(), None);
    build(&mut driver, "second");
    let (first, second) = ("content of copy's input 1", "content of copy's input 2");
    assert_eq!(contents(&driver), [first, second]);
    let mut driver = Driver::new(driver.store, None);
    build(&mut driver, "second");
    assert_eq!(contents(&driver), [""; 0], "the fast keys hit");
    // Some other second stage has the same content: then the first one's is not needed.
    let bucket = |name: &str| View::Bucket.of(&hash(&format!("{name}/0#0"), &["image".into()]));
    let candidates = (0..).map(|i| format!("second{i}"));
    let alike = candidates
        .clone()
        .find(|name| bucket(name) == bucket("second"));
    let unlike = candidates
        .clone()
        .find(|name| bucket(name) != bucket("second"));
    let mut driver = Driver::new(driver.store, None);
    build(&mut driver, &alike.unwrap());
    assert_eq!(contents(&driver), [second]);
    let mut driver = Driver::new(driver.store, None);
    build(&mut driver, &unlike.unwrap());
    assert_eq!(
        contents(&driver),
        [second, first],
        "the first one's is for the record"
    );
    driver.finish();
}

#[test]
fn each_output_has_its_own_record() {
    let mut graph = fan(1);
    let reads = vec![read(1, 0, None), read(1, 3, None)];
    let kind = Kind::Step {
        op: "both".to_owned(),
        inputs: reads,
        make: hash,
    };
    graph.add("both", kind);
    let mut driver = Driver::new(Store::default(), None);
    driver.add_job(1, &graph, &[(2, 0)]);
    driver.run();
    assert_eq!(driver.executed[1], ("step0(image)".to_owned(), vec![0, 3]));
    // One of them is gone: only that one is made again.
    let mut store = driver.store;
    let gone = graph.value(1, 3, &driver.epochs);
    drop_result_of(&mut store, &gone);
    graph.add("over", step("over", &[2]));
    graph.nodes[2].ignore_cache = true;
    let mut driver = Driver::new(store, None);
    driver.add_job(1, &graph, &[(2, 0)]);
    driver.run();
    assert_eq!(driver.executed[0], ("step0(image)".to_owned(), vec![3]));
    driver.finish();
}

#[test]
fn a_job_that_joins_is_told_what_has_begun() {
    let graph = fan(1);
    let mut driver = Driver::new(Store::default(), None);
    driver.add_job(1, &graph, &[(1, 0)]);
    run_to_executions(&mut driver);
    let before = driver.log.len();
    driver.add_job(2, &graph, &[(1, 0)]);
    let told: Vec<_> = driver.log[before..].iter().collect();
    let [
        Command::Progress {
            progress: Progress::Completed,
            jobs: image,
            ..
        },
        Command::Progress {
            progress: Progress::Started,
            jobs: step,
            ..
        },
    ] = told[..]
    else {
        panic!("{told:?}");
    };
    assert_eq!((&image[..], &step[..]), (&[JobId(2)][..], &[JobId(2)][..]));
    driver.run();
    driver.finish();
}

#[test]
fn a_job_without_targets_is_built() {
    let mut driver = Driver::new(Store::default(), None);
    driver.add_job(1, &fan(1), &[]);
    assert_eq!(driver.done[&JobId(1)], Outcome::Built(vec![]));
    driver.finish();
}

#[test]
fn a_graph_that_is_not_sound_fails_its_job() {
    let digest = |name: &str| Digest::sha256(name);
    let edge = |name: &str| Edge {
        vertex: digest(name),
        output: 0,
    };
    let spec = |name: &str, inputs: &[&str]| VertexSpec {
        digest: digest(name),
        inputs: inputs.iter().map(|name| edge(name)).collect(),
        ignore_cache: false,
        limited: false,
    };
    for (vertices, target, missing) in [
        (vec![spec("a", &[])], "b", "b"),
        (vec![spec("a", &["b"]), spec("b", &[])], "a", "b"),
        (vec![spec("a", &["a"])], "a", "a"),
    ] {
        let mut solver: Solver<Handle, Error> = Solver::new(Options::default());
        let commands = solver.step(Event::AddJob {
            job: JobId(1),
            vertices,
            targets: vec![edge(target)],
        });
        let [
            Command::JobDone {
                outcome: Outcome::Failed(failures),
                ..
            },
        ] = &commands[..]
        else {
            panic!("{commands:?}");
        };
        assert_eq!(failures[0].vertex, digest(missing));
        assert_eq!(failures[0].error.kind(), ErrorKind::InvalidGraph);
        assert!(solver.is_idle());
    }
}

#[test]
fn an_answer_that_does_not_fit_fails_the_vertex() {
    let graph = fan(1);
    let mut driver = Driver::new(Store::default(), None);
    driver.add_job(1, &graph, &[(1, 0)]);
    let (request, command) = driver.pending.remove(0);
    assert!(matches!(command, Command::ComputeCacheMap { .. }));
    let (digest, inputs) = (Digest::sha256("op"), vec![]);
    let map = CacheMap::Step { digest, inputs };
    driver.send(Event::CacheMap { request, map });
    driver.run();
    let failures = failures(&driver, 1);
    assert!(
        failures[0].starts_with("cache map of vertex"),
        "{failures:?}"
    );
    driver.finish();
}

#[test]
fn an_answer_to_nothing_is_ignored_and_its_result_released() {
    let mut solver: Solver<&str, Fault> = Solver::new(Options::default());
    let request = larder_solver::RequestId(7);
    let results = vec!["late"];
    let commands = solver.step(Event::Executed { request, results });
    assert_eq!(commands, [Command::Release { result: "late" }]);
}

#[test]
fn a_step_that_is_found_by_content_without_a_result_does_not_run_for_its_key() {
    // `copy` reads two stages by content. Both become others, which look the same.
    let graph = |stages: [&str; 2]| {
        let mut graph = Graph::default();
        let image = graph.add("image", image(&["image"]));
        let [one, two] = stages.map(|name| graph.add(name, step(name, &[image])));
        let copy = graph.add("copy", copy("copy", &[(one, true), (two, true)]));
        graph.add("over", step("over", &[copy]));
        graph
    };
    let bucket = |name: &str| View::Bucket.of(&hash(&format!("{name}/0#0"), &["image".into()]));
    let alike = |name: &str| {
        let mut others = (0..).map(|i| format!("{name}{i}"));
        others.find(|other| bucket(other) == bucket(name)).unwrap()
    };
    let before = graph(["one", "two"]);
    let after = graph([&alike("one"), &alike("two")]);
    let mut driver = Driver::new(Store::default(), None);
    driver.add_job(1, &before, &[(4, 0)]);
    driver.add_job(2, &after, &[(1, 0), (2, 0)]);
    driver.run();
    let mut store = driver.store;
    drop_result_of(&mut store, &before.value(3, 0, &driver.epochs));
    let mut driver = Driver::new(store, None);
    driver.add_job(1, &after, &[(4, 0)]);
    driver.run();
    assert!(is_built(&driver, 1));
    let prepared = |c: &Cmd| matches!(c, Command::LockKey { .. } | Command::Execute { .. });
    assert_eq!(count(&driver, prepared), 0, "{}", trace(&driver));
    driver.finish();
}

fn drop_result_of(store: &mut Store, value: &str) {
    let mut nodes = store.nodes_with_results().into_iter();
    let node = nodes.find(|&node| store.result(node).is_some_and(|known| known == value));
    store.drop_result(node.unwrap());
}

#[test]
fn canceled_work_gives_back_its_place_and_leaves_the_line() {
    let graph = fan(2);
    let mut driver = Driver::new(Store::default(), Some(1));
    driver.add_job(1, &graph, &[(1, 0), (2, 0)]);
    assert_eq!(run_to_executions(&mut driver), ["step0"]);
    driver.send(Event::CancelJob { job: JobId(1) });
    driver.add_job(2, &graph, &[(1, 0), (2, 0)]);
    let first = driver.pending[0].0;
    assert!(driver.canceled.contains(&first));
    assert_eq!(
        run_to_executions(&mut driver),
        ["step0"],
        "its place is taken still"
    );
    driver.answer_canceled(0);
    driver.run();
    assert!(is_built(&driver, 2));
    driver.finish();
}

#[test]
fn a_failure_reaches_a_job_that_comes_to_need_the_vertex_later() {
    let mut graph = fan(2);
    graph.add("wants", step("wants", &[1]));
    graph.add("late", copy("late", &[(1, false), (2, true)]));
    let mut driver = Driver::new(Store::default(), None);
    driver.add_job(1, &graph, &[(1, 0)]);
    driver.run();
    let mut store = driver.store;
    drop_result_of(&mut store, &graph.value(1, 0, &driver.epochs));
    graph.nodes[1].fails = true;
    let mut driver = Driver::new(store, None);
    driver.add_job(1, &graph, &[(3, 0)]);
    driver.add_job(2, &graph, &[(4, 0)]);
    assert_eq!(run_to_executions(&mut driver), ["step1", "step0"]);
    driver.answer(1);
    assert_eq!(failures(&driver, 1), ["step0"]);
    assert!(
        !driver.done.contains_key(&JobId(2)),
        "it has its key, which may do"
    );
    driver.run();
    assert_eq!(failures(&driver, 2), ["step0"]);
    driver.finish();
}

#[test]
fn a_result_is_saved_only_under_the_keys_of_the_results_it_was_made_of() {
    let mut graph = fan(1);
    graph.add("over", step("over", &[1]));
    let mut driver = Driver::new(Store::default(), None);
    driver.add_job(1, &graph, &[(2, 0)]);
    let names = driver.names();
    let is_query = |(_, command): &(_, Cmd)| matches!(command, Command::Query { vertex, .. } if names[vertex] == "step0");
    while !driver.pending.iter().any(is_query) {
        driver.answer(0);
    }
    let (request, _) = driver.pending.remove(0);
    let [old, new] = [KeyId(101), KeyId(102)];
    let results = [graph.value(1, 0, &driver.epochs), "another".to_owned()];
    let [used, unused] = results.map(|value| Some(driver.handle(value)));
    let matches = vec![
        Match {
            key: new,
            result: used,
        },
        Match {
            key: old,
            result: unused,
        },
    ];
    driver.send(Event::Queried {
        request,
        matches,
        linked: vec![true],
    });
    driver.run();
    let keys = driver.log.iter().filter_map(|command| match command {
        Command::Query { vertex, key, .. } if names[vertex] == "over" => Some(("query", key)),
        Command::Save { vertex, key, .. } if names[vertex] == "over" => Some(("save", key)),
        _ => None,
    });
    let candidates = |keys: &[KeyId]| {
        let key = |&key: &KeyId| Candidate::Key {
            key,
            selector: None,
        };
        CacheKey::Step {
            digest: Digest::sha256("over"),
            inputs: vec![keys.iter().map(key).collect()],
        }
    };
    let (both, one) = (candidates(&[new, old]), candidates(&[new]));
    assert_eq!(
        keys.collect::<Vec<_>>(),
        [("query", &both), ("query", &both), ("save", &one)]
    );
    driver.finish();
}
