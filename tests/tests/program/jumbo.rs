//! Frames longer than a page, which XDP gets in several buffers: of 3520 bytes and more, as
//! BPF_PROG_TEST_RUN cuts them.

use gre_ebpf_common::{
    next_hop::Flags,
    outcome::Outcome::{self, *},
    route::Entry,
};
use gre_userspace::dataplane::DataPlane;

use crate::{
    bench::Hook,
    case::{Case, check},
    frame::{
        Options, Packet, encapsulated, from_lan, from_wan, inbound, outbound, received, through,
        to_device, to_underlay,
    },
    gre_header::accepts,
    world::{FREE, KEYED, LAN, PLAIN, Spec, WAN, add, route},
};

const SUMMED: Spec = Spec::new(FREE).with_checksums();
const NUMBERED: Spec = Spec::new(FREE + 1).with_sequence().with_key(7);

/// The longest frame in one buffer, and longer ones, in two and in three.
const LENGTHS: [u16; 6] = [3506, 3507, 4000, 7000, 8000, 8900];

/// Interfaces with an MTU of 9000, which take frames in pieces if `in_pieces`.
fn jumbo(plane: &mut DataPlane, in_pieces: bool) {
    for spec in [SUMMED, NUMBERED] {
        add(plane, spec);
    }
    for hop in plane.next_hops.values_mut() {
        hop.mtu = hop.mtu.max(9000);
        hop.flags = hop.flags.with(Flags::REDIRECT_IN_PIECES, in_pieces);
    }
    for tunnel in plane.tunnels.values_mut() {
        tunnel.mtu = 9000 - tunnel.overhead;
    }
}

fn takes_pieces(plane: &mut DataPlane) {
    jumbo(plane, true);
}

fn takes_none(plane: &mut DataPlane) {
    jumbo(plane, false);
}

/// Of this tunnel, from the LAN.
fn into(tunnel: Spec, len: u16, change: fn(&mut DataPlane)) -> Case {
    let frame = from_lan(&outbound(tunnel).varied(len).bytes());
    Case::new(format!("{len} bytes into {tunnel:?}"), Hook::Xdp(LAN), frame).given(change)
}

/// And from the WAN.
fn out_of(tunnel: Spec, inner: &Packet, change: fn(&mut DataPlane)) -> Case {
    let gre = Options::received(tunnel, 0).gre(0x0800, &inner.bytes());
    let frame = from_wan(&received(tunnel, gre).bytes());
    let len = inner.bytes().len();
    Case::new(format!("{len} bytes out of {tunnel:?}"), Hook::Xdp(WAN), frame).given(change)
}

#[test]
fn frames_in_pieces_go_into_a_tunnel_as_others_do() {
    let tunnels = [PLAIN, KEYED, NUMBERED];
    check(tunnels.into_iter().flat_map(|tunnel| {
        LENGTHS.map(|len| {
            let inner = outbound(tunnel).varied(len).forwarded();
            into(tunnel, len, takes_pieces)
                .sends(Encapsulated, WAN, move |identification| {
                    to_underlay(&encapsulated(tunnel, &inner, identification).bytes())
                })
                .sent(tunnel, 1, len.into())
        })
    }));
}

#[test]
fn frames_in_pieces_come_out_of_a_tunnel_as_others_do() {
    let tunnels = [PLAIN, KEYED, NUMBERED];
    check(tunnels.into_iter().flat_map(|tunnel| {
        LENGTHS.map(|len| {
            let inner = inbound(tunnel).varied(len);
            let gre = Options::received(tunnel, 0).gre(0x0800, &inner.bytes());
            let frame = from_wan(&received(tunnel, gre).bytes());
            accepts(format!("{len} bytes out of {tunnel:?}"), Hook::Xdp(WAN), tunnel, frame, &inner)
                .given(takes_pieces)
        })
    }));
}

