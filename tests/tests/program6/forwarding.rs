//! What must be there before a packet is forwarded: forwarding itself, next hops, MTUs.

use gre_ebpf_common::{
    next_hop, outcome::Outcome::*, port::Flags as PortFlags, route::Entry, tunnel::Flags,
};
use gre_userspace::dataplane::DataPlane;

use crate::{
    bench::Hook,
    case::{Case, check},
    change,
    combinations::{all, transits},
    frame::{carried, from_lan, from_wan, routed, through},
    packet::{Packet, inbound, outbound, to_gateway},
    world::{FAMILIES, Family, LAN, PLAIN4, PLAIN6, TO_GATEWAY, TO_HOST, WAN, every_interface},
};

const XDP: Hook = Hook::Xdp(WAN);

/// Which version may be forwarded is told by the inner packet alone.
#[test]
fn forwarding_is_switched_for_each_version_inside() {
    let mut cases = Vec::new();
    for (tunnel, inside) in all() {
        for off in FAMILIES {
            let (port, device) = match off {
                Family::V4 => (PortFlags::FORWARDING, Flags::FORWARDING),
                Family::V6 => (PortFlags::FORWARDING6, Flags::FORWARDING6),
            };
            let what = format!("{off:?} off, {inside:?} in {tunnel:?}");
            let out = outbound(inside, tunnel);
            let case = || Case::new(&what, Hook::Xdp(LAN), from_lan(&out.bytes()));
            let entering = if off == inside {
                case().passes(ForwardingOff)
            } else {
                case().encapsulates(tunnel, &out.forwarded())
            };
            cases.push(entering.given(move |plane| change::port_flag(plane, LAN, port, false)));

            let inner = inbound(inside, tunnel);
            let case = || Case::new(&what, XDP, through(tunnel, &inner.bytes()));
            let leaving = if off == inside {
                case().delivered(tunnel, &inner.bytes())
            } else {
                case().comes_out(tunnel, &inner)
            };
            cases.push(
                leaving.given(move |plane| change::tunnel_flag(plane, tunnel, device, false)),
            );
            // The port does not matter: the packet comes from the device.
            let case = Case::new(&what, XDP, through(tunnel, &inner.bytes()));
            cases.push(
                case.comes_out(tunnel, &inner)
                    .given(move |plane| change::port_flag(plane, WAN, port, false)),
            );
            // Nor does the next tunnel.
            let to = if tunnel == PLAIN6 { PLAIN4 } else { PLAIN6 };
            let packet = Packet::new(tunnel.beyond(inside), to.beyond(inside));
            let frame = through(tunnel, &packet.bytes());
            cases.push(
                transits(&what, frame, &packet, tunnel, to)
                    .given(move |plane| change::tunnel_flag(plane, to, device, false)),
            );
        }
    }
    check(cases);
}

#[test]
fn into_a_tunnel_what_is_a_byte_too_long_is_the_kernels() {
    let mut cases = Vec::new();
    for (tunnel, inside) in all() {
        for underlay in [1500, 1300] {
            let mtu = underlay - tunnel.overhead();
            for len in [mtu - 1, mtu, mtu + 1] {
                let packet = outbound(inside, tunnel).long(len);
                let what = format!("{len} bytes, {inside:?} in {tunnel:?}");
                let case = Case::new(what, Hook::Xdp(LAN), from_lan(&packet.bytes()))
                    .given(move |plane| change::next_hop(plane, TO_GATEWAY).mtu = underlay as u32);
                cases.push(if len <= mtu {
                    case.encapsulates(tunnel, &packet.forwarded())
                } else {
                    case.passes(TooBig)
                });
            }
        }
        // TC obeys the underlay alone: the device has seen to its own MTU.
        let mtu = 1300 - tunnel.overhead();
        for len in [mtu, mtu + 1] {
            let packet = outbound(inside, tunnel).long(len);
            let what = format!("{len} bytes, {inside:?} in {tunnel:?}");
            let case = Case::new(what, Hook::TcOut(tunnel.peer()), routed(&packet.bytes()))
                .given(|plane| change::next_hop(plane, TO_GATEWAY).mtu = 1300);
            cases.push(if len <= mtu {
                case.encapsulates(tunnel, &packet)
            } else {
                case.drops(TooBigForUnderlay, tunnel)
            });
        }
        let packet = outbound(inside, tunnel).long(1301 - tunnel.overhead());
        let case = Case::new("a narrow path", Hook::TcOut(tunnel.peer()), routed(&packet.bytes()));
        cases.push(
            case.drops(TooBigForUnderlay, tunnel)
                .given(move |plane| change::tunnel(plane, tunnel).path_mtu = 1300),
        );
    }
    check(cases);
}

