//! `--set`

use larder_bake::{OutputEntry, Target};

use super::support::{file, plan_with, read_all, strings};

const TEXT: &str = r#"
    target "webDEP" {
      args = { VAR_INHERITED = "webDEP", VAR_BOTH = "webDEP" }
      no-cache = true
      contexts = { a = "b" }
    }
    target "webapp" {
      dockerfile = "Dockerfile.webapp"
      args = { VAR_BOTH = "webapp" }
      inherits = ["webDEP"]
      annotations = ["a=b"]
      attest = ["type=provenance,mode=max"]
      platforms = ["linux/amd64"]
      secret = ["id=FOO,env=FOO"]
      tags = ["one"]
    }
"#;

fn webapp(overrides: &[&str]) -> Target {
    let plan = plan_with(TEXT, &["webapp"], overrides);
    let mut plan = plan.unwrap_or_else(|error| panic!("{overrides:?}: {error}"));
    plan.targets.remove("webapp").unwrap()
}

fn flags(outputs: Option<&Vec<OutputEntry>>) -> Vec<String> {
    outputs
        .into_iter()
        .flatten()
        .map(OutputEntry::to_flag)
        .collect()
}

#[test]
fn lists_are_replaced_or_added_to() {
    for (overrides, expected) in [
        (&["webapp.platform=linux/arm64"][..], &["linux/arm64"][..]),
        (
            &["webapp.platform+=linux/arm64"],
            &["linux/amd64", "linux/arm64"],
        ),
        (
            &[
                "webapp.platform+=linux/arm64",
                "webapp.platform+=linux/riscv64",
            ],
            &["linux/amd64", "linux/arm64", "linux/riscv64"],
        ),
        (
            &[
                "webapp.platform+=linux/arm64",
                "webapp.platform=linux/riscv64",
            ],
            &["linux/arm64", "linux/riscv64"],
        ),
    ] {
        assert_eq!(
            webapp(overrides).platforms,
            Some(strings(expected)),
            "{overrides:?}"
        );
    }
    assert_eq!(
        webapp(&["webapp.tags+=two"]).tags,
        Some(strings(&["one", "two"]))
    );
    assert_eq!(webapp(&["webapp.tags="]).tags, Some(Vec::new()));
    assert_eq!(
        webapp(&["webapp.annotations=c=d"]).annotations,
        Some(strings(&["a=b", "c=d"]))
    );
    let attest = webapp(&[
        "webapp.attest=type=sbom",
        "webapp.attest+=type=provenance,disabled=true",
    ]);
    let attest = attest.attest.unwrap();
    assert_eq!(
        (attest[0].kind.as_str(), attest[0].is_disabled),
        ("provenance", true)
    );
    assert_eq!(attest[1].kind, "sbom");
    assert_eq!(
        webapp(&["webapp.no-cache-filter=s"]).no_cache_filter,
        Some(strings(&["s"]))
    );
    assert_eq!(
        webapp(&["webapp.ulimits=nofile=1:2"]).ulimits,
        Some(strings(&["nofile=1:2"]))
    );
    assert_eq!(
        webapp(&["webapp.cache-from=a,b"]).cache_from.unwrap().len(),
        2
    );
}

#[test]
fn values_are_replaced() {
    let target = webapp(&[
        "webapp.context=foo",
        "webapp.dockerfile=d",
        "webapp.target=t",
        "webapp.network=none",
        "webapp.shm-size=1g",
        "webapp.call=check",
        "webapp.no-cache=false",
        "webapp.pull=1",
        "webapp.labels.a.b=c=d",
        "webapp.extra-hosts.h=1.2.3.4",
        "webapp.contexts.a=",
        "webapp.resources.memory=1g",
    ]);
    assert_eq!(target.context.as_deref(), Some("foo"));
    assert_eq!(target.dockerfile.as_deref(), Some("d"));
    assert_eq!(target.target.as_deref(), Some("t"));
    assert_eq!(target.network.as_deref(), Some("none"));
    assert_eq!(target.shm_size.as_deref(), Some("1g"));
    assert_eq!(target.call.as_deref(), Some("check"));
    assert_eq!((target.no_cache, target.pull), (Some(false), Some(true)));
    assert_eq!(target.labels["a.b"].as_deref(), Some("c=d"));
    assert_eq!(target.extra_hosts["h"].as_deref(), Some("1.2.3.4"));
    assert!(target.contexts.is_empty());
    assert_eq!(target.resources["memory"], "1g");
}

