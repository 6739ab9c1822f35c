//! The ceiling: nothing that is written passes it.

use std::io::Write;
use std::time::Duration;

use larder_oci::{Digest, ImageRef, media_type};
use larder_store::{
    ActiveSnapshot, CacheMountRequest, Ceiling, ErrorKind, Lease, NewImage, Sharing, SnapshotId,
    Snapshotter, Store,
};

use crate::support::{OVERLAY, TestStore, disk_usage, leftovers, new_snapshot, upper};

const MB: u64 = 1_000_000;
/// Enough for a dozen records of a megabyte beside what the store itself needs.
const MAX: u64 = 17 * MB;

fn ceiling() -> Ceiling {
    Ceiling {
        max_bytes: MAX,
        mounts_bytes: MAX / 2,
        reserved_bytes: 0,
        min_free_bytes: 0,
    }
}

pub(crate) fn bounded() -> TestStore {
    TestStore::bounded(OVERLAY, Some(ceiling()))
}

/// Commits a snapshot with one file of `size` bytes.
fn heavy(lease: &Lease, name: &str, size: u64) -> larder_store::Result<SnapshotId> {
    filled(lease, name, size)?.commit()
}

/// Makes a writable snapshot with one file of `size` bytes.
fn filled(lease: &Lease, name: &str, size: u64) -> larder_store::Result<ActiveSnapshot> {
    let active = lease.prepare(&new_snapshot(None, name))?;
    let taken = active.quota().take(size);
    taken
        .map_err(|error| *error.into_inner().unwrap().downcast().unwrap())
        .and_then(|()| {
            let file = upper(&active.mount()?).join("file");
            std::fs::write(file, vec![1; size as usize]).unwrap();
            Ok(active)
        })
}

fn exists(store: &Store, id: &SnapshotId) -> bool {
    store.snapshot(id).is_ok()
}

#[track_caller]
fn assert_below(store: &TestStore) {
    let used = disk_usage(store.root());
    assert!(used <= MAX, "{used} bytes are used");
    store.assert_sound();
}

#[test]
fn the_least_valuable_goes_for_what_is_new() {
    let store = bounded();
    let mut made = Vec::new();
    for number in 0..60 {
        store.advance(Duration::from_secs(1));
        let lease = store.lease().unwrap();
        made.push(heavy(&lease, &number.to_string(), MB).unwrap());
        lease.release().unwrap();
        assert_below(&store);
    }
    let left: Vec<bool> = made.iter().map(|id| exists(&store, id)).collect();
    let count = left.iter().filter(|exists| **exists).count();
    assert!((8..=15).contains(&count), "{count} records are left");
    let first = left.iter().position(|exists| *exists).unwrap();
    assert!(left[first..].iter().all(|exists| *exists), "{left:?}");
    assert_eq!(leftovers(&store), Vec::<String>::new());
}

#[test]
fn what_a_build_needs_stays_and_the_refusal_says_so() {
    let store = bounded();
    let other = store.lease().unwrap();
    let foreign = heavy(&other, "another build's", 6 * MB).unwrap();
    let idle = {
        let lease = store.lease().unwrap();
        heavy(&lease, "idle", MB).unwrap()
    };
    let lease = store.lease().unwrap();
    let own = heavy(&lease, "own", 6 * MB).unwrap();
    let error = heavy(&lease, "too much", 6 * MB).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FullDisk);
    let text = error.to_string();
    for part in [
        "the ceiling of the cache, 17 MB",
        "no room for 6 MB",
        "running builds 12",
        "\nhint: ",
        "`max` of `[cache]`",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // What would not have been enough was not removed.
    assert!([&foreign, &idle, &own].map(|id| exists(&store, id)) == [true; 3]);
    other.release().unwrap();
    heavy(&lease, "fits now", 6 * MB).unwrap();
    assert!(!exists(&store, &foreign) && exists(&store, &own));
    assert_below(&store);
}

