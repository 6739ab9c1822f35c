//! `cargo xtask demo`: examples/smartdiet built in five acts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use larder_testkit::{Base, Run, target_dir};

use crate::run::{build_larder, line, run as run_shown, workspace};

/// What the fourth act adds to the requirements: small, and nothing needs it.
const NEW_REQUIREMENT: &str = "humanize==4.17.0\n";

/// Runs the demo. With `pull`, the base image comes from its registry instead of Debian's
/// packages.
pub(crate) fn run(pull: bool) -> Result<()> {
    let larder = build_larder()?;
    let demo = Demo::prepare(&larder)?;
    if !pull {
        demo.import_base();
    }

    demo.act("1. The first build", &[])?;
    demo.act("2. Nothing changed", &[])?;
    demo.append("smartdiet/planner.py", "# Changed by the demo.\n")?;
    demo.act("3. One .py file changed", &[])?;
    demo.append("requirements.txt", NEW_REQUIREMENT)?;
    demo.act("4. One line added to requirements.txt", &[])?;
    demo.act("5. --no-cache", &["--no-cache"])?;

    println!("\n== The image runs");
    let mut command = demo.larder(&["run", "--rm", "smartdiet"]);
    run_shown(command.args(["python", "-m", "smartdiet", "selfcheck"]))
}

/// A state root and a copy of the example, both new.
struct Demo<'a> {
    larder: &'a Path,
    root: PathBuf,
    context: PathBuf,
}

impl<'a> Demo<'a> {
    fn prepare(larder: &'a Path) -> Result<Self> {
        let dir = target_dir().join("demo");
        let demo = Self {
            larder,
            root: dir.join("root"),
            context: dir.join("smartdiet"),
        };
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        copy_tree(&workspace().join("examples/smartdiet"), &demo.context)?;
        Ok(demo)
    }

    fn larder(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.larder);
        command.arg("--root").arg(&self.root).args(args);
        command
    }

    /// Puts the base image into the store. Where it can't be made, larder will pull it.
    fn import_base(&self) {
        let imported = Base::Python
            .archive()
            .and_then(|archive| run_shown(self.larder(&["import"]).arg(archive)));
        if let Err(error) = imported {
            println!(
                "{} will be pulled from its registry: {error:#}",
                Base::Python.image_name()
            );
        }
    }

    fn append(&self, file: &str, text: &str) -> Result<()> {
        let path = self.context.join(file);
        Ok(fs::write(&path, fs::read_to_string(&path)? + text)?)
    }

    /// Builds, and shows the steps, what became of each, and the time of it all.
    fn act(&self, title: &str, flags: &[&str]) -> Result<()> {
        let mut command = self.larder(&["build", "--progress", "plain", "--host-ca"]);
        command
            .args(["-t", "smartdiet"])
            .args(flags)
            .arg(&self.context);
        println!("\n== {title}\n$ {}", line(&command));
        let start = Instant::now();
        let run = Run::of(&mut command);
        let seconds = start.elapsed().as_secs_f64();
        ensure!(run.code == Some(0), "the build failed:\n{}", run.stderr);
        for step in steps(&run.stderr) {
            println!("   {step}");
        }
        println!(
            "   {} steps were CACHED; {seconds:.3} s in all",
            run.cached_count()
        );
        Ok(())
    }
}

/// Returns a line for each step of a Dockerfile in the plain progress: its name, what became of
/// it, and why it was not cached.
fn steps(progress: &str) -> Vec<String> {
    let blocks = progress.lines().filter_map(|line| {
        let (number, text) = line.strip_prefix('#')?.split_once(' ')?;
        Some((number.parse::<usize>().ok()?, text))
    });
    let mut steps: Vec<(usize, String)> = Vec::new();
    for (number, text) in blocks {
        match steps.iter_mut().find(|(own, _)| *own == number) {
            None if text.starts_with('[') && !text.starts_with("[internal]") => {
                steps.push((number, text.to_owned()));
            }
            Some((_, step)) if tells_fate(text) => step.push_str(
                &[
                    "
      ", text,
                ]
                .concat(),
            ),
            _ => {}
        }
    }
    steps.into_iter().map(|(_, step)| step).collect()
}

fn tells_fate(text: &str) -> bool {
    text == "CACHED" || text.starts_with("DONE ") || text.starts_with("not cached: ")
}

/// Copies a directory with all it holds.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).context("cannot copy the example")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_tell_what_became_of_them() {
        let progress = "#0 building\n\n#1 [internal] load build definition\n#1 DONE 0.0s\n\n\
            #2 [1/3] FROM docker.io/library/busybox\n#2 CACHED\n\n\
            #3 [2/3] COPY a .\n#3 not cached: `a` changed\n#3 0.1 some output\n#3 DONE 0.2s\n";
        assert_eq!(
            steps(progress),
            [
                "[1/3] FROM docker.io/library/busybox\n      CACHED",
                "[2/3] COPY a .\n      not cached: `a` changed\n      DONE 0.2s",
            ]
        );
    }
}
