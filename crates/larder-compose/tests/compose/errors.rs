//! What is wrong is told with file, line and key.

use crate::support::Directory;

/// Loads `text` as `compose.yaml`, and expects the error `expect`.
#[track_caller]
fn check(text: &str, expect: &str) {
    check_files(&[("compose.yaml", text)], expect);
}

#[track_caller]
fn check_files(files: &[(&str, &str)], expect: &str) {
    let directory = Directory::new(files);
    let project = directory.options().load();
    let error = project.and_then(|project| project.in_order::<&str>(&[]).map(|_| ()));
    let error = error.expect_err("the file is wrong");
    let message = directory.redact(&error.to_string());
    assert!(message.contains(expect), "{message}\n  is not\n{expect}");
}

#[test]
fn of_the_file() {
    check("services: {a: {image: x}", "compose.yaml:2: no valid YAML:");
    check("services:\n\ta: x\n", "compose.yaml:2: no valid YAML:");
    check(
        "a: 1\nb: 2\na: 3\n",
        "compose.yaml:3: mapping key `a` already defined at line 1",
    );
    check("", "`compose.yaml` is empty");
    check("services: {a: *x}", "compose.yaml:1: no valid YAML:");
    check(
        "services: {a: {<<: 1}}",
        "compose.yaml:1: <<: must be a mapping",
    );
    check("[a]: b\n", "compose.yaml:1: a key must be a string");
}

#[test]
fn of_keys_and_kinds() {
    check(
        "services:\n  a:\n    image: x\n    build:\n      context: .\n      dokcerfile: D\n",
        "compose.yaml:6: services.a.build: additional properties 'dokcerfile' not allowed",
    );
    check(
        "services: {a: {image: [x]}}",
        "compose.yaml:1: services.a.image: must be a string, not a list",
    );
    check(
        "services: {a: {command: 'x \"y'}}",
        "services.a.command: a quote is not closed",
    );
    check(
        "services: {a: {}}",
        "services.a: has neither an image nor a build context specified",
    );
    check(
        "services: {a: {image: x, healthcheck: {interval: 5}}}",
        "services.a.healthcheck.interval: must be a string, not a number",
    );
    check(
        "services: {a: {image: x, healthcheck: {interval: soon}}}",
        "services.a.healthcheck.interval: `soon` is no time",
    );
    check(
        "services: {a: {image: x, healthcheck: {test: [x]}}}",
        "`test` must begin with NONE, CMD or CMD-SHELL",
    );
    check(
        "services: {a: {image: x, restart: sometimes}}",
        "`sometimes` is no policy",
    );
    check(
        "services: {a: {image: x, shm_size: big}}",
        "services.a.shm_size: `big` is no size",
    );
    check(
        "services: {a: {image: x, depends_on: {b: {condition: nice}}}}",
        "`nice` is none",
    );
}

#[test]
fn of_short_forms() {
    for port in [
        "x", "1:2:3:4", "80-70", "80:90-91", "70000", "80/icmp", "0", "80:000",
    ] {
        check(
            &format!("services:\n  a:\n    image: x\n    ports:\n    - '{port}'\n"),
            &format!("compose.yaml:5: services.a.ports.[0]: invalid port specification `{port}`"),
        );
    }
    check(
        "services: {a: {image: x, ports: [{target: 0}]}}",
        "services.a.ports.[0].target: `0` is no port",
    );
    for volume in ["a:b:c:d", ":/x", "./x:"] {
        check(
            &format!("services:\n  a:\n    image: x\n    volumes:\n    - '{volume}'\n"),
            &format!(
                "compose.yaml:5: services.a.volumes.[0]: invalid volume specification `{volume}`"
            ),
        );
    }
    check(
        "services: {a: {image: x, volumes: ['./x:y']}}",
        "services.a.volumes.[0].target: `y` is not an absolute path",
    );
    check(
        "services: {a: {image: x, volumes: [{type: odd, target: /x}]}}",
        "`odd` is no type of mount",
    );
    check(
        "services: {a: {image: x, environment: ['=x']}}",
        "services.a.environment.[0]: expected `NAME=value`",
    );
    check(
        "services: {a: {image: x, extra_hosts: [x]}}",
        "services.a.extra_hosts: `x` is not of the form `name=address`",
    );
}

#[test]
fn of_references() {
    check(
        "services: {a: {image: x, volumes: ['data:/d']}}",
        "services.a: refers to undefined volume `data`",
    );
    check(
        "services: {a: {image: x, depends_on: [b]}}",
        "services.a: depends on undefined service `b`",
    );
    check(
        "services: {a: {image: x, secrets: [s]}}",
        "refers to undefined secret `s`",
    );
    check(
        "services: {a: {build: {secrets: [s]}}}",
        "services.a.build: refers to undefined build secret `s`",
    );
    check(
        "secrets: {s: {}}",
        "secrets.s: one of `file`, `environment` and `external` must be set",
    );
    check(
        "services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [a]}}",
        "dependency cycle detected: a -> b -> a",
    );
    check(
        "services: {a: {build: {dockerfile: x, dockerfile_inline: y}}}",
        "declares mutually exclusive `dockerfile` and `dockerfile_inline`",
    );
    check(
        "services: {a: {build: {platforms: [linux/arm64]}, platform: linux/amd64}}",
        "`platforms` must contain the service's platform `linux/amd64`",
    );
}

