//! XDP forwards what the kernel would, and follows it within 100 ms.
//!
//! ```text
//!  PC1 ------- R1 ====== router ====== R2 ------- PC2 192.168.110.10
//!              ^ its routes, its ip_forward and its MAC address are changed under traffic
//! ```

use anyhow::{Context as _, Result, ensure};
use tests::{
    config::{Gateway, Xdp},
    gateways::{Gateways, SOON},
    in_each_xdp_mode,
    namespace::Resident,
    process::wait_until,
    topology::{FAR_LAN_OF_R1, PC1, PC2, R1_LAN, R1_TUNNEL, R1_WAN, R2_TUNNEL, R2_WAN},
    traffic::{ping_all, ping_none, ping_until_answered},
    with_xdp,
    xgre::xgre,
};

in_each_xdp_mode!(
    a_more_specific_route_elsewhere_wins_over_the_tunnels,
    nothing_is_forwarded_where_ip_forward_is_off,
    frames_addressed_to_another_host_are_not_forwarded,
    an_underlay_that_only_a_rule_leads_to_carries_the_tunnel,
);

mod rule_of_vrfs {
    use super::*;

    with_xdp!(where_vrfs_have_a_rule_the_kernel_routes_until_it_is_removed_as_shown);

    /// It stays behind when the last VRF goes; made by hand it takes no kernel with VRFs.
    fn where_vrfs_have_a_rule_the_kernel_routes_until_it_is_removed_as_shown(
        xdp: Xdp,
    ) -> Result<()> {
        let gateways = Gateways::forwarding(xdp)?;
        let r1 = &gateways.lab.r1;
        r1.ip("rule add l3mdev pref 1000")?;
        let shown = wait_until("it is shown", SOON, || {
            let shown = xgre(r1, "tunnel show")?;
            let found = shown.contains("not accelerated: a VRF has left its rule behind");
            ensure!(found, "{shown}");
            Ok(shown)
        })?;
        let [near, far] = gateways.during(|| ping_all(&gateways.lab.pc1, PC2, 20))?;
        assert_eq!((near.tx_xdp, near.tx_tc, near.rx(), near.drops), (0, 20, 20, 0));
        assert_eq!(far, gateways.ping_counts(20));

        let command = shown.split('`').nth(1).context("no command is shown")?;
        r1.run(command)?;
        gateways.settle()
    }
}

mod within_100_ms {
    use super::*;

    with_xdp!(a_new_route_into_the_tunnel_takes_effect, a_removed_route_ceases_to);

    /// At [`INTERVAL`], so many pings are 100 ms.
    const PINGS_IN_100_MS: u64 = 10;
    const INTERVAL: &str = "0.01";
    const PINGS: u64 = 100;

    /// The kernel knows the route at once, and TC encapsulates until XDP knows it too: the packets
    /// that TC carried tell the delay, however long the test itself takes to look.
    fn a_new_route_into_the_tunnel_takes_effect(xdp: Xdp) -> Result<()> {
        let without_route = Gateway::new(R1_WAN, R2_WAN).address(R1_TUNNEL, R2_TUNNEL);
        let [_, r2] = Gateway::both();
        let gateways = Gateways::start(xdp, [without_route, r2])?;
        let Gateways { lab, .. } = &gateways;
        ping_until_answered(&lab.r1, R2_TUNNEL, SOON)?;
        gateways.r1.wait_until_accelerated("tunnel0")?;
        ping_none(&lab.pc1, PC2)?;

        let [near, _] = gateways.during(|| {
            let pings = steady_pings(&gateways)?;
            lab.r1.ip(&format!("route add {FAR_LAN_OF_R1} dev tunnel0"))?;
            pings.process.finish(SOON)?;
            Ok(())
        })?;
        assert!(near.tx_tc <= PINGS_IN_100_MS, "TC encapsulated {} pings: {near:?}", near.tx_tc);
        assert!(near.tx_xdp > PINGS / 2, "XDP encapsulated too few: {near:?}");
        Ok(())
    }

    fn a_removed_route_ceases_to(xdp: Xdp) -> Result<()> {
        let gateways = Gateways::forwarding(xdp)?;
        let Gateways { lab, .. } = &gateways;
        let pings = steady_pings(&gateways)?;
        lab.r1.ip(&format!("route del {FAR_LAN_OF_R1} dev tunnel0"))?;
        let [near, _] = gateways.during(|| {
            pings.process.finish(SOON)?;
            Ok(())
        })?;
        assert!(near.tx() <= PINGS_IN_100_MS, "{} more pings were encapsulated", near.tx());
        ping_none(&lab.pc1, PC2)
    }

