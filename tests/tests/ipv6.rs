//! IPv6 inside tunnels and outside, with everything that S4, S5 and S10 ask of IPv4.
//!
//! ```text
//!  PC1 ------- R1 ====== router ====== R2 ----- switch ----- PC2
//!  150::10                ^                                  110::10
//!                         captured where packets leave for the other gateway
//! ```
//! Every box has IPv4 and IPv6, and the tunnel runs over either; `tests::ipv6` has the addresses.

use anyhow::{Result, ensure};
use tests::{
    capture::Capture,
    config::{Gateway, Xdp},
    counters::Packets,
    gateways::{Gateways, SOON},
    in_each_xdp_mode, ipv6,
    namespace::Namespace,
    process::wait_until,
    topology::{self, Lab, R1_WAN, R2_WAN},
    traffic::{Flow, Load, ping_all, ping_exact, ping_none, ping_until_answered, scapy_send, tcp},
    xgre::{outcome, xgre},
};

/// Enough for windows to open and retransmissions to show.
const STREAM: Load = Load::Seconds(1);
const OVER_IPV4: [&str; 2] = [R1_WAN, R2_WAN];
const OVER_IPV6: [&str; 2] = [ipv6::R1_WAN, ipv6::R2_WAN];

in_each_xdp_mode!(
    rfc7676_1_gre_carries_each_protocol_over_each_and_counts_every_ping_once,
    tcp_flows_both_ways_over_either_protocol,
    a_gateway_talks_to_the_far_gateway_and_to_its_lan,
    a_hop_limit_of_1_is_answered,
    without_forwarding_nothing_is_forwarded,
    a_more_specific_route_elsewhere_wins,
    an_encapsulation_limit_is_sent_where_it_is_asked_for,
    ip6gre1_the_limit_inside_counts_down,
    ip6gre1_who_may_not_be_encapsulated_is_told,
    rfc7676_2_a_checksum_over_ipv6_is_sent_and_verified,
    pmtu2_pmtu3_what_does_not_fit_is_answered_with_the_mtu,
    tshark_has_no_complaint_about_tcp_both_ways,
    mtu_ip6gre_plain_is_1456_and_what_fits_passes,
    mtu_ip6gre_limit_plain_is_1448_and_what_fits_passes,
);

fn rfc7676_1_gre_carries_each_protocol_over_each_and_counts_every_ping_once(
    xdp: Xdp,
) -> Result<()> {
    for ends in [OVER_IPV4, OVER_IPV6] {
        let gateways = start(xdp, ends, &[])?;
        let Gateways { lab, .. } = &gateways;
        for (from, to) in [(&lab.pc1, ipv6::PC2), (&lab.pc2, ipv6::PC1)] {
            let found = gateways.during(|| ping_all(from, to, 50))?;
            assert_eq!(found, [Packets::pings6(xdp, 50); 2], "IPv6 over {ends:?}");
        }
        for (from, to) in [(&lab.pc1, topology::PC2), (&lab.pc2, topology::PC1)] {
            let found = gateways.during(|| ping_all(from, to, 50))?;
            assert_eq!(found, [Packets::pings(xdp, 50); 2], "IPv4 over {ends:?}");
        }
        outer_headers_are_right(&gateways, ends)?;
    }
    Ok(())
}

/// Field by field, as tshark reads them.
fn outer_headers_are_right(gateways: &Gateways, ends: [&str; 2]) -> Result<()> {
    let Gateways { lab, .. } = gateways;
    let over_ipv6 = ends == OVER_IPV6;
    let capture = Capture::start(&lab.router, "to-r2", &format!("src host {}", ends[0]))?;
    ping_all(&lab.pc1, ipv6::PC2, 3)?;
    let frames = capture.finish(3)?;
    let fields = ["ip.proto", "ip.ttl", "ip.flags.df", "ipv6.nxt", "ipv6.hlim", "ipv6.plen"];
    let expected = if over_ipv6 {
        ["", "", "", "47,58", "244,63", "108,64"]
    } else {
        ["47", "244", "1", "58", "63", "64"]
    };
    for row in frames.fields(&fields)? {
        assert_eq!(row, expected, "{fields:?} over {ends:?}");
    }
    for row in frames.fields(&["gre.flags_and_version", "gre.proto"])? {
        assert_eq!(row, ["0x0000", "0x86dd"]);
    }
    Ok(())
}

