//! Several targets, each for several platforms: bake and compose.

use fs_err as fs;
use larder_testkit::Run;
use serde_json::Value;

use crate::{BOTH, platforms, setup};

#[test]
fn targets_of_a_bake_file_read_each_other_on_each_platform() {
    let setup = setup!();
    let base = setup.name("base:1");
    let name = setup.name("team/top:1");
    let files = [
        (
            "lower/Dockerfile",
            format!("FROM {base}\nARG TARGETARCH\nCOPY a /$TARGETARCH\n"),
        ),
        ("lower/a", "a".to_owned()),
        ("top/Dockerfile", "FROM lower\nCOPY b /b\n".to_owned()),
        ("top/b", "b".to_owned()),
        (
            "docker-bake.json",
            serde_json::json!({
                "group": {"default": {"targets": ["top"]}},
                "target": {
                    "lower": {"context": "lower", "platforms": ["linux/amd64", "linux/arm64"]},
                    "top": {
                        "context": "top",
                        "contexts": {"lower": "target:lower"},
                        "platforms": ["linux/amd64", "linux/arm64"],
                        "tags": [name],
                        "output": ["type=registry"],
                    },
                },
            })
            .to_string(),
        ),
    ];
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(path, text)| (*path, text.as_str()))
        .collect();
    let directory = setup.scratch.context("bake", &files);
    let metadata = setup.scratch.join("metadata");
    let run_bake = |args: &[&str]| {
        let mut command = setup.larder.command(["bake", "--progress", "plain"]);
        Run::of(command.args(args).current_dir(&directory))
    };
    let run = run_bake(&["--metadata-file", metadata.to_str().unwrap()]).success();
    for name in [
        "[lower linux/amd64 2/2] COPY a /amd64",
        "[lower linux/arm64 2/2] COPY a /arm64",
        "[top linux/arm64 1/2] COPY b /b",
    ] {
        assert!(run.stderr.contains(name), "{name}: {}", run.stderr);
    }
    let index = setup.whole_index("team/top", "1");
    let attestations = "unknown/unknown";
    assert_eq!(
        platforms(&index),
        ["linux/amd64", "linux/arm64", attestations, attestations]
    );
    let metadata: Value = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    assert_eq!(metadata["top"].get("containerimage.config.digest"), None);
    for entry in &index.manifests[..2] {
        let manifest = setup.manifest("team/top", entry.digest.as_str());
        let manifest: larder_oci::ImageManifest = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(manifest.layers.len(), 3);
    }
    let _ = run_bake(&["--set", "top.platform=linux/s390x"]).exit(1).says(
        "build context `lower` is a target that is built for linux/amd64, linux/arm64, not for linux/s390x",
    );
}

#[test]
fn services_are_built_for_their_platforms() {
    let setup = setup!();
    let base = setup.name("base:1");
    let image = setup.name("team/service:1");
    let dockerfile = format!("FROM {base}\nCOPY a /a\n");
    let compose = format!(
        "name: shop\nservices:\n  api:\n    image: {image}\n    build:\n      context: .\n      \
         platforms: [linux/amd64, linux/arm64]\n  only:\n    platform: linux/arm64\n    build: .\n"
    );
    let files = [
        ("compose.yaml", compose.as_str()),
        ("Dockerfile", dockerfile.as_str()),
        ("a", "a"),
    ];
    let directory = setup.scratch.context("compose", &files);
    let compose = |args: &[&str]| {
        let mut command = setup.larder.command(["compose"]);
        Run::of(command.args(args).current_dir(&directory))
    };
    let printed = compose(&["build", "--push", "--print"]).success();
    let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(
        printed["target"]["api"]["output"][0],
        "type=image,push=true"
    );
    assert_eq!(printed["target"]["only"]["output"][0], "type=docker");
    let _ = compose(&["build", "--push"]).success();
    let index = setup.whole_index("team/service", "1");
    assert_eq!(platforms(&index)[..2].join(","), BOTH);
    let format = "{{.Architecture}}";
    let only = setup
        .larder
        .run(["inspect", "--format", format, "shop-only"]);
    assert_eq!(only.success().text(), "arm64");
}
