//! What is written: normalized, whatever order the records come in.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use larder_cache::{Exported, Imported, Link, Record, RecordResult, RemoteLayer, inline};
use larder_oci::{Descriptor, Digest, media_type};
use proptest::prelude::*;

fn digest(name: impl std::fmt::Display) -> Digest {
    Digest::sha256(name.to_string())
}

fn layer(name: &str) -> Arc<RemoteLayer> {
    Arc::new(RemoteLayer {
        descriptor: Descriptor::new(media_type::LAYER_GZIP, digest(format!("{name}.gz")), 3),
        diff_id: digest(name),
        created_at: None,
    })
}

fn result(layers: &[&str], seconds: i64) -> RecordResult {
    RecordResult {
        layers: layers.iter().map(|name| layer(name)).collect(),
        created_at: Some(Timestamp::from_second(seconds).unwrap()),
    }
}

fn record(name: &str, inputs: &[&[usize]], results: Vec<RecordResult>) -> Record {
    let link = |&record: &usize| Link {
        selector: None,
        record,
    };
    Record {
        inputs: inputs
            .iter()
            .map(|all| all.iter().map(link).collect())
            .collect(),
        results,
        ..Record::new(digest(name))
    }
}

/// Writes and reads again.
fn round_trip(records: &[Record]) -> Imported {
    let exported = Exported::new(records);
    let written = exported.manifest(larder_cache::ManifestForm::Image);
    let larder_cache::Manifest::Cache { layers, .. } =
        larder_cache::Manifest::parse(&written.bytes).unwrap()
    else {
        panic!("no cache was written");
    };
    Imported::parse(exported.config_bytes(), &layers).unwrap()
}

#[test]
fn equal_records_are_joined_and_similar_ones_are_not() {
    let records = [
        record("source", &[], vec![]),
        record("source", &[], vec![]),
        record("content", &[], vec![]),
        record("step", &[&[0]], vec![result(&["a"], 1)]),
        record("step", &[&[1]], vec![result(&["a"], 2)]),
        // Equal only because what they refer to is.
        record("next", &[&[3], &[2]], vec![]),
        record("next", &[&[4, 3], &[2]], vec![result(&["a", "b"], 3)]),
        // It shares an alternative; its content is another.
        record("other content", &[], vec![]),
        record("next", &[&[3], &[2, 7]], vec![result(&["a", "c"], 4)]),
    ];
    let imported = round_trip(&records);
    let find = |name: &str| {
        let records = imported.records.iter();
        records
            .filter(|record| record.digest == digest(name))
            .collect::<Vec<_>>()
    };
    let step = find("step");
    assert_eq!((imported.records.len(), step.len()), (6, 1));
    // Of equal layers, the newest result.
    assert_eq!(step[0].results.len(), 1);
    assert_eq!(step[0].results[0].created_at.unwrap().as_second(), 2);
    let mut next: Vec<_> = find("next")
        .iter()
        .map(|record| (record.inputs[1].len(), record.results[0].layers.len()))
        .collect();
    next.sort_unstable();
    assert_eq!(next, [(1, 2), (2, 2)]);
}

#[test]
fn circles_are_cut() {
    let records = [
        record("source", &[], vec![]),
        record("a", &[&[0, 2]], vec![]),
        record("b", &[&[1]], vec![]),
        // Nothing leads here but what it leads to, or nothing at all.
        record("c", &[&[4]], vec![]),
        record("d", &[&[3]], vec![]),
        record("e", &[&[0], &[]], vec![]),
        record("f", &[&[5]], vec![]),
    ];
    let imported = round_trip(&records);
    let kept: BTreeSet<&Digest> = imported
        .records
        .iter()
        .map(|record| &record.digest)
        .collect();
    assert_eq!(
        kept,
        [digest("source"), digest("a"), digest("b")]
            .iter()
            .collect()
    );
}

#[test]
fn a_blob_may_lie_on_several_others() {
    let records = [
        record("source", &[], vec![]),
        record("a", &[&[0]], vec![result(&["x"], 1)]),
        record("b", &[&[1]], vec![result(&["y", "x"], 1)]),
    ];
    let exported = Exported::new(&records);
    assert_eq!(exported.layers().len(), 3);
    let imported = round_trip(&records);
    let lengths = imported
        .records
        .iter()
        .flat_map(|r| &r.results)
        .map(|r| r.layers.len());
    assert_eq!(lengths.collect::<BTreeSet<_>>(), [1, 2].into());
}

