//! How a process starts, what it is given, and how it ends.

use larder_exec::{Cancel, ErrorKind, Outcome, Stdio, Ulimit, User};

use crate::fixture::{Sandbox, run, run_with, says, skipped, text_of};
use crate::runner::Case;

pub const CASES: &[Case] = &[
    ("exit_codes_are_told", exit_codes_are_told),
    ("deadly_signals_are_told", deadly_signals_are_told),
    (
        "process_is_the_first_of_its_namespace",
        process_is_the_first_of_its_namespace,
    ),
    ("streams_are_told_apart", streams_are_told_apart),
    ("large_output_is_complete", large_output_is_complete),
    (
        "output_of_orphans_does_not_hold_up_the_end",
        output_of_orphans_does_not_hold_up_the_end,
    ),
    ("output_goes_to_files", output_goes_to_files),
    (
        "environment_and_directory_are_as_given",
        environment_and_directory_are_as_given,
    ),
    ("user_and_groups_are_as_given", user_and_groups_are_as_given),
    (
        "user_can_open_its_standard_output",
        user_can_open_its_standard_output,
    ),
    ("ulimits_are_set", ulimits_are_set),
    (
        "signals_have_their_default_actions",
        signals_have_their_default_actions,
    ),
    (
        "only_standard_streams_are_open",
        only_standard_streams_are_open,
    ),
    (
        "commands_that_cannot_be_executed_are_told",
        commands_that_cannot_be_executed_are_told,
    ),
    (
        "bad_specifications_are_refused",
        bad_specifications_are_refused,
    ),
    ("signals_are_passed_on", signals_are_passed_on),
    ("cancel_kills_all", cancel_kills_all),
    ("usage_is_told", usage_is_told),
];

fn exit_codes_are_told() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    for code in [0, 1, 3, 127, 255] {
        let output = run(sandbox.shell(&format!("exit {code}"))).unwrap();
        assert_eq!(output.exit.outcome, Outcome::Exited(code));
        assert!(!output.exit.oom_killed);
    }
}

fn deadly_signals_are_told() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    // The first process of a namespace can't kill itself: the kernel ignores it. A limit does.
    let mut spec = sandbox.shell("while :; do :; done");
    spec.ulimits = vec![Ulimit {
        name: "cpu".to_owned(),
        soft: 1,
        hard: 1,
    }];
    assert_eq!(
        run(spec).unwrap().exit.outcome,
        Outcome::Signaled(libc::SIGKILL)
    );
}

fn process_is_the_first_of_its_namespace() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.says("echo $$"), "1");
    assert_eq!(sandbox.says("echo /proc/[0-9]*"), "/proc/1");
}

fn streams_are_told_apart() {
    if skipped() {
        return;
    }
    let output = run(Sandbox::new().shell("echo out; echo err >&2; cat; printf tail")).unwrap();
    assert_eq!(output.stdout, "out\ntail");
    assert_eq!(output.stderr, "err\n");
}

fn large_output_is_complete() {
    if skipped() {
        return;
    }
    let output = run(Sandbox::new().shell("seq 200000; seq 5000 >&2; printf end")).unwrap();
    let (numbers, end) = output.stdout.rsplit_once('\n').unwrap();
    assert_eq!(end, "end");
    let numbers = numbers.lines().map(|line| line.parse::<u32>().unwrap());
    assert!(numbers.eq(1..=200_000));
    assert_eq!(output.stderr.lines().count(), 5000);
}

fn output_of_orphans_does_not_hold_up_the_end() {
    if skipped() {
        return;
    }
    let output =
        run(Sandbox::new().shell("(echo early; sleep 1000; echo late) & sleep 0.1; exit 4"))
            .unwrap();
    assert_eq!(output.exit.outcome, Outcome::Exited(4));
    assert_eq!(output.stdout, "early\n");
}

