//! What must be true of the IPv6 packet inside before it may come out, in both tiers; and of one
//! that is to go in.

use std::net::IpAddr;

use gre_ebpf_common::{outcome::Outcome::*, route::Entry};

use crate::{
    bench::Hook,
    case::{Case, check},
    change,
    frame::{carried, from_lan, from_wan, gre_of, received, through, to_device, to_host},
    outer::TIERS,
    packet::{Packet, inbound, outbound, patch, spoil},
    world::{ALL4, ALL6, FAMILIES, Family, LAN, LIMITED6, PLAIN4, PLAIN6, Spec, TUNNELS, WAN},
};

const SOME: [Spec; 4] = [PLAIN4, ALL4, PLAIN6, LIMITED6];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn r3_an_inner_header_that_lies_is_dropped_with_a_reason() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in TUNNELS {
            let inner = inbound(Family::V6, tunnel).bytes();
            let mut add = |what: &str, protocol, inner: &[u8], outcome| {
                let frame = from_wan(&received(tunnel, gre_of(tunnel, 0, protocol, inner)).bytes());
                let what = format!("{what} in {tunnel:?}");
                cases.push(Case::new(what, hook, frame).drops(outcome, tunnel));
            };
            for version in (0..16u8).filter(|version| *version != 6) {
                let inner = spoil(&inner, 0, &[version << 4]);
                add(&format!("version {version}"), 0x86dd, &inner, InnerMalformed);
            }
            let inner4 = inbound(Family::V4, tunnel).bytes();
            add("IPv4 as IPv6", 0x86dd, &inner4, InnerMalformed);
            add("IPv6 as IPv4", 0x0800, &inner, InnerMalformed);
            for more in [1u16, 7, 40, 0xff00] {
                let inner = patch(&inner, 4, &(32 + more).to_be_bytes());
                add(&format!("length {more} beyond"), 0x86dd, &inner, InnerTruncated);
            }
            for len in 0..inner.len() {
                add(&format!("{len} bytes"), 0x86dd, &inner[..len], InnerTruncated);
            }
        }
    }
    check(cases);
}

/// Ethernet pads short frames; XDP leaves the padding on, and TC lets the kernel cut it.
#[test]
fn padding_behind_the_inner_packet_is_kept_and_not_counted() {
    let mut cases = Vec::new();
    let tunnels = TUNNELS.into_iter().filter(|tunnel| !tunnel.checksum);
    for tunnel in tunnels {
        for inside in FAMILIES {
            for padding in [1, 2, 33] {
                let inner = inbound(inside, tunnel);
                let padded = [inner.bytes(), vec![0; padding]].concat();
                let behind = vec![0; padding];
                // Within the outer packet, and behind it.
                let frames = [
                    through(tunnel, &padded),
                    [through(tunnel, &inner.bytes()), behind.clone()].concat(),
                ];
                for frame in frames {
                    let what = format!("{padding} bytes, {inside:?} in {tunnel:?}");
                    let out = [to_host(&inner.forwarded().bytes()), behind.clone()].concat();
                    cases.push(
                        Case::new(&what, Hook::Xdp(WAN), frame.clone())
                            .sends(Decapsulated, LAN, move |_| out.clone())
                            .received(tunnel, 72),
                    );
                    let out = [to_device(tunnel, &inner.bytes()), behind.clone()].concat();
                    cases.push(
                        Case::new(what, Hook::TcIn(WAN), frame)
                            .sends(ToDevice, tunnel.peer(), move |_| out.clone())
                            .received(tunnel, 72),
                    );
                }
            }
        }
    }
    check(cases);
}

#[test]
fn inner_sources_that_no_router_forwards_are_dropped() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in SOME {
            for source in ["::1", "ff00::", "ff02::1", "ff0e::1", "ffff:ffff::"] {
                let inner = Packet::new(address(source), Family::V6.host());
                let what = format!("from {source}, {tunnel:?}");
                let frame = through(tunnel, &inner.bytes());
                cases.push(Case::new(what, hook, frame).drops(InnerMartian, tunnel));
            }
            // Those around them are not.
            for source in ["::2", "::1:0:0", "1::1", "fec0::1", "fdff::1", "::ffff:10.1.0.2"] {
                let inner = Packet::new(address(source), Family::V6.host());
                let what = format!("from {source}, {tunnel:?}");
                let frame = through(tunnel, &inner.bytes());
                cases.push(Case::new(what, hook, frame).comes_out(tunnel, &inner));
            }
        }
    }
    check(cases);
}

