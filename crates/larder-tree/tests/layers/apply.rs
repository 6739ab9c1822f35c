//! What layers and archives become.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use larder_oci::Digest;
use larder_tree::ErrorKind;
use larder_tree::apply::{ApplyOptions, LayerForm, Ownership, apply_layer, is_archive, unpack};
use larder_tree::compression::{Compression, Encoder};
use larder_tree::tar::{Header, Kind, Xattrs};
use rustix::fs::{FileType, Timespec};

use crate::support::{TIME, Tree, archive, has_user_xattrs, is_root};

const FORMS: [LayerForm; 3] = [LayerForm::Overlay, LayerForm::OverlayUser, LayerForm::Tree];

fn file(path: &str) -> (Header, &'static [u8]) {
    (Header::file(path, 0), b"new")
}

fn dir(path: &str) -> (Header, &'static [u8]) {
    (Header::directory(path), b"")
}

fn whiteout(path: &str) -> (Header, &'static [u8]) {
    (Header::file(path, 0), b"")
}

fn paths(tree: &Tree) -> Vec<String> {
    tree.found()
        .keys()
        .map(|path| path.display().to_string())
        .collect()
}

#[test]
fn all_that_an_entry_says_is_restored() {
    if !is_root() || !has_user_xattrs() {
        return;
    }
    let mut header = Header::file("d/f", 3);
    header.mode = 0o4711;
    (header.uid, header.gid) = (1000, 1001);
    header.mtime = Timespec {
        tv_sec: TIME,
        tv_nsec: 0,
    };
    header.xattrs = Xattrs::from([(b"user.a".to_vec(), b"1".to_vec())]);
    let mut directory = Header::directory("d");
    directory.mode = 0o500;
    directory.mtime.tv_sec = TIME - 1;
    let mut link = Header::new("d/l", Kind::Symlink("/anywhere".into()), 0o777);
    (link.uid, link.mtime.tv_sec) = (7, TIME + 1);
    let layer = archive(&[(directory, b""), (header, b"abc"), (link, b"")]);
    for form in FORMS {
        let tree = Tree::new();
        let stats = tree.apply(&layer, form);
        assert_eq!(stats.diff_id, Digest::sha256(&layer));
        assert_eq!((stats.size_bytes, stats.entries), (layer.len() as u64, 3));
        assert!(stats.implied_dirs.is_empty());
        let found = tree.found();
        let at = |path: &str| &found[Path::new(path)];
        assert_eq!(at("d").mode, 0o500);
        assert_eq!(tree.path().join("d").metadata().unwrap().mtime(), TIME - 1);
        assert_eq!((at("d/f").mode, at("d/f").owner), (0o4711, (1000, 1001)));
        assert_eq!(at("d/f").mtime, Some((TIME, 0)));
        assert_eq!(at("d/f").data, b"abc");
        assert_eq!(at("d/f").xattrs["user.a"], b"1");
        assert_eq!(
            (at("d/l").owner.0, at("d/l").mtime),
            (7, Some((TIME + 1, 0)))
        );
    }
}

