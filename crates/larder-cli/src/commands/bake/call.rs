//! `larder bake --check`

use std::fmt::Write as _;

use anyhow::bail;
use larder_bake::Plan;
use serde_json::{Map, Value};

use super::request::BakeTarget;
use crate::args::{BakeArgs, CallArg, Method};
use crate::check;
use crate::commands::Context;
use crate::commands::build::{plan, shown};
use crate::exit::{self, Code};
use crate::output;
use crate::progress::Mode;

/// Returns what is done in place of building: what flags say, else what all targets say.
///
/// # Errors
/// If some targets are to be built and others not, or larder lacks what one asks for.
pub(super) fn asked_for(args: &BakeArgs, plan: &Plan) -> anyhow::Result<Option<CallArg>> {
    if args.check {
        return Ok(Some(CallArg::CHECK));
    }
    if let Some(call) = args.call {
        return Ok(Some(call).filter(|call| call.method != Method::Build));
    }
    let mut calls = Vec::new();
    for (name, target) in &plan.targets {
        match target.call.as_deref() {
            None | Some("" | "build") => {}
            Some("check" | "lint") => calls.push(name),
            Some(other) => bail!("target.{name}: `call`: `{other}` is not supported yet"),
        }
    }
    let builds = plan
        .targets
        .iter()
        .find(|(name, target)| !calls.contains(name) && !target.is_linked);
    match (calls.first(), builds) {
        (None, _) => Ok(None),
        (Some(_), None) => Ok(Some(CallArg::CHECK)),
        (Some(checked), Some((built, _))) => bail!(
            "target.{checked}: `call`: it can't be checked while `{built}` is built; name one of them"
        ),
    }
}

/// Checks the Dockerfile of each target that was asked for, and tells what was found.
pub(super) fn run(
    targets: Vec<BakeTarget>,
    plan: &Plan,
    call: CallArg,
    mode: Mode,
    context: &Context<'_>,
) -> anyhow::Result<Code> {
    let display = plan::display_options(context, &mut Vec::new());
    let is_linked = |name: &str| {
        plan.targets
            .get(name)
            .is_some_and(|target| target.is_linked)
    };
    let targets = targets
        .into_iter()
        .filter(|target| !is_linked(&target.name));
    let outcomes = shown(mode, display, context, |engine, sink, _| {
        let check = |target: BakeTarget| Ok((target.name, engine.check(target.request, sink)?));
        targets
            .map(check)
            .collect::<Result<Vec<_>, larder_engine::BuildError>>()
    })??;
    let mut text = String::new();
    let mut results = Map::new();
    let mut failed = false;
    for (name, outcome) in &outcomes {
        failed |= outcome.error.is_some();
        failed |= !outcome.warnings.is_empty() && !call.ignore_status;
        if call.json {
            let result: Value = serde_json::from_str(&check::json(outcome))?;
            results.insert(name.clone(), result);
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        let description = plan
            .targets
            .get(name)
            .map_or("", |target| &target.description);
        writeln!(text, "{name}")?;
        if !description.is_empty() {
            writeln!(text, "{description}")?;
        }
        write!(text, "\n{}", check::text(outcome))?;
        if let Some(error) = &outcome.error {
            writeln!(text, "error: {error}")?;
        }
    }
    if call.json {
        text = json(plan, results)?;
    }
    output::print(&text)?;
    Ok(if failed { exit::FAILURE } else { exit::SUCCESS })
}

/// Returns the plan with what the checks found beside each target.
fn json(plan: &Plan, mut results: Map<String, Value>) -> anyhow::Result<String> {
    let mut json: Value = serde_json::from_str(&plan.to_json())?;
    if let Some(targets) = json.get_mut("target").and_then(Value::as_object_mut) {
        for (name, target) in targets {
            let mut entry = Map::from_iter([("build".to_owned(), target.take())]);
            if let Some(result) = results.remove(name) {
                entry.insert("check".to_owned(), result);
            }
            *target = Value::Object(entry);
        }
    }
    Ok(format!("{json:#}\n"))
}
