//! S10 at layer 2: the MTU that the tunnel's device has by default, and what becomes of frames that its
//! path does not carry.

use anyhow::{Result, ensure};
use tests::{
    capture::Capture,
    config::{Gateway, Xdp},
    gateways::SOON,
    in_each_xdp_mode, ipv6,
    lan::{Bridged, Carried, Lan, OVER_IPV4, OVER_IPV6, PC1, PC2, TUNNEL},
    process::wait_until,
    topology::{R1_WAN, R2_WAN},
    traffic::{
        Flow, Load, compare_segments, ping_exact, ping_until_answered, scapy_send_frames, tcp,
    },
    xgre::{Daemon, attempt, outcome},
};

in_each_xdp_mode!(
    what_just_fits_passes_and_one_byte_more_is_answered,
    d10_full_frames_arrive_in_outer_fragments_where_nopmtudisc_allows,
    d10_pmtu5_the_sender_of_a_full_frame_is_told_through_the_bridge,
    d10_senders_of_full_frames_of_ipv6_are_told_as_well,
    d10_what_may_be_cut_arrives_by_inner_fragments,
    pmtu5_nothing_is_told_to_groups_loopback_or_of_errors,
    mss_auto_clamps_bridged_tcp,
    #[ignore = "a measurement"]
    what_fragments_of_frames_cost,
);

/// IPv4 header and ICMP header.
const PING_HEADERS: u32 = 28;
/// Bytes of the longest IP packet on Ethernet.
const FULL: u32 = 1500;
const WITH_NOPMTUDISC: [&str; 2] = ["mtu = 1500", "pmtudisc = false"];
const WITH_PMTUDISC: [&str; 1] = ["mtu = 1500"];

macro_rules! cells {
    ($($name:ident: $ends:expr, $options:expr, $mtu:literal;)*) => {
        $(#[test]
        fn $name() -> Result<()> {
            default_mtu($ends, &$options, $mtu)
        })*
    };
}

cells! {
    mtu_gretap_plain_is_1462: OVER_IPV4, [], 1462;
    mtu_gretap_key_is_1458: OVER_IPV4, ["key = 1"], 1458;
    mtu_gretap_key_csum_is_1454: OVER_IPV4, ["key = 1", "csum = true"], 1454;
    mtu_gretap_key_csum_seq_is_1450: OVER_IPV4, ["key = 1", "csum = true", "seq = true"], 1450;
    mtu_ip6gretap_without_a_limit_is_1442: OVER_IPV6, [], 1442;
    mtu_ip6gretap_plain_is_1434: OVER_IPV6, ["encaplimit = 4"], 1434;
    mtu_ip6gretap_key_is_1430: OVER_IPV6, ["encaplimit = 4", "key = 1"], 1430;
    mtu_ip6gretap_key_csum_is_1426: OVER_IPV6, ["encaplimit = 4", "key = 1", "csum = true"], 1426;
    mtu_ip6gretap_key_csum_seq_is_1422:
        OVER_IPV6, ["encaplimit = 4", "key = 1", "csum = true", "seq = true"], 1422;
}

/// The device has it, and a frame around a packet of so many bytes makes one of the underlay's longest.
fn default_mtu(ends: [&str; 2], options: &[&str], mtu: u32) -> Result<()> {
    let bridged = Bridged::joined(Xdp::Native, ends, options)?;
    let Lan { pc1, r1, router, .. } = &bridged.lan;
    let device = r1.ip(&format!("-o link show dev {TUNNEL}"))?;
    ensure!(device.contains(&format!("mtu {mtu} ")), "{mtu} expected: {device}");
    let capture = Capture::start(router, "to-r2", &format!("src host {}", ends[0]))?;
    let fits = ping_exact(pc1, PC2, mtu - PING_HEADERS)?;
    ensure!(fits.contains(" 1 received"), "{fits}");
    assert_eq!(capture.finish(1)?.fields(&["frame.len"])?, [["1514"]]);
    Ok(())
}

