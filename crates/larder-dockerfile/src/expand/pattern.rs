//! The wildcards of `${name#pattern}` and `${name/pattern/text}`: `*`, `?` and escapes.

/// Bounds the time of a match, which grows with pattern times value.
const MAX_MATCH_WORK: usize = 1 << 28;

/// A pattern: runs of fixed length, with anything between two of them.
pub(crate) struct Pattern {
    segments: Vec<Vec<Item>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Item {
    Any,
    Char(char),
}

impl Pattern {
    /// Compiles a pattern that is to be matched against a value of `value_bytes`.
    pub(crate) fn new(pattern: &str, value_bytes: usize) -> Result<Self, String> {
        if pattern.len().saturating_mul(value_bytes) > MAX_MATCH_WORK {
            return Err("pattern and value are too long".to_owned());
        }
        let mut segments = vec![Vec::new()];
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            let item = match c {
                '*' => {
                    segments.push(Vec::new());
                    continue;
                }
                '?' => Item::Any,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Item::Char(c),
                    Some(c) => return Err(format!("invalid escape '\\{c}'")),
                    None => return Err("invalid escape at the end".to_owned()),
                },
                c => Item::Char(c),
            };
            segments.last_mut().expect("starts with one").push(item);
        }
        Ok(Self { segments })
    }

    /// Returns `value` without its shortest or longest matching prefix.
    pub(crate) fn trim_prefix(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        match self.match_at(&chars, 0, longest) {
            Some(end) => chars[end..].iter().collect(),
            None => value.to_owned(),
        }
    }

    /// Returns `value` without its shortest or longest matching suffix.
    pub(crate) fn trim_suffix(&self, value: &str, longest: bool) -> String {
        let mirrored = Self {
            segments: self
                .segments
                .iter()
                .rev()
                .map(|segment| segment.iter().rev().copied().collect())
                .collect(),
        };
        let chars: Vec<char> = value.chars().rev().collect();
        match mirrored.match_at(&chars, 0, longest) {
            Some(end) => chars[end..].iter().rev().collect(),
            None => value.to_owned(),
        }
    }

    /// Replaces the first or all of the leftmost, longest matches; `None` when the result would
    /// exceed `max_bytes`.
    pub(crate) fn replace(
        &self,
        value: &str,
        replacement: &str,
        all: bool,
        max_bytes: usize,
    ) -> Option<String> {
        let chars: Vec<char> = value.chars().collect();
        let mut out = String::with_capacity(value.len());
        let mut at = 0;
        let mut last_end = None;
        while let Some((start, end)) = self.find(&chars, at) {
            out.extend(&chars[at..start]);
            // An empty match right behind the last one does not count.
            if start != end || last_end != Some(start) {
                out.push_str(replacement);
            }
            if out.len() > max_bytes {
                return None;
            }
            last_end = Some(end);
            at = end;
            if start == end {
                let Some(&skipped) = chars.get(end) else {
                    break;
                };
                out.push(skipped);
                at += 1;
            }
            if !all {
                break;
            }
        }
        out.extend(&chars[at.min(chars.len())..]);
        (out.len() <= max_bytes).then_some(out)
    }

    /// The leftmost match is where the first run is found first: more room behind it can only
    /// help the others.
    fn find(&self, chars: &[char], from: usize) -> Option<(usize, usize)> {
        let first = &self.segments[0];
        let start = find_segment(first, chars, from)?;
        Some((start, self.match_at(chars, start, true)?))
    }

    /// Returns the end of the shortest or longest match that starts at `start`.
    fn match_at(&self, chars: &[char], start: usize, longest: bool) -> Option<usize> {
        let (first, rest) = self.segments.split_first()?;
        if !segment_matches(first, chars, start) {
            return None;
        }
        let mut at = start + first.len();
        let Some((last, middle)) = rest.split_last() else {
            return Some(at);
        };
        for segment in middle {
            at = find_segment(segment, chars, at)? + segment.len();
        }
        let found = if longest {
            (at..=chars.len().checked_sub(last.len())?)
                .rev()
                .find(|&position| segment_matches(last, chars, position))
        } else {
            find_segment(last, chars, at)
        };
        Some(found? + last.len())
    }
}

fn segment_matches(segment: &[Item], chars: &[char], at: usize) -> bool {
    chars.get(at..at + segment.len()).is_some_and(|window| {
        segment
            .iter()
            .zip(window)
            .all(|(item, &c)| *item == Item::Any || *item == Item::Char(c))
    })
}

fn find_segment(segment: &[Item], chars: &[char], from: usize) -> Option<usize> {
    (from..=chars.len().checked_sub(segment.len())?).find(|&at| segment_matches(segment, chars, at))
}
