//! Out of a tunnel in XDP: to a next hop, into another tunnel, or to the tunnel's device.

use gre_ebpf_common::{outcome::Outcome::*, port::Flags as PortFlags, route::Entry, tunnel::Flags};

use crate::{
    bench::Hook,
    case::{Case, check},
    frame::{
        Packet, encapsulated, from_wan, gre_of, inbound, received, set_tos, through, to_device,
        to_host, to_underlay,
    },
    world::{
        FIXED, HOST, INHERIT, KEYED, LAN, LAN_ADDRESS, LOCAL, PLAIN, ROUTED, STRANGER, Spec,
        TO_GATEWAY, TO_HOST, TUNNELS, WAN, change, route,
    },
};

/// Inner packets for the gateway itself, for both tiers.
pub fn to_the_gateway() -> Vec<(String, Spec, Packet)> {
    let mut fixtures = Vec::new();
    for tunnel in TUNNELS {
        let packet = || Packet::new(tunnel.beyond(), LAN_ADDRESS);
        let mut add =
            |what: &str, packet| fixtures.push((format!("{what}, {tunnel:?}"), tunnel, packet));
        add("a packet", packet());
        add("header only", packet().long(20));
        add("as long as the MTU", packet().long(tunnel.mtu()));
        add("TTL 1", packet().with(|header| header.time_to_live = 1));
        add("TTL 0", packet().with(|header| header.time_to_live = 0));
        add("TOS", packet().with(|header| set_tos(header, 0xb9)));
        add("a fragment", packet().with(|header| header.more_fragments = true));
        add("options", packet().with(|header| header.options = [1; 4].into()));
        add("all the options", packet().with(|header| header.options = [1; 40].into()));
    }
    fixtures
}

/// Out of the LAN, with a TTL one less.
fn forwards(what: impl Into<String>, tunnel: Spec, inner: Packet) -> Case {
    let bytes = inner.bytes();
    let out = to_host(&inner.forwarded().bytes());
    Case::new(what, Hook::Xdp(WAN), through(tunnel, &bytes))
        .sends(Decapsulated, LAN, move |_| out.clone())
        .received(tunnel, 1, bytes.len())
}

/// To the device, as it is: the kernel decides.
pub fn delivers(what: impl Into<String>, hook: Hook, tunnel: Spec, inner: &Packet) -> Case {
    let bytes = inner.bytes();
    let (len, out) = (bytes.len(), to_device(tunnel, &bytes));
    Case::new(what, hook, through(tunnel, &bytes))
        .sends(ToDevice, tunnel.peer(), move |_| out.clone())
        .received(tunnel, 1, len)
}

fn device(what: impl Into<String>, inner: &Packet) -> Case {
    delivers(what, Hook::Xdp(WAN), PLAIN, inner)
}

/// From one tunnel into another.
fn transits(what: impl Into<String>, from: Spec, to: Spec) -> Case {
    let inner = Packet::new(from.beyond(), to.beyond());
    let bytes = inner.bytes();
    Case::new(what, Hook::Xdp(WAN), through(from, &bytes))
        .sends(Transit, WAN, move |identification| {
            to_underlay(&encapsulated(to, &inner.forwarded(), identification).bytes())
        })
        .received(from, 1, bytes.len())
        .sent(to, 1, bytes.len())
}

#[test]
fn what_a_next_hop_gets_has_a_ttl_one_less_and_a_right_checksum() {
    let mut cases = Vec::new();
    for tunnel in TUNNELS {
        let inner = || inbound(tunnel);
        cases.extend([
            forwards("a packet", tunnel, inner()),
            forwards("header only", tunnel, inner().long(20)),
            forwards("as long as the MTU", tunnel, inner().long(tunnel.mtu())),
            forwards("longer than the MTU of its device", tunnel, inner().long(1480)),
            forwards("TTL 2", tunnel, inner().with(|header| header.time_to_live = 2)),
            forwards("TTL 255", tunnel, inner().with(|header| header.time_to_live = 255)),
            forwards("TOS", tunnel, inner().with(|header| set_tos(header, 0xff))),
            forwards("a fragment", tunnel, inner().with(|header| header.more_fragments = true)),
            forwards("GRE inside", tunnel, inner().with(|header| header.protocol = 47.into())),
        ]);
    }
    // The checksum wraps around at some TTL, whatever else the header says.
    cases.extend((2..=255).map(|ttl| {
        forwards(format!("TTL {ttl}"), PLAIN, inbound(PLAIN).with(|h| h.time_to_live = ttl))
    }));
    check(cases);
}

