//! The cause of each miss, word for word: in the progress, and by `larder explain`.

use std::process::Command;

use fs_err as fs;
use larder_testkit::{Base, Project, Run, project, without_place};

/// Checks what was not cached and why, in the progress and by `larder explain`.
#[track_caller]
fn check(project: &Project, run: &Run, expected: &[(&str, &str)]) {
    let misses = run.misses();
    let misses: Vec<(&str, &str)> = misses.iter().map(|(step, why)| (&**step, &**why)).collect();
    assert_eq!(misses, expected, "{}", run.stderr);
    let all = explain(project, &[]);
    assert_eq!(all.matches("not cached: ").count(), expected.len(), "{all}");
    for (step, why) in expected {
        let one = explain(project, &[step]);
        assert!(one.contains(&format!("] {step}\n")), "{one}");
        let mut lines = one.lines();
        let told = lines.find_map(|line| line.trim_start().strip_prefix("not cached: "));
        assert_eq!(told.map(without_place), Some(*why), "{one}");
    }
}

fn explain(project: &Project, args: &[&str]) -> String {
    let args = ["explain"].iter().chain(args);
    let run = project.larder().run(args).success();
    String::from_utf8(run.stdout).expect("explanations are text")
}

fn sh(project: &Project, script: &str) {
    let run = Run::of(
        Command::new("sh")
            .args(["-ec", script])
            .current_dir(project.context()),
    );
    let _ = run.success();
}

const DOCKERFILE: &str = "FROM busybox AS main\n\
    ARG A=1\n\
    ENV E=1\n\
    COPY src /src\n\
    RUN ls /src > /list\n";

