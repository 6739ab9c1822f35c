//! The verbs that work on the store: images, archives, `run`, `du` and `prune`.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use fs_err as fs;
use larder_oci::media_type;
use larder_testkit::{Base, Larder, OciArchive, Project, Run, install, project, skip};
use serde_json::Value;

/// An image with something of everything.
const DOCKERFILE: &str = "\
FROM busybox
ENV GREETING=hello
WORKDIR /work
COPY a.txt /a
RUN --mount=type=cache,target=/cache dd if=/dev/zero of=/cache/x bs=1k count=300; \\
    dd if=/dev/urandom of=/big bs=1k count=500
VOLUME /data
LABEL x=y
CMD [\"sh\", \"-c\", \"echo $GREETING\"]
";

/// Builds the image as `app:1`.
fn build_app(project: &Project) {
    project.write(&[("Dockerfile", DOCKERFILE), ("a.txt", "a\n")]);
    let _ = project.build(&["-t", "app:1"]).success();
}

/// Returns what `larder ARGS…` prints.
#[track_caller]
fn text(larder: &Larder, args: &[&str]) -> String {
    larder.run(args).success().text()
}

/// Returns what `larder ARGS… --format FORMAT` prints of each, sorted.
#[track_caller]
fn listed(larder: &Larder, args: &[&str], format: &str) -> Vec<String> {
    let text = text(larder, &[args, &["--format", format]].concat());
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn images_are_listed_tagged_inspected_and_removed() {
    let project = project!(Base::Busybox);
    let larder = project.larder();
    build_app(&project);
    let names = |args: &[&str]| listed(larder, args, "{{.Repository}}:{{.Tag}}");
    assert_eq!(names(&["images"]), ["app:1", "busybox:latest"]);
    let _ = text(larder, &["tag", "app:1", "app:2", "team/other"]);
    assert_eq!(names(&["images", "app"]), ["app:1", "app:2"]);
    assert_eq!(names(&["images", "app:2"]), ["app:2"]);
    let ids = text(larder, &["images", "-q", "--no-trunc"]);
    assert_eq!(ids.lines().count(), 2, "{ids}");

    let inspected: Value = serde_json::from_str(&text(larder, &["inspect", "app:2"])).unwrap();
    let image = &inspected[0];
    assert_eq!(image["Config"]["WorkingDir"], "/work");
    assert_eq!(image["Config"]["Labels"]["x"], "y");
    assert_eq!(image["Config"]["Volumes"]["/data"], serde_json::json!({}));
    assert_eq!(image["RepoTags"].as_array().unwrap().len(), 3);
    let id = image["Id"].as_str().unwrap();
    assert!(ids.contains(id), "{ids}");
    assert_eq!(text(larder, &["inspect", "-f", "{{.Id}}", "app:1"]), id);

    let steps = listed(
        larder,
        &["history", "--no-trunc", "app:1"],
        "{{.CreatedBy}}",
    );
    for step in [
        "ENV GREETING=hello",
        "WORKDIR /work",
        "COPY a.txt /a # buildkit",
        "LABEL x=y",
        "CMD [\"sh\" \"-c\" \"echo $GREETING\"]",
    ] {
        assert!(steps.iter().any(|line| line == step), "{step}: {steps:#?}");
    }

    assert_eq!(
        text(larder, &["rmi", "app:2", "team/other"]),
        "Untagged: app:2\nUntagged: team/other:latest"
    );
    let removed = format!("Untagged: app:1\nDeleted: {id}");
    assert_eq!(text(larder, &["rmi", "app:1"]), removed);
    assert_eq!(names(&["images"]), ["busybox:latest"]);
    let _ = larder
        .run(["rmi", "app:1"])
        .exit(1)
        .says("ERROR: image `app:1` does not exist");
    // Its steps are still in the cache.
    assert_eq!(project.build(&[]).success().cached_count(), 4);
}

#[test]
fn an_image_is_saved_and_loaded_unchanged() {
    let project = project!(Base::Busybox);
    let larder = project.larder();
    build_app(&project);
    let id = text(larder, &["inspect", "-f", "{{.Id}}", "app:1"]);
    let file = project.scratch().join("app.tar");
    let path = file.to_str().unwrap();
    let _ = text(larder, &["save", "app:1", "-o", path]);
    let streamed = larder.run(["save", "app:1"]).success();
    assert!(
        streamed.stdout == fs::read(&file).unwrap(),
        "another archive"
    );
    let archive = OciArchive::open(&file).unwrap();
    assert_eq!(archive.layers().unwrap().len(), 4);
    // What is stored has its layers as they are, what is saved has them compressed.
    let metadata = project.scratch().join("metadata.json");
    let flags = ["-t", "app:1", "--metadata-file", metadata.to_str().unwrap()];
    let _ = project.build(&flags).success();
    let stored: Value = serde_json::from_slice(&fs::read(&metadata).unwrap()).unwrap();
    let saved = archive.manifest_descriptor().unwrap().digest;
    assert_ne!(stored["containerimage.digest"], saved.as_str());
    let own = &archive.manifest().unwrap().layers[1..];
    assert!(own.iter().all(|it| it.media_type == media_type::LAYER_GZIP));
    let entries = archive.file("manifest.json").unwrap();
    let entries: Value = serde_json::from_slice(entries).unwrap();
    assert_eq!(entries[0]["RepoTags"], serde_json::json!(["app:1"]));

    if let Err(error) = install(&["skopeo"]) {
        skip!("no skopeo: {error:#}");
    }
    for transport in ["oci-archive", "docker-archive"] {
        let target = project.scratch().join(transport);
        let copied = Run::of(Command::new("skopeo").args([
            "--insecure-policy",
            "copy",
            &format!("{transport}:{path}"),
            &format!("dir:{}", target.display()),
        ]));
        let _ = copied.success();
    }

    let _ = text(larder, &["rmi", "app:1"]);
    let _ = text(larder, &["prune", "-a", "-f"]);
    assert_eq!(text(larder, &["load", "-i", path]), "Loaded image: app:1");
    assert_eq!(text(larder, &["inspect", "-f", "{{.Id}}", "app:1"]), id);
    assert_eq!(text(larder, &["run", "app:1"]), "hello");
    let mut load = larder.command(["import", "-", "app:9"]);
    load.stdin(Stdio::from(fs::File::open(&file).unwrap().into_parts().0));
    assert_eq!(Run::of(&mut load).success().text(), "Loaded image: app:9");
}

#[test]
fn run_takes_its_flags_and_hands_on_streams_and_exit_codes() {
    let project = project!(Base::Busybox);
    let larder = project.larder();
    build_app(&project);
    let host = project.scratch().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("f"), "from the host\n").unwrap();
    let bind = format!("{}:/v", host.display());
    let read_only = format!("{bind}:ro");
    let sh = |flags: &[&str], script: &str| {
        larder.run([&["run"], flags, &["app:1", "sh", "-c", script]].concat())
    };
    for (flags, script, expected) in [
        (&[][..], "echo $GREETING $PWD", "hello /work"),
        (
            &["-e", "GREETING=bye", "-w", "/tmp"],
            "echo $GREETING $PWD",
            "bye /tmp",
        ),
        (&["-u", "5:6"], "echo $(id -u):$(id -g)", "5:6"),
        (&["-v", &bind], "cat /v/f; touch /v/new", "from the host"),
        (&["-v", "/anon"], "touch /anon/x; ls /anon", "x"),
        (&["--rm"], "touch /data/x; ls /data; ls /work", "x"),
        (&[], "touch /work/y; ls /work", "y"),
        (
            &["-v", &read_only],
            "touch /v/no 2>/dev/null || echo refused",
            "refused",
        ),
    ] {
        assert_eq!(sh(flags, script).success().text(), expected, "{script}");
    }
    assert!(host.join("new").exists() && !host.join("no").exists());
    assert_eq!(
        sh(&[], "ls /work /data").success().text(),
        "/data:\n\n/work:"
    );
    for code in [1, 7, 125, 255] {
        let _ = sh(&[], &format!("exit {code}")).exit(code);
    }
    let both = sh(&[], "echo out; echo err >&2").success();
    assert_eq!(
        (both.text().as_str(), both.stderr.as_str()),
        ("out", "err\n")
    );

    let mut command = larder.command(["run", "app:1", "cat"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"through").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.stdout, output.status.code()),
        (b"through".to_vec(), Some(0))
    );

    // The exit codes are Docker's.
    for (code, args, expected) in [
        (
            125,
            &["run", "nothing"][..],
            "ERROR: image `nothing` does not exist",
        ),
        (
            127,
            &["run", "app:1", "nothing"],
            "ERROR: exec: \"nothing\": executable file not found in $PATH",
        ),
        (
            126,
            &["run", "app:1", "/etc"],
            "ERROR: exec: \"/etc\": is a directory",
        ),
        (
            125,
            &["run", "-u", "nobodyatall", "app:1"],
            "unable to find user nobodyatall",
        ),
    ] {
        let _ = larder.run(args).exit(code).says(expected);
    }
}

