//! Variables, in instructions and steps.

use std::fmt::Write as _;

use larder_dockerfile::EnvOrigin;
use larder_oci::Digest;

use crate::{
    base_image, exec, history, images, local_attr, lower, lower_with, meta, names, options,
    try_lower, vertex,
};

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
