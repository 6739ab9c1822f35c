use std::time::Duration;

use larder_oci::{Descriptor, media_type};
use larder_store::{
    CacheKey, DiskSpace, KeyDep, Lease, NewImage, NewKey, NewSnapshot, PruneRequest, RecordType,
    SaveMode, SnapshotId, default_policies,
};

use crate::support::{DAY, TestStore, digest, layer, new_snapshot, upper};

fn heavy(lease: &Lease, parent: Option<&SnapshotId>, name: &str) -> SnapshotId {
    let active = lease.prepare(&new_snapshot(parent, name)).unwrap();
    std::fs::write(upper(&active.mount().unwrap()).join(name), vec![1; 1 << 20]).unwrap();
    active.commit().unwrap()
}

/// Uses `id` in a build of its own.
fn touch(store: &TestStore, id: &SnapshotId) {
    let lease = store.lease().unwrap();
    assert!(lease.hold_snapshots(std::slice::from_ref(id)).unwrap());
    lease.release().unwrap();
}

fn used(store: &TestStore) -> u64 {
    store
        .du(&[])
        .unwrap()
        .iter()
        .map(|record| record.size_bytes)
        .sum()
}

#[test]
fn children_go_before_their_parents() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let a = layer(&lease, None, "a");
    let b = layer(&lease, Some(&a), "b");
    let c = layer(&lease, Some(&b), "c");
    let d = layer(&lease, None, "d");
    lease.merge(&[c, d], "merge").unwrap();
    lease.release().unwrap();
    let removed = store.prune_with(&PruneRequest::default());
    let position = |name: &str| removed.iter().position(|removed| removed == name).unwrap();
    assert_eq!(removed.len(), 5);
    for (child, parent) in [("merge", "c"), ("merge", "d"), ("c", "b"), ("b", "a")] {
        assert!(position(child) < position(parent), "{removed:?}");
    }
    store.assert_sound();
    assert_eq!(
        std::fs::read_dir(store.root().join("snapshots"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn what_a_lease_protects_stays() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let base = layer(&lease, None, "base");
    let top = layer(&lease, Some(&base), "top");
    layer(&lease, Some(&base), "side");
    let blob = lease.put_blob(b"blob").unwrap();
    assert_eq!(
        store.prune_all(),
        Vec::<String>::new(),
        "made under a living lease"
    );
    lease.release().unwrap();

    let other = store.again();
    let lease = other.lease().unwrap();
    assert!(lease.hold_snapshots(std::slice::from_ref(&top)).unwrap());
    assert!(lease.hold_blobs(std::slice::from_ref(&blob)).unwrap());
    assert_eq!(store.prune_all(), ["side"]);
    assert!(store.view(&top).is_ok() && store.has_blob(&blob).unwrap());
    lease.release().unwrap();
    assert_eq!(store.prune_all().len(), 3);
    assert!(
        !store.lease().unwrap().hold_snapshots(&[top]).unwrap(),
        "gone is gone"
    );
    store.assert_sound();
}

#[test]
fn only_what_was_not_used_for_long_goes() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    layer(&lease, None, "old");
    let used = layer(&lease, None, "used");
    lease.release().unwrap();
    store.advance(DAY);
    touch(&store, &used);
    store.advance(Duration::from_secs(60));
    let old = PruneRequest {
        keep_duration: DAY,
        ..PruneRequest::default()
    };
    assert_eq!(store.prune_with(&old), ["old"]);
    let by_filter = PruneRequest {
        filters: vec!["until=24h".parse().unwrap()],
        ..PruneRequest::default()
    };
    assert_eq!(store.prune_with(&by_filter), Vec::<String>::new());
    store.advance(DAY);
    assert_eq!(store.prune_with(&by_filter), ["used"]);
}

#[test]
fn a_limit_takes_the_least_valuable_first() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let ids: Vec<_> = ["a", "b", "c", "d"]
        .map(|name| heavy(&lease, None, name))
        .into();
    lease.release().unwrap();
    // d is used last, a most often; b is the oldest that is used least.
    for id in [&ids[1], &ids[2], &ids[0], &ids[0], &ids[0], &ids[3]] {
        store.advance(Duration::from_secs(60));
        touch(&store, id);
    }
    let limited = |bytes| PruneRequest {
        max_used_space: bytes,
        ..PruneRequest::default()
    };
    assert_eq!(
        store.prune_with(&limited(used(&store))),
        Vec::<String>::new()
    );
    assert_eq!(store.prune_with(&limited(used(&store) - 1)), ["b"]);
    let reserved = PruneRequest {
        reserved_space: used(&store),
        ..limited(1)
    };
    assert_eq!(store.prune_with(&reserved), Vec::<String>::new());
    assert_eq!(
        store.prune_with(&limited(used(&store) - (3 << 19))),
        ["c", "d"]
    );
    let keep = PruneRequest {
        reserved_space: 1,
        ..PruneRequest::default()
    };
    assert_eq!(store.prune_with(&keep), ["a"], "down to what is reserved");
}

