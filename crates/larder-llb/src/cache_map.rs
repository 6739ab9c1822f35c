//! What an op feeds into cache keys, byte for byte as BuildKit does.
//!
//! A record's digest is [`root_key`] of the op's digest given here and the output's index. Which
//! fields enter the digest of an op:
//!
//! | op | enters | does not enter, because |
//! | --- | --- | --- |
//! | exec | args, env, cwd, user, hostname, ulimits, cgroup parent, names of extra hosts, network, security, secret env, devices, layout of mounts, platform | proxy settings and IPs of extra hosts (they lead to the same result); mount selectors (they are in the input's key); id and sharing of a cache mount that is not the default one (its content is never part of a key) |
//! | file | every action with owner, mode and patterns; of a copy's source only the base name | the source's directory (it is in the input's key) |
//! | merge, diff | the order of inputs | |
//! | image source | the manifest digest with the platform, or the chain ID | the name |
//! | local source | nothing: it has no definition key | |

mod go;

use base64::Engine as _;
use larder_oci::{Digest, Platform, go_json};
use serde::Serialize;

use crate::{Vertex, pb};

/// The digest of an op and how each of its inputs enters keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMap {
    /// The op's digest.
    pub digest: Digest,
    /// One entry an input, in the op's order.
    pub inputs: Vec<InputKeys>,
}

/// How an input enters keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InputKeys {
    /// Tells apart users of the same input that read different paths of it.
    pub selector: Option<Digest>,
    /// What of the input's content can replace its own key; `None` where content does not count.
    pub content: Option<Vec<Selector>>,
}

/// Paths of an input that an op reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    /// Absolute within the input.
    pub path: String,
    /// Whether `path` has wildcards that count.
    pub wildcard: bool,
    /// Whether a symbolic link at `path` is followed.
    pub follow_links: bool,
    /// Only these below `path`; empty for all.
    pub include_patterns: Vec<String>,
    /// Not these below `path`.
    pub exclude_patterns: Vec<String>,
    /// Paths below `path` that must exist.
    pub required_paths: Vec<String>,
}

impl Selector {
    fn is_plain(&self) -> bool {
        !self.wildcard
            && self.include_patterns.is_empty()
            && self.exclude_patterns.is_empty()
            && self.required_paths.is_empty()
    }
}

/// Returns the key of output `index` of the op with digest `op`, when the op has no inputs; also
/// the digest of the record of an op with inputs. Content keys use index -1.
pub fn root_key(op: &Digest, index: i64) -> Digest {
    Digest::sha256(format!("{op}@{index}"))
}

/// Returns the op digests of an image source: one made of the manifest's digest, one of the
/// layers' chain ID. Either identifies the image.
pub fn image_source_digests(
    manifest: &Digest,
    platform: &Platform,
    chain_id: Option<&Digest>,
) -> Vec<Digest> {
    let key = go::ImageKey {
        digest: manifest.as_str(),
        os: &platform.os,
        arch: &platform.architecture,
        variant: &platform.variant,
        os_version: &platform.os_version,
        os_features: &platform.os_features,
    };
    let source = |key: &[u8]| Digest::sha256([b"buildkit.source.v0:", key].concat());
    let mut digests = vec![source(Digest::sha256(go_json(&key)).as_str().as_bytes())];
    digests.extend(chain_id.map(|chain_id| source(chain_id.as_str().as_bytes())));
    digests
}

/// Returns the chain ID of ordered diff IDs, lowest first; `None` for no layer.
///
/// OCI image specification, section "Layer ChainID".
pub fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    let (first, rest) = diff_ids.split_first()?;
    Some(rest.iter().fold(first.clone(), |below, diff_id| {
        Digest::sha256(format!("{below} {diff_id}"))
    }))
}

