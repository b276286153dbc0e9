//! Routes with several next hops: each flow takes one of them, by their weights, in the tier of the mode.
//!
//! ```text
//!              tunnel0 <=============> tunnel0
//!  PC1 ------- R1                           R2 ------- PC2
//!              tunnel1 <== key 1 ====> tunnel1 |
//!                                              +------ GW
//! ```
//! The whole of it is drawn in `tests::topology`. What both PC2 and GW have on their loopback is routed to
//! both.

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::{
    config::{Gateway, Xdp},
    counters::Packets,
    gateways::{Gateways, SOON},
    in_each_xdp_mode, ipv6,
    process::wait_until,
    topology::{FAR_LAN_OF_R2, Lab, PC2, R1_TUNNEL, R1_WAN, R2_LAN, R2_TUNNEL, R2_WAN},
    traffic::{ping_all, ping_until_answered},
    xgre::{stats, tunnel, xgre},
};

in_each_xdp_mode!(
    flows_are_spread_over_tunnels_by_weight_and_stay_where_they_are,
    flows_are_spread_over_hosts_behind_a_tunnel,
    flows_of_ipv6_are_spread_as_well,
);

/// Hosts behind each gateway that flows come from and go to.
const HOSTS: u64 = 64;

/// What R1's and R2's tunnel0 and tunnel1 have carried.
fn carried(lab: &Lab) -> Result<[[Packets; 2]; 2]> {
    let of = |stats: Value| -> Result<[Packets; 2]> {
        Ok([Packets::of(&stats, "tunnel0")?, Packets::of(&stats, "tunnel1")?])
    };
    Ok([of(stats(&lab.r1)?)?, of(stats(&lab.r2)?)?])
}

/// The difference, while PC1 pings each of so many hosts of 10.99.0.0/24 once.
fn while_all_are_pinged(lab: &Lab) -> Result<[[Packets; 2]; 2]> {
    while_pinged(lab, "10.99.0.")
}

/// The same of hosts whose addresses begin so.
fn while_pinged(lab: &Lab, prefix: &str) -> Result<[[Packets; 2]; 2]> {
    let before = carried(lab)?;
    for host in 1..=HOSTS {
        ping_all(&lab.pc1, &format!("{prefix}{host}"), 1)?;
    }
    let after = carried(lab)?;
    Ok([0, 1].map(|gateway| [0, 1].map(|i| after[gateway][i] - before[gateway][i])))
}

/// Two tunnels between the gateways, and 10.99.0.0/24 on PC2 as well as on GW.
fn two_tunnels(xdp: Xdp) -> Result<Gateways> {
    let gateways = Gateways::forwarding(xdp)?;
    let Gateways { lab, .. } = &gateways;
    add_tunnels(lab)?;
    for host in [&lab.pc2, &lab.gw] {
        host.ip("route add local 10.99.0.0/24 dev lo")?;
    }
    // Not by GW, which has those addresses as well.
    lab.pc2.ip(&format!("route add {FAR_LAN_OF_R2} via {R2_LAN}"))?;
    lab.r2.ip(&format!("route add 10.99.0.0/24 via {PC2}"))?;
    Ok(gateways)
}

fn add_tunnels(lab: &Lab) -> Result<()> {
    for (gateway, local, remote) in [(&lab.r1, R1_WAN, R2_WAN), (&lab.r2, R2_WAN, R1_WAN)] {
        xgre(gateway, &format!("tunnel add tunnel1 mode gre remote {remote} local {local} key 1"))?;
        gateway.ip("link set tunnel1 up")?;
    }
    Ok(())
}

/// Waits until whatever R1 sends to these hosts takes the tier of the mode.
fn settle(lab: &Lab, xdp: Xdp) -> Result<()> {
    settle_for(lab, xdp, "10.99.0.")
}

fn settle_for(lab: &Lab, xdp: Xdp, prefix: &str) -> Result<()> {
    for (name, gateway) in [("tunnel0", &lab.r1), ("tunnel1", &lab.r1), ("tunnel1", &lab.r2)] {
        wait_until(&format!("{name} is accelerated"), SOON, || {
            let told = tunnel(gateway, name)?;
            let is_fast = told.as_ref().is_some_and(|tunnel| tunnel["accelerated"] == true);
            ensure!(is_fast || xdp == Xdp::Off, "{told:?}");
            Ok(())
        })?;
    }
    wait_until("all take the expected tier", SOON, || {
        let [r1, r2] = while_pinged(lab, prefix)?;
        let by_tc: u64 = [r1, r2].as_flattened().iter().map(Packets::tc).sum();
        ensure!(xdp == Xdp::Off || by_tc == 0, "{by_tc} by TC");
        Ok(())
    })
}