fn output_goes_to_files() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let path = sandbox.temp.path().join("out");
    fs_err::write(sandbox.temp.path().join("in"), "given").unwrap();
    let open = |name: &str| fs_err::File::open(sandbox.temp.path().join(name)).unwrap();
    let out = fs_err::File::create(&path).unwrap();
    let mut spec = sandbox.shell("cat; echo err >&2");
    spec.stdio = Stdio::Files {
        stdin: open("in").into_parts().0.into(),
        stdout: out.try_clone().unwrap().into_parts().0.into(),
        stderr: out.into_parts().0.into(),
    };
    let output = run(spec).unwrap();
    assert_eq!(output.stdout, "");
    assert_eq!(fs_err::read_to_string(path).unwrap(), "givenerr\n");
}

fn environment_and_directory_are_as_given() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut spec = sandbox.command(&["env"]);
    spec.env = vec!["PATH=/bin".to_owned(), "A=b c".to_owned()];
    assert_eq!(says(spec), "PATH=/bin\nA=b c");
    let mut spec = sandbox.shell("pwd; stat -c '%a %u:%g' . ..");
    "/work/deep/er".clone_into(&mut spec.cwd);
    spec.user = User {
        uid: 7,
        gid: 8,
        groups: Vec::new(),
    };
    assert_eq!(says(spec), "/work/deep/er\n755 7:8\n755 7:8");
    // It is part of the result.
    assert!(sandbox.upper().join("work/deep/er").is_dir());
    assert_eq!(sandbox.says("umask"), "0022");
}

fn user_and_groups_are_as_given() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut spec = sandbox.shell("grep -E '^(Uid|Gid|Groups):' /proc/self/status");
    spec.user = User {
        uid: 1000,
        gid: 1001,
        groups: vec![1001, 20, 44],
    };
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(
        words(&says(spec)),
        "Uid: 1000 1000 1000 1000 Gid: 1001 1001 1001 1001 Groups: 20 44 1001"
    );
    let script = "grep -E '^Groups:' /proc/self/status";
    assert_eq!(words(&sandbox.says(script)), "Groups:");
}

fn user_can_open_its_standard_output() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut spec = sandbox.shell("echo a > /dev/stdout; echo b > /proc/self/fd/2");
    spec.user.uid = 1000;
    let output = run(spec).unwrap();
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("a\n", "b\n")
    );
}

fn ulimits_are_set() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut spec = sandbox.shell("ulimit -Sn; ulimit -Hn; ulimit -c");
    let limit = |name: &str, soft, hard| Ulimit {
        name: name.to_owned(),
        soft,
        hard,
    };
    spec.ulimits = vec![limit("nofile", 123, 456), limit("core", 0, 0)];
    assert_eq!(says(spec), "123\n456\n0");
}

fn signals_have_their_default_actions() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    // Not by a shell, which has its own ideas.
    let text = says(sandbox.command(&["grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status"]));
    for line in text.lines() {
        assert!(line.ends_with("0000000000000000"), "{text}");
    }
}

fn only_standard_streams_are_open() {
    if skipped() {
        return;
    }
    // `ls` itself opens the directory as 3.
    assert_eq!(Sandbox::new().says("ls /proc/self/fd"), "0\n1\n2\n3");
}

