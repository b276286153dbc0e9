//! S7: the document's commands make one LAN, and what stations of a LAN expect of it.

use std::fs;

use anyhow::{Result, ensure};
use tests::{
    capture::Capture,
    config::{Gateway, Xdp},
    gateways::SOON,
    in_each_xdp_mode, ipv6,
    lan::{Bridged, Carried, Lan, OVER_IPV4, OVER_IPV6, PC1, PC2, by_the_document, neighbour},
    process::wait_until,
    topology::{R1_WAN, R2_WAN},
    traffic::{Flow, Load, ping_all, ping_until_answered, scapy_send_frames, tcp},
    xgre::xgre,
};

in_each_xdp_mode!(
    the_documents_commands_make_one_lan,
    every_option_carries_frames_over_ipv4_and_ipv6_from_the_config,
    broadcast_and_multicast_reach_the_other_lan,
    short_frames_arrive_padded_as_they_must_be,
    tcp_flows_both_ways,
    a_host_finds_its_address_and_its_neighbours_by_ipv6,
);

fn the_documents_commands_make_one_lan(xdp: Xdp) -> Result<()> {
    let none = Gateway::without_tunnels();
    let bridged = Bridged::start(Lan::new()?, xdp, [none.clone(), none])?;
    let Lan { pc1, r1, router, r2, pc2 } = &bridged.lan;
    for (gateway, local, remote) in [(r1, R1_WAN, R2_WAN), (r2, R2_WAN, R1_WAN)] {
        by_the_document(gateway, local, remote)?;
        let shown = xgre(gateway, "tunnel show gretap1")?;
        let line = format!("gretap1: gretap remote {remote} local {local} ttl 255 nopmtudisc");
        assert_eq!(shown.lines().next(), Some(line.as_str()));
        let device = gateway.ip("-o link show dev gretap1")?;
        ensure!(device.contains("mtu 1462 ") && !device.contains("NOARP"), "{device}");
        ensure!(device.contains("master br0 "), "{device}");
        // As with the kernel's device, the bridge takes over the smaller MTU.
        let bridge = gateway.ip("-o link show dev br0")?;
        ensure!(bridge.contains("mtu 1462 "), "{bridge}");
    }
    bridged.settle()?;
    // By ARP through the tunnel.
    assert_eq!(neighbour(pc1, PC2)?, pc2.mac("eth0")?);
    assert_eq!(neighbour(pc2, PC1)?, pc1.mac("eth0")?);

    let capture = Capture::start(router, "to-r2", "proto gre")?;
    let found = bridged.during(|| ping_all(pc1, PC2, 10))?;
    assert_eq!(found, [Carried::pings(10); 2]);
    let fields =
        ["ip.src", "ip.ttl", "ip.flags.df", "ip.len", "gre.flags_and_version", "gre.proto"];
    let rows = capture.finish(20)?.fields(&fields)?;
    assert_eq!(rows.len(), 20);
    for row in rows {
        // The inner packet's Don't Fragment is copied, as the kernel does; ping sets it, an answer's
        // is as its request's.
        let (source, ttl, inner) = match row[0].starts_with(R1_WAN) {
            true => (format!("{R1_WAN},{PC1}"), "254,64", "1"),
            false => (format!("{R2_WAN},{PC2}"), "255,64", "0"),
        };
        let df = format!("{inner},{inner}");
        assert_eq!(row, [&source, ttl, &df, "122,84", "0x0000", "0x6558"], "{fields:?}");
    }
    Ok(())
}

const EVERYTHING: [&str; 3] = ["key = 42", "csum = true", "seq = true"];

fn every_option_carries_frames_over_ipv4_and_ipv6_from_the_config(xdp: Xdp) -> Result<()> {
    for (ends, options, flags) in [
        (OVER_IPV4, &[][..], "0x0000"),
        (OVER_IPV4, &EVERYTHING, "0xb000"),
        (OVER_IPV6, &[], "0x0000"),
        (OVER_IPV6, &EVERYTHING, "0xb000"),
        (OVER_IPV6, &["key = 7", "encaplimit = 4"], "0x2000"),
    ] {
        let bridged = Bridged::joined(xdp, ends, options)?;
        let Lan { pc1, router, pc2, .. } = &bridged.lan;
        let capture = Capture::start(router, "to-r2", &format!("src host {}", ends[0]))?;
        for (from, to) in [(pc1, PC2), (pc2, PC1)] {
            let found = bridged.during(|| ping_all(from, to, 50))?;
            assert_eq!(found, [Carried::pings(50); 2], "{options:?} over {ends:?}");
        }
        let rows = capture.finish(100)?.fields(&["gre.flags_and_version", "gre.proto"])?;
        assert_eq!(rows, vec![[flags, "0x6558"]; 100], "{options:?} over {ends:?}");
    }
    Ok(())
}

