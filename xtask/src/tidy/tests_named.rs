//! Whether the tests and cases that a page names are there.

use std::collections::BTreeSet;
use std::path::Path;

/// The page that lists differences, each with its test.
pub(super) const PAGE: &str = "docs/compatibility.md";
/// Where the cases of the conformance suite are.
const CASES: &str = "crates/larder-cli/tests/conformance/cases/";

/// What a page may name: functions, modules, crates, files and cases.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeSet<String>);

impl Known {
    /// Takes note of what a file is, and of the functions in it.
    pub(super) fn add(&mut self, file: &str, text: &str) {
        let path = Path::new(file);
        if let Some(case) = file.strip_prefix(CASES) {
            self.0.extend(case.strip_suffix(".case").map(str::to_owned));
            return;
        }
        if path.extension().is_none_or(|extension| extension != "rs") {
            return;
        }
        for part in &path.with_extension("") {
            self.0.insert(part.to_string_lossy().into_owned());
        }
        // A file of tests goes by its path within its crate.
        self.0.extend(file.splitn(3, '/').nth(2).map(str::to_owned));
        for line in text.lines() {
            let function = line.split_once("fn ").map(|(_, rest)| rest);
            let name = function.and_then(|rest| rest.split(['(', '<']).next());
            self.0.extend(name.map(str::to_owned));
        }
    }

    /// Returns what `page` names as a test or case, and what is not there, with the number of its line.
    pub(super) fn missing<'a>(&self, page: &'a str) -> Vec<(usize, &'a str)> {
        let mut missing = Vec::new();
        let mut is_list = false;
        for (number, line) in (1..).zip(page.lines()) {
            if line.starts_with('-') || line.trim().is_empty() {
                is_list = false;
            }
            let names = if is_list {
                line
            } else if let Some(cell) = last_cell(line) {
                cell
            } else if let Some(list) = after_mark(line) {
                is_list = true;
                list
            } else {
                continue;
            };
            let names = names.split('`').skip(1).step_by(2);
            let last = |name: &'a str| name.rsplit("::").next().unwrap_or(name);
            let unknown = names.filter(|name| !self.0.contains(last(name)));
            missing.extend(unknown.map(|name| (number, name)));
        }
        missing
    }
}

/// Returns the last cell of a table's row, where the tests are.
fn last_cell(line: &str) -> Option<&str> {
    let row = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(row.rsplit_once(" | ")?.1)
}

/// Returns what stands behind `Test:` and the like.
fn after_mark(line: &str) -> Option<&str> {
    let marks = ["est:", "ests:", "ase:", "ases:"];
    let places = marks.into_iter().filter_map(|mark| line.find(mark));
    places.min().map(|place| &line[place..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_page_names_must_be_there() {
        let mut known = Known::default();
        known.add("crates/larder-a/tests/b.rs", "    fn it_holds() {}\n");
        known.add(&format!("{CASES}copy/file.case"), "");
        let page = "`c` differs. Tests: `larder-a`, `tests/b.rs`,\n`it_holds`, `a::it_broke`.\n\
                    - `d` is all. Case: `copy/file`, `copy/dir`.\n\n`e`\n| `f` | `b`: `g` |\n";
        let missing = known.missing(page);
        assert_eq!(missing, [(2, "a::it_broke"), (3, "copy/dir"), (6, "g")]);
    }
}
