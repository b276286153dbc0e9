//! IPv6 that enters a tunnel over IPv6: where it must not come from, and the encapsulation limit that
//! it brings along.

use std::net::IpAddr;

use gre_ebpf_common::outcome::Outcome::*;

use crate::{
    bench::Hook,
    case::{Case, check},
    frame::{from_lan, routed, through},
    outer::over_ipv6,
    packet::{Packet, outbound},
    world::{Family, INHERIT4, LAN, PLAIN4, PLAIN6, Spec, WAN},
};

/// From the LAN, and from the kernel.
fn ways_in(tunnel: Spec) -> [Hook; 2] {
    [Hook::Xdp(LAN), Hook::TcOut(tunnel.peer())]
}

/// On a way in, a packet that no tunnel has taken yet.
fn arrives(what: &str, hook: Hook, packet: &Packet) -> Case {
    let frame = match hook {
        Hook::Xdp(_) => from_lan(&packet.bytes()),
        _ => routed(&packet.bytes()),
    };
    Case::new(what, hook, frame)
}

/// The same, and what a tunnel makes of it.
fn enters(what: &str, hook: Hook, tunnel: Spec, packet: &Packet) -> Case {
    let case = arrives(what, hook, packet);
    match hook {
        Hook::Xdp(_) => case.encapsulates(tunnel, &packet.forwarded()),
        _ => case.encapsulates(tunnel, packet),
    }
}

/// With another bit anywhere it is another's.
#[test]
fn ip6gre3_what_the_remote_itself_has_sent_is_refused() {
    let mut cases = Vec::new();
    for tunnel in over_ipv6() {
        let IpAddr::V6(remote) = tunnel.remote() else { panic!("it runs over IPv6") };
        let from =
            |source: IpAddr| outbound(Family::V6, tunnel).with(|packet| packet.source = source);
        for hook in ways_in(tunnel) {
            let what = format!("{tunnel:?}");
            let own = arrives(&what, hook, &from(remote.into()));
            cases.push(own.drops(InnerSource, tunnel));
            // The first 16 bits tell what is unicast.
            for bit in 0..112 {
                let other = IpAddr::V6((remote.to_bits() ^ 1 << bit).into());
                cases.push(enters(&format!("{what}, bit {bit}"), hook, tunnel, &from(other)));
            }
            cases.push(enters(&what, hook, tunnel, &from(tunnel.outside.local())));
        }
    }
    check(cases);
}

/// The rule is ip6gre's alone: there is nothing to compare in a tunnel over IPv4, nor in IPv4 inside.
#[test]
fn ip6gre3_ipv4_on_either_side_is_not_looked_at() {
    let mut cases = Vec::new();
    for tunnel in [PLAIN4, INHERIT4] {
        let from = Packet::new(PLAIN6.remote(), tunnel.beyond(Family::V6));
        for hook in ways_in(tunnel) {
            cases.push(enters("IPv6 in IPv4", hook, tunnel, &from));
        }
        // As the kernel sends it before it has an address: of a tunnel over IPv4 no others are known.
        let from = Packet::new(Family::V6.any(), tunnel.beyond(Family::V6));
        cases.push(enters("from ::", Hook::TcOut(tunnel.device()), tunnel, &from));
        let from = outbound(Family::V4, tunnel).with(|packet| packet.source = tunnel.remote());
        for hook in ways_in(tunnel) {
            cases.push(enters("IPv4 in IPv4", hook, tunnel, &from));
        }
    }
    check(cases);
}

