//! Bake files in JSON.

use larder_bake::Error;

use super::support::{file, read_all, strings};

fn plan(text: &str) -> Result<larder_bake::Plan, Error> {
    read_all(vec![file("docker-bake.json", text)], &[])?.plan(&[], &[])
}

#[test]
fn strings_are_templates() {
    let text = r#"{
        "//": "a comment",
        "FOO": "abc",
        "LIST": ["x", "y"],
        "variable": {"BAR": {"default": "def"}, "NULL": {"default": null}},
        "function": {"brace": {"params": ["inp"], "result": "<${upper(inp)}-${FOO}>"}},
        "target": {"default": {"args": {
            "v1": "pre-${FOO}-${BAR}",
            "v2": "${brace(\"foo\")}",
            "v3": "brace(\"foo\")",
            "v4": "${NULL}",
            "v5": "$${FOO}",
            "v6": 1.50,
            "${FOO}": true
        }, "tags": "${LIST}"}}
    }"#;
    let plan = plan(text).unwrap();
    let target = &plan.targets["default"];
    let arg = |key: &str| target.args.get(key).and_then(|value| value.as_deref());
    assert_eq!(arg("v1"), Some("pre-abc-def"));
    assert_eq!(arg("v2"), Some("<FOO-abc>"));
    assert_eq!(arg("v3"), Some("brace(\"foo\")"));
    assert_eq!(arg("v4"), None);
    assert_eq!(arg("v5"), Some("${FOO}"));
    assert_eq!(arg("v6"), Some("1.5"));
    assert_eq!(arg("abc"), Some("true"));
    assert_eq!(target.tags, Some(strings(&["x", "y"])));
}

#[test]
fn arrays_stand_for_repeated_blocks() {
    let text = r#"{"target": [{"default": [{"tags": ["a"]}, {"context": "x"}]}, {"b": {}}],
        "variable": {"V": {"type": "list(string)", "default": ["a"],
            "validation": [{"condition": "${length(V) > 0}", "error_message": "none"}]}}}"#;
    let plan = plan(text).unwrap();
    assert_eq!(plan.targets["default"].tags, Some(strings(&["a"])));
    assert_eq!(plan.targets["default"].context.as_deref(), Some("x"));
}

#[test]
fn standard_input_is_told_apart_by_what_it_holds() {
    for text in [
        r#"{"target": {"default": {"context": "x"}}}"#,
        "target \"default\" { context = \"x\" }",
    ] {
        let definition = read_all(vec![file("-", text)], &[]).unwrap();
        let plan = definition.plan(&[], &[]).unwrap();
        assert_eq!(plan.targets["default"].context.as_deref(), Some("x"));
    }
}

#[test]
fn json_is_strict_and_errors_have_places() {
    for (text, expected) in [
        ("", "docker-bake.json:1,1: expected an object"),
        ("[]", "docker-bake.json:1,1: expected an object"),
        (
            "{\n  \"a\": 1,\n}",
            "docker-bake.json:2,9: trailing commas are not allowed",
        ),
        ("{\n  // no\n}", "docker-bake.json:2,3:"),
        ("{\"a\": 0x1}", "docker-bake.json:1"),
        (
            "{\n \"target\": {\"a\": 1}}",
            "docker-bake.json:2,18: `a`: expected an object",
        ),
        (
            "{\"target\": {\"default\": {\n\"tags\": [\"${\"]}}}",
            "docker-bake.json:2,10:",
        ),
        (
            "{\"target\": {\"default\": {\n\"args\": {\"a\": \"${nope}\"}}}}",
            "docker-bake.json:2,15: `target.default`: there is no variable named `nope`",
        ),
    ] {
        let error = plan(text).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}
