//! `larder bake --call`

use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use larder_bake::Plan;
use larder_engine::event::EventSink;
use larder_engine::{Answer, BuildError, CheckOutcome, Engine};
use serde_json::{Map, Value};

use super::request::BakeTarget;
use crate::args::{BakeArgs, CallArg, Method};
use crate::check;
use crate::commands::Context;
use crate::commands::build::call::told;
use crate::commands::build::{plan, shown};
use crate::exit::{self, Code};
use crate::output;
use crate::progress::Mode;

/// What is done in place of building.
pub(super) struct Calls {
    /// The targets, with what is done with each.
    methods: Vec<(String, Method)>,
    json: bool,
    ignore_status: bool,
}

/// What came of a call.
enum Called {
    Checked(CheckOutcome),
    Answered(Answer),
}

/// Returns what is done in place of building, if anything is: what flags say, else what all targets
/// say.
///
/// # Errors
/// If some targets are to be built and others not, or one says what there is not.
pub(super) fn asked_for(args: &BakeArgs, plan: &Plan) -> anyhow::Result<Option<Calls>> {
    let flag = if args.check {
        Some(CallArg::CHECK)
    } else {
        args.call
    };
    let own_targets = || plan.targets.iter().filter(|(_, target)| !target.is_linked);
    let mut methods = Vec::new();
    for (name, target) in own_targets() {
        let method = match (flag, target.call.as_deref()) {
            (Some(flag), _) => flag.method,
            (None, None | Some("")) => Method::Build,
            (None, Some(own)) => Method::parse(own)
                .with_context(|| format!("target.{name}: `call`: `{own}` is no method"))?,
        };
        methods.push((name.clone(), method));
    }
    let is_built = |(_, method): &&(String, Method)| *method == Method::Build;
    let built = methods.iter().find(is_built);
    let called = methods.iter().find(|method| !is_built(method));
    if let (Some((built, _)), Some((called, method))) = (built, called) {
        bail!(
            "target.{called}: `call`: `{}` can't be done while `{built}` is built; name one of them",
            method.name()
        );
    }
    Ok(called.is_some().then_some(Calls {
        methods,
        json: flag.is_some_and(|flag| flag.json),
        ignore_status: flag.is_some_and(|flag| flag.ignore_status),
    }))
}

/// Does with each target that was asked for what its call says, and tells what came of it.
pub(super) fn run(
    targets: Vec<BakeTarget>,
    plan: &Plan,
    mut calls: Calls,
    mode: Mode,
    context: &Context<'_>,
) -> anyhow::Result<Code> {
    let display = plan::display_options(context, &mut Vec::new());
    let mut targets: Vec<_> = targets
        .into_iter()
        .filter_map(|target| {
            let is_own = |(name, _): &(String, Method)| *name == target.name;
            let at = calls.methods.iter().position(is_own)?;
            Some((calls.methods.swap_remove(at).1, target))
        })
        .collect();
    targets.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
    let called = shown(mode, display, context, |engine, sink, _| {
        let call = |(method, target)| call(method, target, engine, sink);
        targets.into_iter().map(call).collect::<Result<Vec<_>, _>>()
    })?
    .map_err(anyhow::Error::new)
    .context("failed to solve")?;
    let failed = called.iter().any(|(_, _, called)| match called {
        Called::Checked(outcome) => {
            outcome.error.is_some() || (!outcome.warnings.is_empty() && !calls.ignore_status)
        }
        Called::Answered(_) => false,
    });
    output::print(&if calls.json {
        json(plan, called)?
    } else {
        text(plan, &called)?
    })?;
    Ok(if failed { exit::FAILURE } else { exit::SUCCESS })
}

fn call(
    method: Method,
    target: BakeTarget,
    engine: &Engine,
    sink: &dyn EventSink,
) -> Result<(String, Method, Called), BuildError> {
    let called = match method {
        Method::Ask(question) => Called::Answered(engine.ask(question, target.request, sink)?),
        Method::Llb => {
            let message = "`llb` is asked of one build at a time: `larder build --print=llb`";
            return Err(BuildError::invalid(message));
        }
        Method::Check | Method::Build => Called::Checked(engine.check(target.request, sink)?),
    };
    Ok((target.name, method, called))
}

/// Returns for each target its name, what the bake file says of it, and what came of its call.
fn text(plan: &Plan, called: &[(String, Method, Called)]) -> anyhow::Result<String> {
    let mut text = String::new();
    for (name, _, called) in called {
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
        text.push('\n');
        match called {
            Called::Answered(answer) => text += &told(answer, false),
            Called::Checked(outcome) => {
                text += &check::text(outcome);
                if let Some(error) = &outcome.error {
                    writeln!(text, "error: {error}")?;
                }
            }
        }
    }
    Ok(text)
}

/// Returns the plan with what came of its call beside each target.
fn json(plan: &Plan, called: Vec<(String, Method, Called)>) -> anyhow::Result<String> {
    let mut results = Map::new();
    for (name, method, called) in called {
        let result: Value = match called {
            Called::Checked(outcome) => serde_json::from_str(&check::json(&outcome))?,
            Called::Answered(answer) => serde_json::from_str(&answer.json)?,
        };
        // As in buildx: what is no object is put into one.
        let result = match result {
            Value::Object(fields) => fields,
            other => Map::from_iter([(method.name().to_owned(), other)]),
        };
        let entry = Map::from_iter([(method.name().to_owned(), result.into())]);
        results.insert(name, entry.into());
    }
    let mut json: Value = serde_json::from_str(&plan.to_json())?;
    if let Some(targets) = json.get_mut("target").and_then(Value::as_object_mut) {
        for (name, target) in targets {
            let mut entry = Map::from_iter([("build".to_owned(), target.take())]);
            if let Some(Value::Object(result)) = results.remove(name) {
                entry.extend(result);
            }
            *target = Value::Object(entry);
        }
    }
    Ok(format!("{json:#}\n"))
}
