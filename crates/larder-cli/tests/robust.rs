//! What must not break larder: SIGKILL at any moment, a full disk, hostile layers.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fs_err as fs;
use larder_store::{Clock, Options, Snapshotter, Store};
use larder_testkit::{
    Base, EntryKind, Larder, MadeImage, Project, Run, Scratch, SmallDisk, kill_many,
    processes_left, project, report_skip, skip, tar_of,
};
use larder_tree::apply::Ownership;

/// How often larder is killed, with layers of each kind.
const KILLS: usize = 20;
/// What layers can be.
const LAYERS: [&str; 2] = ["directory", "erofs"];
/// Long enough for any of the commands to get to its end now and then.
const LONGEST: Duration = Duration::from_millis(300);
/// How long what a killed larder left may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// A build with all kinds of steps, none of which is cached for a new `N`.
const DOCKERFILE: &str = "\
FROM busybox AS first
ARG N
COPY tree /tree
RUN --mount=type=cache,target=/cache,sharing=locked echo $N >> /cache/log; cp -r /bin /copy$N
FROM busybox
ARG N
WORKDIR /app
RUN --mount=type=bind,target=/src --mount=type=tmpfs,target=/t cp -r /src/tree /t && sleep 0.1
COPY --from=first /tree /app/tree
RUN echo $N > n && rm -r tree/1
";

/// Fills the context with a tree of a few hundred files.
fn write_context(project: &Project) {
    let mut files = vec![("Dockerfile".to_owned(), DOCKERFILE.to_owned())];
    for directory in 0..10 {
        for file in 0..15 {
            let content = format!("{directory} {file} ").repeat(100);
            files.push((format!("tree/{directory}/{file}"), content));
        }
    }
    let files: Vec<_> = files
        .iter()
        .map(|(path, text)| (&**path, &**text))
        .collect();
    project.write(&files);
}

/// Returns the command of a round.
fn victim(project: &Project, round: usize) -> Command {
    let n = format!("N={round}");
    let archive = project.scratch().join("out.tar");
    let archive = archive.to_str().expect("the path is UTF-8");
    let output = format!("type=oci,dest={archive}");
    match round % 7 {
        0 => project.command(&["--build-arg", &n, "-t", "victim"]),
        1 => project.command(&["--build-arg", &n, "-o", &output]),
        2 => project.larder().command(["prune", "-a", "-f"]),
        3 => project.command(&["--no-cache", "-t", "victim"]),
        4 => {
            let script = "mkdir /data/x; cp -r /bin /b; sleep 0.2";
            let args = ["run", "-v", "/data", "busybox", "sh", "-c", script];
            project.larder().command(args)
        }
        5 => project.larder().command(["save", "kept", "-o", archive]),
        _ => project.larder().command(["du", "--verbose"]),
    }
}

/// Has all commands of the project make layers of one kind; returns whether that can be had here.
fn set_layers(project: &Project, layers: &str) -> bool {
    let config = project.scratch().home().join(".config/larder/larder.toml");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    fs::write(&config, format!("[store]\nlayers = \"{layers}\"\n")).unwrap();
    let info = project.larder().run(["info"]);
    if info.code != Some(0) {
        report_skip(info.stderr.trim_end());
    }
    info.code == Some(0)
}

#[test]
fn a_kill_at_any_moment_breaks_nothing_and_leaks_nothing() {
    for layers in LAYERS {
        let project = project!(Base::Busybox);
        if set_layers(&project, layers) {
            kill_at_any_moment(&project);
        }
    }
}

fn kill_at_any_moment(project: &Project) {
    write_context(project);
    let _ = project
        .build(&["--build-arg", "N=kept", "-t", "kept"])
        .success();
    let archive = match Base::Busybox.archive() {
        Ok(archive) => archive,
        Err(error) => skip!("no base image: {error:#}"),
    };
    let prepared = |round| {
        if round % 7 == 3 {
            // The base is pruned and unpacked anew.
            let _ = project.larder().run(["prune", "-a", "-f"]).success();
            let import = ["import".as_ref(), archive.as_os_str(), "busybox".as_ref()];
            let _ = project.larder().run(import).success();
        }
        victim(project, round)
    };
    let next_command = |round| {
        let next = match round % 3 {
            0 => project.larder().run(["du"]),
            1 => project.larder().run(["images"]),
            _ => project.build(&["--build-arg", "N=kept", "-t", "kept"]),
        };
        let _ = next.success();
    };
    let kills = kill_many(11, KILLS, LONGEST, prepared, next_command).unwrap();
    assert!(kills >= KILLS - 2, "only {kills} were killed in time");
    let again = project
        .build(&["--build-arg", "N=kept", "-t", "kept"])
        .success();
    let n = project.larder().run(["run", "kept", "cat", "/app/n"]);
    assert_eq!(n.success().text(), "kept", "{}", again.stderr);
    let _ = project
        .larder()
        .run(["prune", "-f", "--filter", "until=24h"])
        .success();
    check_nothing_leaked(project);
    check_consistent(project.larder().root());
    check_accounted(project.larder());
}

