//! Values of `--cache-from` and `--cache-to`.

use std::path::PathBuf;

use larder_engine::request::{CacheExport, CacheImport, CacheMode, CacheTarget, ManifestForm};
use larder_oci::ImageRef;

use super::output::attributes::{check_level, compression, number, truth};
use super::values::csv_fields;

/// The types that BuildKit has and larder lacks.
const LATER: [&str; 3] = ["azblob", "gha", "s3"];

/// The caches of one `--cache-from`: a list of names has several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheFromArg(pub(crate) Vec<CacheImport>);

/// One `--cache-to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheToArg {
    pub(crate) export: CacheExport,
    /// What to tell the user about it.
    pub(crate) note: Option<String>,
}

/// Parses `REF[,REF…]` or `type=registry|local,KEY=VALUE…`.
pub(crate) fn cache_from(text: &str) -> Result<CacheFromArg, String> {
    match entry(text)? {
        Entry::Names(names) => {
            let import = |image_ref| CacheImport::Registry {
                image_ref,
                insecure: false,
            };
            Ok(CacheFromArg(names.into_iter().map(import).collect()))
        }
        Entry::Attributes(attributes) => Ok(CacheFromArg(vec![import_of(attributes)?])),
    }
}

/// Parses `REF` or `type=registry|local|inline,KEY=VALUE…`.
pub(crate) fn cache_to(text: &str) -> Result<CacheToArg, String> {
    match entry(text)? {
        Entry::Names(names) => {
            let [image_ref] = <[ImageRef; 1]>::try_from(names)
                .map_err(|names| format!("expected one name, found {}", names.len()))?;
            let target = CacheTarget::Registry {
                image_ref,
                insecure: false,
            };
            Ok(CacheToArg {
                export: CacheExport::new(target),
                note: None,
            })
        }
        Entry::Attributes(attributes) => export_of(attributes),
    }
}

/// What a cache is given as.
enum Entry {
    Names(Vec<ImageRef>),
    Attributes(Attributes),
}

/// A type, and what else is said.
struct Attributes {
    kind: String,
    /// Names in lower case, with their values.
    all: Vec<(String, String)>,
}

fn entry(text: &str) -> Result<Entry, String> {
    let fields = csv_fields(text)?;
    if fields.iter().all(|field| !field.contains('=')) {
        let names = fields.iter().map(|name| reference("ref", name.trim()));
        return Ok(Entry::Names(names.collect::<Result<_, _>>()?));
    }
    let mut kind = None;
    let mut all: Vec<(String, String)> = Vec::new();
    for field in &fields {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("`{field}` is not of the form `key=value`"))?;
        let key = key.trim().to_ascii_lowercase();
        if key == "type" {
            kind = Some(value.to_owned());
        } else {
            all.retain(|(known, _)| *known != key);
            all.push((key, value.to_owned()));
        }
    }
    let kind = kind.ok_or("`type` is missing")?;
    if LATER.contains(&kind.as_str()) {
        return Err(format!("`type={kind}` is not supported yet"));
    }
    Ok(Entry::Attributes(Attributes { kind, all }))
}

impl Attributes {
    /// Takes an attribute; an empty one counts as none.
    fn take(&mut self, name: &str) -> Option<String> {
        let position = self.all.iter().position(|(key, _)| key == name)?;
        let (_, value) = self.all.remove(position);
        Some(value).filter(|value| !value.is_empty())
    }

    fn require(&mut self, name: &str) -> Result<String, String> {
        self.take(name)
            .ok_or_else(|| format!("`type={}` needs `{name}`", self.kind))
    }

    fn flag(&mut self, name: &str) -> Result<Option<bool>, String> {
        let value = self.take(name);
        value.map(|value| truth(name, &value)).transpose()
    }

    /// Refuses what was not taken.
    fn end(self) -> Result<(), String> {
        match self.all.first() {
            Some((key, _)) => Err(format!("`{key}` is no attribute of `type={}`", self.kind)),
            None => Ok(()),
        }
    }

    fn registry(&mut self) -> Result<(ImageRef, bool), String> {
        let image_ref = reference("ref", &self.require("ref")?)?;
        Ok((image_ref, self.flag("registry.insecure")?.unwrap_or(false)))
    }
}

