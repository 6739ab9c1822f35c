//! Scans of build contexts: what they take, and what the stat cache believes.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use larder_tree::ErrorKind;
use larder_tree::beneath::Root;
use larder_tree::checksum::{Selector, content_digest};
use larder_tree::context::{Kind, ScanOptions, StatCache, Tree, scan};
use proptest::prelude::*;

/// A time after which nothing in these tests changes: one hour after they began.
const LATER: i64 = 3600 * 1_000_000_000;

struct Files(tempfile::TempDir);

impl Files {
    /// Makes empty files, and directories for paths that end in `/`.
    fn new(paths: &[&str]) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        for path in paths {
            match path.strip_suffix('/') {
                Some(dir) => fs::create_dir_all(files.at(dir)).unwrap(),
                None => files.write(path, path),
            }
        }
        files
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn root(&self) -> Root {
        Root::open(self.0.path()).unwrap()
    }

    /// Returns the present by the clock of the file system.
    fn now(&self) -> i64 {
        self.write(".clock", "");
        let stat = rustix::fs::stat(self.at(".clock")).unwrap();
        fs::remove_file(self.at(".clock")).unwrap();
        stat.st_mtime * 1_000_000_000 + stat.st_mtime_nsec as i64
    }

    fn scan(&self, options: &ScanOptions<'_>) -> Tree {
        scan(self.root(), options, StatCache::default()).unwrap()
    }

    fn scan_later(&self, cache: StatCache) -> Tree {
        let options = ScanOptions {
            started_at_nanos: self.now() + LATER,
            ..ScanOptions::default()
        };
        scan(self.root(), &options, cache).unwrap()
    }
}

fn paths(tree: &Tree) -> Vec<String> {
    let entries = tree.entries().unwrap();
    entries
        .iter()
        .map(|entry| entry.path().to_str().unwrap().to_owned())
        .collect()
}

