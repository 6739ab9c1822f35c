//! Steps and processes at once.

use std::process::{Child, Command, Stdio};

use larder_testkit::{Base, OciArchive, Project, Run, project, write_tree};

/// Shell: waits, some 20 seconds at most, until `count` files lie in `/meet`.
fn meet(name: &str, count: usize) -> String {
    format!(
        "touch /meet/{name}; n=0; until [ $(ls /meet | wc -l) -ge {count} ]; do \
         n=$((n+1)); [ $n -lt 400 ] || exit 1; sleep 0.05; done"
    )
}

/// Starts all commands, and returns what each said when it had ended.
fn at_once(commands: Vec<Command>) -> Vec<Run> {
    let threads = commands
        .into_iter()
        .map(|mut command| std::thread::spawn(move || Run::of(&mut command)));
    let threads: Vec<_> = threads.collect();
    let ended = threads.into_iter().map(std::thread::JoinHandle::join);
    ended
        .map(|run| run.expect("the command can be run"))
        .collect()
}

/// Returns a build of a Dockerfile in a context of its own.
fn build(project: &Project, name: &str, dockerfile: &str, args: &[&str]) -> Command {
    let context = project.scratch().join(name);
    write_tree(&context, &[("Dockerfile", dockerfile)]);
    let mut command = project.larder().command(["build", "--progress", "plain"]);
    command.args(args).arg(context);
    command
}

#[test]
fn stages_that_need_nothing_of_each_other_run_at_once() {
    const COUNT: usize = 8;
    let project = project!(Base::Busybox);
    let stage = |n: usize| {
        let meet = meet(&n.to_string(), COUNT);
        format!("FROM busybox AS s{n}\nRUN --mount=type=cache,target=/meet {meet}; touch /{n}\n")
    };
    let copy = |n: usize| format!("COPY --from=s{n} /{n} /\n");
    let stages: String = (0..COUNT).map(stage).collect();
    let copies: String = (0..COUNT).map(copy).collect();
    project.write(&[("Dockerfile", &format!("{stages}FROM scratch\n{copies}"))]);
    let _ = project.build(&[]).success();
}

#[test]
fn a_step_that_several_builds_need_runs_once() {
    const COUNT: usize = 4;
    let project = project!(Base::Busybox);
    let count = "RUN --mount=type=cache,id=count,target=/count";
    for round in 0..3 {
        let dockerfile = format!(
            "FROM busybox AS one\n\
             {count} echo {round} >> /count/1; sleep 0.2; cat /proc/sys/kernel/random/uuid > /1\n\
             FROM busybox AS two\n\
             COPY Dockerfile /\n\
             {count} echo {round} >> /count/2; cat /proc/sys/kernel/random/uuid > /2\n\
             FROM busybox\n\
             COPY --from=one /1 /\n\
             COPY --from=two /2 /\n\
             {count} echo {round} >> /count/3; cat /proc/sys/kernel/random/uuid > /3\n"
        );
        let builds = (0..COUNT).map(|n| build(&project, &n.to_string(), &dockerfile, &[]));
        let runs = at_once(builds.collect());
        let first = runs[0].manifest_digest();
        for run in runs {
            assert_eq!(run.manifest_digest(), first, "{}", run.success().stderr);
        }
        let counted = format!("FROM busybox\n{count} : {round}; cat /count/*\n");
        let run = Run::of(&mut build(&project, "counted", &counted, &[])).success();
        let ran = run.step("RUN").output().len();
        assert_eq!(ran, 3 * (round + 1), "{}", run.stderr);
    }
}

#[test]
fn a_step_whose_process_elsewhere_fails_is_run_by_the_next() {
    let project = project!(Base::Busybox);
    let dockerfile = "FROM busybox\n\
        RUN --mount=type=cache,id=try,target=/t mkdir /t/first && sleep 0.3 && exit 3; echo done\n";
    let builds = (0..3).map(|n| build(&project, &n.to_string(), dockerfile, &[]));
    let runs = at_once(builds.collect());
    let failed = runs.iter().filter(|run| run.code == Some(1)).count();
    let built = runs.iter().filter(|run| run.code == Some(0)).count();
    assert_eq!((failed, built), (1, 2), "{runs:#?}");
}

