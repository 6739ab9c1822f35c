//! Hard links, whiteouts and unchanged entries in layers.

use std::collections::BTreeMap;

use larder_tree::ErrorKind;
use larder_tree::apply::LayerForm;
use larder_tree::beneath::DirAttributes;
use larder_tree::diff::{DigestWriter, LayerOptions, Style, write_layer, write_trees};
use larder_tree::tar::Kind;
use rustix::fs::FileType;

use crate::support::{TIME, Tree, has_user_xattrs, is_root, listing};

fn names(layer: &[u8]) -> Vec<String> {
    let headers = crate::support::headers(layer);
    let name = |path: &std::path::Path| path.to_str().unwrap().trim_end_matches('/').to_owned();
    headers.iter().map(|header| name(&header.path)).collect()
}

#[test]
fn unchanged_entries_are_no_changes() {
    let (lower, upper) = (Tree::new(), Tree::new());
    for tree in [&lower, &upper] {
        tree.dir("d", 0o750)
            .file("d/same", 0o600, "1")
            .symlink("d/link", "same");
        tree.dir("e", 0o755).file("e/same", 0o644, "2");
    }
    upper.file("e/new", 0o644, "3");
    for style in [Style::Overlay, Style::Tree] {
        assert_eq!(names(&upper.layer(Some(&lower), style)), ["e", "e/new"]);
    }
}

/// Something done to a tree.
type Change<'a> = &'a dyn Fn(&Tree);

#[test]
fn any_attribute_makes_a_change() {
    if !is_root() || !has_user_xattrs() {
        return;
    }
    let make = || {
        let tree = Tree::new();
        tree.dir("d", 0o755)
            .file("f", 0o644, "text")
            .symlink("l", "f");
        tree
    };
    let lower = make();
    let changes: [(&str, Change<'_>); 8] = [
        ("f", &|tree| _ = tree.file("f", 0o600, "text")),
        ("f", &|tree| _ = tree.file("f", 0o644, "Text")),
        ("f", &|tree| _ = tree.owner("f", 1, 0)),
        ("f", &|tree| _ = tree.time("f", TIME + 1)),
        ("f", &|tree| _ = tree.xattr("f", "user.a", b"1")),
        ("d", &|tree| _ = tree.owner("d", 0, 1)),
        ("d", &|tree| _ = tree.xattr("d", "user.a", b"1")),
        ("l", &|tree| {
            std::fs::remove_file(tree.path().join("l")).unwrap();
            tree.symlink("l", "g");
        }),
    ];
    for (path, change) in changes {
        let upper = make();
        change(&upper);
        for style in [Style::Overlay, Style::Tree] {
            assert_eq!(names(&upper.layer(Some(&lower), style)), [path]);
        }
    }
    let upper = make();
    upper.time("d", TIME + 1);
    assert_eq!(names(&upper.layer(Some(&lower), Style::Tree)), [""; 0]);
}

#[test]
fn whiteouts_of_what_is_not_beneath_vanish() {
    if !is_root() {
        return;
    }
    let (lower, upper) = (Tree::new(), Tree::new());
    lower
        .dir("d", 0o755)
        .dir("d/sub", 0o755)
        .file("d/sub/f", 0o644, "");
    upper.dir("d", 0o755).whiteout("d/sub").whiteout("d/never");
    let layer = upper.layer(Some(&lower), Style::Overlay);
    assert_eq!(names(&layer), ["d", "d/.wh.sub"]);
    assert_eq!(names(&upper.layer(None, Style::Overlay)), ["d"]);
}

#[test]
fn an_opaque_directory_names_what_it_hides() {
    if !is_root() {
        return;
    }
    let (lower, upper) = (Tree::new(), Tree::new());
    lower
        .dir("d", 0o755)
        .file("d/a", 0o644, "")
        .file("d/same", 0o644, "s");
    lower
        .dir("d/e", 0o755)
        .file("d/e/f", 0o644, "")
        .dir("d/gone", 0o755);
    upper
        .dir("d", 0o755)
        .file("d/same", 0o644, "s")
        .file("d/b", 0o644, "");
    upper
        .dir("d/e", 0o755)
        .whiteout("d/e/f")
        .file("d/e/g", 0o644, "");
    upper.xattr("d", "trusted.overlay.opaque", b"y");
    let layer = upper.layer(Some(&lower), Style::Overlay);
    let expect = [
        "d",
        "d/.wh.a",
        "d/b",
        "d/e",
        "d/e/.wh.f",
        "d/e/g",
        "d/.wh.gone",
    ];
    assert_eq!(names(&layer), expect);
}

#[test]
fn names_of_one_file_are_links_within_the_layer() {
    let (lower, upper) = (Tree::new(), Tree::new());
    for tree in [&lower, &upper] {
        tree.dir("d", 0o755).file("d/old", 0o644, "text");
    }
    upper.file("a", 0o644, "").dir("z", 0o755).link("z/b", "a");
    upper.link("new", "d/old");
    let links = |style| {
        let layer = upper.layer(Some(&lower), style);
        let text = listing(&layer);
        let last = |line: &str| line.splitn(6, ' ').nth(5).unwrap().to_owned();
        text.lines().map(last).collect::<Vec<_>>()
    };
    // A tree keeps the unchanged name as a link to the new one; an upper directory, where copying
    // up made both, only brings the new one.
    assert_eq!(
        links(Style::Tree),
        ["a", "new", "d", "d/old -> new", "z", "z/b -> a"]
    );
    assert_eq!(links(Style::Overlay), ["a", "new", "z", "z/b -> a"]);
}

#[test]
fn sockets_and_marks_of_overlayfs_stay_out() {
    if !is_root() || !has_user_xattrs() {
        return;
    }
    let upper = Tree::new();
    let _socket = std::os::unix::net::UnixListener::bind(upper.path().join("socket")).unwrap();
    upper
        .file("f", 0o644, "")
        .xattr("f", "user.overlay.origin", b"x");
    upper
        .xattr("f", "trusted.overlay.origin", b"x")
        .xattr("f", "user.mine", b"1");
    let layer = upper.layer(None, Style::Overlay);
    let headers = crate::support::headers(&layer);
    assert_eq!(headers.len(), 1);
    let xattrs: Vec<_> = headers[0].xattrs.keys().collect();
    assert_eq!(xattrs, [b"user.mine"]);
}

#[test]
fn features_that_layers_cannot_hold_are_refused() {
    if !is_root() {
        return;
    }
    for (mark, path) in [("redirect", "d"), ("metacopy", "f")] {
        let upper = Tree::new();
        upper.dir("d", 0o755).file("f", 0o644, "1");
        upper.xattr(path, &format!("trusted.overlay.{mark}"), b"/x");
        let options = LayerOptions::default();
        let error = write_layer(
            &upper.root(),
            None,
            Style::Overlay,
            std::io::sink(),
            &options,
        )
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(&format!("`{path}`")), "{error}");
    }
}

