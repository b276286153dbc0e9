//! Which tunnel a packet is for, where addresses are any or tunnels are bound to interfaces.

use std::net::IpAddr;

use gre_ebpf_common::{
    demux::{Key, Kind},
    outcome::Outcome::*,
    port,
    tunnel::Flags,
};
use gre_userspace::dataplane::DataPlane;

use crate::{
    bench::Hook,
    case::{Case, check},
    change,
    frame::{KEY_BIT, from_wan, gre, received, tagged},
    outer::TIERS,
    packet::{Packet, inbound},
    world::{
        FAMILIES, FIXED6, Family, INHERIT6, KEYED6, PLAIN4, PLAIN6, Spec, VLAN, WAN, WAN_MAC, ends,
        world,
    },
};

/// A packet with or without a key, of GRE without other options.
pub fn keyed(tunnel: Spec, key: Option<u32>, inner: &Packet) -> Packet {
    let flags = if key.is_some() { KEY_BIT } else { 0 };
    let words: Vec<u32> = key.into_iter().collect();
    received(tunnel, gre(flags, inner.family().ethertype(), &words, &inner.bytes()))
}

/// Places a tunnel without options but a key: local and remote may be any, and it may be bound.
fn place(
    plane: &mut DataPlane,
    tunnel: Spec,
    key: Option<u32>,
    (local, remote): (IpAddr, IpAddr),
    link: u32,
) {
    let like = if tunnel.outside == Family::V4 { PLAIN4 } else { PLAIN6 };
    let (plain, record) = (world().tunnels[&like.id], change::tunnel(plane, tunnel));
    record.flags = plain.flags.with(Flags::KEY, key.is_some());
    record.key = key.unwrap_or(0).to_be();
    let spec = Spec { key, ..tunnel };
    change::ends_are(plane, spec, local, remote);
    if link != 0 {
        for kind in [spec.kind(), Kind::PAIR] {
            let unbound = Key { ends: ends(local, remote), kind, link: 0 };
            plane.demux.remove(&unbound);
            plane.demux.insert(Key { link, ..unbound }, tunnel.id);
        }
    }
}

/// A packet's own addresses, with any in place of what a level leaves out.
fn levels(tunnel: Spec) -> [(IpAddr, IpAddr); 4] {
    let (local, remote, any) = (tunnel.outside.local(), tunnel.remote(), tunnel.outside.any());
    [(local, remote), (any, remote), (local, any), (any, any)]
}

/// The tunnels that stand at the four levels.
fn at_levels(outside: Family) -> [Spec; 4] {
    let ids = [PLAIN6, KEYED6, INHERIT6, FIXED6];
    ids.map(|spec| Spec { outside, key: None, limit: None, ..spec })
}

/// The first tunnel at a level that there is, in the kernel's order; none is a stranger.
fn winner(present: u32, own: bool) -> Option<usize> {
    (0..4).find(|level| present & 1 << level != 0 && (own || level % 2 == 0))
}

#[test]
fn l2_l3_l4_d11_ip6gre4_the_closest_tunnel_takes_the_packet() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for outside in FAMILIES {
            let from = if outside == Family::V4 { PLAIN4 } else { PLAIN6 };
            for key in [None, Some(7), Some(0)] {
                for (present, own) in
                    (0..16).flat_map(|present| [(present, false), (present, true)])
                {
                    let inner = inbound(Family::V6, from);
                    let frame = from_wan(&keyed(from, key, &inner).bytes());
                    let what =
                        format!("levels {present:#06b}, own {own}, key {key:?}, {outside:?}");
                    let case = Case::new(what, hook, frame).given(move |plane| {
                        plane.demux.clear();
                        // Over IPv6 a key of zero is recorded as none.
                        let recorded = key.filter(|key| *key != 0 || outside == Family::V4);
                        for (level, tunnel) in at_levels(outside).into_iter().enumerate() {
                            // With neither address given IPv4 compares the numbers alone as well.
                            let recorded = recorded.filter(|key| *key != 0 || level < 3);
                            if present & 1 << level != 0 {
                                place(plane, tunnel, recorded, levels(from)[level], 0);
                            }
                        }
                        if own {
                            change::own(plane, outside.local(), outside.any());
                        }
                    });
                    cases.push(match winner(present, own) {
                        Some(level) => case.comes_out(at_levels(outside)[level], &inner),
                        None => case.passes(NoTunnel),
                    });
                }
            }
        }
    }
    check(cases);
}

/// A key must be the tunnel's at every level; only between exactly its addresses it is a near miss.
#[test]
fn l2_l3_l4_a_wildcard_takes_no_other_key() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for level in 0..4 {
            for (sent, own) in [(Some(8), Some(7)), (Some(7), None), (None, Some(7))] {
                let inner = inbound(Family::V4, PLAIN6);
                let frame = from_wan(&keyed(PLAIN6, sent, &inner).bytes());
                let what = format!("level {level}, {sent:?} for {own:?}");
                let case = Case::new(what, hook, frame).given(move |plane| {
                    plane.demux.clear();
                    place(plane, PLAIN6, own, levels(PLAIN6)[level], 0);
                    change::own(plane, Family::V6.local(), Family::V6.any());
                });
                cases.push(match (level, sent, own) {
                    (0, Some(_), Some(_)) => case.drops(KeyMismatch, PLAIN6),
                    (0, Some(_), None) => case.drops(KeyUnexpected, PLAIN6),
                    (0, None, _) => case.drops(KeyMissing, PLAIN6),
                    _ => case.passes(NoTunnel),
                });
            }
        }
    }
    check(cases);
}

