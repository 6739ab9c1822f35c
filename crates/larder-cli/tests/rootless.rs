//! Larder as an ordinary user, with and without subordinate ids.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::process::Command;
use std::time::Duration;

use fs_err as fs;
use larder_testkit::{
    Base, EntryKind, Larder, OciArchive, Run, Scratch, User, kill_many, processes_left, skip,
};

/// A context and a state root of `user`, with busybox.
struct Setup {
    scratch: Scratch,
    larder: Larder,
}

impl Setup {
    fn new(user: anyhow::Result<User>) -> anyhow::Result<Self> {
        let user = user?;
        let archive = Base::Busybox.archive()?;
        let scratch = Scratch::owned_by(&user);
        let larder = Larder::new(env!("CARGO_BIN_EXE_larder"), &scratch).as_user(user, &scratch);
        // Larder reads standard input, since the user may not reach the archive.
        let mut import = larder.command(["import", "-", "busybox"]);
        import.stdin(std::process::Stdio::from(
            fs::File::open(archive)?.into_parts().0,
        ));
        let _ = Run::of(&mut import).success();
        Ok(Self { scratch, larder })
    }

    fn build(&self, dockerfile: &str, args: &[&str]) -> Run {
        let files = [("Dockerfile", dockerfile), ("a.txt", "a\n")];
        let context = self.scratch.context("context", &files);
        let mut command = self.larder.command(["build", "--progress", "plain"]);
        Run::of(command.args(args).arg(context))
    }

    /// Builds, and reads the image's layers.
    fn layers(&self, dockerfile: &str) -> Vec<Vec<larder_testkit::Entry>> {
        let out = self.scratch.join("out.tar");
        let output = format!("type=oci,dest={}", out.display());
        let _ = self.build(dockerfile, &["-o", &output]).success();
        OciArchive::open(&out).unwrap().layers().unwrap()
    }
}

macro_rules! as_user {
    ($user:expr) => {
        match Setup::new($user) {
            Ok(setup) => setup,
            Err(error) => skip!("no ordinary user: {error:#}"),
        }
    };
}

const ANY_IDS: &str = "\
FROM busybox
WORKDIR /app
COPY a.txt .
RUN --mount=type=cache,target=/cache echo $(id -u):$(id -g) > who && cat a.txt >> /cache/log
RUN --network=none mkdir d && chmod 2750 d && ln -s a.txt link && rm /etc/passwd
";

/// What works for every user.
fn check_everyday_life(setup: &Setup) {
    let _ = setup.build(ANY_IDS, &["-t", "made"]).success();
    let again = setup.build(ANY_IDS, &["-t", "made"]).success();
    assert_eq!(again.cached_count(), 5, "{}", again.stderr);
    let script = "cat who; stat -c %a d; cat link; ls /etc/passwd 2>/dev/null || echo gone";
    let run = setup.larder.run(["run", "made", "sh", "-c", script]);
    assert_eq!(run.success().text(), "0:0\n2750\na\ngone");
    let code = setup.larder.run(["run", "made", "sh", "-c", "exit 7"]);
    let _ = code.exit(7);
    let du = setup.larder.run(["du"]).success().text();
    assert!(du.contains("Reclaimable:"), "{du}");
    let failed = setup.build("FROM busybox\nRUN exit 3\n", &[]).exit(1);
    let _ = failed.says("did not complete successfully: exit code: 3");
    let _ = setup.larder.run(["rmi", "made"]).success();
    let pruned = setup.larder.run(["prune", "-a", "-f"]).success().text();
    assert!(pruned.lines().count() > 4, "{pruned}");
    let left = fs::read_dir(setup.scratch.root().join("snapshots"));
    assert_eq!(left.unwrap().count(), 0);
    let _ = setup.build(ANY_IDS, &[]).success();
}

#[test]
fn a_user_with_subordinate_ids_lives_as_root_does() {
    let setup = as_user!(User::with_subordinate_ids());
    check_everyday_life(&setup);
    let layers = setup.layers(
        "\
FROM busybox
COPY --chown=5:6 a.txt /copied
RUN touch /made && chown 1000:1001 /made && chmod 4755 /made && echo u:x:1234:1235::/:/bin/sh >> /etc/passwd
USER u
RUN touch /tmp/of-u
",
    );
    let owner = |name: &str| {
        let found = layers.iter().flatten().find(|entry| entry.path == name);
        let entry = found.unwrap_or_else(|| panic!("no {name}"));
        (entry.uid, entry.gid, entry.mode)
    };
    assert_eq!(owner("copied"), (5, 6, 0o644));
    assert_eq!(owner("made"), (1000, 1001, 0o4755));
    assert_eq!(owner("tmp/of-u"), (1234, 1235, 0o644));
    assert!(layers.iter().flatten().all(|entry| entry.xattrs.is_empty()));
}

