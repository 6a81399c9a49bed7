//! Columns for people.

use crate::text;

/// The widest that a column gets, in characters.
const WIDTH_MAX: usize = 60;

/// `rows` in columns as wide as they have to be; text of others is made harmless and cut.
pub(super) fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| fit(cell))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut lines = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        lines.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        lines.push('\n');
    }
    lines
}

fn fit(cell: &str) -> String {
    let cell = text::harmless(cell);
    if cell.chars().count() <= WIDTH_MAX {
        return cell.into_owned();
    }
    cell.chars().take(WIDTH_MAX - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_have_to_be() {
        let rows = [["A", "B"], ["long", "x\u{1b}[2J"]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&rows), "A     B\nlong  x\\u{1b}[2J\n");
        let wide = fit(&"ü".repeat(100));
        assert_eq!(wide.chars().count(), WIDTH_MAX);
        assert!(wide.ends_with('…'));
    }
}