#[test]
fn what_is_committed_soon_counts_all_the_time_and_once_in_the_end() {
    let store = bounded();
    let other = store.again();
    let lease = store.lease().unwrap();
    let soon = filled(&lease, "soon", 6 * MB)
        .unwrap()
        .commit_soon()
        .unwrap();
    // Another process, which finds no room whether it looks before or after the commit.
    let refused = std::thread::scope(|scope| {
        let writer = scope.spawn(|| heavy(&other.lease().unwrap(), "too much", 12 * MB));
        while !writer.is_finished() {
            assert!(exists(&store, &soon));
        }
        writer.join().unwrap()
    });
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::FullDisk);
    // With what the first had reserved, this would be too much.
    heavy(&lease, "fits", 6 * MB).unwrap();
    assert!(exists(&other, &soon));
    assert_below(&store);
    lease.release().unwrap();
    assert_below(&store);
}

#[test]
fn who_makes_room_does_not_wait_for_its_own_commit() {
    let store = bounded();
    let idle = heavy(&store.lease().unwrap(), "idle", 7 * MB).unwrap();
    let lease = store.lease().unwrap();
    let soon = filled(&lease, "soon", 4 * MB)
        .unwrap()
        .commit_soon()
        .unwrap();
    heavy(&lease, "large", 7 * MB).unwrap();
    assert!(!exists(&store, &idle) && exists(&store, &soon));
    assert_below(&store);
}

#[test]
fn what_an_image_needs_stays() {
    let store = bounded();
    let lease = store.lease().unwrap();
    let snapshot = heavy(&lease, "of the image", 12 * MB).unwrap();
    let manifest = lease.put_blob(b"manifest").unwrap();
    let config = lease.put_blob(b"config").unwrap();
    let new = NewImage {
        manifest: &larder_oci::Descriptor::of(media_type::MANIFEST, b"manifest"),
        config: &config,
        platform: "linux/amd64",
        created_at: None,
        snapshot: Some(&snapshot),
        others: &[],
        blobs: &[manifest, config.clone()],
    };
    let name: ImageRef = "kept".parse().unwrap();
    lease.add_image(&new, &[name]).unwrap();
    lease.release().unwrap();
    let lease = store.lease().unwrap();
    let error = heavy(&lease, "too much", 6 * MB).unwrap_err().to_string();
    assert!(error.contains("images with a name take 12"), "{error}");
    assert!(error.contains("`larder rmi`"), "{error}");
    assert!(exists(&store, &snapshot));
    assert_below(&store);
}

#[test]
fn blobs_are_refused_before_they_are_written() {
    let store = bounded();
    let lease = store.lease().unwrap();
    let expected = (Digest::sha256("never"), 20 * MB);
    let error = lease.blob_writer(Some(expected)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FullDisk);
    // One of unknown length gets as far as there is room.
    let mut writer = lease.blob_writer(None).unwrap();
    let error = std::io::copy(&mut std::io::repeat(7), &mut writer).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert!(
        error.to_string().contains("the ceiling of the cache"),
        "{error}"
    );
    assert!(writer.offset() > 10 * MB);
    assert!(disk_usage(store.root()) <= MAX);
    drop(writer);
    heavy(&lease, "there is room again", 10 * MB).unwrap();
    assert_below(&store);
}

#[test]
fn processes_share_the_room() {
    let store = bounded();
    let (one, other) = (store.again(), store.again());
    let (one, other) = (one.lease().unwrap(), other.lease().unwrap());
    let expected = |name: &str| Some((Digest::sha256(name), 9 * MB));
    let writer = one.blob_writer(expected("one")).unwrap();
    let refused = other.blob_writer(expected("other")).unwrap_err();
    assert!(
        refused.to_string().contains("running builds 9"),
        "{refused}"
    );
    drop(writer);
    // A lease keeps some of what it gives back, but little.
    drop(other.blob_writer(expected("other")).unwrap());
    one.release().unwrap();
    other.release().unwrap();
    assert_eq!(leftovers(&store), Vec::<String>::new());
}

