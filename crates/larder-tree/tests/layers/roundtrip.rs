//! `diff` and then `apply` is identity, on random trees.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use larder_tree::apply::LayerForm;
use larder_tree::diff::Style;
use proptest::prelude::*;
use rustix::fs::FileType;

use crate::support::{Found, TIME, Tree, is_root};

/// What stands at a path of a tree.
#[derive(Debug, Clone, PartialEq)]
enum Spec {
    Dir {
        mode: u32,
    },
    File {
        mode: u32,
        text: String,
        time: i64,
        owner: u32,
    },
    Symlink(String),
    Fifo,
}

/// Paths to what they hold. What lies beneath anything but a directory is left out when built.
type Model = BTreeMap<PathBuf, Spec>;

fn any_path() -> impl Strategy<Value = PathBuf> {
    let name = prop::sample::select(vec!["a", "b", "b.c", "ü", "long name", "\u{1}x"]);
    prop::collection::vec(name, 1..4).prop_map(|parts| parts.iter().collect())
}

fn any_spec() -> impl Strategy<Value = Spec> {
    let mode = prop::sample::select(vec![0o644, 0o755, 0o4755, 0o600, 0o1777, 0]);
    let dir_mode = prop::sample::select(vec![0o755, 0o700, 0o2775, 0o1777, 0o500]);
    let file =
        (mode, "[a-c]{0,3}", 0..3_i64, 0..3_u32).prop_map(|(mode, text, time, owner)| Spec::File {
            mode,
            text,
            time: TIME + time,
            owner,
        });
    prop_oneof![
        4 => dir_mode.prop_map(|mode| Spec::Dir { mode }),
        6 => file,
        1 => "[a-c]{1,2}".prop_map(Spec::Symlink),
        1 => Just(Spec::Fifo),
    ]
}

fn any_model() -> impl Strategy<Value = Model> {
    prop::collection::btree_map(any_path(), any_spec(), 0..16)
}

/// A tree, and the same with some paths set or removed.
fn any_change() -> impl Strategy<Value = (Model, Model)> {
    let edit = (any_path(), prop::option::of(any_spec()));
    (any_model(), prop::collection::vec(edit, 0..10)).prop_map(|(lower, edits)| {
        let mut upper = lower.clone();
        for (path, spec) in edits {
            match spec {
                Some(spec) => drop(upper.insert(path, spec)),
                None => upper.retain(|other, _| !other.starts_with(&path)),
            }
        }
        (lower, upper)
    })
}

fn build(model: &Model) -> Tree {
    let tree = Tree::new();
    let mut dirs = BTreeSet::from([PathBuf::new()]);
    for (path, spec) in model {
        if !dirs.contains(path.parent().unwrap()) {
            continue;
        }
        if matches!(spec, Spec::Dir { .. }) {
            dirs.insert(path.clone());
        }
        match spec {
            Spec::Dir { mode } => tree.dir(path, *mode),
            Spec::File {
                mode,
                text,
                time,
                owner,
            } => {
                tree.file(path, *mode, text).owner(path, *owner, *owner);
                let at = tree.path().join(path);
                let mode = std::os::unix::fs::PermissionsExt::from_mode(*mode);
                std::fs::set_permissions(at, mode).unwrap();
                tree.time(path, *time)
            }
            Spec::Symlink(target) => tree.symlink(path, target),
            Spec::Fifo => tree.node(path, FileType::Fifo, 0),
        };
    }
    tree
}

/// Applies a directory of an overlay by what overlayfs' marks in it mean.
fn merged(lower: &Tree, layer: &Tree) -> BTreeMap<PathBuf, Found> {
    let mut merged = lower.found();
    for (path, mut found) in layer.found() {
        let is_whiteout = found.kind == FileType::CharacterDevice && found.data == b"0";
        let is_opaque = found.xattrs.remove("trusted.overlay.opaque").is_some();
        let is_dir = found.kind == FileType::Directory;
        let was_dir = merged
            .get(&path)
            .is_some_and(|old| old.kind == FileType::Directory);
        if is_whiteout || is_opaque || !is_dir || !was_dir {
            merged.retain(|other, _| !other.starts_with(&path));
        }
        if !is_whiteout {
            merged.insert(path, found);
        }
    }
    merged
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn applying_a_difference_restores_the_tree((lower, upper) in any_change()) {
        if !is_root() {
            return Ok(());
        }
        let (below, above) = (build(&lower), build(&upper));
        let layer = above.layer(Some(&below), Style::Tree);
        prop_assert_eq!(above.layer(Some(&below), Style::Tree), layer.clone());

        // Onto a plain tree.
        let target = build(&lower);
        target.apply(&layer, LayerForm::Tree);
        prop_assert_eq!(target.found(), above.found());

        // As an overlay's layer, and what that in turn is packed to.
        let overlay = Tree::new();
        overlay.apply(&layer, LayerForm::Overlay);
        prop_assert_eq!(merged(&below, &overlay), above.found());
        prop_assert_eq!(overlay.layer(Some(&below), Style::Overlay), layer);
    }

    #[test]
    fn a_tree_upon_nothing_is_restored(model in any_model()) {
        if !is_root() {
            return Ok(());
        }
        let tree = build(&model);
        let layer = tree.layer(None, Style::Overlay);
        for form in [LayerForm::Overlay, LayerForm::OverlayUser, LayerForm::Tree] {
            let target = Tree::new();
            target.apply(&layer, form);
            prop_assert_eq!(target.found(), tree.found());
            prop_assert_eq!(&target.layer(None, Style::Tree), &layer);
        }
    }
}