/// Returns the cache map of an exec, file, merge or diff op; `None` for other ops, whose keys come
/// from what they fetch. `host` stands in where the op names no platform.
pub fn cache_map(vertex: &Vertex, host: &Platform) -> Option<CacheMap> {
    let input_count = vertex.inputs.len();
    match vertex.op.op.as_ref()? {
        pb::op::Op::Exec(exec) => {
            let platform = vertex
                .op
                .platform
                .as_ref()
                .map_or_else(|| host.clone(), platform_of);
            Some(exec_cache_map(exec, &platform, input_count))
        }
        pb::op::Op::File(file) => Some(file_cache_map(file, input_count)),
        pb::op::Op::Merge(merge) => {
            let key = go::MergeKey {
                kind: "buildkit.merge.v0",
                merge: go::Merge::from(merge),
            };
            Some(plain_cache_map(&key, input_count))
        }
        pb::op::Op::Diff(diff) => {
            let key = go::DiffKey {
                kind: "buildkit.diff.v0",
                diff: go::Diff::from(diff),
            };
            Some(plain_cache_map(&key, input_count))
        }
        pb::op::Op::Source(_) | pb::op::Op::Build(_) | pb::op::Op::Passthrough(_) => None,
    }
}

/// Returns the platform that an op names.
pub fn platform_of(platform: &pb::Platform) -> Platform {
    Platform {
        os: platform.os.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
        ..Platform::linux(&platform.architecture, &platform.variant)
    }
}

fn plain_cache_map(key: &impl Serialize, input_count: usize) -> CacheMap {
    CacheMap {
        digest: Digest::sha256(go_json(key)),
        inputs: vec![InputKeys::default(); input_count],
    }
}

fn exec_cache_map(exec: &pb::ExecOp, platform: &Platform, input_count: usize) -> CacheMap {
    let key = go::ExecKey {
        kind: "buildkit.exec.v0",
        exec: go::Exec::normalized(exec),
        os: &platform.os,
        arch: &platform.architecture,
        variant: &platform.variant,
        os_version: &platform.os_version,
        os_features: &platform.os_features,
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
        by_content[input] &= match mount.content_cache() {
            pb::MountContentCache::On => true,
            pb::MountContentCache::Off => false,
            // What a step may write to is keyed by how it was made.
            pb::MountContentCache::Default => {
                mount.output == -1 || (mount.readonly && mount.dest != "/")
            }
        };
    }
    let inputs = paths
        .into_iter()
        .zip(by_content)
        .map(|(paths, by_content)| InputKeys {
            selector: (!paths.is_empty()).then(|| Digest::sha256(paths.join("\0"))),
            content: by_content.then(|| {
                without_nested(&paths)
                    .into_iter()
                    .map(|path| Selector {
                        path,
                        follow_links: true,
                        ..Selector::default()
                    })
                    .collect()
            }),
        });
    CacheMap {
        digest: Digest::sha256(go_json(&key)),
        inputs: inputs.collect(),
    }
}

