//! What steps may do and use: networks, entitlements, devices, limits.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::path::Path;
use std::process::Command;

use fs_err as fs;
use larder_testkit::{Base, Larder, Project, Run, Scratch, User, project, skip};

/// Writes a Dockerfile of these steps on busybox.
fn write(project: &Project, steps: &str) {
    project.write(&[("Dockerfile", &format!("FROM busybox\n{steps}\n"))]);
}

/// Builds, with a configuration and programs in `path`; returns what happened.
fn build_with(project: &Project, config: &str, path: &str, args: &[&str]) -> Run {
    let file = project.scratch().join("larder.toml");
    fs::write(&file, config).unwrap();
    let mut command = project.command(args);
    command.env("LARDER_CONFIG", file).env("PATH", path);
    Run::of(&mut command)
}

/// The line that tells of the network.
fn network(run: &Run) -> Vec<&str> {
    let lines = run.stderr.lines();
    let told = lines.filter_map(|line| line.split_once(" network: "));
    let mut told: Vec<&str> = told.map(|(_, text)| without_time(text)).collect();
    told.dedup();
    told
}

/// Returns what a status says without ` 0.1s done`: the time is there where it took any.
fn without_time(text: &str) -> &str {
    let text = text.trim_end_matches(" done");
    match text.rsplit_once(' ') {
        Some((rest, time)) if time.trim_end_matches('s').parse::<f64>().is_ok() => rest,
        _ => text,
    }
}

#[test]
fn the_network_of_steps_is_told_once_and_only_when_one_runs() {
    let project = project!(Base::Busybox);
    write(
        &project,
        "RUN true\nRUN echo two\nRUN --network=none ls /sys/class/net",
    );
    let none = "neither `pasta` nor `slirp4netns` is installed";
    let run = build_with(&project, "", "/nonexistent", &[]).success();
    assert_eq!(network(&run), [format!("the host's, since {none}")]);
    assert_eq!(run.step("--network=none").output(), ["lo"]);
    // What the network is does not enter keys; without a step there is nothing to tell.
    let forced = "[build]\nnetwork = \"host\"\n";
    let run = build_with(&project, forced, "/nonexistent", &[]).success();
    assert_eq!(network(&run), [""; 0]);
    assert_eq!(run.cached_count(), 4);
    let run = build_with(&project, forced, "/nonexistent", &["--no-cache"]).success();
    assert_eq!(
        network(&run),
        ["the host's, since the configuration says so"]
    );

    let forced = "[build]\nnetwork = \"pasta\"\n";
    let run = build_with(&project, forced, "/nonexistent", &["--no-cache"]);
    let _ = run.exit(1).says("`pasta` is not installed");
    let wrong = "[build]\nnetwork = \"bridge\"\n";
    let run = build_with(&project, wrong, "/nonexistent", &[]);
    let _ = run
        .exit(1)
        .says("expected auto, host, pasta or slirp4netns");
}

/// Makes a program of a script.
fn script(directory: &Path, name: &str, text: &str) {
    fs::create_dir_all(directory).unwrap();
    let path = directory.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&path, mode).unwrap();
}

#[test]
fn a_helper_that_does_not_serve_is_passed_over() {
    let project = project!(Base::Busybox);
    write(&project, "RUN ls /sys/class/net | wc -l");
    let bin = project.scratch().join("bin");
    script(&bin, "pasta", "echo 'no route' >&2; exit 1");
    let path = format!("{}:/bin:/usr/bin", bin.display());
    let run = build_with(&project, "", &path, &[]).success();
    assert_eq!(network(&run), ["the host's, since `pasta`: no route"]);
}

/// Returns where `pasta` is, taken from its package.
fn pasta() -> anyhow::Result<String> {
    let directory = larder_testkit::unpacked("passt")?.join("usr/bin");
    Ok(format!("{}:/usr/bin:/bin", directory.display()))
}

#[test]
fn steps_have_a_network_of_their_own_through_pasta() {
    let project = project!(Base::Busybox);
    let path = match pasta() {
        Ok(path) => path,
        Err(error) => skip!("no pasta: {error:#}"),
    };
    write(
        &project,
        "RUN ls /sys/class/net | wc -l; stat -L -c %i /proc/self/ns/net\n\
         RUN stat -L -c %i /proc/self/ns/net\n\
         RUN --network=host stat -L -c %i /proc/self/ns/net",
    );
    let run = build_with(&project, "", &path, &["--allow", "network.host"]).success();
    let told = network(&run);
    if told != ["own, through `pasta`"] {
        skip!("pasta does not serve here: {told:?}");
    }
    let steps = ["[2/4]", "[3/4]", "[4/4]"].map(|name| run.step(name));
    let [first, second, host] = steps.each_ref().map(|step| step.output());
    assert_eq!(first[0], "2");
    assert_eq!(first[1], second[0], "one after the other they share it");
    assert_ne!(second, host);
    // The helper ends with larder.
    let left = Command::new("pgrep")
        .args(["-f", &path[..path.find(':').unwrap()]])
        .output();
    assert!(left.unwrap().stdout.is_empty());

    // A proxy on the host's loopback is out of its reach.
    let mut command = project.command(&["--no-cache", "--host-ca", "--allow", "network.host"]);
    command
        .env("PATH", &path)
        .env("http_proxy", "http://127.0.0.1:3128");
    let run = Run::of(&mut command).success();
    assert_eq!(
        network(&run),
        ["the host's, since its proxy is on its loopback"]
    );
}

