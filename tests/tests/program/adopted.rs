//! Tunnels of the kernel's own: XDP forwards for them, and what it does not forward, or would refuse, goes
//! to the kernel as it came, through TC as well.

use gre_ebpf_common::{
    outcome::Outcome::{self, *},
    tunnel::Flags,
};
use gre_userspace::dataplane::DataPlane;

use crate::{
    bench::{Context, Hook, bench},
    case::{Case, check},
    frame::{
        Options, Packet, encapsulated, from_lan, from_wan, gre_of, inbound, outbound, received,
        set_tos, through, to_host, to_underlay,
    },
    world::{FREE, HOST, KEYED, LAN, LAN_ADDRESS, PLAIN, Spec, WAN, add, change, world},
};

const SUMMED: Spec = Spec::new(FREE).with_checksums().with_key(0x77);

fn adopt(plane: &mut DataPlane, tunnel: Spec) {
    let record = change::tunnel(plane, tunnel);
    record.flags = record.flags.with(Flags::ADOPTED, true);
    record.device = 0;
    // Of a device of the kernel's own the programs know nothing.
    plane.ports.remove(&tunnel.device());
    plane.ports.remove(&tunnel.peer());
}

fn adopted(tunnel: Spec) -> impl Fn(&mut DataPlane) + 'static {
    move |plane| {
        if tunnel.id == SUMMED.id {
            add(plane, SUMMED);
        }
        adopt(plane, tunnel);
    }
}

#[test]
fn what_xdp_can_finish_it_forwards_as_for_any_other_tunnel() {
    let mut cases = Vec::new();
    for tunnel in [PLAIN, KEYED, SUMMED] {
        let inner = inbound(tunnel);
        let bytes = inner.bytes();
        let out = to_host(&inner.forwarded().bytes());
        cases.push(
            Case::new(format!("in, {tunnel:?}"), Hook::Xdp(WAN), through(tunnel, &bytes))
                .sends(Decapsulated, LAN, move |_| out.clone())
                .received(tunnel, 1, bytes.len())
                .given(adopted(tunnel)),
        );
        let packet = outbound(tunnel);
        let forwarded = packet.forwarded();
        cases.push(
            Case::new(format!("out, {tunnel:?}"), Hook::Xdp(LAN), from_lan(&packet.bytes()))
                .sends(Encapsulated, WAN, move |id| {
                    to_underlay(&encapsulated(tunnel, &forwarded, id).bytes())
                })
                .sent(tunnel, 1, 60)
                .given(adopted(tunnel)),
        );
    }
    check(cases);
}

/// What is no business of XDP's, with what XDP says of it.
fn for_the_kernel() -> Vec<(&'static str, Spec, Vec<u8>, Outcome)> {
    let of = |tunnel: Spec, inner: &Packet| through(tunnel, &inner.bytes());
    let header = |change: fn(&mut etherparse::Ipv4Header)| {
        let packet = received(PLAIN, gre_of(PLAIN, &inbound(PLAIN).bytes())).with(change);
        from_wan(&packet.bytes())
    };
    let sent = |tunnel, options: Options| {
        from_wan(&received(tunnel, options.gre(0x0800, &inbound(tunnel).bytes())).bytes())
    };
    let key = |key| Options { checksum: false, key, number: None };
    let martian = Packet::new([127, 0, 0, 1], HOST);
    let congested = inbound(PLAIN).bytes();
    let congested = received(PLAIN, gre_of(PLAIN, &congested)).with(|header| set_tos(header, 3));
    let looping = Packet::new(HOST, PLAIN.beyond());
    let mut damaged = of(SUMMED, &inbound(SUMMED));
    *damaged.last_mut().expect("it is not empty") ^= 1;
    vec![
        ("for this host", PLAIN, of(PLAIN, &Packet::new(PLAIN.beyond(), LAN_ADDRESS)), Adopted),
        ("TTL 1", PLAIN, of(PLAIN, &inbound(PLAIN).with(|h| h.time_to_live = 1)), Adopted),
        ("a martian", PLAIN, of(PLAIN, &martian), Adopted),
        ("congestion told to who knows of none", PLAIN, from_wan(&congested.bytes()), Adopted),
        ("back into the tunnel", PLAIN, of(PLAIN, &looping), Adopted),
        ("a key too many", PLAIN, sent(PLAIN, key(Some(5))), Adopted),
        ("no key", KEYED, sent(KEYED, key(None)), Adopted),
        ("a wrong key", KEYED, sent(KEYED, key(Some(7))), Adopted),
        ("a wrong checksum", SUMMED, damaged, Adopted),
        ("no checksum", SUMMED, sent(SUMMED, key(SUMMED.key)), Adopted),
        (
            "a keepalive's answer",
            PLAIN,
            from_wan(&received(PLAIN, Options { ..key(None) }.gre(0, &[])).bytes()),
            Adopted,
        ),
        ("a fragment", PLAIN, header(|h| h.more_fragments = true), OuterFragment),
        ("options", PLAIN, header(|h| h.options = [1; 4].into()), Ipv4Options),
    ]
}

#[test]
fn what_xdp_does_not_finish_reaches_the_kernel_as_it_came() {
    let mut cases = Vec::new();
    for (what, tunnel, frame, outcome) in for_the_kernel() {
        let case = |hook| Case::new(what, hook, frame.clone()).given(adopted(tunnel));
        cases.push(case(Hook::Xdp(WAN)).passes(outcome));
        cases.push(case(Hook::TcIn(WAN)).passes(Adopted));
    }
    check(cases);
}

#[test]
fn what_xdp_could_finish_tc_leaves_to_the_kernel() {
    let case = |tunnel| {
        Case::new("a packet", Hook::TcIn(WAN), through(tunnel, &inbound(tunnel).bytes()))
            .given(adopted(tunnel))
            .passes(Adopted)
    };
    check([PLAIN, KEYED, SUMMED].map(case));
}

/// XDP and TC both see such a packet.
#[test]
fn what_a_peer_sends_in_vain_is_remembered_once() {
    let mut bench = bench();
    let mut plane = world();
    adopt(&mut plane, KEYED);
    bench.apply(plane);
    bench.reset();
    let options = Options { checksum: false, key: Some(7), number: None };
    let frame = from_wan(&received(KEYED, options.gre(0x0800, &inbound(KEYED).bytes())).bytes());
    for hook in [Hook::Xdp(WAN), Hook::TcIn(WAN)] {
        bench.run(hook, Context::default(), &frame);
    }
    let found = bench.mismatch(KEYED.id);
    assert_eq!((found.packets, found.key), (1, 7_u32.to_be()));
    assert_eq!(found.outcome, KeyMismatch as u32);
}