#[test]
fn what_a_killed_process_had_reserved_is_free_again() {
    let store = bounded();
    let id = "killed";
    std::fs::write(
        store.root().join("leases").join(id),
        (12 * MB).to_le_bytes(),
    )
    .unwrap();
    std::fs::create_dir(store.root().join("tmp").join(id)).unwrap();
    std::fs::write(
        store.root().join("tmp").join(id).join("half"),
        vec![1; MB as usize],
    )
    .unwrap();
    let lease = store.lease().unwrap();
    heavy(&lease, "needs the room", 10 * MB).unwrap();
    lease.release().unwrap();
    assert_eq!(leftovers(&store), Vec::<String>::new());
    assert_below(&store);
}

/// Uses the cache mount `name` once, and writes a file of `size` bytes to it.
fn fill_mount(store: &TestStore, name: &str, size: u64) {
    store.advance(Duration::from_secs(1));
    let lease = store.lease().unwrap();
    let request = CacheMountRequest {
        name,
        seed: "",
        sharing: Sharing::Locked,
        description: name,
        owner: None,
        mode: 0o755,
        fill: None,
    };
    let mut guards = lease
        .acquire_cache_mounts(&[request], &|| false, &|| {})
        .unwrap();
    let guard = guards.remove(0);
    let file = std::fs::File::create(upper(&guard.mount()).join("file"));
    file.unwrap().write_all(&vec![1; size as usize]).unwrap();
    drop(guard);
    lease.release().unwrap();
}

fn mounts(store: &TestStore) -> Vec<String> {
    let records = store
        .du(&["type==exec.cachemount".parse().unwrap()])
        .unwrap();
    let mut names: Vec<String> = records.into_iter().map(|one| one.description).collect();
    names.sort();
    names
}

#[test]
fn cache_mounts_within_their_budget_are_the_last_to_go() {
    let store = bounded();
    fill_mount(&store, "old", 2 * MB);
    fill_mount(&store, "new", 2 * MB);
    for number in 0..20 {
        store.advance(Duration::from_secs(1));
        let lease = store.lease().unwrap();
        heavy(&lease, &number.to_string(), MB).unwrap();
    }
    assert_eq!(mounts(&store), ["new", "old"], "records went first");
    let lease = store.lease().unwrap();
    heavy(&lease, "needs one of them", 11 * MB).unwrap();
    assert_eq!(mounts(&store), ["new"]);
    assert_below(&store);
}

#[test]
fn cache_mounts_beyond_their_budget_are_the_first_to_go() {
    let store = bounded();
    let record = {
        let lease = store.lease().unwrap();
        heavy(&lease, "record", 2 * MB).unwrap()
    };
    for (name, size) in [("a", 3), ("b", 3), ("c", 4)] {
        fill_mount(&store, name, size * MB);
    }
    assert_eq!(mounts(&store), ["a", "b", "c"]);
    let lease = store.lease().unwrap();
    heavy(&lease, "new", 3 * MB).unwrap();
    assert_eq!(mounts(&store), ["b", "c"]);
    assert!(exists(&store, &record));
    lease.release().unwrap();
    // The collector sees to the budget, too, but leaves the one used last.
    fill_mount(&store, "d", 10 * MB);
    store.gc(&[]).unwrap();
    assert_eq!(mounts(&store), ["d"]);
    assert_below(&store);
}

