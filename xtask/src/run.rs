//! Runs other programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use larder_testkit::target_dir;

/// Returns the folder of the workspace.
pub(crate) fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest
        .parent()
        .expect("xtask lies in the workspace")
        .to_owned()
}

/// Returns `cargo` in the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// Prints `command` and runs it; an error unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", line(command));
    let status = command
        .status()
        .with_context(|| format!("cannot run `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed with {status}", line(command));
    }
    Ok(())
}

/// Runs `command` and returns what it printed; an error, with its complaints, unless it succeeds.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run `{}`", line(command)))?;
    if !output.status.success() {
        let complaints = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{}` failed with {}: {complaints}",
            line(command),
            output.status
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Builds larder in release mode; returns the binary's path.
pub(crate) fn build_larder() -> Result<PathBuf> {
    run(cargo().args(["build", "--release", "--package", "larder-cli"]))?;
    Ok(target_dir().join("release/larder"))
}

/// Returns the command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let program = |word: &str| word.rsplit('/').next().unwrap_or(word).to_owned();
    let mut words = words.map(|word| word.to_string_lossy());
    let first = words.next().map(|word| program(&word)).unwrap_or_default();
    std::iter::once(first)
        .chain(words.map(std::borrow::Cow::into_owned))
        .collect::<Vec<_>>()
        .join(" ")
}
