//! `cargo xtask test`: all tests, and how many there were.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::{Result, ensure};
use fs_err as fs;
use larder_testkit::{Base, SKIPS_FILE};

use crate::run::{cargo, line};

/// Tests that may be skipped on a machine of CI's kind, by a part of their line, and why. Any
/// other skipped test fails the run there.
const EXPECTED_SKIPS: &[(&str, &str)] = &[];

/// Makes the base images and runs `cargo test` on the whole workspace; `args` are added.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    for base in Base::ALL {
        if let Err(error) = base.archive() {
            println!(
                "tests that need {} will be skipped: {error:#}",
                base.image_name()
            );
        }
    }
    let scratch = tempfile::tempdir()?;
    let skips = scratch.path().join("skips");
    let mut command = cargo();
    command
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(args)
        .env(SKIPS_FILE, &skips);
    println!("$ {}", line(&command));
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().expect("stdout is piped");
    let mut totals = Totals::default();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        println!("{line}");
        totals.add(&line);
    }
    let status = child.wait()?;

    let skipped = fs::read_to_string(&skips).unwrap_or_default();
    let unexpected: Vec<&str> = skipped
        .lines()
        .filter(|line| !EXPECTED_SKIPS.iter().any(|(part, _)| line.contains(part)))
        .collect();
    if !skipped.is_empty() {
        println!("\nskipped tests:\n{skipped}");
    }
    let skipped = skipped.lines().count();
    println!(
        "\n{} passed, {} failed, {skipped} skipped",
        totals.passed.saturating_sub(skipped),
        totals.failed
    );
    ensure!(status.success(), "`cargo test` failed with {status}");
    ensure!(
        std::env::var_os("CI").is_none() || unexpected.is_empty(),
        "{} tests were skipped that CI must run",
        unexpected.len()
    );
    Ok(())
}

#[derive(Debug, Default, PartialEq)]
struct Totals {
    passed: usize,
    failed: usize,
}

impl Totals {
    /// Adds the counts of a line such as `test result: ok. 5 passed; 0 failed; …`.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split("; ") {
            match count.split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up_over_binaries() {
        let mut totals = Totals::default();
        for line in [
            "running 5 tests",
            "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.40s",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            totals.add(line);
        }
        assert_eq!(
            totals,
            Totals {
                passed: 7,
                failed: 1
            }
        );
    }
}
