//! Tables: columns as wide as their widest cell.

use crate::text::{Line, Span, Tone, width};

/// Between two columns.
const GAP: usize = 2;

/// Rows under headings. The last column is not filled up, so that long reasons cost the others nothing.
#[derive(Debug)]
pub(crate) struct Table<const COLUMNS: usize> {
    headings: [&'static str; COLUMNS],
    rows: Vec<[Span; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub(crate) fn new(headings: [&'static str; COLUMNS]) -> Self {
        Self { headings, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: [Span; COLUMNS]) {
        self.rows.push(cells);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, each after so many spaces.
    pub(crate) fn lines(&self, indent: usize) -> Vec<Line> {
        let headings = self.headings.map(|heading| Span::new(heading, Tone::Heading));
        let mut widths = [0; COLUMNS];
        for row in std::iter::once(&headings).chain(&self.rows) {
            for (widest, cell) in widths.iter_mut().zip(row) {
                *widest = (*widest).max(width(&cell.text));
            }
        }
        let line = |row: &[Span; COLUMNS]| {
            let mut line = Line::new(" ".repeat(indent));
            for (index, (cell, widest)) in row.iter().zip(widths).enumerate() {
                line.push(Span::new(&cell.text, cell.tone));
                if index + 1 < COLUMNS {
                    line.push(" ".repeat(widest - width(&cell.text) + GAP));
                }
            }
            line
        };
        std::iter::once(&headings).chain(&self.rows).map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let mut table = Table::new(["NAME", "N", "WHY"]);
        table.row(["日本".into(), "10".into(), "because".into()]);
        table.row(["a".into(), "1".into(), "\u{1b}[2J".into()]);
        let lines: Vec<_> = table.lines(2).iter().map(Line::to_string).collect();
        assert_eq!(lines, ["  NAME  N   WHY", "  日本  10  because", "  a     1    [2J"]);
    }
}