fn tcp_flows_both_ways_over_either_protocol(xdp: Xdp) -> Result<()> {
    for ends in [OVER_IPV4, OVER_IPV6] {
        let gateways = start(xdp, ends, &[])?;
        let Gateways { lab, .. } = &gateways;
        for to in [ipv6::PC2, topology::PC2] {
            for flow in [Flow::ToServer, Flow::ToClient] {
                tcp(&lab.pc1, &lab.pc2, to, STREAM, flow)?;
            }
        }
    }
    Ok(())
}

fn a_gateway_talks_to_the_far_gateway_and_to_its_lan(xdp: Xdp) -> Result<()> {
    for ends in [OVER_IPV4, OVER_IPV6] {
        let gateways = start(xdp, ends, &[])?;
        let Gateways { lab, .. } = &gateways;
        for address in [ipv6::TUNNEL_OF_R2, ipv6::R2_LAN, topology::R2_TUNNEL] {
            ping_until_answered(&lab.r1, address, SOON)?;
            let [near, far] = gateways.during(|| ping_all(&lab.r1, address, 20))?;
            let both_ways = |packets: Packets| (packets.tx(), packets.rx(), packets.drops);
            assert_eq!([both_ways(near), both_ways(far)], [(20, 20, 0); 2], "to {address}");
            for flow in [Flow::ToServer, Flow::ToClient] {
                tcp(&lab.r1, &lab.r2, address, STREAM, flow)?;
            }
        }
    }
    Ok(())
}

fn a_hop_limit_of_1_is_answered(xdp: Xdp) -> Result<()> {
    let gateways = start(xdp, OVER_IPV4, &[])?;
    let Gateways { lab, .. } = &gateways;
    // Expires at R1, and then behind the tunnel at R2.
    for (hops, answers) in [(1, ipv6::R1_LAN), (2, ipv6::TUNNEL_OF_R2)] {
        let line = format!("ping -n -c 1 -W 1 -t {hops} {}", ipv6::PC2);
        let said = lab.pc1.attempt(&line)?.output.stdout;
        let answer = format!("From {answers} icmp_seq=1 Time exceeded: Hop limit");
        ensure!(said.contains(&answer), "no \"{answer}\" in\n{said}");
    }
    Ok(())
}

fn without_forwarding_nothing_is_forwarded(xdp: Xdp) -> Result<()> {
    let gateways = start(xdp, OVER_IPV4, &[])?;
    let Gateways { lab, .. } = &gateways;
    lab.r1.sysctl("net.ipv6.conf.all.forwarding", 0)?;
    wait_until("R1 forwards no IPv6", SOON, || ping_none(&lab.pc1, ipv6::PC2))?;
    // IPv4 is a setting of its own.
    ping_all(&lab.pc1, topology::PC2, 3)?;
    lab.r1.sysctl("net.ipv6.conf.all.forwarding", 1)?;
    lab.r1.ip(&format!("-6 route replace default via {}", ipv6::ROUTER_TO_R1))?;
    gateways.settle6()
}

/// To a host of the far LAN that R1 is told to reach over the bare underlay.
fn a_more_specific_route_elsewhere_wins(xdp: Xdp) -> Result<()> {
    let gateways = start(xdp, OVER_IPV4, &[])?;
    let Gateways { lab, .. } = &gateways;
    lab.r1.ip(&format!("route add {}/128 via {}", ipv6::PC2, ipv6::ROUTER_TO_R1))?;
    lab.router.ip(&format!("route add {}/128 via {}", ipv6::PC2, ipv6::R2_WAN))?;
    let carried = || -> Result<()> {
        let [near, far] = gateways.during(|| ping_all(&lab.pc1, ipv6::PC2, 5))?;
        // PC2 answers through the tunnel.
        let found = [near.tx(), near.rx(), far.tx(), far.rx()];
        ensure!(found == [0, 5, 5, 0], "{found:?}");
        Ok(())
    };
    wait_until("R1 sends to PC2 outside of the tunnel", SOON, carried)?;
    lab.r1.ip(&format!("route del {}/128", ipv6::PC2))?;
    gateways.settle6()
}

