//! Builds for several platforms, end to end: steps, indexes, trees, caches, and what becomes of them
//! in the store and in registries.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

mod cache;
mod steps;
mod stored;
mod targets;
mod written;

use std::process::Command;

use larder_oci::{
    Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, Platform, media_type,
};
use larder_testkit::{EntryKind, Larder, MadeImage, OciArchive, Registry, Run, Scratch, tar_of};
use serde_json::json;

const BOTH: &str = "linux/amd64,linux/arm64";

/// A registry with the image `base` for two platforms, whose file `/platform` tells which it is; and a
/// larder with an empty state root.
struct Setup {
    registry: Registry,
    scratch: Scratch,
    larder: Larder,
}

impl Setup {
    fn new() -> anyhow::Result<Self> {
        anyhow::ensure!(rustix::process::geteuid().is_root(), "no root");
        let registry = Registry::start()?;
        let scratch = Scratch::new();
        let larder = Larder::new(env!("CARGO_BIN_EXE_larder"), &scratch);
        let setup = Self {
            registry,
            scratch,
            larder,
        };
        setup.push_base(&["linux/amd64", "linux/arm64"]);
        Ok(setup)
    }

    /// Returns the full name of an image of the registry.
    fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.registry.host())
    }

    /// Returns the same setup with another, empty state root.
    fn elsewhere(&self) -> Larder {
        let root = tempfile::tempdir_in(self.scratch.path()).unwrap();
        self.larder.clone().with_root(root.keep())
    }

    fn push_base(&self, platforms: &[&str]) {
        let images = platforms.iter().map(|text| {
            let platform: Platform = text.parse().unwrap();
            let files = [("platform", EntryKind::File(text.as_bytes().to_vec()))];
            MadeImage::for_platform(platform, &[tar_of(&files)])
        });
        let images: Vec<MadeImage> = images.collect();
        for image in &images {
            let tag = image.descriptor().platform.unwrap().architecture;
            image.push(&self.registry, "base", &tag).unwrap();
        }
        let manifests: Vec<Descriptor> = images.iter().map(MadeImage::descriptor).collect();
        self.push_index("base", &manifests);
    }

    /// Stores the index of images as `repository:1`.
    fn push_index(&self, repository: &str, manifests: &[Descriptor]) {
        let index = json!({
            "schemaVersion": 2,
            "mediaType": media_type::INDEX,
            "manifests": manifests,
        });
        let bytes = index.to_string();
        self.registry
            .push_manifest(repository, "1", media_type::INDEX, bytes.as_bytes())
            .unwrap();
    }

    /// Builds `dockerfile`, in which `BASE` stands for the base image.
    fn build(&self, dockerfile: &str, args: &[&str]) -> Run {
        self.build_with(&self.larder, dockerfile, args)
    }

    fn build_with(&self, larder: &Larder, dockerfile: &str, args: &[&str]) -> Run {
        Run::of(&mut self.command(larder, dockerfile, args))
    }

    fn command(&self, larder: &Larder, dockerfile: &str, args: &[&str]) -> Command {
        let dockerfile = dockerfile.replace("BASE", &self.name("base:1"));
        let files = [("Dockerfile", dockerfile.as_str()), ("a.txt", "a\n")];
        let context = self.scratch.context("context", &files);
        let mut command = larder.command(["build", "--progress", "plain"]);
        command.args(args).arg(context);
        command
    }

    /// Builds, and returns the archive that comes of it.
    fn archive(&self, dockerfile: &str, args: &[&str]) -> (Run, OciArchive) {
        let path = self.scratch.join("out.tar");
        let output = format!("type=oci,dest={}", path.display());
        let run = self
            .build(dockerfile, &[args, &["-o", &output]].concat())
            .success();
        (run, OciArchive::open(&path).unwrap())
    }

    /// Returns a manifest or index of the registry.
    fn manifest(&self, repository: &str, reference: &str) -> Vec<u8> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let accept = [
            media_type::INDEX,
            media_type::MANIFEST,
            media_type::DOCKER_MANIFEST,
            media_type::DOCKER_MANIFEST_LIST,
        ]
        .join(",");
        let headers = [("Accept", accept.as_str())];
        let found = self.registry.request("GET", &path, &headers, &[]).unwrap();
        assert_eq!(found.status, 200, "{path}");
        found.body
    }

    /// Checks that the registry has all of an index; returns it.
    fn whole_index(&self, repository: &str, reference: &str) -> ImageIndex {
        let bytes = self.manifest(repository, reference);
        let index: ImageIndex = serde_json::from_slice(&bytes).unwrap();
        for entry in &index.manifests {
            let manifest = self.manifest(repository, entry.digest.as_str());
            let manifest: ImageManifest = serde_json::from_slice(&manifest).unwrap();
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                let path = format!("/v2/{repository}/blobs/{}", blob.digest);
                let found = self.registry.request("HEAD", &path, &[], &[]).unwrap();
                assert_eq!(found.status, 200, "{path}");
            }
        }
        index
    }
}

/// A registry with a base image for two platforms.
macro_rules! setup {
    () => {
        match $crate::Setup::new() {
            Ok(setup) => setup,
            Err(error) => larder_testkit::skip!("no registry: {error:#}"),
        }
    };
}
use setup;

/// Returns the index that an archive holds, with its descriptor.
fn index_of(archive: &OciArchive) -> (Descriptor, ImageIndex) {
    let [descriptor] = &archive.index().unwrap().manifests[..] else {
        panic!("not one entry");
    };
    let index = serde_json::from_slice(archive.blob(&descriptor.digest).unwrap());
    (descriptor.clone(), index.unwrap())
}

/// Returns the platforms of an index, in its order.
fn platforms(index: &ImageIndex) -> Vec<String> {
    let platforms = index.manifests.iter().map(|entry| entry.platform.as_ref());
    platforms
        .map(|platform| platform.unwrap().to_string())
        .collect()
}

/// Returns the manifest and config of an image of an archive.
fn image_of(archive: &OciArchive, descriptor: &Descriptor) -> (ImageManifest, ImageConfig) {
    let blob = |digest: &Digest| archive.blob(digest).unwrap();
    let manifest: ImageManifest = serde_json::from_slice(blob(&descriptor.digest)).unwrap();
    let config = serde_json::from_slice(blob(&manifest.config.digest)).unwrap();
    (manifest, config)
}
