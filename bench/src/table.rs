//! Rows in columns, as Markdown reads them.

use std::fmt;

pub struct Table(Vec<Vec<String>>);

impl Table {
    pub fn new(header: &[&str]) -> Self {
        let names = header.iter().map(|&name| name.to_owned()).collect();
        Self(vec![names, vec!["---".to_owned(); header.len()]])
    }

    /// As many cells as the header has.
    pub fn row(&mut self, cells: Vec<String>) {
        self.0.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(rows) = self;
        let width =
            |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        for row in rows {
            for (column, cell) in row.iter().enumerate() {
                write!(f, "| {cell:width$} ", width = width(column))?;
            }
            writeln!(f, "|")?;
        }
        Ok(())
    }
}