/// Returns the bytes that `du -s` counts.
fn disk_bytes(root: &Path) -> f64 {
    let run = Run::of(Command::new("du").args(["-s", "--block-size=1"]).arg(root));
    run.text().split('\t').next().unwrap().parse().unwrap()
}

/// Returns the bytes of a size as people read it.
fn bytes_of(text: &str) -> f64 {
    let (number, unit) = text.split_at(text.find(char::is_alphabetic).unwrap());
    let unit = match unit {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        other => panic!("unknown unit {other}"),
    };
    number.parse::<f64>().unwrap() * unit
}

/// Returns the totals below the table of `du`, by their names.
fn totals(larder: &Larder) -> BTreeMap<String, f64> {
    let text = text(larder, &["du"]);
    let total = |line: &str| {
        let (name, size) = line.split_once(":\t")?;
        Some((name.to_owned(), bytes_of(size.trim())))
    };
    text.lines().filter_map(total).collect()
}

#[test]
fn du_tells_what_is_on_the_disk() {
    let project = project!(Base::Busybox);
    let larder = project.larder();
    build_app(&project);
    let totals = totals(larder);
    let disk = disk_bytes(larder.root());
    assert!(
        (totals["Total"] / disk - 1.0).abs() < 0.01,
        "{totals:?} {disk}"
    );
    let parts = totals["Shared"] + totals["Private"];
    assert!((parts / totals["Total"] - 1.0).abs() < 0.01, "{totals:?}");

    let json = text(larder, &["du", "--format", "json"]);
    let records: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let keys: Vec<&String> = records[0].as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "CreatedAt",
            "Description",
            "ID",
            "LastUsedAt",
            "Mutable",
            "Parents",
            "Reclaimable",
            "Shared",
            "Size",
            "Type",
            "UsageCount"
        ]
    );
    let size = |record: &Value| bytes_of(record["Size"].as_str().unwrap());
    let sum: f64 = records.iter().map(size).sum();
    assert!((sum / disk - 1.0).abs() < 0.01, "{sum} {disk}");
    let verbose = text(larder, &["du", "--verbose"]);
    let cache_mount = "Description:  cached mount /cache from exec /bin/sh -c dd";
    assert!(verbose.contains(cache_mount), "{verbose}");

    let all = records.len();
    let count = |filter: &str| {
        let filter = ["du", "--filter", filter];
        text(larder, &[&filter[..], &["--format", "{{.ID}}"]].concat())
            .lines()
            .count()
    };
    assert_eq!(count("type=regular"), 4);
    assert_eq!(count("type!=regular"), all - 4);
    assert_eq!(count("type=exec.cachemount"), 1);
    assert_eq!(count("description~=COPY a.txt"), 1);
    assert_eq!(count("mutable") + count("immutable"), all);
    assert_eq!(count("shared") + count("private"), all);
    assert_eq!(count("until=1h"), 0);
    let regular = listed(larder, &["du", "--filter", "type=regular"], "{{.ID}}");
    assert_eq!(count(&format!("id={}", regular[0])), 1);
    let _ = larder
        .run(["du", "--filter", "colour=red"])
        .exit(1)
        .says("invalid filter `colour=red`");
}

