//! The cache map of an exec op.

use larder_oci::{Digest, Platform, go_json};
use serde::Serialize;

use super::path::{absolute, without_nested};
use super::{CacheMap, InputKeys, PlatformKey, Selector};
use crate::pb;

/// Where the root filesystem is mounted.
const ROOT: &str = "/";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Key<'a> {
    r#type: &'static str,
    exec: &'a pb::ExecOp,
    #[serde(flatten)]
    platform: PlatformKey<'a>,
}

pub(super) fn cache_map(exec: &pb::ExecOp, platform: &Platform, input_count: usize) -> CacheMap {
    let key = Key {
        r#type: "buildkit.exec.v0",
        exec: &normalized(exec),
        platform: PlatformKey::new(platform),
    };
    let mut paths = vec![Vec::new(); input_count];
    let mut by_content = vec![true; input_count];
    for mount in &exec.mounts {
        let reads_input = matches!(
            mount.mount_type(),
            pb::MountType::Bind | pb::MountType::Cache
        );
        let Some(input) = usize::try_from(mount.input).ok().filter(|_| reads_input) else {
            continue;
        };
        paths[input].push(absolute(&mount.selector));
        // What several mounts read is keyed by content only if each may be. (In BuildKit the last
        // one decides.)
        by_content[input] &= match mount.content_cache() {
            pb::MountContentCache::Off => false,
            pb::MountContentCache::On => content_suffices(mount),
            // The root filesystem is large, and seldom the same by another way.
            pb::MountContentCache::Default => content_suffices(mount) && mount.dest != ROOT,
        };
    }
    let inputs = paths
        .into_iter()
        .zip(by_content)
        .map(|(paths, by_content)| InputKeys {
            selector: (!paths.is_empty()).then(|| Digest::sha256(paths.join("\0"))),
            content: by_content.then(|| selectors(&paths)),
        });
    CacheMap {
        digest: Digest::sha256(go_json(&key)),
        inputs: inputs.collect(),
    }
}

/// Returns whether the content that a mount shows tells all that the step's results can depend on.
/// It does not where a part is written to and the whole comes out: the rest is in the result, too.
pub(crate) fn content_suffices(mount: &pb::Mount) -> bool {
    mount.output == -1 || mount.readonly || absolute(&mount.selector) == ROOT
}

fn selectors(paths: &[String]) -> Vec<Selector> {
    let selector = |path| Selector {
        path,
        follow_links: true,
        ..Selector::default()
    };
    without_nested(paths).into_iter().map(selector).collect()
}

/// Returns the op without what must not enter the key.
fn normalized(exec: &pb::ExecOp) -> pb::ExecOp {
    let mut exec = exec.clone();
    if let Some(meta) = &mut exec.meta {
        meta.proxy_env = None;
        for host in &mut meta.extra_hosts {
            host.ip.clear();
        }
    }
    for mount in &mut exec.mounts {
        mount.selector.clear();
        if let Some(cache) = &mut mount.cache_opt
            && !is_default_cache(cache, &mount.dest)
        {
            *cache = pb::CacheOpt::default();
        }
    }
    // A lone writable root was not part of the key in BuildKit's first versions.
    if let [only] = &exec.mounts[..]
        && is_plain_root(only)
    {
        exec.mounts.clear();
    }
    exec
}

/// Returns whether a cache mount is one that the Dockerfile's defaults make: shared, its id the
/// target, below some namespace.
fn is_default_cache(cache: &pb::CacheOpt, dest: &str) -> bool {
    let named_for_dest = cache.id == dest
        || cache
            .id
            .split_once('/')
            .is_some_and(|(_, rest)| rest == dest);
    named_for_dest && cache.sharing == 0
}

fn is_plain_root(mount: &pb::Mount) -> bool {
    mount.dest == ROOT
        && !mount.readonly
        && mount.mount_type() == pb::MountType::Bind
        && mount.cache_opt.is_none()
        && mount.secret_opt.is_none()
        && mount.ssh_opt.is_none()
        && mount.result_id.is_empty()
}
