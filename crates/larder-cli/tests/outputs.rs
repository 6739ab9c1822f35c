//! What a build writes: archives, trees, ids, metadata; and flags that show in a step or an image.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::path::PathBuf;
use std::process::Command;

use fs_err as fs;
use larder_oci::{Descriptor, media_type};
use larder_testkit::{Base, EntryKind, OciArchive, Project, Run, install, project, skip};
use serde_json::Value;

const DOCKERFILE: &str = "\
FROM busybox AS build
COPY d /d
RUN mkdir -p /made/sub && echo made > /made/sub/file && ln -s sub/file /made/link && \\
    ln /made/sub/file /made/hard && chmod 4711 /made/sub/file && mkdir -m 1777 /made/sticky
FROM scratch
COPY --from=build /made /
COPY --chown=5:6 --chmod=640 a.txt /a.txt
";

/// A project with a few files and a Dockerfile whose result is small.
macro_rules! outputs {
    () => {{
        let project = project!(Base::Busybox);
        project.write(&[
            ("Dockerfile", DOCKERFILE),
            ("a.txt", "a\n"),
            ("d/b.txt", "b\n"),
        ]);
        project
    }};
}

fn at(project: &Project, name: &str) -> (PathBuf, String) {
    let path = project.scratch().join(name);
    let text = path.to_str().unwrap().to_owned();
    (path, text)
}

#[test]
fn an_oci_archive_is_what_it_says() {
    let project = outputs!();
    let (path, text) = at(&project, "out.tar");
    let (_, metadata) = at(&project, "metadata.json");
    let (_, iidfile) = at(&project, "iid");
    let output = format!("type=oci,dest={text}");
    let args = [
        "-o",
        &output,
        "-t",
        "team/app:1",
        "--metadata-file",
        &metadata,
        "--iidfile",
        &iidfile,
        "--label",
        "from=flag",
    ];
    let _ = project.build(&args).success();
    let archive = OciArchive::open(&path).unwrap();
    let index = archive.index().unwrap();
    let manifest = archive.blob(&index.manifests[0].digest).unwrap();
    for json in [archive.file("index.json").unwrap(), manifest] {
        assert!(!json.contains(&b'\n'), "written without white space");
    }
    let [image] = &index.manifests[..] else {
        panic!("{index:?}")
    };
    assert_eq!(
        image.annotations["io.containerd.image.name"],
        "docker.io/team/app:1"
    );
    assert_eq!(image.annotations["org.opencontainers.image.ref.name"], "1");
    let manifest = archive.manifest().unwrap();
    let config = archive.config().unwrap();
    assert_eq!(config.config.labels["from"], "flag");
    let layers = archive.layers().unwrap();
    let [made, copied] = &layers[..] else {
        panic!("{} layers", layers.len())
    };
    let find = |path: &str| made.iter().find(|entry| entry.path == path).unwrap();
    assert_eq!(find("link").kind, EntryKind::Symlink("sub/file".to_owned()));
    assert_eq!(find("sticky/").mode, 0o1777);
    assert_eq!(find("sub/file").mode, 0o4711);
    let a = &copied[0];
    assert_eq!(
        (a.path.as_str(), a.uid, a.gid, a.mode),
        ("a.txt", 5, 6, 0o640)
    );

    let id = fs::read_to_string(project.scratch().join("iid")).unwrap();
    assert_eq!(id, manifest.config.digest.as_str());
    let told: Value =
        serde_json::from_slice(&fs::read(project.scratch().join("metadata.json")).unwrap())
            .unwrap();
    assert_eq!(told["containerimage.config.digest"], id);
    assert_eq!(told["containerimage.digest"], image.digest.as_str());
    assert_eq!(told["image.name"], "docker.io/team/app:1");
    let descriptor: Descriptor =
        serde_json::from_value(told["containerimage.descriptor"].clone()).unwrap();
    assert_eq!(descriptor.digest, image.digest);
    // Again, from the cache: the same bytes.
    let first = fs::read(&path).unwrap();
    let again = project.build(&args).success();
    assert_eq!(again.cached_count(), 5, "{}", again.stderr);
    assert!(fs::read(&path).unwrap() == first, "another archive");
}

