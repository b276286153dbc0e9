//! What was measured, round by round, and what was promised of it.

use serde::{Deserialize, Serialize};

/// What a figure must be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// Nothing is promised: the figure explains another.
    None,
}

/// One side's measurements, a round each.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Side {
    pub name: String,
    pub rounds: Vec<f64>,
}

impl Side {
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), rounds: Vec::new() }
    }

    pub fn median(&self) -> f64 {
        Spread::of(self.rounds.iter().copied()).median
    }
}

/// A ratio of two sides that were measured in turn; or, without a reference, what was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    pub promise: String,
    pub case: String,
    pub unit: String,
    pub bound: Bound,
    pub measured: Side,
    pub reference: Option<Side>,
    /// Of the rounds' ratios or, without a reference, of the rounds themselves.
    pub value: Spread,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
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
    pub fn ratio(
        promise: &str,
        case: impl Into<String>,
        unit: &str,
        bound: Bound,
        measured: Side,
        reference: Side,
    ) -> Self {
        let ratios = measured.rounds.iter().zip(&reference.rounds).map(|(ours, its)| ours / its);
        let value = Spread::of(ratios);
        Self::new(promise, case, unit, bound, measured, Some(reference), value)
    }

    /// Of what is promised by itself, such as a time.
    pub fn absolute(
        promise: &str,
        case: impl Into<String>,
        unit: &str,
        bound: Bound,
        measured: Side,
    ) -> Self {
        let value = Spread::of(measured.rounds.iter().copied());
        Self::new(promise, case, unit, bound, measured, None, value)
    }

    fn new(
        promise: &str,
        case: impl Into<String>,
        unit: &str,
        bound: Bound,
        measured: Side,
        reference: Option<Side>,
        value: Spread,
    ) -> Self {
        let (promise, unit) = (promise.to_owned(), unit.to_owned());
        Self { promise, case: case.into(), unit, bound, measured, reference, value }
    }

    /// Whether the promise is kept, if there is one.
    pub fn is_kept(&self) -> Option<bool> {
        match self.bound {
            Bound::AtMost(limit) => Some(self.value.median <= limit),
            Bound::AtLeast(limit) => Some(self.value.median >= limit),
            Bound::None => None,
        }
    }

    /// Whether another run's figure is of the same thing.
    pub fn is_of_the_same(&self, other: &Self) -> bool {
        let reference = |figure: &Self| figure.reference.as_ref().map(|side| side.name.clone());
        (&self.promise, &self.case, &self.measured.name, reference(self))
            == (&other.promise, &other.case, &other.measured.name, reference(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(rounds: &[f64]) -> Side {
        Side { name: String::new(), rounds: rounds.to_vec() }
    }

    #[test]
    fn the_ratio_is_the_median_of_the_rounds_not_the_ratio_of_the_medians() {
        let (ours, its) = (side(&[10.0, 30.0, 20.0]), side(&[10.0, 10.0, 40.0]));
        let figure = Figure::ratio("P1", "", "ns", Bound::AtMost(1.05), ours, its);
        assert_eq!((figure.value.min, figure.value.median, figure.value.max), (0.5, 1.0, 3.0));
        assert_eq!(figure.is_kept(), Some(true));
    }

    #[test]
    fn what_has_no_reference_is_judged_by_itself() {
        let of = |bound| Figure::absolute("P7", "", "s", bound, side(&[2.0, 1.0, 3.0]));
        assert_eq!(of(Bound::AtMost(2.0)).is_kept(), Some(true));
        assert_eq!(of(Bound::AtMost(1.9)).is_kept(), Some(false));
        assert_eq!(of(Bound::AtLeast(2.1)).is_kept(), Some(false));
        assert_eq!(of(Bound::None).is_kept(), None);
    }
}