/// Returns how many records of `type` there are.
fn count(larder: &Larder, record_type: &str) -> usize {
    let filter = format!("type={record_type}");
    listed(larder, &["du", "--filter", &filter], "{{.ID}}").len()
}

#[test]
fn prune_asks_and_spares_what_images_need() {
    let project = project!(Base::Busybox);
    let larder = project.larder();
    build_app(&project);
    let answer = |args: &[&str], answer: &str| {
        let mut command = larder.command([&["prune"], args].concat());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(answer.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let question = "WARNING! This will remove all dangling build cache. Are you sure you want to continue? [y/N] ";
    for no in ["n\n", "", "no\n", "maybe\n"] {
        assert_eq!(answer(&[], no), question, "{no}");
    }
    assert_eq!(count(larder, "regular"), 4);
    let question = question.replace("all dangling", "all");
    let yes = answer(&["-a"], "y\n");
    assert!(
        yes.starts_with(&question) && yes.contains("Total:\t"),
        "{yes}"
    );
    assert_eq!(count(larder, "exec.cachemount"), 0);
    // The image's own layers stay: it can be run, and no more than its steps are forgotten.
    assert_eq!(text(larder, &["run", "app:1"]), "hello");
    let _ = text(larder, &["rmi", "-a"]);
    let _ = answer(&["-a"], "yes\n");
    assert_eq!(count(larder, "regular"), 0);
    assert!(disk_bytes(larder.root()) < 3e6);
}

/// Makes five records of 1 MB each, and a cache mount of 1 MB, and forgets the image.
fn five_megabytes(project: &Project) {
    let mut dockerfile = "FROM busybox\n".to_owned();
    for number in 0..5 {
        let run = format!("RUN dd if=/dev/urandom of=/{number} bs=1k count=1000\n");
        dockerfile.push_str(&run);
    }
    dockerfile
        .push_str("RUN --mount=type=cache,target=/c dd if=/dev/zero of=/c/x bs=1k count=1000\n");
    project.write(&[("Dockerfile", &dockerfile)]);
    let _ = project.build(&["-o", "type=cacheonly"]).success();
}

#[test]
fn prune_keeps_to_the_limits_it_is_given() {
    let project = project!(Base::Busybox);
    let larder = project.larder();
    five_megabytes(&project);
    let used = || totals(larder)["Total"];
    let prune = |args: &[&str]| {
        let text = text(larder, &[&["prune", "-f"], args].concat());
        let freed = text.lines().last().unwrap().trim_start_matches("Total:\t");
        bytes_of(freed)
    };
    let before = used();
    assert!(prune(&["--filter", "until=1h"]) == 0.0);
    assert!(prune(&["--max-used-space", "1GB"]) == 0.0);
    assert!(prune(&["--reserved-space", "1GB"]) == 0.0);
    assert!(prune(&["--keep-storage", "1GB"]) == 0.0);
    assert!(prune(&["--min-free-space", "1"]) == 0.0);
    assert!(prune(&["--max-used-space", "1", "--reserved-space", "1GB"]) == 0.0);
    assert!((used() - before).abs() < 1.0);

    let limit = before - 1_500_000.0;
    let freed = prune(&["--max-used-space", &limit.to_string()]);
    assert!((1_500_000.0..2_600_000.0).contains(&freed), "{freed}");
    assert!(used() <= limit, "{} {limit}", used());
    // What is left is the older, lower part of the chain: a rebuild finds it.
    let again = project.build(&["-o", "type=cacheonly"]).success();
    assert!((2..6).contains(&again.cached_count()), "{}", again.stderr);

    let freed = prune(&["--filter", "type=exec.cachemount"]);
    assert!((1_000_000.0..1_100_000.0).contains(&freed), "{freed}");
    assert_eq!(count(larder, "exec.cachemount"), 0);
    // A disk that can't be as empty as asked for: all goes that may.
    assert!(prune(&["--min-free-space", "1000TB"]) > 4e6);
    assert_eq!(count(larder, "regular"), 0);
    // The image of the base has its blobs still.
    let again = project.build(&["-o", "type=cacheonly"]).success();
    assert_eq!(again.cached_count(), 0, "{}", again.stderr);
}

#[test]
fn the_store_keeps_to_its_own_limits() {
    let project = project!(Base::Busybox);
    five_megabytes(&project);
    let config = project.scratch().join("larder.toml");
    fs::write(
        &config,
        "[worker.oci]\nreservedSpace = 0\nmaxUsedSpace = \"6MB\"\nminFreeSpace = 0\n",
    )
    .unwrap();
    let larder = project.larder().clone().with_env("LARDER_CONFIG", &config);
    assert!(totals(&larder)["Total"] > 8e6);
    project.write(&[("Dockerfile", "FROM busybox\nRUN echo small > /small\n")]);
    let mut build = larder.command(["build", "--progress", "plain", "-t", "small"]);
    let _ = Run::of(build.arg(project.context())).success();
    assert!(totals(&larder)["Total"] <= 6e6, "{:?}", totals(&larder));
    assert_eq!(text(&larder, &["run", "small", "cat", "/small"]), "small");

    five_megabytes(&project);
    fs::write(&config, "[worker.oci]\ngc = false\nmaxUsedSpace = 1\n").unwrap();
    let mut build = larder.command(["build", "--progress", "plain"]);
    let _ = Run::of(build.arg(project.context())).success();
    assert!(totals(&larder)["Total"] > 8e6, "it was told not to");
}
