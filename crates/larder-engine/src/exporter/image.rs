//! An image in the local store, and in registries.

use larder_oci::{Digest, ImageRef};
use larder_store::{NewImage, PlatformImage};

use super::attest::Attests;
use super::manifest::{Layers, MadeImage, MadeImages, Wanted};
use super::{Export, Part, leaves_store};
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
        let inline = options.inline_attestations;
        let attests = Attests::Of {
            inline: inline.unwrap_or(output.push.is_some()),
        };
        // What is said is said of a manifest, which then must stay as it is.
        let is_attested = self.parts.iter().any(|part| attests.any(part));
        let layers = if is_attested || leaves_store(output) {
            Layers::Blobs
        } else {
            Layers::AsTheyAre
        };
        let wanted = Wanted {
            options,
            layers,
            names: &names,
            attests,
        };
        let made = self.make_images(wanted, vertex)?;
        if let (true, Some(prefix)) = (names.is_empty(), &output.dangling_prefix) {
            names.push(dangling_name(prefix, &made)?);
        }
        if output.store {
            self.add_to_store(&made, &names, output, vertex)?;
        }
        if let Some(push) = output.push {
            let fetcher = Fetcher::new(self.engine, self.lease, vertex, self.cancel);
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
        made: &MadeImages,
        names: &[ImageRef],
        output: &ImageOutput,
        vertex: &VertexProgress<'_>,
    ) -> Result<()> {
        let store = self.lease.store();
        let mut blobs = Vec::new();
        for image in &made.images {
            blobs.extend([&image.descriptor.digest, &image.manifest.config.digest]);
            if let Some(attached) = &image.attached {
                blobs.push(&attached.descriptor.digest);
                blobs.push(&attached.manifest.config.digest);
                blobs.extend(attached.manifest.layers.iter().map(|layer| &layer.digest));
            }
            for layer in &image.manifest.layers {
                if store.has_blob(&layer.digest)? {
                    blobs.push(&layer.digest);
                }
            }
        }
        let blobs: Vec<Digest> = blobs.into_iter().cloned().collect();
        // What was made of the unpacked layers differs from them if times were changed on the way.
        let is_unpacked = !output.options.rewrite_timestamp;
        let image = |(part, made): (&Part<'_>, &MadeImage)| PlatformImage {
            config: made.manifest.config.digest.clone(),
            platform: part.platform.to_string(),
            snapshot: part.snapshot.clone().filter(|_| is_unpacked),
        };
        let images = self.parts.iter().zip(&made.images);
        let mut others: Vec<PlatformImage> = images.map(image).collect();
        let first = others.remove(made.representative());
        let created = made.images[made.representative()].config.created.as_ref();
        let new = NewImage {
            manifest: &made.descriptor,
            config: &first.config,
            platform: &first.platform,
            created_at: created.and_then(|time| time.parse().ok()),
            snapshot: first.snapshot.as_ref(),
            others: &others,
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

fn dangling_name(prefix: &str, made: &MadeImages) -> Result<ImageRef> {
    let name = format!("{prefix}@{}", made.descriptor.digest);
    name.parse()
        .map_err(|error| BuildError::invalid("`dangling-name-prefix`").with_source(error))
}
