//! What a build leaves for other programs: the image's id, the metadata file.

use std::io;
use std::path::Path;

use larder_engine::event::WarningEvent;
use larder_engine::request::{BuildOutcome, ImageOutcome};
use larder_oci::go_json;
use serde_json::{Map, Value, json};

use crate::progress::rawjson;

/// The key of how an image was made; with several platforms, the platform follows.
const PROVENANCE: &str = "buildx.build.provenance";

/// Removes the id file of an earlier build, so that a failed one leaves none.
pub(crate) fn remove_stale(iidfile: &Path) -> io::Result<()> {
    match fs_err::remove_file(iidfile) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes the image's id, or the index's digest, without a line end.
pub(crate) fn write_iidfile(iidfile: &Path, image: &ImageOutcome) -> io::Result<()> {
    fs_err::write(iidfile, image.id().as_str())
}

/// Returns the metadata file of a build: what buildx writes of an image, and the warnings if there
/// are any, its keys sorted.
pub(crate) fn metadata(outcome: &BuildOutcome, warnings: &[WarningEvent]) -> String {
    let mut all = Map::new();
    if !warnings.is_empty() {
        let warnings = warnings.iter().map(rawjson::warning).collect();
        all.insert("buildx.build.warnings".to_owned(), warnings);
    }
    all.extend(fields(outcome));
    format!("{:#}", Value::Object(all))
}

/// Returns the metadata file of several targets: for each name, what [`metadata`] has of a build.
pub(crate) fn metadata_of_targets<'a>(
    targets: impl IntoIterator<Item = (&'a str, &'a BuildOutcome)>,
) -> String {
    let targets = targets.into_iter();
    let all = targets.map(|(name, outcome)| (name.to_owned(), Value::Object(fields(outcome))));
    format!("{:#}", Value::Object(all.collect()))
}

fn fields(outcome: &BuildOutcome) -> Map<String, Value> {
    let mut fields = Map::new();
    for (platform, provenance) in &outcome.provenance {
        let key = match &outcome.provenance[..] {
            [_] => PROVENANCE.to_owned(),
            _ => format!("{PROVENANCE}/{platform}"),
        };
        fields.insert(key, provenance.clone());
    }
    if let Some(manifest) = &outcome.cache_manifest {
        // As text, which is what buildx makes of it.
        let manifest = go_json(manifest);
        let text = String::from_utf8_lossy(&manifest).into_owned();
        fields.insert("cache.manifest".to_owned(), text.into());
    }
    if let Some(image) = &outcome.image {
        if let Some(config) = &image.config_digest {
            fields.insert("containerimage.config.digest".to_owned(), json!(config));
        }
        fields.insert(
            "containerimage.descriptor".to_owned(),
            json!(image.descriptor),
        );
        fields.insert(
            "containerimage.digest".to_owned(),
            json!(image.descriptor.digest),
        );
        let names: Vec<String> = image.names.iter().map(ToString::to_string).collect();
        if !names.is_empty() {
            fields.insert("image.name".to_owned(), names.join(",").into());
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use larder_oci::{Descriptor, Digest};

    use super::*;

    fn image() -> ImageOutcome {
        ImageOutcome {
            descriptor: Descriptor::of("application/vnd.oci.image.manifest.v1+json", b"manifest"),
            config_digest: Some(Digest::sha256("config")),
            names: vec!["a:1".parse().unwrap(), "b".parse().unwrap()],
        }
    }

    fn outcome() -> BuildOutcome {
        BuildOutcome {
            image: Some(image()),
            cache_manifest: Some(Descriptor::of("a/b", b"cache")),
            ..BuildOutcome::default()
        }
    }

    #[test]
    fn metadata_has_the_keys_of_buildx() {
        assert_snapshot!(metadata(&outcome(), &[]), @r#"
        {
          "cache.manifest": "{\"mediaType\":\"a/b\",\"digest\":\"sha256:5e1ecee06a7fc06f305ae5c12acfe7a7f67b8ece7af76932ed3afab00c3c6921\",\"size\":5}",
          "containerimage.config.digest": "sha256:b79606fb3afea5bd1609ed40b622142f1c98125abcfe89a76a661b0e8e343910",
          "containerimage.descriptor": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": "sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f",
            "size": 8
          },
          "containerimage.digest": "sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f",
          "image.name": "docker.io/library/a:1,docker.io/library/b:latest"
        }
        "#);
        assert_eq!(metadata(&BuildOutcome::default(), &[]), "{}");
        let told = |platforms: &[&str]| {
            let provenance = platforms
                .iter()
                .map(|p| (p.parse().unwrap(), json!({"a": *p})));
            let outcome = BuildOutcome {
                provenance: provenance.collect(),
                ..BuildOutcome::default()
            };
            serde_json::from_str::<Value>(&metadata(&outcome, &[])).unwrap()
        };
        assert_eq!(
            told(&["linux/amd64"]),
            json!({"buildx.build.provenance": {"a": "linux/amd64"}})
        );
        assert_eq!(
            told(&["linux/amd64", "linux/arm64"]),
            json!({
                "buildx.build.provenance/linux/amd64": {"a": "linux/amd64"},
                "buildx.build.provenance/linux/arm64": {"a": "linux/arm64"},
            })
        );
        let index = ImageOutcome {
            config_digest: None,
            ..image()
        };
        let digest = index.descriptor.digest.clone();
        assert_eq!(*index.id(), digest);
        let outcome = BuildOutcome {
            image: Some(index),
            ..BuildOutcome::default()
        };
        assert!(!metadata(&outcome, &[]).contains("config.digest"));
    }

    #[test]
    fn an_id_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("iid");
        remove_stale(&path).unwrap();
        write_iidfile(&path, &image()).unwrap();
        assert_eq!(
            fs_err::read_to_string(&path).unwrap(),
            Digest::sha256("config").to_string()
        );
        remove_stale(&path).unwrap();
        assert!(!path.exists());
        assert!(remove_stale(directory.path()).is_err());
    }
}