/// Only the kernel knows what to do with these: OSPFv3 and neighbour discovery through the tunnel.
#[test]
fn what_no_router_forwards_goes_to_the_device_unchanged() {
    let mut cases = Vec::new();
    let back = Entry::NextHop(crate::world::TO_HOST);
    for hook in TIERS {
        for tunnel in SOME {
            let mut add = |what: &str, packet: Packet| {
                let (what, inner) = (format!("{what}, {tunnel:?}"), packet.bytes());
                cases.push(
                    Case::new(what, hook, through(tunnel, &inner))
                        .delivered(tunnel, &inner)
                        .given(move |plane| change::route(plane, Family::V6.any(), 0, back)),
                );
            };
            let packet = || inbound(Family::V6, tunnel);
            add("hop limit 1", packet().with(|packet| packet.ttl = 1));
            add("hop limit 0", packet().with(|packet| packet.ttl = 0));
            add("hop-by-hop options", packet().with(|packet| packet.protocol = 0));
            for source in ["::", "fe80::1", "febf:ffff::1"] {
                add(source, packet().with(|packet| packet.source = address(source)));
            }
            for destination in ["::", "::1", "fe80::1", "febf::1", "ff02::5", "ff0e::1"] {
                add(destination, packet().with(|packet| packet.destination = address(destination)));
            }
        }
    }
    check(cases);
}

/// Other extension headers are nothing to a router (RFC 8200, 4), unless it is about to put another IPv6
/// header around them (RFC 2473, 4.1.1).
#[test]
fn other_extension_headers_inside_are_forwarded_like_any_payload() {
    let mut cases = Vec::new();
    for tunnel in SOME {
        for next_header in [6, 43, 44, 50, 51, 58, 59, 60] {
            let what = format!("next header {next_header}, {tunnel:?}");
            let inner = inbound(Family::V6, tunnel).with(|packet| packet.protocol = next_header);
            for hook in TIERS {
                let frame = through(tunnel, &inner.bytes());
                cases.push(Case::new(&what, hook, frame).comes_out(tunnel, &inner));
            }
            let packet = outbound(Family::V6, tunnel).with(|packet| packet.protocol = next_header);
            let case = Case::new(&what, Hook::Xdp(LAN), from_lan(&packet.bytes()));
            cases.push(match (tunnel.outside, next_header) {
                (Family::V6, 43 | 51 | 60) => case.passes(Ipv6Extension),
                _ => case.encapsulates(tunnel, &packet.forwarded()),
            });
        }
    }
    check(cases);
}

#[test]
fn what_may_not_be_forwarded_does_not_go_into_a_tunnel() {
    let mut cases = Vec::new();
    for tunnel in SOME {
        let mut add = |what: &str, packet: Packet, outcome| {
            cases.push(
                Case::new(format!("{what}, {tunnel:?}"), Hook::Xdp(LAN), from_lan(&packet.bytes()))
                    .passes(outcome)
                    .given(move |plane| {
                        change::route(plane, Family::V6.any(), 0, Entry::Tunnel(tunnel.id));
                    }),
            );
        };
        let packet = || outbound(Family::V6, tunnel);
        add("hop limit 1", packet().with(|packet| packet.ttl = 1), TtlExpiring);
        add("hop limit 0", packet().with(|packet| packet.ttl = 0), TtlExpiring);
        add("hop-by-hop options", packet().with(|packet| packet.protocol = 0), Ipv6Extension);
        for source in ["::", "::1", "fe80::1", "ff02::1"] {
            add(source, packet().with(|packet| packet.source = address(source)), NotUnicast);
        }
        for destination in ["::", "::1", "fe80::1", "febf::1", "ff02::5", "ff0e::1"] {
            let packet = packet().with(|packet| packet.destination = address(destination));
            add(destination, packet, NotUnicast);
        }
    }
    check(cases);
}

#[test]
fn a_packet_of_the_lan_whose_length_or_version_is_wrong_is_malformed() {
    let packet = outbound(Family::V6, PLAIN6).bytes();
    let mut cases = Vec::new();
    for version in (0..16u8).filter(|version| *version != 6) {
        let mut frame = from_lan(&spoil(&packet, 0, &[version << 4]));
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        cases.push(Case::new("version", Hook::Xdp(LAN), frame).passes(Ipv6Malformed));
    }
    for len in [33u16, 100, 65_535] {
        let frame = from_lan(&spoil(&packet, 4, &len.to_be_bytes()));
        cases.push(Case::new("length", Hook::Xdp(LAN), frame).passes(Ipv6Malformed));
    }
    for len in 14..54 + 32 {
        let frame = from_lan(&packet)[..len].to_vec();
        cases.push(Case::new("cut", Hook::Xdp(LAN), frame).passes(Ipv6Malformed));
    }
    check(cases);
}

/// The checksum covers what is behind the inner packet as well.
#[test]
fn rfc2784_3_padding_inside_a_summed_packet_is_summed() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in [ALL4, ALL6] {
            let inner = inbound(Family::V6, tunnel).bytes();
            let padded = [&inner[..], &[1, 2, 3]].concat();
            let mut outer = carried(tunnel, &padded);
            *outer.payload.last_mut().unwrap() ^= 1;
            let frame = from_wan(&outer.bytes());
            cases.push(Case::new("spoilt", hook, frame).drops(ChecksumWrong, tunnel));
        }
    }
    check(cases);
}
