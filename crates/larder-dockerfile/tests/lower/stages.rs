//! Stages, platforms, options, and the config they give.

use std::fmt::Write as _;

use larder_dockerfile::{Dockerfile, Network, NoCache, ResolveMode, Ulimit};
use larder_llb::pb;
use larder_oci::Digest;

use crate::{
    copies, exec, history, images, local_attr, lower, lower_with, names, options, try_lower, vertex,
};

#[test]
fn only_reachable_stages_are_built() {
    let text = "FROM base AS a\nRUN a\nFROM base AS unused\nRUN no\nCOPY --from=missing / /\n\
        FROM A AS b\nCOPY --from=0 /x /y\nCOPY --from=other:1 /x /z\nFROM scratch\nCOPY --from=B / /\n";
    assert_eq!(
        names(&lower(text)),
        [
            format!(
                "[a 1/2] FROM docker.io/library/base:latest@{}",
                Digest::sha256("base:latest")
            ),
            "[a 2/2] RUN a".to_owned(),
            "[b 1/2] COPY --from=0 /x /y".to_owned(),
            format!(
                "FROM docker.io/library/other:1@{}",
                Digest::sha256("other:1")
            ),
            "[b 2/2] COPY --from=other:1 /x /z".to_owned(),
            "[stage-3 1/1] COPY --from=B / /".to_owned(),
        ]
    );
    let target = lower_with(text, |options| options.target = Some("A".into()));
    assert_eq!(target.definition.vertices().len(), 2);
    let requests = Dockerfile::parse(text.as_bytes(), "Dockerfile")
        .unwrap()
        .base_images(&options())
        .unwrap();
    let wanted: Vec<String> = requests.iter().map(|r| r.image_ref.to_string()).collect();
    assert_eq!(
        wanted,
        ["docker.io/library/base:latest", "docker.io/library/other:1"]
    );
    assert_eq!(
        requests[0].log_name,
        "[internal] load metadata for docker.io/library/base:latest"
    );
}

#[test]
fn scratch_alone_is_the_empty_graph() {
    let lowered = lower("FROM scratch\nLABEL a=b\n");
    assert_eq!(lowered.definition.result(), None);
    assert_eq!(lowered.config.config.working_dir, "/");
    assert_eq!(lowered.config.config.labels["a"], "b");
}

#[test]
fn triggers_of_images_and_stages_run_first() {
    let images = images(|config| {
        config.config.on_build = vec![
            "COPY --from=other /x /x".to_owned(),
            "RUN <<E\necho t\nE".to_owned(),
        ];
    });
    let text = "FROM base AS a\nONBUILD ENV T=1\nONBUILD RUN in $T\nFROM a\nRUN last\n";
    let lowered = try_lower(text, &options(), &images).unwrap();
    assert_eq!(
        names(&lowered)[2..],
        [
            "[a 2/3] ONBUILD COPY --from=other /x /x",
            "[a 3/3] ONBUILD RUN <<E (echo t)",
            "[stage-1 1/3] ONBUILD RUN in 1",
            "[stage-1 2/3] RUN last",
        ]
    );
    assert!(lowered.config.config.on_build.is_empty());
    let base = try_lower("FROM base\nONBUILD RUN x\n", &options(), &images).unwrap();
    assert_eq!(base.config.config.on_build, ["RUN x"]);
}

#[test]
fn bad_triggers_are_errors_at_from() {
    for (trigger, message) in [
        ("FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        (
            "RUN a\nRUN b",
            "onbuild trigger should be a single expression",
        ),
        (
            "RUNN a",
            "ONBUILD RUNN a: unknown instruction: RUNN (did you mean RUN?)",
        ),
        ("RUN <<E\n", "ONBUILD RUN <<E\n: unterminated heredoc"),
    ] {
        let images = images(|config| config.config.on_build = vec![trigger.to_owned()]);
        let error = try_lower("# c\nFROM base\n", &options(), &images).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(error.ranges()[0].start, 2, "{trigger}");
    }
}

