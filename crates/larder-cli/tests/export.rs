//! What images are made like: media types, compression, annotations, times; and where they go.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::collections::BTreeMap;
use std::process::Command;

use fs_err as fs;
use larder_oci::{Digest, ImageManifest, media_type};
use larder_testkit::{
    Base, EntryKind, OciArchive, Project, Registry, Run, WebAnswer, WebServer, install, project,
    skip,
};
use serde_json::Value;

/// Two layers of its own on those of a base.
const DOCKERFILE: &str = "\
FROM busybox
COPY a.txt /
RUN echo made > /made
";

macro_rules! small_project {
    () => {{
        let project = project!(Base::Busybox);
        project.write(&[("Dockerfile", DOCKERFILE), ("a.txt", "a\n")]);
        project
    }};
}

macro_rules! registry {
    () => {
        match Registry::start() {
            Ok(registry) => registry,
            Err(error) => skip!("no registry: {error:#}"),
        }
    };
}

/// Builds to an OCI archive with these attributes.
fn archive(project: &Project, attributes: &str) -> OciArchive {
    let path = project.scratch().join("out.tar");
    let output = format!("type=oci,dest={},{attributes}", path.to_str().unwrap());
    let _ = project.build(&["-o", &output, "-t", "app:1"]).success();
    OciArchive::open(&path).unwrap()
}

fn layer_types(manifest: &ImageManifest) -> Vec<&str> {
    let layers = manifest.layers.iter();
    layers.map(|layer| layer.media_type.as_str()).collect()
}

#[test]
fn layers_are_compressed_as_asked_and_base_layers_only_by_force() {
    let project = small_project!();
    let before = archive(&project, "compression=gzip").manifest().unwrap();
    let base = layer_types(&before)[0];
    let others = [media_type::LAYER_ZSTD, media_type::LAYER];
    for (compression, own) in [("zstd", others[0]), ("uncompressed", others[1])] {
        let plain = archive(&project, &format!("compression={compression}"));
        let manifest = plain.manifest().unwrap();
        assert_eq!(layer_types(&manifest), [base, own, own], "{compression}");
        assert_eq!(manifest.layers[0].digest, before.layers[0].digest);

        let attributes = format!("compression={compression},force-compression=true");
        let forced = archive(&project, &attributes);
        let manifest = forced.manifest().unwrap();
        assert_eq!(layer_types(&manifest), [own; 3], "{compression}");
        // The trees are the same, and so the diff IDs.
        assert_eq!(
            forced.config().unwrap().rootfs,
            plain.config().unwrap().rootfs
        );
        // Each layer is checked against its diff ID.
        assert_eq!(forced.layers().unwrap(), plain.layers().unwrap());
    }
    let sizes = ["1", "9"].map(|level| {
        let attributes = format!("compression-level={level},force-compression=true");
        let manifest = archive(&project, &attributes).manifest().unwrap();
        manifest.layers[1].size_bytes
    });
    assert!(sizes[1] <= sizes[0], "{sizes:?}");
}

#[test]
fn estargz_layers_say_where_their_files_are() {
    let project = small_project!();
    let made = archive(&project, "compression=estargz,oci-mediatypes=false");
    let manifest = made.manifest().unwrap();
    assert_eq!(layer_types(&manifest), [media_type::LAYER_GZIP; 3]);
    let layers = made.layers().unwrap();
    for (layer, entries) in manifest.layers.iter().zip(&layers) {
        let index = entries.last().unwrap();
        assert_eq!(index.path, "stargz.index.json");
        let EntryKind::File(json) = &index.kind else {
            panic!("{index:?}")
        };
        let digest = &layer.annotations["containerd.io/snapshot/stargz/toc.digest"];
        assert_eq!(*digest, Digest::sha256(json).to_string());
    }
    let index: Value = match &layers[1].last().unwrap().kind {
        EntryKind::File(json) => serde_json::from_slice(json).unwrap(),
        other => panic!("{other:?}"),
    };
    let entries = index["entries"].as_array().unwrap();
    let file = entries.iter().find(|entry| entry["name"] == "a.txt");
    assert_eq!(file.unwrap()["digest"], Digest::sha256("a\n").as_str());
}