#[test]
fn of_variables() {
    check(
        "services:\n  a:\n    image: ${X:?set it}\n",
        "compose.yaml:3: services.a.image: required variable `X` is missing a value: set it",
    );
    check(
        "services: {a: {image: '${} x'}}",
        "services.a.image: invalid interpolation format",
    );
    check_files(
        &[("compose.yaml", "services: {}"), (".env", "A='x")],
        "[dir]/.env:1: A: unterminated quoted value",
    );
    check(
        "name: '!'\nservices: {}",
        "compose.yaml:1: name: project name must not be empty",
    );
}

#[test]
fn of_what_contradicts_itself() {
    for (text, expect) in [
        (
            "services: {a: {image: x, networks: [n]}}",
            "services.a: refers to undefined network `n`",
        ),
        (
            "services: {a: {image: x, network_mode: host, networks: [default]}}",
            "services.a: declares mutually exclusive `network_mode` and `networks`",
        ),
        (
            "services: {a: {image: x, links: [b]}}",
            "services.a: depends on undefined service `b`",
        ),
        (
            "services: {a: {image: x, pid: 'service:b'}}",
            "services.a: depends on undefined service `b`",
        ),
        (
            "services: {a: {image: x, scale: 2, deploy: {replicas: 3}}}",
            "services.a: can't set distinct values on `scale` and `deploy.replicas`",
        ),
        (
            "services: {a: {image: x, container_name: '-x'}}",
            "services.a: `container_name`: `-x` does not match pattern",
        ),
        (
            "services: {a: {image: x, pull_policy: never-ever}}",
            "services.a: `pull_policy`: `never-ever` is no policy",
        ),
        (
            "services: {}\nsecrets: {s: {file: x, environment: y}}",
            "secrets.s: `file` and `environment` are mutually exclusive",
        ),
        (
            "services: {}\nvolumes: {v: {external: true, driver: x}}",
            "volumes.v: conflicting parameters `external` and `driver` specified",
        ),
    ] {
        check(text, expect);
    }
    check_files(
        &[
            (
                "compose.yaml",
                "include: [b.yaml]\nservices: {a: {image: x}}",
            ),
            ("b.yaml", "services: {a: {image: y}}"),
        ],
        "services.a: conflicts with imported resource",
    );
}

#[test]
fn of_values_that_are_shown() {
    for (key, expect) in [
        ("mem_limit: abc", "services.a.mem_limit: `abc` is no size"),
        ("cpus: abc", "services.a.cpus: `abc` is no number"),
    ] {
        let text = format!("services: {{a: {{image: x, {key}}}}}");
        let directory = Directory::new(&[("compose.yaml", &text)]);
        let project = directory.options().load().unwrap();
        for shown in [project.to_yaml(true), project.to_json(true)] {
            let error = shown.unwrap_err().to_string();
            assert!(error.contains(expect), "{key}: {error}");
        }
    }
}

#[test]
fn of_extends_and_include() {
    check(
        "services: {a: {extends: b}}",
        "services.a.extends: service `b` not found",
    );
    check(
        "services: {a: {extends: b}, b: {extends: a}}",
        "circular reference: `a` extends itself",
    );
    check(
        "services: {a: {extends: {file: no.yaml, service: b}}}",
        "compose.yaml:1: services.a.extends: cannot read `no.yaml`",
    );
    check_files(
        &[
            (
                "compose.yaml",
                "services:\n  a:\n    extends: {file: b.yaml, service: c}",
            ),
            ("b.yaml", "services: {b: {image: x}}"),
        ],
        "compose.yaml:3: services.a.extends: service `c` not found in `b.yaml`",
    );
    check(
        "include: [compose.yaml]",
        "include.[0]: include cycle detected",
    );
    check(
        "include: [no.yaml]",
        "compose.yaml:1: include.[0]: cannot read `[dir]/no.yaml`",
    );
    check(
        "include: [{path: compose.yaml, env_file: no.env}]",
        "compose.yaml:1: include.[0]: cannot read env file `[dir]/no.env`",
    );
    check(
        "include: ['https://x/y.yaml']",
        "compose.yaml:1: include.[0]: `https://x/y.yaml`: only local files can be included",
    );
    check_files(
        &[
            ("compose.yaml", "include: [b.yaml]\nservices: {}"),
            ("b.yaml", "services:\n  b: {image: x, nope: 1}"),
        ],
        "[dir]/b.yaml:2: services.b: additional properties 'nope' not allowed",
    );
}