#[test]
fn platforms_are_names_and_ops() {
    let text = "FROM --platform=$BUILDPLATFORM base AS b\nARG TARGETARCH\nRUN $TARGETARCH\n\
        FROM base\nCOPY --from=b / /\nRUN x\n";
    let lowered = lower_with(text, |options| {
        options.platform = Some("linux/arm64".parse().unwrap());
        options.multi_platform = true;
    });
    assert_eq!(
        vertex(&lowered, "RUN arm64").name(),
        "[linux/amd64->arm64 b 2/2] RUN arm64"
    );
    assert_eq!(
        vertex(&lowered, "RUN x").name(),
        "[linux/arm64 stage-1 3/3] RUN x"
    );
    let platform = |part| {
        vertex(&lowered, part)
            .op
            .platform
            .clone()
            .unwrap()
            .architecture
    };
    assert_eq!(platform("RUN arm64"), "amd64");
    assert_eq!(platform("RUN x"), "arm64");
    assert_eq!(lowered.config.architecture, "arm64");
}

#[test]
fn options_reach_the_ops() {
    let lowered = lower_with(
        "FROM base AS s\nUSER u\nWORKDIR /w\nRUN x\nCOPY a b\n",
        |options| {
            options.network = Network::Host;
            options.extra_hosts = vec![("h".into(), "10.0.0.1".into())];
            options.shm_size_bytes = 64;
            options.hostname = Some("box".into());
            options.cgroup_parent = Some("cg".into());
            options.resolve_mode = ResolveMode::Pull;
            options.no_cache = NoCache::Stages(vec!["S".into()]);
            options.labels.insert("l".into(), "1".into());
            options.ulimits = vec![Ulimit {
                name: "nofile".into(),
                soft: 1,
                hard: 2,
            }];
            for (name, value) in [
                ("HTTP_PROXY", "p"),
                ("BUILDKIT_CACHE_MOUNT_NS", "ns"),
                ("SOURCE_DATE_EPOCH", "5"),
            ] {
                options.build_args.insert(name.into(), value.into());
            }
        },
    );
    let run = exec(&lowered, "RUN x");
    let meta = run.meta.as_ref().unwrap();
    assert_eq!(run.network(), pb::NetMode::Host);
    assert_eq!(meta.extra_hosts[0].host, "h");
    assert_eq!(meta.hostname, "box");
    assert_eq!(meta.cgroup_parent, "cg");
    assert_eq!((meta.user.as_str(), meta.cwd.as_str()), ("u", "/w"));
    assert_eq!(meta.ulimit[0].hard, 2);
    assert_eq!(meta.proxy_env.as_ref().unwrap().http_proxy, "p");
    assert!(meta.env.iter().all(|text| !text.contains("PROXY")));
    assert_eq!(run.mounts[1].dest, "/dev/shm");
    assert_eq!(run.mounts[1].tmpfs_opt.unwrap().size, 64);
    assert!(vertex(&lowered, "RUN x").ignores_cache());
    assert!(vertex(&lowered, "COPY").ignores_cache());
    assert!(!vertex(&lowered, "WORKDIR").ignores_cache());
    let caps = &vertex(&lowered, "RUN x").metadata.caps;
    for cap in [
        "exec.meta.network",
        "exec.meta.ulimit",
        "exec.meta.proxyenv",
    ] {
        assert!(caps.contains_key(cap), "{cap}");
    }
    let encoded = lowered.definition.to_pb();
    let tail = Digest::sha256(encoded.def.last().unwrap()).to_string();
    assert!(
        encoded.metadata[&tail]
            .caps
            .contains_key("meta.ignorecache")
    );
    assert_eq!(
        local_attr(&lowered, "FROM", "image.resolvemode").as_deref(),
        Some("pull")
    );
    let Some(pb::op::Op::File(file)) = &vertex(&lowered, "WORKDIR").op.op else {
        panic!("a file op");
    };
    let made = file.actions[0].action.as_ref().unwrap();
    assert!(matches!(made, pb::file_action::Action::Mkdir(m) if m.timestamp == 5_000_000_000));
    assert_eq!(
        copies(&lowered, "COPY")[0].timestamp,
        -1,
        "sources keep their times"
    );
    assert_eq!(copies(&lowered, "COPY")[0].dest, "/w/b");
    assert_eq!(lowered.config.config.labels["l"], "1");
    let last = lowered.config.history.last().unwrap();
    assert_eq!(last.created.as_deref(), Some("1970-01-01T00:00:05Z"));
}

