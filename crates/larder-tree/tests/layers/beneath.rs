//! Paths beneath a directory handle.

use std::path::{Path, PathBuf};

use larder_tree::ErrorKind;
use larder_tree::beneath::{DirAttributes, Root};
use rustix::fs::{Mode, OFlags, Timespec};

use crate::support::{TIME, Tree, is_root};

/// A tree with links of every kind; what they seem to lead to lies beside it.
fn linked() -> (Tree, Tree) {
    let (tree, outside) = (Tree::new(), Tree::new());
    outside.file("secret", 0o644, "secret");
    tree.dir("a", 0o755)
        .dir("a/b", 0o755)
        .file("a/b/f", 0o644, "inside");
    tree.symlink("relative", "a/b")
        .symlink("absolute", "/a/b")
        .symlink("up", "../../../..");
    tree.symlink("out", outside.path())
        .symlink("loop", "loop")
        .symlink("dangling", "nowhere/x");
    tree.symlink("a/back", "../relative/f");
    (tree, outside)
}

#[test]
fn paths_resolve_as_inside_a_root_directory() {
    let (tree, outside) = linked();
    let root = tree.root();
    let outside = outside
        .path()
        .strip_prefix("/")
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let check = |path: &str, expect: &str| {
        assert_eq!(root.resolve(path).unwrap(), PathBuf::from(expect), "{path}");
    };
    check("", "");
    check("/", "");
    check("..", "");
    check("a/./b/../b/f", "a/b/f");
    check("relative/f", "a/b/f");
    check("/absolute/f", "a/b/f");
    check("a/back", "a/b/f");
    check("up/a", "a");
    check("up/up/../relative", "a/b");
    check("out", &outside);
    check("out/secret", &format!("{outside}/secret"));
    check("dangling/y", "nowhere/x/y");
    check("missing/x/../y", "missing/y");
    check("a/b/f/below", "a/b/f/below");
    assert!(root.resolve("loop").is_err());
}

#[test]
fn opening_never_leaves_the_root() {
    let (tree, outside) = linked();
    let root = tree.root();
    let open = |path: &str| root.open_file(path, OFlags::RDONLY, Mode::empty());
    for path in [
        "a/b/f",
        "relative/f",
        "/absolute/f",
        "up/a/b/f",
        "../../a/b/f",
        "a/back",
    ] {
        assert!(open(path).is_ok(), "{path}");
    }
    let direct = outside.path().join("secret");
    for path in [
        "out/secret",
        direct.to_str().unwrap(),
        "up/etc/passwd",
        "/proc/self/exe",
    ] {
        assert_eq!(
            open(path).unwrap_err().kind(),
            ErrorKind::NotFound,
            "{path}"
        );
    }
    assert_eq!(open("loop").unwrap_err().kind(), ErrorKind::Io);
    let (_, name) = root.parent_of("relative/new").unwrap();
    assert_eq!(name, "new");
    for path in ["", "/", "a/.."] {
        assert_eq!(
            root.parent_of(path).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
    }
    assert_eq!(root.read_link("out").unwrap(), outside.path());
    assert!(root.subtree("a/b").unwrap().open_path("../f").is_ok());
    assert!(root.metadata("relative").unwrap().st_mode & 0o170_000 == 0o040_000);
    assert!(root.symlink_metadata("relative").unwrap().st_mode & 0o170_000 == 0o120_000);
}

#[test]
fn directories_are_created_through_links_inside() {
    let (tree, outside) = linked();
    let root = tree.root();
    let time = Timespec {
        tv_sec: TIME,
        tv_nsec: 7,
    };
    let attributes = DirAttributes {
        mode: 0o2711,
        owner: is_root().then_some((3, 4)),
        time: Some(time),
    };
    let created = root
        .create_dir_all("relative/x/y", attributes)
        .unwrap()
        .created;
    assert_eq!(created, [PathBuf::from("a/b/x"), PathBuf::from("a/b/x/y")]);
    for path in ["a/b/x", "a/b/x/y"] {
        let stat = root.metadata(path).unwrap();
        assert_eq!(stat.st_mode & 0o7777, 0o2711);
        assert_eq!((stat.st_mtime, stat.st_mtime_nsec), (TIME, 7), "{path}");
        if is_root() {
            assert_eq!((stat.st_uid, stat.st_gid), (3, 4));
        }
    }
    assert!(
        root.create_dir_all("a/b", attributes)
            .unwrap()
            .created
            .is_empty()
    );
    assert!(root.create_dir_all("a/b/f/x", attributes).is_err());
    let created = root
        .create_dir_all("dangling", DirAttributes::default())
        .unwrap()
        .created;
    assert_eq!(
        created,
        [PathBuf::from("nowhere"), PathBuf::from("nowhere/x")]
    );
    root.create_dir_all("out/new", DirAttributes::default())
        .unwrap();
    assert!(!outside.path().join("new").exists());
}

#[test]
fn removal_follows_no_links() {
    let (tree, outside) = linked();
    let root = tree.root();
    assert!(root.remove_all("out").unwrap());
    assert!(root.remove_all("a").unwrap());
    assert!(!root.remove_all("a").unwrap());
    assert!(!root.remove_all("a/b/c").unwrap());
    assert!(outside.path().join("secret").exists());
    root.clear().unwrap();
    assert_eq!(tree.found().len(), 0);
}

#[test]
fn trees_of_any_depth_are_removed() {
    let tree = Tree::new();
    let root = tree.root();
    let mut at = root.try_clone().unwrap();
    for level in 0..2000 {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        if level % 100 == 0 {
            rustix::fs::mkdirat(&at, "e", Mode::empty()).unwrap();
        }
        at = at.subtree("d").unwrap();
    }
    assert!(root.remove_all("d").unwrap());
    root.clear().unwrap();
    assert_eq!(tree.found().len(), 0);
}

#[test]
fn a_missing_root_is_told() {
    let error = Root::open(Path::new("/nonexistent/larder")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!error.to_string().contains("nonexistent"));
}
