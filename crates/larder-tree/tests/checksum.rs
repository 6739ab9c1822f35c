//! The content keys of real Dockerfiles, compared with those in caches that BuildKit exported.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use larder_oci::Digest;
use larder_tree::beneath::Root;
use larder_tree::checksum::{Selector, content_digest};
use larder_tree::context::{ScanOptions, StatCache, Tree, scan};
use serde_json::Value;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn json(name: &str, file: &str) -> Value {
    let text = fs::read_to_string(golden().join(name).join(file)).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Lays out the build context of a golden build, with the modes that a checkout may lose.
fn context_of(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy_dir(&golden().join("context"), dir.path());
    match name {
        "add-tar" => {
            let archive = dir.path().join("pack.tar.gz");
            fs::copy(golden().join("pack.tar.gz"), &archive).unwrap();
            set_mode(&archive, 0o644);
        }
        "ignore" => {
            let patterns = "*.md\n**/lib\n!src/lib/util.py\nb.*\n";
            fs::write(dir.path().join(".dockerignore"), patterns).unwrap();
        }
        "copy-symlink" => {
            fs::create_dir(dir.path().join("links")).unwrap();
            symlink("a.txt", dir.path().join("link")).unwrap();
            symlink("nowhere", dir.path().join("links/dangling")).unwrap();
            symlink("../b.txt", dir.path().join("links/in")).unwrap();
        }
        _ => {}
    }
    dir
}

fn copy_dir(from: &Path, to: &Path) {
    set_mode(to, 0o755);
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
            let is_script = entry.file_name() == "run.sh";
            set_mode(&target, if is_script { 0o755 } else { 0o644 });
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Returns the digests of the records of a cache that are about content: those without inputs.
fn content_records(name: &str) -> BTreeSet<String> {
    let cache = json(name, "cache.json");
    let records = cache["config"]["records"].as_array().unwrap().iter();
    let roots = records.filter(|record| record.get("inputs").is_none());
    roots
        .map(|record| record["digest"].as_str().unwrap().to_owned())
        .collect()
}

fn record(content: &Digest) -> String {
    Digest::sha256(format!("{content}@-1")).to_string()
}

fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items
        .map(|item| item.as_str().unwrap().to_owned())
        .collect()
}

fn flag(value: &Value, name: &str) -> bool {
    value.get(name).and_then(Value::as_bool).unwrap_or(false)
}

/// Returns a number that is missing if it is 0 and text if it has 64 bits.
fn index(value: &Value, name: &str) -> i64 {
    match &value[name] {
        Value::Null => 0,
        Value::String(text) => text.parse().unwrap(),
        number => number.as_i64().unwrap(),
    }
}

/// Returns what each op takes from each of its inputs by content.
fn selectors(op: &Value) -> BTreeMap<i64, Vec<Selector>> {
    let mut selectors: BTreeMap<i64, Vec<Selector>> = BTreeMap::new();
    for action in op["file"]["actions"].as_array().into_iter().flatten() {
        if let Some(copy) = action.get("copy") {
            let selector = Selector {
                path: copy["src"].as_str().unwrap().to_owned(),
                wildcard: flag(copy, "allowWildcard"),
                follow_links: flag(copy, "followSymlink"),
                include_patterns: texts(&copy["includePatterns"]),
                exclude_patterns: texts(&copy["excludePatterns"]),
                required_paths: texts(&copy["requiredPaths"]),
            };
            selectors
                .entry(index(action, "secondaryInput"))
                .or_default()
                .push(selector);
        }
    }
    for mount in op["exec"]["mounts"].as_array().into_iter().flatten() {
        if let Some(path) = mount.get("selector") {
            let selector = Selector {
                path: path.as_str().unwrap().to_owned(),
                follow_links: true,
                ..Selector::default()
            };
            selectors
                .entry(index(mount, "input"))
                .or_default()
                .push(selector);
        }
    }
    selectors
}

/// Scans the context as the local source of a definition asks.
fn scan_as(source: &Value, dir: &Path) -> Tree {
    let list = |name: &str| -> Option<Vec<String>> {
        let text = source["attrs"].get(name)?.as_str().unwrap();
        Some(texts(&serde_json::from_str(text).unwrap()))
    };
    let (follow_paths, excludes) = (list("local.followpaths"), list("local.excludepatterns"));
    let options = ScanOptions {
        excludes: excludes.as_deref().unwrap_or_default(),
        follow_paths: follow_paths.as_deref(),
        ..ScanOptions::default()
    };
    scan(Root::open(dir).unwrap(), &options, StatCache::default()).unwrap()
}

fn check_context_builds(names: &[&str]) {
    for name in names {
        let llb = json(name, "llb.json");
        let ops = llb["def"].as_object().unwrap();
        let is_local = |op: &Value| op["source"]["identifier"] == "local://context";
        let (local, source) = ops.iter().find(|(_, op)| is_local(op)).unwrap();
        let dir = context_of(name);
        let tree = scan_as(&source["source"], dir.path());
        let records = content_records(name);
        let mut checked = 0;
        for op in ops.values() {
            for (input, selectors) in selectors(op) {
                if input >= 0 && op["inputs"][input as usize]["digest"] == local.as_str() {
                    let digest = content_digest(&tree, &selectors).unwrap();
                    let record = record(&digest);
                    assert!(records.contains(&record), "{name}: {selectors:?}");
                    checked += 1;
                }
            }
        }
        assert!(checked > 0, "{name}");
    }
}

#[test]
fn copies_from_the_context_have_buildkits_keys() {
    check_context_builds(&[
        "copy-all",
        "copy-chown-chmod",
        "copy-dir",
        "copy-file",
        "copy-link",
        "copy-rename",
        "copy-two",
        "guide",
        "multi-stage",
    ]);
}

#[test]
fn wildcards_and_patterns_have_buildkits_keys() {
    check_context_builds(&[
        "copy-exclude",
        "copy-parents",
        "copy-wildcard",
        "copy-wildcard-deep",
        "ignore",
    ]);
}

#[test]
fn links_archives_and_bind_mounts_have_buildkits_keys() {
    check_context_builds(&["add-tar", "copy-symlink", "run-bind"]);
}

#[test]
fn the_guides_two_copies_have_their_known_keys() {
    let dir = context_of("guide");
    let root = Root::open(dir.path()).unwrap();
    let tree = scan(root, &ScanOptions::default(), StatCache::default()).unwrap();
    for (path, expected) in [
        (
            "/requirements.txt",
            "sha256:b78cc2a87defd6483d351053c02a33a074e39ffcaea3e721445ba2ec333e953a",
        ),
        (
            "/",
            "sha256:e4e966ef11418fc70b74790833a6f9594c48ff61a08cc2ab45c3d9043e3a2e45",
        ),
    ] {
        let selector = Selector {
            path: path.to_owned(),
            wildcard: true,
            follow_links: true,
            ..Selector::default()
        };
        let digest = content_digest(&tree, &[selector]).unwrap();
        assert_eq!(record(&digest), expected, "{path}");
    }
}

/// Path, text and mode of each file.
type Files = [(&'static str, &'static str, u32)];

#[test]
fn trees_of_other_stages_have_buildkits_keys() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: the stages' files belong to root");
        return;
    }
    let cases: [(&str, &Files, &str); 6] = [
        ("copy-from-stage", &[("o/f", "1\n", 0o644)], "/o"),
        ("parallel", &[("a", "a\n", 0o644)], "/a"),
        ("parallel", &[("b", "b\n", 0o644)], "/b"),
        (
            "copy-heredoc",
            &[("one.txt", "n is 5\n", 0o644)],
            "/one.txt",
        ),
        (
            "copy-heredoc",
            &[("two.txt", "n is $N\n", 0o644)],
            "/two.txt",
        ),
        (
            "run-shebang",
            &[("EOF", "#!/bin/sh\necho s > /f\n", 0o755)],
            "/",
        ),
    ];
    for (name, files, path) in cases {
        let dir = tempfile::tempdir().unwrap();
        set_mode(dir.path(), 0o755);
        for (path, text, mode) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            set_mode(path.parent().unwrap(), 0o755);
            fs::write(&path, text).unwrap();
            set_mode(&path, *mode);
        }
        let selector = Selector {
            path: path.to_owned(),
            ..Selector::default()
        };
        let tree = Tree::view(Root::open(dir.path()).unwrap()).unwrap();
        let record = record(&content_digest(&tree, &[selector]).unwrap());
        assert!(content_records(name).contains(&record), "{name}: {path}");
    }
}
