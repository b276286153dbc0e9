//! A station that moves to another port is followed.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::{config::Xdp, gateways::SOON, process::wait_until};

use crate::{
    frames::{EVERYONE, frame, station},
    lab::{Filtering, Lab, Place},
};

const HOST: [u8; 6] = station(1);
const FAR: [u8; 6] = station(2);
const MOVES: u32 = 10;

/// Between two ports, and to the other end of the tunnel and back.
#[test]
fn frames_follow_a_station_that_moves() -> Result<()> {
    let lab = Lab::new(Xdp::Native, Filtering::Off)?;
    let mut number = 0;
    let mut next = |source, destination| {
        number += 1;
        frame(source, destination, number)
    };
    lab.send(Place::Lan1, &next(HOST, EVERYONE))?;
    let mut slowest = Duration::ZERO;
    for round in 0..MOVES {
        let speaker = [Place::Lan2, Place::Tunnel1, Place::Lan1][round as usize % 3];
        let [from, to] = match speaker {
            Place::Lan2 => [Place::Lan1, Place::Tunnel1],
            Place::Tunnel1 => [Place::Lan1, Place::Lan2],
            _ => [Place::Lan2, Place::Tunnel1],
        };
        lab.send(speaker, &next(FAR, EVERYONE))?;
        lab.send(from, &next(HOST, EVERYONE))?;
        lab.follow()?;
        // The kernel sees the first one.
        lab.send(speaker, &next(FAR, HOST))?;
        let before = lab.fast()?;
        lab.send(speaker, &next(FAR, HOST))?;
        ensure!(lab.fast()? == before + 1, "XDP did not forward to {from:?}");
        lab.delivered()?;

        let moved = Instant::now();
        lab.send(to, &next(HOST, EVERYONE))?;
        wait_until("frames go to the new place", SOON, || {
            lab.delivered()?;
            let before = lab.fast()?;
            lab.send(speaker, &next(FAR, HOST))?;
            let places: Vec<_> = lab.delivered()?.into_iter().map(|frame| frame.at).collect();
            ensure!(places == [to] && lab.fast()? == before + 1, "{places:?}");
            Ok(())
        })?;
        slowest = slowest.max(moved.elapsed());
    }
    println!("the slowest of {MOVES} moves was followed after {slowest:?}");
    Ok(())
}
