//! What Dockerfiles become: graphs, configs and step records.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use larder_dockerfile::{
    Dockerfile, EnvOrigin, EpochSource, Error, HttpContext, ImageRequest, ImageResolver,
    LocalContext, LowerOptions, Lowered, NamedContext, Network, NoCache, OciLayout, ResolveError,
    ResolveMode, ResolvedImage, Ulimit,
};
use larder_llb::git::GitRef;
use larder_llb::{Vertex, pb};
use larder_oci::{Digest, HistoryEntry, ImageConfig};

/// Images by their short name; the digest is that of the name.
struct Images(BTreeMap<String, ImageConfig>);

impl ImageResolver for Images {
    fn resolve_image_config(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        let name = request.image_ref.familiar();
        let config = self.0.get(&name).ok_or("not found")?;
        Ok(ResolvedImage {
            digest: Digest::sha256(&name),
            config: config.clone(),
        })
    }
}

/// An image `base` with one layer.
fn base_image() -> ImageConfig {
    let mut config = ImageConfig {
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        created: Some("2025-01-01T00:00:00Z".to_owned()),
        history: vec![HistoryEntry {
            created_by: "base".to_owned(),
            ..HistoryEntry::default()
        }],
        ..ImageConfig::default()
    };
    config.config.env = vec!["PATH=/bin".to_owned(), "BASE=1".to_owned()];
    config.config.cmd = Some(vec!["base-cmd".to_owned()]);
    config.rootfs.diff_ids = vec![Digest::sha256("layer")];
    config
}

fn images(change: impl FnOnce(&mut ImageConfig)) -> Images {
    let mut config = base_image();
    change(&mut config);
    let plain = ["other:latest", "other:1"].map(|name| (name.to_owned(), base_image()));
    let mut images: BTreeMap<String, ImageConfig> = plain.into();
    images.insert("base:latest".to_owned(), config);
    Images(images)
}

fn options() -> LowerOptions {
    LowerOptions {
        build_platform: "linux/amd64".parse().unwrap(),
        ..LowerOptions::default()
    }
}

fn try_lower(text: &str, options: &LowerOptions, images: &Images) -> Result<Lowered, Error> {
    Dockerfile::parse(text.as_bytes(), "Dockerfile")?.lower(options, images)
}

fn lower(text: &str) -> Lowered {
    lower_with(text, |_| {})
}

fn lower_with(text: &str, change: impl FnOnce(&mut LowerOptions)) -> Lowered {
    let mut options = options();
    change(&mut options);
    try_lower(text, &options, &images(|_| {})).unwrap()
}

fn names(lowered: &Lowered) -> Vec<String> {
    lowered
        .definition
        .vertices()
        .iter()
        .map(Vertex::name)
        .collect()
}

fn vertex<'a>(lowered: &'a Lowered, part: &str) -> &'a Vertex {
    let mut found = lowered.definition.vertices().iter();
    found
        .find(|vertex| vertex.name().contains(part))
        .unwrap_or_else(|| panic!("no `{part}` in {:#?}", names(lowered)))
}

fn exec<'a>(lowered: &'a Lowered, part: &str) -> &'a pb::ExecOp {
    match &vertex(lowered, part).op.op {
        Some(pb::op::Op::Exec(exec)) => exec,
        other => panic!("`{part}` is {other:?}"),
    }
}

fn meta<'a>(lowered: &'a Lowered, part: &str) -> &'a pb::Meta {
    exec(lowered, part).meta.as_ref().unwrap()
}

fn copies<'a>(lowered: &'a Lowered, part: &str) -> Vec<&'a pb::FileActionCopy> {
    let Some(pb::op::Op::File(file)) = &vertex(lowered, part).op.op else {
        panic!("`{part}` copies nothing");
    };
    let actions = file.actions.iter().map(|action| match &action.action {
        Some(pb::file_action::Action::Copy(copy)) => copy,
        other => panic!("`{part}` does {other:?}"),
    });
    actions.collect()
}

fn local_attr(lowered: &Lowered, name: &str, attr: &str) -> Option<String> {
    let Some(pb::op::Op::Source(source)) = &vertex(lowered, name).op.op else {
        panic!("`{name}` is no source");
    };
    source.attrs.get(attr).cloned()
}

