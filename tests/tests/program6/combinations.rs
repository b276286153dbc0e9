//! Every tunnel with both versions inside: into it, out of it, and from each into each.

use gre_ebpf_common::outcome::Outcome::*;

use crate::{
    bench::Hook,
    case::{Case, check},
    frame::{encapsulated, from_lan, routed, through, to_underlay},
    packet::{Packet, inbound, outbound, to_gateway},
    world::{FAMILIES, Family, LAN, Spec, TUNNELS, WAN},
};

/// Every tunnel, with each version inside.
pub fn all() -> impl Iterator<Item = (Spec, Family)> {
    TUNNELS.into_iter().flat_map(|tunnel| FAMILIES.map(|inside| (tunnel, inside)))
}

/// Packets that differ in what outer headers and routers look at.
fn variants(packet: &Packet, mtu: usize) -> Vec<(&'static str, Packet)> {
    let with = |change: fn(&mut Packet)| packet.clone().with(change);
    let mut variants = vec![
        ("a packet", packet.clone()),
        ("header only", packet.clone().long(packet.family().header_len())),
        ("an odd length", packet.clone().long(133)),
        ("as long as the MTU", packet.clone().long(mtu)),
        ("TTL 2", with(|packet| packet.ttl = 2)),
        ("TTL 255", with(|packet| packet.ttl = 255)),
        ("DS field", with(|packet| packet.tos = 0xb9)),
        ("GRE inside", with(|packet| packet.protocol = 47)),
        ("a flow label", with(|packet| packet.flow_label = 0xf_edcb)),
    ];
    if packet.family() == Family::V4 {
        variants.push(("Don't Fragment", with(|packet| packet.dont_fragment = true)));
        variants.push(("a fragment", with(|packet| packet.more_fragments = true)));
        variants.push(("identification", with(|packet| packet.identification = 0xfffe)));
    }
    variants
}

#[test]
fn rfc7676_1_what_is_routed_into_a_tunnel_is_encapsulated_and_has_one_less_to_live() {
    let mut cases = Vec::new();
    for (tunnel, inside) in all() {
        for (what, packet) in variants(&outbound(inside, tunnel), tunnel.mtu()) {
            let what = format!("{what}, {inside:?} in {tunnel:?}");
            cases.push(
                Case::new(what, Hook::Xdp(LAN), from_lan(&packet.bytes()))
                    .encapsulates(tunnel, &packet.forwarded()),
            );
        }
    }
    check(cases);
}

#[test]
fn t9_what_the_kernel_routes_into_a_tunnel_is_encapsulated_as_it_is() {
    let mut cases = Vec::new();
    for (tunnel, inside) in all() {
        let mut variants = variants(&outbound(inside, tunnel), tunnel.mtu());
        variants.push(("TTL 1", outbound(inside, tunnel).with(|packet| packet.ttl = 1)));
        for (what, packet) in variants {
            // What is to be numbered or summed the device cuts first; then it comes out of its peer.
            let finishes = tunnel.checksum || tunnel.sequence;
            let hook = Hook::TcOut(if finishes { tunnel.peer() } else { tunnel.device() });
            let (what, frame) =
                (format!("{what}, {inside:?} in {tunnel:?}"), routed(&packet.bytes()));
            cases.push(Case::new(&what, hook, frame.clone()).encapsulates(tunnel, &packet));
            if finishes {
                let hook = Hook::TcOut(tunnel.device());
                cases.push(Case::new(&what, hook, frame).passes(DeviceFinishes));
            }
        }
    }
    check(cases);
}

#[test]
fn rfc1702_6_what_comes_out_of_a_tunnel_goes_on_with_one_less_to_live() {
    let mut cases = Vec::new();
    for (tunnel, inside) in all() {
        for (what, packet) in variants(&inbound(inside, tunnel), tunnel.mtu()) {
            for hook in [Hook::Xdp(WAN), Hook::TcIn(WAN)] {
                let what = format!("{what}, {inside:?} in {tunnel:?}");
                cases.push(
                    Case::new(what, hook, through(tunnel, &packet.bytes()))
                        .comes_out(tunnel, &packet),
                );
            }
        }
    }
    check(cases);
}

#[test]
fn r9_what_is_for_the_gateway_itself_goes_to_the_device_as_it_came() {
    let mut cases = Vec::new();
    for (tunnel, inside) in all() {
        let mut variants = variants(&to_gateway(inside, tunnel), tunnel.mtu());
        variants.push(("TTL 1", to_gateway(inside, tunnel).with(|packet| packet.ttl = 1)));
        variants.push(("TTL 0", to_gateway(inside, tunnel).with(|packet| packet.ttl = 0)));
        for (what, packet) in variants {
            for hook in [Hook::Xdp(WAN), Hook::TcIn(WAN)] {
                let (what, inner) = (format!("{what}, {inside:?} in {tunnel:?}"), packet.bytes());
                cases
                    .push(Case::new(what, hook, through(tunnel, &inner)).delivered(tunnel, &inner));
            }
        }
    }
    check(cases);
}

/// From one tunnel into another.
pub fn transits(what: &str, frame: Vec<u8>, packet: &Packet, from: Spec, to: Spec) -> Case {
    let (forwarded, len) = (packet.forwarded(), packet.bytes().len());
    Case::new(what, Hook::Xdp(WAN), frame)
        .sends(Transit, WAN, move |found| {
            to_underlay(&encapsulated(to, &forwarded, 0, found).bytes())
        })
        .received(from, len)
        .sent(to, len)
}

#[test]
fn a_hub_takes_one_outer_header_off_and_puts_another_on() {
    let mut cases = Vec::new();
    for (from, inside) in all() {
        for to in TUNNELS.into_iter().filter(|to| *to != from) {
            let packet = Packet::new(from.beyond(inside), to.beyond(inside))
                .with(|packet| (packet.tos, packet.flow_label) = (0xb9, 0x1_2345));
            for packet in [packet.clone().long(from.mtu().min(to.mtu())), packet] {
                let what = format!("{inside:?} from {} to {}", from.id, to.id);
                let frame = through(from, &packet.bytes());
                cases.push(transits(&what, frame, &packet, from, to));
            }
        }
    }
    check(cases);
}

/// Two gateways between which a destination goes to and fro would multiply the packet's load.
#[test]
fn d15_a_packet_routed_back_into_its_tunnel_is_dropped() {
    let mut cases = Vec::new();
    for (tunnel, inside) in all() {
        for hook in [Hook::Xdp(WAN), Hook::TcIn(WAN)] {
            for ttl in [64, 1] {
                let packet = Packet::new(inside.host(), tunnel.beyond(inside));
                let packet = packet.with(|packet| packet.ttl = ttl);
                let what = format!("{inside:?} in {tunnel:?}, TTL {ttl}");
                cases.push(
                    Case::new(what, hook, through(tunnel, &packet.bytes())).drops(Loop, tunnel),
                );
            }
        }
    }
    check(cases);
}
