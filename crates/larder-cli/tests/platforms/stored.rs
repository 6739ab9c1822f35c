//! Indexes in the local store, in archives and in registries.

use std::process::Command;

use larder_oci::{ImageIndex, media_type};
use larder_testkit::{Larder, OciArchive, Run, install, skip};
use serde_json::Value;

use crate::{BOTH, index_of, platforms, setup};

const DOCKERFILE: &str = "FROM BASE\nARG TARGETARCH\nCOPY a.txt /$TARGETARCH\n";

fn inspected(larder: &Larder, args: &[&str]) -> Value {
    let run = larder.run([&["inspect"], args].concat()).success();
    let images: Value = serde_json::from_slice(&run.stdout).unwrap();
    images[0].clone()
}

#[test]
fn the_store_holds_all_images_of_an_index() {
    let setup = setup!();
    let larder = &setup.larder;
    let _ = setup
        .build(DOCKERFILE, &["--platform", BOTH, "-t", "made"])
        .success();
    let listed = larder.run(["images", "--format", "{{.Repository}} {{.Digest}}"]);
    let listed = listed.success().text();
    let made = listed.lines().filter(|line| line.starts_with("made "));
    assert_eq!(made.count(), 1, "{listed}");
    let all = inspected(larder, &["made"]);
    assert_eq!(all["Architecture"], "amd64");
    assert_eq!(
        all["Platforms"],
        serde_json::json!(["linux/amd64", "linux/arm64"])
    );
    let arm64 = inspected(larder, &["--platform", "linux/arm64", "made"]);
    assert_eq!(arm64["Architecture"], "arm64");
    assert_eq!(arm64["Descriptor"], all["Descriptor"]);
    assert_ne!(arm64["Id"], all["Id"]);
    // An image of an index is found by its own id, too.
    let id = arm64["Id"].as_str().unwrap();
    assert_eq!(inspected(larder, &[id])["Architecture"], "arm64");
    let _ = larder
        .run(["inspect", "--platform", "linux/s390x", "made"])
        .exit(1)
        .says("no match for platform linux/s390x");

    let _ = larder.run(["tag", "made", "again:1"]).success();
    let archive = setup.scratch.join("saved.tar");
    let path = archive.to_str().unwrap();
    let _ = larder.run(["save", "-o", path, "again:1"]).success();
    let saved = OciArchive::open(&archive).unwrap();
    let (_, index) = index_of(&saved);
    assert_eq!(platforms(&index), ["linux/amd64", "linux/arm64"]);
    let docker: Value = serde_json::from_slice(saved.file("manifest.json").unwrap()).unwrap();
    assert_eq!(docker[0]["RepoTags"][0], "again:1");
    let other = setup.elsewhere();
    let loaded = other.run(["load", "-i", path]).success();
    assert_eq!(loaded.text(), "Loaded image: again:1");
    let there = inspected(&other, &["--platform", "linux/arm64", "again:1"]);
    assert_eq!(there["Id"], arm64["Id"]);
    let one = ["save", "--platform", "linux/arm64", "-o", path, "made"];
    let _ = larder.run(one).success();
    let one = OciArchive::open(&archive).unwrap().config().unwrap();
    assert_eq!(one.platform().to_string(), "linux/arm64");

    for name in ["made", "again:1"] {
        let _ = larder.run(["rmi", name]).success();
    }
    let _ = larder.run(["inspect", "made"]).exit(1);
}

#[test]
fn a_stored_index_is_a_base_for_all_its_platforms() {
    let setup = setup!();
    let _ = setup
        .build(DOCKERFILE, &["--platform", BOTH, "-t", "made"])
        .success();
    let dockerfile = "FROM made\nCOPY a.txt /again\n";
    let run = setup.build(dockerfile, &["--platform", BOTH]).success();
    assert!(run.stderr.contains("[linux/arm64 2/2] COPY a.txt /again"));
    assert!(!run.stderr.contains("extracting"), "{}", run.stderr);
    // What is stored for one platform only does not hide what the registry has for others.
    let _ = setup.larder.run(["rmi", "made"]).success();
    let other = setup.elsewhere();
    let base = setup.name("base:1");
    let _ = other.run(["pull", &base]).success();
    let args = ["--platform", "linux/arm64"];
    let _ = setup.build_with(&other, DOCKERFILE, &args).success();
    let only = setup.name("base:amd64");
    let _ = other.run(["pull", &only]).success();
    let dockerfile = format!("FROM {only}\nCOPY a.txt /a\n");
    let run = setup.build_with(&other, &dockerfile, &args);
    // A registry's manifest that is no index is taken as it is, and warned of.
    let _ = run.success().says(&format!(
        "Base image {only} was pulled with platform \"linux/amd64\", expected \"linux/arm64\""
    ));
}

