//! Writes a target's records, with the layers of their results, to where other machines find them.

mod alternatives;
mod gather;
mod layout;

use std::collections::{HashMap, HashSet};

use larder_cache::{Exported, Record, WrittenManifest};
use larder_oci::{Descriptor, Digest};
use larder_store::{KeyId, Lease};

use super::import::Imports;
use crate::cancel::CancelFlag;
use crate::engine::Engine;
use crate::error::{BuildError, ErrorClass, Result};
use crate::fetch::{Fetcher, Origin, repository};
use crate::layers::{Packed, Recipe};
use crate::progress::{Reporter, VertexProgress};
use crate::push::push_image;
use crate::request::{BuildRequest, CacheExport, CacheMode, CacheTarget, PushOptions};
use crate::worker::ResultRef;
use gather::{Gathered, Gatherer, Packing};

/// The build argument that asks for inline cache.
const INLINE_ARG: &str = "BUILDKIT_INLINE_CACHE";

/// Returns where the cache of a build goes, inline cache included that an argument asks for.
///
/// # Errors
/// `Invalid` for a name that can't be written to, and for exports of which one would overwrite the
/// other.
pub(crate) fn requested(request: &mut BuildRequest) -> Result<Vec<CacheExport>> {
    let mut exports = std::mem::take(&mut request.cache_exports);
    check(&exports)?;
    let asks = request.build_args.iter().any(|(name, value)| {
        name == INLINE_ARG && matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True")
    });
    if asks && !exports.iter().any(is_inline) {
        exports.push(CacheExport::new(CacheTarget::Inline));
    }
    Ok(exports)
}

/// Returns whether images are to hold the cache.
pub(crate) fn is_inline(export: &CacheExport) -> bool {
    export.target == CacheTarget::Inline
}

fn check(exports: &[CacheExport]) -> Result<()> {
    let mut known = HashSet::new();
    for export in exports {
        let place = match &export.target {
            CacheTarget::Registry { image_ref, .. } if image_ref.digest().is_some() => {
                return Err(BuildError::invalid(format!(
                    "cannot export a cache to `{image_ref}`: a digest names what is there already"
                )));
            }
            CacheTarget::Registry { image_ref, .. } => image_ref.to_string(),
            CacheTarget::Local { path, tag, .. } => {
                format!("{}:{}", path.display(), tag_or_default(tag.as_deref()))
            }
            CacheTarget::Inline => "inline".to_owned(),
        };
        if !known.insert(place.clone()) {
            return Err(BuildError::invalid(format!(
                "duplicate cache exports: `{place}`"
            )));
        }
    }
    Ok(())
}

/// Returns how the layers of a cache are packed.
pub(crate) fn recipe_of(export: &CacheExport) -> Recipe {
    Recipe {
        compression: export.compression,
        level: export.compression_level,
        force: export.force_compression,
        clamp_mtime: None,
    }
}

fn tag_or_default(tag: Option<&str>) -> &str {
    tag.unwrap_or(larder_cache::layout::DEFAULT_TAG)
}

/// Exports the cache of one target.
pub(crate) struct CacheExporter<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) lease: &'a Lease,
    pub(crate) reporter: &'a Reporter<'a>,
    pub(crate) cancel: &'a CancelFlag,
    pub(crate) packed: &'a Packed,
    pub(crate) imports: &'a Imports<'a>,
    /// The layers of base images, by diff ID.
    pub(crate) base_layers: HashMap<Digest, Descriptor>,
    /// The records that the target's vertices are known by.
    pub(crate) keys: Vec<KeyId>,
    /// Those of them that are exported without result.
    pub(crate) withheld: HashSet<KeyId>,
    /// The target's results, one for each platform; none where it failed.
    pub(crate) results: Vec<&'a ResultRef>,
}

