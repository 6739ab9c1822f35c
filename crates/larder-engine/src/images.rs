//! Base images: found in the local image store, else in their registry.

use std::collections::HashMap;
use std::sync::Mutex;

use larder_dockerfile::ImageRequest;
use larder_oci::{
    Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, ImageRef, Platform, media_type,
};
use larder_store::{Lease, NewImage, SnapshotId};

use crate::engine::Engine;
use crate::error::{BuildError, ErrorClass, Result};

/// As large a manifest, index or config as is read into memory.
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// An image that a build stands on.
#[derive(Debug, Clone)]
pub(crate) struct ResolvedImage {
    /// As asked for.
    pub(crate) image_ref: ImageRef,
    /// What its name stands for: an index or a manifest.
    pub(crate) target: Digest,
    /// The manifest for the platform.
    pub(crate) manifest_digest: Digest,
    pub(crate) manifest: ImageManifest,
    pub(crate) config: ImageConfig,
    /// Its topmost layer, where that is known to be in the store.
    pub(crate) snapshot: Option<SnapshotId>,
}

impl ResolvedImage {
    /// Returns the identifier of the source vertex that stands for it.
    pub(crate) fn identifier(&self) -> String {
        format!(
            "docker-image://{}",
            self.image_ref.with_digest(self.target.clone())
        )
    }
}

/// Finds images, each once.
pub(crate) struct Images<'a> {
    engine: &'a Engine,
    lease: &'a Lease,
    /// Whether registries are asked even if the store has an image of the name.
    pull: bool,
    found: Mutex<HashMap<(ImageRef, Platform), ResolvedImage>>,
    /// Why images were not found when they were looked up beforehand.
    failed: Mutex<HashMap<(ImageRef, Platform), BuildError>>,
}

impl<'a> Images<'a> {
    pub(crate) fn new(engine: &'a Engine, lease: &'a Lease, pull: bool) -> Self {
        Self {
            engine,
            lease,
            pull,
            found: Mutex::default(),
            failed: Mutex::default(),
        }
    }

    /// Returns all images found so far, by the identifier of their vertices.
    pub(crate) fn into_found(self) -> HashMap<String, ResolvedImage> {
        let found = self
            .found
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        found
            .into_values()
            .map(|image| (image.identifier(), image))
            .collect()
    }

    /// Keeps why an image was not found, for the frontend, which knows where it is asked for.
    pub(crate) fn keep_failure(&self, request: &ImageRequest, error: BuildError) {
        let key = (request.image_ref.clone(), request.platform.clone());
        self.failed
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(key, error);
    }

    /// Finds an image.
    ///
    /// # Errors
    /// When neither the store nor the registry has it for the platform.
    pub(crate) fn resolve(
        &self,
        image_ref: &ImageRef,
        platform: &Platform,
    ) -> Result<ResolvedImage> {
        let key = (image_ref.clone(), platform.clone());
        let known = self
            .found
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .get(&key)
            .cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let failed = self
            .failed
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .remove(&key);
        if let Some(error) = failed {
            return Err(error);
        }
        let local = if self.pull {
            None
        } else {
            self.find_local(image_ref, platform)?
        };
        let image = match local {
            Some(image) => image,
            None => self.find_remote(image_ref, platform)?,
        };
        self.found
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(key, image.clone());
        Ok(image)
    }