#[test]
fn media_types_are_oci_s_or_docker_s() {
    let project = small_project!();
    let docker = archive(&project, "oci-mediatypes=false");
    let manifest = docker.manifest().unwrap();
    assert_eq!(manifest.media_type, media_type::DOCKER_MANIFEST);
    assert_eq!(manifest.config.media_type, media_type::DOCKER_CONFIG);
    let types = layer_types(&manifest);
    assert!(
        types
            .iter()
            .all(|kind| kind.starts_with("application/vnd.docker.")),
        "{types:?}"
    );
    assert_eq!(types[2], media_type::DOCKER_LAYER_GZIP);
    // What Docker's can't say is said in OCI's.
    for attributes in [
        "oci-mediatypes=false,compression=zstd",
        "oci-mediatypes=false,annotation.k=v",
    ] {
        let manifest = archive(&project, attributes).manifest().unwrap();
        assert_eq!(manifest.media_type, media_type::MANIFEST, "{attributes}");
        let types = layer_types(&manifest);
        assert!(
            types
                .iter()
                .all(|kind| kind.starts_with("application/vnd.oci.")),
            "{types:?}"
        );
    }
}

#[test]
fn annotations_and_times_are_where_they_belong() {
    let project = small_project!();
    let attributes = "annotation.Name=in manifest,annotation-manifest[linux/amd64].Name=of platform,\
                      annotation-manifest-descriptor.place=in index,source-date-epoch=1000000000,\
                      rewrite-timestamp=true";
    let made = archive(&project, attributes);
    let manifest = made.manifest().unwrap();
    let own = larder_oci::Platform::host() == "linux/amd64".parse().unwrap();
    let name = if own { "of platform" } else { "in manifest" };
    let expected = BTreeMap::from([("Name".to_owned(), name.to_owned())]);
    assert_eq!(manifest.annotations, expected);
    let entry = &made.index().unwrap().manifests[0];
    assert_eq!(entry.annotations["place"], "in index");
    assert_eq!(
        made.config().unwrap().created.unwrap(),
        "2001-09-09T01:46:40Z"
    );
    let layers = made.layers().unwrap();
    let of_copy = layers[1]
        .iter()
        .find(|entry| entry.path == "a.txt")
        .unwrap();
    assert_eq!(of_copy.mtime, 1_000_000_000);

    let path = project.scratch().join("flag.tar");
    let output = format!("type=oci,dest={}", path.to_str().unwrap());
    let flag = [
        "--annotation",
        "manifest,manifest-descriptor:a=b",
        "-o",
        &output,
    ];
    let _ = project.build(&flag).success();
    let made = OciArchive::open(&path).unwrap();
    assert_eq!(made.manifest().unwrap().annotations["a"], "b");
    assert_eq!(made.index().unwrap().manifests[0].annotations["a"], "b");

    let _ = project
        .build(&["--annotation", "index:a=b", "-o", &output])
        .exit(1)
        .says("index annotations not supported for single platform export");
    let _ = project
        .build(&["-o", "type=image,unpack=true,rewrite-timestamp=true"])
        .exit(1)
        .says("`rewrite-timestamp` conflicts with `unpack`");
}

#[test]
fn the_store_keeps_what_it_is_asked_to() {
    let project = small_project!();
    let names = || project.larder().run(["images"]).success().text();
    let _ = project
        .build(&["-o", "type=cacheonly", "-t", "app:1"])
        .success();
    assert!(!names().contains("app"), "{}", names());
    let _ = project
        .build(&["-o", "type=image,store=false,name=app:1"])
        .success();
    assert!(!names().contains("app"), "{}", names());
    let run = project
        .build(&[
            "-o",
            "type=image,\"name=app:1,app:2\",name-canonical=true,unpack=true",
        ])
        .success();
    assert_eq!(names().matches("app").count(), 2, "{}", names());
    for line in [
        "exporting to image",
        "exporting layers",
        "exporting manifest sha256:",
        "exporting config sha256:",
        "naming to docker.io/library/app:1",
        "naming to docker.io/library/app:1@sha256:",
        "unpacking to docker.io/library/app:2",
    ] {
        assert!(run.stderr.contains(line), "{line}\n{}", run.stderr);
    }
    let metadata = project.scratch().join("metadata.json");
    let file = metadata.to_str().unwrap();
    let output = "type=image,dangling-name-prefix=dangling";
    let _ = project
        .build(&["-o", output, "--metadata-file", file])
        .success();
    let told: Value = serde_json::from_slice(&fs::read(&metadata).unwrap()).unwrap();
    let digest = told["containerimage.digest"].as_str().unwrap();
    let expected = format!("docker.io/library/dangling@{digest}");
    assert_eq!(told["image.name"], expected);
}