fn history(lowered: &Lowered) -> Vec<&str> {
    let entries = lowered.config.history.iter();
    entries.map(|entry| entry.created_by.as_str()).collect()
}

#[test]
fn variables_follow_scope_and_precedence() {
    let text = "ARG G=global\nARG T=1\n\
        FROM base\n\
        ARG A=1\nENV A=2\nARG G\nARG unset\nARG B=${unset:-z}${T:-no} C=\"x y\"\n\
        ENV OLD=a\nENV OLD=b NEW=$OLD\n\
        RUN echo $A $OLD \"$NEW\" '$A' $nope\n\
        FROM base\nRUN echo $A\n";
    let lowered = lower_with(text, |options| {
        options.target = None;
        options.build_args.insert("A".into(), "7".into());
        options.build_args.insert("G".into(), "given".into());
        options.build_args.insert("ignored".into(), "1".into());
    });
    assert_eq!(names(&lowered).last().unwrap(), "[stage-1 2/2] RUN echo $A");
    let text = text.replace("FROM base\nRUN echo $A\n", "");
    let lowered = lower_with(&text, |options| {
        options.build_args.insert("A".into(), "7".into());
        options.build_args.insert("G".into(), "given".into());
    });
    assert_eq!(
        meta(&lowered, "RUN").env,
        [
            "PATH=/bin",
            "BASE=1",
            "A=2",
            "G=given",
            "B=zno",
            "C=x y",
            "OLD=b",
            "NEW=a"
        ]
    );
    assert_eq!(
        names(&lowered).last().unwrap(),
        "[2/2] RUN echo 2 b \"a\" '$A' $nope"
    );
    assert_eq!(
        history(&lowered)[1..],
        [
            "ARG A=7",
            "ENV A=2",
            "ARG G=given",
            "ARG unset",
            "ARG B=zno C=x y",
            "ENV OLD=a",
            "ENV OLD=b NEW=a",
            "RUN |5 A=2 G=given unset= B=zno C=x y /bin/sh -c echo $A $OLD \"$NEW\" '$A' $nope # buildkit",
        ]
    );
    assert_eq!(
        lowered.config.config.env,
        ["PATH=/bin", "BASE=1", "A=2", "OLD=b", "NEW=a"]
    );
}