fn flows_are_spread_over_tunnels_by_weight_and_stay_where_they_are(xdp: Xdp) -> Result<()> {
    let gateways = two_tunnels(xdp)?;
    let Gateways { lab, .. } = &gateways;
    lab.r1
        .ip("route add 10.99.0.0/24 nexthop dev tunnel0 weight 1 nexthop dev tunnel1 weight 3")?;
    settle(lab, xdp)?;

    let first = while_all_are_pinged(lab)?;
    let [[by_one, by_other], [back, _]] = first;
    assert_eq!(by_one.tx() + by_other.tx(), HOSTS);
    // A quarter is 16 of 64.
    ensure!((4..32).contains(&by_one.tx()), "{} of {HOSTS}", by_one.tx());
    assert_eq!(back.tx(), HOSTS, "R2 has one way back");
    let drops: u64 = first.as_flattened().iter().map(|packets| packets.drops).sum();
    assert_eq!(drops, 0);
    assert_eq!(while_all_are_pinged(lab)?, first, "each flow keeps its tunnel");

    // The other next hop goes, and comes back.
    lab.r1.ip("link set tunnel1 down")?;
    wait_until("all take tunnel0", SOON, || {
        let [[by_one, _], _] = while_all_are_pinged(lab)?;
        ensure!(by_one.tx() == HOSTS, "{by_one:?}");
        Ok(())
    })?;
    lab.r1.ip("link set tunnel1 up")?;
    lab.r1.ip(
        "route replace 10.99.0.0/24 nexthop dev tunnel0 weight 1 nexthop dev tunnel1 weight 3",
    )?;
    settle(lab, xdp)?;
    assert_eq!(while_all_are_pinged(lab)?, first, "each flow is back in its tunnel");
    Ok(())
}

fn flows_are_spread_over_hosts_behind_a_tunnel(xdp: Xdp) -> Result<()> {
    let gateways = two_tunnels(xdp)?;
    let Gateways { lab, .. } = &gateways;
    lab.r1.ip("route add 10.99.0.0/24 dev tunnel0")?;
    let gw = "192.168.110.1";
    ping_until_answered(&lab.r2, gw, SOON)?;
    lab.r2.ip(&format!("route replace 10.99.0.0/24 nexthop via {PC2} nexthop via {gw}"))?;
    settle(lab, xdp)?;

    let received =
        |host: &tests::namespace::Namespace| tests::traffic::snmp(host, "Icmp:", "InEchos");
    let before = [received(&lab.pc2)?, received(&lab.gw)?];
    let [[there, _], [back, _]] = while_all_are_pinged(lab)?;
    assert_eq!([there, back], [Packets::pings(xdp, HOSTS); 2]);
    let [pc2, gw] = [received(&lab.pc2)? - before[0], received(&lab.gw)? - before[1]];
    assert_eq!(pc2 + gw, HOSTS);
    ensure!((12..52).contains(&pc2), "half of {HOSTS} is due to PC2, which got {pc2}");
    Ok(())
}

fn flows_of_ipv6_are_spread_as_well(xdp: Xdp) -> Result<()> {
    let lab = Lab::with_ipv6()?;
    let gateways = Gateways::start_in(lab, xdp, ipv6::both([R1_WAN, R2_WAN]))?;
    gateways.settle6()?;
    let Gateways { lab, .. } = &gateways;
    add_tunnels(lab)?;
    lab.pc2.ip("route add local fd99::/64 dev lo")?;
    lab.r2.ip(&format!("route add fd99::/64 via {}", ipv6::PC2))?;
    // IPv6 wants a gateway for each.
    lab.r1.ip(
        "route add fd99::/64 nexthop via fe80::1 dev tunnel0 nexthop via fe80::1 dev tunnel1",
    )?;
    settle_for(lab, xdp, "fd99::")?;

    let [[by_one, by_other], [back, _]] = while_pinged(lab, "fd99::")?;
    assert_eq!(by_one.tx() + by_other.tx(), HOSTS);
    ensure!((12..52).contains(&by_one.tx()), "{} of {HOSTS}", by_one.tx());
    assert_eq!(back.tx(), HOSTS);
    Ok(())
}

/// Whose packets to a remote must stay in their order.
#[test]
fn a_tunnel_over_an_underlay_with_several_next_hops_is_accelerated() -> Result<()> {
    let lab = Lab::new()?;
    // Both lead to the router.
    lab.router.ip("addr add 10.56.88.2/24 dev to-r1")?;
    lab.r1.ip("route del default")?;
    lab.r1.ip("route add default nexthop via 10.56.88.1 nexthop via 10.56.88.2")?;
    let gateways = Gateways::start_in(lab, Xdp::Native, Gateway::both())?;
    gateways.settle()?;
    ping_all(&gateways.lab.r1, R2_TUNNEL, 3)?;
    ping_all(&gateways.lab.r2, R1_TUNNEL, 3)
}
