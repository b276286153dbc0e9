//! Checksums, sequence numbers and keys in each direction, and the clamping of TCP's segment sizes.
//!
//! ```text
//!  PC1 ------- R1 ====== router ====== R2 ----- switch ----- PC2
//!                          ^ captured where packets leave for the other gateway
//! ```

use anyhow::{Context as _, Result, ensure};
use tests::{
    capture::{Capture, Frames},
    config::{Gateway, Xdp},
    gateways::{Gateways, SOON},
    in_each_xdp_mode, ipv6,
    process::wait_until,
    topology::{Lab, PC1, PC2, R1_WAN, R2_LAN, R2_TUNNEL},
    traffic::{Flow, Load, ping, ping_all, ping_until_answered, tcp},
    xgre::{tunnel, xgre},
};

const STREAM: Load = Load::Seconds(1);
/// The options of a tunnel at R1, and those that fit at R2.
const OPTIONS: [(&str, [&[&str]; 2]); 5] = [
    ("csum", [&["csum = true"]; 2]),
    ("seq", [&["seq = true"]; 2]),
    ("csum seq", [&["csum = true", "seq = true"]; 2]),
    ("key csum seq", [&["key = 42", "csum = true", "seq = true"]; 2]),
    (
        "crossed keys",
        [&["ikey = 1", "okey = 2", "icsum = true"], &["ikey = 2", "okey = 1", "ocsum = true"]],
    ),
];

in_each_xdp_mode!(
    each_ping_is_counted_once_with_every_option,
    tcp_flows_both_ways_with_every_option,
    offload1_a_gateways_own_tcp_flows_with_every_option,
    t8_sequence_numbers_start_at_0_and_are_consecutive,
    t8_tcp_of_a_gateway_and_of_hosts_is_numbered_without_a_gap,
    a_reset_starts_the_numbers_anew,
    rfc2890_3_a_peer_that_restarts_its_numbers_is_found_again,
    mss_auto_clamps_what_both_ends_offer,
    a_fixed_mss_clamps_what_both_ends_offer,
    mss_auto_clamps_what_both_ends_offer_in_ipv6,
);

fn start(xdp: Xdp, options: [&[&str]; 2]) -> Result<Gateways> {
    let [r1, r2] = Gateway::both();
    let configs = [r1.options(options[0]), r2.options(options[1])];
    let gateways = Gateways::start(xdp, configs)?;
    gateways.settle()?;
    Ok(gateways)
}

fn each_ping_is_counted_once_with_every_option(xdp: Xdp) -> Result<()> {
    for (name, options) in OPTIONS {
        let gateways = start(xdp, options)?;
        let Gateways { lab, .. } = &gateways;
        for (from, to) in [(&lab.pc1, PC2), (&lab.pc2, PC1)] {
            let found = gateways.during(|| ping_all(from, to, 50))?;
            assert_eq!(found, [gateways.ping_counts(50); 2], "{name}, to {to}");
        }
    }
    Ok(())
}

fn tcp_flows_both_ways_with_every_option(xdp: Xdp) -> Result<()> {
    for (name, options) in OPTIONS {
        let gateways = start(xdp, options)?;
        let Gateways { lab, .. } = &gateways;
        for flow in [Flow::ToServer, Flow::ToClient] {
            let rate = tcp(&lab.pc1, &lab.pc2, PC2, STREAM, flow).context(name)?;
            // What is wrongly cut or numbered comes through by retransmission, at a crawl.
            ensure!(rate > 20e6, "{name}, {flow:?} at {rate:.0} bit/s");
        }
    }
    Ok(())
}

fn offload1_a_gateways_own_tcp_flows_with_every_option(xdp: Xdp) -> Result<()> {
    for (name, options) in OPTIONS {
        let gateways = start(xdp, options)?;
        let Gateways { lab, .. } = &gateways;
        for (to, flow) in
            [(R2_TUNNEL, Flow::ToServer), (R2_TUNNEL, Flow::ToClient), (R2_LAN, Flow::ToServer)]
        {
            ping_until_answered(&lab.r1, to, SOON)?;
            let rate = tcp(&lab.r1, &lab.r2, to, STREAM, flow).context(name)?;
            ensure!(rate > 20e6, "{name}, {flow:?} at {rate:.0} bit/s");
        }
        // tshark looks at every checksum of what the devices have cut.
        let capture = Capture::start(&lab.router, "to-r2", &format!("src host {R1_WAN}"))?;
        tcp(&lab.r1, &lab.r2, R2_LAN, Load::OneMegabyte, Flow::ToServer)?;
        let frames = capture.finish(500).context(name)?;
        for row in frames.fields(&["frame.len"])? {
            ensure!(row[0].parse::<u32>()? <= 1514, "{name}: {row:?}");
        }
    }
    Ok(())
}

