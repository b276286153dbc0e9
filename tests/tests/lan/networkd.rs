//! systemd-networkd makes the bridge, and joins the tunnel's device to it like any other.

use anyhow::{Result, ensure};
use tests::{
    config::{Gateway, Xdp},
    gateways::SOON,
    lan::{Bridged, Carried, Lan, PC2, TUNNEL},
    namespace::Namespace,
    networkd,
    process::wait_until,
    topology::{R1_WAN, R2_WAN},
    traffic::ping_all,
    xgre::xgre,
};

const FILES: [(&str, &str); 3] = [
    ("br0.netdev", "[NetDev]\nName=br0\nKind=bridge\n"),
    (
        "br0.network",
        "[Match]\nName=br0\n[Network]\nLinkLocalAddressing=no\nConfigureWithoutCarrier=yes\n",
    ),
    ("ports.network", "[Match]\nName=lan gretap1\n[Network]\nBridge=br0\n"),
];

/// Waits until the device is a port of the bridge, and both are up.
fn is_joined(gateway: &Namespace, device: &str) -> Result<()> {
    wait_until(&format!("networkd joins {device} to the bridge"), SOON, || {
        let shown = gateway.ip(&format!("-o link show dev {device}"))?;
        ensure!(shown.contains(" master br0 ") && shown.contains(",UP"), "{shown}");
        let bridge = gateway.ip("-o link show dev br0")?;
        ensure!(bridge.contains(",UP"), "{bridge}");
        Ok(())
    })
}

#[test]
fn networkd_joins_the_device_to_a_bridge_whichever_is_there_first() -> Result<()> {
    let none = Gateway::without_tunnels();
    let bridged = Bridged::start(Lan::new()?, Xdp::Native, [none.clone(), none])?;
    let Lan { pc1, r1, r2, .. } = &bridged.lan;
    let tunnel = |local, remote| {
        format!("link add {TUNNEL} type gretap remote {remote} local {local} ttl 255 nopmtudisc")
    };
    let add = |gateway, local, remote| xgre(gateway, &tunnel(local, remote));

    let mut of_r1 = networkd::start(r1, &FILES)?;
    is_joined(r1, "lan")?;
    add(r1, R1_WAN, R2_WAN)?;
    add(r2, R2_WAN, R1_WAN)?;
    let mut of_r2 = networkd::start(r2, &FILES)?;
    for (gateway, networkd) in [(r1, &mut of_r1), (r2, &mut of_r2)] {
        is_joined(gateway, "lan").and_then(|()| is_joined(gateway, TUNNEL)).map_err(|error| {
            error.context(format!("networkd says:\n{}", networkd.process.output()))
        })?;
        networkd.process.still_runs()?;
        // xgre's end of the pair is none of its business.
        let ports = gateway.ip("-o link show master br0")?;
        assert_eq!(ports.lines().count(), 2, "{ports}");
    }
    bridged.settle()?;
    let found = bridged.during(|| ping_all(pc1, PC2, 10))?;
    assert_eq!(found, [Carried::pings(10); 2]);

    // One that is made again joins again.
    xgre(r1, &format!("link delete {TUNNEL}"))?;
    add(r1, R1_WAN, R2_WAN)?;
    is_joined(r1, TUNNEL)?;
    bridged.settle()
}