#[test]
fn single_changes_are_told_exactly() {
    let project = project!(Base::Busybox);
    let edit = |from: &str, to: &str| {
        let edited = DOCKERFILE.replace(from, to);
        assert_ne!(edited, DOCKERFILE);
        format!("cat > Dockerfile <<'END'\n{edited}END")
    };
    let copy = "COPY src /src";
    let list = "RUN ls /src > /list";
    let after = "COPY src /src ran again";
    let inner = "COPY src /src/in ran again";
    for (change, args, expected) in [
        (
            "echo 2 > src/a",
            "",
            vec![(copy, "`src/a` changed"), (list, after)],
        ),
        (
            "chmod 755 src/a",
            "",
            vec![(copy, "`src/a` changed its mode"), (list, after)],
        ),
        (
            "echo n > src/sub/n",
            "",
            vec![(copy, "`src/sub/n` was added"), (list, after)],
        ),
        (
            "rm src/b",
            "",
            vec![(copy, "`src/b` was removed"), (list, after)],
        ),
        (
            "mv src/b src/sub/c",
            "",
            vec![(copy, "`src/b` was renamed to `src/sub/c`"), (list, after)],
        ),
        (
            "echo 2 > src/a; echo 2 > src/b; rm src/sub/d",
            "",
            vec![(copy, "`src/a` changed, and 2 more files"), (list, after)],
        ),
        (
            "rm src/a; ln -s b src/a",
            "",
            vec![
                (copy, "`src/a` changed its kind or attributes"),
                (list, after),
            ],
        ),
        (
            "echo src/sub/d >> .dockerignore",
            "",
            vec![
                (
                    copy,
                    "`.dockerignore` changed: it now decides otherwise on `src/sub/d`",
                ),
                (list, after),
            ],
        ),
        (
            ": > .dockerignore",
            "",
            vec![
                (
                    copy,
                    "`.dockerignore` changed: it now decides otherwise on `src/hidden`",
                ),
                (list, after),
            ],
        ),
        (
            "",
            "--build-arg A=2",
            vec![(list, "`ARG A` changed, line 2")],
        ),
        (
            &edit("ARG A=1", "ARG A=3"),
            "",
            vec![(list, "`ARG A` changed, line 2")],
        ),
        (
            &edit("ENV E=1", "ENV E=2"),
            "",
            vec![(list, "`ENV E` changed, line 3")],
        ),
        (
            &edit("ENV E=1", "ENV E=1 F=1"),
            "",
            vec![(list, "`ENV F` changed, line 3")],
        ),
        (&edit("ENV E=1\n", ""), "", vec![(list, "`ENV E` changed")]),
        (
            &edit("RUN ls /src", "RUN ls -l /src"),
            "",
            vec![("RUN ls -l /src > /list", "the command changed, line 5")],
        ),
        (
            &edit("COPY src /src", "COPY src /mv").replace("ls /src", "ls /mv"),
            "",
            vec![
                ("COPY src /mv", "the destination changed, line 4"),
                ("RUN ls /mv > /list", "the command changed, line 5"),
            ],
        ),
        (
            &edit("COPY src /src", "COPY src /src/in"),
            "",
            vec![
                ("COPY src /src/in", "the destination changed, line 4"),
                (list, inner),
            ],
        ),
        (
            &edit("COPY src", "COPY --chown=5 src"),
            "",
            vec![
                ("COPY --chown=5 src /src", "`--chown` changed, line 4"),
                (list, "COPY --chown=5 src /src ran again"),
            ],
        ),
        (
            &edit("RUN ls", "USER 0\nRUN ls"),
            "",
            vec![(list, "the user changed, line 6")],
        ),
        (
            &edit("RUN ls", "RUN --mount=type=tmpfs,target=/t ls"),
            "",
            vec![(
                "RUN --mount=type=tmpfs,target=/t ls /src > /list",
                "the mount `/t` changed, line 5",
            )],
        ),
        (
            "",
            "--no-cache",
            vec![
                (copy, "`--no-cache` was given"),
                (list, "`--no-cache` was given"),
            ],
        ),
        (
            "",
            "--no-cache=layers",
            vec![
                (copy, "`--no-cache=layers` was given"),
                (list, "`--no-cache=layers` was given"),
            ],
        ),
        (
            "",
            "--no-cache-filter=main",
            vec![
                (copy, "`--no-cache-filter=main` was given"),
                (list, "`--no-cache-filter=main` was given"),
            ],
        ),
        (
            "",
            "--shm-size=1m",
            vec![(list, "`--shm-size` changed, line 5")],
        ),
        (
            "",
            "--add-host=a.test:127.0.0.1",
            vec![(list, "`--add-host` changed, line 5")],
        ),
        (
            "",
            "--ulimit=nofile=64",
            vec![(list, "`--ulimit` changed, line 5")],
        ),
        (
            "",
            "--network=none",
            vec![(list, "the network mode changed, line 5")],
        ),
        ("touch -d 2001-01-01 src/*; echo 1 > other", "", vec![]),
    ] {
        sh(&project, "rm -rf src .dockerignore");
        project.write(&[
            ("Dockerfile", DOCKERFILE),
            (".dockerignore", "src/hidden\n"),
            ("src/a", "1"),
            ("src/b", "22"),
            ("src/sub/d", "333"),
            ("src/hidden", "4444"),
        ]);
        let _ = project.build(&[]).success();
        sh(&project, change);
        let args: Vec<&str> = args.split_whitespace().collect();
        let run = project.build(&args).success();
        println!("{change} {args:?}");
        check(&project, &run, &expected);
    }
}

#[test]
fn a_first_build_has_no_causes() {
    let project = project!(Base::Busybox);
    project.write(&[("Dockerfile", "FROM busybox\nRUN true\n")]);
    let run = project.build(&[]).success();
    assert_eq!(run.misses(), []);
    assert_eq!(run.ran()[1..], ["RUN true"], "{}", run.stderr);
}

#[test]
fn an_owner_that_changed_in_a_stage_is_told() {
    let project = project!(Base::Busybox);
    project.write(&[(
        "Dockerfile",
        "FROM busybox AS made\n\
         ARG OWNER=1\n\
         RUN mkdir /d && echo x > /d/f && chown $OWNER /d/f\n\
         FROM busybox\n\
         COPY --from=made /d /d\n",
    )]);
    let _ = project.build(&[]).success();
    let run = project.build(&["--build-arg", "OWNER=2"]).success();
    let expected = [
        (
            "RUN mkdir /d && echo x > /d/f && chown 2 /d/f",
            "`ARG OWNER` changed, line 2",
        ),
        ("COPY --from=made /d /d", "`d/f` changed its owner"),
    ];
    check(&project, &run, &expected);
}