#[test]
fn equal_inputs_are_listed_once() {
    // The seed and the root are the same vertex, though the Dockerfile names two stages.
    let lowered = lower(
        "FROM base AS seed\nFROM base\nRUN --mount=from=seed,target=/s --mount=from=base,target=/t x\n",
    );
    let run = vertex(&lowered, "RUN");
    assert_eq!(run.inputs.len(), 1);
    let inputs: Vec<i64> = exec(&lowered, "RUN")
        .mounts
        .iter()
        .map(|m| m.input)
        .collect();
    assert_eq!(inputs, [0, 0, 0]);
    let lowered = lower("FROM base\nCOPY --chown=u --from=base a b c/\n");
    let Some(pb::op::Op::File(file)) = &vertex(&lowered, "COPY").op.op else {
        panic!("a file op");
    };
    let indexes: Vec<_> = file
        .actions
        .iter()
        .map(|a| (a.input, a.secondary_input, a.output))
        .collect();
    assert_eq!(indexes, [(0, 0, -1), (1, 0, 0)]);
}

#[test]
fn metadata_instructions_shape_the_config() {
    let lowered = lower(
        "FROM base\nMAINTAINER joe\nCMD [\"a\"]\nENTRYPOINT exec x\nSHELL [\"/bin/bash\", \"-c\"]\n\
         EXPOSE 8000 ${X:-9000-9001}/UDP\nVOLUME [\"/a b\"]\nSTOPSIGNAL ${S:-9}\n\
         HEALTHCHECK --interval=1m30s CMD [\"a\", \"b\"]\nWORKDIR a\nWORKDIR ..\nUSER 1:2\nENV k v w\n",
    );
    let config = &lowered.config.config;
    assert_eq!(lowered.config.author, "joe");
    assert_eq!(config.cmd.as_deref(), Some(&["a".to_owned()][..]));
    assert_eq!(config.entrypoint.as_ref().unwrap()[2], "exec x");
    assert_eq!(
        config.exposed_ports.keys().collect::<Vec<_>>(),
        ["8000/tcp", "9000/udp", "9001/udp"]
    );
    assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/a b"]);
    assert_eq!(
        config.healthcheck.as_ref().unwrap().interval,
        90_000_000_000
    );
    assert_eq!(config.env.last().unwrap(), "k=v w");
    assert_eq!(
        history(&lowered)[1..],
        [
            "MAINTAINER joe",
            "CMD [\"a\"]",
            "ENTRYPOINT [\"/bin/sh\" \"-c\" \"exec x\"]",
            "SHELL [/bin/bash -c]",
            "EXPOSE [9000/udp 9001/udp 8000/tcp]",
            "VOLUME [/a b]",
            "STOPSIGNAL 9",
            "HEALTHCHECK {Test:[CMD a b] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
            "WORKDIR /a",
            "WORKDIR /",
            "USER 1:2",
            "ENV k=v w",
        ]
    );
    let layers = lowered
        .config
        .history
        .iter()
        .filter(|entry| !entry.empty_layer);
    assert_eq!(layers.count(), 2, "the base's, and WORKDIR /a");
    let inherited = lower("FROM base\nENTRYPOINT [\"x\"]\n");
    assert_eq!(inherited.config.config.cmd, None);
}

#[test]
fn long_chains_do_not_overflow_the_stack() {
    let mut text = "FROM base AS s0\n".to_owned();
    for stage in 1..500 {
        write!(text, "FROM s{} AS s{stage}\nRUN {stage}\n", stage - 1).unwrap();
    }
    for stage in 0..5_000 {
        write!(
            text,
            "FROM scratch AS c{stage}\nCOPY --from=c{} / /\n",
            stage + 1
        )
        .unwrap();
    }
    text.push_str("FROM scratch AS c5000\nFROM s499\nRUN end\n");
    assert_eq!(lower(&text).definition.vertices().len(), 501);
}
