//! The manifest that holds an image's attestations, one statement a layer.

use std::collections::BTreeMap;

use larder_oci::{Descriptor, Digest, ImageManifest, Platform, annotation, go_json, media_type};
use larder_store::Lease;
use serde_json::{Value, json};

use crate::error::{BuildError, Result};

const STATEMENT: &str = "application/vnd.in-toto+json";
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
const ARTIFACT_TYPE: &str = "application/vnd.docker.attestation.manifest.v1+json";
const EMPTY_CONFIG: &str = "application/vnd.oci.empty.v1+json";
const UNKNOWN: &str = "unknown";

/// What the manifest looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// An OCI artifact that names its subject.
    Artifact,
    /// An image for an unknown platform.
    Image,
}

/// Stores `statements` about `image`, and the manifest that holds them. Returns its descriptor as
/// an index names it, and the manifest.
pub(crate) fn write_manifest(
    lease: &Lease,
    statements: &[Value],
    image: &Descriptor,
    form: Form,
) -> Result<(Descriptor, ImageManifest)> {
    let statements: Vec<Vec<u8>> = statements.iter().map(go_json).collect();
    let layers: Vec<Descriptor> = statements.iter().map(|bytes| layer(bytes)).collect();
    let (manifest, config) = match form {
        Form::Artifact => artifact(&layers, image),
        Form::Image => as_image(&layers),
    };
    let manifest = go_json(&manifest);
    let blobs = statements.iter().chain([&config, &manifest]);
    let blobs: Vec<&[u8]> = blobs.map(Vec::as_slice).collect();
    lease.put_blobs(&blobs)?;
    let mut descriptor = Descriptor::of(media_type::MANIFEST, &manifest);
    descriptor.annotations = BTreeMap::from([
        (
            annotation::REFERENCE_DIGEST.to_owned(),
            image.digest.to_string(),
        ),
        (
            annotation::REFERENCE_TYPE.to_owned(),
            "attestation-manifest".to_owned(),
        ),
    ]);
    descriptor.platform = Some(Platform {
        os: UNKNOWN.to_owned(),
        ..Platform::linux(UNKNOWN, "")
    });
    let manifest = serde_json::from_slice(&manifest).map_err(|source| {
        BuildError::internal("the manifest of attestations is none").with_source(source)
    })?;
    Ok((descriptor, manifest))
}

fn layer(statement: &[u8]) -> Descriptor {
    let parsed: Value = serde_json::from_slice(statement).unwrap_or_default();
    let predicate_type = parsed["predicateType"].as_str().unwrap_or_default();
    Descriptor {
        annotations: BTreeMap::from([(PREDICATE_TYPE.to_owned(), predicate_type.to_owned())]),
        ..Descriptor::of(STATEMENT, statement)
    }
}

/// Returns manifest and config of an artifact.
fn artifact(layers: &[Descriptor], image: &Descriptor) -> (Value, Vec<u8>) {
    let config = b"{}".to_vec();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "config": {
            "mediaType": EMPTY_CONFIG,
            "digest": Digest::sha256(&config),
            "size": config.len(),
            "data": "e30=",
        },
        "layers": layers,
        "subject": Descriptor::new(&image.media_type, image.digest.clone(), image.size_bytes),
    });
    (manifest, config)
}

/// Returns manifest and config in the form of an image.
fn as_image(layers: &[Descriptor]) -> (Value, Vec<u8>) {
    let diff_ids: Vec<&Digest> = layers.iter().map(|layer| &layer.digest).collect();
    let config = go_json(&json!({
        "architecture": UNKNOWN,
        "os": UNKNOWN,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::MANIFEST,
        "config": Descriptor::of(media_type::CONFIG, &config),
        "layers": layers,
    });
    (manifest, config)
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn pretty(value: &Value) -> String {
        format!("{value:#}")
    }

    fn layers() -> Vec<Descriptor> {
        vec![layer(br#"{"predicateType":"https://a/b"}"#)]
    }

    #[test]
    fn an_artifact_names_its_subject() {
        let image = Descriptor {
            platform: Some(Platform::linux("amd64", "")),
            ..Descriptor::of(media_type::MANIFEST, b"image")
        };
        let (manifest, config) = artifact(&layers(), &image);
        assert_eq!(config, b"{}");
        assert_snapshot!(pretty(&manifest), @r#"
        {
          "schemaVersion": 2,
          "mediaType": "application/vnd.oci.image.manifest.v1+json",
          "artifactType": "application/vnd.docker.attestation.manifest.v1+json",
          "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "size": 2,
            "data": "e30="
          },
          "layers": [
            {
              "mediaType": "application/vnd.in-toto+json",
              "digest": "sha256:87e02c0f326b867e789094b6ce48dbf77a52bb7c57a4dcb6ca22eb9d99b2f11a",
              "size": 31,
              "annotations": {
                "in-toto.io/predicate-type": "https://a/b"
              }
            }
          ],
          "subject": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": "sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d",
            "size": 5
          }
        }
        "#);
    }

    #[test]
    fn an_image_of_attestations_is_for_no_platform() {
        let (manifest, config) = as_image(&layers());
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            manifest["layers"][0]["digest"]
        );
        assert_eq!(config["os"], "unknown");
        assert_eq!(manifest["config"]["mediaType"], media_type::CONFIG);
    }
}
