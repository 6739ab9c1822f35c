//! Which fields of an op enter its key: all, but those that this table excepts.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use larder_llb::cache_map::{CacheMap, cache_map, content};
use larder_llb::pb::file_action::Action;
use larder_llb::pb::op::Op;
use larder_llb::{Edge, GraphBuilder, pb};
use larder_oci::Platform;

const INPUTS: usize = 3;

/// Returns what an op upon `INPUTS` sources feeds into keys.
fn keys(op: pb::Op, metadata: pb::OpMetadata) -> CacheMap {
    let mut graph = GraphBuilder::new();
    let source = |place: usize| pb::Op {
        op: Some(Op::Source(pb::SourceOp {
            identifier: format!("local://{place}"),
            ..pb::SourceOp::default()
        })),
        ..pb::Op::default()
    };
    let edges: Vec<Edge> = (0..INPUTS)
        .map(|place| {
            let vertex = graph.add(source(place), &[], pb::OpMetadata::default(), None);
            let vertex = vertex.unwrap();
            Edge { vertex, index: 0 }
        })
        .collect();
    let vertex = graph.add(op, &edges, metadata, None).unwrap();
    let edge = Edge {
        vertex: vertex.clone(),
        index: 0,
    };
    let graph = graph.finish(edge).unwrap();
    let vertex = graph.get(&vertex).unwrap();
    let map = cache_map(vertex, &Platform::linux("amd64", "")).unwrap();
    for (input, keys) in map.inputs.iter().enumerate() {
        assert_eq!(content(vertex, input), keys.content);
    }
    map
}

/// What of a key a field is in.
#[derive(Debug, Clone, Copy, PartialEq)]
enum In {
    /// The op's digest.
    Digest,
    /// How an input enters the key.
    Input,
    /// Nothing.
    Nothing,
}
use In::{Digest, Input, Nothing};

fn place(before: &CacheMap, after: &CacheMap) -> In {
    if before.digest != after.digest {
        Digest
    } else if before.inputs != after.inputs {
        Input
    } else {
        Nothing
    }
}

fn of(op: Op) -> CacheMap {
    let op = pb::Op {
        op: Some(op),
        ..pb::Op::default()
    };
    keys(op, pb::OpMetadata::default())
}

