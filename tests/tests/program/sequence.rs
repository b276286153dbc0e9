//! Sequence numbers (RFC 2890, 2.2), received and sent, across both tiers.

use gre_ebpf_common::{outcome::Outcome, outcome::Outcome::*, sequence::Sequence};

use crate::{
    bench::{Bench, Context, Hook, bench},
    case::{Case, check},
    frame::{Options, Packet, from_wan, inbound, received},
    gre_header::{TIERS, accepts},
    world::{FREE, HOST, KEYED, LAN_ADDRESS, Spec, WAN, add, world},
};

pub const LINUX: Spec = Spec::new(FREE).with_sequence();
const RFC2890: Spec = Spec { rfc2890: true, ..LINUX };
pub const ALL: Spec = Spec::new(FREE).with_sequence().with_checksums().with_key(5);

/// With this number, or without any.
fn arriving(tunnel: Spec, inner: &Packet, number: Option<u32>) -> Vec<u8> {
    let options = Options { number, ..Options::received(tunnel, 0) };
    from_wan(&received(tunnel, options.gre(0x0800, &inner.bytes())).bytes())
}

/// The last of these numbers, after the others have come, meets this; none is that it is accepted.
fn case(hook: Hook, tunnel: Spec, numbers: &[Option<u32>], refusal: Option<Outcome>) -> Case {
    let inner = inbound(tunnel);
    let (last, before) = numbers.split_last().expect("there is one");
    let what = format!("{:x?} after {:x?}", last, before.last_chunk::<4>().map_or(before, |b| b));
    let frame = arriving(tunnel, &inner, *last);
    let case = match refusal {
        None => accepts(what, hook, tunnel, frame, &inner),
        Some(outcome) => Case::new(what, hook, frame).drops(outcome, tunnel),
    };
    case.after(before.iter().map(|&number| (hook, arriving(tunnel, &inner, number))))
        .given(move |plane| add(plane, tunnel))
}

fn table(tunnels: &[Spec], rows: &[(&[u32], Option<Outcome>)]) {
    let mut cases = Vec::new();
    for hook in TIERS {
        for &tunnel in tunnels {
            for (numbers, refusal) in rows {
                let numbers: Vec<_> = numbers.iter().map(|&number| Some(number)).collect();
                cases.push(case(hook, tunnel, &numbers, *refusal));
            }
        }
    }
    check(cases);
}

#[test]
fn r2_rfc2890_2_rfc2890_4_old_numbers_are_dropped_and_newer_ones_taken() {
    table(
        &[LINUX, RFC2890, ALL],
        &[
            (&[0], None),
            (&[1000, 1001], None),
            (&[1000, 1002], None),
            (&[1000, 1000], Some(SequenceDuplicate)),
            (&[1000, 1001, 1001], Some(SequenceDuplicate)),
            (&[1000, 999], Some(SequenceOld)),
            (&[1000, 0], Some(SequenceOld)),
            // Two to the 31 and one less from the expected one on.
            (&[1000, 1001 + 0x7fff_ffff], None),
            (&[1000, 1001 + 0x8000_0000], Some(SequenceOld)),
            (&[1000, 1001 + 0x8000_0001], Some(SequenceOld)),
            // What was refused does not change what is expected.
            (&[1000, 999, 1000], Some(SequenceDuplicate)),
            (&[1000, 999, 1001], None),
            (&[1000, 1000, 1001], None),
            (&[1000, 1005, 1003], Some(SequenceOld)),
        ],
    );
}

#[test]
fn r8_the_first_number_is_taken_and_so_is_the_one_after_a_wrap() {
    table(
        &[LINUX, ALL],
        &[
            (&[1], None),
            (&[0x7fff_ffff], None),
            (&[0x8000_0000], None),
            (&[u32::MAX], None),
            (&[u32::MAX, 0], None),
            (&[u32::MAX, 7], None),
            (&[u32::MAX, u32::MAX], None),
            (&[u32::MAX, u32::MAX - 5], None),
            (&[u32::MAX - 1, 0], None),
            (&[u32::MAX, 0, u32::MAX], Some(SequenceOld)),
        ],
    );
}

