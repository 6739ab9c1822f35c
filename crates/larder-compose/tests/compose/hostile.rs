//! Nothing that a file says makes the loader panic, or take more than it may.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::support::Directory;

fn load(text: &str) -> Result<(), String> {
    let directory = Directory::new(&[("compose.yaml", text)]);
    let project = directory
        .options()
        .load()
        .map_err(|error| error.to_string())?;
    // What loads can be shown and built, or says why not.
    let _ = project.to_yaml(true);
    let _ = project.build_targets::<&str>(&[]);
    let _ = project.in_order::<&str>(&[]);
    Ok(())
}

#[test]
fn aliases_of_aliases_are_counted() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let previous = level - 1;
        let aliases = vec![format!("*a{previous}"); 10].join(", ");
        writeln!(text, "a{level}: &a{level} [{aliases}]").unwrap();
    }
    let start = Instant::now();
    let error = load(&text).unwrap_err();
    assert!(
        error.contains("more than 100000 values, aliases included"),
        "{error}"
    );
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn nesting_has_an_end() {
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        let text = format!("x-a: {}{}", open.repeat(10_000), close.repeat(10_000));
        let error = load(&text).unwrap_err();
        assert!(
            error.contains("nested deeper than 64 levels") || error.contains("no valid YAML"),
            "{error}"
        );
    }
    let mut text = String::new();
    for level in 0..5000 {
        writeln!(text, "{}a:", " ".repeat(level)).unwrap();
    }
    assert!(load(&text).is_err());
    assert!(load("a: &a [*a]").is_err());
}

#[test]
fn ranges_of_ports_are_counted() {
    let ranges = "'1-65535', ".repeat(5000);
    let error = load(&format!("services: {{a: {{image: x, ports: [{ranges}]}}}}")).unwrap_err();
    assert!(
        error.contains("services.a.ports.[1]: more than 100000 ports"),
        "{error}"
    );
}

#[test]
fn chains_of_services_have_an_end() {
    let mut extends = "services:\n  s0: {image: x}\n".to_owned();
    let mut needs = extends.clone();
    for index in 1..200 {
        let previous = index - 1;
        writeln!(extends, "  s{index}: {{extends: s{previous}}}").unwrap();
        writeln!(needs, "  s{index}: {{image: x, depends_on: [s{previous}]}}").unwrap();
    }
    assert!(load(&extends).unwrap_err().contains("extends"));
    load(&needs).unwrap();
}

/// Pieces of compose files, put together at random.
fn pieces() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "services",
        "a",
        "b",
        "build",
        "image",
        "ports",
        "volumes",
        "environment",
        "extends",
        "depends_on",
        "include",
        "&x",
        "*x",
        "<<",
        "!reset",
        "!override",
        "${A",
        "$",
        "}",
        "{",
        "[",
        "]",
        ":",
        ": ",
        "\n",
        "\n  ",
        "\n    ",
        "- ",
        "'",
        "\"",
        "#",
        "|",
        ">",
        "?",
        "~",
        "null",
        "80:80",
        "./a:/b",
        "service:b",
        "additional_contexts",
        "context",
        "args",
        "\u{feff}",
        "é",
        "\t",
        "---\n",
        "...\n",
        "%TAG",
        "!!str",
        "0x",
        "1e9",
        "-",
        ",",
    ]);
    prop::collection::vec(words, 0..60).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn any_text_is_loaded_or_refused(text in any::<String>()) {
        let _ = load(&text);
    }

    #[test]
    fn any_pieces_are_loaded_or_refused(text in pieces()) {
        let _ = load(&text);
    }

    #[test]
    fn any_value_of_any_key_is_loaded_or_refused(
        key in prop::sample::select(vec!["build", "ports", "volumes", "environment", "command",
            "depends_on", "env_file", "healthcheck", "secrets", "extends", "networks", "ulimits",
            "extra_hosts", "deploy", "labels", "restart", "scale"]),
        value in "[a-z0-9 :/.${}\\[\\]',&*!=~-]{0,30}",
    ) {
        let _ = load(&format!("services:\n  a:\n    image: x\n    {key}: {value}\n"));
    }
}
