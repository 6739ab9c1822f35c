//! What is answered in place of building: outlines, targets, what can be asked.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::fmt::Write as _;

use insta::assert_snapshot;
use larder_dockerfile::{
    Dockerfile, ErrorKind, ImageRequest, ImageResolver, LowerOptions, Outline, ResolveError,
    ResolvedImage, describe,
};
use larder_oci::{Digest, ImageConfig, Platform};

/// Every image exists.
struct Images;

impl ImageResolver for Images {
    fn resolve_image_config(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        let mut config = ImageConfig {
            architecture: request.platform.architecture.clone(),
            os: "linux".to_owned(),
            ..ImageConfig::default()
        };
        config.rootfs.diff_ids.push(Digest::sha256("layer"));
        Ok(ResolvedImage {
            image_ref: request.image_ref.clone(),
            digest: Digest::sha256(request.image_ref.familiar()),
            config,
        })
    }
}

fn parse(text: &str) -> Dockerfile {
    Dockerfile::parse(text.as_bytes(), "Dockerfile").unwrap()
}

fn outline_with(text: &str, target: &str, build_args: &[(&str, &str)]) -> Outline {
    let options = LowerOptions {
        build_platform: Platform::linux("amd64", ""),
        target: Some(target.to_owned()),
        build_args: build_args
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..LowerOptions::default()
    };
    parse(text).outline(&options, &Images).unwrap()
}

fn text_with(text: &str, target: &str, build_args: &[(&str, &str)]) -> String {
    outline_with(text, target, build_args).answer().text
}

fn text(dockerfile: &str) -> String {
    text_with(dockerfile, "", &[])
}

/// The arguments of an outline: names, values and lines.
fn args(outline: &Outline) -> Vec<(&str, &str, u32)> {
    let args = outline.args.iter();
    args.map(|arg| (arg.name.as_str(), arg.value.as_str(), arg.ranges[0].start))
        .collect()
}

const STAGES: &str = "\
# syntax=docker/dockerfile:1

# REGISTRY where images come from
ARG REGISTRY=example.com
# BASE what to build on
ARG BASE=${REGISTRY}/base:1
# UNUSED has no effect
ARG UNUSED=1
ARG VERSION

# base has the tools
FROM ${BASE} AS base
# DEBUG turns on debugging
ARG DEBUG=0 LEVEL=2
RUN --mount=type=secret,id=token,required=true --mount=type=cache,target=/root/.cache a

# tools is not needed
FROM base AS tools
ARG TOOL=x
RUN --mount=type=ssh a

FROM other AS assets
ARG THEME
RUN --mount=type=secret,id=token --mount=type=secret,target=/etc/key,env=KEY \\
    b

# app is what runs
# app has a second line
FROM base AS app
ARG VERSION
ARG DEBUG=1
COPY --from=assets /a /a
";

#[test]
fn an_outline_has_what_the_target_and_its_stages_take() {
    assert_snapshot!(text(STAGES), @r"
    TARGET:      app
    DESCRIPTION: is what runs

    BUILD ARG   VALUE                DESCRIPTION
    REGISTRY    example.com          where images come from
    BASE        example.com/base:1   what to build on
    LEVEL       2                    
    THEME                            
    VERSION                          
    DEBUG       1                    

    SECRET   REQUIRED
    token    true
    key
    ");
}

#[test]
fn programs_get_places_and_the_text() {
    let dockerfile = "# s made\nFROM scratch AS s\n# A the <first>\nARG A=1 B\nFROM s\nCOPY --from=x /a /\nADD . /\n";
    assert_snapshot!(outline_with(dockerfile, "", &[]).answer().json, @r#"
    {
      "args": [
        {
          "name": "A",
          "description": "the \u003cfirst\u003e",
          "value": "1",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 4
                },
                "end": {
                  "line": 4
                }
              }
            ]
          }
        },
        {
          "name": "B",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 4
                },
                "end": {
                  "line": 4
                }
              }
            ]
          }
        }
      ],
      "sources": [
        "IyBzIG1hZGUKRlJPTSBzY3JhdGNoIEFTIHMKIyBBIHRoZSA8Zmlyc3Q+CkFSRyBBPTEgQgpGUk9NIHMKQ09QWSAtLWZyb209eCAvYSAvCkFERCAuIC8K"
      ]
    }
    "#);
}

#[test]
fn values_and_descriptions_are_those_of_the_arg_that_counts() {
    let file = "# V of all\nARG V=1\n# G of all\nARG G=2\nFROM base:$V\n# V of the stage\nARG V\nARG G=3\nARG NEW\nARG TARGETARCH\n";
    let plain = outline_with(file, "", &[]);
    // Without a value of its own an argument is the global one; platforms are no arguments.
    assert_eq!(args(&plain), [("V", "1", 2), ("G", "3", 8), ("NEW", "", 9)]);
    assert_eq!(plain.args[0].description, "of all");
    assert_eq!(plain.args[1].description, "");
    // One that is given is the stage's.
    let given = outline_with(file, "", &[("V", "7"), ("NEW", "8"), ("FOREIGN", "9")]);
    assert_eq!(
        args(&given),
        [("V", "7", 7), ("G", "3", 8), ("NEW", "8", 9)]
    );
    assert_eq!(given.args[0].description, "of the stage");
}

