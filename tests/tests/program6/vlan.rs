//! VLAN tags on ports and next hops, in XDP; TC gets its frames without them.

use gre_ebpf_common::{
    outcome::Outcome::*,
    port::{Flags, Port},
};
use gre_userspace::dataplane::DataPlane;

use crate::{
    bench::Hook,
    case::{Case, check},
    change,
    frame::{
        Tags, encapsulated, from_lan, routed, tagged, through, to_device, to_host, to_underlay,
    },
    packet::{Packet, inbound, outbound, to_gateway},
    world::{
        ALL4, ALL6, FAMILIES, Family, HOST_MAC, LAN, LAN_MAC, LIMITED6, PLAIN4, PLAIN6, Spec,
        TO_GATEWAY, TO_HOST, VLAN, WAN, WAN_MAC,
    },
};

/// TPIDs and VLAN ids.
pub const STACKS: [Tags<'static>; 6] = [
    &[],
    &[(0x8100, 5)],
    &[(0x88a8, 4094)],
    &[(0x88a8, 100), (0x8100, 5)],
    &[(0x8100, 0xabc), (0x8100, 1)],
    &[(0x88a8, 7), (0x88a8, 7)],
];

pub const SOME: [Spec; 5] = [PLAIN4, ALL4, PLAIN6, ALL6, LIMITED6];

/// With priority and drop eligibility in the outer tag, and another priority in the inner one.
fn prioritised(tags: Tags<'_>) -> Vec<(u16, u16)> {
    let bits = [0xf000, 0x2000];
    tags.iter().zip(bits).map(|(&(tpid, id), bits)| (tpid, bits | id)).collect()
}

/// Frames come in with these tags on both ports, and leave with those.
fn tags(coming: Tags<'static>, leaving: Tags<'static>) -> impl Fn(&mut DataPlane) + 'static {
    move |plane| {
        if !coming.is_empty() {
            change::vlan(plane, LAN, coming, LAN_MAC, VLAN);
            change::vlan(plane, WAN, coming, WAN_MAC, VLAN);
            // The port is another's.
            for ifindex in [LAN, WAN] {
                let port = Port::new([2, 7, 7, 7, 7, 7], Flags(0), ifindex);
                plane.ports.insert(ifindex, port);
            }
        }
        change::tag(plane, TO_GATEWAY, leaving);
        change::tag(plane, TO_HOST, leaving);
    }
}

/// Tags are taken off, put on, exchanged or kept, by what the next hop has; priority is not copied.
#[test]
fn tags_come_off_and_go_on_in_every_way_through() {
    let mut cases = Vec::new();
    for (coming, leaving) in STACKS.iter().flat_map(|a| STACKS.map(|b| (*a, b))) {
        for (tunnel, inside) in SOME.iter().flat_map(|tunnel| FAMILIES.map(|f| (*tunnel, f))) {
            let what = format!("{coming:x?} to {leaving:x?}, {inside:?} in {tunnel:?}");
            let case = |ifindex, frame: Vec<u8>| {
                Case::new(&what, Hook::Xdp(ifindex), tagged(&frame, &prioritised(coming)))
                    .given(tags(coming, leaving))
            };
            let packet = outbound(inside, tunnel);
            let forwarded = packet.forwarded();
            cases.push(
                case(LAN, from_lan(&packet.bytes()))
                    .sends(Encapsulated, WAN, move |found| {
                        let outer = encapsulated(tunnel, &forwarded, 0, found).bytes();
                        tagged(&to_underlay(&outer), leaving)
                    })
                    .sent(tunnel, 72),
            );
            let inner = inbound(inside, tunnel);
            let out = tagged(&to_host(&inner.forwarded().bytes()), leaving);
            cases.push(
                case(WAN, through(tunnel, &inner.bytes()))
                    .sends(Decapsulated, LAN, move |_| out.clone())
                    .received(tunnel, 72),
            );
            let inner = to_gateway(inside, tunnel).bytes();
            cases.push(case(WAN, through(tunnel, &inner)).delivered(tunnel, &inner));
            for to in SOME.into_iter().filter(|to| *to != tunnel) {
                let packet = Packet::new(tunnel.beyond(inside), to.beyond(inside));
                let forwarded = packet.forwarded();
                cases.push(
                    case(WAN, through(tunnel, &packet.bytes()))
                        .sends(Transit, WAN, move |found| {
                            let outer = encapsulated(to, &forwarded, 0, found).bytes();
                            tagged(&to_underlay(&outer), leaving)
                        })
                        .received(tunnel, 72)
                        .sent(to, 72),
                );
            }
        }
    }
    check(cases);
}