fn file_cache_map(file: &pb::FileOp, input_count: usize) -> CacheMap {
    use pb::file_action::Action;

    let mut selectors: Vec<Vec<Selector>> = vec![Vec::new(); input_count];
    // An input that an action changes is keyed by how it was made.
    let mut changed = vec![false; input_count];
    let input_of = |index: i64| {
        usize::try_from(index)
            .ok()
            .filter(|&index| index < input_count)
    };
    let mut actions = Vec::with_capacity(file.actions.len());
    for action in &file.actions {
        if let Some(input) = input_of(action.input) {
            changed[input] = true;
        }
        let owner = match &action.action {
            Some(Action::Copy(copy)) => &copy.owner,
            Some(Action::Mkfile(mkfile)) => &mkfile.owner,
            Some(Action::Mkdir(mkdir)) => &mkdir.owner,
            // BuildKit does not look at the owner of a symbolic link here.
            Some(Action::Symlink(_) | Action::Rm(_)) | None => &None,
        };
        for (input, path) in owner_lookups(owner.as_ref()) {
            if let Some(input) = input_of(input) {
                selectors[input].push(Selector {
                    path: path.to_owned(),
                    follow_links: true,
                    ..Selector::default()
                });
            }
        }
        let mut keyed = action.clone();
        if let Some(Action::Copy(copy)) = &mut keyed.action
            && let Some(input) = input_of(action.secondary_input)
        {
            selectors[input].push(Selector {
                wildcard: copy.allow_wildcard && has_wildcards(&copy.src),
                path: copy.src.clone(),
                follow_links: copy.follow_symlink,
                include_patterns: copy.include_patterns.clone(),
                exclude_patterns: copy.exclude_patterns.clone(),
                required_paths: copy.required_paths.clone(),
            });
            copy.src = base_name(&copy.src).to_owned();
        }
        actions.push(base64::engine::general_purpose::STANDARD.encode(go::action_json(&keyed)));
    }
    let indexes: Vec<[i64; 3]> = file
        .actions
        .iter()
        .map(|action| [action.input, action.secondary_input, action.output])
        .collect();
    let key = go::FileKey {
        kind: "buildkit.file.v0",
        actions,
        indexes: if are_default(&indexes) {
            Vec::new()
        } else {
            indexes
        },
    };
    let inputs = selectors
        .into_iter()
        .zip(changed)
        .map(|(selectors, changed)| {
            if changed || selectors.is_empty() {
                return InputKeys::default();
            }
            let mut paths: Vec<&str> = selectors
                .iter()
                .map(|selector| selector.path.as_str())
                .collect();
            paths.sort_unstable_by(|a, b| b.cmp(a));
            InputKeys {
                selector: Some(Digest::sha256(paths.join("\0"))),
                content: Some(without_redundant(&selectors)),
            }
        });
    CacheMap {
        digest: Digest::sha256(go_json(&key)),
        inputs: inputs.collect(),
    }
}

/// Returns the inputs, with the files, in which the names of `owner` are looked up.
fn owner_lookups(owner: Option<&pb::ChownOpt>) -> impl Iterator<Item = (i64, &'static str)> {
    let named = |user: Option<&pb::UserOpt>| match user?.user.as_ref()? {
        pb::user_opt::User::ByName(named) => Some(named.input),
        pb::user_opt::User::ById(_) => None,
    };
    let user = owner.and_then(|owner| named(owner.user.as_ref()));
    let group = owner.and_then(|owner| named(owner.group.as_ref()));
    let user = user.map(|input| (input, "/etc/passwd"));
    user.into_iter()
        .chain(group.map(|input| (input, "/etc/group")))
}

/// Returns whether the actions form the usual chain: the first works on input 0, each next one on
/// the result of the one before, and only the last makes an output.
///
/// The first versions of the key had no indexes; those of the usual chain must stay as they were,
/// with their quirk: the result of the action before is counted from the number of actions.
fn are_default(indexes: &[[i64; 3]]) -> bool {
    let count = indexes.len() as i64;
    !indexes.is_empty()
        && (0..)
            .zip(indexes)
            .all(|(position, &[input, secondary, output])| {
                input
                    == (if position == 0 {
                        0
                    } else {
                        count + position - 1
                    })
                    && matches!(secondary, -1 | 1)
                    && output == (if position == count - 1 { 0 } else { -1 })
            })
}

