//! What a result was made from.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use larder_dockerfile::Lowered;
use larder_llb::git::GitSource;
use larder_llb::{Vertex, pb};
use larder_oci::{Digest, ImageRef, Platform};
use serde_json::{Map, Value, json};

use crate::web;

/// What pins something that was fetched: the algorithm, and the digits.
pub(crate) type Pin = (String, String);

/// Something that was fetched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Material {
    uri: String,
    /// `None` where nothing pins it.
    digest: Option<Pin>,
}

impl Material {
    pub(crate) fn image(image_ref: &ImageRef, platform: &Platform, digest: &Digest) -> Self {
        Self {
            uri: purl(image_ref, Some(platform)),
            digest: Some(pair(digest)),
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut json = Map::from_iter([("uri".to_owned(), self.uri.as_str().into())]);
        if let Some((algorithm, digits)) = &self.digest {
            json.insert("digest".to_owned(), json!({algorithm: digits}));
        }
        json.into()
    }
}

/// What the graph says of its inputs.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    /// Sorted, each once.
    pub(crate) materials: Vec<Material>,
    /// Whether something that is read is pinned by no digest.
    pub(crate) is_open: bool,
}

/// Returns what a graph fetches. `platform` is what it is for; `fetched` has what came of vertices.
pub(crate) fn inputs(
    lowered: &Lowered,
    platform: &Platform,
    fetched: &BTreeMap<Digest, Pin>,
) -> Inputs {
    let mut inputs = Inputs::default();
    for vertex in lowered.definition.vertices() {
        let Some(pb::op::Op::Source(source)) = &vertex.op.op else {
            continue;
        };
        match material(lowered, vertex, source, platform) {
            Some(mut material) => {
                let pin = fetched.get(&vertex.digest).cloned();
                material.digest = pin.or(material.digest);
                inputs.is_open |= material.digest.is_none();
                inputs.materials.push(material);
            }
            None => inputs.is_open = true,
        }
    }
    inputs.materials.sort();
    inputs.materials.dedup();
    inputs
}

/// Returns what a source fetches; `None` for what is read from the client.
fn material(
    lowered: &Lowered,
    vertex: &Vertex,
    source: &pb::SourceOp,
    platform: &Platform,
) -> Option<Material> {
    let (scheme, rest) = source.identifier.split_once("://")?;
    match scheme {
        "docker-image" => {
            let pinned: ImageRef = rest.parse().ok()?;
            let digest = pinned.digest()?.clone();
            let step = lowered.steps.get(&vertex.digest);
            let written = step.and_then(|step| step.base_image.as_deref());
            let is_pinned_there = written
                .and_then(|text| text.parse::<ImageRef>().ok())
                .is_some_and(|written| written.digest().is_some());
            let named = if is_pinned_there || pinned.tag().is_none() {
                pinned
            } else {
                pinned.without_digest()
            };
            let own = vertex.op.platform.as_ref().map(platform_of);
            Some(Material::image(
                &named,
                own.as_ref().unwrap_or(platform),
                &digest,
            ))
        }
        // What the client sends.
        "http" if source.identifier.starts_with(web::UPLOADS) => None,
        "http" | "https" => Some(Material {
            uri: web::shown(&source.identifier),
            digest: source
                .attrs
                .get("http.checksum")
                .and_then(|digest| digest.parse::<Digest>().ok())
                .map(|digest| pair(&digest)),
        }),
        "git" => {
            let source = GitSource::of_op(source).ok()?;
            let mut uri = source.remote.redacted();
            if !source.reference.is_empty() {
                uri.push('#');
                uri += &source.reference;
            }
            Some(Material { uri, digest: None })
        }
        _ => None,
    }
}

fn platform_of(platform: &pb::Platform) -> Platform {
    Platform {
        os: platform.os.clone(),
        os_version: platform.os_version.clone(),
        ..Platform::linux(&platform.architecture, &platform.variant)
    }
}

pub(crate) fn pair(digest: &Digest) -> Pin {
    (digest.algorithm().to_owned(), digest.hex().to_owned())
}

/// Returns what pins a commit.
pub(crate) fn commit(id: &str) -> Pin {
    let algorithm = if id.len() == 64 { "sha256" } else { "sha1" };
    (algorithm.to_owned(), id.to_owned())
}

/// Returns an image's name as a package URL.
pub(crate) fn purl(image_ref: &ImageRef, platform: Option<&Platform>) -> String {
    let name = image_ref.familiar_name();
    let mut purl = format!("pkg:docker/{}", escaped(&name, "/:"));
    if let Some(tag) = image_ref.tag() {
        purl.push('@');
        purl += &escaped(tag, "");
    }
    let digest = image_ref
        .digest()
        .map(|digest| ("digest", digest.to_string()));
    let platform = platform.map(|platform| ("platform", usual(platform)));
    let qualifiers: Vec<String> = [digest, platform]
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", escaped(&value, "")))
        .collect();
    if !qualifiers.is_empty() {
        purl.push('?');
        purl += &qualifiers.join("&");
    }
    purl
}

/// Returns a platform without the variant that is meant anyway.
fn usual(platform: &Platform) -> String {
    let text = platform.to_string();
    text.parse()
        .map_or(text, |usual: Platform| usual.to_string())
}

/// Percent-encodes all but letters, digits, `-._~` and `kept`.
fn escaped(text: &str, kept: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-._~".contains(c) || kept.contains(c) {
            escaped.push(c);
        } else {
            write!(escaped, "%{byte:02X}").expect("a String takes all");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_package_urls() {
        let digest = Digest::sha256("x");
        let pinned = format!("reg.example:5000/team/app@{digest}");
        let hex = digest.hex();
        for (image_ref, platform, expected) in [
            ("busybox", None, "pkg:docker/busybox@latest".to_owned()),
            (
                "team/app:1.2",
                Some(Platform::linux("arm64", "v8")),
                "pkg:docker/team/app@1.2?platform=linux%2Farm64".to_owned(),
            ),
            (
                &pinned,
                Some(Platform::linux("arm", "v7")),
                format!(
                    "pkg:docker/reg.example:5000/team/app?digest=sha256%3A{hex}&platform=linux%2Farm%2Fv7"
                ),
            ),
        ] {
            let image_ref: ImageRef = image_ref.parse().unwrap();
            assert_eq!(purl(&image_ref, platform.as_ref()), expected);
        }
    }
}
