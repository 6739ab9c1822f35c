//! Archives: images on their way from one state directory to another, and those that ADD unpacks.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use fs_err as fs;
use larder_testkit::{Base, EntryKind, Larder, Project, Run, Scratch, project, tar_of};

fn build(project: &Project, name: &str) {
    let dockerfile = format!("FROM busybox\nRUN echo {name} > /name\n");
    project.write(&[("Dockerfile", &dockerfile)]);
    let _ = project.build(&["-t", name]).success();
}

#[test]
fn several_images_travel_in_one_archive() {
    let project = project!(Base::Busybox);
    build(&project, "one");
    build(&project, "two");
    let archive = project.scratch().join("both.tar");
    let archive = archive.to_str().unwrap();
    let save = ["save", "-o", archive, "one", "two", "one"];
    let _ = project.larder().run(save).success();

    let elsewhere = Scratch::new();
    let larder = Larder::new(env!("CARGO_BIN_EXE_larder"), &elsewhere);
    let loaded = larder.run(["load", "-i", archive]).success();
    assert_eq!(
        loaded.text(),
        "Loaded image: one:latest\nLoaded image: two:latest"
    );
    for name in ["one", "two"] {
        let run = larder.run(["run", name, "cat", "/name"]).success();
        assert_eq!(run.text(), name);
    }
}

#[test]
fn what_is_no_archive_is_named() {
    let scratch = Scratch::new();
    let larder = Larder::new(env!("CARGO_BIN_EXE_larder"), &scratch);
    let file = scratch.join("no.tar");
    fs::write(&file, "no tar at all\n".repeat(100)).unwrap();
    for verb in [&["load", "-i"][..], &["import"]] {
        let run = larder.run(verb.iter().map(AsRef::as_ref).chain([file.as_os_str()]));
        let expected = format!("ERROR: cannot load `{}`: ", file.display());
        let _ = run.exit(1).says(&expected);
    }
    // `docker import` makes an image of such a tree.
    let tree = scratch.join("tree.tar");
    let mut tar = tar::Builder::new(fs::File::create(&tree).unwrap());
    tar.append_path_with_name(&file, "etc/motd").unwrap();
    drop(tar);
    let run = larder.run(["import".as_ref(), tree.as_os_str()]);
    let _ = run.exit(1).says("ERROR: cannot load `");
}

/// Returns what `gzip` makes of `bytes`.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = Command::new("gzip");
    let gzip = gzip.arg("-n").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = gzip.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output.stdout
}

fn file(content: &str) -> EntryKind {
    EntryKind::File(content.as_bytes().to_vec())
}

/// Builds a Dockerfile that adds `bytes`, a file called `a`, as `add` says, and shows `/in`.
fn add(project: &Project, add: &str, bytes: &[u8]) -> Run {
    fs::write(project.context().join("a"), bytes).unwrap();
    let show = "RUN cd /in && find . -type f -exec md5sum {} + ; ls /in /etc /";
    project.write(&[("Dockerfile", &format!("FROM busybox\n{add}\n{show}\n"))]);
    project.build(&["--no-cache"])
}

#[test]
fn only_archives_are_unpacked_and_only_if_that_is_wanted() {
    let project = project!(Base::Busybox);
    let tar = tar_of(&[("d/f", file("f\n"))]);
    let packed = gzip(&tar);
    let text = gzip(b"no archive\n");
    // A file that begins like one, and is none.
    let begun = [&[0x1f, 0x8b, 0x08][..], b"rest"].concat();
    let unpacked = "./d/f\n";
    let copied = "./a\n";
    for (instruction, bytes, expected) in [
        ("ADD a /in/", &tar, unpacked),
        ("ADD a /in/", &packed, unpacked),
        ("ADD --unpack=true a /in/", &packed, unpacked),
        ("ADD --unpack=false a /in/", &tar, copied),
        ("ADD --unpack=false a /in/", &packed, copied),
        ("COPY a /in/", &packed, copied),
        ("ADD a /in/", &text, copied),
        ("ADD a /in/", &begun, copied),
        ("ADD a /in/", &b"plain\n".to_vec(), copied),
    ] {
        let run = add(&project, instruction, bytes).success();
        assert!(
            run.stderr.contains(expected),
            "{instruction}: {}",
            run.stderr
        );
        if expected == copied {
            let sum = Command::new("md5sum")
                .arg(project.context().join("a"))
                .output();
            let sum = String::from_utf8(sum.unwrap().stdout).unwrap();
            let _ = run.says(sum.split(' ').next().unwrap());
        }
    }
}

#[test]
fn hostile_archives_stay_where_they_are_added() {
    let project = project!(Base::Busybox);
    let link = |target: &str| EntryKind::Symlink(target.to_owned());
    let hard = |target: &str| EntryKind::HardLink(target.to_owned());
    for (entries, expected) in [
        (
            vec![("../x", file("x"))],
            "cannot unpack `a`: entry `../x` leaves the root",
        ),
        (
            vec![("l", hard("../../etc/passwd"))],
            "cannot unpack `a`: hard link `l`: entry `../../etc/passwd` leaves the root",
        ),
    ] {
        let run = add(&project, "ADD a /in/", &tar_of(&entries)).exit(1);
        assert!(run.stderr.contains(expected), "{}", run.stderr);
        assert!(
            !run.stderr
                .contains(project.larder().root().to_str().unwrap()),
            "{}",
            run.stderr
        );
    }
    // Links lead as they would in the directory that is added to.
    let through = tar_of(&[
        ("out", link("../../../../etc")),
        ("out/larder-was-here", file("x")),
    ]);
    let _ = add(&project, "ADD a /in/", &through).success();
    assert!(!std::path::Path::new("/etc/larder-was-here").exists());
    let truncated = gzip(&tar_of(&[("f", file(&"x".repeat(5000)))]));
    let run = add(&project, "ADD a /in/", &truncated[..truncated.len() - 9]).exit(1);
    let _ = run.says("the compressed data is corrupt or cut short");
}

#[test]
fn a_bomb_ends_at_the_ceiling() {
    let project = project!(Base::Busybox);
    let zeros = vec![0; 64 << 20];
    let bomb = gzip(&tar_of(&[("zeros", EntryKind::File(zeros))]));
    assert!(bomb.len() < 1 << 20);
    let config = project.scratch().join("larder.toml");
    fs::write(&config, "[cache]\nmax = \"48MB\"\n").unwrap();
    fs::write(project.context().join("a"), bomb).unwrap();
    project.write(&[("Dockerfile", "FROM busybox\nADD a /in/\n")]);
    let mut build = project.larder().command(["--config"]);
    build
        .arg(&config)
        .args(["build", "--progress=plain"])
        .arg(project.context());
    let run = Run::of(&mut build).exit(102);
    let _ = run.says("ERROR: ");
}
