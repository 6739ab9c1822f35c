use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};

/// Installs the Debian packages that are missing. Does nothing, without root too, when all are
/// there.
pub fn install(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .copied()
        .filter(|package| !is_installed(package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    update()?;
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(&missing);
    output(&mut command)
        .with_context(|| format!("cannot install {}", missing.join(", ")))
        .map(drop)
}

/// Fetches the package lists, once in this process.
pub(crate) fn update() -> Result<()> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    DONE.get_or_init(|| {
        output(Command::new("apt-get").args(["update", "-qq"]))
            .map(drop)
            .map_err(|error| format!("{error:#}"))
    })
    .clone()
    .map_err(anyhow::Error::msg)
}

/// Returns from where this machine's apt gets the main component of `suite`, or of Debian's other
/// suites: a mirror holds them all.
pub(crate) fn mirror(suite: &str) -> Result<String> {
    let text = output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(RELEASE) $(COMPONENT) $(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    let text = String::from_utf8_lossy(&text);
    let mains: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [release, "main", uri] if !release.contains(['-', '/']) => Some((release, uri)),
            _ => None,
        })
        .collect();
    mains
        .iter()
        .find(|(release, _)| *release == suite)
        .or(mains.first())
        .map(|(_, uri)| (*uri).to_owned())
        .context("apt has no source with a `main` component")
}

fn is_installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-Wf", "${db:Status-Status}", package])
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

/// Runs `command`; returns its output, or an error with the end of what it complained of.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    const LAST_LINES: usize = 10;
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot run `{program}`"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = text.lines().collect();
        let end = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        bail!("`{program}` failed with {}: {end}", output.status);
    }
    Ok(output.stdout)
}
