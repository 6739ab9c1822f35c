//! Plans and lists as text, as buildx prints them.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use crate::config::Definition;
use crate::plan::Plan;
use crate::target::{Group, KEYS, Target};

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListFormat {
    /// Columns.
    Table,
    /// An array of objects.
    Json,
}

/// Go's tables are aligned with tabs of this width.
const TAB_WIDTH: usize = 8;

impl Plan {
    /// Returns the plan as JSON that can be read as a bake file.
    pub fn to_json(&self) -> String {
        let mut plan = Map::new();
        if !self.groups.is_empty() {
            let groups = self
                .groups
                .iter()
                .map(|(name, group)| (name.clone(), group_json(group)));
            plan.insert("group".to_owned(), Json::Object(groups.collect()));
        }
        let targets = self
            .targets
            .iter()
            .map(|(name, target)| (name.clone(), target_json(target)));
        plan.insert("target".to_owned(), Json::Object(targets.collect()));
        pretty(&Json::Object(plan))
    }
}

fn group_json(group: &Group) -> Json {
    if group.description.is_empty() {
        json!({ "targets": group.targets })
    } else {
        json!({ "description": group.description, "targets": group.targets })
    }
}

fn target_json(target: &Target) -> Json {
    let printed = KEYS
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), target.printed(key)?)));
    Json::Object(printed.collect())
}

impl Definition {
    /// Returns the targets and groups that are not private: whose names don't begin with `_`.
    pub fn list_targets(&self, format: ListFormat) -> String {
        let targets = self
            .targets
            .iter()
            .map(|(name, target)| (name.as_str(), target.description.clone(), false));
        let groups = self
            .groups
            .iter()
            .map(|(name, group)| (name.as_str(), members(group), true));
        let mut all: Vec<_> = targets
            .chain(groups)
            .filter(|(name, ..)| !name.starts_with('_'))
            .collect();
        all.sort_by_key(|(name, ..)| *name);
        if format == ListFormat::Table {
            let rows = all
                .into_iter()
                .map(|(name, description, _)| vec![name.to_owned(), description]);
            return table(&["TARGET", "DESCRIPTION"], rows.collect());
        }
        let entries = all.into_iter().map(|(name, description, is_group)| {
            let mut entry = json!({ "name": name });
            if !description.is_empty() {
                entry["description"] = description.into();
            }
            if is_group {
                entry["group"] = true.into();
            }
            entry
        });
        pretty(&entries.collect())
    }

    /// Returns the variables and their values.
    pub fn list_variables(&self, format: ListFormat) -> String {
        let variables = self.variables.iter();
        if format == ListFormat::Table {
            let rows = variables.map(|variable| {
                let value = variable
                    .value
                    .clone()
                    .unwrap_or_else(|| "<null>".to_owned());
                vec![
                    variable.name.clone(),
                    variable.type_name.clone(),
                    value,
                    variable.description.clone(),
                ]
            });
            return table(
                &["VARIABLE", "TYPE", "VALUE", "DESCRIPTION"],
                rows.collect(),
            );
        }
        let entries = variables.map(|variable| {
            let mut entry = json!({ "name": variable.name });
            for (key, text) in [
                ("description", &variable.description),
                ("type", &variable.type_name),
            ] {
                if !text.is_empty() {
                    entry[key] = text.as_str().into();
                }
            }
            if let Some(value) = &variable.value {
                entry["value"] = value.as_str().into();
            }
            entry
        });
        pretty(&entries.collect())
    }
}

fn members(group: &Group) -> String {
    let mut names = group.targets.clone();
    names.sort();
    let names = names.join(", ");
    match (group.description.as_str(), names.as_str()) {
        ("", names) => names.to_owned(),
        (description, "") => description.to_owned(),
        (description, names) => format!("{description} ({names})"),
    }
}

/// Aligns columns with tabs, as Go's `tabwriter` does.
fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let header = header.iter().map(|cell| (*cell).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    let length = |cell: &String| cell.chars().count();
    let columns = rows[0].len();
    let width = |column: usize| {
        let longest = rows
            .iter()
            .map(|row| length(&row[column]))
            .max()
            .unwrap_or(0);
        (longest + 1).next_multiple_of(TAB_WIDTH)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            let tabs = (widths[column] - length(cell).min(widths[column])).div_ceil(TAB_WIDTH);
            let tabs = if column + 1 == columns { 0 } else { tabs };
            write!(text, "{cell}{}", "\t".repeat(tabs)).expect("a String takes all");
        }
        text.push('\n');
    }
    text
}

fn pretty(json: &Json) -> String {
    let mut text = serde_json::to_string_pretty(json).expect("JSON values can be written");
    text.push('\n');
    escape_html(&text)
}

/// Escapes what Go's JSON escapes beyond the standard; these stand in strings only.
pub(crate) fn escape_html(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                write!(escaped, "\\u{:04x}", u32::from(letter)).expect("a String takes all");
            }
            other => escaped.push(other),
        }
    }
    escaped
}
