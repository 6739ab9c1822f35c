//! Builds for several platforms, end to end: steps, indexes, trees, caches, and what becomes of them
//! in the store and in registries.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

mod cache;
mod steps;
mod stored;
mod targets;
mod written;

use std::process::Command;

use larder_oci::{Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, Platform};
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

    fn push_base(&self, platforms: &[&str]) {
        let images = platforms.iter().map(|text| {
            let platform: Platform = text.parse().unwrap();
            let files = [("platform", EntryKind::File(text.as_bytes().to_vec()))];
            MadeImage::for_platform(platform, &[tar_of(&files)])
        });
        let images: Vec<MadeImage> = images.collect();
        let push = |image: &MadeImage| image.push(&self.registry, "base", &tag_of(image)).unwrap();
        images.iter().for_each(|image| drop(push(image)));
        let index = json!({
            "schemaVersion": 2,
            "mediaType": larder_oci::media_type::INDEX,
            "manifests": images.iter().map(MadeImage::descriptor).collect::<Vec<_>>(),
        });
        let media_type = larder_oci::media_type::INDEX;
        self.registry
            .push_manifest("base", "1", media_type, index.to_string().as_bytes())
            .unwrap();
    }

    /// Builds `dockerfile`, in which `BASE` stands for the base image.
    fn build(&self, dockerfile: &str, args: &[&str]) -> Run {
        let dockerfile = dockerfile.replace("BASE", &self.name("base:1"));
        let files = [("Dockerfile", dockerfile.as_str()), ("a.txt", "a\n")];
        let context = self.scratch.context("context", &files);
        let mut command = self.larder.command(["build", "--progress", "plain"]);
        Run::of(command.args(args).arg(context))
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
            larder_oci::media_type::INDEX,
            larder_oci::media_type::MANIFEST,
            larder_oci::media_type::DOCKER_MANIFEST,
            larder_oci::media_type::DOCKER_MANIFEST_LIST,
        ];
        let headers = [("Accept", accept.join(","))];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let found = self.registry.request("GET", &path, &headers, &[]).unwrap();
        assert_eq!(found.status, 200, "{path}");
        found.body
    }

    fn has(&self, repository: &str, kind: &str, digest: &Digest) -> bool {
        let path = format!("/v2/{repository}/{kind}/{digest}");
        let accept = [("Accept", "*/*")];
        let found = self.registry.request("HEAD", &path, &accept, &[]).unwrap();
        found.status == 200
    }
}

/// Returns the tag under which the image for a platform lies by itself.
fn tag_of(image: &MadeImage) -> String {
    image.descriptor().platform.unwrap().architecture
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

/// Runs a program, and returns what it writes.
fn output(program: &str, args: &[&str]) -> String {
    Run::of(Command::new(program).args(args)).success().text()
}
