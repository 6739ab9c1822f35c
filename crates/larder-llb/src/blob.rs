//! The source of a single blob: of a registry, `docker-image+blob://NAME@DIGEST`, or in an OCI
//! layout, `oci-layout+blob://NAME@DIGEST`.

use larder_oci::{Digest, ImageRef};

use crate::cache_map;
use crate::graph::Problem;
use crate::http::number;
use crate::image::check_record_type;
use crate::pb;

/// What blobs of registries begin with.
const REGISTRY: &str = "docker-image+blob";
/// What blobs in OCI layouts begin with.
const LAYOUT: &str = "oci-layout+blob";

/// Where a blob is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobLocator {
    /// The repository, or a name in the layout; it has the blob's digest for a digest.
    pub image_ref: ImageRef,
    /// The blob's digest.
    pub digest: Digest,
    /// The name of the OCI layout that has it; `None` for a blob of a registry.
    pub layout: Option<String>,
}

impl BlobLocator {
    /// Reads a locator; `None` for something else. A layout has the name that the blob has before
    /// its digest.
    pub(crate) fn parse(text: &str) -> Option<Result<Self, Problem>> {
        let (scheme, name) = text.split_once("://")?;
        match scheme {
            REGISTRY => Some(Self::of(name, None)),
            LAYOUT => {
                let layout = name.split('@').next().unwrap_or(name);
                Some(Self::of(name, Some(layout.to_owned())))
            }
            _ => None,
        }
    }

    fn of(name: &str, layout: Option<String>) -> Result<Self, Problem> {
        let image_ref: ImageRef = name
            .parse()
            .map_err(|error| Problem::new(format!("`{name}`: {error}")))?;
        let Some(digest) = image_ref.digest().cloned() else {
            let problem = format!("`{name}` names no blob by its digest");
            return Err(Problem::new(problem));
        };
        Ok(Self {
            image_ref,
            digest,
            layout,
        })
    }
}

impl std::fmt::Display for BlobLocator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = match self.layout {
            Some(_) => LAYOUT,
            None => REGISTRY,
        };
        write!(f, "{scheme}://{}", self.image_ref)
    }
}

/// A blob that becomes a file, alone in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobSource {
    /// Where the blob is.
    pub locator: BlobLocator,
    /// The file's name, if it is given one.
    filename: String,
    /// Permission bits; zero where nothing is said.
    perm: u32,
    /// The file's owner.
    pub owner: (u32, u32),
}

impl BlobSource {
    /// Reads a source; `None` for another kind of source.
    ///
    /// # Errors
    /// [`Problem`] for an identifier without a digest, and attributes that mean nothing.
    pub fn parse(source: &pb::SourceOp) -> Option<Result<Self, Problem>> {
        let locator = BlobLocator::parse(&source.identifier)?;
        Some(locator.and_then(|locator| Self::of(locator, source)))
    }

    fn of(mut locator: BlobLocator, source: &pb::SourceOp) -> Result<Self, Problem> {
        let attr = |key: &str| source.attrs.get(key).map_or("", String::as_str);
        if let Some(layout) = &mut locator.layout {
            attr("oci.store").clone_into(layout);
            if layout.is_empty() {
                return Err(Problem::new("oci-layout blob source requires store id"));
            }
        }
        let int = |key: &str| match attr(key) {
            "" => Ok(0),
            text => number(text).ok_or_else(|| Problem::new(format!("`{key}` is no number"))),
        };
        let filename = attr("http.filename").to_owned();
        if filename.contains('/') || matches!(filename.as_str(), "." | "..") {
            return Err(Problem::new("`http.filename` is no name of a file"));
        }
        check_record_type(source)?;
        Ok(Self {
            locator,
            filename,
            perm: int("http.perm")?,
            owner: (int("http.uid")?, int("http.gid")?),
        })
    }

    /// Returns the name of the file: by default, the digest's.
    pub fn file_name(&self) -> &str {
        match self.filename.as_str() {
            "" => self.locator.digest.hex(),
            name => name,
        }
    }

    /// Returns the file's permission bits.
    pub fn mode(&self) -> u32 {
        match self.perm & 0o7777 {
            0 => 0o600,
            mode => mode,
        }
    }

    /// Returns the op's digest in cache keys.
    pub fn cache_digest(&self) -> Digest {
        cache_map::blob_source_digest(&self.locator.digest, &self.filename, self.perm, self.owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(identifier: &str, attrs: &[(&str, &str)]) -> Option<Result<BlobSource, String>> {
        let attr = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let source = pb::SourceOp {
            identifier: identifier.to_owned(),
            attrs: attrs.iter().map(attr).collect(),
        };
        let parsed = BlobSource::parse(&source)?;
        Some(parsed.map_err(|problem| problem.to_string()))
    }

    #[test]
    fn blobs_are_named_by_digest() {
        let digest = Digest::sha256("blob");
        let identifier = format!("docker-image+blob://example.com/a/b@{digest}");
        let plain = parse(&identifier, &[]).unwrap().unwrap();
        assert_eq!(
            plain.locator.image_ref.to_string(),
            format!("example.com/a/b@{digest}")
        );
        assert_eq!((plain.file_name(), plain.mode()), (digest.hex(), 0o600));
        let attrs = [
            ("http.filename", "f"),
            ("http.perm", "0644"),
            ("http.uid", "7"),
        ];
        let named = parse(&identifier, &attrs).unwrap().unwrap();
        assert_eq!(
            (named.file_name(), named.mode(), named.owner),
            ("f", 0o644, (7, 0))
        );
        assert_ne!(named.cache_digest(), plain.cache_digest());

        assert!(parse("docker-image://a", &[]).is_none());
        let error = |identifier: &str, attrs: &[_]| parse(identifier, attrs).unwrap().unwrap_err();
        assert!(error("docker-image+blob://example.com/a:b", &[]).contains("no blob"));
        assert!(error(&identifier, &[("http.filename", "../x")]).contains("no name of a file"));
        assert!(error(&identifier, &[("http.gid", "x")]).contains("`http.gid` is no number"));
    }
    #[test]
    fn blobs_in_layouts_have_the_keys_of_any() {
        let digest = Digest::sha256("blob");
        let identifier = format!("oci-layout+blob://example.com/a@{digest}");
        let there = parse(&identifier, &[("oci.store", "here")]);
        let there = there.unwrap().unwrap();
        assert_eq!(there.locator.layout.as_deref(), Some("here"));
        let identifier_elsewhere = format!("docker-image+blob://example.com/b@{digest}");
        let elsewhere = parse(&identifier_elsewhere, &[("oci.store", "here")]);
        let elsewhere = elsewhere.unwrap().unwrap();
        assert_eq!(elsewhere.locator.layout, None);
        assert_eq!(there.cache_digest(), elsewhere.cache_digest());

        let error = |attrs: &[_]| parse(&identifier, attrs).unwrap().unwrap_err();
        assert_eq!(error(&[]), "oci-layout blob source requires store id");
        let bad_record = [("oci.store", "here"), ("image.recordtype", "x")];
        assert_eq!(error(&bad_record), "invalid record type x");
    }
}
