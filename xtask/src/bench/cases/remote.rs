//! Cases with a registry of their own, on loopback.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use larder_testkit::{Base, FaultProxy, Registry, write_tree};

use super::{Content, Row, SLOW_RUNS, copy_example};
use crate::bench::Place;
use crate::bench::measure::{Sample, measure, peak_bytes};
use crate::bench::tool::{RemoteCache, Tool};

/// Runs of what takes less than a second, apart from emptying the state before.
const RUNS: usize = 7;
/// How many layers are pulled, each of so many files of 1 MiB.
const PULLED_LAYERS: usize = 10;
const FILES_PER_PULLED_LAYER: usize = 20;
/// How large a layer is pushed.
const PUSHED_FILES: usize = 64;

/// A base image that has to be fetched and unpacked, and one step upon it.
pub(super) fn pull(tool: &Tool, place: &Place) -> Result<Vec<Row>> {
    let registry = registry_with_base()?;
    let context = place.contexts.join("pull");
    let dockerfile = format!("FROM {}\nRUN :\n", base_name(&registry));
    write_tree(&context, &[("Dockerfile", &dockerfile)]);
    let mut states = EmptyStates::new(place);
    let runs = (0..SLOW_RUNS).map(|_| {
        let state = states.next()?;
        measure(&mut tool.build_remote(&state, &context, RemoteCache::None))
    });
    let row = Row::new("python base pulled, one RUN", runs.collect::<Result<_>>()?);
    states.remove()?;
    Ok(vec![row])
}

/// A base image of many layers that arrive and are unpacked at once: how much memory that takes.
pub(super) fn pull_layers(tool: &Tool, place: &Place) -> Result<Vec<Row>> {
    let registry = Registry::start()?;
    let context = place.contexts.join("layers");
    let mut dockerfile = "FROM busybox\n".to_owned();
    let mut files = Content::new()?;
    for layer in 0..PULLED_LAYERS {
        writeln!(dockerfile, "COPY {layer} /{layer}")?;
        fs::create_dir_all(context.join(layer.to_string()))?;
        for number in 0..FILES_PER_PULLED_LAYER {
            let path = context.join(format!("{layer}/{number}"));
            fs::write(path, files.file(number))?;
        }
    }
    write_tree(&context, &[("Dockerfile", &dockerfile)]);
    measure(&mut tool.build(&place.state, &context, false))?;
    let name = format!("{}/team/layers", registry.host());
    measure(&mut tool.push(&place.state, &name)?)?;
    let dockerfile = format!("FROM {name}\nRUN :\n");
    let context = place.contexts.join("pull-layers");
    write_tree(&context, &[("Dockerfile", &dockerfile)]);
    let mut states = EmptyStates::new(place);
    let runs = (0..SLOW_RUNS).map(|_| {
        let state = states.next()?;
        measure(&mut tool.build_remote(&state, &context, RemoteCache::None))
    });
    let runs = runs.collect::<Result<_>>()?;
    let state = states.next()?;
    let peak = peak_bytes(&mut tool.build_remote(&state, &context, RemoteCache::None))?;
    states.remove()?;
    let label = format!("{PULLED_LAYERS} layers pulled, one RUN");
    Ok(vec![Row {
        peak_bytes: Some(peak),
        ..Row::new(label, runs)
    }])
}

/// The example service on an empty root, with the cache of an earlier build in the registry: when
/// nothing changed, and when one file did.
pub(super) fn cache(tool: &Tool, place: &Place) -> Result<Vec<Row>> {
    let registry = registry_with_base()?;
    let context = place.contexts.join("cache");
    copy_example(&context, "requirements.txt")?;
    let dockerfile = context.join("Dockerfile");
    let text = fs::read_to_string(&dockerfile)?;
    let from = format!("FROM {}", Base::Python.image_name());
    ensure!(text.contains(&from), "the example has another base image");
    let here = format!("FROM {}", base_name(&registry));
    fs::write(&dockerfile, text.replace(&from, &here))?;

    let cache = format!("{}/team/cache", registry.host());
    let mut states = EmptyStates::new(place);
    let mut export = tool.build_remote(&states.next()?, &context, RemoteCache::To(&cache));
    let first = measure(&mut export).context("cannot export a cache")?;
    let mut build = || -> Result<Sample> {
        let state = states.next()?;
        measure(&mut tool.build_remote(&state, &context, RemoteCache::From(&cache)))
    };
    let unchanged = (0..RUNS).map(|_| build()).collect::<Result<_>>()?;
    let planner = context.join("smartdiet/planner.py");
    let original = fs::read_to_string(&planner)?;
    let changed = (0..SLOW_RUNS).map(|run| {
        fs::write(&planner, format!("{original}# Change {run}.\n"))?;
        build()
    });
    let changed = changed.collect::<Result<_>>()?;
    states.remove()?;
    Ok(vec![
        Row::new("first build, cache exported", vec![first]),
        Row::new("empty root, remote cache: all hits", unchanged),
        Row::new("empty root, remote cache: one file", changed),
    ])
}

/// An image whose layers the registry has already.
pub(super) fn push(tool: &Tool, place: &Place) -> Result<Vec<Row>> {
    let registry = Registry::start()?;
    let proxy = FaultProxy::start(registry.host())?;
    let context = place.contexts.join("push");
    write_tree(&context, &[("Dockerfile", "FROM busybox\nCOPY data /\n")]);
    fs::create_dir(context.join("data"))?;
    let mut files = Content::new()?;
    for number in 0..PUSHED_FILES {
        fs::write(context.join(format!("data/{number}")), files.file(number))?;
    }
    measure(&mut tool.build(&place.state, &context, false))?;
    let name = format!("{}/team/app", proxy.host());
    let first = measure(&mut tool.push(&place.state, &name)?)?;
    let sent = proxy.uploaded_bytes();
    ensure!(sent > 0, "the proxy saw no layer");
    proxy.forget();
    let again = (0..RUNS).map(|_| measure(&mut tool.push(&place.state, &name)?));
    let again = again.collect::<Result<_>>()?;
    let label = |what: &str, bytes: u64| format!("push, {what}: {bytes} bytes sent");
    Ok(vec![
        Row::new(label("new", sent), vec![first]),
        Row::new(label("again", proxy.uploaded_bytes()), again),
    ])
}

fn registry_with_base() -> Result<Registry> {
    let registry = Registry::start()?;
    registry.push_archive(&Base::Python.archive()?, "python", "base")?;
    Ok(registry)
}

fn base_name(registry: &Registry) -> String {
    format!("{}/python:base", registry.host())
}

/// Where a tool keeps what it makes from nothing. All of it is removed at the end: ext4 is slow to
/// make files where as many were just removed, which is not what is to be measured.
struct EmptyStates {
    dir: PathBuf,
    count: usize,
}

impl EmptyStates {
    fn new(place: &Place) -> Self {
        Self {
            dir: place.state.with_file_name("empty"),
            count: 0,
        }
    }

    fn next(&mut self) -> Result<PathBuf> {
        self.count += 1;
        let state = self.dir.join(self.count.to_string());
        fs::create_dir_all(&state)?;
        Ok(state)
    }

    fn remove(self) -> Result<()> {
        Tool::remove(&self.dir)
    }
}
