//! The flags of `larder build`.

use std::path::PathBuf;

use larder_engine::request::{Entitlement, NamedContext, NetworkMode, Ulimit};
use larder_oci::{ImageRef, Platform};

use super::attest::AttestArg;
use super::cache::{CacheFromArg, CacheToArg};
use super::call::CallArg;
use super::output::{AnnotationArg, OutputArg};
use super::resources::ResourceArgs;
use super::values::{self, HostArg, KeyValue, SecretArg, SshArg};
use crate::progress::Mode;

/// The flags of `larder build`: those of `docker buildx build`.
#[derive(Debug, clap::Args)]
pub(crate) struct BuildArgs {
    /// Directory with the files to build from, URL of an archive or a Dockerfile, or `-` for one on
    /// standard input
    #[arg(value_name = "CONTEXT")]
    pub(crate) context: String,
    /// Dockerfile, its URL, or `-` for standard input [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<String>,
    /// Name of the image, `name:tag`
    #[arg(short, long = "tag", value_name = "NAME", value_parser = values::image_ref)]
    pub(crate) tags: Vec<ImageRef>,
    /// Stage to build
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Build argument; without a value, that of the environment
    #[arg(long = "build-arg", value_name = "KEY[=VALUE]", value_parser = values::key_value)]
    pub(crate) build_args: Vec<KeyValue>,
    /// What FROM, COPY --from and mounts can name: a directory, a URL, `docker-image://IMAGE` or
    /// `oci-layout://DIR`
    #[arg(long = "build-context", value_name = "NAME=VALUE", value_parser = values::named_context)]
    pub(crate) build_contexts: Vec<(String, NamedContext)>,
    /// Label of the image
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = values::key_value)]
    pub(crate) labels: Vec<KeyValue>,
    /// Run all steps again; `=layers` keeps what cache mounts hold
    #[arg(long, value_name = "layers", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value = "false", hide_default_value = true,
          value_parser = no_cache)]
    pub(crate) no_cache: NoCacheArg,
    /// Run all steps of these stages again
    #[arg(long = "no-cache-filter", value_name = "STAGE", value_delimiter = ',')]
    pub(crate) no_cache_filters: Vec<String>,
    /// Ask the registry for newer base images
    #[arg(long)]
    pub(crate) pull: bool,
    /// Further cache to take results from: a name in a registry, or
    /// `type=registry|local[,ref=NAME][,src=DIR]`
    #[arg(long = "cache-from", value_name = "CACHE", value_parser = super::cache::cache_from)]
    pub(crate) cache_from: Vec<CacheFromArg>,
    /// Where to write a cache for other machines: a name in a registry, or
    /// `type=registry|local|inline[,ref=NAME][,dest=DIR][,mode=max]`
    #[arg(long = "cache-to", value_name = "CACHE", value_parser = super::cache::cache_to)]
    pub(crate) cache_to: Vec<CacheToArg>,
    /// Secret that RUN steps can mount
    #[arg(long = "secret", value_name = "id=ID[,src=FILE|,env=NAME]", value_parser = values::secret)]
    pub(crate) secrets: Vec<SecretArg>,
    /// SSH agent or keys that RUN steps can mount, and sources are fetched with
    #[arg(long = "ssh", value_name = "default|ID[=SOCKET|KEY[,KEY]]", value_parser = values::ssh)]
    pub(crate) ssh: Vec<SshArg>,
    /// Where the result goes: a directory, or `type=image|registry|oci|docker|tar|local[,dest=PATH]`
    /// [default: the local image store]
    #[arg(short, long = "output", value_name = "DEST", value_parser = super::output::parse)]
    pub(crate) outputs: Vec<OutputArg>,
    /// Keep the image in the local store; what happens by default
    #[arg(long)]
    pub(crate) load: bool,
    /// Push the image to the registries of its names
    #[arg(long)]
    pub(crate) push: bool,
    /// Further fact in the image's manifest
    #[arg(long = "annotation", value_name = "[PLACE:]KEY=VALUE",
          value_parser = super::output::annotation_flag)]
    pub(crate) annotations: Vec<AnnotationArg>,
    /// What to say about the image beside the image: `type=provenance|sbom[,KEY=VALUE…]`
    #[arg(long = "attest", value_name = "type=TYPE", value_parser = super::attest::attest)]
    pub(crate) attests: Vec<AttestArg>,
    /// Say how the image was made: true, false, or `mode=min|max[,KEY=VALUE…]`; images that are
    /// pushed have `mode=min` by default
    #[arg(long, value_name = "BOOL|KEY=VALUE", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = super::attest::provenance)]
    pub(crate) provenance: Option<AttestArg>,
    /// Say what the image contains, by a generator's image: true, false, or `generator=IMAGE`
    #[arg(long, value_name = "BOOL|KEY=VALUE", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = super::attest::sbom)]
    pub(crate) sbom: Option<AttestArg>,
    /// How to show the build: auto, tty, plain, quiet, none or rawjson [env: BUILDKIT_PROGRESS]
    #[arg(long, value_name = "MODE", hide_possible_values = true)]
    pub(crate) progress: Option<Mode>,
    /// Show nothing but the image's id
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write what came of the build to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Network of RUN steps: default, host or none
    #[arg(long, value_name = "MODE", default_value = "default", hide_default_value = true,
          value_parser = values::network)]
    pub(crate) network: NetworkMode,
    /// Further line of /etc/hosts in RUN steps
    #[arg(long = "add-host", value_name = "HOST:IP", value_delimiter = ',',
          value_parser = values::host)]
    pub(crate) add_hosts: Vec<HostArg>,
    /// Size of /dev/shm in RUN steps
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub(crate) shm_size: Option<u64>,
    /// Resource limit of RUN steps
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]", value_parser = values::ulimit)]
    pub(crate) ulimits: Vec<Ulimit>,
    /// Cgroup that RUN steps run below of
    #[arg(long, value_name = "CGROUP")]
    pub(crate) cgroup_parent: Option<String>,
    #[command(flatten)]
    pub(crate) resources: ResourceArgs,
    /// Let RUN steps do more than usual: `network.host`, `security.insecure`, `device[=NAME]`
    #[arg(long = "allow", value_name = "ENTITLEMENT", value_parser = values::entitlement)]
    pub(crate) allowed: Vec<Entitlement>,
    /// Platform of the image [env: DOCKER_DEFAULT_PLATFORM] [default: the host's]
    #[arg(long = "platform", value_name = "OS/ARCH", value_delimiter = ',',
          value_parser = values::platform)]
    pub(crate) platforms: Vec<Platform>,
    /// Lend RUN steps the host's CA certificates and proxy settings
    #[arg(long)]
    pub(crate) host_ca: bool,
    /// Check the Dockerfile and build nothing
    #[arg(long)]
    pub(crate) check: bool,
    /// What to do in place of building: `check`, `outline` or `targets`, with `,format=json` for
    /// programs; `llb` prints the graph
    #[arg(long, alias = "print", value_name = "METHOD", value_parser = super::call::parse)]
    pub(crate) call: Option<CallArg>,
    #[command(flatten)]
    pub(crate) foreign: ForeignArgs,
}

