use std::time::Duration;

use larder_oci::Digest;
use larder_store::{
    CacheKey, ErrorKind, KeyDep, KeyId, Lease, NewKey, SaveMode, Saved, SnapshotId,
};

use crate::support::{TestStore, digest, layer};

fn root(text: &str) -> KeyDep {
    dep(CacheKey::root(digest(text), 0))
}

fn content(text: &str) -> KeyDep {
    dep(CacheKey::content(digest(text)))
}

fn record(key: KeyId) -> KeyDep {
    dep(CacheKey::Record(key))
}

fn dep(key: CacheKey) -> KeyDep {
    KeyDep {
        key,
        selector: None,
    }
}

fn selecting(dep: KeyDep, selector: &str) -> KeyDep {
    KeyDep {
        selector: Some(digest(selector)),
        ..dep
    }
}

fn save(lease: &Lease, op: &str, deps: &[Vec<KeyDep>], snapshot: &SnapshotId) -> Saved {
    save_as(lease, op, deps, snapshot, SaveMode::Keep)
}

fn save_as(
    lease: &Lease,
    op: &str,
    deps: &[Vec<KeyDep>],
    snapshot: &SnapshotId,
    mode: SaveMode,
) -> Saved {
    let new = NewKey {
        op: &digest(op),
        output: 0,
        deps,
        snapshot,
        mode,
    };
    lease.save(&new).unwrap()
}

/// What a look-up leads to.
fn found(lease: &Lease, op: &str, deps: &[Vec<KeyDep>]) -> Option<SnapshotId> {
    let matches = lease.query(&digest(op), 0, deps).unwrap();
    Some(matches.first()?.result.as_ref()?.snapshot.clone())
}

#[test]
fn a_result_is_found_by_any_alternative_of_every_input() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let made = layer(&lease, None, "made");
    let deps = [
        vec![root("base"), content("base content")],
        vec![selecting(root("context"), "/a"), content("a")],
    ];
    let saved = save(&lease, "copy", &deps, &made);
    assert_eq!(saved.result.snapshot, made);

    let cases: [(&str, &str, Vec<Vec<KeyDep>>, bool); 9] = [
        ("same", "copy", deps.to_vec(), true),
        (
            "fast and slow",
            "copy",
            vec![vec![root("base")], vec![content("a")]],
            true,
        ),
        (
            "slow and fast",
            "copy",
            vec![
                vec![content("base content")],
                vec![selecting(root("context"), "/a")],
            ],
            true,
        ),
        (
            "one of several",
            "copy",
            vec![
                vec![root("x"), root("base")],
                vec![content("a"), content("x")],
            ],
            true,
        ),
        ("other op", "run", deps.to_vec(), false),
        (
            "other content",
            "copy",
            vec![vec![root("base")], vec![content("b")]],
            false,
        ),
        (
            "other selector",
            "copy",
            vec![vec![root("base")], vec![selecting(root("context"), "/b")]],
            false,
        ),
        (
            "no selector",
            "copy",
            vec![vec![root("base")], vec![root("context")]],
            false,
        ),
        (
            "inputs swapped",
            "copy",
            vec![vec![content("a")], vec![root("base")]],
            false,
        ),
    ];
    for (name, op, deps, hit) in cases {
        assert_eq!(
            found(&lease, op, &deps),
            hit.then(|| made.clone()),
            "{name}"
        );
    }
    let other_output = store.query(&digest("copy"), 1, &deps).unwrap();
    assert_eq!(other_output, []);
}

#[test]
fn an_input_that_matches_alone_is_not_a_hit() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let (one, two) = (layer(&lease, None, "one"), layer(&lease, None, "two"));
    save(
        &lease,
        "copy",
        &[vec![root("base1")], vec![content("a")]],
        &one,
    );
    save(
        &lease,
        "copy",
        &[vec![root("base2")], vec![content("b")]],
        &two,
    );
    let crossed = [vec![root("base1")], vec![content("b")]];
    assert_eq!(found(&lease, "copy", &crossed), None);
    let first = [vec![root("base1"), root("base2")], vec![content("a")]];
    assert_eq!(found(&lease, "copy", &first), Some(one));
}

