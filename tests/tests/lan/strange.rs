//! What no well-behaved peer sends, two tunnels between the same addresses, and loops.

use anyhow::{Result, bail, ensure};
use tests::{
    capture::Capture,
    config::{Gateway, Xdp},
    gateways::SOON,
    in_each_xdp_mode,
    lan::{Bridged, Carried, Lan, OVER_IPV4, PC1, PC2, TUNNEL, both},
    namespace::Namespace,
    process::wait_until,
    topology::{R1_TUNNEL, R1_WAN, R2_TUNNEL, R2_WAN},
    traffic::{ping_all, ping_until_answered, scapy_send, scapy_send_frames},
    xgre::{Daemon, outcome},
};

in_each_xdp_mode!(
    d14_a_tunnel_for_ip_and_one_for_ethernet_share_their_addresses,
    d14_what_is_for_the_other_kind_of_tunnel_is_dropped_and_counted,
    frames_that_are_none_are_dropped_and_counted,
    two_tunnels_in_a_loop_settle_by_stp_without_a_storm,
);

fn d14_a_tunnel_for_ip_and_one_for_ethernet_share_their_addresses(xdp: Xdp) -> Result<()> {
    let [r1, r2] = both(OVER_IPV4, &[]);
    let ip = |local, remote, own, peer| Gateway::new(local, remote).address(own, peer);
    let configs = [
        r1.and(ip(R1_WAN, R2_WAN, R1_TUNNEL, R2_TUNNEL)),
        r2.and(ip(R2_WAN, R1_WAN, R2_TUNNEL, R1_TUNNEL)),
    ];
    let bridged = Bridged::start(Lan::new()?, xdp, configs)?;
    bridged.bridge()?;
    bridged.settle()?;
    let Lan { pc1, r1, .. } = &bridged.lan;
    ping_until_answered(r1, R2_TUNNEL, SOON)?;

    let ip = || -> Result<Carried> { Ok(bridged.r1.packets("tunnel0")?.into()) };
    let before = ip()?;
    let found = bridged.during(|| ping_all(r1, R2_TUNNEL, 10))?;
    assert_eq!(found, [Carried::both_ways(0, 0); 2]);
    let after = ip()?;
    assert_eq!((after.rx - before.rx, after.tx - before.tx, after.drops), (10, 10, 0));
    let found = bridged.during(|| ping_all(pc1, PC2, 10))?;
    assert_eq!(found, [Carried::pings(10); 2]);
    assert_eq!(ip()?, after);
    Ok(())
}

/// From R2 in place of xgre, as far as R1 can tell.
fn from_r2(gre: &str) -> String {
    format!("[IP(src='{R2_WAN}', dst='{R1_WAN}', proto=47)/{gre}]")
}

fn d14_what_is_for_the_other_kind_of_tunnel_is_dropped_and_counted(xdp: Xdp) -> Result<()> {
    let lan = Lan::bare()?;
    let ethernet = "GRE(proto=0x6558)/Ether(src='02:00:00:00:00:01')/IP(dst='10.0.0.1')/UDP()";
    let ip = format!("GRE()/IP(src='{R2_TUNNEL}', dst='{R1_TUNNEL}')/UDP()");
    let mpls = "GRE(proto=0x8847)/(b'x' * 40)";
    let [for_ethernet, _] = both(OVER_IPV4, &[]);
    let for_ip = Gateway::new(R1_WAN, R2_WAN).address(R1_TUNNEL, R2_TUNNEL);
    for (config, name, wrong) in [
        (for_ethernet, TUNNEL, &[(&ip[..], "not-ethernet"), (mpls, "not-ethernet")][..]),
        (for_ip, "tunnel0", &[(ethernet, "ethernet-frame")]),
    ] {
        let daemon = Daemon::start(&lan.r1, &config.xdp(xdp))?;
        for (gre, reason) in wrong {
            dropped(&lan.r1, &daemon, name, reason, || scapy_send(&lan.router, &from_r2(gre)))?;
        }
        daemon.stop()?;
    }
    Ok(())
}

