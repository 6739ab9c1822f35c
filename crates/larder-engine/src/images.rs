//! Base images: found in the local image store, else in their registry.

mod layout;
mod policed;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use larder_dockerfile::{ImageRequest, OciLayout};
use larder_oci::{
    Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, ImageRef, Platform, media_type,
};
use larder_store::{ImageInfo, Lease, NewImage, SnapshotId};

use crate::cancel::CancelFlag;
use crate::engine::Engine;
use crate::error::{BuildError, ErrorClass, Result};
use crate::fetch::{FarLayer, repository};
use crate::progress::Reporter;
use crate::request::LayoutImage;
pub(crate) use layout::Layouts;
pub(crate) use policed::{IMAGE, PolicedImages};

/// As large a manifest, index or config as is read into memory.
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// An image that a build stands on.
#[derive(Debug, Clone)]
pub(crate) struct ResolvedImage {
    /// As asked for.
    pub(crate) image_ref: ImageRef,
    /// As asked for; what the image is for, its config tells.
    pub(crate) platform: Platform,
    /// What its name stands for: an index or a manifest.
    pub(crate) target: Digest,
    /// The manifest for the platform.
    pub(crate) manifest_digest: Digest,
    pub(crate) manifest: ImageManifest,
    pub(crate) config: ImageConfig,
    /// Its topmost layer, where that is known to be in the store.
    pub(crate) snapshot: Option<SnapshotId>,
    /// Where its layers are, if in no registry: a directory of the user's.
    pub(crate) layout: Option<PathBuf>,
}

impl ResolvedImage {
    /// Returns its layers, lowest first.
    pub(crate) fn layers(&self) -> Vec<FarLayer> {
        let layers = self.manifest.layers.iter();
        layers
            .zip(&self.config.rootfs.diff_ids)
            .map(|(descriptor, diff_id)| FarLayer {
                descriptor: descriptor.clone(),
                diff_id: diff_id.clone(),
                created_at: None,
            })
            .collect()
    }

    /// Returns it with its lowest `limit` layers only.
    pub(crate) fn limited(&self, lease: &Lease, limit: usize) -> Result<Self> {
        let count = self.manifest.layers.len();
        if limit > count {
            return Err(BuildError::invalid(format!(
                "layer limit {limit} is greater than the number of layers in the image {count}"
            )));
        }
        let mut image = self.clone();
        if limit < count {
            image.manifest.layers.truncate(limit);
            image.config.rootfs.diff_ids.truncate(limit);
            image.snapshot = match &self.snapshot {
                Some(top) => below(lease, top, &image.config.rootfs.diff_ids)?,
                None => None,
            };
        }
        Ok(image)
    }

    /// Returns what the source vertex that stands for it is known by.
    fn key(&self) -> ImageKey {
        let identifier = if self.layout.is_some() {
            format!("oci-layout://{}", self.image_ref)
        } else {
            let pinned = self.image_ref.with_digest(self.target.clone());
            format!("{IMAGE}{pinned}")
        };
        (identifier, self.platform.clone())
    }

    /// Returns whether it runs where it was asked for.
    pub(crate) fn fits(&self) -> bool {
        let own = self.config.platform();
        self.has_no_platform() || own.rank_for(&self.platform).is_some()
    }

    fn is_just_for(&self, platform: &Platform) -> bool {
        self.has_no_platform() || self.config.platform().satisfies(platform)
    }

    fn has_no_platform(&self) -> bool {
        self.config.os.is_empty() || self.config.architecture.is_empty()
    }
}

/// Returns the snapshot of the lowest layers of `top`, if they are those of `diff_ids`, and protects it.
fn below(lease: &Lease, top: &SnapshotId, diff_ids: &[Digest]) -> Result<Option<SnapshotId>> {
    let store = lease.store();
    let chain = store.chain(top)?;
    let Some((found, lowest)) = chain
        .get(..diff_ids.len())
        .and_then(|lowest| Some((lowest.last()?, lowest)))
    else {
        return Ok(None);
    };
    for (layer, diff_id) in lowest.iter().zip(diff_ids) {
        if store.snapshot(layer)?.diff_id.as_ref() != Some(diff_id) {
            return Ok(None);
        }
    }
    let is_it =
        store.chain(found)? == lowest && lease.hold_snapshots(std::slice::from_ref(found))?;
    Ok(is_it.then(|| found.clone()))
}

/// The identifier of a source vertex, and its platform: an index has an image for each.
pub(crate) type ImageKey = (String, Platform);

