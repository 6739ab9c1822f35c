//! Bad input: what `larder build` says of it, to the letter, and that nothing is lost.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::io::Write as _;
use std::process::Stdio;

use fs_err as fs;
use larder_testkit::{Base, Larder, Project, Run, Scratch, User, project, skip};

/// Builds `dockerfile` with `flags` in a context that has the files `a.txt` and `d/b.txt`.
fn build(project: &Project, dockerfile: &str, flags: &[&str]) -> Run {
    project.write(&[
        ("Dockerfile", dockerfile),
        ("a.txt", "a\n"),
        ("d/b.txt", "b\n"),
    ]);
    project.build(flags)
}

/// Checks that a build fails with code 1, and the text from the last blank line, `------` of logs or
/// header of a block on.
#[track_caller]
fn check_fails(run: Run, expected: &str) {
    let run = run.exit(1);
    assert!(run.stdout.is_empty(), "{}", run.text());
    assert!(
        run.stderr.ends_with(expected),
        "expected the end\n{expected}\nof\n{}",
        run.stderr
    );
}

#[test]
fn a_dockerfile_that_is_wrong_is_shown_where_it_is_wrong() {
    let project = project!(Base::Busybox);
    for (dockerfile, expected) in [
        (
            "",
            "ERROR: failed to build: failed to solve: the Dockerfile cannot be empty\n",
        ),
        (
            "# only\n\n# comments\n",
            "ERROR: failed to build: failed to solve: file with no instructions\n",
        ),
        (
            "FROM busybox\nRUNN true\nUSER 1\n",
            "\
Dockerfile:2
--------------------
   1 |     FROM busybox
   2 | >>> RUNN true
   3 |     USER 1
   4 |     
--------------------
ERROR: failed to build: failed to solve: dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)
",
        ),
        (
            "FROM busybox\nCOPY --fooo a.txt /\n",
            "\
Dockerfile:2
--------------------
   1 |     FROM busybox
   2 | >>> COPY --fooo a.txt /
   3 |     
--------------------
ERROR: failed to build: failed to solve: dockerfile parse error on line 2: unknown flag: --fooo (did you mean from?)
",
        ),
        (
            "FROM busybox\nRUN <<END\necho\n",
            "\
Dockerfile:2
--------------------
   1 |     FROM busybox
   2 | >>> RUN <<END
   3 | >>> echo
   4 |     
--------------------
ERROR: failed to build: failed to solve: dockerfile parse error on line 2: unterminated heredoc
",
        ),
        (
            "FROM busybox AS a\nCOPY --from=b /x /\nFROM busybox AS b\nCOPY --from=a /x /\n",
            "\
Dockerfile:2
--------------------
   1 |     FROM busybox AS a
   2 | >>> COPY --from=b /x /
   3 |     FROM busybox AS b
   4 | >>> COPY --from=a /x /
   5 |     
--------------------
ERROR: failed to build: failed to solve: circular dependency detected on stage: a
",
        ),
        (
            "FROM busybox\nRUN --mount=type=bind,foo=1 true\n",
            "\
Dockerfile:2
--------------------
   1 |     FROM busybox
   2 | >>> RUN --mount=type=bind,foo=1 true
   3 |     
--------------------
ERROR: failed to build: failed to solve: unexpected key 'foo' in 'foo=1' (did you mean from?)
",
        ),
        (
            "FROM busybox\nCOPY a.txt d /x\n",
            "\
Dockerfile:2
--------------------
   1 |     FROM busybox
   2 | >>> COPY a.txt d /x
   3 |     
--------------------
ERROR: failed to build: failed to solve: When using COPY with more than one source file, the destination must be a directory and end with a /
hint: write `/x/` instead of `/x`
",
        ),
    ] {
        check_fails(build(&project, dockerfile, &[]), expected);
    }
}

