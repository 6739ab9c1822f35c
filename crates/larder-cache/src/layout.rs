//! The `index.json` of an OCI layout that holds caches, each under a tag.

use std::collections::BTreeMap;

use larder_oci::{Descriptor, ImageIndex, media_type};

use crate::error::{Error, Result, check_limit};
use crate::limit;

/// The annotation that holds an entry's tag.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The tag where none is given.
pub const DEFAULT_TAG: &str = "latest";

/// The content of the file `oci-layout`.
pub const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Reads an `index.json`.
///
/// # Errors
/// `TooLarge` for more bytes than [`limit::MANIFEST_BYTES`]; `Invalid` if it is no index.
pub fn parse(bytes: &[u8]) -> Result<ImageIndex> {
    check_limit("bytes of index", bytes.len(), limit::MANIFEST_BYTES)?;
    serde_json::from_slice(bytes)
        .map_err(|error| Error::invalid(format!("`index.json` is not well-formed: {error}")))
}

/// Returns an index without entries.
pub fn empty() -> ImageIndex {
    ImageIndex {
        schema_version: 2,
        media_type: media_type::INDEX.to_owned(),
        manifests: Vec::new(),
        annotations: BTreeMap::new(),
    }
}

/// Returns the manifest that a tag leads to.
pub fn find<'a>(index: &'a ImageIndex, tag: &str) -> Option<&'a Descriptor> {
    let has_tag = |entry: &&Descriptor| {
        entry
            .annotations
            .get(REF_NAME)
            .is_some_and(|name| name == tag)
    };
    index.manifests.iter().find(has_tag)
}

/// Lets a tag lead to `manifest`, and no longer to another.
pub fn put(index: &mut ImageIndex, manifest: &Descriptor, tag: &str) {
    index.manifests.retain(|entry| {
        let name = entry.annotations.get(REF_NAME);
        name.is_none_or(|name| name != tag)
    });
    let mut entry = manifest.clone();
    entry
        .annotations
        .insert(REF_NAME.to_owned(), tag.to_owned());
    index.manifests.push(entry);
}
