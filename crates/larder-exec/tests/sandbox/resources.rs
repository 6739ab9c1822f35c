//! Limits, by cgroups of either version.

use std::path::{Path, PathBuf};

use larder_exec::{ErrorKind, Outcome, ResourceLimits};

use crate::fixture::{Sandbox, run, skipped, text_of};
use crate::runner::Case;

pub const CASES: &[Case] = &[
    ("limits_are_set_or_told", limits_are_set_or_told),
    ("memory_is_limited", memory_is_limited),
    ("wrong_limits_are_refused", wrong_limits_are_refused),
    ("a_parent_is_joined", a_parent_is_joined),
];

/// Returns where a controller is mounted, and whether it is of version 1.
fn hierarchy(controller: &str) -> Option<(PathBuf, bool)> {
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().find_map(|line| {
        let mount = Path::new(line.split(' ').nth(4)?);
        if line.contains(" - cgroup2 ") {
            let known = fs_err::read_to_string(mount.join("cgroup.controllers")).ok()?;
            let has = known.split_whitespace().any(|name| name == controller);
            return has.then(|| (mount.to_owned(), false));
        }
        let (_, options) = line.rsplit_once(' ')?;
        let has = line.contains(" - cgroup ") && options.split(',').any(|name| name == controller);
        has.then(|| (mount.to_owned(), true))
    })
}

fn limits_are_set_or_told() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut spec = sandbox.shell("grep Cpus_allowed_list /proc/self/status");
    spec.limits = ResourceLimits {
        cpu_shares: Some(512),
        cpu_quota_micros: Some(50_000),
        cpuset_cpus: Some("0".to_owned()),
        pids_count: Some(77),
        ..ResourceLimits::default()
    };
    let output = run(spec).unwrap();
    if hierarchy("cpuset").is_some() {
        assert_eq!(output.stdout, "Cpus_allowed_list:\t0\n", "{output:?}");
    }
    for (controller, what) in [("cpu", "CPU shares"), ("cpuset", "CPUs"), ("pids", "pids")] {
        let is_told = output.exit.unmet.iter().any(|line| line.starts_with(what));
        assert_eq!(
            is_told,
            hierarchy(controller).is_none(),
            "{controller}: {:?}",
            output.exit.unmet
        );
    }
    // A fork bomb of a kind.
    let mut spec = sandbox.shell("for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done; echo all");
    spec.limits.pids_count = Some(4);
    let output = run(spec).unwrap();
    if output.exit.unmet.is_empty() {
        assert!(
            !output.stdout.contains("all") || output.stderr.contains("can't fork"),
            "{output:?}"
        );
    }
}

fn memory_is_limited() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut spec = sandbox.shell("dd if=/dev/zero of=/dev/null bs=200M count=1; echo alive");
    spec.limits.memory_bytes = Some(32 << 20);
    spec.limits.memory_swap_bytes = Some(32 << 20);
    let output = run(spec).unwrap();
    if hierarchy("memory").is_none() {
        assert!(output.exit.unmet[0].starts_with("memory: "), "{output:?}");
        return;
    }
    assert!(output.exit.oom_killed, "{output:?}");
    assert_eq!(output.stdout, "alive\n", "the shell lives on");
    let mut spec = sandbox.command(&["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]);
    spec.limits.memory_bytes = Some(32 << 20);
    let output = run(spec).unwrap();
    assert!(output.exit.oom_killed, "{output:?}");
    assert_eq!(output.exit.outcome, Outcome::Signaled(9));
}

fn wrong_limits_are_refused() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let check = |limits: ResourceLimits, expected: &str| {
        let mut spec = sandbox.shell("true");
        spec.limits = limits;
        let error = run(spec).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        let text = text_of(&error);
        assert!(text.starts_with(expected), "{text}");
    };
    check(
        ResourceLimits {
            memory_swap_bytes: Some(1 << 20),
            ..ResourceLimits::default()
        },
        "swap can be limited only together with memory",
    );
    if hierarchy("cpuset").is_some() {
        check(
            ResourceLimits {
                cpuset_cpus: Some("7000".to_owned()),
                ..ResourceLimits::default()
            },
            "cannot limit CPUs to `7000`",
        );
    }
    let mut spec = sandbox.shell("true");
    spec.cgroup_parent = Some("/a/../..".to_owned());
    assert_eq!(run(spec).unwrap_err().kind(), ErrorKind::Input);
}

fn a_parent_is_joined() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut spec = sandbox.shell("true");
    spec.cgroup_parent = Some("/larder-test-parent".to_owned());
    let output = run(spec).unwrap();
    assert_eq!(output.exit.unmet, [""; 0]);
    larder_exec::shutdown();
    let mut parents = Vec::new();
    for controller in ["", "memory", "cpu", "cpuset", "pids"] {
        let mount = match controller {
            "" => {
                let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
                let line = mounts.lines().find(|line| line.contains(" - cgroup2 "));
                line.map(|line| PathBuf::from(line.split(' ').nth(4).unwrap()))
            }
            controller => hierarchy(controller).map(|(mount, _)| mount),
        };
        parents.extend(mount.map(|mount| mount.join("larder-test-parent")));
    }
    parents.sort();
    parents.dedup();
    for parent in parents {
        fs_err::remove_dir(parent.join("larder")).unwrap();
        fs_err::remove_dir(parent).unwrap();
    }
}
