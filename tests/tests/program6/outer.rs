//! The outer IPv6 header: what is sent in it, and what of it matters on receipt.

use std::net::IpAddr;

use gre_ebpf_common::outcome::Outcome::*;

use crate::{
    bench::Hook,
    case::{Case, check},
    change,
    frame::{
        KEY_BIT, SEQUENCE_BIT, carried, from_lan, from_wan, gre, gre_of, received, routed, through,
    },
    packet::{Packet, inbound, outbound, patch, spoil},
    world::{
        ALL4, ALL6, FAMILIES, FIXED6, Family, INHERIT6, KEYED6, LAN, LIMITED6, PLAIN4, PLAIN6,
        Spec, TUNNELS, WAN,
    },
};

pub const TIERS: [Hook; 2] = [Hook::Xdp(WAN), Hook::TcIn(WAN)];

pub fn over_ipv6() -> impl Iterator<Item = Spec> {
    TUNNELS.into_iter().filter(|tunnel| tunnel.outside == Family::V6)
}

/// The header written down byte by byte, so that the oracle of the other tables is held to it as well.
#[test]
fn rfc7676_1_ip6gre2_the_outer_header_byte_by_byte() {
    let addresses = |last: u8| {
        let source = [0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let remote = [0x20, 1, 0x0d, 0xb8, 0, 0xf, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
        [source, remote].concat()
    };
    let mut inner = outbound(Family::V6, PLAIN6);
    (inner.tos, inner.flow_label, inner.ttl) = (0xb9, 0x1_2345, 33);
    let limit = |limit| vec![47, 0, 4, 1, limit, 1, 1, 0];
    let (plain, keyed) = (vec![0, 0, 0x86, 0xdd], vec![0x20, 0, 0x86, 0xdd, 0, 0, 0, 7]);
    // Traffic class and flow label; length; next header; hop limit; options; GRE.
    for (tunnel, first, len, next, hops, options, gre) in [
        (PLAIN6, [0x60, 0x10, 0, 0], 76, 47, 64, vec![], plain.clone()),
        (INHERIT6, [0x6b, 0x91, 0x23, 0x45], 76, 47, 32, vec![], plain.clone()),
        (FIXED6, [0x62, 0x9a, 0xbc, 0xde], 84, 60, 7, limit(0), plain),
        (LIMITED6, [0x60, 0x10, 0, 0], 88, 60, 64, limit(4), keyed),
    ] {
        inner.destination = tunnel.beyond(Family::V6);
        let header = [&first[..], &[0, len, next, hops], &addresses(1 + tunnel.id as u8)].concat();
        let mut out = vec![2, 0, 0, 0, 0, 0x21, 2, 0, 0, 0, 0, 0x12, 0x86, 0xdd];
        for part in [header, options, gre, inner.forwarded().bytes()] {
            out.extend(part);
        }
        check([Case::new(format!("{tunnel:?}"), Hook::Xdp(LAN), from_lan(&inner.bytes()))
            .sends(Encapsulated, WAN, move |_| out.clone())
            .sent(tunnel, 72)]);
    }
}

/// All values of the byte, and flow labels bit by bit, of the packet inside.
#[test]
fn ip6gre2_class_hop_limit_and_flow_label_are_fixed_or_inherited() {
    let mut cases = Vec::new();
    for tunnel in [PLAIN6, INHERIT6, FIXED6] {
        for inside in FAMILIES {
            let mut add = |what: String, change: &dyn Fn(&mut Packet)| {
                let mut packet = outbound(inside, tunnel);
                change(&mut packet);
                let case = Case::new(&what, Hook::Xdp(LAN), from_lan(&packet.bytes()));
                cases.push(case.encapsulates(tunnel, &packet.forwarded()));
                let hook = Hook::TcOut(tunnel.device());
                let case = Case::new(what, hook, routed(&packet.bytes()));
                cases.push(case.encapsulates(tunnel, &packet));
            };
            for byte in 0..=255 {
                add(format!("DS field {byte:#x}, {inside:?}"), &|packet| packet.tos = byte);
            }
            for ttl in 2..=255 {
                add(format!("TTL {ttl}, {inside:?}"), &|packet| packet.ttl = ttl);
            }
            for bit in 0..20 {
                add(format!("flow label bit {bit}"), &|packet| packet.flow_label = 1 << bit);
            }
        }
    }
    check(cases);
}

/// The outer header of a packet received says how it came, not how the tunnel sends.
#[test]
fn the_outer_headers_class_flow_label_and_hop_limit_do_not_matter_on_receipt() {
    let mut cases = Vec::new();
    for tunnel in [PLAIN6, INHERIT6, FIXED6] {
        for inside in FAMILIES {
            let inner = inbound(inside, tunnel);
            let outer = || carried(tunnel, &inner.bytes());
            for (what, outer) in [
                ("hop limit 1", outer().with(|outer| outer.ttl = 1)),
                ("hop limit 0", outer().with(|outer| outer.ttl = 0)),
                ("DSCP", outer().with(|outer| outer.tos = 0xb8)),
                ("flow label", outer().with(|outer| outer.flow_label = 0xf_ffff)),
            ] {
                for hook in TIERS {
                    cases.push(
                        Case::new(what, hook, from_wan(&outer.bytes())).comes_out(tunnel, &inner),
                    );
                }
            }
        }
    }
    check(cases);
}

/// A length beyond the frame is no packet; what is behind a shorter one is padding.
#[test]
fn p1_a_length_that_lies_is_the_kernels_affair_and_one_that_ends_in_the_headers_is_told() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in [PLAIN6, KEYED6, ALL6] {
            for inside in FAMILIES {
                let inner = inbound(inside, tunnel).long(inside.header_len() + 8).bytes();
                let packet = carried(tunnel, &inner).bytes();
                let headers = tunnel.overhead() - 40;
                for len in 0..packet.len() - 40 {
                    let shorter = spoil(&packet, 4, &(len as u16).to_be_bytes());
                    // The checksum is that of a longer packet.
                    let outcome = if len < headers {
                        GreTruncated
                    } else if tunnel.checksum {
                        ChecksumWrong
                    } else {
                        InnerTruncated
                    };
                    for frame in [from_wan(&shorter[..40 + len]), from_wan(&shorter)] {
                        let what = format!("{len} bytes in a frame of {}, {tunnel:?}", frame.len());
                        cases.push(Case::new(what, hook, frame).drops(outcome, tunnel));
                    }
                }
                for more in [1, 100, 60_000] {
                    let len = (packet.len() - 40 + more) as u16;
                    let longer = from_wan(&spoil(&packet, 4, &len.to_be_bytes()));
                    cases.push(Case::new("too long", hook, longer).passes(Ipv6Malformed));
                }
            }
        }
        // TEST_RUN gives TC no IPv6 that is shorter than its header.
        let frame = through(PLAIN6, &inbound(Family::V6, PLAIN6).bytes());
        let shortest = if matches!(hook, Hook::Xdp(_)) { 14 } else { 54 };
        for len in shortest..frame.len() {
            let what = format!("cut after {len} bytes");
            cases.push(Case::new(what, hook, frame[..len].to_vec()).passes(Ipv6Malformed));
        }
    }
    check(cases);
}