fn commands_that_cannot_be_executed_are_told() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let root = sandbox.lower();
    fs_err::write(root.join("bin/plain"), "").unwrap();
    fs_err::write(root.join("bin/garbage"), "\u{1}\u{2}").unwrap();
    fs_err::write(root.join("bin/orphan"), "#!/no/interpreter\n").unwrap();
    for name in ["garbage", "orphan"] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs_err::set_permissions(root.join("bin").join(name), mode).unwrap();
    }
    let check = |command: &str, expected: &str| {
        let error = run(sandbox.command(&[command])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Command);
        assert_eq!(text_of(&error), expected);
    };
    check("foo", r#"exec: "foo": executable file not found in $PATH"#);
    check(
        "plain",
        r#"exec: "plain": executable file not found in $PATH"#,
    );
    check(
        "/no/foo",
        r#"exec: "/no/foo": stat /no/foo: no such file or directory"#,
    );
    check("/bin/plain", r#"exec: "/bin/plain": permission denied"#);
    check("/bin", r#"exec: "/bin": is a directory"#);
    check("garbage", "exec /bin/garbage: exec format error");
    check("/bin/orphan", "exec /bin/orphan: no such file or directory");
    check("", r#"exec: "": executable file not found in $PATH"#);
}

fn bad_specifications_are_refused() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let check = |change: &dyn Fn(&mut larder_exec::ProcessSpec), kind, expected: &str| {
        let mut spec = sandbox.shell("true");
        change(&mut spec);
        let error = run(spec).unwrap_err();
        assert_eq!((error.kind(), text_of(&error).as_str()), (kind, expected));
    };
    check(
        &|spec| spec.args.clear(),
        ErrorKind::Input,
        "cannot run a process without a command",
    );
    check(
        &|spec| "work".clone_into(&mut spec.cwd),
        ErrorKind::Input,
        "working directory `work` is not absolute",
    );
    check(
        &|spec| "/bin/sh".clone_into(&mut spec.cwd),
        ErrorKind::Input,
        "cannot enter working directory `/bin/sh`: Not a directory (os error 20)",
    );
    check(
        &|spec| spec.env.push("A=\0".to_owned()),
        ErrorKind::Input,
        r#""A=\0" contains a NUL byte"#,
    );
    check(
        &|spec| {
            spec.ulimits.push(Ulimit {
                name: "lunch".to_owned(),
                soft: 1,
                hard: 1,
            });
        },
        ErrorKind::Input,
        "unknown ulimit `lunch`",
    );
    check(
        &|spec| {
            spec.ulimits.push(Ulimit {
                name: "nofile".to_owned(),
                soft: 2,
                hard: 1,
            });
        },
        ErrorKind::Input,
        "cannot set ulimit `nofile`: Invalid argument (os error 22)",
    );
    check(
        &|spec| spec.cgroup_parent = Some("a/../b".to_owned()),
        ErrorKind::Input,
        "cgroup parent `a/../b` leaves the hierarchy",
    );
}

fn signals_are_passed_on() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let (ours, theirs) = rustix::pipe::pipe().unwrap();
    let script = "trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.01; done";
    let mut spec = sandbox.shell(script);
    spec.signals = Some(ours);
    let output = run_with(spec, &Cancel::new().unwrap(), &mut |text| {
        if text == "ready\n" {
            // The first is not handled, and so does nothing.
            let signals = [libc::SIGHUP, libc::SIGTERM].map(|signal| signal as u8);
            rustix::io::write(&theirs, &signals).unwrap();
        }
    })
    .unwrap();
    assert_eq!(output.exit.outcome, Outcome::Exited(7), "{output:?}");
    assert_eq!(output.stdout, "ready\ncaught\n");
}

fn cancel_kills_all() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let cancel = Cancel::new().unwrap();
    let spec = sandbox.shell("trap '' TERM INT; (sleep 1000 &) ; echo ready; sleep 1000");
    let output = run_with(spec, &cancel, &mut |_| cancel.cancel()).unwrap();
    assert_eq!(output.exit.outcome, Outcome::Canceled);
    assert_eq!(output.stdout, "ready\n");
    // It stays raised.
    let output = run_with(sandbox.shell("sleep 1000"), &cancel, &mut |_| {}).unwrap();
    assert_eq!(output.exit.outcome, Outcome::Canceled);
}

fn usage_is_told() {
    if skipped() {
        return;
    }
    let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
    let usage = run(Sandbox::new().shell(script)).unwrap().exit.usage;
    assert!(usage.user_time.as_millis() > 10, "{usage:?}");
    assert!(usage.system_time.as_secs() < 10, "{usage:?}");
    assert!(usage.max_rss_bytes > 100_000, "{usage:?}");
}
