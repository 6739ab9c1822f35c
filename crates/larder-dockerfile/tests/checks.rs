//! Build checks, rule by rule: what each finds, in BuildKit's words, and what it leaves alone.

use larder_dockerfile::{
    Dockerfile, Error, ImageRequest, ImageResolver, LowerOptions, PathMatcher, ResolveError,
    ResolvedImage, Rule, Warning,
};
use larder_oci::{Digest, ImageConfig, Platform};

/// Every image exists. `base` is like any; `shelled` has a SHELL; `foreign` is for another platform.
struct Images;

impl ImageResolver for Images {
    fn resolve_image_config(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        let name = request.image_ref.familiar();
        let mut config = ImageConfig {
            architecture: request.platform.architecture.clone(),
            os: "linux".to_owned(),
            ..ImageConfig::default()
        };
        config.rootfs.diff_ids.push(Digest::sha256("layer"));
        config.config.env.push("PATH=/bin".to_owned());
        "/work".clone_into(&mut config.config.working_dir);
        if name.starts_with("shelled") {
            config.config.shell = vec!["/bin/bash".to_owned(), "-c".to_owned()];
        }
        if name.starts_with("foreign") {
            "arm".clone_into(&mut config.architecture);
            "v7".clone_into(&mut config.variant);
        }
        Ok(ResolvedImage {
            image_ref: request.image_ref.clone(),
            digest: Digest::sha256(&name),
            config,
        })
    }
}

fn options() -> LowerOptions {
    LowerOptions {
        build_platform: Platform::linux("amd64", ""),
        ..LowerOptions::default()
    }
}

fn lower(text: &str, options: &LowerOptions) -> Result<Vec<Warning>, Error> {
    let dockerfile = Dockerfile::parse(text.as_bytes(), "Dockerfile")?;
    Ok(dockerfile.lower(options, &Images)?.warnings)
}

