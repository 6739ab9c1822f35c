//! What the binary answers to its arguments: streams and exit codes.

use std::process::{Command, Output};

fn larder(arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_larder"))
        .args(arguments.split_whitespace())
        .env_remove("BUILDKIT_PROGRESS")
        .output()
        .expect("the binary was built for this test")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_and_version_are_data() {
    for arguments in [
        "--help",
        "build --help",
        "help prune",
        "--version",
        "version",
    ] {
        let output = larder(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments}");
        assert!(!output.stdout.is_empty(), "{arguments}");
        assert!(output.stderr.is_empty(), "{arguments}");
    }
    assert_eq!(
        text(&larder("version").stdout),
        text(&larder("--version").stdout)
    );
}

#[test]
fn wrong_arguments_are_told_on_standard_error_with_code_1() {
    for (arguments, expected) in [
        ("", "Usage"),
        ("nope", "unrecognized subcommand 'nope'"),
        ("build", "<CONTEXT>"),
        ("build --nope .", "'--nope'"),
        ("build --ulimit nofile=x .", "'nofile=x' for '--ulimit"),
        (
            "build --attest type=nope .",
            "`nope` is no attestation larder can make",
        ),
        (
            "build /does/not/exist",
            "ERROR: unable to prepare context: path \"/does/not/exist\" not found",
        ),
        (
            "prune --min-free-space lots",
            "'lots' for '--min-free-space",
        ),
        ("tag image", "<NAME>"),
    ] {
        let output = larder(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments}");
        assert!(output.stdout.is_empty(), "{arguments}");
        let message = text(&output.stderr);
        assert!(message.contains(expected), "{arguments}: {message}");
    }
}

#[test]
fn logins_in_arguments_are_not_repeated() {
    for arguments in [
        "build --cache-from https://me:hush-hush@127.0.0.1:1/x .",
        "build --cache-to type=registry,ref=me:hush-hush@127.0.0.1:1/x .",
        "build -t https://hush-hush@127.0.0.1:1/x .",
        "push me:hush-hush@127.0.0.1:1/x",
        "pull me:hush-hush@127.0.0.1:1/x",
    ] {
        let output = larder(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments}");
        let message = text(&output.stderr);
        assert!(
            message.contains("xxxxx@127.0.0.1"),
            "{arguments}: {message}"
        );
        assert!(!message.contains("hush"), "{arguments}: {message}");
    }
}

#[test]
fn source_policies_are_not_passed_over() {
    let output = Command::new(env!("CARGO_BIN_EXE_larder"))
        .args(["build", "."])
        .env("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY", "policy.json")
        .output()
        .expect("the binary was built for this test");
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    let begin = "ERROR: `EXPERIMENTAL_BUILDKIT_SOURCE_POLICY`: failed to open file `policy.json`";
    assert!(message.starts_with(begin), "{message}");
}