#[test]
fn another_base_image_under_the_same_name_is_told() {
    let project = project!(Base::Busybox);
    let digest = |name: &str| {
        let run = project
            .larder()
            .run(["inspect", "-f", "{{.Id}}", name])
            .success();
        run.text()
    };
    for instruction in ["RUN echo other > /other", "ENV ONLY=config"] {
        project.write(&[("Dockerfile", "FROM busybox\nRUN true\nCOPY Dockerfile /\n")]);
        let _ = project.build(&[]).success();
        let other = project.scratch().context(
            "other",
            &[("Dockerfile", &format!("FROM busybox\n{instruction}\n"))],
        );
        let before = digest("busybox");
        let args = ["build", "-q", "-t", "busybox", &*other.to_string_lossy()];
        let _ = project.larder().run(args).success();
        assert_ne!(before, digest("busybox"));
        let run = project.build(&[]).success();
        let misses = run.misses();
        assert_eq!(misses[0].0, "RUN true");
        let cause = &misses[0].1;
        assert!(
            cause.starts_with("base image `busybox` changed from "),
            "{cause}"
        );
        assert_eq!(misses[1].1, "RUN true ran again");
        assert_eq!(misses.len(), 2);
        let told = explain(&project, &["RUN true"]);
        assert!(told.contains(cause), "{told}");
    }
}

#[test]
fn what_was_pruned_is_told() {
    let project = project!(Base::Busybox);
    project.write(&[("Dockerfile", DOCKERFILE), ("src/a", "1")]);
    let _ = project
        .build(&["--output=type=oci,dest=/dev/null"])
        .success();
    let _ = project.larder().run(["prune", "-af"]).success();
    let run = project.build(&[]).success();
    let misses = run.misses();
    let (step, cause) = &misses[0];
    assert_eq!(step, "COPY src /src");
    let at = cause
        .strip_prefix("its result was pruned at ")
        .unwrap_or_else(|| panic!("{cause}"));
    let at: jiff::Timestamp = at.parse().unwrap();
    assert!(jiff::Timestamp::now().duration_since(at).as_secs() < 3600);
    let after = (
        "RUN ls /src > /list".into(),
        "COPY src /src ran again".into(),
    );
    assert_eq!(misses[1..], [after]);
    let told = explain(&project, &["COPY"]);
    assert!(told.contains(cause), "{told}");
    let again = project.build(&[]).success();
    assert_eq!(again.ran(), [""; 0]);
}

#[test]
fn a_step_that_failed_before_is_not_taken_for_a_pruned_one() {
    let project = project!(Base::Busybox);
    let dockerfile = "FROM busybox\n\
        RUN --mount=type=cache,target=/c if [ -e /c/f ]; then true; else touch /c/f; exit 3; fi\n\
        RUN true\n";
    project.write(&[("Dockerfile", dockerfile)]);
    let _ = project.build(&[]).exit(1);
    let run = project.build(&[]).success();
    for (_, cause) in run.misses() {
        assert_eq!(cause, "no earlier result of this step");
    }
    // What failed after an edit is compared with what last succeeded.
    project.write(&[("Dockerfile", &format!("{dockerfile}RUN exit 4\n"))]);
    let _ = project.build(&[]).exit(1);
    let edited = dockerfile.replace("RUN true", "RUN :");
    project.write(&[("Dockerfile", &edited)]);
    let run = project.build(&[]).success();
    check(&project, &run, &[("RUN :", "the command changed, line 3")]);
}

#[test]
fn files_of_equal_bytes_are_told_apart() {
    let project = project!(Base::Busybox);
    project.write(&[
        ("Dockerfile", "FROM busybox\nCOPY a /x\nCOPY b /y\n"),
        ("a", "same"),
        ("b", "same"),
    ]);
    let _ = project.build(&[]).success();
    project.write(&[("b", "other")]);
    let run = project.build(&[]).success();
    check(&project, &run, &[("COPY b /y", "`b` changed")]);
}

#[test]
fn a_step_that_failed_is_told_with_its_cause() {
    let project = project!(Base::Busybox);
    project.write(&[("Dockerfile", "FROM busybox\nRUN true\nRUN : 2\n")]);
    let _ = project.build(&[]).success();
    project.write(&[("Dockerfile", "FROM busybox\nRUN false\nRUN : 2\n")]);
    let run = project.build(&[]).exit(1);
    check(
        &project,
        &run,
        &[("RUN false", "the command changed, line 2")],
    );
    let told = explain(&project, &["RUN false"]);
    assert!(told.contains("\n   ERROR "), "{told}");
}

