//! `--attest`, `--provenance`, `--sbom`: what is said about a result, beside the result.

use std::collections::BTreeMap;

use larder_engine::request::{Attestations, Provenance, ProvenanceMode, Sbom, SlsaVersion};

use super::values::csv_fields;

/// The generator of lists of contents that BuildKit takes if none is named.
const DEFAULT_GENERATOR: &str = "docker/buildkit-syft-scanner:stable-1";

/// An attestation that is asked for, or declined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AttestArg {
    kind: Kind,
    is_disabled: bool,
    attributes: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Provenance,
    Sbom,
}

/// Parses `type=provenance|sbom[,disabled=BOOL][,KEY=VALUE…]`.
pub(crate) fn attest(text: &str) -> Result<AttestArg, String> {
    let mut attributes = BTreeMap::new();
    for field in csv_fields(text)? {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("invalid value {field}"))?;
        attributes.insert(key.trim().to_owned(), value.to_owned());
    }
    let kind = match attributes.remove("type").as_deref() {
        Some("provenance") => Kind::Provenance,
        Some("sbom") => Kind::Sbom,
        Some(other) => return Err(format!("`{other}` is no attestation larder can make")),
        None => return Err("attestation type not specified".to_owned()),
    };
    let disabled = attributes.remove("disabled");
    let disabled = disabled.as_deref().unwrap_or("false");
    let arg = AttestArg {
        kind,
        is_disabled: truth(disabled).ok_or_else(|| format!("invalid value disabled={disabled}"))?,
        attributes,
    };
    // What is wrong with it is told with the flag.
    arg.clone().add_to(&mut Attestations::default())?;
    Ok(arg)
}

/// Parses the value of `--provenance`: a boolean, or attributes.
pub(crate) fn provenance(text: &str) -> Result<AttestArg, String> {
    short_form("provenance", text)
}

/// Parses the value of `--sbom`, as [`provenance`].
pub(crate) fn sbom(text: &str) -> Result<AttestArg, String> {
    short_form("sbom", text)
}

fn short_form(kind: &str, text: &str) -> Result<AttestArg, String> {
    match truth(text) {
        Some(is_wanted) => attest(&format!("type={kind},disabled={}", !is_wanted)),
        None => attest(&format!("type={kind},{text}")),
    }
}

/// Returns what is attested. Of several arguments of one kind the last counts. Without one, images
/// that are pushed have a short provenance, unless `has_default` is false.
///
/// # Errors
/// Says which attribute can't be used.
pub(crate) fn resolve(args: &[AttestArg], has_default: bool) -> Result<Attestations, String> {
    let mut attestations = Attestations::default();
    if has_default {
        attestations.provenance = Some(Provenance {
            mode: ProvenanceMode::Min,
            inline_only: true,
            ..Provenance::default()
        });
    }
    for arg in args {
        arg.clone().add_to(&mut attestations)?;
    }
    Ok(attestations)
}

impl AttestArg {
    fn add_to(self, attestations: &mut Attestations) -> Result<(), String> {
        match (self.kind, self.is_disabled) {
            (Kind::Provenance, true) => attestations.provenance = None,
            (Kind::Sbom, true) => attestations.sbom = None,
            (Kind::Provenance, false) => {
                attestations.provenance = Some(provenance_of(self.attributes)?);
            }
            (Kind::Sbom, false) => attestations.sbom = Some(sbom_of(self.attributes)?),
        }
        Ok(())
    }
}

fn provenance_of(attributes: BTreeMap<String, String>) -> Result<Provenance, String> {
    let mut provenance = Provenance::default();
    for (key, value) in attributes {
        let flag =
            || truth(&value).ok_or_else(|| format!("`{key}={value}` is neither true nor false"));
        match key.as_str() {
            "mode" => {
                provenance.mode = match value.as_str() {
                    "min" => ProvenanceMode::Min,
                    "max" | "full" => ProvenanceMode::Max,
                    other => return Err(format!("invalid mode \"{other}\"")),
                };
            }
            "version" => {
                provenance.version = match value.as_str() {
                    "v1" => SlsaVersion::V1,
                    "v0.2" => SlsaVersion::V02,
                    other => return Err(format!("invalid provenance SLSA version: {other}")),
                };
            }
            "builder-id" => provenance.builder_id = value,
            "reproducible" => provenance.is_reproducible = flag()?,
            "inline-only" => provenance.inline_only = flag()?,
            "filename" if is_file_name(&value) => provenance.file_name = value,
            "filename" => return Err(format!("`filename={value}` is no name of a file")),
            "capture-usage" if flag()? => {
                return Err("`capture-usage`: the usage of resources is not recorded".to_owned());
            }
            "capture-usage" => {}
            _ => return Err(format!("`{key}` is no attribute of a provenance")),
        }
    }
    Ok(provenance)
}

