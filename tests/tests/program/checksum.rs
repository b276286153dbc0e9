//! The GRE checksum (RFC 2784, 2.5), in both tiers, over packets of all lengths.

use gre_ebpf_common::{outcome::Outcome::*, tunnel::Flags};

use crate::{
    bench::{Context, Hook},
    case::{Case, check},
    frame::{
        Options, Packet, encapsulated, frame, from_lan, from_wan, gre, inbound, internet_checksum,
        outbound, received, spoil, to_device, to_host, to_underlay,
    },
    gre_header::{TIERS, accepts},
    world::{FREE, LAN, Spec, TO_GATEWAY, WAN, add, change},
};

const SUMMED: Spec = Spec::new(FREE).with_checksums();
const ALL: Spec = Spec::new(FREE).with_checksums().with_sequence().with_key(0xa1b2_c3d4);

fn arriving(tunnel: Spec, inner: &[u8]) -> Vec<u8> {
    let options = Options::received(tunnel, 0);
    from_wan(&received(tunnel, options.gre(0x0800, inner)).bytes())
}

fn wrong(what: String, hook: Hook, tunnel: Spec, frame: Vec<u8>) -> Case {
    Case::new(what, hook, frame).drops(ChecksumWrong, tunnel).given(move |plane| add(plane, tunnel))
}

fn right(what: String, hook: Hook, tunnel: Spec, frame: Vec<u8>, inner: &Packet) -> Case {
    accepts(what, hook, tunnel, frame, inner).given(move |plane| add(plane, tunnel))
}

#[test]
fn p4_rfc2784_3_right_checksums_of_all_lengths_are_right() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in [SUMMED, ALL] {
            for len in 20..=1480 {
                let inner = inbound(tunnel).varied(len);
                let frame = arriving(tunnel, &inner.bytes());
                cases.push(right(format!("{len} bytes"), hook, tunnel, frame, &inner));
            }
        }
    }
    check(cases);
}

/// The last byte stands for the whole packet, whose length decides how it is summed.
#[test]
fn d2_p4_rfc2784_3_wrong_checksums_of_all_lengths_are_dropped() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for len in 21..=1480 {
            let frame = arriving(SUMMED, &inbound(SUMMED).varied(len).bytes());
            let last = frame.len() - 1;
            let frame = spoil(&frame, last, &[frame[last] ^ 1]);
            cases.push(wrong(format!("{len} bytes"), hook, SUMMED, frame));
        }
    }
    check(cases);
}

/// All that no other check stumbles over: the checksum itself, Reserved1, number and payload.
#[test]
fn d2_p4_each_wrong_bit_is_a_wrong_checksum() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for len in [45u16, 548] {
            let frame = arriving(ALL, &inbound(ALL).varied(len).bytes());
            let start = 14 + 20;
            for byte in (start + 4..start + 8).chain(start + 12..frame.len()) {
                let bit = byte % 8;
                let wrong_frame = spoil(&frame, byte, &[frame[byte] ^ 1 << bit]);
                cases.push(wrong(format!("byte {byte} of {len}"), hook, ALL, wrong_frame));
            }
        }
        // Bytes that change places: every second sum would be the same.
        let inner = inbound(SUMMED).varied(61).bytes();
        let frame = arriving(SUMMED, &inner);
        let swapped =
            spoil(&frame, frame.len() - 9, &[frame[frame.len() - 8], frame[frame.len() - 9]]);
        assert_ne!(frame, swapped);
        cases.push(wrong("swapped bytes".into(), hook, SUMMED, swapped));
    }
    check(cases);
}

#[test]
fn rfc2784_4_reserved1_is_ignored_but_summed() {
    let mut cases = Vec::new();
    for hook in TIERS {
        let inner = inbound(SUMMED);
        for reserved in [1u32, 0x8000, 0xffff] {
            let mut bytes = gre(0x8000, 0x0800, &[reserved], &inner.bytes());
            let checksum = internet_checksum(&bytes);
            bytes[4..6].copy_from_slice(&checksum.to_be_bytes());
            let frame = from_wan(&received(SUMMED, bytes).bytes());
            cases.push(right(format!("{reserved:#x}"), hook, SUMMED, frame, &inner));
        }
    }
    check(cases);
}

/// In one's complement 0xffff is zero as well.
#[test]
fn p4_both_zeros_are_a_right_checksum() {
    let mut cases = Vec::new();
    for hook in TIERS {
        let mut inner = inbound(SUMMED);
        inner.payload[..2].fill(0);
        // So that the sum of all but the checksum is 0xffff, and the checksum zero.
        let checksum = |inner: &Packet| {
            let bytes = Options::received(SUMMED, 0).gre(0x0800, &inner.bytes());
            u16::from_be_bytes([bytes[4], bytes[5]])
        };
        let missing = checksum(&inner);
        inner.payload[..2].copy_from_slice(&missing.to_be_bytes());
        assert_eq!(checksum(&inner), 0);
        for value in [0u32, 0xffff_0000] {
            let bytes = gre(0x8000, 0x0800, &[value], &inner.bytes());
            let frame = from_wan(&received(SUMMED, bytes).bytes());
            cases.push(right(format!("{value:#x}"), hook, SUMMED, frame, &inner));
        }
    }
    check(cases);
}