/// To everyone, to a group, and to a station that no bridge has heard of.
fn broadcast_and_multicast_reach_the_other_lan(xdp: Xdp) -> Result<()> {
    let bridged = Bridged::joined(xdp, OVER_IPV4, &[])?;
    let Lan { pc1, pc2, .. } = &bridged.lan;
    for (from, to) in [(pc1, pc2), (pc2, pc1)] {
        let source = from.mac("eth0")?;
        for destination in ["ff:ff:ff:ff:ff:ff", "01:00:5e:01:02:03", "02:77:77:77:77:77"] {
            let capture = Capture::start(to, "eth0", &format!("ether dst {destination}"))?;
            let frames = format!(
                "[Ether(src='{source}', dst='{destination}', type=0x88b5)/(b'x' * 86)] * 20"
            );
            let found = bridged.during(|| scapy_send_frames(from, "eth0", &frames))?;
            // tshark knows no protocol of this type, which is for experiments.
            let frames = capture.finish(20)?.bytes()?;
            assert_eq!(frames.len(), 20, "to {destination}");
            let expected =
                [hex(destination), hex(&source), vec![0x88, 0xb5], vec![b'x'; 86]].concat();
            ensure!(frames.iter().all(|frame| *frame == expected), "{frames:02x?}");
            let both = |carried: Carried| (carried.tx + carried.rx, carried.drops);
            assert_eq!(found.map(both), [(20, 0); 2], "to {destination}");
        }
    }
    Ok(())
}

fn hex(mac: &str) -> Vec<u8> {
    mac.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("two digits")).collect()
}

/// IP packets of every length that Ethernet pads, and one more.
fn short_frames_arrive_padded_as_they_must_be(xdp: Xdp) -> Result<()> {
    for ends in [OVER_IPV4, OVER_IPV6] {
        let bridged = Bridged::joined(xdp, ends, &[])?;
        let Lan { pc1, pc2, .. } = &bridged.lan;
        let (source, destination) = (pc1.mac("eth0")?, pc2.mac("eth0")?);
        // Protocol 253 is for experiments.
        let capture = Capture::start(pc2, "eth0", "ip proto 253")?;
        let frames = format!(
            "[Ether(src='{source}', dst='{destination}')\
             /IP(src='{PC1}', dst='{PC2}', proto=253, id=n)/(b'x' * n) for n in range(28)]"
        );
        let [near, far] = bridged.during(|| scapy_send_frames(pc1, "eth0", &frames))?;
        // PC2 knows no such protocol, and says so.
        let answered = (near.rx, far.tx);
        let lens: u64 = (34..62).sum();
        assert_eq!((near.tx, near.tx_bytes, near.drops), (28, lens, 0), "over {ends:?}");
        assert_eq!((far.rx, far.rx_bytes, far.drops), (28, lens, 0), "over {ends:?}");
        ensure!(answered.0 == answered.1, "{answered:?} over {ends:?}");
        let rows = capture.finish(28)?.fields(&["ip.id", "ip.len"])?;
        let expected: Vec<_> =
            (0..28).map(|n| [format!("0x{n:04x}"), (20 + n).to_string()]).collect();
        assert_eq!(rows, expected, "over {ends:?}");
    }
    Ok(())
}

/// With the segment size that the tunnel leaves: a bridge tells nobody what its ports take.
fn tcp_flows_both_ways(xdp: Xdp) -> Result<()> {
    for ends in [OVER_IPV4, OVER_IPV6] {
        let bridged = Bridged::joined(xdp, ends, &["mss = \"auto\""])?;
        let Lan { pc1, pc2, .. } = &bridged.lan;
        for flow in [Flow::ToServer, Flow::ToClient] {
            tcp(pc1, pc2, PC2, Load::Seconds(1), flow)?;
        }
    }
    Ok(())
}

/// From a router on the other LAN, by router advertisements.
fn a_host_finds_its_address_and_its_neighbours_by_ipv6(xdp: Xdp) -> Result<()> {
    let bridged = Bridged::joined(xdp, OVER_IPV4, &[])?;
    let Lan { pc1, pc2, .. } = &bridged.lan;
    for host in [pc1, pc2] {
        ipv6::enable_on(host, "eth0")?;
    }
    pc2.ip(&format!("addr add {}/64 dev eth0 nodad", ipv6::PC2))?;
    pc2.sysctl("net.ipv6.conf.all.forwarding", 1)?;
    pc1.sysctl("net.ipv6.conf.eth0.accept_ra", 1)?;
    let config = pc2.scratch().join("radvd.conf");
    fs::write(
        &config,
        "interface eth0 { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4;\n\
         prefix 2001:db8:110::/64 { AdvOnLink on; AdvAutonomous on; }; };\n",
    )?;
    let [config, pid] =
        [config, pc2.scratch().join("radvd.pid")].map(|path| path.display().to_string());
    let _radvd = pc2.spawn("radvd", &["-n", "-m", "stderr", "-C", &config, "-p", &pid])?;
    wait_until("PC1 has an address", SOON, || {
        let addresses = pc1.ip("-6 -o addr show dev eth0 scope global")?;
        ensure!(addresses.contains("2001:db8:110:"), "{addresses}");
        Ok(())
    })?;
    ping_until_answered(pc1, ipv6::PC2, SOON)?;
    ping_all(pc1, ipv6::PC2, 10)?;
    assert_eq!(neighbour(pc1, ipv6::PC2)?, pc2.mac("eth0")?);
    let routes = pc1.ip("-6 route show default")?;
    ensure!(routes.contains("proto ra"), "{routes}");
    Ok(())
}
