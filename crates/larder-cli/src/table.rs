//! Listings: rows of named fields, shown as a table, as JSON or through a template.
//!
//! Formats are those of Docker's tools: `table`, `json`, `table {{.ID}}\t{{.Size}}`, or a
//! template. Of Go's template language, fields and `json` are understood.

use serde_json::{Map, Value};

/// The fewest columns that a table's column takes, and what is left free between two.
const MIN_COLUMN_WIDTH: usize = 10;
const COLUMN_PADDING: usize = 3;

/// A row: its fields by name.
pub(crate) type Row = Map<String, Value>;

/// A kind of listing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listing {
    /// All fields, with their headings.
    pub(crate) fields: &'static [(&'static str, &'static str)],
    /// The fields that a table shows if nothing else is asked for.
    pub(crate) columns: &'static [&'static str],
}

/// How to show a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Format {
    /// A table; one template a column.
    Table(Vec<Template>),
    /// One JSON object a line, its keys sorted.
    Json,
    /// A template, once for each row.
    Template(Template),
}

/// A text with fields to fill in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

/// A field, and what to pick from it: `.Config.Env`.
type Path = Vec<String>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Path),
    FieldAsJson(Path),
    RowAsJson,
}

impl Listing {
    /// Parses a format; `table` is the default.
    ///
    /// # Errors
    /// Says what of the format is not understood.
    pub(crate) fn parse_format(&self, text: &str) -> Result<Format, String> {
        match text {
            "" | "table" => Ok(self.table()),
            "json" => Ok(Format::Json),
            text => match text.strip_prefix("table ") {
                Some(cells) => unescape(cells)
                    .split('\t')
                    .map(|cell| self.parse_template(cell))
                    .collect::<Result<_, _>>()
                    .map(Format::Table),
                None => self.parse_template(&unescape(text)).map(Format::Template),
            },
        }
    }

    /// Returns the format that shows the default columns.
    pub(crate) fn table(&self) -> Format {
        let cell = |field: &&str| Template(vec![Part::Field(vec![(*field).to_owned()])]);
        Format::Table(self.columns.iter().map(cell).collect())
    }

    /// Renders `rows`.
    pub(crate) fn render(&self, format: &Format, rows: &[Row]) -> String {
        match format {
            Format::Table(cells) => self.render_table(cells, rows),
            Format::Json => rows.iter().map(|row| json_line(row) + "\n").collect(),
            Format::Template(template) => {
                rows.iter().map(|row| template.render(row) + "\n").collect()
            }
        }
    }

    fn render_table(&self, cells: &[Template], rows: &[Row]) -> String {
        let headings: Row = self
            .fields
            .iter()
            .map(|&(field, heading)| (field.to_owned(), heading.into()))
            .collect();
        let lines: Vec<Vec<String>> = std::iter::once(&headings)
            .chain(rows)
            .map(|row| cells.iter().map(|cell| cell.render(row)).collect())
            .collect();
        columns(&lines)
    }

    fn parse_template(&self, text: &str) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (action, after) = after
                .split_once("}}")
                .ok_or_else(|| format!("template `{text}`: `{{{{` is not closed"))?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(self.parse_action(action)?);
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Template(parts))
    }

    fn parse_action(&self, action: &str) -> Result<Part, String> {
        let words: Vec<&str> = action.split_whitespace().collect();
        let field = |word: &str| {
            let path: Path = word.split('.').skip(1).map(str::to_owned).collect();
            let is_known = |name: &String| self.fields.iter().any(|(field, _)| field == name);
            if path.first().is_some_and(is_known) {
                return Ok(path);
            }
            let known: Vec<_> = self.fields.iter().map(|(field, _)| *field).collect();
            Err(format!(
                "template: `{word}` is no field (expected .{})",
                known.join(", .")
            ))
        };
        match words[..] {
            ["json", "."] => Ok(Part::RowAsJson),
            ["json", word] => field(word).map(Part::FieldAsJson),
            [word] if word.starts_with('.') => field(word).map(Part::Field),
            _ => Err(format!(
                "template: `{{{{{action}}}}}` is not understood (expected `{{{{.Field}}}}` or `{{{{json .Field}}}}`)"
            )),
        }
    }
}

