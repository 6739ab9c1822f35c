//! Images in OCI layouts: directories of the user's.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use larder_dockerfile::OciLayout;
use larder_oci::{Descriptor, Digest, ImageIndex, ImageManifest};
use larder_store::Lease;

use super::{MAX_DOCUMENT_BYTES, as_index, parse};
use crate::error::{BuildError, ErrorClass, Result};
use crate::fetch::layout_blob;
use crate::request::LayoutImage;

/// What an image is called in a layout: by its tag, or by its whole name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The tag of an image that none was asked for.
const DEFAULT_TAG: &str = "latest";

/// The layouts that builds name, by the names that LLB has for them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layouts(Arc<Mutex<HashMap<String, PathBuf>>>);

impl Layouts {
    /// Takes note of a directory under a name.
    pub(crate) fn add_directory(&self, name: &str, directory: &Path) -> Result<()> {
        self.insert(name.to_owned(), resolve(directory)?);
        Ok(())
    }

    /// Returns the directory of a name.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let layouts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = layouts.get(name).cloned();
        directory
            .ok_or_else(|| BuildError::invalid(format!("no OCI layout was given for `{name}`")))
    }

    fn insert(&self, name: String, directory: PathBuf) {
        let mut layouts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        layouts.insert(name, directory);
    }

    /// Takes note of an image, and finds its digest.
    pub(super) fn add(&self, image: &LayoutImage) -> Result<OciLayout> {
        let directory = resolve(&image.directory)?;
        let digest = match &image.digest {
            Some(digest) => digest.clone(),
            None => find(&directory, image.tag.as_deref())?,
        };
        // A path is no name in LLB, and tells more than others need to know.
        let store = Digest::sha256(directory.as_os_str().as_encoded_bytes());
        let store = store.hex().to_owned();
        self.insert(store.clone(), directory);
        Ok(OciLayout {
            store,
            session: None,
            digest,
        })
    }

    /// Copies the documents of an image into the store: its index, if it has one, its manifest,
    /// which `select` finds in the index, and its config. Returns the directory.
    pub(super) fn fetch_documents(
        &self,
        lease: &Lease,
        layout: &OciLayout,
        select: impl FnOnce(&ImageIndex) -> Result<Digest>,
    ) -> Result<PathBuf> {
        let directory = self.directory(&layout.store)?;
        let mut digest = layout.digest.clone();
        let mut bytes = document(&directory, &digest)?;
        lease.put_blob(&bytes)?;
        if let Some(index) = as_index(&bytes) {
            digest = select(&index)?;
            bytes = document(&directory, &digest)?;
            lease.put_blob(&bytes)?;
        }
        let manifest: ImageManifest = parse(&bytes, "manifest", &digest)?;
        lease.put_blob(&document(&directory, &manifest.config.digest)?)?;
        Ok(directory)
    }
}

/// Returns where a layout is, whatever leads there.
fn resolve(directory: &Path) -> Result<PathBuf> {
    fs_err::canonicalize(directory).map_err(|error| {
        let message = format!("`{}` is no OCI layout", directory.display());
        BuildError::new(ErrorClass::NotFound, message).with_source(error)
    })
}

/// Finds an image by its tag; without one, the one called `latest`, or else the only one.
fn find(directory: &Path, tag: Option<&str>) -> Result<Digest> {
    let path = directory.join("index.json");
    let shown = directory.display();
    let failed = |error| {
        let message = format!("`{shown}` is no OCI layout");
        BuildError::new(ErrorClass::NotFound, message).with_source(error)
    };
    let bytes = read(File::open(&path).map_err(failed)?).map_err(failed)?;
    let index: ImageIndex = serde_json::from_slice(&bytes).map_err(|error| {
        BuildError::invalid(format!("`{}` is not valid", path.display())).with_source(error)
    })?;
    let wanted = tag.unwrap_or(DEFAULT_TAG);
    let name = |image: &Descriptor| image.annotations.get(REF_NAME).cloned();
    let is_wanted = |image: &&Descriptor| {
        let name = name(image).unwrap_or_default();
        name == wanted || name.rsplit_once(':').is_some_and(|(_, tag)| tag == wanted)
    };
    let images = &index.manifests;
    let found = images.iter().find(is_wanted).or(match &images[..] {
        [only] => Some(only),
        _ => None,
    });
    found.map(|image| image.digest.clone()).ok_or_else(|| {
        let names: Vec<String> = images.iter().filter_map(name).collect();
        let message = format!("the OCI layout `{shown}` has no image `{wanted}`");
        let error = BuildError::new(ErrorClass::NotFound, message);
        match &names[..] {
            [] => error,
            names => error.with_hint(format!("it has {}", names.join(", "))),
        }
    })
}

fn document(directory: &Path, digest: &Digest) -> Result<Vec<u8>> {
    let shown = directory.display();
    let failed = |error| {
        let message = format!("cannot read blob `{digest}` of the OCI layout `{shown}`");
        BuildError::new(ErrorClass::NotFound, message).with_source(error)
    };
    let file = File::open(layout_blob(directory, digest)).map_err(failed)?;
    let bytes = read(file).map_err(failed)?;
    if Digest::sha256(&bytes) == *digest {
        return Ok(bytes);
    }
    Err(BuildError::invalid(format!(
        "blob `{digest}` of the OCI layout `{shown}` is damaged"
    )))
}

fn read(file: File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
        return Err(std::io::Error::other("larger than 4 MiB"));
    }
    Ok(bytes)
}