/// One packet is dropped, in whichever tier, for this reason, and counted on the tunnel.
fn dropped(
    gateway: &Namespace,
    daemon: &Daemon,
    tunnel: &str,
    reason: &str,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let count = || -> Result<[u64; 2]> {
        let [xdp, tc] = ["xdp", "tc"].map(|tier| outcome(gateway, tier, reason));
        Ok([xdp? + tc?, daemon.packets(tunnel)?.drops])
    };
    let before = count()?;
    work()?;
    wait_until(&format!("it is dropped as {reason}"), SOON, || {
        let after = count()?;
        let found = [after[0] - before[0], after[1] - before[1]];
        ensure!(found == [1, 1], "{found:?}");
        Ok(())
    })
}

fn frames_that_are_none_are_dropped_and_counted(xdp: Xdp) -> Result<()> {
    let bridged = Bridged::joined(xdp, OVER_IPV4, &[])?;
    let Bridged { r1: daemon, lan, .. } = &bridged;
    let Lan { pc1, r1, router, pc2, .. } = lan;
    let station = pc1.mac("eth0")?;
    let capture = Capture::start(pc1, "eth0", "ether proto 0x88b5")?;
    let frame = |source: &str| {
        format!("GRE(proto=0x6558)/Ether(src='{source}', dst='{station}', type=0x88b5)/(b'x' * 46)")
    };
    for len in 0..14 {
        let runt = format!("GRE(proto=0x6558)/(b'\\x02' * {len})");
        let send = || scapy_send(router, &from_r2(&runt));
        dropped(r1, daemon, TUNNEL, "inner-truncated", send)?;
    }
    for source in ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"] {
        let send = || scapy_send(router, &from_r2(&frame(source)));
        dropped(r1, daemon, TUNNEL, "frame-source", send)?;
    }
    // The frame itself is right, and so is one of Ethernet's header alone.
    scapy_send(router, &from_r2(&frame(&pc2.mac("eth0")?)))?;
    assert_eq!(capture.finish(1)?.fields(&["eth.src"])?, [[pc2.mac("eth0")?]]);
    let header =
        "GRE(proto=0x6558)/Ether(src='02:00:00:00:00:01', dst='02:00:00:00:00:02', type=0x88b5)";
    let found = bridged.during(|| {
        scapy_send(router, &from_r2(header))?;
        ping_all(pc1, PC2, 1)
    })?;
    assert_eq!((found[0].rx, found[0].drops), (2, 0));
    Ok(())
}

/// Two tunnels between the same two bridges.
fn two_tunnels_in_a_loop_settle_by_stp_without_a_storm(xdp: Xdp) -> Result<()> {
    let [r1, r2] = both(OVER_IPV4, &[]);
    let [other1, other2] = both(OVER_IPV4, &[]).map(|config| config.name("gretap2").key(Some(2)));
    let bridged = Bridged::start(Lan::new()?, xdp, [r1.and(other1), r2.and(other2)])?;
    for gateway in bridged.gateways() {
        for line in [
            "ip link add br0 type bridge stp_state 1 forward_delay 200 hello_time 100 max_age 600",
            "ip link set gretap1 master br0",
            "ip link set gretap2 master br0",
            "ip link set lan master br0",
            "ip link set br0 up",
        ] {
            gateway.run(line)?;
        }
    }
    let Lan { pc1, r1, r2, pc2, .. } = &bridged.lan;
    let states = |gateway: &Namespace, state: &str| -> Result<usize> {
        Ok(gateway.run("bridge link show")?.matches(&format!("state {state}")).count())
    };
    wait_until("one of the four ends is blocked, and all else forwards", SOON * 3, || {
        let [near, far] = [r1, r2].map(|gateway| -> Result<_> {
            Ok((states(gateway, "forwarding")?, states(gateway, "blocking")?))
        });
        match (near?, far?) {
            ((3, 0), (2, 1)) | ((2, 1), (3, 0)) => Ok(()),
            found => bail!("forwarding and blocking: {found:?}"),
        }
    })?;
    ping_until_answered(pc1, PC2, SOON)?;
    ping_all(pc2, PC1, 10)?;

    let source = pc1.mac("eth0")?;
    let capture = Capture::start(pc2, "eth0", "ether proto 0x88b5")?;
    let frames =
        format!("[Ether(src='{source}', dst='ff:ff:ff:ff:ff:ff', type=0x88b5)/(b'x' * 86)] * 20");
    scapy_send_frames(pc1, "eth0", &frames)?;
    // What was sent after them is there, and so all of them are, and none twice.
    ping_all(pc1, PC2, 10)?;
    assert_eq!(capture.finish(20)?.bytes()?.len(), 20);
    Ok(())
}
