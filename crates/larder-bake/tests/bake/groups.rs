//! Groups, and what is built when nothing is named.

use larder_bake::ListFormat;

use super::support::{error, plan, plan_with, read, strings};

const GROUPS: &str = r#"
    group "default" {
      description = "all of it"
      targets = ["sub", "c"]
    }
    group "sub" { targets = ["b", "a"] }
    target "a" { description = "first" }
    target "b" {}
    target "c" {}
    target "_private" {}
"#;

#[test]
fn groups_hold_groups() {
    let plan = plan(GROUPS, &[]);
    assert_eq!(plan.targets.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(plan.groups.keys().collect::<Vec<_>>(), ["default", "sub"]);
    assert_eq!(plan.groups["default"].targets, ["c", "sub"]);
    assert_eq!(plan.groups["sub"].targets, ["b", "a"]);
}

#[test]
fn what_is_asked_for_is_the_default_group() {
    for (requested, default) in [
        (&["sub"][..], &["sub"][..]),
        (&["c", "a", "c"], &["a", "c"]),
        (&["default", "_private"], &["_private", "c", "sub"]),
        (&["?"], &["a", "b", "c"]),
        (&["[ab]", "_*"], &["_private", "a", "b"]),
    ] {
        assert_eq!(
            plan(GROUPS, requested).groups["default"].targets,
            strings(default),
            "{requested:?}"
        );
    }
    let error = plan_with(GROUPS, &["x*"], &[]).unwrap_err().to_string();
    assert_eq!(error, "could not find any target matching `x*`");
}

#[test]
fn a_group_comes_before_a_target_of_its_name() {
    let text = r#"
        group "default" { targets = ["other"] }
        target "default" {}
        target "other" {}
    "#;
    assert_eq!(
        plan(text, &[]).targets.keys().collect::<Vec<_>>(),
        ["other"]
    );
    let own = "group \"app\" { targets = [\"app\", \"b\"] }\ntarget \"app\" {}\ntarget \"b\" {}";
    assert_eq!(
        plan(own, &["app"]).targets.keys().collect::<Vec<_>>(),
        ["app", "b"]
    );
}

#[test]
fn groups_must_end_in_targets() {
    for (text, expected) in [
        ("", "failed to find target default"),
        (
            "group \"default\" { targets = [\"x\"] }",
            "failed to find target x",
        ),
        (
            "group \"default\" { targets = [\"b\"] }\ngroup \"b\" { targets = [\"default\"] }",
            "group cycle not allowed: default > b > default",
        ),
        ("group \"default\" {}", "group `default` needs `targets`"),
        (
            "group \"default\" { targets = 1 }",
            "`group.default`: `targets`: a list is required",
        ),
        ("group \"a.b\" { targets = [] }", "invalid name `a.b`"),
        (
            "group \"a\" {\n targets = []\n matrix = {}\n}",
            "`matrix`: it is not supported for groups",
        ),
        ("target \"a b\" {}", "invalid name `a b`"),
    ] {
        let error = error(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn groups_can_be_referred_to() {
    let text =
        "group \"g\" { targets = [\"default\"] }\ntarget \"default\" { tags = group.g.targets }";
    assert_eq!(
        plan(text, &[]).targets["default"].tags,
        Some(strings(&["default"]))
    );
}

#[test]
fn targets_and_groups_are_listed() {
    let definition = read(GROUPS).unwrap();
    assert_eq!(
        definition.list_targets(ListFormat::Table),
        "TARGET\tDESCRIPTION\na\tfirst\nb\t\nc\t\ndefault\tall of it (c, sub)\nsub\ta, b\n"
    );
    insta::assert_snapshot!(definition.list_targets(ListFormat::Json), @r#"
    [
      {
        "name": "a",
        "description": "first"
      },
      {
        "name": "b"
      },
      {
        "name": "c"
      },
      {
        "name": "default",
        "description": "all of it (c, sub)",
        "group": true
      },
      {
        "name": "sub",
        "description": "a, b",
        "group": true
      }
    ]
    "#);
}