#[test]
fn a_new_alternative_leads_to_the_same_key() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let made = layer(&lease, None, "made");
    let first = save(
        &lease,
        "copy",
        &[vec![root("definition 1"), content("a")]],
        &made,
    );
    // The text changed, the content did not: the key of dependents stays.
    let again = save(
        &lease,
        "copy",
        &[vec![root("definition 2"), content("a")]],
        &made,
    );
    assert_eq!(first.key, again.key);
    assert_eq!(
        found(&lease, "copy", &[vec![root("definition 2")]]),
        Some(made.clone())
    );

    let next = layer(&lease, Some(&made), "next");
    save(&lease, "run", &[vec![record(first.key)]], &next);
    assert_eq!(found(&lease, "run", &[vec![record(again.key)]]), Some(next));
}

#[test]
fn the_first_of_two_results_stays() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let (one, two) = (layer(&lease, None, "one"), layer(&lease, None, "two"));
    let deps = [vec![root("base")]];
    assert_eq!(save(&lease, "run", &deps, &one).result.snapshot, one);
    let second = save(&lease, "run", &deps, &two);
    assert_eq!(second.result.snapshot, one);
    assert_eq!(found(&lease, "run", &deps), Some(one));
}

#[test]
fn a_replaced_result_takes_its_dependents_along() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let (old, new) = (layer(&lease, None, "old"), layer(&lease, None, "new"));
    let deps = [vec![root("base"), content("base content")]];
    let before = save(&lease, "run", &deps, &old);
    let next = layer(&lease, Some(&old), "next");
    save(
        &lease,
        "run 2",
        &[vec![record(before.key), content("of the result")]],
        &next,
    );

    let after = save_as(
        &lease,
        "run",
        &[vec![root("base")]],
        &new,
        SaveMode::Replace,
    );
    assert_ne!(before.key, after.key);
    for alternative in [root("base"), content("base content")] {
        assert_eq!(
            found(&lease, "run", &[vec![alternative]]),
            Some(new.clone())
        );
    }
    assert_eq!(found(&lease, "run 2", &[vec![record(after.key)]]), None);
    let same_content = [vec![record(after.key), content("of the result")]];
    assert_eq!(
        found(&lease, "run 2", &same_content),
        Some(next),
        "equal content still hits"
    );
}

#[test]
fn sources_are_roots() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let base = layer(&lease, None, "base");
    assert_eq!(found(&lease, "image", &[]), None);
    let saved = save(&lease, "image", &[], &base);
    assert_eq!(found(&lease, "image", &[]), Some(base.clone()));
    let next = layer(&lease, Some(&base), "next");
    save(&lease, "run", &[vec![record(saved.key)]], &next);
    assert_eq!(found(&lease, "run", &[vec![root("image")]]), Some(next));
}

#[test]
fn a_pruned_result_is_a_miss_that_can_be_told() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let base = layer(&lease, None, "base");
    let deps = [vec![root("image")]];
    let base_key = save(&lease, "step 1", &deps, &base).key;
    let top = layer(&lease, Some(&base), "top");
    let top_key = save(&lease, "step 2", &[vec![record(base_key)]], &top).key;
    lease.release().unwrap();
    assert_eq!(store.pruned_at(top_key).unwrap(), None);

    store.advance(Duration::from_secs(60));
    assert_eq!(store.prune_all(), ["top", "base"]);
    for key in [base_key, top_key] {
        assert!(store.pruned_at(key).unwrap().is_some());
        assert_eq!(store.result(key).unwrap(), None);
    }
    let lease = store.lease().unwrap();
    assert_eq!(found(&lease, "step 1", &deps), None);
    assert_eq!(
        store.query(&digest("step 1"), 0, &deps).unwrap(),
        [],
        "the keys went, too"
    );

    // A build that still knows the old key saves its result without error.
    let base = layer(&lease, None, "base");
    save(
        &lease,
        "step 2",
        &[vec![record(base_key), content("c")]],
        &base,
    );
    assert_eq!(found(&lease, "step 2", &[vec![content("c")]]), Some(base));
    store.assert_sound();
}

#[test]
fn keys_without_results_lead_to_those_that_have_one() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let base = layer(&lease, None, "base");
    let middle = save(&lease, "step 1", &[vec![root("image")]], &base).key;
    // Not built on the first one, as after a merge.
    let top = layer(&lease, None, "top");
    save(&lease, "step 2", &[vec![record(middle)]], &top);
    drop(lease);
    let keeper = store.lease().unwrap();
    assert!(keeper.hold_snapshots(std::slice::from_ref(&top)).unwrap());
    assert_eq!(store.prune_all(), ["base"]);

    let matches = keeper
        .query(&digest("step 1"), 0, &[vec![root("image")]])
        .unwrap();
    assert_eq!((matches.len(), &matches[0].result), (1, &None));
    let above = [vec![record(matches[0].key)]];
    assert_eq!(found(&keeper, "step 2", &above), Some(top));
}

