//! Build checks by the real binary: while a build goes on, and in its place.

use fs_err as fs;
use larder_testkit::{Base, Project, Run, project};

/// Two things to warn of: line 1, and lines 3 and 4.
const DOCKERFILE: &str = "FROM busybox as made\nRUN echo made\nCMD echo \\\n  made\n";
const AS: &str = "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)";
const CMD: &str = "JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line 3)";

fn larder(project: &Project, args: &[&str]) -> Run {
    let context = project.context();
    let context = context.to_str().expect("scratch paths are text");
    project.larder().run([args, &[context]].concat())
}

#[test]
fn builds_warn_and_go_on() {
    let project = project!(Base::Busybox);
    project.write(&[("Dockerfile", DOCKERFILE)]);
    let summary =
        format!("\n 2 warnings found (use docker --debug to expand):\n - {AS}\n - {CMD}\n");
    let first = project.build(&[]).success();
    let first = first
        .says(&format!("\n#1 WARN: {AS}\n#1 WARN: {CMD}\n"))
        .says(&summary);
    assert_eq!(
        first.stderr.matches("#1 WARN").count(),
        2,
        "{}",
        first.stderr
    );
    let again = project.build(&[]).success().says(&summary);
    assert_eq!(again.cached_count(), 2, "{}", again.stderr);

    let long = larder(&project, &["--debug", "build", "--progress=plain"]).success();
    let _ = long.says(&format!(
        "\n 2 warnings found:\n - {AS}\n\
         The 'as' keyword should match the case of the 'from' keyword\n\
         More info: https://docs.docker.com/go/dockerfile/rule/from-as-casing/\n\
         Dockerfile:1\n--------------------\n   1 | >>> FROM busybox as made\n"
    ));
    let quiet = larder(&project, &["build", "-q"]).success();
    assert_eq!(quiet.stderr, "");
}

#[test]
fn programs_are_told_by_the_metadata_file_if_they_ask() {
    let project = project!(Base::Busybox);
    project.write(&[("Dockerfile", DOCKERFILE)]);
    let file = project.scratch().join("metadata.json");
    let flag = format!("--metadata-file={}", file.display());
    let metadata = |asked: &str| {
        let mut command = project.command(&[&flag]);
        let _ = Run::of(command.env("BUILDX_METADATA_WARNINGS", asked)).success();
        serde_json::from_slice::<serde_json::Value>(&fs::read(&file).unwrap()).unwrap()
    };
    assert_eq!(metadata("0").get("buildx.build.warnings"), None);
    let warnings = metadata("1")["buildx.build.warnings"].clone();
    let warning = &warnings[1];
    let url = "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/";
    assert_eq!(warning["url"], url, "{warnings}");
    assert_eq!(warning["level"], 1);
    let lines: Vec<&serde_json::Value> = warning["range"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|range| &range["start"]["line"])
        .collect();
    assert_eq!(lines, [3, 4]);
}

#[test]
fn warnings_are_errors_if_that_is_asked_for() {
    let project = project!(Base::Busybox);
    let text = format!("# check=error=true\n{DOCKERFILE}");
    project.write(&[("Dockerfile", &text)]);
    let rules = "lint violation found for rules: FromAsCasing, JSONArgsRecommended";
    let failed = project.build(&[]).exit(1);
    let failed = failed.says(&format!(
        "ERROR: failed to build: failed to solve: {rules}\n"
    ));
    assert!(
        failed.stderr.contains(" 2 warnings found"),
        "{}",
        failed.stderr
    );
    assert!(!failed.stderr.contains("RUN"), "{}", failed.stderr);
    let skipped = "--build-arg=BUILDKIT_DOCKERFILE_CHECK=skip=FromAsCasing";
    let _ = project.build(&[skipped]).success().says(" 1 warning found");
    let checked = larder(&project, &["build", "--check"]).exit(1);
    assert!(checked.text().starts_with("Check complete, 2 warnings"));
    let _ = checked.says(&format!("ERROR: {rules}\n"));
}

