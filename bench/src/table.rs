//! Rows in columns, as Markdown reads them.

use std::fmt;

pub struct Table(Vec<Vec<String>>);

impl Table {
    pub fn new<const N: usize>(header: [&str; N]) -> Self {
        Self(vec![header.map(str::to_owned).into(), vec!["---".to_owned(); N]])
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.push(cells.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(rows) = self;
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        for row in rows {
            for (column, cell) in row.iter().enumerate() {
                write!(f, "| {cell:width$} ", width = width(column))?;
            }
            writeln!(f, "|")?;
        }
        Ok(())
    }
}
