//! What is built for each platform: which steps, called what, on which base.

use crate::{BOTH, image_of, index_of, platforms, setup};

const CROSS: &str = "\
FROM --platform=$BUILDPLATFORM BASE AS build
ARG TARGETARCH
WORKDIR /$TARGETARCH
FROM --platform=$BUILDPLATFORM BASE AS native
COPY a.txt /native
FROM BASE
ARG TARGETPLATFORM
LABEL for=$TARGETPLATFORM
COPY --from=native /native /native
COPY --from=build / /made
";

#[test]
fn a_dockerfile_is_built_once_for_each_platform() {
    let setup = setup!();
    let (run, archive) = setup.archive(CROSS, &["--platform", BOTH]);
    let (_, index) = index_of(&archive);
    assert_eq!(platforms(&index), ["linux/amd64", "linux/arm64"]);
    for descriptor in &index.manifests {
        let platform = descriptor.platform.as_ref().unwrap();
        let (manifest, config) = image_of(&archive, descriptor);
        assert_eq!(config.platform(), *platform);
        let labels = &config.config.labels;
        assert_eq!(labels["for"], platform.to_string());
        assert_eq!(manifest.layers.len(), 3);
        assert_eq!(config.rootfs.diff_ids.len(), 3);
    }
    let host = setup.registry.host();
    let base = format!("load metadata for {host}/base:1");
    for name in [
        &format!("[linux/amd64 internal] {base}"),
        &format!("[linux/arm64 internal] {base}"),
        "[linux/amd64 build 2/2] WORKDIR /amd64",
        "[linux/amd64->arm64 build 2/2] WORKDIR /arm64",
        "[linux/amd64 native 2/2] COPY a.txt /native",
        "[linux/amd64 stage-2 2/3] COPY --from=native /native /native",
        "[linux/arm64 stage-2 2/3] COPY --from=native /native /native",
    ] {
        let lines = run.stderr.lines().filter(|line| line.starts_with('#'));
        let shown: std::collections::BTreeSet<&str> = lines
            .filter_map(|line| line.split_once(' '))
            .map(|(_, text)| text)
            .filter(|text| *text == name)
            .collect();
        assert_eq!(shown.len(), 1, "{name}: {}", run.stderr);
    }
    // What runs natively is the same for all.
    let native = run
        .stderr
        .lines()
        .filter(|line| line.contains("native 2/2]"));
    let numbers: std::collections::BTreeSet<&str> =
        native.filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(numbers.len(), 1, "{}", run.stderr);
    let again = setup.build(CROSS, &["--platform", BOTH]).success();
    assert!(!again.stderr.contains("not cached"), "{}", again.stderr);
    assert!(again.cached_count() >= 7, "{}", again.stderr);
}

#[test]
fn one_platform_other_than_the_host_s_works_alone() {
    let setup = setup!();
    let (run, archive) = setup.archive(CROSS, &["--platform", "linux/arm64"]);
    let descriptor = archive.manifest_descriptor().unwrap();
    let (_, config) = image_of(&archive, &descriptor);
    assert_eq!(config.platform().to_string(), "linux/arm64");
    assert!(run.stderr.contains("[build 2/2] WORKDIR /arm64"));
    assert!(!run.stderr.contains("[linux/"), "{}", run.stderr);
    let (_, archive) = setup.archive(CROSS, &["--build-arg", "BUILDKIT_MULTI_PLATFORM=1"]);
    assert_eq!(platforms(&index_of(&archive).1), ["linux/amd64"]);
}

#[test]
fn a_platform_that_the_base_image_lacks_is_named() {
    let setup = setup!();
    let run = setup.build("FROM BASE\n", &["--platform", "linux/amd64,linux/s390x"]);
    let _ = run
        .exit(1)
        .says("no match for platform linux/s390x")
        .says("hint: the image is for linux/amd64, linux/arm64");
}

#[test]
fn what_differs_between_platforms_is_told() {
    let setup = setup!();
    let dockerfile = "FROM BASE\nCOPY a.txt /a\n";
    let _ = setup.build(dockerfile, &[]).success();
    let run = setup.build(dockerfile, &["--platform", "linux/arm64"]);
    let _ = run
        .success()
        .says("not cached: the platform changed from linux/amd64 to linux/arm64");
    // Each platform is compared with itself from now on.
    let changed = "FROM BASE\nCOPY --chmod=600 a.txt /a\n";
    for platform in ["linux/amd64", "linux/arm64"] {
        let run = setup.build(changed, &["--platform", platform]);
        let _ = run.success().says("not cached: `--chmod` changed, line 2");
    }
}
