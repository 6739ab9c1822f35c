//! The conformance suite: each file below `cases/` is a Dockerfile, its context, and what must come
//! of it. `docs/dev/conformance.md` tells how to write one.
//!
//! Cases run in several forms: as root on overlays, with layers as images, on copies, and as an ordinary user.
//! `cargo xtask conformance [FILTER]` runs those whose names, such as
//! `native::copy/wildcard`, hold the filter.

mod case;
mod entry;
mod files;
mod image;
mod observe;
mod run;
mod selftest;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, ensure};
use larder_testkit::report_skip;
use libtest_mimic::{Arguments, Failed, Trial};

use case::Case;
use run::{Form, Setup};

/// Runs all cases in all forms, when set.
const ALL: &str = "LARDER_CONFORMANCE_ALL";
/// Areas where it makes no difference how snapshots are kept and who runs larder: their cases run
/// in one form unless all are asked for.
const LANGUAGE: [&str; 8] = [
    "checks",
    "config",
    "errors",
    "ignore",
    "lexing",
    "onbuild",
    "stages",
    "variables",
];

fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    // A build waits for the disk and for processes more than it computes.
    let processors = std::thread::available_parallelism()?.get();
    arguments.test_threads.get_or_insert(2 * processors);
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/cases");
    let cases = Case::read_all(&dir)?;
    ensure!(!cases.is_empty(), "no cases in {}", dir.display());
    let cases = Arc::new(cases);
    let mut trials = Vec::new();
    for form in Form::ALL {
        match Setup::new(form) {
            Ok(setup) => trials.extend(trials_of(&Arc::new(setup), &cases)),
            Err(error) => report_skip(&format!("the conformance suite, {form}: {error:#}")),
        }
    }
    Ok(libtest_mimic::run(&arguments, trials).exit_code())
}

fn trials_of(setup: &Arc<Setup>, cases: &Arc<Vec<Case>>) -> Vec<Trial> {
    let form = setup.form();
    let wanted = cases
        .iter()
        .enumerate()
        .filter(|(_, case)| case.excludes(form.name()).is_none() && is_wanted(form, case));
    let mut trials: Vec<Trial> = wanted
        .map(|(index, case)| {
            let (setup, cases) = (Arc::clone(setup), Arc::clone(cases));
            Trial::test(format!("{form}::{}", case.name), move || {
                run::run(&setup, &cases[index]).map_err(|error| failed(&error))
            })
        })
        .collect();
    let setup = Arc::clone(setup);
    trials.push(Trial::test(format!("{form}::selftest"), move || {
        selftest::wrong_cases_fail(&setup).map_err(|error| failed(&error))
    }));
    trials
}

fn is_wanted(form: Form, case: &Case) -> bool {
    let (area, _) = case.name.split_once('/').unwrap_or_default();
    form == Form::Root || !LANGUAGE.contains(&area) || std::env::var_os(ALL).is_some()
}

fn failed(error: &anyhow::Error) -> Failed {
    format!("{error:#}").into()
}
