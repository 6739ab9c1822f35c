//! What users are told when a Dockerfile is wrong.

use larder_dockerfile::{
    Dockerfile, Error, ErrorKind, ImageRequest, ImageResolver, LowerOptions, Lowered, ResolveError,
    ResolvedImage,
};
use larder_oci::{Digest, ImageConfig};
use proptest::prelude::*;

struct Images;

impl ImageResolver for Images {
    fn resolve_image_config(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        if request.image_ref.familiar() != "base:latest" {
            return Err(format!("{}: not found", request.image_ref).into());
        }
        let mut config = ImageConfig::default();
        config.rootfs.diff_ids = vec![Digest::sha256("layer")];
        Ok(ResolvedImage {
            image_ref: request.image_ref.clone(),
            digest: Digest::sha256("base"),
            config,
        })
    }
}

fn lower(text: &[u8], options: &LowerOptions) -> Result<Lowered, Error> {
    Dockerfile::parse(text, "Dockerfile")?.lower(options, &Images)
}

fn fail(text: &str) -> Error {
    match lower(text.as_bytes(), &LowerOptions::default()) {
        Err(error) => error,
        Ok(_) => panic!("no error in {text:?}"),
    }
}

/// Checks message and lines; no line for 0.
fn check(text: &str, line: u32, message: &str) {
    let error = fail(text);
    assert_eq!(error.to_string(), message, "{text}");
    let first = error.ranges().first().map_or(0, |range| range.start);
    assert_eq!(first, line, "{text}");
}

