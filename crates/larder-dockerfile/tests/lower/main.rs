//! What Dockerfiles become: graphs, configs and step records.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod contexts;
mod copies;
mod sources;
mod stages;
mod variables;

use std::collections::BTreeMap;

use larder_dockerfile::{
    Dockerfile, Error, ImageRequest, ImageResolver, LowerOptions, Lowered, ResolveError,
    ResolvedImage,
};
use larder_llb::{Vertex, pb};
use larder_oci::{Digest, HistoryEntry, ImageConfig};

/// Images by their short name; the digest is that of the name.
struct Images(BTreeMap<String, ImageConfig>);

impl ImageResolver for Images {
    fn resolve_image_config(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        let name = request.image_ref.familiar();
        let config = self.0.get(&name).ok_or("not found")?;
        Ok(ResolvedImage {
            image_ref: request.image_ref.clone(),
            digest: Digest::sha256(&name),
            config: config.clone(),
        })
    }
}

/// An image `base` with one layer.
fn base_image() -> ImageConfig {
    let mut config = ImageConfig {
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        created: Some("2025-01-01T00:00:00Z".to_owned()),
        history: vec![HistoryEntry {
            created_by: "base".to_owned(),
            ..HistoryEntry::default()
        }],
        ..ImageConfig::default()
    };
    config.config.env = vec!["PATH=/bin".to_owned(), "BASE=1".to_owned()];
    config.config.cmd = Some(vec!["base-cmd".to_owned()]);
    config.rootfs.diff_ids = vec![Digest::sha256("layer")];
    config
}

fn images(change: impl FnOnce(&mut ImageConfig)) -> Images {
    let mut config = base_image();
    change(&mut config);
    let plain = ["other:latest", "other:1"].map(|name| (name.to_owned(), base_image()));
    let mut images: BTreeMap<String, ImageConfig> = plain.into();
    images.insert("base:latest".to_owned(), config);
    Images(images)
}

fn options() -> LowerOptions {
    LowerOptions {
        build_platform: "linux/amd64".parse().unwrap(),
        ..LowerOptions::default()
    }
}

fn try_lower(text: &str, options: &LowerOptions, images: &Images) -> Result<Lowered, Error> {
    Dockerfile::parse(text.as_bytes(), "Dockerfile")?.lower(options, images)
}

fn lower(text: &str) -> Lowered {
    lower_with(text, |_| {})
}

fn lower_with(text: &str, change: impl FnOnce(&mut LowerOptions)) -> Lowered {
    let mut options = options();
    change(&mut options);
    try_lower(text, &options, &images(|_| {})).unwrap()
}

fn names(lowered: &Lowered) -> Vec<String> {
    lowered
        .definition
        .vertices()
        .iter()
        .map(Vertex::name)
        .collect()
}

fn vertex<'a>(lowered: &'a Lowered, part: &str) -> &'a Vertex {
    let mut found = lowered.definition.vertices().iter();
    found
        .find(|vertex| vertex.name().contains(part))
        .unwrap_or_else(|| panic!("no `{part}` in {:#?}", names(lowered)))
}

fn exec<'a>(lowered: &'a Lowered, part: &str) -> &'a pb::ExecOp {
    match &vertex(lowered, part).op.op {
        Some(pb::op::Op::Exec(exec)) => exec,
        other => panic!("`{part}` is {other:?}"),
    }
}

fn meta<'a>(lowered: &'a Lowered, part: &str) -> &'a pb::Meta {
    exec(lowered, part).meta.as_ref().unwrap()
}

fn copies<'a>(lowered: &'a Lowered, part: &str) -> Vec<&'a pb::FileActionCopy> {
    let Some(pb::op::Op::File(file)) = &vertex(lowered, part).op.op else {
        panic!("`{part}` copies nothing");
    };
    let actions = file.actions.iter().map(|action| match &action.action {
        Some(pb::file_action::Action::Copy(copy)) => copy,
        other => panic!("`{part}` does {other:?}"),
    });
    actions.collect()
}

fn local_attr(lowered: &Lowered, name: &str, attr: &str) -> Option<String> {
    let Some(pb::op::Op::Source(source)) = &vertex(lowered, name).op.op else {
        panic!("`{name}` is no source");
    };
    source.attrs.get(attr).cloned()
}

fn history(lowered: &Lowered) -> Vec<&str> {
    let entries = lowered.config.history.iter();
    entries.map(|entry| entry.created_by.as_str()).collect()
}

fn source<'a>(lowered: &'a Lowered, name: &str) -> &'a pb::SourceOp {
    match &vertex(lowered, name).op.op {
        Some(pb::op::Op::Source(source)) => source,
        other => panic!("{other:?}"),
    }
}

fn attrs(source: &pb::SourceOp) -> Vec<(&str, &str)> {
    let pairs = source.attrs.iter();
    let mut attrs: Vec<_> = pairs.map(|(name, value)| (&**name, &**value)).collect();
    attrs.sort_unstable();
    attrs
}
