//! The attributes of an output that makes an image.

use std::ops::RangeInclusive;

use larder_engine::request::{
    Annotation, AnnotationPlace, ImageOptions, ImageOutput, LayerCompression, PushOptions,
    TreeOutput,
};
use larder_oci::{ImageRef, Platform};

use super::OutputKind;

/// Attributes that BuildKit has and larder lacks. Given as `false` they ask for nothing; `tar` is
/// on by default.
const LATER: [&str; 3] = ["mode", "prefer-nondist-layers", "tar"];

/// Attributes of an image that is stored or pushed, as against one in an archive.
const STORE_ONLY: [&str; 8] = [
    "dangling-name-prefix",
    "danging-name-empty-only",
    "name-canonical",
    "push",
    "push-by-digest",
    "registry.insecure",
    "store",
    "unpack",
];

/// Parses the attributes of an output of this kind, in the order given.
///
/// # Errors
/// Names the attribute that the kind doesn't have, or whose value it can't take.
pub(super) fn parse(
    kind: OutputKind,
    pushes: bool,
    attributes: &[(&str, &str)],
) -> Result<ImageOutput, String> {
    let mut image = ImageOutput::default();
    let mut push = PushOptions::default();
    let mut is_pushed = pushes;
    for (key, value) in attributes {
        let name = key.to_ascii_lowercase();
        if is_later(&name, value)? {
            continue;
        }
        let foreign = || format!("`{key}` is no attribute of `type={}`", kind.name());
        if !kind.is_image() || (kind == OutputKind::Oci && STORE_ONLY.contains(&name.as_str())) {
            return Err(foreign());
        }
        let flag = || truth(key, value);
        match name.as_str() {
            "name" => image.names = names(value)?,
            "push" => is_pushed = flag()?,
            "push-by-digest" => push.by_digest = flag()?,
            "registry.insecure" => push.insecure = flag()?,
            "store" => image.store = flag()?,
            "unpack" => image.unpack = flag()?,
            "name-canonical" => image.canonical_name = flag()?,
            "dangling-name-prefix" => image.dangling_prefix = Some((*value).to_owned()),
            // What larder does anyway.
            "danging-name-empty-only" => drop(flag()?),
            _ if !set_option(&mut image.options, key, &name, value)? => return Err(foreign()),
            _ => {}
        }
    }
    let options = &image.options;
    check_level(
        options.compression.unwrap_or_default(),
        options.compression_level,
    )?;
    image.push = is_pushed.then_some(push);
    Ok(image)
}

/// Takes the attributes of an output of this kind that are about file trees.
pub(super) fn take_tree(
    kind: OutputKind,
    attributes: &mut Vec<(&str, &str)>,
) -> Result<TreeOutput<()>, String> {
    let mut tree = TreeOutput::default();
    if !matches!(kind, OutputKind::Local | OutputKind::Tar) {
        return Ok(tree);
    }
    let mut others = Vec::new();
    for (key, value) in attributes.drain(..) {
        match key.to_ascii_lowercase().as_str() {
            "platform-split" => tree.platform_split = Some(truth(key, value)?),
            "attestation-prefix" => value.clone_into(&mut tree.attestation_prefix),
            _ => others.push((key, value)),
        }
    }
    *attributes = others;
    Ok(tree)
}

/// Sets what the image is made like; returns whether there is such an attribute.
fn set_option(
    options: &mut ImageOptions,
    key: &str,
    name: &str,
    value: &str,
) -> Result<bool, String> {
    match name {
        "oci-mediatypes" => options.oci_media_types = truth(key, value)?,
        "compression" => options.compression = Some(compression(value)?),
        "compression-level" => options.compression_level = Some(number(key, value)?),
        "force-compression" => options.force_compression = truth(key, value)?,
        "oci-artifact" => options.oci_artifact = truth(key, value)?,
        "attestation-inline" => options.inline_attestations = Some(truth(key, value)?),
        "rewrite-timestamp" => options.rewrite_timestamp = truth(key, value)?,
        "source-date-epoch" if value.is_empty() => options.source_date_epoch = None,
        "source-date-epoch" => options.source_date_epoch = Some(number(key, value)?),
        _ => match annotation(key, value) {
            Some(annotation) => options.annotations.push(annotation?),
            None => return Ok(false),
        },
    }
    Ok(true)
}

/// The annotations that one `--annotation` asks for: the same fact in several places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AnnotationArg(pub(crate) Vec<Annotation>);