fn an_encapsulation_limit_is_sent_where_it_is_asked_for(xdp: Xdp) -> Result<()> {
    let gateways = start(xdp, OVER_IPV6, &["encaplimit = 4"])?;
    let Gateways { lab, .. } = &gateways;
    let capture = Capture::start(&lab.router, "to-r2", &format!("src host {}", ipv6::R1_WAN))?;
    let found = gateways.during(|| ping_all(&lab.pc1, ipv6::PC2, 20))?;
    assert_eq!(found, [Packets::pings6(xdp, 20); 2]);
    let frames = capture.finish(20)?;
    let fields = ["ipv6.nxt", "ipv6.dstopts.nxt", "ipv6.opt.tel", "gre.proto"];
    for row in frames.fields(&fields)? {
        assert_eq!(row, ["60,58", "47", "4", "0x86dd"], "{fields:?}");
    }
    Ok(())
}

/// Options of a tunnel over IPv6: those with numbers and checksums take the way through the device.
const LIMITED: [&[&str]; 3] =
    [&["encaplimit = 4"], &["encaplimit = \"none\""], &["csum = true", "seq = true"]];

/// Packets of UDP to PC2 with an encapsulation limit of their own, as scapy makes them.
fn limited(limit: u8) -> String {
    let (pc1, pc2) = (ipv6::PC1, ipv6::PC2);
    format!(
        "IPv6(src='{pc1}', dst='{pc2}')\
         /IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=4, optlen=1, optdata=b'\\x{limit:02x}')])\
         /UDP(sport=7, dport=9)/(b'x' * 100)"
    )
}

fn ip6gre1_the_limit_inside_counts_down(xdp: Xdp) -> Result<()> {
    for options in LIMITED {
        let gateways = start(xdp, OVER_IPV6, options)?;
        let Gateways { lab, .. } = &gateways;
        let filter = format!("src host {}", ipv6::R1_WAN);
        let underlay = Capture::start(&lab.router, "to-r2", &filter)?;
        let arriving = Capture::start(&lab.pc2, "eth0", &format!("src host {}", ipv6::PC1))?;
        let before = gateways.r1.packets("tunnel0")?;
        scapy_send(&lab.pc1, &format!("[{}, {}]", limited(255), limited(1)))?;
        let frames = underlay.finish(2)?;
        let fields = ["ipv6.nxt", "ipv6.dstopts.nxt", "ipv6.opt.tel", "ipv6.plen"];
        let len = if options.len() == 2 { "176,116" } else { "168,116" };
        for (row, limits) in frames.fields(&fields)?.iter().zip(["254,255", "0,1"]) {
            assert_eq!(row[..], ["60,60", "47,17", limits, len], "{fields:?} with {options:?}");
        }
        // The packet itself is what it was.
        let rows = arriving.finish(2)?.fields(&["ipv6.opt.tel", "ipv6.plen", "udp.length"])?;
        assert_eq!(rows, [["255", "116", "108"], ["1", "116", "108"]]);
        let moved = gateways.r1.packets("tunnel0")? - before;
        assert_eq!((moved.tx_tc, moved.tx_bytes, moved.drops), (2, 2 * 156, 0), "{options:?}");
    }
    Ok(())
}

fn ip6gre1_who_may_not_be_encapsulated_is_told(xdp: Xdp) -> Result<()> {
    for options in LIMITED {
        let gateways = start(xdp, OVER_IPV6, options)?;
        let Gateways { lab, r1, .. } = &gateways;
        let count = |tier, reason| outcome(&lab.r1, tier, reason);
        let answers = Capture::start(&lab.pc1, "eth0", "icmp6 and ip6[40] == 4")?;
        let before = r1.packets("tunnel0")?;
        scapy_send(&lab.pc1, &format!("[{}]", limited(0)))?;
        let fields = ["ipv6.src", "icmpv6.type", "icmpv6.code", "icmpv6.pointer", "ipv6.opt.tel"];
        let rows = answers.finish(1)?.fields(&fields)?;
        let sources = format!("{},{}", ipv6::TUNNEL_OF_R1, ipv6::PC1);
        assert_eq!(rows, [[&sources, "4", "0", "44", "0"]], "{fields:?} with {options:?}");
        let moved = r1.packets("tunnel0")? - before;
        assert_eq!((moved.tx(), moved.drops), (0, 1), "{options:?}");
        assert_eq!(count("tc", "encapsulation-limit")?, 1);
        assert_eq!(count("daemon", "answered-encapsulation-limit")?, 1);

        // A flood is not answered with as many.
        scapy_send(&lab.pc1, &format!("[{}] * 400", limited(0)))?;
        wait_until("the flood has been dealt with", SOON, || {
            let told = count("daemon", "answered-encapsulation-limit")? - 1;
            let refused = count("daemon", "rate-limited")?;
            ensure!(
                told + refused == 400 && told >= 50 && refused > 0,
                "{told} told, {refused} not"
            );
            Ok(())
        })?;
        assert_eq!(count("tc", "encapsulation-limit")?, 401);
    }
    Ok(())
}