fn import_of(mut attributes: Attributes) -> Result<CacheImport, String> {
    let import = match attributes.kind.as_str() {
        "registry" => {
            let (image_ref, insecure) = attributes.registry()?;
            CacheImport::Registry {
                image_ref,
                insecure,
            }
        }
        "local" => CacheImport::Local {
            path: PathBuf::from(attributes.require("src")?),
            digest: attributes
                .take("digest")
                .map(|digest| digest.parse().map_err(|error| format!("`digest`: {error}")))
                .transpose()?,
            tag: attributes.take("tag"),
        },
        "inline" => {
            return Err(
                "`type=inline` can only be written: inline cache is read from an image, \
                 `type=registry,ref=IMAGE`"
                    .to_owned(),
            );
        }
        kind => {
            return Err(format!(
                "`{kind}` is no type of cache to read (expected registry or local)"
            ));
        }
    };
    attributes.end()?;
    Ok(import)
}

fn export_of(mut attributes: Attributes) -> Result<CacheToArg, String> {
    let target = match attributes.kind.as_str() {
        "registry" => {
            let (image_ref, insecure) = attributes.registry()?;
            if image_ref.digest().is_some() {
                return Err(format!("`ref={image_ref}`: a cache is written to a tag"));
            }
            CacheTarget::Registry {
                image_ref,
                insecure,
            }
        }
        "local" => CacheTarget::Local {
            path: PathBuf::from(attributes.require("dest")?),
            tag: attributes.take("tag"),
            reset: attributes.flag("reset")?.unwrap_or(false),
        },
        "inline" => CacheTarget::Inline,
        kind => {
            return Err(format!(
                "`{kind}` is no type of cache to write (expected registry, local or inline)"
            ));
        }
    };
    let mut export = CacheExport::new(target);
    let mut note = None;
    match attributes.take("mode").as_deref() {
        None | Some("min") => {}
        Some("max") => export.mode = CacheMode::Max,
        Some(mode) => note = Some(format!("unknown cache mode `{mode}`: taken as `min`")),
    }
    if let Some(name) = attributes.take("compression") {
        export.compression = compression(&name)?;
    }
    if let Some(level) = attributes.take("compression-level") {
        export.compression_level = Some(number("compression-level", &level)?);
    }
    check_level(export.compression, export.compression_level)?;
    export.force_compression = attributes.flag("force-compression")?.unwrap_or(false);
    let image_manifest = attributes.flag("image-manifest")?;
    let oci_media_types = attributes.flag("oci-mediatypes")?.unwrap_or(true);
    export.form =
        ManifestForm::choose(image_manifest, oci_media_types).map_err(|error| error.to_string())?;
    export.ignore_error = attributes.flag("ignore-error")?.unwrap_or(false);
    export.on_failure = attributes.flag("on-failure")?.unwrap_or(true);
    attributes.end()?;
    Ok(CacheToArg { export, note })
}

fn reference(key: &str, text: &str) -> Result<ImageRef, String> {
    text.parse().map_err(|error| format!("`{key}`: {error}"))
}

#[cfg(test)]
mod tests {
    use larder_engine::request::LayerCompression;

    use super::*;

    fn registry(name: &str, insecure: bool) -> CacheImport {
        CacheImport::Registry {
            image_ref: name.parse().unwrap(),
            insecure,
        }
    }