#[test]
fn entitlements_are_asked_for_and_may_be_bounded() {
    let project = project!(Base::Busybox);
    write(
        &project,
        "RUN --security=insecure grep -c 'Seccomp:.0' /proc/self/status",
    );
    let refused = project.build(&[]).exit(1);
    let refused = refused.says("ERROR: failed to build: failed to solve: failed to load LLB: security.insecure is not allowed\n");
    assert!(
        refused.stderr.contains("Dockerfile:2"),
        "{}",
        refused.stderr
    );
    let run = project.build(&["--allow", "security.insecure"]).success();
    assert_eq!(run.step("RUN").output(), ["1"]);
    let bounded = "insecure-entitlements = [\"network.host\"]\n";
    let path = "/usr/bin:/bin";
    let run = build_with(&project, bounded, path, &["--allow", "security.insecure"]);
    let _ = run.exit(1).says(
        "granting entitlement security.insecure is not allowed by build daemon configuration",
    );

    write(&project, "RUN --network=host true");
    let _ = project
        .build(&[])
        .exit(1)
        .says("failed to load LLB: network.host is not allowed");
    // The flag allows what it asks for, as in buildx.
    let _ = project.build(&["--network=host"]).success();
    let _ = project.build(&["--allow", "network.host"]).success();
    let run = project.build(&["--allow", "network.hosts"]).exit(1);
    let _ = run.says("unknown entitlement key `network.hosts`");
}

#[test]
fn bake_and_compose_grant_entitlements() {
    let project = project!(Base::Busybox);
    write(&project, "RUN --security=insecure true");
    project.write(&[
        (
            "docker-bake.json",
            r#"{"target": {"default": {"entitlements": ["security.insecure"]}}}"#,
        ),
        (
            "compose.yaml",
            "services:\n  a:\n    build: {context: ., privileged: true}\n  b:\n    build: {context: ., entitlements: [security.insecure]}\n",
        ),
    ]);
    let larder = |args: &[&str]| {
        let mut command = project.larder().command(args);
        Run::of(command.current_dir(project.context()))
    };
    let bake = ["bake", "-f", "docker-bake.json"];
    let _ = larder(&bake).exit(1).says("--allow=security.insecure");
    let _ = larder(&[&bake[..], &["--allow", "security.insecure"]].concat()).success();
    let _ = larder(&["compose", "build"]).success();
}

const DEVICES: &str = r#"
cdiVersion: "0.6.0"
kind: "vendor1.com/device"
devices:
- name: foo
  containerEdits:
    env: [FOO=injected, PATH=/bin]
    deviceNodes:
    - {path: /dev/sub/null, hostPath: /dev/null, fileMode: 0600, uid: 3}
    mounts:
    - {hostPath: /proc/self/exe, containerPath: /opt/mounted, options: [ro]}
    additionalGids: [77]
- name: free
  annotations: {org.mobyproject.buildkit.device.autoallow: true}
  containerEdits:
    env: [FREE=1]
- name: hooked
  containerEdits:
    hooks: [{hookName: createContainer, path: /usr/bin/hook}]
"#;

#[test]
fn devices_are_given_by_name() {
    let project = project!(Base::Busybox);
    let specs = project.scratch().join("cdi");
    fs::create_dir(&specs).unwrap();
    fs::write(specs.join("vendor.yaml"), DEVICES).unwrap();
    let config = format!("[cdi]\nspecDirs = [\"{}\"]\n", specs.display());
    let build = |args: &[&str]| build_with(&project, &config, "/usr/bin:/bin", args);
    write(
        &project,
        "RUN --device=vendor1.com/device=foo echo $FOO; stat -c '%a %u' /dev/sub/null; \
         test -s /opt/mounted && id -G\n\
         RUN ls /dev/sub /opt/mounted 2>/dev/null | wc -l",
    );
    let refused = "failed to load LLB: device vendor1.com/device=foo is requested by the build but not allowed";
    let _ = build(&[]).exit(1).says(refused);
    let run = build(&["--allow", "device=vendor1.com/device=foo"]).success();
    assert_eq!(run.step("[2/3]").output(), ["injected", "600 3", "0 77"]);
    assert_eq!(run.step("[3/3]").output(), ["0"]);
    assert_eq!(build(&["--allow", "device"]).success().cached_count(), 3);

    write(
        &project,
        "RUN --device=vendor1.com/device=free --device=other.com/none echo \"free $FREE\"",
    );
    let run = build(&[]).success();
    assert_eq!(run.step("RUN").output(), ["free 1"]);
    // What is there counts for the key, whatever the step calls it.
    fs::write(
        specs.join("other.yaml"),
        "cdiVersion: 0.6.0\nkind: other.com/x\ndevices:\n- name: none\nannotations: \
         {org.mobyproject.buildkit.device.autoallow: 'true', org.mobyproject.buildkit.device.class: other.com/none}\n",
    )
    .unwrap();
    assert_eq!(build(&[]).success().cached_count(), 1);
    for (device, expected) in [
        (
            "none.com/a,required",
            "required device \"none.com/a\" is not registered",
        ),
        (
            "vendor1.com/device=hooked",
            "has hooks (`createContainer`: `/usr/bin/hook`)",
        ),
        ("a,b", "invalid field 'b' must be a key=value pair"),
    ] {
        write(&project, &format!("RUN --device={device} true"));
        let _ = build(&["--allow", "device"]).exit(1).says(expected);
    }
    let mut info = project.larder().command(["info"]);
    let run = Run::of(info.env("LARDER_CONFIG", project.scratch().join("larder.toml")));
    let text = run.success().text();
    assert!(
        text.contains("vendor1.com/device=free (automatically allowed)"),
        "{text}"
    );
    assert!(text.contains("Network: "), "{text}");
}