#[test]
fn arguments_may_come_from_the_environment() {
    let definition = read_all(vec![file("docker-bake.hcl", TEXT)], &[("SET", "env")]).unwrap();
    let overrides = strings(&[
        "webapp.args.SET",
        "webapp.args.UNSET",
        "webapp.args.EMPTY=",
        "webapp.args.VAR_INHERITED=override",
        "webDEP.args.VAR_BOTH=parent",
    ]);
    let plan = definition.plan(&strings(&["webapp"]), &overrides).unwrap();
    let args = &plan.targets["webapp"].args;
    assert_eq!(args["SET"].as_deref(), Some("env"));
    assert!(!args.contains_key("UNSET"));
    assert_eq!(args["EMPTY"].as_deref(), Some(""));
    assert_eq!(args["VAR_INHERITED"].as_deref(), Some("override"));
    assert_eq!(args["VAR_BOTH"].as_deref(), Some("webapp"));
}

#[test]
fn patterns_name_several_targets() {
    let plan = plan_with(
        TEXT,
        &["webapp", "webDEP"],
        &["web*.dockerfile=foo", "*.args.X=1"],
    )
    .unwrap();
    for target in plan.targets.values() {
        assert_eq!(target.dockerfile.as_deref(), Some("foo"));
        assert_eq!(target.args["X"].as_deref(), Some("1"));
    }
}

#[test]
fn secrets_keep_their_names() {
    let target = webapp(&["webapp.secret.FOO=src=/f"]);
    let secret = &target.secrets.unwrap()[0];
    assert_eq!(
        (
            secret.id.as_str(),
            secret.file.as_str(),
            secret.variable.as_str()
        ),
        ("FOO", "/f", "")
    );
}

#[test]
fn pushing_and_loading_add_outputs_where_none_fits() {
    for (output, given, expected) in [
        ("", "push=true", &["type=image,push=true"][..]),
        (
            "\"type=image,compression=zstd\"",
            "push=true",
            &["type=image,compression=zstd,push=true"],
        ),
        ("\"type=registry\"", "push=true", &["type=registry"]),
        (
            "\"type=docker\"",
            "push=true",
            &["type=docker", "type=image,push=true"],
        ),
        ("\"out\"", "push=true", &["type=local,dest=out"]),
        ("\"type=registry\"", "push=false", &[]),
        ("\"type=image\"", "push=false", &["type=image,push=false"]),
        ("", "load=true", &["type=docker"]),
        ("\"type=docker\"", "load=true", &["type=docker"]),
        (
            "\"type=docker,dest=x\"",
            "load=true",
            &["type=docker,dest=x", "type=docker"],
        ),
        (
            "\"type=image\"",
            "load=true",
            &["type=image", "type=docker"],
        ),
        ("\"out\"", "load=true", &["type=local,dest=out"]),
        ("", "load=false", &[]),
    ] {
        let text = format!("target \"default\" {{ output = [{output}] }}");
        let plan = plan_with(&text, &[], &[&format!("*.{given}")]).unwrap();
        assert_eq!(
            flags(plan.targets["default"].outputs.as_ref()),
            expected,
            "{output} {given}"
        );
    }
}

#[test]
fn overrides_grant_what_they_ask_for() {
    let overrides = [
        "webapp.output=type=local,dest=/out",
        "webapp.cache-from=type=local,src=/in",
        "webapp.cache-to=type=local,dest=/cache",
        "webapp.secrets=id=a,src=/s",
        "webapp.secret.a=src=/t",
        "webapp.ssh=default=/agent",
        "webapp.entitlements=network.host",
    ];
    let granted = plan_with(TEXT, &["webapp"], &overrides).unwrap().granted;
    assert_eq!(granted.read, ["/in", "/s", "/t", "/agent"]);
    assert_eq!(granted.write, ["/out", "/cache"]);
    assert_eq!(granted.entitlements, ["network.host"]);
}

#[test]
fn wrong_overrides_are_told() {
    for (given, expected) in [
        ("webapp", "invalid override key, expected target.name"),
        (
            "webapp.context",
            "invalid override, expected target.name=value",
        ),
        (
            "nosuch.context=x",
            "could not find any target matching 'nosuch'",
        ),
        (
            "webap.context=x",
            "could not find any target matching 'webap' (did you mean webapp?)",
        ),
        ("webapp.args=x", "`args` requires a name"),
        (
            "webapp.platforms=x",
            "unknown key: platforms (did you mean platform?)",
        ),
        (
            "webapp.no-cache=maybe",
            "invalid value maybe for a boolean key",
        ),
        ("webapp.output=dest=x,name=y", "`type` is required"),
        ("webapp.resources.disk=1", "there is no limit `disk`"),
        (
            "webapp.secret.BAR=env=B",
            "secret \"BAR\" must be declared before it can be overridden",
        ),
        (
            "webapp.secret.FOO=id=BAR",
            "secret override id \"BAR\" does not match declared secret \"FOO\"",
        ),
    ] {
        let error = plan_with(TEXT, &["webapp"], &[given])
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{given}: {error}");
    }
}
