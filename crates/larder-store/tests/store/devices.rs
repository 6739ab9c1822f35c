//! Images that use the blocks of earlier ones.

use std::path::Path;
use std::sync::Arc;

use larder_store::{
    ErrorKind, KeyDep, KeyId, Lease, NewKey, PruneRequest, SaveMode, SnapshotId, Store,
};
use larder_tree::beneath::Root;
use larder_tree::checksum::content_digest;
use larder_tree::context::{ScanOptions, StatCache, Tree, scan};
use larder_tree::copy::{CopyOptions, copy_again};
use larder_tree::diff::LayerOptions;

use crate::mounter::Images;
use crate::support::{
    TestStore, digest, disk_usage, keep_diff_id, leftovers, lowers, new_snapshot, restart,
};

const FILES: usize = 8;
const FILE_BYTES: usize = 80_000;

/// A context of large files.
pub(crate) struct Context {
    dir: tempfile::TempDir,
    cache: StatCache,
}

impl Context {
    pub(crate) fn new() -> Self {
        let context = Self {
            dir: tempfile::tempdir().unwrap(),
            cache: StatCache::default(),
        };
        for number in 0..FILES {
            context.write(number, number as u8);
        }
        context
    }

    pub(crate) fn write(&self, number: usize, byte: u8) {
        let path = self.dir.path().join(format!("f{number}"));
        std::fs::write(path, vec![byte; FILE_BYTES]).unwrap();
    }

    fn tree(&mut self) -> Tree {
        let root = Root::open(self.dir.path()).unwrap();
        let options = ScanOptions {
            started_at_nanos: i64::MAX,
            ..ScanOptions::default()
        };
        let tree = scan(root, &options, self.cache.clone()).unwrap();
        content_digest(&tree, &[]).unwrap();
        if let Some(cache) = tree.updated_cache() {
            self.cache = cache;
        }
        tree
    }

    /// Copies all into an image that is called `name`, as the result of a key, and as it was done before under the
    /// key `before`, if that still has a result.
    pub(crate) fn copy(
        &mut self,
        lease: &Lease,
        name: &str,
        before: Option<KeyId>,
    ) -> (SnapshotId, KeyId) {
        let tree = self.tree();
        let past = before.and_then(|key| lease.past(key).unwrap());
        let image = lease.prepare_image(&new_snapshot(None, name));
        let image = image.unwrap().expect("the store makes images");
        let options = CopyOptions {
            src: "/".to_owned(),
            dest: "/".to_owned(),
            dir_copy_contents: true,
            ..CopyOptions::default()
        };
        copy_again(&tree, image.tree(), &options, image.quota(), past.as_ref()).unwrap();
        let id = image.commit().unwrap();
        let deps: &[Vec<KeyDep>] = &[];
        let saved = lease.save(&NewKey {
            op: &digest(name),
            output: 0,
            deps,
            snapshot: &id,
            mode: SaveMode::Keep,
        });
        (id, saved.unwrap().key)
    }
}

/// A context, and a store in which images of it are made.
struct Fixture {
    store: TestStore,
    context: Context,
}

impl Fixture {
    fn new() -> Option<Self> {
        Some(Self {
            store: TestStore::of_images(None)?,
            context: Context::new(),
        })
    }

    fn write(&self, number: usize, byte: u8) {
        self.context.write(number, byte);
    }

    fn copy(&mut self, lease: &Lease, name: &str, before: Option<KeyId>) -> (SnapshotId, KeyId) {
        self.context.copy(lease, name, before)
    }

    /// What a snapshot's layer is as a tar.
    fn layer(&self, id: &SnapshotId) -> Vec<u8> {
        let mut layer = Vec::new();
        let options = LayerOptions::default();
        self.store.write_layer(id, &mut layer, &options).unwrap();
        layer
    }
}

/// The first byte of each file that a view shows.
fn shown(store: &Store, id: &SnapshotId) -> Vec<u8> {
    let view = store.view(id).unwrap();
    let root = lowers(&view).remove(0);
    let byte = |number| {
        let content = std::fs::read(root.join(format!("f{number}"))).unwrap();
        assert_eq!(content.len(), FILE_BYTES);
        assert!(content.iter().all(|byte| *byte == content[0]));
        content[0]
    };
    (0..FILES).map(byte).collect()
}

