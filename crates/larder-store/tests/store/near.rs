//! Long chains, seen upon views that are kept.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use larder_oci::{Layer, Mount, MountKind};
use larder_store::{Lease, Mounter, SnapshotId, Store};

use crate::support::{TestStore, layer, new_snapshot, upper};

/// Mounts nothing: a view's root is any directory.
#[derive(Debug)]
struct Fake {
    directory: std::path::PathBuf,
    nests: bool,
    /// How many layers each view had.
    mounted: Mutex<Vec<usize>>,
    trial_count: AtomicUsize,
}

impl Fake {
    fn new(store: &TestStore, nests: bool) -> Arc<Self> {
        Arc::new(Self {
            directory: store.root().to_owned(),
            nests,
            mounted: Mutex::default(),
            trial_count: AtomicUsize::new(0),
        })
    }
}

impl Mounter for Fake {
    fn no_images(&self) -> Option<String> {
        None
    }

    fn wants_images(&self) -> bool {
        false
    }

    fn mount_image(&self, _: &File) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn mount_view(&self, view: &Mount) -> io::Result<OwnedFd> {
        let layers = layers(view);
        if layers.iter().any(is_view) {
            self.trial_count.fetch_add(1, Ordering::SeqCst);
            if !self.nests {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
        self.mounted.lock().unwrap().push(layers.len());
        Ok(File::open(&self.directory)?.into())
    }
}

fn layers(mount: &Mount) -> Vec<Layer> {
    match &mount.kind {
        MountKind::Bind { source } => vec![source.clone()],
        MountKind::Overlay { lowers, .. } => lowers.clone(),
    }
}

fn is_view(layer: &Layer) -> bool {
    matches!(layer, Layer::Image(_))
}

/// Makes `count` snapshots, each upon the one before; returns them, and how many layers each was
/// written upon.
fn chain(lease: &Lease, count: usize) -> (Vec<SnapshotId>, Vec<usize>) {
    let (mut ids, mut counts) = (vec![layer(lease, None, "base")], Vec::new());
    for step in 1..count {
        let name = step.to_string();
        let active = lease.prepare(&new_snapshot(ids.last(), &name)).unwrap();
        let near = layers(&active.near_mount().unwrap());
        let all = layers(&active.mount().unwrap());
        assert!(!all.iter().any(is_view), "containers see layers only");
        assert_eq!(all.len(), ids.len().min(all.len()));
        assert!(near[..near.len() - 1].iter().all(|layer| !is_view(layer)));
        let shared = near.len() - usize::from(near.last().is_some_and(is_view));
        assert_eq!(near[..shared], all[..shared], "the same on top");
        assert_eq!(near.len() == all.len(), !is_view(near.last().unwrap()));
        std::fs::write(upper(&active.mount().unwrap()).join(&name), &name).unwrap();
        counts.push(near.len());
        ids.push(active.commit().unwrap());
    }
    (ids, counts)
}

fn below(store: &Store, id: &SnapshotId) -> usize {
    layers(&store.below(id).unwrap().unwrap()).len()
}

#[test]
fn a_long_chain_is_mounted_upon_few_views() {
    let test = TestStore::new();
    let mounter = Fake::new(&test, true);
    let store = test.with_mounter(mounter.clone());
    let lease = store.lease().unwrap();
    let (ids, counts) = chain(&lease, 200);
    assert!(counts.iter().all(|count| *count <= 64), "{counts:?}");
    assert_eq!(counts[..63], (1..64).collect::<Vec<_>>());
    assert_eq!(
        *mounter.mounted.lock().unwrap(),
        [65, 2, 129, 193],
        "a view, the trial, and a view each 64 layers"
    );
    assert!(ids[1..].iter().all(|id| below(&store, id) <= 64));
    assert_eq!(mounter.mounted.lock().unwrap().len(), 4, "views are kept");
    lease.release().unwrap();

    let lease = store.lease().unwrap();
    assert_eq!(below(&store, &ids[199]), 1);
    let count = mounter.mounted.lock().unwrap().len();
    assert_eq!(count, 5, "none is kept when its lease has ended");
    drop(lease);
    test.prune_all();
    test.assert_sound();
}

#[test]
fn where_no_overlay_lies_upon_another_all_layers_are_mounted() {
    let test = TestStore::new();
    let mounter = Fake::new(&test, false);
    let store = test.with_mounter(mounter.clone());
    let lease = store.lease().unwrap();
    let (ids, counts) = chain(&lease, 100);
    assert_eq!(counts, (1..100).collect::<Vec<_>>());
    assert_eq!(below(&store, &ids[99]), 99);
    assert_eq!(mounter.trial_count.load(Ordering::SeqCst), 1);
}
