//! S10: the tunnel's MTU by default, and what becomes of packets that exceed it.
//!
//! ```text
//!  PC1 ------- R1 ====== router ====== R2 ------- PC2
//!      1500     tunnel0 1476 (1472 with a key), underlay 1500
//! ```

use anyhow::{Context as _, Result, ensure};
use tests::{
    config::{Gateway, Xdp},
    gateways::{Gateways, SOON},
    in_each_xdp_mode,
    process::wait_until,
    topology::{PC2, R1_LAN, R2_LAN, R2_TUNNEL},
    traffic::{Flow, Load, ping_exact, tcp},
    xgre::tunnel,
};

in_each_xdp_mode!(
    the_default_is_the_underlays_less_24,
    a_key_takes_4_more,
    a_smaller_mtu_set_by_ip_link_is_obeyed,
    larger_packets_that_may_be_fragmented_arrive,
    tcp_adapts_to_the_tunnels_mtu,
    a_gateway_receives_more_than_it_may_send,
);

/// IPv4 header and ICMP header.
const PING_HEADERS: u32 = 28;

fn the_default_is_the_underlays_less_24(xdp: Xdp) -> Result<()> {
    exactly_fits(&gateways(xdp, None)?, 1476)
}

fn a_key_takes_4_more(xdp: Xdp) -> Result<()> {
    exactly_fits(&gateways(xdp, Some(42))?, 1472)
}

fn a_smaller_mtu_set_by_ip_link_is_obeyed(xdp: Xdp) -> Result<()> {
    let gateways = gateways(xdp, None)?;
    let r1 = &gateways.lab.r1;
    r1.ip("link set tunnel0 mtu 1414")?;
    wait_until("the daemon has heard of it", SOON, || {
        let shown = tunnel(r1, "tunnel0")?.context("no tunnel0")?;
        ensure!(shown["mtu"] == 1414, "{shown}");
        Ok(())
    })?;
    gateways.settle()?;
    exactly_fits(&gateways, 1414)
}

/// A packet of the MTU passes, unfragmented; one more byte is answered by R1, which says the MTU.
fn exactly_fits(gateways: &Gateways, mtu: u32) -> Result<()> {
    let Gateways { lab, .. } = &gateways;
    let device = lab.r1.ip("-o link show dev tunnel0")?;
    assert!(device.contains(&format!("mtu {mtu} ")), "{device}");

    let fits = ping_exact(&lab.pc1, PC2, mtu - PING_HEADERS)?;
    assert!(fits.contains(" 1 received"), "{fits}");
    let exceeds = ping_exact(&lab.pc1, PC2, mtu - PING_HEADERS + 1)?;
    let answer = format!("From {R1_LAN} icmp_seq=1 Frag needed and DF set (mtu = {mtu})");
    assert!(exceeds.contains(&answer) && exceeds.contains(" 0 received"), "{exceeds}");

    // From the gateway itself, which knows its device's MTU without asking.
    let fits = ping_exact(&lab.r1, R2_TUNNEL, mtu - PING_HEADERS)?;
    assert!(fits.contains(" 1 received"), "{fits}");
    let exceeds = ping_exact(&lab.r1, R2_TUNNEL, mtu - PING_HEADERS + 1)?;
    assert!(exceeds.contains(&format!("mtu={mtu}")), "{exceeds}");
    Ok(())
}

fn larger_packets_that_may_be_fragmented_arrive(xdp: Xdp) -> Result<()> {
    let gateways = gateways(xdp, None)?;
    for payload in [1449, 1472, 4000] {
        let line = format!("ping -n -c 3 -i 0.01 -W 1 -M dont -s {payload} {PC2}");
        let said = gateways.lab.pc1.run(&line)?;
        assert!(said.contains(" 3 received"), "{said}");
    }
    Ok(())
}

fn tcp_adapts_to_the_tunnels_mtu(xdp: Xdp) -> Result<()> {
    let gateways = gateways(xdp, None)?;
    let Gateways { lab, .. } = &gateways;
    for flow in [Flow::ToServer, Flow::ToClient] {
        tcp(&lab.pc1, &lab.pc2, PC2, Load::OneMegabyte, flow)?;
    }
    Ok(())
}

/// An MTU limits what is sent: a peer may have another.
fn a_gateway_receives_more_than_it_may_send(xdp: Xdp) -> Result<()> {
    let gateways = gateways(xdp, None)?;
    gateways.lab.r2.ip("link set tunnel0 mtu 1000")?;
    gateways.settle()?;
    for to in [R2_TUNNEL, R2_LAN] {
        let line = format!("ping -n -c 3 -i 0.01 -W 1 -M dont -s 1400 {to}");
        let said = gateways.lab.pc1.run(&line)?;
        assert!(said.contains(" 3 received"), "{said}");
    }
    Ok(())
}

fn gateways(xdp: Xdp, key: Option<u32>) -> Result<Gateways> {
    let gateways = Gateways::start(xdp, Gateway::both().map(|config| config.key(key)))?;
    gateways.settle()?;
    Ok(gateways)
}
