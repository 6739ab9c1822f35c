//! `larder login` and `logout`.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use fs_err as fs;
use larder_testkit::{Larder, Registry, RegistryOptions, Run, skip, write_tree};

use crate::{Setup, image};

/// A registry that wants a password, and an image with a name there.
struct Private {
    setup: Setup,
    name: String,
}

macro_rules! private {
    () => {
        match Private::new() {
            Ok(private) => private,
            Err(error) => skip!("no registry: {error:#}"),
        }
    };
}

impl Private {
    fn new() -> anyhow::Result<Self> {
        let setup = Setup::new(&RegistryOptions {
            basic_auth: true,
            ..RegistryOptions::default()
        })?;
        let name = format!("{}/team/private:1", setup.registry.host());
        let archive = setup.scratch.join("made.tar");
        image("a", b"a").write(&archive)?;
        let import = ["import", archive.to_str().unwrap_or_default(), &name];
        let _ = setup.larder.run(import).success();
        Ok(Self { setup, name })
    }

    fn larder(&self) -> &Larder {
        &self.setup.larder
    }

    fn host(&self) -> &str {
        self.setup.registry.host()
    }

    fn config(&self) -> PathBuf {
        self.setup.scratch.home().join(".docker/config.json")
    }

    /// Runs `larder login` with a password on standard input.
    fn log_in(&self, larder: &Larder, password: &str) -> Run {
        let args = [
            "login",
            "-u",
            Registry::USER,
            "--password-stdin",
            self.host(),
        ];
        let mut command = larder.command(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
        let output = child.wait_with_output().unwrap();
        Run {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
            elapsed: std::time::Duration::ZERO,
        }
    }
}

/// Panics if anything that was said tells a credential.
fn assert_discreet(run: &Run) {
    let said = format!("{}{}", run.text(), run.stderr);
    for secret in [Registry::PASSWORD, "sesame", "guess", "YWxp"] {
        assert!(!said.contains(secret), "{said}");
    }
}

#[test]
fn a_login_lets_one_push_and_pull_until_the_logout() {
    let private = private!();
    let denied = |run: Run| {
        let run = run
            .exit(1)
            .says("access denied")
            .says("\nhint: log in with `larder login`");
        assert_discreet(&run);
    };
    let push = || private.larder().run(["push", &private.name]);
    denied(push());

    let wrong = private.log_in(private.larder(), "guess").exit(1);
    let expected = format!("`{}` refuses the login: ", private.host());
    assert_discreet(&wrong.says(&expected));
    assert!(!private.config().exists(), "what is refused is not kept");

    write_tree(
        &private.setup.scratch.home(),
        &[(".docker/config.json", r#"{"features":{"buildkit":true}}"#)],
    );
    let run = private
        .log_in(private.larder(), Registry::PASSWORD)
        .success();
    assert_eq!(run.text(), "Login Succeeded");
    assert_discreet(&run.says("kept unencrypted"));
    let text = fs::read_to_string(private.config()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["features"]["buildkit"], true);
    assert_eq!(
        json["auths"][private.host()]["auth"],
        "YWxpOm9wZW4gc2VzYW1l"
    );
    let mode = fs::metadata(private.config()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let _ = push().success();
    let _ = private
        .larder()
        .run(["pull", "-q", &private.name])
        .success();

    let run = private.larder().run(["logout", private.host()]).success();
    let expected = format!("Removing login credentials for {}", private.host());
    assert_eq!(run.text(), expected);
    denied(push());
    denied(private.larder().run(["pull", &private.name]));
}

#[test]
fn a_credential_helper_keeps_the_login() {
    let private = private!();
    let scratch = &private.setup.scratch;
    // As helpers do: `get` prints what `store` was given.
    let helper = "#!/bin/sh\nfile=$HOME/kept\ncase $1 in\nstore) cat > \"$file\" ;;\n\
        get) cat > /dev/null; if [ -e \"$file\" ]; then cat \"$file\"; \
        else echo 'credentials not found in native keychain'; exit 1; fi ;;\n\
        erase) cat > /dev/null; rm \"$file\" ;;\nesac\n";
    write_tree(&scratch.join("bin"), &[("docker-credential-test*", helper)]);
    let config = r#"{"credsStore":"test"}"#;
    write_tree(&scratch.home(), &[(".docker/config.json", config)]);
    let path = format!(
        "{}:{}",
        scratch.join("bin").display(),
        std::env::var("PATH").unwrap()
    );
    let larder = private.larder().clone().with_env("PATH", path);
    let _ = larder.run(["push", &private.name]).exit(1);
    let run = private.log_in(&larder, Registry::PASSWORD).success();
    assert!(!run.stderr.contains("unencrypted"), "{}", run.stderr);
    let kept = fs::read_to_string(scratch.home().join("kept")).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(kept["ServerURL"], private.host());
    assert_eq!(kept["Secret"], Registry::PASSWORD);
    let text = fs::read_to_string(private.config()).unwrap();
    assert!(
        text.contains(private.host()) && !text.contains("YWxp"),
        "{text}"
    );
    let _ = larder.run(["push", &private.name]).success();
    let _ = larder.run(["logout", private.host()]).success();
    assert!(!scratch.home().join("kept").exists());
    let _ = larder.run(["push", &private.name]).exit(1);
}

#[test]
fn a_login_without_a_password_is_refused() {
    let private = private!();
    let run = |args: &[&str]| private.larder().run([&["login"], args].concat());
    let host = private.host();
    let _ = run(&[host]).exit(1).says("standard input is no terminal");
    let _ = run(&["-u", "ali", "--password-stdin", host])
        .exit(1)
        .says("the password is empty");
    let _ = run(&["--password-stdin", host]).exit(1).says("--username");
    let _ = run(&["-u", "ali", "-p", "x", "--password-stdin", host])
        .exit(1)
        .says("cannot be used with");
    let _ = run(&["-u", "ali", "-p", "x", "user@host"])
        .exit(1)
        .says("`user@host` is not a registry");
    let _ = run(&["-u", Registry::USER, "-p", Registry::PASSWORD, host])
        .success()
        .says("WARNING: others on this machine can see `--password`");
}