#[test]
fn steps_tell_what_set_their_variables() {
    let text = "FROM base AS b\nARG GIT_SHA=x\nENV E=1\nRUN \\\n  make\nFROM b\nRUN two\n";
    let lowered = lower_with(text, |options| {
        options.build_args.insert("GIT_SHA".into(), "abc".into());
    });
    let one = &lowered.steps[&vertex(&lowered, "make").digest];
    assert_eq!(
        (one.stage.as_str(), one.ordinal, one.lines),
        ("b", 2, (4, 5))
    );
    assert_eq!(one.instruction, "RUN   make");
    assert_eq!(
        one.env["GIT_SHA"],
        EnvOrigin::Arg {
            line: 2,
            given: true
        }
    );
    assert_eq!(one.env["E"], EnvOrigin::Env { line: 3 });
    assert_eq!(one.env["BASE"], EnvOrigin::Base);
    let two = &lowered.steps[&vertex(&lowered, "two").digest];
    assert_eq!(two.env, one.env);
    let from = &lowered.steps[&vertex(&lowered, "FROM").digest];
    assert_eq!(from.base_image.as_deref(), Some("base"));
    let (base, config) = lowered.base.as_ref().unwrap();
    assert_eq!(*config, base_image());
    assert_eq!(base.digest(), Some(&Digest::sha256("base:latest")));
}

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
fn exec_env_orders_by_the_last_setting_and_the_image_does_not() {
    let lowered = lower("FROM base AS a\nARG X=1\nENV PATH=/new:$PATH\nRUN one\nFROM a\nRUN two\n");
    assert_eq!(
        meta(&lowered, "one").env,
        ["BASE=1", "X=1", "PATH=/new:/bin"]
    );
    assert_eq!(
        meta(&lowered, "two").env,
        ["X=1", "PATH=/new:/bin", "BASE=1"]
    );
    assert_eq!(lowered.config.config.env, ["PATH=/new:/bin", "BASE=1"]);
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
fn named_contexts_stand_in_for_stages_images_and_sources() {
    let context = |name: &str| {
        NamedContext::Local(LocalContext {
            excludes: vec!["x".to_owned()],
            ..LocalContext::new(name)
        })
    };
    let git = |url| NamedContext::Git(GitRef::parse(url).unwrap().unwrap());
    let text = "FROM base AS dep\nRUN never\nFROM base\nCOPY --from=dep /a/b /a\n\
        COPY --from=extra . /e/\nRUN --mount=from=img,target=/i x\nCOPY --from=repo a /\n";
    let lowered = lower_with(text, |options| {
        options.named_contexts = [
            ("dep".to_owned(), context("dep")),
            (
                "docker.io/library/extra:latest".to_owned(),
                context("extra"),
            ),
            ("img".to_owned(), NamedContext::Image("other:1".into())),
            ("repo".to_owned(), git("https://e.test/a.git#main:d")),
        ]
        .into();
    });
    assert!(names(&lowered).iter().all(|name| !name.contains("never")));
    let attr = |name: &str, attr: &str| local_attr(&lowered, name, &format!("local.{attr}"));
    let dep = "[context dep] load from client";
    assert_eq!(attr(dep, "followpaths").as_deref(), Some("[\"a/b\"]"));
    assert_eq!(attr(dep, "excludepatterns").as_deref(), Some("[\"x\"]"));
    assert_eq!(attr(dep, "sharedkeyhint").as_deref(), Some("context:dep"));
    assert_eq!(attr("[context extra]", "followpaths"), None);
    vertex(&lowered, "[context img] docker.io/library/other:1");
    let repository = source(
        &lowered,
        "[internal] load git source https://e.test/a.git#main:d",
    );
    assert_eq!(repository.identifier, "git://e.test/a.git#main:d");
}

#[test]
fn add_takes_git_repositories() {
    let text = "FROM base\nADD --keep-git-dir=true --chown=1 https://e.test/a.git#v1 /src/\n\
        ADD --link --checksum=abc git@e.test:a/b.git?subdir=/d&submodules=false /src/\n";
    let lowered = lower(text);
    let name = "[2/3] ADD --keep-git-dir=true --chown=1 https://e.test/a.git#v1 /src/";
    let both = lowered.definition.vertices().iter();
    let both: Vec<_> = both.filter(|vertex| vertex.name() == name).collect();
    assert_eq!(both.len(), 2);
    let Some(pb::op::Op::Source(first)) = &both[0].op.op else {
        panic!("{:?}", both[0].op);
    };
    assert_eq!(first.identifier, "git://e.test/a.git#v1");
    assert_eq!(
        attrs(first),
        [
            ("git.authheadersecret", "GIT_AUTH_HEADER"),
            ("git.authtokensecret", "GIT_AUTH_TOKEN"),
            ("git.fullurl", "https://e.test/a.git"),
            ("git.keepgitdir", "true"),
        ]
    );
    let caps = &both[0].metadata.caps;
    for cap in ["source.git", "source.git.fullurl", "source.git.keepgitdir"] {
        assert!(caps.contains_key(cap), "{caps:?}");
    }
    let Some(pb::op::Op::File(file)) = &both[1].op.op else {
        panic!("{:?}", both[1].op);
    };
    let Some(pb::file_action::Action::Copy(copy)) = &file.actions[0].action else {
        panic!("{file:?}");
    };
    assert_eq!((&*copy.src, &*copy.dest), ("/", "/src/"));
    assert!(copy.create_dest_path && copy.owner.is_some());
    assert!(!copy.dir_copy_contents && !copy.allow_wildcard && !copy.follow_symlink);
    let history = &lowered.config.history;
    assert_eq!(
        history[history.len() - 2].created_by,
        "ADD --chown=1 https://e.test/a.git#v1 /src/ # buildkit"
    );
    let name =
        "[3/3] ADD --link --checksum=abc git@e.test:a/b.git?subdir=/d&submodules=false /src/";
    let second = source(&lowered, name);
    assert_eq!(second.identifier, "git://e.test/a/b.git#:/d");
    assert_eq!(
        attrs(second),
        [
            ("git.authheadersecret", "GIT_AUTH_HEADER"),
            ("git.authtokensecret", "GIT_AUTH_TOKEN"),
            ("git.checksum", "abc"),
            ("git.fullurl", "git@e.test:a/b.git"),
            ("git.mountsshsock", "default"),
            ("git.skipsubmodules", "true"),
        ]
    );
}

#[test]
fn run_mounts_ssh_agents() {
    let text = "FROM base\n\
        RUN --mount=type=ssh --mount=type=secret,id=s --mount=type=ssh,id=k,target=/a,required,mode=0644,uid=1 x\n\
        ENV SSH_AUTH_SOCK=/own\nRUN --mount=type=ssh,gid=5 y\n";
    let lowered = lower(text);
    let exec = |name: &str| exec(&lowered, name).clone();
    let agents = |exec: &pb::ExecOp| -> Vec<(String, pb::SshOpt)> {
        let mounts = exec.mounts.iter();
        let mounts = mounts.filter_map(|it| Some((it.dest.clone(), it.ssh_opt.clone()?)));
        mounts.collect()
    };
    let option = |id: &str, uid, gid, mode, optional| pb::SshOpt {
        id: id.to_owned(),
        uid,
        gid,
        mode,
        optional,
    };
    let first = exec("2/3] RUN");
    assert_eq!(
        agents(&first),
        [
            (
                "/run/buildkit/ssh_agent.0".to_owned(),
                option("", 0, 0, 0o600, true)
            ),
            ("/a".to_owned(), option("k", 1, 0, 0o644, false)),
        ]
    );
    assert!(first.mounts[1].secret_opt.is_some(), "{:?}", first.mounts);
    let env = |exec: &pb::ExecOp| exec.meta.clone().unwrap().env;
    let last = "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0";
    assert_eq!(env(&first).last().map(String::as_str), Some(last));
    assert!(
        vertex(&lowered, "2/3] RUN")
            .metadata
            .caps
            .contains_key("exec.mount.ssh")
    );
    let second = exec("3/3] RUN");
    let sockets: Vec<String> = env(&second)
        .into_iter()
        .filter(|text| text.starts_with("SSH_AUTH_SOCK="))
        .collect();
    assert_eq!(sockets, ["SSH_AUTH_SOCK=/own"]);
}

fn source<'a>(lowered: &'a Lowered, name: &str) -> &'a pb::SourceOp {
    match &vertex(lowered, name).op.op {
        Some(pb::op::Op::Source(source)) => source,
        other => panic!("{other:?}"),
    }
}

