//! `[cache]` of larder.toml: a ceiling that nothing passes.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fs_err as fs;
use larder_store::{Clock, Options, Snapshotter, Store};
use larder_testkit::{Base, Larder, Project, Run, SmallDisk, project, skip};
use larder_tree::apply::Ownership;

const MB: u64 = 1_000_000;
/// The disk of the random builds, and the ceiling a little below what it holds.
const DISK: u64 = 40 << 20;
const MAX: u64 = 28 * MB;
/// How many processes build at a time, and how often each does.
const BUILDERS: usize = 4;
const ROUNDS: usize = 60;
/// Between two looks at the disk.
const INTERVAL: Duration = Duration::from_millis(5);

/// Returns a larder that reads `config`.
fn configured(project: &Project, config: &str) -> Larder {
    let path = project.scratch().join("larder.toml");
    fs::write(&path, config).unwrap();
    project.larder().clone().with_env("LARDER_CONFIG", &path)
}

fn build(larder: &Larder, context: &Path, args: &[&str]) -> Run {
    let mut command = larder.command(["build", "--progress", "plain"]);
    Run::of(command.args(args).arg(context))
}

/// Numbers that look random, the same ones in each run.
struct Numbers(u64);

impl Numbers {
    /// Returns a number below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    /// Returns text of which no part compresses away or is found elsewhere.
    fn text(&mut self, length: u64) -> String {
        let mut text = String::new();
        while (text.len() as u64) < length {
            write!(text, "{:08x}", self.below(1 << 31)).unwrap();
        }
        text
    }
}

/// Writes the context of one random build.
fn write_build(numbers: &mut Numbers, context: &Path, round: usize) {
    for number in 0..3 {
        if round == 0 || numbers.below(2) == 0 {
            let length = numbers.below(500_000) + 1;
            let name = context.join(format!("file{number}"));
            fs::write(name, numbers.text(length)).unwrap();
        }
    }
    let mut dockerfile = "FROM busybox\nWORKDIR /app\n".to_owned();
    for number in 0..3 {
        if numbers.below(3) > 0 {
            writeln!(dockerfile, "COPY file{number} /app/dir{number}/").unwrap();
        }
    }
    if numbers.below(6) == 0 {
        let name = numbers.below(4);
        let length = numbers.below(800);
        writeln!(
            dockerfile,
            "RUN --mount=type=cache,target=/cache,id=mount{name} \
             head -c {length}000 /dev/urandom > /cache/{round} && cp /cache/{round} /made"
        )
        .unwrap();
    }
    writeln!(dockerfile, "COPY file{} /app/last", numbers.below(3)).unwrap();
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
}

/// Returns the bytes in use on the filesystem at `path`.
fn used_bytes(path: &Path) -> u64 {
    let stat = rustix::fs::statvfs(path).unwrap();
    (stat.f_blocks - stat.f_bfree) * stat.f_frsize
}

/// Builds at random until all rounds are done; returns the context of its builds.
fn build_at_random(larder: &Larder, directory: &Path, seed: u64) -> PathBuf {
    let context = directory.join(format!("context{seed}"));
    fs::create_dir(&context).unwrap();
    let mut numbers = Numbers(seed);
    for round in 0..ROUNDS {
        write_build(&mut numbers, &context, round);
        let tag = format!("image{seed}");
        let args: &[&str] = match numbers.below(4) {
            0 => &["-t", &tag],
            1 => &["--no-cache"],
            _ => &[],
        };
        let run = build(larder, &context, args);
        assert_eq!(run.code, Some(0), "{seed}, round {round}: {}", run.stderr);
    }
    context
}

