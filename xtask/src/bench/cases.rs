use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use fs_err as fs;
use larder_testkit::write_tree;

use super::Place;
use super::measure::{Sample, measure, peak_bytes};
use super::tool::Tool;
use crate::run::workspace;

/// A row of the table.
pub(super) struct Row {
    /// What was measured.
    pub(super) label: String,
    /// Each run; at least one.
    pub(super) samples: Vec<Sample>,
    /// The most memory that one of its processes had, where it was measured.
    pub(super) peak_bytes: Option<u64>,
}

impl Row {
    fn new(label: impl Into<String>, samples: Vec<Sample>) -> Self {
        Self {
            label: label.into(),
            samples,
            peak_bytes: None,
        }
    }
}

/// Something to measure.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// Whether it takes gigabytes, and runs only when asked for.
    pub(super) large: bool,
    pub(super) run: fn(&Tool, &Place) -> Result<Vec<Row>>,
}

pub(super) const CASES: &[Case] = &[
    Case {
        name: "smartdiet",
        large: false,
        run: |tool, place| smartdiet(tool, place, "requirements.txt"),
    },
    Case {
        name: "steps",
        large: false,
        run: steps,
    },
    Case {
        name: "context",
        large: false,
        run: context,
    },
    Case {
        name: "stages",
        large: false,
        run: stages,
    },
    Case {
        name: "smartdiet-full",
        large: true,
        run: |tool, place| smartdiet(tool, place, "requirements-full.txt"),
    },
];

/// Runs of what is quick.
const QUICK_RUNS: usize = 20;
/// Runs of what takes seconds.
const SLOW_RUNS: usize = 3;
const STEPS_COUNT: usize = 60;
const STAGES_COUNT: usize = 8;
const CONTEXT_DIRS: usize = 500;
const CONTEXT_FILES_PER_DIR: usize = 100;

/// The example service: first build, no change, one file changed.
fn smartdiet(tool: &Tool, place: &Place, requirements: &str) -> Result<Vec<Row>> {
    let context = place.contexts.join("smartdiet");
    copy_example(&context, requirements)?;
    let build = || measure(&mut tool.build(&place.state, &context, false));
    let first = vec![build()?];
    let unchanged = (0..QUICK_RUNS).map(|_| build()).collect::<Result<_>>()?;
    let peak = peak_bytes(&mut tool.build(&place.state, &context, false))?;
    let planner = context.join("smartdiet/planner.py");
    let original = fs::read_to_string(&planner)?;
    let changed = (0..QUICK_RUNS)
        .map(|run| {
            fs::write(&planner, format!("{original}# Change {run}.\n"))?;
            build()
        })
        .collect::<Result<_>>()?;
    let label = |what: &str| format!("{}: {what}", requirements.trim_end_matches(".txt"));
    Ok(vec![
        Row::new(label("first build"), first),
        Row {
            peak_bytes: Some(peak),
            ..Row::new(label("no change"), unchanged)
        },
        Row::new(label("one file changed"), changed),
    ])
}

fn copy_example(to: &Path, requirements: &str) -> Result<()> {
    let example = workspace().join("examples/smartdiet");
    crate::demo::copy_tree(&example, to)?;
    fs::copy(example.join(requirements), to.join("requirements.txt"))?;
    Ok(())
}

/// Steps that do nothing: what a step itself costs.
fn steps(tool: &Tool, place: &Place) -> Result<Vec<Row>> {
    let mut dockerfile = "FROM busybox\n".to_owned();
    for step in 0..STEPS_COUNT {
        writeln!(dockerfile, "RUN : {step}")?;
    }
    let context = place.contexts.join("steps");
    write_tree(&context, &[("Dockerfile", &dockerfile)]);
    let runs = (0..SLOW_RUNS).map(|_| measure(&mut tool.build(&place.state, &context, true)));
    let label = format!("{STEPS_COUNT} trivial RUN steps");
    Ok(vec![Row::new(label, runs.collect::<Result<_>>()?)])
}

/// A context of many small files: built for the first time, and again.
fn context(tool: &Tool, place: &Place) -> Result<Vec<Row>> {
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
    let first = vec![build()?];
    let again = (0..SLOW_RUNS).map(|_| build()).collect::<Result<_>>()?;
    let label = |what: &str| format!("{} files: {what}", CONTEXT_DIRS * CONTEXT_FILES_PER_DIR);
    Ok(vec![
        Row::new(label("first build"), first),
        Row::new(label("again"), again),
    ])
}

/// Independent stages that wait a second each.
fn stages(tool: &Tool, place: &Place) -> Result<Vec<Row>> {
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
    let runs = (0..SLOW_RUNS).map(|_| measure(&mut tool.build(&place.state, &context, true)));
    let label = format!("{STAGES_COUNT} independent 1 s stages");
    Ok(vec![Row::new(label, runs.collect::<Result<_>>()?)])
}
