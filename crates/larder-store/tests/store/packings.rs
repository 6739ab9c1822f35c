//! Layers that are images, beside layers that are directories.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use larder_oci::{Digest, Layer};
use larder_store::{
    ErrorKind, KeyDep, Lease, NewKey, NewLayer, PruneRequest, SaveMode, SnapshotId, Store,
};
use larder_tree::copy::{self, FileAttributes};
use larder_tree::diff::LayerOptions;
use larder_tree::tar::{Header, Kind, Writer};

use crate::mounter::Images;
use crate::support::{TestStore, digest, disk_usage, layer, leftovers, lowers, new_snapshot};

/// An archive of `headers`, and its digest.
fn archive(headers: &[Header]) -> (Vec<u8>, Digest) {
    let mut tar = Writer::new(Vec::new());
    for header in headers {
        tar.append(header).unwrap();
    }
    let bytes = tar.finish().unwrap();
    let digest = Digest::sha256(&bytes);
    (bytes, digest)
}

/// Unpacks an archive of `headers` upon `parent`.
fn pull(lease: &Lease, headers: &[Header], parent: Option<&SnapshotId>) -> SnapshotId {
    let (bytes, diff_id) = archive(headers);
    let unpacked = lease.unpack(&diff_id, &bytes[..], &mut |_| {}).unwrap();
    let new = NewLayer {
        parent,
        chain_id: &diff_id,
        blob: None,
        description: "pulled",
        created_at: None,
    };
    lease.link(unpacked, &new).unwrap()
}

fn is_image(store: &Store, id: &SnapshotId) -> bool {
    file_of(store, id).is_file()
}

fn file_of(store: &Store, id: &SnapshotId) -> PathBuf {
    store.root().join("snapshots").join(id.as_str())
}

/// What is at `path` of each of a view's layers, topmost first.
fn modes(store: &Store, id: &SnapshotId, path: &str) -> Vec<Option<u32>> {
    let view = store.view(id).unwrap();
    let mode = |layer: PathBuf| std::fs::symlink_metadata(layer.join(path)).ok();
    let found = lowers(&view).into_iter().map(mode);
    found
        .map(|found| found.map(|found| found.mode() & 0o7777))
        .collect()
}

#[test]
fn what_is_unpacked_is_one_file() {
    let Some(store) = TestStore::of_images(None) else {
        return;
    };
    let lease = store.lease().unwrap();
    let headers = [
        Header::new("d", Kind::Directory, 0o1777),
        Header::new("d/f", Kind::Symlink("g".into()), 0o777),
    ];
    let id = pull(&lease, &headers, None);
    assert!(is_image(&store, &id));
    assert_eq!(modes(&store, &id, "d"), [Some(0o1777)]);
    let (bytes, diff_id) = archive(&headers);
    let mut written = Vec::new();
    let found = store.write_layer(&id, &mut written, &LayerOptions::default());
    assert_eq!(found.unwrap().0, diff_id, "what comes out is what went in");
    assert_eq!(written, bytes);
    let size = store.snapshot(&id).unwrap().size_bytes;
    assert_eq!(size, disk_usage(&file_of(&store, &id)));

    // The same mount serves all views, of other leases too.
    let view = store.view(&id).unwrap();
    assert_eq!(store.view(&id).unwrap(), view);
    let above = layer(&lease, Some(&id), "above");
    assert!(!is_image(&store, &above));
    assert_eq!(lowers(&store.view(&above).unwrap()).len(), 2);
    store.assert_sound();

    lease.release().unwrap();
    drop(view);
    assert_eq!(store.prune_all(), ["above", "pulled"]);
    assert!(!file_of(&store, &id).exists());
    assert_eq!(leftovers(&store), Vec::<String>::new());
}

#[test]
fn what_an_archive_only_implies_is_as_it_is_below() {
    let Some(store) = TestStore::of_images(None) else {
        return;
    };
    let lease = store.lease().unwrap();
    let base = pull(
        &lease,
        &[
            Header::new("tmp", Kind::Directory, 0o1777),
            Header::file("tmp/gone", 0),
        ],
        None,
    );
    let top = pull(
        &lease,
        &[
            Header::file("tmp/f", 0),
            Header::file("tmp/.wh.gone", 0),
            Header::file("nowhere/.wh.idle", 0),
        ],
        Some(&base),
    );
    assert!(is_image(&store, &base) && is_image(&store, &top));
    assert_eq!(modes(&store, &top, "tmp"), [Some(0o1777); 2]);
    let directory = lowers(&store.view(&top).unwrap()).remove(0);
    let whiteout = std::fs::symlink_metadata(directory.join("tmp/gone")).unwrap();
    assert!(whiteout.file_type().is_char_device());
    assert!(!directory.join("nowhere/idle").exists(), "it hides nothing");

    let alone = pull(&lease, &[Header::file("d/.wh.idle", 0)], None);
    let directory = lowers(&store.view(&alone).unwrap()).remove(0);
    assert_eq!(std::fs::read_dir(directory.join("d")).unwrap().count(), 0);
}