/// Addresses of this host, and no others: what is for another host is on its way through.
#[test]
fn l2_l4_ip6gre4_local_any_is_this_hosts_own_addresses() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for level in [1, 3] {
            let inner = inbound(Family::V6, PLAIN6);
            for bit in [0, 1, 63, 64, 100, 127] {
                let IpAddr::V6(local) = Family::V6.local() else { unreachable!() };
                let other = IpAddr::V6((u128::from(local) ^ 1 << bit).into());
                let mut outer = keyed(PLAIN6, None, &inner);
                outer.destination = other;
                let case = || {
                    Case::new(format!("{other}"), hook, from_wan(&outer.bytes())).given(
                        move |plane| {
                            plane.demux.clear();
                            place(plane, PLAIN6, None, levels(PLAIN6)[level], 0);
                            change::own(plane, Family::V6.local(), Family::V6.any());
                        },
                    )
                };
                cases.push(case().passes(NoTunnel));
                let is_own = move |plane: &mut _| change::own(plane, other, Family::V6.any());
                cases.push(case().comes_out(PLAIN6, &inner).given(is_own));
            }
        }
    }
    check(cases);
}

#[test]
fn l7_a_wildcard_that_is_down_matches_nothing() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for level in 0..4 {
            let frame = from_wan(&keyed(PLAIN6, None, &inbound(Family::V6, PLAIN6)).bytes());
            let case = Case::new(format!("level {level}"), hook, frame).given(move |plane| {
                plane.demux.clear();
                place(plane, PLAIN6, None, levels(PLAIN6)[level], 0);
                change::own(plane, Family::V6.local(), Family::V6.any());
                change::tunnel_flag(plane, PLAIN6, Flags::UP, false);
            });
            cases.push(case.passes(if level == 0 { TunnelDown } else { NoTunnel }));
        }
    }
    check(cases);
}

/// As in the kernel, one that is bound to the interface wins even over one with closer addresses.
#[test]
fn l5_a_tunnel_of_the_interface_wins() {
    let mut cases = Vec::new();
    for outside in FAMILIES {
        let from = if outside == Family::V4 { PLAIN4 } else { PLAIN6 };
        for level in 0..4 {
            let [free, bound, ..] = at_levels(outside);
            let inner = inbound(Family::V6, from);
            let untagged = from_wan(&keyed(from, None, &inner).bytes());
            let vlan = tagged(&untagged, &[(0x8100, 0x6005)]);
            for (what, hook, frame, ifindex) in [
                ("a port", Hook::Xdp(WAN), &untagged, WAN),
                ("a port, TC", Hook::TcIn(WAN), &untagged, WAN),
                ("a VLAN device", Hook::Xdp(WAN), &vlan, VLAN),
                ("a VLAN device, TC", Hook::TcIn(VLAN), &untagged, VLAN),
            ] {
                for link in [WAN, VLAN] {
                    let case = Case::new(format!("{what}, bound to {link}"), hook, frame.clone());
                    let case = case.given(move |plane| {
                        plane.demux.clear();
                        place(plane, bound, None, levels(from)[level], link);
                        place(plane, free, None, levels(from)[0], 0);
                        change::own(plane, outside.local(), outside.any());
                        change::port_flag(plane, link, port::Flags::TUNNEL_BOUND, true);
                        change::vlan(plane, WAN, &[(0x8100, 5)], WAN_MAC, VLAN);
                        if link == VLAN {
                            let device = plane.ports[&VLAN];
                            change::vlan_with(plane, WAN, &[(0x8100, 5)], device);
                        }
                    });
                    let tunnel = if link == ifindex { bound } else { free };
                    cases.push(case.comes_out(tunnel, &inner));
                }
            }
        }
    }
    check(cases);
}

/// With many remotes behind one device, back is only where it came from.
#[test]
fn d15_a_packet_to_another_remote_of_the_same_device_is_no_loop() {
    let mut cases = Vec::new();
    let (hub, leg) = (PLAIN6, INHERIT6);
    for hook in TIERS {
        for (what, from) in [("back", leg), ("onward", FIXED6)] {
            let inner = Packet::new(Family::V6.host(), leg.beyond(Family::V6));
            let case = Case::new(what, hook, from_wan(&keyed(from, None, &inner).bytes()));
            let case = case.given(move |plane| {
                plane.demux.clear();
                place(plane, hub, None, levels(hub)[2], 0);
                change::tunnel(plane, leg).ifindex = hub.device();
                let forwarding = Flags::FORWARDING6;
                change::tunnel_flag(plane, hub, forwarding, false);
            });
            cases.push(match from {
                from if from == leg => case.drops(Loop, hub),
                _ => case.delivered(hub, &inner.bytes()),
            });
        }
    }
    check(cases);
}

/// Zeros in a packet are no address, and not the any of a tunnel.
#[test]
fn l2_l3_l4_unspecified_outer_addresses_are_of_no_tunnel() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in [PLAIN4, PLAIN6] {
            for level in 0..4 {
                let any = tunnel.outside.any();
                for (local, remote) in
                    [(any, tunnel.remote()), (tunnel.outside.local(), any), (any, any)]
                {
                    let inner = inbound(Family::V4, tunnel);
                    let mut outer = keyed(tunnel, None, &inner);
                    (outer.destination, outer.source) = (local, remote);
                    let what = format!("from {remote} to {local}, level {level}");
                    let case = Case::new(what, hook, from_wan(&outer.bytes()));
                    cases.push(case.passes(NoTunnel).given(move |plane| {
                        plane.demux.clear();
                        place(plane, tunnel, None, levels(tunnel)[level], 0);
                        change::own(plane, tunnel.outside.local(), any);
                    }));
                }
            }
        }
    }
    check(cases);
}