#[test]
fn frames_in_pieces_go_from_tunnel_to_tunnel_and_to_the_device() {
    let mut cases = Vec::new();
    for len in LENGTHS {
        let inner = Packet::new(PLAIN.beyond(), KEYED.beyond()).varied(len);
        let onward = inner.forwarded();
        cases.push(
            out_of(PLAIN, &inner, takes_pieces)
                .sends(Transit, WAN, move |identification| {
                    to_underlay(&encapsulated(KEYED, &onward, identification).bytes())
                })
                .received(PLAIN, 1, len.into())
                .sent(KEYED, 1, len.into()),
        );
        let inner = inbound(PLAIN).varied(len);
        let out = to_device(PLAIN, &inner.bytes());
        let frame = through(PLAIN, &inner.bytes());
        cases.push(
            Case::new(format!("{len} bytes to the device"), Hook::Xdp(WAN), frame)
                .given(|plane| {
                    takes_pieces(plane);
                    route(plane, inbound(PLAIN).header.destination, 32, Entry::Punt);
                })
                .sends(ToDevice, PLAIN.peer(), move |_| out.clone())
                .received(PLAIN, 1, len.into()),
        );
    }
    check(cases);
}

/// In one buffer all of it can be read; in several TC sums it.
#[test]
fn what_is_in_pieces_and_has_a_checksum_is_left_to_tc() {
    let mut cases = Vec::new();
    for (len, in_pieces) in [(3506, false), (3507, true), (8000, true)] {
        let inner = outbound(SUMMED).varied(len).forwarded();
        let case = into(SUMMED, len, takes_pieces);
        cases.push(if in_pieces {
            case.passes(InPieces)
        } else {
            case.sends(Encapsulated, WAN, move |identification| {
                to_underlay(&encapsulated(SUMMED, &inner, identification).bytes())
            })
            .sent(SUMMED, 1, len.into())
        });
    }
    // With its outer headers of 28 bytes.
    for (len, in_pieces) in [(3478, false), (3479, true), (8000, true)] {
        let inner = inbound(SUMMED).varied(len);
        let gre = Options::received(SUMMED, 0).gre(0x0800, &inner.bytes());
        let frame = from_wan(&received(SUMMED, gre).bytes());
        let what = format!("{len} bytes out of it");
        cases.push(if in_pieces {
            Case::new(what, Hook::Xdp(WAN), frame).passes(InPieces).given(takes_pieces)
        } else {
            accepts(what, Hook::Xdp(WAN), SUMMED, frame, &inner).given(takes_pieces)
        });
    }
    check(cases);
}

/// A device that sends one buffer only would lose it, and nothing would tell.
#[test]
fn nothing_in_pieces_is_sent_to_a_device_that_takes_none() {
    let mut cases = Vec::new();
    let inner = outbound(PLAIN).varied(3506).forwarded();
    cases.push(
        into(PLAIN, 3506, takes_none)
            .sends(Encapsulated, WAN, move |identification| {
                to_underlay(&encapsulated(PLAIN, &inner, identification).bytes())
            })
            .sent(PLAIN, 1, 3506),
    );
    cases.push(into(PLAIN, 3507, takes_none).passes(InPieces));
    cases.push(out_of(PLAIN, &inbound(PLAIN).varied(8000), takes_none).passes(InPieces));
    let transit = Packet::new(PLAIN.beyond(), KEYED.beyond()).varied(8000);
    cases.push(out_of(PLAIN, &transit, takes_none).passes(InPieces));
    check(cases);
}

#[test]
fn what_is_too_long_or_cut_short_is_so_in_pieces_too() {
    let passes = |what: &str, frame: Vec<u8>, outcome: Outcome| {
        Case::new(what, Hook::Xdp(LAN), frame).given(takes_pieces).passes(outcome)
    };
    let mtu = 9000 - PLAIN.overhead();
    let frame = |len| from_lan(&outbound(PLAIN).varied(len).bytes());
    let short = frame(8000)[..8013].to_vec();
    check([
        into(PLAIN, mtu + 1, takes_pieces).passes(TooBig),
        passes("a byte is missing", short, Ipv4Malformed),
        passes(
            "no tunnel",
            from_lan(
                &Packet::new(outbound(PLAIN).header.source, [9, 9, 9, 9]).varied(8000).bytes(),
            ),
            NoTunnelRoute,
        ),
    ]);
}
