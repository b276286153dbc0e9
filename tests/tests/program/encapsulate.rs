//! LAN to tunnel, in XDP.

use std::collections::HashSet;

use aya::util::KernelVersion;
use gre_ebpf_common::{
    next_hop::NextHop,
    outcome::Outcome::{self, *},
    port::Flags,
    route::Entry,
    tunnel,
};

use gre_userspace::dataplane::DataPlane;

use crate::{
    bench::{Context, Hook, bench},
    case::{Case, check},
    frame::{
        IDENTIFICATION, Packet, encapsulated, from_lan, outbound, set_tos, through, to_underlay,
    },
    world::{
        FIXED, HOST, INHERIT, KEYED, LAN, PLAIN, STRANGER, Spec, TO_GATEWAY, TO_HOST, TUNNELS, WAN,
        change, route, world,
    },
};

/// Packets that go into a tunnel, for both tiers.
pub fn fixtures() -> Vec<(String, Spec, Packet)> {
    let mut fixtures = Vec::new();
    for tunnel in TUNNELS {
        let mut add =
            |what: &str, packet| fixtures.push((format!("{what}, {tunnel:?}"), tunnel, packet));
        add("a packet", outbound(tunnel));
        add("Don't Fragment", outbound(tunnel).with(|header| header.dont_fragment = true));
        for tos in [0x01, 0x02, 0x03, 0xb8, 0xfb] {
            add(&format!("TOS {tos:#x}"), outbound(tunnel).with(|header| set_tos(header, tos)));
        }
        add("TTL 2", outbound(tunnel).with(|header| header.time_to_live = 2));
        add("TTL 255", outbound(tunnel).with(|header| header.time_to_live = 255));
        add("header only", outbound(tunnel).long(20));
        add("one byte of payload", outbound(tunnel).long(21));
        add("a byte less than the MTU", outbound(tunnel).long(tunnel.mtu() - 1));
        add("as long as the MTU", outbound(tunnel).long(tunnel.mtu()));
        add("a first fragment", outbound(tunnel).with(|header| header.more_fragments = true));
        add(
            "a last fragment",
            outbound(tunnel).with(|header| header.fragment_offset = 9.try_into().unwrap()),
        );
        add("GRE inside", outbound(tunnel).with(|header| header.protocol = 47.into()));
    }
    fixtures
}

fn encapsulates(what: impl Into<String>, tunnel: Spec, packet: Packet) -> Case {
    let bytes = packet.bytes();
    Case::new(what, Hook::Xdp(LAN), from_lan(&bytes))
        .sends(Encapsulated, WAN, move |identification| {
            to_underlay(&encapsulated(tunnel, &packet.forwarded(), identification).bytes())
        })
        .sent(tunnel, 1, bytes.len())
}

fn passes(what: impl Into<String>, packet: &Packet, outcome: Outcome) -> Case {
    Case::new(what, Hook::Xdp(LAN), from_lan(&packet.bytes())).passes(outcome)
}

#[test]
fn what_is_routed_into_a_tunnel_is_encapsulated_and_its_ttl_is_one_less() {
    check(fixtures().into_iter().map(|(what, tunnel, packet)| encapsulates(what, tunnel, packet)));
}

#[test]
fn a_packet_that_the_kernel_must_see_is_passed_on_as_it_came() {
    let to = |destination| Packet::new(HOST, destination);
    let from = |source| Packet::new(source, PLAIN.beyond());
    check([
        passes("no route", &to(STRANGER), NoTunnelRoute),
        passes("for the gateway itself", &to([10, 1, 0, 1]), NoTunnelRoute),
        passes("to another port", &to([8, 8, 8, 8]), NoTunnelRoute),
        passes("GRE to nowhere", &to(STRANGER).with(|h| h.protocol = 47.into()), NoTunnel),
        passes(
            "GRE to another port",
            &to([8, 8, 8, 8]).with(|h| h.protocol = 47.into()),
            NoTunnelRoute,
        ),
        passes("TTL 1", &outbound(PLAIN).with(|h| h.time_to_live = 1), TtlExpiring),
        passes("TTL 0", &outbound(PLAIN).with(|h| h.time_to_live = 0), TtlExpiring),
        passes("source 0/8", &from([0, 1, 2, 3]), NotUnicast),
        passes("source 127/8", &from([127, 0, 0, 1]), NotUnicast),
        passes("source 224/4", &from([224, 0, 0, 5]), NotUnicast),
        passes("source 240/4", &from([240, 0, 0, 1]), NotUnicast),
        passes("source broadcast", &from([255; 4]), NotUnicast),
        passes("multicast by route", &to([224, 0, 0, 5]), NotUnicast)
            .given(|plane| route(plane, [224, 0, 0, 0], 4, Entry::Tunnel(PLAIN.id))),
        passes("broadcast by route", &to([255; 4]), NotUnicast)
            .given(|plane| route(plane, [0; 4], 0, Entry::Tunnel(PLAIN.id))),
        passes("127/8 by route", &to([127, 0, 0, 1]), NotUnicast)
            .given(|plane| route(plane, [0; 4], 0, Entry::Tunnel(PLAIN.id))),
    ]);
}