#[test]
fn a_pushed_index_comes_with_all_its_images() {
    let setup = setup!();
    let name = setup.name("team/app:1");
    let args = [
        "--platform",
        BOTH,
        "-t",
        &name,
        "--push",
        "--provenance=false",
    ];
    let run = setup.build(DOCKERFILE, &args).success();
    let index = setup.whole_index("team/app", "1");
    assert_eq!(platforms(&index), ["linux/amd64", "linux/arm64"]);
    assert!(run.stderr.contains("exporting manifest list sha256:"));
    // A stored image has uncompressed layers, and is compressed on its way.
    let stored = setup.name("team/stored:1");
    let args = ["--platform", BOTH, "-t", &stored];
    let _ = setup.build(DOCKERFILE, &args).success();
    let pushed = setup.larder.run(["push", &stored]).success();
    let index = setup.whole_index("team/stored", "1");
    assert_eq!(platforms(&index), ["linux/amd64", "linux/arm64"]);
    let top = setup.manifest("team/stored", "1");
    let digest = larder_oci::Digest::sha256(&top);
    assert!(pushed.text().contains(&format!("1: digest: {digest}")));
    let one = ["push", "--platform", "linux/arm64", &stored];
    let _ = setup.larder.run(one).success();
    let manifest: Value = serde_json::from_slice(&setup.manifest("team/stored", "1")).unwrap();
    assert_eq!(manifest["mediaType"], media_type::MANIFEST);
}

#[test]
fn skopeo_reads_a_pushed_index() {
    if let Err(error) = install(&["skopeo"]) {
        skip!("no skopeo: {error:#}");
    }
    let setup = setup!();
    let name = setup.name("team/app:1");
    let args = [
        "--platform",
        BOTH,
        "-t",
        &name,
        "--push",
        "--provenance=false",
    ];
    let _ = setup.build(DOCKERFILE, &args).success();
    let source = format!("docker://{name}");
    let skopeo = |args: &[&str]| Run::of(Command::new("skopeo").args(args)).success();
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &source]);
    let index: ImageIndex = serde_json::from_slice(&raw.stdout).unwrap();
    assert_eq!(platforms(&index), ["linux/amd64", "linux/arm64"]);
    let arm64 = [
        "--override-arch",
        "arm64",
        "inspect",
        "--tls-verify=false",
        &source,
    ];
    let arm64: Value = serde_json::from_slice(&skopeo(&arm64).stdout).unwrap();
    assert_eq!(arm64["Architecture"], "arm64");
    let layout = setup.scratch.join("layout");
    let target = format!("oci:{}:1", layout.display());
    let _ = skopeo(&["copy", "--all", "--src-tls-verify=false", &source, &target]);
}

#[test]
fn a_pull_takes_the_image_for_a_platform() {
    let setup = setup!();
    let name = setup.name("base:1");
    let larder = &setup.larder;
    let _ = larder
        .run(["pull", "--platform", "linux/arm64", &name])
        .success();
    assert_eq!(inspected(larder, &[&name])["Architecture"], "arm64");
    let _ = larder.run(["pull", &name]).success();
    let both = inspected(larder, &[&name]);
    assert_eq!(
        both["Platforms"],
        serde_json::json!(["linux/arm64", "linux/amd64"])
    );
    let _ = larder
        .run(["pull", "--platform", "linux/s390x", &name])
        .exit(1)
        .says("no match for platform linux/s390x");
    let single = setup.name("base:amd64");
    let _ = larder
        .run(["pull", "--platform", "linux/arm64", &single])
        .exit(1)
        .says("is an image for linux/amd64, not for linux/arm64");
    // All of the index is here now, and goes elsewhere as it came.
    let copy = setup.name("copy:1");
    let _ = larder.run(["tag", &name, &copy]).success();
    let _ = larder.run(["push", &copy]).success();
    assert_eq!(setup.manifest("copy", "1"), setup.manifest("base", "1"));
    let _ = setup.whole_index("copy", "1");
    let other = setup.elsewhere();
    let _ = other.run(["pull", &name]).success();
    let part = setup.name("part:1");
    let _ = other.run(["tag", &name, &part]).success();
    let _ = other.run(["push", &part]).success();
    let manifest: Value = serde_json::from_slice(&setup.manifest("part", "1")).unwrap();
    assert_eq!(manifest["mediaType"], media_type::MANIFEST);
}
