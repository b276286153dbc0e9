//! Tunnels of Ethernet: frames out of them and into them, byte by byte, over either version.

use gre_ebpf_common::{
    demux::{Key, Kind},
    outcome::Outcome::*,
    tunnel::Flags,
};
use gre_userspace::dataplane::DataPlane;

use crate::{
    bench::Hook,
    case::{Case, check},
    change,
    frame::{Tags, frame, from_wan, gre, gre_of, received, through, to_underlay},
    packet::{GRE, Packet, inbound},
    world::{
        ALL4, ALL6, FAMILIES, FIXED6, Family, HOST_MAC, INHERIT4, INHERIT6, KEYED6, LIMITED6,
        PLAIN4, PLAIN6, SUMMED6, Spec, TO_GATEWAY, WAN,
    },
};

const TUNNELS: [Spec; 8] = [PLAIN4, ALL4, PLAIN6, KEYED6, ALL6, LIMITED6, INHERIT4, INHERIT6];
const TIERS: [Hook; 2] = [Hook::Xdp(WAN), Hook::TcIn(WAN)];
const TEB: u16 = 0x6558;
const FAR: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
const VLAN_TAG: (u16, u16) = (0x8100, 0x2007);
const SERVICE_TAG: (u16, u16) = (0x88a8, 0x0064);
/// Bytes of the smallest frame, to which TC pads what comes out.
const SMALLEST: usize = 60;

/// The tunnel is one of Ethernet.
fn carries_frames(tunnel: Spec) -> impl Fn(&mut DataPlane) {
    move |plane| {
        plane.demux.retain(|_, id| *id != tunnel.id);
        for kind in [tunnel.kind(), Kind::PAIR] {
            let key = Key { ends: tunnel.ends(), kind: kind.of_ethernet(true), link: 0 };
            plane.demux.insert(key, tunnel.id);
        }
        change::tunnel_flag(plane, tunnel, Flags::ETHERNET, true);
        change::tunnel(plane, tunnel).mtu = (tunnel.mtu() - 14) as u16;
    }
}

fn arp() -> Vec<u8> {
    frame([0xff; 6], FAR, &[], 0x0806, &[7; 28])
}

/// With a length in place of an EtherType, as STP's are.
fn spanning_tree() -> Vec<u8> {
    frame([1, 0x80, 0xc2, 0, 0, 0], FAR, &[], 38, &[0x42; 46])
}

/// What stations of a LAN send each other; and to groups.
fn frames(tunnel: Spec) -> Vec<(&'static str, Vec<u8>)> {
    let ip = |family: Family, tags: Tags<'_>| {
        frame(HOST_MAC, FAR, tags, family.ethertype(), &inbound(family, tunnel).bytes())
    };
    vec![
        ("IPv4", ip(Family::V4, &[])),
        ("IPv6", ip(Family::V6, &[])),
        ("IPv4 behind a tag", ip(Family::V4, &[VLAN_TAG])),
        ("IPv6 behind two tags", ip(Family::V6, &[SERVICE_TAG, VLAN_TAG])),
        ("ARP", arp()),
        ("STP", spanning_tree()),
        ("a header alone", frame(HOST_MAC, FAR, &[], 0x88b5, &[])),
        ("a byte below the smallest", frame(HOST_MAC, FAR, &[], 0x88b5, &[3; 45])),
        ("the smallest", frame(HOST_MAC, FAR, &[], 0x88b5, &[3; 46])),
        ("the longest", frame(HOST_MAC, FAR, &[], 0x88b5, &vec![3; tunnel.mtu() - 14])),
    ]
}

/// An outer packet with this frame in it, as the tunnel's remote sends it.
fn outer(tunnel: Spec, inner: &[u8]) -> Packet {
    received(tunnel, gre_of(tunnel, 0, TEB, inner))
}

/// What leaves the device's other end: TC pads, since the kernel does not take less.
fn comes_out(case: Case, hook: Hook, tunnel: Spec, inner: &[u8]) -> Case {
    let mut out = inner.to_vec();
    if matches!(hook, Hook::TcIn(_)) {
        out.resize(out.len().max(SMALLEST), 0);
    }
    let outcome = match inner {
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, ..] => BroadcastToDevice,
        [first, ..] if first & 1 != 0 => MulticastToDevice,
        _ => ToDevice,
    };
    case.given(carries_frames(tunnel))
        .sends(outcome, tunnel.peer(), move |_| out.clone())
        .received(tunnel, inner.len())
}