/// What counts is the VLAN device: its MAC address, its forwarding.
#[test]
fn frames_with_tags_are_those_of_the_vlan_device() {
    let mut cases = Vec::new();
    let stack: Tags<'static> = &[(0x8100, 5)];
    let device = |mac, flags| {
        move |plane: &mut DataPlane| {
            change::vlan_with(plane, LAN, stack, Port::new(mac, flags, VLAN));
        }
    };
    for inside in FAMILIES {
        let packet = outbound(inside, PLAIN6);
        let frame = tagged(&from_lan(&packet.bytes()), stack);
        let case = || Case::new(format!("{inside:?}"), Hook::Xdp(LAN), frame.clone());
        let both = crate::world::both();
        let (own, other) = match inside {
            Family::V4 => (Flags::FORWARDING, Flags::FORWARDING6),
            Family::V6 => (Flags::FORWARDING6, Flags::FORWARDING),
        };
        cases.extend([
            case().encapsulates(PLAIN6, &packet.forwarded()).given(device(LAN_MAC, own)),
            case().passes(OtherHost).given(device(HOST_MAC, both)),
            case().passes(ForwardingOff).given(device(LAN_MAC, other)),
            case().passes(VlanUnknown).given(|plane| {
                change::vlan_with(plane, LAN, stack, Port::default());
            }),
            // Of the same tags on another port.
            case()
                .passes(VlanUnknown)
                .given(|plane| change::vlan(plane, WAN, stack, LAN_MAC, VLAN)),
            case().passes(UnknownPort).given(device(LAN_MAC, both)).given(|plane| {
                plane.ports.remove(&LAN);
            }),
            case()
                .encapsulates(PLAIN6, &packet.forwarded())
                .given(device(LAN_MAC, both))
                .given(|plane| change::port_flag(plane, LAN, both_off(), false)),
        ]);
    }
    check(cases);
}

fn both_off() -> Flags {
    crate::world::both()
}

/// The source is routed back to the port by the same tags.
#[test]
fn a_strict_reverse_path_is_one_of_port_and_tags() {
    let mut cases = Vec::new();
    let strict = crate::world::both().with(Flags::REVERSE_PATH_STRICT, true);
    for (coming, back) in STACKS.iter().flat_map(|a| STACKS.map(|b| (*a, b))) {
        let packet = outbound(Family::V4, PLAIN6);
        let frame = tagged(&from_lan(&packet.bytes()), &prioritised(coming));
        let case = || {
            Case::new(format!("{coming:x?}, {back:x?}"), Hook::Xdp(LAN), frame.clone()).given(
                move |plane| {
                    if coming.is_empty() {
                        change::port_flag(plane, LAN, Flags::REVERSE_PATH_STRICT, true);
                    } else {
                        change::vlan_with(plane, LAN, coming, Port::new(LAN_MAC, strict, VLAN));
                    }
                    change::tag(plane, TO_HOST, back);
                },
            )
        };
        cases.push(if coming == back {
            case().encapsulates(PLAIN6, &packet.forwarded())
        } else {
            case().passes(ReversePath)
        });
        let elsewhere = move |plane: &mut _| change::next_hop(plane, TO_HOST).ifindex = WAN;
        cases.push(case().passes(ReversePath).given(elsewhere));
    }
    check(cases);
}

/// The longest outer packet is the next hop's MTU; tags come on top.
#[test]
fn tags_do_not_count_for_the_mtu() {
    let mut cases = Vec::new();
    for tunnel in SOME {
        for stack in STACKS {
            for more in [0, 1] {
                let packet = outbound(Family::V6, tunnel).long(tunnel.mtu() + more);
                let forwarded = packet.forwarded();
                let len = packet.bytes().len();
                let frame = tagged(&from_lan(&packet.bytes()), stack);
                let case = Case::new(format!("{stack:x?}"), Hook::Xdp(LAN), frame)
                    .given(tags(stack, stack));
                cases.push(if more == 1 {
                    case.passes(TooBig)
                } else {
                    case.sends(Encapsulated, WAN, move |found| {
                        let outer = encapsulated(tunnel, &forwarded, 0, found).bytes();
                        tagged(&to_underlay(&outer), stack)
                    })
                    .sent(tunnel, len)
                });
            }
        }
    }
    check(cases);
}

/// On a VLAN device TC sees frames without their tag.
#[test]
fn tc_takes_frames_of_a_vlan_device() {
    let mut cases = Vec::new();
    for (tunnel, inside) in SOME.iter().flat_map(|tunnel| FAMILIES.map(|f| (*tunnel, f))) {
        let inner = inbound(inside, tunnel).bytes();
        let out = to_device(tunnel, &inner);
        cases.push(
            Case::new(
                format!("{inside:?} in {tunnel:?}"),
                Hook::TcIn(VLAN),
                through(tunnel, &inner),
            )
            .sends(ToDevice, tunnel.peer(), move |_| out.clone())
            .received(tunnel, 72),
        );
    }
    check(cases);
}

/// The kernel keeps the outermost tag beside the frame, where TEST_RUN does not show it.
#[test]
fn tc_sends_to_a_next_hop_on_a_vlan_with_its_addresses_and_tags() {
    let mut cases = Vec::new();
    for stack in STACKS.into_iter().filter(|stack| !stack.is_empty()) {
        for (tunnel, inside) in SOME.iter().flat_map(|tunnel| FAMILIES.map(|f| (*tunnel, f))) {
            let packet = outbound(inside, tunnel);
            let len = packet.bytes().len();
            let what = format!("{stack:x?}, {inside:?} in {tunnel:?}");
            cases.push(
                Case::new(what, Hook::TcOut(tunnel.peer()), routed(&packet.bytes()))
                    .sends(Encapsulated, WAN, move |found| {
                        let outer = encapsulated(tunnel, &packet, 0, found).bytes();
                        tagged(&to_underlay(&outer), &stack[1..])
                    })
                    .sent(tunnel, len)
                    .given(|plane| change::tag(plane, TO_GATEWAY, stack)),
            );
        }
    }
    check(cases);
}
