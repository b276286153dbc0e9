//! Wires that carry 9000 bytes: XDP gets their frames in several buffers (`xdp.frags`).
//!
//! ```text
//!  PC1 ------- R1 ====== router ====== R2 ----- switch ----- PC2
//!      9000       9000          9000       9000        9000
//! ```
//! The same without the switch where Ethernet is carried.

use anyhow::{Context as _, Result, ensure};
use tests::{
    config::{Gateway, Xdp},
    counters::Packets,
    gateways::{Gateways, SOON},
    in_each_xdp_mode, ipv6,
    lan::{self, Bridged, Carried, Lan, OVER_IPV4, TUNNEL},
    namespace::Namespace,
    process::wait_until,
    topology::{Lab, PC1, PC2, R1_WAN, R2_WAN},
    traffic::{Flow, Load, ping_all, ping_exact, tcp},
    xgre::{outcome, tunnel, xgre},
};

in_each_xdp_mode!(
    jumbo_packets_are_counted_once_in_the_tier_of_the_mode,
    jumbo_packets_with_checksums_are_carried_by_whoever_sees_them_whole,
    jumbo_frames_cross_the_bridges_in_the_tier_of_the_mode,
    senders_of_jumbo_frames_that_do_not_fit_are_told_through_the_bridge,
);

const MTU: u32 = 9000;
const COUNT: u64 = 20;

/// Both protocols, between gateways with these lines in their configs.
fn start(xdp: Xdp, options: &[&str]) -> Result<Gateways> {
    let lab = Lab::with_ipv6()?;
    lab.namespaces().into_iter().try_for_each(|namespace| namespace.set_mtu(MTU))?;
    let configs = ipv6::both([R1_WAN, R2_WAN]).map(|config| config.options(options));
    Gateways::start_in(lab, xdp, configs)
}

/// Packets of `len` bytes, which nobody may fragment, and as many answers.
fn ping(from: &Namespace, to: &str, len: u64) -> Result<()> {
    let payload = len - if to.contains(':') { 48 } else { 28 };
    let said = from.run(&format!("ping -n -c {COUNT} -i 0.01 -W 1 -M do -s {payload} {to}"))?;
    ensure!(said.contains(&format!(" {COUNT} received")), "{said}");
    Ok(())
}

fn jumbo_packets_are_counted_once_in_the_tier_of_the_mode(xdp: Xdp) -> Result<()> {
    let gateways = start(xdp, &[])?;
    let Gateways { lab, .. } = &gateways;
    gateways.settle()?;
    gateways.settle6()?;
    for gateway in [&lab.r1, &lab.r2] {
        let told = tunnel(gateway, "tunnel0")?.context("no tunnel0")?;
        ensure!(told["mtu"] == MTU - 24, "{told}");
    }
    for (host, to) in [(&lab.pc1, PC2), (&lab.pc2, PC1), (&lab.pc1, ipv6::PC2)] {
        for len in [3500, 8000, 8976] {
            let found = gateways.during(|| ping(host, to, len))?;
            assert_eq!(found, [Packets::both_ways(xdp, COUNT, len); 2], "{len} bytes to {to}");
        }
    }
    for flow in [Flow::ToServer, Flow::ToClient] {
        tcp(&lab.pc1, &lab.pc2, PC2, Load::OneMegabyte, flow)?;
    }
    Ok(())
}