/// Numbering begins with zero, and a wrap is nothing special.
#[test]
fn rfc2890_2_in_its_mode_numbers_are_checked_from_the_first_on() {
    table(
        &[RFC2890],
        &[
            (&[0x7fff_ffff], None),
            (&[0x8000_0000], Some(SequenceOld)),
            (&[u32::MAX], Some(SequenceDuplicate)),
            (&[0x7fff_ffff, 0xffff_fffe, u32::MAX, 0], None),
            (&[0x7fff_ffff, 0xffff_fffe, u32::MAX, u32::MAX], Some(SequenceDuplicate)),
            (&[0x7fff_ffff, 0xffff_fffe, u32::MAX, u32::MAX - 5], Some(SequenceOld)),
        ],
    );
}

#[test]
fn d6_r2_a_packet_without_a_number_is_dropped_but_in_rfc_2890s_mode() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in [LINUX, ALL] {
            cases.push(case(hook, tunnel, &[None], Some(SequenceMissing)));
            cases.push(case(hook, tunnel, &[Some(7), None], Some(SequenceMissing)));
            // It does not count as one either.
            cases.push(case(hook, tunnel, &[Some(7), None, Some(8)], None));
            cases.push(case(hook, tunnel, &[Some(7), None, Some(7)], Some(SequenceDuplicate)));
        }
        cases.push(case(hook, RFC2890, &[None], None));
        cases.push(case(hook, RFC2890, &[Some(7), None], None));
        cases.push(case(hook, RFC2890, &[Some(7), None, Some(8)], None));
        cases.push(case(hook, RFC2890, &[Some(7), None, Some(7)], Some(SequenceDuplicate)));
    }
    check(cases);
}

/// Numbers that nobody asked for may come in any order.
#[test]
fn r7_a_tunnel_without_numbers_does_not_look_at_them() {
    let tunnel = Spec::new(FREE);
    table(&[tunnel], &[(&[9, 9], None), (&[9, 8], None), (&[9, 0x8000_000a], None)]);
}

#[test]
fn d7_rfc2890_3_a_peer_that_starts_anew_is_followed_after_32() {
    let started = |from: u32, count: u32| [50_000].into_iter().chain(from..from + count);
    let run = |numbers: Vec<u32>| numbers.into_iter().map(Some).collect::<Vec<_>>();
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in [LINUX, RFC2890, ALL] {
            let mut row = |numbers: Vec<u32>, refusal| {
                cases.push(case(hook, tunnel, &run(numbers), refusal));
            };
            row(started(0, 31).collect(), Some(SequenceOld));
            row(started(0, 32).collect(), None);
            row(started(0, 33).collect(), None);
            row(started(0, 32).chain([31]).collect(), Some(SequenceDuplicate));
            row(started(0, 32).chain([50_001]).collect(), None);
            // A new one in between, or a step back, and the count begins again.
            row(started(0, 20).chain([50_001]).chain(20..32).collect(), Some(SequenceOld));
            row(started(0, 20).chain([5]).chain(20..32).collect(), Some(SequenceOld));
            row(started(0, 20).chain([5]).chain(20..51).collect(), None);
        }
    }
    check(cases);
}

#[test]
fn d7_a_restart_is_counted() {
    let mut bench = ready(LINUX);
    for number in [9000].into_iter().chain(0..32) {
        let frame = arriving(LINUX, &inbound(LINUX), Some(number));
        bench.run(Hook::Xdp(WAN), Context::default(), &frame);
    }
    let Sequence { expected, resynchronised, run, .. } = bench.sequence(FREE);
    assert_eq!((expected, resynchronised, run), (32, 1, 0));
}

