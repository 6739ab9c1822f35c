//! `cargo xtask bench`: how fast larder is, beside the peers that are installed.

mod cases;
mod measure;
mod tool;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use fs_err as fs;
use larder_testkit::{Base, install, target_dir};

use self::cases::{CASES, Case, Row};
use self::tool::Tool;
use crate::run::build_larder;

/// What to measure.
#[derive(Debug, Default)]
pub(crate) struct Options {
    large: bool,
    peers: bool,
    only: Option<String>,
}

impl Options {
    pub(crate) fn parse(args: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match *arg {
                "--large" => options.large = true,
                "--peers" => options.peers = true,
                "--only" => match args.next() {
                    Some(case) => options.only = Some((*case).to_owned()),
                    None => bail!("`--only` needs the name of a case"),
                },
                other => bail!("no such option of bench: `{other}`"),
            }
        }
        Ok(options)
    }
}

/// Where one tool keeps its state, and the contexts it builds.
struct Place {
    state: PathBuf,
    contexts: PathBuf,
}

/// Measures every case for every tool and prints the table as it fills.
pub(crate) fn run(options: &Options) -> Result<()> {
    install(&["time"])?;
    if options.peers {
        install(&["buildah", "runc"])?;
    }
    let tools = Tool::found(build_larder()?);
    println!(
        "\n{:34} {:10} {:>5} {:>10} {:>10} {:>10} {:>10}",
        "case", "tool", "runs", "min ms", "median ms", "CPU ms", "peak MB"
    );
    let mut failures_count = 0;
    for case in CASES {
        let wanted = match &options.only {
            Some(only) => only == case.name,
            None => options.large || !case.large,
        };
        if !wanted {
            continue;
        }
        for tool in &tools {
            match measure_case(case, tool) {
                Ok(rows) => rows.into_iter().for_each(|row| print_row(tool, row)),
                Err(error) => {
                    failures_count += 1;
                    println!("{:34} {:10} failed: {error:#}", case.name, tool.name());
                }
            }
        }
    }
    ensure!(failures_count == 0, "{failures_count} measurements failed");
    Ok(())
}

/// Measures a case in a new place.
fn measure_case(case: &Case, tool: &Tool) -> Result<Vec<Row>> {
    let dir = target_dir().join("bench").join(tool.name());
    let place = Place {
        state: dir.join("state"),
        contexts: dir.join("contexts"),
    };
    Tool::remove(&place.state)?;
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&place.contexts)?;
    for base in [Base::Busybox, Base::Python] {
        tool.import(&place.state, base)?;
    }
    let rows = (case.run)(tool, &place)?;
    Tool::remove(&place.state)?;
    Ok(rows)
}

fn print_row(tool: &Tool, mut row: Row) {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    row.samples.sort_by_key(|sample| sample.wall);
    let mut cpu: Vec<f64> = row.samples.iter().map(|sample| ms(sample.cpu)).collect();
    cpu.sort_by(f64::total_cmp);
    let peak = match row.peak_bytes {
        Some(bytes) => format!("{:.1}", bytes as f64 / 1e6),
        None => "-".to_owned(),
    };
    println!(
        "{:34} {:10} {:>5} {:>10.0} {:>10.0} {:>10.0} {peak:>10}",
        row.label,
        tool.name(),
        row.samples.len(),
        ms(row.samples[0].wall),
        ms(row.samples[row.samples.len() / 2].wall),
        cpu[cpu.len() / 2],
    );
}
