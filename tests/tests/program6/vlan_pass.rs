//! Frames whose VLAN tags are of no device of ours, or cut.

use gre_ebpf_common::outcome::Outcome::*;

use crate::{
    bench::Hook,
    case::{Case, check},
    change,
    frame::{Tags, from_lan, tagged, through},
    packet::{inbound, outbound},
    vlan::{SOME, STACKS},
    world::{FAMILIES, LAN, LAN_MAC, VLAN, WAN, WAN_MAC},
};

/// A frame of each kind that XDP would finish, were it untagged.
fn frames() -> Vec<(u32, Vec<u8>)> {
    let mut frames = Vec::new();
    for (tunnel, inside) in SOME.iter().flat_map(|tunnel| FAMILIES.map(|f| (*tunnel, f))) {
        frames.push((LAN, from_lan(&outbound(inside, tunnel).bytes())));
        frames.push((WAN, through(tunnel, &inbound(inside, tunnel).bytes())));
    }
    frames
}

#[test]
fn tags_of_no_device_are_passed_on() {
    let mut cases = Vec::new();
    for (ifindex, frame) in frames() {
        let mut add = |stack: Tags<'_>, outcome, known: &'static [Tags<'static>]| {
            cases.push(
                Case::new(format!("{stack:x?}"), Hook::Xdp(ifindex), tagged(&frame, stack))
                    .passes(outcome)
                    .given(move |plane| {
                        for port in [LAN, WAN] {
                            let mac = if port == LAN { LAN_MAC } else { WAN_MAC };
                            for tags in known {
                                change::vlan(plane, port, tags, mac, VLAN);
                            }
                        }
                    }),
            );
        };
        let known: &'static [Tags<'static>] = &[&[(0x8100, 5)], &[(0x88a8, 100), (0x8100, 5)]];
        // Bit by bit of the id.
        for bit in 0..12 {
            add(&[(0x8100, 5 ^ 1 << bit)], VlanUnknown, known);
            add(&[(0x88a8, 100), (0x8100, 5 ^ 1 << bit)], VlanUnknown, known);
            add(&[(0x88a8, 100 ^ 1 << bit), (0x8100, 5)], VlanUnknown, known);
        }
        // Another TPID, another order, one tag more or less.
        add(&[(0x88a8, 5)], VlanUnknown, known);
        add(&[(0x88a8, 100)], VlanUnknown, known);
        add(&[(0x8100, 5), (0x88a8, 100)], VlanUnknown, known);
        add(&[(0x8100, 5), (0x8100, 5)], VlanUnknown, known);
        add(&[(0x8100, 100), (0x8100, 5)], VlanUnknown, known);
        // A priority tag is of no VLAN: the kernel takes it off.
        add(&[(0x8100, 0)], VlanUnknown, known);
        add(&[(0x8100, 0xe000)], VlanUnknown, known);
        add(&[(0x8100, 0), (0x8100, 5)], VlanUnknown, known);
        // Other TPIDs are no tags to us.
        add(&[(0x9100, 5)], NotIp, known);
        add(&[(0x8100, 5), (0x9100, 5)], NotIp, known);
        // A third tag.
        add(&[(0x88a8, 100), (0x8100, 5), (0x8100, 5)], NotIp, known);
        add(&[(0x8100, 5), (0x8100, 5), (0x8100, 5)], VlanUnknown, known);
        add(&[(0x8100, 5)], VlanUnknown, &[]);
    }
    check(cases);
}

/// Cut within the tags, and behind them.
#[test]
fn a_tagged_frame_cut_anywhere_is_passed_on() {
    let mut cases = Vec::new();
    for stack in STACKS.into_iter().filter(|stack| !stack.is_empty()) {
        for (ifindex, frame) in frames() {
            let frame = tagged(&frame, stack);
            let malformed = if frame[12 + 4 * stack.len()..][..2] == [8, 0] {
                Ipv4Malformed
            } else {
                Ipv6Malformed
            };
            let headers = 14 + 4 * stack.len();
            for len in 14..headers + 40 {
                let case =
                    Case::new(format!("{len} bytes"), Hook::Xdp(ifindex), frame[..len].to_vec());
                cases.push(case.passes(if len < headers { NotIp } else { malformed }).given(
                    move |plane| {
                        change::vlan(plane, LAN, stack, LAN_MAC, VLAN);
                        change::vlan(plane, WAN, stack, WAN_MAC, VLAN);
                    },
                ));
            }
        }
    }
    check(cases);
}