/// GRO at the gateways' ports makes super-packets of what TC is to encapsulate.
#[test]
fn offload2_the_tc_tier_forwards_merged_streams_with_every_option() -> Result<()> {
    for (name, options) in OPTIONS {
        let gateways = start(Xdp::Off, options)?;
        let Gateways { lab, .. } = &gateways;
        for gateway in [&lab.r1, &lab.r2] {
            gateway.offloads("lan", "gro on")?;
            gateway.offloads("wan", "gro on")?;
        }
        for flow in [Flow::ToServer, Flow::ToClient] {
            let rate = tcp(&lab.pc1, &lab.pc2, PC2, STREAM, flow).context(name)?;
            ensure!(rate > 20e6, "{name}, {flow:?} at {rate:.0} bit/s");
        }
        let capture = Capture::start(&lab.router, "to-r2", &format!("src host {R1_WAN}"))?;
        tcp(&lab.pc1, &lab.pc2, PC2, Load::OneMegabyte, Flow::ToServer)?;
        capture.finish(500).context(name)?;
    }
    Ok(())
}

fn numbers(frames: &Frames) -> Result<Vec<u64>> {
    let rows = frames.fields(&["gre.sequence_number"])?;
    rows.iter().map(|row| Ok(row[0].parse()?)).collect()
}

fn is_consecutive(numbers: &[u64]) -> bool {
    numbers.windows(2).all(|pair| pair[1] == pair[0] + 1)
}

fn t8_sequence_numbers_start_at_0_and_are_consecutive(xdp: Xdp) -> Result<()> {
    let [r1, r2] = Gateway::both().map(|config| config.options(&["seq = true"]));
    let lab = Lab::new()?;
    let capture =
        Capture::start(&lab.router, "to-r2", &format!("proto gre and src host {R1_WAN}"))?;
    let gateways = Gateways::start_in(lab, xdp, [r1, r2])?;
    gateways.settle()?;
    ping_all(&gateways.lab.pc1, PC2, 50)?;
    let shown = tunnel(&gateways.lab.r1, "tunnel0")?.context("no tunnel0")?;
    let sent = shown["sequence"]["next_sent"].as_u64().with_context(|| shown.to_string())?;
    assert_eq!(numbers(&capture.finish(sent as usize)?)?, (0..sent).collect::<Vec<_>>());
    Ok(())
}

fn t8_tcp_of_a_gateway_and_of_hosts_is_numbered_without_a_gap(xdp: Xdp) -> Result<()> {
    let gateways = start(xdp, [&["seq = true"]; 2])?;
    let Gateways { lab, .. } = &gateways;
    for (client, server, to) in [(&lab.r1, &lab.r2, R2_LAN), (&lab.pc1, &lab.pc2, PC2)] {
        let capture = Capture::start(&lab.router, "to-r2", &format!("src host {R1_WAN}"))?;
        tcp(client, server, to, Load::OneMegabyte, Flow::ToServer)?;
        let mut numbers = numbers(&capture.finish(500)?)?;
        // Two CPUs may swap packets on their way.
        numbers.sort_unstable();
        ensure!(is_consecutive(&numbers), "{numbers:?}");
    }
    Ok(())
}

fn a_reset_starts_the_numbers_anew(xdp: Xdp) -> Result<()> {
    let gateways = start(xdp, [&["seq = true"]; 2])?;
    let Gateways { lab, .. } = &gateways;
    ping_all(&lab.pc1, PC2, 20)?;
    for gateway in [&lab.r1, &lab.r2] {
        xgre(gateway, "tunnel change tunnel0 seq reset")?;
    }
    let capture = Capture::start(&lab.router, "to-r2", &format!("src host {R1_WAN}"))?;
    let found = gateways.during(|| ping_all(&lab.pc1, PC2, 5))?;
    assert_eq!(found, [gateways.ping_counts(5); 2]);
    assert_eq!(numbers(&capture.finish(5)?)?, [0, 1, 2, 3, 4]);
    Ok(())
}

fn rfc2890_3_a_peer_that_restarts_its_numbers_is_found_again(xdp: Xdp) -> Result<()> {
    let gateways = start(xdp, [&["seq = true"]; 2])?;
    let Gateways { lab, .. } = &gateways;
    ping_all(&lab.pc1, PC2, 200)?;
    // Only R1's: R2 still expects more than 200.
    xgre(&lab.r1, "tunnel change tunnel0 seq reset")?;
    let lost = ping(&lab.pc1, PC2, 100)?.lost();
    ensure!((1..50).contains(&lost), "{lost} pings of 100 were lost");
    ping_all(&lab.pc1, PC2, 20)?;

    let shown = tunnel(&lab.r2, "tunnel0")?.context("no tunnel0")?;
    assert_eq!(shown["sequence"]["resynchronised"], 1, "{shown}");
    let text = xgre(&lab.r2, "tunnel show tunnel0")?;
    ensure!(text.contains("resynchronised 1"), "{text}");
    let stats = xgre(&lab.r2, "stats")?;
    ensure!(stats.contains("sequence-old"), "{stats}");
    Ok(())
}