fn rfc7676_2_a_checksum_over_ipv6_is_sent_and_verified(xdp: Xdp) -> Result<()> {
    let gateways = start(xdp, OVER_IPV6, &["key = 7", "csum = true", "seq = true"])?;
    let Gateways { lab, .. } = &gateways;
    let capture = Capture::start(&lab.router, "to-r2", &format!("src host {}", ipv6::R1_WAN))?;
    let found = gateways.during(|| ping_all(&lab.pc1, ipv6::PC2, 20))?;
    assert_eq!(found, [Packets::pings6(xdp, 20); 2]);
    let frames = capture.finish(20)?;
    for row in frames.fields(&["gre.flags_and_version", "gre.key", "gre.checksum.status"])? {
        assert_eq!(row, ["0xb000", "0x00000007", "1"]);
    }
    Ok(())
}

fn pmtu2_pmtu3_what_does_not_fit_is_answered_with_the_mtu(xdp: Xdp) -> Result<()> {
    for (ends, mtu) in [(OVER_IPV4, 1476), (OVER_IPV6, 1456)] {
        exactly_fits(&start(xdp, ends, &[])?, mtu)?;
    }
    Ok(())
}

fn mtu_ip6gre_plain_is_1456_and_what_fits_passes(xdp: Xdp) -> Result<()> {
    exactly_fits(&start(xdp, OVER_IPV6, &["encaplimit = \"none\""])?, 1456)
}

fn mtu_ip6gre_limit_plain_is_1448_and_what_fits_passes(xdp: Xdp) -> Result<()> {
    exactly_fits(&start(xdp, OVER_IPV6, &["encaplimit = 4"])?, 1448)
}

/// A packet of the MTU passes; one more byte is answered by R1, which says the MTU.
fn exactly_fits(gateways: &Gateways, mtu: u32) -> Result<()> {
    let Gateways { lab, .. } = gateways;
    has_mtu(&lab.r1, mtu)?;
    for (to, headers, answer) in [
        (ipv6::PC2, 48, format!("From {} icmp_seq=1 Packet too big: mtu={mtu}", ipv6::R1_LAN)),
        (
            topology::PC2,
            28,
            format!("From {} icmp_seq=1 Frag needed and DF set (mtu = {mtu})", topology::R1_LAN),
        ),
    ] {
        let fits = ping_exact(&lab.pc1, to, mtu - headers)?;
        ensure!(fits.contains(" 1 received"), "{fits}");
        let exceeds = ping_exact(&lab.pc1, to, mtu - headers + 1)?;
        ensure!(exceeds.contains(&answer) && exceeds.contains(" 0 received"), "{exceeds}");
        // PC1 has learned, and fragments what it may; so does PC2 once it has been told.
        wait_until("PC2 has learned", SOON, || {
            lab.pc1.run(&format!("ping -n -c 1 -W 1 -M dont -s 4000 {to}"))
        })?;
        let line = format!("ping -n -c 3 -i 0.01 -W 1 -M dont -s 4000 {to}");
        let fragmented = lab.pc1.run(&line)?;
        ensure!(fragmented.contains(" 3 received"), "{fragmented}");
    }
    Ok(())
}

fn has_mtu(gateway: &Namespace, mtu: u32) -> Result<()> {
    let device = gateway.ip("-o link show dev tunnel0")?;
    ensure!(device.contains(&format!("mtu {mtu} ")), "{mtu} expected: {device}");
    Ok(())
}

macro_rules! default_mtus {
    ($($name:ident: $ends:expr, $options:expr, $mtu:literal;)*) => {
        $(#[test]
        fn $name() -> Result<()> {
            default_mtu($ends, &$options, $mtu)
        })*
    };
}