/// What `--no-cache` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoCacheArg {
    /// Nothing: steps may be cached.
    Off,
    /// All steps run again, on empty cache mounts.
    All,
    /// All steps run again, cache mounts keep what they hold.
    Layers,
}

fn no_cache(text: &str) -> Result<NoCacheArg, String> {
    match text {
        "true" | "1" => Ok(NoCacheArg::All),
        "false" | "0" => Ok(NoCacheArg::Off),
        "layers" => Ok(NoCacheArg::Layers),
        _ => Err("expected true, false or layers".to_owned()),
    }
}

/// Flags of `docker buildx build` and `docker build` that larder has no, or not yet a, use for.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct ForeignArgs {
    #[arg(long, hide = true)]
    #[arg(long, hide = true)]
    policy: Vec<String>,
    #[arg(long, hide = true)]
    builder: Option<String>,
    #[arg(long, hide = true)]
    security_opt: Vec<String>,
    #[arg(long, hide = true)]
    isolation: Option<String>,
    #[arg(long, hide = true)]
    squash: bool,
    // These say what larder does anyway.
    #[arg(long, hide = true)]
    compress: bool,
    #[arg(long, hide = true)]
    rm: bool,
    #[arg(long, hide = true)]
    force_rm: bool,
}

impl ForeignArgs {
    /// Returns what to tell the user about flags without effect.
    ///
    /// # Errors
    /// Names the first flag whose effect the user must not go without.
    pub(crate) fn check(&self) -> Result<Vec<String>, String> {
        let missing = [("--policy", !self.policy.is_empty())];
        if let Some((flag, _)) = missing.iter().find(|(_, is_given)| *is_given) {
            return Err(format!("`{flag}` is not supported yet"));
        }
        let ignored = [
            (
                "--builder",
                self.builder.is_some(),
                "there is one builder, in this process",
            ),
            (
                "--isolation",
                self.isolation.is_some(),
                "there is one kind of isolation",
            ),
            (
                "--security-opt",
                !self.security_opt.is_empty(),
                "use `RUN --security` in the Dockerfile",
            ),
            ("--squash", self.squash, "use a multi-stage Dockerfile"),
        ];
        Ok(ignored
            .iter()
            .filter(|(_, is_given, _)| *is_given)
            .map(|(flag, _, why)| format!("`{flag}` is ignored: {why}"))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_an_error_and_what_is_harmless_a_note() {
        let nothing = ForeignArgs::default();
        assert_eq!(nothing.check(), Ok(Vec::new()));

        let policy = ForeignArgs {
            policy: vec!["a".to_owned()],
            ..ForeignArgs::default()
        };
        assert_eq!(
            policy.check(),
            Err("`--policy` is not supported yet".to_owned())
        );

        let builder = ForeignArgs {
            builder: Some("b".to_owned()),
            squash: true,
            ..ForeignArgs::default()
        };
        assert_eq!(
            builder.check().unwrap(),
            [
                "`--builder` is ignored: there is one builder, in this process",
                "`--squash` is ignored: use a multi-stage Dockerfile",
            ]
        );
    }
}
