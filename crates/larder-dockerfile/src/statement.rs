//! From bytes to statements: lines are joined, comments dropped, heredocs attached.

use crate::args;
use crate::directive::Directives;
use crate::error::{Error, Lines};
use crate::heredoc::Heredoc;

/// The longest line, without its end. The limit is BuildKit's.
const MAX_LINE_BYTES: usize = 65_535;

/// One instruction as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    /// Its first word, as written.
    pub(crate) keyword: String,
    /// `--name[=value]` words, quotes removed.
    pub(crate) flags: Vec<String>,
    /// What follows the flags.
    pub(crate) rest: String,
    /// All of it as one line.
    pub(crate) original: String,
    pub(crate) heredocs: Vec<Heredoc>,
    pub(crate) lines: Lines,
    /// The comment lines directly above, without `#`.
    pub(crate) comments: Vec<String>,
    /// Where an empty line stood between its lines: the last of them, documents not counted.
    pub(crate) empty_continuation: Option<u32>,
}

impl Statement {
    pub(crate) fn is(&self, keyword: &str) -> bool {
        self.keyword.eq_ignore_ascii_case(keyword)
    }

    fn from_line(line: &str) -> Self {
        let trimmed = line.trim();
        let (keyword, rest) = match trimmed.find(args::is_blank) {
            Some(at) => (
                &trimmed[..at],
                trimmed[at..].trim_start_matches(args::is_blank),
            ),
            None => (trimmed, ""),
        };
        let (flags, rest) = args::split_flags(rest);
        Self {
            keyword: keyword.to_owned(),
            flags,
            rest: rest.trim().to_owned(),
            original: line.to_owned(),
            heredocs: Vec::new(),
            lines: Lines::default(),
            comments: Vec::new(),
            empty_continuation: None,
        }
    }

    /// Reads the statement that ONBUILD defers.
    pub(crate) fn deferred(&self) -> Self {
        Self {
            lines: self.lines,
            ..Self::from_line(&self.rest)
        }
    }

    /// Returns what the comments above say of `name`: the first that begins with it counts. Empty
    /// if none does.
    pub(crate) fn description(&self, name: &str) -> String {
        let of_name = |comment: &String| {
            let rest = comment.strip_prefix(name)?.strip_prefix(' ')?;
            Some(rest.to_owned())
        };
        self.comments.iter().find_map(of_name).unwrap_or_default()
    }

    fn takes_heredocs(&self) -> bool {
        let takes = |statement: &Self| {
            ["ADD", "COPY", "RUN"].into_iter().any(|k| statement.is(k))
                && !matches!(args::json_strings(&statement.rest), Ok(Some(_)))
        };
        if self.is("ONBUILD") {
            takes(&self.deferred())
        } else {
            takes(self)
        }
    }
}

/// Reads all statements of a Dockerfile.
pub(crate) fn read(text: &[u8]) -> Result<(Vec<Statement>, Directives), Error> {
    let mut reader = Reader {
        rest: text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text),
        number: 0,
        directives: Directives::default(),
    };
    let mut statements = Vec::new();
    let mut comments: Vec<String> = Vec::new();
    while let Some(line) = reader.next_line()? {
        let line = line.trim_start();
        if reader.read_directive(line)? {
            continue;
        }
        if let Some(comment) = line.strip_prefix('#') {
            comments.push(comment.trim().to_owned());
            continue;
        }
        if line.trim_end().is_empty() {
            comments.clear();
            continue;
        }
        let mut statement = reader.statement(line)?;
        statement.comments = std::mem::take(&mut comments);
        statements.push(statement);
    }
    Ok((statements, reader.directives))
}

struct Reader<'a> {
    rest: &'a [u8],
    number: u32,
    directives: Directives,
}