#[test]
fn random_builds_of_many_processes_stay_below_the_ceiling() {
    let project = project!(Base::Busybox);
    let disk = match SmallDisk::mount(DISK) {
        Ok(disk) => disk,
        Err(error) => skip!("no loop mount: {error:#}"),
    };
    let empty = used_bytes(&disk.path());
    let larder = configured(
        &project,
        &format!("[cache]\nmax = {MAX}\nmounts = {}\n", 4 * MB),
    )
    .with_root(disk.path().join("root"));
    let archive = Base::Busybox.archive().unwrap();
    let _ = larder
        .run(["import".as_ref(), archive.as_os_str()])
        .success();
    let (is_done, most) = (AtomicBool::new(false), AtomicU64::new(0));
    // In the order in which they ended: what the last one used is the last to go.
    let contexts = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::SeqCst) {
                most.fetch_max(used_bytes(&disk.path()) - empty, Ordering::SeqCst);
                std::thread::sleep(INTERVAL);
            }
        });
        let (larder, directory) = (&larder, project.scratch().path());
        let contexts = &contexts;
        let build = move |seed| {
            let context = build_at_random(larder, directory, seed);
            contexts.lock().unwrap().push(context);
        };
        let builders: Vec<_> = (1..=BUILDERS as u64)
            .map(|seed| scope.spawn(move || build(seed)))
            .collect();
        let ended: Vec<_> = builders
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        is_done.store(true, Ordering::SeqCst);
        for builder in ended {
            builder.unwrap();
        }
    });
    let contexts = contexts.into_inner().unwrap();
    let most = most.into_inner();
    assert!(most <= MAX, "{most} bytes were in use");
    assert!(most > MAX / 2, "the ceiling was never near: {most}");
    check_consistent(larder.root());

    let context = contexts.last().unwrap();
    let tree = project.scratch().join("tree");
    let output = format!("type=local,dest={}", tree.display());
    let exported = build(&larder, context, &["-o", &output]).success();
    let dockerfile = fs::read_to_string(context.join("Dockerfile")).unwrap();
    let steps = dockerfile.lines().count();
    assert_eq!(exported.cached_count(), steps, "{}", exported.stderr);
    let last = dockerfile.lines().last().unwrap();
    let source = last.split(' ').nth(1).unwrap();
    assert_eq!(
        fs::read(tree.join("app/last")).unwrap(),
        fs::read(context.join(source)).unwrap()
    );
}

/// Checks that the store has no contradictions.
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
}

#[test]
fn a_build_that_is_too_large_fails_clearly_and_loses_nothing() {
    let project = project!(Base::Busybox);
    let larder = configured(&project, "[cache]\nmax = \"40MB\"\n");
    let context = project.context();
    project.write(&[("small", "small")]);
    fs::write(context.join("large"), vec![b'x'; 50 << 20]).unwrap();
    let first = "FROM busybox\nCOPY small /\nRUN cat /small > /copy\n";
    for (last, stopped) in [
        ("COPY large /\n", "cannot write `/large`"),
        ("RUN cat /dev/zero > /zeros\n", "was stopped"),
        (
            "RUN --mount=type=cache,target=/c cat /dev/zero > /c/zeros\n",
            "was stopped",
        ),
    ] {
        project.write(&[("Dockerfile", &format!("{first}{last}"))]);
        let refused = build(&larder, &context, &[]).exit(102);
        let error = refused
            .stderr
            .lines()
            .rfind(|line| line.starts_with("ERROR: "));
        let error = error.unwrap_or_default();
        for part in [stopped, "the ceiling of the cache, 40 MB", "running builds"] {
            assert!(error.contains(part), "{part}: {}", refused.stderr);
        }
        let hint = refused
            .stderr
            .lines()
            .find(|line| line.starts_with("hint: "));
        assert!(
            hint.is_some_and(|hint| hint.contains("`max` of `[cache]`")),
            "{}",
            refused.stderr
        );
        let root = larder.root().to_str().unwrap();
        assert!(!refused.stderr.contains(root), "{}", refused.stderr);
    }
    project.write(&[("Dockerfile", first)]);
    let again = build(&larder, &context, &[]).success();
    assert_eq!(again.cached_count(), 3, "{}", again.stderr);
    check_consistent(larder.root());
}

#[test]
fn what_a_killed_build_had_reserved_is_free_for_the_next() {
    let project = project!(Base::Busybox);
    let larder = configured(&project, "[cache]\nmax = \"40MB\"\n");
    let context = project.context();
    project.write(&[(
        "Dockerfile",
        "FROM busybox\nRUN head -c 20000000 /dev/zero > /zeros; echo written; sleep 600\n",
    )]);
    let mut command = larder.command(["build", "--progress", "plain"]);
    let mut child = command
        .arg(&context)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = child.stderr.take().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stderr));
    assert!(lines.any(|line| line.unwrap().ends_with(" written")));
    let killed = Command::new("kill")
        .args(["-KILL", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    child.wait().unwrap();
    fs::write(context.join("large"), vec![b'x'; 25 << 20]).unwrap();
    project.write(&[("Dockerfile", "FROM busybox\nCOPY large /\n")]);
    let _ = build(&larder, &context, &[]).success();
    check_consistent(larder.root());
}

#[test]
fn a_build_that_changes_nothing_reserves_nothing() {
    let project = project!(Base::Busybox);
    let larder = configured(&project, "[cache]\nmax = \"1GB\"\n");
    project.write(&[("Dockerfile", "FROM busybox\nCOPY Dockerfile /\n")]);
    let context = project.context();
    let _ = build(&larder, &context, &["-t", "image"]).success();
    let lock = larder.root().join("locks/ceiling");
    fs::remove_file(&lock).unwrap();
    let _ = build(&larder, &context, &["-t", "image"]).success();
    assert!(!lock.exists(), "who reserves takes this lock");
}
