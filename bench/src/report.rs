//! All figures of a run: as a table, as JSON, and beside those of another run.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::{
    facts::Facts,
    figure::{Bound, Figure, Spread},
    objects::Size,
    table::Table,
};

#[derive(Serialize, Deserialize)]
pub struct Report {
    pub facts: Facts,
    /// Of P1's programs, where P1 was measured.
    pub programs: Vec<Size>,
    pub figures: Vec<Figure>,
    pub elsewhere: Vec<Elsewhere>,
}

/// A figure that another command measures.
#[derive(Serialize, Deserialize)]
pub struct Elsewhere {
    pub promise: String,
    pub case: String,
    pub command: String,
}

impl Report {
    pub fn new(facts: Facts) -> Self {
        Self { facts, programs: Vec::new(), figures: Vec::new(), elsewhere: Vec::new() }
    }

    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is no report of this benchmark", path.display()))
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// The figures, and if there is an earlier run what has changed since.
    pub fn table(&self, earlier: Option<&Self>) -> Table {
        let mut header = vec![
            "promise", "case", "measured", "against", "unit", "ratio", "spread", "promised", "",
        ];
        if earlier.is_some() {
            header.extend(["before", "change"]);
        }
        let columns = header.len();
        let mut table = Table::new(&header);
        for figure in &self.figures {
            let mut cells = cells(figure);
            if let Some(earlier) = earlier {
                cells.extend(changes(figure, earlier));
            }
            table.row(cells);
        }
        for Elsewhere { promise, case, command } in &self.elsewhere {
            let mut cells = vec![promise.clone(), case.clone(), format!("`{command}`")];
            cells.resize(columns, String::new());
            table.row(cells);
        }
        table
    }
}

fn cells(figure: &Figure) -> Vec<String> {
    let Spread { median, min, max } = figure.value;
    vec![
        figure.promise.clone(),
        figure.case.clone(),
        format!("{} {:.2}", figure.measured.name, figure.measured.median()),
        match &figure.reference {
            Some(reference) => format!("{} {:.2}", reference.name, reference.median()),
            None => String::new(),
        },
        figure.unit.clone(),
        if figure.reference.is_some() { format!("{median:.3}") } else { String::new() },
        format!("{min:.3}..{max:.3}"),
        match figure.bound {
            Bound::AtMost(limit) => format!("<= {limit}"),
            Bound::AtLeast(limit) => format!(">= {limit}"),
            Bound::None => String::new(),
        },
        match figure.is_kept() {
            Some(true) => "kept".to_owned(),
            Some(false) => "MISSED".to_owned(),
            None => String::new(),
        },
    ]
}

/// What the earlier run has measured of the same, and by how much it is more now.
fn changes(figure: &Figure, earlier: &Report) -> [String; 2] {
    match earlier.figures.iter().find(|other| figure.is_of_the_same(other)) {
        Some(Figure { value, .. }) => {
            let change = 100.0 * (figure.value.median / value.median - 1.0);
            [format!("{:.3}", value.median), format!("{change:+.1} %")]
        }
        None => ["none".to_owned(), String::new()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Side;

    fn report(rounds: &[f64]) -> Report {
        let side = |name: &str, rounds: &[f64]| Side { name: name.into(), rounds: rounds.to_vec() };
        let (ours, its) = (side("rust", rounds), side("c", &[10.0; 5]));
        let figure = Figure::ratio("P1", "encap", "ns", Bound::AtMost(1.05), ours, its);
        let facts = Facts::gather().unwrap();
        Report { figures: vec![figure], ..Report::new(facts) }
    }

    #[test]
    fn a_report_that_was_written_and_read_again_is_compared_with() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp");
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("bench-report.json");
        report(&[10.0; 5]).write(&path).unwrap();
        let earlier = Report::read(&path).unwrap();
        let table = report(&[11.0; 5]).table(Some(&earlier)).to_string();
        let row = table.lines().last().unwrap();
        for cell in
            ["| 1.100 ", "| 1.100..1.100 ", "| <= 1.05 ", "| MISSED ", "| 1.000 ", "| +10.0 % "]
        {
            assert!(row.contains(cell), "{cell} is not in {row}");
        }
    }

    #[test]
    fn what_the_earlier_run_has_not_measured_has_no_change() {
        let earlier = Report { figures: Vec::new(), ..report(&[10.0; 5]) };
        let table = report(&[10.0; 5]).table(Some(&earlier)).to_string();
        assert!(table.lines().last().unwrap().contains("| none "), "{table}");
    }

    #[test]
    fn what_is_measured_elsewhere_is_a_row_with_the_command() {
        let mut report = report(&[10.0; 5]);
        let elsewhere = Elsewhere {
            promise: "P4".into(),
            case: "in a VM".into(),
            command: "cargo xtask bench P4".into(),
        };
        report.elsewhere.push(elsewhere);
        let table = report.table(None).to_string();
        assert!(table.lines().last().unwrap().contains("`cargo xtask bench P4`"), "{table}");
    }
}