/// Whether a controller is there, in either version.
fn has_controller(name: &str) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().any(|line| {
        let mount = Path::new(line.split(' ').nth(4).unwrap_or("/"));
        let known = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        let unified = line.contains(" - cgroup2 ") && known.split_whitespace().any(|it| it == name);
        let options = line.rsplit(' ').next().unwrap_or_default();
        unified || line.contains(" - cgroup ") && options.split(',').any(|it| it == name)
    })
}

#[test]
fn steps_that_need_more_memory_are_killed_and_that_is_said() {
    let project = project!(Base::Busybox);
    write(&project, "RUN dd if=/dev/zero of=/dev/null bs=200M count=1");
    let limits = ["--memory", "32m", "--memory-swap", "32m"];
    let run = project.build(&limits);
    if !has_controller("memory") {
        let _ = run
            .success()
            .says("not limited: memory: there is no cgroup controller `memory`");
        return;
    }
    let _ = run
        .exit(1)
        .says("exit code: 137: out of memory (its limit is 32 MiB)");
    // Limits are no part of the key.
    let _ = project.build(&["--resource", "memory=1g"]).success();
    assert_eq!(project.build(&[]).success().cached_count(), 2);
}

#[test]
fn flags_of_resources_reach_the_steps() {
    let project = project!(Base::Busybox);
    write(
        &project,
        "RUN grep Cpus_allowed_list /proc/self/status; cat /proc/self/cgroup",
    );
    if !has_controller("cpuset") {
        skip!("no controller `cpuset`");
    }
    let args = [
        "--cpuset-cpus",
        "0",
        "--cpu-shares",
        "512",
        "--cpu-quota",
        "50000",
        "--cgroup-parent",
        "/larder-rights-test",
    ];
    let run = project.build(&args).success();
    assert_eq!(run.step("RUN").output()[0], "Cpus_allowed_list:\t0");
    let _ = project
        .build(&["--no-cache", "--cpuset-cpus", "7000"])
        .exit(1)
        .says("cannot limit CPUs to `7000`");
    let _ = project
        .build(&["--memory", "lots"])
        .exit(1)
        .says("`--memory`: `lots`");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for line in mounts.lines().filter(|line| line.contains(" - cgroup")) {
        let parent = Path::new(line.split(' ').nth(4).unwrap()).join("larder-rights-test");
        if parent.exists() {
            fs::remove_dir(parent.join("larder")).unwrap();
            fs::remove_dir(parent).unwrap();
        }
    }
}

#[test]
fn without_root_what_insecure_means_is_told() {
    let user = match User::with_subordinate_ids() {
        Ok(user) => user,
        Err(error) => skip!("no ordinary user: {error:#}"),
    };
    let archive = match Base::Busybox.archive() {
        Ok(archive) => archive,
        Err(error) => skip!("no base image: {error:#}"),
    };
    let scratch = Scratch::owned_by(&user);
    let larder = Larder::new(env!("CARGO_BIN_EXE_larder"), &scratch).as_user(user, &scratch);
    let mut import = larder.command(["import", "-", "busybox"]);
    import.stdin(fs::File::open(archive).unwrap().into_parts().0);
    let _ = Run::of(&mut import).success();
    let dockerfile =
        "FROM busybox\nRUN --security=insecure mount -t tmpfs none /tmp && echo mounted\n";
    let context = scratch.context("context", &[("Dockerfile", dockerfile)]);
    let build = |allow: &[&str]| {
        let mut command = larder.command(["build", "--progress", "plain"]);
        Run::of(command.args(allow).arg(&context))
    };
    let _ = build(&[]).exit(1).says("security.insecure is not allowed");
    let run = build(&["--allow", "security.insecure"]).success();
    let run = run.says("`--security=insecure` without root: the step may do all that the user may");
    assert_eq!(run.step("RUN").output(), ["mounted"]);
    let limited = build(&[
        "--memory",
        "1g",
        "--no-cache",
        "--allow",
        "security.insecure",
    ]);
    let _ = limited.success().says("not limited: memory: ");
}
