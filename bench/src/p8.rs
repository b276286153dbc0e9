//! P8: how long a forwarded frame is under way at a steady 50,000 a second, against a program that only
//! swaps the MAC addresses and redirects: from where it enters the first link to the end of the last.

use anyhow::{Context as _, Result};
use tests::interrupt;

use crate::{
    Effort,
    figure::{Bound, Figure, Side},
    frames::{self, Network},
    lab::Lab,
    latency::Meter,
    live::Null,
    p2::all_over,
};

const PERCENTILES: [(&str, usize, Bound); 3] = [
    ("p50", 500, Bound::AtMost(1.1)),
    ("p99", 990, Bound::AtMost(1.1)),
    ("p99.9", 999, Bound::None),
];

/// Turns of both sides in a round: what disturbs comes and goes.
const TURNS: usize = 8;
const QUICK_TURNS: usize = 2;

pub fn measure(effort: &Effort) -> Result<Vec<Figure>> {
    let lab = &mut Lab::new(effort)?;
    let mut meter = Meter::new(lab)?;
    let mut null = Null::new(lab)?;
    let turns = if effort.quick { QUICK_TURNS } else { TURNS };
    let out_of = |to| frames::encapsulated(Network::Keyless, to);
    let cases = [
        ("encap", frames::plain(Network::Keyless)),
        ("decap to next hop", out_of(Network::NextHop)),
        ("hub transit", out_of(Network::Onward)),
    ];
    let ingress = lab.ingress;
    let (_, subject) = lab.subjects.all()?.swap_remove(0);

    let mut figures = Vec::new();
    let mut sent = 0;
    for (name, shape) in cases {
        let frames: Vec<_> = all_over(&shape).iter().map(|target| shape.to(target)).collect();
        let mut sides = PERCENTILES.map(|_| (Side::new("rust"), Side::new("null")));
        for _ in 0..effort.rounds {
            interrupt::check()?;
            let [mut ours, mut its] = [Vec::new(), Vec::new()];
            for _ in 0..turns {
                ours.extend(meter.measure(subject, ingress, &frames).context(name)?);
                its.extend(meter.measure(null.program()?, ingress, &frames).context("null")?);
            }
            sent += ours.len() + its.len();
            for ((ours_side, its_side), (_, permille, _)) in sides.iter_mut().zip(PERCENTILES) {
                ours_side.rounds.push(percentile(&mut ours, permille));
                its_side.rounds.push(percentile(&mut its, permille));
            }
        }
        for ((ours, its), (percentile, _, bound)) in sides.into_iter().zip(PERCENTILES) {
            figures.push(Figure::ratio(
                "P8",
                format!("{name}, {percentile}"),
                "ns",
                bound,
                ours,
                its,
            ));
        }
    }
    let mut late = Side::new("late");
    late.rounds.push(100.0 * meter.late as f64 / sent as f64);
    figures.push(Figure::absolute("P8", "frames not sent when due", "%", Bound::None, late));
    Ok(figures)
}

fn percentile(samples: &mut [u64], permille: usize) -> f64 {
    let index = samples.len() * permille / 1000;
    *samples.select_nth_unstable(index).1 as f64
}