#[test]
fn internal_and_frontend_records_go_only_with_all() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    for (record_type, name) in [
        (RecordType::Internal, "internal"),
        (RecordType::Frontend, "frontend"),
        (RecordType::GitCheckout, "git"),
    ] {
        let new = NewSnapshot {
            parent: None,
            description: name,
            record_type,
        };
        lease.prepare(&new).unwrap().commit().unwrap();
    }
    lease.put_blob(b"blob").unwrap();
    lease.release().unwrap();
    assert_eq!(store.prune_with(&PruneRequest::default()), ["git"]);
    assert_eq!(store.prune_all().len(), 3);
}

/// Saves `snapshot` under a key that the key `from` leads to.
fn save_from(lease: &Lease, from: CacheKey, snapshot: &SnapshotId) -> CacheKey {
    let key = NewKey {
        op: &digest(snapshot.as_str()),
        output: 0,
        deps: &[vec![KeyDep {
            key: from,
            selector: None,
        }]],
        snapshot,
        mode: SaveMode::Keep,
    };
    CacheKey::Record(lease.save(&key).unwrap().key)
}

#[test]
fn keys_go_when_they_lead_to_nothing() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let mut key = CacheKey::root(digest("base"), 0);
    for name in ["first", "second", "third", "fourth"] {
        key = save_from(&lease, key, &layer(&lease, None, name));
    }
    lease.release().unwrap();
    let db = rusqlite::Connection::open(store.root().join("larder.db")).unwrap();
    let count = || {
        db.query_row("SELECT count(*) FROM keys", [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    assert_eq!(count(), 5);
    for (name, left) in [("second", 5), ("fourth", 4), ("third", 2), ("first", 0)] {
        let request = PruneRequest {
            filters: vec![format!("description=={name}").parse().unwrap()],
            ..PruneRequest::default()
        };
        assert_eq!(store.prune_with(&request), [name]);
        assert_eq!(count(), left, "without {name}");
    }
    store.assert_sound();
}

#[test]
fn what_an_image_shares_loses_its_results_only() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let base = layer(&lease, None, "base");
    let top = layer(&lease, Some(&base), "top");
    let deps = [vec![KeyDep {
        key: CacheKey::root(digest("base"), 0),
        selector: None,
    }]];
    let op = digest("op");
    let key = NewKey {
        op: &op,
        output: 0,
        deps: &deps,
        snapshot: &top,
        mode: SaveMode::Keep,
    };
    let key = lease.save(&key).unwrap().key;
    let config = lease.put_blob(b"config").unwrap();
    let manifest = Descriptor::of(media_type::MANIFEST, b"manifest");
    lease.put_blob(b"manifest").unwrap();
    let image = NewImage {
        manifest: &manifest,
        config: &config,
        platform: "linux/amd64",
        created_at: None,
        snapshot: Some(&top),
        others: &[],
        blobs: &[],
    };
    lease.add_image(&image, &["app".parse().unwrap()]).unwrap();
    lease.release().unwrap();

    let shared = store
        .du(&["shared,type==regular".parse().unwrap()])
        .unwrap();
    assert_eq!(shared.len(), 2);
    assert_eq!(
        store.prune_with(&PruneRequest::default()),
        Vec::<String>::new()
    );
    let under_limit = PruneRequest {
        all: true,
        reserved_space: 1,
        ..PruneRequest::default()
    };
    assert_eq!(
        store.prune_with(&under_limit),
        Vec::<String>::new(),
        "would free nothing"
    );
    assert_eq!(store.prune_all(), ["top"]);
    assert!(store.pruned_at(key).unwrap().is_some());
    assert!(store.view(&top).is_ok(), "the image needs it");
    assert_eq!(store.prune_all(), Vec::<String>::new());
    store.remove_image(&manifest.digest).unwrap();
    assert_eq!(store.prune_all(), ["top", "base"]);
    store.assert_sound();
}

#[test]
fn blobs_of_a_layer_go_with_it() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let (one, two) = (layer(&lease, None, "one"), layer(&lease, None, "two"));
    let blob = lease.put_blob(&vec![1; 100_000]).unwrap();
    let form = Descriptor::new(media_type::LAYER_ZSTD, blob.clone(), 100_000);
    for id in [&one, &two] {
        store.add_layer_blob(id, &form).unwrap();
    }
    assert!(store.snapshot(&one).unwrap().blobs[0].stored);
    lease.release().unwrap();
    let sizes = || {
        let records = store.du(&["type==regular".parse().unwrap()]).unwrap();
        records
            .iter()
            .filter(|record| record.size_bytes >= 100_000)
            .count()
    };
    assert_eq!(sizes(), 1, "counted once");
    let first = PruneRequest {
        filters: vec!["description==one".parse().unwrap()],
        ..PruneRequest::default()
    };
    assert_eq!(store.prune_with(&first), ["one"]);
    assert!(store.has_blob(&blob).unwrap());
    assert_eq!(sizes(), 1);
    assert_eq!(store.prune_with(&PruneRequest::default()), ["two"]);
    assert!(!store.has_blob(&blob).unwrap());
    store.assert_sound();
}

