//! Checksums and sequence numbers over IPv6.

use gre_ebpf_common::{outcome::Outcome::*, tunnel::Flags};

use crate::{
    bench::Hook,
    case::{Case, check},
    change,
    frame::{
        CHECKSUM_BIT, KEY_BIT, SEQUENCE_BIT, carried, encapsulated, encapsulated_by_tc, from_lan,
        from_wan, gre, gre_of, received, routed, to_underlay,
    },
    outer::{TIERS, over_ipv6},
    packet::{Packet, inbound, outbound},
    world::{ALL6, FAMILIES, Family, LAN, NUMBERED6, SUMMED6, Spec, WAN},
};

/// Of every length, so that each step of adding up is taken; the oracle adds up all of it anew.
#[test]
fn rfc7676_2_rfc2784_3_p4_checksums_of_any_length_are_sent_right_and_verified() {
    let mut cases = Vec::new();
    for tunnel in [SUMMED6, ALL6] {
        for inside in FAMILIES {
            let header = inside.header_len();
            for len in (header..header + 90).chain((90..1448).step_by(37)).chain([1447, 1448]) {
                let what = format!("{len} bytes, {inside:?} in {tunnel:?}");
                if len <= tunnel.mtu() && len >= header {
                    let packet = outbound(inside, tunnel).long(len);
                    let frame = from_lan(&packet.bytes());
                    cases.push(
                        Case::new(&what, Hook::Xdp(LAN), frame)
                            .encapsulates(tunnel, &packet.forwarded()),
                    );
                    let hook = Hook::TcOut(tunnel.peer());
                    cases.push(
                        Case::new(&what, hook, routed(&packet.bytes()))
                            .encapsulates(tunnel, &packet),
                    );
                    let inner = inbound(inside, tunnel).long(len);
                    for hook in TIERS {
                        let frame = from_wan(&carried(tunnel, &inner.bytes()).bytes());
                        cases.push(Case::new(&what, hook, frame).comes_out(tunnel, &inner));
                    }
                }
            }
        }
    }
    check(cases);
}

/// One bit anywhere, the header's own and the checksum's included.
#[test]
fn rfc7676_2_d2_a_wrong_checksum_is_dropped_and_counted_on_the_tunnel() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for len in [72, 75] {
            let inner = inbound(Family::V6, ALL6).long(len).bytes();
            let outer = carried(ALL6, &inner);
            // Behind flags and key: those have reasons of their own.
            for byte in (4..8).chain(12..outer.payload.len()) {
                let mut spoilt = outer.clone();
                spoilt.payload[byte] ^= 1 << (byte % 8);
                let what = format!("byte {byte} of {len}");
                let case = Case::new(what, hook, from_wan(&spoilt.bytes()));
                cases.push(case.drops(ChecksumWrong, ALL6));
            }
        }
        let inner = inbound(Family::V6, SUMMED6).bytes();
        for checksum in [0, 0xffff] {
            let mut outer = carried(SUMMED6, &inner);
            outer.payload[4..6].copy_from_slice(&[checksum as u8; 2]);
            let case = Case::new(format!("{checksum:#x}"), hook, from_wan(&outer.bytes()));
            cases.push(case.drops(ChecksumWrong, SUMMED6));
        }
    }
    check(cases);
}

/// Zero and all ones are the same number to the sum.
#[test]
fn rfc2784_4_reserved1_is_ignored_and_summed() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for reserved in [1, 0x8000, 0xffff] {
            let inner = inbound(Family::V6, SUMMED6);
            let gre = gre(CHECKSUM_BIT, 0x86dd, &[reserved], &inner.bytes());
            let frame = from_wan(&received(SUMMED6, gre).bytes());
            cases.push(Case::new(format!("{reserved:#x}"), hook, frame).comes_out(SUMMED6, &inner));
        }
    }
    check(cases);
}

/// A checksum must agree; a number may be there that is not asked for, but not be missing.
#[test]
fn r1_r2_r7_flags_that_the_tunnel_does_not_have_meet_their_reasons() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in over_ipv6() {
            for flags in (0..16u16).map(|bits| bits << 12) {
                let has = |bit| flags & bit != 0;
                let (checksum, sequence) = (has(CHECKSUM_BIT), has(SEQUENCE_BIT));
                let mut words = Vec::new();
                words.extend(checksum.then_some(0));
                words.extend(has(KEY_BIT).then_some(tunnel.key.unwrap_or(9)));
                words.extend(sequence.then_some(0));
                let inner = inbound(Family::V6, tunnel);
                let gre = gre(flags, 0x86dd, &words, &inner.bytes());
                let frame = from_wan(&received(tunnel, gre).bytes());
                let case = Case::new(format!("{flags:#x} on {tunnel:?}"), hook, frame);
                cases.push(if flags & 0x4000 != 0 {
                    case.drops(GreRouting, tunnel)
                } else if has(KEY_BIT) && tunnel.key.is_none() {
                    case.drops(KeyUnexpected, tunnel)
                } else if !has(KEY_BIT) && tunnel.key.is_some() {
                    case.drops(KeyMissing, tunnel)
                } else if checksum && !tunnel.checksum {
                    case.drops(ChecksumUnexpected, tunnel)
                } else if !checksum && tunnel.checksum {
                    case.drops(ChecksumMissing, tunnel)
                } else if !sequence && tunnel.sequence {
                    case.drops(SequenceMissing, tunnel)
                } else {
                    case.comes_out(tunnel, &inner)
                });
            }
        }
    }
    check(cases);
}