/// Parses `--annotation [PLACE[PLATFORM],…:]KEY=VALUE`.
pub(crate) fn annotation_flag(text: &str) -> Result<AnnotationArg, String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` is not of the form `KEY=VALUE`"))?;
    let (places, key) = key.split_once(':').unwrap_or(("manifest", key));
    if key.is_empty() {
        return Err(format!("`{text}`: the key is empty"));
    }
    let annotation = |place: &str| {
        let (place, platform) = place_and_platform(place)?;
        Ok(Annotation {
            place,
            platform,
            key: key.to_owned(),
            value: value.to_owned(),
        })
    };
    let annotations: Result<_, String> = places.split(',').map(annotation).collect();
    annotations.map(AnnotationArg)
}

/// Parses `annotation[-PLACE][[PLATFORM]].KEY`; `None` if it is none. A key may have dots.
fn annotation(attribute: &str, value: &str) -> Option<Result<Annotation, String>> {
    let rest = attribute.strip_prefix("annotation")?;
    let (place, key) = rest.split_once('.')?;
    let place = match place.strip_prefix('-') {
        Some(place) => place.to_owned(),
        None if place.is_empty() || place.starts_with('[') => format!("manifest{place}"),
        None => return None,
    };
    let parsed = place_and_platform(&place).map(|(place, platform)| Annotation {
        place,
        platform,
        key: key.to_owned(),
        value: value.to_owned(),
    });
    Some(parsed)
}

/// Parses `PLACE` or `PLACE[PLATFORM]`.
fn place_and_platform(text: &str) -> Result<(AnnotationPlace, Option<Platform>), String> {
    let (place, platform) = match text.split_once('[') {
        None => (text, None),
        Some((place, rest)) => {
            let platform = rest
                .strip_suffix(']')
                .ok_or_else(|| format!("`{text}`: `]` is missing"))?;
            let platform: Platform = platform.parse().map_err(|error| format!("{error}"))?;
            (place, Some(platform))
        }
    };
    let place = match place {
        "manifest" => AnnotationPlace::Manifest,
        "manifest-descriptor" => AnnotationPlace::ManifestDescriptor,
        "index" => AnnotationPlace::Index,
        "index-descriptor" => AnnotationPlace::IndexDescriptor,
        _ => {
            return Err(format!(
                "unknown annotation type `{place}` (expected manifest, manifest-descriptor, index \
                 or index-descriptor)"
            ));
        }
    };
    Ok((place, platform))
}

/// Returns whether the attribute is one that larder lacks, but that asks for nothing.
fn is_later(name: &str, value: &str) -> Result<bool, String> {
    if !LATER.contains(&name) {
        return Ok(false);
    }
    let nothing = if name == "tar" { "true" } else { "false" };
    if value == nothing {
        return Ok(true);
    }
    Err(format!("attribute `{name}={value}` is not supported yet"))
}

fn names(list: &str) -> Result<Vec<ImageRef>, String> {
    // `*` stands for the names that the build has anyway.
    let names = list.split(',').filter(|name| !matches!(*name, "" | "*"));
    names
        .map(|name| name.parse().map_err(|error| format!("`name`: {error}")))
        .collect()
}

/// Parses the name of a compression.
pub(in crate::args) fn compression(value: &str) -> Result<LayerCompression, String> {
    match value {
        "gzip" => Ok(LayerCompression::Gzip),
        "estargz" => Ok(LayerCompression::Estargz),
        "zstd" => Ok(LayerCompression::Zstd),
        "uncompressed" => Ok(LayerCompression::Uncompressed),
        _ => Err(format!(
            "`compression={value}`: expected gzip, estargz, zstd or uncompressed"
        )),
    }
}

/// Refuses a level that the compression does not have.
pub(in crate::args) fn check_level(
    compression: LayerCompression,
    level: Option<i32>,
) -> Result<(), String> {
    let levels: RangeInclusive<i32> = match compression {
        LayerCompression::Gzip | LayerCompression::Estargz => 0..=9,
        LayerCompression::Zstd => 0..=22,
        LayerCompression::Uncompressed => return Ok(()),
    };
    match level {
        Some(level) if !levels.contains(&level) => Err(format!(
            "`compression-level={level}`: expected {} to {}",
            levels.start(),
            levels.end()
        )),
        _ => Ok(()),
    }
}

/// Parses a truth value as BuildKit does, where none at all means yes.
pub(in crate::args) fn truth(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        _ => Err(format!("`{key}={value}`: expected true or false")),
    }
}

/// Parses a number.
pub(in crate::args) fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, String> {
    let bad = |_| format!("`{key}={value}`: expected a number");
    value.parse().map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::output::parse as parse_output;

    fn image(text: &str) -> ImageOutput {
        parse_output(text)
            .unwrap_or_else(|error| panic!("{text}: {error}"))
            .image
    }

    #[test]
    fn an_image_has_buildkit_s_attributes() {
        let all = image(
            "type=image,\"name=a:1,b\",push=true,push-by-digest=true,registry.insecure=true,\
             store=false,unpack=0,name-canonical=,dangling-name-prefix=x,compression=zstd,\
             compression-level=7,force-compression=true,oci-mediatypes=false,\
             rewrite-timestamp=true,source-date-epoch=5,oci-artifact=false,\
             attestation-inline=false,prefer-nondist-layers=false",
        );
        assert_eq!(
            all,
            ImageOutput {
                names: vec!["a:1".parse().unwrap(), "b".parse().unwrap()],
                options: ImageOptions {
                    compression: Some(LayerCompression::Zstd),
                    compression_level: Some(7),
                    force_compression: true,
                    oci_media_types: false,
                    annotations: Vec::new(),
                    rewrite_timestamp: true,
                    source_date_epoch: Some(5),
                    oci_artifact: false,
                    inline_attestations: Some(false),
                },
                store: false,
                unpack: false,
                canonical_name: true,
                dangling_prefix: Some("x".to_owned()),
                push: Some(PushOptions {
                    by_digest: true,
                    insecure: true,
                }),
            }
        );
        assert_eq!(
            image("type=image,name=*,push=false"),
            ImageOutput::default()
        );
        let pushed = image("type=registry,registry.insecure=true");
        assert!(pushed.push.unwrap().insecure && pushed.store);
    }

    #[test]
    fn annotations_have_a_place_and_maybe_a_platform() {
        use AnnotationPlace::{Index, IndexDescriptor, Manifest, ManifestDescriptor};
        let amd64: Platform = "linux/amd64".parse().unwrap();
        for (attribute, place, platform) in [
            ("annotation.A.b", Manifest, None),
            ("annotation[linux/amd64].A.b", Manifest, Some(&amd64)),
            ("annotation-manifest.A.b", Manifest, None),
            (
                "annotation-manifest-descriptor[linux/amd64].A.b",
                ManifestDescriptor,
                Some(&amd64),
            ),
            ("annotation-index.A.b", Index, None),
            ("annotation-index-descriptor.A.b", IndexDescriptor, None),
        ] {
            let parsed = image(&format!("type=oci,dest=x,{attribute}=V=1"));
            let expected = Annotation {
                place,
                platform: platform.cloned(),
                key: "A.b".to_owned(),
                value: "V=1".to_owned(),
            };
            assert_eq!(parsed.options.annotations, [expected], "{attribute}");
        }
        let places = |text: &str| -> Vec<_> {
            let AnnotationArg(annotations) = annotation_flag(text).unwrap();
            assert!(annotations.iter().all(|a| a.key == "k" && a.value == "a:b"));
            annotations.into_iter().map(|a| a.place).collect()
        };
        assert_eq!(places("k=a:b"), [Manifest]);
        assert_eq!(
            places("index,manifest-descriptor[linux/amd64]:k=a:b"),
            [Index, ManifestDescriptor]
        );
    }

    #[test]
    fn what_can_t_be_is_named() {
        for (text, expected) in [
            (
                "type=oci,dest=x,colour=red",
                "`colour` is no attribute of `type=oci`",
            ),
            (
                "type=tar,dest=x,name=y",
                "`name` is no attribute of `type=tar`",
            ),
            (
                "type=oci,dest=x,push=true",
                "`push` is no attribute of `type=oci`",
            ),
            (
                "type=oci,dest=x,tar=false",
                "attribute `tar=false` is not supported yet",
            ),
            (
                "type=image,compression=lz4",
                "`compression=lz4`: expected gzip, estargz, zstd",
            ),
            (
                "type=image,compression-level=10",
                "`compression-level=10`: expected 0 to 9",
            ),
            (
                "type=image,compression=zstd,compression-level=23",
                "`compression-level=23`: expected 0 to 22",
            ),
            (
                "type=image,compression-level=x",
                "`compression-level=x`: expected a number",
            ),
            (
                "type=image,push=maybe",
                "`push=maybe`: expected true or false",
            ),
            ("type=image,name=A", "`name`: invalid reference format"),
            ("type=image,annotation-x.k=v", "unknown annotation type `x`"),
            ("type=image,annotationk=v", "`annotationk` is no attribute"),
            ("type=image,annotation[linux/amd64.k=v", "`]` is missing"),
        ] {
            let error = parse_output(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        for (text, expected) in [
            ("k", "is not of the form `KEY=VALUE`"),
            ("manifest:=v", "the key is empty"),
            ("layer:k=v", "unknown annotation type `layer`"),
        ] {
            let error = annotation_flag(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
