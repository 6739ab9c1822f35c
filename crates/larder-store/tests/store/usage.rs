use std::io::Write;

use larder_store::{CacheMountRequest, Filter, RecordType, Sharing, UsageRecord};

use crate::support::{DAY, TestStore, disk_usage, layer, new_snapshot, upper};

/// A store with some of everything.
fn furnished(store: &TestStore) {
    let lease = store.lease().unwrap();
    let base = lease.prepare(&new_snapshot(None, "base")).unwrap();
    let root = upper(&base.mount().unwrap());
    for index in 0..40 {
        std::fs::create_dir(root.join(format!("dir{index}"))).unwrap();
        std::fs::write(root.join(format!("dir{index}/file")), vec![1; index * 1000]).unwrap();
    }
    std::fs::hard_link(root.join("dir39/file"), root.join("linked")).unwrap();
    let base = base.commit().unwrap();
    let top = layer(&lease, Some(&base), "top");
    lease.merge(&[top, base], "merged").unwrap();
    lease.put_blob(&vec![1; 50_000]).unwrap();
    let request = CacheMountRequest {
        name: "pip",
        seed: "",
        sharing: Sharing::Shared,
        description: "cached mount",
        owner: None,
        mode: 0o755,
        fill: None,
    };
    let guard = lease
        .acquire_cache_mounts(&[request], &|| false, &|| {})
        .unwrap();
    let source = upper(&guard[0].mount());
    std::fs::write(source.join("wheel"), vec![1; 70_000]).unwrap();
}

fn total(records: &[UsageRecord]) -> u64 {
    records.iter().map(|record| record.size_bytes).sum()
}

fn assert_agrees(store: &TestStore) {
    let records = store.du(&[]).unwrap();
    let (told, actual) = (total(&records), disk_usage(store.root()));
    let difference = told.abs_diff(actual);
    assert!(
        difference * 100 <= actual,
        "told {told}, taken {actual}: {records:#?}"
    );
}

#[test]
fn the_sum_agrees_with_the_disk() {
    let store = TestStore::new();
    assert_agrees(&store);
    furnished(&store);
    assert_agrees(&store);

    let lease = store.lease().unwrap();
    let active = lease.prepare(&new_snapshot(None, "active")).unwrap();
    std::fs::write(
        upper(&active.mount().unwrap()).join("file"),
        vec![1; 500_000],
    )
    .unwrap();
    let mut writer = lease.blob_writer(None).unwrap();
    writer.write_all(&vec![2; 300_000]).unwrap();
    std::fs::write(store.contexts_dir().join("stat-cache"), vec![1; 200_000]).unwrap();
    std::fs::write(store.root().join("snapshots/stray"), vec![1; 100_000]).unwrap();
    assert_agrees(&store);
    let active_records = store
        .du(&["inuse,mutable,type==regular".parse().unwrap()])
        .unwrap();
    assert_eq!(active_records.len(), 2, "{active_records:#?}");
    drop((active, writer));
    drop(lease);
    store.prune_all();
    assert_agrees(&store);
}

/// Whoever opened a layer would see something else.
#[test]
fn sizes_are_told_without_opening_a_layer() {
    for store in [Some(TestStore::new()), TestStore::of_images(None)] {
        let Some(store) = store else { continue };
        furnished(&store);
        let before = store.du(&["type!=internal".parse().unwrap()]).unwrap();
        let told = total(&before);
        assert!(told > 500_000, "{before:#?}");
        for entry in std::fs::read_dir(store.root().join("cache-mounts")).unwrap() {
            let grown = entry.unwrap().path().join("fs/grown");
            std::fs::write(grown, vec![1; 3_000_000]).unwrap();
        }
        for name in ["snapshots", "blobs/sha256"] {
            for entry in std::fs::read_dir(store.root().join(name)).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    std::fs::remove_dir_all(&path).unwrap();
                } else {
                    std::fs::remove_file(&path).unwrap();
                }
                std::fs::write(&path, vec![1; 3_000_000]).unwrap();
            }
        }
        let after = store.du(&["type!=internal".parse().unwrap()]).unwrap();
        assert_eq!(before, after);
        let all = store.du(&[]).unwrap();
        assert!(total(&all) < told + 3_000_000, "{all:#?}");
    }
}