#[test]
fn what_is_for_the_gateway_or_only_the_kernel_can_forward_goes_to_the_device_unchanged() {
    let hook = Hook::Xdp(WAN);
    let local = to_the_gateway();
    check(local.iter().map(|(what, tunnel, inner)| delivers(what.clone(), hook, *tunnel, inner)));

    let to = |destination| Packet::new(PLAIN.beyond(), destination);
    check([
        device("TTL 1", &inbound(PLAIN).with(|header| header.time_to_live = 1)),
        device("TTL 0", &inbound(PLAIN).with(|header| header.time_to_live = 0)),
        device("options", &inbound(PLAIN).with(|header| header.options = [1; 8].into())),
        device("no route", &to(STRANGER)),
        device("multicast", &to([224, 0, 0, 5])),
        device("broadcast", &to([255; 4])),
        device("loopback", &to([127, 0, 0, 1])),
        device("0/8", &to([0, 0, 0, 1])),
        // No loop: the kernel listens to these groups on the device.
        device("multicast routed back", &to([224, 0, 0, 5]))
            .given(|plane| route(plane, [224, 0, 0, 0], 4, Entry::Tunnel(PLAIN.id))),
    ]);
}

#[test]
fn what_the_next_hop_lacks_leaves_it_to_the_kernel() {
    let inner = inbound(PLAIN);
    let flags = |on: Flags| move |plane: &mut _| change::tunnel_flag(plane, PLAIN, on, true);
    check([
        device("forwarding off on the device", &inner)
            .given(|plane| change::tunnel_flag(plane, PLAIN, Flags::FORWARDING, false)),
        device("not resolved", &inner).given(|plane| change::unresolved(plane, TO_HOST)),
        device("no ndo_xdp_xmit", &inner)
            .given(|plane| change::without_native_redirect(plane, TO_HOST)),
        device("beyond the map", &inner).given(|plane| route(plane, HOST, 32, Entry::NextHop(64))),
        device("a byte too long", &inner.clone().long(1401))
            .given(|plane| change::next_hop(plane, TO_HOST).mtu = 1400),
        forwards("just not too long", PLAIN, inner.clone().long(1400))
            .given(|plane| change::next_hop(plane, TO_HOST).mtu = 1400),
        forwards("no ndo_xdp_xmit, from a generic port", PLAIN, inner.clone()).given(|plane| {
            change::without_native_redirect(plane, TO_HOST);
            change::port_flags(plane, WAN, &[PortFlags::FORWARDING, PortFlags::GENERIC]);
        }),
        forwards("forwarding off on the port, which is not the device", PLAIN, inner.clone())
            .given(|plane| change::port_flags(plane, WAN, &[])),
        forwards("strict, of this tunnel", PLAIN, inner.clone())
            .given(flags(Flags::REVERSE_PATH_STRICT)),
        forwards("loose, of this tunnel", PLAIN, inner).given(flags(Flags::REVERSE_PATH_LOOSE)),
        forwards("off, of no route", PLAIN, Packet::new(STRANGER, HOST)),
        forwards("loose, of another tunnel", PLAIN, inbound(KEYED))
            .given(flags(Flags::REVERSE_PATH_LOOSE)),
        forwards("loose, of a port", PLAIN, Packet::new(ROUTED, HOST))
            .given(flags(Flags::REVERSE_PATH_LOOSE)),
        device("strict, of another tunnel", &inbound(KEYED))
            .given(flags(Flags::REVERSE_PATH_STRICT)),
        device("strict, of a port", &Packet::new(ROUTED, HOST))
            .given(flags(Flags::REVERSE_PATH_STRICT)),
        device("strict, of no route", &Packet::new(STRANGER, HOST))
            .given(flags(Flags::REVERSE_PATH_STRICT)),
        device("loose, of no route", &Packet::new(STRANGER, HOST))
            .given(flags(Flags::REVERSE_PATH_LOOSE)),
    ]);
}

#[test]
fn a_hub_takes_one_outer_header_off_and_puts_another_on() {
    let pairs = TUNNELS.iter().flat_map(|from| TUNNELS.iter().map(move |to| (*from, *to)));
    check(
        pairs
            .filter(|(from, to)| from != to)
            .map(|(from, to)| transits(format!("from {} to {}", from.id, to.id), from, to)),
    );
}