/// In native mode they lie in several buffers, of which XDP can sum the first; in generic mode in one.
fn jumbo_packets_with_checksums_are_carried_by_whoever_sees_them_whole(xdp: Xdp) -> Result<()> {
    let gateways = start(xdp, &["csum = true"])?;
    let Gateways { lab, .. } = &gateways;
    gateways.settle()?;
    let found = gateways.during(|| ping(&lab.pc1, PC2, 8000))?;
    let (tier, in_pieces) = match xdp {
        // Into the tunnel, and out of it.
        Xdp::Native => (Xdp::Off, 2 * COUNT),
        Xdp::Generic | Xdp::Off => (xdp, 0),
    };
    assert_eq!(found, [Packets::both_ways(tier, COUNT, 8000); 2]);
    for gateway in [&lab.r1, &lab.r2] {
        assert_eq!(outcome(gateway, "xdp", "in-pieces")?, in_pieces);
    }
    for flow in [Flow::ToServer, Flow::ToClient] {
        tcp(&lab.pc1, &lab.pc2, PC2, Load::OneMegabyte, flow)?;
    }
    Ok(())
}

fn jumbo_frames_cross_the_bridges_in_the_tier_of_the_mode(xdp: Xdp) -> Result<()> {
    let lan = Lan::new()?;
    lan.namespaces().into_iter().try_for_each(|namespace| namespace.set_mtu(MTU))?;
    let configs: [Gateway; 2] = lan::both(OVER_IPV4, &["mss = \"auto\""]);
    let bridged = Bridged::start(lan, xdp, configs)?;
    bridged.bridge()?;
    bridged.settle()?;
    let Lan { pc1, r1, r2, pc2, .. } = &bridged.lan;
    let by_xdp = || outcome(r1, "xdp", "encapsulated");
    wait_until("XDP knows both hosts", SOON, || {
        let before = by_xdp()?;
        ping_all(pc1, lan::PC2, 2)?;
        ensure!(xdp == Xdp::Off || by_xdp()? == before + 2, "{}", xgre(r1, "tunnel show")?);
        Ok(())
    })?;
    for gateway in [r1, r2] {
        let told = tunnel(gateway, TUNNEL)?.context("no gretap1")?;
        ensure!(told["mtu"] == MTU - 38, "{told}");
    }
    for (host, to) in [(pc1, lan::PC2), (pc2, lan::PC1)] {
        for len in [3500, 8000, 8962] {
            let before = by_xdp()?;
            let found = bridged.during(|| ping(host, to, len))?;
            assert_eq!(found, [Carried::both_ways(COUNT, len + 14); 2], "{len} bytes to {to}");
            // Now and then the kernel's bridge must see one.
            let by_xdp = by_xdp()? - before;
            ensure!(
                (xdp == Xdp::Off && by_xdp == 0) || by_xdp >= COUNT - 2,
                "{len} {by_xdp} by XDP {} {}",
                xgre(r1, "stats")?,
                xgre(r1, "tunnel show")?
            );
        }
    }
    for flow in [Flow::ToServer, Flow::ToClient] {
        tcp(pc1, pc2, lan::PC2, Load::OneMegabyte, flow)?;
    }
    Ok(())
}

/// TCP finds out what fits, without `mss`.
fn senders_of_jumbo_frames_that_do_not_fit_are_told_through_the_bridge(xdp: Xdp) -> Result<()> {
    let lan = Lan::new()?;
    lan.namespaces().into_iter().try_for_each(|namespace| namespace.set_mtu(MTU))?;
    let bridged = Bridged::start(lan, xdp, lan::both(OVER_IPV4, &[]))?;
    bridged.bridge()?;
    bridged.settle()?;
    let Lan { pc1, pc2, .. } = &bridged.lan;
    for (host, to) in [(pc1, lan::PC2), (pc2, lan::PC1)] {
        let answer = format!("From {to} icmp_seq=1 Frag needed and DF set (mtu = 8962)");
        // Until the gateway knows both stations, the bridge drops it.
        wait_until("the sender is told", SOON, || {
            let exceeds = ping_exact(host, to, 9000 - 28)?;
            ensure!(exceeds.contains(&answer), "{exceeds}");
            Ok(())
        })?;
    }
    for flow in [Flow::ToServer, Flow::ToClient] {
        tcp(pc1, pc2, lan::PC2, Load::OneMegabyte, flow)?;
    }
    Ok(())
}
