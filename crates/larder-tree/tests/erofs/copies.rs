//! File operations upon a tree: what an image of the changes shows equals what an overlay's upper
//! directory shows, and makes the same layer.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use larder_tree::Result;
use larder_tree::beneath::Root;
use larder_tree::context::{ScanOptions, StatCache, Tree, scan};
use larder_tree::copy::{
    CopyOptions, FileAttributes, MkdirOptions, ModeChange, copy, mkdir, mkfile, remove,
    symlink as make_link,
};
use larder_tree::diff::Style;
use larder_tree::erofs::Image;
use larder_tree::sink::Sink;
use larder_tree::tar::{Header, Reader};
use proptest::prelude::*;
use rustix::fs::{CWD, Gid, Timespec, Timestamps, Uid, XattrFlags};

use crate::support::{
    Found, TIME, TestImage, assert_same, assert_same_layers, can_mount, check, found, lower_of,
    mount_overlay, packed, unpacked_image,
};

/// Times from here on are those of the test.
pub(crate) const RECENT: i64 = 1_750_000_000;

/// One file operation.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Copy(CopyOptions),
    Mkdir(&'static str, MkdirOptions),
    Mkfile(&'static str, &'static str),
    Symlink(&'static str, &'static str),
    Remove(&'static str),
}

impl Op {
    pub(crate) fn run(&self, sink: &impl Sink, source: &Tree) -> Result<()> {
        let attributes = FileAttributes {
            owner: Some((3, 4)),
            timestamp: Some(TIME * 1_000_000_000 + 5),
        };
        match self {
            Self::Copy(options) => copy(source, sink, options).map(drop),
            Self::Mkdir(path, options) => mkdir(sink, path, options),
            Self::Mkfile(path, text) => mkfile(sink, path, 0o640, text.as_bytes(), attributes),
            Self::Symlink(target, path) => make_link(sink, target, path, attributes),
            Self::Remove(path) => remove(sink, path, false, true),
        }
    }
}

/// COPY as the Dockerfile frontend has it.
fn dockerfile(src: &str, dest: &str) -> CopyOptions {
    CopyOptions {
        src: src.to_owned(),
        dest: dest.to_owned(),
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..CopyOptions::default()
    }
}

fn parents(make_parents: bool) -> MkdirOptions {
    MkdirOptions {
        mode: 0o750,
        make_parents,
        ..MkdirOptions::default()
    }
}

/// Gives all beneath `base` the usual time, and tells what it is.
fn settle(base: &Path) -> PathBuf {
    let mut paths: Vec<PathBuf> = found(base).into_keys().collect();
    paths.push(PathBuf::new());
    for path in paths {
        let time = Timespec {
            tv_sec: TIME,
            tv_nsec: 7,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(CWD, base.join(path), &times, flags).unwrap();
    }
    base.to_owned()
}

/// What lies beneath: directories with attributes of their own, links in and out, files.
pub(crate) fn make_lower(base: &Path) -> PathBuf {
    for dir in ["app/sub/deep", "usr/bin", "data", "real/inner"] {
        fs::create_dir_all(base.join(dir)).unwrap();
    }
    for file in [
        "app/old",
        "app/sub/x",
        "usr/bin/tool",
        "data/a.log",
        "data/b.log",
        "file",
    ] {
        fs::write(base.join(file), file).unwrap();
    }
    symlink("usr/bin", base.join("bin")).unwrap();
    symlink("/real", base.join("link")).unwrap();
    symlink("../../../../outside", base.join("out")).unwrap();
    symlink("nowhere", base.join("dangling")).unwrap();
    symlink("file", base.join("app/to-file")).unwrap();
    fs::hard_link(base.join("file"), base.join("again")).unwrap();
    fs::set_permissions(base.join("app"), PermissionsExt::from_mode(0o1770)).unwrap();
    // What is made here belongs to its group.
    let owner = (Some(Uid::from_raw(5)), Some(Gid::from_raw(77)));
    rustix::fs::chown(base.join("data"), owner.0, owner.1).unwrap();
    fs::set_permissions(base.join("data"), PermissionsExt::from_mode(0o2755)).unwrap();
    let owner = (Some(Uid::from_raw(5)), Some(Gid::from_raw(70_000)));
    rustix::fs::chown(base.join("app/sub"), owner.0, owner.1).unwrap();
    rustix::fs::setxattr(base.join("app/sub"), "user.kept", b"1", XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(base, "user.root", b"2", XattrFlags::empty()).unwrap();
    settle(base)
}

pub(crate) fn make_source(base: &Path) -> Tree {
    for dir in ["src/lib", "app/sub", "empty", "file"] {
        fs::create_dir_all(base.join(dir)).unwrap();
    }
    for (file, length) in [
        ("a.txt", 6),
        ("src/main.py", 10),
        ("src/lib/data", 300_000),
        ("src/lib/util", 4096),
        ("app/old", 3),
        ("app/sub/x", 5000),
        ("app/sub/new", 0),
        ("file/inner", 1),
    ] {
        fs::write(base.join(file), "z".repeat(length)).unwrap();
    }
    fs::hard_link(base.join("src/main.py"), base.join("src/again")).unwrap();
    symlink("main.py", base.join("src/link")).unwrap();
    let sparse = fs::File::create(base.join("src/sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", (1 << 20) - 3000).unwrap();
    rustix::fs::setxattr(base.join("a.txt"), "user.mark", b"3", XattrFlags::empty()).unwrap();
    settle(base);
    scan(
        Root::open(base).unwrap(),
        &ScanOptions::default(),
        StatCache::default(),
    )
    .unwrap()
}

/// Runs the operations in both forms; they must fail the same, or show the same.
fn compare(ops: &[Op]) -> std::result::Result<BTreeMap<PathBuf, Found>, String> {
    let dir = tempfile::tempdir().unwrap();
    let sub = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let lower = make_lower(&sub("lower"));
    let source = make_source(&sub("source"));

    let (upper, work) = (sub("upper"), sub("work"));
    let writable = mount_overlay(&[&lower], Some([&upper, &work]), &sub("merged"));
    let root = Root::open(writable.path()).unwrap();
    let expected: Result<()> = ops.iter().try_for_each(|op| op.run(&root, &source));
    drop(root);

    let test = TestImage::new();
    let now = Timespec {
        tv_sec: RECENT + 1,
        tv_nsec: 0,
    };
    let image = Image::upon(test.file(), lower_of(&lower), now).unwrap();
    let made: Result<()> = ops.iter().try_for_each(|op| op.run(&image, &source));
    match (made, expected) {
        (Ok(()), Ok(())) => {}
        (Err(made), Err(expected)) => {
            assert_eq!(made.to_string(), expected.to_string());
            return Err(made.to_string());
        }
        (made, expected) => panic!("image: {made:?}, directory: {expected:?}"),
    }
    image.finish().unwrap();
    check(&test.path());
    let mounted = test.mount_unchecked();
    let merged = mount_overlay(&[mounted.path(), &lower], None, &sub("seen"));
    let seen = normal(found(merged.path()));
    assert_same(&seen, &normal(found(writable.path())));
    assert_eq!(layer(mounted.path(), &lower), layer(&upper, &lower));
    assert_same_layers(&test.path(), mounted.path(), Some(&lower));
    assert_same(&unpacked_image(&test.path()), &found(mounted.path()));
    Ok(seen)
}

/// Makes all recent times the same.
pub(crate) fn normal(mut found: BTreeMap<PathBuf, Found>) -> BTreeMap<PathBuf, Found> {
    for entry in found.values_mut() {
        if entry.mtime.is_some_and(|(seconds, _)| seconds >= RECENT) {
            entry.mtime = Some((RECENT, 0));
        }
    }
    found
}

/// Returns the entries of the layer of what `upper` changes.
pub(crate) fn layer(upper: &Path, lower: &Path) -> Vec<Header> {
    let (upper, lower) = (Root::open(upper).unwrap(), Root::open(lower).unwrap());
    entries(&packed(&upper, Some(&lower), Style::Overlay).unwrap())
}

/// Returns the entries of a layer, with all recent times the same.
pub(crate) fn entries(packed: &[u8]) -> Vec<Header> {
    let mut reader = Reader::new(packed);
    let mut headers = Vec::new();
    while let Some(mut header) = reader.next_entry().unwrap() {
        header.mtime.tv_sec = header.mtime.tv_sec.min(RECENT);
        headers.push(header);
    }
    headers
}

#[test]
fn operations_make_of_an_image_what_they_make_of_a_directory() {
    if !can_mount() {
        return;
    }
    for ops in steps_to_tell() {
        if let Err(error) = compare(&ops) {
            assert!(!error.is_empty(), "{ops:?}");
        }
    }
}

/// Operations that tell much, a list for each tree.
pub(crate) fn steps_to_tell() -> Vec<Vec<Op>> {
    let replacing = |src: &str, dest: &str| CopyOptions {
        always_replace_existing_dest_paths: true,
        ..dockerfile(src, dest)
    };
    vec![
        vec![Op::Copy(dockerfile("/a.txt", "/new/dir/"))],
        vec![Op::Copy(dockerfile("/a.txt", "/app/sub/"))],
        vec![Op::Copy(dockerfile("/a.txt", "/app/sub/x"))],
        vec![Op::Copy(dockerfile("/", "/"))],
        vec![Op::Copy(dockerfile("/app", "/app"))],
        vec![Op::Copy(dockerfile("/src", "/link/x/"))],
        vec![Op::Copy(dockerfile("/src", "/bin"))],
        vec![Op::Copy(dockerfile("/a.txt", "/out"))],
        vec![Op::Copy(dockerfile("/a.txt", "/out/x"))],
        vec![Op::Copy(dockerfile("/a.txt", "/dangling"))],
        vec![Op::Copy(dockerfile("/a.txt", "/app/to-file"))],
        vec![Op::Copy(dockerfile("/empty", "/app/old"))],
        vec![Op::Copy(dockerfile("/file", "/"))],
        vec![Op::Copy(replacing("/", "/"))],
        vec![
            Op::Copy(replacing("/a.txt", "/app")),
            Op::Copy(dockerfile("/src", "/x")),
        ],
        vec![Op::Copy(CopyOptions {
            owner: Some((70_000, 2)),
            mode: Some(ModeChange::octal(0o4711)),
            timestamp: Some(1_000_000_001),
            ..dockerfile("/src", "/app/sub/copy/")
        })],
        vec![Op::Mkdir("/app/sub/made", parents(false))],
        vec![Op::Mkdir("/no/such/dir", parents(false))],
        vec![
            Op::Mkdir("/link/a/b", parents(true)),
            Op::Mkdir("/link/a/b/c", parents(false)),
        ],
        vec![
            Op::Mkfile("/app/old", "changed"),
            Op::Mkfile("/bin/other", ""),
        ],
        vec![Op::Mkfile("/app", "no"), Op::Mkfile("/x", "y")],
        vec![Op::Mkfile("/out", "through the link")],
        vec![
            Op::Symlink("/anywhere", "/app/sub/l"),
            Op::Symlink("again", "/app/sub/l"),
        ],
        vec![Op::Remove("/app/sub/x"), Op::Remove("/file")],
        vec![
            Op::Remove("/app"),
            Op::Mkdir("/app", parents(false)),
            Op::Mkfile("/app/n", "1"),
        ],
        vec![Op::Remove("/app/sub"), Op::Mkfile("/app/sub", "file")],
        vec![Op::Remove("/link"), Op::Mkdir("/link", parents(false))],
        vec![
            Op::Mkfile("/app/n", "1"),
            Op::Remove("/app/n"),
            Op::Remove("/app/n"),
        ],
        vec![
            Op::Remove("/data/*.log"),
            Op::Remove("/bin/t*"),
            Op::Remove("/none*"),
        ],
        vec![Op::Remove("/a*"), Op::Copy(dockerfile("/app", "/app/"))],
        vec![Op::Remove("/"), Op::Remove("/none")],
    ]
}

#[test]
fn nothing_is_copied_up_that_does_not_change() {
    if !can_mount() {
        return;
    }
    let test = TestImage::new();
    let dir = tempfile::tempdir().unwrap();
    let lower = make_lower(dir.path());
    let now = Timespec::default();
    let image = Image::upon(test.file(), lower_of(&lower), now).unwrap();
    assert!(!image.touches("/app/sub/x"));
    mkfile(
        &image,
        "/app/sub/new",
        0o600,
        b"",
        FileAttributes::default(),
    )
    .unwrap();
    assert!(!image.touches("/app/sub/x"));
    assert!(!image.touches("/usr/bin/none"));
    assert!(image.touches("/app/sub/new"));
    remove(&image, "/app/sub/x", false, false).unwrap();
    assert!(image.touches("/app/sub/x"));
    let _ = remove(&image, "/usr/bin/none", true, false);
    image.finish().unwrap();
    let mounted = test.mount();
    let paths: Vec<PathBuf> = found(mounted.path()).into_keys().collect();
    let expected = ["app", "app/sub", "app/sub/new", "app/sub/x"].map(PathBuf::from);
    assert_eq!(paths, expected);
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let paths = [
        "/app",
        "/app/sub",
        "/app/old",
        "/app/sub/x",
        "/link/inner",
        "/bin",
        "/bin/tool",
        "/new",
        "/new/a",
        "/file",
        "/file/inner",
        "/data/",
        "/src",
        "/out",
        "/app/to-file",
        "/link",
    ];
    let path = || prop::sample::select(paths.to_vec());
    let sources = [
        "/a.txt",
        "/src",
        "/app",
        "/file",
        "/empty",
        "/",
        "/src/*",
        "/src/sparse",
    ];
    let source = prop::sample::select(sources.to_vec());
    prop_oneof![
        4 => (source, path(), any::<(bool, bool, bool)>()).prop_map(|(src, dest, flags)| {
            Op::Copy(CopyOptions {
                always_replace_existing_dest_paths: flags.0,
                dir_copy_contents: flags.1,
                owner: flags.2.then_some((9, 9)),
                ..dockerfile(src, dest)
            })
        }),
        1 => (path(), any::<bool>()).prop_map(|(path, all)| Op::Mkdir(path, parents(all))),
        2 => path().prop_map(|path| Op::Mkfile(path, "text")),
        1 => (path(), path()).prop_map(|(target, path)| Op::Symlink(target, path)),
        3 => path().prop_map(Op::Remove),
        1 => prop::sample::select(vec!["/*", "/app/*", "/*/*"]).prop_map(Op::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 25, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_operations_make_the_same_of_both(ops in prop::collection::vec(op(), 1..7)) {
        if can_mount() {
            // The longest beginning that is no error.
            let mut ops = &ops[..];
            while compare(ops).is_err() {
                ops = &ops[..ops.len() - 1];
            }
        }
    }
}