#[test]
fn other_tools_read_the_archives() {
    let project = outputs!();
    if let Err(error) = install(&["skopeo", "python3"]) {
        skip!("no skopeo: {error:#}");
    }
    for (kind, transport, media) in [
        ("oci", "oci-archive", media_type::LAYER_GZIP),
        ("docker", "docker-archive", ""),
        (
            "oci,compression=zstd",
            "oci-archive",
            media_type::LAYER_ZSTD,
        ),
        (
            "oci,compression=uncompressed",
            "oci-archive",
            media_type::LAYER,
        ),
    ] {
        let (_, text) = at(&project, "out.tar");
        let output = format!("type={kind},dest={text}");
        let _ = project.build(&["-o", &output, "-t", "app:1"]).success();
        let (target, dir) = at(&project, &kind.replace([',', '='], "-"));
        let source = format!("{transport}:{text}");
        let copied = Run::of(Command::new("skopeo").args([
            "--insecure-policy",
            "copy",
            &source,
            &format!("dir:{dir}"),
        ]));
        let _ = copied.success();
        let manifest = fs::read(target.join("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 2, "{kind}");
        assert!(
            media.is_empty() || layers.iter().all(|layer| layer["mediaType"] == media),
            "{kind}: {layers:?}"
        );
    }
    let (_, text) = at(&project, "out.tar");
    let output = format!("type=tar,dest={text}");
    let _ = project.build(&["-o", &output]).success();
    let script = "import sys, tarfile\n\
                  for m in tarfile.open(sys.argv[1], 'r|*'):\n    \
                  print(m.name, oct(m.mode), m.uid, m.gid, m.linkname)";
    let listed = Run::of(Command::new("python3").args(["-c", script, &text]));
    let listed = listed.success().text();
    for line in [
        "a.txt 0o640 5 6",
        "link 0o777 0 0 sub/file",
        "sticky 0o1777 0 0",
        "hard 0o4711 0 0",
        "sub/file 0o4711 0 0 hard",
    ] {
        assert!(
            listed.lines().any(|found| found.trim() == line),
            "{line}\n{listed}"
        );
    }
}

#[test]
fn a_tree_goes_to_a_directory_or_a_stream() {
    let project = outputs!();
    let (tree, text) = at(&project, "tree");
    let _ = project.build(&["-o", &text]).success();
    assert_eq!(fs::read_to_string(tree.join("link")).unwrap(), "made\n");
    assert_eq!(fs::read_to_string(tree.join("a.txt")).unwrap(), "a\n");
    assert_eq!(
        fs::read_link(tree.join("link")).unwrap().to_str(),
        Some("sub/file")
    );
    let inode =
        |name: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(tree.join(name)).unwrap());
    assert_eq!(inode("hard"), inode("sub/file"));

    let streamed = project.build(&["-o", "-"]).success();
    let mut list = Command::new("tar");
    let file = project.scratch().join("streamed.tar");
    fs::write(&file, &streamed.stdout).unwrap();
    let listed = Run::of(list.arg("-tf").arg(&file)).success().text();
    assert!(listed.lines().any(|name| name == "sub/file"), "{listed}");
    assert!(
        streamed.stderr.contains("exporting to client tarball"),
        "{}",
        streamed.stderr
    );

    let streamed = project.build(&["-o", "type=oci,dest=-"]).success();
    let archive = OciArchive::read(&streamed.stdout[..]).unwrap();
    assert_eq!(archive.layers().unwrap().len(), 2);

    let mut quiet = project.larder().command(["build", "-q"]);
    let quiet = Run::of(quiet.arg(project.context())).success();
    let id = quiet.text();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    assert_eq!(quiet.stderr, "");
}

#[test]
fn an_output_that_can_not_be_written_is_named() {
    let project = outputs!();
    fs::write(project.scratch().join("file"), "").unwrap();
    let (_, file) = at(&project, "file");
    for output in [
        format!("type=oci,dest={file}/out.tar"),
        format!("type=local,dest={file}"),
        "type=tar,dest=/nowhere/out.tar".to_owned(),
    ] {
        let run = project.build(&["-o", &output]).exit(1);
        let error = run.stderr.lines().rfind(|line| line.starts_with("ERROR: "));
        let dest = output.split("dest=").nth(1).unwrap();
        assert!(
            error.is_some_and(|error| error.contains(dest)),
            "{}",
            run.stderr
        );
    }
}

#[test]
fn several_outputs_share_one_build() {
    let project = outputs!();
    let (tree, text) = at(&project, "tree");
    let (path, archive) = at(&project, "out.tar");
    let archive = format!("type=docker,dest={archive}");
    let _ = project
        .build(&["-o", &text, "-o", &archive, "--load", "-t", "app:1"])
        .success();
    assert!(tree.join("a.txt").exists());
    assert_eq!(OciArchive::open(&path).unwrap().layers().unwrap().len(), 2);
    let images = project.larder().run(["images", "-q", "app:1"]).success();
    assert!(!images.text().is_empty());
}

#[test]
fn flags_show_in_the_step() {
    let project = project!(Base::Busybox);
    let steps = "\
FROM busybox
RUN cat /etc/hosts
RUN df -k /dev/shm | tail -n 1
RUN ulimit -n
RUN ls /sys/class/net
RUN hostname
";
    project.write(&[("Dockerfile", steps)]);
    let run = project
        .build(&[
            "--add-host",
            "db:10.1.2.3",
            "--add-host",
            "six=[::5]",
            "--shm-size",
            "9m",
            "--ulimit",
            "nofile=123:456",
            "--network",
            "none",
        ])
        .success();
    let output = |text: &str| run.step(text).output().join("\n");
    let hosts = output("cat /etc/hosts");
    assert_eq!(
        hosts,
        "127.0.0.1\tlocalhost buildkitsandbox\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         10.1.2.3\tdb\n::5\tsix"
    );
    assert!(output("df -k").contains(" 9216 "), "{}", output("df -k"));
    assert_eq!(output("ulimit"), "123");
    assert_eq!(output("/sys/class/net"), "lo");
    assert_eq!(output("hostname"), "buildkitsandbox");
}
