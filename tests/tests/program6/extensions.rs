//! Extension headers between the outer IPv6 header and GRE.

use gre_ebpf_common::outcome::Outcome::*;

use crate::{
    case::{Case, check},
    combinations::transits,
    frame::{carried, from_wan, gre_of},
    outer::{TIERS, over_ipv6},
    packet::{GRE, Packet, UDP, inbound},
    world::{ALL6, FAMILIES, Family, INHERIT4, KEYED6, PLAIN6},
};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// The packet with extension headers in front of its payload: of each its number and its length in
/// bytes. They are filled with PadN.
fn extended(packet: Packet, headers: &[(u8, usize)]) -> Packet {
    packet.with(|packet| {
        for &(number, len) in headers.iter().rev() {
            let mut header = vec![0; len];
            header[..4].copy_from_slice(&[packet.protocol, (len / 8 - 1) as u8, 1, 4]);
            let mut at = 8;
            while at < len {
                let padding = (len - at).min(248);
                header[at..at + 2].copy_from_slice(&[1, padding as u8 - 2]);
                at += padding;
            }
            header.extend_from_slice(&packet.payload);
            (packet.protocol, packet.payload) = (number, header);
        }
    })
}

#[test]
fn d12_up_to_three_headers_of_options_are_skipped() {
    let mut cases = Vec::new();
    for tunnel in over_ipv6() {
        for inside in FAMILIES {
            let inner = inbound(inside, tunnel);
            for headers in [
                &[(DESTINATION, 8)][..],
                &[(HOP_BY_HOP, 8)],
                &[(HOP_BY_HOP, 8), (DESTINATION, 8)],
                &[(HOP_BY_HOP, 8), (DESTINATION, 8), (DESTINATION, 8)],
                &[(DESTINATION, 16)],
                &[(DESTINATION, 24), (DESTINATION, 8)],
                &[(HOP_BY_HOP, 40), (DESTINATION, 48), (DESTINATION, 64)],
                &[(DESTINATION, 256)],
                &[(DESTINATION, 376)],
            ] {
                let outer = extended(carried(tunnel, &inner.bytes()), headers).bytes();
                for hook in TIERS {
                    let what = format!("{headers:?}, {inside:?} in {tunnel:?}");
                    cases.push(Case::new(what, hook, from_wan(&outer)).comes_out(tunnel, &inner));
                }
            }
        }
    }
    let packet = Packet::new(PLAIN6.beyond(Family::V6), INHERIT4.beyond(Family::V6));
    let outer = extended(carried(PLAIN6, &packet.bytes()), &[(DESTINATION, 8)]);
    cases.push(transits("to IPv4", from_wan(&outer.bytes()), &packet, PLAIN6, INHERIT4));
    check(cases);
}

/// Headers that end further in than the programs look. What is there must not be taken for GRE that
/// stands before.
#[test]
fn d12_headers_of_options_that_are_longer_are_left_to_the_daemon() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in [PLAIN6, KEYED6, ALL6] {
            let inner = inbound(Family::V6, tunnel);
            for headers in [
                &[(DESTINATION, 512)][..],
                &[(DESTINATION, 1024)],
                &[(DESTINATION, 448)],
                &[(HOP_BY_HOP, 256), (DESTINATION, 256)],
                &[(HOP_BY_HOP, 456), (DESTINATION, 56)],
                &[(HOP_BY_HOP, 400), (DESTINATION, 400), (DESTINATION, 400)],
            ] {
                let outer = extended(carried(tunnel, &inner.bytes()), headers);
                let frame = from_wan(&outer.bytes());
                let what = format!("{headers:?} on {tunnel:?}");
                cases.push(Case::new(&what, hook, frame).passes(Ipv6Extension));
                let foreign = outer.with(|outer| outer.source = Family::V6.stranger());
                let frame = from_wan(&foreign.bytes());
                cases.push(Case::new(what, hook, frame).passes(NoTunnel));
            }
            // All of the options look like GRE and an inner packet.
            let mut outer = extended(carried(tunnel, &inner.bytes()), &[(DESTINATION, 512)]);
            let decoy = gre_of(tunnel, 0, 0x86dd, &inner.bytes());
            let len = decoy.len();
            for at in (8..500 - len).step_by(len) {
                outer.payload[at..at + len].copy_from_slice(&decoy);
            }
            cases.push(Case::new("a decoy", hook, from_wan(&outer.bytes())).passes(Ipv6Extension));
        }
    }
    check(cases);
}

