//! The `WWW-Authenticate` header (RFC 9110, section 11).

/// What a server wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// In lower case: `bearer`, `basic`.
    pub(crate) scheme: String,
    /// Names in lower case, and values.
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// Returns a parameter, by its name in lower case.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Returns the challenges of one header. What can't be read is left out.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if let Some(value) = after.trim_start().strip_prefix('=') {
            let (value, after) = parse_value(value.trim_start());
            if let Some(challenge) = challenges.last_mut() {
                challenge
                    .parameters
                    .push((word.to_ascii_lowercase(), value));
            }
            rest = after;
        } else if word.is_empty() {
            return challenges;
        } else {
            challenges.push(Challenge {
                scheme: word.to_ascii_lowercase(),
                parameters: Vec::new(),
            });
            rest = after;
        }
    }
}

/// Returns the value that `text` begins with, quoted or not, and what comes after it.
fn parse_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, expected: &[(&str, &[(&str, &str)])]) {
        let found = parse(header);
        let found: Vec<(&str, Vec<(&str, &str)>)> = found
            .iter()
            .map(|challenge| {
                let pairs = challenge.parameters.iter();
                let pairs = pairs.map(|(name, value)| (name.as_str(), value.as_str()));
                (challenge.scheme.as_str(), pairs.collect())
            })
            .collect();
        let expected: Vec<_> = expected.iter().map(|(s, p)| (*s, p.to_vec())).collect();
        assert_eq!(found, expected, "{header}");
    }

    #[test]
    fn reads_challenges() {
        check(
            r#"Bearer realm="https://a/token",service="a b",scope="repository:x:pull,push""#,
            &[(
                "bearer",
                &[
                    ("realm", "https://a/token"),
                    ("service", "a b"),
                    ("scope", "repository:x:pull,push"),
                ],
            )],
        );
        check(
            r#"Basic realm="a \"b\"", Bearer Realm=x , error=invalid"#,
            &[
                ("basic", &[("realm", r#"a "b""#)]),
                ("bearer", &[("realm", "x"), ("error", "invalid")]),
            ],
        );
        check("Negotiate", &[("negotiate", &[])]);
    }

    #[test]
    fn survives_what_is_no_challenge() {
        check("", &[]);
        check("=x", &[]);
        check(r#"Bearer realm="open"#, &[("bearer", &[("realm", "open")])]);
        check(r#"Bearer realm="a\"#, &[("bearer", &[("realm", "a")])]);
        check(", ,Basic", &[("basic", &[])]);
    }
}
