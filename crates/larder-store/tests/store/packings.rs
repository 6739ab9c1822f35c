//! Layers that are images, beside layers that are directories.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use larder_oci::{Digest, Layer};
use larder_store::{
    ActiveTree, ErrorKind, KeyDep, Lease, Mounter, NewKey, NewLayer, PruneRequest, SaveMode,
    SnapshotId, Store,
};
use larder_tree::copy::{self, FileAttributes};
use larder_tree::diff::LayerOptions;
use larder_tree::erofs::Files;
use larder_tree::tar::{Header, Kind, Reader, Writer};

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

/// Wants images, and would mount them if it had to.
#[derive(Debug)]
struct Unasked;

impl Mounter for Unasked {
    fn no_images(&self) -> Option<String> {
        None
    }

    fn wants_images(&self) -> bool {
        true
    }

    fn mount_image(&self, _files: &Files) -> io::Result<OwnedFd> {
        Err(io::Error::other("an image is mounted"))
    }
}

#[test]
fn what_lies_beneath_is_not_mounted_to_be_written_upon() {
    let place = TestStore::new();
    let store = place.again_by(Some(Arc::new(Unasked)));
    let lease = store.lease().unwrap();
    let base = [
        Header::new("tmp", Kind::Directory, 0o1777),
        Header::file("tmp/gone", 0),
        Header::new("to", Kind::Symlink("tmp".into()), 0o777),
    ];
    let base = pull(&lease, &base, None);
    let top = [
        Header::file("tmp/f", 0),
        Header::file("tmp/.wh.gone", 0),
        Header::file("nowhere/.wh.idle", 0),
    ];
    let top = pull(&lease, &top, Some(&base));
    assert!(is_image(&store, &base) && is_image(&store, &top));

    let attributes = FileAttributes {
        owner: None,
        timestamp: Some(0),
    };
    let image = lease.prepare_image(&new_snapshot(Some(&top), "image"));
    let image = image.unwrap().expect("the store makes images");
    for path in ["/to/f", "/to/gone"] {
        copy::mkfile(image.tree(), path, 0o600, b"new", attributes).unwrap();
    }
    let image = image.commit().unwrap();
    let active = lease.prepare(&new_snapshot(Some(&image), "directory"));
    let active = active.unwrap();
    let ActiveTree::Upper(tree) = active.tree().unwrap() else {
        panic!("overlayfs is there");
    };
    for path in ["/to/f", "/to/gone"] {
        copy::mkfile(&tree, path, 0o600, b"newer", attributes).unwrap();
    }
    let directory = active.commit().unwrap();

    for id in [&base, &top, &image, &directory] {
        let mut tar = Vec::new();
        let packed = store.write_layer(id, &mut tar, &LayerOptions::default());
        packed.unwrap();
        let mut reader = Reader::new(&tar[..]);
        let mut found = Vec::new();
        while let Some(header) = reader.next_entry().unwrap() {
            found.push((header.path.display().to_string(), header.mode));
        }
        if id == &image || id == &directory {
            let expected = [("tmp/", 0o1777), ("tmp/f", 0o600), ("tmp/gone", 0o600)];
            assert_eq!(found, expected.map(|(path, mode)| (path.to_owned(), mode)));
        }
    }
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
fn where_images_cannot_be_mounted_they_are_unpacked() {
    let Some(store) = TestStore::of_images(None) else {
        return;
    };
    let lease = store.lease().unwrap();
    let base = pull(
        &lease,
        &[
            Header::new("d", Kind::Directory, 0o1777),
            Header::file("gone", 0),
        ],
        None,
    );
    let headers = [
        Header::file("d/.wh..wh..opq", 0),
        Header::file("d/f", 0),
        Header::new("d/again", Kind::HardLink("d/f".into()), 0),
        Header::file(".wh.gone", 0),
    ];
    let image = pull(&lease, &headers, Some(&base));
    let above = layer(&lease, Some(&image), "above");
    let deps: &[Vec<KeyDep>] = &[];
    let new = NewKey {
        op: &digest("run"),
        output: 0,
        deps,
        snapshot: &above,
        mode: SaveMode::Keep,
    };
    lease.save(&new).unwrap();
    drop(lease);

    let reason = Some("no EROFS".to_owned());
    let blind = store.again_by(Some(Arc::new(Images { reason })));
    let lease = blind.lease().unwrap();
    let found = lease.query(&digest("run"), 0, deps).unwrap();
    let found = found[0].result.clone().map(|result| result.snapshot);
    assert_eq!(found, Some(above.clone()), "it is no miss");
    let (_, chain_id) = archive(&headers);
    let known = lease.snapshot_by_chain_id(&chain_id).unwrap();
    assert_eq!(known.as_ref(), Some(&image));
    assert!(!blind.makes_images());

    let sizes = |store: &Store| -> u64 {
        let records = store.du(&[]).unwrap();
        let images = records.iter().filter(|it| it.id == base || it.id == image);
        images.map(|record| record.size_bytes).sum()
    };
    let before = sizes(&blind);
    let layers = lowers(&blind.view(&above).unwrap());
    assert_eq!(layers.len(), 3);
    assert!(layers.iter().all(|layer| layer.starts_with(blind.root())));
    assert_eq!(
        modes(&blind, &above, "d"),
        [None, Some(0o1777), Some(0o1777)]
    );
    let seen = |path: &str| std::fs::symlink_metadata(layers[1].join(path)).unwrap();
    assert!(seen("gone").file_type().is_char_device());
    assert_eq!(seen("d/f").ino(), seen("d/again").ino());
    let mut opaque = [0; 1];
    rustix::fs::lgetxattr(layers[1].join("d"), "trusted.overlay.opaque", &mut opaque).unwrap();
    assert_eq!(&opaque, b"y");
    assert_eq!(lowers(&blind.view(&above).unwrap()), layers, "made once");
    let unpacked: u64 = layers[1..]
        .iter()
        .map(|layer| disk_usage(layer.parent().unwrap()))
        .sum();
    assert_eq!(
        sizes(&blind) - before,
        unpacked,
        "they belong to their images"
    );

    // What isn't mounted can be packed all the same.
    let mut written = Vec::new();
    let options = LayerOptions::default();
    blind.write_layer(&image, &mut written, &options).unwrap();
    assert!(!written.is_empty());
    assert_eq!(blind.check().unwrap(), []);
    drop(lease);

    let roots = lowers(&store.view(&above).unwrap());
    assert!(!roots[1].starts_with(store.root()), "who can mount it does");
    assert_eq!(store.prune_all().len(), 3);
    assert_eq!(leftovers(&store), Vec::<String>::new());
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
