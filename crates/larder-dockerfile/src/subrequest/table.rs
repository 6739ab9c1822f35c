//! Aligned columns.

/// Returns `rows` with all columns but the last padded to the widest of their cells and `gap` more,
/// as Go's `tabwriter` writes them. What would break a line or a column becomes a blank.
pub(super) fn table<const N: usize>(rows: &[[&str; N]], gap: usize) -> String {
    let cells: Vec<[String; N]> = rows.iter().map(|row| row.map(one_line)).collect();
    let width = |column: usize| {
        let widths = cells.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or(0) + gap
    };
    let mut text = String::new();
    for row in &cells {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < N {
                let blanks = width(column) - cell.chars().count();
                text.extend(std::iter::repeat_n(' ', blanks));
            }
        }
        text.push('\n');
    }
    text
}

fn one_line(cell: &str) -> String {
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    cell.chars().map(visible).collect()
}
