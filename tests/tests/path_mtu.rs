//! Paths that take less than the underlay's first link, and what routers say about outer packets.
//!
//! ```text
//!  PC1 ------- R1 ====== router ====== R2 ----- switch ----- PC2
//!      1500       1500     ^    1400         1500
//!                          takes no more than 1400 towards either gateway, and says so
//! ```
//! The links' own MTUs stay 1500: it is a route's MTU, so that no frame is lost unheard.

use anyhow::{Context as _, Result, ensure};
use tests::{
    capture::{Capture, Unjudged},
    config::{Gateway, Xdp},
    counters::Packets,
    gateways::{Gateways, SOON},
    in_each_xdp_mode, ipv6,
    namespace::Namespace,
    process::wait_until,
    topology::{Lab, PC1, PC2, R1_TUNNEL, R1_WAN, R2_LAN, R2_TUNNEL, R2_WAN},
    traffic::{
        Flow, Load, compare_segments, ping_all, ping_exact, ping_until_answered, scapy_send, snmp,
        tcp, udp,
    },
    xgre::{outcome, tunnel, xgre},
};

in_each_xdp_mode!(
    icmp1_a_router_teaches_the_tunnel_and_the_tunnel_its_senders,
    pmtu1_tcp_adapts_to_the_path,
    pmtu4_what_may_be_cut_arrives_by_inner_fragments,
    icmp1_packet_too_big_teaches_a_tunnel_over_ipv6,
    rfc7676_3_a_path_that_takes_less_than_ipv6_is_promised_is_told_and_bridged,
    rfc7676_4_a_path_of_1280_gets_outer_fragments,
    rfc7588_2_outer_fragments_are_put_together_by_the_far_gateway,
    full_size_packets_go_in_two_fragments_that_the_programs_cut_and_join,
    full_size_segments_flow_in_fragments_of_hosts_and_of_gateways,
    full_size_datagrams_arrive_in_fragments_all_of_them,
    of_three_fragments_the_daemon_makes_and_gets_all,
    #[ignore = "a measurement"]
    what_fragments_cost,
    rfc7588_5_fragments_out_of_order_and_twice_are_put_together_once,
    a_reassembled_packet_may_be_longer_than_the_devices_mtu,
    icmp2_forged_errors_teach_nothing,
    icmp2_forged_errors_over_ipv6_teach_nothing,
    icmp3_errors_that_say_nothing_about_the_path_are_ignored,
    rfc7588_4_no_path_is_taken_to_carry_less_than_every_link_does,
    t7_an_unreachable_underlay_is_told_to_inner_senders,
    icmp4_an_unreachable_underlay_is_told_to_ipv6_senders,
);

const NARROW: u32 = 1400;

/// Towards both gateways.
fn narrow(lab: &Lab, mtu: u32) -> Result<()> {
    lab.router.ip(&format!("route replace {R2_WAN}/32 dev to-r2 mtu {mtu}"))?;
    lab.router.ip(&format!("route replace {R1_WAN}/32 dev to-r1 mtu {mtu}"))?;
    Ok(())
}

fn narrow6(lab: &Lab, mtu: u32) -> Result<()> {
    lab.router.ip(&format!("route replace {}/128 dev to-r2 mtu lock {mtu}", ipv6::R2_WAN))?;
    lab.router.ip(&format!("route replace {}/128 dev to-r1 mtu lock {mtu}", ipv6::R1_WAN))?;
    Ok(())
}

fn over_ipv4(xdp: Xdp, options: &[&str]) -> Result<Gateways> {
    let configs = ipv6::both([R1_WAN, R2_WAN]).map(|config| config.options(options));
    start(xdp, configs)
}

fn over_ipv6(xdp: Xdp) -> Result<Gateways> {
    start(xdp, ipv6::both([ipv6::R1_WAN, ipv6::R2_WAN]))
}

fn start(xdp: Xdp, configs: [Gateway; 2]) -> Result<Gateways> {
    let gateways = Gateways::start_in(Lab::with_ipv6()?, xdp, configs)?;
    gateways.settle()?;
    gateways.settle6()?;
    Ok(gateways)
}