#[test]
fn checks_run_in_place_of_a_build() {
    let project = project!(Base::Busybox);
    project.write(&[
        ("Dockerfile", DOCKERFILE),
        ("fine/Dockerfile", "FROM busybox\nRUN false\n"),
        ("secret", ""),
        (".dockerignore", "secret\n"),
        (
            "ignored",
            "FROM busybox\nCOPY secret /\nFROM scratch\nCOPY a /\n",
        ),
    ]);
    let check = larder(&project, &["build", "--check"]).exit(1);
    assert_eq!(
        check.text(),
        "Check complete, 2 warnings have been found!\n\
         \n\
         WARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/\n\
         'as' and 'FROM' keywords' casing do not match\n\
         Dockerfile:1\n\
         --------------------\n   \
            1 | >>> FROM busybox as made\n   \
            2 |     RUN echo made\n   \
            3 |     CMD echo \\\n\
         --------------------\n\
         \n\
         WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/\n\
         JSON arguments recommended for CMD to prevent unintended behavior related to OS signals\n\
         Dockerfile:3\n\
         --------------------\n   \
            2 |     RUN echo made\n   \
            3 | >>> CMD echo \\\n   \
            4 | >>>   made\n   \
            5 |     \n\
         --------------------"
    );
    assert!(!check.stderr.contains("warning"), "{}", check.stderr);

    let fine = project.context().join("fine");
    let fine = project
        .larder()
        .run(["build".as_ref(), "--check".as_ref(), fine.as_os_str()]);
    assert_eq!(fine.success().text(), "Check complete, no warnings found.");

    // All stages are checked, not only those that the target needs.
    let ignored = project.context().join("ignored");
    let chosen = format!("--file={}", ignored.display());
    let text = larder(&project, &["build", "--check", &chosen])
        .exit(1)
        .text();
    let message =
        "Attempting to Copy file \"secret\" that is excluded by .dockerignore\nignored:2\n";
    assert!(text.contains(message), "{text}");

    let json = larder(&project, &["build", "--call=check,format=json"]).exit(1);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["warnings"][1]["ruleName"], "JSONArgsRecommended");
    let source = &json["sources"][0];
    assert_eq!(source["filename"], "Dockerfile");
    assert!(source["definition"].is_null(), "{source}");
    let _ = larder(&project, &["build", "--call=check,ignorestatus=true"]).success();
    let _ = larder(&project, &["build", "--call=convert"])
        .exit(1)
        .says("`convert` is no method");
}

#[test]
fn questions_are_answered_in_place_of_a_build() {
    let project = project!(Base::Busybox);
    project.write(&[(
        "Dockerfile",
        "# TAG which busybox\nARG TAG=latest\n\n# base has what all need\nFROM busybox:$TAG AS base\n\
         RUN --mount=type=secret,id=key,required=true --mount=type=cache,target=/c false\n\
         FROM base\nARG MODE\nRUN false\n",
    )]);
    let outline = larder(
        &project,
        &["build", "--call=outline", "--build-arg=MODE=fast"],
    );
    let outline = outline.success();
    assert_eq!(
        String::from_utf8(outline.stdout).unwrap(),
        "BUILD ARG   VALUE    DESCRIPTION\n\
         TAG         latest   which busybox\n\
         MODE        fast     \n\
         \n\
         SECRET   REQUIRED\n\
         key      true\n\
         \n"
    );
    assert!(!outline.stderr.contains("RUN"), "{}", outline.stderr);
    let base = larder(
        &project,
        &["build", "--call=outline,format=json", "--target=BASE"],
    );
    let base: serde_json::Value = serde_json::from_slice(&base.success().stdout).unwrap();
    assert_eq!(base["name"], "base");
    assert_eq!(base["description"], "has what all need");
    assert_eq!(base["args"].as_array().unwrap().len(), 1);
    assert_eq!(base["cache"][0]["ID"], "/c");
    let missing = larder(&project, &["build", "--call=outline", "--target=x"]).exit(1);
    let message =
        "ERROR: failed to build: failed to solve: target stage \"x\" could not be found\n";
    assert_eq!(missing.says(message).stdout, b"");

    // Stages are listed as the file has them; no base image need be there.
    project.write(&[(
        "Dockerfile",
        "# a builds\nFROM gone.invalid/x AS a\nFROM a\n",
    )]);
    let targets = larder(&project, &["build", "--call=targets"]).success();
    assert_eq!(
        targets.text(),
        "TARGET    DESCRIPTION\na         builds\n(default)"
    );
    let alias = larder(&project, &["build", "--print=targets,format=json"]).success();
    let json: serde_json::Value = serde_json::from_slice(&alias.stdout).unwrap();
    assert_eq!(json["targets"][1]["default"], true);
    let asked = larder(&project, &["build", "--call=subrequests.describe"]).success();
    assert_eq!(asked.text().lines().count(), 4, "{}", asked.text());
}

#[test]
fn what_cannot_be_built_cannot_be_checked() {
    let project = project!(Base::Busybox);
    project.write(&[("Dockerfile", "FROM busybox as a\nRUNN x\n")]);
    let unknown = larder(&project, &["build", "--check"]).exit(1);
    let _ = unknown.says("unknown instruction: RUNN (did you mean RUN?)");
    project.write(&[("Dockerfile", "FROM busybox as a\nCOPY --chmod=9 a /\n")]);
    let failed = larder(&project, &["build", "--check"]).exit(1);
    assert!(
        failed
            .text()
            .starts_with("Check complete, 1 warning has been found!\n")
    );
    let _ = failed
        .says("Dockerfile:2\n")
        .says("ERROR: invalid chmod parameter");
}