#[test]
fn a_step_that_fails_is_shown_with_where_it_stands() {
    let project = project!(Base::Busybox);
    for (dockerfile, expected) in [
        (
            "FROM busybox\nCOPY nofile /\n",
            "\
------
 > [2/2] COPY nofile /:
------
Dockerfile:2
--------------------
   1 |     FROM busybox
   2 | >>> COPY nofile /
   3 |     
--------------------
ERROR: failed to build: failed to solve: failed to calculate checksum of ref: \"/nofile\": not found
",
        ),
        (
            "FROM busybox\nCOPY ../../../etc/passwd /\n",
            "ERROR: failed to build: failed to solve: failed to calculate checksum of ref: \"/etc/passwd\": not found\n",
        ),
        (
            "FROM busybox\nCOPY d /etc/passwd\n",
            "ERROR: failed to build: failed to solve: cannot copy to non-directory: /etc/passwd\n",
        ),
        (
            "FROM busybox\nRUN --mount=type=secret,id=zz,required cat /run/secrets/zz\n",
            "\
------
Dockerfile:2
--------------------
   1 |     FROM busybox
   2 | >>> RUN --mount=type=secret,id=zz,required cat /run/secrets/zz
   3 |     
--------------------
ERROR: failed to build: failed to solve: secret zz: not found
hint: give it with `--secret id=zz,src=FILE` or `--secret id=zz,env=NAME`
",
        ),
        (
            "FROM busybox\nUSER nobodyatall\nRUN true\n",
            "ERROR: failed to build: failed to solve: unable to find user nobodyatall: no matching entries in passwd file\n",
        ),
        (
            "FROM busybox\nRUN [\"/no/such/program\"]\n",
            "ERROR: failed to build: failed to solve: process \"/no/such/program\" did not complete successfully: exit code: 1\n",
        ),
    ] {
        check_fails(build(&project, dockerfile, &[]), expected);
    }
}

#[test]
fn a_failed_command_shows_its_last_lines_and_its_exit_code() {
    let project = project!(Base::Busybox);
    let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $i; done; exit 3";
    let dockerfile = format!("FROM busybox\n\nRUN true\nRUN {script}\n# end\n");
    let run = build(&project, &dockerfile, &[]).exit(1);
    let tail = run.stderr.find("\n------\n").expect("a tail is shown");
    // The times at the start of lines of output are not known.
    let tail: Vec<String> = run.stderr[tail + 1..]
        .lines()
        .map(|line| match line.split_once(" line ") {
            Some((time, count)) if time.parse::<f64>().is_ok() => format!("T line {count}"),
            _ => line.to_owned(),
        })
        .collect();
    let lines: Vec<String> = (3..=12).map(|count| format!("T line {count}")).collect();
    let lines = lines.join("\n");
    assert_eq!(
        tail.join("\n"),
        format!(
            "\
------
 > [3/3] RUN {script}:
{lines}
------
Dockerfile:4
--------------------
   2 |     
   3 |     RUN true
   4 | >>> RUN {script}
   5 |     # end
   6 |     
--------------------
ERROR: failed to build: failed to solve: process \"/bin/sh -c {script}\" did not complete successfully: exit code: 3"
        )
    );
    let failed = format!(
        "ERROR: process \"/bin/sh -c {script}\" did not complete successfully: exit code: 3\n------\n"
    );
    assert!(run.stderr.contains(&failed), "{}", run.stderr);
    // What came before the failure was kept, and the failed step was not.
    let again = build(&project, &dockerfile, &[]).exit(1);
    assert_eq!(again.cached_count(), 2, "{}", again.stderr);
}

#[test]
fn a_target_must_exist() {
    let project = project!(Base::Busybox);
    let dockerfile = "FROM busybox AS app\nFROM busybox AS tests\n";
    for (target, expected) in [
        (
            "ap",
            "target stage \"ap\" could not be found (did you mean app?)",
        ),
        ("0", "target stage \"0\" could not be found"),
    ] {
        check_fails(
            build(&project, dockerfile, &["--target", target]),
            &format!("ERROR: failed to build: failed to solve: {expected}\n"),
        );
    }
    let _ = build(&project, dockerfile, &["--target", "APP"]).success();
}

