//! Nothing that a file holds makes the reader panic, hang or take all memory.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::support::{error, file, read_all};

/// Reads, plans and prints; what comes of it does not matter.
fn survive(name: &str, text: &str) {
    if let Ok(definition) = read_all(vec![file(name, text)], &[("A", "1,2"), ("A_JSON", "[")]) {
        definition.list_targets(larder_bake::ListFormat::Table);
        if let Ok(plan) = definition.plan(&["*".to_owned()], &["*.args.X=1".to_owned()]) {
            plan.to_json();
        }
    }
}

/// Pieces from which nearly valid files are made.
const PIECES: [&str; 60] = [
    "target",
    "group",
    "variable",
    "function",
    " \"a\" ",
    " \"b\" ",
    "{",
    "}",
    "\n",
    "=",
    "[",
    "]",
    "(",
    ")",
    ",",
    "\"",
    "${",
    "%{",
    "~}",
    "if ",
    "for ",
    "in ",
    ":",
    "=>",
    "...",
    "?",
    "tags",
    "args",
    "inherits",
    "matrix",
    "name",
    "contexts",
    "default",
    "type",
    "result",
    "params",
    "\"target:b\"",
    "target.a.tags",
    "a",
    "b",
    "1",
    "0.5",
    "null",
    "true",
    "upper",
    "range",
    "setproduct",
    "format",
    "\"%d\"",
    "+",
    "-",
    "*",
    "/",
    "%",
    "&&",
    "!",
    "<<EOT\n",
    "EOT\n",
    ".",
    "é",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_survived(text in "\\PC{0,200}") {
        survive("docker-bake.hcl", &text);
        survive("docker-bake.json", &text);
        survive("-", &text);
    }

    #[test]
    fn nearly_valid_hcl_is_survived(pieces in prop::collection::vec(0..PIECES.len(), 0..60)) {
        let text: String = pieces.into_iter().map(|piece| PIECES[piece]).collect();
        survive("docker-bake.hcl", &text);
    }

    #[test]
    fn nearly_valid_attributes_are_survived(pieces in prop::collection::vec(0..PIECES.len(), 0..12), key in 26..33usize) {
        let value: String = pieces.into_iter().map(|piece| PIECES[piece]).collect();
        survive("docker-bake.hcl", &format!("a = [1]\ntarget \"a\" {{\n {} = {value}\n}}\n", PIECES[key]));
    }

    #[test]
    fn nearly_valid_templates_are_survived(pieces in prop::collection::vec(0..PIECES.len(), 0..12)) {
        let value: String = pieces.into_iter().map(|piece| PIECES[piece]).collect();
        let json = serde_json::json!({"a": [1], "target": {"a": {"context": value}}});
        survive("docker-bake.json", &json.to_string());
    }

    #[test]
    fn any_arguments_of_functions_are_survived(
        name in prop::sample::select(vec![
            "substr", "slice", "range", "format", "formatlist", "cidrhost", "cidrsubnet", "cidrsubnets",
            "parseint", "element", "chunklist", "indent", "pow", "log", "timeadd", "formatdate",
            "semvercmp", "regex_replace", "split", "replace", "setproduct", "zipmap", "lookup", "trim",
            "unixtimestampparse", "csvdecode", "jsondecode", "uuidv5", "dirname", "basename", "title",
        ]),
        args in prop::collection::vec(prop::sample::select(vec![
            "-1", "0", "1", "0.5", "79228162514264337593543950335", "9223372036854775807",
            "-9223372036854775808", "1e28", "\"\"", "\"%é%5.3d%[9]s\"", "\"a,b\"", "\"0.0.0.0/0\"",
            "\"::/128\"", "\"2024-02-29T12:34:56+23:59\"", "\"YYYY''ZZZZZ\"", "\"1h1h\"", "[]", "[1, null]",
            "{}", "{a = 1}", "null", "true", "\"(.)(?P<n>)\"", "\"$1$n\"", "\">= 1.x || ^0.0\"", "\"[1e999]\"",
        ]), 0..5),
    ) {
        survive("docker-bake.hcl", &format!("x = {name}({})\n", args.join(", ")));
    }
}

#[test]
fn depth_is_bounded() {
    let deep =
        |open: &str, close: &str| format!("x = {}1{}\n", open.repeat(20_000), close.repeat(20_000));
    for text in [
        deep("(", ")"),
        deep("[", "]"),
        deep("-", ""),
        deep("!", ""),
        deep("upper(", ")"),
        deep("1 + ", ""),
        deep("true ? 1 : ", ""),
        deep("\"${", "}\""),
        format!("x = \"{}\"\n", "%{ if true }".repeat(20_000)),
        "a {\n".repeat(20_000),
    ] {
        survive("docker-bake.hcl", &text);
        assert!(!error(&text).is_empty());
    }
    let json = format!("{{\"x\": {}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    survive("docker-bake.json", &json);
}

#[test]
fn the_deepest_that_is_parsed_is_evaluated() {
    let text = format!(
        "x = {}1{}\ntarget \"default\" {{ args = {{ x = x }} }}",
        "upper(".repeat(60),
        ")".repeat(60)
    );
    survive("docker-bake.hcl", &text);
    assert_eq!(
        super::support::plan(&text, &[]).targets["default"].args["x"].as_deref(),
        Some("1")
    );
    let sum = format!(
        "target \"default\" {{ args = {{ x = 1{} }} }}",
        " + 1".repeat(120)
    );
    assert_eq!(
        super::support::plan(&sum, &[]).targets["default"].args["x"].as_deref(),
        Some("121")
    );
}

#[test]
fn chains_of_names_are_bounded() {
    let mut text = String::from("v0 = 1\n");
    for index in 1..5000 {
        writeln!(text, "v{index} = v{}", index - 1).unwrap();
    }
    // In the order of the names, or by the longest chain first: either is refused or done.
    survive("docker-bake.hcl", &text);
    let mut targets = String::from("target \"t0\" {}\n");
    for index in 1..3000 {
        writeln!(
            targets,
            "target \"t{index}\" {{ inherits = [\"t{}\"] }}",
            index - 1
        )
        .unwrap();
    }
    targets.push_str("group \"default\" { targets = [\"t2999\"] }\n");
    assert!(error(&targets).contains("inherit from each other too deeply"));
}

#[test]
fn work_and_memory_are_bounded() {
    let mut doubling = String::from("v0 = \"0123456789\"\n");
    let mut calls = String::from("function \"f0\" {\n params = []\n result = 1\n}\n");
    for index in 1..60 {
        let before = index - 1;
        writeln!(doubling, "v{index} = \"${{v{before}}}${{v{before}}}\"").unwrap();
        writeln!(
            calls,
            "function \"f{index}\" {{\n params = []\n result = f{before}() + f{before}()\n}}"
        )
        .unwrap();
    }
    assert!(error(&doubling).contains("too much text"));
    calls.push_str("target \"default\" { args = { a = f59() } }\n");
    assert!(error(&calls).contains("too many steps"));
    let nested =
        "x = [for a in range(1000) : [for b in range(1000) : [for c in range(1000) : 1]]]\n";
    assert!(error(nested).contains("too many steps"));
    let product = "x = setproduct(range(1000), range(1000), range(1000))\n";
    assert!(error(product).contains("too many elements"));
}
