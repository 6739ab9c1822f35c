//! `cargo xtask fuzz`: hostile input, as much of it as there is time for.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use fs_err as fs;
use larder_testkit::target_dir;

use crate::run::{output, run, workspace};

/// The package with the targets, in the workspace's folder.
const PACKAGE: &str = "fuzz";
/// As long a single input may take, in seconds.
const TIMEOUT: u32 = 20;
const MEMORY_MB: u32 = 2048;

/// What a target starts from: files below a folder of the workspace whose names end so.
const SEEDS: &[(&str, &str, &str)] = &[
    ("bake", "examples", ".hcl"),
    ("compose", "examples", ".yml"),
    (
        "dockerfile",
        "crates/larder-dockerfile/tests/golden",
        "Dockerfile",
    ),
    ("ignore", "crates", ".dockerignore"),
    ("manifest", "crates/larder-cache/tests/golden", ".json"),
];

/// What to fuzz.
#[derive(Debug)]
pub(crate) struct Options<'a> {
    targets: Vec<&'a str>,
    minutes: u32,
}

impl<'a> Options<'a> {
    pub(crate) fn parse(args: &[&'a str]) -> Result<Self> {
        let mut options = Self {
            targets: Vec::new(),
            minutes: 10,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match *arg {
                "--minutes" => {
                    let minutes = args.next().context("`--minutes` wants a number")?;
                    options.minutes = minutes.parse().context("`--minutes` wants a number")?;
                }
                flag if flag.starts_with('-') => bail!("no such option of fuzz: `{flag}`"),
                target => options.targets.push(target),
            }
        }
        Ok(options)
    }
}

/// Runs each target for its time; an error with the first input that breaks one.
pub(crate) fn run_targets(options: &Options<'_>) -> Result<()> {
    let listed = output(&mut fuzz("list")).context(
        "fuzzing needs `rustup toolchain install nightly` and `cargo install cargo-fuzz`",
    )?;
    let known: Vec<&str> = listed.lines().collect();
    if let Some(unknown) = options.targets.iter().find(|it| !known.contains(it)) {
        bail!(
            "no such target: `{unknown}`; there are {}",
            known.join(", ")
        );
    }
    let targets = if options.targets.is_empty() {
        &known
    } else {
        &options.targets
    };
    for target in targets {
        let corpus = target_dir().join("fuzz-corpus").join(target);
        fs::create_dir_all(&corpus)?;
        let kept = workspace().join(PACKAGE).join("seeds").join(target);
        if kept.is_dir() {
            copy_seeds(&kept, "", &corpus)?;
        }
        for (_, folder, suffix) in SEEDS.iter().filter(|(name, ..)| name == target) {
            copy_seeds(&workspace().join(folder), suffix, &corpus)?;
        }
        let mut command = fuzz("run");
        command
            .arg(target)
            .arg(&corpus)
            .arg("--")
            .arg(format!("-max_total_time={}", options.minutes * 60))
            .arg(format!("-timeout={TIMEOUT}"))
            .arg(format!("-rss_limit_mb={MEMORY_MB}"))
            .args(["-print_final_stats=1", "-verbosity=0"]);
        let dictionary = workspace().join(PACKAGE).join("dictionaries").join(target);
        if dictionary.exists() {
            command.arg(format!("-dict={}", dictionary.display()));
        }
        run(&mut command)?;
    }
    Ok(())
}

fn fuzz(verb: &str) -> Command {
    // Not `$CARGO`, which is the toolchain that runs this task.
    let mut command = Command::new("cargo");
    command
        .args(["+nightly", "fuzz", verb, "--fuzz-dir", PACKAGE])
        .current_dir(workspace());
    command
}

/// Copies the files below `folder` whose names end in `suffix`, under names that tell them apart.
fn copy_seeds(folder: &Path, suffix: &str, corpus: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            copy_seeds(&path, suffix, corpus)?;
        } else if path.to_string_lossy().ends_with(suffix) {
            let name = path.strip_prefix(workspace()).unwrap_or(&path);
            let name = name.to_string_lossy().replace('/', "-");
            fs::copy(&path, corpus.join(name))?;
        }
    }
    Ok(())
}
