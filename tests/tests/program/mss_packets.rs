//! Which packets' maximum segment size is lowered, and what else changes in them.

use gre_ebpf_common::outcome::Outcome::*;

use crate::{
    bench::Hook,
    case::{Case, check},
    frame::{
        Packet, encapsulated, frame, inbound, outbound, set_tos, through, to_device, to_underlay,
    },
    mss::{LIMIT, SYN, limited, lowers, tcp},
    world::{FREE, KEYED, PLAIN, Spec, WAN},
};

#[test]
fn only_syns_of_tcp_are_touched() {
    let mss = [2, 4, 0x05, 0xb4];
    let mut cases = Vec::new();
    for flags in [0u8, 0x10, 0x11, 0x04, 0x14, 0x18, 0x01] {
        cases.extend(lowers("no SYN", LIMIT, PLAIN, |packet| {
            let packet = tcp(packet, flags, 1, &mss);
            (packet.clone(), packet)
        }));
    }
    for protocol in [17u8, 1, 47, 132] {
        cases.extend(lowers("not TCP", LIMIT, PLAIN, |packet| {
            let packet = tcp(packet, SYN, 1, &mss).with(|header| header.protocol = protocol.into());
            (packet.clone(), packet)
        }));
    }
    check(cases);
}

/// What is in the middle of a stream only looks like a header.
#[test]
fn of_fragments_only_the_first_has_a_header() {
    let mss = [2, 4, 0x05, 0xb4];
    let lower = [2, 4, 0x05, 0x78];
    let mut cases = lowers("first", LIMIT, PLAIN, |packet| {
        let with = |options: &[u8]| {
            tcp(packet.clone(), SYN, 1, options).with(|header| header.more_fragments = true)
        };
        (with(&mss), with(&lower))
    });
    for (offset, more_fragments) in [(1u16, true), (1, false), (0x1fff, false), (0x100, true)] {
        cases.extend(lowers("later", LIMIT, PLAIN, |packet| {
            let packet = tcp(packet, SYN, 1, &mss).with(|header| {
                header.fragment_offset = offset.try_into().unwrap();
                header.more_fragments = more_fragments;
            });
            (packet.clone(), packet)
        }));
    }
    check(cases);
}

/// Each value, and each carry that it makes in a checksum, at even and odd offsets.
#[test]
fn the_checksum_is_right_whatever_the_sum() {
    let mut cases = Vec::new();
    for n in 0..700u32 {
        // Over all of the low half word, and so over all checksums' neighbourhoods.
        let sequence = n * 97;
        let value = (LIMIT + 1).wrapping_add((n * 91) as u16).max(LIMIT + 1);
        let [high, low] = value.to_be_bytes();
        for (before, after) in [
            ([2, 4, high, low, 1, 1, 1, 1], [2, 4, 0x05, 0x78, 1, 1, 1, 1]),
            ([1, 2, 4, high, low, 1, 1, 1], [1, 2, 4, 0x05, 0x78, 1, 1, 1]),
        ] {
            cases.extend(lowers("a sum", LIMIT, PLAIN, |packet| {
                let with = |options: &[u8]| tcp(packet.clone(), SYN, sequence, options);
                (with(&before), with(&after))
            }));
        }
    }
    check(cases);
}

/// It is brought up to date, not made right.
#[test]
fn a_wrong_checksum_stays_wrong() {
    check(lowers("wrong", LIMIT, PLAIN, |packet| {
        let with = |options: &[u8]| {
            let mut packet = tcp(packet.clone(), SYN, 1, options);
            let checksum = u16::from_be_bytes([packet.payload[16], packet.payload[17]]);
            packet.payload[16..18].copy_from_slice(&(checksum - 1).to_be_bytes());
            packet
        };
        (with(&[2, 4, 0x05, 0xb4]), with(&[2, 4, 0x05, 0x78]))
    }));
}

#[test]
fn without_a_limit_nothing_is_lowered() {
    check(lowers("no limit", 0, PLAIN, |packet| {
        let packet = tcp(packet, SYN, 1, &[2, 4, 0xff, 0xff]);
        (packet.clone(), packet)
    }));
}

