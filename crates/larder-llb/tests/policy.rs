//! Source policies: their file format, what they make of a source, and of a graph.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use larder_llb::policy::{PolicyError, SourcePolicy};
use larder_llb::{
    Definition, Edge, GraphBuilder, GraphError, SourceFile, SourceRange, VertexMetadata, pb,
};
use larder_oci::Digest;

fn policy(rules: &str) -> SourcePolicy {
    let text = format!("{{\"version\": 1, \"rules\": [{rules}]}}");
    SourcePolicy::from_json(text.as_bytes(), "policy.json")
        .unwrap_or_else(|error| panic!("{rules}: {error}"))
}

fn rule(action: &str, identifier: &str) -> String {
    format!(r#"{{"action": "{action}", "selector": {{"identifier": "{identifier}"}}}}"#)
}

fn convert(identifier: &str, match_type: &str, updates: &str) -> String {
    format!(
        r#"{{"action": "CONVERT", "updates": {updates},
            "selector": {{"identifier": "{identifier}", "matchType": "{match_type}"}}}}"#
    )
}

fn to(identifier: &str) -> String {
    format!(r#"{{"identifier": "{identifier}"}}"#)
}

fn source(identifier: &str, attrs: &[(&str, &str)]) -> pb::SourceOp {
    pb::SourceOp {
        identifier: identifier.to_owned(),
        attrs: attrs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

fn evaluate(policy: &SourcePolicy, identifier: &str) -> Result<String, PolicyError> {
    let mut evaluated = source(identifier, &[]);
    let changed = policy.evaluate(&mut evaluated)?;
    assert_eq!(changed, evaluated.identifier != identifier);
    Ok(evaluated.identifier)
}

fn denied(identifier: &str) -> Result<String, PolicyError> {
    Err(PolicyError::Denied {
        identifier: identifier.to_owned(),
    })
}

#[test]
fn the_last_rule_that_selects_a_source_holds() {
    let image = "docker-image://docker.io/library/busybox:latest";
    let cases: [(&[(&str, &str)], bool); 9] = [
        (&[], true),
        (&[("DENY", "docker-image://*")], false),
        (&[("DENY", "*")], false),
        (&[("DENY", "https://*")], true),
        (&[("DENY", "*"), ("ALLOW", image)], true),
        (&[("ALLOW", image), ("DENY", "*")], false),
        (&[("ALLOW", image), ("DENY", image), ("ALLOW", image)], true),
        // Nothing but `*` means anything in a wildcard, and all of the identifier counts.
        (
            &[("DENY", "docker-image://docker.io/library/busybo.*")],
            true,
        ),
        (&[("DENY", "docker.io/library/*")], true),
    ];
    for (rules, is_allowed) in cases {
        let text: Vec<String> = rules.iter().map(|(it, id)| rule(it, id)).collect();
        let found = evaluate(&policy(&text.join(",")), image);
        let expected = if is_allowed {
            Ok(image.to_owned())
        } else {
            denied(image)
        };
        assert_eq!(found, expected, "{rules:?}");
    }
    assert_eq!(
        denied("git://x").unwrap_err().to_string(),
        "source \"git://x\" denied by policy: source denied by policy"
    );
}

#[test]
fn sources_are_changed_by_what_was_matched() {
    let golang = "docker-image://docker.io/library/golang:1.19";
    let any = "docker-image://docker.io/library/golang:*";
    let cases = [
        (any, "WILDCARD", "reg/go:${1}-alpine", "reg/go:1.19-alpine"),
        (any, "WILDCARD", "reg/go:$1", "reg/go:1.19"),
        (any, "WILDCARD", "reg/go$$:${2}", "reg/go$:"),
        (golang, "EXACT", "reg/go:${1}", "reg/go:${1}"),
        (any, "EXACT", "reg/go", golang),
        (golang, "WILDCARD", "reg/go", "reg/go"),
        (
            ":([0-9])[.](.*)$",
            "REGEX",
            "-$2-${1}",
            "docker-image://docker.io/library/golang-19-1",
        ),
        (
            "go(?P<rest>.*)",
            "REGEX",
            "${rest}",
            "docker-image://docker.io/library/lang:1.19",
        ),
        // What is matched is replaced, and no more.
        (
            "1[.]19",
            "REGEX",
            "2",
            "docker-image://docker.io/library/golang:2",
        ),
        // Nothing says what it is to become.
        (any, "WILDCARD", "", golang),
    ];
    for (identifier, match_type, updates, expected) in cases {
        let rules = policy(&convert(identifier, match_type, &to(updates)));
        let found = evaluate(&rules, golang);
        assert_eq!(found.as_deref(), Ok(expected), "{identifier} {updates}");
    }
}

#[test]
fn what_was_changed_goes_through_all_rules_again() {
    let step = |from: &str, becomes: &str| convert(from, "EXACT", &to(becomes));
    let chain = [step("b", "c"), step("a", "b"), rule("DENY", "a")].join(",");
    assert_eq!(evaluate(&policy(&chain), "a").as_deref(), Ok("c"));
    let blocked = [rule("DENY", "c"), chain].join(",");
    assert_eq!(evaluate(&policy(&blocked), "a"), denied("c"));
    let endless = [step("a", "b"), step("b", "a")].join(",");
    let error = evaluate(&policy(&endless), "a").unwrap_err();
    assert_eq!(
        error.to_string(),
        "too many mutations on a single source: too many operations"
    );
    // Twenty changes are as many as there may be.
    let count = |changes: usize| {
        let steps: Vec<String> = (0..changes)
            .map(|number| step(&number.to_string(), &(number + 1).to_string()))
            .collect();
        evaluate(&policy(&steps.join(",")), "0")
    };
    assert_eq!(count(20).as_deref(), Ok("20"));
    assert_eq!(count(21), Err(PolicyError::Endless));
}

#[test]
fn attributes_select_and_are_set() {
    let selects = |constraint: &str, attrs: &[(&str, &str)]| {
        let rules = policy(&format!(
            r#"{{"action": "DENY", "selector": {{"identifier": "*", "constraints": [{constraint}]}}}}"#
        ));
        rules.evaluate(&mut source("http://a", attrs)).is_err()
    };
    for (condition, value, attrs, expected) in [
        ("EQUAL", "x", &[("key", "x")][..], true),
        ("EQUAL", "x", &[("key", "y")], false),
        ("EQUAL", "", &[], true),
        ("NOTEQUAL", "x", &[("key", "y")], true),
        ("NOTEQUAL", "x", &[], true),
        ("NOTEQUAL", "x", &[("key", "x"), ("other", "y")], false),
        ("MATCHES", "^b.+[0-9]$", &[("key", "bar1")], true),
        ("MATCHES", "^b", &[("key", "ab")], false),
    ] {
        let constraint =
            format!(r#"{{"key": "key", "value": "{value}", "condition": "{condition}"}}"#);
        assert_eq!(selects(&constraint, attrs), expected, "{constraint}");
    }
    assert!(selects(r#"{"key": "key", "value": "x"}"#, &[("key", "x")]));

    let checksum = r#"{"attrs": {"http.checksum": "sha256:1", "none": ""}}"#;
    let rules = policy(&convert("https://example.com/*", "WILDCARD", checksum));
    let mut changed = source("https://example.com/a", &[("http.perm", "1")]);
    assert_eq!(rules.evaluate(&mut changed), Ok(true));
    let expected = [("http.perm", "1"), ("http.checksum", "sha256:1")];
    assert_eq!(changed, source("https://example.com/a", &expected));
    assert_eq!(rules.evaluate(&mut changed), Ok(false));
}

#[test]
fn names_and_numbers_are_read() {
    let text = r#"{"rules": [{"action": 2, "updates": {"identifier": "b"},
        "selector": {"identifier": "a", "match_type": 1, "constraints": [{"condition": 0}]}}]}"#;
    let rules = SourcePolicy::from_json(text.as_bytes(), "p").unwrap();
    assert_eq!(evaluate(&rules, "a").as_deref(), Ok("b"));
    for nothing in ["{}", r#"{"rules": []}"#] {
        let rules = SourcePolicy::from_json(nothing.as_bytes(), "p").unwrap();
        assert!(rules.is_empty(), "{nothing}");
    }
}

#[test]
fn what_is_no_policy_is_told_with_file_line_and_key() {
    let rules = |rule: &str| format!("{{\"rules\": [\n{rule}\n]}}");
    for (text, expected) in [
        (
            rules(r#"{"action": "FORBID", "selector": {}}"#),
            "p.json:2: rules[0].action: invalid value: string \"FORBID\", \
             expected `ALLOW`, `DENY` or `CONVERT`",
        ),
        (
            rules(r#"{"selector": {"matchType": 3}}"#),
            "p.json:2: rules[0].selector.matchType: invalid value: integer `3`, \
             expected `WILDCARD`, `EXACT` or `REGEX`",
        ),
        (
            rules(r#"{"selector": {"identifier": 1}}"#),
            "p.json:2: rules[0].selector.identifier: invalid type: integer `1`, expected a string",
        ),
        (
            rules(r#"{"selektor": {}}"#),
            "p.json:2: rules[0].selektor: unknown field `selektor`, \
             expected one of `action`, `selector`, `updates`",
        ),
        (rules("{}"), "p.json:2: rules[0]: missing field `selector`"),
        (
            rules(r#"{"action": "CONVERT", "selector": {}}"#),
            "p.json:2: rules[0]: a rule that converts needs `updates`",
        ),
        (
            rules(r#"{"selector": {"identifier": "a**"}}"#),
            "p.json:2: rules[0].selector: invalid wildcard `a**`: `**` means nothing",
        ),
        (
            rules(r#"{"selector": {"identifier": "(a", "matchType": "REGEX"}}"#),
            "p.json:2: rules[0].selector: `(a` is no regular expression: unclosed group",
        ),
        (
            rules(r#"{"selector": {"constraints": [{"value": "[", "condition": "MATCHES"}]}}"#),
            "p.json:2: rules[0].selector.constraints[0]: `[` is no regular expression: \
             unclosed character class",
        ),
        (
            rules(r#"{"selector": ["a"]}"#),
            "p.json:2: rules[0].selector: invalid type: sequence, expected an object",
        ),
        ("{\n".to_owned(), "p.json:2: EOF while parsing an object"),
        ("{}\n{}".to_owned(), "p.json:2: trailing characters"),
        (
            "[]".to_owned(),
            "p.json:1: invalid type: sequence, expected an object",
        ),
    ] {
        let error = SourcePolicy::from_json(text.as_bytes(), "p.json").unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    }
}

/// A graph of two images and what is made of them, and its vertices.
fn graph(images: [&str; 2]) -> (Definition, Vec<Digest>) {
    let mut graph = GraphBuilder::new();
    let file = graph.add_source(SourceFile {
        filename: "Dockerfile".to_owned(),
        data: Vec::new(),
        language: String::new(),
    });
    let mut vertices = Vec::new();
    let edge = |vertex: &Digest| Edge {
        vertex: vertex.clone(),
        index: 0,
    };
    for (line, image) in (1..).zip(images) {
        let op = pb::Op {
            op: Some(pb::op::Op::Source(source(image, &[]))),
            ..pb::Op::default()
        };
        let lines = SourceRange {
            start: line,
            end: line,
        };
        let location = Some((file, vec![lines]));
        let vertex = graph.add(op, &[], VertexMetadata::default(), location);
        vertices.push(vertex.unwrap());
    }
    let op = pb::Op {
        op: Some(pb::op::Op::Merge(pb::MergeOp {
            inputs: [0, 1].map(|input| pb::MergeInput { input }).to_vec(),
        })),
        ..pb::Op::default()
    };
    let metadata = VertexMetadata {
        description: [("llb.customname".to_owned(), "both".to_owned())].into(),
        ..VertexMetadata::default()
    };
    let inputs = [edge(&vertices[0]), edge(&vertices[1])];
    let merged = graph.add(op, &inputs, metadata, None).unwrap();
    vertices.push(merged.clone());
    (graph.finish(edge(&merged)).unwrap(), vertices)
}

#[test]
fn a_changed_graph_is_the_one_that_says_so_itself() {
    let (definition, vertices) = graph(["docker-image://a", "docker-image://b"]);
    let (expected, others) = graph(["docker-image://a", "docker-image://c"]);
    let rules = policy(&convert(
        "docker-image://b",
        "EXACT",
        &to("docker-image://c"),
    ));
    let rewritten = definition.with_sources(|_, source| {
        let changed = rules.evaluate(source);
        Ok::<_, GraphError>(changed.unwrap())
    });
    let rewritten = rewritten.unwrap().unwrap();
    assert_eq!(rewritten.definition, expected);
    assert_eq!(rewritten.renamed.len(), 2);
    assert_eq!(rewritten.renamed[&vertices[1]], others[1]);
    assert_eq!(rewritten.renamed[&vertices[2]], others[2]);
    let locations = rewritten.definition.locations(&others[1]);
    assert_eq!(locations[0].1[0].start, 2);
    assert_eq!(rewritten.definition.get(&others[2]).unwrap().name(), "both");
    let found = rewritten.definition.get(&others[1]).unwrap().name();
    assert_eq!(found, "docker-image://c");

    let unchanged = expected.with_sources(|_, _| Ok::<_, GraphError>(false));
    assert!(unchanged.unwrap().is_none());
}