#[test]
fn what_a_process_writes_is_followed() {
    let store = bounded();
    let idle = {
        let lease = store.lease().unwrap();
        heavy(&lease, "idle", 4 * MB).unwrap()
    };
    let lease = store.lease().unwrap();
    let active = lease.prepare(&new_snapshot(None, "RUN")).unwrap();
    let mut watch = lease.watch([&active], []).unwrap().unwrap();
    let directory = upper(&active.mount().unwrap());
    let mut written = 0;
    let refused = loop {
        std::fs::write(directory.join(written.to_string()), vec![1; 200_000]).unwrap();
        written += 1;
        // As often as it takes until the trees are measured for certain.
        if let Some(error) = (0..50).find_map(|_| watch.look().err()) {
            break error;
        }
        assert!(written < 100, "nobody noticed");
    };
    assert_eq!(refused.kind(), ErrorKind::FullDisk);
    assert!(written * 200_000 > 10 * MB, "{written}");
    assert!(!exists(&store, &idle), "it stood in the way");
    assert!(disk_usage(store.root()) <= MAX);
    drop((watch, active));
    heavy(&lease, "there is room again", 10 * MB).unwrap();
    assert_below(&store);
}

#[test]
fn a_watched_snapshot_is_paid_for_once() {
    let store = bounded();
    let lease = store.lease().unwrap();
    let active = lease.prepare(&new_snapshot(None, "RUN")).unwrap();
    let mut watch = lease.watch([&active], []).unwrap().unwrap();
    let file = upper(&active.mount().unwrap()).join("file");
    std::fs::write(file, vec![1; 8 * MB as usize]).unwrap();
    (0..50).for_each(|_| watch.look().unwrap());
    drop(watch);
    active.commit().unwrap();
    heavy(&lease, "beside it", 4 * MB).unwrap();
    assert_below(&store);
}

#[test]
fn processes_in_one_tree_share_its_reserve() {
    let store = bounded();
    let lease = store.lease().unwrap();
    let active = lease.prepare(&new_snapshot(None, "container")).unwrap();
    for _ in 0..100 {
        let watch = lease.watch([&active], []).unwrap();
        assert!(watch.is_some());
    }
    heavy(&lease, "there is room", 10 * MB).unwrap();
}

#[test]
fn volumes_are_no_cache() {
    let store = bounded();
    std::fs::create_dir(store.volumes_dir()).unwrap();
    std::fs::write(store.volumes_dir().join("data"), vec![1; 20 * MB as usize]).unwrap();
    heavy(&store.lease().unwrap(), "there is room", 10 * MB).unwrap();
    let counted: u64 = store
        .du(&[])
        .unwrap()
        .iter()
        .map(|one| one.size_bytes)
        .sum();
    assert!(counted < 12 * MB, "{counted}");
}

#[test]
fn the_disk_keeps_what_is_to_stay_free() {
    let all = Ceiling {
        max_bytes: u64::MAX,
        min_free_bytes: u64::MAX / 2,
        ..ceiling()
    };
    let store = TestStore::bounded(OVERLAY, Some(all));
    let lease = store.lease().unwrap();
    let error = heavy(&lease, "any", MB).unwrap_err().to_string();
    assert!(error.contains("of the disk are to stay free"), "{error}");
    assert!(error.contains("`min-free`"), "{error}");
    let none = TestStore::bounded(
        OVERLAY,
        Some(Ceiling {
            min_free_bytes: 1,
            ..all
        }),
    );
    heavy(&none.lease().unwrap(), "any", MB).unwrap();
}

#[test]
fn copies_of_trees_are_reserved_too() {
    let store = TestStore::bounded(Snapshotter::Native, Some(ceiling()));
    let lease = store.lease().unwrap();
    let base = heavy(&lease, "base", 5 * MB).unwrap();
    let child = |name| {
        let active = lease.prepare(&new_snapshot(Some(&base), name))?;
        active.commit()
    };
    child("second").unwrap();
    let error = child("third").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FullDisk, "{error}");
    assert_below(&store);
}

#[test]
fn without_a_ceiling_nothing_is_reserved() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    heavy(&lease, "any", MB).unwrap();
    for entry in std::fs::read_dir(store.root().join("leases")).unwrap() {
        let file = std::fs::read(entry.unwrap().path()).unwrap();
        assert_eq!(file[..8], [0; 8]);
    }
    let active = lease.prepare(&new_snapshot(None, "RUN")).unwrap();
    assert!(lease.watch([&active], []).unwrap().is_none());
}