impl<'a> Reader<'a> {
    /// Returns the next line with its end; `None` at the end of the file.
    fn raw_line(&mut self) -> Result<Option<&'a [u8]>, Error> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let end = self.rest.iter().position(|&c| c == b'\n');
        let length = end.map_or(self.rest.len(), |at| at + 1);
        let (line, rest) = self.rest.split_at(length);
        self.rest = rest;
        self.number += 1;
        if length - usize::from(end.is_some()) > MAX_LINE_BYTES {
            let message =
                format!("dockerfile line greater than max allowed size of {MAX_LINE_BYTES}");
            return Err(self.error(message));
        }
        Ok(Some(line))
    }

    /// Returns the next line without its end. Comments may hold any bytes.
    fn next_line(&mut self) -> Result<Option<std::borrow::Cow<'a, str>>, Error> {
        let Some(line) = self.raw_line()? else {
            return Ok(None);
        };
        let end = line
            .iter()
            .rposition(|c| !b"\r\n".contains(c))
            .map_or(0, |at| at + 1);
        let line = &line[..end];
        if line.trim_ascii_start().starts_with(b"#") {
            return Ok(Some(String::from_utf8_lossy(line)));
        }
        let text = std::str::from_utf8(line).map_err(|_| self.error("the line is not UTF-8"))?;
        Ok(Some(text.into()))
    }

    fn error(&self, message: impl Into<String>) -> Error {
        Error::dockerfile(message).at(self.here())
    }

    fn here(&self) -> Lines {
        Lines {
            start: self.number,
            end: self.number,
        }
    }

    fn read_directive(&mut self, line: &str) -> Result<bool, Error> {
        let result = self.directives.read(line);
        result.map_err(|message| self.error(message))
    }

    /// Reads the statement that begins with `first`, with its further lines.
    fn statement(&mut self, first: &str) -> Result<Statement, Error> {
        let start = self.number;
        let escape = self.directives.escape();
        let (mut joined, mut more) = split_continuation(first, escape);
        let mut joined = std::mem::take(&mut joined).to_owned();
        let mut empty_continuation = false;
        while more {
            let Some(line) = self.next_line()? else { break };
            let trimmed = line.trim_start();
            if trimmed.starts_with('#') {
                continue;
            }
            if trimmed.is_empty() {
                empty_continuation = true;
                continue;
            }
            let (part, continues) = split_continuation(&line, escape);
            joined.push_str(part);
            more = continues;
        }
        let mut statement = Statement::from_line(&joined);
        statement.empty_continuation = empty_continuation.then_some(self.number);
        if statement.takes_heredocs() {
            self.heredocs(&mut statement, start)?;
        }
        statement.lines = Lines {
            start,
            end: self.number,
        };
        Ok(statement)
    }

    fn heredocs(&mut self, statement: &mut Statement, start: u32) -> Result<(), Error> {
        let found = Heredoc::find_all(&statement.original);
        for mut heredoc in found.map_err(|message| self.error(message))? {
            loop {
                let Some(line) = self.raw_line()? else {
                    let lines = Lines {
                        start,
                        end: self.number,
                    };
                    return Err(Error::dockerfile("unterminated heredoc").at(lines));
                };
                let line =
                    std::str::from_utf8(line).map_err(|_| self.error("the line is not UTF-8"))?;
                if heredoc.ends_at(line.trim_end_matches(['\r', '\n'])) {
                    break;
                }
                heredoc.content.push_str(line);
            }
            statement.heredocs.push(heredoc);
        }
        Ok(())
    }
}

/// Splits off the escape character that ends a line, unless it is itself escaped; tells whether
/// there was one.
fn split_continuation(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(text) if !text.ends_with(escape) => (text, true),
        _ => (line, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, u32, u32)]) {
        let (statements, _) = read(text.as_bytes()).unwrap();
        let found: Vec<_> = statements
            .iter()
            .map(|s| (s.original.as_str(), s.lines.start, s.lines.end))
            .collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn lines_are_joined_and_comments_dropped() {
        check(
            "\u{feff}# c\n\n  FROM a\r\nRUN b \\ \n # no\n\n  c\\\n&& d\n",
            &[("FROM a", 3, 3), ("RUN b   c&& d", 4, 8)],
        );
        check(
            "RUN a \\\\\nRUN b \\",
            &[("RUN a \\\\", 1, 1), ("RUN b ", 2, 2)],
        );
        check("# escape=`\nRUN a `\nb\\\n", &[("RUN a b\\", 2, 3)]);
        check("", &[]);
    }

    #[test]
    fn heredocs_belong_to_their_statement() {
        let text = "RUN <<A cat <<-B\n# kept\nA\n\tx\\\n\tB\nONBUILD COPY <<\"C\" /c\nc\nC\nRUN [\"<<D\"]\n";
        let (statements, _) = read(text.as_bytes()).unwrap();
        let bodies: Vec<Vec<String>> = statements
            .iter()
            .map(|s| s.heredocs.iter().map(Heredoc::body).collect())
            .collect();
        assert_eq!(
            bodies,
            [vec!["# kept\n", "x\\\n"], vec!["c\n"], vec![]]
                .map(|docs| docs.into_iter().map(str::to_owned).collect::<Vec<_>>())
        );
        assert_eq!(statements[1].lines, Lines { start: 6, end: 8 });
    }

    #[test]
    fn bad_texts_name_their_lines() {
        let long = format!("FROM a\nRUN {}\n", "x".repeat(MAX_LINE_BYTES));
        for (text, message, lines) in [
            (&b"FROM a\nRUN <<E\nx\n"[..], "unterminated heredoc", (2, 3)),
            (b"FROM a\nRUN \xff\n", "the line is not UTF-8", (2, 2)),
            (
                long.as_bytes(),
                "dockerfile line greater than max allowed size of 65535",
                (2, 2),
            ),
            (
                b"# check=a\n# check=b\n",
                "only one check parser directive can be used",
                (2, 2),
            ),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.to_string(), message);
            let ranges = error.ranges();
            assert_eq!((ranges[0].start, ranges[ranges.len() - 1].end), lines);
        }
        assert!(read(b"# \xff\nFROM a\n").is_ok());
    }
}