impl Template {
    fn render(&self, row: &Row) -> String {
        let field = |path: &Path| {
            let (name, rest) = path.split_first().expect("a path begins with a field");
            rest.iter()
                .fold(row.get(name).unwrap_or(&Value::Null), |value, key| {
                    value.get(key).unwrap_or(&Value::Null)
                })
        };
        self.0
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::Field(path) => plain(field(path)),
                Part::FieldAsJson(path) => field(path).to_string(),
                Part::RowAsJson => json_line(row),
            })
            .collect()
    }
}

/// Returns a value as Go prints it: text as it is, lists in brackets.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(plain).collect();
            format!("[{}]", values.join(" "))
        }
        other => other.to_string(),
    }
}

fn json_line(row: &Row) -> String {
    let mut fields: Vec<(&String, &Value)> = row.iter().collect();
    fields.sort_by_key(|(name, _)| *name);
    let sorted: Row = fields
        .into_iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    Value::Object(sorted).to_string()
}

/// Aligns cells in columns; the last of a line is not padded.
fn columns(lines: &[Vec<String>]) -> String {
    let width_of = |column: usize| {
        let widest = lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|cell| cell.chars().count())
            .max();
        (widest.unwrap_or(0) + COLUMN_PADDING).max(MIN_COLUMN_WIDTH)
    };
    let count = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width_of).collect();
    let mut text = String::new();
    for line in lines {
        for (column, cell) in line.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < line.len() {
                let padding = widths[column] - cell.chars().count();
                text.extend(std::iter::repeat_n(' ', padding));
            }
        }
        text.push('\n');
    }
    text
}

/// Resolves `\t` and `\n`, which shells leave as they are.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::json;

    use super::*;

    const LISTING: Listing = Listing {
        fields: &[("ID", "ID"), ("Size", "SIZE"), ("Parents", "PARENTS")],
        columns: &["ID", "Size"],
    };

    fn show(format: &str) -> String {
        let row = |id: &str, size: &str| {
            let row = json!({"Size": size, "ID": id, "Parents": ["a", "b"]});
            row.as_object().unwrap().clone()
        };
        let rows = [row("abcdefghijkl", "1kB"), row("x", "2.5MB")];
        LISTING.render(&LISTING.parse_format(format).unwrap(), &rows)
    }

    #[test]
    fn tables_are_aligned() {
        assert_snapshot!(show("table"), @r"
        ID             SIZE
        abcdefghijkl   1kB
        x              2.5MB
        ");
        assert_snapshot!(show("table {{.Size}}\\t{{.ID}}"), @r"
        SIZE      ID
        1kB       abcdefghijkl
        2.5MB     x
        ");
    }

    #[test]
    fn json_has_sorted_keys() {
        assert_snapshot!(show("json"), @r#"
        {"ID":"abcdefghijkl","Parents":["a","b"],"Size":"1kB"}
        {"ID":"x","Parents":["a","b"],"Size":"2.5MB"}
        "#);
    }

    #[test]
    fn templates_fill_in_fields() {
        assert_snapshot!(show("{{.ID}}: {{ .Parents }}\\t{{json .Size}}"), @r#"
        abcdefghijkl: [a b]	"1kB"
        x: [a b]	"2.5MB"
        "#);
        assert_eq!(show("{{json .}}"), show("json"));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (format, expected) in [
            (
                "{{.Colour}}",
                "`.Colour` is no field (expected .ID, .Size, .Parents)",
            ),
            ("{{.ID", "`{{` is not closed"),
            (
                "{{range .Parents}}",
                "`{{range .Parents}}` is not understood",
            ),
            ("table {{.X}}", "`.X` is no field"),
        ] {
            let error = LISTING.parse_format(format).unwrap_err();
            assert!(error.contains(expected), "{format}: {error}");
        }
    }
}
