//! TCP's maximum segment size, lowered in SYNs on their way into a tunnel and out of it.

use etherparse::{IpNumber, TcpHeader};
use gre_ebpf_common::outcome::Outcome::*;
use gre_userspace::dataplane::DataPlane;

use crate::{
    bench::Hook,
    case::{Case, check},
    frame::{
        Packet, encapsulated, frame, from_lan, inbound, outbound, through, to_device, to_host,
        to_underlay,
    },
    world::{FREE, KEYED, LAN, LAN_ADDRESS, PLAIN, Spec, WAN, add, change},
};

pub const LIMIT: u16 = 1400;
pub const SYN: u8 = 2;
const SYN_ACK: u8 = 0x12;

/// A TCP packet of this header's addresses with these options and two bytes of data.
pub fn tcp(packet: Packet, flags: u8, sequence: u32, options: &[u8]) -> Packet {
    let mut packet = packet.with(|header| header.protocol = IpNumber::TCP);
    let mut header = TcpHeader::new(1025, 80, sequence, 0xfaf0);
    header.set_options_raw(options).unwrap();
    header.fin = flags & 1 != 0;
    header.syn = flags & 2 != 0;
    header.rst = flags & 4 != 0;
    header.psh = flags & 8 != 0;
    header.ack = flags & 0x10 != 0;
    let (source, destination) = (packet.header.source, packet.header.destination);
    header.checksum = header.calc_checksum_ipv4_raw(source, destination, &[7, 9]).unwrap();
    packet.payload = [&header.to_bytes()[..], &[7, 9]].concat();
    packet
}

/// Lowers what goes through this tunnel, of IPv4; IPv6 has a limit of its own.
pub fn limited(tunnel: Spec, limit: u16) -> impl Fn(&mut DataPlane) {
    move |plane| {
        if tunnel.id >= FREE {
            add(plane, tunnel);
        }
        change::tunnel(plane, tunnel).mss = [limit, 500];
    }
}

/// In each direction and tier: what comes is `before`, and what leaves is `after`, made with the
/// packet's addresses.
pub fn lowers(
    what: &str,
    limit: u16,
    tunnel: Spec,
    make: impl Fn(Packet) -> (Packet, Packet),
) -> Vec<Case> {
    let given = |case: Case| case.given(limited(tunnel, limit));
    let case = |hook, frame| Case::new(what, hook, frame);
    let mut cases = Vec::new();

    let (before, after) = make(outbound(tunnel));
    let len = before.bytes().len();
    let forwarded = after.forwarded();
    cases.push(
        given(case(Hook::Xdp(LAN), from_lan(&before.bytes())))
            .sends(Encapsulated, WAN, move |id| {
                to_underlay(&encapsulated(tunnel, &forwarded, id).bytes())
            })
            .sent(tunnel, 1, len),
    );
    cases.push(
        given(case(Hook::TcOut(tunnel.peer()), frame([2; 6], [4; 6], &before.bytes())))
            .sends(Encapsulated, WAN, move |id| {
                frame([0; 6], [4; 6], &encapsulated(tunnel, &after, id).bytes())
            })
            .sent(tunnel, 1, len),
    );

    let (before, after) = make(inbound(tunnel));
    let (lan, device) = (to_host(&after.forwarded().bytes()), to_device(tunnel, &after.bytes()));
    cases.push(
        given(case(Hook::Xdp(WAN), through(tunnel, &before.bytes())))
            .sends(Decapsulated, LAN, move |_| lan.clone())
            .received(tunnel, 1, len),
    );
    cases.push(
        given(case(Hook::TcIn(WAN), through(tunnel, &before.bytes())))
            .sends(ToDevice, tunnel.peer(), move |_| device.clone())
            .received(tunnel, 1, len),
    );

    let (before, after) = make(Packet::new(tunnel.beyond(), LAN_ADDRESS));
    let device = to_device(tunnel, &after.bytes());
    cases.push(
        given(case(Hook::Xdp(WAN), through(tunnel, &before.bytes())))
            .sends(ToDevice, tunnel.peer(), move |_| device.clone())
            .received(tunnel, 1, len),
    );
    cases
}

