use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_store::{
    CacheMountGuard, CacheMountRequest, ErrorKind, Filter, Lease, PruneRequest, Result, Sharing,
};

use crate::support::{TestStore, layer, upper};

fn request(name: &str, sharing: Sharing) -> CacheMountRequest<'_> {
    CacheMountRequest {
        name,
        seed: "",
        sharing,
        description: "cached mount",
        owner: None,
        mode: 0o755,
        fill: None,
    }
}

fn try_acquire(lease: &Lease, requests: &[CacheMountRequest<'_>]) -> Result<Vec<CacheMountGuard>> {
    lease.acquire_cache_mounts(requests, &|| true, &|| {})
}

fn acquire(lease: &Lease, name: &str, sharing: Sharing) -> CacheMountGuard {
    try_acquire(lease, &[request(name, sharing)])
        .unwrap()
        .remove(0)
}

fn directory(guard: &CacheMountGuard) -> PathBuf {
    upper(&guard.mount())
}

#[test]
fn the_sharing_mode_decides_who_gets_which() {
    use Sharing::{Locked, Private, Shared};
    let store = TestStore::new();
    let other = store.again();
    let (lease, other) = (store.lease().unwrap(), other.lease().unwrap());
    // held, asked for by another process: the same one, another one, or a wait
    for (held, asked, expected) in [
        (Shared, Shared, "same"),
        (Shared, Private, "other"),
        (Shared, Locked, "wait"),
        (Private, Shared, "other"),
        (Private, Private, "other"),
        (Locked, Locked, "wait"),
        (Locked, Shared, "other"),
    ] {
        let name = format!("{held:?} {asked:?}");
        let first = acquire(&lease, &name, held);
        let second = try_acquire(&other, &[request(&name, asked)]);
        let outcome = match &second {
            Ok(guards) if guards[0].id() == first.id() => "same",
            Ok(_) => "other",
            Err(error) if error.kind() == ErrorKind::Canceled => "wait",
            Err(error) => panic!("{error}"),
        };
        assert_eq!(outcome, expected, "{name}");
        let id = first.id().clone();
        drop((first, second));
        assert_eq!(
            *acquire(&lease, &name, Locked).id(),
            id,
            "the oldest is free again"
        );
    }
}

#[test]
fn who_needs_a_locked_one_waits_for_it() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let held = acquire(&lease, "pip", Sharing::Locked);
    std::fs::write(directory(&held).join("wheel"), "wheel").unwrap();
    let (told, hears) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let other = store.again();
        scope.spawn(move || {
            let lease = other.lease().unwrap();
            let requests = [request("pip", Sharing::Locked)];
            let waiting = || told.send(()).unwrap();
            let guards = lease
                .acquire_cache_mounts(&requests, &|| false, &waiting)
                .unwrap();
            assert!(directory(&guards[0]).join("wheel").exists());
        });
        hears.recv().unwrap();
        drop(held);
    });
    assert!(hears.recv().is_err(), "told once");
}

#[test]
fn one_step_may_mount_one_twice() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let requests = [
        request("b", Sharing::Locked),
        request("a", Sharing::Locked),
        request("b", Sharing::Locked),
    ];
    let guards = try_acquire(&lease, &requests).unwrap();
    assert_eq!(guards[0].id(), guards[2].id());
    assert_ne!(guards[0].id(), guards[1].id());
}