#[test]
fn an_outer_packet_of_another_version_than_the_frame_says_is_malformed() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for version in (0..16u8).filter(|version| *version != 6) {
            let packet = carried(PLAIN6, &inbound(Family::V6, PLAIN6).bytes()).bytes();
            let mut frame = from_wan(&spoil(&packet, 0, &[version << 4]));
            frame[12..14].copy_from_slice(&[0x86, 0xdd]);
            cases.push(Case::new(format!("version {version}"), hook, frame).passes(Ipv6Malformed));
        }
    }
    check(cases);
}

/// GRE between addresses of no tunnel may be on its way through, or for another program: it is
/// never dropped, whatever it looks like.
#[test]
fn d4_l9_gre_of_strangers_is_passed_on_whatever_it_looks_like() {
    let mut cases = Vec::new();
    for hook in TIERS {
        let passes = |what: String, gre: Vec<u8>| {
            let packet = received(PLAIN6, gre);
            let packet = packet.with(|packet| packet.source = Family::V6.stranger());
            Case::new(what, hook, from_wan(&packet.bytes())).passes(NoTunnel)
        };
        let inner = inbound(Family::V6, PLAIN6).bytes();
        for bit in 0..16u16 {
            cases.push(passes(format!("bit {bit}"), gre_bits(1 << bit, &inner)));
        }
        for protocol in [0, 0x0800, 0x6558, 0x880b, 0x883e] {
            cases.push(passes(format!("type {protocol:#x}"), gre(0, protocol, &[], &inner)));
        }
        let keyed = gre(KEY_BIT | SEQUENCE_BIT, 0x86dd, &[7, 1], &[]);
        for len in 0..keyed.len() {
            cases.push(passes(format!("{len} bytes"), keyed[..len].to_vec()));
        }
    }
    check(cases);
}

