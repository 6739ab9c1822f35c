//! That nothing outlives its time: not after many runs, not after `kill -9`.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use larder_exec::{Cancel, Network, Outcome};

use crate::fixture::{Sandbox, run, run_with, says, skipped};
use crate::runner::Case;

pub const CASES: &[Case] = &[
    ("many_runs_leave_nothing", many_runs_leave_nothing),
    ("runs_go_on_at_once", runs_go_on_at_once),
    ("killed_larder_leaves_nothing", killed_larder_leaves_nothing),
    (
        "killed_process_group_leaves_nothing",
        killed_process_group_leaves_nothing,
    ),
    ("killed_spawner_is_replaced", killed_spawner_is_replaced),
    ("sweep_removes_what_is_left", sweep_removes_what_is_left),
    ("sweep_spares_the_living", sweep_spares_the_living),
    ("shutdown_leaves_nothing", shutdown_leaves_nothing),
    (
        "runs_survive_the_end_of_their_thread",
        runs_survive_the_end_of_their_thread,
    ),
];

pub const PARTS: &[Case] = &[("@hold", hold), ("@once", once)];

/// How long to wait for what the kernel does by itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// A mark that a process can be found by.
const MARK: &str = "31536000";

/// Waits until `done`, and fails if that does not come.
#[track_caller]
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

fn cgroups() -> PathBuf {
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 "));
    line.and_then(|line| line.split(' ').nth(4)).map_or_else(
        || PathBuf::from("/nonexistent"),
        |path| Path::new(path).join("larder"),
    )
}

/// Returns the cgroups of larder processes, but for this one's.
fn others_cgroups() -> Vec<String> {
    let own = format!("{}.", std::process::id());
    let Ok(entries) = fs_err::read_dir(cgroups()) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| !name.starts_with(&own))
        .collect()
}

/// Returns the processes whose command lines contain `text`.
fn processes(text: &str) -> Vec<u32> {
    let own = std::process::id();
    fs_err::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
        })
        .collect()
}

fn open_files() -> usize {
    fs_err::read_dir("/proc/self/fd").unwrap().count()
}

fn children() -> usize {
    let pid = std::process::id();
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs_err::read_to_string(path).unwrap();
    text.split_whitespace().count()
}

fn mounts() -> usize {
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().count()
}

fn many_runs_leave_nothing() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.says("true");
    let count = || {
        let own = cgroups().join(format!("{}.0", std::process::id()));
        let left = fs_err::read_dir(own).map_or(0, |entries| {
            entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .count()
        });
        (open_files(), children(), mounts(), left)
    };
    let before = count();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let sandbox = Sandbox::new();
                for number in 0..50 {
                    let mut spec = sandbox.shell("(sleep 1000 &); exit 3");
                    if number % 10 == 0 {
                        spec.network = Network::None;
                    }
                    assert_eq!(run(spec).unwrap().exit.outcome, Outcome::Exited(3));
                }
            });
        }
    });
    run(sandbox.command(&["/missing"])).unwrap_err();
    assert_eq!(count(), before, "files, children, mounts, cgroups");
    assert_eq!(processes("sleep\u{0}1000"), [0_u32; 0]);
}

fn runs_go_on_at_once() {
    if skipped() {
        return;
    }
    // Each waits for the other's message: they must run at the same time.
    let sandboxes = [Sandbox::new(), Sandbox::new()];
    let shared = Sandbox::new();
    let directory = shared.temp.path().join("shared");
    fs_err::create_dir(&directory).unwrap();
    std::thread::scope(|scope| {
        for (index, sandbox) in sandboxes.iter().enumerate() {
            let directory = &directory;
            scope.spawn(move || {
                let script = format!(
                    "touch /shared/{index}; while [ ! -e /shared/{} ]; do :; done",
                    1 - index
                );
                let mut spec = sandbox.shell(&script);
                let access = larder_exec::mount::Access::ReadWrite;
                let bind = larder_exec::mount::bind(directory, access).unwrap();
                spec.mounts = vec![larder_exec::MountPoint {
                    target: "/shared".to_owned(),
                    source: larder_exec::MountSource::Bind(bind),
                    readonly: false,
                }];
                says(spec);
            });
        }
    });
}

/// This program, started again. Killed on drop.
struct Larder(std::process::Child);