/// Finds images, each once.
pub(crate) struct Images<'a> {
    engine: &'a Engine,
    lease: &'a Lease,
    cancel: &'a CancelFlag,
    /// Whether registries are asked even if the store has an image of the name.
    pull: bool,
    looked_up: Mutex<HashMap<Wanted, Arc<LookUp>>>,
    layouts: Layouts,
}

/// An image that is looked up: where it is, if in no registry.
type Wanted = (ImageRef, Platform, Option<OciLayout>);

/// What came of the look-up of an image, once it has ended. Who asks meanwhile waits.
type LookUp = OnceLock<Result<ResolvedImage>>;

impl<'a> Images<'a> {
    pub(crate) fn new(
        engine: &'a Engine,
        lease: &'a Lease,
        pull: bool,
        cancel: &'a CancelFlag,
    ) -> Self {
        Self {
            engine,
            lease,
            cancel,
            pull,
            looked_up: Mutex::default(),
            layouts: Layouts::default(),
        }
    }

    /// Lets it know of layouts that others know of, too.
    pub(crate) fn with_layouts(self, layouts: Layouts) -> Self {
        Self { layouts, ..self }
    }

    /// Returns the layouts that it knows of.
    pub(crate) fn layouts(&self) -> &Layouts {
        &self.layouts
    }

    /// Returns a finder that asks registries even if the store has an image of the name.
    pub(crate) fn asking_registries(&self) -> Self {
        Self::new(self.engine, self.lease, true, self.cancel)
    }

    /// Returns all images found so far, by what their vertices are known by.
    pub(crate) fn into_found(self) -> HashMap<ImageKey, ResolvedImage> {
        let looked_up = self
            .looked_up
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let found = looked_up
            .into_values()
            .filter_map(|found| found.get()?.as_ref().ok().cloned());
        found.map(|image| (image.key(), image)).collect()
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
        self.resolve_in(image_ref, platform, None)
    }

    /// Finds an image, in a layout if one is given.
    pub(crate) fn resolve_in(
        &self,
        image_ref: &ImageRef,
        platform: &Platform,
        layout: Option<&OciLayout>,
    ) -> Result<ResolvedImage> {
        let look_up = self.look_up_of(image_ref, platform, layout);
        let found = look_up.get_or_init(|| self.find(image_ref, platform, layout));
        found.as_ref().map_err(BuildError::duplicate).cloned()
    }

    /// Finds an image beforehand, and shows how that goes. A failure is told to who asks for the
    /// image: the frontend knows what it is for.
    pub(crate) fn look_up(&self, request: &ImageRequest, reporter: &Reporter<'_>) {
        let layout = request.layout.as_ref();
        let look_up = self.look_up_of(&request.image_ref, &request.platform, layout);
        look_up.get_or_init(|| {
            let mut vertex = reporter.begin_internal(&request.log_name, "");
            let found = self.find(&request.image_ref, &request.platform, layout);
            match &found {
                Ok(_) => vertex.complete(),
                Err(error) => vertex.fail(&error.full_message()),
            };
            found
        });
    }

    fn look_up_of(
        &self,
        image_ref: &ImageRef,
        platform: &Platform,
        layout: Option<&OciLayout>,
    ) -> Arc<LookUp> {
        let key = (image_ref.clone(), platform.clone(), layout.cloned());
        let mut looked_up = self
            .looked_up
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        Arc::clone(looked_up.entry(key).or_default())
    }

    /// Takes note of an image in a layout, and finds its digest.
    ///
    /// # Errors
    /// When there is no layout, or no such image in it.
    pub(crate) fn add_layout(&self, image: &LayoutImage) -> Result<OciLayout> {
        self.layouts.add(image)
    }