#[test]
fn compressed_layers_have_the_digest_of_their_plain_form() {
    // What follows the end of an archive belongs to the layer.
    let layer = [archive(&[file("f")]), vec![0; 9000]].concat();
    for compression in [Compression::gzip(), Compression::zstd()] {
        let mut encoder = Encoder::new(Vec::new(), compression, 1).unwrap();
        encoder.write_all(&layer).unwrap();
        let packed = encoder.finish().unwrap();
        let tree = Tree::new();
        let (result, _) = tree.try_apply(&packed, LayerForm::Tree);
        let stats = match result {
            Ok(stats) => stats,
            Err(_) if !is_root() => return,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(stats.diff_id, Digest::sha256(&layer));
        assert_eq!(stats.size_bytes, layer.len() as u64);
    }
}

#[test]
fn whiteouts_become_what_overlayfs_reads() {
    if !is_root() || !has_user_xattrs() {
        return;
    }
    let layer = archive(&[
        whiteout(".wh.gone"),
        dir("d"),
        whiteout("d/.wh..wh..opq"),
        file("d/f"),
    ]);
    for (form, mark) in [
        (LayerForm::Overlay, "trusted.overlay.opaque"),
        (LayerForm::OverlayUser, "user.overlay.opaque"),
    ] {
        let tree = Tree::new();
        tree.apply(&layer, form);
        let found = tree.found();
        assert_eq!(paths(&tree), ["d", "d/f", "gone"]);
        let gone = &found[Path::new("gone")];
        assert_eq!(
            (gone.kind, &gone.data[..]),
            (FileType::CharacterDevice, &b"0"[..])
        );
        assert_eq!(found[Path::new("d")].xattrs[mark], b"y");
    }
}

#[test]
fn whiteouts_remove_from_a_plain_tree() {
    if !is_root() {
        return;
    }
    let check = |entries: &[(Header, &[u8])], expect: &[&str]| {
        let tree = Tree::new();
        tree.dir("d", 0o755)
            .dir("d/sub", 0o755)
            .file("d/sub/f", 0o644, "")
            .file("d/g", 0o644, "");
        tree.file("f", 0o644, "");
        tree.apply(&archive(entries), LayerForm::Tree);
        assert_eq!(paths(&tree), expect);
    };
    check(&[whiteout(".wh.f")], &["d", "d/g", "d/sub", "d/sub/f"]);
    check(&[whiteout(".wh.d")], &["f"]);
    check(
        &[whiteout(".wh.never")],
        &["d", "d/g", "d/sub", "d/sub/f", "f"],
    );
    check(&[whiteout("d/.wh..wh..opq")], &["d", "f"]);
    check(
        &[whiteout(".wh..wh.plnk")],
        &["d", "d/g", "d/sub", "d/sub/f", "f"],
    );
    // The layer's own entries stay, whatever the order.
    check(
        &[whiteout("d/.wh..wh..opq"), file("d/new")],
        &["d", "d/new", "f"],
    );
    check(
        &[file("d/new"), whiteout("d/.wh..wh..opq")],
        &["d", "d/new", "f"],
    );
    check(
        &[file("d/sub/new"), whiteout("d/.wh..wh..opq")],
        &["d", "d/sub", "d/sub/new", "f"],
    );
    check(
        &[file("f"), whiteout(".wh.f")],
        &["d", "d/g", "d/sub", "d/sub/f", "f"],
    );
    check(
        &[dir("d"), file("d/new"), whiteout(".wh.d")],
        &["d", "d/new", "f"],
    );
}

#[test]
fn a_directory_in_place_of_a_whiteout_hides_what_is_beneath() {
    if !is_root() {
        return;
    }
    let mark = "trusted.overlay.opaque";
    for (entries, is_opaque) in [
        ([whiteout(".wh.d"), dir("d")], true),
        ([dir("d"), whiteout(".wh.d")], true),
        ([file("d"), dir("d")], true),
        ([dir("d"), dir("d")], false),
    ] {
        let tree = Tree::new();
        tree.apply(&archive(&entries), LayerForm::Overlay);
        let found = tree.found();
        assert_eq!(paths(&tree), ["d"]);
        assert_eq!(found[Path::new("d")].kind, FileType::Directory);
        assert_eq!(found[Path::new("d")].xattrs.contains_key(mark), is_opaque);
    }
}

#[test]
fn entries_replace_what_is_in_their_way() {
    if !is_root() {
        return;
    }
    let tree = Tree::new();
    tree.dir("d", 0o755)
        .file("d/old", 0o644, "")
        .file("f", 0o600, "old")
        .symlink("l", "f");
    tree.dir("merged", 0o700).file("merged/old", 0o644, "");
    let layer = archive(&[
        file("d"),
        dir("f"),
        file("f/inner"),
        file("l"),
        dir("merged"),
        file("merged/new"),
    ]);
    tree.apply(&layer, LayerForm::Tree);
    assert_eq!(
        paths(&tree),
        [
            "d",
            "f",
            "f/inner",
            "l",
            "merged",
            "merged/new",
            "merged/old"
        ]
    );
    let found = tree.found();
    assert_eq!(found[Path::new("merged")].mode, 0o755);
    assert_eq!(found[Path::new("l")].kind, FileType::RegularFile);
}

#[test]
fn directories_made_through_a_link_outlive_it() {
    if !is_root() {
        return;
    }
    let mut made = Header::directory("l/d");
    (made.mode, made.mtime.tv_sec) = (0o500, TIME);
    let link = (
        Header::new("l", Kind::Symlink("real".into()), 0o777),
        &b""[..],
    );
    let layer = archive(&[dir("real"), link, (made, b""), file("l")]);
    for form in FORMS {
        let tree = Tree::new();
        tree.apply(&layer, form);
        assert_eq!(paths(&tree), ["l", "real", "real/d"]);
        assert_eq!(tree.found()[Path::new("real/d")].mode, 0o500);
        let time = tree.path().join("real/d").metadata().unwrap().mtime();
        assert_eq!(time, TIME);
    }
}

#[test]
fn missing_parents_are_made_and_told() {
    if !is_root() {
        return;
    }
    let lower = Tree::new();
    lower.dir("a", 0o1777).owner("a", 5, 6).time("a", TIME);
    let layer = archive(&[file("a/b/f"), file("a/b/g")]);
    for lower in [None, Some(&lower)] {
        let tree = Tree::new();
        let lower = lower.map(Tree::root);
        let mut ignore = |_| {};
        let mut options = ApplyOptions::new(&mut ignore);
        options.lower = lower.as_ref();
        let root = tree.root();
        let stats = apply_layer(&root, layer.as_slice(), LayerForm::Overlay, options).unwrap();
        assert_eq!(
            stats.implied_dirs,
            [PathBuf::from("a"), PathBuf::from("a/b")]
        );
        let found = tree.found();
        let a = &found[Path::new("a")];
        let time = tree.path().join("a").metadata().unwrap().mtime();
        let expect = match lower {
            Some(_) => (0o1777, (5, 6), TIME),
            None => (0o755, (0, 0), 0),
        };
        assert_eq!((a.mode, a.owner, time), expect);
        assert_eq!(found[Path::new("a/b")].mode, 0o755);
    }
}

#[test]
fn hard_links_and_holes_are_kept() {
    let (tree, packed) = (Tree::new(), Tree::new());
    packed.file("a", 0o644, "text").link("b", "a");
    let sparse = std::fs::File::create(packed.path().join("sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    if !is_root() || !crate::support::has("tar") {
        return;
    }
    let args = ["-c", "-S", "a", "b", "sparse"].map(std::ffi::OsStr::new);
    let archive = crate::support::run(packed.path(), "tar", &args, b"");
    tree.apply(&archive, LayerForm::Tree);
    let metadata = |name: &str| tree.path().join(name).metadata().unwrap();
    assert_eq!(metadata("a").ino(), metadata("b").ino());
    assert_eq!(metadata("sparse").len(), 8 << 20);
    assert_eq!(metadata("sparse").blocks(), 0);
}

#[test]
fn unpacking_leaves_whiteouts_as_files_and_gives_owners() {
    if !is_root() {
        return;
    }
    let layer = archive(&[file(".wh.f"), file("f"), dir("."), file("x/y")]);
    let tree = Tree::new();
    tree.file("f", 0o644, "old").file("other", 0o644, "");
    let mut ignore = |_| {};
    let mut options = ApplyOptions::new(&mut ignore);
    options.ownership = Ownership::Fixed(8, 9);
    let root = tree.root();
    let stats = unpack(&root, layer.as_slice(), options).unwrap();
    assert_eq!((stats.entries, stats.size_bytes), (4, layer.len() as u64));
    assert_eq!(paths(&tree), [".wh.f", "f", "other", "x", "x/y"]);
    let found = tree.found();
    for path in [".wh.f", "f", "x", "x/y"] {
        assert_eq!(found[Path::new(path)].owner, (8, 9), "{path}");
    }
    assert_eq!(found[Path::new("other")].owner, (0, 0));
}

#[test]
fn archives_are_told_from_other_files() {
    let packed = archive(&[file("f")]);
    assert!(is_archive(packed.as_slice()).unwrap());
    assert!(is_archive(include_bytes!("../golden/pack.tar.gz").as_slice()).unwrap());
    for other in [
        &b""[..],
        b"text",
        &[0; 2048],
        &[b'x'; 2048],
        b"\x1f\x8b\x08broken",
        b"BZh9",
    ] {
        assert!(!is_archive(other).unwrap(), "{other:?}");
    }
}

#[test]
fn archives_beyond_the_limit_are_refused() {
    let zeros = vec![0; 1 << 20];
    let layer = archive(&[(Header::file("zeros", 0), &zeros)]);
    let tree = Tree::new();
    let mut ignore = |_| {};
    let mut options = ApplyOptions::new(&mut ignore);
    options.max_bytes = 1 << 19;
    let root = tree.root();
    let error = apply_layer(&root, layer.as_slice(), LayerForm::Tree, options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
}