#[test]
fn later_times_are_clamped() {
    let tree = Tree::new();
    tree.dir("d", 0o755)
        .file("d/late", 0o644, "")
        .file("early", 0o644, "");
    tree.time("early", TIME - 10).time("d", TIME + 5);
    let options = LayerOptions {
        clamp_mtime: Some(TIME - 5),
    };
    let mut writer = DigestWriter::new(Vec::new());
    let stats = write_layer(&tree.root(), None, Style::Tree, &mut writer, &options).unwrap();
    let (layer, digest, length) = writer.finish();
    assert_eq!((stats.entries, stats.size_bytes), (3, length));
    assert_eq!(digest, larder_oci::Digest::sha256(&layer));
    let times: Vec<_> = crate::support::headers(&layer)
        .iter()
        .map(|h| h.mtime.tv_sec)
        .collect();
    assert_eq!(times, [TIME - 5, TIME - 5, TIME - 10]);
}

#[test]
fn devices_and_capabilities_survive() {
    if !is_root() {
        return;
    }
    let upper = Tree::new();
    upper.node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    upper.node("loop", FileType::BlockDevice, rustix::fs::makedev(7, 1));
    upper.file("ping", 0o755, "x");
    // Version 2, with CAP_NET_RAW permitted and effective.
    let capability = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    upper
        .xattr("ping", "security.capability", &capability)
        .owner("ping", 5, 6);
    upper.xattr("ping", "security.capability", &capability);
    let layer = upper.layer(None, Style::Overlay);
    let out = Tree::new();
    out.apply(&layer, LayerForm::Overlay);
    assert_eq!(out.found(), upper.found());
}

#[test]
fn directories_nested_beyond_all_reason_are_refused() {
    let tree = Tree::new();
    let deep = "d/".repeat(402);
    tree.root()
        .create_dir_all(&deep, DirAttributes::default())
        .unwrap();
    let options = LayerOptions::default();
    let error =
        write_layer(&tree.root(), None, Style::Tree, std::io::sink(), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    tree.root().clear().unwrap();
}

#[test]
fn trees_of_one_archive_keep_their_links_to_themselves() {
    let (one, other) = (Tree::new(), Tree::new());
    for tree in [&one, &other] {
        tree.dir("d", 0o755)
            .file("d/a", 0o644, "text")
            .link("b", "d/a");
    }
    let trees = [
        ("one".into(), Some(one.root())),
        ("empty".into(), None),
        ("other".into(), Some(other.root())),
    ];
    let mut archive = Vec::new();
    let further = BTreeMap::from([("one/further".into(), b"text".to_vec())]);
    write_trees(&trees, &further, &mut archive, &LayerOptions::default()).unwrap();
    assert_eq!(
        names(&archive),
        [
            "one",
            "one/b",
            "one/d",
            "one/d/a",
            "empty",
            "other",
            "other/b",
            "other/d",
            "other/d/a",
            "one/further"
        ]
    );
    let links = crate::support::headers(&archive)
        .into_iter()
        .filter_map(|header| match header.kind {
            Kind::HardLink(target) => Some((header.path, target)),
            _ => None,
        });
    let links: Vec<_> = links.collect();
    assert_eq!(
        links,
        [
            ("one/d/a".into(), "one/b".into()),
            ("other/d/a".into(), "other/b".into())
        ]
    );
}
