//! What is read: tolerant where BuildKit is, and never fooled.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use larder_cache::{ErrorKind, Imported, Manifest, ManifestForm, format, layout, limit};
use larder_oci::{Descriptor, Digest, media_type};

fn digest(name: &str) -> Digest {
    Digest::sha256(name)
}

/// Replaces `$name` by the digest of `name`.
fn with_digests(json: &str) -> Vec<u8> {
    let mut out = String::new();
    let mut parts = json.split('$');
    out.push_str(parts.next().unwrap());
    for part in parts {
        let end = part.find(|c: char| !c.is_alphanumeric()).unwrap();
        out.push_str(digest(&part[..end]).as_str());
        out.push_str(&part[end..]);
    }
    out.into_bytes()
}

/// Descriptors of uncompressed layers `a` to `e`.
fn layers() -> Vec<Descriptor> {
    ["a", "b", "c", "d", "e"]
        .map(|name| Descriptor::new(media_type::LAYER, digest(name), 1))
        .to_vec()
}

fn import(json: &str) -> larder_cache::Result<Imported> {
    Imported::parse(&with_digests(json), &layers())
}

#[test]
fn odd_configs_are_read() {
    for (json, records, results) in [
        ("{}", 0, 0),
        (r#"{"layers":null,"records":null}"#, 0, 0),
        (
            r#"{"records":[{"digest":"$r","inputs":null,"layers":null,"chains":null}]}"#,
            1,
            0,
        ),
        // Unknown fields; a time with an offset; a parent left out is layer 0.
        (
            r#"{"new":[{}],"layers":[{"blob":"$a","parent":-1,"x":1},{"blob":"$b"}],
                "records":[{"digest":"$r","layers":[{"layer":1,"createdAt":"2026-11-22T12:00:00+02:00"}],"y":null}]}"#,
            1,
            1,
        ),
        // A layer that no manifest lists: the result is gone, the record stays.
        (
            r#"{"layers":[{"blob":"$z","parent":-1},{"blob":"$b"}],"records":[{"digest":"$r","layers":[{"layer":1}]}]}"#,
            1,
            0,
        ),
        // A list of layers, and one without any.
        (
            r#"{"layers":[{"blob":"$a","parent":-1},{"blob":"$b","parent":-1}],
                "records":[{"digest":"$r","chains":[{"layers":[1,0]},{"layers":[]}]}]}"#,
            1,
            1,
        ),
        // An empty selector is none.
        (
            r#"{"records":[{"digest":"$r"},{"digest":"$s","inputs":[[{"selector":"","link":0}]]}]}"#,
            2,
            0,
        ),
    ] {
        let imported = import(json).unwrap();
        let found: usize = imported
            .records
            .iter()
            .map(|record| record.results.len())
            .sum();
        assert_eq!(
            (imported.records.len(), found),
            (records, results),
            "{json}"
        );
    }
}

#[test]
fn results_come_newest_first_and_records_after_what_they_refer_to() {
    let imported = import(
        r#"{"layers":[{"blob":"$a","parent":-1},{"blob":"$b"}],"records":[
            {"digest":"$r","inputs":[[{"link":1}]],
             "layers":[{"layer":0,"createdAt":"2026-01-01T00:00:00Z"},{"layer":1,"createdAt":"2026-01-02T00:00:00Z"}]},
            {"digest":"$s"}]}"#,
    )
    .unwrap();
    assert_eq!(imported.records[0].digest, digest("s"));
    let record = &imported.records[1];
    assert_eq!(record.inputs[0][0].record, 0);
    let chains: Vec<Vec<&Digest>> = record
        .results
        .iter()
        .map(|result| result.layers.iter().map(|layer| &layer.diff_id).collect())
        .collect();
    assert_eq!(
        chains,
        [vec![&digest("a"), &digest("b")], vec![&digest("a")]]
    );
}

