//! One block, many targets.

use super::support::{error, plan, plan_with, strings};

#[test]
fn each_combination_is_a_target() {
    let text = r#"
        variable "VERSIONS" { default = ["1.0", "2.0"] }
        target "app" {
          name = "app-${tgt}-${replace(version, ".", "-")}"
          matrix = {
            tgt = ["foo", "bar"]
            version = VERSIONS
          }
          target = tgt
          args = { VERSION = version }
          tags = [indexof(VERSIONS, version) == 0 ? "app:first" : ""]
        }
    "#;
    let plan = plan(text, &["app"]);
    assert_eq!(
        plan.groups["app"].targets,
        ["app-foo-1-0", "app-foo-2-0", "app-bar-1-0", "app-bar-2-0"]
    );
    assert_eq!(plan.groups["default"].targets, ["app"]);
    let target = &plan.targets["app-bar-2-0"];
    assert_eq!(target.target.as_deref(), Some("bar"));
    assert_eq!(target.args["VERSION"].as_deref(), Some("2.0"));
    assert_eq!(target.tags, Some(Vec::new()));
    assert_eq!(
        plan.targets["app-foo-1-0"].tags,
        Some(strings(&["app:first"]))
    );
}

#[test]
fn values_may_be_structures() {
    let text = r#"
        target "app" {
          name = item.name
          matrix = { item = [{ name = "a", list = [1, 2] }, { name = "b", list = [] }] }
          args = { n = length(item.list) }
        }
    "#;
    let plan = plan(text, &["app"]);
    assert_eq!(plan.targets["a"].args["n"].as_deref(), Some("2"));
    assert_eq!(plan.targets["b"].args["n"].as_deref(), Some("0"));
}

#[test]
fn one_value_needs_no_name_and_makes_no_group() {
    let text = r#"
        target "x" { tags = ["a"] }
        target "default" {
          matrix = { dummy = [""] }
          tags = target.x.tags
        }
    "#;
    let plan = plan(text, &[]);
    assert_eq!(plan.targets["default"].tags, Some(strings(&["a"])));
    assert_eq!(plan.groups.keys().collect::<Vec<_>>(), ["default"]);
}

#[test]
fn targets_of_a_matrix_can_be_named_referred_to_and_overridden() {
    let text = r#"
        target "app" {
          name = "app-${v}"
          matrix = { v = [1, 2] }
          tags = ["app:${v}"]
        }
        target "default" { tags = target.app-2.tags }
    "#;
    assert_eq!(
        plan(text, &[]).targets["default"].tags,
        Some(strings(&["app:2"]))
    );
    let plan = plan_with(text, &["app-1", "app-2"], &["app-1.tags=x"]).unwrap();
    assert_eq!(plan.targets["app-1"].tags, Some(strings(&["x"])));
    assert_eq!(plan.targets["app-2"].tags, Some(strings(&["app:2"])));
}

#[test]
fn wrong_matrices_are_told() {
    for (body, expected) in [
        ("matrix = \"x\"", "`matrix` must be a map"),
        ("matrix = [\"x\"]", "`matrix` must be a map"),
        ("matrix = { a = \"b\" }", "values of `matrix` must be lists"),
        ("matrix = { a = [1, 2] }", "duplicate name `default`"),
        ("name = \"x\"", "`name` requires `matrix`"),
        (
            "matrix = { a = [\"x.y\"] }\n name = a",
            "invalid name `x.y`",
        ),
        (
            "matrix = { a = [[]] }\n name = a",
            "`name`: a string is required",
        ),
        (
            "matrix = { a = range(1024), b = range(1024) }\n name = \"${a}-${b}\"",
            "too many combinations",
        ),
        (
            "matrix = { a = target.default.tags }\n name = a",
            "targets cannot be referred to where their names are made",
        ),
    ] {
        let error = error(&format!("target \"default\" {{\n {body}\n}}"));
        assert!(error.contains(expected), "{body}: {error}");
    }
}
