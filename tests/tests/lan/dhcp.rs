//! S8: PC1 gets its address by DHCP from the far side, and then talks to PC2 as on one wire.

use anyhow::{Result, ensure};
use tests::{
    capture::Capture,
    config::{Gateway, Xdp},
    dhcp, in_each_xdp_mode,
    lan::{Bridged, Carried, Lan, PC1, PC2, by_the_document, neighbour},
    topology::{R1_WAN, R2_WAN},
    traffic::{Flow, Load, ping_all, tcp},
};

in_each_xdp_mode!(an_address_comes_through_the_tunnel_and_leads_to_the_far_hosts);

fn an_address_comes_through_the_tunnel_and_leads_to_the_far_hosts(xdp: Xdp) -> Result<()> {
    let none = Gateway::without_tunnels();
    let bridged = Bridged::start(Lan::bare()?, xdp, [none.clone(), none])?;
    let Lan { pc1, r1, router, r2, pc2 } = &bridged.lan;
    by_the_document(r1, R1_WAN, R2_WAN)?;
    by_the_document(r2, R2_WAN, R1_WAN)?;
    pc2.ip(&format!("addr add {PC2}/24 dev eth0"))?;
    // What the tunnel leaves of an Ethernet's 1500.
    let _dnsmasq = dhcp::serve(pc2, PC1, 1462)?;

    let capture = Capture::start(router, "to-r2", "proto gre")?;
    dhcp::ask(pc1)?;
    let device = pc1.ip("-4 -o addr show dev eth0")?;
    ensure!(device.contains(&format!("{PC1}/24")), "{device}");
    let device = pc1.ip("-o link show dev eth0")?;
    ensure!(device.contains("mtu 1462 "), "{device}");
    // Discover, offer, request, acknowledge: Ethernet in GRE.
    let rows = capture.finish(4)?.fields(&["dhcp.option.dhcp", "gre.proto"])?;
    for kind in ["1", "2", "3", "5"] {
        ensure!(rows.iter().any(|row| *row == [kind, "0x6558"]), "no {kind} in {rows:?}");
    }

    bridged.settle()?;
    assert_eq!(neighbour(pc1, PC2)?, pc2.mac("eth0")?);
    for (from, to) in [(pc1, PC2), (pc2, PC1)] {
        let found = bridged.during(|| ping_all(from, to, 10))?;
        assert_eq!(found, [Carried::pings(10); 2]);
    }
    // Their segments are of the smaller MTU's size, both ways.
    for flow in [Flow::ToServer, Flow::ToClient] {
        tcp(pc1, pc2, PC2, Load::Seconds(1), flow)?;
    }
    Ok(())
}
