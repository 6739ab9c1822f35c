//! Values of `--output`.

use std::collections::BTreeMap;

use super::values::csv_fields;

/// Where a result goes, as given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutputArg {
    pub(crate) kind: OutputKind,
    /// A path, or `-` for standard output.
    pub(crate) dest: Option<String>,
    /// All other attributes, each known to its kind.
    pub(crate) attributes: BTreeMap<String, String>,
}

/// What a result is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputKind {
    /// An image in the local store.
    Image,
    /// An OCI layout, as one tar.
    Oci,
    /// What `docker load` reads, as one tar; the local store if no destination is given.
    Docker,
    /// The file tree, as one tar.
    Tar,
    /// The file tree, in a directory.
    Local,
    /// Nothing: the result stays in the cache.
    CacheOnly,
}

impl OutputKind {
    /// Returns the name, as in `type=`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Oci => "oci",
            Self::Docker => "docker",
            Self::Tar => "tar",
            Self::Local => "local",
            Self::CacheOnly => "cacheonly",
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "image" => Ok(Self::Image),
            "oci" => Ok(Self::Oci),
            "docker" => Ok(Self::Docker),
            "tar" => Ok(Self::Tar),
            "local" => Ok(Self::Local),
            "cacheonly" => Ok(Self::CacheOnly),
            "registry" => Err("`type=registry` is not supported yet".to_owned()),
            _ => Err(format!(
                "`{text}` is no type of output (expected image, oci, docker, tar, local or cacheonly)"
            )),
        }
    }

    fn takes(self, attribute: &str) -> bool {
        match attribute {
            "name" | "oci-mediatypes" => {
                matches!(self, Self::Image | Self::Oci | Self::Docker)
            }
            "compression" | "rewrite-timestamp" => matches!(self, Self::Oci | Self::Docker),
            _ => false,
        }
    }
}

/// Attributes that BuildKit has and larder lacks. Given as `false` they ask for nothing.
const LATER: [&str; 17] = [
    "attestation-inline",
    "attestation-prefix",
    "compression-level",
    "dangling-name-prefix",
    "force-compression",
    "mode",
    "name-canonical",
    "oci-artifact",
    "platform-split",
    "prefer-nondist-layers",
    "push",
    "push-by-digest",
    "registry.insecure",
    "source-date-epoch",
    "store",
    "tar",
    "unpack",
];

/// Parses `DIR`, `-`, or `type=oci,dest=PATH,name=REF`.
pub(super) fn parse(text: &str) -> Result<OutputArg, String> {
    let fields = csv_fields(text)?;
    if let [single] = fields.as_slice()
        && !single.starts_with("type=")
    {
        return shorthand(single);
    }
    let (mut kind, mut dest, mut attributes) = (None, None, BTreeMap::new());
    for field in &fields {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("`{field}` is not of the form `key=value`"))?;
        match key.trim().to_ascii_lowercase().as_str() {
            "type" => kind = Some(OutputKind::parse(value)?),
            "dest" => dest = Some(value.to_owned()).filter(|dest| !dest.is_empty()),
            key => drop(attributes.insert(key.to_owned(), value.to_owned())),
        }
    }
    let kind = kind.ok_or("`type` is missing")?;
    check_attributes(kind, &mut attributes)?;
    check_dest(kind, dest.as_deref())?;
    Ok(OutputArg {
        kind,
        dest,
        attributes,
    })
}

fn shorthand(dest: &str) -> Result<OutputArg, String> {
    let kind = match dest {
        "" => return Err("the destination is empty".to_owned()),
        "-" => OutputKind::Tar,
        _ => OutputKind::Local,
    };
    Ok(OutputArg {
        kind,
        dest: Some(dest.to_owned()),
        attributes: BTreeMap::new(),
    })
}