fn attrs(source: &pb::SourceOp) -> Vec<(&str, &str)> {
    let pairs = source.attrs.iter();
    let mut attrs: Vec<_> = pairs.map(|(name, value)| (&**name, &**value)).collect();
    attrs.sort_unstable();
    attrs
}

fn copies_from(lowered: &Lowered, name: &str) -> Vec<(i64, pb::FileActionCopy)> {
    let vertices = lowered.definition.vertices().iter();
    let mut files = vertices.filter(|vertex| vertex.name().contains(name));
    let file = files.find_map(|vertex| match &vertex.op.op {
        Some(pb::op::Op::File(file)) => Some(file),
        _ => None,
    });
    let actions = file.unwrap().actions.iter();
    let copy = |action: &pb::FileAction| match &action.action {
        Some(pb::file_action::Action::Copy(copy)) => (action.secondary_input, copy.clone()),
        other => panic!("{other:?}"),
    };
    actions.map(copy).collect()
}

#[test]
fn downloads_are_sources_of_their_own() {
    let sum = Digest::sha256("x");
    let lowered = lower(&format!(
        "FROM base\nADD --checksum={sum} --chown=1:2 --chmod=755 https://x.test/d/a.tar?v=1 /t/\n"
    ));
    let name = "[2/2] ADD --checksum";
    let http = source(&lowered, name);
    assert_eq!(http.identifier, "https://x.test/d/a.tar?v=1");
    assert_eq!(
        attrs(http),
        [("http.checksum", sum.as_str()), ("http.filename", "a.tar")]
    );
    assert_eq!(vertex(&lowered, name).op.platform, None);
    let [(1, copy)] = &copies_from(&lowered, name)[..] else {
        panic!("one copy from the second input");
    };
    let expected = pb::FileActionCopy {
        src: "/a.tar".to_owned(),
        dest: "/t/".to_owned(),
        owner: copy.owner.clone(),
        mode: 0o755,
        create_dest_path: true,
        timestamp: -1,
        ..pb::FileActionCopy::default()
    };
    assert_eq!(*copy, expected);
    assert!(copy.owner.is_some());
    let last = lowered.config.history.last().unwrap();
    assert_eq!(
        last.created_by,
        "ADD --chown=1:2 --chmod=755 https://x.test/d/a.tar?v=1 /t/ # buildkit"
    );
}

