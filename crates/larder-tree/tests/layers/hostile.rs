//! Archives that try to get out, or to pass for what they aren't.

use std::path::Path;

use larder_tree::ErrorKind;
use larder_tree::apply::{LayerForm, Warning};
use larder_tree::tar::{Header, Kind, Xattrs};

use crate::support::{Tree, archive, has_user_xattrs, is_root};

type Entry = (Header, &'static [u8]);

fn file(path: &str) -> Entry {
    (Header::file(path, 0), b"evil")
}

fn symlink(path: &str, target: impl AsRef<Path>) -> Entry {
    let target = target.as_ref().to_owned();
    (Header::new(path, Kind::Symlink(target), 0o777), b"")
}

fn link(path: &str, target: &str) -> Entry {
    (Header::new(path, Kind::HardLink(target.into()), 0o644), b"")
}

fn dir(path: &str) -> Entry {
    (Header::directory(path), b"")
}

/// A tree that nothing may touch.
fn outside() -> Tree {
    let tree = Tree::new();
    tree.dir("d", 0o700).file("d/secret", 0o600, "secret");
    tree
}

#[test]
fn names_that_leave_the_root_are_errors() {
    for (entries, name) in [
        (vec![file("../x")], "../x"),
        (vec![file("a/../../x")], "a/../../x"),
        (vec![dir("..")], "../"),
        (vec![file("/../x")], "/../x"),
        (vec![file("../.wh.x")], "../.wh.x"),
        (vec![symlink("../x", "y")], "../x"),
        (vec![file("f"), link("l", "../f")], "../f"),
        (vec![file("f"), link("l", "a/../../f")], "a/../../f"),
    ] {
        let tree = Tree::new();
        let (result, _) = tree.try_apply(&archive(&entries), LayerForm::Tree);
        if !is_root() {
            return;
        }
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Escape, "{error}");
        let expect = format!("entry `{name}` leaves the root");
        assert!(error.to_string().ends_with(&expect), "{error}");
    }
}

#[test]
fn nothing_outside_is_touched() {
    if !is_root() {
        return;
    }
    let outside = outside();
    let before = outside.found();
    let to = |path: &str| outside.path().join(path);
    let secret = to("d/secret");
    let secret_name = secret.to_str().unwrap();
    let cases: Vec<(Vec<Entry>, bool)> = vec![
        (vec![file(secret_name)], true),
        (vec![symlink("l", to("d")), file("l/secret")], true),
        (vec![symlink("l", to("d")), file("l/new")], true),
        (vec![symlink("l", &secret), file("l")], true),
        (vec![symlink("l", to("d")), dir("l")], true),
        (
            vec![symlink("l", "../../../../../.."), file("l/etc/evil")],
            true,
        ),
        (vec![symlink("l", to("d")), file("l/.wh.secret")], true),
        (vec![symlink("l", to("d")), file("l/.wh..wh..opq")], true),
        (vec![symlink("l", &secret), link("m", "l")], true),
        (vec![symlink("l", to("d")), link("m", "l/secret")], false),
        (vec![link("m", secret_name)], false),
        (
            vec![symlink("l", to("d")), symlink("l/x", "y"), file("l/x/z")],
            true,
        ),
    ];
    for (entries, is_fine) in cases {
        for form in [LayerForm::Overlay, LayerForm::Tree] {
            let tree = Tree::new();
            let (result, _) = tree.try_apply(&archive(&entries), form);
            match &result {
                Ok(_) => assert!(is_fine, "{entries:?}"),
                Err(error) => {
                    assert!(!is_fine, "{entries:?}: {error}");
                    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
                }
            }
            assert_eq!(outside.found(), before, "{entries:?}");
        }
    }
    assert!(!Path::new("/etc/evil").exists());
}

#[test]
fn absolute_names_are_relative_to_the_root() {
    if !is_root() {
        return;
    }
    let tree = Tree::new();
    let layer = archive(&[file("/a/f"), link("//b", "/a/f"), file("./c//../d")]);
    tree.apply(&layer, LayerForm::Tree);
    let found = tree.found();
    let paths: Vec<_> = found.keys().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(paths, ["a", "a/f", "b", "d"]);
}

#[test]
fn marks_of_overlayfs_are_not_taken_from_archives() {
    if !is_root() || !has_user_xattrs() {
        return;
    }
    let mut header = Header::directory("d");
    header.xattrs = [
        "trusted.overlay.redirect",
        "user.overlay.redirect",
        "trusted.overlay.opaque",
        "security.selinux",
        "system.posix_acl_access",
        "user.fine",
    ]
    .map(|name| (name.as_bytes().to_vec(), b"x".to_vec()))
    .into_iter()
    .collect::<Xattrs>();
    for form in [LayerForm::Overlay, LayerForm::OverlayUser, LayerForm::Tree] {
        let tree = Tree::new();
        tree.apply(&archive(&[(header.clone(), b"")]), form);
        let found = tree.found();
        let names: Vec<_> = found[Path::new("d")].xattrs.keys().collect();
        assert_eq!(names, ["user.fine"]);
    }
}

#[test]
fn a_device_that_means_a_whiteout_is_left_out() {
    if !is_root() {
        return;
    }
    let header = Header::new("c", Kind::CharDevice(0, 0), 0o644);
    let layer = archive(&[(header, b"")]);
    let tree = Tree::new();
    let (result, warnings) = tree.try_apply(&layer, LayerForm::Overlay);
    assert_eq!(result.unwrap().entries, 1);
    assert_eq!(warnings, [Warning::WhiteoutDevice("c".into())]);
    assert_eq!(tree.found().len(), 0);
}

#[test]
fn malformed_entries_are_errors_that_name_them() {
    if !is_root() {
        return;
    }
    for (entries, name) in [
        (vec![file("d/.wh.")], "d/.wh."),
        (vec![file(".wh..")], ".wh.."),
        (vec![file(".wh...")], ".wh..."),
        (vec![link("l", "missing")], "missing"),
        (vec![dir("d"), link("l", "d")], "`d`"),
        (vec![link("l", "/")], "`/`"),
        (vec![file("f"), file("f/below")], "f/below"),
    ] {
        let (result, _) = Tree::new().try_apply(&archive(&entries), LayerForm::Overlay);
        let error = result.unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn truncated_layers_are_errors() {
    if !is_root() {
        return;
    }
    let layer = archive(&[dir("d"), file("d/f"), file("g")]);
    for length in [100, 700, 1100, 1540, 2100] {
        let (result, _) = Tree::new().try_apply(&layer[..length], LayerForm::Tree);
        assert_eq!(
            result.unwrap_err().kind(),
            ErrorKind::InvalidInput,
            "{length}"
        );
    }
}
