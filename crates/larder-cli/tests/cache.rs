//! What runs again in a second build, and what does not.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use fs_err as fs;
use larder_testkit::{Base, Larder, Project, Run, install, project, skip};

const NOTHING: [&str; 0] = [];

/// Builds, and checks which instructions were not cached.
#[track_caller]
fn check(project: &Project, args: &[&str], ran: &[&str]) -> Run {
    let run = project.build(args).success();
    assert_eq!(run.ran(), ran, "{}", run.stderr);
    run
}

fn chmod(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::Permissions::from_mode(mode);
    fs::set_permissions(path, mode).expect("the test owns the file");
}

fn shop(project: &Project) {
    project.write(&[
        (
            "Dockerfile",
            "FROM busybox AS tools\n\
             RUN cat /proc/sys/kernel/random/uuid > /tool\n\
             FROM busybox\n\
             WORKDIR /app\n\
             COPY a.txt b.txt ./\n\
             RUN --mount=type=cache,target=/cache cat *.txt > all && cat /proc/sys/kernel/random/uuid > /cache/now\n\
             COPY dir/ dir/\n\
             COPY --from=tools --chmod=700 /tool /bin/tool\n\
             RUN ls dir > listing\n",
        ),
        (".dockerignore", "*.log\ndir/ignored\n"),
        ("a.txt", "a"),
        ("b.txt", "b"),
        ("dir/x", "x"),
        ("dir/ignored", "1"),
        ("build.log", "1"),
        ("unused", "1"),
    ]);
}

#[test]
fn a_rebuild_runs_nothing_and_gives_the_same_bytes() {
    let project = project!(Base::Busybox);
    shop(&project);
    let archives = ["one", "two"].map(|name| project.scratch().join(name));
    let outputs = archives
        .each_ref()
        .map(|path| format!("type=oci,dest={}", path.display()));
    let first = project.build(&["-o", &outputs[0], "-t", "shop"]).success();
    assert_eq!(first.cached_count(), 0, "{}", first.stderr);
    let second = check(&project, &["-o", &outputs[1], "-t", "shop"], &NOTHING);
    assert_eq!(second.cached_count(), 8, "{}", second.stderr);
    let [one, two] = archives.map(|path| fs::read(path).unwrap());
    assert!(one == two, "the archives differ");

    let stored =
        ["one", "two"].map(|_| check(&project, &["-t", "shop"], &NOTHING).manifest_digest());
    assert_eq!(stored[0], stored[1]);
}

