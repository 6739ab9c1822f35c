use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use fs_err as fs;
use larder_testkit::Base;

use crate::run::output;

/// Where Debian keeps what the host trusts.
const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A program that builds images.
#[derive(Debug)]
pub(super) enum Tool {
    /// A larder.
    Larder { name: String, binary: PathBuf },
    /// Debian's buildah.
    Buildah,
}

/// How the layers of an archive are compressed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Compression {
    Gzip,
    Zstd,
}

impl Compression {
    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// A cache in a registry without TLS, by its name.
#[derive(Debug, Clone, Copy)]
pub(super) enum RemoteCache<'a> {
    None,
    From(&'a str),
    To(&'a str),
}

impl Tool {
    /// Returns the larders of these binaries and the peers that are installed.
    pub(super) fn found(larders: &[PathBuf]) -> Vec<Self> {
        let larders = larders.iter().enumerate();
        let named = larders.map(|(index, binary)| Self::Larder {
            name: match index {
                0 => "larder".to_owned(),
                _ => format!("larder {}", index + 1),
            },
            binary: binary.clone(),
        });
        let mut tools: Vec<_> = named.collect();
        if Command::new("buildah").arg("--version").output().is_ok() {
            tools.push(Self::Buildah);
        }
        tools
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Larder { name, .. } => name,
            Self::Buildah => "buildah",
        }
    }

    /// Returns how often, in a round, the tool does what takes larder a hundredth of a second.
    pub(super) fn quick_runs(&self) -> usize {
        match self {
            Self::Larder { .. } => 20,
            Self::Buildah => 3,
        }
    }

    /// Returns how often, in a round, the tool does what takes larder a tenth of a second or more.
    pub(super) fn runs(&self) -> usize {
        match self {
            Self::Larder { .. } => 3,
            Self::Buildah => 1,
        }
    }

    /// Returns what makes commands of larder; `None` for the others.
    pub(super) fn larder(&self, state: &Path) -> Option<impl Fn() -> Command> {
        let Self::Larder { binary, .. } = self else {
            return None;
        };
        let (binary, state) = (binary.clone(), state.to_owned());
        Some(move || {
            let mut command = Command::new(&binary);
            command.arg("--root").arg(&state);
            command
        })
    }

    fn command(&self, state: &Path) -> Command {
        match self {
            Self::Larder { binary, .. } => {
                let mut command = Command::new(binary);
                command.arg("--root").arg(state);
                command
            }
            Self::Buildah => {
                let mut command = Command::new("buildah");
                command
                    .arg("--root")
                    .arg(state.join("storage"))
                    .arg("--runroot")
                    .arg(state.join("run"))
                    .args(["--storage-driver", "overlay"]);
                command
            }
        }
    }

    /// Puts a base image into the store, under the name that Dockerfiles use.
    pub(super) fn import(&self, state: &Path, base: Base) -> Result<()> {
        let archive = base.archive()?;
        match self {
            Self::Larder { .. } => output(self.command(state).arg("import").arg(archive))?,
            Self::Buildah => {
                let from = format!("oci-archive:{}", archive.display());
                let id = output(self.command(state).args(["pull", "--quiet", &from]))?;
                let name = format!("docker.io/library/{}", base.image_name());
                output(self.command(state).args(["tag", id.trim(), &name]))?
            }
        };
        Ok(())
    }

    /// Returns the command that builds `context`, with all layers cached, the host's network and
    /// what the host trusts.
    pub(super) fn build(&self, state: &Path, context: &Path, no_cache: bool) -> Command {
        let mut command = self.build_command(state);
        if let Self::Buildah = self {
            command.arg("--pull=never");
        }
        if no_cache {
            command.arg("--no-cache");
        }
        command.args(["-t", "bench"]).arg(context);
        command
    }

    /// Returns the command that builds `context`, whose base image is in a registry without TLS.
    pub(super) fn build_remote(
        &self,
        state: &Path,
        context: &Path,
        cache: RemoteCache<'_>,
    ) -> Command {
        let mut command = self.build_command(state);
        match (self, cache) {
            (Self::Larder { .. }, RemoteCache::None) => {}
            (Self::Larder { .. }, RemoteCache::From(name)) => {
                command.arg(format!("--cache-from=type=registry,ref={name}"));
            }
            (Self::Larder { .. }, RemoteCache::To(name)) => {
                command.arg(format!("--cache-to=type=registry,ref={name},mode=max"));
            }
            (Self::Buildah, cache) => {
                command.arg("--tls-verify=false");
                match cache {
                    RemoteCache::None => {}
                    RemoteCache::From(name) => {
                        command.arg(format!("--cache-from={name}"));
                    }
                    RemoteCache::To(name) => {
                        command.arg(format!("--cache-to={name}"));
                    }
                }
            }
        }
        command.args(["-t", "bench"]).arg(context);
        command
    }

    /// Names what was built last `name`, and returns the command that pushes it to a registry
    /// without TLS.
    pub(super) fn push(&self, state: &Path, name: &str) -> Result<Command> {
        let built = match self {
            Self::Larder { .. } => "bench",
            Self::Buildah => "localhost/bench",
        };
        output(self.command(state).args(["tag", built, name]))?;
        let mut command = self.command(state);
        command.arg("push");
        if let Self::Buildah = self {
            command.args(["--quiet", "--tls-verify=false"]);
        }
        command.arg(name);
        Ok(command)
    }

    /// Returns a build with all layers cached, the host's network and what the host trusts.
    fn build_command(&self, state: &Path) -> Command {
        let mut command = self.command(state);
        match self {
            Self::Larder { .. } => {
                command.args(["build", "--progress", "plain", "--host-ca"]);
            }
            Self::Buildah => {
                // Debian's other runtime, crun, refuses to run under hybrid cgroups.
                command.args(["build", "--runtime", "runc", "--network", "host"]);
                // As many stages at a time as there are.
                command.args(["--layers", "--jobs", "0"]);
                if Path::new(CA_BUNDLE).exists() {
                    command.arg(format!("--volume={CA_BUNDLE}:{CA_BUNDLE}:ro"));
                }
            }
        }
        command
    }

    /// Returns the command that builds `context` as far as its layers, and writes no image that
    /// the tool can do without.
    pub(super) fn build_layers(&self, state: &Path, context: &Path) -> Command {
        let mut command = self.build(state, context, false);
        if let Self::Larder { .. } = self {
            command.args(["-o", "type=cacheonly"]);
        }
        command
    }

    /// Returns the command that writes what was built of `context` as an OCI archive.
    pub(super) fn export(
        &self,
        state: &Path,
        context: &Path,
        archive: &Path,
        compression: Compression,
    ) -> Command {
        let compression = compression.name();
        match self {
            Self::Larder { .. } => {
                let mut command = self.build(state, context, false);
                let archive = archive.display();
                let output = format!("type=oci,dest={archive},compression={compression}");
                command.arg("-o").arg(output);
                command
            }
            Self::Buildah => {
                let mut command = self.command(state);
                let target = format!("oci-archive:{}", archive.display());
                command.args(["push", "--quiet", "--compression-format", compression]);
                command.args(["localhost/bench", &target]);
                command
            }
        }
    }

    /// Removes all that the tool keeps in `state`.
    pub(super) fn remove(state: &Path) -> Result<()> {
        if !state.exists() {
            return Ok(());
        }
        // Buildah leaves its storage mounted, and the layers too when it is interrupted.
        let state = fs::canonicalize(state)?;
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let below = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .filter(|path| Path::new(path).starts_with(&state));
        // What was mounted last is unmounted first.
        for path in below.collect::<Vec<_>>().into_iter().rev() {
            output(Command::new("umount").arg(path))?;
        }
        Ok(fs::remove_dir_all(state)?)
    }
}
