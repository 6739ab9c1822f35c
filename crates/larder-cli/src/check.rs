//! What the build checks found, as `--check` tells it.

use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use larder_engine::{CheckOutcome, Warning};
use serde::Serialize;

use crate::excerpt;

/// Returns the warnings for people to read, as buildx prints them.
pub(crate) fn text(outcome: &CheckOutcome) -> String {
    let count = match outcome.warnings.len() {
        0 if outcome.error.is_some() => return String::new(),
        0 => return "Check complete, no warnings found.\n".to_owned(),
        1 => "1 warning has been found!".to_owned(),
        count => format!("{count} warnings have been found!"),
    };
    let mut text = format!("Check complete, {count}\n");
    for warning in &outcome.warnings {
        let rule = warning.rule;
        write!(text, "\nWARNING: {}", rule.name()).expect("a String takes all");
        if !rule.url().is_empty() {
            write!(text, " - {}", rule.url()).expect("a String takes all");
        }
        writeln!(text, "\n{}", warning.message).expect("a String takes all");
        text.push_str(&excerpt::of(&outcome.source, &warning.ranges));
    }
    text
}

/// Returns the warnings for programs to read, as BuildKit writes them.
pub(crate) fn json(outcome: &CheckOutcome) -> String {
    let source = &outcome.source;
    let warnings: Vec<_> = outcome.warnings.iter().map(JsonWarning::from).collect();
    let results = Results {
        // Go writes a list without items so.
        warnings: (!warnings.is_empty()).then_some(warnings),
        sources: [JsonSource {
            filename: &source.filename,
            data: STANDARD.encode(&source.data),
            language: &source.language,
        }],
        error: outcome.error.as_ref().map(|error| JsonError {
            message: error.full_message(),
            location: Location {
                ranges: error.location().map_or(Vec::new(), |at| ranges(&at.ranges)),
            },
        }),
    };
    let json = serde_json::to_string_pretty(&results);
    json.expect("strings and numbers always serialize") + "\n"
}

#[derive(Serialize)]
struct Results<'a> {
    warnings: Option<Vec<JsonWarning<'a>>>,
    sources: [JsonSource<'a>; 1],
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    error: Option<JsonError>,
}

#[derive(Serialize)]
struct JsonWarning<'a> {
    #[serde(rename = "ruleName")]
    rule_name: &'a str,
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    url: &'a str,
    detail: &'a str,
    location: Location,
}

#[derive(Serialize)]
struct JsonSource<'a> {
    filename: &'a str,
    data: String,
    language: &'a str,
}

#[derive(Serialize)]
struct JsonError {
    message: String,
    location: Location,
}

#[derive(Serialize)]
struct Location {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<Range>,
}

#[derive(Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Serialize)]
struct Position {
    line: u32,
}

impl<'a> From<&'a Warning> for JsonWarning<'a> {
    fn from(warning: &'a Warning) -> Self {
        Self {
            rule_name: warning.rule.name(),
            description: warning.rule.description(),
            url: warning.rule.url(),
            detail: &warning.message,
            location: Location {
                ranges: ranges(&warning.ranges),
            },
        }
    }
}

fn ranges(ranges: &[larder_engine::event::SourceRange]) -> Vec<Range> {
    let ranges = ranges.iter();
    ranges
        .map(|range| Range {
            start: Position { line: range.start },
            end: Position { line: range.end },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use larder_engine::event::{SourceFile, SourceRange};
    use larder_engine::{BuildError, Rule};

    use super::*;

    fn outcome(warnings: Vec<Warning>) -> CheckOutcome {
        let data = "FROM a as b\nWORKDIR /\nRUN c\nCOPY d .\nEXPOSE 1\nCMD e\n";
        CheckOutcome {
            warnings,
            source: SourceFile {
                filename: "Dockerfile".to_owned(),
                data: data.as_bytes().to_vec(),
                language: "Dockerfile".to_owned(),
            },
            error: None,
        }
    }

    fn warning(rule: Rule, message: &str, lines: &[u32]) -> Warning {
        let range = |&line: &u32| SourceRange {
            start: line,
            end: line,
        };
        Warning {
            rule,
            message: message.to_owned(),
            ranges: lines.iter().map(range).collect(),
        }
    }

    #[test]
    fn warnings_are_told_as_buildx_does() {
        assert_eq!(
            text(&outcome(Vec::new())),
            "Check complete, no warnings found.\n"
        );
        let found = outcome(vec![
            warning(Rule::FromAsCasing, "it does not match", &[1]),
            warning(Rule::InvalidBaseImagePlatform, "another one", &[3, 4]),
        ]);
        assert_snapshot!(text(&found), @r"
        Check complete, 2 warnings have been found!

        WARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/
        it does not match
        Dockerfile:1
        --------------------
           1 | >>> FROM a as b
           2 |     WORKDIR /
           3 |     RUN c
        --------------------

        WARNING: InvalidBaseImagePlatform
        another one
        Dockerfile:3
        --------------------
           2 |     WORKDIR /
           3 | >>> RUN c
           4 | >>> COPY d .
           5 |     EXPOSE 1
        --------------------
        ");
    }

    #[test]
    fn programs_get_what_buildkit_writes() {
        let found = outcome(vec![warning(Rule::FromAsCasing, "no match", &[1])]);
        assert_snapshot!(json(&found), @r#"
        {
          "warnings": [
            {
              "ruleName": "FromAsCasing",
              "description": "The 'as' keyword should match the case of the 'from' keyword",
              "url": "https://docs.docker.com/go/dockerfile/rule/from-as-casing/",
              "detail": "no match",
              "location": {
                "ranges": [
                  {
                    "start": {
                      "line": 1
                    },
                    "end": {
                      "line": 1
                    }
                  }
                ]
              }
            }
          ],
          "sources": [
            {
              "filename": "Dockerfile",
              "data": "RlJPTSBhIGFzIGIKV09SS0RJUiAvClJVTiBjCkNPUFkgZCAuCkVYUE9TRSAxCkNNRCBlCg==",
              "language": "Dockerfile"
            }
          ]
        }
        "#);
    }

    #[test]
    fn an_error_is_no_clean_bill() {
        let failed = CheckOutcome {
            error: Some(BuildError::invalid("no such stage")),
            ..outcome(Vec::new())
        };
        assert_eq!(text(&failed), "");
        let json = json(&failed);
        assert!(json.contains("\"warnings\": null"), "{json}");
        assert!(json.contains("\"message\": \"no such stage\""), "{json}");
    }
}
