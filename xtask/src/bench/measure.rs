use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fs_err as fs;

use crate::run::line;

/// What one run took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Time on the clock.
    pub(super) wall: Duration,
    /// CPU time, user and system, of the process and of all its descendants that were waited for.
    pub(super) cpu: Duration,
}

/// Runs `command` to its end under bash, whose `time` counts milliseconds of all it waited for.
///
/// The clock runs in bash too, so that bash's own start does not count.
pub(super) fn measure(command: &mut Command) -> Result<Sample> {
    let dir = tempfile::tempdir()?;
    let times = dir.path().join("times");
    let mut bash = Command::new("bash");
    bash.args([
        "-c",
        "TIMEFORMAT='%3R %3U %3S'; { time \"$@\" 2>&3; } 3>&2 2>\"$0\"",
    ])
    .arg(&times);
    run_under(bash, command)?;
    let times = fs::read_to_string(&times)?;
    let seconds: Vec<f64> = times
        .split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    let [wall, user, system] = seconds[..] else {
        bail!("bash gave no times: `{times}`");
    };
    Ok(Sample {
        wall: Duration::from_secs_f64(wall),
        cpu: Duration::from_secs_f64(user + system),
    })
}

/// Runs `command` to its end under GNU time; returns the largest resident set of any one of its
/// processes.
pub(super) fn peak_bytes(command: &mut Command) -> Result<u64> {
    let dir = tempfile::tempdir()?;
    let peak = dir.path().join("peak");
    let mut time = Command::new("time");
    time.args(["-f", "%M", "-o"]).arg(&peak);
    run_under(time, command)?;
    let kib: u64 = fs::read_to_string(&peak)?
        .trim()
        .parse()
        .context("GNU time gave no peak")?;
    Ok(kib * 1024)
}

/// Runs `command` as the arguments of `measuring`, its output kept for the case that it fails.
fn run_under(mut measuring: Command, command: &Command) -> Result<()> {
    let output = measuring
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null())
        .output()?;
    ensure!(
        output.status.success(),
        "`{}` failed with {}:\n{}",
        line(command),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_time_on_the_clock_and_of_the_processor() {
        let busy = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done";
        let sample = measure(Command::new("sh").args(["-c", busy])).unwrap();
        assert!(
            sample.cpu > Duration::ZERO && sample.cpu <= sample.wall * 2,
            "{sample:?}"
        );
        let error = measure(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
    }
}