#[test]
fn records_tell_what_they_are() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let base = layer(&lease, None, "base");
    let top = layer(&lease, Some(&base), "top");
    let by_id = |id: &larder_store::SnapshotId| {
        let filter: Filter = format!("id={id}").parse().unwrap();
        store.du(&[filter]).unwrap().remove(0)
    };
    let record = by_id(&top);
    assert_eq!(record.parents, std::slice::from_ref(&base));
    assert_eq!(
        (record.in_use, record.mutable, record.shared),
        (true, false, false)
    );
    assert_eq!((record.usage_count, record.last_used_at), (0, None));
    store.advance(DAY);
    lease.release().unwrap();
    let record = by_id(&top);
    assert!(!record.in_use);
    assert_eq!(record.usage_count, 1);
    assert!(record.last_used_at.unwrap() > record.created_at);

    // Whoever holds the top keeps the base, and does not use it.
    let lease = store.lease().unwrap();
    assert!(lease.hold_snapshots(std::slice::from_ref(&top)).unwrap());
    assert!(by_id(&base).in_use);
    drop(lease);
    assert_eq!((by_id(&top).usage_count, by_id(&base).usage_count), (2, 1));
}

#[test]
fn filters_choose_records() {
    let store = TestStore::new();
    furnished(&store);
    store.advance(DAY);
    let lease = store.lease().unwrap();
    let fresh = layer(&lease, None, "fresh, and \"quoted\"");
    let parent = store.du(&["description==merged".parse().unwrap()]).unwrap()[0].parents[1].clone();
    for (filters, expected) in [
        (vec!["type==exec.cachemount"], vec!["cached mount"]),
        (vec!["type=exec.cachemount"], vec!["cached mount"]),
        (vec!["description==base"], vec!["base"]),
        (vec!["description~=^(base|top)$"], vec!["base", "top"]),
        (
            vec!["type==regular,description!=base,until=1h"],
            vec!["merged", "top"],
        ),
        (
            vec!["description==base", "description==top"],
            vec!["base", "top"],
        ),
        (vec!["inuse,type==regular"], vec!["fresh, and \"quoted\""]),
        (vec!["inuse==true,immutable"], vec!["fresh, and \"quoted\""]),
        (
            vec!["inuse=false,type!=internal,unused-for=20h,mutable"],
            vec!["cached mount"],
        ),
        (vec!["shared"], vec![]),
        (vec!["private,type==regular,until=48h"], vec![]),
        (
            vec![r#"description=="fresh, and \"quoted\"""#],
            vec!["fresh, and \"quoted\""],
        ),
        (vec![&format!("parents~={parent}")], vec!["merged", "top"]),
        (
            vec![&format!("id={}", &fresh.as_str()[3..20])],
            vec!["fresh, and \"quoted\""],
        ),
        (vec![&format!("id=={}", &fresh.as_str()[3..20])], vec![]),
    ] {
        let filters_parsed: Vec<Filter> =
            filters.iter().map(|text| text.parse().unwrap()).collect();
        let mut found: Vec<_> = store
            .du(&filters_parsed)
            .unwrap()
            .into_iter()
            .map(|record| record.description)
            .collect();
        found.sort();
        assert_eq!(found, expected, "{filters:?}");
    }
    for bad in [
        "colour==red",
        "type~=(",
        "until=soon",
        "inuse=maybe",
        "type",
        "description!x",
        "description==\"x",
    ] {
        let outcome = bad.parse::<Filter>();
        assert_eq!(outcome.is_err(), bad != "type", "{bad}");
    }
    let types = store.du(&[]).unwrap();
    assert!(
        types
            .iter()
            .any(|record| record.record_type == RecordType::Internal)
    );
}
