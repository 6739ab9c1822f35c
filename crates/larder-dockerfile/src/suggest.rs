//! "did you mean …?"

/// From this many edits on, a name is no longer taken for a misspelling.
const MAX_EDITS: usize = 3;
/// Longer words are not compared: nobody mistypes them, and comparing is quadratic.
const MAX_WORD_CHARS: usize = 128;

/// Appends ` (did you mean x?)` to `message` when `word` is close to one of `options`, and not
/// equal to any.
pub(crate) fn with_suggestion<'a>(
    message: String,
    word: &str,
    options: impl IntoIterator<Item = &'a str>,
) -> String {
    match closest(word, options) {
        Some(option) => format!("{message} (did you mean {option}?)"),
        None => message,
    }
}

pub(crate) fn closest<'a>(
    word: &str,
    options: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if word.chars().count() > MAX_WORD_CHARS {
        return None;
    }
    let mut best = None;
    let mut fewest = MAX_EDITS;
    for option in options {
        if option == word {
            return None;
        }
        if option.chars().count() > MAX_WORD_CHARS {
            continue;
        }
        let edits = distance(word, option);
        if edits < fewest {
            fewest = edits;
            best = Some(option);
        }
    }
    best
}

/// The Levenshtein distance in characters.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &b) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_closest_of_near_words() {
        let options = ["from", "chown", "chmod", "link"];
        for (word, expected) in [
            ("fro", "m (did you mean from?)"),
            ("chwon", "m (did you mean chown?)"),
            ("link", "m"),
            ("zzzzzz", "m"),
        ] {
            assert_eq!(with_suggestion("m".to_owned(), word, options), expected);
        }
    }
}
