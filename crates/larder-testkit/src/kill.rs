use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use fs_err as fs;

/// Runs `command` without output and ends it with SIGKILL after `delay`. Returns whether it was
/// killed; `false` if it had ended by then.
///
/// Only the process itself is killed: what it started is its own to clean up after.
pub fn kill_after(command: &mut Command, delay: Duration) -> Result<bool> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the process that is to be killed")?;
    let pid = child.id().to_string();
    // Not `Child::kill`, which cannot be called while another thread waits for the end.
    let (ended, waiting) = mpsc::channel();
    let killer = thread::spawn(move || match waiting.recv_timeout(delay) {
        Err(mpsc::RecvTimeoutError::Timeout) => {
            Command::new("kill").args(["-KILL", &pid]).status().is_ok()
        }
        _ => false,
    });
    let status = child.wait()?;
    // The killer may be gone already.
    let _ = ended.send(());
    killer.join().expect("the killer does not panic");
    Ok(std::os::unix::process::ExitStatusExt::signal(&status) == Some(9))
}

/// Waits until no other process has `mark` in its environment, its mounts or its arguments, for
/// `patience` at most. Returns the ids of those that have it still.
pub fn processes_left(mark: &str, patience: Duration) -> Vec<u32> {
    const POLL: Duration = Duration::from_millis(20);
    let mut waited = Duration::ZERO;
    loop {
        let left = processes_with(mark);
        if left.is_empty() || waited >= patience {
            return left;
        }
        thread::sleep(POLL);
        waited += POLL;
    }
}

fn processes_with(mark: &str) -> Vec<u32> {
    let is_marked = |id: &u32| {
        ["environ", "mountinfo", "cmdline"].iter().any(|file| {
            // A process may end meanwhile.
            let bytes = fs::read(format!("/proc/{id}/{file}")).unwrap_or_default();
            bytes
                .windows(mark.len())
                .any(|window| window == mark.as_bytes())
        })
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| *id != std::process::id() && is_marked(id))
        .collect()
}

/// Returns `count` delays between 0 and `longest`, the same ones for the same `seed`.
pub fn random_delays(seed: u64, count: usize, longest: Duration) -> impl Iterator<Item = Duration> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        // SplitMix64: small, and even with neighbouring seeds.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let fraction = ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        longest.mul_f64(fraction)
    })
    .take(count)
}

/// Kills `count` processes, each started by `victim` with the number of the round, after random
/// delays of up to `longest`; `next` is called after each round. Delays grow shorter while processes
/// end before they are killed, and longer again. Returns how many were killed: fewer than `count`
/// after four times as many rounds.
pub fn kill_many(
    seed: u64,
    count: usize,
    longest: Duration,
    mut victim: impl FnMut(usize) -> Command,
    mut next: impl FnMut(usize),
) -> Result<usize> {
    let mut kills = 0;
    let mut share = 1.0_f64;
    for (round, delay) in random_delays(seed, 4 * count, longest).enumerate() {
        if kills == count {
            break;
        }
        if kill_after(&mut victim(round), delay.mul_f64(share))? {
            kills += 1;
            share = (share * 1.3).min(1.0);
        } else {
            share *= 0.7;
        }
        next(round);
    }
    Ok(kills)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_what_runs_and_spares_what_ended() {
        let mut endless = Command::new("cat");
        endless.arg("/dev/zero");
        assert!(kill_after(&mut endless, Duration::from_millis(10)).unwrap());
        assert!(!kill_after(&mut Command::new("true"), Duration::from_secs(60)).unwrap());
    }

    #[test]
    fn processes_are_known_by_a_mark() {
        let mark = format!("mark-{}-of-a-test", std::process::id());
        let mut child = Command::new("cat")
            .env("MARK", &mark)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        assert_eq!(processes_left(&mark, Duration::ZERO), [child.id()]);
        // Its input ends.
        child.wait().unwrap();
        let patience = Duration::from_secs(10);
        assert!(processes_left(&mark, patience).is_empty());
    }

    #[test]
    fn delays_are_spread_and_repeatable() {
        let delays = || random_delays(7, 1000, Duration::from_secs(1));
        assert!(delays().eq(delays()));
        let mean = delays().sum::<Duration>() / 1000;
        assert!((0.45..0.55).contains(&mean.as_secs_f64()), "{mean:?}");
    }
}