#[test]
fn parse_errors_name_their_line() {
    for (text, line, message) in [
        (
            "FROM a\nRUNN x\n",
            2,
            "unknown instruction: RUNN (did you mean RUN?)",
        ),
        (
            "FROM a\n\nrunn x\n",
            3,
            "unknown instruction: runn (did you mean run?)",
        ),
        ("FROM a\nFOOBAR x\n", 2, "unknown instruction: FOOBAR"),
        (
            "FROM a b\n",
            1,
            "FROM requires either one or three arguments",
        ),
        (
            "FROM a AS 1x\n",
            1,
            "invalid name for build stage: \"1x\", name can't start with a number or contain symbols",
        ),
        (
            "FROM --platfrm=x a\n",
            1,
            "unknown flag: --platfrm (did you mean platform?)",
        ),
        (
            "FROM a\nCOPY --fooo=x a b\n",
            2,
            "unknown flag: --fooo (did you mean from?)",
        ),
        (
            "FROM a\nCOPY --fro=x a b\n",
            2,
            "unknown flag: --fro (did you mean from?)",
        ),
        (
            "FROM a\nCOPY --chown=a --chown=b a b\n",
            2,
            "duplicate flag specified: --chown",
        ),
        (
            "FROM a\nCOPY a\n",
            2,
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        (
            "FROM a\nCOPY x <<E\nE\n",
            2,
            "COPY cannot accept a heredoc as a destination",
        ),
        ("FROM a\nRUN <<E\nx\n", 2, "unterminated heredoc"),
        (
            "FROM a\nRUN [\"a\", 1]\n",
            2,
            "when using JSON array syntax, arrays must be comprised of strings only",
        ),
        ("FROM a\nRUN\n", 2, "RUN requires at least one argument"),
        (
            "FROM a\nRUN --mount=from=$x,target=/a x\n",
            2,
            "'from' doesn't support variable expansion, define alias stage instead",
        ),
        (
            "FROM a\nRUN --network=nne x\n",
            2,
            "network mode \"nne\" is not valid (did you mean none?)",
        ),
        ("FROM a\nENV a\n", 2, "ENV must have two arguments"),
        (
            "FROM a\nENV a=b c\n",
            2,
            "Syntax error - can't find = in \"c\". Must be of the form: name=value",
        ),
        ("FROM a\nARG =b\n", 2, "ARG names can not be blank"),
        (
            "FROM a\nSHELL /bin/sh\n",
            2,
            "SHELL requires the arguments to be in JSON form, but \"/bin/sh\" is not",
        ),
        (
            "FROM a\nONBUILD ONBUILD RUN x\n",
            2,
            "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ),
        (
            "FROM a\nONBUILD FROM x\n",
            2,
            "FROM isn't allowed as an ONBUILD trigger",
        ),
        (
            "FROM a\nHEALTHCHECK FOO x\n",
            2,
            "Unknown type \"FOO\" in HEALTHCHECK (try CMD)",
        ),
        (
            "FROM a\nHEALTHCHECK NONE x\n",
            2,
            "HEALTHCHECK NONE takes no arguments",
        ),
        (
            "FROM a\nHEALTHCHECK --interval=1us CMD x\n",
            2,
            "Interval \"interval\" cannot be less than 1ms",
        ),
        (
            "FROM a\nHEALTHCHECK --timeout=x CMD x\n",
            2,
            "time: invalid duration \"x\"",
        ),
        (
            "FROM a\nHEALTHCHECK --retries=-1 CMD x\n",
            2,
            "--retries cannot be negative (-1)",
        ),
        (
            "FROM a\nHEALTHCHECK CMD\n",
            2,
            "Missing command after HEALTHCHECK CMD",
        ),
        (
            "FROM a\nVOLUME [\"\"]\n",
            2,
            "VOLUME specified can not be an empty string",
        ),
        (
            "FROM a\nWORKDIR\n",
            2,
            "WORKDIR requires exactly one argument",
        ),
        ("RUN x\n", 1, "no build stage in current context"),
        (
            "# escape=x\nFROM a\n",
            1,
            "invalid ESCAPE 'x' does not match ` or \\",
        ),
    ] {
        let message = format!("dockerfile parse error on line {line}: {message}");
        check(text, line, &message);
        assert_eq!(fail(text).kind(), ErrorKind::Dockerfile);
    }
    check("", 0, "the Dockerfile cannot be empty");
    check("# only\n", 0, "file with no instructions");
    check("ARG x=1\n", 0, "dockerfile contains no stages to build");
}

#[test]
fn lowering_errors_name_their_line() {
    for (text, line, message) in [
        (
            "FROM base AS a\nCOPY --from=a x y\n",
            2,
            "circular dependency detected on stage: a",
        ),
        (
            "FROM base AS a\nCOPY --from=b x y\nFROM base AS b\nCOPY --from=a x y\n",
            2,
            "circular dependency detected on stage: a",
        ),
        (
            "FROM base AS a\nCOPY --from=b x y\nFROM base AS b\nFROM a\n",
            2,
            "cannot copy from stage \"b\", it needs to be defined before current stage \"a\"",
        ),
        (
            "FROM base AS a\nRUN --mount=from=b,target=/x y\nFROM base AS b\nFROM a\n",
            2,
            "cannot mount from stage \"b\" to \"/x\", stage needs to be defined before current command",
        ),
        ("FROM base\nCOPY --from=5 x y\n", 2, "invalid stage index 5"),
        (
            "FROM base\nCOPY --from=$x x y\n",
            2,
            "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround",
        ),
        ("FROM ${x}\n", 1, "base name (${x}) should not be blank"),
        (
            "FROM --platform=$TARGETPLATFOM base\n",
            1,
            "empty platform value from expression $TARGETPLATFOM (did you mean TARGETPLATFORM?)",
        ),
        (
            "FROM Foo\n",
            1,
            "failed to parse stage name \"Foo\": invalid reference format: `Foo`: repository name must be lowercase",
        ),
        (
            "FROM base AS build\nFROM buidl\n",
            2,
            "buidl: docker.io/library/buidl:latest: not found (did you mean build?)",
        ),
        (
            "FROM base\nRUN --mount=foo=1 x\n",
            2,
            "unexpected key 'foo' in 'foo=1' (did you mean from?)",
        ),
        (
            "FROM base\nRUN --mount=target=/ x\n",
            2,
            "invalid mount target \"/\"",
        ),
        (
            "FROM base\nCOPY --chmod=9 a b\n",
            2,
            "invalid chmod parameter: '9'. it should be octal string and between 0 and 07777",
        ),
        ("FROM base\nEXPOSE 80/x\n", 2, "invalid proto: x"),
        ("FROM base\nSTOPSIGNAL FOO\n", 2, "invalid signal: FOO"),
        (
            "FROM base\nENV a=${b:?none}\n",
            2,
            "failed to process \"${b:?none}\": b: none",
        ),
        (
            "FROM base\nUSER '\n",
            2,
            "failed to process \"'\": unexpected end of statement while looking for matching single-quote",
        ),
        ("FROM base\nENV $x=1\n", 2, "ENV names can not be blank"),
        (
            "FROM base\nADD --checksum=sha256:0 a b\n",
            2,
            "checksum requires HTTP(S) or Git sources",
        ),
        (
            "FROM base\nCOPY https://x.test/a b\n",
            2,
            "source can't be a URL for COPY",
        ),
        (
            "FROM base\nADD --checksum=sha256:0 https://x.test/a b\n",
            2,
            "invalid checksum \"sha256:0\"",
        ),
        (
            "FROM base\nADD --checksum=sha256:0 https://x.test/a https://x.test/b b/\n",
            2,
            "checksum can't be specified for multiple sources",
        ),
        (
            "FROM base\nADD --checksum=ab a /\n",
            2,
            "checksum requires HTTP(S) or Git sources",
        ),
        (
            "FROM base\nADD https://x.test/a.git?branch=m&tag=t /\n",
            2,
            "branch conflicts with tag",
        ),
        (
            "FROM base\nADD --keep-git-dir=false https://x.test/a.git?keep-git-dir=1 /\n",
            2,
            "inconsistent keep-git-dir configuration",
        ),
        (
            "FROM base\nADD --checksum=ab https://x.test/a.git?checksum=cd /\n",
            2,
            "checksum mismatch \"ab\" != \"cd\"",
        ),
        (
            "FROM base\nRUN --mount=type=ssh,source=/x y\n",
            2,
            "ssh does not support source",
        ),
    ] {
        check(text, line, message);
    }
    let error = fail("FROM base\nCOPY a b c\n");
    assert!(error.to_string().starts_with(
        "When using COPY with more than one source file, the destination must be a directory and end with a /"
    ));
    assert_eq!(fail("FROM nope\n").kind(), ErrorKind::Image);
}

#[test]
fn what_is_not_there_yet_says_so() {
    for (text, part) in [
        (
            "# syntax=example.com/my/frontend:1\nFROM base\n",
            "frontend image `example.com/my/frontend:1`",
        ),
        (
            "// syntax=example.com/mine\nanything\n",
            "frontend image `example.com/mine`",
        ),
    ] {
        let error = fail(text);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{text}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let mut options = LowerOptions::default();
    let name = "BUILDKIT_SYNTAX".to_owned();
    options
        .build_args
        .insert(name.clone(), "dockerfile.v0".into());
    assert!(lower(b"# syntax=foo/bar\nFROM base\n", &options).is_ok());
    options.build_args.insert(name, "foo/bar".into());
    assert!(lower(b"# syntax=docker/dockerfile:1\nFROM base\n", &options).is_err());
}

#[test]
fn unknown_targets_are_compared_with_the_known() {
    for (target, message) in [
        (
            "b",
            "target stage \"b\" could not be found (did you mean a?)",
        ),
        (
            "0",
            "target stage \"0\" could not be found (did you mean a?)",
        ),
        ("nothing", "target stage \"nothing\" could not be found"),
    ] {
        let options = LowerOptions {
            target: Some(target.to_owned()),
            ..LowerOptions::default()
        };
        let error = lower(b"FROM base AS a\nFROM base\n", &options).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(error.kind(), ErrorKind::Options);
    }
}

#[test]
fn every_line_of_an_instruction_is_marked() {
    let error = fail("FROM base\nRUN --mount=foo=1 \\\n  # c\n  x\n");
    let lines: Vec<(u32, u32)> = error.ranges().iter().map(|r| (r.start, r.end)).collect();
    assert_eq!(lines, [(2, 2), (3, 3), (4, 4)]);
}

/// Lines that look like a Dockerfile's, to get past the first checks.
fn dockerfile_text() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just("FROM base AS a".to_owned()),
        Just("FROM scratch".to_owned()),
        "(FROM|ARG|ENV|RUN|COPY|ADD|LABEL|EXPOSE|VOLUME|USER|WORKDIR|CMD|SHELL|ENTRYPOINT|ONBUILD|STOPSIGNAL|HEALTHCHECK|MAINTAINER|run|x)( --[a-z]{1,8}(=[a-z0-9,=$/]{0,12})?){0,2} [ -~]{0,30}",
        "(COPY|RUN|ONBUILD COPY)( --from=a| --mount=type=(cache|bind|tmpfs|secret),target=/[a-z$]{0,3})? <<-?[\"']?E[\"']? [a-z/]{0,5}",
        "(E|\\\\|#.*|\t E|[$\\{\\}:\"'<>\\[\\]\\\\ ,a]{0,12})",
    ];
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = lower(&text, &LowerOptions::default());
    }

    #[test]
    fn arbitrary_instructions_never_panic(text in dockerfile_text()) {
        let _ = lower(format!("FROM base\n{text}").as_bytes(), &LowerOptions::default());
        let _ = larder_dockerfile::parse_ignore(text.as_bytes());
    }
}
