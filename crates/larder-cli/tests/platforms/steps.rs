//! What is built for each platform: which steps, called what, on which base.

use std::process::Command;

use fs_err as fs;
use larder_oci::{Descriptor, Platform};
use larder_testkit::{Base, Emulator, EntryKind, MadeImage, skip, tar_of};

use crate::{BOTH, Setup, image_of, index_of, platforms, setup};

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

#[test]
fn programs_that_nobody_emulates_are_told_of() {
    let setup = setup!();
    let files = [("for", EntryKind::File(b"pdp11".to_vec()))];
    let made = MadeImage::for_platform(Platform::linux("pdp11", ""), &[tar_of(&files)]);
    made.push(&setup.registry, "pdp11", "1").unwrap();
    // An ELF program for that machine.
    let mut program = b"\x7fELF\x02\x01\x01".to_vec();
    program.resize(64, 0);
    (program[16], program[18], program[20]) = (2, 65, 1);
    let program = String::from_utf8(program).unwrap();
    let dockerfile = format!(
        "FROM {}\nCOPY program /program\nRUN [\"/program\"]\n",
        setup.name("pdp11:1")
    );
    setup
        .scratch
        .context("context", &[("program*", program.as_str())]);
    let copied = dockerfile.replace("RUN", "CMD");
    let platform = ["--platform", "linux/amd64,linux/pdp11"];
    let _ = setup.build(&copied, &platform).success();
    // One alone: of two that fail, either may be first.
    let _ = setup
        .build(&dockerfile, &["--platform", "linux/pdp11"])
        .exit(1)
        .says(" > [3/3] RUN [\"/program\"]:")
        .says("can't run programs for linux/pdp11, and no emulator is registered: process \"/program\"")
        .says(">>> RUN [\"/program\"]")
        .says("hint: install one: the package `qemu-user-static`");
}

/// Makes `busybox:1` for two platforms in the registry.
fn push_busybox(setup: &Setup, emulator: &Emulator) -> anyhow::Result<()> {
    let native = setup
        .registry
        .push_archive(&Base::Busybox.archive()?, "busybox", "amd64")?;
    let foreign = tar_of(&[
        ("bin/", EntryKind::Directory),
        (
            "bin/busybox",
            EntryKind::File(fs::read(emulator.busybox())?),
        ),
        ("bin/sh", EntryKind::Symlink("busybox".to_owned())),
    ]);
    let foreign = MadeImage::for_platform(Platform::linux("arm64", ""), &[foreign]);
    foreign.push(&setup.registry, "busybox", "arm64")?;
    let native = Descriptor {
        platform: Some(Platform::host()),
        ..native
    };
    setup.push_index("busybox", &[native, foreign.descriptor()]);
    Ok(())
}

#[test]
fn steps_for_another_platform_run_emulated() {
    let emulator = match Emulator::new() {
        Ok(emulator) => emulator,
        Err(error) => skip!("no emulator: {error:#}"),
    };
    let setup = setup!();
    if let Err(error) = push_busybox(&setup, &emulator) {
        skip!("no busybox: {error:#}");
    }
    let dockerfile = format!(
        "FROM {} AS made\nARG TARGETARCH\nRUN busybox uname -m > /machine\n\
         FROM --platform=$BUILDPLATFORM made AS native\nFROM made\n",
        setup.name("busybox:1")
    );
    let docker = setup.scratch.join("docker");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_larder"), &docker).unwrap();
    for (emulator, name) in [
        (emulator, "fixed"),
        (Emulator::new().unwrap().by_path(), "found"),
    ] {
        let larder = setup.elsewhere();
        let tree = setup.scratch.join(name);
        let output = format!("type=local,dest={}", tree.display());
        let args = ["--platform", BOTH, "-t", "made", "-o", &output, "--load"];
        let command = setup.command(&larder, &dockerfile, &args);
        let run = emulator.run(&command).success();
        for (directory, machine) in [("linux_amd64", "x86_64"), ("linux_arm64", "aarch64")] {
            let found = fs::read_to_string(tree.join(directory).join("machine"));
            assert_eq!(found.unwrap().trim(), machine, "{name}: {}", run.stderr);
        }
        // The emulator was lent, and is in no layer.
        let top = setup.scratch.path().components().nth(1).unwrap();
        assert!(!tree.join("linux_arm64").join(top).exists(), "{name}");
        assert!(!tree.join("linux_arm64/work").exists(), "{name}");
        for (args, machine) in [
            (&["--platform", "linux/arm64"][..], "aarch64"),
            (&[], "x86_64"),
        ] {
            let verb = ["run", "--rm"].iter().chain(args);
            let command = larder.command(verb.chain(&["made", "busybox", "uname", "-m"]));
            assert_eq!(emulator.run(&command).success().text(), machine);
        }
        let mut docker = Command::new(&docker);
        docker.args(["buildx", "inspect"]);
        docker.env("LARDER_ROOT", larder.root());
        let listed = emulator.run(&docker).success().text();
        let begin = "Platforms:        linux/amd64, ";
        assert!(listed.contains(begin), "{listed}");
        assert!(listed.contains(", linux/arm64"), "{listed}");
    }
}