#[test]
fn longer_than_the_tunnel_or_its_underlay_takes_is_the_kernels_affair() {
    let mut cases = Vec::new();
    for tunnel in TUNNELS {
        for dont_fragment in [false, true] {
            let packet = outbound(tunnel).long(tunnel.mtu() + 1);
            let packet = packet.with(|header| header.dont_fragment = dont_fragment);
            cases.push(passes(format!("MTU + 1, {tunnel:?}"), &packet, TooBig));
        }
        let fits = 1400 - tunnel.overhead();
        for (what, narrow) in [
            ("an underlay of 1400", narrow_underlay as fn(&mut DataPlane, Spec)),
            ("a device of 1400 less the header", narrow_device),
        ] {
            let narrow = move |plane: &mut DataPlane| narrow(plane, tunnel);
            let what = format!("{what}, {tunnel:?}");
            let packet = || outbound(tunnel);
            cases.push(encapsulates(what.clone(), tunnel, packet().long(fits)).given(narrow));
            cases.push(passes(what, &packet().long(fits + 1), TooBig).given(narrow));
        }
    }
    check(cases);
}

fn narrow_underlay(plane: &mut DataPlane, _: Spec) {
    change::next_hop(plane, TO_GATEWAY).mtu = 1400;
}

fn narrow_device(plane: &mut DataPlane, tunnel: Spec) {
    change::tunnel(plane, tunnel).mtu = 1400 - tunnel.overhead();
}

#[test]
fn what_the_tunnel_lacks_is_told_and_the_packet_passed_on() {
    let passes = |what: &str, outcome| passes(what, &outbound(PLAIN), outcome);
    check([
        passes("device down", TunnelDown)
            .given(|plane| change::tunnel_flag(plane, PLAIN, tunnel::Flags::UP, false)),
        passes("no record", TunnelDown)
            .given(|plane| plane.tunnels.retain(|&id, _| id != PLAIN.id)),
        passes("a tunnel beyond the map", TunnelDown)
            .given(|plane| route(plane, PLAIN.beyond(), 16, Entry::Tunnel(8))),
        passes("next hop not resolved", NextHopUnresolved)
            .given(|plane| change::unresolved(plane, TO_GATEWAY)),
        passes("no route to the remote", NextHopUnresolved)
            .given(|plane| change::tunnel(plane, PLAIN).next_hop = 0),
        passes("a next hop beyond the map", NextHopUnresolved)
            .given(|plane| change::tunnel(plane, PLAIN).next_hop = 64),
        passes("no ndo_xdp_xmit", EgressWithoutXdp)
            .given(|plane| change::without_native_redirect(plane, TO_GATEWAY)),
        passes("not in the device map", EgressWithoutXdp)
            .given(|plane| plane.tx_ports.retain(|&port| port != WAN)),
        passes("an interface beyond the device map", EgressWithoutXdp).given(|plane| {
            let ready = change::next_hop(plane, TO_GATEWAY).flags;
            *change::next_hop(plane, TO_GATEWAY) = NextHop::new([2; 6], [2; 6], 256, 1500, ready);
        }),
    ]);
}

#[test]
fn a_generic_port_can_redirect_out_of_any_interface() {
    check([encapsulates("no ndo_xdp_xmit", PLAIN, outbound(PLAIN)).given(|plane| {
        change::without_native_redirect(plane, TO_GATEWAY);
        change::port_flags(plane, LAN, &[Flags::FORWARDING, Flags::GENERIC]);
    })]);
}

#[test]
fn a_port_that_does_not_forward_passes_everything_on() {
    check([passes("forwarding off", &outbound(PLAIN), ForwardingOff)
        .given(|plane| change::port_flags(plane, LAN, &[]))]);
}