/// Both gateways learn what the path to the other takes, from packets of a host that fit the tunnel.
fn teach(gateways: &Gateways, mtu: u32, remotes: [&str; 2]) -> Result<()> {
    let Gateways { lab, .. } = gateways;
    for (host, gateway, to, remote) in
        [(&lab.pc1, &lab.r1, PC2, remotes[1]), (&lab.pc2, &lab.r2, PC1, remotes[0])]
    {
        wait_until("the gateway has learned", SOON, || {
            // Lost, and heard of by the gateway alone.
            ping_exact(host, to, 1400)?;
            let shown = xgre(gateway, "tunnel show tunnel0")?;
            let line = format!("path to {remote}: mtu {mtu} expires 5");
            ensure!(shown.contains(&line), "no \"{line}\" in\n{shown}");
            Ok(())
        })?;
        let shown = tunnel(gateway, "tunnel0")?.context("no tunnel0")?;
        let learned = &shown["path_mtus"][0];
        ensure!(learned["remote"] == remote && learned["mtu"] == mtu, "{shown}");
        ensure!(outcome(gateway, "daemon", "path-mtu-learned")? == 1);
    }
    Ok(())
}

fn icmp1_a_router_teaches_the_tunnel_and_the_tunnel_its_senders(xdp: Xdp) -> Result<()> {
    let gateways = over_ipv4(xdp, &[])?;
    let Gateways { lab, .. } = &gateways;
    narrow(lab, NARROW)?;
    teach(&gateways, NARROW, [R1_WAN, R2_WAN])?;
    senders_are_told(lab, NARROW - 24)
}

/// A packet of the MTU passes; of one more byte the sender is told.
fn senders_are_told(lab: &Lab, mtu: u32) -> Result<()> {
    let told4 = format!("Frag needed and DF set (mtu = {mtu})");
    let told6 = format!("Packet too big: mtu={mtu}");
    for (host, to, headers, told) in [
        (&lab.pc1, PC2, 28, &told4),
        (&lab.pc2, PC1, 28, &told4),
        (&lab.pc1, ipv6::PC2, 48, &told6),
        (&lab.pc2, ipv6::PC1, 48, &told6),
    ] {
        let exceeds = ping_exact(host, to, mtu - headers + 1)?;
        ensure!(exceeds.contains(told), "no \"{told}\" in\n{exceeds}");
        wait_until("what fits passes both ways", SOON, || {
            let fits = ping_exact(host, to, mtu - headers)?;
            ensure!(fits.contains(" 1 received"), "{fits}");
            Ok(())
        })?;
    }
    Ok(())
}

fn pmtu1_tcp_adapts_to_the_path(xdp: Xdp) -> Result<()> {
    let gateways = over_ipv4(xdp, &[])?;
    let Gateways { lab, .. } = &gateways;
    narrow(lab, NARROW)?;
    for (client, server, to) in [
        (&lab.pc1, &lab.pc2, PC2),
        (&lab.pc1, &lab.pc2, ipv6::PC2),
        // The gateway's own, whose super-packets are handed up in part.
        (&lab.r1, &lab.r2, R2_LAN),
        (&lab.r1, &lab.r2, ipv6::R2_LAN),
    ] {
        for flow in [Flow::ToServer, Flow::ToClient] {
            let rate = tcp(client, server, to, Load::OneMegabyte, flow)?;
            ensure!(rate > 4e6, "{flow:?} to {to} at {rate:.0} bit/s");
        }
    }
    Ok(())
}

fn pmtu4_what_may_be_cut_arrives_by_inner_fragments(xdp: Xdp) -> Result<()> {
    let gateways = over_ipv4(xdp, &[])?;
    let Gateways { lab, .. } = &gateways;
    narrow(lab, NARROW)?;
    teach(&gateways, NARROW, [R1_WAN, R2_WAN])?;
    let capture = Capture::start(&lab.router, "to-r2", &format!("src host {R1_WAN}"))?;
    for payload in [1349, 1448, 1472, 4000] {
        let line = format!("ping -n -c 3 -i 0.01 -W 1 -M dont -s {payload} {PC2}");
        let said = lab.pc1.run(&line)?;
        ensure!(said.contains(" 3 received"), "{said}");
    }
    for row in capture.finish(12)?.fields(&["ip.len", "ip.flags.mf", "ip.frag_offset"])? {
        let outer = |i: usize| row[i].split(',').next().unwrap_or_default().to_owned();
        ensure!(outer(0).parse::<u32>()? <= NARROW, "{row:?}");
        ensure!(outer(1) == "0" && outer(2) == "0", "an outer fragment: {row:?}");
    }
    Ok(())
}

