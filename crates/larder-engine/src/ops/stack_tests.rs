//! Merges and diffs of random snapshots against a naive model: trees are maps, layers are lists of
//! what to set and what to delete.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use larder_oci::Digest;
use larder_store::{Clock, NewLayer, Options, Snapshotter, Store};
use larder_tree::apply::Ownership;
use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use super::*;
use crate::event::BuildEvent;
use crate::progress::Reporter;

/// A time without nanoseconds.
const TIME: i64 = 1_700_000_000;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Dir { mode: u32 },
    File { mode: u32, text: String, time: i64 },
    Link { target: String, time: i64 },
}

type Tree = BTreeMap<PathBuf, Node>;

/// What a layer does to a tree.
#[derive(Debug, Clone)]
enum Change {
    Set(PathBuf, Node),
    Delete(PathBuf),
}

type Layer = Vec<Change>;

/// One thing that a step does to the tree it stands on.
#[derive(Debug, Clone)]
enum Edit {
    Write(PathBuf, Node),
    Remove(PathBuf),
    Mode(PathBuf, u32),
    /// A second name for a file, made in the same step as the file.
    Twins(PathBuf, PathBuf, String),
}

/// How a snapshot comes to be. Numbers choose among those that are there.
#[derive(Debug, Clone)]
enum Step {
    Edits(Option<usize>, Vec<Edit>),
    Merge(Vec<usize>),
    Diff(Option<usize>, Option<usize>),
}

fn any_path() -> impl Strategy<Value = PathBuf> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    prop::collection::vec(name, 1..4).prop_map(|parts| parts.iter().collect())
}

