//! Semantic versions.

use std::cmp::Ordering;

use super::{Done, exactly};
use crate::error::Error;
use crate::value::Value;

/// A version; what stands after `+` does not count.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    numbers: [u64; 3],
    pre_release: Vec<String>,
}

/// A version in a constraint, of which a part may be left open: `1.2`, `1.x`.
struct Partial {
    version: Version,
    /// How many numbers are given.
    given: usize,
}

impl Partial {
    fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let (text, build) = text.split_once('+').unwrap_or((text, "b"));
        let (core, pre_release) = match text.split_once('-') {
            Some((core, pre_release)) => (core, Some(pre_release)),
            None => (text, None),
        };
        let mut numbers = [0; 3];
        let mut given = 0;
        let mut is_open = false;
        let components: Vec<&str> = core.split('.').collect();
        if components.len() > numbers.len() {
            return None;
        }
        for (number, component) in numbers.iter_mut().zip(&components) {
            if matches!(*component, "x" | "X" | "*") {
                is_open = true;
            } else if is_open || !component.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            } else {
                *number = component.parse().ok()?;
                given += 1;
            }
        }
        let pre_release: Vec<String> = pre_release.map_or(Vec::new(), |text| {
            text.split('.').map(str::to_owned).collect()
        });
        let is_identifier = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let are_identifiers = pre_release
            .iter()
            .map(String::as_str)
            .chain(build.split('.'))
            .all(is_identifier);
        are_identifiers.then_some(Self {
            version: Version {
                numbers,
                pre_release,
            },
            given,
        })
    }

    /// Returns the first version above those that share the numbers up to `index`.
    fn after(&self, index: usize) -> Version {
        let mut numbers = [0; 3];
        numbers[..=index].copy_from_slice(&self.version.numbers[..=index]);
        numbers[index] = numbers[index].saturating_add(1);
        Version {
            numbers,
            pre_release: Vec::new(),
        }
    }

    /// Whether `version` is equal in what is given.
    fn covers(&self, version: &Version) -> bool {
        match self.given {
            3 => *version == self.version,
            given => version.numbers[..given] == self.version.numbers[..given],
        }
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| {
            match (self.pre_release.is_empty(), other.pre_release.is_empty()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => compare_pre_releases(&self.pre_release, &other.pre_release),
            }
        })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Numbers come before words; a list comes before one that it begins.
fn compare_pre_releases(left: &[String], right: &[String]) -> Ordering {
    let compare =
        |(left, right): (&String, &String)| match (left.parse::<u64>(), right.parse::<u64>()) {
            (Ok(left), Ok(right)) => left.cmp(&right),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => left.cmp(right),
        };
    left.iter()
        .zip(right)
        .map(compare)
        .find(|order| order.is_ne())
        .unwrap_or_else(|| left.len().cmp(&right.len()))
}

/// `semvercmp(version, constraint)`: whether the version meets the constraint, such as `>= 1.2`,
/// `~1.2`, `^1, != 1.5`, `1.x || 2.x` or `1 - 2`.
pub(super) fn compare(args: &[Value]) -> Done {
    let [version, constraint] = exactly(args)?;
    let (version, constraint) = (version.to_text()?, constraint.to_text()?);
    let parsed = Partial::parse(&version)
        .filter(|partial| partial.given > 0)
        .ok_or_else(|| Error::definition(format!("`{version}` is no semantic version")))?;
    let mut is_met = false;
    for alternative in constraint.split("||") {
        is_met |= meets_all(&parsed.version, alternative.trim())
            .ok_or_else(|| Error::definition(format!("`{constraint}` is no version constraint")))?;
    }
    Ok(Value::Bool(is_met))
}

