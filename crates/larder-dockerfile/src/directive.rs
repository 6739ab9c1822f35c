//! Parser directives: `# name=value` lines at the top of a Dockerfile.

use std::collections::BTreeMap;

/// The directives of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Directives {
    values: BTreeMap<&'static str, String>,
    done: bool,
}

const NAMES: [&str; 3] = ["syntax", "escape", "check"];

/// What BuildKit calls its own frontend for Dockerfiles, which is in no image.
pub(crate) const BUILTIN: &str = "dockerfile.v0";

impl Directives {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Returns the escape character: `\` unless a directive says otherwise.
    pub(crate) fn escape(&self) -> char {
        if self.get("escape") == Some("`") {
            '`'
        } else {
            '\\'
        }
    }

    /// Takes in the next line, leading white space removed, and returns whether it is a directive.
    /// The first line that is none ends them.
    pub(crate) fn read(&mut self, line: &str) -> Result<bool, String> {
        if self.done {
            return Ok(false);
        }
        let Some((name, value)) = split(line, "#") else {
            self.done = true;
            return Ok(false);
        };
        if self.values.contains_key(name) {
            return Err(format!("only one {name} parser directive can be used"));
        }
        if name == "escape" && value != "`" && value != "\\" {
            return Err(format!("invalid ESCAPE '{value}' does not match ` or \\"));
        }
        self.values.insert(name, value.to_owned());
        Ok(true)
    }
}

fn split<'a>(line: &'a str, comment: &str) -> Option<(&'static str, &'a str)> {
    let (name, value) = line.strip_prefix(comment)?.split_once('=')?;
    let name = name.trim().to_ascii_lowercase();
    let name = NAMES.into_iter().find(|&known| known == name)?;
    let value = value.trim();
    (!value.is_empty()).then_some((name, value))
}

/// Returns the frontend that a build file names: `# syntax=…`, `// syntax=…` or
/// `{"syntax": "…"}`, behind an optional `#!` line. What follows a space is for the frontend.
pub(crate) fn detect_syntax(text: &str) -> Option<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = match text.split_once('\n') {
        Some((first, rest)) if first.starts_with("#!") => rest,
        _ => text,
    };
    let commented = ["#", "//"].into_iter().find_map(|comment| {
        text.lines()
            .map_while(|line| split(line, comment))
            .find(|(name, _)| *name == "syntax")
            .map(|(_, value)| value.to_owned())
    });
    let value = commented.or_else(|| {
        let object: serde_json::Value = serde_json::from_str(text).ok()?;
        Some(object.get("syntax")?.as_str()?.to_owned())
    })?;
    value.split(' ').next().map(str::to_owned)
}

/// Returns whether a frontend image is what larder itself does: Docker's Dockerfile frontend.
pub fn is_builtin(syntax: &str) -> bool {
    if syntax == BUILTIN {
        return true;
    }
    let name = syntax.split('@').next().unwrap_or_default();
    let name = name.split(':').next().unwrap_or_default();
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    matches!(name, "docker/dockerfile" | "docker/dockerfile-upstream")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_end_at_the_first_other_line() {
        let mut directives = Directives::default();
        for line in [
            "# Syntax = docker/dockerfile:1 ",
            "#escape=`",
            "# a comment",
            "# check=skip=all",
        ] {
            directives.read(line).unwrap();
        }
        assert_eq!(directives.get("syntax"), Some("docker/dockerfile:1"));
        assert_eq!(directives.escape(), '`');
        assert_eq!(directives.get("check"), None);
    }

    #[test]
    fn bad_directives_are_errors() {
        let mut directives = Directives::default();
        directives.read("# escape=\\").unwrap();
        assert_eq!(
            directives.read("# escape=\\").unwrap_err(),
            "only one escape parser directive can be used"
        );
        assert_eq!(
            Directives::default().read("# escape=x").unwrap_err(),
            "invalid ESCAPE 'x' does not match ` or \\"
        );
    }

    #[test]
    fn the_frontend_is_found_in_every_form() {
        for (text, expected) in [
            ("# syntax=a/b:1\nFROM x", Some("a/b:1")),
            ("#!/usr/bin/env x\n# syntax=a/b arg\n", Some("a/b")),
            ("\u{feff}# syntax=a/b", Some("a/b")),
            ("// syntax=a/b\n", Some("a/b")),
            ("{\"syntax\": \"a/b\"}", Some("a/b")),
            ("\n# syntax=a/b", None),
            ("FROM x", None),
        ] {
            assert_eq!(detect_syntax(text).as_deref(), expected, "{text}");
        }
        assert!(is_builtin("docker/dockerfile:1.7-labs"));
        assert!(is_builtin(
            "docker.io/docker/dockerfile-upstream:master@sha256:0"
        ));
        assert!(!is_builtin("docker/dockerfile-other"));
        assert!(!is_builtin("example.com/docker/dockerfile"));
    }
}
