//! Capabilities: what a definition may ask for by name.

use crate::graph::Problem;

/// Those that larder has, sorted. The ids are BuildKit's, with its misspelling.
const ENABLED: [&str; 84] = [
    "constraints",
    "diffop",
    "exec.cgroup",
    "exec.meta.base",
    "exec.meta.cdi",
    "exec.meta.cgroup.parent",
    "exec.meta.linux.resources",
    "exec.meta.network",
    "exec.meta.proxyenv",
    "exec.meta.removemountstubs.recursive",
    "exec.meta.security",
    "exec.meta.security.devices.v1",
    "exec.meta.setsdefaultpath",
    "exec.meta.ulimit",
    "exec.mount.bind",
    "exec.mount.bind.readwrite-nooutput",
    "exec.mount.cache",
    "exec.mount.cache.content",
    "exec.mount.cache.sharing",
    "exec.mount.secret",
    "exec.mount.selector",
    "exec.mount.ssh",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "exec.secretenv",
    "exec.validexitcode",
    "exporter.image.annotations",
    "exporter.image.attestations",
    "exporter.multiple",
    "exporter.session",
    "exporter.sourcedateepoch",
    "file.base",
    "file.copy.alwaysreplaceexistingdestpaths",
    "file.copy.includeexcludepatterns",
    "file.copy.modestring",
    "file.copy.requiredpaths",
    "file.rm.nofollowsymlink",
    "file.rm.wildcard",
    "file.symlink.create",
    "gc.freespacefilter",
    "mergeop",
    "meta.description",
    "meta.exportcache",
    "meta.ignorecache",
    "passthroughop",
    "platform",
    "soruce.http.uidgid",
    "source.buildop.llbfilename",
    "source.git",
    "source.git.bundle",
    "source.git.checkoutbundle",
    "source.git.checksum",
    "source.git.fetchbycommit",
    "source.git.fullurl",
    "source.git.httpauth",
    "source.git.keepgitdir",
    "source.git.knownsshhosts",
    "source.git.mountsshsock",
    "source.git.mtime",
    "source.git.signatureverify",
    "source.git.skipsubmodules",
    "source.git.subdir",
    "source.http",
    "source.http.auth",
    "source.http.checksum",
    "source.http.header",
    "source.http.perm",
    "source.http.signatureverify",
    "source.image",
    "source.image.checksum",
    "source.image.layerlimit",
    "source.image.resolvemode",
    "source.imageblob",
    "source.local",
    "source.local.differ",
    "source.local.excludepatterns",
    "source.local.followpaths",
    "source.local.includepatterns",
    "source.local.metadatatransfer",
    "source.local.sessionid",
    "source.local.sharedkeyhint",
    "source.local.unique",
    "source.ocilayout",
    "source.policy",
];

/// Those that BuildKit has and larder has not, with the reason.
const DISABLED: [(&str, &str); 6] = [
    (
        "cache.azblob",
        "caches in Azure's blob storage are not there yet",
    ),
    ("cache.gha", "GitHub's cache is not there yet"),
    ("cache.s3", "caches in S3 are not there yet"),
    (
        "exec.meta.network.proxy",
        "steps have no proxy of their own",
    ),
    ("history.filter", "the history of builds is not served yet"),
    (
        "source.policy.session",
        "policies that a client evaluates are not asked for yet",
    ),
];

/// Returns the ids of the capabilities that larder has, sorted.
pub fn enabled() -> impl Iterator<Item = &'static str> {
    ENABLED.into_iter()
}

/// Checks that all of `caps` are there.
///
/// # Errors
/// [`Problem`], in BuildKit's words, for the first that is not.
pub(crate) fn check<'a>(caps: impl IntoIterator<Item = &'a String>) -> Result<(), Problem> {
    for cap in caps {
        if ENABLED.binary_search(&cap.as_str()).is_ok() {
            continue;
        }
        let disabled = DISABLED.iter().find(|(id, _)| id == cap);
        return Err(Problem::new(match disabled {
            Some((_, reason)) => format!(
                "requested experimental feature {cap} has been disabled on the build server: {reason}"
            ),
            None => format!("unknown API capability {cap}"),
        }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_named() {
        assert!(ENABLED.is_sorted() && DISABLED.is_sorted());
        let check = |cap: &str| check([&cap.to_owned()]).map_err(|problem| problem.to_string());
        assert_eq!(check("mergeop"), Ok(()));
        assert_eq!(
            check("exec.teleport").unwrap_err(),
            "unknown API capability exec.teleport"
        );
        assert_eq!(
            check("cache.s3").unwrap_err(),
            "requested experimental feature cache.s3 has been disabled on the build server: \
             caches in S3 are not there yet"
        );
    }
}
