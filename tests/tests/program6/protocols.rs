//! What else GRE carries over IPv6: MPLS and other EtherTypes, and what is not ours.

use gre_ebpf_common::outcome::Outcome::*;

use crate::{
    bench::Hook,
    case::{Case, check},
    frame::{ROUTED_FROM, frame, from_wan, gre, gre_of, received},
    outer::{TIERS, over_ipv6},
    packet::{inbound, outbound},
    world::{ALL6, Family, PLAIN6, Spec, TUNNELS, WAN},
};

fn carrying(tunnel: Spec, protocol: u16, payload: &[u8]) -> Vec<u8> {
    from_wan(&received(tunnel, gre_of(tunnel, 0, protocol, payload)).bytes())
}

/// Whatever has an EtherType goes to the device, whose kernel knows what to do with it.
#[test]
fn rfc4023_1_mpls_and_other_ethertypes_go_to_the_device() {
    let mut cases = Vec::new();
    for tunnel in TUNNELS {
        for protocol in [0x8847, 0x8848, 0x0806, 0x0600, 0x880b, 0x8100, 0x88a8, 0xffff] {
            for len in [40, 41, 1000, tunnel.mtu()] {
                let payload = vec![0x45; len];
                for hook in TIERS {
                    let what = format!("{protocol:#x}, {len} bytes in {tunnel:?}");
                    let out = payload.clone();
                    cases.push(
                        Case::new(what, hook, carrying(tunnel, protocol, &payload))
                            .sends(ToDevice, tunnel.peer(), move |_| {
                                let (device, peer) = (tunnel.device_mac(), tunnel.peer_mac());
                                frame(device, peer, &[], protocol, &out)
                            })
                            .received(tunnel, len),
                    );
                }
            }
        }
    }
    check(cases);
}

/// A GRE header of four bytes with next to nothing behind it.
#[test]
fn d5_short_payloads_are_legal() {
    let mut cases = Vec::new();
    for tunnel in TUNNELS {
        for len in 0..8 {
            let payload = vec![1; len];
            let (what, out) = (format!("{len} bytes in {tunnel:?}"), payload.clone());
            cases.push(
                Case::new(what, Hook::Xdp(WAN), carrying(tunnel, 0x8847, &payload))
                    .sends(ToDevice, tunnel.peer(), move |_| {
                        let (device, peer) = (tunnel.device_mac(), tunnel.peer_mac());
                        frame(device, peer, &[], 0x8847, &out)
                    })
                    .received(tunnel, len),
            );
        }
    }
    check(cases);
}

#[test]
fn d13_d14_p5_l8_what_is_not_for_a_tunnel_of_ip_meets_its_reason() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in over_ipv6() {
            let inner = inbound(Family::V6, tunnel).bytes();
            let case = |protocol| {
                let what = format!("{protocol:#x} in {tunnel:?}");
                Case::new(what, hook, carrying(tunnel, protocol, &inner))
            };
            cases.push(case(0x6558).drops(EthernetFrame, tunnel));
            for protocol in [0x883e, 0x88be, 0x22eb] {
                cases.push(case(protocol).passes(ForeignProtocol));
            }
            for protocol in [0, 1, 0xfe, 0x5ff] {
                cases.push(case(protocol).drops(ProtocolUnsupported, tunnel));
            }
            let keepalive = Case::new("keepalive", hook, carrying(tunnel, 0, &[]));
            let keepalive = keepalive.consumed(Keepalive);
            cases.push(if tunnel.sequence {
                keepalive.then(tunnel, |sequence| sequence.expected = 1)
            } else {
                keepalive
            });
        }
    }
    check(cases);
}

#[test]
fn p2_p7_rfc2784_1_versions_and_reserved_bits() {
    let mut cases = Vec::new();
    for hook in TIERS {
        let inner = inbound(Family::V6, PLAIN6);
        for bit in 1..16u16 {
            let flags = 0x8000 >> bit;
            let outer = received(PLAIN6, gre(flags, 0x86dd, &[], &inner.bytes()));
            let case = Case::new(format!("bit {bit}"), hook, from_wan(&outer.bytes()));
            cases.push(match bit {
                1 => case.drops(GreRouting, PLAIN6),
                // Key and sequence number have their own tests.
                2 | 3 => continue,
                4 | 5 => case.drops(GreReserved, PLAIN6),
                13 | 14 => case.drops(GreVersion, PLAIN6),
                15 => case.passes(Pptp),
                _ => case.comes_out(PLAIN6, &inner),
            });
        }
    }
    check(cases);
}

/// The daemon would send them on, but it is not there.
#[test]
fn what_is_not_ip_goes_into_no_tunnel_without_the_daemon() {
    let mut cases = Vec::new();
    for tunnel in [PLAIN6, ALL6] {
        for ethertype in [0x0806, 0x8847, 0x88cc] {
            let packet = outbound(Family::V6, tunnel).bytes();
            let bytes = frame([0; 6], ROUTED_FROM, &[], ethertype, &packet);
            cases.push(
                Case::new(format!("{ethertype:#x}"), Hook::TcOut(tunnel.peer()), bytes)
                    .drops(TunnelProtocol, tunnel),
            );
        }
    }
    check(cases);
}