fn icmp1_packet_too_big_teaches_a_tunnel_over_ipv6(xdp: Xdp) -> Result<()> {
    let gateways = over_ipv6(xdp)?;
    let Gateways { lab, .. } = &gateways;
    narrow6(lab, NARROW)?;
    teach(&gateways, NARROW, [ipv6::R1_WAN, ipv6::R2_WAN])?;
    senders_are_told(lab, NARROW - 44)?;
    for to in [PC2, ipv6::PC2] {
        for flow in [Flow::ToServer, Flow::ToClient] {
            tcp(&lab.pc1, &lab.pc2, to, Load::OneMegabyte, flow)?;
        }
    }
    Ok(())
}

/// The headers are 44 bytes: of an underlay of 1324 IPv6 gets what it is promised, and of one byte less
/// it does not, whether the gateway's own interface has it, its route, or a router told of it.
fn rfc7676_3_a_path_that_takes_less_than_ipv6_is_promised_is_told_and_bridged(
    xdp: Xdp,
) -> Result<()> {
    let gateways = over_ipv6(xdp)?;
    let Gateways { lab, .. } = &gateways;
    ipv6_is_carried(lab, 1456, false)?;
    for (underlay, is_narrow) in [(1324, false), (1323, true)] {
        lab.r1.ip(&format!("link set wan mtu {underlay}"))?;
        ipv6_is_carried(lab, underlay - 44, is_narrow)?;
    }
    lab.r1.ip("link set wan mtu 1500")?;
    ipv6_is_carried(lab, 1456, false)?;

    let route = format!("{}/128 via {}", ipv6::R2_WAN, ipv6::ROUTER_TO_R1);
    lab.r1.ip(&format!("route add {route} mtu 1323"))?;
    ipv6_is_carried(lab, 1279, true)?;
    lab.r1.ip(&format!("route del {route}"))?;
    ipv6_is_carried(lab, 1456, false)?;

    narrow6(lab, 1280)?;
    teach(&gateways, 1280, [ipv6::R1_WAN, ipv6::R2_WAN])?;
    ipv6_is_carried(lab, 1236, true)?;
    let log = gateways.r1.stop()?;
    let said = |what: &str| log.matches(what).count();
    assert_eq!(said("the path carries less than the 1280 bytes"), 3, "{log}");
    assert_eq!(said("IPv6 needs no outer fragments any more"), 2, "{log}");
    Ok(())
}

/// R1 says how long an inner packet its path takes, and whether that is too little for IPv6; what IPv6 is
/// promised arrives in any case.
fn ipv6_is_carried(lab: &Lab, payload_mtu: u32, is_narrow: bool) -> Result<()> {
    wait_until(&format!("R1 says {payload_mtu}"), SOON, || {
        let told = tunnel(&lab.r1, "tunnel0")?.context("no tunnel0")?;
        ensure!(told["payload_mtu"] == payload_mtu, "{told}");
        Ok(())
    })?;
    let shown = xgre(&lab.r1, "tunnel show tunnel0")?;
    let line = format!("path too narrow for IPv6: it takes {payload_mtu} of 1280 bytes");
    ensure!(shown.contains(&line) == is_narrow, "{shown}");
    wait_until("1280 bytes arrive", SOON, || {
        let before = outcome(&lab.r1, "daemon", "outer-fragmented")?;
        let said = ping_exact(&lab.pc1, ipv6::PC2, 1280 - 48)?;
        ensure!(said.contains(" 1 received"), "{said}");
        let fragmented = outcome(&lab.r1, "daemon", "outer-fragmented")? - before;
        assert_eq!(fragmented, u64::from(is_narrow));
        Ok(())
    })
}