/// What Ethernet adds to a short frame is not summed; what is behind the inner packet inside the
/// tunnel is.
#[test]
fn rfc2784_3_the_checksum_covers_the_packet_and_nothing_else() {
    let mut cases = Vec::new();
    for hook in TIERS {
        let inner = inbound(SUMMED).varied(21);
        let tail = [0xee, 0xdd, 0xcc];
        let inside = [inner.bytes(), tail.to_vec()].concat();
        let out = match hook {
            Hook::TcIn(_) => to_device(SUMMED, &inside),
            _ => to_host(&[inner.forwarded().bytes(), tail.to_vec()].concat()),
        };
        let (outcome, egress) = match hook {
            Hook::TcIn(_) => (ToDevice, SUMMED.peer()),
            _ => (Decapsulated, LAN),
        };
        for frame in
            [arriving(SUMMED, &inside), [arriving(SUMMED, &inner.bytes()), tail.to_vec()].concat()]
        {
            let out = out.clone();
            cases.push(
                Case::new(format!("{} bytes", frame.len()), hook, frame)
                    .sends(outcome, egress, move |_| out.clone())
                    .received(SUMMED, 1, 21)
                    .given(|plane| add(plane, SUMMED)),
            );
        }
        let frame = arriving(SUMMED, &inside);
        let last = frame.len() - 1;
        cases.push(wrong("tail".into(), hook, SUMMED, spoil(&frame, last, &[0xcd])));
    }
    check(cases);
}

/// The kernel has checked those that it merged, and left a checksum that is none of the whole.
#[test]
fn p4_a_merged_packet_is_not_summed_again() {
    let inner = inbound(SUMMED).varied(3000).bytes();
    let frame = arriving(SUMMED, &inner);
    let spoilt = spoil(&frame, 14 + 24, &[1, 2]);
    let out = to_device(SUMMED, &inner);
    check([
        Case::new("three segments", Hook::TcIn(WAN), spoilt.clone())
            .sends(ToDevice, SUMMED.peer(), move |_| out.clone())
            .received(SUMMED, 3, 3000)
            .context(Context { segments: 3, ..Context::default() })
            .given(|plane| add(plane, SUMMED)),
        wrong("one segment".into(), Hook::TcIn(WAN), SUMMED, spoilt)
            .context(Context { segments: 1, ..Context::default() }),
    ]);
}

#[test]
fn p4_rfc2784_3_rfc2784_4_checksums_sent_are_right_for_all_lengths() {
    let mut cases = Vec::new();
    for tunnel in [SUMMED, ALL] {
        for len in 20..=tunnel.mtu() {
            let packet = outbound(tunnel).varied(len);
            let (forwarded, what) = (packet.forwarded(), format!("{len} bytes"));
            let lan = from_lan(&packet.bytes());
            let peer = frame([2; 6], [4; 6], &packet.bytes());
            cases.push(
                Case::new(what.clone(), Hook::Xdp(LAN), lan)
                    .sends(Encapsulated, WAN, move |id| {
                        to_underlay(&encapsulated(tunnel, &forwarded, id).bytes())
                    })
                    .sent(tunnel, 1, len.into())
                    .given(move |plane| add(plane, tunnel)),
            );
            cases.push(
                Case::new(what, Hook::TcOut(tunnel.peer()), peer)
                    .sends(Encapsulated, WAN, move |id| {
                        frame([0; 6], [4; 6], &encapsulated(tunnel, &packet, id).bytes())
                    })
                    .sent(tunnel, 1, len.into())
                    .given(move |plane| add(plane, tunnel)),
            );
        }
    }
    check(cases);
}

/// Ethernet's padding is left out of the sum and left in the frame.
#[test]
fn rfc2784_3_padding_is_not_summed_on_sending() {
    let packet = outbound(SUMMED).varied(29);
    let padding = [0xee; 17];
    let lan = [from_lan(&packet.bytes()), padding.to_vec()].concat();
    check([Case::new("padding", Hook::Xdp(LAN), lan)
        .sends(Encapsulated, WAN, move |id| {
            let outer = encapsulated(SUMMED, &packet.forwarded(), id).bytes();
            [to_underlay(&outer), padding.to_vec()].concat()
        })
        .sent(SUMMED, 1, 29)
        .given(|plane| add(plane, SUMMED))]);
}

/// As long as BPF_PROG_TEST_RUN takes them.
#[test]
fn p4_jumbo_frames_are_summed_as_well() {
    let jumbo = |plane: &mut _| {
        add(plane, SUMMED);
        change::next_hop(plane, TO_GATEWAY).mtu = 9216;
        let record = change::tunnel(plane, SUMMED);
        record.mtu = 9216 - SUMMED.overhead();
        record.flags = record.flags.with(Flags::UP, true);
    };
    let mut cases = Vec::new();
    for len in [2000u16, 3071, 3072, 3073] {
        let packet = outbound(SUMMED).varied(len);
        let forwarded = packet.forwarded();
        cases.push(
            Case::new(format!("{len} bytes"), Hook::Xdp(LAN), from_lan(&packet.bytes()))
                .sends(Encapsulated, WAN, move |id| {
                    to_underlay(&encapsulated(SUMMED, &forwarded, id).bytes())
                })
                .sent(SUMMED, 1, len.into())
                .given(jumbo),
        );
        let arrived = frame([2; 6], [4; 6], &packet.bytes());
        cases.push(
            Case::new(format!("{len} bytes"), Hook::TcOut(SUMMED.peer()), arrived)
                .sends(Encapsulated, WAN, move |id| {
                    frame([0; 6], [4; 6], &encapsulated(SUMMED, &packet, id).bytes())
                })
                .sent(SUMMED, 1, len.into())
                .given(jumbo),
        );
        let inner = inbound(SUMMED).varied(len);
        let frame = arriving(SUMMED, &inner.bytes());
        cases.push(right(format!("{len} bytes"), Hook::TcIn(WAN), SUMMED, frame, &inner));
    }
    check(cases);
}