#[test]
fn frames_come_out_as_they_went_in() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in TUNNELS {
            for (what, inner) in frames(tunnel) {
                let case = Case::new(
                    format!("{what}, {tunnel:?}"),
                    hook,
                    from_wan(&outer(tunnel, &inner).bytes()),
                );
                cases.push(comes_out(case, hook, tunnel, &inner));
            }
        }
    }
    check(cases);
}

/// RFC 6040's table, of the IP packet in the frame, where that is one, behind tags as well.
#[test]
fn congestion_outside_is_told_to_the_packet_in_the_frame() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in [PLAIN4, PLAIN6, KEYED6] {
            for inside in FAMILIES {
                for tags in [&[][..], &[VLAN_TAG], &[SERVICE_TAG, VLAN_TAG]] {
                    for (inner, outside, out) in [
                        (0, 0, Some(0)),
                        (0, 1, Some(0)),
                        (0, 2, Some(0)),
                        (0, 3, None),
                        (1, 3, Some(3)),
                        (2, 0, Some(2)),
                        (2, 1, Some(1)),
                        (2, 3, Some(3)),
                        (3, 0, Some(3)),
                        (3, 1, Some(3)),
                    ] {
                        let with = |ecn: u8| {
                            let packet =
                                inbound(inside, tunnel).with(|packet| packet.tos = 0xb8 | ecn);
                            frame(HOST_MAC, FAR, tags, inside.ethertype(), &packet.bytes())
                        };
                        let what =
                            format!("{inner} in {outside}, {tags:x?}, {inside:?}, {tunnel:?}");
                        let marked =
                            outer(tunnel, &with(inner)).with(|packet| packet.tos = 0x28 | outside);
                        let case = Case::new(what, hook, from_wan(&marked.bytes()));
                        cases.push(match out {
                            Some(out) => comes_out(case, hook, tunnel, &with(out)),
                            None => case.given(carries_frames(tunnel)).drops(EcnInvalid, tunnel),
                        });
                    }
                }
            }
            // Nothing else has a place for it.
            let marked = outer(tunnel, &arp()).with(|packet| packet.tos = 3);
            let case = Case::new("ARP", hook, from_wan(&marked.bytes()));
            cases.push(comes_out(case, hook, tunnel, &arp()));
        }
    }
    check(cases);
}

#[test]
fn d14_l8_what_is_for_the_other_kind_of_tunnel_is_dropped() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in [PLAIN4, PLAIN6, KEYED6] {
            for inside in FAMILIES {
                let packet = inbound(inside, tunnel).bytes();
                cases.push(
                    Case::new(format!("{inside:?} in {tunnel:?}"), hook, through(tunnel, &packet))
                        .given(carries_frames(tunnel))
                        .drops(NotEthernet, tunnel),
                );
            }
            for protocol in [0x0806, 0x8847, 0x88b5] {
                let packet = received(tunnel, gre_of(tunnel, 0, protocol, &[0; 46]));
                cases.push(
                    Case::new(
                        format!("{protocol:#x} in {tunnel:?}"),
                        hook,
                        from_wan(&packet.bytes()),
                    )
                    .given(carries_frames(tunnel))
                    .drops(NotEthernet, tunnel),
                );
            }
            for (what, inner) in frames(tunnel) {
                let bytes = from_wan(&outer(tunnel, &inner).bytes());
                cases.push(
                    Case::new(format!("{what} in {tunnel:?}"), hook, bytes)
                        .drops(EthernetFrame, tunnel),
                );
            }
        }
    }
    check(cases);
}

#[test]
fn what_is_no_frame_of_a_station_is_dropped() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in [PLAIN4, PLAIN6, SUMMED6, LIMITED6] {
            let mut add = |what: String, inner: &[u8], outcome| {
                let bytes = from_wan(&outer(tunnel, inner).bytes());
                cases.push(
                    Case::new(format!("{what}, {tunnel:?}"), hook, bytes)
                        .given(carries_frames(tunnel))
                        .drops(outcome, tunnel),
                );
            };
            for len in 0..14 {
                add(format!("{len} bytes"), &arp()[..len], InnerTruncated);
            }
            for source in [[1, 0, 0x5e, 0, 0, 1], [0xff; 6], [0x33, 0x33, 0, 0, 0, 1], [0; 6]] {
                let inner = frame(HOST_MAC, source, &[], 0x88b5, &[0; 46]);
                add(format!("from {source:x?}"), &inner, FrameSource);
            }
        }
    }
    check(cases);
}

