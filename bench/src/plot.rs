//! Figures as pictures: a file for each promise, a row for each case.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::figure::{Bound, Figure, Spread};

const WIDTH: u32 = 1100;
const ROW: u32 = 34;
const MARGINS: u32 = 100;
/// Pixels for the names of cases.
const NAMES: u32 = 460;

/// Writes `P1.svg` and so on into the directory.
pub fn write(directory: &Path, figures: &[Figure]) -> Result<()> {
    let mut promises: BTreeMap<&str, Vec<&Figure>> = BTreeMap::new();
    for figure in figures {
        promises.entry(&figure.promise).or_default().push(figure);
    }
    for (promise, figures) in promises {
        let path = directory.join(format!("{promise}.svg"));
        draw(&path, promise, &figures).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Each round is a small dot, the median a large one, the promise a bar that it must be beyond: green
/// where it is kept, red where it is missed.
fn draw(path: &Path, promise: &str, figures: &[&Figure]) -> Result<(), Box<dyn std::error::Error>> {
    let rows = figures.len() as i32;
    let root = SVGBackend::new(path, (WIDTH, ROW * rows as u32 + MARGINS)).into_drawing_area();
    root.fill(&WHITE)?;
    let range = range(figures);
    let left = range.start;
    let mut chart = ChartBuilder::on(&root)
        .caption(promise, ("sans-serif", 20))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(NAMES)
        .build_cartesian_2d(range, -0.5..f64::from(rows) - 0.5)?;
    let unit = match figures {
        [first, ..] if first.reference.is_none() => &first.unit,
        _ => "ratio, a dot for each round; the bar is the promise",
    };
    chart.configure_mesh().disable_y_mesh().x_desc(unit).y_labels(0).draw()?;
    for (row, figure) in figures.iter().enumerate() {
        // From top to bottom.
        let y = f64::from(rows) - 1.0 - row as f64;
        let (_, middle) = chart.backend_coord(&(left, y));
        root.draw(&Text::new(name(figure), (10, middle - 7), ("sans-serif", 14)))?;
        let colour = match figure.is_kept() {
            Some(true) => GREEN,
            Some(false) => RED,
            None => BLUE,
        };
        let Spread { median, min, max } = figure.value;
        chart.draw_series([PathElement::new([(min, y), (max, y)], colour.mix(0.5))])?;
        chart.draw_series(rounds(figure).map(|x| Circle::new((x, y), 2, colour.filled())))?;
        chart.draw_series([Circle::new((median, y), 5, colour.filled())])?;
        if let Bound::AtMost(limit) | Bound::AtLeast(limit) = figure.bound {
            let bar = [(limit, y - 0.4), (limit, y + 0.4)];
            chart.draw_series([PathElement::new(bar, BLACK.stroke_width(2))])?;
        }
    }
    root.present()?;
    Ok(())
}

fn name(figure: &Figure) -> String {
    match &figure.reference {
        Some(reference) => {
            format!("{}: {} against {}", figure.case, figure.measured.name, reference.name)
        }
        None => figure.case.clone(),
    }
}

/// What each round gave.
fn rounds(figure: &Figure) -> impl Iterator<Item = f64> {
    figure.measured.rounds.iter().enumerate().map(|(round, ours)| match &figure.reference {
        Some(reference) => ours / reference.rounds[round],
        None => *ours,
    })
}

/// From a little below everything to a little above.
fn range(figures: &[&Figure]) -> std::ops::Range<f64> {
    let values = figures.iter().flat_map(|figure| {
        let limit = match figure.bound {
            Bound::AtMost(limit) | Bound::AtLeast(limit) => limit,
            Bound::None => figure.value.median,
        };
        [figure.value.min, figure.value.max, limit]
    });
    let Spread { min, max, .. } = Spread::of(values);
    let margin = ((max - min) * 0.05).max(1e-3);
    min - margin..max + margin
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::figure::Side;

    #[test]
    fn each_promise_has_a_picture_that_names_its_cases() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp/bench-plots");
        fs::create_dir_all(&directory).unwrap();
        let side = |rounds: &[f64]| Side { name: "null".into(), rounds: rounds.to_vec() };
        let (ours, its) = (side(&[0.8, 0.9, 1.0]), side(&[1.0; 3]));
        let ratio = Figure::ratio("P2", "encap", "Mpps", Bound::AtLeast(0.85), ours.clone(), its);
        let time = Figure::absolute("P7", "1 M routes", "s", Bound::AtMost(1.0), ours);
        write(&directory, &[ratio, time]).unwrap();
        for (file, case) in [("P2.svg", "encap: null against null"), ("P7.svg", "1 M routes")] {
            let picture = fs::read_to_string(directory.join(file)).unwrap();
            assert!(picture.starts_with("<svg") && picture.contains(case), "{picture}");
        }
    }
}