#[test]
fn only_what_a_file_is_part_of_runs_again() {
    let project = project!(Base::Busybox);
    shop(&project);
    let first = project.build(&[]).success().manifest_digest();
    let path = |name: &str| project.context().join(name);
    let write = |name: &str, content: &str| fs::write(path(name), content).unwrap();
    let after_dir = [
        "COPY dir/ dir/",
        "COPY --from=tools --chmod=700 /tool /bin/tool",
        "RUN ls dir > listing",
    ];
    let all = [
        "COPY a.txt b.txt ./",
        "RUN --mount=type=cache,target=/cache cat *.txt > all && cat /proc/sys/kernel/random/uuid > /cache/now",
        after_dir[0],
        after_dir[1],
        after_dir[2],
    ];
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for name in ["a.txt", "b.txt", "dir", "dir/x", "Dockerfile", "build.log"] {
        let file = std::fs::File::open(path(name)).unwrap();
        file.set_modified(old).unwrap();
    }
    check(&project, &[], &NOTHING);

    chmod(&path("b.txt"), 0o755);
    check(&project, &[], &all);
    chmod(&path("b.txt"), 0o644);
    let again = check(&project, &[], &NOTHING);
    assert_eq!(again.manifest_digest(), first);

    write("dir/x", "y");
    check(&project, &[], &after_dir);
    write("dir/x", "x");
    write("unused", "2");
    write("build.log", "2");
    write("dir/ignored", "2");
    check(&project, &[], &NOTHING);

    // Of the same size and at the same time, only the bytes tell.
    write("a.txt", "A");
    std::fs::File::open(path("a.txt"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    check(&project, &[], &all);
}

#[test]
fn an_edit_right_after_a_build_is_seen() {
    let project = project!(Base::Busybox);
    let dockerfile = "FROM busybox\nCOPY f /f\nRUN cat /f\n";
    project.write(&[("Dockerfile", dockerfile), ("f", "0")]);
    let _ = project.build(&[]).success();
    for n in 1..10 {
        let content = n.to_string();
        project.write(&[("f", &content)]);
        let run = project.build(&[]).success();
        assert_eq!(run.step("RUN").output(), [content], "{}", run.stderr);
    }
}

#[test]
fn a_stage_that_ran_again_and_gave_the_same_bytes_changes_nothing() {
    let project = project!(Base::Busybox);
    project.write(&[
        (
            "Dockerfile",
            "FROM busybox AS made\n\
             COPY seed /seed\n\
             RUN mkdir /out && echo fixed > /out/f && date > /log\n\
             FROM busybox\n\
             COPY --from=made /out /out\n\
             RUN cat /out/f > /copy\n\
             RUN --mount=from=made,source=/out,target=/m cat /m/f > /bound\n",
        ),
        ("seed", "1"),
    ]);
    let first = project.build(&[]).success().manifest_digest();
    project.write(&[("seed", "2")]);
    let ran = [
        "COPY seed /seed",
        "RUN mkdir /out && echo fixed > /out/f && date > /log",
    ];
    let second = check(&project, &[], &ran);
    assert_eq!(second.manifest_digest(), first);
}

#[test]
fn instructions_about_the_image_run_nothing() {
    let project = project!(Base::Busybox);
    let dockerfile = "FROM busybox\nRUN echo 1 > /1\n";
    project.write(&[("Dockerfile", dockerfile)]);
    let mut manifests = vec![project.build(&[]).success().manifest_digest()];
    for added in [
        "ENV A=1",
        "LABEL b=2",
        "CMD [\"sh\"]",
        "ENTRYPOINT [\"env\"]",
        "EXPOSE 80",
        "VOLUME /v",
        "USER 5",
        "STOPSIGNAL SIGINT",
        "HEALTHCHECK CMD true",
        "SHELL [\"ash\"]",
        "ARG Z=1",
        "ONBUILD RUN true",
        "MAINTAINER me",
    ] {
        project.write(&[("Dockerfile", &format!("{dockerfile}{added}\n"))]);
        manifests.push(check(&project, &[], &NOTHING).manifest_digest());
    }
    manifests.push(check(&project, &["--label", "c=3"], &NOTHING).manifest_digest());
    let total = manifests.len();
    manifests.sort();
    manifests.dedup();
    assert_eq!(manifests.len(), total, "two images are the same");
}

#[test]
fn variables_run_again_what_sees_them() {
    let project = project!(Base::Busybox);
    let dockerfile = |env: &str| {
        format!(
            "FROM busybox\n\
             RUN echo one > /one\n\
             ARG V=1\n\
             ENV E={env}\n\
             COPY f /f\n\
             RUN echo two > /two\n"
        )
    };
    project.write(&[("Dockerfile", &dockerfile("1")), ("f", "f")]);
    let _ = project.build(&[]).success();
    let two = ["RUN echo two > /two"];
    check(&project, &["--build-arg", "V=2"], &two);
    check(&project, &["--build-arg", "V=1"], &NOTHING);
    check(&project, &[], &NOTHING);
    check(&project, &["--build-arg", "NOT_DECLARED=1"], &NOTHING);
    check(
        &project,
        &["--build-arg", "HTTP_PROXY=http://localhost:1"],
        &NOTHING,
    );
    project.write(&[("Dockerfile", &dockerfile("2"))]);
    check(&project, &[], &two);
    check(&project, &["--build-arg", "V=3"], &two);
}

#[test]
fn only_the_named_stages_run_again() {
    let project = project!(Base::Busybox);
    project.write(&[(
        "Dockerfile",
        "FROM busybox AS one\n\
         RUN cat /proc/sys/kernel/random/uuid > /one\n\
         FROM busybox AS two\n\
         WORKDIR /w\n\
         RUN echo 2 > /two\n\
         FROM busybox AS unused\n\
         RUN exit 7\n\
         FROM busybox AS last\n\
         COPY --from=one /one /one\n\
         COPY --from=two /two /two\n",
    )]);
    let _ = project.build(&[]).success();
    let two = ["RUN echo 2 > /two"];
    check(&project, &["--no-cache-filter", "two"], &two);
    check(&project, &["--no-cache-filter=TWO"], &two);
    check(&project, &["--no-cache-filter", "unused"], &NOTHING);
    check(&project, &["--target", "one"], &NOTHING);
    // Only what reads the other bytes of `one` runs after it.
    let ran = [
        "RUN cat /proc/sys/kernel/random/uuid > /one",
        "COPY --from=one /one /one",
        "COPY --from=two /two /two",
    ];
    check(&project, &["--no-cache-filter", "one"], &ran);
    let failed = project.build(&["--target", "unused"]).exit(1);
    assert_eq!(failed.steps().len(), 5, "{}", failed.stderr);
}

#[test]
fn a_failed_step_is_not_cached_but_those_before_it_are() {
    let project = project!(Base::Busybox);
    project.write(&[(
        "Dockerfile",
        "FROM busybox\n\
         RUN echo 1 > /1\n\
         RUN --mount=type=cache,target=/c if [ -e /c/f ]; then true; else touch /c/f; exit 3; fi\n\
         RUN echo 2 > /2\n",
    )]);
    let failed = project.build(&[]).exit(1).says("exit code: 3");
    assert!(
        !failed.stderr.contains("echo 2 > /2\n#"),
        "{}",
        failed.stderr
    );
    let ran = [
        "RUN --mount=type=cache,target=/c if [ -e /c/f ]; then true; else touch /c/f; exit 3; fi",
        "RUN echo 2 > /2",
    ];
    check(&project, &[], &ran);
    check(&project, &[], &NOTHING);
}

/// Where layers are images, a changed file costs a changed file: no other is opened, and large ones
/// are not stored again.
#[test]
fn a_copy_takes_over_what_has_not_changed() {
    let project = project!(Base::Busybox);
    if let Err(error) = install(&["strace"]) {
        skip!("no strace: {error:#}");
    }
    let config = project.scratch().join("larder.toml");
    fs::write(&config, "[store]\nlayers = \"erofs\"\n").unwrap();
    let larder = project.larder().clone().with_env("LARDER_CONFIG", &config);
    let info = larder.run(["info"]).text();
    let layers = info.lines().find(|line| line.starts_with("Layers:"));
    if !layers.is_some_and(|line| line.contains("erofs")) {
        skip!("no images here: {info}");
    }
    let names: Vec<String> = (0..40)
        .map(|number| format!("tree/same-{number}"))
        .collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (&**name, &**name)).collect();
    project.write(&files);
    project.write(&[
        ("Dockerfile", "FROM busybox\nCOPY tree /tree\n"),
        ("tree/main", "1"),
        ("tree/large", &"large ".repeat(1 << 20)),
    ]);
    let log = project.scratch().join("strace");
    let build = |args: &[&str]| {
        let mut traced = Command::new("strace");
        traced
            .args(["-f", "-qq", "-e", "trace=openat,openat2", "-o"])
            .arg(&log);
        // An image's layers would be read to be digested.
        let mut command = larder.command(["build", "-o", "type=cacheonly"]);
        command.args(args).arg(project.context());
        traced.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                traced.env(name, value);
            }
        }
        let _ = Run::of(&mut traced).success();
        let trace = fs::read_to_string(&log).unwrap();
        let opened = |name: &str| trace.lines().any(|line| line.contains(name));
        (opened("main\""), opened("same-"))
    };
    assert_eq!(build(&[]), (true, true), "the first build reads all");
    // By now the files are old enough for their digests to be believed.
    let _ = build(&[]);
    assert_eq!(build(&[]), (false, false), "nothing changed");
    for (version, args, expected) in [
        ("2", &[][..], (true, false)),
        ("3", &[], (true, false)),
        // Who ignores the cache may doubt what is in it.
        ("4", &["--no-cache"], (true, true)),
    ] {
        project.write(&[("tree/main", version)]);
        let before = bytes_of_images(&larder);
        assert_eq!(build(args), expected, "version {version}");
        let added = bytes_of_images(&larder) - before;
        let is_whole = args.contains(&"--no-cache");
        assert_eq!(
            added > 6 << 20,
            is_whole,
            "{added} bytes for version {version}"
        );
        let mut export = larder.command(["build", "-t", "made"]);
        let _ = Run::of(export.arg(project.context())).success();
        let script =
            "cat /tree/main /tree/same-7; ls /tree | wc -l; grep -o large /tree/large | wc -l";
        let shown = larder.run(["run", "made", "sh", "-c", script]).success();
        assert_eq!(shown.text(), format!("{version}tree/same-742\n1048576"));
    }
    let _ = larder.run(["rmi", "made"]).success();
    let kept = bytes_of_images(&larder);
    let _ = larder.run(["prune", "--force", "--all"]).success();
    assert!(
        bytes_of_images(&larder) + (12 << 20) <= kept,
        "both copies are gone"
    );
}

/// What all layers take that are images.
fn bytes_of_images(larder: &Larder) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let stat = |entry: std::io::Result<fs::DirEntry>| entry?.metadata();
    let entries = fs::read_dir(larder.root().join("snapshots")).expect("it has layers");
    let stats = entries.map(|entry| stat(entry).expect("nobody removes layers meanwhile"));
    let images = stats.filter(std::fs::Metadata::is_file);
    images.map(|stat| stat.blocks() * 512).sum()
}