fn lines(warnings: &[Warning]) -> Vec<String> {
    warnings.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn check_with(options: &LowerOptions, text: &str, expected: &[&str]) {
    let warnings = lower(text, options).unwrap_or_else(|error| panic!("{text}\n{error}"));
    assert_eq!(lines(&warnings), expected, "{text}");
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    check_with(&options(), text, expected);
}

#[test]
fn stage_names_are_lower_case_unique_and_not_reserved() {
    check(
        "FROM base AS BadStageName\nFROM base AS good-name.1\n",
        &["StageNameCasing: Stage name 'BadStageName' should be lowercase (line 1)"],
    );
    check(
        "FROM base AS b\nFROM base AS a\nFROM base AS b\n",
        &["DuplicateStageName: Duplicate stage name \"b\", stage names should be unique (line 3)"],
    );
    check(
        "FROM base AS scratch\nFROM base AS Context\nFROM scratch\nCOPY a /\n",
        &[
            "StageNameCasing: Stage name 'Context' should be lowercase (line 2)",
            "ReservedStageName: Stage name should not use the same name as reserved stage \"scratch\" (line 1)",
            "ReservedStageName: Stage name should not use the same name as reserved stage \"context\" (line 2)",
        ],
    );
}

#[test]
fn as_is_written_as_from_is() {
    check(
        "FROM base as a\nFROM base AS b\n",
        &["FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)"],
    );
    check(
        "from base AS a\nfrom base as b\n",
        &["FromAsCasing: 'AS' and 'from' keywords' casing do not match (line 1)"],
    );
    check(
        "From base as a\nFROM base AS b\n",
        &[
            "ConsistentInstructionCasing: Command 'From' should match the case of the command majority (uppercase) (line 1)",
        ],
    );
}

#[test]
fn empty_lines_do_not_continue_an_instruction() {
    check(
        "FROM base\nCOPY a \\\n\n /b\nCOPY a \\\n # not empty\n /b\n",
        &["NoEmptyContinuation: Empty continuation line (line 4)"],
    );
    check(
        "FROM base\nRUN <<E \\\n\n cat\nx\nE\n",
        &["NoEmptyContinuation: Empty continuation line (line 4)"],
    );
}

#[test]
fn keywords_are_written_as_most_are() {
    check(
        "FROM base\ncopy a /a\nCOPY b /b\n",
        &[
            "ConsistentInstructionCasing: Command 'copy' should match the case of the command majority (uppercase) (line 2)",
        ],
    );
    check(
        "from base\ncopy a /a\nCOPY b \\\n /b\n",
        &[
            "ConsistentInstructionCasing: Command 'COPY' should match the case of the command majority (lowercase) (line 3)",
        ],
    );
    check("from base\ncopy a /a\n", &[]);
    check("arg a=b\nFROM base\nCOPY a /a\n", &[]);
}

#[test]
fn commands_are_lists_unless_a_shell_was_chosen() {
    let message = |keyword: &str, line: u32| {
        format!(
            "JSONArgsRecommended: JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals (line {line})"
        )
    };
    check(
        "FROM base\nENTRYPOINT a\nCMD b\n",
        &[&message("ENTRYPOINT", 2), &message("CMD", 3)],
    );
    check("FROM base\nENTRYPOINT [\"a\"]\nCMD [\"b\"]\nRUN c\n", &[]);
    check("FROM base\nSHELL [\"bash\", \"-c\"]\nCMD b\n", &[]);
    check("FROM shelled\nCMD b\n", &[]);
    check("FROM base\nHEALTHCHECK CMD b\n", &[]);
}

#[test]
fn maintainer_is_a_label() {
    check(
        "FROM base\nMAINTAINER me@example.org\n",
        &[
            "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)",
        ],
    );
    check(
        "FROM base\nLABEL org.opencontainers.image.authors=me@example.org\n",
        &[],
    );
}

#[test]
fn arguments_of_from_are_declared() {
    check(
        "ARG tag=1\nARG none\nFROM base:${tag}${none}\nFROM base:${tog:-1}\n",
        &["UndefinedArgInFrom: FROM argument 'tog' is not declared (did you mean tag?) (line 4)"],
    );
    check(
        "FROM --platform=${BULIDPLATFORM:-linux/amd64} base\n",
        &[
            "UndefinedArgInFrom: FROM argument 'BULIDPLATFORM' is not declared (did you mean BUILDPLATFORM?) (line 1)",
        ],
    );
    check("FROM --platform=$BUILDPLATFORM base\n", &[]);
}

#[test]
fn the_first_workdir_is_absolute() {
    check(
        "FROM base\nWORKDIR app/\nWORKDIR more\n",
        &[
            "WorkdirRelativePath: Relative workdir \"app/\" can have unexpected results if the base image changes (line 2)",
        ],
    );
    check("FROM base AS a\nWORKDIR /app\nFROM a\nWORKDIR sub\n", &[]);
    check("FROM base\nARG D=/d\nWORKDIR $D\nWORKDIR sub\n", &[]);
}

#[test]
fn variables_are_set_before_they_are_used() {
    check(
        "FROM base\nCOPY $foo /\nARG foo=bar\nCOPY $foo /\n",
        &["UndefinedVar: Usage of undefined variable '$foo' (line 2)"],
    );
    check(
        "FROM base\nARG DIR_BINARIES=b\nARG DIR_ASSETS=a\nCOPY $DIR_ASSET /\n",
        &[
            "UndefinedVar: Usage of undefined variable '$DIR_ASSET' (did you mean $DIR_ASSETS?) (line 4)",
        ],
    );
    // The same is not told again.
    check(
        "FROM base\nENV A=$x B=$x\n",
        &["UndefinedVar: Usage of undefined variable '$x' (line 2)"],
    );
    check(
        "FROM base\nENV PATH=$PAHT:/tmp\n",
        &["UndefinedVar: Usage of undefined variable '$PAHT' (did you mean $PATH?) (line 2)"],
    );
    check(
        "FROM base\nRUN --mount=type=cache,target=/c$where true\nRUN echo $nobody_looks\n",
        &["UndefinedVar: Usage of undefined variable '$where' (line 2)"],
    );
    check(
        "FROM base\nCOPY <<E /a\n$inside\nE\nCOPY <<'E' /a\n$literal\nE\n",
        &["UndefinedVar: Usage of undefined variable '$inside' (line 2)"],
    );
    check(
        "FROM base\nARG declared\nCOPY a$declared /\nUSER ${other:-1}\nUSER ${other:-1}\n",
        &[
            "UndefinedVar: Usage of undefined variable '$other' (line 4)",
            "UndefinedVar: Usage of undefined variable '$other' (line 5)",
        ],
    );
    check("FROM base AS a\nARG foo=b\nFROM a\nCOPY $foo $PATH/\n", &[]);
}

#[test]
fn what_is_overwritten_is_said_where_it_stands() {
    let message = |keyword: &str, line: u32| {
        format!(
            "MultipleInstructionsDisallowed: Multiple {keyword} instructions should not be used in the same stage because only the last one will be used (line {line})"
        )
    };
    check(
        "FROM base\nENTRYPOINT [\"a\"]\nCMD [\"a\"]\nHEALTHCHECK CMD a\nCOPY a /\nENTRYPOINT [\"b\"]\nCMD [\"b\"]\nHEALTHCHECK NONE\n",
        &[
            &message("ENTRYPOINT", 2),
            &message("CMD", 3),
            &message("HEALTHCHECK", 4),
        ],
    );
    check(
        "FROM base AS a\nENTRYPOINT [\"a\"]\nFROM a\nENTRYPOINT [\"b\"]\n",
        &[],
    );
}

#[test]
fn pairs_have_an_equals_sign() {
    check(
        "FROM base\nENV name value\nLABEL name value\nENV a=b c=d\n",
        &[
            "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 2)",
            "LegacyKeyValueFormat: \"LABEL key=value\" should be used instead of legacy \"LABEL key value\" format (line 3)",
        ],
    );
}

#[test]
fn base_images_are_for_the_platform_asked_for() {
    check(
        "FROM foreign\nRUN a\n",
        &[
            "InvalidBaseImagePlatform: Base image foreign was pulled with platform \"linux/arm/v7\", expected \"linux/amd64\" for current build (line 1)",
        ],
    );
    check(
        "FROM base\nCOPY --from=foreign:1 a /\n",
        &[
            "InvalidBaseImagePlatform: Base image foreign:1 was pulled with platform \"linux/arm/v7\", expected \"linux/amd64\" for current build (line 2)",
        ],
    );
}

#[test]
fn platforms_of_from_are_variables_other_than_the_default() {
    for word in ["$TARGETPLATFORM", "${TARGETPLATFORM}"] {
        check(
            &format!("FROM --platform={word} base\n"),
            &[&format!(
                "RedundantTargetPlatform: Setting platform to predefined {word} in FROM is redundant as this is the default behavior (line 1)"
            )],
        );
    }
    check("FROM --platform=$TARGETOS/$TARGETARCH base\n", &[]);
    check(
        "FROM --platform=linux/amd64 base AS builder\n",
        &[
            "FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\" (line 1)",
        ],
    );
    check("FROM --platform=linux/amd64 base AS my-amd64\n", &[]);
    check("FROM --platform=linux/amd64 base AS linux\n", &[]);
}

#[test]
fn secrets_are_told_by_their_names() {
    let message = |keyword: &str, name: &str, line: u32| {
        format!(
            "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data ({keyword} \"{name}\") (line {line})"
        )
    };
    check(
        "ARG GLOBAL_TOKEN=x\nFROM base\nARG SECRET_PASSPHRASE\nENV SUPER_Secret=a sunflower=b auth=c\nENV git_key=\nARG API_TOKEN\n",
        &[
            &message("ARG", "SECRET_PASSPHRASE", 3),
            &message("ENV", "SUPER_Secret", 4),
            &message("ENV", "auth", 4),
            &message("ENV", "git_key", 5),
            &message("ARG", "API_TOKEN", 6),
        ],
    );
    check(
        "FROM base\nENV PUBLIC_KEY=a KEY_FILE=b TOKEN_VERSION=c monkey=d authors=e\n",
        &[],
    );
}

#[test]
fn defaults_of_from_make_an_image_name() {
    let mut given = options();
    for (name, value) in [("IMAGE", "base"), ("VERSION", "1")] {
        given.build_args.insert(name.to_owned(), value.to_owned());
    }
    check_with(
        &given,
        "ARG VERSION\nARG IMAGE\nFROM base:$VERSION\nFROM ${IMAGE}\n",
        &[
            "InvalidDefaultArgInFrom: Default value for ARG base:$VERSION results in empty or invalid base image name (line 3)",
            "InvalidDefaultArgInFrom: Default value for ARG ${IMAGE} results in empty or invalid base image name (line 4)",
        ],
    );
    check_with(
        &given,
        "ARG VERSION=2\nARG SUFFIX\nFROM base:$VERSION\nFROM base:1${SUFFIX}\n",
        &[],
    );
}

#[test]
fn what_is_copied_is_not_ignored() {
    let mut given = options();
    let ignored = |path: &str| path == "Dockerfile" || path.starts_with("secret/");
    given.ignored = Some(PathMatcher::new(ignored));
    check_with(
        &given,
        "FROM base AS a\nCOPY other /\nFROM base\nCOPY --from=a Dockerfile /\nCOPY x <<Dockerfile /d/\nDockerfile\n",
        &[],
    );
    check_with(
        &given,
        "FROM base AS a\nARG D=Dockerfile\nCOPY ./$D /\nADD secret/../secret/a other /b/\n",
        &[
            "CopyIgnoredFile: Attempting to Copy file \"Dockerfile\" that is excluded by .dockerignore (line 3)",
            "CopyIgnoredFile: Attempting to Add file \"secret/a\" that is excluded by .dockerignore (line 4)",
        ],
    );
}

#[test]
fn ports_are_numbers_with_protocols_in_lower_case() {
    check(
        "FROM base\nEXPOSE 80/TCP 81/udp 82\n",
        &[
            "ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase (line 2)",
        ],
    );
    check(
        "FROM base\nEXPOSE 127.0.0.1:80:80 5000:5000/tcp\n",
        &[
            "ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80' (line 2)",
            "ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '5000:5000/tcp' (line 2)",
        ],
    );
}

#[test]
fn comments_above_definitions_describe_them_if_that_is_asked_for() {
    let text = "# check=experimental=InvalidDefinitionDescription\n# bar this is the bar\nARG foo=bar\n# base this is the base\nFROM base AS base\n# something else\nARG version=latest\n# several\nARG a b\n# a is first\nARG a b\n\n# far away\n\nARG c\n";
    let message = |keyword: &str, name: &str, line: u32| {
        format!(
            "InvalidDefinitionDescription: Comment for {keyword} should follow the format: `# {name} <description>` (line {line})"
        )
    };
    check(
        text,
        &[
            &message("ARG", "foo", 3),
            &message("ARG", "version", 7),
            &message("ARG", "<arg_key>", 9),
        ],
    );
    check(&text.replacen("# check", "# chuck", 1), &[]);
}

#[test]
fn checks_are_skipped_by_directive_argument_and_comment() {
    let text = "FROM base as a\ncopy x /\n";
    let case = "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 2)";
    check(&format!("# check=skip=all\n{text}"), &[]);
    check(
        &format!("# check=skip=FromAsCasing,ConsistentInstructionCasing\n{text}"),
        &[],
    );
    check(
        &format!("# check=skip=ConsistentInstructionCasing\n{text}"),
        &[case],
    );
    let mut given = options();
    let name = "BUILDKIT_DOCKERFILE_CHECK".to_owned();
    given
        .build_args
        .insert(name, "skip=ConsistentInstructionCasing".to_owned());
    check_with(&given, &format!("# check=skip=all\n{text}"), &[case]);
    check(
        "FROM base\n# check=skip=JSONArgsRecommended\nCMD a\n\n# check=skip=JSONArgsRecommended\n\nENTRYPOINT b\n",
        &[
            "JSONArgsRecommended: JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals (line 7)",
        ],
    );
}

#[test]
fn warnings_may_be_errors() {
    let text = "# check=error=true\nFROM base as a\ncopy x /\nCMD a\n";
    let error = lower(text, &options()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "lint violation found for rules: ConsistentInstructionCasing, FromAsCasing, JSONArgsRecommended"
    );
    assert_eq!(error.warnings().len(), 3);
    check("# check=error=true\nFROM base\n", &[]);
    check("# check=skip=all;error=true\nFROM base as a\n", &[]);
    for (text, message) in [
        (
            "# check=skp=all\nFROM base\n",
            "failed to parse check options: invalid check option \"skp\"",
        ),
        (
            "# check=error=2 what\nFROM base\n",
            "failed to parse check options: failed to parse check option \"error=2\": strconv.ParseBool: parsing \"2\": invalid syntax",
        ),
    ] {
        assert_eq!(lower(text, &options()).unwrap_err().to_string(), message);
    }
    let mut given = options();
    let name = "BUILDKIT_DOCKERFILE_CHECK".to_owned();
    given.build_args.insert(name, "x".to_owned());
    assert_eq!(
        lower("FROM base\n", &given).unwrap_err().to_string(),
        "failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK: invalid check option \"x\""
    );
}

#[test]
fn warnings_come_before_the_error_that_follows() {
    let error = lower("FROM base as a\nFROM ${BAR} AS b\n", &options()).unwrap_err();
    assert_eq!(error.to_string(), "base name (${BAR}) should not be blank");
    assert_eq!(
        lines(error.warnings()),
        [
            "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)",
            "InvalidDefaultArgInFrom: Default value for ARG ${BAR} results in empty or invalid base image name (line 2)",
            "UndefinedArgInFrom: FROM argument 'BAR' is not declared (line 2)",
        ]
    );
}

#[test]
fn stages_that_nobody_needs_are_checked_when_all_are() {
    let text = "FROM base AS first\nCOPY $foo /\nFROM base AS second\nCOPY $bar /\n";
    let foo = "UndefinedVar: Usage of undefined variable '$foo' (line 2)";
    let bar = "UndefinedVar: Usage of undefined variable '$bar' (line 4)";
    check(text, &[bar]);
    let all = LowerOptions {
        all_stages: true,
        ..options()
    };
    check_with(&all, text, &[foo, bar]);
}

#[test]
fn warnings_mark_every_line_and_say_where_to_read_on() {
    let warnings = lower("FROM base\nCMD a \\\n  b\n", &options()).unwrap();
    let marked: Vec<(u32, u32)> = warnings[0]
        .ranges
        .iter()
        .map(|r| (r.start, r.end))
        .collect();
    assert_eq!(marked, [(2, 2), (3, 3)]);
    let rule = warnings[0].rule;
    assert_eq!(rule, Rule::JsonArgsRecommended);
    assert_eq!(
        (rule.name(), rule.url()),
        (
            "JSONArgsRecommended",
            "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"
        )
    );
    assert_eq!(
        rule.description(),
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals"
    );
}