type Row<T> = (&'static str, fn(&mut T), In);

/// Checks that each change of `base` shows where its row says.
fn check<T: Clone>(base: &T, wrap: impl Fn(T) -> Op, rows: &[Row<T>]) {
    let before = of(wrap(base.clone()));
    for (field, change, expected) in rows {
        let mut changed = base.clone();
        change(&mut changed);
        let after = of(wrap(changed));
        assert_eq!(place(&before, &after), *expected, "{field}");
    }
}

fn exec() -> pb::ExecOp {
    let mount = |input, dest: &str, output| pb::Mount {
        input,
        dest: dest.to_owned(),
        output,
        ..pb::Mount::default()
    };
    let special = |kind: pb::MountType, dest: &str| pb::Mount {
        mount_type: kind.into(),
        tmpfs_opt: Some(pb::TmpfsOpt { size: 1 }),
        cache_opt: Some(pb::CacheOpt {
            id: "/c".to_owned(),
            sharing: 0,
        }),
        secret_opt: Some(pb::SecretOpt::default()),
        ssh_opt: Some(pb::SshOpt::default()),
        ..mount(-1, dest, -1)
    };
    let read = pb::Mount {
        selector: "/s".to_owned(),
        readonly: true,
        ..mount(1, "/m", -1)
    };
    pb::ExecOp {
        meta: Some(pb::Meta {
            args: vec!["a".to_owned()],
            proxy_env: Some(pb::ProxyEnv::default()),
            extra_hosts: vec![pb::HostIp::default()],
            ulimit: vec![pb::Ulimit::default()],
            ..pb::Meta::default()
        }),
        mounts: vec![
            mount(0, "/", 0),
            read,
            special(pb::MountType::Secret, "/e"),
            special(pb::MountType::Ssh, "/h"),
            special(pb::MountType::Cache, "/c"),
            special(pb::MountType::Tmpfs, "/t"),
        ],
        secretenv: vec![pb::SecretEnv {
            id: "s".to_owned(),
            name: "S".to_owned(),
            optional: false,
        }],
        cdi_devices: vec![pb::CdiDevice::default()],
        ..pb::ExecOp::default()
    }
}

fn meta(exec: &mut pb::ExecOp) -> &mut pb::Meta {
    exec.meta.as_mut().unwrap()
}

fn proxies(exec: &mut pb::ExecOp) -> &mut pb::ProxyEnv {
    meta(exec).proxy_env.as_mut().unwrap()
}

#[test]
fn all_of_a_process_is_in_the_key_but_proxies_and_addresses() {
    // A field that is added has to be told of here.
    let pb::ExecOp {
        meta: _,
        mounts: _,
        network: _,
        security: _,
        secretenv: _,
        cdi_devices: _,
    } = exec();
    let pb::Meta {
        args: _,
        env: _,
        cwd: _,
        user: _,
        proxy_env: _,
        extra_hosts: _,
        hostname: _,
        ulimit: _,
        cgroup_parent: _,
        remove_mount_stubs_recursive: _,
        valid_exit_codes: _,
    } = exec().meta.unwrap();
    check(
        &exec(),
        Op::Exec,
        &[
            ("args", |it| meta(it).args.push("b".to_owned()), Digest),
            ("env", |it| meta(it).env.push("A=1".to_owned()), Digest),
            ("cwd", |it| meta(it).cwd = "/w".to_owned(), Digest),
            ("user", |it| meta(it).user = "1".to_owned(), Digest),
            (
                "http_proxy",
                |it| proxies(it).http_proxy = "p".to_owned(),
                Nothing,
            ),
            (
                "https_proxy",
                |it| proxies(it).https_proxy = "p".to_owned(),
                Nothing,
            ),
            (
                "ftp_proxy",
                |it| proxies(it).ftp_proxy = "p".to_owned(),
                Nothing,
            ),
            (
                "no_proxy",
                |it| proxies(it).no_proxy = "p".to_owned(),
                Nothing,
            ),
            (
                "all_proxy",
                |it| proxies(it).all_proxy = "p".to_owned(),
                Nothing,
            ),
            (
                "extraHosts.Host",
                |it| meta(it).extra_hosts[0].host = "h".to_owned(),
                Digest,
            ),
            (
                "extraHosts.IP",
                |it| meta(it).extra_hosts[0].ip = "1.1.1.1".to_owned(),
                Nothing,
            ),
            ("hostname", |it| meta(it).hostname = "h".to_owned(), Digest),
            (
                "ulimit.Name",
                |it| meta(it).ulimit[0].name = "n".to_owned(),
                Digest,
            ),
            ("ulimit.Soft", |it| meta(it).ulimit[0].soft = 1, Digest),
            ("ulimit.Hard", |it| meta(it).ulimit[0].hard = 1, Digest),
            (
                "cgroupParent",
                |it| meta(it).cgroup_parent = "c".to_owned(),
                Digest,
            ),
            (
                "removeMountStubsRecursive",
                |it| meta(it).remove_mount_stubs_recursive = true,
                Digest,
            ),
            (
                "validExitCodes",
                |it| meta(it).valid_exit_codes.push(1),
                Digest,
            ),
            ("network", |it| it.set_network(pb::NetMode::None), Digest),
            (
                "security",
                |it| it.set_security(pb::SecurityMode::Insecure),
                Digest,
            ),
            (
                "secretenv.ID",
                |it| it.secretenv[0].id = "t".to_owned(),
                Digest,
            ),
            (
                "secretenv.name",
                |it| it.secretenv[0].name = "T".to_owned(),
                Digest,
            ),
            (
                "secretenv.optional",
                |it| it.secretenv[0].optional = true,
                Digest,
            ),
            (
                "cdiDevices.name",
                |it| it.cdi_devices[0].name = "n".to_owned(),
                Digest,
            ),
            (
                "cdiDevices.optional",
                |it| it.cdi_devices[0].optional = true,
                Digest,
            ),
        ],
    );
}

fn secret(exec: &mut pb::ExecOp) -> &mut pb::SecretOpt {
    exec.mounts[2].secret_opt.as_mut().unwrap()
}

fn agent(exec: &mut pb::ExecOp) -> &mut pb::SshOpt {
    exec.mounts[3].ssh_opt.as_mut().unwrap()
}

fn cache(exec: &mut pb::ExecOp) -> &mut pb::CacheOpt {
    exec.mounts[4].cache_opt.as_mut().unwrap()
}

#[test]
fn the_layout_of_mounts_is_in_the_key_and_not_what_a_cache_mount_is_called() {
    let pb::Mount {
        input: _,
        selector: _,
        dest: _,
        output: _,
        readonly: _,
        mount_type: _,
        tmpfs_opt: _,
        cache_opt: _,
        secret_opt: _,
        ssh_opt: _,
        result_id: _,
        content_cache: _,
    } = pb::Mount::default();
    let off = |it: &mut pb::ExecOp| it.mounts[1].set_content_cache(pb::MountContentCache::Off);
    check(
        &exec(),
        Op::Exec,
        &[
            ("input", |it| it.mounts[1].input = 2, Digest),
            // It is in the input's key.
            (
                "selector",
                |it| it.mounts[1].selector = "/o".to_owned(),
                Input,
            ),
            ("dest", |it| it.mounts[1].dest = "/n".to_owned(), Digest),
            ("output", |it| it.mounts[1].output = 1, Digest),
            ("readonly", |it| it.mounts[1].readonly = false, Digest),
            (
                "mountType",
                |it| it.mounts[5].set_mount_type(pb::MountType::Bind),
                Digest,
            ),
            ("TmpfsOpt.size", |it| it.mounts[5].tmpfs_opt = None, Digest),
            // Those that the Dockerfile's defaults make; all others are one, as shown below.
            ("cacheOpt.ID", |it| cache(it).id = "x".to_owned(), Digest),
            ("cacheOpt.sharing", |it| cache(it).sharing = 2, Digest),
            ("secretOpt.ID", |it| secret(it).id = "i".to_owned(), Digest),
            ("secretOpt.uid", |it| secret(it).uid = 1, Digest),
            ("secretOpt.gid", |it| secret(it).gid = 1, Digest),
            ("secretOpt.mode", |it| secret(it).mode = 1, Digest),
            (
                "secretOpt.optional",
                |it| secret(it).optional = true,
                Digest,
            ),
            ("SSHOpt.ID", |it| agent(it).id = "i".to_owned(), Digest),
            ("SSHOpt.uid", |it| agent(it).uid = 1, Digest),
            ("SSHOpt.gid", |it| agent(it).gid = 1, Digest),
            ("SSHOpt.mode", |it| agent(it).mode = 1, Digest),
            ("SSHOpt.optional", |it| agent(it).optional = true, Digest),
            (
                "resultID",
                |it| it.mounts[1].result_id = "r".to_owned(),
                Digest,
            ),
            ("contentCache", off, Digest),
        ],
    );
    let with = |id: &str, sharing| {
        let mut exec = exec();
        *cache(&mut exec) = pb::CacheOpt {
            id: id.to_owned(),
            sharing,
        };
        of(Op::Exec(exec))
    };
    assert_eq!(with("x", 0), with("y", 2));
    assert_eq!(with("x", 0), with("/c", 1));
    assert_ne!(with("namespace//c", 0), with("x", 0));
}

fn owner(user: pb::user_opt::User, group: pb::user_opt::User) -> pb::ChownOpt {
    let option = |user| Some(pb::UserOpt { user: Some(user) });
    pb::ChownOpt {
        user: option(user),
        group: option(group),
    }
}

fn id(id: u32) -> pb::user_opt::User {
    pb::user_opt::User::ById(id)
}

fn name(name: &str, input: i64) -> pb::user_opt::User {
    let name = name.to_owned();
    pb::user_opt::User::ByName(pb::NamedUserOpt { name, input })
}

/// An op that does one thing to its first input.
fn one(action: Action) -> Op {
    let action = pb::FileAction {
        input: 0,
        secondary_input: 1,
        output: 0,
        action: Some(action),
    };
    Op::File(pb::FileOp {
        actions: vec![action],
    })
}

#[test]
fn all_of_a_copy_is_in_the_key() {
    let pb::FileActionCopy {
        src: _,
        dest: _,
        owner: _,
        mode: _,
        follow_symlink: _,
        dir_copy_contents: _,
        attempt_unpack_docker_compatibility: _,
        create_dest_path: _,
        allow_wildcard: _,
        allow_empty_wildcard: _,
        timestamp: _,
        include_patterns: _,
        exclude_patterns: _,
        always_replace_existing_dest_paths: _,
        mode_str: _,
        required_paths: _,
    } = pb::FileActionCopy::default();
    let base = pb::FileActionCopy {
        src: "/d/f".to_owned(),
        dest: "/to".to_owned(),
        owner: Some(owner(id(1), name("n", 2))),
        mode: -1,
        timestamp: -1,
        ..pb::FileActionCopy::default()
    };
    check(
        &base,
        |copy| one(Action::Copy(copy)),
        &[
            ("src", |it| it.src = "/d/g".to_owned(), Digest),
            // Where it lies is in the input's key.
            ("src, its directory", |it| it.src = "/e/f".to_owned(), Input),
            ("dest", |it| it.dest = "/at".to_owned(), Digest),
            ("owner", |it| it.owner = None, Digest),
            (
                "owner.user",
                |it| it.owner = Some(owner(id(2), name("n", 2))),
                Digest,
            ),
            (
                "owner.group.name",
                |it| it.owner = Some(owner(id(1), name("m", 2))),
                Digest,
            ),
            (
                "owner.group.input",
                |it| it.owner = Some(owner(id(1), name("n", 1))),
                Digest,
            ),
            (
                "owner.group",
                |it| it.owner = Some(owner(id(1), id(0))),
                Digest,
            ),
            ("mode", |it| it.mode = 0o600, Digest),
            ("followSymlink", |it| it.follow_symlink = true, Digest),
            ("dirCopyContents", |it| it.dir_copy_contents = true, Digest),
            (
                "attemptUnpackDockerCompatibility",
                |it| it.attempt_unpack_docker_compatibility = true,
                Digest,
            ),
            ("createDestPath", |it| it.create_dest_path = true, Digest),
            ("allowWildcard", |it| it.allow_wildcard = true, Digest),
            (
                "allowEmptyWildcard",
                |it| it.allow_empty_wildcard = true,
                Digest,
            ),
            ("timestamp", |it| it.timestamp = 0, Digest),
            (
                "include_patterns",
                |it| it.include_patterns.push("a".to_owned()),
                Digest,
            ),
            (
                "exclude_patterns",
                |it| it.exclude_patterns.push("a".to_owned()),
                Digest,
            ),
            (
                "alwaysReplaceExistingDestPaths",
                |it| it.always_replace_existing_dest_paths = true,
                Digest,
            ),
            ("modeStr", |it| it.mode_str = "a+r".to_owned(), Digest),
            (
                "required_paths",
                |it| it.required_paths.push("/d/f".to_owned()),
                Digest,
            ),
        ],
    );
}

#[test]
fn all_of_the_other_file_actions_is_in_the_key() {
    let pb::FileActionMkFile {
        path: _,
        mode: _,
        data: _,
        owner: _,
        timestamp: _,
    } = pb::FileActionMkFile::default();
    check(
        &pb::FileActionMkFile::default(),
        |it| one(Action::Mkfile(it)),
        &[
            ("path", |it| it.path = "/f".to_owned(), Digest),
            ("mode", |it| it.mode = 0o600, Digest),
            ("data", |it| it.data = b"d".to_vec(), Digest),
            ("owner", |it| it.owner = Some(owner(id(0), id(1))), Digest),
            ("timestamp", |it| it.timestamp = 1, Digest),
        ],
    );
    let pb::FileActionMkDir {
        path: _,
        mode: _,
        make_parents: _,
        owner: _,
        timestamp: _,
    } = pb::FileActionMkDir::default();
    check(
        &pb::FileActionMkDir::default(),
        |it| one(Action::Mkdir(it)),
        &[
            ("path", |it| it.path = "/f".to_owned(), Digest),
            ("mode", |it| it.mode = 0o700, Digest),
            ("makeParents", |it| it.make_parents = true, Digest),
            ("owner", |it| it.owner = Some(owner(id(0), id(1))), Digest),
            ("timestamp", |it| it.timestamp = 1, Digest),
        ],
    );
    let pb::FileActionSymlink {
        oldpath: _,
        newpath: _,
        owner: _,
        timestamp: _,
    } = pb::FileActionSymlink::default();
    check(
        &pb::FileActionSymlink::default(),
        |it| one(Action::Symlink(it)),
        &[
            ("oldpath", |it| it.oldpath = "/f".to_owned(), Digest),
            ("newpath", |it| it.newpath = "/f".to_owned(), Digest),
            ("owner", |it| it.owner = Some(owner(id(0), id(1))), Digest),
            ("timestamp", |it| it.timestamp = 1, Digest),
        ],
    );
    let pb::FileActionRm {
        path: _,
        allow_not_found: _,
        allow_wildcard: _,
    } = pb::FileActionRm::default();
    check(
        &pb::FileActionRm::default(),
        |it| one(Action::Rm(it)),
        &[
            ("path", |it| it.path = "/f".to_owned(), Digest),
            ("allowNotFound", |it| it.allow_not_found = true, Digest),
            ("allowWildcard", |it| it.allow_wildcard = true, Digest),
        ],
    );
}

#[test]
fn which_action_reads_what_is_in_the_key() {
    let action = |input, secondary_input, output| pb::FileAction {
        input,
        secondary_input,
        output,
        action: Some(Action::Copy(pb::FileActionCopy {
            src: "/f".to_owned(),
            ..pb::FileActionCopy::default()
        })),
    };
    let base = pb::FileOp {
        actions: vec![action(0, 1, 0), action(0, 1, 1)],
    };
    check(
        &base,
        Op::File,
        &[
            ("input", |it| it.actions[1].input = 3, Digest),
            (
                "secondaryInput",
                |it| it.actions[1].secondary_input = 2,
                Digest,
            ),
            (
                "output",
                |it| (it.actions[0].output, it.actions[1].output) = (1, 0),
                Digest,
            ),
            ("actions", |it| it.actions.truncate(1), Digest),
        ],
    );
}

#[test]
fn what_the_other_ops_do_is_in_the_key() {
    let pb::BuildOp {
        builder: _,
        inputs: _,
        def: _,
        attrs: _,
    } = pb::BuildOp::default();
    let build = pb::BuildOp {
        builder: -1,
        inputs: [("d".to_owned(), pb::BuildInput { input: 0 })].into(),
        ..pb::BuildOp::default()
    };
    check(
        &build,
        Op::Build,
        &[
            (
                "inputs.name",
                |it| {
                    let further = ("e".to_owned(), pb::BuildInput::default());
                    it.inputs.extend([further]);
                },
                Digest,
            ),
            (
                "inputs.input",
                |it| it.inputs.get_mut("d").unwrap().input = 1,
                Digest,
            ),
            ("def", |it| it.def = Some(pb::Definition::default()), Digest),
            (
                "attrs",
                |it| it.attrs.extend([("a".to_owned(), "b".to_owned())]),
                Digest,
            ),
        ],
    );
    let merge = pb::MergeOp {
        inputs: [0, 1, 2].map(|input| pb::MergeInput { input }).to_vec(),
    };
    check(
        &merge,
        Op::Merge,
        &[("inputs", |it| it.inputs.reverse(), Digest)],
    );
    let passthrough = pb::PassthroughOp {
        id: "p".to_owned(),
        outputs: vec![0, 1],
    };
    check(
        &passthrough,
        Op::Passthrough,
        &[
            ("id", |it| it.id = "q".to_owned(), Digest),
            ("outputs", |it| it.outputs.reverse(), Digest),
        ],
    );
}

#[test]
fn a_platform_is_in_the_key_of_a_process_and_what_is_said_of_an_op_is_not() {
    let op = || pb::Op {
        op: Some(Op::Exec(exec())),
        platform: Some(pb::Platform {
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            ..pb::Platform::default()
        }),
        ..pb::Op::default()
    };
    let pb::Platform {
        architecture: _,
        os: _,
        variant: _,
        os_version: _,
        os_features: _,
    } = pb::Platform::default();
    let before = keys(op(), pb::OpMetadata::default());
    let changes: [fn(&mut pb::Platform); 5] = [
        |it| it.architecture = "arm64".to_owned(),
        |it| it.os = "windows".to_owned(),
        |it| it.variant = "v3".to_owned(),
        |it| it.os_version = "1".to_owned(),
        |it| it.os_features.push("f".to_owned()),
    ];
    for change in changes {
        let mut op = op();
        change(op.platform.as_mut().unwrap());
        let after = keys(op, pb::OpMetadata::default());
        assert_eq!(place(&before, &after), Digest);
    }
    let mut op = op();
    op.constraints = Some(pb::WorkerConstraints {
        filter: vec!["label==x".to_owned()],
    });
    let said = pb::OpMetadata {
        ignore_cache: true,
        description: [("llb.customname".to_owned(), "n".to_owned())].into(),
        export_cache: Some(pb::ExportCache { value: true }),
        caps: [("exec.meta.base".to_owned(), true)].into(),
        progress_group: Some(pb::ProgressGroup::default()),
        linux_resources: Some(pb::LinuxResources {
            memory: 1,
            ..pb::LinuxResources::default()
        }),
    };
    assert_eq!(place(&before, &keys(op, said)), Nothing);
}