/// From one tunnel into another the kernel brings it, which is then refused.
#[test]
fn ip6gre3_what_the_next_tunnels_remote_has_sent_does_not_go_on_in_xdp() {
    let mut cases = Vec::new();
    for from in [PLAIN4, PLAIN6] {
        for to in over_ipv6().filter(|to| *to != from) {
            let packet = Packet::new(to.remote(), to.beyond(Family::V6));
            let frame = through(from, &packet.bytes());
            let case = Case::new(format!("from {from:?} to {to:?}"), Hook::Xdp(WAN), frame);
            cases.push(case.delivered(from, &packet.bytes()));
        }
    }
    check(cases);
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// An extension header: its number, and what is behind its first byte.
type Extension = (u8, Vec<u8>);

/// A packet to behind the tunnel with extension headers in front of its payload.
fn outbound_with(tunnel: Spec, headers: &[Extension]) -> Packet {
    outbound(Family::V6, tunnel).with(|packet| {
        for (number, rest) in headers.iter().rev() {
            packet.payload = [&[packet.protocol], &rest[..], &packet.payload].concat();
            packet.protocol = *number;
        }
    })
}

/// Headers of which the last has a limit of this value, where the search for it comes.
fn with_limit(value: u8) -> Vec<(&'static str, Vec<Extension>)> {
    let limit = (DESTINATION, vec![0, 4, 1, value, 1, 1, 0]);
    let pad_n = [&[30, 1, 236][..], &[0; 236], &[4, 1, value, 0, 0, 0, 0, 0]].concat();
    let authentication = [&[2][..], &[4; 14]].concat();
    vec![
        ("as Linux sends it", vec![limit.clone()]),
        ("behind Pad1", vec![(DESTINATION, vec![0, 0, 0, 0, 4, 1, value])]),
        ("behind PadN", vec![(DESTINATION, pad_n)]),
        ("behind another option", vec![(DESTINATION, vec![0, 0xc2, 1, 0, 4, 1, value])]),
        ("behind options", vec![(DESTINATION, vec![0, 1, 4, 4, 1, 7, 7]), limit.clone()]),
        ("behind a routing header", vec![(ROUTING, vec![0, 4, 1, 7, 7, 7, 7]), limit.clone()]),
        ("behind authentication", vec![(AUTHENTICATION, authentication), limit.clone()]),
        ("before another", vec![limit, (DESTINATION, vec![0, 4, 1, 77, 1, 1, 0])]),
    ]
}

/// Whether the tunnel sends one of its own or not. XDP leaves to TC what it would have to search.
#[test]
fn ip6gre1_the_limit_sent_is_one_less_than_that_inside() {
    let mut cases = Vec::new();
    for tunnel in over_ipv6() {
        for value in [1, 2, 5, 255] {
            for (what, headers) in with_limit(value) {
                let packet = outbound_with(tunnel, &headers);
                let what = format!("{value} {what}, {tunnel:?}");
                let case = arrives(&what, Hook::Xdp(LAN), &packet);
                cases.push(case.passes(Ipv6Extension));
                let limited = Spec { limit: Some(value - 1), ..tunnel };
                cases.push(enters(&what, Hook::TcOut(tunnel.peer()), limited, &packet));
            }
        }
    }
    check(cases);
}

#[test]
fn ip6gre1_a_limit_of_zero_is_dropped_and_counted_on_the_tunnel() {
    let mut cases = Vec::new();
    for tunnel in over_ipv6() {
        for (what, headers) in with_limit(0) {
            let packet = outbound_with(tunnel, &headers);
            let what = format!("{what}, {tunnel:?}");
            cases.push(arrives(&what, Hook::Xdp(LAN), &packet).passes(Ipv6Extension));
            let case = arrives(&what, Hook::TcOut(tunnel.peer()), &packet);
            cases.push(case.drops(EncapsulationLimit, tunnel));
        }
    }
    check(cases);
}

/// The tunnel's own limit is sent, or none.
#[test]
fn ip6gre1_without_a_limit_inside_the_tunnels_own_is_sent() {
    let mut cases = Vec::new();
    for tunnel in over_ipv6() {
        for (what, (number, rest)) in [
            ("no options", (DESTINATION, [0, 1, 4, 0, 0, 0, 0])),
            ("of another length", (DESTINATION, [0, 4, 2, 0, 0, 1, 0])),
            ("without room", (DESTINATION, [0, 1, 2, 0, 0, 4, 1])),
            ("in options that every router reads", (HOP_BY_HOP, [0, 4, 1, 0, 1, 1, 0])),
            ("in a header that does not fit", (DESTINATION, [200, 4, 1, 0, 1, 1, 0])),
        ] {
            let packet = outbound_with(tunnel, &[(number, rest.into())]);
            let what = format!("{what}, {tunnel:?}");
            cases.push(arrives(&what, Hook::Xdp(LAN), &packet).passes(Ipv6Extension));
            cases.push(enters(&what, Hook::TcOut(tunnel.peer()), tunnel, &packet));
        }
        // What is behind is not looked at, so that XDP need not leave it to TC.
        let limit = || (DESTINATION, vec![0, 4, 1, 0, 1, 1, 0]);
        for (what, first) in [
            ("a fragment", (FRAGMENT, vec![0, 0, 1, 0, 0, 0, 9])),
            ("UDP", (17, vec![0, 0, 1, 0, 9, 0, 0])),
            ("another IPv6 header", (41, vec![0; 39])),
            ("encryption", (50, vec![0, 0, 0, 0, 0, 0, 9])),
        ] {
            let packet = outbound_with(tunnel, &[first, limit()]);
            let what = format!("behind {what}, {tunnel:?}");
            for hook in ways_in(tunnel) {
                cases.push(enters(&what, hook, tunnel, &packet));
            }
        }
    }
    check(cases);
}

/// The limit is one of tunnels over IPv6.
#[test]
fn ip6gre1_a_tunnel_over_ipv4_does_not_look() {
    let mut cases = Vec::new();
    for tunnel in [PLAIN4, INHERIT4] {
        for (what, headers) in with_limit(0) {
            let packet = outbound_with(tunnel, &headers);
            for hook in ways_in(tunnel) {
                cases.push(enters(what, hook, tunnel, &packet));
            }
        }
    }
    check(cases);
}

/// Eight bytes more, where the tunnel has no limit of its own.
#[test]
fn ip6gre1_the_limit_sent_counts_towards_the_length() {
    let mut cases = Vec::new();
    for tunnel in over_ipv6() {
        let limited = Spec { limit: Some(3), ..tunnel };
        for (len, fits) in [(limited.mtu(), true), (limited.mtu() + 1, false)] {
            let packet =
                outbound_with(tunnel, &[(DESTINATION, vec![0, 4, 1, 4, 1, 1, 0])]).long(len);
            let hook = Hook::TcOut(tunnel.peer());
            cases.push(if fits {
                enters("it fits", hook, limited, &packet)
            } else {
                arrives("it does not", hook, &packet).drops(TooBigForUnderlay, tunnel)
            });
        }
    }
    check(cases);
}

/// From one tunnel into another by the kernel, and so by TC.
#[test]
fn ip6gre1_what_may_have_a_limit_does_not_go_from_tunnel_to_tunnel_in_xdp() {
    let mut cases = Vec::new();
    for from in [PLAIN4, PLAIN6] {
        for to in over_ipv6().filter(|to| *to != from) {
            let packet = outbound_with(to, &[(DESTINATION, vec![0, 4, 1, 4, 1, 1, 0])])
                .with(|packet| packet.source = from.beyond(Family::V6));
            let frame = through(from, &packet.bytes());
            let case = Case::new(format!("from {from:?} to {to:?}"), Hook::Xdp(WAN), frame);
            cases.push(case.delivered(from, &packet.bytes()));
        }
    }
    check(cases);
}
