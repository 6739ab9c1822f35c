use crate::error::Error;
use crate::path;

/// Reads a `.dockerignore` file: one pattern a line, in order, cleaned and without a leading
/// slash. Exceptions keep their `!`. Empty lines and comments are left out.
///
/// # Errors
/// [`ErrorKind::Dockerfile`](crate::ErrorKind) for a lone `!` and for what is not UTF-8.
pub fn parse_ignore(text: &[u8]) -> Result<Vec<String>, Error> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = std::str::from_utf8(text)
        .map_err(|error| Error::dockerfile("the ignore file is not UTF-8").caused_by(error))?;
    let mut patterns = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let (sign, pattern) = match line.strip_prefix('!') {
            Some(pattern) => ("!", pattern.trim()),
            None => ("", line),
        };
        if pattern.is_empty() {
            return Err(Error::dockerfile("illegal exclusion pattern: \"!\""));
        }
        let clean = path::clean(pattern);
        // The root itself is no pattern to strip: `/` alone stays.
        let relative = match clean.strip_prefix('/') {
            Some(relative) if !relative.is_empty() => relative,
            _ => &clean,
        };
        patterns.push(format!("{sign}{relative}"));
    }
    Ok(patterns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_cleaned() {
        let text = b"\xef\xbb\xbf# c\n\n *.md \n/a//b/\n!/x/../y\n! z\n #kept\n.\n../up\n/\n";
        assert_eq!(
            parse_ignore(text).unwrap(),
            ["*.md", "a/b", "!y", "!z", "#kept", ".", "../up", "/"]
        );
        assert!(parse_ignore(b"!\n").is_err());
        assert!(parse_ignore(b"\xff").is_err());
    }
}
