//! P3: packets per second of live frames with a million routes and 100,000 tunnels, against one route
//! and one tunnel in the same maps: what a look-up costs is what it touches, not what there is.

use anyhow::{Context as _, Result};
use aya::programs::xdp::XdpMode;
use tests::interrupt;

use crate::{
    Effort,
    aim::{Shape, Target},
    figure::{Bound, Figure, Side},
    lab::Lab,
    live::Line,
    scale::{Scale, Variety},
};

type Traffic = fn(&Scale, Variety) -> (Shape, Vec<Target>);

const DIRECTIONS: [(&str, Traffic); 3] = [
    ("encap", Scale::encapsulated),
    ("decap to next hop", Scale::decapsulated),
    ("hub transit", Scale::transit),
];

const VARIETIES: [(&str, Variety, f64); 4] = [
    ("(a) 1 M routes", Variety::Routes, 0.9),
    ("(a) 1 M routes side by side", Variety::Beside, 0.9),
    ("(b) 4,096 tunnels", Variety::Tunnels, 0.9),
    ("(c) 1 M routes, 100 k tunnels", Variety::Both, 0.75),
];

pub fn measure(effort: &Effort) -> Result<Vec<Figure>> {
    let scale = Scale::new();
    let lab = &mut Lab::large(effort, &scale)?;
    let mut line = Line::new(lab, effort)?;
    let ingress = lab.ingress;
    // The same program on both sides, where it lies.
    let (_, subject) = lab.subjects.all()?.swap_remove(0);
    subject.attach_to_if_index(ingress, XdpMode::Driver)?;

    let mut figures = Vec::new();
    for (direction, traffic) in DIRECTIONS {
        let one = traffic(&scale, Variety::One);
        let many = VARIETIES.map(|(_, variety, _)| traffic(&scale, variety));
        let mut reference = Side::new("one route");
        let mut sides = VARIETIES.map(|_| Side::new("rust"));
        for _ in 0..effort.rounds {
            interrupt::check()?;
            let mut rate = |(shape, targets): &(Shape, Vec<Target>)| {
                line.aim(shape, targets);
                line.rate().context(direction)
            };
            reference.rounds.push(rate(&one)?);
            for (side, traffic) in sides.iter_mut().zip(&many) {
                side.rounds.push(rate(traffic)?);
            }
        }
        for ((name, _, least), side) in VARIETIES.into_iter().zip(sides) {
            let (case, bound) = (format!("{direction}, {name}"), Bound::AtLeast(least));
            figures.push(Figure::ratio("P3", case, "Mpps", bound, side, reference.clone()));
        }
    }
    Ok(figures)
}