#[test]
fn images_are_pushed_under_all_names() {
    let project = small_project!();
    let registry = registry!();
    let host = registry.host();
    let tags = [
        format!("{host}/team/app:1"),
        format!("{host}/team/app:latest"),
    ];
    let run = project
        .build(&[
            "--push",
            "--provenance=false",
            "-t",
            &tags[0],
            "-t",
            &tags[1],
        ])
        .success();
    let pushed = |reference: &str| {
        let path = format!("/v2/team/app/manifests/{reference}");
        let accepted = [("Accept", media_type::MANIFEST)];
        registry.request("GET", &path, &accepted, &[]).unwrap()
    };
    let first = pushed("1");
    assert_eq!((first.status, pushed("latest").status), (200, 200));
    let digest = Digest::sha256(&first.body);
    for line in [
        "pushing layers".to_owned(),
        format!("pushing manifest for {}@{digest}", tags[0]),
        format!("pushing manifest for {}@{digest}", tags[1]),
    ] {
        assert!(run.stderr.contains(&line), "{line}\n{}", run.stderr);
    }
    let manifest: ImageManifest = serde_json::from_slice(&first.body).unwrap();
    assert_eq!(manifest.layers[2].media_type, media_type::LAYER_GZIP);
    // `--push` is `type=registry`; the image is in the store, too.
    assert!(
        project
            .larder()
            .run(["images"])
            .success()
            .text()
            .contains("team/app")
    );
    let output = format!("type=registry,name={}", tags[0]);
    let again = project
        .build(&["-o", &output, "--provenance=false"])
        .success();
    assert!(again.stderr.contains(digest.as_str()), "{}", again.stderr);
    if install(&["skopeo"]).is_ok() {
        let image = format!("docker://{}", tags[0]);
        let seen = Run::of(Command::new("skopeo").args(["inspect", "--tls-verify=false", &image]));
        assert!(seen.success().text().contains(digest.as_str()));
    }
}

#[test]
fn a_push_may_leave_no_tag_and_no_image() {
    let project = small_project!();
    let registry = registry!();
    let name = format!("{}/by-digest", registry.host());
    let output = format!("type=image,name={name},push=true,push-by-digest=true,store=false");
    let metadata = project.scratch().join("metadata.json");
    let file = metadata.to_str().unwrap();
    let _ = project
        .build(&["-o", &output, "--metadata-file", file])
        .success();
    let told: Value = serde_json::from_slice(&fs::read(&metadata).unwrap()).unwrap();
    let digest = told["containerimage.digest"].as_str().unwrap();
    let status = |reference: &str| {
        let path = format!("/v2/by-digest/manifests/{reference}");
        let accepted = [("Accept", media_type::INDEX)];
        registry
            .request("GET", &path, &accepted, &[])
            .unwrap()
            .status
    };
    assert_eq!((status(digest), status("latest")), (200, 404));
    assert!(
        !project
            .larder()
            .run(["images"])
            .success()
            .text()
            .contains("by-digest")
    );

    let _ = project
        .build(&["--push"])
        .exit(1)
        .says("tag is needed when pushing to registry");
    let _ = project
        .build(&["--push", "-t", "127.0.0.1:1/app:1"])
        .exit(1)
        .says("failed to push 127.0.0.1:1/app:1");
}

#[test]
fn a_layer_is_the_same_whether_it_is_made_of_known_chunks_or_not() {
    let project = project!(Base::Busybox);
    let files = |seed: u64| -> String {
        let mut state = seed;
        let mut word = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            format!("word{} ", (state >> 33) % 5000)
        };
        (0..700_000).map(|_| word()).collect()
    };
    let (big, small) = (files(1), files(2));
    project.write(&[
        ("Dockerfile", "FROM scratch\nCOPY . /\n"),
        ("a", &small[..4096]),
        ("b", &big),
    ]);
    let epoch = "compression=gzip,rewrite-timestamp=true,source-date-epoch=1";
    let blob = |project: &Project| {
        let made = archive(project, epoch);
        made.manifest().unwrap().layers[0].digest.clone()
    };
    let first = blob(&project);
    project.write(&[("a", &small[..5000])]);
    let changed = blob(&project);
    assert_ne!(first, changed);
    let chunks = project.larder().root().join("contexts/layer-chunks");
    assert!(fs::metadata(&chunks).unwrap().len() > 16 * 48);
    // Without memory, the same bytes come out; and with a damaged one.
    for forget in [true, false] {
        if forget {
            fs::remove_file(&chunks).unwrap();
        } else {
            fs::write(&chunks, b"larder chunks 1\nnonsense").unwrap();
        }
        assert_eq!(blob(&project), changed);
    }
}