#[test]
fn a_seed_makes_a_different_one_and_fills_it() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let plain = acquire(&lease, "pip", Sharing::Shared);
    let fill = |root: &larder_tree::beneath::Root, _: &dyn larder_tree::quota::Quota| {
        let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
        root.open_file("seeded", flags, 0o644.into()).map(|_| ())
    };
    let seeded = CacheMountRequest {
        seed: "seed",
        fill: Some(&fill),
        mode: 0o700,
        owner: rustix::process::geteuid().is_root().then_some((5, 6)),
        ..request("pip", Sharing::Shared)
    };
    let first = try_acquire(&lease, &[seeded]).unwrap().remove(0);
    assert_ne!(plain.id(), first.id());
    assert!(directory(&first).join("seeded").exists());
    std::fs::remove_file(directory(&first).join("seeded")).unwrap();
    let second = try_acquire(&lease, &[seeded]).unwrap().remove(0);
    assert_eq!(first.id(), second.id());
    assert!(
        !directory(&second).join("seeded").exists(),
        "filled when made only"
    );
    let stat = rustix::fs::stat(directory(&second)).unwrap();
    assert_eq!(stat.st_mode & 0o7777, 0o700);
    if rustix::process::geteuid().is_root() {
        assert_eq!((stat.st_uid, stat.st_gid), (5, 6));
    }
}

#[test]
fn emptied_ones_stay_with_their_present_user() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let used = acquire(&lease, "pip", Sharing::Shared);
    let path = directory(&used);
    std::fs::write(path.join("wheel"), vec![1; 100_000]).unwrap();
    let freed = store.empty_cache_mounts(&["pip", "absent"]).unwrap();
    assert!(freed >= 100_000, "{freed}");
    assert!(path.join("wheel").exists());
    let fresh = acquire(&lease, "pip", Sharing::Shared);
    assert_ne!(fresh.id(), used.id());
    assert_eq!(std::fs::read_dir(directory(&fresh)).unwrap().count(), 0);
    drop(used);
    assert!(!path.exists());
    drop(fresh);
    assert!(store.empty_cache_mounts(&["pip"]).unwrap() > 0);
    assert_eq!(
        std::fs::read_dir(store.root().join("cache-mounts"))
            .unwrap()
            .count(),
        0
    );
    store.assert_sound();
}

#[test]
fn only_a_prune_that_means_them_removes_them() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let guard = acquire(&lease, "pip", Sharing::Shared);
    std::fs::write(directory(&guard).join("wheel"), vec![1; 100_000]).unwrap();
    drop(guard);
    layer(&lease, None, "layer");
    drop(lease);
    let layers = PruneRequest {
        keep_cache_mounts: true,
        ..PruneRequest::default()
    };
    assert_eq!(store.prune_with(&layers), ["layer"]);

    let record = &store
        .du(&["type==exec.cachemount".parse().unwrap()])
        .unwrap()[0];
    assert!(record.size_bytes >= 100_000 && record.usage_count == 1 && record.mutable);
    let named = PruneRequest {
        filters: vec!["type==exec.cachemount".parse::<Filter>().unwrap()],
        ..layers
    };
    let lease = store.lease().unwrap();
    let guard = acquire(&lease, "pip", Sharing::Shared);
    assert_eq!(store.prune_with(&named), Vec::<String>::new(), "in use");
    drop(guard);
    assert_eq!(store.prune_with(&named), ["cached mount"]);
    drop(acquire(&lease, "apt", Sharing::Shared));
    let record = &store
        .du(&["type==exec.cachemount".parse().unwrap()])
        .unwrap()[0];
    let by_id = PruneRequest {
        filters: vec![format!("id={}", record.id).parse::<Filter>().unwrap()],
        ..named
    };
    assert_eq!(store.prune_with(&by_id), ["cached mount"]);
    store.assert_sound();
}

#[test]
fn concurrent_first_users_share_one() {
    let store = TestStore::new();
    let go = AtomicBool::new(false);
    let ids: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let other = store.again();
                let go = &go;
                scope.spawn(move || {
                    while !go.load(Ordering::SeqCst) {
                        std::hint::spin_loop();
                    }
                    let lease = other.lease().unwrap();
                    let requests = [request("pip", Sharing::Shared)];
                    let guards = lease
                        .acquire_cache_mounts(&requests, &|| false, &|| {})
                        .unwrap();
                    guards[0].id().clone()
                })
            })
            .collect();
        go.store(true, Ordering::SeqCst);
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}
