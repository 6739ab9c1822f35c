//! Interpolation of all values of a file.

use std::collections::BTreeSet;

use crate::error::{Error, Result, Warning};
use crate::node::{KeyPath, Node, Value};
use crate::template::{self, Lookup};
use crate::variables::Variables;

/// Replaces the variables in all values below `node`; keys stay as they are. Each variable that is
/// not set and has no default is told once in `warnings`.
///
/// # Errors
/// With file, line and key.
pub(crate) fn interpolate(
    node: &mut Node,
    variables: &Variables,
    warnings: &mut Vec<Warning>,
) -> Result<()> {
    let mut scope = Scope {
        variables,
        unset: BTreeSet::new(),
    };
    walk(node, &KeyPath::ROOT, &mut scope)?;
    for name in scope.unset {
        let message = format!("The {name:?} variable is not set. Defaulting to a blank string.");
        let warning = Warning { at: None, message };
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    Ok(())
}

struct Scope<'a> {
    variables: &'a Variables,
    unset: BTreeSet<String>,
}

impl Lookup for Scope<'_> {
    fn get(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(str::to_owned)
    }

    fn unset(&mut self, name: &str) {
        self.unset.insert(name.to_owned());
    }
}

fn walk(node: &mut Node, path: &KeyPath<'_>, scope: &mut Scope<'_>) -> Result<()> {
    match &mut node.value {
        Value::Text(text) if text.contains('$') => {
            *text = template::substitute(text, scope)
                .map_err(|error| Error::file(&node.at, path, error.to_string()))?;
        }
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, &path.key(&format!("[{index}]")), scope)?;
            }
        }
        Value::Map(map) => {
            for entry in map.iter_mut() {
                walk(&mut entry.node, &path.key(&entry.key), scope)?;
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::parse_one;

    #[test]
    fn values_are_interpolated_and_keys_are_not() {
        let mut node = parse_one("$A:\n  - x${A}\n  - {b: $B, c: 1}\n");
        let mut warnings = Vec::new();
        interpolate(&mut node, &Variables::of([("A", "1")]), &mut warnings).unwrap();
        assert_eq!(node, parse_one("$A:\n  - x1\n  - {b: '', c: 1}\n"));
        assert_eq!(warnings.len(), 1);
        assert_eq!(
            warnings[0].message,
            "The \"B\" variable is not set. Defaulting to a blank string."
        );
    }

    #[test]
    fn an_error_names_file_line_and_key() {
        let mut node = parse_one("services:\n  api:\n    command: [a, '${X:?set X}']\n");
        let error = interpolate(&mut node, &Variables::default(), &mut Vec::new()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "test.yaml:3: services.api.command.[1]: required variable `X` is missing a value: set X"
        );
    }
}
