//! BGP between the tunnel's addresses: TCP of the gateways themselves.

use anyhow::Result;
use tests::{
    config::Xdp,
    gateways::{Gateways, SOON},
    in_each_xdp_mode,
    topology::{PC2, R2_TUNNEL},
    traffic::{ping_all, ping_until_answered},
};

use crate::routed::{self, Protocol, Routed};

in_each_xdp_mode!(
    routes_that_bgp_learns_over_the_tunnel_are_forwarded_by,
    what_bgp_withdraws_is_not_forwarded_any_more,
    a_tunnel_that_goes_down_takes_bgps_routes_along,
    a_next_hop_that_another_route_leads_to_is_forwarded_to,
);

const BGP: Protocol = Protocol {
    daemon: "bgpd",
    name: "bgp",
    configs: [
        "\
router bgp 65001
 bgp router-id 172.16.168.2
 no bgp ebgp-requires-policy
 timers bgp 1 5
 neighbor 172.16.168.1 remote-as 65002
 neighbor 172.16.168.1 disable-connected-check
 neighbor 172.16.168.1 timers connect 1
 address-family ipv4 unicast
  network 192.168.150.0/24
",
        "\
router bgp 65002
 bgp router-id 172.16.168.1
 no bgp ebgp-requires-policy
 timers bgp 1 5
 neighbor 172.16.168.2 remote-as 65001
 neighbor 172.16.168.2 timers connect 1
 address-family ipv4 unicast
  network 192.168.110.0/24
",
    ],
    withdraw: &["router bgp", "address-family ipv4 unicast", "no network 192.168.110.0/24"],
    announce: &["router bgp", "address-family ipv4 unicast", "network 192.168.110.0/24"],
};

/// Behind PC2.
const FARTHER: &str = "10.99.0.0/24";
const FARTHER_HOST: &str = "10.99.0.10";

fn routes_that_bgp_learns_over_the_tunnel_are_forwarded_by(xdp: Xdp) -> Result<()> {
    routed::what_is_learned_is_forwarded(&BGP, xdp)
}

fn what_bgp_withdraws_is_not_forwarded_any_more(xdp: Xdp) -> Result<()> {
    routed::what_is_withdrawn_is_not(&BGP, xdp)
}

fn a_tunnel_that_goes_down_takes_bgps_routes_along(xdp: Xdp) -> Result<()> {
    routed::a_tunnel_that_goes_down_takes_its_routes_along(&BGP, xdp)
}

/// R2 says that a prefix is behind its LAN's address, which R1 has from BGP as well: zebra resolves it
/// to the tunnel's far end.
fn a_next_hop_that_another_route_leads_to_is_forwarded_to(xdp: Xdp) -> Result<()> {
    let routed = Routed::start(&BGP, xdp)?;
    let Gateways { lab, .. } = &routed.gateways;
    lab.pc2.ip(&format!("addr add {FARTHER_HOST}/32 dev eth0"))?;
    lab.r2.ip(&format!("route add {FARTHER} via {PC2}"))?;
    routed
        .r2
        .configure(&["route-map behind-the-lan permit 10", "set ip next-hop 192.168.110.70"])?;
    routed.r2.configure(&[
        "router bgp",
        "address-family ipv4 unicast",
        "network 10.99.0.0/24 route-map behind-the-lan",
    ])?;
    routed.wait_for_route(&lab.r1, FARTHER, R2_TUNNEL)?;
    ping_until_answered(&lab.pc1, FARTHER_HOST, SOON)?;
    routed.while_silent(|| {
        routed.gateways.settle()?;
        let found = routed.gateways.during(|| ping_all(&lab.pc1, FARTHER_HOST, 50))?;
        assert_eq!(found, [routed.gateways.ping_counts(50); 2]);
        Ok(())
    })
}