fn size(store: &Store, id: &SnapshotId) -> u64 {
    store.snapshot(id).unwrap().size_bytes
}

#[test]
fn what_uses_an_image_keeps_it() {
    let Some(mut fixture) = Fixture::new() else {
        return;
    };
    let lease = fixture.store.lease().unwrap();
    let (first, first_key) = fixture.copy(&lease, "first", None);
    fixture.write(3, 33);
    let (second, second_key) = fixture.copy(&lease, "second", Some(first_key));
    fixture.write(4, 44);
    let (third, _) = fixture.copy(&lease, "third", Some(second_key));
    assert_eq!(shown(&fixture.store, &first), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(shown(&fixture.store, &third), [0, 1, 2, 33, 44, 5, 6, 7]);
    let whole = (FILES * FILE_BYTES) as u64;
    assert!(size(&fixture.store, &first) > whole);
    for id in [&second, &third] {
        assert!(size(&fixture.store, id) < 2 * FILE_BYTES as u64);
    }
    let (alone, _) = fixture.copy(&lease, "alone", None);
    assert!(fixture.layer(&third) == fixture.layer(&alone));
    drop(lease);
    fixture.store.assert_sound();

    // All bytes count once, and to those that have them.
    let records = fixture.store.du(&[]).unwrap();
    let listed: u64 = records.iter().map(|record| record.size_bytes).sum();
    let expected = disk_usage(fixture.store.root());
    assert!(
        listed.abs_diff(expected) * 100 <= expected,
        "{listed}, {expected}"
    );
    let parents = |id: &SnapshotId| {
        let record = records.iter().find(|record| record.id == *id).unwrap();
        let mut parents = record.parents.clone();
        parents.sort();
        parents
    };
    let mut both = vec![first.clone(), second.clone()];
    both.sort();
    assert_eq!(parents(&third), both);
    assert_eq!(parents(&second), std::slice::from_ref(&first));
    // It is no layer below.
    assert_eq!(
        fixture.store.chain(&third).unwrap(),
        std::slice::from_ref(&third)
    );
    assert_eq!(fixture.store.snapshot(&third).unwrap().parents, []);

    let only = |name: &str| PruneRequest {
        filters: vec![format!("description=={name}").parse().unwrap()],
        ..PruneRequest::default()
    };
    let nothing = Vec::<String>::new();
    assert_eq!(fixture.store.prune_with(&only("first")), nothing);
    assert_eq!(fixture.store.prune_with(&only("second")), nothing);
    assert_eq!(shown(&fixture.store, &third), [0, 1, 2, 33, 44, 5, 6, 7]);
    assert_eq!(fixture.store.prune_with(&only("third")), ["third"]);
    let removed = fixture.store.prune_all();
    let place = |name: &str| removed.iter().position(|removed| removed == name).unwrap();
    assert!(place("second") < place("first"), "{removed:?}");
    assert_eq!(leftovers(&fixture.store), nothing);
    assert!(!has_files(fixture.store.root()));
}

fn has_files(root: &Path) -> bool {
    let mut entries = std::fs::read_dir(root.join("snapshots")).unwrap();
    entries.next().is_some()
}

#[test]
fn what_is_being_taken_over_is_not_pruned() {
    let Some(mut fixture) = Fixture::new() else {
        return;
    };
    let lease = fixture.store.lease().unwrap();
    let (first, key) = fixture.copy(&lease, "first", None);
    drop(lease);
    let lease = fixture.store.lease().unwrap();
    let tree = fixture.context.tree();
    let past = lease.past(key).unwrap();
    assert_eq!(fixture.store.prune_all(), Vec::<String>::new());
    let image = lease.prepare_image(&new_snapshot(None, "second"));
    let image = image.unwrap().unwrap();
    let options = CopyOptions {
        src: "/f0".to_owned(),
        dest: "/f0".to_owned(),
        ..CopyOptions::default()
    };
    copy_again(&tree, image.tree(), &options, image.quota(), past.as_ref()).unwrap();
    let second = image.commit().unwrap();
    assert!(
        fixture
            .layer(&second)
            .windows(FILE_BYTES)
            .any(|it| it.iter().all(|byte| *byte == 0))
    );
    drop((past, lease));
    assert_eq!(fixture.store.prune_all(), ["second", "first"]);
    let lease = fixture.store.lease().unwrap();
    assert!(lease.past(key).unwrap().is_none(), "there is none any more");
    let missing = fixture.store.snapshot(&first).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[test]
fn what_uses_a_lost_image_is_lost() {
    let Some(mut fixture) = Fixture::new() else {
        return;
    };
    let lease = fixture.store.lease().unwrap();
    let (first, key) = fixture.copy(&lease, "first", None);
    fixture.write(0, 50);
    let (second, _) = fixture.copy(&lease, "second", Some(key));
    drop(lease);
    fixture.store.settle().unwrap();
    let db = rusqlite::Connection::open(fixture.store.root().join("larder.db")).unwrap();
    let sql = "UPDATE snapshots SET unsettled = 'boot before' WHERE id = ?";
    db.execute(sql, [first.as_str()]).unwrap();
    let again = fixture.store.again();
    for id in [first, second] {
        let error = again.snapshot(&id).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    assert_eq!(again.check().unwrap(), []);
    assert!(!has_files(again.root()));
}

#[test]
fn images_are_kept_after_a_restart_if_all_their_blocks_are_whole() {
    let Some(mut fixture) = Fixture::new() else {
        return;
    };
    let lease = fixture.store.lease().unwrap();
    let (first, key) = fixture.copy(&lease, "first", None);
    fixture.write(0, 50);
    let (second, _) = fixture.copy(&lease, "second", Some(key));
    drop(lease);
    keep_diff_id(&fixture.store, &first);
    keep_diff_id(&fixture.store, &second);
    restart(&fixture.store);
    let again = fixture.store.again();
    assert!(again.snapshot(&first).is_ok() && again.snapshot(&second).is_ok());

    // A part of a file that both show.
    let path = again.root().join("snapshots").join(first.as_str());
    let mut image = std::fs::read(&path).unwrap();
    let content = [(FILES - 1) as u8; 4096];
    let place = image.windows(4096).position(|window| window == content);
    image[place.unwrap() + 100] = 0;
    std::fs::write(&path, image).unwrap();
    restart(&again);
    let again = fixture.store.again();
    for id in [first, second] {
        let error = again.snapshot(&id).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    assert_eq!(again.check().unwrap(), []);
    assert!(!has_files(again.root()));
}

#[test]
fn an_image_whose_device_is_gone_is_noticed() {
    let Some(mut fixture) = Fixture::new() else {
        return;
    };
    let lease = fixture.store.lease().unwrap();
    let (first, key) = fixture.copy(&lease, "first", None);
    let (second, second_key) = fixture.copy(&lease, "second", Some(key));
    let file = fixture.store.root().join("snapshots").join(first.as_str());
    std::fs::rename(&file, fixture.store.root().join("tmp/elsewhere")).unwrap();
    let problems = fixture.store.check().unwrap();
    let told = |id: &SnapshotId| {
        let name = format!("snapshot `{id}`");
        problems
            .iter()
            .any(|problem| problem.to_string().contains(&name))
    };
    assert!(told(&first) && told(&second), "{problems:?}");
    let error = lease.past(second_key).unwrap_err();
    assert!(
        error.to_string().contains("cannot open the image"),
        "{error}"
    );
    std::fs::rename(fixture.store.root().join("tmp/elsewhere"), file).unwrap();
}

#[test]
fn where_images_cannot_be_mounted_all_their_blocks_are_unpacked() {
    let Some(mut fixture) = Fixture::new() else {
        return;
    };
    let lease = fixture.store.lease().unwrap();
    let (_, key) = fixture.copy(&lease, "first", None);
    fixture.write(7, 77);
    let (second, _) = fixture.copy(&lease, "second", Some(key));
    drop(lease);
    let reason = Some("no EROFS".to_owned());
    let blind = fixture.store.again_by(Some(Arc::new(Images { reason })));
    assert_eq!(shown(&blind, &second), [0, 1, 2, 3, 4, 5, 6, 77]);
    assert_eq!(shown(&fixture.store, &second), [0, 1, 2, 3, 4, 5, 6, 77]);
    assert_eq!(blind.check().unwrap(), []);
}
