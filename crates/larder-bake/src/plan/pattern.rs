//! Patterns of names: `*`, `?`, `[a-z]`.

use regex::Regex;

/// Whether `text` is more than a name.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', ']'])
}

/// Returns a regular expression for whole names; `None` if the pattern is malformed.
pub(super) fn compile(pattern: &str) -> Option<Regex> {
    let mut regex = String::from("^");
    let mut rest = pattern.chars();
    while let Some(letter) = rest.next() {
        match letter {
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            '\\' => push_literal(&mut regex, rest.next()?),
            '[' => {
                let (class, after) = rest.as_str().split_once(']')?;
                push_class(&mut regex, class)?;
                rest = after.chars();
            }
            other => push_literal(&mut regex, other),
        }
    }
    regex.push('$');
    Regex::new(&regex).ok()
}

fn push_literal(regex: &mut String, letter: char) {
    regex.push_str(&regex::escape(letter.encode_utf8(&mut [0; 4])));
}

fn push_class(regex: &mut String, class: &str) -> Option<()> {
    let (negation, class) = match class.strip_prefix('^') {
        Some(class) => ("^", class),
        None => ("", class),
    };
    regex.push('[');
    regex.push_str(negation);
    for letter in class.chars() {
        match letter {
            '-' => regex.push('-'),
            other => push_literal(regex, other),
        }
    }
    regex.push(']');
    (!class.is_empty()).then_some(())
}
