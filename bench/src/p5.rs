//! P5: TCP of the gateway itself through a tunnel, against the bare link below it, and against the
//! kernel's VXLAN over the same link.
//!
//! ```text
//! one: wan 10.0.0.1 ==== veth ==== wan 10.0.0.2: other
//!      tunnel0 10.0.1.1, vxlan0 10.0.2.1 and so on
//! ```
//!
//! Inside one machine a veth carries packets of 64 kB whose checksums nobody has computed. With XDP on it
//! it has to carry what a wire does.

use std::time::Duration;

use anyhow::Result;
use tests::{
    config::{Gateway, Xdp},
    interrupt,
    namespace::Namespace,
    topology::wire,
    traffic::{Flow, Load, ping_until_answered, tcp},
    xgre::Daemon,
};

use crate::{
    Effort,
    figure::{Bound, Figure, Side},
};

const LINK: [&str; 2] = ["10.0.0.1", "10.0.0.2"];
const TUNNEL: [&str; 2] = ["10.0.1.1", "10.0.1.2"];
const VXLAN: [&str; 2] = ["10.0.2.1", "10.0.2.2"];

/// How long the daemons and the tunnels may take to come up.
const START: Duration = Duration::from_secs(20);

/// Streams of a second of a side in a round, of which the fastest was disturbed least.
const STREAMS: u32 = 3;
const QUICK_STREAMS: u32 = 1;

pub fn measure(effort: &Effort) -> Result<Vec<Figure>> {
    let streams = if effort.quick { QUICK_STREAMS } else { STREAMS };
    let mut figures = Vec::new();
    let modes = [
        (Xdp::Off, "XDP off", "tx on"),
        (Xdp::Native, "XDP native, no offloads", "tx off tso off gso off gro on"),
    ];
    for (mode, name, offloads) in modes {
        let [one, other] = [Namespace::new("one")?, Namespace::new("other")?];
        wire((&one, "wan"), (&other, "wan"))?;
        let mut daemons = Vec::new();
        for (namespace, own, peer) in [(&one, 0, 1), (&other, 1, 0)] {
            namespace.ip(&format!("address add {}/24 dev wan", LINK[own]))?;
            namespace.offloads("wan", offloads)?;
            vxlan(namespace, own, peer)?;
            let config = Gateway::new(LINK[own], LINK[peer]).address(TUNNEL[own], TUNNEL[peer]);
            daemons.push(Daemon::start(namespace, &config.ports(&["wan"]).xdp(mode))?);
        }
        for address in [TUNNEL[1], LINK[1], VXLAN[1]] {
            ping_until_answered(&one, address, START)?;
        }

        let mut sides = ["tunnel", "bare link", "kernel VXLAN"].map(Side::new);
        for _ in 0..effort.rounds {
            interrupt::check()?;
            for (side, address) in sides.iter_mut().zip([TUNNEL[1], LINK[1], VXLAN[1]]) {
                let mut fastest = 0f64;
                for _ in 0..streams {
                    let rate = tcp(&one, &other, address, Load::Seconds(1), Flow::ToServer)?;
                    fastest = fastest.max(rate / 1e9);
                }
                side.rounds.push(fastest);
            }
        }
        for daemon in daemons {
            daemon.stop()?;
        }
        let [tunnel, bare, vxlan] = sides;
        for (bound, reference) in [(0.95, bare), (1.2, vxlan)] {
            let (case, bound) = (format!("TCP, {name}"), Bound::AtLeast(bound));
            figures.push(Figure::ratio("P5", case, "Gbit/s", bound, tunnel.clone(), reference));
        }
    }
    Ok(figures)
}

fn vxlan(namespace: &Namespace, own: usize, peer: usize) -> Result<()> {
    let (local, remote) = (LINK[own], LINK[peer]);
    namespace.ip(&format!(
        "link add vxlan0 type vxlan id 1 local {local} remote {remote} dstport 4789 dev wan"
    ))?;
    namespace.ip(&format!("address add {}/24 dev vxlan0", VXLAN[own]))?;
    namespace.ip("link set vxlan0 up").map(drop)
}
