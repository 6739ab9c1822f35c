//! Foreign text made fit for a terminal.

use std::borrow::Cow;

/// Returns what a line of output leaves visible: escape sequences are dropped, a carriage return
/// starts the line over, and no control character remains.
pub(crate) fn visible(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut shown = String::with_capacity(text.len());
    let mut characters = text.trim_end_matches('\r').chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => skip_escape(&mut characters),
            '\r' => shown.clear(),
            '\u{8}' => drop(shown.pop()),
            '\t' => shown.push(' '),
            c if c.is_control() => {}
            c => shown.push(c),
        }
    }
    shown
}

/// Returns `text` on one line without control characters.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Returns `text` without the logins in its addresses and image references: the `user:password` of
/// `https://user:password@host` and `user:password@host/image`, and the token of
/// `https://token@host`. A digest after the `@` makes what is before it a name, and a `<` in front the
/// name of an argument.
pub(crate) fn without_credentials(text: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut told = 0;
    let ends = |c: char| c.is_whitespace() || "/`'\"=,@".contains(c);
    for (at, _) in text.match_indices('@') {
        if at < told {
            continue;
        }
        let begin = text[told..at]
            .rfind(ends)
            .map_or(told, |end| told + end + 1);
        let login = &text[begin..at];
        let is_of_web = ["http://", "https://"]
            .iter()
            .any(|scheme| text[..begin].ends_with(scheme));
        let is_name = login.is_empty() || login.starts_with('<');
        let is_login = !is_name && (login.contains(':') || is_of_web);
        if is_login && !begins_with_algorithm(&text[at + 1..]) {
            shown.push_str(&text[told..begin]);
            shown.push_str("xxxxx:xxxxx");
            // A password may have an `@`, too.
            let rest = &text[at..];
            let word = rest.find(|c| c != '@' && ends(c)).unwrap_or(rest.len());
            told = at + rest[..word].rfind('@').unwrap_or_default();
        }
    }
    if told == 0 {
        return Cow::Borrowed(text);
    }
    shown.push_str(&text[told..]);
    Cow::Owned(shown)
}

/// Returns whether a digest begins here, or what was to be one.
fn begins_with_algorithm(text: &str) -> bool {
    let mut algorithms = ["sha256", "sha384", "sha512"].into_iter();
    let rest = algorithms.find_map(|algorithm| text.strip_prefix(algorithm));
    let goes_on = |rest: &str| rest.starts_with(|c: char| c.is_alphanumeric() || ".-".contains(c));
    rest.is_some_and(|rest| !goes_on(rest))
}

/// Skips the rest of an escape sequence (ECMA-48): `[`…final, `]`…terminator, or one character.
fn skip_escape(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match characters.next() {
        Some('[') => while characters.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
        Some(']' | 'P' | '_' | '^' | 'X') => {
            while let Some(character) = characters.next() {
                let ends_with_escape =
                    character == '\u{1b}' && characters.next_if_eq(&'\\').is_some();
                if character == '\u{7}' || ends_with_escape {
                    break;
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_what_is_visible() {
        for (line, expected) in [
            ("plain", "plain"),
            ("\x1b[31mred\x1b[0m", "red"),
            ("10%\r20%\r100%\r", "100%"),
            ("ab\x08c", "ac"),
            ("a\tb\x00", "a b"),
            ("\x1b]0;title\x07text", "text"),
            ("\x1b]8;;url\x1b\\link", "link"),
            ("\x1b(Bx", "Bx"),
            ("cut \x1b[3", "cut "),
            ("\u{9b}31m", "31m"),
        ] {
            assert_eq!(visible(line.as_bytes()), expected, "{line:?}");
        }
        assert_eq!(visible(b"\xffa"), "\u{fffd}a");
    }

    #[test]
    fn one_line_has_no_control_characters() {
        assert_eq!(one_line("RUN <<EOF\na\x1b\nEOF"), "RUN <<EOF a  EOF");
    }

    #[test]
    fn logins_are_not_shown() {
        let cases = [
            (
                "`user:s3cret@host:5000/x`: wrong",
                "`xxxxx:xxxxx@host:5000/x`: wrong",
            ),
            (
                "--a=https://u:p@h/x?y=u:q@h and b",
                "--a=https://xxxxx:xxxxx@h/x?y=xxxxx:xxxxx@h and b",
            ),
            (
                "clone https://token@h/x.git",
                "clone https://xxxxx:xxxxx@h/x.git",
            ),
            (
                "a@b ssh://git@h/x git@h:x me@h",
                "a@b ssh://git@h/x git@h:x me@h",
            ),
            ("host:5000/app:1@sha256:00", "host:5000/app:1@sha256:00"),
            (
                "`app:1@sha512:00` app:1@sha256",
                "`app:1@sha512:00` app:1@sha256",
            ),
            (
                "u:p@sha256.example/x u:p@sha2567/x",
                "xxxxx:xxxxx@sha256.example/x xxxxx:xxxxx@sha2567/x",
            ),
            ("https://xxxxx:xxxxx@h", "https://xxxxx:xxxxx@h"),
            (
                "`u:p@ss@host/x@sha256:00` u:p@ss@h",
                "`xxxxx:xxxxx@host/x@sha256:00` xxxxx:xxxxx@h",
            ),
            (
                "pull [OPTIONS] <NAME[:TAG|@DIGEST]>",
                "pull [OPTIONS] <NAME[:TAG|@DIGEST]>",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(without_credentials(text), expected);
        }
    }
}