/// IPv6 within is promised 1280 bytes, of which the path takes but 1236.
fn rfc7676_4_a_path_of_1280_gets_outer_fragments(xdp: Xdp) -> Result<()> {
    let gateways = over_ipv6(xdp)?;
    let Gateways { lab, .. } = &gateways;
    narrow6(lab, 1280)?;
    teach(&gateways, 1280, [ipv6::R1_WAN, ipv6::R2_WAN])?;
    let capture = Capture::start(&lab.router, "to-r2", &format!("src host {}", ipv6::R1_WAN))?;
    let said = lab.pc1.run(&format!("ping -n -c 3 -i 0.01 -W 1 -M do -s 1232 {}", ipv6::PC2))?;
    ensure!(said.contains(" 3 received"), "{said}");
    // tshark puts them together, and judges the whole.
    let rows = capture.finish(6)?.fields(&["ipv6.plen", "ipv6.fraghdr.nxt"])?;
    ensure!(rows.len() == 6, "{rows:?}");
    ensure!(rows.iter().all(|row| row[1].starts_with("47")), "{rows:?}");
    Ok(())
}

const IGNORE_DF: [&str; 4] =
    ["ttl = \"inherit\"", "pmtudisc = false", "ignore-df = true", "mtu = 1500"];

fn rfc7588_2_outer_fragments_are_put_together_by_the_far_gateway(xdp: Xdp) -> Result<()> {
    let gateways = over_ipv4(xdp, &IGNORE_DF)?;
    let Gateways { lab, .. } = &gateways;
    let capture = Capture::start(&lab.router, "to-r2", &format!("src host {R1_WAN}"))?;
    for (host, to) in [(&lab.pc1, PC2), (&lab.pc2, PC1)] {
        for (payload, df) in [(1472, "do"), (1472, "dont"), (8000, "dont")] {
            let line = format!("ping -n -c 3 -i 0.05 -W 1 -M {df} -s {payload} {to}");
            let said = host.run(&line)?;
            ensure!(said.contains(" 3 received"), "{said}");
        }
    }
    let frames = capture.finish(12)?;
    for row in frames.fields(&["frame.len"])? {
        ensure!(row[0].parse::<u32>()? <= 1514, "{row:?}");
    }
    for flow in [Flow::ToServer, Flow::ToClient] {
        tcp(&lab.pc1, &lab.pc2, PC2, Load::OneMegabyte, flow)?;
    }
    Ok(())
}

/// As one tunnel counts `count` pings of 1500 bytes that are answered, all in TC.
fn full_size(count: u64) -> Packets {
    Packets {
        rx_tc: count,
        tx_tc: count,
        rx_bytes: 1500 * count,
        tx_bytes: 1500 * count,
        ..Packets::default()
    }
}

/// Nothing of the fragments was the daemon's affair, and none got lost.
fn only_the_programs_had_fragments(gateways: &Gateways) -> Result<()> {
    for gateway in [&gateways.lab.r1, &gateways.lab.r2] {
        for reason in ["outer-fragmented", "answered-too-big", "fragment-held", "to-device"] {
            ensure!(outcome(gateway, "daemon", reason)? == 0, "{}", xgre(gateway, "stats")?);
        }
        ensure!(outcome(gateway, "tc", "aborted")? == 0, "{}", xgre(gateway, "stats")?);
    }
    Ok(())
}

fn full_size_packets_go_in_two_fragments_that_the_programs_cut_and_join(xdp: Xdp) -> Result<()> {
    for options in [&["csum = false"][..], &["csum = true", "seq = true", "key = 42"]] {
        let gateways = over_ipv4(xdp, &[&IGNORE_DF, options].concat())?;
        let Gateways { lab, .. } = &gateways;
        let overhead = if options.len() > 1 { 36 } else { 24 };
        let capture = Capture::start(&lab.router, "to-r2", &format!("src host {R1_WAN}"))?;
        for (host, to, payload) in [
            (&lab.pc1, PC2, 1472),
            (&lab.pc2, PC1, 1472),
            (&lab.pc1, ipv6::PC2, 1452),
            (&lab.pc2, ipv6::PC1, 1452),
        ] {
            let found = gateways.during(|| {
                let line = format!("ping -n -c 10 -i 0.01 -W 1 -M do -s {payload} {to}");
                let said = host.run(&line)?;
                ensure!(said.contains(" 10 received"), "{said}");
                Ok(())
            })?;
            assert_eq!(found, [full_size(10); 2], "{options:?}, to {to}");
        }
        let names = ["ip.len", "ip.flags.mf", "ip.frag_offset", "ip.id"];
        let rows = capture.finish(80)?.fields(&names)?;
        ensure!(rows.len() == 80, "{} frames", rows.len());
        // tshark shows what is inside behind the second, where it has put them together.
        let outer = |row: &[String]| -> Vec<String> {
            row.iter().map(|field| field.split(',').next().unwrap_or_default().into()).collect()
        };
        for (number, pair) in rows.chunks(2).enumerate() {
            let (first, last) = (outer(&pair[0]), outer(&pair[1]));
            let rest = (20 + overhead).to_string();
            ensure!(first[..3] == ["1500", "1", "0"], "packet {number}: {first:?}");
            ensure!(last[..3] == [&rest, "0", "185"], "packet {number}: {last:?}");
            ensure!(first[3] == last[3], "packet {number}: {first:?} {last:?}");
        }
        for gateway in [&lab.r1, &lab.r2] {
            for what in ["fragmented", "fragment-waiting"] {
                assert_eq!(
                    outcome(gateway, "tc", what)?,
                    40,
                    "{what}\n{}",
                    xgre(gateway, "stats")?
                );
            }
        }
        only_the_programs_had_fragments(&gateways)?;
    }
    Ok(())
}