#[test]
fn flags_are_checked_before_anything_is_built() {
    let project = project!(Base::Busybox);
    for (flags, expected) in [
        (
            &["--secret", "foo=1"][..],
            "`foo` is unknown (expected id, src, env or type)",
        ),
        (
            &["--secret", "id=x,src=/nowhere"],
            "ERROR: `--secret`: secret `x`: ",
        ),
        (&["--build-context", "a"], "expected `NAME=DIR`"),
        (
            &["--build-context", "a=/nowhere"],
            "ERROR: `--build-context`: `/nowhere` is not a directory",
        ),
        (&["-o", "type=foo"], "`foo` is no type of output"),
        (&["-o", "type=oci"], "`type=oci` needs `dest`"),
        (&["--shm-size", "lots"], "`lots` is not a size"),
        (&["--network", "foo"], "expected default, host or none"),
        (&["--ulimit", "foo=1"], "`foo` is no resource"),
        (&["--add-host", "foo"], "expected `HOST:IP` or `HOST=IP`"),
        (&["-t", "A:B:C"], "repository name must be lowercase"),
        (
            &["--progress", "foo"],
            "[possible values: auto, tty, plain, quiet, none, rawjson]",
        ),
        (&["--label", "=x"], "the name before `=` is empty"),
        (
            &["--iidfile", "id", "-o", "type=local,dest=out"],
            "ERROR: `--iidfile` has nothing to name: `type=local` makes no image",
        ),
        (
            &["--cache-from", "type=s3,bucket=a"],
            "`type=s3` is not supported yet",
        ),
        (&["--platform", "a/b/c/d"], "`a/b/c/d` is not a platform"),
        (&["--frobnicate"], "unexpected argument '--frobnicate'"),
    ] {
        let run = build(&project, "FROM busybox\nRUN echo built\n", flags)
            .exit(1)
            .says(expected);
        assert!(
            !run.stderr.contains("RUN echo built"),
            "{flags:?}: {}",
            run.stderr
        );
    }
}

#[test]
fn a_context_must_be_a_readable_directory_with_a_dockerfile() {
    let project = project!(Base::Busybox);
    let scratch = project.scratch();
    let larder = project.larder();
    let empty = scratch.context("empty", &[]);
    fs::write(scratch.join("file"), "").unwrap();
    let at = |name: &str| scratch.join(name).to_str().unwrap().to_owned();
    for (args, expected) in [
        (
            vec![at("nowhere")],
            format!(
                "ERROR: unable to prepare context: path {:?} not found\n",
                at("nowhere")
            ),
        ),
        (
            vec![at("file")],
            format!(
                "ERROR: unable to prepare context: {:?} is not a directory\n",
                at("file")
            ),
        ),
        (
            vec![at("empty")],
            "ERROR: failed to build: failed to solve: failed to read dockerfile: open Dockerfile: no such file or directory\n".to_owned(),
        ),
        (
            vec!["-f".to_owned(), at("empty/Other"), at("empty")],
            "ERROR: failed to build: failed to solve: failed to read dockerfile: open Other: no such file or directory\n".to_owned(),
        ),
        (
            vec!["-f".to_owned(), "-".to_owned(), "-".to_owned()],
            "ERROR: invalid argument: standard input cannot be both context and Dockerfile\n".to_owned(),
        ),
    ] {
        let args = [vec!["build".to_owned(), "--progress=plain".to_owned()], args].concat();
        check_fails(larder.run(args), &expected);
    }
    assert!(fs::read_dir(empty).unwrap().next().is_none());
}

#[test]
fn a_file_that_the_user_may_not_read_is_named() {
    let user = match User::without_subordinate_ids() {
        Ok(user) => user,
        Err(error) => skip!("no ordinary user: {error:#}"),
    };
    let scratch = Scratch::owned_by(&user);
    let larder = Larder::new(env!("CARGO_BIN_EXE_larder"), &scratch).as_user(user, &scratch);
    let files = [("Dockerfile", "FROM scratch\nCOPY . /\n"), ("d/key", "x")];
    let context = scratch.context("context", &files);
    let lock = |path: &str, mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(context.join(path), mode).unwrap();
    };
    let build = || {
        larder.run([
            "build".as_ref(),
            "--progress=plain".as_ref(),
            context.as_os_str(),
        ])
    };
    lock("d/key", 0o000);
    check_fails(
        build(),
        "ERROR: failed to build: failed to solve: failed to calculate checksum of ref: cannot open `d/key`: Permission denied (os error 13)\n",
    );
    lock("d/key", 0o644);
    lock("d", 0o000);
    check_fails(
        build(),
        "ERROR: failed to build: failed to solve: cannot open `d`: Permission denied (os error 13)\n",
    );
    lock("d", 0o755);
    let _ = build().success();
}

