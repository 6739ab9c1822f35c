//! `--name[=value]` flags of instructions.

use crate::suggest::with_suggestion;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlagKind {
    /// Nothing, or `=true` or `=false`.
    Bool,
    /// A value, once.
    Text,
    /// A value, any number of times.
    List,
}

/// The flags of one instruction, checked.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    given: Vec<(&'static str, String)>,
}

impl Flags {
    /// Checks `words` against the flags that the instruction knows.
    pub(crate) fn parse(
        words: &[String],
        known: &[(&'static str, FlagKind)],
    ) -> Result<Self, String> {
        let mut flags = Self::default();
        for word in words {
            let word = word.strip_prefix("--").unwrap_or(word);
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word, None),
            };
            let Some(&(name, kind)) = known.iter().find(|(known, _)| *known == name) else {
                let message = format!("unknown flag: --{name}");
                let names = known.iter().map(|(name, _)| *name);
                return Err(with_suggestion(message, name, names));
            };
            if kind != FlagKind::List && flags.text(name).is_some() {
                return Err(format!("duplicate flag specified: --{name}"));
            }
            let value = match (kind, value.map(str::to_ascii_lowercase).as_deref()) {
                (FlagKind::Bool, None | Some("true")) => "true",
                (FlagKind::Bool, Some("false")) => "false",
                (FlagKind::Bool, Some(other)) if !other.is_empty() => {
                    return Err(format!(
                        "expecting boolean value for flag --{name}, not: {other}"
                    ));
                }
                (FlagKind::Bool, Some(_)) | (_, None) => {
                    return Err(format!("missing a value on flag: --{name}"));
                }
                (_, Some(_)) => value.unwrap_or_default(),
            };
            flags.given.push((name, value.to_owned()));
        }
        Ok(flags)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let found = self.given.iter().find(|(given, _)| *given == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let found = self.given.iter().filter(move |(given, _)| *given == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Returns a boolean flag, if given.
    pub(crate) fn bool(&self, name: &str) -> Option<bool> {
        self.text(name).map(|value| value == "true")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_checked() {
        let known = [
            ("from", FlagKind::Text),
            ("link", FlagKind::Bool),
            ("exclude", FlagKind::List),
        ];
        let parse = |words: &str| {
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            Flags::parse(&words, &known)
        };
        let flags = parse("--from=a=b --link --exclude=x --exclude=y").unwrap();
        assert_eq!(flags.text("from"), Some("a=b"));
        assert_eq!(flags.bool("link"), Some(true));
        assert_eq!(flags.list("exclude").collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(parse("--link=FALSE").unwrap().bool("link"), Some(false));
        for (words, message) in [
            ("--fro=x", "unknown flag: --fro (did you mean from?)"),
            ("--zzzzzz", "unknown flag: --zzzzzz"),
            ("--from=a --from=b", "duplicate flag specified: --from"),
            ("--from", "missing a value on flag: --from"),
            ("--link=", "missing a value on flag: --link"),
            (
                "--link=no",
                "expecting boolean value for flag --link, not: no",
            ),
        ] {
            assert_eq!(parse(words).unwrap_err(), message);
        }
    }
}