fn mss_auto_clamps_what_both_ends_offer(xdp: Xdp) -> Result<()> {
    // 1476 less IPv4 and TCP.
    clamped(xdp, "mss = \"auto\"", 1436)
}

fn a_fixed_mss_clamps_what_both_ends_offer(xdp: Xdp) -> Result<()> {
    clamped(xdp, "mss = 1200", 1200)
}

/// R1 clamps: what PC1 offers on its way out, and what PC2 offers on its way in.
fn clamped(xdp: Xdp, option: &str, size: u32) -> Result<()> {
    let gateways = start(xdp, [&[option], &[]])?;
    let Gateways { lab, .. } = &gateways;
    let out = Capture::start(&lab.router, "to-r2", &format!("src host {R1_WAN}"))?;
    let back = Capture::start(&lab.pc1, "eth0", &format!("src host {PC2} and tcp[13] & 2 != 0"))?;
    tcp(&lab.pc1, &lab.pc2, PC2, Load::OneMegabyte, Flow::ToServer)?;
    // iperf3 has two connections.
    let offered = |frames: &Frames| -> Result<Vec<String>> {
        let rows = frames.fields(&["tcp.options.mss_val"])?;
        Ok(rows.into_iter().map(|mut row| row.remove(0)).filter(|mss| !mss.is_empty()).collect())
    };
    let out = offered(&out.finish(500)?)?;
    assert_eq!(out, [size.to_string(), size.to_string()], "PC1's, behind R1");
    let back = offered(&back.finish(2)?)?;
    assert_eq!(back, [size.to_string(), size.to_string()], "PC2's, behind R1");

    // And what R1 itself offers.
    let own = Capture::start(&lab.router, "to-r2", &format!("src host {R1_WAN}"))?;
    ping_until_answered(&lab.r1, R2_LAN, SOON)?;
    tcp(&lab.r1, &lab.r2, R2_LAN, Load::OneMegabyte, Flow::ToServer)?;
    let own = offered(&own.finish(20)?)?;
    assert_eq!(own, [size.to_string(), size.to_string()], "R1's own");
    Ok(())
}

fn mss_auto_clamps_what_both_ends_offer_in_ipv6(xdp: Xdp) -> Result<()> {
    let [r1, r2] = ipv6::both([ipv6::R1_WAN, ipv6::R2_WAN]);
    let configs = [r1.options(&["mss = \"auto\""]), r2];
    let gateways = Gateways::start_in(Lab::with_ipv6()?, xdp, configs)?;
    gateways.settle6()?;
    let Gateways { lab, .. } = &gateways;
    let syn = format!("src host {} and ip6[6] == 6 and ip6[53] & 2 != 0", ipv6::PC1);
    let out = Capture::start(&lab.switch, "to-pc2", &syn)?;
    let syn = format!("src host {} and ip6[6] == 6 and ip6[53] & 2 != 0", ipv6::PC2);
    let back = Capture::start(&lab.pc1, "eth0", &syn)?;
    tcp(&lab.pc1, &lab.pc2, ipv6::PC2, Load::OneMegabyte, Flow::ToServer)?;
    for capture in [out, back] {
        // 1456 less IPv6 and TCP, of iperf3's two connections.
        assert_eq!(capture.finish(2)?.fields(&["tcp.options.mss_val"])?, [["1396"], ["1396"]]);
    }
    Ok(())
}

/// The MTU follows the options, and so does what is clamped.
#[test]
fn mtu_change_moves_the_mtu_and_the_clamped_size() -> Result<()> {
    let gateways = start(Xdp::Native, [&["mss = \"auto\""], &[]])?;
    let Gateways { lab, .. } = &gateways;
    for gateway in [&lab.r1, &lab.r2] {
        xgre(gateway, "tunnel change tunnel0 key 9 csum seq")?;
        wait_until("the MTU has followed", SOON, || {
            let link = gateway.ip("-o link show dev tunnel0")?;
            ensure!(link.contains("mtu 1464 "), "{link}");
            Ok(())
        })?;
    }
    gateways.settle()?;
    let out = Capture::start(&lab.router, "to-r2", &format!("src host {R1_WAN}"))?;
    tcp(&lab.pc1, &lab.pc2, PC2, Load::OneMegabyte, Flow::ToServer)?;
    let rows = out.finish(500)?.fields(&["tcp.options.mss_val"])?;
    let offered: Vec<_> = rows.concat().into_iter().filter(|mss| !mss.is_empty()).collect();
    assert_eq!(offered, ["1424", "1424"]);
    Ok(())
}