#[test]
fn a_state_directory_must_be_writable() {
    let project = project!(Base::Busybox);
    let scratch = project.scratch();
    let larder = project.larder();
    fs::write(scratch.join("file"), "").unwrap();
    for (root, expected) in [
        ("/proc/larder".into(), "No such file or directory"),
        (scratch.join("file"), "File exists"),
    ] {
        let run = larder.clone().with_root(&root).run(["du"]).exit(1);
        let expected = format!(
            "ERROR: cannot write to the state directory `{}`: {expected}",
            root.display()
        );
        let run = run.says(&expected);
        let hint = "hint: choose another with `--root` or `LARDER_ROOT`\n";
        assert!(run.stderr.ends_with(hint), "{}", run.stderr);
    }
    let user = match User::without_subordinate_ids() {
        Ok(user) => user,
        Err(error) => skip!("no ordinary user: {error:#}"),
    };
    let theirs = Scratch::owned_by(&user);
    let larder = Larder::new(env!("CARGO_BIN_EXE_larder"), &theirs).as_user(user, &theirs);
    let _ = larder
        .with_root(scratch.join("context"))
        .run(["du"])
        .exit(1)
        .says("Permission denied");
}

#[test]
fn a_relative_state_directory_is_that_of_the_working_directory() {
    let scratch = Scratch::new();
    let larder = Larder::new(env!("CARGO_BIN_EXE_larder"), &scratch).with_root("state/here");
    let run = Run::of(larder.command(["du"]).current_dir(scratch.path()));
    let _ = run.success();
    assert!(scratch.join("state/here/version").is_file());
}

#[test]
fn a_configuration_must_make_sense() {
    let project = project!(Base::Busybox);
    let scratch = project.scratch();
    let larder = project.larder();
    let file = scratch.join("larder.toml");
    for (text, expected) in [
        ("x = [", "unclosed array"),
        (
            "[worker.oci]\nmaxUsedSpace = \"lots\"\n",
            "`\"lots\"` is no amount of disk (expected bytes, `20GB` or `10%`)",
        ),
        (
            "[worker.oci]\nsnapshotter = \"zfs\"\n",
            "unknown variant `zfs`, expected one of `auto`, `overlayfs`, `native`",
        ),
    ] {
        fs::write(&file, text).unwrap();
        let args = ["--config".as_ref(), file.as_os_str(), "du".as_ref()];
        let _ = larder.run(args).exit(1).says("is not valid").says(expected);
    }
    fs::write(&file, "[worker.oci]\nrootless = true\n").unwrap();
    let args = ["--config".as_ref(), file.as_os_str(), "du".as_ref()];
    let warning = "WARNING: the configuration's `worker.oci.rootless` is unknown to larder";
    let _ = larder.run(args).success().says(warning);
    let args = ["--config", "/nowhere.toml", "du"];
    let _ = larder
        .run(args)
        .exit(1)
        .says("ERROR: cannot read configuration `/nowhere.toml`");
}

#[test]
fn an_unknown_owner_is_warned_of_by_name() {
    let project = project!(Base::Busybox);
    let larder = project.larder();
    let dockerfile = "FROM busybox\nCOPY --chown=nobodyatall:nogroup9 a.txt /\n";
    let run = build(&project, dockerfile, &["-t", "owned"]).success();
    for name in ["nobodyatall", "nogroup9"] {
        let warning = format!("WARN: `--chown`: `{name}` is not in the image: 0 is taken");
        assert!(run.stderr.contains(&warning), "{}", run.stderr);
    }
    let owner = larder.run(["run", "owned", "stat", "-c", "%u:%g", "/a.txt"]);
    assert_eq!(owner.success().text(), "0:0");
}