#[test]
fn an_image_can_be_written_upon_what_is_there() {
    let Some(store) = TestStore::of_images(None) else {
        return;
    };
    let lease = store.lease().unwrap();
    let base = pull(&lease, &[Header::new("d", Kind::Directory, 0o700)], None);
    let image = lease.prepare_image(&new_snapshot(Some(&base), "COPY"));
    let image = image.unwrap().expect("the store makes images");
    let attributes = FileAttributes {
        owner: None,
        timestamp: Some(0),
    };
    copy::mkfile(image.tree(), "/d/f", 0o644, b"text", attributes).unwrap();
    let id = image.commit().unwrap();
    assert!(is_image(&store, &id));
    assert_eq!(modes(&store, &id, "d"), [Some(0o700); 2]);
    let directory = lowers(&store.view(&id).unwrap()).remove(0);
    assert_eq!(
        std::fs::read_to_string(directory.join("d/f")).unwrap(),
        "text"
    );
    store.assert_sound();

    let dropped = lease.prepare_image(&new_snapshot(None, "dropped")).unwrap();
    drop(dropped);
    assert_eq!(lease.store().check().unwrap(), []);
    drop(lease);
    assert_eq!(leftovers(&store), Vec::<String>::new());
}

#[test]
fn a_damaged_archive_leaves_no_image() {
    let Some(store) = TestStore::of_images(None) else {
        return;
    };
    let lease = store.lease().unwrap();
    let (bytes, diff_id) = archive(&[Header::file("f", 0)]);
    for (expected, bytes) in [(&digest("other"), &bytes[..]), (&diff_id, &bytes[..700])] {
        let error = lease.unpack(expected, bytes, &mut |_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    drop(lease);
    assert_eq!(leftovers(&store), Vec::<String>::new());
}

#[test]
fn an_image_that_was_cut_short_is_noticed() {
    let Some(store) = TestStore::of_images(None) else {
        return;
    };
    let lease = store.lease().unwrap();
    let id = pull(&lease, &[Header::file("f", 0)], None);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(file_of(&store, &id));
    file.unwrap().set_len(1500).unwrap();
    let problems = store.check().unwrap();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].to_string().contains("has lost its files"));
}

#[test]
fn where_images_cannot_be_mounted_they_are_misses() {
    let Some(store) = TestStore::of_images(None) else {
        return;
    };
    let lease = store.lease().unwrap();
    let headers = [Header::file("f", 0)];
    let image = pull(&lease, &headers, None);
    let above = layer(&lease, Some(&image), "above");
    let deps: &[Vec<KeyDep>] = &[];
    let save = |lease: &Lease, op: &str, snapshot: &SnapshotId| {
        let new = NewKey {
            op: &digest(op),
            output: 0,
            deps,
            snapshot,
            mode: SaveMode::Keep,
        };
        lease.save(&new).unwrap().result.snapshot
    };
    save(&lease, "pull", &image);
    save(&lease, "run", &above);
    let found = |lease: &Lease, op: &str| {
        let matches = lease.query(&digest(op), 0, deps).unwrap();
        matches[0].result.clone().map(|result| result.snapshot)
    };
    assert_eq!(found(&lease, "run"), Some(above.clone()));
    drop(lease);

    let reason = Some("no EROFS".to_owned());
    for mounter in [None, Some(Images { reason })] {
        let says_why = mounter.is_some();
        let blind = store.again_by(mounter.map(|mounter| Arc::new(mounter) as _));
        let lease = blind.lease().unwrap();
        assert!(!blind.can_show(&above).unwrap());
        let error = blind.view(&above).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert_eq!(error.to_string().ends_with("no EROFS"), says_why, "{error}");
        assert_eq!((found(&lease, "pull"), found(&lease, "run")), (None, None));
        assert_eq!(blind.check().unwrap(), [], "they are there nevertheless");
        if !says_why {
            continue;
        }
        let (_, chain_id) = archive(&headers);
        assert_eq!(lease.snapshot_by_chain_id(&chain_id).unwrap(), None);
        let again = pull(&lease, &headers, None);
        assert_ne!(again, image);
        assert!(!is_image(&blind, &again));
        assert_eq!(save(&lease, "pull", &again), again, "it takes the place");
        assert_eq!(found(&lease, "pull"), Some(again.clone()));
        assert_eq!(lease.snapshot_by_chain_id(&chain_id).unwrap(), Some(again));
    }
    let lease = store.lease().unwrap();
    assert_eq!(found(&lease, "run"), Some(above), "who can see it finds it");
}

#[test]
fn chains_with_many_images_are_flattened() {
    let Some(store) = TestStore::of_images(None) else {
        return;
    };
    let lease = store.lease().unwrap();
    let pulled = |index| pull(&lease, &[Header::file(format!("f{index}"), 0)], None);
    let mut inputs: Vec<_> = (0..230).map(pulled).collect();
    inputs.push(layer(&lease, None, "directory"));
    let merged = lease.merge(&inputs, "merge").unwrap();
    let top = layer(&lease, Some(&merged), "top");
    let view = store.view(&top).unwrap();
    let larder_oci::MountKind::Overlay { lowers: layers, .. } = &view.kind else {
        panic!("a view of two layers is an overlay");
    };
    let is_directory = |layer: &Layer| matches!(layer, Layer::Directory(_));
    assert!(layers.len() == 2 && layers.iter().all(is_directory));
    let mut names: Vec<_> = lowers(&view)
        .iter()
        .flat_map(|layer| std::fs::read_dir(layer).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 232);
    drop((view, lease));
    store.assert_sound();
    let expected: u64 = disk_usage(store.root());
    let listed: u64 = store
        .du(&[])
        .unwrap()
        .iter()
        .map(|record| record.size_bytes)
        .sum();
    assert!(
        listed.abs_diff(expected) * 100 <= expected,
        "{listed}, {expected}"
    );
    store.prune(&PruneRequest::default(), &mut |_| {}).unwrap();
    assert_eq!(
        std::fs::read_dir(store.root().join("snapshots"))
            .unwrap()
            .count(),
        0
    );
}
