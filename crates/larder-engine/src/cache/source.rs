//! Reads caches where they lie: in registries, in OCI layouts, in the configs of images.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use larder_cache::{Imported, Manifest, RecordResult, limit};
use larder_oci::{Descriptor, Digest, ImageRef};
use larder_registry::{Client, Partial};
use larder_store::Lease;

use super::index::Record;
use super::remote::RemoteResult;
use crate::cancel::CancelFlag;
use crate::engine::Engine;
use crate::error::{BuildError, ErrorClass, Result};
use crate::fetch::{Origin, layout_blob};
use crate::images::{ResolvedImage, read_image};
use crate::progress::{Reporter, VertexProgress};
use crate::request::CacheImport;
use crate::task::Tasks;

/// How long a cache may take to be read; the build goes on without it then.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// What reading a cache needs.
#[derive(Clone, Copy)]
pub(crate) struct Sources<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) lease: &'a Lease,
    pub(crate) reporter: &'a Reporter<'a>,
    pub(crate) cancel: &'a CancelFlag,
}

/// A cache that was read.
pub(crate) struct Loaded {
    pub(crate) records: Vec<Record>,
}

impl Sources<'_> {
    /// Reads all caches at once. One that can't be read is told of, and left out.
    pub(crate) fn load(&self, requests: &[CacheImport]) -> Vec<Loaded> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = requests
                .iter()
                .map(|request| Tasks::spawn(scope, "cache", move || self.load_one(request)))
                .collect();
            let loaded = threads.into_iter().map(|thread| thread.ok()?.join().ok());
            loaded.flatten().flatten().collect()
        })
    }

    fn load_one(&self, request: &CacheImport) -> Vec<Loaded> {
        let name = format!("importing cache manifest from {}", request.name());
        let mut vertex = self.reporter.begin_internal(&name, "");
        let read = match request {
            CacheImport::Registry {
                image_ref,
                insecure,
            } => self.registry(image_ref, *insecure, &vertex),
            CacheImport::Local { path, digest, tag } => {
                read_layout(path, digest.as_ref(), tag.as_deref())
            }
        };
        match read {
            Ok(loaded) => {
                vertex.complete();
                loaded
            }
            Err(error) => {
                vertex.fail(&error.full_message());
                Vec::new()
            }
        }
    }

    /// Reads the cache of the image of that name in the store, and what the registry has. A name
    /// without a registry that an image of the store has is not asked for elsewhere.
    fn registry(
        &self,
        image_ref: &ImageRef,
        insecure: bool,
        vertex: &VertexProgress<'_>,
    ) -> Result<Vec<Loaded>> {
        let mut loaded = self.stored_images(image_ref)?;
        let is_local = image_ref.registry() == "docker.io"
            && image_ref.repository().starts_with("library/")
            && self.lease.store().image_by_name(image_ref)?.is_some();
        if is_local {
            return Ok(loaded);
        }
        let mut client = self.engine.registry().clone();
        let mut origin = Origin::Registry(image_ref.clone());
        if insecure {
            client = client.trusting(image_ref.registry());
            origin = Origin::InsecureRegistry(image_ref.clone());
        }
        let read = async {
            tokio::select! {
                read = read_registry(&client, image_ref) => read,
                () = tokio::time::sleep(READ_TIMEOUT) => Err(BuildError::new(
                    ErrorClass::Unavailable,
                    format!("no answer within {} s", READ_TIMEOUT.as_secs()),
                )),
            }
        };
        let (kind, caches) = self.engine.tasks.until_canceled(self.cancel, read)??;
        vertex.status_done(format!("inferred cache manifest type: {kind}"));
        loaded.extend(caches.into_iter().map(|cache| remote(cache, &origin)));
        Ok(loaded)
    }

    /// Reads the inline caches of an image of the store: of an index, those of all its images.
    fn stored_images(&self, image_ref: &ImageRef) -> Result<Vec<Loaded>> {
        let Some(info) = self.lease.store().image_by_name(image_ref)? else {
            return Ok(Vec::new());
        };
        let mut loaded = Vec::new();
        for image in info.images() {
            let platform = image.platform.parse().ok();
            match read_image(self.lease, &info, platform.as_ref()) {
                Ok(image) => loaded.extend(self.stored_image(image_ref, &image)?),
                Err(error) if error.class() == ErrorClass::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(loaded)
    }

    /// Reads the inline cache of an image of the store, whose layers are there.
    fn stored_image(&self, image_ref: &ImageRef, image: &ResolvedImage) -> Result<Option<Loaded>> {
        let store = self.lease.store();
        let config = store.read_blob(&image.manifest.config.digest, limit::CONFIG_BYTES as u64)?;
        let imported = Imported::from_image(&config, &image.manifest.layers).map_err(invalid)?;
        let Some(imported) = imported else {
            return Ok(None);
        };
        let origin = Origin::Registry(image_ref.clone());
        let Some(top) = &image.snapshot else {
            return Ok(Some(remote(imported, &origin)));
        };
        let chain = store.chain(top)?;
        if !self.lease.hold_snapshots(&chain)? {
            return Ok(None);
        }
        let diff_ids = &image.config.rootfs.diff_ids;
        let result = |found: &RecordResult| {
            let layers = &found.layers;
            // A result that is not the lowest layers, such as a linked copy's, has no tree here.
            let own = layers.iter().map(|layer| &layer.diff_id);
            let is_lowest =
                chain.len() == diff_ids.len() && own.eq(diff_ids.iter().take(layers.len()));
            let top = chain.get(layers.len() - 1).filter(|_| is_lowest)?;
            let result = RemoteResult::new(found, origin.clone(), &Arc::default());
            Some(result.with_tree(top.clone()))
        };
        Ok(Some(records(imported, result)))
    }
}

/// Reads the caches that a reference leads to, and the media type it led to first.
async fn read_registry(client: &Client, image_ref: &ImageRef) -> Result<(String, Vec<Imported>)> {
    let first = client.fetch_named(image_ref).await?;
    let kind = first.descriptor.media_type.clone();
    let mut caches = Vec::new();
    let mut left = limit::IMAGES;
    let mut pending = VecDeque::from([(first.bytes, 0)]);
    while let Some((bytes, depth)) = pending.pop_front() {
        match Manifest::parse(&bytes).map_err(invalid)? {
            Manifest::Cache { config, layers } => {
                let config = fetch(client, image_ref, &config).await?;
                caches.push(Imported::parse(&config, &layers).map_err(invalid)?);
            }
            Manifest::Image { config, layers } => {
                let config = fetch(client, image_ref, &config).await?;
                caches.extend(Imported::from_image(&config, &layers).map_err(invalid)?);
            }
            Manifest::Images(list) if depth < limit::INDEX_DEPTH => {
                for descriptor in list.into_iter().take(left) {
                    left -= 1;
                    let manifest = client.fetch_manifest(image_ref, &descriptor.digest).await?;
                    pending.push_back((manifest.bytes, depth + 1));
                }
            }
            Manifest::Images(_) => {}
        }
    }
    Ok((kind, caches))
}

async fn fetch(client: &Client, image_ref: &ImageRef, config: &Descriptor) -> Result<Vec<u8>> {
    if config.size_bytes > limit::CONFIG_BYTES as u64 {
        return Err(BuildError::invalid(format!(
            "the config of the cache has {} bytes, more than {}",
            config.size_bytes,
            limit::CONFIG_BYTES
        )));
    }
    let mut bytes = Vec::new();
    client
        .fetch_blob(image_ref, config, Partial::default(), &mut bytes)
        .await?;
    Ok(bytes)
}

fn read_file(path: &Path, limit_bytes: u64) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let failed = |source: std::io::Error| {
        let class = match source.kind() {
            std::io::ErrorKind::NotFound => ErrorClass::NotFound,
            _ => ErrorClass::Denied,
        };
        BuildError::new(class, format!("cannot read `{}`", path.display())).with_source(source)
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(limit_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > limit_bytes {
        let path = path.display();
        return Err(BuildError::invalid(format!(
            "`{path}` has more than {limit_bytes} bytes"
        )));
    }
    Ok(bytes)
}

fn verified(bytes: Vec<u8>, digest: &Digest) -> Result<Vec<u8>> {
    if Digest::sha256(&bytes) == *digest {
        return Ok(bytes);
    }
    Err(BuildError::invalid(format!(
        "blob `{digest}` of the cache is damaged"
    )))
}

fn invalid(error: larder_cache::Error) -> BuildError {
    BuildError::invalid("the cache can't be used").with_source(error)
}

/// Returns the records of a cache whose layers are at `origin`.
fn remote(imported: Imported, origin: &Origin) -> Loaded {
    let losses = Arc::default();
    records(imported, |found| {
        Some(RemoteResult::new(found, origin.clone(), &losses))
    })
}

/// Returns the records of a cache; `result` makes of a result what can be had of it.
fn records(imported: Imported, result: impl Fn(&RecordResult) -> Option<RemoteResult>) -> Loaded {
    let record = |record: larder_cache::Record| Record {
        digest: record.digest,
        inputs: record
            .inputs
            .into_iter()
            .map(|links| {
                let links = links.into_iter();
                links.map(|link| (link.selector, link.record)).collect()
            })
            .collect(),
        result: record.results.iter().find_map(&result).map(Arc::new),
    };
    Loaded {
        records: imported.records.into_iter().map(record).collect(),
    }
}

/// Reads the caches that a manifest of an OCI layout leads to.
fn read_layout(
    directory: &Path,
    digest: Option<&Digest>,
    tag: Option<&str>,
) -> Result<Vec<Loaded>> {
    let manifest = match digest {
        Some(digest) => digest.clone(),
        None => tagged(directory, tag.unwrap_or(larder_cache::layout::DEFAULT_TAG))?,
    };
    let read = |descriptor: &Descriptor, limit: usize| {
        let path = layout_blob(directory, &descriptor.digest);
        verified(read_file(&path, limit as u64)?, &descriptor.digest)
    };
    let top = Descriptor::new("", manifest, 0);
    let mut caches = Vec::new();
    let mut left = limit::IMAGES;
    let mut pending = VecDeque::from([(top, 0)]);
    while let Some((descriptor, depth)) = pending.pop_front() {
        let bytes = read(&descriptor, limit::MANIFEST_BYTES)?;
        match Manifest::parse(&bytes).map_err(invalid)? {
            Manifest::Cache { config, layers } => {
                let config = read(&config, limit::CONFIG_BYTES)?;
                caches.push(Imported::parse(&config, &layers).map_err(invalid)?);
            }
            Manifest::Image { config, layers } => {
                let config = read(&config, limit::CONFIG_BYTES)?;
                caches.extend(Imported::from_image(&config, &layers).map_err(invalid)?);
            }
            Manifest::Images(list) if depth < limit::INDEX_DEPTH => {
                for descriptor in list.into_iter().take(left) {
                    left -= 1;
                    pending.push_back((descriptor, depth + 1));
                }
            }
            Manifest::Images(_) => {}
        }
    }
    let origin = Origin::Layout(directory.to_owned());
    let loaded = caches.into_iter().map(|cache| remote(cache, &origin));
    Ok(loaded.collect())
}

/// Returns the manifest that a tag of an OCI layout leads to.
fn tagged(directory: &Path, tag: &str) -> Result<Digest> {
    let bytes = read_file(&directory.join("index.json"), limit::MANIFEST_BYTES as u64)?;
    let index = larder_cache::layout::parse(&bytes).map_err(invalid)?;
    let missing = || {
        BuildError::new(
            ErrorClass::NotFound,
            format!("`{}` has no cache `{tag}`", directory.display()),
        )
    };
    let found = larder_cache::layout::find(&index, tag).ok_or_else(missing)?;
    Ok(found.digest.clone())
}
