//! The images that services run: built, pulled, or there already.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use larder_compose::{Project, Service};
use larder_engine::event::BuildEvent;
use larder_engine::{CancelFlag, Engine, ErrorClass, ImageDetails};
use larder_oci::{ImageRef, Platform};

use super::Context;
use super::build;
use crate::args::{ComposeBuildArgs, ProjectArgs};
use crate::output;

/// What to do about images before services are started.
pub(super) struct ImageOptions<'a> {
    /// Whether images with a build are built in any case.
    pub(super) build: bool,
    /// Whether nothing is built.
    pub(super) no_build: bool,
    pub(super) flags: &'a ComposeBuildArgs,
    pub(super) project_args: &'a ProjectArgs,
}

/// Returns each service's image, by the service's name.
pub(super) fn resolve(
    project: &Project,
    services: &[&Service],
    options: &ImageOptions<'_>,
    engine: &Engine,
    context: &Context<'_>,
) -> anyhow::Result<BTreeMap<String, ImageDetails>> {
    let mut to_build = Vec::new();
    for service in services {
        let image = service.image_name(&project.name);
        let asked = options.build || service.pull_policy.as_deref() == Some("build");
        if service.build.is_some()
            && (asked || find(engine, &image, platform(service)?.as_ref())?.is_none())
        {
            to_build.push(service.name.as_str());
        }
    }
    if !to_build.is_empty() && !options.no_build {
        let targets = project.build_targets(&to_build)?;
        build::build(&targets, options.flags, options.project_args, context)?;
    }
    let mut images = BTreeMap::new();
    for service in services {
        let image = service.image_name(&project.name);
        let is_built = service.build.is_some();
        let platform = platform(service)?;
        let platform = platform.as_ref();
        let mut found = find(engine, &image, platform)?;
        if !is_built && (found.is_none() || pulls_always(service)) {
            pull(engine, &image, platform, service)?;
            found = find(engine, &image, platform)?;
        }
        let found = found.with_context(|| format!("no such image: {image}"))?;
        images.insert(service.name.clone(), found);
    }
    Ok(images)
}

fn pulls_always(service: &Service) -> bool {
    service.pull_policy.as_deref() == Some("always")
}

/// Returns the platform that a service asks for.
fn platform(service: &Service) -> anyhow::Result<Option<Platform>> {
    let Some(text) = &service.platform else {
        return Ok(None);
    };
    let platform = text.parse();
    platform
        .map(Some)
        .map_err(|error: larder_oci::PlatformError| {
            super::spec::wrong(service, "platform", &error.to_string())
        })
}

/// Returns an image of the store.
fn find(
    engine: &Engine,
    image: &str,
    platform: Option<&Platform>,
) -> anyhow::Result<Option<ImageDetails>> {
    match engine.image(image, platform) {
        Ok(details) => Ok(Some(details)),
        Err(error) if error.class() == ErrorClass::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn pull(
    engine: &Engine,
    image: &str,
    platform: Option<&Platform>,
    service: &Service,
) -> anyhow::Result<()> {
    if service.pull_policy.as_deref() == Some("never") {
        bail!(
            "{}: image `{image}` is not there, and `pull_policy` is `never`",
            service.key()
        );
    }
    let name: ImageRef = image
        .parse()
        .map_err(|error| super::spec::wrong(service, "image", &format!("{error}")))?;
    output::tell(&format!(" Image {image} Pulling "));
    engine.pull(&name, platform, &|_: BuildEvent| {}, &CancelFlag::new())?;
    output::tell(&format!(" Image {image} Pulled "));
    Ok(())
}
