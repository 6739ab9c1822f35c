//! File operations upon layers that are not mounted: what overlayfs shows of the directories that they
//! leave is what it shows of its own, and they make the same layers.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larder_tree::Result;
use larder_tree::beneath::Root;
use larder_tree::context::Tree;
use larder_tree::diff::{LayerOptions, Style, write_layer_upon};
use larder_tree::overlay::{Layer, Lower, Marks, Upper};
use proptest::prelude::*;

use crate::copies::{Op, entries, layer, make_lower, make_source, normal, op, steps_to_tell};
use crate::support::{assert_same, can_mount, found, mount_overlay};

#[derive(Debug)]
struct Directory(PathBuf);

impl Layer for Directory {
    fn root(&self) -> io::Result<Arc<OwnedFd>> {
        Ok(Arc::new(fs::File::open(&self.0)?.into()))
    }
}

/// A chain of layers, made by overlayfs and by [`Upper`].
struct Chain {
    dir: tempfile::TempDir,
    source: Tree,
    /// Those of overlayfs and ours, the topmost first.
    layers: [Vec<PathBuf>; 2],
    lower: Lower,
}

impl Chain {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["lower", "source"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let lowest = make_lower(&dir.path().join("lower"));
        let source = make_source(&dir.path().join("source"));
        Self {
            dir,
            source,
            lower: Lower::new(vec![Arc::new(Directory(lowest.clone()))]),
            layers: [vec![lowest.clone()], vec![lowest]],
        }
    }

    /// Does `ops`, up to the first that fails, in a new layer.
    fn step(&mut self, ops: &[Op]) {
        let height = self.layers[0].len();
        let sub = |name: &str| {
            let path = self.dir.path().join(format!("{name}-{height}"));
            fs::create_dir(&path).unwrap();
            path
        };
        let run = |run: &mut dyn FnMut(&Op) -> Result<()>| {
            let ran: Result<()> = ops.iter().try_for_each(run);
            ran.map_err(|error| error.to_string())
        };

        let (expected_upper, work) = (sub("expected"), sub("work"));
        let expected_below = mount(&self.layers[0], &sub("expected-below"));
        let writable = [&*expected_upper, &work];
        let lowers: Vec<&Path> = self.layers[0].iter().map(PathBuf::as_path).collect();
        let merged = mount_overlay(&lowers, Some(writable), &sub("merged"));
        let root = Root::open(merged.path()).unwrap();
        let expected = run(&mut |op| op.run(&root, &self.source));
        drop(root);
        let expected_tree = normal(found(merged.path()));
        drop(merged);

        let own = sub("own");
        let own_root = Root::open(&own).unwrap();
        let upper = Upper::new(&own_root, self.lower.clone(), Marks::Trusted).unwrap();
        let made = run(&mut |op| op.run(&upper, &self.source));
        assert_eq!(made, expected);

        let mut tar = Vec::new();
        let options = LayerOptions::default();
        write_layer_upon(&own_root, &self.lower, Style::Overlay, &mut tar, &options).unwrap();
        let expected_layer = layer(&expected_upper, expected_below.path());
        assert_eq!(entries(&tar), expected_layer);

        self.layers[0].insert(0, expected_upper);
        self.layers[1].insert(0, own.clone());
        let seen = mount(&self.layers[1], &sub("seen"));
        assert_same(&normal(found(seen.path())), &expected_tree);
        self.lower = self.lower.with(Arc::new(Directory(own)));
    }

    /// Compares what is said of the topmost layers with what overlayfs shows.
    fn check(&self) {
        let at = self.dir.path().join("checked");
        fs::create_dir(&at).unwrap();
        let seen = mount(&self.layers[1], &at);
        let empty = self.dir.path().join("empty");
        fs::create_dir(&empty).unwrap();
        let root = Root::open(&empty).unwrap();
        let whole = |lower: &Lower| {
            let mut tar = Vec::new();
            let options = LayerOptions::default();
            write_layer_upon(&root, lower, Style::Tree, &mut tar, &options).unwrap();
            entries(&tar)
        };
        // An empty tree has whiteouts for all that is at the top of another.
        let gone: Vec<PathBuf> = whole(&self.lower).into_iter().map(|it| it.path).collect();
        let names = fs::read_dir(seen.path()).unwrap();
        let mut names: Vec<String> = names
            .map(|it| format!(".wh.{}", it.unwrap().file_name().display()))
            .collect();
        names.sort_unstable();
        assert_eq!(gone, names.iter().map(PathBuf::from).collect::<Vec<_>>());
        // And one that has grown another way knows the same.
        let layers = self.layers[1].iter().rev();
        let layers = layers.map(|path| Arc::new(Directory(path.clone())) as Arc<dyn Layer>);
        assert_eq!(whole(&Lower::new(layers.collect())), whole(&self.lower));
    }
}

fn mount(layers: &[PathBuf], at: &Path) -> crate::support::Mounted {
    let nothing = at.with_extension("nothing");
    fs::create_dir(&nothing).unwrap();
    // A mount that can't be written to has two layers at least.
    let mut lowers: Vec<&Path> = layers.iter().map(PathBuf::as_path).collect();
    lowers.push(&nothing);
    mount_overlay(&lowers, None, at)
}

#[test]
fn operations_upon_layers_leave_what_overlayfs_leaves() {
    if !can_mount() {
        return;
    }
    // Each upon the same tree, and then each upon what those before have left.
    let mut chain = Chain::new();
    for ops in steps_to_tell() {
        Chain::new().step(&ops);
        chain.step(&ops);
    }
    chain.check();
}

#[test]
fn two_trees_grow_out_of_one() {
    if !can_mount() {
        return;
    }
    let mut chain = Chain::new();
    chain.step(&[Op::Mkfile("/app/one", "1")]);
    let (below, layers) = (chain.lower.clone(), chain.layers.clone());
    chain.step(&[Op::Remove("/app"), Op::Mkfile("/app", "2")]);
    chain.check();
    let other = Chain {
        dir: tempfile::tempdir().unwrap(),
        source: chain.source,
        layers,
        lower: below,
    };
    let mut other = other;
    other.step(&[Op::Remove("/app/one"), Op::Mkfile("/app/sub/two", "3")]);
    other.step(&[Op::Mkfile("/app/one", "4")]);
    other.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_chain_of_steps_is_what_overlayfs_makes(
        steps in prop::collection::vec(prop::collection::vec(op(), 1..4), 1..8)
    ) {
        if can_mount() {
            let mut chain = Chain::new();
            for ops in &steps {
                chain.step(ops);
            }
            chain.check();
        }
    }
}
