//! The lines of a Dockerfile that a message is about.

use std::fmt::Write;

use larder_engine::event::{SourceFile, SourceRange};

const RULE: &str = "--------------------\n";

/// Returns the lines of `ranges` marked with `>>>`, with some lines around them, as BuildKit
/// shows them. Empty if the ranges lie outside of the text.
pub(crate) fn of(source: &SourceFile, ranges: &[SourceRange]) -> String {
    let text = String::from_utf8_lossy(&source.data);
    let lines: Vec<&str> = text.split('\n').collect();
    let ends = |range: &SourceRange| range.end.max(range.start) as usize;
    let Some(first) = ranges.iter().map(|range| range.start as usize).min() else {
        return String::new();
    };
    let last = ranges
        .iter()
        .map(ends)
        .max()
        .unwrap_or(first)
        .min(lines.len());
    if first == 0 || first > lines.len() {
        return String::new();
    }
    let (start, end) = with_context(first, last, lines.len());
    let mut excerpt = format!("{}:{first}\n{RULE}", source.filename);
    for number in start..=end {
        let is_meant = ranges
            .iter()
            .any(|range| (range.start as usize..=ends(range)).contains(&number));
        let mark = if is_meant { ">>>" } else { "   " };
        let line = lines[number - 1].trim_end_matches('\r');
        writeln!(excerpt, " {number:3} | {mark} {line}").expect("a String takes all");
    }
    excerpt.push_str(RULE);
    excerpt
}

/// Returns the lines of a bake file that an error is about.
pub(crate) fn of_bake_file(place: &larder_bake::Place) -> String {
    let source = SourceFile {
        filename: place.file.name.clone(),
        data: place.file.text.clone().into_bytes(),
        language: String::new(),
    };
    let range = SourceRange {
        start: place.line,
        end: place.end_line,
    };
    of(&source, &[range])
}

/// Widens the lines `first..=last` on both sides: more for a single line than for several.
fn with_context(first: usize, last: usize, count: usize) -> (usize, usize) {
    let wanted = if first == last { 4 } else { 2 };
    let (mut start, mut end, mut added) = (first, last, 0);
    while added < wanted {
        if start > 1 {
            start -= 1;
            added += 1;
        }
        if end < count {
            end += 1;
            added += 1;
        }
        added += 1;
    }
    (start, end)
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn show(text: &str, ranges: &[(u32, u32)]) -> String {
        let source = SourceFile {
            filename: "Dockerfile".to_owned(),
            data: text.as_bytes().to_vec(),
            language: "Dockerfile".to_owned(),
        };
        let ranges: Vec<_> = ranges
            .iter()
            .map(|&(start, end)| SourceRange { start, end })
            .collect();
        of(&source, &ranges)
    }

    #[test]
    fn a_single_line_gets_more_context() {
        assert_snapshot!(show("FROM a\nRUN b\nRUN c\nRUN d\nRUN e\nRUN f\n", &[(4, 4)]), @r"
        Dockerfile:4
        --------------------
           2 |     RUN b
           3 |     RUN c
           4 | >>> RUN d
           5 |     RUN e
           6 |     RUN f
        --------------------
        ");
    }

    #[test]
    fn several_lines_are_all_marked() {
        assert_snapshot!(show("FROM a\nRUN b \\\n && c\nRUN d\n", &[(2, 3)]), @r"
        Dockerfile:2
        --------------------
           1 |     FROM a
           2 | >>> RUN b \
           3 | >>>  && c
           4 |     RUN d
        --------------------
        ");
    }

    #[test]
    fn the_edges_of_the_text_limit_the_context() {
        assert_snapshot!(show("RUN a", &[(1, 1)]), @r"
        Dockerfile:1
        --------------------
           1 | >>> RUN a
        --------------------
        ");
    }

    #[test]
    fn lines_that_do_not_exist_show_nothing() {
        assert_eq!(show("RUN a", &[(7, 7)]), "");
        assert_eq!(show("RUN a", &[(0, 0)]), "");
        assert_eq!(show("RUN a", &[]), "");
        assert!(show("RUN a", &[(1, 9)]).contains("RUN a"));
    }
}