fn sbom_of(mut attributes: BTreeMap<String, String>) -> Result<Sbom, String> {
    let generator = attributes.remove("generator");
    let generator = generator.unwrap_or_else(|| DEFAULT_GENERATOR.to_owned());
    if generator.is_empty() {
        return Err("sbom generator cannot be empty".to_owned());
    }
    Ok(Sbom {
        generator: generator
            .parse()
            .map_err(|error| format!("`generator={generator}`: {error}"))?,
        parameters: attributes,
    })
}

fn is_file_name(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && !text.contains(['/', '\0'])
}

/// Reads a boolean as Go does.
pub(crate) fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(args: &[Result<AttestArg, String>]) -> Attestations {
        let args: Vec<AttestArg> = args.iter().cloned().map(Result::unwrap).collect();
        resolve(&args, true).unwrap()
    }

    #[test]
    fn the_default_is_a_short_provenance_of_what_is_pushed() {
        let default = resolved(&[]).provenance.unwrap();
        assert!(default.inline_only);
        assert_eq!(default.mode, ProvenanceMode::Min);
        assert_eq!(resolve(&[], false).unwrap(), Attestations::default());
        assert_eq!(resolved(&[provenance("false")]).provenance, None);
    }

    #[test]
    fn flags_say_what_is_attested() {
        let explicit = resolved(&[provenance("true")]).provenance.unwrap();
        assert_eq!(explicit, Provenance::default());
        let given = attest(
            "type=provenance,mode=min,version=v0.2,builder-id=https://b/1,reproducible=true,filename=p.json",
        );
        let given = resolved(&[given]).provenance.unwrap();
        assert_eq!(given.version, SlsaVersion::V02);
        assert_eq!(given.builder_id, "https://b/1");
        assert!(given.is_reproducible && !given.inline_only);
        assert_eq!(given.file_name, "p.json");
        let last = resolved(&[
            provenance("mode=min"),
            attest("type=provenance,disabled=true"),
        ]);
        assert_eq!(last.provenance, None);

        let default = resolved(&[sbom("true")]).sbom.unwrap();
        assert_eq!(
            default.generator.to_string(),
            "docker.io/docker/buildkit-syft-scanner:stable-1"
        );
        let own = resolved(&[sbom("generator=reg.example/scan:1,SELECT=a")])
            .sbom
            .unwrap();
        assert_eq!(own.generator.to_string(), "reg.example/scan:1");
        assert_eq!(own.parameters["SELECT"], "a");
        assert_eq!(resolved(&[sbom("false")]).sbom, None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("mode=max", "attestation type not specified"),
            ("type=x", "`x` is no attestation larder can make"),
            ("type=provenance,mode=most", "invalid mode \"most\""),
            (
                "type=provenance,version=v2",
                "invalid provenance SLSA version: v2",
            ),
            (
                "type=provenance,filename=../p",
                "`filename=../p` is no name of a file",
            ),
            (
                "type=provenance,reproducible=x",
                "`reproducible=x` is neither true nor false",
            ),
            (
                "type=provenance,colour=red",
                "`colour` is no attribute of a provenance",
            ),
            (
                "type=provenance,capture-usage=1",
                "`capture-usage`: the usage of resources is not recorded",
            ),
            ("type=sbom,generator=", "sbom generator cannot be empty"),
            ("provenance", "invalid value provenance"),
            ("type=sbom,disabled=no", "invalid value disabled=no"),
        ] {
            assert_eq!(attest(text).unwrap_err(), expected, "{text}");
        }
        assert!(provenance("").is_err());
    }
}