fn full_size_segments_flow_in_fragments_of_hosts_and_of_gateways(xdp: Xdp) -> Result<()> {
    for options in [&["csum = false"][..], &["csum = true", "seq = true", "key = 42"]] {
        let gateways = over_ipv4(xdp, &[&IGNORE_DF, options].concat())?;
        let Gateways { lab, .. } = &gateways;
        let capture = Capture::start(&lab.router, "to-r2", &format!("src host {R1_WAN}"))?;
        for (client, server, to) in [
            (&lab.pc1, &lab.pc2, PC2),
            (&lab.pc1, &lab.pc2, ipv6::PC2),
            // The gateway's own, whose checksums nobody has done before its device does.
            (&lab.r1, &lab.r2, R2_LAN),
            (&lab.r1, &lab.r2, ipv6::R2_LAN),
        ] {
            for flow in [Flow::ToServer, Flow::ToClient] {
                tcp(client, server, to, Load::OneMegabyte, flow)?;
            }
        }
        let frames = capture.finish(6000)?;
        for row in frames.fields(&["frame.len"])? {
            ensure!(row[0].parse::<u32>()? <= 1514, "{row:?}");
        }
        only_the_programs_had_fragments(&gateways)?;
        for flow in [Flow::ToServer, Flow::ToClient] {
            let rate = tcp(&lab.pc1, &lab.pc2, PC2, Load::Seconds(1), flow)?;
            ensure!(rate > 20e6, "{options:?}, {flow:?} at {rate:.0} bit/s");
        }
    }
    Ok(())
}

fn full_size_datagrams_arrive_in_fragments_all_of_them(xdp: Xdp) -> Result<()> {
    let gateways = over_ipv4(xdp, &IGNORE_DF)?;
    let Gateways { lab, .. } = &gateways;
    for (client, server, to) in [(&lab.pc1, &lab.pc2, PC2), (&lab.r1, &lab.r2, R2_LAN)] {
        let counts = || -> Result<[u64; 2]> {
            Ok([outcome(&lab.r1, "tc", "fragmented")?, outcome(&lab.r2, "tc", "fragment-waiting")?])
        };
        let before = counts()?;
        let [_, r2] = gateways.during(|| udp(client, server, to, 2000, 1472))?;
        let after = counts()?;
        assert_eq!([after[0] - before[0], after[1] - before[1]], [2000; 2], "to {to}");
        ensure!(r2.rx() >= 2000 && r2.rx_bytes >= 2000 * 1500 && r2.drops == 0, "{r2:?}");
        ensure!(snmp(server, "Udp: ", "InDatagrams")? > 1000, "to {to}");
        assert_eq!(snmp(server, "Udp: ", "InCsumErrors")?, 0, "to {to}");
    }
    only_the_programs_had_fragments(&gateways)
}

/// TCP between the hosts, in segments of which each goes in two fragments and in those that just go
/// whole, in turn: the ratio of the rates.
fn what_fragments_cost(xdp: Xdp) -> Result<()> {
    let gateways = over_ipv4(xdp, &IGNORE_DF)?;
    let Gateways { lab, .. } = &gateways;
    // 1500 and 1476 bytes in all.
    compare_segments(&format!("{xdp:?}"), (&lab.pc1, &lab.pc2, PC2), [1460, 1436])
}

