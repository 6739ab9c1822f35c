//! Images as a source policy has them.

use larder_dockerfile::{ImageRequest, OciLayout};
use larder_llb::pb;
use larder_llb::policy::SourcePolicy;

use super::{Images, ResolvedImage};
use crate::error::{BuildError, Result};
use crate::progress::Reporter;
use crate::request::LayoutImage;

/// The scheme of images in registries.
pub(crate) const IMAGE: &str = "docker-image://";
const LAYOUT: &str = "oci-layout://";

/// Finds images, each as the policy of a build has it.
#[derive(Clone, Copy)]
pub(crate) struct PolicedImages<'a> {
    images: &'a Images<'a>,
    policy: &'a SourcePolicy,
}

impl<'a> PolicedImages<'a> {
    pub(crate) fn new(images: &'a Images<'a>, policy: &'a SourcePolicy) -> Self {
        Self { images, policy }
    }

    /// Returns who finds images that have been through the policy.
    pub(crate) fn plain(&self) -> &'a Images<'a> {
        self.images
    }

    pub(crate) fn policy(&self) -> &'a SourcePolicy {
        self.policy
    }

    /// Finds an image.
    ///
    /// # Errors
    /// `Invalid` if the policy denies it; else as for [`Images::resolve`].
    pub(crate) fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage> {
        let wanted = self.wanted(request)?;
        let layout = wanted.layout.as_ref();
        self.images
            .resolve_in(&wanted.image_ref, &wanted.platform, layout)
    }

    /// Finds an image beforehand, as [`Images::look_up`]. One that is denied is not looked up:
    /// who asks for it is told.
    pub(crate) fn look_up(&self, request: &ImageRequest, reporter: &Reporter<'_>) {
        if let Ok(wanted) = self.wanted(request) {
            self.images.look_up(&wanted, reporter);
        }
    }

    pub(crate) fn add_layout(&self, image: &LayoutImage) -> Result<OciLayout> {
        self.images.add_layout(image)
    }

    /// Returns what is looked up for `request`.
    ///
    /// # Errors
    /// `Invalid` if the policy denies it, or makes something else than an image of it.
    pub(crate) fn wanted(&self, request: &ImageRequest) -> Result<ImageRequest> {
        let mut source = source_of(request);
        let changed = self.policy.evaluate(&mut source).map_err(|error| {
            BuildError::invalid(format!("could not resolve image due to policy: {error}"))
        })?;
        let identifier = source.identifier;
        if !changed || identifier == source_of(request).identifier {
            return Ok(request.clone());
        }
        let Some(name) = identifier.strip_prefix(IMAGE) else {
            let message = format!(
                "the source policy makes `{identifier}` of the image, which can't be looked up"
            );
            return Err(BuildError::invalid(message));
        };
        let image_ref = name.parse().map_err(|error| {
            let message = format!("the source policy makes `{identifier}` of the image");
            BuildError::invalid(message).with_source(error)
        });
        Ok(ImageRequest {
            image_ref: image_ref?,
            layout: None,
            ..request.clone()
        })
    }
}

/// Returns the source that BuildKit's frontends look an image up as.
fn source_of(request: &ImageRequest) -> pb::SourceOp {
    let image_ref = &request.image_ref;
    let Some(layout) = &request.layout else {
        return pb::SourceOp {
            identifier: format!("{IMAGE}{image_ref}"),
            ..pb::SourceOp::default()
        };
    };
    let mut source = pb::SourceOp {
        identifier: format!("{LAYOUT}{image_ref}"),
        ..pb::SourceOp::default()
    };
    let store = layout.store.clone();
    source.attrs.insert("oci.store".to_owned(), store);
    if let Some(session) = &layout.session {
        let session = session.clone();
        source.attrs.insert("oci.session".to_owned(), session);
    }
    source
}

/// Answers the frontend's questions from what was found, and looks up what it has not asked for
/// before.
impl larder_dockerfile::ImageResolver for PolicedImages<'_> {
    fn resolve_image_config(
        &self,
        request: &ImageRequest,
    ) -> std::result::Result<larder_dockerfile::ResolvedImage, larder_dockerfile::ResolveError>
    {
        let image = self.resolve(request).map_err(|error| {
            let image = &request.image_ref;
            error
                .flattened()
                .context(format!("failed to resolve source metadata for {image}"))
        })?;
        Ok(larder_dockerfile::ResolvedImage {
            image_ref: image.image_ref,
            digest: image.target,
            config: image.config,
        })
    }
}
