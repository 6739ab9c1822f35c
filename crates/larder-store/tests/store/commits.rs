//! How often a step has the database commit.

use std::path::Path;

use larder_store::{KeyDep, Lease, NewKey, SaveMode, SnapshotId};

use crate::ceiling::bounded;
use crate::support::{TestStore, digest, layer, new_snapshot};

/// The header of the log, and of each page in it.
const LOG_HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

/// Returns how many commits are in the database's log since it began anew.
fn commit_count(root: &Path) -> usize {
    let log = std::fs::read(root.join("larder.db-wal")).unwrap();
    if log.is_empty() {
        return 0;
    }
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes[..4].try_into().unwrap());
    let page_bytes = number(&log[8..]) as usize;
    let salts = &log[16..24];
    let frames = log[LOG_HEADER_BYTES..].chunks_exact(FRAME_HEADER_BYTES + page_bytes);
    let frames = frames.take_while(|frame| frame[8..16] == *salts);
    // A frame that ends a commit has the database's length.
    frames.filter(|frame| number(&frame[4..]) != 0).count()
}

/// Does what a step does that is not cached.
fn step(lease: &Lease, name: &str, parent: &SnapshotId) -> SnapshotId {
    let store = lease.store();
    let op = digest(name);
    let deps = [vec![KeyDep {
        key: larder_store::CacheKey::content(digest("input")),
        selector: None,
    }]];
    let _key = lease.try_lock_key(&op).unwrap().unwrap();
    assert!(lease.query(&op, 0, &deps).unwrap().is_empty());
    store.linked(&op, 0, &deps).unwrap();
    let active = lease.prepare(&new_snapshot(Some(parent), name)).unwrap();
    drop(active.tree().unwrap());
    let snapshot = active.commit_soon().unwrap();
    let new = NewKey {
        op: &op,
        output: 0,
        deps: &deps,
        snapshot: &snapshot,
        mode: SaveMode::Keep,
    };
    let saved = lease.save(&new).unwrap();
    assert_eq!(saved.result.snapshot, snapshot);
    snapshot
}

#[test]
fn the_log_stays_short_however_many_processes_commit_once() {
    let mut store = TestStore::new();
    let base = layer(&store.lease().unwrap(), None, "base");
    let mut longest = 0;
    for _ in 0..200 {
        store = store.reopened();
        let lease = store.lease().unwrap();
        assert!(lease.hold_snapshots(std::slice::from_ref(&base)).unwrap());
        lease.release().unwrap();
        longest = longest.max(commit_count(store.root()));
    }
    assert!((20..200).contains(&longest), "{longest} commits");
    store.assert_sound();
}

#[test]
fn a_step_commits_once() {
    steps_commit_once(&TestStore::new());
}

#[test]
fn a_step_commits_once_under_a_ceiling() {
    steps_commit_once(&bounded());
}

fn steps_commit_once(store: &TestStore) {
    let lease = store.lease().unwrap();
    let mut top = layer(&lease, None, "base");
    let before = commit_count(store.root());
    for name in ["one", "two", "three"] {
        top = step(&lease, name, &top);
    }
    assert_eq!(commit_count(store.root()) - before, 3);
    lease.release().unwrap();
    store.assert_sound();
}

#[test]
fn what_is_committed_soon_is_known_at_once() {
    becomes_known(&TestStore::new());
    becomes_known(&bounded());
}

fn becomes_known(store: &TestStore) {
    let other = store.again();
    let lease = store.lease().unwrap();
    let base = layer(&lease, None, "base");
    let commit = |name| {
        let active = lease.prepare(&new_snapshot(Some(&base), name)).unwrap();
        active.commit_soon().unwrap()
    };
    let one = commit("one");
    assert!(other.snapshot(&one).is_err(), "not known elsewhere yet");
    assert_eq!(store.snapshot(&one).unwrap().description, "one");
    other.snapshot(&one).unwrap();
    // Who removes something waits for what others have not made known, but not for itself.
    commit("two");
    store.sweep().unwrap();
    // A transaction that fails takes nothing of it away.
    let three = commit("three");
    let missing: SnapshotId = "0".repeat(25).parse().unwrap();
    assert!(lease.merge(&[missing], "none").is_err());
    other.snapshot(&three).unwrap();
    // Nor does the end of the lease.
    let four = commit("four");
    lease.release().unwrap();
    other.snapshot(&four).unwrap();
    store.assert_sound();
}
