//! The local image store, and the records of the state directory, as commands see them.

mod index;
mod load;
mod save;

use larder_oci::{ImageConfig, ImageManifest, ImageRef, Platform};
use larder_store::{Filter, ImageInfo, PruneRequest, UsageRecord};

use crate::engine::Engine;
use crate::error::{BuildError, Result};
use crate::history::BuildReport;
use crate::images::read_meant;
use crate::progress::of_target;
use crate::request::StepReport;
pub(crate) use index::assemble;

/// A stored image with its documents.
#[derive(Debug, Clone)]
pub struct ImageDetails {
    /// What the store knows of it.
    pub info: ImageInfo,
    /// The platforms that it is for; of an index, those that are stored.
    pub platforms: Vec<String>,
    /// The manifest of the image asked for.
    pub manifest: ImageManifest,
    /// The config.
    pub config: ImageConfig,
    /// Bytes of the layers as the manifest names them.
    pub size_bytes: u64,
}

impl Engine {
    /// Returns all stored images, the latest stored first.
    pub fn images(&self) -> Result<Vec<ImageInfo>> {
        Ok(self.store.images()?)
    }

    /// Returns the image that `text` means: a name, an id, or the beginning of an id. Of an index, the
    /// image for `platform`, else the one that stands for all.
    pub fn image(&self, text: &str, platform: Option<&Platform>) -> Result<ImageDetails> {
        let lease = self.store.lease()?;
        let info = self.store.resolve_image(text)?;
        let image = read_meant(&lease, &info, text, platform)?;
        let size_bytes = image
            .manifest
            .layers
            .iter()
            .map(|layer| layer.size_bytes)
            .sum();
        let platforms = info.images().into_iter().map(|image| image.platform);
        Ok(ImageDetails {
            platforms: platforms.collect(),
            info,
            manifest: image.manifest,
            config: image.config,
            size_bytes,
        })
    }

    /// Gives an image one more name.
    pub fn tag_image(&self, text: &str, name: &ImageRef) -> Result<()> {
        let info = self.store.resolve_image(text)?;
        Ok(self.store.tag(&info.manifest.digest, name)?)
    }

    /// Takes a name from an image, or removes the image with all its names if `text` is its id.
    /// Returns the names that went, and the image if it went with them. An image with several
    /// names is removed by id only with `force`.
    pub fn remove_image(
        &self,
        text: &str,
        force: bool,
    ) -> Result<(Vec<String>, Option<ImageInfo>)> {
        let info = self.store.resolve_image(text)?;
        let name = text
            .parse::<ImageRef>()
            .ok()
            .filter(|name| info.names.contains(&name.to_string()));
        if let Some(name) = name {
            return Ok((vec![name.to_string()], self.store.untag(&name)?));
        }
        if info.names.len() > 1 && !force {
            let message = format!("image `{text}` has {} names", info.names.len());
            return Err(
                BuildError::invalid(message).with_hint("remove it by name, or use `--force`")
            );
        }
        self.store.remove_image(&info.manifest.digest)?;
        Ok((info.names.clone(), Some(info)))
    }

    /// Returns what takes space in the state directory, oldest use first.
    pub fn disk_usage(&self, filters: &[Filter]) -> Result<Vec<UsageRecord>> {
        Ok(self.store.du(filters)?)
    }

    /// Removes what `request` says, telling of each record; returns the bytes freed.
    pub fn prune(
        &self,
        request: &PruneRequest,
        on_removed: &mut dyn FnMut(&UsageRecord),
    ) -> Result<u64> {
        larder_exec::sweep();
        Ok(self.store.prune(request, on_removed)?)
    }

    /// Returns the steps of the last build in this state directory; of several targets that were
    /// built together those of all, their names with the targets'.
    pub fn last_build(&self) -> Result<Option<Vec<StepReport>>> {
        let Some(report) = self.last_report(None)? else {
            return Ok(None);
        };
        if report.run.is_empty() {
            return Ok(Some(report.steps));
        }
        let mut steps = Vec::new();
        for scope in &report.run {
            let Some(report) = self.last_report(Some(scope))? else {
                continue;
            };
            for step in report.steps {
                let name = of_target(&report.target, &step.name);
                // What several platforms share is one step.
                if !steps.iter().any(|known: &StepReport| known.name == name) {
                    steps.push(StepReport { name, ..step });
                }
            }
        }
        Ok(Some(steps))
    }

    fn last_report(&self, scope: Option<&str>) -> Result<Option<BuildReport>> {
        let Some(build) = self.store.last_build(scope)? else {
            return Ok(None);
        };
        let report = serde_json::from_slice(&build.report).map_err(|error| {
            BuildError::internal("the report of the last build can't be read").with_source(error)
        })?;
        Ok(Some(report))
    }
}
