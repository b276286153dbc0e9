//! What has been taken away under traffic no frame leaves by any more.

use anyhow::{Result, ensure};
use tests::{config::Xdp, gateways::SOON, process::wait_until};

use crate::{
    frames::{EVERYONE, bpdu, frame, station},
    lab::{Filtering, Lab, Place},
};

const NEAR: [u8; 6] = station(1);
const FAR: [u8; 6] = station(2);
/// After each removal, each way.
const FRAMES: u32 = 50;

/// What is done, and undone.
const CHANGES: [(&str, &str); 6] = [
    ("ip link set br0 down", "ip link set br0 up"),
    ("ip link set gretap1 nomaster", "ip link set gretap1 master br0"),
    ("ip link set lan1 nomaster", "ip link set lan1 master br0"),
    ("bridge link set dev lan1 state 0", "bridge link set dev lan1 state 3"),
    ("ip link set lan1 master br1", "ip link set lan1 master br0"),
    ("ip link set gretap1 down", "ip link set gretap1 up"),
];

#[test]
fn no_stale_entry_forwards_a_frame_after_a_change() -> Result<()> {
    let lab = Lab::new(Xdp::Native, Filtering::Off)?;
    for (change, back) in CHANGES {
        under_traffic(&lab, change)?;
        lab.gateway.run(back)?;
    }
    Ok(())
}

#[test]
fn nor_after_the_bridge_or_the_tunnel_was_deleted() -> Result<()> {
    for removal in ["ip link del br0", "ip link del gretap1"] {
        under_traffic(&Lab::new(Xdp::Native, Filtering::Off)?, removal)?;
    }
    Ok(())
}

/// Two tunnels to a bridge that claims to be the root of the spanning tree. The second one is told as the
/// better way, and so the first is blocked.
#[test]
fn nor_by_the_blocked_one_of_two_tunnels_in_a_loop() -> Result<()> {
    let lab = Lab::new(Xdp::Native, Filtering::Off)?;
    lab.gateway.ip("link set gretap2 master br0")?;
    lab.gateway.ip("link set br0 type bridge stp_state 1")?;
    fast_both_ways(&lab)?;
    for (tunnel, port) in [(Place::Tunnel1, 2), (Place::Tunnel2, 1)] {
        lab.send(tunnel, &bpdu(port))?;
    }
    wait_until("the first tunnel is blocked, the second not", SOON, || {
        talk(&lab)?;
        for (device, state) in [("gretap1", "blocking"), ("gretap2", "forwarding")] {
            let shown = lab.gateway.run(&format!("bridge link show dev {device}"))?;
            ensure!(shown.contains(&format!("state {state} ")), "{shown}");
        }
        Ok(())
    })?;
    nothing_passes(&lab, "the first tunnel was blocked")?;

    lab.send(Place::Tunnel2, &frame(FAR, EVERYONE, 0))?;
    lab.follow()?;
    wait_until("XDP forwards by the other one", SOON, || {
        lab.delivered()?;
        let before = lab.fast()?;
        lab.send(Place::Lan1, &frame(NEAR, FAR, 0))?;
        let places: Vec<_> = lab.delivered()?.into_iter().map(|frame| frame.at).collect();
        ensure!(places == [Place::Tunnel2] && lab.fast()? == before + 1, "{places:?}");
        Ok(())
    })
}

/// Once the daemon has followed the command, no frame for a station comes out where it was.
fn under_traffic(lab: &Lab, command: &str) -> Result<()> {
    fast_both_ways(lab)?;
    let words: Vec<_> = command.split(' ').collect();
    let mut removal = lab.gateway.spawn(words[0], &words[1..])?;
    while removal.process.try_wait()?.is_none() {
        talk(lab)?;
    }
    removal.process.finish(SOON)?.success()?;
    nothing_passes(lab, command)
}

/// A frame each way, between a port and the first tunnel.
fn talk(lab: &Lab) -> Result<()> {
    lab.send(Place::Lan1, &frame(NEAR, FAR, 0))?;
    lab.send(Place::Tunnel1, &frame(FAR, NEAR, 0))?;
    Ok(())
}

fn fast_both_ways(lab: &Lab) -> Result<()> {
    for (place, source) in [(Place::Lan1, NEAR), (Place::Tunnel1, FAR)] {
        lab.send(place, &frame(source, EVERYONE, 0))?;
    }
    lab.follow()?;
    wait_until("XDP forwards both ways", SOON, || {
        let before = lab.fast()?;
        talk(lab)?;
        let fast = lab.fast()? - before;
        ensure!(fast == 2, "{fast}");
        Ok(())
    })
}

fn nothing_passes(lab: &Lab, after: &str) -> Result<()> {
    lab.follow()?;
    lab.delivered()?;
    let before = lab.fast()?;
    for _ in 0..FRAMES {
        talk(lab)?;
    }
    let fast = lab.fast()? - before;
    ensure!(fast == 0, "after `{after}` XDP forwarded {fast} frames");
    for came in lab.delivered()? {
        let to = [(Place::Lan1, NEAR), (Place::Tunnel1, FAR)];
        let stale = to.iter().any(|(at, mac)| came.at == *at && came.frame.starts_with(mac));
        ensure!(!stale, "after `{after}` a frame came out of {:?}", came.at);
    }
    Ok(())
}