#[test]
fn out_of_a_tunnel_what_is_a_byte_too_long_is_the_devices_and_then_the_kernels() {
    let mut cases = Vec::new();
    for (tunnel, inside) in all() {
        let what = format!("{inside:?} in {tunnel:?}");
        let case = |hook, packet: &Packet| Case::new(&what, hook, through(tunnel, &packet.bytes()));
        let narrow = |plane: &mut _| change::next_hop(plane, TO_HOST).mtu = 1300;
        let packet = |len| inbound(inside, tunnel).long(len);
        cases.push(case(XDP, &packet(1300)).comes_out(tunnel, &packet(1300)).given(narrow));
        let longer = packet(1301);
        cases.push(case(XDP, &longer).delivered(tunnel, &longer.bytes()).given(narrow));
        // The next hop takes more than the device's MTU.
        let longer = packet(tunnel.mtu() + 1);
        cases.push(case(XDP, &longer).comes_out(tunnel, &longer));
        // For the gateway itself: a veth drops it, so TC has to deliver it.
        let longer = to_gateway(inside, tunnel).long(tunnel.mtu() + 1);
        cases.push(case(XDP, &longer).passes(TooBig));
        cases.push(case(Hook::TcIn(WAN), &longer).delivered(tunnel, &longer.bytes()));
        // Into a tunnel that takes less.
        let to = if tunnel == PLAIN6 { PLAIN4 } else { PLAIN6 };
        let packet = |len| Packet::new(tunnel.beyond(inside), to.beyond(inside)).long(len);
        let narrow = move |plane: &mut _| change::tunnel(plane, to).mtu = 1300;
        let fits = packet(1300);
        let frame = through(tunnel, &fits.bytes());
        cases.push(transits("fits", frame, &fits, tunnel, to).given(narrow));
        let longer = packet(1301);
        cases.push(case(XDP, &longer).delivered(tunnel, &longer.bytes()).given(narrow));
    }
    check(cases);
}

#[test]
fn what_is_not_ready_leaves_it_to_the_kernel() {
    let mut cases = Vec::new();
    let no_xmit = |id| {
        move |plane: &mut DataPlane| {
            change::next_hop(plane, id).flags = next_hop::Flags::RESOLVED;
        }
    };
    let generic = |ifindex| {
        move |plane: &mut DataPlane| change::port_flag(plane, ifindex, PortFlags::GENERIC, true)
    };
    for (tunnel, inside) in all() {
        let what = format!("{inside:?} in {tunnel:?}");
        let out = outbound(inside, tunnel);
        let entering = || Case::new(&what, Hook::Xdp(LAN), from_lan(&out.bytes()));
        let down = move |plane: &mut _| change::tunnel_flag(plane, tunnel, Flags::UP, false);
        cases.extend([
            entering().passes(TunnelDown).given(down),
            entering()
                .passes(NextHopUnresolved)
                .given(|plane| change::unresolved(plane, TO_GATEWAY)),
            entering()
                .passes(NextHopUnresolved)
                .given(move |plane| change::tunnel(plane, tunnel).next_hop = 0),
            entering().passes(EgressWithoutXdp).given(no_xmit(TO_GATEWAY)),
            entering()
                .encapsulates(tunnel, &out.forwarded())
                .given(no_xmit(TO_GATEWAY))
                .given(generic(LAN)),
            entering().passes(EgressWithoutXdp).given(|plane| {
                plane.tx_ports.remove(&WAN);
            }),
        ]);
        let inner = inbound(inside, tunnel);
        let bytes = inner.bytes();
        let leaving = || Case::new(&what, XDP, through(tunnel, &inner.bytes()));
        cases.extend([
            leaving().passes(TunnelDown).given(down),
            leaving().delivered(tunnel, &bytes).given(|plane| change::unresolved(plane, TO_HOST)),
            leaving().delivered(tunnel, &bytes).given(no_xmit(TO_HOST)),
            leaving().comes_out(tunnel, &inner).given(no_xmit(TO_HOST)).given(generic(WAN)),
            leaving().passes(EgressWithoutXdp).given(|plane| {
                plane.tx_ports = every_interface();
                plane.tx_ports.remove(&LAN);
            }),
            Case::new(&what, Hook::TcIn(WAN), through(tunnel, &bytes))
                .passes(TunnelDown)
                .given(down),
        ]);
        let local = to_gateway(inside, tunnel).bytes();
        cases.push(
            Case::new(&what, XDP, through(tunnel, &local))
                .passes(EgressWithoutXdp)
                .given(no_xmit(tunnel.way_to_device())),
        );
        let looped = Case::new(&what, Hook::TcOut(tunnel.peer()), routed(&out.bytes()));
        cases.push(looped.drops(TunnelLoop, tunnel).given(move |plane| {
            change::next_hop(plane, TO_GATEWAY).ifindex = tunnel.device();
        }));
        let nested = Case::new(&what, Hook::TcOut(tunnel.device()), routed(&out.bytes()));
        cases.push(nested.drops(Nested, tunnel).given(move |plane| {
            change::tunnel_flag(plane, tunnel, Flags::NESTED, true);
        }));
    }
    check(cases);
}

