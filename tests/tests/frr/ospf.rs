//! OSPF: its hellos are multicast, and so cross the tunnel as packets that this host sends and takes in.

use anyhow::Result;
use tests::{
    config::Xdp,
    in_each_xdp_mode,
    topology::{R1_TUNNEL, R2_TUNNEL},
};

use crate::routed::{self, Protocol};

in_each_xdp_mode!(routes_that_ospf_learns_over_the_tunnel_are_forwarded_by);

fn routes_that_ospf_learns_over_the_tunnel_are_forwarded_by(xdp: Xdp) -> Result<()> {
    routed::what_is_learned_is_forwarded(ospf(), xdp)
}

#[test]
fn what_ospf_withdraws_is_not_forwarded_any_more() -> Result<()> {
    routed::what_is_withdrawn_is_not(ospf(), Xdp::Native)
}

#[test]
fn a_tunnel_that_goes_down_takes_ospfs_routes_along() -> Result<()> {
    routed::a_tunnel_that_goes_down_takes_its_routes_along(ospf(), Xdp::Native)
}

fn ospf() -> Protocol {
    Protocol {
        daemon: "ospfd",
        name: "ospf",
        configs: [R1_TUNNEL, R2_TUNNEL].map(config),
        withdraw: &["interface lan", "no ip ospf area 0"],
        announce: &["interface lan", "ip ospf area 0"],
    }
}

/// With none of the delays that keep a large network calm.
fn config(id: &str) -> String {
    format!(
        "\
interface tunnel0
 ip ospf area 0
 ip ospf network point-to-point
 ip ospf hello-interval 1
 ip ospf dead-interval 5
 ip ospf retransmit-interval 1
interface lan
 ip ospf area 0
 ip ospf passive
router ospf
 ospf router-id {id}
 timers throttle spf 0 0 0
 timers throttle lsa all 0
 timers lsa min-arrival 0
"
    )
}
