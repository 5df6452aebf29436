//! Tables as olekukonko/tablewriter draws them: centred upper-case titles, cells to the right.

/// Draws a table; every row has as many cells as there are titles.
pub(crate) fn draw(titles: &[&str], rows: &[Vec<String>]) -> String {
    let titles: Vec<String> = titles.iter().map(|title| title.to_uppercase()).collect();
    let widths: Vec<usize> = titles
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([title.chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let rule: String =
        widths.iter().map(|width| format!("+{}", "-".repeat(width + 2))).collect::<String>() + "+\n";
    let mut drawn = rule.clone();
    for (title, width) in titles.iter().zip(&widths) {
        let gap = width - title.chars().count();
        let left = gap / 2;
        drawn.push_str(&format!("| {}{title}{} ", " ".repeat(left), " ".repeat(gap - left)));
    }
    drawn.push_str("|\n");
    drawn.push_str(&rule);
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            drawn.push_str(&format!("| {cell:>width$} "));
        }
        drawn.push_str("|\n");
    }
    drawn + &rule
}

#[cfg(test)]
mod tests {
    #[test]
    fn titles_are_centred_and_cells_right() {
        let drawn = super::draw(&["id", "name"], &[vec!["67fa".into(), "default".into()]]);
        assert_eq!(
            drawn,
            "+------+---------+\n|  ID  |  NAME   |\n+------+---------+\n| 67fa | default |\n+------+---------+\n"
        );
    }
}
