//! What defeats the cache, as `larder doctor` tells it.

use std::fmt::Write;

use larder_engine::doctor::Finding;
use serde_json::json;

/// Returns the findings for people to read.
pub(crate) fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        write(&mut text, finding).expect("a String takes all");
    }
    match findings.len() {
        0 => text.push_str("nothing found that defeats the cache\n"),
        1 => text.push_str("1 finding\n"),
        count => writeln!(text, "{count} findings").expect("a String takes all"),
    }
    text
}

fn write(text: &mut String, finding: &Finding) -> std::fmt::Result {
    write!(text, "{}:", finding.file)?;
    if finding.line > 0 {
        write!(text, "{}:", finding.line)?;
    }
    writeln!(text, " {}", finding.problem)?;
    if let Some(cost) = finding.cost {
        writeln!(text, "  cost: {cost}")?;
    }
    writeln!(text, "  fix: {}", finding.advice)?;
    for line in &finding.fix {
        writeln!(text, "    {line}")?;
    }
    writeln!(text)
}

/// Returns the findings for programs to read: one JSON object a line.
pub(crate) fn json(findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let cost = finding.cost.map(|cost| {
            json!({
                "hits": cost.hits,
                "builds": cost.builds,
                "milliseconds": cost.milliseconds,
            })
        });
        let finding = json!({
            "rule": finding.kind.name(),
            "file": finding.file,
            "line": (finding.line > 0).then_some(finding.line),
            "problem": finding.problem,
            "cost": cost,
            "advice": finding.advice,
            "fix": finding.fix,
        });
        format!("{finding}\n")
    };
    findings.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use larder_engine::doctor::{Cost, FindingKind};

    use super::*;

    fn findings() -> Vec<Finding> {
        let first = Finding {
            kind: FindingKind::NoCacheMount,
            file: "Dockerfile".to_owned(),
            line: 3,
            problem: "`pip install` has no cache mount".to_owned(),
            cost: Some(Cost {
                hits: 2,
                builds: 5,
                milliseconds: 61_280,
            }),
            advice: "mount the tool's cache".to_owned(),
            fix: vec![
                "RUN --mount=… \\".to_owned(),
                "    pip install x".to_owned(),
            ],
        };
        let second = Finding {
            kind: FindingKind::NoIgnoreFile,
            file: ".dockerignore".to_owned(),
            line: 0,
            cost: None,
            fix: Vec::new(),
            ..first.clone()
        };
        vec![first, second]
    }

    #[test]
    fn people_get_the_place_the_cost_and_the_fix() {
        assert_snapshot!(text(&findings()), @r"
        Dockerfile:3: `pip install` has no cache mount
          cost: 61.3 s in 2 of the last 5 builds
          fix: mount the tool's cache
            RUN --mount=… \
                pip install x

        .dockerignore: `pip install` has no cache mount
          fix: mount the tool's cache

        2 findings
        ");
        assert_eq!(text(&[]), "nothing found that defeats the cache\n");
    }

    #[test]
    fn programs_get_one_object_a_line() {
        assert_snapshot!(json(&findings()), @r#"
        {"rule":"no-cache-mount","file":"Dockerfile","line":3,"problem":"`pip install` has no cache mount","cost":{"hits":2,"builds":5,"milliseconds":61280},"advice":"mount the tool's cache","fix":["RUN --mount=… \\","    pip install x"]}
        {"rule":"no-ignore-file","file":".dockerignore","line":null,"problem":"`pip install` has no cache mount","cost":null,"advice":"mount the tool's cache","fix":[]}
        "#);
        assert_eq!(json(&[]), "");
    }
}
