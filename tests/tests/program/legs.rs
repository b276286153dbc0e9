//! Tunnels whose remote is any: one record receives, and each remote that routes lead to has another
//! to send by.

use gre_ebpf_common::{outcome::Outcome::*, route::Entry};
use gre_userspace::dataplane::DataPlane;

use crate::{
    bench::Hook,
    case::{Case, check},
    frame::{
        Options, Packet, encapsulated, frame, from_lan, from_wan, inbound, outbound, received,
        to_underlay,
    },
    gre_header::{TIERS, accepts},
    world::{FREE, HOST, LAN, PLAIN, STRANGER, Spec, WAN, add, add_leg, change, route},
};

const KEYLESS: Spec = Spec { remote_any: true, ..Spec::new(FREE) };
const KEYED: Spec = Spec { remote_any: true, ..Spec::new(FREE).with_key(9) };

/// The tunnel's record towards the first or second remote.
fn leg(tunnel: Spec, number: u32) -> Spec {
    let id = FREE + 1 + number;
    Spec { id, remote_of: id, remote_any: false, ..tunnel }
}

fn hub(tunnel: Spec) -> impl Fn(&mut DataPlane) {
    move |plane| {
        add(plane, tunnel);
        // Without a remote there is nowhere to send to.
        change::tunnel(plane, tunnel).next_hop = 0;
        route(plane, tunnel.beyond(), 16, Entry::Punt);
        add_leg(plane, tunnel, leg(tunnel, 0));
        add_leg(plane, tunnel, leg(tunnel, 1));
    }
}

/// From the remote of a leg.
fn arriving(from: Spec, inner: &Packet) -> Vec<u8> {
    from_wan(&received(from, Options::received(from, 0).gre(0x0800, &inner.bytes())).bytes())
}

#[test]
fn l3_any_remote_may_send_and_is_counted_on_the_tunnel() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in [KEYLESS, KEYED] {
            for number in [0, 1, 2] {
                let inner = inbound(leg(tunnel, number));
                let frame = arriving(leg(tunnel, number), &inner);
                let what = format!("leg {number} of {:?}", tunnel.key);
                cases.push(accepts(what, hook, tunnel, frame, &inner).given(hub(tunnel)));
            }
        }
    }
    check(cases);
}

#[test]
fn t1_xdp_sends_to_the_remote_that_the_route_names() {
    let mut cases = Vec::new();
    for tunnel in [KEYLESS, KEYED] {
        for to in [leg(tunnel, 0), leg(tunnel, 1)] {
            let packet = outbound(to);
            let forwarded = packet.forwarded();
            cases.push(
                Case::new(format!("{to:?}"), Hook::Xdp(LAN), from_lan(&packet.bytes()))
                    .sends(Encapsulated, WAN, move |id| {
                        to_underlay(&encapsulated(to, &forwarded, id).bytes())
                    })
                    .sent(to, 1, 60)
                    .given(hub(tunnel)),
            );
        }
    }
    check(cases);
}

/// The kernel routes into the device; which remote is meant, the same routes tell.
#[test]
fn t1_tc_sends_to_the_remote_that_the_route_names_and_nowhere_without_one() {
    let mut cases = Vec::new();
    for tunnel in [KEYLESS, KEYED] {
        for hook in [Hook::TcOut(tunnel.device()), Hook::TcOut(tunnel.peer())] {
            let case = |what: &str, packet: &Packet| {
                Case::new(what, hook, frame([2; 6], [4; 6], &packet.bytes())).given(hub(tunnel))
            };
            for to in [leg(tunnel, 0), leg(tunnel, 1)] {
                let packet = outbound(to);
                cases.push(
                    case("a leg", &packet.clone())
                        .sends(Encapsulated, WAN, move |id| {
                            frame([0; 6], [4; 6], &encapsulated(to, &packet, id).bytes())
                        })
                        .sent(to, 1, 60),
                );
            }
            for (what, destination) in [
                ("no route", STRANGER),
                ("a port's route", HOST),
                ("another tunnel's route", PLAIN.beyond()),
                ("its own address", tunnel.beyond()),
            ] {
                let packet = Packet::new(HOST, destination);
                cases.push(case(what, &packet).drops(NoRoute, tunnel));
            }
        }
    }
    check(cases);
}

/// Even where a route leads into the tunnel without naming a remote.
#[test]
fn t1_a_route_without_a_remote_is_no_way() {
    let packet = frame([2; 6], [4; 6], &outbound(KEYLESS).bytes());
    check([Case::new("itself", Hook::TcOut(KEYLESS.device()), packet)
        .drops(NoRoute, KEYLESS)
        .given(|plane| {
            hub(KEYLESS)(plane);
            route(plane, KEYLESS.beyond(), 16, Entry::Tunnel(KEYLESS.id));
        })]);
}

#[test]
fn rfc2784_5_d15_from_one_remote_to_another_is_no_loop_but_back_to_the_same_is() {
    let mut cases = Vec::new();
    for tunnel in [KEYLESS, KEYED] {
        let legs = [leg(tunnel, 0), leg(tunnel, 1)];
        for (from, to) in [(0, 1), (1, 0)].map(|(from, to)| (legs[from], legs[to])) {
            let inner = Packet::new(from.beyond(), to.beyond());
            let forwarded = inner.forwarded();
            cases.push(
                Case::new("to the other", Hook::Xdp(WAN), arriving(from, &inner))
                    .sends(Transit, WAN, move |id| {
                        to_underlay(&encapsulated(to, &forwarded, id).bytes())
                    })
                    .received(tunnel, 1, 60)
                    .sent(to, 1, 60)
                    .given(hub(tunnel)),
            );
            let frame = arriving(from, &inner);
            cases.push(
                accepts("to the other", Hook::TcIn(WAN), tunnel, frame, &inner).given(hub(tunnel)),
            );
            for hook in TIERS {
                let back = Packet::new(HOST, from.beyond());
                cases.push(
                    Case::new("back", hook, arriving(from, &back))
                        .drops(Loop, tunnel)
                        .given(hub(tunnel)),
                );
            }
        }
        // Into another tunnel.
        let elsewhere = Packet::new(legs[0].beyond(), PLAIN.beyond());
        let forwarded = elsewhere.forwarded();
        cases.push(
            Case::new("another tunnel", Hook::Xdp(WAN), arriving(legs[0], &elsewhere))
                .sends(Transit, WAN, move |id| {
                    to_underlay(&encapsulated(PLAIN, &forwarded, id).bytes())
                })
                .received(tunnel, 1, 60)
                .sent(PLAIN, 1, 60)
                .given(hub(tunnel)),
        );
    }
    check(cases);
}
