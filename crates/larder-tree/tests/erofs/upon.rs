//! File operations upon layers that are not mounted: what overlayfs shows of the directories that they
//! leave is what it shows of its own, and they make the same layers.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larder_tree::Result;
use larder_tree::beneath::Root;
use larder_tree::context::Tree;
use larder_tree::diff::{LayerOptions, Style, write_layer_upon};
use larder_tree::erofs::{Image, Reader};
use larder_tree::overlay::{Layer, Lower, Marks, Upper};
use proptest::prelude::*;
use rustix::fs::Timespec;

use crate::copies::{
    Op, RECENT, entries, layer, make_lower, make_source, normal, op, steps_to_tell,
};
use crate::support::{
    Directory, InImage, TestImage, apply, assert_same, can_mount, found, lower_of, mount_overlay,
    packed,
};

/// A chain of layers, made by overlayfs, by [`Upper`], and of images that nobody mounts.
struct Chain {
    dir: tempfile::TempDir,
    source: Tree,
    /// Those of overlayfs and ours, the topmost first.
    layers: [Vec<PathBuf>; 2],
    lower: Lower,
    images: Lower,
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
            lower: lower_of(&lowest),
            images: Lower::new(vec![unpacked_into_image(&lowest)]),
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

        let image = TestImage::new();
        let now = Timespec {
            tv_sec: RECENT + 1,
            tv_nsec: 0,
        };
        let upon = Image::upon(image.file(), self.images.clone(), now).unwrap();
        let made = run(&mut |op| op.run(&upon, &self.source));
        assert_eq!(made, expected);
        upon.finish().unwrap();
        let reader = Arc::new(Reader::open(image.file_again()).unwrap());
        let mut tar = Vec::new();
        write_layer_upon(&*reader, &self.images, Style::Overlay, &mut tar, &options).unwrap();
        assert_eq!(entries(&tar), expected_layer);
        self.images = self.images.with(Arc::new(InImage(reader)));

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
        assert_eq!(whole(&self.images), whole(&self.lower));
    }
}

/// Returns a layer as it is when it was pulled.
fn unpacked_into_image(directory: &Path) -> Arc<dyn Layer> {
    let root = Root::open(directory).unwrap();
    let image = TestImage::new();
    let sink = image.begin();
    apply(&sink, &packed(&root, None, Style::Tree).unwrap())
        .0
        .unwrap();
    sink.finish().unwrap();
    Arc::new(InImage(Arc::new(Reader::open(image.file_again()).unwrap())))
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
    let images = chain.images.clone();
    chain.step(&[Op::Remove("/app"), Op::Mkfile("/app", "2")]);
    chain.check();
    let other = Chain {
        dir: tempfile::tempdir().unwrap(),
        source: chain.source,
        layers,
        lower: below,
        images,
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