#[test]
fn a_wildcard_that_matches_nothing_is_no_error() {
    let project = project!(Base::Busybox);
    let dockerfile = "FROM busybox\nCOPY nofile* /x/\n";
    let _ = build(&project, dockerfile, &[]).success();
}

#[test]
fn an_interrupt_cancels_the_build() {
    let project = project!(Base::Busybox);
    let scratch = project.scratch();
    let larder = project.larder();
    let context = scratch.context(
        "context",
        &[(
            "Dockerfile",
            "FROM busybox\nRUN echo begun; while true; do sleep 1; done\n",
        )],
    );
    for signal in ["-INT", "-TERM"] {
        let mut command = larder.command(["build", "--progress=plain"]);
        let mut child = command
            .arg(&context)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.trim_end().ends_with(" begun") {
            let read = std::io::BufRead::read_line(&mut stderr, &mut said).unwrap();
            assert!(read > 0, "{said}");
        }
        let pid = child.id().to_string();
        std::process::Command::new("kill")
            .args([signal, &pid])
            .status()
            .unwrap();
        std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
        assert!(said.contains(" CANCELED\n"), "{said}");
        assert!(
            said.ends_with("ERROR: failed to build: failed to solve: context canceled\n"),
            "{said}"
        );
    }
}

/// Runs `larder build ARGS…` with `input` on standard input.
fn build_from(larder: &Larder, args: &[&str], input: &[u8]) -> Run {
    let mut command = larder.command([&["build", "--progress=plain"], args].concat());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A build that fails early does not read it all.
    let _ = child.stdin.take().unwrap().write_all(input);
    let start = std::time::Instant::now();
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        elapsed: start.elapsed(),
    }
}

#[test]
fn a_context_comes_from_standard_input_in_all_its_forms() {
    let project = project!(Base::Busybox);
    let scratch = project.scratch();
    let larder = project.larder();
    let files = [
        ("Dockerfile", "FROM busybox\nCOPY a.txt /\nRUN cat /a.txt\n"),
        (
            "sub/Other",
            "FROM busybox\nCOPY a.txt /\nRUN echo other && cat /a.txt\n",
        ),
        ("a.txt", "from the archive\n"),
    ];
    let context = scratch.context("context", &files);
    let tar = |compress: &[&str]| {
        let mut tar = std::process::Command::new("tar");
        tar.args(["-c", "-C"]).arg(&context).args(compress).arg(".");
        tar.output().unwrap().stdout
    };
    for (args, input, expected) in [
        (vec!["-"], tar(&[]), "from the archive"),
        (vec!["-"], tar(&["-z"]), "from the archive"),
        (vec!["-f", "sub/Other", "-"], tar(&["-z"]), "other"),
        (
            vec!["-"],
            b"FROM busybox\nRUN echo a text\n".to_vec(),
            "a text",
        ),
        (
            vec!["-f", "-", context.to_str().unwrap()],
            b"FROM busybox\nCOPY a.txt /b\nRUN cat /b\n".to_vec(),
            "from the archive",
        ),
        (
            vec!["-f", "sub/Other", context.to_str().unwrap()],
            Vec::new(),
            "other",
        ),
    ] {
        let run = build_from(larder, &[&["--no-cache"], &args[..]].concat(), &input);
        let line = format!(" {expected}\n");
        let _ = run.success().says(&line);
    }
    check_fails(
        build_from(larder, &["-"], b""),
        "ERROR: failed to build: failed to solve: the Dockerfile cannot be empty\n",
    );
    let truncated = tar(&["-z"]);
    let run = build_from(larder, &["-"], &truncated[..truncated.len() / 2]).exit(1);
    assert!(
        run.stderr
            .contains("ERROR: failed to build: failed to solve: "),
        "{}",
        run.stderr
    );
    // Equal contents are a hit, whatever they came from.
    let _ = build_from(larder, &["-"], &tar(&[])).success();
    let again = build_from(larder, &[context.to_str().unwrap()], b"").success();
    assert_eq!(again.cached_count(), 3, "{}", again.stderr);
}