    #[test]
    fn caches_are_named_in_all_forms() {
        let local = |digest: Option<&str>, tag: Option<&str>| CacheImport::Local {
            path: PathBuf::from("d"),
            digest: digest.map(|digest| digest.parse().unwrap()),
            tag: tag.map(str::to_owned),
        };
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, expected) in [
            ("user/app:cache", vec![registry("user/app:cache", false)]),
            ("a,b:1", vec![registry("a", false), registry("b:1", false)]),
            ("type=registry,ref=a", vec![registry("a", false)]),
            (
                "ref=a,type=registry,registry.insecure=1",
                vec![registry("a", true)],
            ),
            ("type=local,src=d", vec![local(None, None)]),
            ("type=local,src=d,tag=t", vec![local(None, Some("t"))]),
            (
                &format!("type=local,\"src=d\",digest={digest}"),
                vec![local(Some(&digest), None)],
            ),
        ] {
            assert_eq!(cache_from(text), Ok(CacheFromArg(expected)), "{text}");
        }
    }

    #[test]
    fn exports_have_buildkit_s_attributes() {
        let all = cache_to(
            "type=registry,ref=a:1,mode=max,compression=zstd,compression-level=22,\
             force-compression=true,image-manifest=false,oci-mediatypes=true,ignore-error=true,\
             on-failure=false,registry.insecure=true",
        );
        let expected = CacheExport {
            target: CacheTarget::Registry {
                image_ref: "a:1".parse().unwrap(),
                insecure: true,
            },
            mode: CacheMode::Max,
            compression: LayerCompression::Zstd,
            compression_level: Some(22),
            force_compression: true,
            form: ManifestForm::Index,
            ignore_error: true,
            on_failure: false,
        };
        assert_eq!(all.unwrap().export, expected);
        let local = cache_to("type=local,dest=d,tag=t,reset=true,oci-mediatypes=false").unwrap();
        let expected = CacheExport {
            form: ManifestForm::DockerList,
            ..CacheExport::new(CacheTarget::Local {
                path: PathBuf::from("d"),
                tag: Some("t".to_owned()),
                reset: true,
            })
        };
        assert_eq!(local.export, expected);
        let inline = cache_to("type=inline,mode=max").unwrap();
        assert_eq!(inline.export.target, CacheTarget::Inline);
        assert_eq!(
            cache_to("user/app:c").unwrap(),
            cache_to("type=registry,ref=user/app:c").unwrap()
        );
        let odd = cache_to("type=inline,mode=most").unwrap();
        assert_eq!(
            odd.note.unwrap(),
            "unknown cache mode `most`: taken as `min`"
        );
    }

    #[test]
    fn what_can_t_be_is_named() {
        for (text, from, to) in [
            (
                "",
                "`ref`: invalid reference format",
                "`ref`: invalid reference format",
            ),
            (
                "A",
                "`ref`: invalid reference format",
                "`ref`: invalid reference format",
            ),
            (
                "type=s3,bucket=b",
                "`type=s3` is not supported yet",
                "`type=s3` is not supported yet",
            ),
            (
                "type=gha",
                "`type=gha` is not supported yet",
                "`type=gha` is not supported yet",
            ),
            (
                "type=ftp",
                "`ftp` is no type of cache to read",
                "`ftp` is no type of cache to write",
            ),
            ("ref=a", "`type` is missing", "`type` is missing"),
            (
                "type=registry",
                "`type=registry` needs `ref`",
                "`type=registry` needs `ref`",
            ),
            ("type=registry,ref=", "needs `ref`", "needs `ref`"),
            (
                "type=local",
                "`type=local` needs `src`",
                "`type=local` needs `dest`",
            ),
            (
                "type=registry,ref=a,colour=red",
                "`colour` is no attribute of `type=registry`",
                "`colour` is no attribute",
            ),
            (
                "type=registry,ref=a,x",
                "`x` is not of the form `key=value`",
                "`x` is not of the form",
            ),
            (
                "type=registry,ref=a,registry.insecure=so",
                "`registry.insecure=so`: expected true or false",
                "expected true or false",
            ),
        ] {
            let error = cache_from(text).unwrap_err();
            assert!(error.contains(from), "{text}: {error}");
            let error = cache_to(text).unwrap_err();
            assert!(error.contains(to), "{text}: {error}");
        }
        for (text, expected) in [
            ("type=inline", "inline cache is read from an image"),
            ("type=registry,ref=a,mode=max", "`mode` is no attribute"),
            ("type=local,src=d,digest=x", "`digest`: `x` is not a digest"),
        ] {
            let error = cache_from(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let pinned = format!("type=registry,ref=a@sha256:{}", "a".repeat(64));
        for (text, expected) in [
            ("a,b", "expected one name, found 2"),
            (&pinned, "a cache is written to a tag"),
            (
                "type=inline,dest=d",
                "`dest` is no attribute of `type=inline`",
            ),
            ("type=inline,compression=lz4", "`compression=lz4`"),
            (
                "type=inline,compression-level=10",
                "`compression-level=10`: expected 0 to 9",
            ),
            (
                "type=registry,ref=a,image-manifest=true,oci-mediatypes=false",
                "exclude each other",
            ),
        ] {
            let error = cache_to(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