    /// Looks in the local image store, and among what earlier builds have fetched by digest.
    fn find_local(
        &self,
        image_ref: &ImageRef,
        platform: &Platform,
    ) -> Result<Option<ResolvedImage>> {
        let store = self.lease.store();
        let stored = match image_ref.digest() {
            None => store.image_by_name(image_ref)?,
            Some(digest) => match store.resolve_image(digest.as_str()) {
                Ok(image) => Some(image),
                Err(error) if error.kind() == larder_store::ErrorKind::NotFound => None,
                Err(error) => return Err(error.into()),
            },
        };
        let target = match (&stored, image_ref.digest()) {
            (_, Some(digest)) => digest.clone(),
            (Some(image), None) => image.manifest.digest.clone(),
            (None, None) => return Ok(None),
        };
        let snapshot = stored
            .filter(|stored| stored.manifest.digest == target)
            .and_then(|stored| stored.snapshot);
        match read_target(self.lease, image_ref, &target, platform, snapshot) {
            Ok(image) => Ok(Some(image)),
            Err(error) if error.class() == ErrorClass::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn document(&self, digest: &Digest) -> Result<Vec<u8>> {
        document(self.lease, digest)
    }

    fn find_remote(&self, image_ref: &ImageRef, platform: &Platform) -> Result<ResolvedImage> {
        let client = self.engine.registry();
        let fetched = self.engine.tasks.block_on(async {
            let target = client.resolve(image_ref).await?.descriptor.digest;
            let mut document = match self.stored(&target) {
                Some(bytes) => bytes,
                None => client.fetch_manifest(image_ref, &target).await?.bytes,
            };
            let mut documents = vec![document.clone()];
            let mut manifest_digest = target.clone();
            if let Some(index) = as_index(&document) {
                manifest_digest = select(&index, image_ref, platform)?;
                document = match self.stored(&manifest_digest) {
                    Some(bytes) => bytes,
                    None => {
                        client
                            .fetch_manifest(image_ref, &manifest_digest)
                            .await?
                            .bytes
                    }
                };
                documents.push(document.clone());
            }
            let manifest: ImageManifest = parse(&document, "manifest", &manifest_digest)?;
            if manifest.config.size_bytes > MAX_DOCUMENT_BYTES {
                return Err(BuildError::invalid(format!(
                    "the config of `{image_ref}` is larger than 4 MiB"
                )));
            }
            if self.stored(&manifest.config.digest).is_none() {
                let mut config = Vec::new();
                let whole = larder_registry::Partial::default();
                client
                    .fetch_blob(image_ref, &manifest.config, whole, &mut config)
                    .await?;
                documents.push(config);
            }
            Ok(documents)
        });
        let runtime = |source| {
            BuildError::new(ErrorClass::Exhausted, "cannot start the network's runtime")
                .with_source(source)
        };
        let documents = fetched.map_err(runtime)??;
        let target = Digest::sha256(&documents[0]);
        for document in &documents {
            self.lease.put_blob(document)?;
        }
        let image = read_target(self.lease, image_ref, &target, platform, None)?;
        self.remember(&image)?;
        Ok(image)
    }

    /// Keeps what a name stands for, so that the next build need not ask.
    fn remember(&self, image: &ResolvedImage) -> Result<()> {
        let bytes = self.document(&image.target)?;
        let media_type = match as_index(&bytes) {
            Some(_) => media_type::INDEX,
            None => media_type::MANIFEST,
        };
        let blobs = [
            image.manifest_digest.clone(),
            image.manifest.config.digest.clone(),
        ];
        let new = NewImage {
            manifest: &Descriptor::new(media_type, image.target.clone(), bytes.len() as u64),
            config: &image.manifest.config.digest,
            platform: &image.config.platform().to_string(),
            created_at: image
                .config
                .created
                .as_ref()
                .and_then(|time| time.parse().ok()),
            snapshot: None,
            blobs: &blobs,
        };
        let names = match image.image_ref.digest() {
            None => std::slice::from_ref(&image.image_ref),
            Some(_) => &[],
        };
        Ok(self.lease.add_image(&new, names)?)
    }

    fn stored(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.document(digest).ok()
    }
}

/// Reads a stored image for this machine's platform.
pub(crate) fn read_image(lease: &Lease, target: &Digest) -> Result<ResolvedImage> {
    let anonymous: ImageRef = format!("image@{target}")
        .parse()
        .map_err(|error| BuildError::internal("a digest is no reference").with_source(error))?;
    read_target(lease, &anonymous, target, &Platform::host(), None)
}

/// Reads an image whose documents are in the store, and protects them; `snapshot`, its topmost
/// layer, too, if it is still there.
fn read_target(
    lease: &Lease,
    image_ref: &ImageRef,
    target: &Digest,
    platform: &Platform,
    snapshot: Option<SnapshotId>,
) -> Result<ResolvedImage> {
    let mut manifest_digest = target.clone();
    let mut bytes = document(lease, target)?;
    if let Some(index) = as_index(&bytes) {
        manifest_digest = select(&index, image_ref, platform)?;
        bytes = document(lease, &manifest_digest)?;
    }
    let manifest: ImageManifest = parse(&bytes, "manifest", &manifest_digest)?;
    let config: ImageConfig = parse(
        &document(lease, &manifest.config.digest)?,
        "config",
        &manifest.config.digest,
    )?;
    check(image_ref, &manifest, &config)?;
    let documents = [
        target.clone(),
        manifest_digest.clone(),
        manifest.config.digest.clone(),
    ];
    let is_held = lease.hold(snapshot.as_slice(), &documents)?;
    if !is_held && (snapshot.is_none() || !lease.hold_blobs(&documents)?) {
        return Err(BuildError::new(
            ErrorClass::NotFound,
            format!("`{target}` is not in the store"),
        ));
    }
    Ok(ResolvedImage {
        image_ref: image_ref.clone(),
        target: target.clone(),
        manifest_digest,
        manifest,
        config,
        snapshot: snapshot.filter(|_| is_held),
    })
}

/// Reads a document, which may go at any time unless it is held.
fn document(lease: &Lease, digest: &Digest) -> Result<Vec<u8>> {
    Ok(lease.store().read_blob(digest, MAX_DOCUMENT_BYTES)?)
}

fn as_index(bytes: &[u8]) -> Option<ImageIndex> {
    let index: ImageIndex = serde_json::from_slice(bytes).ok()?;
    (index.media_type.is_empty() || media_type::is_index(&index.media_type)).then_some(index)
}

fn select(index: &ImageIndex, image_ref: &ImageRef, platform: &Platform) -> Result<Digest> {
    index
        .select(platform)
        .map(|descriptor| descriptor.digest.clone())
        .ok_or_else(|| {
            let known: Vec<String> = index
                .manifests
                .iter()
                .filter_map(|manifest| manifest.platform.as_ref())
                .map(Platform::to_string)
                .collect();
            BuildError::new(
                ErrorClass::NotFound,
                format!("{image_ref}: no match for platform {platform}"),
            )
            .with_hint(format!("the image is for {}", known.join(", ")))
        })
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str, digest: &Digest) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        BuildError::invalid(format!("{what} `{digest}` is not valid")).with_source(error)
    })
}

/// Checks that each layer of the manifest has its diff ID.
fn check(image_ref: &ImageRef, manifest: &ImageManifest, config: &ImageConfig) -> Result<()> {
    let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers == diff_ids {
        return Ok(());
    }
    Err(BuildError::invalid(format!(
        "image `{image_ref}` has {layers} layers and {diff_ids} diff IDs"
    )))
}

/// Answers the frontend's questions from what was found, and looks up what it has not asked for
/// before.
impl larder_dockerfile::ImageResolver for Images<'_> {
    fn resolve_image_config(
        &self,
        request: &ImageRequest,
    ) -> std::result::Result<larder_dockerfile::ResolvedImage, larder_dockerfile::ResolveError>
    {
        let image = self
            .resolve(&request.image_ref, &request.platform)
            .map_err(|error| {
                let image = &request.image_ref;
                error
                    .flattened()
                    .context(format!("failed to resolve source metadata for {image}"))
            })?;
        Ok(larder_dockerfile::ResolvedImage {
            digest: image.target,
            config: image.config,
        })
    }
}
