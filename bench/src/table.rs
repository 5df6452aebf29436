//! A table of text, aligned, in the shape that Markdown takes.
//!
//! Invariant: every row has as many cells as the heading. Not here: what the cells say (report.rs).

pub(crate) struct Table {
    /// The heading is the first row.
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Table {
        Table { rows: vec![heading.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.rows[0].len(), "a row as wide as the heading");
        self.rows.push(cells);
    }

    pub(crate) fn render(&self) -> String {
        let widths: Vec<usize> = (0..self.rows[0].len())
            .map(|column| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(2))
            .collect();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            for (cell, width) in row.iter().zip(&widths) {
                text.push_str(&format!("| {cell:>width$} "));
            }
            text.push_str("|\n");
            if number == 0 {
                for width in &widths {
                    text.push_str(&format!("|{}:", "-".repeat(width + 1)));
                }
                text.push_str("|\n");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["load", "ops/s"]);
        table.row(vec!["put".to_owned(), "9".to_owned()]);
        table.row(vec!["linearizable".to_owned(), "12345".to_owned()]);
        assert_eq!(
            table.render(),
            "|         load | ops/s |\n\
             |-------------:|------:|\n\
             |          put |     9 |\n\
             | linearizable | 12345 |\n"
        );
    }

    #[test]
    #[should_panic(expected = "as wide as the heading")]
    fn a_row_of_another_width_is_a_bug() {
        Table::new(&["a", "b"]).row(vec!["1".to_owned()]);
    }
}