/// A packet of a tunnel with this number, and what becomes of it where `expected` is the next.
fn numbered(hook: Hook, tunnel: Spec, expected: u32, number: u32) -> (Case, Packet) {
    let inner = inbound(Family::V6, tunnel);
    let gre = gre_of(tunnel, number, 0x86dd, &inner.bytes());
    let frame = from_wan(&received(tunnel, gre).bytes());
    let case = Case::new(format!("{number:#x} for {expected:#x}"), hook, frame);
    (case.numbered(tunnel, 0, expected), inner)
}

#[test]
fn r2_r8_rfc2890_2_rfc2890_4_old_numbers_and_duplicates_are_dropped_and_newer_ones_taken() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in [NUMBERED6, ALL6] {
            for (expected, number) in [
                (5, 5u32),
                (5, 6),
                (5, 1000),
                (5, 0x8000_0004),
                (0, 0),
                (0, 77),
                (0, 0xffff_ffff),
                (0xffff_ffff, 0xffff_ffff),
                (0xffff_ffff, 0),
                (0xffff_fff0, 3),
            ] {
                let (case, inner) = numbered(hook, tunnel, expected, number);
                let next = number.wrapping_add(1);
                let case = case.comes_out(tunnel, &inner);
                cases.push(case.then(tunnel, move |sequence| sequence.expected = next));
            }
            for (expected, number) in
                [(5, 3u32), (5, 0), (5, 0x8000_0005), (5, 0xffff_ffff), (0x8000_0000, 0)]
            {
                let (case, _) = numbered(hook, tunnel, expected, number);
                let case = case.drops(SequenceOld, tunnel);
                cases.push(case.then(tunnel, move |sequence| {
                    (sequence.run, sequence.old) = (1, number);
                }));
            }
            for expected in [5, 1, 0x8000_0000] {
                let (case, _) = numbered(hook, tunnel, expected, expected - 1);
                cases.push(case.drops(SequenceDuplicate, tunnel));
            }
        }
    }
    check(cases);
}

#[test]
fn d6_a_missing_number_is_accepted_with_rfc2890() {
    let mut cases = Vec::new();
    for hook in TIERS {
        let inner = inbound(Family::V6, NUMBERED6);
        let gre = gre(0, 0x86dd, &[], &inner.bytes());
        let case = || Case::new("none", hook, from_wan(&received(NUMBERED6, gre.clone()).bytes()));
        let case = || case().numbered(NUMBERED6, 0, 5);
        cases.push(case().drops(SequenceMissing, NUMBERED6));
        cases.push(
            case()
                .comes_out(NUMBERED6, &inner)
                .then(NUMBERED6, |_| ())
                .given(|plane| change::tunnel_flag(plane, NUMBERED6, Flags::RFC2890, true)),
        );
    }
    check(cases);
}

/// A number is taken note of when the packet is on its way, not before.
#[test]
fn a_packet_that_is_refused_or_passed_on_leaves_the_numbers_alone() {
    let mut cases = Vec::new();
    for hook in TIERS {
        let inner = Packet::new("::1".parse().unwrap(), Family::V6.host()).bytes();
        let frame = from_wan(&received(NUMBERED6, gre_of(NUMBERED6, 9, 0x86dd, &inner)).bytes());
        let case = Case::new("martian", hook, frame).numbered(NUMBERED6, 0, 5);
        cases.push(case.drops(InnerMartian, NUMBERED6));
    }
    let (case, _) = numbered(Hook::Xdp(WAN), NUMBERED6, 5, 6);
    cases.push(case.passes(EgressWithoutXdp).given(|plane| {
        plane.tx_ports.remove(&LAN);
    }));
    check(cases);
}

#[test]
fn t8_rfc2890_2_numbers_are_given_out_one_by_one_and_wrap() {
    let mut cases = Vec::new();
    for tunnel in [NUMBERED6, ALL6] {
        for inside in FAMILIES {
            for sent in [0u64, 1, 0xff, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001] {
                let packet = outbound(inside, tunnel);
                let (forwarded, len) = (packet.forwarded(), packet.bytes().len());
                let what = format!("after {sent:#x}, {inside:?} in {tunnel:?}");
                cases.push(
                    Case::new(&what, Hook::Xdp(LAN), from_lan(&packet.bytes()))
                        .numbered(tunnel, sent, 0)
                        .sends(Encapsulated, WAN, move |found| {
                            let outer = encapsulated(tunnel, &forwarded, sent as u32, found);
                            to_underlay(&outer.bytes())
                        })
                        .sent(tunnel, len),
                );
                let (hook, frame) = (Hook::TcOut(tunnel.peer()), routed(&packet.bytes()));
                cases.push(
                    Case::new(&what, hook, frame)
                        .numbered(tunnel, sent, 0)
                        .sends(Encapsulated, WAN, move |found| {
                            let outer = encapsulated(tunnel, &packet, sent as u32, found);
                            encapsulated_by_tc(&outer.bytes())
                        })
                        .sent(tunnel, len),
                );
            }
        }
    }
    check(cases);
}