#[test]
fn a_locked_cache_mount_has_one_user_at_a_time() {
    let project = project!(Base::Busybox);
    let stage = |n: usize| {
        format!(
            "FROM busybox AS s{n}\n\
             RUN --mount=type=cache,id=l,target=/l,sharing=locked \
             mkdir /l/held && sleep 0.1 && rmdir /l/held && echo {n} > /{n}\n"
        )
    };
    let copy = |n: usize| format!("COPY --from=s{n} /{n} /\n");
    // Three stages in each of three processes.
    let builds = (0..3).map(|process| {
        let numbers = process * 3..process * 3 + 3;
        let stages: String = numbers.clone().map(stage).collect();
        let copies: String = numbers.map(copy).collect();
        let dockerfile = format!("{stages}FROM scratch\n{copies}");
        build(&project, &process.to_string(), &dockerfile, &[])
    });
    for run in at_once(builds.collect()) {
        let _ = run.success();
    }
}

#[test]
fn a_shared_cache_mount_has_any_number_of_users_at_once() {
    let project = project!(Base::Busybox);
    let builds = (0..3).map(|n| {
        let meet = meet(&n.to_string(), 3);
        let dockerfile = format!("FROM busybox\nRUN --mount=type=cache,target=/meet {meet}\n");
        build(&project, &n.to_string(), &dockerfile, &[])
    });
    for run in at_once(builds.collect()) {
        let _ = run.success();
    }
}

#[test]
fn a_private_cache_mount_has_a_second_one_while_the_first_is_used() {
    let project = project!(Base::Busybox);
    let builds = |round: usize| {
        let one = |n: usize| {
            let meet = meet(&format!("{round}-{n}"), 2 * (round + 1));
            let dockerfile = format!(
                "FROM busybox\n\
                 RUN --mount=type=cache,id=p,target=/p,sharing=private \
                 --mount=type=cache,target=/meet \
                 mkdir /p/held && ls -A /p && {meet} && rmdir /p/held && touch /p/used\n"
            );
            build(&project, &n.to_string(), &dockerfile, &[])
        };
        at_once((0..2).map(one).collect())
    };
    let held = |run: Run| run.success().step("RUN").output().join(" ");
    for run in builds(0) {
        assert_eq!(held(run), "held");
    }
    // Both are kept, and used again.
    for run in builds(1) {
        assert_eq!(held(run), "held used");
    }
    let du = project.larder().run(["du", "--verbose"]).success().text();
    assert_eq!(du.matches("with id \"/p\"").count(), 2, "{du}");
}

#[test]
fn builds_du_and_prune_disturb_each_other_not() {
    const BUILDERS: usize = 4;
    const ROUNDS: usize = 3;
    let project = project!(Base::Busybox);
    let builders = |round: usize| {
        (0..BUILDERS).map(move |n| (n, round)).map(|(n, round)| {
            let dockerfile = format!(
                "FROM busybox AS made\n\
                 RUN --mount=type=cache,target=/c date > /c/{n}; seq 1 1000 > /common\n\
                 RUN echo {n} {round} > /own\n\
                 FROM busybox\n\
                 COPY --from=made /common /own /\n\
                 COPY Dockerfile /\n\
                 RUN test \"$(cat /own)\" = '{n} {round}' && test $(wc -l < /common) = 1000\n"
            );
            let output = project.scratch().join(format!("{n}.oci.tar"));
            let output = format!("--output=type=oci,dest={}", output.display());
            let tag = format!("--tag=app:{n}");
            let args = [&*output, "--output=type=image", &*tag];
            build(&project, &n.to_string(), &dockerfile, &args)
        })
    };
    let mut pruner = endless(
        &project,
        "while :; do \"$0\" \"$@\" prune -af || exit 1; done",
    );
    let mut lister = endless(&project, "while :; do \"$0\" \"$@\" du || exit 1; done");
    for round in 0..ROUNDS {
        for run in at_once(builders(round).collect()) {
            let _ = run.success();
        }
        for n in 0..BUILDERS {
            let path = project.scratch().join(format!("{n}.oci.tar"));
            let archive = OciArchive::open(&path).unwrap();
            assert_eq!(archive.layers().unwrap().len(), 4);
            let saved = project
                .larder()
                .run(["save", &format!("app:{n}")])
                .success();
            let saved = OciArchive::read(&saved.stdout[..]).unwrap();
            assert_eq!(saved.manifest().unwrap(), archive.manifest().unwrap());
        }
    }
    for child in [&mut pruner, &mut lister] {
        assert!(child.try_wait().unwrap().is_none(), "prune or du failed");
        child.kill().unwrap();
        let _ = child.wait();
    }
}

/// Runs a shell script over and over; `"$0" "$@"` is larder on the state root.
fn endless(project: &Project, script: &str) -> Child {
    let larder = project.larder().command([""; 0]);
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(larder.get_program());
    command
        .args(larder.get_args())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command.spawn().expect("a shell can be started")
}
