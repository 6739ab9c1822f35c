use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};

use crate::target_dir;

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

/// Returns a directory with the files of a Debian package, fetched and unpacked below `target/`, but
/// not installed: no other program of the machine finds them.
pub fn unpacked(package: &str) -> Result<PathBuf> {
    let tools = target_dir().join("tools");
    fs_err::create_dir_all(&tools)?;
    let lock = fs_err::File::create(tools.join(format!("{package}.lock")))?;
    lock.file().lock().context("cannot lock the tools")?;
    let directory = tools.join(package);
    if directory.is_dir() {
        return Ok(directory);
    }
    update()?;
    let work = tempfile::tempdir_in(&tools)?;
    output(
        Command::new("apt-get")
            .args(["download", "-qq", package])
            .current_dir(work.path()),
    )?;
    let fetched = fs_err::read_dir(work.path())?.next();
    let fetched = fetched.context("apt-get downloaded no package")??.path();
    let files = work.path().join("files");
    output(Command::new("dpkg-deb").arg("-x").arg(fetched).arg(&files))?;
    fs_err::rename(files, &directory)?;
    Ok(directory)
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
