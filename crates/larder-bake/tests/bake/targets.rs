//! Targets: attributes, inheritance, references, links, several files.

use std::fmt::Write as _;

use super::support::{error, file, plan, plan_with, read_all, strings};

#[test]
fn all_attributes_are_taken() {
    let text = r#"
        target "default" {
          description = "all"
          annotations = ["index,manifest:a=b"]
          attest = ["type=sbom", { type = "provenance", mode = "max" }, "type=sbom,disabled=true"]
          context = "./dir/"
          contexts = { other = "../other", base = "docker-image://alpine" }
          dockerfile = "Other"
          dockerfile-inline = "FROM scratch"
          args = { A = 1, B = true, C = null }
          labels = { l = "v" }
          tags = ["a", "b", "a", ""]
          cache-from = ["user/app:cache,user/app:other", { type = "local", src = "c" }]
          cache-to = ["type=inline"]
          target = "stage"
          secret = ["id=a,src=f", { id = "b", env = "B" }, "type=env,id=c,src=V"]
          ssh = ["default", "key=a,b", { id = "other", paths = ["p"] }]
          platforms = ["linux/amd64"]
          output = ["out", "-", { type = "oci", dest = "x.tar" }]
          pull = "true"
          no-cache = 1
          network = "host"
          no-cache-filter = ["a"]
          shm-size = "64m"
          ulimits = ["nofile=1:2"]
          resources = { memory = "2g", cpu-shares = 5 }
          call = "check"
          entitlements = ["security.insecure"]
          extra-hosts = { h = "1.2.3.4" }
          policy = [{ disabled = true }]
        }
    "#;
    insta::assert_snapshot!(plan(text, &[]).to_json(), @r#"
    {
      "group": {
        "default": {
          "targets": [
            "default"
          ]
        }
      },
      "target": {
        "default": {
          "description": "all",
          "annotations": [
            "index,manifest:a=b"
          ],
          "attest": [
            {
              "disabled": true,
              "type": "sbom"
            },
            {
              "mode": "max",
              "type": "provenance"
            }
          ],
          "context": "dir",
          "contexts": {
            "base": "docker-image://alpine",
            "other": "../other"
          },
          "dockerfile": "Other",
          "dockerfile-inline": "FROM scratch",
          "args": {
            "A": "1",
            "B": "true"
          },
          "labels": {
            "l": "v"
          },
          "tags": [
            "a",
            "b"
          ],
          "cache-from": [
            {
              "ref": "user/app:cache",
              "type": "registry"
            },
            {
              "ref": "user/app:other",
              "type": "registry"
            },
            {
              "src": "c",
              "type": "local"
            }
          ],
          "cache-to": [
            {
              "type": "inline"
            }
          ],
          "target": "stage",
          "secret": [
            {
              "id": "a",
              "src": "f"
            },
            {
              "id": "b",
              "env": "B"
            },
            {
              "id": "c",
              "env": "V"
            }
          ],
          "ssh": [
            {
              "id": "default"
            },
            {
              "id": "key",
              "paths": [
                "a",
                "b"
              ]
            },
            {
              "id": "other",
              "paths": [
                "p"
              ]
            }
          ],
          "platforms": [
            "linux/amd64"
          ],
          "output": [
            {
              "dest": "out",
              "type": "local"
            },
            {
              "dest": "-",
              "type": "tar"
            },
            {
              "dest": "x.tar",
              "type": "oci"
            }
          ],
          "pull": true,
          "no-cache": true,
          "network": "host",
          "no-cache-filter": [
            "a"
          ],
          "shm-size": "64m",
          "ulimits": [
            "nofile=1:2"
          ],
          "resources": {
            "cpu-shares": "5",
            "memory": "2g"
          },
          "call": "check",
          "entitlements": [
            "security.insecure",
            "network.host"
          ],
          "extra-hosts": {
            "h": "1.2.3.4"
          },
          "policy": [
            "disabled=true"
          ]
        }
      }
    }
    "#);
}

#[test]
fn null_leaves_attributes_unset() {
    let text = r#"
        variable "ONE" { default = null }
        target "parent" {
          platforms = ["linux/amd64"]
          contexts = { a = "b" }
        }
        target "default" {
          inherits = ["parent"]
          platforms = ONE == null ? null : [ONE]
          contexts = ONE != null ? { a = "target:parent" } : null
          target = ONE
          pull = null
          output = ["${""}"]
        }
    "#;
    let target = &plan(text, &[]).targets["default"];
    assert_eq!(target.platforms, Some(strings(&["linux/amd64"])));
    assert_eq!(target.contexts["a"], "b");
    assert_eq!((&target.target, target.pull), (&None, None));
    assert_eq!(target.outputs, Some(Vec::new()));
}

#[test]
fn parameters_hide_what_has_their_name() {
    let text = r#"
        function "tag" {
          params = [target, version]
          result = "${target}:${version}"
        }
        target "default" {
          matrix = { dockerfile = ["a.Dockerfile"] }
          dockerfile = dockerfile
          tags = [tag("x", "1")]
        }
    "#;
    let target = &plan(text, &[]).targets["default"];
    assert_eq!(target.dockerfile.as_deref(), Some("a.Dockerfile"));
    assert_eq!(target.tags, Some(strings(&["x:1"])));
}

#[test]
fn defaults_are_put_in() {
    let target = &plan("target \"default\" {}", &[]).targets["default"];
    assert_eq!(target.context.as_deref(), Some("."));
    assert_eq!(target.dockerfile.as_deref(), Some("Dockerfile"));
    assert!(!target.is_linked);
}

#[test]
fn later_parents_win_and_own_attributes_win_over_all() {
    let text = r#"
        target "app" {
          args = { GO = "1.20", EXPERIMENTAL = 1 }
          tags = ["app"]
          dockerfile = "app.Dockerfile"
          labels = { source = "x" }
          cache-from = ["a"]
          cache-to = ["type=inline"]
          ulimits = ["nofile=1"]
        }
        target "_release" {
          args = { KEEP = 1, EXPERIMENTAL = 0, GO = null }
          cache-from = ["b"]
          cache-to = ["c"]
        }
        target "release" {
          inherits = ["app", "_release"]
          platforms = ["linux/amd64"]
          args = { OWN = 1 }
          ulimits = ["nproc=2"]
        }
        target "none" {
          inherits = ["app"]
          tags = []
        }
    "#;
    let plan = plan(text, &["release", "none"]);
    let release = &plan.targets["release"];
    let args: Vec<_> = release
        .args
        .iter()
        .map(|(key, value)| format!("{key}={}", value.clone().unwrap()))
        .collect();
    assert_eq!(args, ["EXPERIMENTAL=0", "GO=1.20", "KEEP=1", "OWN=1"]);
    assert_eq!(release.tags, Some(strings(&["app"])));
    assert_eq!(release.dockerfile.as_deref(), Some("app.Dockerfile"));
    let flags = |entries: &Option<Vec<larder_bake::CacheEntry>>| -> Vec<String> {
        entries
            .iter()
            .flatten()
            .map(larder_bake::CacheEntry::to_flag)
            .collect()
    };
    assert_eq!(
        flags(&release.cache_from),
        ["type=registry,ref=a", "type=registry,ref=b"]
    );
    assert_eq!(flags(&release.cache_to), ["type=registry,ref=c"]);
    assert_eq!(release.ulimits, Some(strings(&["nofile=1", "nproc=2"])));
    assert!(release.inherits.is_empty());
    assert_eq!(plan.targets["none"].tags, Some(Vec::new()));
}

#[test]
fn inheritance_of_inheritance_and_of_itself() {
    let text = r#"
        target "a" { args = { a = 1 } }
        target "b" {
          inherits = ["a"]
          args = { b = 1 }
        }
        target "c" { inherits = ["b"] }
        target "x" {
          inherits = ["y"]
          args = { x = 1 }
        }
        target "y" {
          inherits = ["x"]
          args = { y = 1 }
        }
    "#;
    let plan = plan(text, &["c", "x"]);
    let keys = |name: &str| plan.targets[name].args.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys("c"), ["a", "b"]);
    assert_eq!(keys("x"), ["x", "y"]);
    let missing = error("target \"default\" { inherits = [\"nope\"] }");
    assert_eq!(missing, "failed to find target nope");
}

