//! Tables of text: the first column to the left, all others to the right.

/// Rows of cells.
#[derive(Clone, Debug, Default)]
pub struct Table(Vec<Vec<String>>);

impl Table {
    /// A table with headings.
    pub fn new<S: Into<String>>(headings: impl IntoIterator<Item = S>) -> Table {
        let mut table = Table::default();
        table.row(headings);
        table
    }

    /// Adds a row. It may be shorter than others; a last cell that is alone in its row may be wider than its column.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.0.push(cells.into_iter().map(Into::into).collect());
    }

    /// The lines, without space at their ends.
    pub fn lines(&self) -> Vec<String> {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let full = |row: &&Vec<String>| row.len() == columns;
        let width = |at: usize| {
            let of_all = at == 0;
            let cells = self.0.iter().filter(|row| of_all || full(row)).filter_map(|row| row.get(at));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[at].saturating_sub(cell.chars().count()));
                line += &match at {
                    0 => format!("{cell}{pad}"),
                    _ if row.len() < columns => format!("  {cell}"),
                    _ => format!("  {pad}{cell}"),
                };
            }
            line.trim_end().to_owned()
        };
        self.0.iter().map(line).collect()
    }
}

/// A number with so many decimals, and spaces between thousands: `12 345.6`.
pub fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let (sign, digits) = whole.split_at(whole.len() - whole.trim_start_matches('-').len());
    let mut out = sign.to_owned();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && digits.len() > 4 {
            out.push(' ');
        }
        out.push(digit);
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let mut table = Table::new(["server", "µs", "requests/s"]);
        table.row(["host", "3.65", "1"]);
        table.row(["nginx-and-more", "n/a: a long reason that belongs to no column"]);
        table.row(["h2o", "10.12", "234 567"]);
        assert_eq!(
            table.lines(),
            [
                "server             µs  requests/s",
                "host             3.65           1",
                "nginx-and-more  n/a: a long reason that belongs to no column",
                "h2o             10.12     234 567",
            ]
        );
    }

    #[test]
    fn numbers_are_readable() {
        for (value, decimals, text) in [
            (0.0, 0, "0"),
            (3.652, 2, "3.65"),
            (9999.4, 0, "9999"),
            (12345.678, 1, "12 345.7"),
            (-1234567.0, 0, "-1 234 567"),
        ] {
            assert_eq!(number(value, decimals), text);
        }
    }
}
