//! Caches that BuildKit exported, uncompressed and with `mode=max`: `NAME.json` has the manifest
//! and the config of each, `manifests.txt` the digest that BuildKit gave the manifest.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use larder_cache::format::CacheConfig;
use larder_cache::{Exported, Imported, Manifest, ManifestForm, Record};
use larder_oci::{Descriptor, Digest, ImageManifest, go_json};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    manifest: ImageManifest,
    config: CacheConfig,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Returns all cases by name.
fn cases() -> BTreeMap<String, Golden> {
    let mut cases = BTreeMap::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let golden = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            cases.insert(name, golden);
        }
    }
    assert_eq!(cases.len(), 36);
    cases
}

fn import(golden: &Golden) -> Imported {
    Imported::parse(&golden.config.to_json(), &golden.manifest.layers).unwrap()
}

#[test]
fn configs_and_manifests_are_written_to_the_byte() {
    let digests = std::fs::read_to_string(folder().join("manifests.txt")).unwrap();
    let digests: BTreeMap<&str, &str> = digests
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .collect();
    for (name, golden) in cases() {
        let config = golden.config.to_json();
        assert_eq!(
            Digest::sha256(&config),
            golden.manifest.config.digest,
            "{name}"
        );
        let manifest = go_json(&golden.manifest);
        assert_eq!(
            Digest::sha256(&manifest).as_str(),
            digests[&*name],
            "{name}"
        );
    }
}

#[test]
fn what_buildkit_wrote_is_normalized_already() {
    for (name, golden) in cases() {
        let exported = Exported::new(&import(&golden).records);
        if name == "parallel" {
            // Equal blobs on different parents: there, BuildKit's order depends on its walk.
            let again = Imported::from_config(exported.config(), &golden.manifest.layers).unwrap();
            assert_eq!(facts(&again.records), facts(&import(&golden).records));
            continue;
        }
        assert_eq!(exported.config(), &golden.config, "{name}");
        let written = exported.manifest(ManifestForm::Image);
        assert_eq!(written.bytes, go_json(&golden.manifest), "{name}");
    }
}

#[test]
fn all_forms_lead_to_the_same_records() {
    for (name, golden) in cases() {
        let expected = import(&golden);
        let exported = Exported::new(&expected.records);
        for form in [
            ManifestForm::Image,
            ManifestForm::Index,
            ManifestForm::DockerList,
        ] {
            let written = exported.manifest(form);
            let Manifest::Cache { config, layers } = Manifest::parse(&written.bytes).unwrap()
            else {
                panic!("{name}: {form:?} is no cache");
            };
            assert_eq!(config, exported.config_descriptor(), "{name}");
            let docker = |layer: &Descriptor| layer.media_type.contains("docker");
            assert_eq!(
                layers.iter().all(docker),
                form == ManifestForm::DockerList,
                "{name}"
            );
            let imported = Imported::parse(exported.config_bytes(), &layers).unwrap();
            assert_eq!(
                facts(&imported.records),
                facts(&expected.records),
                "{name} {form:?}"
            );
        }
    }
}

#[test]
fn results_have_their_layers() {
    let golden = &cases()["run-chain"];
    let imported = import(golden);
    let longest = imported
        .records
        .iter()
        .flat_map(|record| &record.results)
        .max_by_key(|result| result.layers.len())
        .unwrap();
    assert_eq!(longest.layers.len(), 5);
    for layer in &longest.layers {
        // The recorded blobs are not compressed.
        assert_eq!(layer.diff_id, layer.descriptor.digest);
        assert!(golden.manifest.layers.contains(&layer.descriptor));
    }
    assert!(longest.created_at.is_some());
}

/// A record without the order of the list: digest, inputs by digest, results by layers.
type Facts = (Digest, Vec<Vec<(Option<Digest>, Digest)>>, Vec<Vec<Digest>>);

fn facts(records: &[Record]) -> Vec<Facts> {
    let fact = |record: &Record| {
        let input = |links: &Vec<larder_cache::Link>| {
            let mut links: Vec<_> = links
                .iter()
                .map(|link| (link.selector.clone(), records[link.record].digest.clone()))
                .collect();
            links.sort();
            links
        };
        let layers = |result: &larder_cache::RecordResult| {
            let digests = result
                .layers
                .iter()
                .map(|layer| layer.descriptor.digest.clone());
            digests.collect()
        };
        (
            record.digest.clone(),
            record.inputs.iter().map(input).collect(),
            record.results.iter().map(layers).collect(),
        )
    };
    let mut facts: Vec<Facts> = records.iter().map(fact).collect();
    facts.sort();
    facts
}