/// The mark of congestion changes the same header.
#[test]
fn the_ds_field_is_written_beside_it() {
    check(lowers("TOS", LIMIT, PLAIN, |packet| {
        let with = |options: &[u8]| {
            tcp(packet.clone(), SYN, 1, options).with(|header| set_tos(header, 0xb9))
        };
        (with(&[2, 4, 0x05, 0xb4]), with(&[2, 4, 0x05, 0x78]))
    }));
}

/// Options of IPv4 are for the kernel to look at, on the way out of TC and into the device.
#[test]
fn tcp_is_found_behind_options_of_ipv4() {
    let with = |packet: Packet, options: &[u8]| {
        tcp(packet, SYN, 1, options).with(|header| header.options = [1; 8].into())
    };
    let (high, low) = ([2, 4, 0x05, 0xb4], [2, 4, 0x05, 0x78]);
    let (before, after) = (with(outbound(PLAIN), &high), with(outbound(PLAIN), &low));
    let len = before.bytes().len();
    let mut cases = vec![
        Case::new("TC out", Hook::TcOut(PLAIN.device()), frame([2; 6], [4; 6], &before.bytes()))
            .sends(Encapsulated, WAN, move |id| {
                frame([0; 6], [4; 6], &encapsulated(PLAIN, &after, id).bytes())
            })
            .sent(PLAIN, 1, len)
            .given(limited(PLAIN, LIMIT)),
    ];
    for hook in [Hook::Xdp(WAN), Hook::TcIn(WAN)] {
        let before = with(inbound(PLAIN), &high).bytes();
        let device = to_device(PLAIN, &with(inbound(PLAIN), &low).bytes());
        cases.push(
            Case::new("to the device", hook, through(PLAIN, &before))
                .sends(ToDevice, PLAIN.peer(), move |_| device.clone())
                .received(PLAIN, 1, len)
                .given(limited(PLAIN, LIMIT)),
        );
    }
    check(cases);
}

/// From tunnel to tunnel the lower limit counts, whichever tunnel's it is.
#[test]
fn a_hub_obeys_both_tunnels() {
    let mut cases = Vec::new();
    let to = Spec::new(FREE).with_key(3).with_checksums();
    for (first, second, result) in [
        (1400u16, 1300u16, 1300u16),
        (1300, 1400, 1300),
        (1350, 1350, 1350),
        (0, 1400, 1400),
        (1400, 0, 1400),
        (0, 0, 1460),
        (1460, 1500, 1460),
        (9000, 8000, 1460),
    ] {
        for to in [KEYED, to] {
            let make = |mss: u16| {
                let [high, low] = mss.to_be_bytes();
                tcp(Packet::new(PLAIN.beyond(), to.beyond()), SYN, 5, &[2, 4, high, low])
            };
            let (before, after) = (make(1460), make(result).forwarded());
            let what = format!("{first} and {second}");
            cases.push(
                Case::new(what, Hook::Xdp(WAN), through(PLAIN, &before.bytes()))
                    .sends(Transit, WAN, move |id| {
                        to_underlay(&encapsulated(to, &after, id).bytes())
                    })
                    .received(PLAIN, 1, 46)
                    .sent(to, 1, 46)
                    .given(move |plane| {
                        limited(PLAIN, first)(plane);
                        limited(to, second)(plane);
                    }),
            );
        }
    }
    check(cases);
}

/// A packet that ends within the TCP header says nothing of its options.
#[test]
fn a_header_cut_short_is_left_alone() {
    let mut cases = Vec::new();
    for len in [20u16, 33, 34, 36, 40, 42] {
        cases.extend(lowers("cut", LIMIT, PLAIN, |packet| {
            let packet = tcp(packet, SYN, 1, &[1, 2, 4, 0x05, 0xb4, 1, 1, 1]).long(len);
            (packet.clone(), packet)
        }));
    }
    check(cases);
}