fn what_just_fits_passes_and_one_byte_more_is_answered(xdp: Xdp) -> Result<()> {
    for (ends, mtu) in [(OVER_IPV4, 1462), (OVER_IPV6, 1442)] {
        let bridged = Bridged::joined(xdp, ends, &[])?;
        let Lan { pc1, .. } = &bridged.lan;
        let fits = || {
            let fits = ping_exact(pc1, PC2, mtu - PING_HEADERS)?;
            ensure!(fits.contains(" 1 received"), "{fits}");
            Ok(())
        };
        let found = bridged.during(fits)?;
        assert_eq!(found, [Carried::both_ways(1, u64::from(mtu) + 14); 2]);
        told(&bridged.lan, mtu - PING_HEADERS + 1, mtu)?;
        fits()?;
    }
    Ok(())
}

/// PC1 is told in PC2's name, and its kernel believes it.
fn told(lan: &Lan, payload: u32, mtu: u32) -> Result<()> {
    let exceeds = ping_exact(&lan.pc1, PC2, payload)?;
    let answer = format!("From {PC2} icmp_seq=1 Frag needed and DF set (mtu = {mtu})");
    ensure!(exceeds.contains(&answer) && exceeds.contains(" 0 received"), "{exceeds}");
    let knows = ping_exact(&lan.pc1, PC2, payload)?;
    ensure!(knows.contains(&format!("message too long, mtu={mtu}")), "{knows}");
    Ok(())
}

fn d10_full_frames_arrive_in_outer_fragments_where_nopmtudisc_allows(xdp: Xdp) -> Result<()> {
    let bridged = Bridged::joined(xdp, OVER_IPV4, &WITH_NOPMTUDISC)?;
    let Lan { pc1, router, pc2, .. } = &bridged.lan;
    for (from, to, source) in [(pc1, PC2, R1_WAN), (pc2, PC1, R2_WAN)] {
        for df in ["do", "dont"] {
            let capture = Capture::start(router, "to-r2", "proto gre")?;
            let line = format!("ping -n -c 10 -i 0.01 -W 1 -M {df} -s 1472 {to}");
            let said = from.run(&line)?;
            ensure!(said.contains(" 10 received"), "{said}");
            // Two of each ping and two of its answer; tshark puts them together, and judges the whole.
            let rows = capture.finish(40)?.fields(&["ip.src", "ip.len", "ip.flags.df"])?;
            assert_eq!(rows.len(), 40);
            let from_here = rows.iter().filter(|row| row[0].starts_with(source)).count();
            assert_eq!(from_here, 20, "{rows:?}");
            for row in rows {
                let outer = |i: usize| row[i].split(',').next().unwrap_or_default().to_owned();
                ensure!(outer(1).parse::<u32>()? <= FULL && outer(2) == "0", "{row:?}");
            }
        }
    }
    for flow in [Flow::ToServer, Flow::ToClient] {
        tcp(pc1, pc2, PC2, Load::OneMegabyte, flow)?;
    }
    Ok(())
}

/// TCP between the hosts, in frames of which each goes in two outer fragments and in those that just go
/// whole, in turn: the ratio of the rates.
fn what_fragments_of_frames_cost(xdp: Xdp) -> Result<()> {
    let bridged = Bridged::joined(xdp, OVER_IPV4, &WITH_NOPMTUDISC)?;
    let Lan { pc1, pc2, .. } = &bridged.lan;
    // 1500 and 1462 bytes with IP and TCP.
    compare_segments(&format!("{xdp:?}"), (pc1, pc2, PC2), [1460, 1422])
}