fn texts(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn whole(tree: &Tree) -> larder_oci::Digest {
    content_digest(tree, &[]).unwrap()
}

#[test]
fn entries_come_in_the_order_of_their_names() {
    let files = Files::new(&["b", "a.txt", "a/z", "a/b/c", "a-b", "empty/"]);
    let tree = files.scan(&ScanOptions::default());
    let expected = ["a", "a/b", "a/b/c", "a/z", "a-b", "a.txt", "b", "empty"];
    assert_eq!(paths(&tree), expected);
    let entry = tree.resolve(b"a/z", true).unwrap().unwrap();
    assert_eq!((entry.attributes().uid, entry.attributes().gid), (0, 0));
    assert_eq!(
        (entry.attributes().kind, entry.attributes().size),
        (Kind::File, 3)
    );
}

#[test]
fn excluded_entries_are_left_out_and_exceptions_taken() {
    let all = [
        "a.md",
        "b.txt",
        "docs/x.md",
        "docs/keep/y",
        "lib/z",
        "lib/sub/w",
    ];
    for (excludes, expected) in [
        (
            &["*.md"][..],
            &[
                "b.txt",
                "docs",
                "docs/keep",
                "docs/keep/y",
                "docs/x.md",
                "lib",
                "lib/sub",
                "lib/sub/w",
                "lib/z",
            ][..],
        ),
        (&["docs", "lib"], &["a.md", "b.txt"]),
        (&["*", "!docs/keep"], &["docs", "docs/keep", "docs/keep/y"]),
        (&["docs", "!docs/none", "lib/*", "*.md"], &["b.txt", "lib"]),
        (&["**/*", "!**/w"], &["lib", "lib/sub", "lib/sub/w"]),
    ] {
        let files = Files::new(&all);
        let excludes = texts(excludes);
        let options = ScanOptions {
            excludes: &excludes,
            ..ScanOptions::default()
        };
        assert_eq!(paths(&files.scan(&options)), expected, "{excludes:?}");
    }
}

#[test]
fn only_followed_paths_are_taken_with_what_links_lead_to() {
    let files = Files::new(&["a", "b", "dir/x", "dir/y", "far/away/z", "t1.txt", "u.txt"]);
    symlink("dir/x", files.at("to-x")).unwrap();
    symlink("/far", files.at("to-far")).unwrap();
    symlink("to-far", files.at("twice")).unwrap();
    symlink("../../../b", files.at("out")).unwrap();
    symlink("loop", files.at("loop")).unwrap();
    symlink("grow/x", files.at("grow")).unwrap();
    symlink("u.txt", files.at("t2.txt")).unwrap();
    for (follow, expected) in [
        (&["a"][..], &["a"][..]),
        (&["/a", "./b"], &["a", "b"]),
        (&["dir"], &["dir", "dir/x", "dir/y"]),
        (&["to-x"], &["dir", "dir/x", "to-x"]),
        (
            &["twice/away"],
            &["far", "far/away", "far/away/z", "to-far", "twice"],
        ),
        (&["out"], &["b", "out"]),
        (&["loop"], &["loop"]),
        (&["grow"], &["grow"]),
        (&["t*.txt"], &["t1.txt", "t2.txt", "u.txt"]),
        (&["d*/x"], &["dir", "dir/x"]),
        (&["none", "none*"], &[]),
        (
            &["to-far/away", "to-far/none"],
            &["far", "far/away", "far/away/z", "to-far"],
        ),
    ] {
        let follow = texts(follow);
        let options = ScanOptions {
            follow_paths: Some(&follow),
            ..ScanOptions::default()
        };
        assert_eq!(paths(&files.scan(&options)), expected, "{follow:?}");
    }
    let everything = texts(&["a", "."]);
    let options = ScanOptions {
        follow_paths: Some(&everything),
        ..ScanOptions::default()
    };
    let all = files.scan(&ScanOptions::default());
    assert_eq!(paths(&files.scan(&options)), paths(&all));
}

#[test]
fn malformed_patterns_are_refused() {
    let files = Files::new(&["a"]);
    for bad in ["a[", "!"] {
        let excludes = texts(&[bad]);
        let options = ScanOptions {
            excludes: &excludes,
            ..ScanOptions::default()
        };
        let error = scan(files.root(), &options, StatCache::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(
            error.to_string().starts_with("invalid excludepatterns: "),
            "{error}"
        );
    }
}

#[test]
fn errors_name_the_path_in_the_context() {
    if rustix::process::geteuid().is_root() {
        println!("skipped: root reads everything");
        return;
    }
    let files = Files::new(&["dir/secret/x", "a"]);
    fs::set_permissions(files.at("dir/secret"), fs::Permissions::from_mode(0o000)).unwrap();
    let error = scan(files.root(), &ScanOptions::default(), StatCache::default()).unwrap_err();
    assert!(error.to_string().contains("`dir/secret`"), "{error}");
    let excludes = texts(&["dir"]);
    let options = ScanOptions {
        excludes: &excludes,
        ..ScanOptions::default()
    };
    assert_eq!(paths(&files.scan(&options)), ["a"]);
}

#[test]
fn a_cached_digest_is_believed_while_the_stamp_is_the_same() {
    let files = Files::new(&["a", "dir/b"]);
    let first = files.scan_later(StatCache::default());
    let digest = whole(&first);
    let cache = first.updated_cache().unwrap();
    assert_eq!(cache.len(), 3);

    let second = files.scan_later(cache.clone());
    assert_eq!(whole(&second), digest);
    assert!(second.updated_cache().is_none(), "all was known");

    // The same size, and the time of modification put back.
    let modified = fs::metadata(files.at("a")).unwrap().modified().unwrap();
    files.write("a", "b");
    let file = fs::File::options().write(true).open(files.at("a")).unwrap();
    file.set_modified(modified).unwrap();
    let third = files.scan_later(cache.clone());
    assert_ne!(whole(&third), digest);
    assert!(third.updated_cache().is_some());

    fs::set_permissions(files.at("dir/b"), fs::Permissions::from_mode(0o600)).unwrap();
    let fourth = files.scan_later(third.updated_cache().unwrap());
    assert_ne!(whole(&fourth), whole(&third));
}

#[test]
fn young_files_do_not_enter_the_cache() {
    let files = Files::new(&["a"]);
    let options = ScanOptions {
        started_at_nanos: files.now(),
        ..ScanOptions::default()
    };
    let tree = files.scan(&options);
    whole(&tree);
    assert!(tree.updated_cache().is_none_or(|cache| cache.is_empty()));
}

#[test]
fn a_file_that_changed_since_the_scan_is_an_error() {
    let files = Files::new(&["src/app.py"]);
    let tree = files.scan_later(StatCache::default());
    files.write("src/app.py", "changed since");
    let error = content_digest(&tree, &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed);
    assert_eq!(
        error.to_string(),
        "file changed during the build: `src/app.py`"
    );
}

#[test]
fn missing_paths_are_named_as_buildkit_does() {
    let files = Files::new(&["a", "dir/b"]);
    symlink("nowhere", files.at("dangling")).unwrap();
    symlink("loop", files.at("loop")).unwrap();
    let tree = files.scan(&ScanOptions::default());
    for (path, follow_links, message) in [
        ("/nofile", true, "\"/nofile\": not found"),
        ("a/b/../c", true, "\"/a/c\": not found"),
        ("dangling", true, "\"/dangling\": not found"),
        ("loop", true, "too many links in path `/loop`"),
    ] {
        let selector = Selector {
            path: path.to_owned(),
            follow_links,
            ..Selector::default()
        };
        let error = content_digest(&tree, &[selector]).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    let unfollowed = Selector {
        path: "dangling".to_owned(),
        ..Selector::default()
    };
    content_digest(&tree, &[unfollowed]).unwrap();
    let empty = Selector {
        path: "none*".to_owned(),
        wildcard: true,
        ..Selector::default()
    };
    let nothing = larder_oci::Digest::sha256(larder_oci::Digest::sha256("").as_str());
    assert_eq!(content_digest(&tree, &[empty]).unwrap(), nothing);
    let required = Selector {
        path: "/".to_owned(),
        include_patterns: texts(&["a", "x"]),
        required_paths: texts(&["/a", "/x"]),
        ..Selector::default()
    };
    let error = content_digest(&tree, &[required]).unwrap_err();
    assert_eq!(error.to_string(), "\"/x\": not found");
}

#[test]
fn links_lead_to_the_same_digest_as_their_targets() {
    let files = Files::new(&["real/dir/x", "real/file"]);
    symlink("real", files.at("link")).unwrap();
    symlink("/real/./dir/../dir", files.at("abs")).unwrap();
    symlink("../../../../link/file", files.at("real/up")).unwrap();
    let tree = files.scan(&ScanOptions::default());
    let digest = |path: &str, follow_links| {
        let path = path.to_owned();
        content_digest(
            &tree,
            &[Selector {
                path,
                follow_links,
                ..Selector::default()
            }],
        )
        .unwrap()
    };
    assert_eq!(digest("link", true), digest("real", true));
    assert_eq!(digest("link/dir", false), digest("real/dir", false));
    assert_eq!(digest("abs", true), digest("real/dir", true));
    assert_eq!(digest("link/up", true), digest("real/file", true));
    assert_ne!(digest("link", false), digest("real", false));
}

#[test]
fn each_counted_attribute_changes_the_digest_and_no_other_does() {
    let files = Files::new(&["dir/a", "dir/b"]);
    let digest = || whole(&files.scan(&ScanOptions::default()));
    let mut seen = vec![digest()];
    let mut changes = |what: &str| {
        let digest = digest();
        assert!(!seen.contains(&digest), "{what} does not count");
        seen.push(digest);
    };
    files.write("dir/a", "other");
    changes("content");
    fs::set_permissions(files.at("dir/a"), fs::Permissions::from_mode(0o4755)).unwrap();
    changes("mode");
    fs::set_permissions(files.at("dir"), fs::Permissions::from_mode(0o700)).unwrap();
    changes("mode of a directory");
    fs::rename(files.at("dir/b"), files.at("dir/c")).unwrap();
    changes("name");
    symlink("a", files.at("dir/link")).unwrap();
    changes("symlink");
    fs::remove_file(files.at("dir/link")).unwrap();
    symlink("c", files.at("dir/link")).unwrap();
    changes("target");
    fs::create_dir(files.at("empty")).unwrap();
    changes("empty directory");

    let before = digest();
    let file = fs::File::open(files.at("dir/a")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    fs::set_permissions(files.0.path(), fs::Permissions::from_mode(0o711)).unwrap();
    assert_eq!(digest(), before, "time, and mode of the topmost directory");
    let flags = rustix::fs::XattrFlags::empty();
    match rustix::fs::fsetxattr(&file, "user.larder", b"1", flags) {
        Err(rustix::io::Errno::NOTSUP) => println!("skipped: no extended attributes here"),
        set => {
            set.unwrap();
            assert_ne!(digest(), before, "extended attributes count");
        }
    }
}

#[test]
fn a_large_directory_is_digested_as_a_small_one() {
    let names: Vec<String> = (0..400).map(|i| format!("d{}/f{i}", i % 40)).collect();
    let files = Files::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let parallel = whole(&files.scan(&ScanOptions::default()));
    let single = rayon_of_one(|| whole(&files.scan(&ScanOptions::default())));
    assert_eq!(parallel, single);
}

fn rayon_of_one<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    pool.install(work)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The same entries, whatever the order they were made in and whatever is scanned besides.
    #[test]
    fn the_digest_depends_on_entries_alone(
        mut names in prop::collection::btree_set("[ab.]{1,2}x(/[ab-]{1,2}x){0,2}", 1..12)
            .prop_map(|names| names.into_iter().collect::<Vec<_>>()),
        seed in any::<u64>(),
    ) {
        names.retain(|name| !name.starts_with('.'));
        // A name can't be that of a file and of a directory.
        let all = names.clone();
        names.retain(|name| !all.iter().any(|other| other.starts_with(&format!("{name}/"))));
        let mut shuffled = names.clone();
        shuffled.sort_by_key(|name| name.bytes().fold(seed, |h, b| h.rotate_left(7) ^ u64::from(b)));
        let build = |names: &[String], extra: &[&str]| {
            let names = names.iter().map(|name| format!("top/{name}"));
            let names: Vec<String> = names.chain(extra.iter().map(|e| (*e).to_owned())).collect();
            Files::new(&names.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let selector = || vec![Selector { path: "/top".to_owned(), ..Selector::default() }];
        let (one, two) = (build(&names, &["top/"]), build(&shuffled, &["top/", "to", "top.", "topp/x"]));
        let one = content_digest(&one.scan(&ScanOptions::default()), &selector()).unwrap();
        let two = content_digest(&two.scan(&ScanOptions::default()), &selector()).unwrap();
        prop_assert_eq!(one, two);
    }
}

#[test]
fn a_view_shows_owners_and_lists_what_is_asked_for() {
    let files = Files::new(&["usr/bin/x", "other/y"]);
    let tree = Tree::view(files.root()).unwrap();
    let entry = tree.resolve(b"usr/bin/x", false).unwrap().unwrap();
    let owner = rustix::process::geteuid().as_raw();
    assert_eq!(entry.attributes().uid, owner);
    assert_eq!(entry.path(), Path::new("usr/bin/x"));
    assert!(tree.updated_cache().is_none());
}
