use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use fs_err as fs;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use crate::run::{line, output};

/// What one run took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Time on the clock.
    pub(super) wall: Duration,
    /// CPU time, user and system, of the process and of all its descendants that were waited for.
    pub(super) cpu: Duration,
}

/// Runs `command` to its end. One runs at a time: what children took is known of all together.
pub(super) fn measure(command: &mut Command) -> Result<Sample> {
    // A file, as a pipe would have to be read meanwhile.
    let complaints = tempfile::tempfile()?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(complaints.try_clone()?);
    let cpu = children_cpu()?;
    let start = Instant::now();
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run `{}`", line(command)))?;
    let status = child.wait()?;
    let wall = start.elapsed();
    let cpu = children_cpu()?.saturating_sub(cpu);
    if !status.success() {
        bail!(
            "`{}` failed with {status}:\n{}",
            line(command),
            read_from_start(complaints)?
        );
    }
    Ok(Sample { wall, cpu })
}

/// Returns what all children that were waited for took.
fn children_cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let microseconds = (usage.user_time() + usage.system_time()).num_microseconds();
    Ok(Duration::from_micros(microseconds as u64))
}

fn read_from_start(mut file: File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Forces to the disk what was written so far, so that it is not the next one who waits for it.
pub(super) fn settle() -> Result<()> {
    output(&mut Command::new("sync")).map(drop)
}

/// Runs `command` to its end under GNU time; returns the largest resident set of any one of its
/// processes. (Among them would be this one, forked, if it ran it itself.)
pub(super) fn peak_bytes(command: &Command) -> Result<u64> {
    let dir = tempfile::tempdir()?;
    let peak = dir.path().join("peak");
    let mut time = Command::new("time");
    time.args(["-f", "%M", "-o"]).arg(&peak);
    time.arg(command.get_program()).args(command.get_args());
    measure(&mut time)?;
    let kib: u64 = fs::read_to_string(&peak)?
        .trim()
        .parse()
        .context("GNU time gave no peak")?;
    Ok(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_time_on_the_clock_and_of_the_processor() {
        let busy = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done";
        let sample = measure(Command::new("sh").args(["-c", busy])).unwrap();
        assert!(
            sample.cpu > Duration::ZERO && sample.wall > Duration::ZERO,
            "{sample:?}"
        );
        let error = measure(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
    }
}