/// Checks that no process, mount or cgroup of the project is left.
fn check_nothing_leaked(project: &Project) {
    let mark = project.scratch().path().to_str().unwrap().to_owned();
    let left = processes_left(&mark, PATIENCE);
    assert!(left.is_empty(), "processes were left: {left:?}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&mark), "{mounts}");
    let left = cgroups_of_the_dead();
    assert!(left.is_empty(), "cgroups were left: {left:?}");
    let leases: Vec<_> = fs::read_dir(project.larder().root().join("leases"))
        .unwrap()
        .collect();
    assert!(leases.is_empty(), "{leases:?}");
}

/// Returns larder's cgroups, `<pid>.<n>`, whose process is dead.
fn cgroups_of_the_dead() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts
        .lines()
        .find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [_, path, "cgroup2", ..] => Some(path),
            _ => None,
        });
    let Some(mount) = mount else {
        return Vec::new();
    };
    let is_dead = |name: &String| {
        let (pid, _) = name.split_once('.').unwrap_or_default();
        pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()
    };
    let names = names_in(&Path::new(mount).join("larder"));
    names.into_iter().filter(is_dead).collect()
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    entries
        .map(|entry| name(entry).to_string_lossy().into_owned())
        .collect()
}

/// Checks that the store has neither contradictions nor leftovers.
fn check_consistent(root: &Path) {
    let options = Options {
        clock: Clock::new(jiff::Timestamp::now),
        snapshotter: Snapshotter::Overlay { userxattr: false },
        ownership: Ownership::Preserve,
        mounter: None,
        ceiling: None,
        settle_after: None,
    };
    let problems = Store::open(root, options).unwrap().check().unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    for directory in ["tmp", "trash"] {
        let left = names_in(&root.join(directory));
        assert!(left.is_empty(), "{directory}: {left:?}");
    }
}

/// Checks that `du` and the disk agree within 1 %.
fn check_accounted(larder: &Larder) {
    let run = larder.run(["du"]).success();
    let total = run.text().lines().last().unwrap_or_default().to_owned();
    let disk = Run::of(
        Command::new("du")
            .args(["-s", "--block-size=1"])
            .arg(larder.root()),
    );
    let disk: f64 = disk.text().split('\t').next().unwrap().parse().unwrap();
    let number = total.trim_start_matches("Total:").trim();
    let (number, unit) = number.split_at(number.find(char::is_alphabetic).unwrap());
    let unit = match unit {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        other => panic!("{other}"),
    };
    let total = number.parse::<f64>().unwrap() * unit;
    assert!(
        (total / disk - 1.0).abs() < 0.01,
        "du: {total}, disk: {disk}"
    );
}

#[test]
fn a_full_disk_loses_nothing() {
    for layers in LAYERS {
        let project = project!(Base::Busybox);
        if set_layers(&project, layers) {
            fill_the_disk(&project);
        }
    }
}

