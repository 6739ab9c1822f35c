//! Mounts of RUN: what a step sees of them, and what stays of them.

use fs_err as fs;
use larder_testkit::{Base, Project, Run, project, write_tree};

/// Builds `steps` on busybox, each forced to run by `nonce`; returns what the steps wrote.
#[track_caller]
fn output(project: &Project, args: &[&str], steps: &str) -> Vec<String> {
    project.write(&[("Dockerfile", &format!("FROM busybox\n{steps}\n"))]);
    lines(&project.build(args).success())
}

fn lines(run: &Run) -> Vec<String> {
    let steps = run.steps();
    let lines = steps.iter().flat_map(|step| step.output());
    lines.map(str::to_owned).collect()
}

/// Returns a RUN that appends to a cache mount and tells how many lines it has; `n` makes it
/// another step.
fn count(options: &str, n: usize) -> String {
    format!("RUN --mount=type=cache,target=/c{options} echo {n} >> /c/n && wc -l < /c/n")
}

#[test]
fn a_cache_mount_outlives_builds_failures_images_and_layers() {
    let project = project!(Base::Busybox);
    let larder = project.larder();
    let build = |n| output(&project, &["-t", "app"], &count("", n));
    assert_eq!(build(1), ["1"]);
    assert_eq!(build(2), ["2"]);
    project.write(&[(
        "Dockerfile",
        &format!("FROM busybox\n{} && exit 9\n", count("", 3)),
    )]);
    let _ = project.build(&[]).exit(1);
    assert_eq!(build(4), ["4"]);
    let _ = larder.run(["rmi", "app"]).success();
    assert_eq!(build(5), ["5"]);
    let _ = larder
        .run(["prune", "-af", "--filter", "type=regular"])
        .success();
    assert_eq!(build(6), ["6"]);
    let _ = larder
        .run(["prune", "-f", "--filter", "type=exec.cachemount"])
        .success();
    assert_eq!(build(7), ["1"]);
    let du = larder.run(["du", "--verbose"]).success().text();
    assert!(
        du.contains("cached mount /c from exec /bin/sh -c echo 7"),
        "{du}"
    );
    assert!(du.contains("with id \"//c\""), "{du}");
}

#[test]
fn a_cache_mount_is_no_part_of_the_image() {
    let project = project!(Base::Busybox);
    let steps = format!("{}\nRUN [ ! -e /c ] && echo end", count("", 1));
    assert_eq!(output(&project, &[], &steps), ["1", "end"]);
}

#[test]
fn steps_share_a_cache_mount_by_its_id() {
    let project = project!(Base::Busybox);
    for (options, expected) in [
        ("", "1"),
        ("", "2"),
        (",id=/c", "3"),
        (",id=other", "1"),
        (",id=other,sharing=locked", "2"),
        (",id=other,sharing=private", "3"),
        (",id=other,target=/c/../c", "4"),
        (",sharing=locked", "4"),
        // Those that begin with something are others.
        (",uid=5", "1"),
        (",uid=5,gid=0", "2"),
        (",uid=6", "1"),
        (",mode=0700", "1"),
        ("", "5"),
    ]
    .into_iter()
    .enumerate()
    .map(|(n, (options, expected))| ((n, options), expected))
    {
        let (n, options) = options;
        assert_eq!(
            output(&project, &[], &count(options, n)),
            [expected],
            "{options}"
        );
    }
}

#[test]
fn a_namespace_keeps_cache_mounts_apart() {
    let project = project!(Base::Busybox);
    let build = |n, namespace: &str| {
        let argument = format!("BUILDKIT_CACHE_MOUNT_NS={namespace}");
        output(&project, &["--build-arg", &argument], &count("", n))
    };
    assert_eq!(build(1, "one"), ["1"]);
    assert_eq!(build(2, "two"), ["1"]);
    assert_eq!(build(3, "one"), ["2"]);
    assert_eq!(output(&project, &[], &count("", 4)), ["1"]);
    let du = project.larder().run(["du", "--verbose"]).success().text();
    assert!(du.contains("with id \"one//c\""), "{du}");
}

#[test]
fn a_new_cache_mount_has_the_owner_and_mode_asked_for() {
    let project = project!(Base::Busybox);
    for (options, expected) in [
        ("", "755 0 0"),
        (",uid=5,gid=6,mode=0711", "711 5 6"),
        // As with BuildKit: permission bits only.
        (",mode=1777", "777 0 0"),
    ] {
        let step = format!("RUN --mount=type=cache,target=/m{options} stat -c '%a %u %g' /m");
        assert_eq!(output(&project, &[], &step), [expected], "{options}");
    }
}