default_mtus! {
    mtu_gre_plain_is_1476: OVER_IPV4, [], 1476;
    mtu_gre_key_is_1472: OVER_IPV4, ["key = 1"], 1472;
    mtu_gre_key_csum_is_1468: OVER_IPV4, ["key = 1", "csum = true"], 1468;
    mtu_gre_key_csum_seq_is_1464: OVER_IPV4, ["key = 1", "csum = true", "seq = true"], 1464;
    mtu_csum_takes_as_much_as_a_key: OVER_IPV4, ["csum = true"], 1472;
    mtu_ip6gre_limit_key_is_1444: OVER_IPV6, ["encaplimit = 4", "key = 1"], 1444;
    mtu_ip6gre_limit_key_csum_is_1440: OVER_IPV6, ["encaplimit = 4", "key = 1", "csum = true"], 1440;
    mtu_ip6gre_limit_key_csum_seq_is_1436:
        OVER_IPV6, ["encaplimit = 4", "key = 1", "csum = true", "seq = true"], 1436;
    mtu_ip6gre_key_is_1452: OVER_IPV6, ["key = 1"], 1452;
    mtu_ip6gre_key_csum_is_1448: OVER_IPV6, ["key = 1", "csum = true"], 1448;
    mtu_ip6gre_key_csum_seq_is_1444: OVER_IPV6, ["key = 1", "csum = true", "seq = true"], 1444;
}

/// The device has it, and what the kernel sends by it arrives unfragmented.
fn default_mtu(ends: [&str; 2], options: &[&str], mtu: u32) -> Result<()> {
    let gateways = start(Xdp::Native, ends, options)?;
    let Gateways { lab, .. } = &gateways;
    has_mtu(&lab.r1, mtu)?;
    for (to, headers) in [(ipv6::PC2, 48), (topology::PC2, 28)] {
        let fits = ping_exact(&lab.pc1, to, mtu - headers)?;
        ensure!(fits.contains(" 1 received"), "{fits}");
    }
    Ok(())
}

#[test]
fn mtu_limits_are_kept_whatever_the_underlay_has() -> Result<()> {
    for (ends, mtus) in [
        // None over IPv6 below 1280, since an interface with less has no IPv6.
        (OVER_IPV4, &[(80, 68), (65_535, 65_496)][..]),
        (OVER_IPV6, &[(1300, 1280), (65_535, 65_476)][..]),
    ] {
        let gateways = start(Xdp::Off, ends, &[])?;
        let r1 = &gateways.lab.r1;
        for (underlay, mtu) in mtus {
            r1.ip(&format!("link set wan mtu {underlay}"))?;
            wait_until("the tunnel's MTU has followed", SOON, || has_mtu(r1, *mtu))?;
        }
    }
    let gateways = start(Xdp::Off, OVER_IPV4, &[])?;
    let r1 = &gateways.lab.r1;
    r1.ip("route del default")?;
    xgre(r1, "tunnel add nowhere mode gre local any remote 203.0.113.1")?;
    let device = r1.ip("-o link show dev nowhere")?;
    ensure!(device.contains("mtu 1476 "), "{device}");
    Ok(())
}

fn tshark_has_no_complaint_about_tcp_both_ways(xdp: Xdp) -> Result<()> {
    for ends in [OVER_IPV4, OVER_IPV6] {
        let gateways = start(xdp, ends, &[])?;
        let Gateways { lab, .. } = &gateways;
        for (device, wan, flow) in
            [("to-r2", ends[0], Flow::ToServer), ("to-r1", ends[1], Flow::ToClient)]
        {
            let capture = Capture::start(&lab.router, device, &format!("src host {wan}"))?;
            tcp(&lab.pc1, &lab.pc2, ipv6::PC2, Load::OneMegabyte, flow)?;
            let frames = capture.finish(500)?;
            for row in frames.fields(&["frame.len", "gre.proto"])? {
                ensure!(row[0].parse::<u32>()? <= 1514 && row[1] == "0x86dd", "{row:?}");
            }
        }
        // What a gateway sends itself: super-packets, which its devices have to cut.
        ping_until_answered(&lab.r1, ipv6::R2_LAN, SOON)?;
        let capture = Capture::start(&lab.router, "to-r2", &format!("src host {}", ends[0]))?;
        tcp(&lab.r1, &lab.r2, ipv6::R2_LAN, Load::OneMegabyte, Flow::ToServer)?;
        capture.finish(20)?;
    }
    Ok(())
}

/// R1 and R2 with these options of tunnel0, settled for both protocols.
fn start(xdp: Xdp, ends: [&str; 2], options: &[&str]) -> Result<Gateways> {
    let configs: [Gateway; 2] = ipv6::both(ends).map(|config| config.options(options));
    let gateways = Gateways::start_in(Lab::with_ipv6()?, xdp, configs)?;
    gateways.settle()?;
    gateways.settle6()?;
    Ok(gateways)
}
