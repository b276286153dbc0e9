//! An address in use never ages out, though the kernel's bridge sees few of its frames; one that is not
//! does, of the fast path too.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::{config::Xdp, gateways::SOON, process::wait_until};

use crate::{
    frames::{EVERYONE, frame, station},
    lab::{Filtering, Lab, Place, mac},
};

const NEAR: [u8; 6] = station(1);
const FAR: [u8; 6] = station(2);
const OTHER: [u8; 6] = station(3);
/// In hundredths of a second.
const AGEING_TIME: u32 = 300;
/// More than twice as long.
const IN_USE: Duration = Duration::from_secs(8);

#[test]
fn an_address_in_use_stays_and_one_that_is_not_goes() -> Result<()> {
    let lab = Lab::new(Xdp::Native, Filtering::Off)?;
    lab.gateway.ip(&format!("link set br0 type bridge ageing_time {AGEING_TIME}"))?;
    let monitor = lab.gateway.spawn("bridge", &["monitor", "fdb"])?;
    let mut places = [Place::Lan1, Place::Lan2].into_iter().cycle();
    wait_until("moves are told of", SOON, || {
        let place = places.next().expect("there is no end to them");
        lab.send(place, &frame(OTHER, EVERYONE, 0))?;
        ensure!(!monitor.process.output().stdout.is_empty(), "not yet");
        Ok(())
    })?;
    lab.send(Place::Lan1, &frame(NEAR, EVERYONE, 0))?;
    lab.send(Place::Tunnel1, &frame(FAR, EVERYONE, 0))?;
    lab.follow()?;

    let [before, refreshed] = [lab.fast()?, lab.refreshed()?];
    let mut sent = 0;
    let started = Instant::now();
    wait_until("they have been in use for more than twice as long", SOON, || {
        sent += 1;
        lab.send(Place::Lan1, &frame(NEAR, FAR, sent))?;
        lab.send(Place::Tunnel1, &frame(FAR, NEAR, sent))?;
        ensure!(started.elapsed() >= IN_USE, "{sent} frames each way");
        Ok(())
    })?;
    let [fast, refreshed] = [lab.fast()? - before, lab.refreshed()? - refreshed];
    println!("of {sent} frames each way XDP forwarded {fast}, the kernel's bridge {refreshed}");
    ensure!(fast + refreshed == 2 * u64::from(sent), "{fast} and {refreshed}");
    // Of each address one in a third of the ageing time.
    ensure!((2..40).contains(&refreshed), "{refreshed} refreshed their source");
    let known = monitor.process.output().stdout;
    for station in [NEAR, FAR].map(mac) {
        let forgotten = format!("Deleted {station}");
        ensure!(known.contains(&station) && !known.contains(&forgotten), "{known}");
    }

    wait_until("both are forgotten", SOON, || {
        let left = lab.stations()?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    lab.follow()?;
    lab.delivered()?;
    let before = lab.fast()?;
    lab.send(Place::Lan1, &frame(NEAR, FAR, 0))?;
    wait_until("it goes to everyone", SOON, || {
        let places: Vec<_> = lab.delivered()?.into_iter().map(|frame| frame.at).collect();
        ensure!(places == [Place::Lan2, Place::Tunnel1], "{places:?}");
        Ok(())
    })?;
    ensure!(lab.fast()? == before, "XDP still knew where it is");
    Ok(())
}
