//! P2: packets per second of live frames, against a program that only swaps the MAC addresses and
//! redirects.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use tests::interrupt;

use crate::{
    Effort,
    aim::{Shape, Target},
    figure::{Bound, Figure, Side},
    frames::{self, DESTINATIONS, Network},
    lab::Lab,
    live::{Line, Null},
};

fn cases() -> [(&'static str, Shape); 5] {
    let out_of = |to| frames::encapsulated(Network::Keyless, to);
    [
        ("encap", frames::plain(Network::Keyless)),
        ("decap to next hop", out_of(Network::NextHop)),
        ("hub transit", out_of(Network::Onward)),
        ("bridge to tunnel", frames::bridged()),
        ("tunnel to bridge", frames::bridged_out_of_tunnel()),
    ]
}

pub fn measure(effort: &Effort) -> Result<Vec<Figure>> {
    let lab = &mut Lab::new(effort)?;
    let mut line = Line::new(lab, effort)?;
    let mut null = Null::new(lab)?;
    let mut figures = Vec::new();
    for (name, shape) in cases() {
        line.aim(&shape, &all_over(&shape));
        let mut sides: Vec<Side> = Vec::new();
        for _ in 0..effort.rounds {
            interrupt::check()?;
            let ingress = lab.ingress;
            let mut subjects = lab.subjects.all()?;
            // The comparator knows no bridges.
            subjects.retain(|(subject, _)| shape.station.is_none() || *subject != "c");
            subjects.push(("null", null.program()?));
            for (i, (subject, program)) in subjects.into_iter().enumerate() {
                let rate = line.rate_of(program, ingress);
                if sides.len() == i {
                    sides.push(Side::new(subject));
                }
                sides[i].rounds.push(rate.with_context(|| format!("{name}, {subject}"))?);
            }
        }
        let null = sides.pop().expect("null was measured last");
        for side in sides {
            let bound = if side.name == "rust" { Bound::AtLeast(0.85) } else { Bound::None };
            figures.push(Figure::ratio("P2", name, "Mpps", bound, side, null.clone()));
        }
    }
    Ok(figures)
}

/// Each destination in a /24 of its own, in an order that no cache would guess: an odd step visits
/// all of them.
pub fn all_over(shape: &Shape) -> Vec<Target> {
    let first = shape.target();
    let target = |turn: u32| {
        let n = turn.wrapping_mul(2_654_435_761) & (DESTINATIONS - 1);
        let destination = Ipv4Addr::from_bits(first.destination.to_bits() + (n << 8));
        Target { destination, station: n as u16, ..first }
    };
    (0..DESTINATIONS).map(target).collect()
}
