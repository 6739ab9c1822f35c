//! Checks that need nothing but the text.

use super::{Finding, Lint, LintOptions, Rule, Warning};
use crate::args;
use crate::dockerfile::Dockerfile;
use crate::error::Lines;
use crate::golang;
use crate::statement::Statement;

/// Names that stand for something else than a stage.
const RESERVED_STAGE_NAMES: [&str; 2] = ["context", "scratch"];

/// Checks one statement as it is written.
pub(crate) fn check_statement(statement: &Statement) -> Vec<Finding> {
    let mut findings = Vec::new();
    let own = LintOptions::of_comments(&statement.comments);
    let mut add = |rule, lines: Lines, message: String| {
        findings.push(Finding {
            warning: Warning {
                rule,
                message,
                ranges: lines.ranges(),
            },
            own: own.clone(),
        });
    };
    if let Some(line) = statement.empty_continuation {
        let lines = Lines {
            start: line,
            end: line,
        };
        let message = "Empty continuation line".to_owned();
        add(Rule::NoEmptyContinuation, lines, message);
    }
    let lines = statement.lines;
    if statement.is("MAINTAINER") {
        let message = "Maintainer instruction is deprecated in favor of using label";
        add(Rule::MaintainerDeprecated, lines, message.to_owned());
    }
    if statement.is("FROM") {
        let words = args::split_blank(&statement.rest);
        if let [_, keyword, name, ..] = &words[..] {
            if *name != name.to_lowercase() {
                let message = format!("Stage name '{name}' should be lowercase");
                add(Rule::StageNameCasing, lines, message);
            }
            if !cases_match(&statement.keyword, keyword) {
                let from = &statement.keyword;
                let message = format!("'{keyword}' and '{from}' keywords' casing do not match");
                add(Rule::FromAsCasing, lines, message);
            }
            let message = description(&statement.comments, "FROM", &[name.to_lowercase()]);
            if let Some(message) = message {
                add(Rule::InvalidDefinitionDescription, lines, message);
            }
        }
    }
    if statement.is("ARG") {
        let message = description(&statement.comments, "ARG", &arg_names(&statement.rest));
        if let Some(message) = message {
            add(Rule::InvalidDefinitionDescription, lines, message);
        }
    }
    findings
}

/// Returns whether `as` is written as FROM is. A FROM in mixed case has a warning of its own.
fn cases_match(from: &str, keyword: &str) -> bool {
    if from == from.to_lowercase() {
        return keyword == keyword.to_lowercase();
    }
    from != from.to_uppercase() || keyword == keyword.to_uppercase()
}

fn arg_names(rest: &str) -> Vec<String> {
    let words = args::split_blank(rest).into_iter();
    words
        .map(|word| word.split('=').next().unwrap_or_default().to_owned())
        .collect()
}

/// Returns what is wrong with the comment above a definition: its last line is to begin with the
/// name that is defined.
fn description(comments: &[String], instruction: &str, names: &[String]) -> Option<String> {
    let first_word = comments.last()?.split(' ').next()?;
    if names.is_empty() || names.iter().any(|name| name == first_word) {
        return None;
    }
    let example = match names {
        [only] => only,
        _ => "<arg_key>",
    };
    Some(format!(
        "Comment for {instruction} should follow the format: `# {example} <description>`"
    ))
}

/// Checks what needs the whole file.
pub(crate) fn check_file(dockerfile: &Dockerfile, lint: &Lint) {
    for finding in &dockerfile.findings {
        lint.add(finding.clone());
    }
    check_stage_names(dockerfile, lint);
    check_casing(dockerfile, lint);
}

fn check_stage_names(dockerfile: &Dockerfile, lint: &Lint) {
    let mut seen: Vec<&str> = Vec::new();
    for stage in &dockerfile.stages {
        let from = &stage.from;
        let Some(name) = from.name.as_deref() else {
            continue;
        };
        lint.enter(from.lines, &from.lint);
        let quoted = golang::quote(name);
        if RESERVED_STAGE_NAMES.contains(&name) {
            let message =
                format!("Stage name should not use the same name as reserved stage {quoted}");
            lint.warn(Rule::ReservedStageName, message);
        }
        if seen.contains(&name) {
            let message = format!("Duplicate stage name {quoted}, stage names should be unique");
            lint.warn(Rule::DuplicateStageName, message);
        }
        seen.push(name);
    }
}

/// Checks that keywords are written as most of them are: in capitals, or not. What stands before the
/// first FROM does not count.
fn check_casing(dockerfile: &Dockerfile, lint: &Lint) {
    let stages = dockerfile.stages.iter();
    let keywords = stages.flat_map(|stage| {
        let from = &stage.from;
        let rest = stage.instructions.iter();
        std::iter::once((from.keyword.as_str(), from.lines, &from.lint))
            .chain(rest.map(|i| (i.keyword.as_str(), i.lines, &i.lint)))
    });
    let is_lower = |keyword: &str| keyword == keyword.to_lowercase();
    let is_upper = |keyword: &str| keyword == keyword.to_uppercase();
    let count = |is: &dyn Fn(&str) -> bool| keywords.clone().filter(|(k, ..)| is(k)).count();
    let mostly_lower = count(&is_lower) > count(&is_upper);
    let (is_right, casing): (&dyn Fn(&str) -> bool, _) = if mostly_lower {
        (&is_lower, "lowercase")
    } else {
        (&is_upper, "uppercase")
    };
    for (keyword, lines, own) in keywords.clone().filter(|(k, ..)| !is_right(k)) {
        lint.enter(lines, own);
        let message =
            format!("Command '{keyword}' should match the case of the command majority ({casing})");
        lint.warn(Rule::ConsistentInstructionCasing, message);
    }
}