fn check_attributes(
    kind: OutputKind,
    attributes: &mut BTreeMap<String, String>,
) -> Result<(), String> {
    for (key, value) in &*attributes {
        let is_later = LATER.contains(&key.as_str()) || key.starts_with("annotation");
        // `tar` and `store` are on by default.
        let asks_for_default = match key.as_str() {
            "tar" | "store" => value == "true",
            _ => value == "false",
        };
        if is_later && !asks_for_default {
            return Err(format!("attribute `{key}={value}` is not supported yet"));
        }
        if !is_later && !kind.takes(key) {
            return Err(format!("`{key}` is no attribute of `type={}`", kind.name()));
        }
    }
    attributes.retain(|key, _| kind.takes(key));
    for key in ["oci-mediatypes", "rewrite-timestamp"] {
        if let Some(value) = attributes.get(key)
            && !matches!(value.as_str(), "true" | "false" | "")
        {
            return Err(format!("`{key}={value}`: expected true or false"));
        }
    }
    if let Some(compression) = attributes.get("compression")
        && !matches!(compression.as_str(), "gzip" | "zstd" | "uncompressed")
    {
        return Err(format!(
            "`compression={compression}`: expected gzip, zstd or uncompressed"
        ));
    }
    Ok(())
}

fn check_dest(kind: OutputKind, dest: Option<&str>) -> Result<(), String> {
    match (kind, dest) {
        (OutputKind::Oci | OutputKind::Tar | OutputKind::Local, None) => {
            Err(format!("`type={}` needs `dest`", kind.name()))
        }
        (OutputKind::Local, Some("-")) => Err("`type=local` needs a directory".to_owned()),
        (OutputKind::Image | OutputKind::CacheOnly, Some(_)) => {
            Err(format!("`type={}` has no `dest`", kind.name()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_all_forms() {
        for (text, kind, dest) in [
            ("out", OutputKind::Local, Some("out")),
            ("-", OutputKind::Tar, Some("-")),
            ("a=b", OutputKind::Local, Some("a=b")),
            ("type=local,dest=d", OutputKind::Local, Some("d")),
            ("type=oci,dest=-", OutputKind::Oci, Some("-")),
            ("type=docker", OutputKind::Docker, None),
            ("dest=x.tar,type=docker", OutputKind::Docker, Some("x.tar")),
            ("type=image,name=a:1,push=false", OutputKind::Image, None),
            ("type=cacheonly", OutputKind::CacheOnly, None),
        ] {
            let output = parse(text).unwrap();
            assert_eq!(
                (output.kind, output.dest.as_deref()),
                (kind, dest),
                "{text}"
            );
        }
        let named = parse("type=oci,dest=x,\"name=a:1,b:2\",compression=zstd,tar=true").unwrap();
        assert_eq!(named.attributes["name"], "a:1,b:2");
        assert_eq!(named.attributes["compression"], "zstd");
        assert_eq!(named.attributes.len(), 2);
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, expected) in [
            ("", "the destination is empty"),
            ("type=nope", "`nope` is no type of output"),
            ("type=registry", "`type=registry` is not supported yet"),
            ("dest=x,name=y", "`type` is missing"),
            ("type=oci", "`type=oci` needs `dest`"),
            ("type=local,dest=-", "`type=local` needs a directory"),
            ("type=image,dest=x", "`type=image` has no `dest`"),
            (
                "type=oci,dest=x,colour=red",
                "`colour` is no attribute of `type=oci`",
            ),
            (
                "type=tar,dest=x,name=y",
                "`name` is no attribute of `type=tar`",
            ),
            (
                "type=image,push=true",
                "attribute `push=true` is not supported yet",
            ),
            (
                "type=oci,dest=x,tar=false",
                "attribute `tar=false` is not supported yet",
            ),
            (
                "type=oci,dest=x,annotation.a=b",
                "attribute `annotation.a=b` is not supported yet",
            ),
            (
                "type=oci,dest=x,compression=lz4",
                "`compression=lz4`: expected gzip",
            ),
            (
                "type=oci,dest=x,rewrite-timestamp=1",
                "`rewrite-timestamp=1`: expected true or false",
            ),
            ("type=oci,dest", "`dest` is not of the form `key=value`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