#[test]
fn a_layer_without_time_or_parent_is_written_as_go_does() {
    let mut top = result(&["a", "b"], 1_000);
    top.created_at = None;
    let records = [
        record("source", &[], vec![]),
        record("step", &[&[0]], vec![top]),
    ];
    let text = String::from_utf8(Exported::new(&records).config_bytes().to_vec()).unwrap();
    assert!(
        text.contains(r#""createdAt":"0001-01-01T00:00:00Z""#),
        "{text}"
    );
    assert!(text.contains(r#""parent":-1"#), "{text}");
}

fn image_config(cache: &str, diff_ids: &[Digest]) -> Vec<u8> {
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [
            {"created": "2026-01-01T00:00:00Z", "created_by": "ADD base"},
            {"created_by": "ENV a=b", "empty_layer": true},
            {"created": "2026-01-02T00:00:00Z", "created_by": "RUN make"},
        ],
        inline::FIELD: cache,
    });
    serde_json::to_vec(&config).unwrap()
}

#[test]
fn inline_cache_refers_to_the_image_s_layers() {
    let records = [
        record("source", &[], vec![]),
        record("run", &[&[0]], vec![result(&["base", "made"], 1)]),
        // A linked copy stands alone; a step of another stage is not in the image.
        record("link", &[&[0]], vec![result(&["made"], 1)]),
        record("other", &[&[0]], vec![result(&["base", "elsewhere"], 1)]),
    ];
    let diff_ids = [digest("base"), digest("made")];
    let value = inline::value(&records, &diff_ids).unwrap();
    let json = String::from_utf8(BASE64_STANDARD.decode(&value).unwrap()).unwrap();
    assert!(json.starts_with('['), "{json}");
    assert!(json.contains(r#""layers":[{"layer":1,"#), "{json}");
    assert!(json.contains(r#""chains":[{"layers":[1],"#), "{json}");

    let layers = [
        layer("base").descriptor.clone(),
        layer("made").descriptor.clone(),
    ];
    let config = image_config(&value, &diff_ids);
    let imported = Imported::from_image(&config, &layers).unwrap().unwrap();
    assert_eq!(imported.records.len(), 4);
    let stored = |name: &str| {
        let found = imported
            .records
            .iter()
            .find(|record| record.digest == digest(name));
        let results = &found.unwrap().results;
        let layers = results.first().map(|result| result.layers.iter());
        layers.map(|layers| {
            layers
                .map(|layer| layer.diff_id.clone())
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(stored("run"), Some(diff_ids.to_vec()));
    assert_eq!(stored("link"), Some(vec![digest("made")]));
    assert_eq!(stored("other"), None);
    let top = imported
        .records
        .iter()
        .flat_map(|record| &record.results)
        .next()
        .unwrap();
    let made = top.layers.last().unwrap();
    assert_eq!(made.created_at.unwrap().to_string(), "2026-01-02T00:00:00Z");
    assert_eq!(
        made.descriptor.annotations["buildkit/description"],
        "RUN make"
    );

    // A squashed image has other layers than its config says: what it holds is of no use.
    assert_eq!(Imported::from_image(&config, &layers[..1]), Ok(None));
    let nothing = inline::value(&records, &[digest("unrelated")]);
    assert_eq!(nothing, None);
    assert_eq!(Imported::from_image(br#"{"rootfs":null}"#, &[]).ok(), None);
    assert_eq!(Imported::from_image(b"{}", &[]), Ok(None));
    for bad in ["!", "e30=", "WzFd"] {
        assert!(
            Imported::from_image(&image_config(bad, &diff_ids), &layers).is_err(),
            "{bad}"
        );
    }
}

/// Random graphs: each record refers to earlier ones; results are chains of a few layers.
fn graphs() -> impl Strategy<Value = Vec<Record>> {
    let link = (any::<prop::sample::Index>(), prop::option::of(0..3_u8));
    let inputs = prop::collection::vec(prop::collection::vec(link, 1..4), 0..3);
    let results = prop::collection::vec((prop::collection::vec(0..4_u8, 1..4), 0..5_i64), 0..2);
    prop::collection::vec((0..5_u8, inputs, results), 1..14).prop_map(|entries| {
        let mut records: Vec<Record> = Vec::new();
        for (name, inputs, results) in entries {
            let earlier = records.len();
            let link = |(index, selector): (prop::sample::Index, Option<u8>)| Link {
                selector: selector.map(|selector| digest(format!("selector {selector}"))),
                record: index.index(earlier),
            };
            let inputs: Vec<Vec<Link>> = if earlier == 0 {
                Vec::new()
            } else {
                let input = |all: Vec<_>| all.into_iter().map(link).collect();
                inputs.into_iter().map(input).collect()
            };
            let of_numbers = |(layers, at): (Vec<u8>, i64)| {
                let names: Vec<String> = layers.iter().map(u8::to_string).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                result(&names, at)
            };
            records.push(Record {
                inputs,
                results: results.into_iter().map(of_numbers).collect(),
                ..Record::new(digest(format!("record {name}")))
            });
        }
        records
    })
}

/// Puts the records into another order, and makes the links follow.
fn shuffled(records: &[Record], seed: &[usize]) -> Vec<Record> {
    let mut order: Vec<usize> = (0..records.len()).collect();
    order.sort_by_key(|&index| (seed[index % seed.len()], index));
    let mut position = vec![0; records.len()];
    for (new, &old) in order.iter().enumerate() {
        position[old] = new;
    }
    let moved = |&old: &usize| {
        let mut record = records[old].clone();
        for input in &mut record.inputs {
            input.reverse();
            for link in input {
                link.record = position[link.record];
            }
        }
        record
    };
    order.iter().map(moved).collect()
}

/// Returns what is stored: digests of records, with the layers of their results.
fn stored(records: &[Record]) -> BTreeSet<(Digest, Vec<Digest>)> {
    let mut stored = BTreeSet::new();
    for record in records {
        for result in &record.results {
            let layers = result.layers.iter().map(|layer| layer.diff_id.clone());
            stored.insert((record.digest.clone(), layers.collect()));
        }
    }
    stored
}

proptest! {
    #[test]
    fn the_order_of_records_does_not_matter(
        records in graphs(),
        seed in prop::collection::vec(0..20_usize, 14),
    ) {
        let one = Exported::new(&records);
        let two = Exported::new(&shuffled(&records, &seed));
        prop_assert_eq!(one.config(), two.config());
    }

    #[test]
    fn what_was_normalized_stays_as_it_is(records in graphs()) {
        let once = Exported::new(&records);
        let again = Exported::new(&round_trip(&records).records);
        prop_assert_eq!(once.config(), again.config());
        prop_assert_eq!(stored(&round_trip(&records).records), stored(&records));
    }
}
