mod remote;
mod scale;

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use fs_err as fs;
use larder_testkit::{target_dir, write_tree};

use super::Place;
use super::measure::{Sample, measure, peak_bytes};
use super::tool::{Compression, Tool};
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
        name: "copies",
        large: false,
        run: scale::copies,
    },
    Case {
        name: "lookups",
        large: true,
        run: scale::lookups,
    },
    Case {
        name: "pull",
        large: false,
        run: remote::pull,
    },
    Case {
        name: "pull-layers",
        large: false,
        run: remote::pull_layers,
    },
    Case {
        name: "remote-cache",
        large: false,
        run: remote::cache,
    },
    Case {
        name: "push",
        large: false,
        run: remote::push,
    },
    Case {
        name: "export",
        large: true,
        run: export,
    },
    Case {
        name: "export-smartdiet",
        large: false,
        run: export_smartdiet,
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

const LAYER_FILES: usize = 2000;
const LAYER_FILE_BYTES: usize = 1 << 20;
/// What of a real file stays together in a made-up one: a page.
const PART_BYTES: usize = 4096;

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

/// A context of many small files: built for the first time, again, and with one file changed.
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
    let changed = (0..SLOW_RUNS).map(|run| {
        let dir = CONTEXT_DIRS / SLOW_RUNS * run;
        fs::write(
            context.join(format!("d{dir}/f0")),
            format!("change {run}\n"),
        )?;
        build()
    });
    let changed = changed.collect::<Result<_>>()?;
    let label = |what: &str| format!("{} files: {what}", CONTEXT_DIRS * CONTEXT_FILES_PER_DIR);
    Ok(vec![
        Row::new(label("first build"), first),
        Row::new(label("again"), again),
        Row::new(label("one file changed"), changed),
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

/// A layer of 2 GB, as an OCI archive: when it is new, when one of its files changed, and when a
/// file of a later layer did.
fn export(tool: &Tool, place: &Place) -> Result<Vec<Row>> {
    let context = place.contexts.join("export");
    let dockerfile = "FROM busybox\nCOPY data /data\nCOPY app /app\n";
    write_tree(&context, &[("Dockerfile", dockerfile), ("app/main", "0\n")]);
    fs::create_dir(context.join("data"))?;
    let path = |number: usize| context.join(format!("data/{number:04}"));
    let mut maker = Content::new()?;
    for number in 0..LAYER_FILES {
        fs::write(path(number), maker.file(number))?;
    }
    let archive = place.contexts.join("export.tar");
    let command = |compression| tool.export(&place.state, &context, &archive, compression);
    let export = || measure(&mut command(Compression::Gzip));
    let build_and_export = || {
        measure(&mut tool.build_layers(&place.state, &context))?;
        export()
    };
    let first = vec![build_and_export()?];
    let again = (0..SLOW_RUNS).map(|_| export()).collect::<Result<_>>()?;
    let zstd = vec![measure(&mut command(Compression::Zstd))?];
    let in_layer = (0..SLOW_RUNS).map(|run| {
        let number = LAYER_FILES / SLOW_RUNS * run + LAYER_FILES / 6;
        fs::write(path(number), maker.file(number))?;
        build_and_export()
    });
    let in_layer = in_layer.collect::<Result<_>>()?;
    let above = (0..SLOW_RUNS).map(|run| {
        fs::write(context.join("app/main"), format!("{}\n", run + 1))?;
        build_and_export()
    });
    let above = above.collect::<Result<_>>()?;
    for number in 0..LAYER_FILES {
        fs::write(path(number), maker.file(number))?;
    }
    measure(&mut tool.build_layers(&place.state, &context))?;
    let peak = peak_bytes(&mut command(Compression::Gzip))?;
    Ok(vec![
        Row {
            peak_bytes: Some(peak),
            ..Row::new("2 GB layer to a gzip OCI tar", first)
        },
        Row::new("again, unchanged", again),
        Row::new("the same to a zstd OCI tar", zstd),
        Row::new("again with gzip, one file changed", in_layer),
        Row::new("again, one file above changed", above),
    ])
}

/// The example service to an archive: first, and with one file changed.
fn export_smartdiet(tool: &Tool, place: &Place) -> Result<Vec<Row>> {
    let context = place.contexts.join("export-smartdiet");
    copy_example(&context, "requirements.txt")?;
    let archive = place.contexts.join("export-smartdiet.tar");
    let build_and_export = || {
        measure(&mut tool.build_layers(&place.state, &context))?;
        measure(&mut tool.export(&place.state, &context, &archive, Compression::Gzip))
    };
    let first = vec![build_and_export()?];
    let planner = context.join("smartdiet/planner.py");
    let original = fs::read_to_string(&planner)?;
    let changed = (0..QUICK_RUNS).map(|run| {
        fs::write(&planner, format!("{original}# Change {run}.\n"))?;
        build_and_export()
    });
    let changed = changed.collect::<Result<_>>()?;
    Ok(vec![
        Row::new("guide's image to an OCI tar", first),
        Row::new("again, one file changed", changed),
    ])
}

/// Makes files that compress as those of real layers do: parts of programs and of texts in an
/// order of their own, and what is compressed already.
struct Content {
    programs: Vec<u8>,
    texts: Vec<u8>,
    state: u64,
}

impl Content {
    fn new() -> Result<Self> {
        let mut texts = Vec::new();
        let sources = fs::read_dir(workspace().join("crates/larder-dockerfile/src"))?;
        let mut sources = sources
            .map(|source| Ok(source?.path()))
            .collect::<std::io::Result<Vec<_>>>()?;
        sources.sort();
        for source in sources.iter().filter(|source| source.is_file()) {
            texts.extend(fs::read(source)?);
        }
        Ok(Self {
            programs: fs::read(target_dir().join("release/larder"))?,
            texts,
            state: 1,
        })
    }

    /// Returns the next file; its number says of which kind it is.
    fn file(&mut self, number: usize) -> Vec<u8> {
        let mut file = Vec::with_capacity(LAYER_FILE_BYTES + PART_BYTES);
        while file.len() < LAYER_FILE_BYTES {
            let random = self.random();
            let from = match number % 20 {
                0..9 => &self.programs,
                9..14 => &self.texts,
                _ => {
                    file.extend(random.to_le_bytes());
                    continue;
                }
            };
            let parts = from.len() / PART_BYTES;
            let start = random as usize % parts * PART_BYTES;
            file.extend_from_slice(&from[start..start + PART_BYTES]);
        }
        file
    }

    /// Returns the next number of a xorshift generator, whose output doesn't compress.
    fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
