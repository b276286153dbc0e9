//! What a tunnel's options cost: a packet that is encapsulated with them, against one without any.

use anyhow::{Result, ensure};
use aya::programs::ProgramFd;
use tests::interrupt;

use crate::{
    Effort,
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

pub fn measure(effort: &Effort) -> Result<Vec<Figure>> {
    let lab = &mut Lab::new(effort)?;
    let mut harness = Harness::new(lab, effort)?;
    let mut sides = CASES.map(|(name, _)| Side::new(name));
    for _ in 0..effort.rounds {
        interrupt::check()?;
        lab.subjects.reload()?;
        let (name, program) = lab.subjects.all()?.swap_remove(0);
        let subject: [(&str, ProgramFd); 1] = [(name, program.fd()?.try_clone()?)];
        for ((_, network), side) in CASES.iter().zip(&mut sides) {
            let shape = frames::plain(*network);
            harness.take(&shape, &[shape.target()]);
            let action = harness.action(&subject[0].1)?;
            ensure!(action == REDIRECT, "{network:?}: action {action}");
            side.rounds.extend(harness.costs(&subject)?);
        }
    }
    let [none, others @ ..] = sides;
    let figure = |side: Side| {
        let case = side.name.clone();
        Figure::ratio("OPTIONS", &case, "ns", Bound::None, side, none.clone())
    };
    Ok(others.into_iter().map(figure).collect())
}
