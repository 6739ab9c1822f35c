//! Values of `--output`.

pub(in crate::args) mod attributes;

use larder_engine::request::{ImageOutput, TreeOutput};

use super::values::csv_fields;

pub(crate) use attributes::{AnnotationArg, annotation_flag};

/// Where a result goes, as given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutputArg {
    pub(crate) kind: OutputKind,
    /// A path, or `-` for standard output.
    pub(crate) dest: Option<String>,
    /// What the image is made like and what becomes of it; as far as there is one.
    pub(crate) image: ImageOutput,
    /// How file trees are laid out; as far as there are any.
    pub(crate) tree: TreeOutput<()>,
}

/// What a result is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputKind {
    /// An image in the local store, in registries, or both.
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

    /// Returns the kind, and whether the image is pushed.
    fn parse(text: &str) -> Result<(Self, bool), String> {
        let kind = match text {
            "image" | "registry" => Self::Image,
            "oci" => Self::Oci,
            "docker" => Self::Docker,
            "tar" => Self::Tar,
            "local" => Self::Local,
            "cacheonly" => Self::CacheOnly,
            _ => {
                return Err(format!(
                    "`{text}` is no type of output (expected image, registry, oci, docker, tar, \
                     local or cacheonly)"
                ));
            }
        };
        Ok((kind, text == "registry"))
    }

    /// Returns whether it is an image.
    pub(crate) fn is_image(self) -> bool {
        matches!(self, Self::Image | Self::Oci | Self::Docker)
    }
}

/// Parses `DIR`, `-`, or `type=oci,dest=PATH,name=REF`.
pub(crate) fn parse(text: &str) -> Result<OutputArg, String> {
    let fields = csv_fields(text)?;
    if let [single] = fields.as_slice()
        && !single.starts_with("type=")
    {
        return shorthand(single);
    }
    let (mut kind, mut dest, mut attributes) = (None, None, Vec::new());
    for field in &fields {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("`{field}` is not of the form `key=value`"))?;
        match key.trim().to_ascii_lowercase().as_str() {
            "type" => kind = Some(OutputKind::parse(value)?),
            "dest" => dest = Some(value.to_owned()).filter(|dest| !dest.is_empty()),
            _ => attributes.push((key.trim(), value)),
        }
    }
    let (kind, pushes) = kind.ok_or("`type` is missing")?;
    let tree = attributes::take_tree(kind, &mut attributes)?;
    let image = attributes::parse(kind, pushes, &attributes)?;
    check_dest(kind, dest.as_deref())?;
    Ok(OutputArg {
        kind,
        dest,
        image,
        tree,
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
        image: ImageOutput::default(),
        tree: TreeOutput::default(),
    })
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
    }

    #[test]
    fn trees_may_be_split_by_platform() {
        for (text, expected) in [
            ("type=local,dest=d", None),
            ("type=local,dest=d,platform-split=true", Some(true)),
            ("type=tar,dest=d,platform-split=false", Some(false)),
        ] {
            assert_eq!(parse(text).unwrap().tree.platform_split, expected, "{text}");
        }
        let error = parse("type=oci,dest=d,platform-split=true").unwrap_err();
        assert!(
            error.contains("`platform-split` is no attribute"),
            "{error}"
        );
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, expected) in [
            ("", "the destination is empty"),
            ("type=nope", "`nope` is no type of output"),
            ("dest=x,name=y", "`type` is missing"),
            ("type=oci", "`type=oci` needs `dest`"),
            ("type=local,dest=-", "`type=local` needs a directory"),
            ("type=image,dest=x", "`type=image` has no `dest`"),
            ("type=oci,dest", "`dest` is not of the form `key=value`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
