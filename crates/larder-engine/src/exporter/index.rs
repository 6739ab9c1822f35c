//! The index of several images, and of what is attached to them.

use std::collections::BTreeMap;

use larder_oci::{Descriptor, ImageIndex, go_json, media_type};
use larder_store::Lease;

use crate::error::Result;

/// An image of an index.
pub(crate) struct IndexEntry {
    /// Its manifest, with the platform it is for.
    pub(crate) manifest: Descriptor,
    /// Manifests about it, such as attestations, just as the index is to name them.
    pub(crate) attached: Vec<Descriptor>,
}

/// Writes the index of images into the store, and returns its descriptor. The images come first, in
/// the order given, then what is attached to the first, to the second, and so on.
pub(crate) fn write_index(
    lease: &Lease,
    media_type: &str,
    entries: Vec<IndexEntry>,
    annotations: BTreeMap<String, String>,
) -> Result<Descriptor> {
    debug_assert!(media_type::is_index(media_type));
    let index = index(media_type, entries, annotations);
    let bytes = go_json(&index);
    lease.put_blob(&bytes)?;
    Ok(Descriptor::of(media_type, &bytes))
}

fn index(
    media_type: &str,
    entries: Vec<IndexEntry>,
    annotations: BTreeMap<String, String>,
) -> ImageIndex {
    let mut manifests = Vec::with_capacity(entries.len());
    let mut attached = Vec::new();
    for entry in entries {
        manifests.push(entry.manifest);
        attached.extend(entry.attached);
    }
    manifests.extend(attached);
    ImageIndex {
        schema_version: 2,
        media_type: media_type.to_owned(),
        manifests,
        annotations,
    }
}

#[cfg(test)]
mod tests {
    use larder_oci::Platform;

    use super::*;

    #[test]
    fn what_is_attached_follows_the_images() {
        let manifest = |name: &str| Descriptor::of(media_type::MANIFEST, name.as_bytes());
        let image = |architecture: &str| Descriptor {
            platform: Some(Platform::linux(architecture, "")),
            ..manifest(architecture)
        };
        let entries = ["amd64", "arm64"].map(|architecture| IndexEntry {
            manifest: image(architecture),
            attached: vec![manifest(&format!("about {architecture}"))],
        });
        let annotations = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        let index = index(media_type::INDEX, entries.into(), annotations.clone());
        assert_eq!(
            index.manifests,
            [
                image("amd64"),
                image("arm64"),
                manifest("about amd64"),
                manifest("about arm64")
            ]
        );
        assert_eq!(index.annotations, annotations);
        assert_eq!(index.media_type, media_type::INDEX);
    }
}
