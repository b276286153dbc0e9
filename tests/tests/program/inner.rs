//! What must be true of the packet inside before it may come out, in both tiers.

use gre_ebpf_common::outcome::Outcome::*;

use crate::{
    bench::Hook,
    case::{Case, check},
    frame::{Packet, inbound, patch, spoil, through, to_device, to_host},
    gre_header::{TIERS, accepts},
    world::{HOST, LAN, PLAIN, TUNNELS, WAN},
};

#[test]
fn an_inner_header_that_lies_is_dropped_with_a_reason() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in TUNNELS {
            let inner = inbound(tunnel).bytes();
            let length = |len: u16| patch(&inner, 2, &len.to_be_bytes());
            let len = inner.len() as u16;
            for (what, inner, outcome) in [
                ("version 6", patch(&inner, 0, &[0x65]), InnerMalformed),
                ("version 6 and what looks like it", spoil(&inner, 0, &[0x60]), InnerMalformed),
                ("version 5", patch(&inner, 0, &[0x55]), InnerMalformed),
                ("version 0", patch(&inner, 0, &[0x05]), InnerMalformed),
                ("IHL 4", patch(&inner, 0, &[0x44]), InnerMalformed),
                ("IHL 0", patch(&inner, 0, &[0x40]), InnerMalformed),
                ("a length of 0", length(0), InnerMalformed),
                ("a length of 19", length(19), InnerMalformed),
                ("a length below the options", patch(&length(23), 0, &[0x46]), InnerMalformed),
                ("a byte longer than there is", length(len + 1), InnerTruncated),
                ("as long as can be", length(u16::MAX), InnerTruncated),
                (
                    "IHL 15, beyond the packet",
                    patch(&inner[..40], 0, &[0x4f, 0, 0, 60]),
                    InnerTruncated,
                ),
            ] {
                cases.push(Case::new(what, hook, through(tunnel, &inner)).drops(outcome, tunnel));
            }
        }
    }
    check(cases);
}

#[test]
fn a_wrong_inner_checksum_is_dropped() {
    let mut cases = Vec::new();
    for hook in TIERS {
        let inner = inbound(PLAIN).bytes();
        let checksum = u16::from_be_bytes([inner[10], inner[11]]);
        for bit in 0..16 {
            let wrong = spoil(&inner, 10, &(checksum ^ 1 << bit).to_be_bytes());
            cases.push(
                Case::new(format!("bit {bit}"), hook, through(PLAIN, &wrong))
                    .drops(InnerChecksum, PLAIN),
            );
        }
    }
    check(cases);
}

/// RFC 1812, 5.3.7.
#[test]
fn inner_sources_that_no_router_forwards_are_dropped() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for source in [
            [0, 0, 0, 0],
            [0, 1, 2, 3],
            [127, 0, 0, 1],
            [224, 0, 0, 1],
            [239, 255, 255, 250],
            [240, 0, 0, 1],
            [255; 4],
        ] {
            let inner = Packet::new(source, HOST).bytes();
            cases.push(
                Case::new(format!("{source:?}"), hook, through(PLAIN, &inner))
                    .drops(InnerMartian, PLAIN),
            );
        }
        for source in [[1, 0, 0, 0], [126, 255, 255, 255], [128, 0, 0, 0], [223, 255, 255, 255]] {
            let inner = Packet::new(source, HOST);
            let frame = through(PLAIN, &inner.bytes());
            cases.push(accepts(format!("{source:?}"), hook, PLAIN, frame, &inner));
        }
    }
    check(cases);
}

/// More came through the tunnel than the inner packet says it is long: like Ethernet's padding, it
/// stays behind the packet, for the receiver to trim.
#[test]
fn what_is_behind_the_inner_packet_is_no_part_of_it() {
    let inner = inbound(PLAIN).long(28);
    let tail = [0xee; 18];
    let trailed = |packet: Vec<u8>| [packet, tail.to_vec()].concat();
    let inside = through(PLAIN, &trailed(inner.bytes()));
    let outside = trailed(through(PLAIN, &inner.bytes()));
    for frame in [inside, outside] {
        let (lan, device) = (
            trailed(to_host(&inner.forwarded().bytes())),
            trailed(to_device(PLAIN, &inner.bytes())),
        );
        check([
            Case::new("XDP", Hook::Xdp(WAN), frame.clone())
                .sends(Decapsulated, LAN, move |_| lan.clone())
                .received(PLAIN, 1, 28),
            Case::new("TC", Hook::TcIn(WAN), frame)
                .sends(ToDevice, PLAIN.peer(), move |_| device.clone())
                .received(PLAIN, 1, 28),
        ]);
    }
}

/// A device counts what is behind the packet too: frames that it would not send are for the kernel,
/// which trims them.
#[test]
fn a_long_tail_is_for_the_kernel_to_trim() {
    let inner = inbound(PLAIN).long(100);
    let tail = |len: usize| vec![0xee; len - 100];
    let fits = [inner.bytes(), tail(1500)].concat();
    let exceeds = [inner.bytes(), tail(1501)].concat();
    let lan = [to_host(&inner.forwarded().bytes()), tail(1500)].concat();
    check([
        Case::new("a frame of the LAN's MTU", Hook::Xdp(WAN), through(PLAIN, &fits))
            .sends(Decapsulated, LAN, move |_| lan.clone())
            .received(PLAIN, 1, 100),
        Case::new("one byte more", Hook::Xdp(WAN), through(PLAIN, &exceeds)).passes(TooBig),
    ]);
}
