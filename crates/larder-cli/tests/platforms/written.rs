//! What is written: indexes, archives, trees, metadata.

use std::path::Path;

use fs_err as fs;
use larder_oci::media_type;
use larder_testkit::Run;
use serde_json::Value;

use crate::{BOTH, image_of, index_of, platforms, setup};

const DOCKERFILE: &str = "FROM BASE\nARG TARGETARCH\nCOPY a.txt /$TARGETARCH\n";

#[test]
fn an_index_has_its_images_in_the_order_asked_for() {
    let setup = setup!();
    let (run, archive) = setup.archive(
        DOCKERFILE,
        &["--platform", "linux/arm64,linux/amd64", "-t", "team/app:1"],
    );
    let (descriptor, index) = index_of(&archive);
    assert_eq!(platforms(&index), ["linux/arm64", "linux/amd64"]);
    assert_eq!(descriptor.media_type, media_type::INDEX);
    assert_eq!(descriptor.platform, None);
    let annotations = &descriptor.annotations;
    assert_eq!(
        annotations["io.containerd.image.name"],
        "docker.io/team/app:1"
    );
    assert_eq!(annotations["org.opencontainers.image.ref.name"], "1");
    assert!(annotations.contains_key("org.opencontainers.image.created"));
    let list = format!("exporting manifest list {}", descriptor.digest);
    assert!(run.stderr.contains(&list), "{}", run.stderr);
    let (_, again) = setup.archive(DOCKERFILE, &["--platform", "linux/arm64,linux/amd64"]);
    assert_eq!(index_of(&again).0.digest, descriptor.digest);
}

#[test]
fn annotations_go_to_index_manifests_and_descriptors() {
    let setup = setup!();
    let output = setup.scratch.join("annotated.tar");
    let attributes = "annotation.k=all,annotation[linux/arm64].k=arm,annotation-index.k=index,\
        annotation-index-descriptor.k=top,annotation-manifest-descriptor[linux/amd64].k=entry";
    let output_flag = format!("type=oci,dest={},{attributes}", output.display());
    let args = [
        "--platform",
        BOTH,
        "--annotation",
        "index:flag=yes",
        "-o",
        &output_flag,
    ];
    let _ = setup.build(DOCKERFILE, &args).success();
    let archive = larder_testkit::OciArchive::open(&output).unwrap();
    let (descriptor, index) = index_of(&archive);
    assert_eq!(descriptor.annotations["k"], "top");
    assert_eq!(index.annotations["k"], "index");
    assert_eq!(index.annotations["flag"], "yes");
    let [amd64, arm64] = &index.manifests[..] else {
        panic!("not two")
    };
    assert_eq!(amd64.annotations["k"], "entry");
    assert!(arm64.annotations.is_empty());
    assert_eq!(image_of(&archive, amd64).0.annotations["k"], "all");
    assert_eq!(image_of(&archive, arm64).0.annotations["k"], "arm");
    let args = [
        "--platform",
        BOTH,
        "--annotation",
        "manifest[linux/s390x]:k=v",
    ];
    let _ = setup
        .build(DOCKERFILE, &args)
        .exit(1)
        .says("invalid annotation: no platform linux/s390x found in source");
}

#[test]
fn docker_s_media_types_are_those_of_a_manifest_list() {
    let setup = setup!();
    let output = setup.scratch.join("docker.tar");
    let flag = format!("type=oci,oci-mediatypes=false,dest={}", output.display());
    let _ = setup
        .build(DOCKERFILE, &["--platform", BOTH, "-o", &flag])
        .success();
    let (descriptor, index) = index_of(&larder_testkit::OciArchive::open(&output).unwrap());
    assert_eq!(descriptor.media_type, media_type::DOCKER_MANIFEST_LIST);
    let is_docker =
        |entry: &larder_oci::Descriptor| entry.media_type == media_type::DOCKER_MANIFEST;
    assert!(index.manifests.iter().all(is_docker));
    for args in [
        &["--platform", BOTH][..],
        &["--build-arg", "BUILDKIT_MULTI_PLATFORM=1"],
    ] {
        let flag = format!("type=docker,dest={}", output.display());
        let _ = setup
            .build(DOCKERFILE, &[args, &["-o", &flag]].concat())
            .exit(1)
            .says("docker exporter does not currently support exporting manifest lists")
            .says("hint: use `type=oci`");
    }
}

