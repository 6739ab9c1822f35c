//! What an op feeds into cache keys, byte for byte as BuildKit does.
//!
//! A record's digest is [`root_key`] of the op's digest given here and the output's index. Which
//! fields enter the digest of an op:
//!
//! | op | enters | does not enter, because |
//! | --- | --- | --- |
//! | exec | args, env, cwd, user, hostname, ulimits, cgroup parent, names of extra hosts, network, security, secret env, devices, valid exit codes, layout of mounts, platform | proxy settings and IPs of extra hosts (they lead to the same result); mount selectors (they are in the input's key; they enter where that does not tell which one goes where); id and sharing of a cache mount that is not the default one (its content is never part of a key) |
//! | file | every action with owner, mode and patterns; of a copy's source only the base name, unless that leaves open what is read | the source's directory (it is in the input's key) |
//! | merge, diff | the order of inputs; for a diff, which of them are there | |
//! | build | builder, inputs, inline definition, attributes | the definition in the input (it is in the input's key) |
//! | passthrough | its id, and which input each output is | |
//! | image source | the manifest digest with the platform and the limit of layers, or the chain ID of the layers that are taken | the name |
//! | blob source | the blob's digest, the file's name, mode and owner | where it comes from: a registry or a layout |
//! | http source | name, mode, owner, content and time: [`HttpSource::cache_digest`](crate::http::HttpSource::cache_digest) | the URL |
//! | git source | commit and options: [`GitSource::cache_digest`](crate::git::GitSource::cache_digest) | the repository's address |
//! | local source | nothing: it has no definition key | |

mod exec;
mod file;
mod path;

use larder_oci::{Digest, Platform, go_json};
use serde::Serialize;

use crate::{Vertex, pb};

pub(crate) use exec::content_suffices;
pub use path::has_wildcards;

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
    /// Returns whether it takes all of its path.
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

/// Returns the op digests of an image source of which only `layer_limit` layers are taken, if that is
/// said: one made of the manifest's digest, one of the layers' chain ID. Either identifies the image.
pub fn image_source_digests(
    manifest: &Digest,
    platform: &Platform,
    layer_limit: Option<usize>,
    chain_id: Option<&Digest>,
) -> Vec<Digest> {
    #[derive(Serialize)]
    struct Key<'a> {
        #[serde(rename = "Digest")]
        digest: &'a str,
        #[serde(flatten)]
        platform: PlatformKey<'a>,
        #[serde(rename = "Limit", skip_serializing_if = "Option::is_none")]
        limit: Option<usize>,
    }
    let key = Key {
        digest: manifest.as_str(),
        platform: PlatformKey::new(platform),
        limit: layer_limit,
    };
    let mut digests = vec![source_digest(Digest::sha256(go_json(&key)).as_str())];
    digests.extend(chain_id.map(|chain_id| source_digest(chain_id.as_str())));
    digests
}

/// Returns the op digest of the source of a single blob, which becomes the file `filename` with
/// permission bits `mode` (zero where nothing was said) and an owner.
pub fn blob_source_digest(
    blob: &Digest,
    filename: &str,
    mode: u32,
    (uid, gid): (u32, u32),
) -> Digest {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Key<'a> {
        digest: &'a str,
        filename: &'a str,
        perm: u32,
        #[serde(rename = "UID")]
        uid: u32,
        #[serde(rename = "GID")]
        gid: u32,
    }
    let key = Key {
        digest: blob.as_str(),
        filename,
        perm: mode,
        uid,
        gid,
    };
    source_digest(Digest::sha256(go_json(&key)).as_str())
}

/// Returns the op digest of a source that BuildKit knows by `key`.
fn source_digest(key: &str) -> Digest {
    Digest::sha256(format!("buildkit.source.v0:{key}"))
}

/// A platform as keys have it.
#[derive(Serialize)]
struct PlatformKey<'a> {
    #[serde(rename = "OS")]
    os: &'a str,
    #[serde(rename = "Arch")]
    arch: &'a str,
    #[serde(rename = "Variant", skip_serializing_if = "str::is_empty")]
    variant: &'a str,
    #[serde(rename = "OSVersion", skip_serializing_if = "str::is_empty")]
    os_version: &'a str,
    #[serde(rename = "OSFeatures", skip_serializing_if = "<[_]>::is_empty")]
    os_features: &'a [String],
}