#[test]
fn a_cache_mount_begins_with_what_it_is_made_from() {
    let project = project!(Base::Busybox);
    let build = |n: usize, seed: &str| {
        project.write(&[(
            "Dockerfile",
            &format!(
                "FROM busybox AS seed\n\
                 RUN mkdir -p /s/sub && echo {seed} > /s/sub/f && chown 7 /s/sub/f\n\
                 FROM busybox AS user\n\
                 RUN --mount=type=cache,target=/c,from=seed,source=/s : {n}; \
                 cat /c/sub/f; stat -c %u /c/sub/f; echo {n} >> /c/n; wc -l < /c/n\n\
                 FROM busybox\n"
            ),
        )]);
        lines(&project.build(&["--target", "user"]).success())
    };
    assert_eq!(build(1, "a"), ["a", "7", "1"]);
    assert_eq!(build(2, "a"), ["a", "7", "2"]);
    assert_eq!(build(3, "b"), ["b", "7", "1"]);
    assert_eq!(build(4, "a"), ["a", "7", "3"]);
}

#[test]
fn a_readonly_cache_mount_can_be_read_only() {
    let project = project!(Base::Busybox);
    let steps = format!(
        "{}\nRUN --mount=type=cache,target=/c,ro cat /c/n; touch /c/x 2>/dev/null || echo refused",
        count("", 1)
    );
    let told = output(&project, &[], &steps);
    assert_eq!(told[..2], ["1", "1"]);
    assert_eq!(told.last().unwrap(), "refused");
}

#[test]
fn a_relative_target_lies_in_the_working_directory() {
    let project = project!(Base::Busybox);
    let steps = "WORKDIR /work\nRUN --mount=type=cache,id=x,target=deep/c touch /work/deep/c/f\n\
        RUN --mount=type=cache,id=x,target=/work/deep/c ls /work/deep/c; ls /work/deep";
    assert_eq!(output(&project, &[], steps), ["f", "c"]);
}

#[test]
fn two_mounts_of_one_id_in_a_step_are_one() {
    let project = project!(Base::Busybox);
    for sharing in ["shared", "private", "locked"] {
        let mount = |target: &str| {
            format!("--mount=type=cache,id={sharing},sharing={sharing},target={target}")
        };
        let step = format!(
            "RUN {} {} echo {sharing} > /a/f; cat /b/f",
            mount("/a"),
            mount("/b")
        );
        assert_eq!(output(&project, &[], &step), [sharing]);
    }
}

#[test]
fn ignoring_the_cache_empties_the_mounts_of_the_steps_that_do() {
    let project = project!(Base::Busybox);
    project.write(&[(
        "Dockerfile",
        "FROM busybox AS one\n\
         RUN --mount=type=cache,target=/one echo x >> /one/n && wc -l < /one/n\n\
         RUN --mount=type=cache,target=/one wc -l < /one/n\n\
         FROM busybox AS two\n\
         RUN --mount=type=cache,target=/two,uid=3 echo x >> /two/n && wc -l < /two/n\n\
         FROM busybox\n\
         COPY --from=one /etc /1\n\
         COPY --from=two /etc /2\n",
    )]);
    let build = |args: &[&str]| {
        let run = project.build(args).success();
        let mut counts = lines(&run);
        counts.sort();
        (counts.join(" "), run.stderr)
    };
    assert_eq!(build(&[]).0, "1 1 1");
    assert_eq!(build(&["--no-cache=layers"]).0, "2 2 2");
    let (counts, told) = build(&["--no-cache-filter", "one"]);
    assert_eq!(counts, "1 1");
    assert!(told.contains("emptying cache mount /one: 1"), "{told}");
    assert!(!told.contains("cache mount /two"), "{told}");
    assert_eq!(
        build(&["--no-cache-filter", "two", "--no-cache=layers"]).0,
        "2 2 3"
    );
    let (counts, told) = build(&["--no-cache"]);
    assert_eq!(counts, "1 1 1");
    assert!(
        told.contains("emptying cache mount /one: 1")
            && told.contains("emptying cache mount /two: 1"),
        "{told}"
    );
    let removed = told.lines().last().unwrap();
    let bytes = removed.strip_prefix("`--no-cache` removed ");
    let bytes = bytes
        .and_then(|text| text.strip_suffix(" from cache mounts; `--no-cache=layers` keeps them"));
    assert!(bytes.is_some_and(|bytes| bytes.ends_with("kB")), "{told}");
}

#[test]
fn a_bind_mount_shows_the_context_and_drops_what_is_written() {
    let project = project!(Base::Busybox);
    project.write(&[
        (".dockerignore", "secret\n"),
        ("dir/f", "f"),
        ("secret", "s"),
        ("other", "o"),
    ]);
    for (step, expected) in [
        (
            "RUN --mount=target=/m ls -A /m | grep -v Dockerfile",
            vec![".dockerignore", "dir", "other"],
        ),
        (
            "RUN --mount=target=/m touch /m/x 2>&1 || true",
            vec!["touch: /m/x: Read-only file system"],
        ),
        ("RUN --mount=source=dir,target=/m ls -A /m", vec!["f"]),
        (
            "RUN --mount=source=dir/f,target=/m/file cat /m/file; echo",
            vec!["f"],
        ),
        (
            "RUN --mount=target=/m,rw echo new > /m/dir/f; touch /m/x; cat /m/dir/f; ls /m/x\n\
             RUN --mount=target=/m,rw cat /m/dir/f; ls /m; ls -A /m | wc -l",
            vec!["new", "/m/x", "fDockerfile", "dir", "other", "4"],
        ),
    ] {
        assert_eq!(output(&project, &[], step), expected, "{step}");
    }
    assert_eq!(
        fs::read_to_string(project.context().join("dir/f")).unwrap(),
        "f"
    );
    assert!(!project.context().join("x").exists());
}