#[test]
fn layers_may_be_described_by_the_config() {
    let json = r#"{"layers":[{"blob":"$x","parent":-1,"annotations":
        {"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","diffID":"$a","size":7,"createdAt":"2026-01-01T00:00:00Z"}}],
        "records":[{"digest":"$r","layers":[{"layer":0,"createdAt":"0001-01-01T00:00:00Z"}]}]}"#;
    let imported = Imported::parse(&with_digests(json), &[]).unwrap();
    let result = &imported.records[0].results[0];
    assert_eq!(result.created_at, None);
    assert_eq!(result.layers[0].diff_id, digest("a"));
    assert_eq!(result.layers[0].descriptor.size_bytes, 7);
    assert!(result.layers[0].created_at.is_some());
}

#[test]
fn hostile_configs_are_refused() {
    for (json, expected) in [
        ("", "not well-formed"),
        ("7", "not well-formed"),
        (
            r#"{"records":[{"digest":"nope"}]}"#,
            "`nope` is not a digest",
        ),
        (r#"{"records":[{}]}"#, "missing field `digest`"),
        (
            r#"{"records":[{"digest":"$r","inputs":[[{"link":1}]]}]}"#,
            "record 1 of 1",
        ),
        (
            r#"{"records":[{"digest":"$r","inputs":[[{"link":-1}]]}]}"#,
            "record -1 of 1",
        ),
        (
            r#"{"records":[{"digest":"$r","inputs":[[{"link":99999999999999999999}]]}]}"#,
            "not well-formed",
        ),
        (
            r#"{"records":[{"digest":"$r","inputs":[[]]}]}"#,
            "input 0 has no alternative",
        ),
        (
            r#"{"records":[{"digest":"$r","inputs":[[{}]]}]}"#,
            "records of the cache refer to each other in a circle",
        ),
        (
            r#"{"records":[{"digest":"$r","inputs":[[{"link":1}]]},{"digest":"$s","inputs":[[{"link":0}]]}]}"#,
            "in a circle",
        ),
        (
            r#"{"records":[{"digest":"$r","layers":[{"layer":0}]}]}"#,
            "layer 0 of 0",
        ),
        (r#"{"layers":[{"blob":"$a","parent":1}]}"#, "layer 1 of 1"),
        (r#"{"layers":[{"blob":"$a","parent":-2}]}"#, "layer -2 of 1"),
        (
            r#"{"layers":[{"blob":"$a"}],"records":[{"digest":"$r","layers":[{"layer":0}]}]}"#,
            "layers of the cache lie on each other in a circle",
        ),
        (
            r#"{"layers":[{"blob":"$a","parent":1},{"blob":"$b","parent":0}],"records":[{"digest":"$r","layers":[{"layer":1}]}]}"#,
            "in a circle",
        ),
        (
            r#"{"layers":[],"records":[{"digest":"$r","chains":[{"layers":[0]}]}]}"#,
            "layer 0 of 0",
        ),
    ] {
        let error = import(json).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{json}");
        assert!(error.to_string().contains(expected), "{json}: {error}");
    }
}

#[test]
fn oversized_caches_are_refused() {
    let many = |entry: &str, count: usize| vec![entry; count].join(",");
    let chain = |length: usize| {
        let layer = |index: usize| format!(r#"{{"blob":"$a","parent":{}}}"#, index as i64 - 1);
        let layers: Vec<String> = (0..length).map(layer).collect();
        let top = length - 1;
        format!(
            r#"{{"layers":[{}],"records":[{{"digest":"$r","layers":[{{"layer":{top}}}]}}]}}"#,
            layers.join(",")
        )
    };
    assert!(import(&chain(limit::LAYERS_OF_RESULT)).is_ok());
    let results = limit::LAYERS_OF_RESULTS / limit::LAYERS_OF_RESULT + 1;
    let top = format!(r#"{{"layer":{}}}"#, limit::LAYERS_OF_RESULT - 1);
    let tops = many(&top, results);
    for json in [
        format!(
            r#"{{"records":[{}]}}"#,
            many(r#"{"digest":"$r"}"#, limit::RECORDS + 1)
        ),
        format!(
            r#"{{"records":[{{"digest":"$r","inputs":[[{}]]}}]}}"#,
            many("{}", limit::LINKS + 1)
        ),
        format!(
            r#"{{"records":[{{"digest":"$r","inputs":[{}]}}]}}"#,
            many("[]", limit::LINKS + 1)
        ),
        chain(limit::LAYERS_OF_RESULT + 1),
        chain(limit::LAYERS_OF_RESULT).replace(&top, &tops),
        format!("{{{}}}", " ".repeat(limit::CONFIG_BYTES)),
    ] {
        let error = import(&json).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    }
}

#[test]
fn manifests_are_told_apart_by_what_they_have() {
    let of = |json: &str| Manifest::parse(&with_digests(json));
    let config = format!(
        r#"{{"mediaType":"{}","digest":"$c","size":3}}"#,
        format::MEDIA_TYPE
    );
    let layer = r#"{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"$a","size":1}"#;
    let image =
        r#"{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"$i","size":9}"#;
    let other =
        r#"{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"$c","size":3}"#;
    for json in [
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#),
        format!(r#"{{"manifests":[{layer},{config}]}}"#),
    ] {
        let Manifest::Cache { config, layers } = of(&json).unwrap() else {
            panic!("{json}");
        };
        assert_eq!((config.digest, layers.len()), (digest("c"), 1), "{json}");
    }
    let json = format!(r#"{{"config":{other},"layers":[{layer}]}}"#);
    assert!(matches!(of(&json).unwrap(), Manifest::Image { .. }));
    let json = format!(r#"{{"manifests":[{image},{layer}]}}"#);
    assert_eq!(
        of(&json).unwrap(),
        Manifest::Images(vec![Descriptor::new(media_type::MANIFEST, digest("i"), 9)])
    );
    for (json, expected) in [
        ("{}", "`unknown` leads to no cache"),
        (
            r#"{"mediaType":"x/y","config":null}"#,
            "`x/y` leads to no cache",
        ),
        ("<html>", "not well-formed"),
    ] {
        let error = of(json).unwrap_err().to_string();
        assert!(error.contains(expected), "{json}: {error}");
    }
}

#[test]
fn forms_are_chosen_by_attributes() {
    for (image_manifest, oci, expected) in [
        (None, true, Some(ManifestForm::Image)),
        (Some(true), true, Some(ManifestForm::Image)),
        (Some(false), true, Some(ManifestForm::Index)),
        (None, false, Some(ManifestForm::DockerList)),
        (Some(false), false, Some(ManifestForm::DockerList)),
        (Some(true), false, None),
    ] {
        let chosen = ManifestForm::choose(image_manifest, oci);
        assert_eq!(chosen.clone().ok(), expected);
        if let Err(error) = chosen {
            assert_eq!(error.kind(), ErrorKind::Options);
        }
    }
}

#[test]
fn a_layout_has_one_entry_a_tag() {
    let manifest = |name: &str| Descriptor::new(media_type::MANIFEST, digest(name), 1);
    let mut index = layout::empty();
    layout::put(&mut index, &manifest("one"), "latest");
    layout::put(&mut index, &manifest("two"), "other");
    layout::put(&mut index, &manifest("three"), "latest");
    let bytes = larder_oci::go_json(&index);
    let index = layout::parse(&bytes).unwrap();
    assert_eq!(index.manifests.len(), 2);
    assert_eq!(
        layout::find(&index, "latest").unwrap().digest,
        digest("three")
    );
    assert_eq!(layout::find(&index, "other").unwrap().digest, digest("two"));
    assert_eq!(layout::find(&index, "gone"), None);
    assert!(layout::parse(b"[]").is_err());
}