fn any_node() -> impl Strategy<Value = Node> {
    let dir = prop::sample::select(vec![0o755, 0o700, 0o1777]).prop_map(|mode| Node::Dir { mode });
    let mode = prop::sample::select(vec![0o644, 0o755, 0o4755]);
    let file = (mode, "[xy]{0,2}", 0..2_i64).prop_map(|(mode, text, time)| Node::File {
        mode,
        text,
        time: TIME + time,
    });
    let link = ("[abc]", 0..2_i64).prop_map(|(target, time)| Node::Link {
        target,
        time: TIME + time,
    });
    prop_oneof![3 => dir, 4 => file, 1 => link]
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let mode = prop::sample::select(vec![0o700, 0o755, 0o1777]);
    prop_oneof![
        6 => (any_path(), any_node()).prop_map(|(path, node)| Edit::Write(path, node)),
        3 => any_path().prop_map(Edit::Remove),
        1 => (any_path(), mode).prop_map(|(path, mode)| Edit::Mode(path, mode)),
        1 => (any_path(), any_path(), "[xy]").prop_map(|(a, b, text)| Edit::Twins(a, b, text)),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let edits = prop::collection::vec(any_edit(), 0..6);
    prop_oneof![
        4 => (prop::option::weighted(0.8, 0..9_usize), edits)
            .prop_map(|(parent, edits)| Step::Edits(parent, edits)),
        3 => prop::collection::vec(0..9_usize, 1..4).prop_map(Step::Merge),
        3 => (prop::option::weighted(0.85, 0..9_usize), prop::option::weighted(0.9, 0..9_usize))
            .prop_map(|(lower, upper)| Step::Diff(lower, upper)),
    ]
}

// ---- the model

/// Removes what is at a path, and makes directories that lead to it.
fn make_way(tree: &mut Tree, path: &Path) {
    tree.retain(|other, _| !other.starts_with(path));
    let mut leading = PathBuf::new();
    for part in path.parent().into_iter().flatten() {
        leading.push(part);
        if !matches!(tree.get(&leading), Some(Node::Dir { .. })) {
            tree.retain(|other, _| !other.starts_with(&leading));
            tree.insert(leading.clone(), Node::Dir { mode: 0o755 });
        }
    }
}

fn edit(tree: &mut Tree, edit: &Edit) {
    match edit {
        Edit::Write(path, node) => {
            make_way(tree, path);
            tree.insert(path.clone(), node.clone());
        }
        Edit::Remove(path) => tree.retain(|other, _| !other.starts_with(path)),
        Edit::Mode(path, mode) => {
            if let Some(Node::Dir { mode: old }) = tree.get_mut(path) {
                *old = *mode;
            }
        }
        Edit::Twins(first, second, text) => {
            if first.starts_with(second) || second.starts_with(first) {
                return;
            }
            for path in [first, second] {
                make_way(tree, path);
                let (mode, time, text) = (0o600, TIME, text.clone());
                tree.insert(path.clone(), Node::File { mode, text, time });
            }
        }
    }
}

/// Returns the layer that turns one tree into another: deletions, and what is new or other than
/// before, with the directories that lead to either.
fn layer(below: &Tree, above: &Tree) -> Layer {
    let gone = below.keys().filter(|path| !above.contains_key(*path));
    let is_topmost = |path: &&PathBuf| {
        let above_it = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        above_it.is_none_or(|parent| matches!(above.get(parent), Some(Node::Dir { .. })))
    };
    let gone: Vec<&PathBuf> = gone.filter(is_topmost).collect();
    let new = above
        .iter()
        .filter(|(path, node)| below.get(*path) != Some(node));
    let mut set: BTreeSet<&Path> = new.map(|(path, _)| path.as_path()).collect();
    for path in gone.iter().map(|path| path.as_path()).chain(set.clone()) {
        let leading = path.ancestors().skip(1);
        set.extend(leading.filter(|path| !path.as_os_str().is_empty()));
    }
    let deleted = gone.into_iter().cloned().map(Change::Delete);
    let set = set
        .into_iter()
        .map(|path| Change::Set(path.to_owned(), above[path].clone()));
    deleted.chain(set).collect()
}

fn apply(tree: &mut Tree, layer: &Layer) {
    for change in layer {
        match change {
            Change::Delete(path) => tree.retain(|other, _| !other.starts_with(path)),
            Change::Set(path, node) => {
                let both_are_dirs = matches!(
                    (tree.get(path), node),
                    (Some(Node::Dir { .. }), Node::Dir { .. })
                );
                if !both_are_dirs {
                    tree.retain(|other, _| !other.starts_with(path));
                }
                tree.insert(path.clone(), node.clone());
            }
        }
    }
}

/// A snapshot of the model: its layers, by number, and what they show.
#[derive(Debug, Clone, Default)]
struct Expected {
    layers: Vec<usize>,
    tree: Tree,
}

#[derive(Default)]
struct Model {
    layers: Vec<Layer>,
    snapshots: Vec<Expected>,
}

impl Model {
    fn add_layer(&mut self, layer: Layer) -> usize {
        self.layers.push(layer);
        self.layers.len() - 1
    }

    /// Applies all layers, those that occur twice twice; lists each at its topmost place.
    fn of_layers(&self, layers: &[usize]) -> Expected {
        let mut tree = Tree::new();
        for layer in layers {
            apply(&mut tree, &self.layers[*layer]);
        }
        let is_last = |(place, layer): &(usize, &usize)| !layers[place + 1..].contains(layer);
        let distinct = layers.iter().enumerate().filter(is_last);
        Expected {
            layers: distinct.map(|(_, layer)| *layer).collect(),
            tree,
        }
    }

    fn step(&mut self, step: &Step) {
        let count = self.snapshots.len();
        let get = |index: &usize| self.snapshots[index % count].clone();
        let made = match step {
            Step::Edits(parent, edits) => {
                let parent = parent.as_ref().filter(|_| count > 0).map(get);
                let below = parent.unwrap_or_default();
                let mut tree = below.tree.clone();
                for one in edits {
                    edit(&mut tree, one);
                }
                let new = self.add_layer(layer(&below.tree, &tree));
                let layers = [&below.layers[..], &[new]].concat();
                Expected { layers, tree }
            }
            Step::Merge(inputs) => {
                let layers = inputs.iter().flat_map(|input| get(input).layers);
                self.of_layers(&layers.collect::<Vec<_>>())
            }
            Step::Diff(lower, upper) => {
                let lower = lower.as_ref().map(get).unwrap_or_default();
                let upper = upper.as_ref().map(get).unwrap_or_default();
                if let Some(layers) = upper.layers.strip_prefix(&lower.layers[..]) {
                    self.of_layers(layers)
                } else {
                    let difference = self.add_layer(layer(&lower.tree, &upper.tree));
                    self.of_layers(&[difference])
                }
            }
        };
        self.snapshots.push(made);
    }
}

// ---- the real thing

fn set_time(path: &Path, seconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn remove(path: &Path) {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path).unwrap(),
        Ok(_) => std::fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

/// Does in a directory what [`make_way`] does in the model.
fn make_real_way(root: &Path, path: &Path) -> PathBuf {
    let mut leading = root.to_owned();
    for part in path.parent().into_iter().flatten() {
        leading.push(part);
        if !leading.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            remove(&leading);
            std::fs::create_dir(&leading).unwrap();
        }
    }
    let at = root.join(path);
    remove(&at);
    at
}

fn write(root: &Path, path: &Path, node: &Node) {
    let at = make_real_way(root, path);
    match node {
        Node::Dir { mode } => {
            std::fs::create_dir(&at).unwrap();
            set_mode(&at, *mode);
        }
        Node::File { mode, text, time } => {
            std::fs::write(&at, text).unwrap();
            set_mode(&at, *mode);
            set_time(&at, *time);
        }
        Node::Link { target, time } => {
            std::os::unix::fs::symlink(target, &at).unwrap();
            set_time(&at, *time);
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Returns whether a path leads to a directory, and through none but directories.
fn is_dir(root: &Path, path: &Path) -> bool {
    let mut leading = root.to_owned();
    path.iter().all(|part| {
        leading.push(part);
        let found = leading.symlink_metadata();
        found.is_ok_and(|found| found.is_dir())
    })
}

fn real_edit(root: &Path, edit: &Edit) {
    match edit {
        Edit::Write(path, node) => write(root, path, node),
        // What a path leads to through a link is not at it.
        Edit::Remove(path) => {
            if is_dir(root, path.parent().unwrap()) {
                remove(&root.join(path));
            }
        }
        Edit::Mode(path, mode) => {
            if is_dir(root, path) {
                set_mode(&root.join(path), *mode);
            }
        }
        Edit::Twins(first, second, text) => {
            if first.starts_with(second) || second.starts_with(first) {
                return;
            }
            let (mode, time, text) = (0o600, TIME, text.clone());
            // The way to the second may lead through what the first was.
            write(root, first, &Node::File { mode, text, time });
            let at = make_real_way(root, second);
            match root.join(first).symlink_metadata() {
                Ok(found) if found.is_file() => {
                    std::fs::hard_link(root.join(first), at).unwrap();
                }
                found => panic!("{found:?}"),
            }
        }
    }
}

fn found(root: &Path) -> Tree {
    fn collect(base: &Path, path: &Path, tree: &mut Tree) {
        for entry in std::fs::read_dir(base.join(path)).unwrap() {
            let path = path.join(entry.unwrap().file_name());
            let at = base.join(&path);
            let metadata = at.symlink_metadata().unwrap();
            let (mode, time) = (metadata.mode() & 0o7777, metadata.mtime());
            let node = if metadata.is_dir() {
                collect(base, &path, tree);
                Node::Dir { mode }
            } else if metadata.is_symlink() {
                let target = at.read_link().unwrap().to_str().unwrap().to_owned();
                Node::Link { target, time }
            } else {
                assert!(metadata.is_file(), "{path:?}: {metadata:?}");
                let text = std::fs::read_to_string(&at).unwrap();
                Node::File { mode, text, time }
            };
            tree.insert(path, node);
        }
    }
    let mut tree = Tree::new();
    collect(root, Path::new(""), &mut tree);
    tree
}

fn open_store(dir: &Path, snapshotter: Snapshotter) -> Store {
    let options = Options {
        clock: Clock::new(|| jiff::Timestamp::UNIX_EPOCH),
        snapshotter,
        ownership: Ownership::Preserve,
        mounter: None,
        ceiling: None,
        settle_after: None,
    };
    Store::open(dir, options).unwrap()
}

fn within<T>(mount: &larder_oci::Mount, work: impl FnOnce(&Path) -> T) -> T {
    let mount = larder_exec::mount::open(mount).unwrap();
    work(&PathBuf::from(format!(
        "/proc/self/fd/{}/.",
        mount.as_raw_fd()
    )))
}

fn tree_of(store: &Store, snapshot: &SnapshotId) -> Tree {
    within(&store.view(snapshot).unwrap(), found)
}

struct Real<'a> {
    lease: &'a Lease,
    progress: &'a VertexProgress<'a>,
    snapshots: Vec<SnapshotId>,
}

impl Real<'_> {
    fn step(&mut self, step: &Step) {
        let count = self.snapshots.len();
        let get = |index: &usize| self.snapshots[index % count].clone();
        let stacker = Stacker {
            lease: self.lease,
            name: "test".to_owned(),
            progress: self.progress,
        };
        let made = match step {
            Step::Edits(parent, edits) => {
                let parent = parent.as_ref().filter(|_| count > 0).map(get);
                let new = NewSnapshot {
                    parent: parent.as_ref(),
                    description: "step",
                    record_type: RecordType::Regular,
                };
                let active = self.lease.prepare(&new).unwrap();
                within(&active.mount().unwrap(), |root| {
                    for edit in edits {
                        real_edit(root, edit);
                    }
                });
                active.commit().unwrap()
            }
            Step::Merge(inputs) => {
                let inputs: Vec<SnapshotId> = inputs.iter().map(get).collect();
                stacker.merge(&inputs).unwrap()
            }
            Step::Diff(lower, upper) => {
                let (lower, upper) = (lower.as_ref().map(get), upper.as_ref().map(get));
                stacker.diff(lower.as_ref(), upper.as_ref()).unwrap()
            }
        };
        self.snapshots.push(made);
    }

    /// Packs all layers of a snapshot, and unpacks them in another store.
    fn moved(&self, snapshot: &SnapshotId, to: &Lease) -> Option<SnapshotId> {
        let mut parent = None;
        let mut chain = String::new();
        for layer in self.lease.store().chain(snapshot).unwrap() {
            let mut bytes = Vec::new();
            let options = LayerOptions::default();
            layers::write_tar(self.lease.store(), &layer, &mut bytes, &options).unwrap();
            let diff_id = Digest::sha256(&bytes);
            chain = format!("{chain} {diff_id}");
            let unpacked = to.unpack(&diff_id, &bytes[..], &mut |_| {}).unwrap();
            let new = NewLayer {
                parent: parent.as_ref(),
                chain_id: &Digest::sha256(&chain),
                blob: None,
                description: "moved",
                created_at: None,
            };
            parent = Some(to.link(unpacked, &new).unwrap());
        }
        parent
    }
}

/// Returns whether this machine lets us mount; says so if not.
fn can_mount() -> bool {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    let kind = larder_oci::MountKind::Overlay {
        lowers: vec![dir.path().join("a").into(), dir.path().join("b").into()],
        upper: None,
        userxattr: false,
    };
    let mount = larder_oci::Mount {
        kind,
        readonly: true,
    };
    let can = rustix::process::geteuid().is_root() && larder_exec::mount::open(&mount).is_ok();
    if !can {
        println!("skipped: overlays can't be mounted here");
    }
    can
}

fn check(steps: &[Step], snapshotter: Snapshotter) {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(&dir.path().join("from"), snapshotter);
    let other = open_store(
        &dir.path().join("to"),
        Snapshotter::Overlay { userxattr: false },
    );
    let (lease, target) = (store.lease().unwrap(), other.lease().unwrap());
    let (sink, clock) = (|_: BuildEvent| {}, || jiff::Timestamp::UNIX_EPOCH);
    let reporter = Reporter::new(&sink, &clock);
    let progress = reporter.begin_internal("test", "");
    let mut real = Real {
        lease: &lease,
        progress: &progress,
        snapshots: Vec::new(),
    };
    let mut model = Model::default();
    // The first step has nothing to stand on.
    let first = [Step::Edits(None, Vec::new())];
    for step in first.iter().chain(steps) {
        real.step(step);
        model.step(step);
        let (snapshot, expected) = (real.snapshots.last(), model.snapshots.last());
        let (snapshot, expected) = (snapshot.unwrap(), expected.unwrap());
        assert_eq!(tree_of(&store, snapshot), expected.tree, "{step:?}");
        let chain = store.chain(snapshot).unwrap();
        assert_eq!(chain.len(), expected.layers.len(), "{step:?}");
        let moved = real.moved(snapshot, &target);
        let moved = moved.map_or_else(Tree::new, |moved| tree_of(&other, &moved));
        assert_eq!(moved, expected.tree, "{step:?}, moved");
    }
    drop(lease);
    assert_eq!(store.check().unwrap(), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn merges_and_diffs_are_those_of_the_model(
        steps in prop::collection::vec(any_step(), 1..9),
        native in any::<bool>(),
    ) {
        let snapshotter = if native {
            Snapshotter::Native
        } else {
            Snapshotter::Overlay { userxattr: false }
        };
        if can_mount() {
            check(&steps, snapshotter);
        }
    }
}

#[test]
fn what_a_directory_hid_below_is_not_hidden_elsewhere() {
    if !can_mount() {
        return;
    }
    let file = |text: &str| Node::File {
        mode: 0o644,
        text: text.to_owned(),
        time: TIME,
    };
    let write = |path: &str, text: &str| Edit::Write(path.into(), file(text));
    // A directory that is made where another was removed hides all that lies below it.
    let again = vec![Edit::Remove("a".into()), write("a/new", "new")];
    let steps = [
        Step::Edits(None, vec![write("a/kept", "kept"), write("b", "gone")]),
        Step::Edits(None, vec![write("a/old", "old")]),
        Step::Edits(Some(2), again),
        Step::Merge(vec![1, 3]),
        Step::Diff(Some(2), Some(3)),
        Step::Merge(vec![1, 5]),
        Step::Diff(Some(1), Some(2)),
        Step::Merge(vec![4, 7]),
        Step::Diff(Some(4), None),
    ];
    for snapshotter in [
        Snapshotter::Native,
        Snapshotter::Overlay { userxattr: false },
    ] {
        check(&steps, snapshotter);
    }
}
