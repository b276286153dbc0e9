//! Routes of IPv6: prefixes of all lengths, and hosts on links.

use std::net::{IpAddr, Ipv6Addr};

use gre_ebpf_common::{outcome::Outcome::*, route::Entry, route6};

use crate::{
    bench::Hook,
    case::{Case, check},
    change,
    frame::{from_lan, through},
    packet::{Packet, inbound},
    world::{Family, KEYED6, LAN, PLAIN4, PLAIN6, TO_GATEWAY, TO_HOST, WAN},
};

/// An address with the bit, counted from the first, turned over.
fn flip(address: Ipv6Addr, bit: u8) -> IpAddr {
    IpAddr::V6((u128::from(address) ^ 1 << (127 - bit)).into())
}

/// Within a prefix whatever comes behind it, and out of it where its last bit is another.
#[test]
fn a_prefix_of_any_length_leads_into_its_tunnel() {
    // Of no prefix of the world.
    let inside: Ipv6Addr = "2a5a:5a5a:5a5a:5a5a:a5a5:a5a5:a5a5:a5a5".parse().unwrap();
    let mut cases = Vec::new();
    for len in 0..=128u8 {
        let mut add = |what: &str, destination: IpAddr, tunnel| {
            let packet = Packet::new(Family::V6.host(), destination);
            let what = format!("{what} /{len}: {destination}");
            let case = Case::new(what, Hook::Xdp(LAN), from_lan(&packet.bytes()));
            let case = case.given(move |plane| {
                change::route(plane, inside.into(), len, Entry::Tunnel(KEYED6.id));
                if len > 0 {
                    change::route(plane, Family::V6.any(), 0, Entry::Tunnel(PLAIN4.id));
                }
            });
            cases.push(case.encapsulates(tunnel, &packet.forwarded()));
        };
        add("in", inside.into(), KEYED6);
        if len < 128 {
            add("the first bit behind", flip(inside, len), KEYED6);
            add("the last bit", flip(inside, 127), KEYED6);
        }
        if len > 2 {
            add("out", flip(inside, len - 1), PLAIN4);
            // Not into what no router forwards.
            add("the third bit", flip(inside, 2), PLAIN4);
        }
    }
    check(cases);
}

/// One within the other, 17 of them: the longest that fits wins.
#[test]
fn the_longest_prefix_wins() {
    let inside: Ipv6Addr = "2a00:1122:3344:5566:7788:99aa:bbcc:ddee".parse().unwrap();
    let lens: Vec<u8> = (16..=128).step_by(7).collect();
    let mut cases = Vec::new();
    for (i, &len) in lens.iter().enumerate() {
        // In this prefix, and not in the next.
        let destination = lens.get(i + 1).map_or(inside.into(), |next| flip(inside, next - 1));
        let packet = Packet::new(Family::V6.host(), destination);
        let case = Case::new(format!("/{len}"), Hook::Xdp(LAN), from_lan(&packet.bytes()));
        let lens = lens.clone();
        let case = case.given(move |plane| {
            for (i, &len) in lens.iter().enumerate() {
                let entry = match i % 3 {
                    0 => Entry::Tunnel(PLAIN6.id),
                    1 => Entry::Tunnel(KEYED6.id),
                    _ => Entry::NextHop(TO_GATEWAY),
                };
                change::route(plane, inside.into(), len, entry);
            }
        });
        cases.push(match i % 3 {
            0 => case.encapsulates(PLAIN6, &packet.forwarded()),
            1 => case.encapsulates(KEYED6, &packet.forwarded()),
            _ => case.passes(NoTunnelRoute),
        });
    }
    check(cases);
}

/// A host that the kernel has not resolved yet it has to send to itself.
#[test]
fn a_host_on_a_link_is_known_or_the_kernels() {
    let mut cases = Vec::new();
    let known = inbound(Family::V6, PLAIN6);
    let frame = through(PLAIN6, &known.bytes());
    cases.push(Case::new("known", Hook::Xdp(WAN), frame).comes_out(PLAIN6, &known));
    let IpAddr::V6(host) = Family::V6.host() else { unreachable!() };
    for bit in 64..128 {
        let inner = known.clone().with(|packet| packet.destination = flip(host, bit));
        let case = |what| Case::new(what, Hook::Xdp(WAN), through(PLAIN6, &inner.bytes()));
        cases.push(case("not known").delivered(PLAIN6, &inner.bytes()));
        let destination = inner.destination;
        cases.push(case("known as well").comes_out(PLAIN6, &inner).given(move |plane| {
            change::host6(plane, destination, Entry::NextHop(TO_HOST));
        }));
        let packet = Packet::new(Family::V6.host(), destination);
        let frame = from_lan(&packet.bytes());
        cases.push(Case::new("from the LAN", Hook::Xdp(LAN), frame).passes(NoTunnelRoute));
    }
    check(cases);
}

/// What is in the map of hosts counts only where the route says that they are on a link.
#[test]
fn a_host_is_looked_for_only_where_the_route_says_so() {
    let packet = Packet::new(Family::V6.host(), Family::V6.stranger());
    let case = |what| Case::new(what, Hook::Xdp(LAN), from_lan(&packet.bytes()));
    let host = |plane: &mut _| {
        change::host6(plane, Family::V6.stranger(), Entry::Tunnel(KEYED6.id));
    };
    let route =
        |len, entry| move |plane: &mut _| change::route(plane, Family::V6.stranger(), len, entry);
    check([
        case("no route").passes(NoTunnelRoute).given(host),
        case("another route")
            .encapsulates(PLAIN6, &packet.forwarded())
            .given(host)
            .given(route(64, Entry::Tunnel(PLAIN6.id))),
        case("a link")
            .encapsulates(KEYED6, &packet.forwarded())
            .given(host)
            .given(route(64, route6::HOSTS)),
        case("a link of one")
            .encapsulates(KEYED6, &packet.forwarded())
            .given(host)
            .given(route(128, route6::HOSTS)),
        case("no host").passes(NoTunnelRoute).given(route(64, route6::HOSTS)),
        case("a longer prefix on the link")
            .encapsulates(PLAIN6, &packet.forwarded())
            .given(host)
            .given(route(64, route6::HOSTS))
            .given(route(120, Entry::Tunnel(PLAIN6.id))),
    ]);
}

#[test]
fn ids_beyond_the_maps_are_passed_on() {
    let packet = Packet::new(Family::V6.host(), Family::V6.stranger());
    let inner = Packet::new(PLAIN6.beyond(Family::V6), Family::V6.stranger());
    let to = |entry| move |plane: &mut _| change::route(plane, Family::V6.stranger(), 64, entry);
    check([
        Case::new("a tunnel", Hook::Xdp(LAN), from_lan(&packet.bytes()))
            .passes(TunnelDown)
            .given(to(Entry::Tunnel(16))),
        Case::new("a tunnel, out of another", Hook::Xdp(WAN), through(PLAIN6, &inner.bytes()))
            .delivered(PLAIN6, &inner.bytes())
            .given(to(Entry::Tunnel(16))),
        Case::new("a next hop", Hook::Xdp(WAN), through(PLAIN6, &inner.bytes()))
            .delivered(PLAIN6, &inner.bytes())
            .given(to(Entry::NextHop(64))),
    ]);
}
