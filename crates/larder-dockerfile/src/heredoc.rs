//! `<<WORD` documents.

use crate::expand::{Expander, NoVariables};

/// A document that follows an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heredoc {
    /// The word that ends it.
    pub(crate) name: String,
    /// Whether variables are expanded in it: its word was not quoted.
    pub(crate) expand: bool,
    /// Whether leading tabs are removed: it was introduced by `<<-`.
    pub(crate) strip_tabs: bool,
    /// Its lines, with their ends; tabs are still there.
    pub(crate) content: String,
}

impl Heredoc {
    /// Reads `[fd]<<[-]WORD`; `None` when `word` is something else.
    pub(crate) fn parse(word: &str) -> Result<Option<Self>, String> {
        let digits = word.trim_start_matches(|c: char| c.is_ascii_digit());
        let Some(rest) = digits.strip_prefix("<<") else {
            return Ok(None);
        };
        let (strip_tabs, rest) = match rest.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        if rest.is_empty() || rest.contains('<') {
            return Ok(None);
        }
        let plain = Expander {
            keep_unset: true,
            ..Expander::new('\\')
        };
        let raw = Expander {
            raw_quotes: true,
            ..plain
        };
        let words = plain.expand(rest, &NoVariables)?.words;
        let [name] = &words[..] else {
            return Ok(None);
        };
        let quotes = |text: &str| text.matches(['\'', '"']).count();
        let raw_words = raw.expand(rest, &NoVariables)?.words;
        let raw_quotes: usize = raw_words.iter().map(|word| quotes(word)).sum();
        Ok(Some(Self {
            name: name.clone(),
            expand: quotes(name) == raw_quotes,
            strip_tabs,
            content: String::new(),
        }))
    }

    /// Finds the documents that a line introduces, in order.
    pub(crate) fn find_all(line: &str) -> Result<Vec<Self>, String> {
        if !line.contains("<<") {
            return Ok(Vec::new());
        }
        let raw = Expander {
            raw_quotes: true,
            raw_escapes: true,
            keep_unset: true,
            ..Expander::new('\\')
        };
        // A line that is no list of words, say for a lone quote, is the shell's to judge.
        let words = raw
            .expand(line, &NoVariables)
            .map(|expansion| expansion.words)
            .unwrap_or_default();
        let mut found = Vec::new();
        let mut words = words.into_iter();
        while let Some(mut word) = words.next() {
            let operator = word.trim_start_matches(|c: char| c.is_ascii_digit());
            if matches!(operator, "<<" | "<<-") {
                // As in a shell, there may be space before the word.
                word.push(' ');
                word.extend(words.next());
            }
            found.extend(Self::parse(&word)?);
        }
        Ok(found)
    }

    /// Returns whether `line`, without its end, ends the document.
    pub(crate) fn ends_at(&self, line: &str) -> bool {
        let line = if self.strip_tabs {
            line.trim_start_matches('\t')
        } else {
            line
        };
        line == self.name
    }

    /// Returns the content, with leading tabs removed where asked for.
    pub(crate) fn body(&self) -> String {
        if !self.strip_tabs {
            return self.content.clone();
        }
        self.content
            .split_inclusive('\n')
            .map(|line| line.trim_start_matches('\t'))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognizes_documents() {
        for (word, expected) in [
            ("<<EOF", Some(("EOF", true, false))),
            ("<<-EOF", Some(("EOF", true, true))),
            ("3<<'E F'", None),
            ("<<\"EOF\"", Some(("EOF", false, false))),
            ("<<E'O'F", Some(("EOF", false, false))),
            ("<<", None),
            ("<<<x", None),
            ("x<<EOF", None),
            ("<EOF", None),
        ] {
            let found = Heredoc::parse(word).unwrap();
            let found = found
                .as_ref()
                .map(|doc| (doc.name.as_str(), doc.expand, doc.strip_tabs));
            let expected = if word == "3<<'E F'" {
                Some(("E F", false, false))
            } else {
                expected
            };
            assert_eq!(found, expected, "{word}");
        }
    }

    #[test]
    fn finds_several_in_a_line_but_none_in_quotes() {
        let names = |line: &str| -> Vec<String> {
            let found = Heredoc::find_all(line).unwrap();
            found.into_iter().map(|doc| doc.name).collect()
        };
        assert_eq!(names("COPY <<a <<-\"b\" /x"), ["a", "b"]);
        assert_eq!(names("RUN 3<<  a > b"), ["a"]);
        assert_eq!(names("RUN << -a <<- b"), ["-a", "b"]);
        assert_eq!(names("RUN <<eo\\'f <<"), ["eo'f"]);
        assert!(names("RUN echo '<<a'").is_empty());
        assert!(names("RUN echo \"it is <<a").is_empty());
    }
}