#[test]
fn downloads_and_paths_may_be_mixed() {
    let lowered = lower(
        "FROM base\nADD https://x.test/a b.txt https://x.test/c b2.txt /t/\n\
         ADD --unpack=true https://x.test/t.tgz /u/\n",
    );
    let first = copies_from(&lowered, "ADD https://x.test/a b.txt");
    let first: Vec<_> = first
        .iter()
        .map(|(input, copy)| {
            let unpacks = copy.attempt_unpack_docker_compatibility;
            (*input, &*copy.src, unpacks, copy.allow_wildcard)
        })
        .collect();
    assert_eq!(
        first,
        [
            (1, "/a", false, false),
            (2, "/b.txt", true, true),
            (3, "/c", false, false),
            (2, "/b2.txt", true, true)
        ]
    );
    let [(1, unpacked)] = &copies_from(&lowered, "t.tgz")[..] else {
        panic!("one copy");
    };
    assert!(unpacked.attempt_unpack_docker_compatibility);
    assert_eq!(
        local_attr(&lowered, "load build context", "local.followpaths").as_deref(),
        Some("[\"b.txt\",\"b2.txt\"]")
    );
    // A download alone needs no context.
    let alone = lower("FROM base\nADD https://x.test/a /\n");
    assert!(names(&alone).iter().all(|name| !name.contains("context")));
}

#[test]
fn named_contexts_may_be_downloads_and_layouts() {
    let digest = Digest::sha256("manifest");
    let layout = OciLayout {
        store: "store".to_owned(),
        session: None,
        digest: digest.clone(),
    };
    let text = "FROM dep\nCOPY --from=file /context /f\n";
    let mut options = options();
    options.named_contexts = [
        ("dep".to_owned(), NamedContext::OciLayout(layout)),
        (
            "file".to_owned(),
            NamedContext::Http("http://x.test/f.tgz".to_owned()),
        ),
    ]
    .into();
    let mut images = images(|_| {});
    images.0.insert(format!("dep@{digest}"), base_image());
    let lowered = try_lower(text, &options, &images).unwrap();
    let file = source(&lowered, "[context file] http://x.test/f.tgz");
    assert_eq!(attrs(file), [("http.filename", "context")]);
    let dep = source(&lowered, "[context dep] OCI load from client");
    let image = format!("docker.io/library/dep@{digest}");
    assert_eq!(dep.identifier, format!("oci-layout://{image}"));
    assert_eq!(attrs(dep), [("oci.store", "store")]);
    assert_eq!(lowered.base.unwrap().0.to_string(), image);
}

#[test]
fn a_context_may_be_fetched() {
    let url = "https://x.test/c.tgz";
    for (form, sources) in [(HttpContext::File, 1), (HttpContext::Archive, 2)] {
        let context = Arc::new(form.definition(url).unwrap());
        assert_eq!(context.vertices().len(), sources);
        let lowered = lower_with("FROM base\nCOPY a b /d/\n", |options| {
            options.remote_context = Some(Arc::clone(&context));
        });
        let copy = vertex(&lowered, "COPY");
        assert_eq!(copy.inputs.last(), context.result());
        assert_eq!(lowered.definition.vertices().len(), sources + 2);
    }
}

/// Lowers `text` with what `dep` builds as the context `dep`.
fn lower_on(dep: &str, text: &str) -> (Arc<Lowered>, Lowered) {
    let dep = Arc::new(lower(dep));
    let lowered = lower_with(text, |options| {
        let input = NamedContext::Input(Arc::clone(&dep));
        options.named_contexts = [("dep".to_owned(), input)].into();
    });
    (dep, lowered)
}