/// rp_filter is IPv4's alone.
#[test]
fn a_reverse_path_is_asked_for_of_ipv4_only() {
    let mut cases = Vec::new();
    for (tunnel, inside) in all() {
        let what = format!("{inside:?} in {tunnel:?}");
        let out = outbound(inside, tunnel).with(|packet| packet.source = inside.stranger());
        let inner = inbound(inside, tunnel).with(|packet| packet.source = inside.stranger());
        for (port, device) in [
            (PortFlags::REVERSE_PATH_STRICT, Flags::REVERSE_PATH_STRICT),
            (PortFlags::REVERSE_PATH_LOOSE, Flags::REVERSE_PATH_LOOSE),
        ] {
            let entering = Case::new(&what, Hook::Xdp(LAN), from_lan(&out.bytes()))
                .given(move |plane| change::port_flag(plane, LAN, port, true));
            let leaving = Case::new(&what, XDP, through(tunnel, &inner.bytes()))
                .given(move |plane| change::tunnel_flag(plane, tunnel, device, true));
            cases.extend(match inside {
                Family::V4 => {
                    [entering.passes(ReversePath), leaving.delivered(tunnel, &inner.bytes())]
                }
                Family::V6 => [
                    entering.encapsulates(tunnel, &out.forwarded()),
                    leaving.comes_out(tunnel, &inner),
                ],
            });
        }
        // From the tunnel that the source is routed to it comes rightly.
        let inner = inbound(inside, tunnel);
        cases.push(
            Case::new(&what, XDP, through(tunnel, &inner.bytes())).comes_out(tunnel, &inner).given(
                move |plane| {
                    change::tunnel_flag(plane, tunnel, Flags::REVERSE_PATH_STRICT, true);
                },
            ),
        );
    }
    check(cases);
}

/// The way to a host on a link may lead into a tunnel, or nowhere.
#[test]
fn frames_for_other_hosts_are_not_touched() {
    let mut cases = Vec::new();
    for destination in [[0xff; 6], [0x33, 0x33, 0, 0, 0, 1], [2, 0, 0, 0, 0, 0x13]] {
        for hook in [XDP, Hook::TcIn(WAN)] {
            let mut frame =
                from_wan(&carried(PLAIN6, &inbound(Family::V6, PLAIN6).bytes()).bytes());
            frame[..6].copy_from_slice(&destination);
            cases.push(Case::new("other", hook, frame.clone()).passes(OtherHost));
        }
    }
    let frame = from_lan(&outbound(Family::V6, PLAIN6).bytes());
    cases.push(Case::new("no port", Hook::Xdp(LAN + 1), frame).passes(UnknownPort).given(
        |plane| {
            change::route(plane, Family::V6.any(), 0, Entry::Tunnel(PLAIN6.id));
        },
    ));
    check(cases);
}