#[test]
fn a_user_without_subordinate_ids_gets_what_one_id_allows() {
    let setup = as_user!(User::without_subordinate_ids());
    check_everyday_life(&setup);
    let layers = setup.layers("FROM busybox\nCOPY a.txt /\nRUN touch /made\n");
    for entry in layers.iter().flatten() {
        assert_eq!((entry.uid, entry.gid), (0, 0), "{}", entry.path);
    }
    let names: Vec<_> = layers[1..].iter().flatten().collect();
    let a = names.iter().find(|entry| entry.path == "a.txt").unwrap();
    assert_eq!(a.kind, EntryKind::File(b"a\n".to_vec()));
    for (dockerfile, expected) in [
        (
            "FROM busybox\nUSER 1000\nRUN true\n",
            "cannot become user 1000",
        ),
        (
            "FROM busybox\nCOPY --chown=5:6 a.txt /\n",
            "cannot set the owner of `/a.txt`",
        ),
    ] {
        let run = setup.build(dockerfile, &[]).exit(1);
        let error = run.stderr.lines().rfind(|line| line.starts_with("ERROR: "));
        assert!(
            error.is_some_and(|error| error.contains(expected)) && run.stderr.contains("\nhint: "),
            "{}",
            run.stderr
        );
    }
    let run = setup.build("FROM busybox\nRUN chown 5:6 /tmp\n", &[]);
    let _ = run.exit(1).says("Invalid argument");
}

#[test]
fn layers_that_only_root_can_mount_are_unpacked() {
    let user = match User::with_subordinate_ids() {
        Ok(user) => user,
        Err(error) => skip!("no ordinary user: {error:#}"),
    };
    let scratch = Scratch::owned_by(&user);
    let config = scratch.join("larder.toml");
    fs::write(&config, "[store]\nlayers = \"erofs\"\n").unwrap();
    let admin = Larder::new(env!("CARGO_BIN_EXE_larder"), &scratch);
    let admin = admin.with_env("LARDER_CONFIG", &config);
    let info = admin.run(["info"]);
    if info.code != Some(0) {
        skip!("{}", info.stderr);
    }
    let archive = Base::Busybox.archive().unwrap();
    let _ = admin
        .run(["import", archive.to_str().unwrap(), "busybox"])
        .success();
    let files = [
        (
            "Dockerfile",
            "FROM busybox\nCOPY --chown=5:6 a.txt /data/\nCOPY a.txt /data/b.txt\n",
        ),
        ("a.txt", "text"),
    ];
    let context = scratch.context("context", &files);
    let made = |larder: &Larder| {
        Run::of(
            larder
                .command(["build", "--progress", "plain", "-t", "made"])
                .arg(&context),
        )
    };
    let _ = made(&admin).success();
    // All layers are images: there is no mark in a directory that the user couldn't read.
    fs::write(scratch.root().join("snapshotter"), "overlay-userxattr").unwrap();
    let given = Command::new("chown")
        .args(["-R", "--reference"])
        .args([scratch.path(), &scratch.root()])
        .status();
    assert!(given.unwrap().success());

    let larder = Larder::new(env!("CARGO_BIN_EXE_larder"), &scratch).as_user(user, &scratch);
    let said = larder.run(["info"]).success();
    assert!(
        said.text().contains("directory (images can't be mounted"),
        "{}",
        said.text()
    );
    assert_eq!(made(&larder).success().cached_count(), 3);
    let seen = [
        "run",
        "made",
        "sh",
        "-c",
        "stat -c %u:%g /data/a.txt; cat /data/b.txt",
    ];
    assert_eq!(larder.run(seen).success().text(), "5:6\ntext");
    fs::write(
        context.join("Dockerfile"),
        "FROM made\nRUN rm /data/a.txt && ls /data\n",
    )
    .unwrap();
    let built = made(&larder).success();
    assert!(
        built.stderr.contains("b.txt") && !built.stderr.contains("a.txt\n"),
        "{}",
        built.stderr
    );
}

#[test]
fn a_kill_leaks_nothing_of_an_ordinary_user() {
    let setup = as_user!(User::with_subordinate_ids());
    let _ = setup.build(ANY_IDS, &["-t", "made"]).success();
    let context = setup.scratch.join("context");
    let victim = |_| {
        let mut build = setup
            .larder
            .command(["build", "--no-cache", "-t", "killed"]);
        build.arg(&context);
        build
    };
    let next = |_| {
        let _ = setup.build(ANY_IDS, &["-t", "made"]).success();
    };
    let kills = kill_many(3, 8, Duration::from_millis(500), victim, next).unwrap();
    assert!(kills >= 5, "only {kills} were killed in time");
    let _ = setup.larder.run(["prune", "-f"]).success();
    let mark = setup.scratch.path().to_str().unwrap();
    let left = processes_left(mark, Duration::from_secs(10));
    assert!(left.is_empty(), "processes were left: {left:?}");
    for directory in ["tmp", "trash", "leases"] {
        let left: Vec<_> = fs::read_dir(setup.scratch.root().join(directory))
            .unwrap()
            .collect();
        assert!(left.is_empty(), "{directory}: {left:?}");
    }
}
