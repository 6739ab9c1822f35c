//! A build's source policy, where the frontend meets it.

use std::collections::HashMap;

use larder_dockerfile::{
    Dockerfile, ImageRequest, LowerOptions, Lowered, NamedContext, is_builtin_frontend,
};
use larder_llb::pb;
use larder_oci::{ImageRef, Platform};

use super::inputs::OpenContext;
use super::{Build, llb, located, remote};
use crate::error::Result;
use crate::images::{IMAGE, ImageKey, ResolvedImage};
use crate::policy::{self, LocalNames};
use crate::request::DockerfileSource;

/// The build argument that names a frontend.
const SYNTAX: &str = "BUILDKIT_SYNTAX";
/// What BuildKit's clients call the directory that has the Dockerfile.
const DOCKERFILE: &str = "local://dockerfile";
/// No image, and so no source.
const SCRATCH: &str = "scratch";
/// What can stand for a named context in place of an image.
const REMOTE: [&str; 3] = ["git://", "http://", "https://"];

impl Build<'_> {
    /// Makes a graph what the policy has it be. Returns the images that nobody has looked up yet.
    pub(super) fn police(
        &self,
        lowered: &mut Lowered,
        locals: &LocalNames,
    ) -> Result<HashMap<ImageKey, ResolvedImage>> {
        let changed = policy::apply_to(self.images.policy(), lowered, locals);
        if changed.map_err(|error| located(error, lowered))? {
            return llb::source_images(&lowered.definition, self.images.plain());
        }
        Ok(HashMap::new())
    }

    /// Holds the frontend that a Dockerfile asks for against the policy. Larder has it within, where
    /// BuildKit would fetch it.
    pub(super) fn check_frontend(
        &self,
        dockerfile: &Dockerfile,
        options: &mut LowerOptions,
    ) -> Result<()> {
        let named = dockerfile.frontend(options);
        let Some(Ok(image_ref)) = named.map(str::parse::<ImageRef>) else {
            return Ok(());
        };
        let failed = format!("failed to resolve source metadata for {image_ref}");
        let wanted = self.images.wanted(&ImageRequest {
            log_name: String::new(),
            platform: Platform::host(),
            image_ref,
            layout: None,
        });
        let wanted = wanted.map_err(|error| error.context(failed))?;
        let name = wanted.image_ref.to_string();
        if !is_builtin_frontend(&name) {
            // The Dockerfile is refused as if it asked for this one.
            options.build_args.insert(SYNTAX.to_owned(), name);
        }
        Ok(())
    }

    /// Holds the directory of a Dockerfile of the user's against the policy: BuildKit has it as a
    /// source.
    pub(super) fn check_dockerfile(
        &self,
        context: &OpenContext,
        dockerfile: &DockerfileSource,
    ) -> Result<()> {
        let is_sent = match (context, dockerfile) {
            (OpenContext::Local(_), source) => !matches!(source, DockerfileSource::Remote(_)),
            (OpenContext::Remote(remote), DockerfileSource::Path(path)) => {
                path.is_absolute() && !remote.is_sent
            }
            (OpenContext::Remote(_), _) => false,
        };
        if !is_sent {
            return Ok(());
        }
        let source = pb::SourceOp {
            identifier: DOCKERFILE.to_owned(),
            ..pb::SourceOp::default()
        };
        let checked = policy::source(self.images.policy(), &source);
        checked.map_err(|error| error.context("failed to resolve dockerfile"))?;
        Ok(())
    }

    /// Returns what stands for a named context that is an image as written: something else, if the
    /// policy makes a URL of it. What is wrong is told when the context is used.
    pub(super) fn image_context(&self, image: &str) -> Result<NamedContext> {
        let as_written = || NamedContext::Image(image.to_owned());
        let Some(Ok(image_ref)) = (image != SCRATCH).then(|| image.parse::<ImageRef>()) else {
            return Ok(as_written());
        };
        let mut source = pb::SourceOp {
            identifier: format!("{IMAGE}{image_ref}"),
            ..pb::SourceOp::default()
        };
        let is_changed = self.images.policy().evaluate(&mut source);
        let url = source.identifier;
        if is_changed == Ok(true) && REMOTE.iter().any(|scheme| url.starts_with(scheme)) {
            return remote::named_context(&url);
        }
        Ok(as_written())
    }
}