#[test]
fn keys_checksums_and_sequence_numbers_of_frames_are_judged_like_those_of_packets() {
    let mut cases = Vec::new();
    let inner = arp();
    for hook in TIERS {
        let mut add = |what: &str, tunnel: Spec, bytes: Vec<u8>, outcome| {
            let packet = received(tunnel, bytes);
            cases.push(
                Case::new(format!("{what}, {tunnel:?}"), hook, from_wan(&packet.bytes()))
                    .given(carries_frames(tunnel))
                    .drops(outcome, tunnel),
            );
        };
        add("a key", PLAIN4, gre(0x2000, TEB, &[9], &inner), KeyUnexpected);
        add("a key", PLAIN6, gre(0x2000, TEB, &[9], &inner), KeyUnexpected);
        add("none", KEYED6, gre(0, TEB, &[], &inner), KeyMissing);
        add("another", KEYED6, gre(0x2000, TEB, &[9], &inner), KeyMismatch);
        add("a checksum", PLAIN4, gre(0x8000, TEB, &[0], &inner), ChecksumUnexpected);
        add("none", SUMMED6, gre(0, TEB, &[], &inner), ChecksumMissing);
        for tunnel in [ALL4, ALL6, SUMMED6] {
            let mut spoilt = gre_of(tunnel, 0, TEB, &inner);
            *spoilt.last_mut().unwrap() ^= 1;
            add("a wrong checksum", tunnel, spoilt, ChecksumWrong);
        }
        for tunnel in [ALL4, ALL6] {
            let packet = received(tunnel, gre_of(tunnel, 4, TEB, &inner));
            cases.push(
                Case::new(format!("an old number, {tunnel:?}"), hook, from_wan(&packet.bytes()))
                    .given(carries_frames(tunnel))
                    .numbered(tunnel, 0, 7)
                    .then(tunnel, |sequence| (sequence.run, sequence.old) = (1, 4))
                    .drops(SequenceOld, tunnel),
            );
        }
    }
    check(cases);
}

/// The outer packet that a tunnel must make of a frame. Of an IP packet that is not behind tags the
/// outer header takes what it takes of one without a frame (ip_tunnel_xmit).
fn encapsulated(
    tunnel: Spec,
    df: bool,
    inner: &[u8],
    packet: Option<&Packet>,
    found: &[u8],
) -> Packet {
    let gre = gre_of(tunnel, 0, TEB, inner);
    let (protocol, payload) = match tunnel.limit {
        Some(limit) => (60, [&[GRE, 0, 4, 1, limit, 1, 1, 0], &gre[..]].concat()),
        None => (GRE, gre),
    };
    let fixed = tunnel.tos & 0xfc;
    let tos = packet.map_or(fixed, |packet| match tunnel.tos & 1 {
        1 => packet.tos,
        _ => fixed | packet.tos & 3,
    });
    let ttl = match tunnel.ttl {
        0 => packet.map_or(64, |packet| packet.ttl),
        ttl => ttl,
    };
    let label =
        packet.filter(|packet| packet.family() == Family::V6).map_or(0, |packet| packet.flow_label);
    Packet {
        protocol,
        payload,
        tos,
        ttl,
        flow_label: tunnel.flow_label.unwrap_or(label),
        dont_fragment: df || packet.is_some_and(|packet| packet.dont_fragment),
        identification: found.get(18..20).map_or(0, |id| u16::from_be_bytes([id[0], id[1]])),
        ..Packet::new(tunnel.outside.local(), tunnel.remote())
    }
}

/// Into a tunnel: by the device's own egress, or where the device finishes what it sends, by its
/// other end's ingress.
fn into(tunnel: Spec, what: &str, inner: Vec<u8>, packet: Option<Packet>, df: bool) -> Case {
    let finishes = tunnel.checksum || tunnel.sequence;
    let hook = Hook::TcOut(if finishes { tunnel.peer() } else { tunnel.device() });
    let is_ip = matches!(inner_ethertype(&inner), 0x0800 | 0x86dd);
    let (bytes, len) = (inner.clone(), inner.len());
    Case::new(format!("{what}, {tunnel:?}"), hook, inner)
        .given(carries_frames(tunnel))
        .sends(Encapsulated, WAN, move |found| {
            let outer = encapsulated(tunnel, df, &bytes, packet.as_ref(), found).bytes();
            if !is_ip {
                return to_underlay(&outer);
            }
            // `bpf_redirect_neigh` writes the addresses; the source is what was there.
            let source = found[6..12].try_into().unwrap();
            frame([0; 6], source, &[], tunnel.outside.ethertype(), &outer)
        })
        .sent(tunnel, len)
}