/// Bytes that don't compress, in a layer that the tests below look for.
const NOISE_BYTES: u64 = 2_000_000;

/// Shell: asks the server of [`answers_when_packed`] for `count` layers.
fn await_packed(host: &str, count: usize) -> String {
    format!("RUN wget -q -O /packed http://{host}/{count}\n")
}

/// Returns the sizes of the large blobs of a store.
fn large_blobs(root: &std::path::Path) -> Vec<u64> {
    let blobs = fs::read_dir(root.join("blobs/sha256")).unwrap();
    let sizes = blobs.map(|blob| blob.unwrap().metadata().unwrap().len());
    let mut sizes: Vec<u64> = sizes.filter(|size| *size >= NOISE_BYTES).collect();
    sizes.sort_unstable();
    sizes
}

/// Answers a request for `/N` when the store has N large blobs, or after two minutes that it has not.
fn answers_when_packed(root: std::path::PathBuf) -> WebServer {
    WebServer::start(move |request, _| {
        let wanted: usize = request.target[1..].parse().unwrap();
        for _ in 0..2400 {
            if large_blobs(&root).len() >= wanted {
                return WebAnswer::status(200);
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        WebAnswer::status(504)
    })
}

#[test]
fn layers_are_packed_while_later_steps_run() {
    let project = project!(Base::Busybox);
    let root = project.larder().root().to_owned();
    let before = "\
        FROM busybox AS other\n\
        RUN head -c 3000000 /dev/urandom > /unwanted && touch /done\n\
        FROM busybox\n\
        COPY --from=other /done /\n\
        RUN head -c 2000000 /dev/urandom > /noise\n";
    project.write(&[("Dockerfile", before)]);
    let _ = project.build(&["-o", "type=cacheonly"]).success();
    let known = large_blobs(&root).len();

    let server = answers_when_packed(root.clone());
    let host = server.host();
    // A cached layer below the first step that runs, then that of a step that ran.
    let after = format!(
        "{before}{}RUN head -c 2000000 /dev/urandom > /more\n{}",
        await_packed(host, known + 1),
        await_packed(host, known + 2)
    );
    project.write(&[("Dockerfile", &after)]);
    let path = project.scratch().join("out.tar");
    let output = format!("type=oci,dest={}", path.to_str().unwrap());
    let args = [
        "--network=host",
        "-o",
        &output,
        "-o",
        "type=docker,dest=/dev/null",
    ];
    let _ = project.build(&args).success();
    assert_eq!(server.take_requests().len(), 2);
    // What another stage made is none of the image's.
    let sizes = large_blobs(&root);
    let own = sizes.iter().filter(|size| **size < NOISE_BYTES + 100_000);
    assert_eq!(own.count(), 2, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size < 3_000_000), "{sizes:?}");
    let layers = OciArchive::open(&path).unwrap().layers().unwrap();
    let paths: Vec<&str> = layers.iter().flatten().map(|entry| &*entry.path).collect();
    for file in ["noise", "more", "packed"] {
        assert!(paths.contains(&file), "{file}: {paths:?}");
    }
}

#[test]
fn a_failed_step_ends_what_is_packed_meanwhile() {
    let project = project!(Base::Busybox);
    let steps = "RUN head -c 20000000 /dev/urandom > /noise\nRUN false\n";
    project.write(&[("Dockerfile", &format!("FROM busybox\n{steps}"))]);
    let _ = project.build(&["-o", "type=oci,dest=/dev/null"]).exit(1);
    // What was packed till then is whole or not there.
    let steps = steps.replace("RUN false", "RUN true");
    project.write(&[("Dockerfile", &format!("FROM busybox\n{steps}"))]);
    let made = archive(&project, "compression=gzip");
    assert!(made.layers().unwrap().len() >= 3);
}