/// Not known to be GRE.
#[test]
fn what_is_behind_other_headers_or_more_of_them_is_the_kernels() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for headers in [
            &[(DESTINATION, 8); 4][..],
            &[(DESTINATION, 8); 6],
            &[(ROUTING, 8)],
            &[(ROUTING, 24), (DESTINATION, 8)],
            &[(DESTINATION, 8), (ROUTING, 24)],
            &[(51, 16)],
            &[(135, 8)],
        ] {
            let inner = inbound(Family::V6, PLAIN6).bytes();
            let outer = extended(carried(PLAIN6, &inner), headers);
            cases.push(
                Case::new(format!("{headers:?}"), hook, from_wan(&outer.bytes()))
                    .passes(NoTunnelRoute),
            );
        }
        for protocol in [4, 6, UDP, 41, 58, 59, 132, 255] {
            let inner = inbound(Family::V6, PLAIN6).bytes();
            let outer = carried(PLAIN6, &inner).with(|outer| outer.protocol = protocol);
            for outer in [extended(outer.clone(), &[(DESTINATION, 8)]), outer] {
                cases.push(
                    Case::new(format!("next header {protocol}"), hook, from_wan(&outer.bytes()))
                        .passes(NoTunnelRoute),
                );
            }
        }
    }
    check(cases);
}

#[test]
fn what_has_headers_that_do_not_fit_the_packet_is_not_known_to_be_gre() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for count in 1..=3 {
            let headers = [(DESTINATION, 16); 3];
            let inner = inbound(Family::V6, PLAIN6).bytes();
            let outer = extended(carried(PLAIN6, &inner), &headers[..count]);
            for len in 0..16 * count {
                let shorter = outer.clone().with(|outer| outer.payload.truncate(len));
                let frame = from_wan(&shorter.bytes());
                let what = format!("{len} bytes of {count} headers");
                cases.push(Case::new(&what, hook, frame.clone()).passes(NoTunnelRoute));
                // What is behind the packet's end is padding, whatever it looks like.
                let padded = [&frame[..], &outer.payload[len..]].concat();
                cases.push(Case::new(what, hook, padded).passes(NoTunnelRoute));
            }
            let longer = outer.with(|outer| outer.payload[16 * (count - 1) + 1] = 255);
            cases.push(
                Case::new("longer than all", hook, from_wan(&longer.bytes())).passes(NoTunnelRoute),
            );
        }
    }
    check(cases);
}

/// A Fragment header in front of the payload.
fn fragment(packet: Packet, offset: u16, more: bool) -> Packet {
    packet.with(|packet| {
        let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
        let header = [packet.protocol, 0, high, low, 0, 0, 0, 9];
        packet.payload = [&header[..], &packet.payload].concat();
        packet.protocol = FRAGMENT;
    })
}

/// A fragment's GRE header is another's data, or not there at all.
#[test]
fn rfc7588_5_fragments_are_for_the_reassembler() {
    let mut cases = Vec::new();
    let fragments = [
        ("first", 0, true),
        ("middle", 90, true),
        ("last", 1, false),
        ("far", 0x1fff, false),
        ("the only one", 0, false),
    ];
    for hook in TIERS {
        for tunnel in [PLAIN6, KEYED6, ALL6] {
            for (what, offset, more) in fragments {
                let outer = carried(tunnel, &inbound(Family::V6, tunnel).bytes());
                let outer = fragment(outer, offset, more);
                let options = extended(outer.clone(), &[(DESTINATION, 8)]);
                for outer in [outer, options] {
                    let case = |outer: &Packet| Case::new(what, hook, from_wan(&outer.bytes()));
                    cases.push(case(&outer).passes(OuterFragment));
                    let foreign = outer.clone().with(|outer| outer.source = Family::V6.stranger());
                    cases.push(case(&foreign).passes(NoTunnel));
                }
            }
        }
        let no_gre = fragment(Packet::new(PLAIN6.remote(), Family::V6.local()), 0, true);
        cases.push(Case::new("not of GRE", hook, from_wan(&no_gre.bytes())).passes(NoTunnelRoute));
    }
    check(cases);
}

/// As Linux sends it: the option, then PadN of one byte.
#[test]
fn d12_an_encapsulation_limit_of_any_value_is_accepted() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for limit in [0, 1, 4, 255] {
            let inner = inbound(Family::V4, PLAIN6);
            let outer = carried(PLAIN6, &inner.bytes()).with(|outer| {
                outer.protocol = DESTINATION;
                outer.payload = [&[GRE, 0, 4, 1, limit, 1, 1, 0], &outer.payload[..]].concat();
            });
            cases.push(
                Case::new(format!("limit {limit}"), hook, from_wan(&outer.bytes()))
                    .comes_out(PLAIN6, &inner),
            );
        }
    }
    check(cases);
}