#[test]
fn trees_lie_side_by_side() {
    let setup = setup!();
    let at = |name: &str| setup.scratch.join(name);
    let output = |kind: &str, path: &Path| format!("type={kind},dest={}", path.display());
    let (local, tar, unpacked) = (at("local"), at("t.tar"), at("unpacked"));
    let args = ["--platform", BOTH];
    let outputs = [output("local", &local), output("tar", &tar)];
    let run = setup.build(
        DOCKERFILE,
        &[&args[..], &["-o", &outputs[0], "-o", &outputs[1]]].concat(),
    );
    let run = run.success().says("copying files linux/arm64");
    fs::create_dir(&unpacked).unwrap();
    let mut command = std::process::Command::new("tar");
    let _ = Run::of(command.arg("-xf").arg(&tar).arg("-C").arg(&unpacked)).success();
    for tree in [&local, &unpacked] {
        for (directory, name) in [("linux_amd64", "amd64"), ("linux_arm64", "arm64")] {
            let directory = tree.join(directory);
            let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
            assert_eq!(read(name), "a\n", "{}", run.stderr);
            assert_eq!(read("platform"), format!("linux/{name}"));
        }
    }
    // Files of the same name can't be told apart in one tree; others can.
    for (kind, dest) in [("local", &local), ("tar", &tar)] {
        let flag = format!("{},platform-split=false", output(kind, dest));
        let _ = setup
            .build(DOCKERFILE, &[&args[..], &["-o", &flag]].concat())
            .exit(1)
            .says("cannot overwrite platform from linux/amd64 with linux/arm64 when split option is disabled");
    }
    let apart = "FROM scratch\nARG TARGETARCH\nCOPY a.txt /$TARGETARCH\n";
    let joined = at("joined");
    let flag = format!("{},platform-split=false", output("local", &joined));
    let _ = setup
        .build(apart, &[&args[..], &["-o", &flag]].concat())
        .success();
    for name in ["amd64", "arm64"] {
        assert!(joined.join(name).is_file(), "{name}");
    }
    let alone = at("alone");
    let flag = format!("{},platform-split=true", output("local", &alone));
    let _ = setup.build(apart, &["-o", &flag]).success();
    assert!(alone.join("linux_amd64/amd64").is_file());
}

#[test]
fn what_other_programs_read_names_the_index() {
    let setup = setup!();
    let (iid, metadata) = (setup.scratch.join("iid"), setup.scratch.join("metadata"));
    let args = [
        "--platform",
        BOTH,
        "-t",
        "made",
        "--iidfile",
        iid.to_str().unwrap(),
        "--metadata-file",
        metadata.to_str().unwrap(),
    ];
    let _ = setup.build(DOCKERFILE, &args).success();
    let metadata: Value = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    let digest = metadata["containerimage.digest"].as_str().unwrap();
    assert_eq!(fs::read_to_string(iid).unwrap(), digest);
    assert_eq!(metadata["containerimage.descriptor"]["digest"], digest);
    let kind = &metadata["containerimage.descriptor"]["mediaType"];
    assert_eq!(kind, media_type::INDEX);
    assert_eq!(metadata.get("containerimage.config.digest"), None);
    assert_eq!(metadata["image.name"], "docker.io/library/made:latest");
    let mut quiet = setup.larder.command(["build", "-q", "--platform", BOTH]);
    let quiet = Run::of(quiet.arg(setup.scratch.join("context")));
    assert_eq!(quiet.success().text(), digest);
}