#[test]
fn arguments_that_others_are_made_of_count() {
    let file =
        "ARG A=a\nARG B=${A}b\nARG C=c\nARG A=${A}${C}\nFROM --platform=${C:+linux/amd64} $B\n";
    assert_eq!(
        args(&outline_with(file, "", &[])),
        [("B", "ab", 2), ("C", "c", 3), ("A", "ac", 4)]
    );
    let given = outline_with(file, "", &[("B", "b")]);
    assert_eq!(args(&given), [("B", "b", 2), ("C", "c", 3)]);
}

#[test]
fn mounts_are_told_once_with_where_they_are_first() {
    let file = "FROM base\nARG N=1\nRUN --mount=type=secret,id=a$N --mount=type=cache,target=/c a\nRUN --mount=type=secret,id=a1,required --mount=type=secret,id=b,required=true --mount=type=cache,id=x,target=/d b\n";
    let outline = outline_with(file, "", &[]);
    let secrets = outline.secrets.iter();
    let secrets: Vec<_> = secrets
        .map(|s| (s.name.as_str(), s.is_required, s.ranges[0].start))
        .collect();
    assert_eq!(secrets, [("a1", false, 3), ("b", true, 4)]);
    let caches = outline.caches.iter();
    let caches: Vec<_> = caches.map(|c| (c.id.as_str(), c.ranges[0].start)).collect();
    assert_eq!(caches, [("/c", 3), ("x", 4)]);
}

#[test]
fn control_characters_stay_out_of_tables() {
    let text = text("FROM scratch\n# A \u{1b}[2Jgone\nARG A=\"a\tb\"\n");
    assert_eq!(
        text,
        "BUILD ARG   VALUE   DESCRIPTION\nA           a b      [2Jgone\n\n"
    );
}

#[test]
fn an_outline_fails_as_the_build_would() {
    let outline = |text: &str| parse(text).outline(&LowerOptions::default(), &Images);
    let error = outline("# check=error=true\nFROM base as b\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "lint violation found for rules: FromAsCasing"
    );
    let error = outline("FROM base\nCOPY --from=$X a /\n").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Dockerfile);
    // A long chain of stages costs no stack.
    let mut chain = "FROM base AS s0\n".to_owned();
    for index in 1..5_000 {
        writeln!(chain, "FROM s{} AS s{index}", index - 1).unwrap();
    }
    chain += "ARG A=1\n";
    assert_eq!(args(&outline(&chain).unwrap()).len(), 1);
}

#[test]
fn targets_are_the_stages() {
    let file = "# check=skip=all\n\n# build compiles it\n# build and more\nFROM --platform=$BUILDPLATFORM base:$V AS Build\nRUN a \\\n\nb\n# ignored\n\nFROM scratch\n";
    let answer = parse(file).targets().answer();
    assert_snapshot!(answer.text, @r"
    TARGET    DESCRIPTION
    build     compiles it
    (default)
    ");
    assert_snapshot!(answer.json, @r#"
    {
      "targets": [
        {
          "name": "build",
          "description": "compiles it",
          "base": "base:$V",
          "platform": "$BUILDPLATFORM",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 5
                },
                "end": {
                  "line": 5
                }
              }
            ]
          }
        },
        {
          "default": true,
          "base": "scratch",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 11
                },
                "end": {
                  "line": 11
                }
              }
            ]
          }
        }
      ],
      "sources": [
        "IyBjaGVjaz1za2lwPWFsbAoKIyBidWlsZCBjb21waWxlcyBpdAojIGJ1aWxkIGFuZCBtb3JlCkZST00gLS1wbGF0Zm9ybT0kQlVJTERQTEFURk9STSBiYXNlOiRWIEFTIEJ1aWxkClJVTiBhIFwKCmIKIyBpZ25vcmVkCgpGUk9NIHNjcmF0Y2gK"
      ]
    }
    "#);
    let named = parse("FROM a AS one\n# two is last\nFROM b AS two\n").targets();
    assert_snapshot!(named.answer().text, @r"
    TARGET        DESCRIPTION
    one           
    two (default) is last
    ");
}

#[test]
fn what_can_be_asked_is_what_buildkit_lists() {
    assert_snapshot!(describe().text, @r"
    NAME                 VERSION DESCRIPTION
    outline              1.0.0   List all parameters current build target supports
    targets              1.0.0   List all targets current build supports
    subrequests.describe 1.0.0   List available subrequest types
    ");
    let json: serde_json::Value = serde_json::from_str(&describe().json).unwrap();
    let first = r#"[
  {
    "name": "frontend.outline",
    "version": "1.0.0",
    "type": "rpc",
    "description": "List all parameters current build target supports",
    "opts": [
      {
        "name": "target",
        "description": "Target build stage"
      }
    ],
    "inputs": null,
    "metadata": [
      {
        "name": "result.json",
        "description": ""
      },
      {
        "name": "result.txt",
        "description": ""
      }
    ],
    "refs": null
  },
"#;
    assert!(describe().json.starts_with(first));
    assert_eq!(json[1]["opts"], serde_json::json!([]));
    assert_eq!(json[2]["opts"], serde_json::Value::Null);
    assert_eq!(json.as_array().unwrap().len(), 3);
}