#[test]
fn what_another_dockerfile_builds_is_as_good_as_a_stage() {
    let dep = "ENV A=1\nWORKDIR /w\nUSER www\nRUN one\nLABEL l=1\nCMD [\"x\"]\n";
    for rest in [
        "FROM dep\nRUN two $A\n",
        "FROM base\nCOPY --from=dep /one /\nRUN --mount=from=dep,target=/dep three\n",
    ] {
        let one_file = lower(&format!("FROM base AS dep\n{dep}{rest}"));
        let (_, two_files) = lower_on(&format!("FROM base\n{dep}"), rest);
        assert_eq!(
            two_files.definition.result(),
            one_file.definition.result(),
            "{rest}"
        );
        assert_eq!(two_files.config, one_file.config, "{rest}");
        assert_eq!(two_files.base, one_file.base, "{rest}");
    }
}

#[test]
fn steps_of_another_dockerfile_keep_their_names_and_lines() {
    let (dep, lowered) = lower_on("FROM base\nRUN one\n", "FROM base\nCOPY --from=dep / /d\n");
    let one = &vertex(&dep, "RUN one").digest;
    let run = vertex(&lowered, "[2/2] RUN one");
    assert_eq!(&run.digest, one);
    let (source, ranges) = &lowered.definition.locations(one)[0];
    let text = &lowered.definition.sources()[*source].data;
    assert!(text.starts_with(b"FROM base\nRUN one"));
    assert_eq!(ranges[0].start, 2);
    assert_eq!(lowered.steps[one].stage, "dep:stage-0");
    assert_eq!(lowered.steps[one].context.as_deref(), Some("dep"));
    // Of both files there is the base, once.
    assert_eq!(lowered.definition.vertices().len(), 3);
}

#[test]
fn an_input_may_be_empty_stand_in_for_a_stage_and_order_steps() {
    let (_, lowered) = lower_on("FROM scratch\nENV A=1\n", "FROM dep\nCOPY a /\n");
    assert_eq!(lowered.definition.vertices().len(), 2);
    assert!(lowered.config.config.env.contains(&"A=1".to_owned()));

    let (dep, lowered) = lower_on(
        "FROM base\nRUN one\n",
        "FROM base AS dep\nRUN never\nFROM dep\n",
    );
    assert_eq!(lowered.definition.result(), dep.definition.result());

    let (_, lowered) = lower_on("FROM base\nONBUILD RUN ordered\n", "FROM dep\n");
    vertex(&lowered, "ONBUILD RUN ordered");
    assert!(lowered.config.config.on_build.is_empty());
}

