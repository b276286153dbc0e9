//! What a tunnel's options cost: a packet that is encapsulated with them, against one without any.

use anyhow::{Result, ensure};
use aya::programs::ProgramFd;

use crate::{
    figure::{Bound, Figure, Side},
    frames::{self, Network},
    lab::Lab,
    p1::{Harness, REDIRECT},
};

const CASES: [(&str, Network); 6] = [
    ("none", Network::Keyless),
    ("key", Network::Keyed),
    ("key, seq", Network::Numbered),
    ("csum", Network::Summed),
    ("key, csum, seq", Network::All),
    ("ip6gre", Network::Ipv6),
];

pub fn measure(lab: &mut Lab, rounds: u32) -> Result<Vec<Figure>> {
    let mut harness = Harness::new(lab)?;
    let mut sides = CASES.map(|(name, _)| Side { name: name.to_owned(), rounds: Vec::new() });
    for _ in 0..rounds {
        lab.subjects.reload()?;
        let (name, program) = lab.subjects.all()?.swap_remove(0);
        let subject: [(&str, ProgramFd); 1] = [(name, program.fd()?.try_clone()?)];
        for ((_, network), side) in CASES.iter().zip(&mut sides) {
            harness.take(&frames::plain(*network))?;
            let action = harness.action(&subject[0].1)?;
            ensure!(action == REDIRECT, "{network:?}: action {action}");
            side.rounds.extend(harness.costs(&subject)?);
        }
    }
    let [none, others @ ..] = sides;
    let figure = |side: Side| {
        let case = side.name.clone();
        Figure::new("options", &case, "ns", Bound::None, side, none.clone())
    };
    Ok(others.into_iter().map(figure).collect())
}
