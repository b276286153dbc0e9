//! The matrix of what interoperates: what the tests have found in each guest, in one table.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use anyhow::{Context as _, Result};

use super::{guest::INTEROP, kernel::Kernel};
use crate::root;

/// Prints the table, and writes it to target/interop.txt.
pub(super) fn report(kernels: &[Kernel]) -> Result<()> {
    let mut matrix = Matrix::default();
    for kernel in kernels {
        let file = kernel.directory.join(INTEROP);
        let log = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        matrix.read(&kernel.release, &String::from_utf8_lossy(&log));
    }
    let table = matrix.table();
    eprintln!("\n{table}");
    let file = root().join("target/interop.txt");
    fs::write(&file, table).with_context(|| format!("writing {}", file.display()))
}

const HEADING: &str = "\
Between xgre and the kernel's GRE; of each cell the seconds from xgre to the kernel and back, or what
failed. A column is a kernel and an XDP mode.

";

#[derive(Default)]
struct Matrix {
    /// Kernel and XDP mode, in the order in which they are met.
    columns: Vec<String>,
    /// Outer protocol, options and inner protocol, likewise.
    rows: Vec<[String; 3]>,
    /// By row, column and direction.
    cells: BTreeMap<(usize, usize, bool), Cell>,
    failures: Vec<String>,
}

#[derive(Default)]
struct Cell {
    milliseconds: u64,
    failed: bool,
}

impl Matrix {
    /// A kernel's log, whose lines are words with tabs between them.
    fn read(&mut self, kernel: &str, log: &str) {
        let short = kernel.split(['-', '+']).next().unwrap_or(kernel);
        for line in log.lines() {
            let words: Vec<_> = line.trim_end().split('\t').collect();
            if let ["check", xdp, outer, options, inner, direction, what, took, result] = words[..]
            {
                let column = position(&mut self.columns, format!("{short} {xdp}"));
                let row = [outer, options, inner].map(str::to_owned);
                let row = position(&mut self.rows, row);
                let cell = self.cells.entry((row, column, direction == "to")).or_default();
                cell.milliseconds += took.parse::<u64>().unwrap_or(0);
                if result != "ok" {
                    cell.failed = true;
                    self.failures.push(format!(
                        "{short} {xdp}: {outer}, {options}, {inner} {direction} the kernel: \
                         {what}: {result}"
                    ));
                }
            }
        }
    }

    fn table(&self) -> String {
        let mut text = HEADING.to_owned();
        _ = write!(text, "{:<15} {:<17} {:<5}", "outer", "options", "inner");
        for column in &self.columns {
            _ = write!(text, " {column:>16}");
        }
        text.push('\n');
        for (row, [outer, options, inner]) in self.rows.iter().enumerate() {
            _ = write!(text, "{outer:<15} {options:<17} {inner:<5}");
            for column in 0..self.columns.len() {
                let [to, from] = [true, false].map(|to| self.cell(row, column, to));
                _ = write!(text, " {:>16}", format!("{to} {from}"));
            }
            text.push('\n');
        }
        let failed = self.cells.values().filter(|cell| cell.failed).count();
        _ = writeln!(text, "\n{} of {} cells ok", self.cells.len() - failed, self.cells.len());
        for failure in &self.failures {
            _ = writeln!(text, "FAILED {failure}");
        }
        text
    }

    fn cell(&self, row: usize, column: usize, to: bool) -> String {
        match self.cells.get(&(row, column, to)) {
            None => "-".into(),
            Some(Cell { failed: true, .. }) => "FAILED".into(),
            Some(Cell { milliseconds, .. }) => format!("ok {:.1}", *milliseconds as f64 / 1e3),
        }
    }
}

/// Where it is in the list; it is added if it is not.
fn position<T: PartialEq>(list: &mut Vec<T>, item: T) -> usize {
    list.iter().position(|known| *known == item).unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_told() {
        let mut matrix = Matrix::default();
        matrix.read(
            "6.1.0-56-cloud-amd64",
            "check\tnative\tgre\tkey\tIPv4\tto\tping\t120\tok\r\n\
             check\tnative\tgre\tkey\tIPv4\tto\tTCP\t300\tok\r\n\
             check\tnative\tgre\tkey\tIPv4\tfrom\tping\t10\tno answer\r\n",
        );
        let table = matrix.table();
        assert!(table.contains("6.1.0 native"), "{table}");
        assert!(table.contains("ok 0.4 FAILED"), "{table}");
        assert!(table.contains("1 of 2 cells ok"), "{table}");
        assert!(
            table.contains("FAILED 6.1.0 native: gre, key, IPv4 from the kernel: ping: no answer")
        );
    }
}
