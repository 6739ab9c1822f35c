//! Sources: images and blobs, repositories, local files.

use std::collections::BTreeMap;
use std::process::Command;

use fs_err as fs;
use larder_oci::Digest;
use larder_testkit::{Base, GitRepository, GitServer, Scratch, WebAnswer, WebServer, project};

use crate::graph::{Graph, State, build, copy, files, files_with, mkfile, tree};

#[test]
fn images_and_blobs_of_layouts_are_taken_as_far_as_is_asked() {
    let project = project!(Base::Busybox);
    let mut graph = Graph::default();
    let low = graph.file(vec![(-1, -1, 0, mkfile("/low", "1"))], &[]);
    let high = graph.file(vec![(0, -1, 0, mkfile("/high", "2"))], &[&low]);
    let layout = project.scratch().join("layout");
    let metadata = project.scratch().join("metadata.json");
    let archive = project.scratch().join("two.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let flags = ["-t", "two:1", "-o", &output, "-o", "type=image"];
    let metadata_file = ["--metadata-file", metadata.to_str().unwrap()];
    let _ = build(
        &project,
        &[&flags[..], &metadata_file[..]].concat(),
        &graph.of(&high),
    )
    .success();
    fs::create_dir(&layout).unwrap();
    let unpacked = Command::new("tar")
        .arg("-xf")
        .arg(&archive)
        .arg("-C")
        .arg(&layout)
        .status();
    assert!(unpacked.unwrap().success());
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap();
    let path = layout.join("blobs").join(manifest.replacen(':', "/", 1));
    let read: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let config = read["config"]["digest"].as_str().unwrap();

    let both = tree(&[("high", "2"), ("low", "1")]);
    let lowest = tree(&[("low", "1")]);
    // The image as it was built is in the store; how many layers it gives enters the key.
    let mut graph = Graph::default();
    let limited = |graph: &mut Graph, limit: &str| {
        graph.source_with("docker-image://two:1", &[("image.layerlimit", limit)])
    };
    for (limit, expected) in [("1", &lowest), ("2", &both), ("1", &lowest)] {
        let image = limited(&mut graph, limit);
        assert_eq!(files(&project, &graph.of(&image)), *expected, "{limit}");
    }
    let image = limited(&mut graph, "3");
    let run = build(&project, &[], &graph.of(&image)).exit(1);
    let expected = "layer limit 3 is greater than the number of layers in the image 2";
    let _ = run.says(expected);

    let elsewhere = project!(Base::Busybox);
    let flag = format!("there={}", layout.display());
    let flags = ["--oci-layout", &flag];
    let identifier = format!("oci-layout://example.com/two@{manifest}");
    let image = graph.source_with(&identifier, &[("oci.store", "there")]);
    let limit = [("oci.store", "there"), ("oci.layerlimit", "1")];
    let lower = graph.source_with(&identifier, &limit);
    let files = |state: &State| files_with(&elsewhere, &flags, &graph.of(state));
    assert_eq!(files(&lower), lowest);
    assert_eq!(files(&image), both);
    let mut graph = graph.clone();
    let identifier = format!("oci-layout+blob://example.com/two@{config}");
    let attrs = [("oci.store", "there"), ("http.filename", "config")];
    let blob = graph.source_with(&identifier, &attrs);
    let found = files_with(&elsewhere, &flags, &graph.of(&blob));
    assert_eq!(Digest::sha256(&found["config"]).to_string(), config);

    let missing = Digest::sha256("missing");
    let identifier = format!("oci-layout+blob://example.com/two@{missing}");
    let blob = graph.source_with(&identifier, &[("oci.store", "there")]);
    let run = build(&elsewhere, &flags, &graph.of(&blob)).exit(1);
    let _ = run.says(&format!("the OCI layout `there` has no blob `{missing}`"));
    let run = build(&elsewhere, &[], &graph.of(&blob)).exit(1);
    let _ = run.says("no OCI layout was given for `there`");
}

#[test]
fn bundles_of_git_are_made_and_read() {
    let project = project!(Base::Busybox);
    larder_testkit::install(&["git"]).unwrap();
    let directory = project.scratch().join("directory");
    fs::create_dir(&directory).unwrap();
    let server = GitServer::start(&directory);
    let repository = GitRepository::create(&directory.join("a"));
    let first = repository.commit(&[("f", "one")]);
    repository.git(["tag", "--annotate", "--message", "x", "v1"]);
    let tag = repository.git(["rev-parse", "v1"]);
    let second = repository.commit(&[("f", "two"), ("d/g", "g")]);
    let url = server.url("a/.git");
    let identifier = format!("git://{}", url.strip_prefix("http://").unwrap());
    let git = |reference: &str, attrs: &[(&str, &str)]| {
        let mut graph = Graph::default();
        let attrs = [attrs, &[("git.fullurl", &*url)]].concat();
        let state = graph.source_with(&format!("{identifier}{reference}"), &attrs);
        graph.of(&state)
    };

    // A shallow commit is here already: a bundle has its ancestors, too.
    let both = tree(&[("d", ""), ("d/g", "g"), ("f", "two")]);
    assert_eq!(files(&project, &git("#main", &[])), both);
    let layout = project.scratch().join("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let make = |reference: &str, expected: &str| {
        let out = Scratch::new();
        let directory = out.join("out");
        let flags = ["-o", directory.to_str().unwrap()];
        let definition = git(reference, &[("git.checkoutbundle", "true")]);
        let _ = build(&project, &flags, &definition).success();
        let again = build(&project, &[], &definition).success();
        let _ = again.says("CACHED");
        let names: Vec<_> = fs::read_dir(&directory).unwrap().collect();
        assert_eq!(names.len(), 1);
        let bundle = directory.join("bundle");
        let heads = repository.git(["bundle", "list-heads", bundle.to_str().unwrap()]);
        assert_eq!(heads, expected, "{reference}");
        let digest = Digest::sha256(fs::read(&bundle).unwrap());
        fs::copy(&bundle, blobs.join(digest.hex())).unwrap();
        digest
    };
    let of_tag = make("#refs/tags/v1", &format!("{tag} refs/tags/v1"));
    let _ = make(&format!("#{first}"), &format!("{first} refs/heads/main"));
    let of_branch = make("#main", &format!("{second} refs/heads/main"));

    let elsewhere = project!(Base::Busybox);
    let flag = format!("there={}", layout.display());
    let flags = ["--oci-layout", &*flag];
    let mut seen = 0;
    let _ = server.asked(&mut seen);
    let locator = |digest: &Digest| format!("oci-layout+blob://example.com/a@{digest}");
    let from = |digest: &Digest, reference: &str, checksum: &str| {
        let attrs = [
            ("git.bundle", &*locator(digest)),
            ("git.checksum", checksum),
            ("oci.store", "there"),
        ];
        git(reference, &attrs)
    };
    let old = tree(&[("f", "one")]);
    for (definition, expected) in [
        (from(&of_branch, "#main", &second), &both),
        (from(&of_branch, "", &first), &old),
        (from(&of_tag, "#v1", &first[..9]), &old),
        (from(&of_tag, "#v1", &tag), &old),
    ] {
        assert_eq!(files_with(&elsewhere, &flags, &definition), *expected);
    }
    // Where a commit is from does not enter keys, and a layout has the locator's name by default.
    let by_name = format!("example.com/a={}", layout.display());
    let unnamed = [
        ("git.bundle", &*locator(&of_branch)),
        ("git.checksum", &*second),
    ];
    let flags_by_name = ["--oci-layout", &*by_name];
    let run = build(&elsewhere, &flags_by_name, &git("#main", &unnamed)).success();
    let _ = run.says("CACHED");
    assert_eq!(server.asked(&mut seen), (0, 0), "the server is not asked");

    let other = "0".repeat(40);
    for (definition, expected) in [
        (
            from(&of_tag, "", &other),
            format!("commit {other} not found in bundle"),
        ),
        (
            from(&of_branch, "#main", &other),
            format!("expected checksum to match {other}, got {second}"),
        ),
        (
            from(&of_branch, "#side", &second),
            "repository does not contain ref side".to_owned(),
        ),
    ] {
        let run = build(&elsewhere, &flags, &definition).exit(1);
        let _ = run.says(&expected);
    }
    let broken = Digest::sha256("no bundle");
    fs::write(blobs.join(broken.hex()), "no bundle").unwrap();
    let run = build(&elsewhere, &flags, &from(&broken, "", &other)).exit(1);
    let _ = run.says("failed to import git bundle");
}

#[test]
fn a_listing_stands_for_files_that_are_not_asked_for() {
    let project = project!(Base::Busybox);
    let source = project.scratch().join("source");
    for (path, text) in [
        ("data", "contents"),
        ("dir/file1", "file1"),
        ("dir/file2", "file2"),
        ("dir/subdir/bar1", "bar1"),
        ("dir/subdir2/bar3", "bar3"),
        ("foo", "foo"),
    ] {
        let path = source.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let mut graph = Graph::default();
    let attrs = [
        ("local.metadatatransfer", "true"),
        ("local.metadatatransferexclude", r#"["dir/**/*1", "foo"]"#),
    ];
    let listed = graph.source_with("local://source", &attrs);
    let copied = graph.file(vec![(-1, 0, 0, copy("/", "/"))], &[&listed]);
    let flag = format!("source={}", source.display());
    let flags = ["--local", &*flag];
    let found = || files_with(&project, &flags, &graph.of(&listed));
    let paths = |found: &BTreeMap<String, String>| found.keys().cloned().collect::<Vec<_>>();
    let first = found();
    let expected = [
        ".fsutil-metadata",
        "dir",
        "dir/file1",
        "dir/subdir",
        "dir/subdir/bar1",
        "foo",
    ];
    assert_eq!(paths(&first), expected);
    assert_eq!(first["dir/file1"], "file1");
    let definition = graph.of(&copied);
    let _ = build(&project, &flags, &definition).success();
    let run = build(&project, &flags, &definition).success();
    let _ = run.says("CACHED");

    // What is listed counts, though its content is not there.
    fs::remove_dir_all(source.join("dir/subdir2")).unwrap();
    let run = build(&project, &flags, &definition).success();
    assert_eq!(run.cached_count(), 0, "{}", run.stderr);
    assert_eq!(paths(&found()), expected);

    let bad = [("local.metadatatransfer", "maybe")];
    let bad = graph.source_with("local://source", &bad);
    let run = build(&project, &flags, &graph.of(&bad)).exit(1);
    let _ = run.says(r#"invalid value for local.metadatatransfer "maybe""#);
}

/// Keys, and what they have signed.
const SIGNED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../larder-engine/src/openpgp/testdata"
);

fn signed(name: &str) -> String {
    fs::read_to_string(format!("{SIGNED}/{name}")).unwrap()
}

#[test]
fn commits_and_tags_are_taken_if_they_are_signed() {
    let project = project!(Base::Busybox);
    larder_testkit::install(&["git"]).unwrap();
    let repositories = project.scratch().join("repositories");
    fs::create_dir(&repositories).unwrap();
    let server = GitServer::start(&repositories);
    let repository = GitRepository::create(&repositories.join("a"));
    // The signed commit has this file.
    let _ = repository.commit(&[("f", "one")]);
    for (kind, reference) in [("commit", "refs/heads/main"), ("tag", "refs/tags/v1")] {
        let object = format!("{SIGNED}/{kind}");
        let id = repository.git(["hash-object", "-t", kind, "-w", &object]);
        repository.git(["update-ref", reference, &id]);
    }
    repository.git(["branch", "other", "main"]);
    repository.git(["checkout", "--quiet", "other"]);
    let unsigned = repository.commit(&[("f", "two")]);
    let url = server.url("a/.git");
    let identifier = format!("git://{}", url.strip_prefix("http://").unwrap());
    let git = |reference: &str, key: &str, attrs: &[(&str, &str)]| {
        let mut graph = Graph::default();
        let key = signed(key);
        let all = [("git.fullurl", &*url), ("git.sig.pubkey", &*key)];
        let attrs = [&all[..], attrs].concat();
        let state = graph.source_with(&format!("{identifier}{reference}"), &attrs);
        graph.of(&state)
    };
    let one = tree(&[("f", "one")]);
    let must_be_tag = [("git.sig.requiresignedtag", "true")];
    assert_eq!(files(&project, &git("#main", "signer.key", &[])), one);
    assert_eq!(
        files(&project, &git("#v1", "signer.key", &must_be_tag)),
        one
    );

    // That the files are there already is no reason to take them.
    let unknown = "signature by 8E679E625C617C56: openpgp: signature made by unknown entity";
    let other = format!("#{unsigned}");
    for (definition, expected) in [
        (git("#main", "rsa.key", &[]), unknown),
        (git("#v1", "rsa.key", &must_be_tag), unknown),
        (
            git("#main", "signer.key", &must_be_tag),
            "signed tag required but no signed tag found",
        ),
        (
            git(&other, "signer.key", &[]),
            "failed to decode armored signature: EOF",
        ),
    ] {
        let run = build(&project, &[], &definition).exit(1);
        let _ = run.says(expected);
    }
}

#[test]
fn files_of_web_servers_are_taken_if_they_are_signed() {
    let project = project!(Base::Busybox);
    let server = WebServer::start(move |request, _| match &*request.target {
        "/signed" => WebAnswer::status(200).body("payload\n"),
        "/changed" => WebAnswer::status(200).body("paylaod\n"),
        _ => WebAnswer::status(404),
    });
    let digest = Digest::sha256("payload\n").to_string();
    let web = |path: &str, key: &str, attrs: &[(&str, &str)]| {
        let mut graph = Graph::default();
        let (key, signature) = (signed(key), signed("signer.sig"));
        let all = [
            ("http.filename", "f"),
            ("http.sig.pubkey", &*key),
            ("http.sig.signature", &*signature),
        ];
        let url = format!("http://{}{path}", server.host());
        let state = graph.source_with(&url, &[&all[..], attrs].concat());
        graph.of(&state)
    };
    let pinned = [("http.checksum", &*digest)];
    let expected = tree(&[("f", "payload\n")]);
    for attrs in [&[][..], &pinned] {
        let definition = web("/signed", "signer.key", attrs);
        assert_eq!(files(&project, &definition), expected);
    }
    for (definition, expected) in [
        (
            web("/signed", "rsa.key", &[]),
            "failed to verify pgp signature: signature by 8E679E625C617C56",
        ),
        (web("/signed", "rsa.key", &pinned), "unknown entity"),
        (
            web("/changed", "signer.key", &[]),
            "openpgp: invalid signature",
        ),
        (
            web("/changed", "signer.key", &pinned),
            "digest mismatch for",
        ),
    ] {
        let run = build(&project, &[], &definition).exit(1);
        let _ = run.says(expected);
    }
}