/// Returns whether `*`, `?` or `[` stands in `path` without a backslash before it.
pub fn has_wildcards(path: &str) -> bool {
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

fn absolute(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Go's `path.Base`.
fn base_name(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" if path.is_empty() => ".",
        "" => "/",
        path => path.rsplit('/').next().unwrap_or(path),
    }
}

/// Returns the distinct paths that lie below none of the others, sorted.
fn without_nested(paths: &[String]) -> Vec<String> {
    let mut kept: Vec<String> = paths.to_vec();
    kept.sort();
    kept.dedup();
    let all = kept.clone();
    kept.retain(|path| {
        !all.iter()
            .any(|other| path.starts_with(&format!("{other}/")))
    });
    kept
}

/// Returns the selectors sorted by path, without those that another one covers.
fn without_redundant(selectors: &[Selector]) -> Vec<Selector> {
    let plain_paths = |follow_links: bool| {
        let plain = selectors
            .iter()
            .filter(|selector| selector.is_plain() && selector.follow_links == follow_links);
        without_nested(
            &plain
                .map(|selector| selector.path.clone())
                .collect::<Vec<_>>(),
        )
        .into_iter()
        .map(move |path| Selector {
            path,
            follow_links,
            ..Selector::default()
        })
    };
    let mut kept: Vec<Selector> = plain_paths(false).chain(plain_paths(true)).collect();
    kept.extend(
        selectors
            .iter()
            .filter(|selector| !selector.is_plain())
            .cloned(),
    );
    kept.sort_by(|a, b| a.path.cmp(&b.path));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::OpMetadata;
    use crate::{Definition, Edge, GraphBuilder};

    fn op(op: pb::op::Op) -> pb::Op {
        pb::Op {
            op: Some(op),
            platform: Some(pb::Platform {
                architecture: "amd64".into(),
                os: "linux".into(),
                ..Default::default()
            }),
            constraints: Some(pb::WorkerConstraints::default()),
            ..Default::default()
        }
    }

    /// The record digest of `last`, which reads the same source as each of its inputs.
    fn record(inputs: usize, last: pb::op::Op) -> (String, CacheMap) {
        let mut graph = GraphBuilder::new();
        let source = pb::op::Op::Source(pb::SourceOp {
            identifier: "local://x".into(),
            ..Default::default()
        });
        let source = graph
            .add(op(source), &[], OpMetadata::default(), None)
            .unwrap();
        let edge = Edge {
            vertex: source,
            index: 0,
        };
        let digest = graph
            .add(op(last), &vec![edge; inputs], OpMetadata::default(), None)
            .unwrap();
        let graph = graph
            .finish(Edge {
                vertex: digest.clone(),
                index: 0,
            })
            .unwrap();
        let map = cache_map(graph.get(&digest).unwrap(), &Platform::linux("amd64", "")).unwrap();
        (root_key(&map.digest, 0).to_string(), map)
    }

    fn copy(src: &str, dest: &str, input: i64, secondary: i64) -> pb::op::Op {
        let copy = pb::FileActionCopy {
            src: src.into(),
            dest: dest.into(),
            mode: -1,
            follow_symlink: true,
            dir_copy_contents: true,
            create_dest_path: true,
            allow_wildcard: true,
            allow_empty_wildcard: true,
            timestamp: -1,
            ..Default::default()
        };
        let action = pb::FileAction {
            input,
            secondary_input: secondary,
            output: 0,
            action: Some(pb::file_action::Action::Copy(copy)),
        };
        pb::op::Op::File(pb::FileOp {
            actions: vec![action],
        })
    }

    fn run(command: &str, mounts: Vec<pb::Mount>) -> pb::op::Op {
        let meta = pb::Meta {
            args: vec!["/bin/sh".into(), "-c".into(), command.into()],
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
            cwd: "/".into(),
            remove_mount_stubs_recursive: true,
            ..Default::default()
        };
        pb::op::Op::Exec(pb::ExecOp {
            meta: Some(meta),
            mounts,
            ..Default::default()
        })
    }

    fn root() -> pb::Mount {
        pb::Mount {
            dest: "/".into(),
            ..Default::default()
        }
    }

    // The expected digests are those of records in caches that BuildKit exported.
    #[test]
    fn record_digests_equal_buildkits() {
        let mkdir = pb::FileActionMkDir {
            path: "/app".into(),
            mode: 0o755,
            make_parents: true,
            timestamp: 1_700_000_000_000_000_000,
            ..Default::default()
        };
        let mkdir = pb::FileAction {
            secondary_input: -1,
            action: Some(pb::file_action::Action::Mkdir(mkdir)),
            ..Default::default()
        };
        let workdir = pb::op::Op::File(pb::FileOp {
            actions: vec![mkdir],
        });
        assert_eq!(
            record(1, workdir).0,
            "sha256:c00d9cd0d19c487a3fc0a4ca32d75187bd2dbecde9681946330b7e8b14c526fd"
        );

        let (digest, map) = record(2, copy("/requirements.txt", "/app/", 0, 1));
        assert_eq!(
            digest,
            "sha256:4e3532d81d2114864a78b00d3bd7980cab0c05639e970393a22a8cdce89a31b2"
        );
        assert_eq!(map.inputs[0], InputKeys::default());
        assert_eq!(
            map.inputs[1].content.as_ref().unwrap()[0].path,
            "/requirements.txt"
        );

        let cached = pb::Mount {
            input: 1,
            selector: "/s".into(),
            dest: "/c".into(),
            output: -1,
            mount_type: pb::MountType::Cache.into(),
            cache_opt: Some(pb::CacheOpt {
                id: "//c".into(),
                sharing: 0,
            }),
            ..Default::default()
        };
        let (digest, map) = record(2, run("cat /c/f > /f", vec![root(), cached]));
        assert_eq!(
            digest,
            "sha256:3e45d3da5d6798b147a242ff91bae813e9a9e7605b356aaef62ad4b898512f43"
        );
        assert_eq!(map.inputs[0].selector, Some(Digest::sha256("/")));
        assert_eq!(map.inputs[0].content, None);
        assert_eq!(map.inputs[1].selector, Some(Digest::sha256("/s")));
        assert_eq!(map.inputs[1].content.as_ref().unwrap()[0].path, "/s");
    }

    #[test]
    fn image_source_has_two_keys() {
        let manifest = "sha256:9790ee64421762efc0b59049e8ce9506d9e433dc919b4237b052b2125e8f8f80"
            .parse()
            .unwrap();
        let diff_id = "sha256:c9b4a9e21e5b07d37abe127f933039b0ddaaf2471cc8c2c3bdab316f964dc161"
            .parse()
            .unwrap();
        let chain_id = chain_id(&[diff_id]);
        let digests =
            image_source_digests(&manifest, &Platform::linux("amd64", ""), chain_id.as_ref());
        let keys: Vec<_> = digests
            .iter()
            .map(|digest| root_key(digest, 0).to_string())
            .collect();
        assert_eq!(
            keys,
            [
                "sha256:52b70514e36171c139f8175b0a6d5db7fc8fb47baf7a9b408a0edc2a27c8a22c",
                "sha256:ddd25b882f0da8a18310c59e0281afa28063135f99546df85cc80681003c2aff",
            ]
        );
    }

    #[test]
    fn nested_paths_are_covered_by_their_parents() {
        let paths = ["/a/b", "/a", "/ab", "/a"].map(str::to_owned);
        assert_eq!(without_nested(&paths), ["/a", "/ab"]);
        assert_eq!(absolute("a/../b//c/."), "/b/c");
        for (path, base) in [("/", "/"), ("", "."), ("/a/b/", "b"), ("a", "a")] {
            assert_eq!(base_name(path), base);
        }
    }

    #[test]
    fn definitions_round_trip() {
        let mut graph = GraphBuilder::new();
        let digest = graph
            .add(op(run("true", vec![])), &[], OpMetadata::default(), None)
            .unwrap();
        let graph = graph
            .finish(Edge {
                vertex: digest,
                index: 0,
            })
            .unwrap();
        assert_eq!(Definition::from_pb(&graph.to_pb()).unwrap(), graph);
    }
}
