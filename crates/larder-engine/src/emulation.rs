//! Which platforms' programs this machine runs: its own, and those for which an emulator is
//! registered with the kernel (`binfmt_misc`), such as QEMU's.

mod handler;

use std::path::Path;

use larder_exec::{MountPoint, MountSource, mount};
use larder_oci::Platform;

use crate::engine::Engine;
use crate::error::{BuildError, Result};
use handler::{Handler, header};

/// Where the kernel lists what is registered.
const REGISTERED: &str = "/proc/sys/fs/binfmt_misc";
/// There if a kernel for `amd64` runs programs for `386`, too.
const RUNS_386: &str = "/proc/sys/abi/vsyscall32";
/// The platforms that may be emulated, in the order in which BuildKit lists them.
const EMULATED: [&str; 12] = [
    "linux/amd64",
    "linux/arm64",
    "linux/riscv64",
    "linux/ppc64le",
    "linux/s390x",
    "linux/386",
    "linux/mips64le",
    "linux/mips64",
    "linux/loong64",
    "linux/ppc64",
    "linux/arm/v7",
    "linux/arm/v6",
];

impl Engine {
    /// Returns the platforms whose programs steps can run here: the host's, its newer variants that
    /// this processor has, and those that are emulated.
    pub fn platforms(&self) -> Vec<Platform> {
        let host = Platform::host();
        let mut platforms = vec![host.clone()];
        for version in 2..=x86_64_version() {
            platforms.push(Platform::linux("amd64", &format!("v{version}")));
        }
        let handlers = Handler::registered(Path::new(REGISTERED));
        let others = EMULATED.iter().filter_map(|text| text.parse().ok());
        platforms.extend(others.filter(|platform: &Platform| {
            !platform.satisfies(&host)
                && (is_native(platform) || emulator(&handlers, platform).is_some())
        }));
        platforms
    }
}

/// Returns the mount that a process of `platform` needs to be emulated, if any: an emulator that the
/// kernel looks for by its path, in the process's own tree.
pub(crate) fn interpreter(platform: &Platform) -> Result<Option<MountPoint>> {
    if is_native(platform) {
        return Ok(None);
    }
    let handlers = Handler::registered(Path::new(REGISTERED));
    let Some(handler) = emulator(&handlers, platform).filter(|handler| !handler.is_fixed) else {
        return Ok(None);
    };
    let path = &handler.interpreter;
    let fd = mount::bind(path, mount::Access::ReadOnly).map_err(|error| {
        let path = path.display();
        BuildError::from(error)
            .context(format!("the emulator `{path}` for {platform} is not there"))
    })?;
    Ok(Some(MountPoint {
        target: path.to_string_lossy().into_owned(),
        source: MountSource::Bind(fd),
        readonly: true,
    }))
}

/// Adds to the error of a command that can't be executed that it is for another platform, if no
/// emulator for that is registered.
pub(crate) fn explain(error: BuildError, platform: &Platform) -> BuildError {
    let handlers = Handler::registered(Path::new(REGISTERED));
    if is_native(platform) || emulator(&handlers, platform).is_some() {
        return error;
    }
    let host = Platform::host();
    let architecture = &platform.architecture;
    error
        .context(format!(
            "this machine ({host}) can't run programs for {platform}, and no emulator is registered"
        ))
        .with_hint(format!(
            "install one: the package `qemu-user-static` of Debian and Ubuntu, or \
             `docker run --privileged --rm tonistiigi/binfmt --install {architecture}`; steps that \
             only copy, and those of `FROM --platform=$BUILDPLATFORM`, need none"
        ))
}

/// Returns whether programs for a platform run without emulator.
fn is_native(platform: &Platform) -> bool {
    let host = Platform::host();
    let is_386_on_amd64 = (host.architecture.as_str(), platform.architecture.as_str())
        == ("amd64", "386")
        && Path::new(RUNS_386).exists();
    host.os == platform.os && (host.architecture == platform.architecture || is_386_on_amd64)
}

/// Returns what is registered for the programs of a platform.
fn emulator<'a>(handlers: &'a [Handler], platform: &Platform) -> Option<&'a Handler> {
    let header = header(&platform.architecture)?;
    handlers.iter().find(|handler| handler.takes(&header))
}

/// Returns the newest version of `amd64` that this processor is; 1 where it is another architecture.
fn x86_64_version() -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        let is_v2 = has!("cmpxchg16b") && has!("popcnt") && has!("sse4.2") && has!("ssse3");
        let has_avx2 = has!("avx2") && has!("bmi1") && has!("bmi2") && has!("f16c");
        let is_v3 = is_v2 && has_avx2 && has!("fma") && has!("lzcnt") && has!("movbe");
        let has_avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512cd");
        let is_v4 = is_v3 && has_avx512 && has!("avx512dq") && has!("avx512vl");
        1 + u32::from(is_v2) + u32::from(is_v3) + u32::from(is_v4)
    }
    #[cfg(not(target_arch = "x86_64"))]
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_can_t_run_a_platform_is_told_so() {
        let error = || BuildError::invalid("exec /bin/sh: exec format error");
        let native = explain(error(), &Platform::host());
        assert_eq!(native.full_message(), error().full_message());
        let foreign = explain(error(), &Platform::linux("pdp11", ""));
        let message = foreign.full_message();
        assert!(
            message.contains("can't run programs for linux/pdp11"),
            "{message}"
        );
        assert!(
            foreign
                .hint()
                .is_some_and(|hint| hint.contains("--install pdp11"))
        );
    }
}
