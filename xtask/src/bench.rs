//! `cargo xtask bench`: how fast larder is, beside the peers that are installed.

mod cases;
mod measure;
mod report;
mod tool;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use fs_err as fs;
use larder_testkit::{Base, install, target_dir};

use self::cases::{CASES, Case, Size};
use self::report::{Report, Row};
use self::tool::Tool;
use crate::run::build_larder;

/// What to measure.
#[derive(Debug)]
pub(crate) struct Options {
    large: bool,
    peers: bool,
    alone: bool,
    only: Option<String>,
    rounds: usize,
    /// Binaries to measure; none to build one.
    larders: Vec<PathBuf>,
}

impl Options {
    pub(crate) fn parse(args: &[&str]) -> Result<Self> {
        let mut options = Self {
            large: false,
            peers: false,
            alone: false,
            only: None,
            rounds: 3,
            larders: Vec::new(),
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match *arg {
                "--large" => options.large = true,
                "--peers" => options.peers = true,
                "--alone" => options.alone = true,
                "--only" => {
                    let case = args.next().context("`--only` needs the name of a case")?;
                    let is_known = CASES.iter().any(|known| known.name == *case);
                    ensure!(is_known, "no such case: `{case}`");
                    options.only = Some((*case).to_owned());
                }
                "--rounds" => {
                    let rounds = args.next().and_then(|rounds| rounds.parse().ok());
                    options.rounds = rounds
                        .filter(|rounds| *rounds > 0)
                        .context("`--rounds` needs a number from 1 on")?;
                }
                "--larder" => {
                    let binary = args.next().context("`--larder` needs a binary")?;
                    options.larders.push(fs::canonicalize(binary)?);
                }
                other => bail!("no such option of bench: `{other}`"),
            }
        }
        Ok(options)
    }

    fn wants(&self, case: &Case) -> bool {
        match &self.only {
            Some(only) => only == case.name,
            None => self.large || case.size == Size::Small,
        }
    }

    /// Returns how often `tool` runs `case`.
    fn rounds(&self, case: &Case, tool: &Tool) -> usize {
        match (case.size, tool) {
            (Size::Small, _) | (Size::Large, Tool::Larder { .. }) => self.rounds,
            (Size::Large, Tool::Buildah) | (Size::Huge, _) => 1,
        }
    }
}

/// Where one tool keeps its state in one round, and the contexts it builds.
struct Place {
    state: PathBuf,
    contexts: PathBuf,
    /// A program, for contexts with such.
    program: PathBuf,
    /// The number of the round, from 0 on.
    round: usize,
}

/// Measures every case for every tool and prints the table as it fills. The tools take turns, so
/// that what else the machine does falls on all of them.
pub(crate) fn run(options: &Options) -> Result<()> {
    install(&["time"])?;
    if options.peers {
        install(&["buildah", "runc"])?;
    }
    let mut larders = options.larders.clone();
    if larders.is_empty() {
        larders.push(build_larder()?);
    }
    let mut tools = Tool::found(&larders);
    tools.retain(|tool| !options.alone || matches!(tool, Tool::Larder { .. }));
    let dir = target_dir().join("bench");
    let lock = fs::File::create(dir.with_extension("lock"))?;
    let is_free = lock.file().try_lock().is_ok();
    ensure!(is_free, "another bench runs in this target directory");
    // An earlier run may have been killed.
    Tool::remove(&dir)?;
    Report::print_header();
    let mut failures_count = 0;
    for case in CASES.iter().filter(|case| options.wants(case)) {
        let report = measure_rounds(case, &tools, options, &dir, &larders[0])?;
        report.print(case.name);
        failures_count += report.failures_count();
    }
    Tool::remove(&dir)?;
    ensure!(failures_count == 0, "{failures_count} measurements failed");
    Ok(())
}

/// Measures a case in all its rounds. A tool that fails has no further one.
fn measure_rounds(
    case: &Case,
    tools: &[Tool],
    options: &Options,
    dir: &Path,
    program: &Path,
) -> Result<Report> {
    let mut report = Report::default();
    for round in 0..options.rounds {
        for tool in tools {
            if round >= options.rounds(case, tool) || report.has_failed(tool) {
                continue;
            }
            let dir = dir.join(format!("{}-{round}-{}", case.name, tool.name()));
            let place = Place {
                state: dir.join("state"),
                contexts: dir.join("contexts"),
                program: program.to_owned(),
                round,
            };
            match measure_case(case, tool, &place) {
                Ok(rows) => report.add(tool, rows),
                Err(error) => report.fail(tool, &error),
            }
            // What is small stays until the end: ext4 is slow to make files where as many were just
            // removed, which would be the next one's.
            if case.size != Size::Small {
                Tool::remove(&dir)?;
            }
        }
    }
    Ok(report)
}

/// Measures a case in a new place.
fn measure_case(case: &Case, tool: &Tool, place: &Place) -> Result<Vec<Row>> {
    fs::create_dir_all(&place.contexts)?;
    for base in [Base::Busybox, Base::Python] {
        tool.import(&place.state, base)?;
    }
    (case.run)(tool, place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_cases_are_asked_for_and_run_once_by_peers() {
        let case = |name: &str| CASES.iter().find(|case| case.name == name).unwrap();
        let larder = Tool::found(&["larder".into()]).remove(0);
        let options = Options::parse(&["--rounds", "5"]).unwrap();
        assert!(options.wants(case("steps")) && !options.wants(case("export")));
        assert_eq!(options.rounds(case("steps"), &Tool::Buildah), 5);
        assert_eq!(options.rounds(case("export"), &larder), 5);
        assert_eq!(options.rounds(case("export"), &Tool::Buildah), 1);
        let options = Options::parse(&["--only", "export"]).unwrap();
        assert!(options.wants(case("export")) && !options.wants(case("steps")));
        assert!(
            Options::parse(&["--large"])
                .unwrap()
                .wants(case("smartdiet-full"))
        );
        for wrong in [
            &["--rounds", "0"][..],
            &["--rounds"],
            &["--only", "nothing"],
            &["--only"],
            &["--fast"],
        ] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
