//! An image in the local store, and in registries.

use larder_oci::ImageRef;
use larder_store::NewImage;

use super::Export;
use super::manifest::{Layers, MadeImage};
use crate::error::{BuildError, Result};
use crate::fetch::Fetcher;
use crate::progress::VertexProgress;
use crate::push::push_image;
use crate::request::{ImageOutcome, ImageOutput};

impl Export<'_> {
    /// Makes the image, stores it under its names, and pushes it.
    pub(crate) fn to_image(&self, output: &ImageOutput) -> Result<ImageOutcome> {
        let seed = format!("{output:?}");
        let mut vertex = self.reporter.begin_internal("exporting to image", &seed);
        let done = self.export_image(output, &vertex);
        match &done {
            Ok(_) => vertex.complete(),
            Err(error) => vertex.fail(&error.full_message()),
        };
        done
    }

    fn export_image(
        &self,
        output: &ImageOutput,
        vertex: &VertexProgress<'_>,
    ) -> Result<ImageOutcome> {
        let options = &output.options;
        if output.unpack && options.rewrite_timestamp {
            return Err(BuildError::invalid(
                "`rewrite-timestamp` conflicts with `unpack`",
            ));
        }
        let mut names = self.names(&output.names);
        if output.push.is_some() && names.is_empty() {
            return Err(
                BuildError::invalid("tag is needed when pushing to registry")
                    .with_hint("name the image with `-t`, or with `name=`"),
            );
        }
        let leaves_store = output.push.is_some()
            || options.compression.is_some()
            || options.compression_level.is_some()
            || options.force_compression
            || options.rewrite_timestamp;
        let layers = if leaves_store {
            Layers::Blobs
        } else {
            Layers::AsTheyAre
        };
        let made = self.make_image(options, layers, vertex)?;
        if let (true, Some(prefix)) = (names.is_empty(), &output.dangling_prefix) {
            names.push(dangling_name(prefix, &made)?);
        }
        if output.store {
            self.add_to_store(&made, &names, output, vertex)?;
        }
        if let Some(push) = output.push {
            let fetcher = Fetcher {
                engine: self.engine,
                lease: self.lease,
                progress: vertex,
                cancel: self.cancel,
            };
            push_image(&fetcher, &made.descriptor, &names, push).map_err(|error| {
                let names: Vec<String> = names.iter().map(ToString::to_string).collect();
                error.context(format!("failed to push {}", names.join(", ")))
            })?;
        }
        Ok(made.outcome(&names))
    }

    /// Stores the image. A name with a digest needs no row of its own: the image is found by it.
    fn add_to_store(
        &self,
        made: &MadeImage,
        names: &[ImageRef],
        output: &ImageOutput,
        vertex: &VertexProgress<'_>,
    ) -> Result<()> {
        let mut blobs = vec![made.manifest.config.digest.clone()];
        for layer in &made.manifest.layers {
            if self.lease.store().has_blob(&layer.digest)? {
                blobs.push(layer.digest.clone());
            }
        }
        // What was made of the unpacked layers differs from them if times were changed on the way.
        let snapshot = self.snapshot.filter(|_| !output.options.rewrite_timestamp);
        let new = NewImage {
            manifest: &made.descriptor,
            config: &made.manifest.config.digest,
            platform: &made.config.platform().to_string(),
            created_at: made
                .config
                .created
                .as_ref()
                .and_then(|time| time.parse().ok()),
            snapshot,
            blobs: &blobs,
        };
        let by_digest = output.push.is_some_and(|push| push.by_digest);
        let tags: Vec<ImageRef> = names
            .iter()
            .filter(|name| name.digest().is_none() && !by_digest)
            .cloned()
            .collect();
        self.lease.add_image(&new, &tags)?;
        for name in names {
            vertex.status_done(format!("naming to {name}"));
            if output.canonical_name && name.digest().is_none() {
                let canonical = name.with_digest(made.descriptor.digest.clone());
                vertex.status_done(format!("naming to {canonical}"));
            }
            if output.unpack {
                vertex.status_done(format!("unpacking to {name}"));
            }
        }
        Ok(())
    }
}

fn dangling_name(prefix: &str, made: &MadeImage) -> Result<ImageRef> {
    let name = format!("{prefix}@{}", made.descriptor.digest);
    name.parse()
        .map_err(|error| BuildError::invalid("`dangling-name-prefix`").with_source(error))
}