#[test]
fn an_instruction_put_in_between_is_new_and_those_below_have_a_new_input() {
    let project = project!(Base::Busybox);
    project.write(&[(
        "Dockerfile",
        "FROM busybox\nRUN echo a > /a\nRUN echo b > /b\n",
    )]);
    let _ = project.build(&[]).success();
    project.write(&[(
        "Dockerfile",
        "FROM busybox\nRUN echo a > /a\nRUN echo new > /n\nRUN echo b > /b\n",
    )]);
    let run = project.build(&[]).success();
    let expected = [
        ("RUN echo new > /n", "no earlier result of this step"),
        ("RUN echo b > /b", "RUN echo new > /n ran again"),
    ];
    check(&project, &run, &expected);

    // Taken out again, all is found; two others exchanged, each stands on something else.
    project.write(&[(
        "Dockerfile",
        "FROM busybox\nRUN echo a > /a\nRUN echo b > /b\n",
    )]);
    let run = project.build(&[]).success();
    check(&project, &run, &[]);
    project.write(&[(
        "Dockerfile",
        "FROM busybox\nRUN echo b > /b\nRUN echo a > /a\n",
    )]);
    let run = project.build(&[]).success();
    let misses = run.misses();
    assert_eq!(misses.len(), 2, "{}", run.stderr);
    assert_eq!(misses[1].1, "RUN echo b > /b ran again");
}

#[test]
fn steps_of_stages_are_told_apart() {
    let project = project!(Base::Busybox);
    let dockerfile = |first: &str, second: &str| {
        format!(
            "FROM busybox AS one\nENV V={first}\nRUN echo $V > /v\n\
             FROM busybox AS two\nENV V={second}\nRUN echo $V > /v\n\
             FROM scratch\nCOPY --from=one /v /1\nCOPY --from=two /v /2\n"
        )
    };
    project.write(&[("Dockerfile", &dockerfile("1", "2"))]);
    let _ = project.build(&[]).success();
    project.write(&[("Dockerfile", &dockerfile("1", "3"))]);
    let run = project.build(&[]).success();
    let expected = [
        ("RUN echo 3 > /v", "`ENV V` changed, line 5"),
        ("COPY --from=two /v /2", "`v` changed"),
    ];
    assert_eq!(
        run.misses(),
        expected.map(|(step, why)| (step.to_owned(), why.to_owned())),
        "{}",
        run.stderr
    );
}

#[test]
fn each_dockerfile_of_a_context_has_its_own_past() {
    let project = project!(Base::Busybox);
    project.write(&[
        ("Dockerfile", "FROM busybox\nCOPY f /f\nRUN echo 1 > /1\n"),
        ("other", "FROM busybox\nCOPY f /f\nRUN echo 2 > /2\n"),
        ("f", "1"),
    ]);
    let other = project.context().join("other");
    let other = ["-f", &*other.to_string_lossy()];
    let _ = project.build(&[]).success();
    let run = project.build(&other).success();
    // The COPY is shared by what is cached, the past by nothing.
    assert_eq!(run.ran(), ["RUN echo 2 > /2"]);
    assert_eq!(run.misses(), []);
    project.write(&[("f", "2")]);
    let run = project.build(&other).success();
    let after = "COPY f /f ran again";
    check(
        &project,
        &run,
        &[("COPY f /f", "`f` changed"), ("RUN echo 2 > /2", after)],
    );
    let run = project.build(&[]).success();
    check(&project, &run, &[("RUN echo 1 > /1", "`f` changed")]);
}

#[test]
fn explain_tells_every_file_and_refuses_unknown_steps() {
    let project = project!(Base::Busybox);
    let unknown = project.larder().run(["explain"]).exit(1);
    let _ = unknown.says("no build is on record");
    project.write(&[
        ("Dockerfile", "FROM busybox\nCOPY . /\n"),
        ("a", "1"),
        ("b", "22"),
        ("c/e", "1"),
    ]);
    let _ = project.build(&[]).success();
    project.write(&[("a", "2"), ("c/d", "1")]);
    fs::remove_file(project.context().join("b")).unwrap();
    let _ = project.build(&[]).success();
    let told = explain(&project, &["COPY"]);
    for line in ["`a` changed", "`b` was removed", "`c/d` was added"] {
        assert!(told.contains(&format!("     {line}\n")), "{told}");
    }
    let run = project.larder().run(["explain", "NOPE"]).exit(1);
    let _ = run.says("the last build has no step `NOPE`");
}