/// `None` if the constraint is malformed.
fn meets_all(version: &Version, constraint: &str) -> Option<bool> {
    if let Some((low, high)) = constraint.split_once(" - ") {
        let (low, high) = (format!(">={}", low.trim()), format!("<={}", high.trim()));
        return Some(meets(version, &low)? && meets(version, &high)?);
    }
    // Spaces separate, too, but not an operator from its version.
    let mut rest = constraint.trim_start();
    let mut is_met = (!rest.is_empty()).then_some(true)?;
    while !rest.is_empty() {
        let operator = rest.find(|letter: char| !"=<>!~^".contains(letter))?;
        let after = rest[operator..].trim_start();
        let end = after.find([',', ' ']).unwrap_or(after.len());
        is_met &= meets(version, &format!("{}{}", &rest[..operator], &after[..end]))?;
        rest = after[end..].trim_start_matches([',', ' ']);
    }
    Some(is_met)
}

fn meets(version: &Version, constraint: &str) -> Option<bool> {
    let at = constraint.find(|letter: char| !"=<>!~^".contains(letter))?;
    let (operator, text) = constraint.split_at(at);
    let bound = Partial::parse(text)?;
    // Versions before a release are asked for by name only.
    if !version.pre_release.is_empty() && bound.version.pre_release.is_empty() {
        return Some(operator == "!=" && !bound.covers(version));
    }
    let last_given = bound.given.saturating_sub(1);
    let is_any = bound.given == 0;
    Some(match operator {
        "" | "=" | "==" => is_any || bound.covers(version),
        "!=" => !is_any && !bound.covers(version),
        ">" if bound.given == 3 => *version > bound.version,
        ">" => !is_any && *version >= bound.after(last_given),
        ">=" | "=>" => *version >= bound.version,
        "<" => *version < bound.version,
        "<=" | "=<" if bound.given == 3 => *version <= bound.version,
        "<=" | "=<" => is_any || *version < bound.after(last_given),
        "~" | "~>" => {
            is_any || *version >= bound.version && *version < bound.after(last_given.min(1))
        }
        "^" => is_any || *version >= bound.version && *version < bound.after(caret_index(&bound)),
        _ => return None,
    })
}

/// The number up to which `^` lets versions differ: the first that is not zero.
fn caret_index(bound: &Partial) -> usize {
    let given = &bound.version.numbers[..bound.given];
    given
        .iter()
        .position(|number| *number > 0)
        .unwrap_or(bound.given - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_are_met() {
        for (version, constraint, expected) in [
            ("1.2.3", ">= 1.0.0", Some(true)),
            ("2.1.0", "< 2.0.0", Some(false)),
            ("3.22", ">= 3.20", Some(true)),
            ("v1.2.3+build", "1.2.3", Some(true)),
            ("1.2.3", "1.2", Some(true)),
            ("1.2.3", "1.x", Some(true)),
            ("1.2.3", "*", Some(true)),
            ("1.2.3", "!=1.2.3", Some(false)),
            ("1.9.0", "^1.2", Some(true)),
            ("2.0.0", "^1.2", Some(false)),
            ("0.3.0", "^0.2.3", Some(false)),
            ("0.2.9", "^0.2.3", Some(true)),
            ("1.2.9", "~1.2.3", Some(true)),
            ("1.3.0", "~1.2.3", Some(false)),
            ("1.9.0", "~1", Some(true)),
            ("1.5.0", ">=1.2, <1.5", Some(false)),
            ("1.4.9", ">=1.2 <1.5", Some(true)),
            ("3.0.0", "1.x || >= 3", Some(true)),
            ("2.3.4", "1.2 - 2.3", Some(true)),
            ("2.4.0", "1.2 - 2.3", Some(false)),
            ("1.3.0", ">1.2", Some(true)),
            ("1.2.9", ">1.2", Some(false)),
            ("1.2.9", "<=1.2", Some(true)),
            ("1.0.0-rc.1", ">=1.0.0", Some(false)),
            ("1.0.0-rc.2", ">=1.0.0-rc.1", Some(true)),
            ("1.0.0-rc.10", ">1.0.0-rc.9", Some(true)),
            ("not-a-version", ">=1", None),
            ("", ">=1", None),
            ("1.2.3", "", None),
            ("1.2.3", "not-a-constraint", None),
            ("1.2.3", ">=", None),
            ("1.2.3.4", ">=1", None),
        ] {
            let done = compare(&[Value::text(version), Value::text(constraint)]).ok();
            assert_eq!(done, expected.map(Value::Bool), "{version} {constraint}");
        }
    }
}