    fn find(
        &self,
        image_ref: &ImageRef,
        platform: &Platform,
        layout: Option<&OciLayout>,
    ) -> Result<ResolvedImage> {
        if let Some(layout) = layout {
            let directory = self.layouts.fetch_documents(self.lease, layout, |index| {
                select(index, image_ref, platform)
            })?;
            let image = read_target(self.lease, image_ref, &layout.digest, platform, None)?;
            return Ok(ResolvedImage {
                layout: Some(directory),
                ..image
            });
        }
        let local = if self.pull {
            None
        } else {
            self.find_local(image_ref, platform)?
        };
        let Some(image) = local else {
            return self.find_remote(image_ref, platform);
        };
        // An index has been searched, and a digest means this image and no other.
        let is_searched = image.target != image.manifest_digest || image_ref.digest().is_some();
        if is_searched || image.is_just_for(platform) {
            return Ok(image);
        }
        // In its registry, the name may stand for images for more platforms.
        match self.find_remote(image_ref, platform) {
            Err(error) if error.class() == ErrorClass::Canceled => Err(error),
            // Nobody has to have asked for the host's platform.
            Err(_) if image.fits() || *platform == Platform::host() => Ok(image),
            Err(error) => {
                let own = image.config.platform();
                Err(error.with_hint(format!("the store has `{image_ref}` for {own} only")))
            }
            found => found,
        }
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
        let stored = stored.filter(|stored| stored.manifest.digest == target);
        match read_target(self.lease, image_ref, &target, platform, stored.as_ref()) {
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
        // Who has an image of that name has most likely what it stands for now.
        let asks_first = self.lease.store().image_by_name(image_ref)?.is_some();
        let fetched = self.engine.tasks.until_canceled(self.cancel, async {
            let (target, mut document) = if asks_first || image_ref.digest().is_some() {
                let target = client.resolve(image_ref).await?.descriptor.digest;
                let document = match self.stored(&target) {
                    Some(bytes) => bytes,
                    None => client.fetch_manifest(image_ref, &target).await?.bytes,
                };
                (target, document)
            } else {
                let manifest = client.fetch_named(image_ref).await?;
                (manifest.descriptor.digest, manifest.bytes)
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
        let documents = fetched??;
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
            others: &[],
            blobs: &blobs,
        };
        let repository = repository(&image.image_ref);
        let layers: Vec<&Digest> = image.manifest.layers.iter().map(|it| &it.digest).collect();
        self.lease.store().add_origin(&repository, &layers)?;
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

/// Reads a stored image: of an index the image for `platform`, else the one that stands for all.
///
/// # Errors
/// `NotFound` if it has no image for `platform`, or none that is stored.
pub(crate) fn read_image(
    lease: &Lease,
    info: &ImageInfo,
    platform: Option<&Platform>,
) -> Result<ResolvedImage> {
    let target = &info.manifest.digest;
    let first = info.platform.parse().unwrap_or_else(|_| Platform::host());
    let wanted = platform.unwrap_or(&first);
    let image = read_target(lease, &anonymous(target)?, target, wanted, Some(info))?;
    if platform.is_some() && !image.fits() {
        let own = image.config.platform();
        let message = format!("the image is for {own}, not for {wanted}");
        return Err(BuildError::new(ErrorClass::NotFound, message));
    }
    Ok(image)
}

/// Reads the image that `text` means: as [`read_image`], and where `text` is an id, the image that has
/// it.
pub(crate) fn read_meant(
    lease: &Lease,
    info: &ImageInfo,
    text: &str,
    platform: Option<&Platform>,
) -> Result<ResolvedImage> {
    let meant = info.platform_meant(text).filter(|_| platform.is_none());
    let meant = meant.and_then(|platform| platform.parse().ok());
    read_image(lease, info, platform.or(meant.as_ref()))
}

/// Reads an image whose documents are in the store: of an index, the one for `platform`.
pub(crate) fn read_documents(
    lease: &Lease,
    target: &Digest,
    platform: &Platform,
) -> Result<ResolvedImage> {
    read_target(lease, &anonymous(target)?, target, platform, None)
}

fn anonymous(target: &Digest) -> Result<ImageRef> {
    format!("image@{target}")
        .parse()
        .map_err(|error| BuildError::internal("a digest is no reference").with_source(error))
}

/// Reads an image whose documents are in the store, and protects them; its topmost layer, too, if
/// `stored` knows it and it is still there.
fn read_target(
    lease: &Lease,
    image_ref: &ImageRef,
    target: &Digest,
    platform: &Platform,
    stored: Option<&ImageInfo>,
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
    let snapshot = stored.and_then(|stored| stored.snapshot_of(&manifest.config.digest));
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
        platform: platform.clone(),
        target: target.clone(),
        manifest_digest,
        manifest,
        config,
        snapshot: snapshot.filter(|_| is_held),
        layout: None,
    })
}

/// Reads a document, which may go at any time unless it is held.
pub(crate) fn document(lease: &Lease, digest: &Digest) -> Result<Vec<u8>> {
    Ok(lease.store().read_blob(digest, MAX_DOCUMENT_BYTES)?)
}

pub(crate) fn as_index(bytes: &[u8]) -> Option<ImageIndex> {
    let index: ImageIndex = serde_json::from_slice(bytes).ok()?;
    (index.media_type.is_empty() || media_type::is_index(&index.media_type)).then_some(index)
}

fn select(index: &ImageIndex, image_ref: &ImageRef, platform: &Platform) -> Result<Digest> {
    index
        .select(platform)
        .map(|descriptor| descriptor.digest.clone())
        .ok_or_else(|| {
            let known: Vec<String> = index
                .images()
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
