//! Many at one store at a time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use larder_store::{CacheKey, ErrorKind, KeyDep, NewKey, PruneRequest, SaveMode, Store};

use crate::support::{TestStore, digest, layer, leftovers, lowers};

fn deps(name: &str) -> Vec<Vec<KeyDep>> {
    vec![vec![KeyDep {
        key: CacheKey::content(digest(name)),
        selector: None,
    }]]
}

/// A build of three steps, each looked up first, and made if absent.
fn build(store: &Store, variant: usize) {
    let lease = store.lease().unwrap();
    let mut parent = None;
    for step in 0..3 {
        let name = format!("step{step}-{}", variant % (step + 2));
        let op = digest(&format!("{name} on {parent:?}"));
        let found = lease.query(&op, 0, &deps(&name)).unwrap();
        let id = if let Some(result) = found.into_iter().find_map(|found| found.result) {
            result.snapshot
        } else {
            let made = layer(&lease, parent.as_ref(), &name);
            let deps = deps(&name);
            let key = NewKey {
                op: &op,
                output: 0,
                deps: &deps,
                snapshot: &made,
                mode: SaveMode::Keep,
            };
            lease.save(&key).unwrap().result.snapshot
        };
        for directory in lowers(&store.view(&id).unwrap()) {
            assert!(std::fs::read_dir(directory).unwrap().count() > 0);
        }
        parent = Some(id);
    }
    lease
        .put_blob(format!("config {variant}").as_bytes())
        .unwrap();
    lease.release().unwrap();
}

#[test]
fn builds_du_and_prune_do_not_disturb_each_other() {
    let store = TestStore::new();
    let done = AtomicBool::new(false);
    let pruned = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let builders: Vec<_> = (0..3)
            .map(|builder| {
                let store = store.again();
                scope.spawn(move || (0..15).for_each(|round| build(&store, builder + round)))
            })
            .collect();
        let (other, collector) = (store.again(), store.again());
        let (done, pruned) = (&done, &pruned);
        scope.spawn(move || {
            let request = PruneRequest {
                all: true,
                ..PruneRequest::default()
            };
            while !done.load(Ordering::SeqCst) {
                let mut count = |_: &_| _ = pruned.fetch_add(1, Ordering::SeqCst);
                other.prune(&request, &mut count).unwrap();
            }
        });
        scope.spawn(move || {
            while !done.load(Ordering::SeqCst) {
                collector.gc(&[]).unwrap();
                collector.du(&[]).unwrap();
            }
        });
        let outcomes: Vec<_> = builders
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        done.store(true, Ordering::SeqCst);
        for outcome in outcomes {
            outcome.unwrap();
        }
    });
    assert!(pruned.load(Ordering::SeqCst) > 0);
    store.prune_all();
    store.assert_sound();
    assert_eq!(leftovers(&store), Vec::<String>::new());
}

#[test]
fn a_key_is_locked_by_one_at_a_time() {
    let store = TestStore::new();
    let other = store.again();
    let key = digest("key");
    let lock = store.try_lock_key(&key).unwrap().unwrap();
    assert!(other.try_lock_key(&key).unwrap().is_none());
    assert!(other.try_lock_key(&digest("other")).unwrap().is_some());
    let error = other.lock_key(&key, &|| true, &|| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Canceled);
    drop(lock);
    assert!(other.try_lock_key(&key).unwrap().is_some());
}

#[test]
fn a_lease_locks_keys_by_its_own_file() {
    let store = TestStore::new();
    let (one, two) = (store.lease().unwrap(), store.again().lease().unwrap());
    let key = digest("key");
    let lock = one.try_lock_key(&key).unwrap().unwrap();
    for lease in [&one, &two] {
        assert!(lease.try_lock_key(&key).unwrap().is_none());
        assert!(lease.try_lock_key(&digest("other")).unwrap().is_some());
        let error = lease.lock_key(&key, &|| true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Canceled);
    }
    assert!(store.try_lock_key(&key).unwrap().is_none());
    drop(lock);
    let file = store.try_lock_key(&key).unwrap().unwrap();
    assert!(two.try_lock_key(&key).unwrap().is_none());
    drop(file);
    // What the dead leave is in nobody's way.
    let dead = store.root().join("leases/dead");
    std::fs::write(&dead, "").unwrap();
    let path = store.root().join(format!("locks/key-{}", key.hex()));
    std::fs::hard_link(&dead, &path).unwrap();
    let lock = two.try_lock_key(&key).unwrap().unwrap();
    assert!(one.try_lock_key(&key).unwrap().is_none());
    drop(lock);
    assert!(!path.exists());
}

#[test]
fn a_lock_whose_file_comes_and_goes_excludes_all_others() {
    let store = TestStore::new();
    let inside = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            let store = store.again();
            let inside = &inside;
            scope.spawn(move || {
                for _ in 0..25 {
                    let lease = store.lease().unwrap();
                    for is_link in [true, false] {
                        let key = digest("key");
                        let lock = if is_link {
                            lease.lock_key(&key, &|| false)
                        } else {
                            store.lock_key(&key, &|| false, &|| {})
                        };
                        let lock = lock.unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                }
            });
        }
    });
}

#[test]
fn history_is_kept_within_bounds() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let made = layer(&lease, None, "made");
    let mut keys = Vec::new();
    for index in 0..5 {
        let deps = deps(&format!("content {index}"));
        let new = NewKey {
            op: &digest("op"),
            output: 0,
            deps: &deps,
            snapshot: &made,
            mode: SaveMode::Keep,
        };
        keys.push(lease.save(&new).unwrap().key);
        let parts = format!("parts {index}");
        let step = larder_store::NewStep {
            step: "RUN make",
            key: keys[index],
            parts: parts.as_bytes(),
        };
        store.save_steps("app", &[step]).unwrap();
        store.save_steps("app", &[step]).unwrap();
    }
    let last = store.last_steps("app", "RUN make", 10).unwrap();
    let kept: Vec<_> = last
        .iter()
        .map(|step| (step.key, step.parts.clone()))
        .collect();
    let expected: Vec<_> = [4, 3, 2]
        .map(|index: usize| (keys[index], format!("parts {index}").into_bytes()))
        .into();
    assert_eq!(kept, expected);
    assert_eq!(store.last_steps("other", "RUN make", 10).unwrap(), []);

    for index in 0..25_u8 {
        store.save_build("app", &[index]).unwrap();
    }
    store.save_build("other", b"report").unwrap();
    assert_eq!(store.last_build(Some("app")).unwrap().unwrap().report, [24]);
    assert_eq!(store.last_build(None).unwrap().unwrap().scope, "other");
    assert_eq!(store.last_build(Some("none")).unwrap(), None);
}