#[test]
fn targets_refer_to_each_other_s_attributes() {
    let text = r#"
        target "foo" {
          dockerfile = "xxx"
          context = target.bar.context
          target = target.foo.dockerfile
          tags = target.bar.tags
        }
        target "bar" {
          dockerfile = target.foo.dockerfile
          context = "yyy"
          tags = ["${target.bar.name}:${x}"]
          args = { n = target.foo.no-cache, first = target.bar.tags[0] }
        }
        x = target.foo.dockerfile
    "#;
    let plan = plan(text, &["foo", "bar"]);
    let (foo, bar) = (&plan.targets["foo"], &plan.targets["bar"]);
    assert_eq!(
        (foo.context.as_deref(), foo.target.as_deref()),
        (Some("yyy"), Some("xxx"))
    );
    assert_eq!(bar.dockerfile.as_deref(), Some("xxx"));
    assert_eq!(foo.tags, Some(strings(&["bar:xxx"])));
    assert_eq!(bar.args["first"].as_deref(), Some("bar:xxx"));
    assert!(!bar.args.contains_key("n"));
    for (text, expected) in [
        (
            "target \"default\" {\n context = target.default.target\n target = target.default.context\n}",
            "reference cycle not allowed for `target.default.context`",
        ),
        (
            "target \"default\" { context = target.other.context }",
            "there is no target named `other`",
        ),
        (
            "target \"default\" { context = target.default.color }",
            "targets have no attribute `color`",
        ),
        (
            "target \"default\" { context = target }",
            "`target` must be followed by the name of a target",
        ),
    ] {
        let error = error(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn linked_targets_are_added_and_kept_in_the_cache() {
    let text = r#"
        target "base" { network = "host" }
        target "mid" {
          output = ["out"]
          contexts = { parent = "target:base" }
        }
        target "app" {
          contexts = { foo = "baz", bar = "target:mid" }
          output = ["type=docker"]
        }
        target "unused" {}
    "#;
    let alone = plan(text, &["app"]);
    let names: Vec<_> = alone.targets.keys().collect();
    assert_eq!(names, ["app", "base", "mid"]);
    let flags = |plan: &larder_bake::Plan, name: &str| -> Vec<String> {
        plan.targets[name]
            .outputs
            .iter()
            .flatten()
            .map(larder_bake::OutputEntry::to_flag)
            .collect()
    };
    assert_eq!(flags(&alone, "mid"), ["type=cacheonly"]);
    assert!(alone.targets["mid"].is_linked);
    // What a linked target must be allowed, its readers must be, too.
    assert_eq!(
        alone.targets["app"].entitlements,
        Some(strings(&["network.host"]))
    );
    let both = plan(text, &["app", "mid"]);
    assert_eq!(flags(&both, "mid"), ["type=local,dest=out"]);
    assert!(!both.targets["mid"].is_linked);
}

#[test]
fn links_must_lead_somewhere() {
    for (text, expected) in [
        (
            "target \"default\" { contexts = { a = \"target:default\" } }",
            "target default cannot link to itself",
        ),
        (
            "target \"default\" { contexts = { a = \"target:b\" } }\ntarget \"b\" { contexts = { a = \"target:default\" } }",
            "infinite loop from b to default",
        ),
        (
            "target \"default\" { contexts = { a = \"target:b\" } }",
            "failed to find target b",
        ),
        (
            "target \"default\" {\n platforms = [\"linux/amd64\", \"linux/arm64\"]\n contexts = { a = \"target:b\" }\n}\n\
             target \"b\" { platforms = [\"linux/amd64\", \"linux/s390x\"] }",
            "target b can't be used by default because its platforms",
        ),
    ] {
        let error = error(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn a_diamond_of_links_is_walked_once() {
    let mut text = String::from("target \"default\" { contexts = { a = \"target:t0\" } }\n");
    for index in 0..60 {
        let next = index + 1;
        writeln!(
            text,
            "target \"t{index}\" {{ contexts = {{ a = \"target:t{next}\", b = \"target:u{next}\" }} }}\n\
             target \"u{index}\" {{ contexts = {{ a = \"target:t{next}\", b = \"target:u{next}\" }} }}"
        )
        .unwrap();
    }
    text.push_str("target \"t60\" {}\ntarget \"u60\" {}\n");
    assert_eq!(plan(&text, &[]).targets.len(), 1 + 1 + 2 * 60);
}

#[test]
fn files_are_merged_in_their_order() {
    let files = vec![
        file(
            "a.hcl",
            "group \"default\" { targets = [\"a\"] }\ntarget \"a\" {\n context = \"x\"\n tags = [\"1\"]\n cache-from = [\"c1\"]\n}",
        ),
        file(
            "b.json",
            "{\"target\": {\"a\": {\"tags\": [\"2\"], \"cache-from\": [\"c2\"]}, \"b\": {}}}",
        ),
        file("c.hcl", "group \"default\" { targets = [\"a\", \"b\"] }"),
    ];
    let plan = read_all(files, &[]).unwrap().plan(&[], &[]).unwrap();
    let target = &plan.targets["a"];
    assert_eq!(target.context.as_deref(), Some("x"));
    assert_eq!(target.tags, Some(strings(&["2"])));
    assert_eq!(target.cache_from.as_ref().unwrap().len(), 2);
    assert!(plan.targets.contains_key("b"));
}

#[test]
fn paths_are_cleaned_and_stdin_is_refused() {
    let context = |text: &str| {
        plan(
            &format!("target \"default\" {{ context = \"{text}\" }}"),
            &[],
        )
        .targets["default"]
            .context
            .clone()
            .unwrap()
    };
    for (given, expected) in [
        ("./db", "db"),
        ("a/../b/", "b"),
        ("cwd://foo", "foo"),
        ("https://example.com/x.git#a", "https://example.com/x.git#a"),
    ] {
        assert_eq!(context(given), expected, "{given}");
    }
    for key in ["context", "dockerfile"] {
        let text = format!("target \"default\" {{ {key} = \"-\" }}");
        assert!(error(&text).contains(&format!("{key} from stdin not allowed in bake")));
    }
}

#[test]
fn contexts_may_be_relative_to_their_files() {
    let files = || {
        vec![
            file(
                "one/docker-bake.hcl",
                "target \"app\" {\n context = \".\"\n contexts = { s = \"../shared\", i = \"docker-image://a\" }\n}\ntarget \"implicit\" {}",
            ),
            file(
                "two/docker-bake.hcl",
                "target \"app\" { tags = [\"t\"] }\ntarget \"other\" { context = \"sub\" }",
            ),
        ]
    };
    for (is_relative, app, implicit, other, shared) in [
        (true, "one", "one", "two/sub", "shared"),
        (false, ".", ".", "sub", "../shared"),
    ] {
        let mut options = super::support::options(&[]);
        options.is_relative_to_files = is_relative;
        let services = super::support::Services::default();
        let definition = larder_bake::Definition::read(files(), &services, options).unwrap();
        let plan = definition
            .plan(&strings(&["app", "implicit", "other"]), &[])
            .unwrap();
        let context = |name: &str| plan.targets[name].context.clone().unwrap();
        assert_eq!(
            (context("app"), context("implicit"), context("other")),
            (app.into(), implicit.into(), other.into())
        );
        assert_eq!(plan.targets["app"].contexts["s"], shared);
        assert_eq!(plan.targets["app"].contexts["i"], "docker-image://a");
    }
}

#[test]
fn wrong_values_name_target_and_attribute() {
    for (attribute, expected) in [
        (
            "tags = \"a\"",
            "`target.default`: `tags`: a list is required, not a string",
        ),
        (
            "tags = [null]",
            "`tags`: a string is required, and the value is null",
        ),
        ("args = []", "`args`: an object is required, not a list"),
        (
            "labels = { a = [] }",
            "`labels`: `a`: a string is required, not a list",
        ),
        ("pull = \"always\"", "`pull`: a bool is required"),
        (
            "output = [\"dest=x,name=y\"]",
            "`output`: `type` is required",
        ),
        (
            "output = [1]",
            "`output`: a string is required, not a number",
        ),
        (
            "cache-to = [{ref = \"x\"}]",
            "`cache-to`: `type` is required",
        ),
        (
            "secret = [\"colour=x\"]",
            "`secret`: unexpected key `colour`",
        ),
        (
            "secret = [\"type=x\"]",
            "`secret`: unsupported secret type `x`",
        ),
        ("attest = [\"x\"]", "`attest`: invalid value `x`"),
        (
            "resources = { disk = 1 }",
            "`resources`: there is no limit `disk`",
        ),
        ("args {\n }", "targets have no blocks `args`"),
    ] {
        let error = error(&format!("target \"default\" {{\n  {attribute}\n}}"));
        assert!(error.contains(expected), "{attribute}: {error}");
        assert!(
            error.starts_with("docker-bake.hcl:2,")
                || attribute.contains('{') && error.starts_with("docker-bake.hcl:"),
            "{error}"
        );
    }
}

#[test]
fn overrides_of_the_epoch_are_left_alone() {
    let text = "target \"a\" {}\ntarget \"b\" { args = { SOURCE_DATE_EPOCH = 5 } }";
    let mut options = super::support::options(&[]);
    options.source_date_epoch = Some("7".to_owned());
    let services = super::support::Services::default();
    let files = vec![file("docker-bake.hcl", text)];
    let definition = larder_bake::Definition::read(files, &services, options).unwrap();
    let plan = definition.plan(&strings(&["a", "b"]), &[]).unwrap();
    let epoch = |name: &str| {
        plan.targets[name].args["SOURCE_DATE_EPOCH"]
            .clone()
            .unwrap()
    };
    assert_eq!((epoch("a"), epoch("b")), ("7".to_owned(), "5".to_owned()));
}

#[test]
fn unknown_targets_get_a_suggestion() {
    let error = plan_with("target \"webapp\" {}", &["webap"], &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to find target webap (did you mean webapp?)"
    );
    assert_eq!(error.kind(), larder_bake::ErrorKind::Request);
}