/// With any flags, and no more than one word behind them.
fn gre_bits(flags: u16, payload: &[u8]) -> Vec<u8> {
    [&flags.to_be_bytes()[..], &[0x86, 0xdd, 0, 0, 0, 1], payload].concat()
}

/// A tunnel is both its addresses: the right remote with another local is a stranger as well.
#[test]
fn d4_one_address_of_a_tunnel_is_not_enough() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in [PLAIN6, KEYED6] {
            let inner = inbound(Family::V6, tunnel).bytes();
            let packet = received(tunnel, gre_of(tunnel, 0, 0x86dd, &inner)).bytes();
            let remotes: Vec<_> = over_ipv6().map(|tunnel| tunnel.remote()).collect();
            for bit in 0..128 {
                for (what, at) in [("remote", 8), ("local", 24)] {
                    let at = at + bit / 8;
                    let other = patch(&packet, at, &[packet[at] ^ 1 << (bit % 8)]);
                    let source = IpAddr::from(<[u8; 16]>::try_from(&other[8..24]).unwrap());
                    if what == "remote" && remotes.contains(&source) {
                        continue;
                    }
                    let what = format!("{what}, bit {bit}");
                    cases.push(Case::new(what, hook, from_wan(&other)).passes(NoTunnel));
                }
            }
            let swapped = patch(&packet, 8, &[&packet[24..40], &packet[8..24]].concat());
            cases.push(Case::new("the other way", hook, from_wan(&swapped)).passes(NoTunnel));
        }
    }
    check(cases);
}

/// IPv4 and IPv6 are told apart even where the addresses are the same words.
#[test]
fn a_tunnel_over_one_version_takes_nothing_of_the_other() {
    let mut cases = Vec::new();
    for hook in TIERS {
        let inner = inbound(Family::V4, PLAIN6).bytes();
        let packet = carried(PLAIN6, &inner).with(|packet| {
            packet.source = "c000:201::".parse().unwrap();
            packet.destination = "c633:6401::".parse().unwrap();
        });
        cases.push(Case::new("like IPv4", hook, from_wan(&packet.bytes())).passes(NoTunnel));
        let reversed = packet.with(|packet| {
            packet.source = "c633:6401::".parse().unwrap();
            packet.destination = "c000:201::".parse().unwrap();
        });
        cases.push(Case::new("like PLAIN4", hook, from_wan(&reversed.bytes())).passes(NoTunnel));
    }
    check(cases);
}

/// Such a source is of no host: the kernel drops what has it. With a remote given it is none's.
#[test]
fn rfc7676_5_outer_sources_that_are_not_unicast_are_of_no_tunnel() {
    let mut cases = Vec::new();
    for hook in TIERS {
        let mut add = |tunnel: Spec, source: &str, is_unicast: bool| {
            let inner = inbound(Family::V6, tunnel);
            let source: IpAddr = source.parse().unwrap();
            let outer = carried(tunnel, &inner.bytes()).with(|outer| outer.source = source);
            let case = Case::new(format!("from {source}"), hook, from_wan(&outer.bytes()));
            let case = case.given(move |plane| {
                let (local, any) = (tunnel.outside.local(), tunnel.outside.any());
                change::ends_are(plane, tunnel, local, any);
            });
            cases.push(match is_unicast {
                true => case.comes_out(tunnel, &inner),
                false => case.passes(NoTunnel),
            });
        };
        for tunnel in [PLAIN6, ALL6] {
            for source in ["ff02::1", "ff0e::77", "::1", "::"] {
                add(tunnel, source, false);
            }
            // Tunnels may run on a link.
            for source in ["fe80::1", "::2", "1::1", "::1:0:1", "fe00::1", "2001:db8::1"] {
                add(tunnel, source, true);
            }
        }
        for tunnel in [PLAIN4, ALL4] {
            for source in ["224.0.0.1", "239.255.255.255", "127.0.0.1", "0.0.0.0", "0.0.0.1"] {
                add(tunnel, source, false);
            }
            for source in ["223.255.255.255", "240.0.0.1", "126.0.0.1", "128.0.0.1", "1.0.0.0"] {
                add(tunnel, source, true);
            }
        }
    }
    check(cases);
}
