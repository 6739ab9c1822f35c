//! Which checks a build wants: the `check` directive, its build argument, and comments above
//! instructions.

use super::Rule;
use crate::golang;

/// As many parts as BuildKit splits a value into; what follows belongs to the last.
const MAX_PARTS: usize = 3;

/// Which checks are wanted: `skip=A,B;experimental=C;error=true`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LintOptions {
    skip: Rules,
    experimental: Rules,
    error: bool,
}

/// A list of rules by name. Names that no rule has are of no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rules {
    All,
    Named(Vec<String>),
}

impl Default for Rules {
    fn default() -> Self {
        Self::Named(Vec::new())
    }
}

impl Rules {
    fn parse(value: &str) -> Self {
        match value.trim() {
            "all" => Self::All,
            names => Self::Named(
                names
                    .split(',')
                    .map(|name| name.trim().to_owned())
                    .collect(),
            ),
        }
    }

    fn have(&self, rule: Rule) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|name| name == rule.name()),
        }
    }
}

impl LintOptions {
    /// Reads the value of the directive or of the build argument.
    ///
    /// # Errors
    /// A message that names the part that is wrong.
    pub(crate) fn parse(value: &str) -> Result<Self, String> {
        let mut options = Self::default();
        let value = value.trim();
        if value.is_empty() {
            return Ok(options);
        }
        for part in value.splitn(MAX_PARTS, ';') {
            let unknown = |text: &str| format!("invalid check option {}", golang::quote(text));
            let (key, value) = part.split_once('=').ok_or_else(|| unknown(part))?;
            match key.trim() {
                "skip" => options.skip = Rules::parse(value),
                "experimental" => options.experimental = Rules::parse(value),
                "error" => {
                    options.error = golang::parse_bool(value.trim()).ok_or_else(|| {
                        let part = golang::quote(part);
                        let value = golang::quote(value.trim());
                        format!(
                            "failed to parse check option {part}: \
                             strconv.ParseBool: parsing {value}: invalid syntax"
                        )
                    })?;
                }
                key => return Err(unknown(key)),
            }
        }
        Ok(options)
    }

    /// Reads the comments directly above an instruction: the first `check=…` among them counts. One
    /// that can't be read has no effect.
    pub(crate) fn of_comments(comments: &[String]) -> Self {
        let directives = comments.iter().filter_map(|comment| {
            let (name, value) = comment.split_once('=')?;
            name.trim().eq_ignore_ascii_case("check").then_some(value)
        });
        let value = directives.map(first_word).next().unwrap_or_default();
        Self::parse(value).unwrap_or_default()
    }

    /// Returns whether a rule is to be told of, where the comment above the instruction says `own`.
    pub(crate) fn wants(&self, rule: Rule, own: &Self) -> bool {
        if rule.is_experimental() {
            return self.experimental.have(rule) || own.experimental.have(rule);
        }
        !self.skip.have(rule) && !own.skip.have(rule)
    }

    pub(crate) fn warnings_are_errors(&self) -> bool {
        self.error
    }
}

/// Returns what a directive's value is up to the first space; the rest is a comment.
pub(crate) fn first_word(value: &str) -> &str {
    value.trim().split(' ').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_choose_rules() {
        let none = LintOptions::default();
        let wants = |text: &str, rule| LintOptions::parse(text).unwrap().wants(rule, &none);
        for (text, rule, wanted) in [
            ("", Rule::UndefinedVar, true),
            ("skip=all", Rule::UndefinedVar, false),
            (
                "skip=StageNameCasing, UndefinedVar",
                Rule::UndefinedVar,
                false,
            ),
            ("skip=StageNameCasing", Rule::UndefinedVar, true),
            ("skip=Unknown;error=1", Rule::UndefinedVar, true),
            ("", Rule::InvalidDefinitionDescription, false),
            ("experimental=all", Rule::InvalidDefinitionDescription, true),
            (
                "skip=all;experimental=InvalidDefinitionDescription",
                Rule::InvalidDefinitionDescription,
                true,
            ),
        ] {
            assert_eq!(wants(text, rule), wanted, "{text}");
        }
        assert!(LintOptions::parse("error=true").unwrap().error);
        assert!(!LintOptions::parse(" skip=all ; error=false").unwrap().error);
    }

    #[test]
    fn wrong_options_are_named() {
        for (text, message) in [
            ("skip", "invalid check option \"skip\""),
            ("skip=A;", "invalid check option \"\""),
            ("skp=A", "invalid check option \"skp\""),
            (
                "error=maybe",
                "failed to parse check option \"error=maybe\": \
                 strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
        ] {
            assert_eq!(LintOptions::parse(text).unwrap_err(), message);
        }
    }

    #[test]
    fn a_comment_above_an_instruction_chooses_for_it_alone() {
        let comments = |lines: &[&str]| {
            let lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
            LintOptions::of_comments(&lines)
        };
        let file = LintOptions::default();
        let own = comments(&[
            "says why",
            "Check = skip=UndefinedVar for now",
            "check=skip=all",
        ]);
        assert!(!file.wants(Rule::UndefinedVar, &own));
        assert!(file.wants(Rule::StageNameCasing, &own));
        for ignored in ["check=skp=all", "checks=skip=all", "check"] {
            assert_eq!(comments(&[ignored]), file, "{ignored}");
        }
    }
}
