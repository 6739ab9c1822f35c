//! What a build costs in which all is cached must not grow with the number of records.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use larder_oci::{Descriptor, Digest, media_type};
use larder_tree::apply::Ownership;
use rusqlite::trace::{TraceEvent, TraceEventCodes};

use crate::{
    CacheKey, Clock, KeyDep, Lease, NewImage, NewKey, NewSnapshot, NewStep, Options, PruneRequest,
    RecordType, SaveMode, SnapshotId, Snapshotter, Store,
};

thread_local! {
    static STATEMENTS: RefCell<BTreeSet<String>> = RefCell::default();
}

fn open(root: &Path) -> Store {
    let options = Options {
        clock: Clock::new(|| jiff::Timestamp::UNIX_EPOCH),
        snapshotter: Snapshotter::Overlay { userxattr: false },
        ownership: Ownership::Preserve,
        mounter: None,
        ceiling: None,
        settle_after: None,
    };
    Store::open(root, options).unwrap()
}

fn op(step: usize) -> Digest {
    Digest::sha256(format!("step {step}"))
}

fn deps(step: usize) -> Vec<Vec<KeyDep>> {
    vec![vec![KeyDep {
        key: CacheKey::content(op(step + 1)),
        selector: None,
    }]]
}

/// Does what a build does whose steps are cached if `look_up`, else what it does to make them.
fn build(store: &Store, look_up: bool) -> SnapshotId {
    let lease = store.lease().unwrap();
    let mut top = None;
    for step in 0..3 {
        let found = lease.query(&op(step), 0, &deps(step)).unwrap();
        let found = found.into_iter().find_map(|found| found.result);
        assert_eq!(found.is_some(), look_up);
        store.linked(&op(step), 0, &deps(step)).unwrap();
        top = Some(match found {
            Some(result) => result.snapshot,
            None => make(&lease, step, top.as_ref()),
        });
    }
    let top = top.unwrap();
    store.view(&top).unwrap();
    for id in store.chain(&top).unwrap() {
        store.snapshot(&id).unwrap();
    }
    lease.snapshot_by_chain_id(&op(0)).unwrap();
    finish(&lease, &top);
    lease.release().unwrap();
    top
}

fn make(lease: &Lease, step: usize, parent: Option<&SnapshotId>) -> SnapshotId {
    let new = NewSnapshot {
        parent,
        description: "step",
        record_type: RecordType::Regular,
    };
    let snapshot = lease.prepare(&new).unwrap().commit().unwrap();
    let key = NewKey {
        op: &op(step),
        output: 0,
        deps: &deps(step),
        snapshot: &snapshot,
        mode: SaveMode::Keep,
    };
    lease.save(&key).unwrap();
    snapshot
}

/// Stores the image and the report, and looks at what is known of such.
fn finish(lease: &Lease, top: &SnapshotId) {
    let store = lease.store();
    let name = "app".parse().unwrap();
    store.image_by_name(&name).unwrap();
    let blobs = lease.put_blobs(&[b"config", b"manifest"]).unwrap();
    let manifest = Descriptor::of(media_type::MANIFEST, b"manifest");
    let image = NewImage {
        manifest: &manifest,
        config: &blobs[0],
        platform: "linux/amd64",
        created_at: None,
        snapshot: Some(top),
        others: &[],
        blobs: &[],
    };
    lease.add_image(&image, &[name]).unwrap();
    store
        .add_origin("registry.example/app", &[&blobs[0]])
        .unwrap();
    store.origins(&blobs[0]).unwrap();
    store.last_build(Some("scope")).unwrap();
    let step = NewStep {
        step: "step",
        key: 1.into(),
        parts: b"parts",
    };
    store.save_steps("scope", &[step]).unwrap();
    store.save_build("scope", b"report").unwrap();
}

fn collect(store: &Store) {
    let tight = PruneRequest {
        max_used_space: 1,
        keep_duration: std::time::Duration::from_secs(1),
        ..PruneRequest::default()
    };
    assert_eq!(store.gc(&[tight]).unwrap(), 0);
}

/// Returns how SQLite runs what `work` does.
fn plans(store: &Store, work: impl FnOnce()) -> Vec<(String, String)> {
    let note = |event: TraceEvent<'_>| {
        if let TraceEvent::Stmt(_, sql) = event
            && !sql.starts_with("--")
        {
            STATEMENTS.with_borrow_mut(|all| all.insert(sql.to_owned()));
        }
    };
    let trace = |hear: Option<fn(TraceEvent<'_>)>| {
        let traced = store.read(|db| {
            db.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, hear);
            Ok(())
        });
        traced.unwrap();
    };
    trace(Some(note));
    work();
    trace(None);
    let statements = STATEMENTS.take();
    let plans = statements.into_iter().flat_map(|sql| {
        let plan = store.read(|db| {
            let mut explain = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
            let count = explain.parameter_count();
            let nulls = vec![rusqlite::types::Null; count];
            let rows = explain.query_map(rusqlite::params_from_iter(nulls), |row| {
                row.get::<_, String>(3)
            })?;
            Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
        });
        plan.unwrap()
            .into_iter()
            .map(move |step| (sql.clone(), step))
    });
    plans.collect()
}

/// What reads all of something that does not grow with the number of records.
fn is_bounded(step: &str) -> bool {
    [
        "SCAN CONSTANT ROW",
        // What the query itself has made.
        "SCAN below",
        // Three rows.
        "SCAN totals",
        // Those that were emptied while a step was using them.
        "SCAN cache_mounts USING INDEX cache_mounts_detached",
    ]
    .contains(&step)
}

#[test]
fn a_cached_build_reads_no_table_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let store = open(&root);
    let made = build(&store, false);
    collect(&store);
    let again = open(&root);
    let plans = plans(&again, || {
        again.recover_unsettled().unwrap();
        assert_eq!(build(&again, true), made);
        collect(&again);
    });
    assert!(plans.len() > 30, "{}", plans.len());
    let scans: Vec<_> = plans
        .iter()
        .filter(|(_, step)| step.starts_with("SCAN") && !is_bounded(step))
        .collect();
    assert!(scans.is_empty(), "{scans:#?}");
}

#[test]
fn a_scan_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("root"));
    let plans = plans(&store, || {
        store.settle().unwrap();
        store.du(&[]).unwrap();
    });
    assert!(
        plans
            .iter()
            .any(|(_, step)| step.starts_with("SCAN") && !is_bounded(step))
    );
}