#[test]
fn copies_say_where_and_how() {
    let lowered = lower(
        "FROM base\nENV D=/d U=7\nWORKDIR /w/\n\
         COPY --chown=$U:www --chmod=u+x --exclude=$D/*.md ../a/./b \"x\" $D/\n\
         ADD --unpack=false a.tar .\n\
         COPY --parents ./p/./q/*.c r/s /o/\n\
         COPY <<-A <<'B' /docs/\n\t$D \"q\" \\$D\n\tA\n$D\nB\n",
    );
    let both = copies(&lowered, "COPY --chown");
    assert_eq!((both[0].src.as_str(), both[1].src.as_str()), ("/a/b", "/x"));
    assert_eq!(
        (both[0].dest.as_str(), both[0].mode_str.as_str()),
        ("/d/", "u+x")
    );
    assert_eq!(both[0].exclude_patterns, ["/d/*.md"]);
    let owner = both[0].owner.as_ref().unwrap();
    let group = owner.group.as_ref().unwrap().user.as_ref().unwrap();
    assert_eq!(
        owner.user.as_ref().unwrap().user,
        Some(pb::user_opt::User::ById(7))
    );
    assert!(
        matches!(group, pb::user_opt::User::ByName(named) if named.name == "www" && named.input == 0)
    );
    let add = copies(&lowered, "ADD");
    assert_eq!(add[0].dest, "/w/");
    assert!(!add[0].attempt_unpack_docker_compatibility);
    let parents = copies(&lowered, "COPY --parents");
    assert_eq!(
        (parents[0].src.as_str(), &parents[0].include_patterns[..]),
        ("/p", &["q/*.c".to_owned()][..])
    );
    assert!(parents[0].required_paths.is_empty());
    assert_eq!(parents[1].required_paths, ["/r/s"]);
    let files: Vec<&[u8]> = lowered
        .definition
        .vertices()
        .iter()
        .filter_map(|vertex| match vertex.op.op.as_ref()? {
            pb::op::Op::File(file) => match file.actions[0].action.as_ref()? {
                pb::file_action::Action::Mkfile(mkfile) => Some(&mkfile.data[..]),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(files, [&b"/d \"q\" $D\n"[..], b"$D\n"]);
    assert_eq!(
        history(&lowered)[2..],
        [
            "WORKDIR /w/",
            "COPY --chown=7:www --chmod=u+x ../a/./b x /d/ # buildkit",
            "ADD a.tar . # buildkit",
            "COPY --parents ./p/./q/*.c r/s /o/ # buildkit",
            "COPY <<A <<B /docs/ # buildkit",
        ]
    );
}

#[test]
fn several_sources_may_go_where_a_directory_is_known() {
    for (destination, fits) in [
        ("/w/", true),
        (".", true),
        ("/w", true),
        ("/", true),
        ("/w/x", false),
        ("x", false),
        ("/wx", false),
    ] {
        let text = format!("FROM base\nWORKDIR /w\nCOPY a b {destination}\n");
        let result = try_lower(&text, &options(), &images(|_| {}));
        assert_eq!(result.is_ok(), fits, "{destination}");
    }
}

#[test]
fn links_are_merged_and_chmod_is_no_link() {
    let lowered = lower("FROM base\nCOPY --link --chown=u a /x/\nCOPY --link --chmod=755 b /y/\n");
    let merge = vertex(&lowered, "LINK COPY");
    let copy = vertex(&lowered, "[2/3] COPY --link");
    let group = |vertex: &Vertex| vertex.metadata.progress_group.clone().unwrap();
    assert_eq!(group(merge).id, group(copy).id);
    assert_eq!(group(merge).name, "[2/3] COPY --link --chown=u a /x/");
    assert!(group(copy).weak && !group(merge).weak);
    assert_eq!(copy.inputs.len(), 1, "a linked copy stands on nothing");
    assert!(
        vertex(&lowered, "[3/3] COPY")
            .metadata
            .progress_group
            .is_none()
    );
}

#[test]
fn mounts_read_their_variables() {
    let lowered = lower_with(
        "FROM base\nARG T=/cache ID=x\nWORKDIR /w\n\
         RUN --mount=type=cache,target=$T,id=$ID --mount=type=cache,target=rel --mount=type=tmpfs,target=/t --mount=type=bind,target=/ctx --mount=type=secret,id=a/b,uid=5 --mount=type=secret,target=/s/tok,required x\n",
        |options| {
            options
                .build_args
                .insert("BUILDKIT_CACHE_MOUNT_NS".into(), "ns".into());
        },
    );
    let run = exec(&lowered, "RUN");
    let mounts: Vec<(&str, &str)> = run
        .mounts
        .iter()
        .map(|m| {
            let id = m.cache_opt.as_ref().map(|cache| cache.id.as_str());
            let secret = m.secret_opt.as_ref().map(|secret| secret.id.as_str());
            (m.dest.as_str(), id.or(secret).unwrap_or_default())
        })
        .collect();
    assert_eq!(
        mounts,
        [
            ("/", ""),
            ("/cache", "ns/x"),
            ("/ctx", ""),
            ("/t", ""),
            ("/w/rel", "ns/rel"),
            ("/run/secrets/b", "a/b"),
            ("/s/tok", "tok"),
        ]
    );
    assert!(run.mounts[2].readonly);
    let secrets: Vec<_> = run.mounts[5..]
        .iter()
        .map(|m| m.secret_opt.clone().unwrap())
        .collect();
    assert_eq!(
        (secrets[0].uid, secrets[0].mode, secrets[0].optional),
        (5, 0o400, true)
    );
    assert!(!secrets[1].optional);
    assert_eq!(
        local_attr(&lowered, "build context", "local.followpaths"),
        None
    );
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

#[test]
fn growing_variables_are_bounded() {
    let mut text = "FROM base\nENV a=0123456789\n".to_owned();
    text.push_str(&"ENV a=$a$a$a$a$a$a$a$a$a$a\n".repeat(10));
    let error = try_lower(&text, &options(), &images(|_| {})).unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
    let mut text = "FROM base\n".to_owned();
    for name in 0..100 {
        writeln!(text, "ENV n{name}={}", "x".repeat(1000)).unwrap();
    }
    text.push_str(&"RUN x\n".repeat(1000));
    let error = try_lower(&text, &options(), &images(|_| {})).unwrap_err();
    assert!(
        error.to_string().contains("variables and histories"),
        "{error}"
    );
    let mut text = "FROM base AS s0\n".to_owned();
    for stage in 1..2000 {
        write!(text, "FROM s{} AS s{stage}\nRUN x\n", stage - 1).unwrap();
    }
    let error = try_lower(&text, &options(), &images(|_| {})).unwrap_err();
    assert!(
        error.to_string().contains("variables and histories"),
        "{error}"
    );
}

#[test]
fn images_may_be_dated_by_sources() {
    let text = "ARG SOURCE_DATE_EPOCH\nARG V=1\nFROM scratch AS Src\nARG V\n\
                ADD https://x.test/a.git#v$V /\nFROM scratch AS file\nADD https://x.test/f /\n\
                FROM base AS on\nFROM scratch AS run\nRUN true\nFROM scratch AS none\n\
                FROM scratch AS two\nADD https://x.test/a https://x.test/b /\n\
                FROM scratch AS local\nADD a /\nFROM base\n";
    let dockerfile = Dockerfile::parse(text.as_bytes(), "Dockerfile").unwrap();
    let git = GitRef::parse("https://x.test/c.git").unwrap().unwrap();
    let context = larder_dockerfile::git_context(&git, true).unwrap();
    let ask = |value: &str, remote: bool| {
        let mut options = options();
        options.build_args = [("SOURCE_DATE_EPOCH".to_owned(), value.to_owned())].into();
        options.named_contexts = [
            ("repo".to_owned(), NamedContext::Git(git.clone())),
            (
                "page".to_owned(),
                NamedContext::Http("https://x.test/p".to_owned()),
            ),
            ("image".to_owned(), NamedContext::Image("base".to_owned())),
        ]
        .into();
        options.remote_context = remote.then(|| Arc::new(context.clone()));
        dockerfile.epoch_source(&options)
    };
    for value in ["", "0", "-5", "1600000000"] {
        assert_eq!(ask(value, true).unwrap(), None, "{value}");
    }
    let stage = "[internal] resolve SOURCE_DATE_EPOCH source stage";
    let named = "[internal] resolve SOURCE_DATE_EPOCH named context";
    for (value, remote, identifier, shown) in [
        (
            "context",
            true,
            "git://x.test/c.git",
            "[internal] resolve main build context metadata".to_owned(),
        ),
        ("repo", false, "git://x.test/c.git", format!("{named} repo")),
        ("page", false, "https://x.test/p", format!("{named} page")),
        (
            "SRC",
            false,
            "git://x.test/a.git#v1",
            format!("{stage} src"),
        ),
        ("file", false, "https://x.test/f", format!("{stage} file")),
    ] {
        let Some(EpochSource::Source(source, name)) = ask(value, remote).unwrap() else {
            panic!("{value}")
        };
        assert_eq!(source.identifier, identifier, "{value}");
        assert_eq!(name, shown);
    }
    for value in ["context", "image"] {
        let found = ask(value, false).unwrap();
        assert_eq!(found, Some(EpochSource::Untimed), "{value}");
    }
    for (value, message) in [
        ("nothing", "invalid SOURCE_DATE_EPOCH: \"nothing\""),
        ("on", "SOURCE_DATE_EPOCH stage must use FROM scratch"),
        (
            "run",
            "SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported RUN instruction",
        ),
        (
            "none",
            "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD",
        ),
        (
            "two",
            "SOURCE_DATE_EPOCH source must be a single HTTP(S) or Git ADD",
        ),
        (
            "local",
            "SOURCE_DATE_EPOCH source must be a single HTTP(S) or Git ADD",
        ),
    ] {
        let error = ask(value, false).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}