/// What the options of a SYN become.
fn becomes(what: &str, options: &[u8], after: &[u8]) -> Vec<Case> {
    let mut cases = Vec::new();
    for tunnel in [PLAIN, KEYED, Spec::new(FREE).with_checksums().with_sequence()] {
        for flags in [SYN, SYN_ACK] {
            cases.extend(lowers(what, LIMIT, tunnel, |packet| {
                (tcp(packet.clone(), flags, 1, options), tcp(packet, flags, 1, after))
            }));
        }
    }
    cases
}

fn unchanged(what: &str, options: &[u8]) -> Vec<Case> {
    becomes(what, options, options)
}

#[test]
fn an_mss_above_the_limit_is_lowered_wherever_it_stands() {
    let mut cases = Vec::new();
    // 1460 becomes 1400.
    let (high, low) = ([2, 4, 0x05, 0xb4], [2, 4, 0x05, 0x78]);
    let timestamps = [8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
    for (what, front, back) in [
        ("alone", vec![], vec![]),
        ("first", vec![], vec![4, 2, 1, 3, 3, 7, 0, 0]),
        ("at 1", vec![1], vec![1, 1, 1]),
        ("at 2", vec![1, 1], vec![1, 1]),
        ("at 3", vec![1, 1, 1], vec![1]),
        ("behind SACK permitted", vec![4, 2], vec![1, 1]),
        ("behind window scaling", vec![3, 3, 7], vec![1]),
        ("behind timestamps", timestamps.to_vec(), vec![1, 1]),
        ("behind timestamps and NOP", [&timestamps[..], &[1]].concat(), vec![0]),
        ("last of 40 bytes", vec![1; 36], vec![]),
        ("at 35 of 40 bytes", vec![1; 35], vec![0]),
        ("behind an unknown option", vec![254, 6, 2, 4, 9, 9], vec![0, 0]),
        ("behind an empty option", vec![200, 2], vec![1, 1]),
        ("behind one of another length", vec![2, 3, 9], vec![1]),
        ("before another", vec![], vec![2, 4, 0x05, 0xb4]),
    ] {
        let options = |mss: [u8; 4]| [&front[..], &mss, &back].concat();
        cases.extend(becomes(what, &options(high), &options(low)));
    }
    check(cases);
}

#[test]
fn an_mss_within_the_limit_is_left_alone() {
    for value in [0u16, 1, 536, LIMIT - 1, LIMIT] {
        let [high, low] = value.to_be_bytes();
        check(unchanged("within", &[2, 4, high, low]));
        check(unchanged("within, odd", &[1, 2, 4, high, low, 1, 1, 1]));
    }
    for value in [LIMIT + 1, 9000, u16::MAX] {
        let [high, low] = value.to_be_bytes();
        check(becomes("beyond", &[2, 4, high, low], &[2, 4, 0x05, 0x78]));
    }
}

#[test]
fn options_without_an_mss_or_malformed_are_left_alone() {
    let mut cases = Vec::new();
    for (what, options) in [
        ("none", &[][..]),
        ("NOPs", &[1; 8]),
        ("all NOPs", &[1; 40]),
        ("others", &[4, 2, 3, 3, 7, 1, 1, 1]),
        ("the end before it", &[1, 0, 2, 4, 0x05, 0xb4, 0, 0]),
        ("a length of 0 before it", &[5, 0, 2, 4, 0x05, 0xb4, 0, 0]),
        ("a length of 1 before it", &[5, 1, 2, 4, 0x05, 0xb4, 0, 0]),
        ("a length of 0", &[2, 0, 0x05, 0xb4]),
        ("a length of 1", &[2, 1, 0x05, 0xb4]),
        ("a length of 2", &[2, 2, 0x05, 0xb4]),
        ("a length of 3", &[2, 3, 0x05, 0xb4]),
        ("a length of 5", &[2, 5, 0x05, 0xb4, 9, 0, 0, 0]),
        ("a length beyond the header", &[3, 40, 2, 4, 0x05, 0xb4, 0, 0]),
        ("a length as long as can be", &[3, 255, 2, 4, 0x05, 0xb4, 0, 0]),
        ("cut after its kind", &[1, 1, 1, 2]),
        ("cut after its length", &[1, 1, 2, 4]),
        ("cut in the value", &[1, 2, 4, 0xff]),
    ] {
        cases.extend(unchanged(what, options));
    }
    check(cases);
}
