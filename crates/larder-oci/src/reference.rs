use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Digest;

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// The longest repository name that registries accept (distribution specification).
const MAX_NAME_BYTES: usize = 255;

/// A reference to an image, normalized as Docker does: `python` is
/// `docker.io/library/python:latest`.
///
/// The grammar is that of the `distribution/reference` package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageRef {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text that is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference format: `{text}`: {reason}")]
pub struct ImageRefError {
    text: String,
    reason: &'static str,
}

impl ImageRef {
    /// Returns the registry, `docker.io` or `host[:port]`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the repository below the registry, `library/python`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag; `latest` where neither a tag nor a digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest that pins the image, if any.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns this reference pinned to `digest`, the tag kept.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// Returns this reference without its digest.
    #[must_use]
    pub fn without_digest(&self) -> Self {
        let tag = self.tag.clone().or_else(|| Some(DEFAULT_TAG.to_owned()));
        Self {
            tag,
            digest: None,
            ..self.clone()
        }
    }

    /// Returns the name as people write it: without `docker.io/` and `library/`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let short = full.strip_prefix("docker.io/").unwrap_or(&full);
        short.strip_prefix("library/").unwrap_or(short).to_owned()
    }

    /// Returns the familiar name without tag and digest.
    pub fn familiar_name(&self) -> String {
        Self {
            tag: None,
            digest: None,
            ..self.clone()
        }
        .familiar()
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for ImageRef {
    type Err = ImageRefError;

    fn from_str(text: &str) -> Result<Self, ImageRefError> {
        let fail = |reason| ImageRefError {
            text: text.to_owned(),
            reason,
        };
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => (
                rest,
                Some(
                    digest
                        .parse()
                        .map_err(|_| fail("the part after `@` is not a digest"))?,
                ),
            ),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(fail(
                "the tag must be letters, digits, `_`, `.` and `-`, 128 at most",
            ));
        }
        let (registry, path) = match name.split_once('/') {
            Some((host, path)) if is_host(host) => (host, path),
            _ => (DEFAULT_REGISTRY, name),
        };
        let registry = if registry == "index.docker.io" {
            DEFAULT_REGISTRY
        } else {
            registry
        };
        let path = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if name.is_empty() {
            return Err(fail("the name is empty"));
        }
        if path.bytes().any(|c| c.is_ascii_uppercase()) {
            return Err(fail("repository name must be lowercase"));
        }
        if path.len() > MAX_NAME_BYTES || !path.split('/').all(is_path_component) {
            return Err(fail(
                "the repository name must be words of `a-z0-9` joined by `.`, `_`, `__`, `-` or `/`",
            ));
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (None, Some(_)) => None,
        };
        Ok(Self {
            registry: registry.to_owned(),
            repository: path,
            tag,
            digest,
        })
    }
}

fn is_host(part: &str) -> bool {
    let looks_like_host = part.contains(['.', ':'])
        || part == "localhost"
        || part.bytes().any(|c| c.is_ascii_uppercase());
    looks_like_host
        && part
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b".-:[]_".contains(&c))
}

fn is_tag(tag: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().all(|c| word(c) || c == b'.' || c == b'-')
        && tag.bytes().next().is_some_and(word)
}

fn is_path_component(part: &str) -> bool {
    let alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    part.bytes().next().is_some_and(alphanumeric)
        && part.bytes().last().is_some_and(alphanumeric)
        && separators
            .all(|run| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|c| c == b'-'))
}

impl TryFrom<String> for ImageRef {
    type Error = ImageRefError;

    fn try_from(text: String) -> Result<Self, ImageRefError> {
        text.parse()
    }
}

impl From<ImageRef> for String {
    fn from(image_ref: ImageRef) -> Self {
        image_ref.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalizes_as_docker_does() {
        for (text, full, familiar) in [
            ("python", "docker.io/library/python:latest", "python:latest"),
            (
                "python:3.11-slim",
                "docker.io/library/python:3.11-slim",
                "python:3.11-slim",
            ),
            ("user/app", "docker.io/user/app:latest", "user/app:latest"),
            (
                "localhost:5000/a/b:c",
                "localhost:5000/a/b:c",
                "localhost:5000/a/b:c",
            ),
            ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
            ("ghcr.io/x/y", "ghcr.io/x/y:latest", "ghcr.io/x/y:latest"),
            (
                "index.docker.io/library/a",
                "docker.io/library/a:latest",
                "a:latest",
            ),
        ] {
            let image_ref: ImageRef = text.parse().unwrap();
            assert_eq!(image_ref.to_string(), full);
            assert_eq!(image_ref.familiar(), familiar);
        }
    }

    #[test]
    fn a_digest_replaces_the_default_tag() {
        let pinned = format!("a@sha256:{}", "0".repeat(64));
        let image_ref: ImageRef = pinned.parse().unwrap();
        assert_eq!(image_ref.tag(), None);
        assert_eq!(image_ref.to_string(), format!("docker.io/library/{pinned}"));
        assert_eq!(
            image_ref.without_digest().to_string(),
            "docker.io/library/a:latest"
        );
    }

    #[test]
    fn rejects_what_is_not_a_reference() {
        for bad in [
            "",
            ":",
            "a:",
            "A",
            "a//b",
            "-a",
            "a@sha256:0",
            "a b",
            "a:t/../x@",
            "x/../y",
            "a:-b",
        ] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad}");
        }
    }
}