/// What the programs do not cut, the far ones do not join.
fn of_three_fragments_the_daemon_makes_and_gets_all(xdp: Xdp) -> Result<()> {
    let options = ["pmtudisc = false", "ignore-df = true", "mtu = 4000"];
    let gateways = over_ipv4(xdp, &options)?;
    let Gateways { lab, .. } = &gateways;
    let line = format!("ping -n -c 5 -i 0.05 -W 1 -M do -s 3500 {R2_TUNNEL}");
    let said = lab.r1.run(&line)?;
    ensure!(said.contains(" 5 received"), "{said}");
    for gateway in [&lab.r1, &lab.r2] {
        assert_eq!(outcome(gateway, "daemon", "outer-fragmented")?, 5);
        assert_eq!(outcome(gateway, "daemon", "to-device")?, 5);
    }
    Ok(())
}

/// What a tunnel's peer may send is no matter of this end's MTU.
fn a_reassembled_packet_may_be_longer_than_the_devices_mtu(xdp: Xdp) -> Result<()> {
    let [r1, r2] = ipv6::both([R1_WAN, R2_WAN]);
    let gateways = start(xdp, [r1.options(&IGNORE_DF), r2])?;
    let Gateways { lab, .. } = &gateways;
    for to in [PC2, R2_LAN, R2_TUNNEL] {
        let line = format!("ping -n -c 3 -i 0.05 -W 1 -M dont -s 1472 {to}");
        let said = lab.pc1.run(&line)?;
        ensure!(said.contains(" 3 received"), "{said}");
    }
    // The answers are cut inside, and so need no help.
    ensure!(outcome(&lab.r2, "tc", "fragment-waiting")? >= 9);
    Ok(())
}

fn rfc7588_5_fragments_out_of_order_and_twice_are_put_together_once(xdp: Xdp) -> Result<()> {
    let gateways = over_ipv4(xdp, &[])?;
    let Gateways { lab, .. } = &gateways;
    let answers = Capture::start(&lab.pc1, "eth0", "icmp[icmptype] == icmp-echoreply")?;
    // From R1 in place of xgre, as far as R2 can tell: a ping of PC1, in three fragments, each twice
    // and the last first.
    let ping = format!(
        "fragment(IP(src='{R1_WAN}', dst='{R2_WAN}', id=77, proto=47)/GRE()\
         /IP(src='{PC1}', dst='{PC2}')/ICMP(id=5, seq=9)/(b'x' * 1200), fragsize=480)"
    );
    scapy_send(&lab.router, &format!("[p for f in reversed({ping}) for p in (f, f)]"))?;
    // The last duplicate comes when the packet is whole, and starts one that never will be.
    let frames = answers.finish_unjudged(Unjudged::WrongOnPurpose, 1, |_| true)?;
    assert_eq!(frames.fields(&["icmp.ident", "icmp.seq", "ip.len"])?, [["5", "9", "1228"]]);
    assert_eq!(outcome(&lab.r2, "daemon", "to-device")?, 1);
    assert_eq!(outcome(&lab.r2, "daemon", "fragment-duplicate")?, 2);
    Ok(())
}