fn fill_the_disk(project: &Project) {
    let disk = match SmallDisk::mount(64 << 20) {
        Ok(disk) => disk,
        Err(error) => skip!("no loop mount: {error:#}"),
    };
    let larder = project.larder().clone().with_root(disk.path().join("root"));
    let archive = Base::Busybox.archive().unwrap();
    let _ = larder
        .run(["import".as_ref(), archive.as_os_str()])
        .success();
    let build = |dockerfile: &str, args: &[&str]| {
        project.write(&[("Dockerfile", dockerfile)]);
        let mut command = larder.command(["build", "--progress", "plain"]);
        Run::of(command.args(args).arg(project.context()))
    };
    let good = "FROM busybox\nCOPY small /\nRUN cat /small > /copy\n";
    project.write(&[("small", "small")]);
    let _ = build(good, &["-t", "good"]).success();

    fs::write(project.context().join("large"), vec![b'x'; 80 << 20]).unwrap();
    let full = build("FROM busybox\nCOPY large /\n", &[]).exit(102);
    assert!(
        full.stderr.contains("No space left on device")
            && full.stderr.contains("\nhint: ")
            && !full.stderr.contains(disk.path().to_str().unwrap()),
        "{}",
        full.stderr
    );
    // A process that hits the limit fails by itself, as it would anywhere.
    let filled = build("FROM busybox\nRUN cat /dev/zero > /zeros\n", &[]).exit(1);
    assert!(filled.stderr.contains("No space left"), "{}", filled.stderr);
    assert_eq!(build(good, &[]).success().cached_count(), 3);

    let ballast = disk.fill().unwrap();
    let _ = larder.run(["du"]).success();
    let none = build("FROM busybox\nRUN echo more > /more\n", &[]);
    assert_eq!(none.code, Some(102), "{}", none.stderr);
    let pruned = larder.run(["prune", "-f"]).success();
    assert!(pruned.text().contains("Total:"), "{}", pruned.text());
    fs::remove_file(ballast).unwrap();

    let archive = larder.run(["save", "good"]).success();
    assert!(archive.stdout.len() > 1 << 20);
    let _ = build(good, &["-t", "good"]).success();
    let copy = larder.run(["run", "good", "cat", "/copy"]).success();
    assert_eq!(copy.text(), "small");
    let _ = larder.run(["prune", "-f"]).success();
    check_consistent(larder.root());
}

/// Imports an image with one layer of `entries` as `hostile`, and builds on it.
fn build_on(project: &Project, entries: &[(&str, EntryKind)]) -> Run {
    let shell = tar_of(&[("marker", EntryKind::File(b"lower".to_vec()))]);
    let image = MadeImage::new(&[shell, tar_of(entries)]);
    let archive = project.scratch().join("hostile.tar");
    image.write(&archive).unwrap();
    let import = ["import".as_ref(), archive.as_os_str(), "hostile".as_ref()];
    let imported = project.larder().run(import);
    if imported.code != Some(0) {
        return imported;
    }
    project.write(&[("Dockerfile", "FROM hostile\nCOPY Dockerfile /copied\n")]);
    let tree = project.scratch().join("tree");
    let _ = fs::remove_dir_all(&tree);
    let output = format!("type=local,dest={}", tree.display());
    project.build(&["-o", &output])
}

/// A layer's entries, and what must be in the tree, or the entry that must be named.
type Case<'a> = (
    &'a str,
    &'a [(&'a str, EntryKind)],
    Result<&'a str, &'a str>,
);

