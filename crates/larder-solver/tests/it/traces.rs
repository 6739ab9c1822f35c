//! What the solver asks for, in order, for the builds of a typical two-stage Dockerfile:
//!
//! ```text
//! FROM python AS build             FROM slim
//! COPY requirements.txt .          COPY --from=build /out /out
//! RUN pip install
//! COPY app app
//! RUN compile /out
//! ```

use std::collections::BTreeMap;

use larder_solver::{CacheKey, Candidate, Command, Outcome, Progress};

use crate::driver::{Cmd, Driver, Handle};
use crate::graph::{Epochs, Graph, Kind, Make, Read, View};
use crate::store::Store;

const PIP: usize = 3;
const FINAL: usize = 7;

fn image(name: &str) -> Kind {
    Kind::Source {
        keys: vec![format!("{name}-manifest"), format!("{name}-chain")],
        value: format!("out=;{name}"),
    }
}

fn step(op: &str, inputs: &[(usize, Option<&'static str>)], make: Make) -> Kind {
    let read = |&(from, path): &(usize, Option<&'static str>)| Read {
        from,
        output: 0,
        view: path.map(View::Path),
    };
    Kind::Step {
        op: op.to_owned(),
        inputs: inputs.iter().map(read).collect(),
        make,
    }
}

/// The build context: `requirements`, `app` and a `readme` that nothing reads.
fn guide(requirements: &str, app: &str, readme: &str) -> Graph {
    let mut graph = Graph::default();
    let python = graph.add("python", image("python"));
    let context = Kind::Source {
        keys: vec![],
        value: format!("requirements={requirements};app={app};readme={readme}"),
    };
    let context = graph.add("context", context);
    let make: Make = |op, seen| format!("{op}({})", seen.join(" "));
    let inputs = [(python, None), (context, Some("requirements"))];
    let requirements = graph.add("copy-req", step("COPY req", &inputs, make));
    let pip = graph.add("pip", step("RUN pip", &[(requirements, None)], make));
    let inputs = [(pip, None), (context, Some("app"))];
    let app = graph.add("copy-app", step("COPY app", &inputs, make));
    // What is compiled does not depend on comments, which follow `#` in the app.
    let compile: Make = |_, seen| {
        let app = seen[0].rsplit(' ').next().unwrap_or_default();
        let code = app.split('#').next().unwrap_or_default();
        format!("out={}", code.trim_end_matches(')'))
    };
    let compile = graph.add("compile", step("RUN compile", &[(app, None)], compile));
    let slim = graph.add("slim", image("slim"));
    let inputs = [(slim, None), (compile, Some("out"))];
    graph.add("copy-out", step("COPY out", &inputs, make));
    graph
}

fn build(store: &mut Store, graph: &Graph) -> String {
    build_with(store, &mut Epochs::new(), graph, |_| {})
}

/// Builds with the answers in the order of the questions; returns the trace.
fn build_with(
    store: &mut Store,
    epochs: &mut Epochs,
    graph: &Graph,
    set: impl FnOnce(&mut Driver),
) -> String {
    let mut driver = Driver::new(std::mem::take(store), None);
    driver.epochs = std::mem::take(epochs);
    set(&mut driver);
    driver.add_job(1, graph, &[(graph.nodes.len() - 1, 0)]);
    driver.run();
    let made = graph.value(graph.nodes.len() - 1, 0, &driver.epochs);
    let done = driver.done.values().next();
    let Some(Outcome::Built(targets)) = done else {
        panic!("not built: {done:?}");
    };
    assert_eq!(targets[0].result.value, made);
    let trace = trace(&driver);
    driver.finish();
    (*store, *epochs) = (driver.store, driver.epochs);
    trace
}

/// Writes the commands, without cache maps and releases.
pub(crate) fn trace(driver: &Driver) -> String {
    let names = driver.names();
    let mut contents = BTreeMap::new();
    let lines = driver
        .log
        .iter()
        .filter_map(|command| line(command, &names, &mut contents));
    lines.collect::<Vec<_>>().join("\n")
}

type Names = BTreeMap<larder_oci::Digest, String>;

fn line(command: &Cmd, names: &Names, contents: &mut Names) -> Option<String> {
    let of = |handles: &[Handle]| {
        let values = handles.iter().map(|handle| handle.id.to_string());
        values.collect::<Vec<_>>().join(" ")
    };
    Some(match command {
        Command::Query { vertex, key, .. } => {
            format!("query {}{}", names[vertex], show(key, contents))
        }
        Command::ComputeContentKey { vertex, input, .. } => {
            format!("content of {}'s input {input}", names[vertex])
        }
        Command::LockKey { vertex, .. } => format!("lock {}", names[vertex]),
        Command::UnlockKey { .. } => "unlock".to_owned(),
        Command::Execute { vertex, inputs, .. } => {
            format!("execute {}({})", names[vertex], of(inputs))
        }
        Command::Save {
            vertex, key, mode, ..
        } => format!("save {}{} {mode:?}", names[vertex], show(key, contents)),
        Command::Link {
            vertex, key, to, ..
        } => format!("link {}{} to {}", names[vertex], show(key, contents), to.0),
        Command::Missed {
            vertex,
            reason,
            inputs,
            ..
        } => {
            let inputs = inputs.iter().map(|input| {
                let executed = if input.executed { " ran" } else { "" };
                let linked = match input.linked {
                    Some(true) => " led on",
                    Some(false) => " led nowhere",
                    None => "",
                };
                format!("; {}{executed}{linked}", names[&input.vertex])
            });
            let inputs: String = inputs.collect();
            format!("{} missed: {reason:?}{inputs}", names[vertex])
        }
        Command::Progress {
            vertex, progress, ..
        } => match progress {
            Progress::Failed(fault) => format!("{} failed: {}", names[vertex], fault.0),
            progress => format!("{} {progress:?}", names[vertex]),
        },
        Command::JobDone { job, outcome } => match outcome {
            Outcome::Built(_) => format!("job {} built", job.0),
            Outcome::Failed(failures) => {
                let failed = failures.iter().map(|failure| failure.error.0.clone());
                format!(
                    "job {} failed: {}",
                    job.0,
                    failed.collect::<Vec<_>>().join(", ")
                )
            }
            Outcome::Canceled => format!("job {} canceled", job.0),
        },
        Command::Cancel { request } => format!("cancel {}", request.0),
        Command::ComputeCacheMap { .. } | Command::Release { .. } => return None,
    })
}

/// Writes a key: key nodes as numbers, content keys as letters.
fn show(key: &CacheKey, contents: &mut Names) -> String {
    let CacheKey::Step { inputs, .. } = key else {
        return String::new();
    };
    let mut show = |candidate: &Candidate| match candidate {
        Candidate::Key { key, .. } => key.0.to_string(),
        Candidate::Content(digest) => {
            let next = char::from(b'a' + contents.len() as u8).to_string();
            contents.entry(digest.clone()).or_insert(next).clone()
        }
    };
    let inputs = inputs.iter().map(|candidates| {
        let candidates: Vec<_> = candidates.iter().map(&mut show).collect();
        format!("[{}]", candidates.join("|"))
    });
    inputs.collect()
}

#[test]
fn first_build_runs_everything() {
    let mut store = Store::default();
    let trace = build(&mut store, &guide("1", "1", "1"));
    insta::assert_snapshot!(trace, @r"
    context Started
    python Started
    slim Started
    execute context()
    query python
    query slim
    context Completed
    content of copy-req's input 1
    content of copy-app's input 1
    lock python
    lock slim
    query python
    query slim
    python missed: NoMatch
    execute python()
    slim missed: NoMatch
    execute slim()
    save python Keep
    save slim Keep
    unlock
    python Completed
    query copy-req[1|2][a]
    unlock
    slim Completed
    lock copy-req
    query copy-req[1|2][a]
    copy-req missed: NoMatch; python ran led nowhere; context ran led nowhere
    copy-req Started
    execute copy-req(2 1)
    save copy-req[1|2][a] Keep
    unlock
    copy-req Completed
    query pip[5]
    lock pip
    query pip[5]
    pip missed: NoMatch; copy-req ran led nowhere
    pip Started
    execute pip(4)
    save pip[5] Keep
    unlock
    pip Completed
    query copy-app[7][a]
    lock copy-app
    query copy-app[7][a]
    copy-app missed: NoMatch; pip ran led nowhere; context ran led nowhere
    copy-app Started
    execute copy-app(5 1)
    save copy-app[7][a] Keep
    unlock
    copy-app Completed
    query compile[8]
    lock compile
    query compile[8]
    compile missed: NoMatch; copy-app ran led nowhere
    compile Started
    execute compile(6)
    save compile[8] Keep
    unlock
    compile Completed
    content of copy-out's input 1
    query copy-out[3|4][9|a]
    lock copy-out
    query copy-out[3|4][9|a]
    copy-out missed: NoMatch; slim ran led nowhere; compile ran led nowhere
    copy-out Started
    execute copy-out(3 7)
    save copy-out[3|4][9|a] Keep
    unlock
    copy-out Completed
    job 1 built
    ");
}

#[test]
fn nothing_runs_when_nothing_changed() {
    let mut store = Store::default();
    build(&mut store, &guide("1", "1", "1"));
    let trace = build(&mut store, &guide("1", "1", "2"));
    insta::assert_snapshot!(trace, @r"
    context Started
    python Started
    slim Started
    execute context()
    query python
    query slim
    context Completed
    content of copy-req's input 1
    content of copy-app's input 1
    python Cached
    slim Cached
    query copy-req[2|1][a]
    copy-req Cached
    query pip[5]
    pip Cached
    query copy-app[7][a]
    copy-app Cached
    query compile[8]
    compile Cached
    query copy-out[4|3][9]
    copy-out Cached
    job 1 built
    ");
}

#[test]
fn a_changed_file_reruns_what_reads_it() {
    let mut store = Store::default();
    build(&mut store, &guide("1", "1", "1"));
    let trace = build(&mut store, &guide("1", "2", "1"));
    insta::assert_snapshot!(trace, @r"
    context Started
    python Started
    slim Started
    execute context()
    query python
    query slim
    context Completed
    content of copy-req's input 1
    content of copy-app's input 1
    python Cached
    slim Cached
    query copy-req[2|1][a]
    copy-req Cached
    query pip[5]
    pip Cached
    query copy-app[7][b]
    lock copy-app
    query copy-app[7][b]
    copy-app missed: NoMatch; pip led on; context ran led nowhere
    copy-app Started
    execute copy-app(7 1)
    save copy-app[7][b] Keep
    unlock
    copy-app Completed
    query compile[11]
    lock compile
    query compile[11]
    compile missed: NoMatch; copy-app ran led nowhere
    compile Started
    execute compile(8)
    save compile[11] Keep
    unlock
    compile Completed
    content of copy-out's input 1
    query copy-out[4|3][13|b]
    lock copy-out
    query copy-out[4|3][13|b]
    copy-out missed: NoMatch; slim led on; compile ran led nowhere
    copy-out Started
    execute copy-out(4 9)
    save copy-out[4|3][13|b] Keep
    unlock
    copy-out Completed
    job 1 built
    ");
}

#[test]
fn a_stage_with_the_same_bytes_is_a_hit_further_on() {
    let mut store = Store::default();
    build(&mut store, &guide("1", "1#old", "1"));
    let trace = build(&mut store, &guide("1", "1#new", "1"));
    insta::assert_snapshot!(trace, @r"
    context Started
    python Started
    slim Started
    execute context()
    query python
    query slim
    context Completed
    content of copy-req's input 1
    content of copy-app's input 1
    python Cached
    slim Cached
    query copy-req[2|1][a]
    copy-req Cached
    query pip[5]
    pip Cached
    query copy-app[7][b]
    lock copy-app
    query copy-app[7][b]
    copy-app missed: NoMatch; pip led on; context ran led nowhere
    copy-app Started
    execute copy-app(7 1)
    save copy-app[7][b] Keep
    unlock
    copy-app Completed
    query compile[12]
    lock compile
    query compile[12]
    compile missed: NoMatch; copy-app ran led nowhere
    compile Started
    execute compile(8)
    save compile[12] Keep
    unlock
    compile Completed
    content of copy-out's input 1
    query copy-out[4|3][14|a]
    link copy-out[4|3][14|a] to 11
    copy-out Cached
    job 1 built
    ");
    // The content that was found so is known by its fast key from now on.
    let trace = build(&mut store, &guide("1", "1#new", "1"));
    assert!(!trace.contains("copy-out's"), "{trace}");
}

#[test]
fn ignoring_the_cache_makes_new_keys() {
    let (mut store, mut epochs) = (Store::default(), Epochs::new());
    let mut graph = guide("1", "1", "1");
    build_with(&mut store, &mut epochs, &graph, |_| {});
    graph.nodes[PIP].ignore_cache = true;
    let trace = build_with(&mut store, &mut epochs, &graph, |driver| driver.epoch = 1);
    insta::assert_snapshot!(trace, @r"
    context Started
    python Started
    slim Started
    execute context()
    query python
    query slim
    context Completed
    content of copy-req's input 1
    content of copy-app's input 1
    python Cached
    slim Cached
    query copy-req[2|1][a]
    copy-req Cached
    pip missed: IgnoreCache; copy-req
    pip Started
    execute pip(6)
    save pip[5] Replace
    pip Completed
    query copy-app[11][a]
    lock copy-app
    query copy-app[11][a]
    copy-app missed: NoMatch; pip ran led nowhere; context ran led on
    copy-app Started
    execute copy-app(7 1)
    save copy-app[11][a] Keep
    unlock
    copy-app Completed
    query compile[12]
    lock compile
    query compile[12]
    compile missed: NoMatch; copy-app ran led nowhere
    compile Started
    execute compile(8)
    save compile[12] Keep
    unlock
    compile Completed
    content of copy-out's input 1
    query copy-out[4|3][13|a]
    link copy-out[4|3][13|a] to 10
    copy-out Cached
    job 1 built
    ");
    graph.nodes[PIP].ignore_cache = false;
    let trace = build_with(&mut store, &mut epochs, &graph, |_| {});
    assert!(!trace.contains("execute pip"), "{trace}");
    assert!(!trace.contains("execute compile"), "{trace}");
}

#[test]
fn results_that_nobody_needs_are_not_made_again() {
    let mut store = Store::default();
    let graph = guide("1", "1", "1");
    build(&mut store, &graph);
    let target = graph.value(FINAL, 0, &Epochs::new());
    for node in store.nodes_with_results() {
        if store.result(node) != Some(&target) {
            store.drop_result(node);
        }
    }
    let trace = build(&mut store, &graph);
    insta::assert_snapshot!(trace, @r"
    context Started
    python Started
    slim Started
    execute context()
    query python
    query slim
    context Completed
    content of copy-req's input 1
    content of copy-app's input 1
    query copy-req[2|1][a]
    query pip[5]
    query copy-app[7][a]
    query compile[8]
    query copy-out[4|3][9]
    copy-out Cached
    python Cached
    copy-req Cached
    pip Cached
    copy-app Cached
    compile Cached
    slim Cached
    job 1 built
    ");
}
