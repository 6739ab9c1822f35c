//! An image, to the registry of its name.

use larder_oci::ImageRef;

use super::Export;
use super::manifest::MadeImage;
use crate::error::{BuildError, Result};
use crate::progress::VertexProgress;
use crate::request::PushOptions;

impl Export<'_> {
    /// Pushes a made image, all of whose blobs are stored.
    pub(super) fn push(
        &self,
        _made: &MadeImage,
        _name: &ImageRef,
        _push: PushOptions,
        _vertex: &VertexProgress<'_>,
    ) -> Result<()> {
        Err(BuildError::invalid("pushing is not supported yet"))
    }
}
