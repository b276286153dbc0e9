//! IPv6 that enters a tunnel over IPv6: where it must not come from.

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

/// On a way in, what a tunnel makes of a packet that it takes.
fn enters(what: &str, hook: Hook, tunnel: Spec, packet: &Packet) -> Case {
    match hook {
        Hook::Xdp(_) => Case::new(what, hook, from_lan(&packet.bytes()))
            .encapsulates(tunnel, &packet.forwarded()),
        _ => Case::new(what, hook, routed(&packet.bytes())).encapsulates(tunnel, packet),
    }
}

fn refused(what: &str, hook: Hook, tunnel: Spec, packet: &Packet) -> Case {
    let frame = match hook {
        Hook::Xdp(_) => from_lan(&packet.bytes()),
        _ => routed(&packet.bytes()),
    };
    Case::new(what, hook, frame).drops(InnerSource, tunnel)
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
            cases.push(refused(&what, hook, tunnel, &from(remote.into())));
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
