//! Cases with a registry of their own, on loopback.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use fs_err as fs;
use larder_testkit::{Base, FaultProxy, Registry, write_tree};

use super::export::Content;
use super::{change_example, copy_example};
use crate::bench::Place;
use crate::bench::measure::{Sample, measure, peak_bytes};
use crate::bench::report::Row;
use crate::bench::tool::{RemoteCache, Tool};

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
    let row = Row::measure("python base pulled, one RUN", 1, |_| {
        measure(&mut tool.build_remote(&states.next()?, &context, RemoteCache::None))
    })?;
    Ok(vec![row])
}

/// A base image of many layers that arrive and are unpacked at once: how much memory that takes.
pub(super) fn pull_layers(tool: &Tool, place: &Place) -> Result<Vec<Row>> {
    let registry = Registry::start()?;
    let context = place.contexts.join("layers");
    let mut dockerfile = "FROM busybox\n".to_owned();
    let mut files = Content::new(&place.program)?;
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
    let mut command = || -> Result<Command> {
        Ok(tool.build_remote(&states.next()?, &context, RemoteCache::None))
    };
    let label = format!("{PULLED_LAYERS} layers pulled, one RUN");
    let row = Row::measure(label, 1, |_| measure(&mut command()?))?;
    Ok(vec![row.with_peak(peak_bytes(&command()?)?)])
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
    let first = Row::measure("first build, cache exported", 1, |_| {
        let to = RemoteCache::To(&cache);
        measure(&mut tool.build_remote(&states.next()?, &context, to))
    })?;
    let mut build = || -> Result<Sample> {
        let from = RemoteCache::From(&cache);
        measure(&mut tool.build_remote(&states.next()?, &context, from))
    };
    let unchanged = Row::measure("empty root, remote cache: all hits", tool.runs(), |_| {
        build()
    })?;
    let changed = Row::measure("empty root, remote cache: one file", 1, |run| {
        change_example(&context, run)?;
        build()
    })?;
    Ok(vec![first, unchanged, changed])
}

/// An image whose layers the registry has already.
pub(super) fn push(tool: &Tool, place: &Place) -> Result<Vec<Row>> {
    let registry = Registry::start()?;
    let proxy = FaultProxy::start(registry.host())?;
    let context = place.contexts.join("push");
    write_tree(&context, &[("Dockerfile", "FROM busybox\nCOPY data /\n")]);
    fs::create_dir(context.join("data"))?;
    let mut files = Content::new(&place.program)?;
    for number in 0..PUSHED_FILES {
        fs::write(context.join(format!("data/{number}")), files.file(number))?;
    }
    measure(&mut tool.build(&place.state, &context, false))?;
    // The proxy, which counts, doesn't understand how others upload.
    let is_counted = tool.larder(&place.state).is_some();
    let host = if is_counted {
        proxy.host()
    } else {
        registry.host()
    };
    let name = format!("{host}/team/app");
    let push = |label: &str, runs_count| -> Result<Row> {
        proxy.forget();
        let row = Row::measure(label, runs_count, |_| {
            measure(&mut tool.push(&place.state, &name)?)
        })?;
        Ok(if is_counted {
            row.with_note(format!("{} bytes sent", proxy.uploaded_bytes()))
        } else {
            row
        })
    };
    Ok(vec![
        push("push, new", 1)?,
        push("push, again", tool.runs())?,
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

/// Empty states for what a tool makes from nothing.
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
}