#[test]
fn what_the_other_tunnel_lacks_leaves_it_to_the_kernel() {
    let inner = || Packet::new(PLAIN.beyond(), KEYED.beyond());
    check([
        device("down", &inner()).given(|plane| change::tunnel_flag(plane, KEYED, Flags::UP, false)),
        device("no route to its remote", &inner())
            .given(|plane| change::tunnel(plane, KEYED).next_hop = 0),
        device("not resolved", &inner()).given(|plane| change::unresolved(plane, TO_GATEWAY)),
        device("longer than its MTU", &inner().long(KEYED.mtu() + 1)),
        device("no ndo_xdp_xmit", &inner())
            .given(|plane| change::without_native_redirect(plane, TO_GATEWAY)),
        device("beyond the map", &inner())
            .given(|plane| route(plane, KEYED.beyond(), 16, Entry::Tunnel(8))),
        device("forwarding off on the device", &inner())
            .given(|plane| change::tunnel_flag(plane, PLAIN, Flags::FORWARDING, false)),
    ]);
}

/// TC, which comes next, needs no device map.
#[test]
fn what_cannot_be_redirected_is_passed_on_as_it_came() {
    let case =
        |what: &str, inner: Packet| Case::new(what, Hook::Xdp(WAN), through(PLAIN, &inner.bytes()));
    let without = |gone: u32| {
        move |plane: &mut gre_userspace::dataplane::DataPlane| {
            plane.tx_ports.retain(|&port| port != gone);
        }
    };
    let local = || Packet::new(PLAIN.beyond(), LAN_ADDRESS);
    check([
        case("to a next hop", inbound(PLAIN)).passes(EgressWithoutXdp).given(without(LAN)),
        case("to another tunnel", Packet::new(PLAIN.beyond(), KEYED.beyond()))
            .passes(EgressWithoutXdp)
            .given(without(WAN)),
        case("to the device", local()).passes(EgressWithoutXdp).given(without(PLAIN.peer())),
        case("to a device without NAPI", local())
            .passes(EgressWithoutXdp)
            .given(|plane| change::without_native_redirect(plane, PLAIN.way_to_device())),
        case("to a device beyond the map", local())
            .passes(TunnelDown)
            .given(|plane| change::tunnel(plane, PLAIN).device = 64),
        // A veth takes no longer frames than its MTU, and drops them uncounted.
        case("to the device, longer than its MTU", local().long(PLAIN.mtu() + 1)).passes(TooBig),
        case("from a tunnel that is down", local())
            .passes(TunnelDown)
            .given(|plane| change::tunnel_flag(plane, PLAIN, Flags::UP, false)),
    ]);
}

/// The outer header of a packet received says how it came, not how the tunnel sends.
#[test]
fn the_outer_headers_tos_ttl_and_fragment_bits_do_not_matter() {
    let inner = inbound(INHERIT);
    let outer = || received(INHERIT, gre_of(INHERIT, &inner.bytes()));
    let out = to_host(&inner.forwarded().bytes());
    let cases = [
        ("TTL 1", outer().with(|header| header.time_to_live = 1)),
        ("TTL 0", outer().with(|header| header.time_to_live = 0)),
        ("TOS", outer().with(|header| set_tos(header, 0xb8))),
        ("Don't Fragment", outer().with(|header| header.dont_fragment = true)),
        ("identification", outer().with(|header| header.identification = 0xffff)),
    ];
    check(cases.map(|(what, outer)| {
        let out = out.clone();
        Case::new(what, Hook::Xdp(WAN), from_wan(&outer.bytes()))
            .sends(Decapsulated, LAN, move |_| out.clone())
            .received(INHERIT, 1, 60)
    }));
}

/// Two gateways between which a destination goes to and fro would multiply the packet's load.
#[test]
fn a_packet_routed_back_into_its_tunnel_is_dropped() {
    let drops = |what: &str, hook, tunnel: Spec, inner: Packet| {
        Case::new(what, hook, through(tunnel, &inner.bytes())).drops(Loop, tunnel)
    };
    let mut cases = Vec::new();
    for hook in [Hook::Xdp(WAN), Hook::TcIn(WAN)] {
        for tunnel in [PLAIN, KEYED, FIXED] {
            cases.push(drops("back", hook, tunnel, Packet::new(HOST, tunnel.beyond())));
        }
        let back = Packet::new(HOST, PLAIN.beyond());
        cases.extend([
            drops("TTL 1", hook, PLAIN, back.clone().with(|header| header.time_to_live = 1)),
            drops("options", hook, PLAIN, back.with(|header| header.options = [1; 4].into())),
            drops("to the remote, inside", hook, PLAIN, Packet::new(LOCAL, PLAIN.remote()))
                .given(|plane| route(plane, PLAIN.remote(), 32, Entry::Tunnel(PLAIN.id))),
        ]);
    }
    check(cases);
}
