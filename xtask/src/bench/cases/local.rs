//! Cases that need neither a registry nor an archive.

use std::fmt::Write as _;

use anyhow::Result;
use fs_err as fs;
use larder_testkit::write_tree;

use super::{change_example, copy_example};
use crate::bench::Place;
use crate::bench::measure::{measure, peak_bytes};
use crate::bench::report::Row;
use crate::bench::tool::Tool;

const STEPS_COUNT: usize = 60;
const STAGES_COUNT: usize = 8;
const CONTEXT_DIRS: usize = 500;
const CONTEXT_FILES_PER_DIR: usize = 100;

/// The example service: first build, no change, one file changed, and the same where a RUN follows.
pub(super) fn smartdiet(tool: &Tool, place: &Place, requirements: &str) -> Result<Vec<Row>> {
    let context = place.contexts.join("smartdiet");
    copy_example(&context, requirements)?;
    let command = || tool.build(&place.state, &context, false);
    let runs_count = tool.quick_runs();
    let label = |what: &str| format!("{}: {what}", requirements.trim_end_matches(".txt"));
    let first = Row::measure(label("first build"), 1, |_| measure(&mut command()))?;
    let unchanged = Row::measure(label("no change"), runs_count, |_| measure(&mut command()))?
        .with_peak(peak_bytes(&command())?);
    let changed = Row::measure(label("one file changed"), runs_count, |run| {
        change_example(&context, run)?;
        measure(&mut command())
    })?;
    let dockerfile = context.join("Dockerfile");
    let text = fs::read_to_string(&dockerfile)?;
    fs::write(&dockerfile, format!("{text}RUN :\n"))?;
    measure(&mut command())?;
    let followed = Row::measure(label("changed, a RUN follows"), runs_count, |run| {
        change_example(&context, runs_count + run)?;
        measure(&mut command())
    })?;
    Ok(vec![first, unchanged, changed, followed])
}

/// Steps that do nothing: what a step itself costs.
pub(super) fn steps(tool: &Tool, place: &Place) -> Result<Vec<Row>> {
    let mut dockerfile = "FROM busybox\n".to_owned();
    for step in 0..STEPS_COUNT {
        writeln!(dockerfile, "RUN : {step}")?;
    }
    let context = place.contexts.join("steps");
    write_tree(&context, &[("Dockerfile", &dockerfile)]);
    let row = Row::measure(format!("{STEPS_COUNT} trivial RUN steps"), 1, |_| {
        measure(&mut tool.build(&place.state, &context, true))
    })?;
    Ok(vec![row])
}

/// Independent stages that wait a second each.
pub(super) fn stages(tool: &Tool, place: &Place) -> Result<Vec<Row>> {
    let mut dockerfile = String::new();
    for stage in 0..STAGES_COUNT {
        writeln!(
            dockerfile,
            "FROM busybox AS s{stage}\nRUN sleep 1; echo {stage} > /out\n"
        )?;
    }
    dockerfile += "FROM busybox\n";
    for stage in 0..STAGES_COUNT {
        writeln!(dockerfile, "COPY --from=s{stage} /out /out{stage}")?;
    }
    let context = place.contexts.join("stages");
    write_tree(&context, &[("Dockerfile", &dockerfile)]);
    let row = Row::measure(format!("{STAGES_COUNT} independent 1 s stages"), 1, |_| {
        measure(&mut tool.build(&place.state, &context, true))
    })?;
    Ok(vec![row])
}

/// A context of many small files: built for the first time, again, and with one file changed.
pub(super) fn context(tool: &Tool, place: &Place) -> Result<Vec<Row>> {
    let context = place.contexts.join("context");
    write_tree(&context, &[("Dockerfile", "FROM busybox\nCOPY . /app\n")]);
    for dir in 0..CONTEXT_DIRS {
        let dir = context.join(format!("d{dir}"));
        fs::create_dir(&dir)?;
        for file in 0..CONTEXT_FILES_PER_DIR {
            fs::write(
                dir.join(format!("f{file}")),
                format!("{}\n", dir.display()).repeat(20),
            )?;
        }
    }
    let build = || measure(&mut tool.build(&place.state, &context, false));
    let label = |what: &str| format!("{} files: {what}", CONTEXT_DIRS * CONTEXT_FILES_PER_DIR);
    Ok(vec![
        Row::measure(label("first build"), 1, |_| build())?,
        Row::measure(label("again"), tool.runs(), |_| build())?,
        Row::measure(label("one file changed"), 1, |_| {
            let changed = format!("d{}/f0", CONTEXT_DIRS / 2);
            fs::write(context.join(changed), "changed\n")?;
            build()
        })?,
    ])
}
