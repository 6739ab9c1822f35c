//! Registries, end to end: base images, pulls, pushes, logins.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

mod login;
mod pull;
mod push;

use std::path::PathBuf;

use fs_err as fs;
use larder_oci::Digest;
use larder_testkit::{
    EntryKind, Larder, MadeImage, Registry, RegistryOptions, Run, Scratch, tar_of,
};

/// A registry, and a larder with an empty state root and a context.
struct Setup {
    registry: Registry,
    scratch: Scratch,
    larder: Larder,
}

impl Setup {
    fn new(options: &RegistryOptions) -> anyhow::Result<Self> {
        let registry = Registry::start_with(options)?;
        let scratch = Scratch::new();
        let larder = Larder::new(env!("CARGO_BIN_EXE_larder"), &scratch);
        Ok(Self {
            registry,
            scratch,
            larder,
        })
    }

    /// Makes the registry a mirror of Docker Hub.
    fn mirroring_docker_hub(mut self) -> Self {
        let config = self.scratch.join("larder.toml");
        let host = self.registry.host();
        let text = format!("[registry.\"docker.io\"]\nmirrors = [\"{host}\"]\n");
        fs::write(&config, text).unwrap();
        self.larder = self.larder.with_env("LARDER_CONFIG", &config);
        self
    }

    fn build(&self, dockerfile: &str, args: &[&str]) -> Run {
        let context = self
            .scratch
            .context("context", &[("Dockerfile", dockerfile)]);
        let mut command = self.larder.command(["build", "--progress", "plain"]);
        Run::of(command.args(args).arg(context))
    }

    /// Returns the file in which the registry keeps a blob.
    fn blob_file(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.registry.data().join(format!(
            "docker/registry/v2/blobs/sha256/{}/{hex}/data",
            &hex[..2]
        ))
    }
}

/// A registry that wants no password.
macro_rules! registry {
    () => {
        match $crate::Setup::new(&larder_testkit::RegistryOptions::default()) {
            Ok(setup) => setup,
            Err(error) => larder_testkit::skip!("no registry: {error:#}"),
        }
    };
}
use registry;

/// An image whose one layer holds the file `name`.
fn image(name: &str, content: &[u8]) -> MadeImage {
    MadeImage::new(&[layer(name, content)])
}

fn layer(name: &str, content: &[u8]) -> Vec<u8> {
    tar_of(&[(name, EntryKind::File(content.to_vec()))])
}