#[test]
fn a_result_must_exist() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let gone: SnapshotId = "0".repeat(25).parse().unwrap();
    let new = NewKey {
        op: &digest("op"),
        output: 0,
        deps: &[],
        snapshot: &gone,
        mode: SaveMode::Keep,
    };
    assert_eq!(lease.save(&new).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        store.query(&digest("op"), 0, &[]).unwrap(),
        [],
        "nothing half-saved"
    );
}

#[test]
fn records_are_exported_in_buildkits_terms() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let base = layer(&lease, None, "base");
    let copied = layer(&lease, Some(&base), "copied");
    let from = save(&lease, "image", &[], &base);
    let deps = [
        vec![selecting(record(from.key), "/")],
        vec![content("file")],
    ];
    let top = save(&lease, "copy", &deps, &copied);
    let records = store.exported_records(&[top.key]).unwrap();
    let expected = [
        (format!("{}@0", digest("image")), Some(base)),
        (format!("{}@-1", digest("file")), None),
        (format!("{}@0", digest("copy")), Some(copied)),
    ];
    assert_eq!(records.len(), expected.len());
    for (record, (text, snapshot)) in records.iter().zip(expected) {
        assert_eq!(record.digest, Digest::sha256(text));
        assert_eq!(
            record.result.as_ref().map(|result| result.snapshot.clone()),
            snapshot
        );
    }
    assert_eq!(
        records[2].inputs,
        [vec![(Some(digest("/")), 0)], vec![(None, 1)]]
    );
    assert!(records[0].inputs.is_empty());
}

#[test]
fn what_earlier_builds_left_is_exported_only_where_it_is_needed() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let snapshot = layer(&lease, None, "any");
    // Two builds of a stage came to the same content.
    let save = |op: &str, deps: &[Vec<KeyDep>]| save(&lease, op, deps, &snapshot).key;
    let (old, new) = (
        save("old", &[vec![root("a")]]),
        save("new", &[vec![root("a")]]),
    );
    let copy = save("copy", &[vec![record(old), record(new), content("file")]]);
    let digests = |keys: &[KeyId]| -> Vec<Digest> {
        let records = store.exported_records(keys).unwrap();
        records.into_iter().map(|record| record.digest).collect()
    };
    let of = |op: &str| Digest::sha256(format!("{}@0", digest(op)));
    assert!(!digests(&[copy, new]).contains(&of("old")));
    assert!(digests(&[copy, new]).contains(&of("new")));
    // Without any of its own, it is found by what others left.
    let run = save("run", &[vec![record(old)]]);
    assert!(digests(&[run]).contains(&of("old")));

    // What a build with `--no-cache` replaced leads nowhere.
    let deps = [vec![root("a")]];
    let _ = save_as(&lease, "old", &deps, &snapshot, SaveMode::Replace);
    assert_eq!(digests(&[run, old]), Vec::<Digest>::new());
    assert!(digests(&[copy, new]).contains(&of("copy")));
}

#[test]
fn a_key_can_come_before_its_result() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let deps = [vec![root("base"), content("files")]];
    let key = lease.ensure_key(&digest("op"), 0, &deps).unwrap();
    assert_eq!(lease.ensure_key(&digest("op"), 0, &deps).unwrap(), key);
    let matches = lease
        .query(&digest("op"), 0, &[vec![content("files")]])
        .unwrap();
    assert_eq!((matches.len(), matches[0].key), (1, key));
    assert_eq!(matches[0].result, None);
    let (first, second) = (layer(&lease, None, "first"), layer(&lease, None, "second"));
    lease.save_result(key, &first).unwrap();
    lease.save_result(key, &second).unwrap();
    assert_eq!(found(&lease, "op", &[vec![root("base")]]), Some(first));
    lease.save_result(KeyId::from(4711), &second).unwrap();
    let top = lease.ensure_key(&digest("source"), 0, &[]).unwrap();
    assert_eq!(lease.query(&digest("source"), 0, &[]).unwrap()[0].key, top);
}
