//! Lowers the Dockerfiles that BuildKit lowered, and compares graph and config with BuildKit's.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "golden/json.rs"]
mod json;

use std::path::Path;

use larder_dockerfile::{
    Dockerfile, ImageRequest, ImageResolver, LowerOptions, Lowered, ResolveError, ResolvedImage,
    parse_ignore,
};
use serde_json::Value;

const BUSYBOX: &str = "sha256:9790ee64421762efc0b59049e8ce9506d9e433dc919b4237b052b2125e8f8f80";
const EPOCH: &str = "1700000000";
const CASES: usize = 37;

struct Busybox;

impl ImageResolver for Busybox {
    fn resolve_image_config(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        assert_eq!(
            request.image_ref.to_string(),
            "docker.io/library/busybox:latest"
        );
        assert_eq!(
            request.log_name,
            "[internal] load metadata for docker.io/library/busybox:latest"
        );
        Ok(ResolvedImage {
            image_ref: request.image_ref.clone(),
            digest: BUSYBOX.parse()?,
            config: serde_json::from_slice(&std::fs::read(golden("busybox.config.json"))?)?,
        })
    }
}

fn golden(name: &str) -> std::path::PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    root.join(name)
}

fn cases() -> Vec<String> {
    let entries = std::fs::read_dir(golden("")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), CASES);
    names
}

fn read_json(case: &str, file: &str) -> Value {
    let bytes = std::fs::read(golden(case).join(file)).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn lower(case: &str, epoch: bool) -> Lowered {
    let text = std::fs::read(golden(case).join("Dockerfile")).unwrap();
    let mut options = LowerOptions {
        build_platform: "linux/amd64".parse().unwrap(),
        ..LowerOptions::default()
    };
    options.context.session = Some("SESSION".to_owned());
    if let Ok(ignore) = std::fs::read(golden(case).join("dockerignore")) {
        options.context.excludes = parse_ignore(&ignore).unwrap();
    }
    if epoch {
        let name = "SOURCE_DATE_EPOCH".to_owned();
        options.build_args.insert(name, EPOCH.to_owned());
    }
    let dockerfile = Dockerfile::parse(&text, "Dockerfile").unwrap();
    dockerfile.lower(&options, &Busybox).unwrap()
}

#[test]
fn graphs_equal_buildkits() {
    for case in cases() {
        let expected = read_json(&case, "llb.json");
        let found = json::definition(&lower(&case, false).definition);
        assert_eq!(json::renamed(&found), json::renamed(&expected), "{case}");
    }
}

#[test]
fn digests_equal_buildkits_where_no_session_is_in_them() {
    let mut compared = 0;
    for case in cases() {
        let expected = read_json(&case, "llb.json");
        let found = json::definition(&lower(&case, false).definition);
        for digest in json::without_local_source(&expected) {
            assert!(
                found["def"].get(&digest).is_some(),
                "{case}: no vertex {digest}: {:#}",
                expected["def"][&digest]
            );
            compared += 1;
        }
    }
    assert!(compared > 60, "only {compared} digests are comparable");
}

#[test]
fn configs_equal_buildkits() {
    for case in cases() {
        let mut expected = read_json(&case, "config.json");
        let fields = expected.as_object_mut().unwrap();
        // Both are known when the layers are.
        fields.remove("created");
        fields.remove("rootfs");
        let config = lower(&case, true).config;
        let mut found: Value = serde_json::from_slice(&config.to_json()).unwrap();
        found.as_object_mut().unwrap().remove("rootfs");
        assert_eq!(found, expected, "{case}");
    }
}
