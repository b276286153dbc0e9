//! BGP between the tunnel's addresses: TCP of the gateways themselves.

use anyhow::{Result, ensure};
use tests::{
    config::Xdp,
    gateways::{Gateways, SOON},
    in_each_xdp_mode,
    process::wait_until,
    topology::{FAR_LAN_OF_R1, FAR_LAN_OF_R2, PC2, R1_TUNNEL, R2_LAN, R2_TUNNEL},
    traffic::{ping_all, ping_until_answered},
};

use crate::routed::{self, Protocol, Routed};

in_each_xdp_mode!(routes_that_bgp_learns_over_the_tunnel_are_forwarded_by);

/// Behind PC2.
const FARTHER: &str = "10.99.0.0/24";
const FARTHER_HOST: &str = "10.99.0.10";

fn routes_that_bgp_learns_over_the_tunnel_are_forwarded_by(xdp: Xdp) -> Result<()> {
    routed::what_is_learned_is_forwarded(bgp(), xdp)
}

#[test]
fn what_bgp_withdraws_is_not_forwarded_any_more() -> Result<()> {
    routed::what_is_withdrawn_is_not(bgp(), Xdp::Native)
}

#[test]
fn a_tunnel_that_goes_down_takes_bgps_routes_along() -> Result<()> {
    routed::a_tunnel_that_goes_down_takes_its_routes_along(bgp(), Xdp::Native)
}

/// R2 says that a prefix is behind its LAN's address, which R1 has from BGP as well: zebra resolves it
/// to the tunnel's far end.
#[test]
fn a_next_hop_that_another_route_leads_to_is_forwarded_to() -> Result<()> {
    let routed = Routed::start(bgp(), Xdp::Native)?;
    let Gateways { lab, .. } = &routed.gateways;
    lab.pc2.ip(&format!("addr add {FARTHER_HOST}/32 dev eth0"))?;
    lab.r2.ip(&format!("route add {FARTHER} via {PC2}"))?;
    routed.r2.configure(&[
        &format!("ip prefix-list farther permit {FARTHER}"),
        "route-map behind-the-lan permit 10",
        "match ip address prefix-list farther",
        &format!("set ip next-hop {R2_LAN}"),
        "route-map behind-the-lan permit 20",
        "router bgp",
        "address-family ipv4 unicast",
        &format!("neighbor {R1_TUNNEL} route-map behind-the-lan out"),
        &format!("network {FARTHER}"),
    ])?;
    wait_until("R1 knows the next hop that R2 names", SOON, || {
        let learned = routed.r1.ask(&format!("show bgp ipv4 unicast {FARTHER}"))?;
        ensure!(learned.contains(R2_LAN), "{learned}");
        Ok(())
    })?;
    routed.wait_for_route(&lab.r1, FARTHER, R2_TUNNEL)?;
    ping_until_answered(&lab.pc1, FARTHER_HOST, SOON)?;
    routed.while_silent(|| {
        routed.gateways.settle()?;
        let found = routed.gateways.during(|| ping_all(&lab.pc1, FARTHER_HOST, 50))?;
        assert_eq!(found, [routed.gateways.ping_counts(50); 2]);
        Ok(())
    })
}

fn bgp() -> Protocol {
    Protocol {
        daemon: "bgpd",
        name: "bgp",
        configs: [
            config(65001, R1_TUNNEL, (65002, R2_TUNNEL), FAR_LAN_OF_R2),
            config(65002, R2_TUNNEL, (65001, R1_TUNNEL), FAR_LAN_OF_R1),
        ],
        withdraw: &["router bgp", "address-family ipv4 unicast", "no network 192.168.110.0/24"],
        announce: &["router bgp", "address-family ipv4 unicast", "network 192.168.110.0/24"],
    }
}

/// Of a router of one system with a neighbour of another, whose next hops need not be on the link.
fn config(number: u32, id: &str, neighbour: (u32, &str), lan: &str) -> String {
    let (other, address) = neighbour;
    format!(
        "\
router bgp {number}
 bgp router-id {id}
 no bgp ebgp-requires-policy
 timers bgp 1 5
 neighbor {address} remote-as {other}
 neighbor {address} disable-connected-check
 neighbor {address} timers connect 1
 address-family ipv4 unicast
  network {lan}
"
    )
}