fn icmp2_forged_errors_teach_nothing(xdp: Xdp) -> Result<()> {
    let gateways = over_ipv4(xdp, &["key = 42"])?;
    let Gateways { lab, .. } = &gateways;
    let error =
        format!("IP(src='10.56.88.1', dst='{R1_WAN}')/ICMP(type=3, code=4, nexthopmtu=1000)/");
    let inner = format!("/IP(src='{PC1}', dst='{PC2}')/UDP()");
    let quote = |source: &str, to: &str, rest: &str| {
        format!("[{error}IP(src='{source}', dst='{to}', flags='DF')/{rest}{inner}]")
    };
    let ours = "GRE(key_present=1, key=42)";
    for (what, packets, reason) in [
        ("another remote", quote(R1_WAN, "192.168.22.77", ours), "icmp-not-ours"),
        ("another local", quote("10.56.88.67", R2_WAN, ours), "icmp-not-ours"),
        ("another key", quote(R1_WAN, R2_WAN, "GRE(key_present=1, key=43)"), "icmp-not-ours"),
        ("no key", quote(R1_WAN, R2_WAN, "GRE()"), "icmp-not-ours"),
        ("no tunnel", quote(R1_WAN, R2_WAN, "UDP()"), "icmp-not-ours"),
        (
            "a wrong checksum",
            quote(R1_WAN, R2_WAN, ours).replace("nexthopmtu=1000", "nexthopmtu=1000, chksum=1"),
            "icmp-malformed",
        ),
    ] {
        let before = outcome(&lab.r1, "daemon", reason)?;
        scapy_send(&lab.router, &packets)?;
        wait_until(&format!("{what} is counted as {reason}"), SOON, || {
            let found = outcome(&lab.r1, "daemon", reason)? - before;
            ensure!(found == 1, "{found}");
            Ok(())
        })?;
        let shown = xgre(&lab.r1, "tunnel show tunnel0")?;
        ensure!(!shown.contains("path to"), "{what}:\n{shown}");
    }
    // The same with nothing wrong is believed.
    scapy_send(&lab.router, &quote(R1_WAN, R2_WAN, ours))?;
    wait_until("the path's MTU is shown", SOON, || {
        let shown = xgre(&lab.r1, "tunnel show tunnel0")?;
        ensure!(shown.contains(&format!("path to {R2_WAN}: mtu 1000 expires 5")), "{shown}");
        Ok(())
    })
}

fn icmp2_forged_errors_over_ipv6_teach_nothing(xdp: Xdp) -> Result<()> {
    let gateways = over_ipv6(xdp)?;
    let Gateways { lab, .. } = &gateways;
    let (local, remote) = (ipv6::R1_WAN, ipv6::R2_WAN);
    let error =
        format!("IPv6(src='{}', dst='{local}')/ICMPv6PacketTooBig(mtu=1300)/", ipv6::ROUTER_TO_R1);
    let quote = |source: &str, to: &str, rest: &str| {
        format!(
            "[{error}IPv6(src='{source}', dst='{to}')/{rest}/IPv6(src='{}', dst='{}')/UDP()]",
            ipv6::PC1,
            ipv6::PC2
        )
    };
    let gre = "GRE(proto=0x86dd)";
    for (what, packets) in [
        ("another remote", quote(local, "2001:db8:22::77", gre)),
        ("another local", quote("2001:db8:56::77", remote, gre)),
        ("a key", quote(local, remote, "GRE(proto=0x86dd, key_present=1, key=1)")),
        ("no tunnel", quote(local, remote, "UDP()")),
    ] {
        let before = outcome(&lab.r1, "daemon", "icmp-not-ours")?;
        scapy_send(&lab.router, &packets)?;
        wait_until(&format!("{what} is counted"), SOON, || {
            let found = outcome(&lab.r1, "daemon", "icmp-not-ours")? - before;
            ensure!(found == 1, "{found}");
            Ok(())
        })?;
        let shown = xgre(&lab.r1, "tunnel show tunnel0")?;
        ensure!(!shown.contains("path to"), "{what}:\n{shown}");
    }
    scapy_send(&lab.router, &quote(local, remote, gre))?;
    wait_until("the path's MTU is shown", SOON, || {
        let shown = xgre(&lab.r1, "tunnel show tunnel0")?;
        ensure!(shown.contains(&format!("path to {remote}: mtu 1300 expires 5")), "{shown}");
        Ok(())
    })
}

/// An ICMP error of the router about a packet of R1's, which held one of PC1's.
fn about_a_packet(icmp: &str) -> String {
    format!(
        "[IP(src='10.56.88.1', dst='{R1_WAN}')/ICMP({icmp})\
         /IP(src='{R1_WAN}', dst='{R2_WAN}', flags='DF')/GRE()/IP(src='{PC1}', dst='{PC2}')/UDP()]"
    )
}

fn icmp3_errors_that_say_nothing_about_the_path_are_ignored(xdp: Xdp) -> Result<()> {
    let gateways = over_ipv4(xdp, &["ttl = \"inherit\""])?;
    let Gateways { lab, .. } = &gateways;
    // Port unreachable, source route failed, reassembly that timed out, and since the outer TTL is
    // the inner one's, a TTL that ran out.
    for icmp in ["type=3, code=3", "type=3, code=5", "type=11, code=1", "type=11, code=0"] {
        let before = outcome(&lab.r1, "daemon", "icmp-ignored")?;
        scapy_send(&lab.router, &about_a_packet(icmp))?;
        wait_until(&format!("{icmp} is ignored"), SOON, || {
            let found = outcome(&lab.r1, "daemon", "icmp-ignored")? - before;
            ensure!(found == 1, "{found}");
            Ok(())
        })?;
    }
    assert_eq!(outcome(&lab.r1, "daemon", "icmp-relayed")?, 0);
    let shown = xgre(&lab.r1, "tunnel show tunnel0")?;
    ensure!(!shown.contains("path to"), "{shown}");
    ping_all(&lab.pc1, PC2, 3)
}

