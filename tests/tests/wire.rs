//! S4: what is on the underlay, according to tcpdump and tshark.
//!
//! ```text
//!  PC1 ------- R1 ====== router ====== R2 ------- PC2
//!                          ^ captured where packets leave for the other gateway
//! ```

use anyhow::Result;
use tests::{
    capture::Capture,
    config::{Gateway, Xdp},
    gateways::{Gateways, SOON},
    in_each_xdp_mode,
    topology::{PC1, PC2, R1_WAN, R2_LAN, R2_WAN},
    traffic::{Flow, Load, ping_all, ping_until_answered, tcp},
};

in_each_xdp_mode!(
    outer_headers_are_those_of_the_document,
    outer_headers_carry_the_key_where_there_is_one,
    tshark_has_no_complaint_about_tcp_both_ways,
);

/// Of those that outer and inner header have, tshark gives both values.
const FIELDS: [&str; 9] = [
    "ip.hdr_len",
    "ip.len",
    "ip.dsfield",
    "ip.flags.df",
    "ip.ttl",
    "ip.proto",
    "gre.flags_and_version",
    "gre.proto",
    "gre.key",
];

fn outer_headers_are_those_of_the_document(xdp: Xdp) -> Result<()> {
    check(xdp, None, ["108,84", "0x0000", ""])
}

fn outer_headers_carry_the_key_where_there_is_one(xdp: Xdp) -> Result<()> {
    check(xdp, Some(42), ["112,84", "0x2000", "0x0000002a"])
}

/// Both directions, so that what each gateway encapsulates is seen.
fn check(xdp: Xdp, key: Option<u32>, [length, flags, key_shown]: [&str; 3]) -> Result<()> {
    let gateways = Gateways::start(xdp, Gateway::both().map(|config| config.key(key)))?;
    gateways.settle()?;
    let Gateways { lab, .. } = &gateways;
    let directions = [("to-r2", &lab.pc1, R1_WAN, PC1, PC2), ("to-r1", &lab.pc2, R2_WAN, PC2, PC1)];
    for (device, host, wan, source, target) in directions {
        let capture = Capture::start(&lab.router, device, &format!("src host {wan}"))?;
        ping_all(host, target, 3)?;
        let frames = capture.finish(3)?;
        frames.no_complaints()?;
        for row in frames.fields(&FIELDS)? {
            // The gateway sends with TTL 245, of which the router takes one; forwarding takes one
            // of the inner TTL (PC2's pings pass through GW as well). DF outside is `pmtudisc`,
            // inside ping's own.
            let ttl = if source == PC1 { "244,63" } else { "244,62" };
            let expected =
                ["20,20", length, "0x00,0x00", "1,1", ttl, "47,1", flags, "0x0800", key_shown];
            assert_eq!(row, expected, "{FIELDS:?} from {wan}");
        }
        for row in frames.fields(&["ip.src"])? {
            assert_eq!(row, [format!("{wan},{source}")]);
        }
    }
    Ok(())
}

fn tshark_has_no_complaint_about_tcp_both_ways(xdp: Xdp) -> Result<()> {
    let gateways = Gateways::forwarding(xdp)?;
    let Gateways { lab, .. } = &gateways;
    for (device, wan, flow) in
        [("to-r2", R1_WAN, Flow::ToServer), ("to-r1", R2_WAN, Flow::ToClient)]
    {
        let capture = Capture::start(&lab.router, device, &format!("src host {wan}"))?;
        tcp(&lab.pc1, &lab.pc2, PC2, Load::OneMegabyte, flow)?;
        let frames = capture.finish(500)?;
        frames.no_complaints()?;
        for row in frames.fields(&["ip.len", "gre.proto"])? {
            let outer = row[0].split(',').next().unwrap_or_default();
            assert!(outer.parse::<u32>()? <= 1500 && row[1] == "0x0800", "{row:?}");
        }
    }
    Ok(())
}

#[test]
fn tshark_has_no_complaint_about_super_packets_that_a_gateway_sends_itself() -> Result<()> {
    let gateways = Gateways::forwarding(Xdp::Native)?;
    let Gateways { lab, .. } = &gateways;
    ping_until_answered(&lab.r1, R2_LAN, SOON)?;
    let capture = Capture::start(&lab.router, "to-r2", &format!("src host {R1_WAN}"))?;
    tcp(&lab.r1, &lab.r2, R2_LAN, Load::OneMegabyte, Flow::ToServer)?;
    capture.finish(20)?.no_complaints()
}
