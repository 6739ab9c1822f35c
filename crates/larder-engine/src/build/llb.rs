//! Targets that are graphs already.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use larder_dockerfile::{Lowered, OciLayout};
use larder_llb::cache_map::platform_of;
use larder_llb::image::ImageSource;
use larder_llb::{Definition, pb};
use larder_oci::{ContainerConfig, Digest, ImageConfig, Platform};

use super::inputs::open_directory;
use super::{Build, OnPlatform, Prepared, dockerfile_error, no_cache_flag};
use crate::attest;
use crate::engine::Engine;
use crate::error::{BuildError, Result};
use crate::event::EventSink;
use crate::history::IgnoreFile;
use crate::images::{ImageKey, Images, ResolvedImage};
use crate::policy;
use crate::request::{BuildRequest, CacheExport, Llb, LlbInput, NoCacheSteps};

/// What an image without a config of its own gets, as from BuildKit.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The build argument that dates an image.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

impl Engine {
    /// Returns the graph that a build would solve, and builds nothing. Base images are looked up,
    /// as for the build.
    ///
    /// # Errors
    /// When the Dockerfile can't be read, parsed or lowered.
    pub fn llb(&self, request: BuildRequest, sink: &dyn EventSink) -> Result<Llb> {
        self.in_place_of_build(request, sink, |build, mut request| {
            let read = build.read(&mut request, false)?;
            let [options] = &read.options[..] else {
                let message = "a graph is printed for one platform at a time";
                return Err(BuildError::invalid(message));
            };
            let lowered = read.dockerfile.lower(options, &build.images);
            let mut lowered = lowered.map_err(|error| dockerfile_error(&error, &read.text))?;
            build.police(&mut lowered, &read.locals)?;
            Ok(Llb(lowered.definition.to_pb()))
        })
    }
}

impl Build<'_> {
    /// Finds out what a graph stands on.
    pub(super) fn prepare_llb(
        &self,
        input: LlbInput,
        request: BuildRequest,
        cache_exports: Vec<CacheExport>,
    ) -> Result<Prepared> {
        let mut definition = input.definition;
        if request.no_cache.steps != NoCacheSteps::None {
            definition.ignore_cache();
        }
        let mut scope = String::from("llb\0");
        let mut contexts = Vec::new();
        for (name, path) in &input.locals {
            let context = open_directory(path)?;
            scope.push_str(context.cache_name.as_deref().unwrap_or_default());
            scope.push('\0');
            contexts.push((name.clone(), context));
        }
        for (name, directory) in &input.layouts {
            self.images
                .plain()
                .layouts()
                .add_directory(name, directory)?;
        }
        if let Some(rewritten) = policy::apply(self.images.policy(), &definition, &Vec::new())? {
            definition = rewritten.definition;
        }
        let images = source_images(&definition, self.images.plain())?;
        let epoch = request.build_args.iter().find(|(name, _)| name == EPOCH);
        let epoch = epoch.map(|(_, value)| {
            let value = value.parse::<i64>();
            value.map_err(|error| BuildError::invalid(format!("`{EPOCH}`")).with_source(error))
        });
        let lowered = Lowered {
            source_date_epoch: epoch.transpose()?,
            ..lowered(definition)
        };
        let build = OnPlatform {
            platform: Platform::host(),
            lowered: Arc::new(lowered),
            scopes: (Digest::sha256(scope).hex().to_owned(), None),
            scan: None,
        };
        let granted = self.grant(&request, std::iter::once(&*build.lowered))?;
        Ok(Prepared {
            granted,
            name: self.name.to_owned(),
            builds: vec![build],
            multi_platform: false,
            contexts,
            images,
            ignore: IgnoreFile::default(),
            no_cache_flag: no_cache_flag(&request),
            keep_cache_mounts: request.no_cache.keep_cache_mounts,
            host_ca: request.host_ca || self.engine.config.build.host_ca,
            secrets: request.secrets,
            source_policy: request.source_policy,
            ssh: request.ssh,
            cache_imports: request.cache_imports,
            cache_exports,
            tags: request.tags,
            attest: attest::Plan::default(),
            outputs: Mutex::new(request.outputs),
        })
    }
}

/// Returns a graph as if a Dockerfile had become it, with the config that BuildKit gives to images
/// without one.
pub(crate) fn lowered(definition: Definition) -> Lowered {
    let host = Platform::host();
    let config = ImageConfig {
        architecture: host.architecture,
        os: host.os,
        variant: host.variant,
        config: ContainerConfig {
            env: vec![DEFAULT_PATH.to_owned()],
            working_dir: "/".to_owned(),
            ..ContainerConfig::default()
        },
        ..ImageConfig::default()
    };
    Lowered::new(definition, config)
}

/// Looks up the images that a graph stands on.
pub(crate) fn source_images(
    definition: &Definition,
    images: &Images<'_>,
) -> Result<HashMap<ImageKey, ResolvedImage>> {
    let mut found = HashMap::new();
    for vertex in definition.vertices() {
        let Some(pb::op::Op::Source(source)) = &vertex.op.op else {
            continue;
        };
        let Some(parsed) = ImageSource::parse(source) else {
            continue;
        };
        let failed = |error: BuildError| error.with_vertex(vertex.digest.clone());
        let source_image =
            parsed.map_err(|problem| failed(BuildError::invalid(problem.to_string())))?;
        let platform = vertex.op.platform.as_ref().map(platform_of);
        let platform = platform.unwrap_or_else(Platform::host);
        let image = source_image_of(&source_image, &platform, images).map_err(failed)?;
        found.insert((source.identifier.clone(), platform), image);
    }
    Ok(found)
}

/// Looks up one image.
fn source_image_of(
    source: &ImageSource,
    platform: &Platform,
    images: &Images<'_>,
) -> Result<ResolvedImage> {
    let image_ref = &source.image_ref;
    if let Some(store) = &source.layout {
        let digest = image_ref.digest().ok_or_else(|| {
            BuildError::invalid(format!(
                "`{image_ref}` names no image of an OCI layout by its digest"
            ))
        })?;
        let layout = OciLayout {
            store: store.clone(),
            session: None,
            digest: digest.clone(),
        };
        return images.resolve_in(image_ref, platform, Some(&layout));
    }
    let image = if source.pull {
        images.asking_registries().resolve(image_ref, platform)?
    } else {
        images.resolve(image_ref, platform)?
    };
    match &source.checksum {
        Some(checksum) if *checksum != image.target => Err(BuildError::invalid(format!(
            "image `{image_ref}` has the digest {}, and {checksum} is asked for",
            image.target
        ))),
        _ => Ok(image),
    }
}
