//! Automation of the project: `cargo xtask TASK`. Each task installs what it lacks.
#![expect(clippy::print_stdout, reason = "what a task prints is its result")]

mod bases;
mod bench;
mod conformance;
mod demo;
mod fuzz;
mod lint;
mod run;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
cargo xtask TASK

  demo [--pull]    build larder, and with it examples/smartdiet in five acts
  test [ARGS...]   make the base images and run all tests; ARGS go to `cargo test`
  conformance [FILTER]
                   run the conformance suite, or the cases whose names hold FILTER
  lint             cargo fmt --check, clippy without a warning, and the fuzz targets compile
  tidy             check the edges between crates, and what no compiler checks
  bench [OPTIONS]  measure larder and the peers that are installed, by turns
      --large      what takes gigabytes too: the peers do it once
      --peers      install the peers that are missing
      --alone      measure no peer
      --only CASE  measure one case only
      --rounds N   each case so many times by each (3)
      --larder BINARY
                   measure it, and build none; several are measured beside each other
  fuzz [TARGET...] run the fuzz targets (needs a nightly toolchain and cargo-fuzz)
      --minutes N  each for so long (10)
  bases [DIR]      make the base images, and copy them to DIR
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match task(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn task(args: &[&str]) -> Result<()> {
    match *args {
        ["demo"] => demo::run(false),
        ["demo", "--pull"] => demo::run(true),
        ["test", ref rest @ ..] => test::run(rest),
        ["conformance", ref filter @ ..] => conformance::run(filter),
        ["lint"] => lint::run(),
        ["tidy"] => tidy::run(),
        ["bench", ref rest @ ..] => bench::run(&bench::Options::parse(rest)?),
        ["fuzz", ref rest @ ..] => fuzz::run_targets(&fuzz::Options::parse(rest)?),
        ["bases"] => bases::run(None),
        ["bases", dir] => bases::run(Some(dir.as_ref())),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => bail!("no such task: {}\n\n{USAGE}", args.join(" ")),
    }
}
