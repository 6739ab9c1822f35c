//! Processes killed at any moment.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use larder_store::{
    CacheKey, CacheMountRequest, Clock, KeyDep, NewKey, Options, PruneRequest, SaveMode, Sharing,
    SnapshotId, Store,
};
use larder_tree::apply::Ownership;
use tempfile::TempDir;

use crate::devices::Context;
use crate::images::add;
use crate::mounter::Images;
use crate::support::{OVERLAY, TestStore, digest, layer, leftovers, lowers, new_snapshot, upper};

/// Tells a copy of this test program to be the victim: the state directory.
const VICTIM: &str = "LARDER_STORE_TEST_VICTIM";
const ROUNDS: u64 = 24;
/// How many layers a prune finds, how many of them it has to leave, and what is in each.
const CHAIN_LENGTH: usize = 110;
const KEPT_COUNT: usize = 3;
const FILES_COUNT: usize = 5;

/// `temp` is where it makes its temporary files, which it doesn't come to remove.
fn victim(store: &TestStore, test: &str, temp: &TempDir) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("crash::{test}"), "--nocapture"])
        .env(VICTIM, store.root())
        .env("TMPDIR", temp.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Opens the store in which this process is to be killed; `None` in a run of all tests.
fn store_of_victim() -> Option<Store> {
    let root = std::env::var_os(VICTIM)?;
    let options = Options {
        clock: Clock::new(|| jiff::Timestamp::UNIX_EPOCH),
        snapshotter: OVERLAY,
        ownership: Ownership::Preserve,
        mounter: Images::new().map(|images| Arc::new(images) as _),
        ceiling: None,
        settle_after: Some(Duration::from_millis(5)),
    };
    Some(Store::open(Path::new(&root), options).unwrap())
}

/// Not a test by itself: the work of the process to be killed.
#[test]
fn victim_works_until_killed() {
    let Some(store) = store_of_victim() else {
        return;
    };
    let mut context = Context::new();
    let mut copied = None;
    println!("ready");
    for round in 0_u64.. {
        work(&store, round);
        if store.makes_images() {
            // Each image uses blocks of those before.
            context.write(round as usize % 3, round as u8);
            let lease = store.lease().unwrap();
            copied = Some(context.copy(&lease, &format!("copy {round}"), copied).1);
        }
    }
}

fn work(store: &Store, round: u64) {
    let lease = store.lease().unwrap();
    let base = layer(&lease, None, "base");
    let top = layer(&lease, Some(&base), "top");
    let merged = lease.merge(&[top, base], "merged").unwrap();
    let deps = [vec![KeyDep {
        key: CacheKey::content(digest(&round.to_string())),
        selector: None,
    }]];
    let key = NewKey {
        op: &digest("op"),
        output: 0,
        deps: &deps,
        snapshot: &merged,
        mode: if round.is_multiple_of(3) {
            SaveMode::Replace
        } else {
            SaveMode::Keep
        },
    };
    lease.save(&key).unwrap();
    let bytes = vec![round as u8; 200_000];
    let expected = (larder_oci::Digest::sha256(&bytes), bytes.len() as u64);
    let mut writer = lease.blob_writer(Some(expected)).unwrap();
    let offset = writer.offset() as usize;
    writer.write_all(&bytes[offset..]).unwrap();
    writer.commit().unwrap();
    let request = CacheMountRequest {
        name: if round.is_multiple_of(2) {
            "even"
        } else {
            "odd"
        },
        seed: "",
        sharing: Sharing::Locked,
        description: "cached mount",
        owner: None,
        mode: 0o755,
        fill: None,
    };
    lease
        .acquire_cache_mounts(&[request], &|| false, &|| {})
        .unwrap();
    let active = lease.prepare(&new_snapshot(None, "discarded")).unwrap();
    lease.release().unwrap();
    drop(active);
    if !round.is_multiple_of(2) {
        let all = PruneRequest {
            all: true,
            ..PruneRequest::default()
        };
        store.prune(&all, &mut |_| {}).unwrap();
    }
}

/// Not a test by itself: prunes all, and waits for its end when that is done.
#[test]
fn victim_prunes_until_killed() {
    let Some(store) = store_of_victim() else {
        return;
    };
    let all = PruneRequest {
        all: true,
        ..PruneRequest::default()
    };
    store.prune(&all, &mut |_| println!("removed")).unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

fn wait_until_ready(child: &mut Child) {
    wait_for_line(child, "ready");
}

fn wait_for_line(child: &mut Child, line: &str) {
    let line = format!("{line}\n");
    let mut seen = Vec::new();
    let output = child.stdout.as_mut().unwrap();
    while !seen.ends_with(line.as_bytes()) {
        let mut byte = [0];
        output.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
}

#[test]
fn a_kill_at_any_moment_leaves_a_sound_store() {
    let store = TestStore::new();
    let temp = TempDir::new().unwrap();
    for round in 0..ROUNDS {
        let mut child = victim(&store, "victim_works_until_killed", &temp);
        wait_until_ready(&mut child);
        // A different moment each time; the exact one is up to the scheduler.
        for _ in 0..round {
            store.du(&[]).unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let opened = store.again();
        opened.sweep().unwrap();
        assert_eq!(opened.check().unwrap(), [], "round {round}");
        let rest = leftovers(&opened);
        let unexpected = rest.iter().find(|name| !name.starts_with("partial/"));
        assert_eq!(unexpected, None, "round {round}");
        let lease = opened.lease().unwrap();
        let all_ops = opened.query(&digest("op"), 0, &[]).unwrap();
        assert_eq!(all_ops, []);
        for round in 0..4_u64 {
            let deps = [vec![KeyDep {
                key: CacheKey::content(digest(&round.to_string())),
                selector: None,
            }]];
            for found in lease.query(&digest("op"), 0, &deps).unwrap() {
                if let Some(result) = found.result {
                    let view = opened.view(&result.snapshot).unwrap();
                    assert!(lowers(&view).iter().all(|path| path.is_dir()));
                }
            }
        }
    }
    store.prune_all();
    store.assert_sound();
    for name in ["snapshots", "cache-mounts", "blobs/sha256"] {
        assert_eq!(
            std::fs::read_dir(store.root().join(name)).unwrap().count(),
            0,
            "{name}"
        );
    }
}

/// A chain of layers with directories, a part of which an image keeps; and keys that lead to all.
/// Returns the part that is kept, lowest first.
fn fill(store: &TestStore) -> Vec<SnapshotId> {
    let lease = store.lease().unwrap();
    let mut chain = Vec::new();
    let mut key = CacheKey::content(digest("root"));
    for index in 0..CHAIN_LENGTH {
        let name = format!("layer {index}");
        let active = lease.prepare(&new_snapshot(chain.last(), &name)).unwrap();
        let files = upper(&active.mount().unwrap()).join("directory");
        std::fs::create_dir(&files).unwrap();
        for file in 0..FILES_COUNT {
            std::fs::write(files.join(file.to_string()), &name).unwrap();
        }
        let snapshot = active.commit().unwrap();
        let dep = KeyDep {
            key: key.clone(),
            selector: None,
        };
        let new_key = NewKey {
            op: &digest(&name),
            output: 0,
            deps: &[vec![dep]],
            snapshot: &snapshot,
            mode: SaveMode::Keep,
        };
        key = CacheKey::Record(lease.save(&new_key).unwrap().key);
        chain.push(snapshot);
    }
    chain.truncate(KEPT_COUNT);
    add(&lease, "kept", chain.last(), &["kept"]);
    lease.release().unwrap();
    chain
}

#[test]
fn a_prune_killed_at_any_moment_leaks_nothing_and_keeps_what_is_needed() {
    for killed_after in [1, 32, 33, 60, 96, CHAIN_LENGTH] {
        let store = TestStore::new();
        let kept = fill(&store);
        let temp = TempDir::new().unwrap();
        let mut child = victim(&store, "victim_prunes_until_killed", &temp);
        for _ in 0..killed_after {
            wait_for_line(&mut child, "removed");
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let opened = store.again();
        opened.sweep().unwrap();
        assert_eq!(leftovers(&opened), [""; 0], "{killed_after}");
        assert_eq!(opened.check().unwrap(), [], "{killed_after}");
        let view = opened.view(kept.last().unwrap()).unwrap();
        for (layer, index) in lowers(&view).iter().rev().zip(0..) {
            for file in 0..FILES_COUNT {
                let path = layer.join("directory").join(file.to_string());
                let text = std::fs::read_to_string(path).unwrap();
                assert_eq!(text, format!("layer {index}"));
            }
        }
        drop(view);
        store.prune_all();
        let left: Vec<_> = store.du(&[]).unwrap();
        let left = left
            .iter()
            .filter(|one| one.description.starts_with("layer"));
        assert_eq!(left.count(), KEPT_COUNT, "{killed_after}");
        let files = std::fs::read_dir(store.root().join("snapshots")).unwrap();
        assert_eq!(files.count(), KEPT_COUNT, "{killed_after}");
    }
}

#[test]
fn a_dead_process_protects_nothing() {
    let store = TestStore::new();
    let temp = TempDir::new().unwrap();
    let mut child = victim(&store, "victim_works_until_killed", &temp);
    wait_until_ready(&mut child);
    let own = store.lease().unwrap();
    let kept = layer(&own, None, "kept");
    child.kill().unwrap();
    child.wait().unwrap();
    store.prune_all();
    let records = store.du(&["type!=internal".parse().unwrap()]).unwrap();
    let ids: Vec<_> = records.into_iter().map(|record| record.id).collect();
    assert_eq!(ids, [kept]);
}
