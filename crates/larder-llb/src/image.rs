//! Images as sources: what their attributes say.

use larder_oci::{Digest, ImageRef};

use crate::graph::Problem;
use crate::pb;

/// What images of registries begin with.
const REGISTRY: &str = "docker-image://";
/// What images in OCI layouts begin with.
const LAYOUT: &str = "oci-layout://";

/// A source `docker-image://…` or `oci-layout://…`.
///
/// `image.recordtype` is checked, and has no effect: the layers of an image are told of as such.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSource {
    /// The image.
    pub image_ref: ImageRef,
    /// The name of the OCI layout that has it; `None` for one of a registry.
    pub layout: Option<String>,
    /// Whether its registry is asked even if the store has an image of the name.
    pub pull: bool,
    /// How many of its layers are taken, from the lowest on; at least one. `None` for all.
    pub layer_limit: Option<usize>,
    /// What its index or manifest must be.
    pub checksum: Option<Digest>,
}

impl ImageSource {
    /// Reads a source; `None` for another kind of source.
    ///
    /// # Errors
    /// [`Problem`], in BuildKit's words, for what is no image, and attributes that mean nothing.
    pub fn parse(source: &pb::SourceOp) -> Option<Result<Self, Problem>> {
        let identifier = &source.identifier;
        if let Some(name) = identifier.strip_prefix(REGISTRY) {
            return Some(Self::of_registry(name, source));
        }
        let name = identifier.strip_prefix(LAYOUT)?;
        Some(Self::in_layout(name, source))
    }

    fn of_registry(name: &str, source: &pb::SourceOp) -> Result<Self, Problem> {
        let attr = |key: &str| source.attrs.get(key).map(String::as_str);
        let pull = match attr("image.resolvemode") {
            None | Some("" | "default" | "local") => false,
            Some("pull") => true,
            Some(mode) => return Err(Problem::new(format!("invalid resolvemode: {mode}"))),
        };
        check_record_type(source)?;
        let checksum = attr("image.checksum").map(|text| {
            let invalid = |_| Problem::new(format!("invalid image checksum {text}"));
            text.parse().map_err(invalid)
        });
        Ok(Self {
            image_ref: image_ref(name)?,
            layout: None,
            pull,
            layer_limit: attr("image.layerlimit").map(layer_limit).transpose()?,
            checksum: checksum.transpose()?,
        })
    }

    fn in_layout(name: &str, source: &pb::SourceOp) -> Result<Self, Problem> {
        let limit = source.attrs.get("oci.layerlimit");
        Ok(Self {
            image_ref: image_ref(name)?,
            layout: Some(source.attrs.get("oci.store").cloned().unwrap_or_default()),
            pull: false,
            layer_limit: limit.map(|text| layer_limit(text)).transpose()?,
            checksum: None,
        })
    }
}

/// Checks the kind of record that a source is to become.
pub(crate) fn check_record_type(source: &pb::SourceOp) -> Result<(), Problem> {
    match source.attrs.get("image.recordtype").map(String::as_str) {
        None | Some("" | "regular" | "internal" | "frontend") => Ok(()),
        Some(other) => Err(Problem::new(format!("invalid record type {other}"))),
    }
}

fn image_ref(name: &str) -> Result<ImageRef, Problem> {
    let parsed = name.parse();
    parsed.map_err(|error| Problem::new(format!("image `{name}`: {error}")))
}

fn layer_limit(text: &str) -> Result<usize, Problem> {
    let limit = text.parse().ok().filter(|limit| *limit > 0);
    limit.ok_or_else(|| Problem::new(format!("invalid layer limit {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(identifier: &str, attrs: &[(&str, &str)]) -> Option<Result<ImageSource, String>> {
        let attr = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let source = pb::SourceOp {
            identifier: identifier.to_owned(),
            attrs: attrs.iter().map(attr).collect(),
        };
        let parsed = ImageSource::parse(&source)?;
        Some(parsed.map_err(|problem| problem.to_string()))
    }

    /// An identifier, attributes, and what they come to.
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], ImageSource);

    #[test]
    fn attributes_are_read() {
        let plain = ImageSource {
            image_ref: "example.com/a:1".parse().unwrap(),
            layout: None,
            pull: false,
            layer_limit: None,
            checksum: None,
        };
        let checksum = Digest::sha256("index");
        let image = "docker-image://example.com/a:1";
        let layout = "oci-layout://example.com/a:1";
        let checksum_text = checksum.to_string();
        let cases: [Case<'_>; 5] = [
            (image, &[("image.recordtype", "frontend")], plain.clone()),
            (image, &[("image.resolvemode", "local")], plain.clone()),
            (
                image,
                &[("image.resolvemode", "pull"), ("image.layerlimit", "2")],
                ImageSource {
                    pull: true,
                    layer_limit: Some(2),
                    ..plain.clone()
                },
            ),
            (
                image,
                &[("image.checksum", &checksum_text), ("oci.layerlimit", "1")],
                ImageSource {
                    checksum: Some(checksum),
                    ..plain.clone()
                },
            ),
            (
                layout,
                &[("oci.store", "here"), ("oci.layerlimit", "1")],
                ImageSource {
                    layout: Some("here".to_owned()),
                    layer_limit: Some(1),
                    ..plain
                },
            ),
        ];
        for (identifier, attrs, expected) in cases {
            assert_eq!(parse(identifier, attrs).unwrap(), Ok(expected), "{attrs:?}");
        }
        assert!(parse("docker-image+blob://a", &[]).is_none());
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for (attr, value, expected) in [
            ("image.layerlimit", "0", "invalid layer limit 0"),
            ("image.layerlimit", "-1", "invalid layer limit -1"),
            ("image.layerlimit", "x", "invalid layer limit x"),
            ("image.resolvemode", "push", "invalid resolvemode: push"),
            ("image.recordtype", "x", "invalid record type x"),
            ("image.checksum", "x", "invalid image checksum x"),
        ] {
            let parsed = parse("docker-image://a", &[(attr, value)]);
            assert_eq!(parsed.unwrap(), Err(expected.to_owned()));
        }
        assert!(parse("docker-image://A", &[]).unwrap().is_err());
        let limit = [("oci.layerlimit", "0")];
        assert!(parse("oci-layout://a", &limit).unwrap().is_err());
    }
}