fn d10_pmtu5_the_sender_of_a_full_frame_is_told_through_the_bridge(xdp: Xdp) -> Result<()> {
    for (ends, mtu) in [(OVER_IPV4, 1462), (OVER_IPV6, 1442)] {
        let bridged = Bridged::joined(xdp, ends, &WITH_PMTUDISC)?;
        let Lan { pc1, pc2, .. } = &bridged.lan;
        let capture = Capture::start(pc1, "eth0", "icmp[icmptype] == icmp-unreach")?;
        told(&bridged.lan, FULL - PING_HEADERS, mtu)?;
        // The addresses of both layers are the offender's, swapped.
        let fields = ["eth.src", "eth.dst", "ip.src", "ip.dst", "icmp.code", "icmp.mtu"];
        let expected = [
            pc2.mac("eth0")?,
            pc1.mac("eth0")?,
            format!("{PC2},{PC1}"),
            format!("{PC1},{PC2}"),
            // And that of the ping which is quoted.
            "4,0".into(),
            mtu.to_string(),
        ];
        assert_eq!(capture.finish(1)?.fields(&fields)?, [expected], "{fields:?}");
        for flow in [Flow::ToServer, Flow::ToClient] {
            let rate = tcp(pc1, pc2, PC2, Load::OneMegabyte, flow)?;
            ensure!(rate > 4e6, "{flow:?} over {ends:?} at {rate:.0} bit/s");
        }
    }
    Ok(())
}

fn d10_senders_of_full_frames_of_ipv6_are_told_as_well(xdp: Xdp) -> Result<()> {
    let bridged = Bridged::joined(xdp, OVER_IPV4, &WITH_PMTUDISC)?;
    let Lan { pc1, pc2, .. } = &bridged.lan;
    for (host, address) in [(pc1, "2001:db8:110::20"), (pc2, ipv6::PC2)] {
        ipv6::enable_on(host, "eth0")?;
        host.ip(&format!("addr add {address}/64 dev eth0 nodad"))?;
    }
    ping_until_answered(pc1, ipv6::PC2, SOON)?;
    let exceeds = ping_exact(pc1, ipv6::PC2, 1452)?;
    let answer = format!("From {} icmp_seq=1 Packet too big: mtu=1462", ipv6::PC2);
    ensure!(exceeds.contains(&answer) && exceeds.contains(" 0 received"), "{exceeds}");
    let fits = ping_exact(pc1, ipv6::PC2, 1462 - 48)?;
    ensure!(fits.contains(" 1 received"), "{fits}");
    for flow in [Flow::ToServer, Flow::ToClient] {
        let rate = tcp(pc1, pc2, ipv6::PC2, Load::OneMegabyte, flow)?;
        ensure!(rate > 4e6, "{flow:?} at {rate:.0} bit/s");
    }
    Ok(())
}

/// Without Don't Fragment nobody need be told.
fn d10_what_may_be_cut_arrives_by_inner_fragments(xdp: Xdp) -> Result<()> {
    let bridged = Bridged::joined(xdp, OVER_IPV4, &WITH_PMTUDISC)?;
    let Lan { pc1, r1, router, pc2, .. } = &bridged.lan;
    let capture = Capture::start(router, "to-r2", &format!("src host {R1_WAN}"))?;
    for (from, to) in [(pc1, PC2), (pc2, PC1)] {
        let said = from.run(&format!("ping -n -c 5 -i 0.01 -W 1 -M dont -s 1472 {to}"))?;
        ensure!(said.contains(" 5 received"), "{said}");
    }
    // In two fragments each: five pings of PC1, and its five answers.
    let rows = capture.finish(20)?.fields(&["ip.len", "ip.frag_offset"])?;
    assert_eq!(rows.len(), 20);
    for row in rows {
        ensure!(row[1].starts_with("0,"), "an outer fragment: {row:?}");
    }
    assert_eq!(outcome(r1, "daemon", "inner-fragmented")?, 10);
    Ok(())
}

