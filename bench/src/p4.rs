//! P4: packets per second of live frames into a tunnel, against what the kernel forwards into VXLAN.
//!
//! Each burst is carried to its end before the next begins. A longer one would starve the kernel, which
//! loses what its queues do not hold, unless its sender ran at idle priority, and then it would be the
//! neighbours that starve the sender.

use std::fs;

use anyhow::{Context as _, Result};
use aya::programs::xdp::XdpMode;
use tests::interrupt;

use crate::{
    Effort,
    figure::{Bound, Figure, Side},
    frames::{self, Network},
    lab::{Lab, run},
    live::Line,
    p2::all_over,
    report::Elsewhere,
};

pub fn measure(effort: &Effort) -> Result<Vec<Figure>> {
    let lab = &mut Lab::new(effort)?;
    vxlan().context("making the kernel forward into VXLAN")?;
    let mut line = Line::new(lab, effort)?;
    let shape = frames::plain(Network::Keyless);
    line.aim(&shape, &all_over(&shape));
    let ingress = lab.ingress;
    let (_, subject) = lab.subjects.all()?.swap_remove(0);
    let (mut ours, mut its) = (Side::new("rust"), Side::new("kernel VXLAN"));
    for _ in 0..effort.rounds {
        interrupt::check()?;
        line.sink.native(true)?;
        let link = subject.attach_to_if_index(ingress, XdpMode::Driver)?;
        ours.rounds.push(line.lossless_rate().context("encap")?);
        subject.detach(link)?;
        line.sink.native(false)?;
        its.rounds.push(line.lossless_rate().context("kernel VXLAN")?);
    }
    let bound = Bound::AtLeast(6.0);
    Ok(vec![Figure::ratio("P4", "encap", "Mpps", bound, ours, its)])
}

/// The other half, for which the kernel needs a module.
pub fn in_a_guest() -> Elsewhere {
    Elsewhere {
        promise: "P4".into(),
        case: "ip_gre, in a VM".into(),
        command: "cargo xtask bench P4 --vm KERNEL".into(),
    }
}

/// Routes of the kernel's from the port into VXLAN, with neighbours that it need not ask for.
fn vxlan() -> Result<()> {
    const COMMANDS: [&str; 10] = [
        "ip address add 172.16.0.254/16 dev x0",
        "ip address add 192.0.2.1/24 dev x1",
        "ip neighbour add 192.0.2.254 lladdr 02:00:00:00:01:01 dev x1",
        "ip route add 198.51.100.0/24 via 192.0.2.254",
        "ip link add vxlan0 type vxlan id 1 local 192.0.2.1 remote 198.51.100.1 dstport 4789 nolearning",
        "ip link set vxlan0 addrgenmode none up",
        "ip address add 10.255.0.1/30 dev vxlan0",
        "ip neighbour add 10.255.0.2 lladdr 02:00:00:00:02:02 dev vxlan0",
        "ip route add 10.16.0.0/12 via 10.255.0.2",
        // Without XDP a veth receives what is redirected to it only if it polls, which this makes it do.
        "ethtool -K x0 gro on",
    ];
    COMMANDS.into_iter().try_for_each(run)?;
    for (sysctl, value) in [("ip_forward", "1"), ("conf/all/rp_filter", "0")] {
        let path = format!("/proc/sys/net/ipv4/{sysctl}");
        fs::write(&path, value).with_context(|| format!("writing {path}"))?;
    }
    Ok(())
}