impl Larder {
    /// Starts `part`, in a process group of its own.
    fn start(part: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .arg(part)
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn();
        Self(child.unwrap())
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    /// Waits until its cgroups are removed.
    #[track_caller]
    fn leaves_no_cgroup(&self) {
        let name = format!("{}.", self.0.id());
        eventually("the cgroup is removed", || {
            !others_cgroups()
                .iter()
                .any(|cgroup| cgroup.starts_with(&name))
        });
    }
}

impl Drop for Larder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Part: runs a process that does not end, and tells when it runs.
fn hold() {
    let sandbox = Sandbox::new();
    let spec = sandbox.shell(&format!(
        "trap '' TERM HUP; (sleep {MARK} &); echo ready; sleep {MARK}"
    ));
    let cancel = Cancel::new().unwrap();
    run_with(spec, &cancel, &mut |text| print!("{text}")).unwrap();
}

/// Part: one run, and no farewell.
fn once() {
    let sandbox = Sandbox::new();
    sandbox.says("true");
}

/// Starts a larder that runs something, kills it with `kill`, and checks that all goes with it.
fn kill_and_check(kill: impl FnOnce(Pid)) {
    let mut larder = Larder::start("@hold");
    let mut line = String::new();
    BufReader::new(larder.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    let sleepers = || processes(&format!("sleep\u{0}{MARK}")).len();
    eventually("the container runs", || sleepers() == 2);
    kill(larder.pid());
    larder.0.wait().unwrap();
    eventually("the container dies", || sleepers() == 0);
    larder.leaves_no_cgroup();
}

fn killed_larder_leaves_nothing() {
    if skipped() {
        return;
    }
    kill_and_check(|pid| rustix::process::kill_process(pid, Signal::KILL).unwrap());
}

fn killed_process_group_leaves_nothing() {
    if skipped() {
        return;
    }
    kill_and_check(|pid| rustix::process::kill_process_group(pid, Signal::KILL).unwrap());
}

/// Kills the spawner of the process `parent`.
fn kill_spawner(parent: u32) {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let children = fs_err::read_to_string(path).unwrap();
    let spawner = children
        .split_whitespace()
        .map(|pid| pid.parse::<i32>().unwrap())
        .find(|pid| {
            fs_err::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| name.trim() == "larder-spawner")
        });
    let pid = Pid::from_raw(spawner.unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

fn killed_spawner_is_replaced() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let spec = sandbox.shell(&format!("echo ready; sleep {MARK}"));
    let cancel = Cancel::new().unwrap();
    let outcome = run_with(spec, &cancel, &mut |_| kill_spawner(std::process::id()));
    assert_eq!(outcome.unwrap_err().to_string(), "the spawner died");
    eventually("the container dies", || {
        processes(&format!("sleep\u{0}{MARK}")).is_empty()
    });
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.says("echo again"), "again");
}

/// Makes what a larder leaves whose spawner was killed, too. Returns whether it can be made here.
fn make_leftover(name: &str) -> bool {
    fs_err::create_dir_all(cgroups().join(name).join("1")).is_ok()
}

fn sweep_removes_what_is_left() {
    if skipped() {
        return;
    }
    if !make_leftover("4194304.0") {
        println!("skipped: no cgroup of version 2");
        return;
    }
    // With a process in it.
    let mut child = Command::new("sleep").arg(MARK).spawn().unwrap();
    let procs = cgroups().join("4194304.0/1/cgroup.procs");
    fs_err::write(procs, child.id().to_string()).unwrap();
    let waiting = std::thread::spawn(move || child.wait().unwrap());
    larder_exec::sweep();
    assert!(!cgroups().join("4194304.0").exists());
    assert!(!waiting.join().unwrap().success());
}

fn sweep_spares_the_living() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let spec = sandbox.shell("echo ready; sleep 0.2; exit 9");
    let cancel = Cancel::new().unwrap();
    let output = run_with(spec, &cancel, &mut |_| larder_exec::sweep()).unwrap();
    assert_eq!(output.exit.outcome, Outcome::Exited(9));
    assert_eq!(sandbox.says("echo on"), "on");
}

fn shutdown_leaves_nothing() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.says("true");
    larder_exec::shutdown();
    assert_eq!(children(), 0);
    assert!(!cgroups().join(format!("{}.0", std::process::id())).exists());
    assert_eq!(sandbox.says("echo again"), "again");

    // Nor does a plain exit.
    let mut larder = Larder::start("@once");
    assert!(larder.0.wait().unwrap().success());
    larder.leaves_no_cgroup();
}

fn runs_survive_the_end_of_their_thread() {
    if skipped() {
        return;
    }
    larder_exec::shutdown();
    // The thread that starts the spawner ends; a "parent death signal" would end the spawner with
    // it.
    let sandbox = Sandbox::new();
    std::thread::scope(|scope| scope.spawn(|| sandbox.says("true")).join().unwrap());
    let before = processes("larder-exec-spawner");
    assert_eq!(sandbox.says("echo on"), "on");
    assert_eq!(processes("larder-exec-spawner"), before);
}