    /// Pings from PC1 to PC2 for a second, which have begun.
    fn steady_pings(gateways: &Gateways) -> Result<Resident> {
        let count = PINGS.to_string();
        let arguments = ["-n", "-c", &count, "-i", INTERVAL, "-W", "1", PC2];
        let pc1 = &gateways.lab.pc1;
        let before = pc1.sent("eth0")?;
        let pings = pc1.spawn("ping", &arguments)?;
        // Not by what ping says: it buffers that until the first answer.
        wait_until("ping sends", SOON, || {
            ensure!(pc1.sent("eth0")? > before + 1, "nothing is sent");
            Ok(())
        })?;
        Ok(pings)
    }
}

fn a_more_specific_route_elsewhere_wins_over_the_tunnels(xdp: Xdp) -> Result<()> {
    let gateways = Gateways::forwarding(xdp)?;
    let Gateways { lab, .. } = &gateways;
    // The underlay has no route to PC2, so that what goes there is lost.
    for elsewhere in ["blackhole 192.168.110.10/32", "192.168.110.0/28 via 10.56.88.1"] {
        lab.r1.ip(&format!("route add {elsewhere}"))?;
        wait_until("the more specific route is followed", SOON, || ping_none(&lab.pc1, PC2))?;
        let [near, _] = gateways.during(|| ping_none(&lab.pc1, PC2))?;
        assert_eq!(near.tx(), 0, "with {elsewhere}");

        lab.r1.ip(&format!("route del {elsewhere}"))?;
        gateways.settle()?;
    }
    Ok(())
}

fn nothing_is_forwarded_where_ip_forward_is_off(xdp: Xdp) -> Result<()> {
    let gateways = Gateways::forwarding(xdp)?;
    let Gateways { lab, .. } = &gateways;
    lab.r1.sysctl("net.ipv4.ip_forward", 0)?;
    wait_until("R1 forwards nothing", SOON, || ping_none(&lab.pc1, PC2))?;
    let [near, _] = gateways.during(|| ping_none(&lab.pc1, PC2))?;
    assert_eq!(near.tx(), 0);
    ping_none(&lab.pc2, PC1)?;
    // What is for the gateway itself is not forwarded, and so not affected.
    ping_all(&lab.r1, R2_TUNNEL, 3)?;

    lab.r1.sysctl("net.ipv4.ip_forward", 1)?;
    gateways.settle()
}

/// A gateway of two providers: what comes from its address leaves by a table of its own.
fn an_underlay_that_only_a_rule_leads_to_carries_the_tunnel(xdp: Xdp) -> Result<()> {
    let gateways = Gateways::forwarding(xdp)?;
    let Gateways { lab, .. } = &gateways;
    let r1 = &lab.r1;
    r1.ip(&format!("rule add from {R1_WAN} lookup 100 pref 100"))?;
    r1.ip("route add default via 10.56.88.1 table 100")?;
    r1.ip("route del default")?;
    let shown = |part: &str| {
        wait_until(&format!("it is shown: {part}"), SOON, || {
            let shown = xgre(r1, "tunnel show")?;
            ensure!(shown.contains(part), "{shown}");
            Ok(())
        })
    };
    shown("via 10.56.88.1 dev wan\n    not accelerated: policy routing rules are in use")?;
    let [near, far] = gateways.during(|| ping_all(&lab.pc1, PC2, 20))?;
    assert_eq!((near.tx_xdp, near.tx_tc, near.rx(), near.drops), (0, 20, 20, 0));
    assert_eq!(far, gateways.ping_counts(20));

    // Nothing in the tables that are mirrored changes.
    r1.ip("route del default table 100")?;
    shown(&format!("no route to the remote\n    not accelerated: no route to {R2_WAN}"))?;
    r1.ip("route add default via 10.56.88.1 table 100")?;
    shown("via 10.56.88.1 dev wan")?;
    ping_all(&lab.pc1, PC2, 3)?;

    r1.ip("route add default via 10.56.88.1")?;
    r1.ip("rule del pref 100")?;
    gateways.settle()
}

fn frames_addressed_to_another_host_are_not_forwarded(xdp: Xdp) -> Result<()> {
    let gateways = Gateways::forwarding(xdp)?;
    let Gateways { lab, .. } = &gateways;
    let right = lab.r1.mac("lan")?;
    let neighbour = |mac: &str| {
        lab.pc1.ip(&format!("neigh replace {R1_LAN} lladdr {mac} dev eth0 nud permanent"))
    };
    neighbour("02:00:00:00:00:99")?;
    let found = gateways.during(|| ping_none(&lab.pc1, PC2))?;
    assert_eq!(found.map(|packets| packets.tx() + packets.rx()), [0, 0]);

    neighbour(&right)?;
    ping_all(&lab.pc1, PC2, 3)?;
    ping_all(&lab.pc2, PC1, 3)
}
