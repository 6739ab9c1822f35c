//! `docker buildx imagetools inspect`: what a name stands for in its registry.

use std::fmt::Write as _;

use anyhow::{Context as _, anyhow};
use larder_oci::{Descriptor, ImageIndex, ImageRef};
use serde_json::{Value, json};

use super::super::Context;
use crate::args::ImagetoolsArgs;
use crate::output;
use crate::table::{Format, Listing, Row};

const LISTING: Listing = Listing {
    fields: &[("Name", "NAME"), ("Manifest", "MANIFEST")],
    columns: &["Name"],
};

/// Prints it: as text, as it was sent, or by a template.
pub(super) fn inspect(args: &ImagetoolsArgs, context: &Context<'_>) -> anyhow::Result<()> {
    let format = args.format.as_deref();
    let format = format
        .map(|format| LISTING.parse_format(format))
        .transpose();
    let format = format.map_err(|problem| anyhow!(problem).context("`--format`"))?;
    let (descriptor, bytes) = context.engine()?.registry_manifest(&args.name)?;
    if args.raw {
        return Ok(output::print_bytes(&bytes)?);
    }
    let text = match format {
        None => described(&args.name, &descriptor, &bytes),
        Some(format) => {
            let document: Value = serde_json::from_slice(&bytes)
                .with_context(|| format!("the manifest of `{}` is no JSON", args.name))?;
            let row = row(&args.name, &descriptor, document);
            match format {
                Format::Json => format!("{:#}\n", Value::Object(row)),
                other => LISTING.render(&other, &[row]),
            }
        }
    };
    Ok(output::print(&text)?)
}

/// Returns the fields of a template: the manifest's own, with its digest and size.
fn row(name: &ImageRef, descriptor: &Descriptor, document: Value) -> Row {
    let mut manifest = match document {
        Value::Object(fields) => fields,
        _ => Row::new(),
    };
    manifest.insert("digest".to_owned(), json!(descriptor.digest));
    manifest.insert("size".to_owned(), json!(descriptor.size_bytes));
    let mut row = Row::new();
    row.insert("Name".to_owned(), json!(name.to_string()));
    row.insert("Manifest".to_owned(), Value::Object(manifest));
    row
}

fn described(name: &ImageRef, descriptor: &Descriptor, bytes: &[u8]) -> String {
    let mut text = format!(
        "Name:      {name}\nMediaType: {}\nDigest:    {}\n",
        descriptor.media_type, descriptor.digest
    );
    let index: Option<ImageIndex> = serde_json::from_slice(bytes).ok();
    let manifests = index.map(|index| index.manifests).unwrap_or_default();
    if manifests.is_empty() {
        return text;
    }
    text.push_str("\nManifests:\n");
    for (position, manifest) in manifests.iter().enumerate() {
        if position > 0 {
            text.push('\n');
        }
        let pinned = name.with_digest(manifest.digest.clone());
        let mut line = |field: &str, value: String| {
            writeln!(text, "  {field:<12} {value}").expect("a String takes all");
        };
        line("Name:", pinned.to_string());
        line("MediaType:", manifest.media_type.clone());
        if let Some(platform) = &manifest.platform {
            line("Platform:", platform.to_string());
        }
        if !manifest.annotations.is_empty() {
            line("Annotations:", String::new());
            for (key, value) in &manifest.annotations {
                writeln!(text, "    {key}: {value}").expect("a String takes all");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    #[test]
    fn an_index_lists_its_manifests() {
        let manifest = br#"{"mediaType": "application/vnd.oci.image.index.v1+json", "schemaVersion": 2, "manifests": [
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 5,
             "digest": "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
             "platform": {"os": "linux", "architecture": "arm64"}}]}"#;
        let name: ImageRef = "example.com/a:1".parse().unwrap();
        let descriptor = Descriptor::of("application/vnd.oci.image.index.v1+json", manifest);
        assert_snapshot!(described(&name, &descriptor, manifest), @r"
        Name:      example.com/a:1
        MediaType: application/vnd.oci.image.index.v1+json
        Digest:    sha256:f5af4a83f5b68a6b2b9b12ce713b9779696516b2db5cf51920c6b788eeee0b51

        Manifests:
          Name:        example.com/a:1@sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
          MediaType:   application/vnd.oci.image.manifest.v1+json
          Platform:    linux/arm64
        ");
        let row = row(
            &name,
            &descriptor,
            serde_json::from_slice(manifest).unwrap(),
        );
        let format = LISTING
            .parse_format("{{.Manifest.digest}} {{.Name}}")
            .unwrap();
        assert_eq!(
            LISTING.render(&format, &[row]),
            format!("{} example.com/a:1\n", descriptor.digest)
        );
    }
}
