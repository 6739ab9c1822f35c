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

/// What mounts read of one input.
#[derive(Default)]
struct Reads<'a> {
    /// Paths of the input with where they are mounted, in the order of the mounts.
    paths: Vec<(String, &'a str)>,
    /// Whether what a mount shows does not tell all, so that only how the input was made may key it. (In
    /// BuildKit the last mount decides.)
    by_definition: bool,
}

pub(super) fn cache_map(exec: &pb::ExecOp, platform: &Platform, input_count: usize) -> CacheMap {
    let reads = reads_of(exec, input_count);
    let key = Key {
        r#type: "buildkit.exec.v0",
        exec: &normalized(exec, &reads),
        platform: PlatformKey::new(platform),
    };
    CacheMap {
        digest: Digest::sha256(go_json(&key)),
        inputs: reads.iter().map(Reads::keys).collect(),
    }
}

/// See [`super::content`].
pub(super) fn content(
    exec: &pb::ExecOp,
    input_count: usize,
    input: usize,
) -> Option<Vec<Selector>> {
    reads_of(exec, input_count).get(input)?.content()
}

/// Returns what the mounts read, input by input.
fn reads_of(exec: &pb::ExecOp, input_count: usize) -> Vec<Reads<'_>> {
    let mut reads: Vec<Reads<'_>> = Vec::new();
    reads.resize_with(input_count, Reads::default);
    for mount in &exec.mounts {
        if let Some(input) = input_of(mount) {
            reads[input].add(mount);
        }
    }
    reads
}

/// Returns the index of the input whose files a mount shows.
fn input_of(mount: &pb::Mount) -> Option<usize> {
    let reads = matches!(
        mount.mount_type(),
        pb::MountType::Bind | pb::MountType::Cache
    );
    usize::try_from(mount.input).ok().filter(|_| reads)
}

impl<'a> Reads<'a> {
    fn add(&mut self, mount: &'a pb::Mount) {
        self.paths.push((absolute(&mount.selector), &mount.dest));
        let tells_all = match mount.content_cache() {
            pb::MountContentCache::Off => false,
            pb::MountContentCache::On => content_suffices(mount),
            // The root filesystem is large, and seldom the same by another way.
            pb::MountContentCache::Default => content_suffices(mount) && mount.dest != ROOT,
        };
        self.by_definition |= !tells_all;
    }

    /// Returns whether the contents could be of other paths of the input than these: they come in the
    /// order of the paths, without those below others, and only mount points that ascend, too, tell
    /// which is which.
    fn are_mistakable(&self) -> bool {
        let mut reads = self.paths.clone();
        reads.sort_unstable();
        reads.dedup();
        let are_all_told = without_nested(&self.names()).len() == reads.len();
        let ascend = reads.is_sorted_by(|(_, a), (_, b)| a < b);
        let are_told = self.by_definition || (are_all_told && ascend);
        !are_told
    }

    fn names(&self) -> Vec<String> {
        self.paths.iter().map(|(path, _)| path.clone()).collect()
    }

    fn keys(&self) -> InputKeys {
        let paths = self.names();
        InputKeys {
            selector: (!paths.is_empty()).then(|| Digest::sha256(paths.join("\0"))),
            content: self.content(),
        }
    }

    fn content(&self) -> Option<Vec<Selector>> {
        (!self.by_definition).then(|| selectors(&self.names()))
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
fn normalized(exec: &pb::ExecOp, reads: &[Reads<'_>]) -> pb::ExecOp {
    let mut exec = exec.clone();
    if let Some(meta) = &mut exec.meta {
        meta.proxy_env = None;
        for host in &mut meta.extra_hosts {
            host.ip.clear();
        }
    }
    let are_mistakable: Vec<bool> = reads.iter().map(Reads::are_mistakable).collect();
    for mount in &mut exec.mounts {
        mount.selector = match input_of(mount) {
            Some(input) if are_mistakable[input] => absolute(&mount.selector),
            _ => String::new(),
        };
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
