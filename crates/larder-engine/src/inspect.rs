//! What an engine tells of itself, and of images that are elsewhere.

use larder_oci::{Descriptor, ImageRef};
use larder_store::{PruneRequest, Snapshotter};

use crate::engine::Engine;
use crate::error::Result;

impl Engine {
    /// Returns what the store is pruned by after builds, in order: the configuration's policies,
    /// else the default ones for this disk. Empty where it is not pruned by itself.
    pub fn gc_policies(&self) -> Result<Vec<PruneRequest>> {
        if self.config.worker.oci.gc == Some(false) {
            return Ok(Vec::new());
        }
        Ok(self.config.gc_policies(self.store.disk_space()?))
    }

    /// Returns how snapshots are made visible, as BuildKit names it: `overlayfs` or `native`.
    pub fn snapshotter(&self) -> &'static str {
        match self.store.snapshotter() {
            Snapshotter::Overlay { .. } => "overlayfs",
            Snapshotter::Native => "native",
        }
    }

    /// Returns what new layers are: `erofs`, or `directory` with the reason.
    pub fn layers(&self) -> String {
        self.mounts.describe()
    }

    /// Returns the manifest or index that `image_ref` stands for in its registry, as it was sent.
    ///
    /// # Errors
    /// When the registry has no such image, or can't be reached.
    pub fn registry_manifest(&self, image_ref: &ImageRef) -> Result<(Descriptor, Vec<u8>)> {
        let client = self.registry();
        let fetched = self.tasks.block_on(async {
            let resolved = client.resolve(image_ref).await?;
            client
                .fetch_manifest(image_ref, &resolved.descriptor.digest)
                .await
        });
        let manifest = fetched??;
        Ok((manifest.descriptor, manifest.bytes))
    }
}