/// The world with this tunnel, which has not sent or received anything.
pub fn ready(tunnel: Spec) -> std::sync::MutexGuard<'static, Bench> {
    let mut bench = bench();
    let mut plane = world();
    add(&mut plane, tunnel);
    bench.apply(plane);
    bench.reset();
    bench
}

/// Else TC, to which XDP leaves it, would take it for a duplicate.
#[test]
fn rfc2890_4_a_packet_that_xdp_passes_on_is_not_taken_note_of() {
    for tunnel in [LINUX, RFC2890, ALL] {
        // For this host, and longer than the device's MTU.
        let inner = Packet::new(tunnel.beyond(), LAN_ADDRESS).varied(tunnel.mtu() + 1);
        let frame = arriving(tunnel, &inner, Some(40));
        let xdp = Case::new("XDP", Hook::Xdp(WAN), frame.clone())
            .passes(TooBig)
            .given(move |plane| add(plane, tunnel));
        let both = [Hook::Xdp(WAN), Hook::XdpAny(WAN)];
        let tc = both.map(|before| {
            accepts("TC", Hook::TcIn(WAN), tunnel, frame.clone(), &inner)
                .after([(before, frame.clone())])
                .given(move |plane| add(plane, tunnel))
        });
        let twice = Case::new("TC again", Hook::TcIn(WAN), frame.clone())
            .drops(SequenceDuplicate, tunnel)
            .after([(Hook::Xdp(WAN), frame.clone()), (Hook::TcIn(WAN), frame.clone())])
            .given(move |plane| add(plane, tunnel));
        check([xdp, twice].into_iter().chain(tc));
    }
}

/// An answer to a keepalive has a number like any other packet.
#[test]
fn d5_p1_a_keepalive_counts_in_its_order() {
    let empty = Options { number: Some(8), ..Options::default() }.gre(0, &[]);
    let keepalive = from_wan(&received(LINUX, empty).bytes());
    let mut cases = Vec::new();
    for hook in TIERS {
        cases.push(
            Case::new("a keepalive", hook, keepalive.clone())
                .consumes(Keepalive)
                .given(|plane| add(plane, LINUX)),
        );
        for (number, refusal) in [(8, Some(SequenceDuplicate)), (7, Some(SequenceOld)), (9, None)] {
            cases.push(
                case(hook, LINUX, &[Some(number)], refusal).after([(hook, keepalive.clone())]),
            );
        }
    }
    check(cases);
}

/// By whatever way a packet leaves, its number is taken note of.
#[test]
fn r2_rfc2890_4_duplicates_are_told_whichever_way_the_first_one_went() {
    let mut cases = Vec::new();
    for tunnel in [LINUX, RFC2890, ALL] {
        let to = |destination| Packet::new(tunnel.beyond(), destination).bytes();
        for (what, protocol, inner) in [
            ("to a next hop", 0x0800, to(HOST)),
            ("to the device", 0x0800, to(LAN_ADDRESS)),
            ("to another tunnel", 0x0800, to(KEYED.beyond())),
            ("neither IPv4 nor IPv6", 0x8847, to(HOST)),
        ] {
            let frame = |number| {
                let gre = Options::received(tunnel, number).gre(protocol, &inner);
                from_wan(&received(tunnel, gre).bytes())
            };
            for hook in TIERS {
                // The other tier goes by the same numbers.
                for first in [Hook::Xdp(WAN), Hook::TcIn(WAN)] {
                    for (number, outcome) in [(70, SequenceDuplicate), (69, SequenceOld)] {
                        cases.push(
                            Case::new(format!("{what}, first {first:?}"), hook, frame(number))
                                .drops(outcome, tunnel)
                                .after([(first, frame(70))])
                                .given(move |plane| add(plane, tunnel)),
                        );
                    }
                }
            }
        }
    }
    check(cases);
}