#[test]
fn a_bind_mount_is_part_of_the_key_by_its_content() {
    let project = project!(Base::Busybox);
    project.write(&[
        (
            "Dockerfile",
            "FROM busybox\nRUN --mount=source=dir,target=/m cat /m/f\n",
        ),
        ("dir/f", "1"),
        ("other", "1"),
    ]);
    let _ = project.build(&[]).success();
    project.write(&[("other", "2")]);
    assert_eq!(project.build(&[]).success().ran(), [""; 0]);
    project.write(&[("dir/f", "2")]);
    let run = project.build(&[]).success();
    assert_eq!(run.misses()[0].1, "`dir/f` changed");
    assert_eq!(lines(&run), ["2"]);
}

#[test]
fn a_bind_mount_shows_a_stage_and_another_context() {
    let project = project!(Base::Busybox);
    let named = project.scratch().context("named", &[("n", "named\n")]);
    project.write(&[(
        "Dockerfile",
        "FROM busybox AS made\n\
         RUN mkdir /d && echo made > /d/f\n\
         FROM busybox\n\
         RUN --mount=from=made,source=/d,target=/m --mount=from=named,target=/n cat /m/f /n/n\n\
         RUN --mount=from=made,target=/m,rw echo x > /m/d/f && cat /m/d/f\n\
         RUN --mount=from=made,target=/m cat /m/d/f; ls /n /m | wc -l\n",
    )]);
    let context = format!("named={}", named.display());
    let told = lines(&project.build(&["--build-context", &context]).success());
    assert_eq!(told[..4], ["made", "named", "x", "made"]);
    write_tree(&named, &[("n", "changed\n")]);
    let told = lines(&project.build(&["--build-context", &context]).success());
    assert_eq!(told[..4], ["made", "changed", "x", "made"]);
}

#[test]
fn an_image_stands_in_for_a_name() {
    let project = project!(Base::Busybox);
    project.write(&[(
        "Dockerfile",
        "FROM named\nRUN --mount=from=other,target=/o test -e /o/bin/sh && echo ran\n",
    )]);
    let contexts = ["named", "other"].map(|name| format!("{name}=docker-image://busybox"));
    let [named, other] = contexts.each_ref().map(String::as_str);
    let run = project.build(&["--build-context", named, "--build-context", other]);
    let run = run
        .success()
        .says("[context named] load metadata for busybox");
    assert_eq!(run.step("RUN").output(), ["ran"]);
}

#[test]
fn a_tmpfs_is_empty_of_the_size_asked_for_and_gone_afterwards() {
    let project = project!(Base::Busybox);
    let steps = "RUN mkdir /t && touch /t/below\n\
        RUN --mount=type=tmpfs,target=/t,size=64k ls -A /t; touch /t/f; \
        dd if=/dev/zero of=/t/big bs=1k count=100 2>/dev/null || echo full\n\
        RUN ls -A /t";
    assert_eq!(output(&project, &[], steps), ["full", "below"]);
}

#[test]
fn a_step_without_network_has_the_loopback_only() {
    let project = project!(Base::Busybox);
    let step = "RUN --network=none ls /sys/class/net | sort; cat /proc/net/route | wc -l";
    let told = output(&project, &[], step);
    assert_eq!(told, ["lo", "1"]);
    let step = "RUN ls /sys/class/net; cat /proc/net/route | wc -l";
    assert_eq!(output(&project, &["--network=none"], step), ["lo", "1"]);
}

#[test]
fn wrong_mounts_are_refused_with_their_place() {
    let project = project!(Base::Busybox);
    for (step, expected) in [
        (
            "RUN --mount=type=nope,target=/m true",
            "unsupported mount type \"nope\"",
        ),
        ("RUN --mount=type=cache true", "target"),
        (
            "RUN --mount=type=cache,target=/c,sharing=none true",
            "sharing",
        ),
        (
            "RUN --mount=type=bind,source=missing,target=/m true",
            "missing",
        ),
        ("RUN --mount=from=nowhere,target=/m true", "nowhere"),
        (
            "RUN --mount=type=ssh,required true",
            "no SSH key \"default\" forwarded from the client",
        ),
    ] {
        project.write(&[("Dockerfile", &format!("FROM busybox\n{step}\n"))]);
        let run = project.build(&[]).exit(1).says(expected);
        assert!(
            run.stderr.contains("Dockerfile:2"),
            "{step}: {}",
            run.stderr
        );
    }
}
