//! Ratios over the rounds, and how they are told.

use serde::Serialize;

use crate::table::Table;

/// What a ratio must be.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// Nothing is promised: the ratio explains another.
    None,
}

/// One side's measurements, a round each.
#[derive(Debug, Clone, Serialize)]
pub struct Side {
    pub name: String,
    pub rounds: Vec<f64>,
}

/// A ratio of two sides that were measured in turn.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    pub promise: &'static str,
    pub case: String,
    pub unit: &'static str,
    pub bound: Bound,
    pub measured: Side,
    pub reference: Side,
    pub ratio: Spread,
}

/// Of the ratios of the rounds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            (values[middle - 1] + values[middle]) / 2.0
        };
        Self { median, min: values[0], max: values[values.len() - 1] }
    }
}

impl Figure {
    /// Both sides have measurements of the same rounds.
    pub fn new(
        promise: &'static str,
        case: impl Into<String>,
        unit: &'static str,
        bound: Bound,
        measured: Side,
        reference: Side,
    ) -> Self {
        let ratio =
            Spread::of(measured.rounds.iter().zip(&reference.rounds).map(|(ours, its)| ours / its));
        Self { promise, case: case.into(), unit, bound, measured, reference, ratio }
    }

    fn verdict(&self) -> &'static str {
        let median = self.ratio.median;
        match self.bound {
            Bound::AtMost(limit) if median <= limit => "kept",
            Bound::AtLeast(limit) if median >= limit => "kept",
            Bound::AtMost(_) | Bound::AtLeast(_) => "MISSED",
            Bound::None => "",
        }
    }
}

pub fn table(figures: &[Figure]) -> Table {
    let mut table = Table::new([
        "promise", "case", "measured", "against", "unit", "ratio", "spread", "promised", "",
    ]);
    for figure in figures {
        let side = |side: &Side| {
            let median = Spread::of(side.rounds.iter().copied()).median;
            format!("{} {median:.2}", side.name)
        };
        let Spread { median, min, max } = figure.ratio;
        table.row([
            figure.promise.to_owned(),
            figure.case.clone(),
            side(&figure.measured),
            side(&figure.reference),
            figure.unit.to_owned(),
            format!("{median:.3}"),
            format!("{min:.3}..{max:.3}"),
            match figure.bound {
                Bound::AtMost(limit) => format!("<= {limit}"),
                Bound::AtLeast(limit) => format!(">= {limit}"),
                Bound::None => String::new(),
            },
            figure.verdict().to_owned(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_the_median_of_the_rounds_not_the_ratio_of_the_medians() {
        let side = |rounds: &[f64]| Side { name: String::new(), rounds: rounds.to_vec() };
        let (ours, its) = (side(&[10.0, 30.0, 20.0]), side(&[10.0, 10.0, 40.0]));
        let figure = Figure::new("P1", "", "ns", Bound::AtMost(1.05), ours, its);
        assert_eq!((figure.ratio.min, figure.ratio.median, figure.ratio.max), (0.5, 1.0, 3.0));
        assert_eq!(figure.verdict(), "kept");
    }
}