impl CacheExporter<'_> {
    /// Writes caches, but inline ones, which images hold. Returns the manifest of the last.
    ///
    /// # Errors
    /// The first failure that is not to be ignored.
    pub(crate) fn export<'e>(
        &self,
        exports: impl IntoIterator<Item = &'e CacheExport>,
    ) -> Result<Option<Descriptor>> {
        let mut manifest = None;
        for export in exports {
            let name = match &export.target {
                CacheTarget::Registry { .. } => "exporting cache to registry",
                CacheTarget::Local { .. } => "exporting cache to client directory",
                CacheTarget::Inline => continue,
            };
            let seed = format!("{:?}", export.target);
            let mut vertex = self.reporter.begin_internal(name, &seed);
            match self.write_what_can_be_had(export, &vertex) {
                Ok(written) => {
                    manifest = written.or(manifest);
                    vertex.complete();
                }
                Err(error) => {
                    vertex.fail(&error.full_message());
                    if !export.ignore_error || error.class() == ErrorClass::Canceled {
                        return Err(error);
                    }
                }
            }
        }
        Ok(manifest)
    }

    /// Returns the records for the config of an image of the target's result.
    pub(crate) fn inline_records(&self, vertex: &VertexProgress<'_>) -> Result<Vec<Record>> {
        let fetcher = self.fetcher(vertex);
        let gatherer = Gatherer::new(self, &fetcher, Packing::Plain);
        Ok(gatherer.gather(CacheMode::Min)?.records)
    }

    fn fetcher<'f>(&'f self, progress: &'f VertexProgress<'f>) -> Fetcher<'f> {
        Fetcher::new(self.engine, self.lease, progress, self.cancel)
    }

    /// Writes one cache, without the imported results that can't be fetched: steps that they are
    /// results of are cached as before, and only who imports this cache makes them again.
    fn write_what_can_be_had(
        &self,
        export: &CacheExport,
        vertex: &VertexProgress<'_>,
    ) -> Result<Option<Descriptor>> {
        match self.write(export, vertex) {
            Err(error) if error.lost_blob().is_some() && error.class() != ErrorClass::Canceled => {
                vertex.warn(format!(
                    "imported results can't be fetched, and are left out: {}",
                    error.full_message()
                ));
                self.imports.lose_far_results();
                self.write(export, vertex)
            }
            written => written,
        }
    }

    /// Writes one cache; returns its manifest, or `None` if no step has anything to be kept.
    fn write(
        &self,
        export: &CacheExport,
        vertex: &VertexProgress<'_>,
    ) -> Result<Option<Descriptor>> {
        let fetcher = self.fetcher(vertex);
        let status = vertex.status("preparing build cache for export", 0);
        let recipe = recipe_of(export);
        let gatherer = Gatherer::new(self, &fetcher, Packing::Blobs(&recipe));
        let Gathered { records, origins } = gatherer.gather(export.mode)?;
        let exported = Exported::new(&records);
        status.done();
        if exported.layers().is_empty() {
            return Ok(None);
        }
        let manifest = exported.manifest(export.form);
        let cache = Cache {
            fetcher: &fetcher,
            exported: &exported,
            manifest: &manifest,
            origins: &origins,
        };
        match &export.target {
            CacheTarget::Registry {
                image_ref,
                insecure,
            } => cache.push(image_ref, *insecure)?,
            CacheTarget::Local { path, tag, reset } => {
                let status = vertex.status("sending cache export", 0);
                layout::write(&cache, path, tag_or_default(tag.as_deref()), *reset)?;
                status.done();
            }
            CacheTarget::Inline => {}
        }
        cache.tell_documents();
        Ok(Some(manifest.descriptor))
    }
}

/// A cache about to be sent.
struct Cache<'a> {
    fetcher: &'a Fetcher<'a>,
    exported: &'a Exported,
    manifest: &'a WrittenManifest,
    /// Where blobs are that the store may lack.
    origins: &'a HashMap<Digest, Origin>,
}

impl Cache<'_> {
    /// Returns the layers' blobs, each once.
    fn blobs(&self) -> Vec<&Descriptor> {
        let mut known = HashSet::new();
        let blobs = self.exported.layers().iter();
        blobs
            .map(|layer| &layer.descriptor)
            .filter(|blob| known.insert(&blob.digest))
            .collect()
    }

    /// Has a blob in the store, held.
    fn hold(&self, blob: &Descriptor) -> Result<()> {
        match self.origins.get(&blob.digest) {
            Some(origin) => self.fetcher.blob(blob, origin),
            None => Ok(()),
        }
    }

    fn push(&self, image_ref: &larder_oci::ImageRef, insecure: bool) -> Result<()> {
        let lease = self.fetcher.lease;
        for blob in self.blobs() {
            match self.origins.get(&blob.digest) {
                // A registry may have what it needs, and is asked before it is sent.
                Some(Origin::Registry(from)) => {
                    let store = lease.store();
                    store.add_origin(&repository(from), &[&blob.digest])?;
                }
                _ => self.hold(blob)?,
            }
        }
        lease.put_blobs(&[self.exported.config_bytes(), &self.manifest.bytes])?;
        let options = PushOptions {
            by_digest: false,
            insecure,
        };
        push_image(
            self.fetcher,
            &self.manifest.descriptor,
            std::slice::from_ref(image_ref),
            options,
        )
        .map_err(|error| error.context(format!("cannot export the cache to `{image_ref}`")))?;
        for blob in self.blobs() {
            let progress = self.fetcher.progress;
            progress.status_done(format!("writing layer {}", blob.digest));
        }
        Ok(())
    }

    fn tell_documents(&self) {
        let progress = self.fetcher.progress;
        let config = self.exported.config_descriptor().digest;
        progress.status_done(format!("writing config {config}"));
        let manifest = &self.manifest.descriptor;
        let kind = if larder_oci::media_type::is_manifest(&manifest.media_type) {
            "cache image manifest"
        } else {
            "cache manifest"
        };
        progress.status_done(format!("writing {kind} {}", manifest.digest));
    }
}
