//! What came of a build, in the words of a case. Each function returns what a section expects, in
//! its normal form, and what was found.

use anyhow::{Context as _, Result};
use larder_oci::ImageConfig;
use larder_testkit::Run;
use serde_json::Value;

use super::case::Section;
use super::entry::Entry;
use super::files;

type Texts = (String, String);

/// Marks the beginning of a layer.
const LAYER: &str = "layer";

/// What errors begin with that end a build; a case may leave it out.
const PREFIX: &str = "ERROR: failed to build: failed to solve: ";

pub(crate) fn tree(section: &Section, found: Vec<Entry>) -> Result<Texts> {
    let mut expected = files::parse(section.lines())?;
    expected.sort_by(|a, b| a.path.cmp(&b.path));
    let actual = found.into_iter().map(|mut entry| {
        entry.seen_by(expected.iter().find(|expected| expected.path == entry.path));
        entry.line()
    });
    let actual = lines(actual);
    Ok((lines(expected.iter().map(Entry::line)), actual))
}

pub(crate) fn layers(section: &Section, found: impl Iterator<Item = Vec<Entry>>) -> Result<Texts> {
    let mut expected = Vec::new();
    for line in section.lines() {
        if line == LAYER {
            expected.push(Vec::new());
        } else {
            let layer = expected
                .last_mut()
                .context("no `layer` before the first line")?;
            Vec::push(layer, Entry::parse(line)?);
        }
    }
    let write = |layers: &[Vec<Entry>]| {
        let layer = |layer: &Vec<Entry>| {
            let entries = layer.iter().map(Entry::line);
            lines(std::iter::once(LAYER.to_owned()).chain(entries))
        };
        layers.iter().map(layer).collect::<String>()
    };
    let mut found: Vec<Vec<Entry>> = found.collect();
    for (index, layer) in found.iter_mut().enumerate() {
        for entry in layer {
            let known = expected.get(index);
            entry.seen_by(
                known.and_then(|layer| layer.iter().find(|known| known.path == entry.path)),
            );
        }
    }
    Ok((write(&expected), write(&found)))
}

/// The values of keys: those of the config's `config`, and in small letters those beside it.
pub(crate) fn config(section: &Section, config: &ImageConfig) -> Result<Texts> {
    let config = serde_json::to_value(config)?;
    let (mut expected, mut actual) = (Vec::new(), Vec::new());
    for line in section.lines() {
        let (key, value) = line.split_once('=').unwrap_or((line, "null"));
        let key = key.trim();
        let found = match config.get(key) {
            Some(found) => found,
            None => &config["config"][key],
        };
        actual.push(format!("{key} = {found}"));
        let value: Value =
            serde_json::from_str(value).with_context(|| format!("`{value}` is no JSON"))?;
        expected.push(format!("{key} = {value}"));
    }
    Ok((lines(expected.into_iter()), lines(actual.into_iter())))
}

/// The history above the base image's. `-` stands before what made no layer; with `dated` the
/// time before that.
pub(crate) fn history(section: &Section, config: &ImageConfig) -> Texts {
    let own = config
        .history
        .iter()
        .filter(|entry| !entry.comment.is_empty());
    let actual = own.map(|entry| {
        let mark = if entry.empty_layer { "- " } else { "" };
        let created = entry.created.as_deref().unwrap_or_default();
        match section.argument.as_str() {
            "dated" => format!("{created} {mark}{}", entry.created_by),
            _ => format!("{mark}{}", entry.created_by),
        }
    });
    (section.text.clone(), lines(actual))
}

/// The steps of the Dockerfile, and what became of them, in the order of their names.
pub(crate) fn steps(run: &Run) -> String {
    let mut steps: Vec<(String, &str)> = Vec::new();
    for step in run.steps() {
        if step.instruction().is_none() {
            continue;
        }
        let became = |state: &&&str| step.lines.iter().any(|line| line.starts_with(**state));
        let state = ["CACHED", "ERROR", "CANCELED", "DONE"].iter().find(became);
        let (name, _) = step.name.split_once("@sha256:").unwrap_or((&step.name, ""));
        steps.push((name.to_owned(), state.unwrap_or(&"")));
    }
    steps.sort();
    lines(steps.iter().map(|(name, state)| format!("{state} {name}")))
}

/// What the steps wrote, in the order of their names; with an argument those whose names hold it.
pub(crate) fn output(section: &Section, run: &Run) -> String {
    let mut steps = run.steps();
    steps.sort_by(|a, b| a.name.cmp(&b.name));
    let steps = steps
        .iter()
        .filter(|step| step.name.contains(&section.argument));
    lines(steps.flat_map(|step| step.output()).map(str::to_owned))
}

/// The warnings about the Dockerfile, as they are summed up at the end.
pub(crate) fn warnings(run: &Run) -> String {
    let warnings = run
        .stderr
        .lines()
        .filter_map(|line| line.strip_prefix(" - "));
    lines(warnings.map(str::to_owned))
}

/// Lines that are somewhere in what the build said.
pub(crate) fn says(section: &Section, run: &Run) -> Texts {
    let said = section.lines().filter(|line| run.stderr.contains(*line));
    (
        lines(section.lines().map(str::to_owned)),
        lines(said.map(str::to_owned)),
    )
}

/// The exit code, 1 by default, and the end of what was said.
pub(crate) fn error(section: &Section, run: &Run) -> Texts {
    let code = if section.argument.is_empty() {
        "1"
    } else {
        &section.argument
    };
    let said = format!("\n{}", run.stderr);
    let found = run
        .code
        .map_or("signal".to_owned(), |code| code.to_string());
    if found == code && !section.text.is_empty() && said.ends_with(&section.text) {
        let before = said.len() - section.text.len();
        if said[..before].ends_with('\n') || said[..before].ends_with(PREFIX) {
            return (section.text.clone(), section.text.clone());
        }
    }
    let end = said
        .rfind("\nERROR: ")
        .map_or(&said[..], |start| &said[start + 1..]);
    let mut actual = end.strip_prefix(PREFIX).unwrap_or(end).to_owned();
    if found != code {
        actual.insert_str(0, &format!("exit code {found}, not {code}\n"));
    }
    (section.text.clone(), actual)
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.map(|line| line + "\n").collect()
}