/// Behind tags.
fn inner_ethertype(frame: &[u8]) -> u16 {
    let at = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    (12..).step_by(4).map(at).find(|ethertype| !matches!(ethertype, 0x8100 | 0x88a8)).unwrap()
}

#[test]
fn frames_go_in_whole() {
    let mut cases = Vec::new();
    for tunnel in TUNNELS.into_iter().chain([FIXED6]) {
        for (what, inner) in frames(tunnel) {
            let packet = match what {
                "IPv4" => Some(inbound(Family::V4, tunnel)),
                "IPv6" => Some(inbound(Family::V6, tunnel)),
                _ => None,
            };
            cases.push(into(tunnel, what, inner, packet, true));
        }
    }
    check(cases);
}

#[test]
fn tos_ttl_flow_label_and_dont_fragment_come_from_the_packet_in_the_frame() {
    let mut cases = Vec::new();
    for tunnel in [PLAIN4, PLAIN6, INHERIT4, INHERIT6, FIXED6] {
        for inside in FAMILIES {
            for (tos, ttl, dont_fragment) in
                [(0, 1, false), (0xb9, 255, true), (0x2a, 7, false), (3, 64, true)]
            {
                let packet = inbound(inside, tunnel).with(|packet| {
                    packet.tos = tos;
                    packet.ttl = ttl;
                    packet.flow_label = 0x9_1234;
                    packet.dont_fragment = dont_fragment && inside == Family::V4;
                });
                let bytes = frame(HOST_MAC, FAR, &[], inside.ethertype(), &packet.bytes());
                let what = format!("TOS {tos:#x}, TTL {ttl}, DF {dont_fragment}, {inside:?}");
                let case = into(tunnel, &what, bytes, Some(packet.clone()), false);
                cases.push(case.given(move |plane| without_pmtudisc(plane, tunnel)));
                let bytes = frame(HOST_MAC, FAR, &[VLAN_TAG], inside.ethertype(), &packet.bytes());
                let case = into(tunnel, &format!("{what} behind a tag"), bytes, None, false);
                cases.push(case.given(move |plane| without_pmtudisc(plane, tunnel)));
            }
        }
    }
    check(cases);
}

/// The outer header's own Don't Fragment is clear; one over IPv6 has none.
fn without_pmtudisc(plane: &mut DataPlane, tunnel: Spec) {
    if tunnel.outside == Family::V4 {
        change::tunnel(plane, tunnel).outer[1] = 0;
    }
}

/// The daemon would take these; here it is not there, and they are counted as dropped.
#[test]
fn what_no_program_can_send_is_handed_up() {
    let mut cases = Vec::new();
    for tunnel in [PLAIN4, PLAIN6] {
        let hook = Hook::TcOut(tunnel.device());
        for family in FAMILIES {
            let longer = inbound(family, tunnel).long(tunnel.mtu() - 13).bytes();
            let bytes = frame(HOST_MAC, FAR, &[], family.ethertype(), &longer);
            cases.push(
                Case::new(format!("a byte more, {family:?}, {tunnel:?}"), hook, bytes)
                    .given(carries_frames(tunnel))
                    .drops(TooBigForUnderlay, tunnel),
            );
        }
        // Only the kernel can resolve the next hop, which takes IP alone.
        cases.push(
            Case::new(format!("ARP, {tunnel:?}"), hook, arp())
                .given(carries_frames(tunnel))
                .given(|plane| change::unresolved(plane, TO_GATEWAY))
                .drops(TunnelProtocol, tunnel),
        );
        cases.push(
            Case::new(format!("nowhere to go, {tunnel:?}"), hook, arp())
                .given(carries_frames(tunnel))
                .given(move |plane| change::tunnel(plane, tunnel).next_hop = 0)
                .drops(NoRoute, tunnel),
        );
        // XDP has no way in for what is longer than the device takes.
        let longest = frame(HOST_MAC, FAR, &[], 0x88b5, &vec![0; tunnel.mtu() - 13]);
        cases.push(
            Case::new(
                format!("too long for the device, {tunnel:?}"),
                Hook::Xdp(WAN),
                from_wan(&outer(tunnel, &longest).bytes()),
            )
            .given(carries_frames(tunnel))
            .passes(TooBig),
        );
    }
    check(cases);
}