#[test]
fn a_hostile_layer_stays_in_the_root_or_is_refused_by_name() {
    let project = project!(Base::Busybox);
    let outside = project.scratch().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let outside = outside.to_str().unwrap();
    let file = || EntryKind::File(b"evil".to_vec());
    let link = |target: &str| EntryKind::Symlink(target.to_owned());
    let hard = |target: &str| EntryKind::HardLink(target.to_owned());
    let up = "../../../../../../../../../../../..";
    let climb = format!("{up}{outside}");
    let climbing = format!("{climb}/evil");
    let absolute = format!("{outside}/evil");
    let secret = format!("{outside}/secret");
    let climbing_secret = format!("{climb}/secret");
    let dangling = format!("{outside}/dangling");
    let cases: &[Case] = &[
        ("dot dot", &[(&climbing, file())], Err(&climbing)),
        ("absolute", &[(&absolute, file())], Ok(&absolute[1..])),
        (
            "through an absolute link",
            &[("link", link(outside)), ("link/evil", file())],
            Ok(&absolute[1..]),
        ),
        (
            "through a climbing link",
            &[("link", link(&climb)), ("link/evil", file())],
            Ok(&absolute[1..]),
        ),
        (
            "through a link of a link",
            &[
                ("a", link("b/..")),
                ("b", link(outside)),
                ("a/evil", file()),
            ],
            Ok("marker"),
        ),
        (
            "onto a dangling link",
            &[("link", link(&dangling)), ("link", file())],
            Ok("link"),
        ),
        (
            "hard link, absolute",
            &[("stolen", hard(&secret))],
            Err("stolen"),
        ),
        (
            "hard link, climbing",
            &[("stolen", hard(&climbing_secret))],
            Err("stolen"),
        ),
        (
            "hard link through a link",
            &[("link", link(outside)), ("stolen", hard("link/secret"))],
            Err("stolen"),
        ),
        ("hard link to itself", &[("me", hard("me"))], Ok("marker")),
        (
            "whiteout, climbing",
            &[("a/../../.wh.outside", file())],
            Err("a/../../.wh.outside"),
        ),
        (
            "whiteout through a link",
            &[("link", link(outside)), ("link/.wh.secret", file())],
            Ok("marker"),
        ),
        (
            "whiteout of the parent",
            &[("a/.wh...", file())],
            Err("a/.wh..."),
        ),
        ("the root as a file", &[(".", file())], Ok("marker")),
        ("device", &[("null", EntryKind::Special)], Ok("marker")),
    ];
    for (name, entries, expected) in cases {
        let run = build_on(&project, entries);
        let tree = project.scratch().join("tree");
        match expected {
            Ok(path) => {
                assert_eq!(run.code, Some(0), "{name}: {}", run.stderr);
                let found = tree.join(path).symlink_metadata().is_ok();
                assert!(found, "{name}: {path}\n{}", run.stderr);
            }
            Err(entry) => {
                assert_eq!(run.code, Some(1), "{name}: {}", run.stderr);
                let named = format!("`{entry}`");
                let error = run.stderr.lines().rfind(|line| line.starts_with("ERROR: "));
                assert!(
                    error.is_some_and(|error| error.contains(&named)),
                    "{name}: {named}\n{}",
                    run.stderr
                );
            }
        }
        let mut left = names_in(Path::new(outside));
        left.sort();
        assert_eq!(left, ["secret"], "{name}");
        let secret = fs::metadata(Path::new(outside).join("secret")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::nlink(&secret), 1, "{name}");
    }
}

#[test]
fn a_broken_archive_is_refused_and_named() {
    let project = project!(Base::Busybox);
    let good = MadeImage::new(&[tar_of(&[("a", EntryKind::File(vec![7; 4096]))])]);
    let path = project.scratch().join("image.tar");
    good.write(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    let layer = good.layer_digest(0);
    let flipped = {
        let mut bytes = whole.clone();
        let content = bytes
            .windows(64)
            .position(|window| window == [7; 64])
            .unwrap();
        bytes[content] = 8;
        bytes
    };
    for (name, bytes, expected) in [
        ("flipped", flipped, layer.as_str()),
        ("cut", whole[..whole.len() / 2].to_vec(), "archive"),
        ("empty", Vec::new(), "archive"),
        ("text", b"FROM busybox\n".to_vec(), "archive"),
    ] {
        fs::write(&path, bytes).unwrap();
        let import = ["import".as_ref(), path.as_os_str(), "broken".as_ref()];
        let run = project.larder().run(import).exit(1);
        assert!(
            run.stderr.starts_with("ERROR: ") && run.stderr.contains(expected),
            "{name}: {}",
            run.stderr
        );
        assert!(!project.larder().run(["images"]).text().contains("broken"));
    }
    let _ = project.larder().run(["prune", "-a", "-f"]).success();
    check_consistent(project.larder().root());
}

#[test]
fn many_larders_share_a_state_directory() {
    let project = project!(Base::Busybox);
    write_context(&project);
    let scratch = Scratch::new();
    let mut children = Vec::new();
    for round in 0..12 {
        let n = format!("N={}", round % 3);
        let mut command = match round % 4 {
            0 => project.larder().command(["du", "--verbose"]),
            1 => project.larder().command(["prune", "-f"]),
            _ => project.command(&["--build-arg", &n]),
        };
        let log = fs::File::create(scratch.join(round.to_string())).unwrap();
        let (log, _) = log.into_parts();
        let child = command
            .stdout(std::process::Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        children.push((round, child));
    }
    for (round, mut child) in children {
        let status = child.wait().unwrap();
        let log = fs::read_to_string(scratch.join(round.to_string())).unwrap();
        assert!(status.success(), "{round}: {log}");
    }
    let _ = project.build(&["--build-arg", "N=1"]).success();
    let _ = project.larder().run(["prune", "-f"]).success();
    check_consistent(project.larder().root());
    check_accounted(project.larder());
}