fn rfc7588_4_no_path_is_taken_to_carry_less_than_every_link_does(xdp: Xdp) -> Result<()> {
    let gateways = over_ipv4(xdp, &[])?;
    let Gateways { lab, .. } = &gateways;
    scapy_send(&lab.router, &about_a_packet("type=3, code=4, nexthopmtu=1"))?;
    wait_until("the path's MTU is shown", SOON, || {
        let shown = xgre(&lab.r1, "tunnel show tunnel0")?;
        ensure!(shown.contains(&format!("path to {R2_WAN}: mtu 68 expires 5")), "{shown}");
        Ok(())
    })?;
    // Little of it is left for the inner packet, but what no sender can be asked to shorten arrives.
    wait_until("a ping arrives in outer fragments", SOON, || ping_all(&lab.pc1, PC2, 3))?;
    ensure!(outcome(&lab.r1, "daemon", "outer-fragmented")? >= 3);
    Ok(())
}

fn t7_an_unreachable_underlay_is_told_to_inner_senders(xdp: Xdp) -> Result<()> {
    let gateways = over_ipv4(xdp, &[])?;
    let Gateways { lab, .. } = &gateways;
    lab.router.ip(&format!("route add unreachable {R2_WAN}/32"))?;
    lab.router.sysctl("net.ipv4.icmp_ratelimit", 0)?;
    let told = format!("From {R1_TUNNEL} icmp_seq=1 Destination Host Unreachable");
    let said = ping_exact(&lab.pc1, PC2, 56)?;
    ensure!(said.contains(&told), "no \"{told}\" in\n{said}");
    ensure!(outcome(&lab.r1, "daemon", "icmp-relayed")? >= 1);

    // A flood is not answered with as many. It is forged, since a router limits itself.
    let count = |reason| outcome(&lab.r1, "daemon", reason);
    let before = [count("icmp-relayed")?, count("rate-limited")?];
    scapy_send(
        &lab.router,
        &format!(
            "[IP(src='10.56.88.1', dst='{R1_WAN}')/ICMP(type=3, code=1)\
             /IP(src='{R1_WAN}', dst='{R2_WAN}')/GRE()/IP(src='{PC1}', dst='{PC2}')/UDP()] * 400"
        ),
    )?;
    wait_until("the flood has been dealt with", SOON, || {
        let [told, refused] =
            [count("icmp-relayed")? - before[0], count("rate-limited")? - before[1]];
        ensure!(told + refused == 400 && told >= 50 && refused > 0, "{told} told, {refused} not");
        Ok(())
    })?;

    lab.router.ip(&format!("route del unreachable {R2_WAN}/32"))?;
    ping_until_answered(&lab.pc1, PC2, SOON)?;
    ping_all(&lab.pc1, PC2, 20)
}

fn icmp4_an_unreachable_underlay_is_told_to_ipv6_senders(xdp: Xdp) -> Result<()> {
    for gateways in [over_ipv4(xdp, &[])?, over_ipv6(xdp)?] {
        let Gateways { lab, .. } = &gateways;
        unreachable(&lab.router)?;
        let said = ping_exact(&lab.pc1, ipv6::PC2, 56)?;
        let told = format!(
            "From {} icmp_seq=1 Destination unreachable: Address unreachable",
            ipv6::TUNNEL_OF_R1
        );
        ensure!(said.contains(&told), "no \"{told}\" in\n{said}");
    }
    Ok(())
}

/// R2, for the router.
fn unreachable(router: &Namespace) -> Result<()> {
    for (address, len) in [(R2_WAN, 32), (ipv6::R2_WAN, 128)] {
        router.ip(&format!("route add unreachable {address}/{len} metric 1"))?;
    }
    Ok(())
}