impl<'a> PlatformKey<'a> {
    fn new(platform: &'a Platform) -> Self {
        Self {
            os: &platform.os,
            arch: &platform.architecture,
            variant: &platform.variant,
            os_version: &platform.os_version,
            os_features: &platform.os_features,
        }
    }
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

/// Returns the cache map of an op with a key of its own; `None` for sources, whose keys come from
/// what they fetch. `host` stands in where the op names no platform.
pub fn cache_map(vertex: &Vertex, host: &Platform) -> Option<CacheMap> {
    let input_count = vertex.inputs.len();
    match vertex.op.op.as_ref()? {
        pb::op::Op::Exec(exec) => {
            let named = vertex.op.platform.as_ref().map(platform_of);
            let platform = named.as_ref().unwrap_or(host);
            Some(exec::cache_map(exec, platform, input_count))
        }
        pb::op::Op::File(file) => Some(file::cache_map(file, input_count)),
        pb::op::Op::Merge(merge) => {
            #[derive(Serialize)]
            #[serde(rename_all = "PascalCase")]
            struct Key<'a> {
                r#type: &'static str,
                merge: &'a pb::MergeOp,
            }
            let r#type = "buildkit.merge.v0";
            Some(plain_cache_map(&Key { r#type, merge }, input_count))
        }
        pb::op::Op::Diff(diff) => {
            #[derive(Serialize)]
            #[serde(rename_all = "PascalCase")]
            struct Key<'a> {
                r#type: &'static str,
                diff: &'a pb::DiffOp,
            }
            let r#type = "buildkit.diff.v0";
            Some(plain_cache_map(&Key { r#type, diff }, input_count))
        }
        pb::op::Op::Build(exec) => {
            // The name of the field is BuildKit's.
            #[derive(Serialize)]
            #[serde(rename_all = "PascalCase")]
            struct Key<'a> {
                r#type: &'static str,
                exec: &'a pb::BuildOp,
            }
            let r#type = "buildkit.build.v1";
            Some(plain_cache_map(&Key { r#type, exec }, input_count))
        }
        pb::op::Op::Passthrough(passthrough) => {
            #[derive(Serialize)]
            #[serde(rename_all = "PascalCase")]
            struct Key<'a> {
                r#type: &'static str,
                passthrough: &'a pb::PassthroughOp,
            }
            let r#type = "buildkit.passthrough.v0";
            Some(plain_cache_map(
                &Key {
                    r#type,
                    passthrough,
                },
                input_count,
            ))
        }
        pb::op::Op::Source(_) => None,
    }
}

/// Returns what of input `input` an op reads, where content can replace the input's own key: the
/// [`InputKeys::content`] of [`cache_map`], for less.
pub fn content(vertex: &Vertex, input: usize) -> Option<Vec<Selector>> {
    let input_count = vertex.inputs.len();
    match vertex.op.op.as_ref()? {
        pb::op::Op::Exec(exec) => exec::content(exec, input_count, input),
        pb::op::Op::File(file) => file::content(file, input_count, input),
        _ => None,
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

#[cfg(test)]
mod tests {
    use super::path::{absolute, base_name, without_nested};
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
        let amd64 = Platform::linux("amd64", "");
        let digests = image_source_digests(&manifest, &amd64, None, chain_id.as_ref());
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
    fn other_platforms_have_other_keys() {
        let arm = Platform::linux("arm", "v7");
        let exec = pb::ExecOp {
            meta: Some(pb::Meta {
                args: vec!["x".to_owned()],
                ..pb::Meta::default()
            }),
            ..pb::ExecOp::default()
        };
        let json = r#"{"Type":"buildkit.exec.v0","Exec":{"meta":{"args":["x"]}},"OS":"linux","Arch":"arm","Variant":"v7"}"#;
        let map = exec::cache_map(&exec, &arm, 0);
        assert_eq!(map.digest, Digest::sha256(json));
        let manifest = Digest::sha256("manifest");
        let json = format!(r#"{{"Digest":"{manifest}","OS":"linux","Arch":"arm","Variant":"v7"}}"#);
        assert_eq!(
            image_source_digests(&manifest, &arm, None, None),
            [source_digest(Digest::sha256(json).as_str())]
        );
        let json = format!(
            r#"{{"Digest":"{manifest}","OS":"linux","Arch":"arm","Variant":"v7","Limit":2}}"#
        );
        assert_eq!(
            image_source_digests(&manifest, &arm, Some(2), None),
            [source_digest(Digest::sha256(json).as_str())]
        );
    }

    // What BuildKit hashes, as its types are declared.
    #[test]
    fn keys_are_digests_of_go_s_json() {
        let side = |input| pb::LowerDiffInput { input };
        let upper = |input| pb::UpperDiffInput { input };
        let diff = |lower, up| {
            pb::op::Op::Diff(pb::DiffOp {
                lower: Some(side(lower)),
                upper: Some(upper(up)),
            })
        };
        let build = pb::op::Op::Build(pb::BuildOp {
            builder: -1,
            inputs: [(
                "buildkit.llb.definition".to_owned(),
                pb::BuildInput { input: 0 },
            )]
            .into(),
            attrs: [("llbbuild.filename".to_owned(), "a&b".to_owned())].into(),
            ..pb::BuildOp::default()
        });
        let passthrough = pb::op::Op::Passthrough(pb::PassthroughOp {
            id: "x".to_owned(),
            outputs: vec![1, 0],
        });
        for (inputs, op, json) in [
            (
                2,
                diff(0, 1),
                r#"{"Type":"buildkit.diff.v0","Diff":{"lower":{},"upper":{"input":1}}}"#,
            ),
            (
                1,
                diff(-1, 0),
                r#"{"Type":"buildkit.diff.v0","Diff":{"lower":{"input":-1},"upper":{}}}"#,
            ),
            (
                1,
                build,
                r#"{"Type":"buildkit.build.v1","Exec":{"builder":-1,"inputs":{"buildkit.llb.definition":{}},"attrs":{"llbbuild.filename":"a\u0026b"}}}"#,
            ),
            (
                2,
                passthrough,
                r#"{"Type":"buildkit.passthrough.v0","Passthrough":{"id":"x","outputs":[1,0]}}"#,
            ),
        ] {
            let (_, map) = record(inputs, op);
            assert_eq!(map.digest, Digest::sha256(json), "{json}");
            assert_eq!(map.inputs, vec![InputKeys::default(); inputs]);
        }
        let blob = Digest::sha256("blob");
        let json = format!(r#"{{"Digest":"{blob}","Filename":"f","Perm":420,"UID":1,"GID":0}}"#);
        assert_eq!(
            blob_source_digest(&blob, "f", 0o644, (1, 0)),
            Digest::sha256(format!("buildkit.source.v0:{}", Digest::sha256(json)))
        );
    }

    // The cases, and what comes of them, are those of BuildKit's `TestExecOpContentCache`.
    #[test]
    fn content_stands_for_an_input_where_it_tells_all() {
        type Change = fn(&mut pb::Mount);
        let cases: [(&str, &str, Change, bool, bool); 8] = [
            ("/foo", "/bar", |_| {}, false, false),
            ("/foo", "/bar", |it| it.readonly = true, true, true),
            ("/foo", "/bar", |it| it.output = -1, true, true),
            ("/foo", "/", |_| {}, true, true),
            ("/", "/bar", |_| {}, false, false),
            ("/", "/bar", |it| it.readonly = true, false, true),
            ("/", "/bar", |it| it.output = -1, false, true),
            ("/", "/", |_| {}, false, true),
        ];
        for (dest, selector, change, by_default, is_safe) in cases {
            let mut mount = pb::Mount {
                dest: dest.to_owned(),
                selector: selector.to_owned(),
                ..pb::Mount::default()
            };
            change(&mut mount);
            assert_eq!(content_suffices(&mount), is_safe, "{mount:?}");
            let by_content = |content_cache: pb::MountContentCache| {
                let exec = pb::ExecOp {
                    mounts: vec![pb::Mount {
                        content_cache: content_cache.into(),
                        ..mount.clone()
                    }],
                    ..pb::ExecOp::default()
                };
                let map = exec::cache_map(&exec, &Platform::linux("amd64", ""), 1);
                map.inputs[0].content.is_some()
            };
            assert_eq!(by_content(pb::MountContentCache::Default), by_default);
            assert!(!by_content(pb::MountContentCache::Off));
            assert_eq!(by_content(pb::MountContentCache::On), is_safe);
        }
    }

    // Contents are told in the order of the paths, and paths without their order: what that leaves
    // open has to be in the op's digest.
    #[test]
    fn what_is_read_of_one_input_is_not_mistaken() {
        let bind = |selector: &str, dest: &str| pb::Mount {
            input: 1,
            selector: selector.to_owned(),
            dest: dest.to_owned(),
            output: -1,
            readonly: true,
            ..pb::Mount::default()
        };
        let exec = |mounts: &[(&str, &str)]| {
            let binds = mounts.iter().map(|(selector, dest)| bind(selector, dest));
            let op = run("true", [root()].into_iter().chain(binds).collect());
            record(2, op).1
        };
        let copies = |sources: &[&str], secondary: i64| {
            let actions = sources.iter().zip(0..).map(|(src, position)| {
                let pb::op::Op::File(op) = copy(src, "/d/", 0, secondary) else {
                    unreachable!("a copy is a file op");
                };
                let last = sources.len() as i64 - 1;
                pb::FileAction {
                    input: if position == 0 { 0 } else { 2 + position - 1 },
                    output: if position == last { 0 } else { -1 },
                    ..op.actions[0].clone()
                }
            });
            let actions = actions.collect();
            record(2, pb::op::Op::File(pb::FileOp { actions })).1
        };
        for (one, other) in [
            (
                exec(&[("/a", "/m"), ("/b", "/n")]),
                exec(&[("/b", "/m"), ("/a", "/n")]),
            ),
            (
                exec(&[("/", "/m"), ("/a", "/n")]),
                exec(&[("/", "/m"), ("/b", "/n")]),
            ),
            (
                exec(&[("/a", "/m"), ("/b", "/m")]),
                exec(&[("/b", "/m"), ("/a", "/m")]),
            ),
            (copies(&["/a/f", "/b/f"], 1), copies(&["/b/f", "/a/f"], 1)),
            (copies(&["/a/f", "/b/g"], 1), copies(&["/b/f", "/a/g"], 1)),
            (copies(&["/a", "/a/f"], 1), copies(&["/a", "/a/b/f"], 1)),
            (copies(&["/a/f"], 0), copies(&["/b/f"], 0)),
        ] {
            assert_ne!(one.digest, other.digest);
        }
        // All else is as BuildKit has it.
        for (one, other) in [
            (
                exec(&[("/a", "/m"), ("/b", "/n")]),
                exec(&[("/c", "/m"), ("/d", "/n")]),
            ),
            (exec(&[("/a", "/m")]), exec(&[("/b", "/m")])),
            (copies(&["/f", "/g"], 1), copies(&["/a/f", "/b/g"], 1)),
            (copies(&["/a/f"], 1), copies(&["/b/f"], 1)),
            (copies(&["/a/f", "/a/f"], 1), copies(&["/f", "/f"], 1)),
        ] {
            assert_eq!(one.digest, other.digest);
            assert_ne!(one.inputs[1].selector, other.inputs[1].selector);
        }
    }

    #[test]
    fn nested_paths_are_covered_by_their_parents() {
        let paths = ["/a/b", "/a", "/ab", "/a"].map(str::to_owned);
        assert_eq!(without_nested(&paths), ["/a", "/ab"]);
        let paths = ["/", "/a"].map(str::to_owned);
        assert_eq!(without_nested(&paths), ["/"]);
        assert_eq!(absolute("a/../b//c/."), "/b/c");
        for (path, base) in [("/", "/"), ("", "."), ("/a/b/", "b"), ("a", "a")] {
            assert_eq!(base_name(path), base);
        }
    }

    #[test]
    fn definitions_round_trip() {
        let mut graph = GraphBuilder::new();
        let root = pb::Mount {
            input: -1,
            ..root()
        };
        let digest = graph
            .add(
                op(run("true", vec![root])),
                &[],
                OpMetadata::default(),
                None,
            )
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