fn pmtu5_nothing_is_told_to_groups_loopback_or_of_errors(xdp: Xdp) -> Result<()> {
    let bridged = Bridged::joined(xdp, OVER_IPV4, &WITH_PMTUDISC)?;
    let Lan { pc1, r1, pc2, .. } = &bridged.lan;
    let (source, far) = (pc1.mac("eth0")?, pc2.mac("eth0")?);
    let (group, everyone) = ("01:00:5e:01:02:03", "ff:ff:ff:ff:ff:ff");
    let frame = |to: &str, ip: &str, rest: &str| {
        format!(
            "[(lambda front: front/(b'x' * (1514 - len(front))))\
             (Ether(src='{source}', dst='{to}')/IP({ip}, flags='DF')/{rest})]"
        )
    };
    let udp = "UDP(sport=9, dport=9)";
    let addresses = |from: &str, to: &str| format!("src='{from}', dst='{to}'");
    let told = Capture::start(
        pc1,
        "eth0",
        &format!("icmp[icmptype] == icmp-unreach and ether src {far}"),
    )?;
    let count = |reason| outcome(r1, "daemon", reason);
    for (what, frame) in [
        ("a group", frame(group, &addresses(PC1, "224.1.2.3"), udp)),
        ("everyone", frame(everyone, &addresses(PC1, "255.255.255.255"), udp)),
        ("a frame to everyone", frame(everyone, &addresses(PC1, PC2), udp)),
        ("a packet to a group", frame(&far, &addresses(PC1, "224.1.2.3"), udp)),
        ("loopback", frame(&far, &addresses("127.0.0.1", PC2), udp)),
        ("nobody", frame(&far, &addresses("0.0.0.0", PC2), udp)),
        ("from a group", frame(&far, &addresses("224.1.2.3", PC2), udp)),
        ("an ICMP error", frame(&far, &addresses(PC1, PC2), "ICMP(type=3, code=1)")),
        ("a redirect", frame(&far, &addresses(PC1, PC2), "ICMP(type=5, code=1)")),
    ] {
        let before = count("too-big-unanswerable")?;
        scapy_send_frames(pc1, "eth0", &frame)?;
        wait_until(&format!("{what} is dealt with"), SOON, || {
            let found = count("too-big-unanswerable")? - before;
            ensure!(found == 1, "{found}");
            Ok(())
        })?;
    }
    assert_eq!(count("answered-too-big")?, 0);
    // The same with nothing of that is answered.
    scapy_send_frames(pc1, "eth0", &frame(&far, &addresses(PC1, PC2), udp))?;
    let rows = told.finish(1)?.fields(&["icmp.mtu"])?;
    assert_eq!(rows, [["1462"]]);
    assert_eq!(count("answered-too-big")?, 1);
    Ok(())
}

fn mss_auto_clamps_bridged_tcp(xdp: Xdp) -> Result<()> {
    for (ends, mss) in [(OVER_IPV4, "1422"), (OVER_IPV6, "1402")] {
        let bridged = Bridged::joined(xdp, ends, &["mtu = 1500", "mss = \"auto\""])?;
        let Lan { pc1, r1, pc2, .. } = &bridged.lan;
        let syn = "tcp[tcpflags] & tcp-syn != 0";
        let captures = [(pc1, PC2), (pc2, PC1)].map(|(host, from)| {
            Capture::start(host, "eth0", &format!("{syn} and src host {from}"))
        });
        tcp(pc1, pc2, PC2, Load::OneMegabyte, Flow::ToServer)?;
        for capture in captures {
            // Of iperf3's two connections.
            let rows = capture?.finish(2)?.fields(&["tcp.options.mss_val"])?;
            assert_eq!(rows, [[mss], [mss]], "over {ends:?}");
        }
        assert_eq!(outcome(r1, "daemon", "answered-too-big")?, 0);
    }
    Ok(())
}

#[test]
fn misc1_a_tunnel_of_ethernet_takes_a_remote_address() -> Result<()> {
    let lan = Lan::bare()?;
    let _daemon = Daemon::start(&lan.r1, &Gateway::without_tunnels())?;
    let before = lan.r1.devices()?;
    for words in [
        format!("link add gretap1 type gretap local {R1_WAN}"),
        format!("link add gretap1 type gretap local {R1_WAN} remote any"),
        format!("link add gretap1 type ip6gretap local {} key 7", ipv6::R1_WAN),
    ] {
        let refused = attempt(&lan.r1, &words)?.failure()?;
        ensure!(refused.contains("needs a remote address"), "{words}: {refused}");
        assert_eq!(lan.r1.devices()?, before);
    }
    Ok(())
}