#[test]
fn the_collector_keeps_to_its_policies() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    heavy(&lease, None, "a");
    heavy(&lease, None, "b");
    lease.release().unwrap();
    let huge = DiskSpace {
        total_bytes: 1 << 50,
        free_bytes: 1 << 49,
    };
    assert_eq!(store.gc(&default_policies(huge)).unwrap(), 0);
    let tight = [PruneRequest {
        max_used_space: 3 << 19,
        ..PruneRequest::default()
    }];
    assert!(store.gc(&tight).unwrap() >= 1 << 20);
    assert_eq!(store.gc(&tight).unwrap(), 0);
}

#[test]
fn a_policy_without_success_waits_for_growth_or_age() {
    let store = TestStore::new();
    let fill = |name: &str| {
        let lease = store.lease().unwrap();
        heavy(&lease, None, name);
        lease.release().unwrap();
    };
    fill("a");
    let policy = [PruneRequest {
        max_used_space: 1,
        keep_duration: 10 * DAY,
        ..PruneRequest::default()
    }];
    let gc = || store.gc(&policy).unwrap() >> 20;
    assert_eq!(gc(), 0, "too young");
    // Made old behind the store's back: the collector would find it if it looked.
    let db = rusqlite::Connection::open(store.root().join("larder.db")).unwrap();
    let age = |name: &str| {
        let sql = "UPDATE snapshots SET created_at = 0, last_used_at = 0 WHERE description = ?";
        assert_eq!(db.execute(sql, [name]).unwrap(), 1);
    };
    age("a");
    assert_eq!(gc(), 0, "it does not look");
    fill("b");
    assert_eq!(gc(), 1, "the store has grown");
    age("b");
    assert_eq!(gc(), 0);
    let other = [PruneRequest {
        keep_duration: 11 * DAY,
        ..policy[0].clone()
    }];
    assert_eq!(store.gc(&other).unwrap() >> 20, 1, "a policy of its own");
    fill("c");
    assert_eq!(gc(), 0);
    store.advance(DAY + DAY / 2);
    assert_eq!(gc(), 0, "looks once more, in vain");
    store.advance(8 * DAY);
    assert_eq!(gc(), 0);
    store.advance(DAY / 2);
    assert_eq!(gc(), 1, "old enough");
    store.assert_sound();
}

#[test]
fn children_of_many_batches_go_before_their_parents() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let mut parent = None;
    for step in 0..150 {
        parent = Some(layer(&lease, parent.as_ref(), &step.to_string()));
    }
    lease.release().unwrap();
    let removed = store.prune_all();
    let expected: Vec<_> = (0..150).rev().map(|step| step.to_string()).collect();
    assert_eq!(removed, expected);
    store.assert_sound();
}

#[test]
fn default_policies_are_buildkits() {
    let disk = DiskSpace {
        total_bytes: 252_000_000_000,
        free_bytes: 0,
    };
    let policies = default_policies(disk);
    let limits: Vec<_> = policies
        .iter()
        .map(|policy| {
            let days = policy.keep_duration.as_secs() / 86_400;
            let bytes = (
                policy.reserved_space,
                policy.max_used_space,
                policy.min_free_space,
            );
            (policy.all, policy.filters.len(), days, bytes)
        })
        .collect();
    let bytes = (10_000_000_000, 100_000_000_000, 50_400_000_000);
    assert_eq!(
        limits,
        [
            (false, 3, 2, (0, 512_000_000, 0)),
            (false, 0, 60, bytes),
            (false, 0, 0, bytes),
            (true, 0, 0, bytes),
        ]
    );
}