#[test]
fn rp_filter_looks_where_the_source_is_routed() {
    let strict = |plane: &mut _| {
        change::port_flags(plane, LAN, &[Flags::FORWARDING, Flags::REVERSE_PATH_STRICT]);
    };
    let loose = |plane: &mut _| {
        change::port_flags(plane, LAN, &[Flags::FORWARDING, Flags::REVERSE_PATH_LOOSE]);
    };
    let from = |source| Packet::new(source, PLAIN.beyond());
    check([
        encapsulates("strict, of this port", PLAIN, from(HOST)).given(strict),
        passes("strict, of another port", &from([8, 8, 8, 8]), ReversePath).given(strict),
        passes("strict, of a tunnel", &from(KEYED.beyond()), ReversePath).given(strict),
        passes("strict, of no route", &from(STRANGER), ReversePath).given(strict),
        passes("strict, a next hop beyond the map", &from(HOST), ReversePath).given(move |plane| {
            strict(plane);
            route(plane, HOST, 32, Entry::NextHop(64));
        }),
        encapsulates("loose, of this port", PLAIN, from(HOST)).given(loose),
        encapsulates("loose, of another port", PLAIN, from([8, 8, 8, 8])).given(loose),
        encapsulates("loose, of a tunnel", PLAIN, from(KEYED.beyond())).given(loose),
        passes("loose, of no route", &from(STRANGER), ReversePath).given(loose),
        encapsulates("off, of no route", PLAIN, from(STRANGER)),
    ]);
}

#[test]
fn a_more_specific_route_elsewhere_wins_over_the_tunnels() {
    let packet = outbound(PLAIN);
    check([
        passes("a /24 of the kernel's", &packet, NoTunnelRoute)
            .given(|plane| route(plane, PLAIN.beyond(), 24, Entry::Punt)),
        passes("a /32 to a next hop", &packet, NoTunnelRoute)
            .given(|plane| route(plane, PLAIN.beyond(), 32, Entry::NextHop(TO_HOST))),
        encapsulates("a /32 into another tunnel", KEYED, packet)
            .given(|plane| route(plane, PLAIN.beyond(), 32, Entry::Tunnel(KEYED.id))),
    ]);
}

/// A frame of 60 bytes is the shortest on a wire; what is behind the packet stays behind it.
#[test]
fn ethernet_padding_is_no_part_of_the_packet() {
    for tunnel in [PLAIN, KEYED, INHERIT, FIXED] {
        let packet = outbound(tunnel).long(28);
        let padding = [0xee; 60 - 14 - 28];
        let frame = [from_lan(&packet.bytes()), padding.to_vec()].concat();
        check([Case::new("padding", Hook::Xdp(LAN), frame)
            .sends(Encapsulated, WAN, move |identification| {
                let outer = encapsulated(tunnel, &packet.forwarded(), identification).bytes();
                [to_underlay(&outer), padding.to_vec()].concat()
            })
            .sent(tunnel, 1, 28)]);
    }
}

/// Some drivers leave little room before the frame. Here it is 256 bytes, of which the kernel
/// itself takes 40 (struct xdp_frame), and metadata the rest.
#[test]
fn without_headroom_the_packet_is_passed_on() {
    if KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(6, 8, 0)) {
        println!("not run: kernels before 6.8 allow 32 bytes of metadata at most");
        return;
    }
    let room = |bytes: usize| Context { metadata: 256 - 40 - bytes, ..Context::default() };
    let mut cases = Vec::new();
    for tunnel in [PLAIN, KEYED] {
        let overhead = tunnel.overhead().into();
        for bytes in (0..overhead).step_by(4) {
            let case = passes(format!("{bytes} bytes of room"), &outbound(tunnel), NoHeadroom);
            cases.push(case.context(room(bytes)));
        }
        cases.push(encapsulates("just enough", tunnel, outbound(tunnel)).context(room(overhead)));
    }
    let transit = through(PLAIN, &Packet::new(PLAIN.beyond(), KEYED.beyond()).bytes());
    cases.push(
        Case::new("a hub, whose second header is longer", Hook::Xdp(WAN), transit)
            .passes(NoHeadroom)
            .context(room(0)),
    );
    check(cases);
}

#[test]
fn no_two_packets_in_a_row_have_the_same_identification() {
    let mut bench = bench();
    bench.apply(world());
    let frame = from_lan(&outbound(PLAIN).bytes());
    let mut seen = HashSet::new();
    for n in 0..2000 {
        // Both tiers send through the same tunnel.
        let hook = if n % 3 == 0 { Hook::TcOut(PLAIN.device()) } else { Hook::Xdp(LAN) };
        let (run, _) = bench.run(hook, Context::default(), &frame);
        assert!(seen.insert(run.bytes[IDENTIFICATION].to_vec()), "{hook:?}, packet {n}");
    }
}
