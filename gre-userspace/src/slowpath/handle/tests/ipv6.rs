//! IPv6 inside, and outside.

use gre_ebpf_common::tunnel::Ends;

use super::{
    super::super::{
        pipeline::{self, Stamp},
        tables::Sources,
    },
    *,
};

const HOST6: [u8; 16] = [0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const ROUTER6: [u8; 16] = [0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const LOCAL6: [u8; 16] = [0xfd, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const REMOTE6: [u8; 16] = [0xfd, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// An inner UDP packet of `len` bytes.
fn inner6(len: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    let payload: Vec<_> = (0..len - 48).map(|i| i as u8).collect();
    PacketBuilder::ipv6(HOST6, [0xfe; 16], 63).udp(7, 9).write(&mut packet, &payload).unwrap();
    packet
}

fn oversize6(packet: &[u8]) -> Input {
    let frame = [&[0; 12][..], &[0x86, 0xdd], packet].concat();
    Input::HandedUp(HandedUp { kind: Kind::Oversize, tunnel: TUNNEL, ifindex: 7, frame })
}

/// Over IPv6, with an encapsulation limit.
fn entry6() -> TunnelEntry {
    let words = |address: [u8; 16]| {
        std::array::from_fn(|i| u32::from_ne_bytes(address[4 * i..][..4].try_into().unwrap()))
    };
    let ends = Ends::v6(words(LOCAL6), words(REMOTE6));
    let outer = Outer { ttl: 64, encapsulation_limit: Some(4), ..Outer::new(ends) };
    let record = Tunnel::new(outer, Expected::default());
    let sources = Sources { v4: None, v6: Some(ROUTER6.into()) };
    let (local, remote) = (LOCAL6.into(), REMOTE6.into());
    TunnelEntry { record, local, remote, sources, ..entry() }
}

#[test]
fn an_ipv6_sender_is_told_the_payload_mtu() {
    let mut bench = Bench::new(entry6());
    let packet = inner6(1449);
    let complaint = Complaint::TooBig { mtu: 1448 };
    let expected = answer::ipv6(complaint, &packet, ROUTER6).unwrap();
    assert_eq!(bench.handle(&oversize6(&packet)), [Action::Send(expected)]);
    assert_eq!(bench.told, [("answered-too-big", 1)]);
}

#[test]
fn without_an_address_of_this_host_an_ipv6_sender_is_told_nothing() {
    let mut bench = Bench::new(entry());
    assert_eq!(bench.handle(&oversize6(&inner6(1477))), []);
    assert_eq!(bench.told, [("no-source-address", 1)]);
}

#[test]
fn rfc7676_4_where_the_payload_mtu_is_below_1280_the_outer_packet_is_cut() {
    // The smallest underlay: 1280 bytes, of which 52 are the outer header's.
    let tunnel = TunnelEntry { underlay_mtu: 1280, ..entry6() };
    let mut bench = Bench::new(tunnel.clone());
    let packet = inner6(1280);

    let packets = sent(bench.handle(&oversize6(&packet)));

    let whole = pipeline::encapsulate(&tunnel, 0x86dd, &packet, Stamp::default()).unwrap();
    assert_eq!(packets, fragment::ipv6(&whole, 1280, 2).unwrap());
    assert_eq!(packets.len(), 2);
    assert_eq!(bench.told, [("outer-fragmented", 1)]);

    // The remote puts them together and takes the packet out.
    let mut remote =
        Bench::new(TunnelEntry { local: tunnel.remote, remote: tunnel.local, ..tunnel });
    let arrives = |packet: &[u8]| {
        let frame = [&[0; 12][..], &[0x86, 0xdd], packet].concat();
        let kind = Kind::OuterFragment;
        Input::HandedUp(HandedUp { kind, tunnel: TUNNEL, ifindex: 7, frame })
    };
    assert_eq!(remote.handle(&arrives(&packets[1])), []);
    let frame = [&DEVICE_MAC[..], &PEER_MAC, &[0x86, 0xdd], &packet].concat();
    let expected = [Action::SendFrame { ifindex: 8, frame }];
    assert_eq!(remote.handle(&arrives(&packets[0])), expected);
}

#[test]
fn a_packet_too_big_behind_destination_options_is_learned_but_not_below_1280() {
    let mut bench = Bench::new(entry6());
    let quote = pipeline::encapsulate(&entry6(), 0x86dd, &inner6(1448), Stamp::default()).unwrap();
    let told = |mtu: u16| {
        let [high, low] = mtu.to_be_bytes();
        Input::IcmpV6([&[2, 0, 0, 0, 0, 0, high, low][..], &quote].concat())
    };
    let learned = |mtu| {
        let (tunnel, remote) = ("tunnel0".to_owned(), REMOTE6.into());
        [Action::PathMtu(PathMtu { tunnel, remote, mtu: Some(mtu) })]
    };
    assert_eq!(bench.handle(&told(1400)), learned(1400));
    assert_eq!(bench.handle(&told(1000)), learned(1280));
}

/// An inner packet with an encapsulation limit, as Linux sends it: the limit is at 44.
fn limited(limit: u8, len: usize) -> Vec<u8> {
    let mut packet = inner6(len - 8);
    let payload = packet.split_off(40);
    let options = [packet[6], 0, 4, 1, limit, 1, 1, 0];
    packet[6] = 60;
    packet[4..6].copy_from_slice(&(len as u16 - 40).to_be_bytes());
    [&packet[..], &options, &payload].concat()
}

fn used_up(packet: &[u8]) -> Input {
    let frame = [&[0; 12][..], &[0x86, 0xdd], packet].concat();
    let kind = Kind::EncapsulationLimit;
    Input::HandedUp(HandedUp { kind, tunnel: TUNNEL, ifindex: 7, frame })
}

/// Over IPv6 without a limit of its own.
fn unlimited6() -> TunnelEntry {
    let mut tunnel = entry6();
    let record = &mut tunnel.record;
    let ends = Ends::v6([1; 4], [2; 4]);
    *record = Tunnel::new(Outer { ttl: 64, ..Outer::new(ends) }, Expected::default());
    tunnel
}

#[test]
fn ip6gre1_a_limit_of_zero_is_answered_whether_the_tunnel_has_one_or_not() {
    for tunnel in [entry6(), unlimited6()] {
        let mut bench = Bench::new(tunnel);
        let packet = limited(0, 200);
        let complaint = Complaint::EncapsulationLimit { pointer: 44 };
        let expected = [Action::Send(answer::ipv6(complaint, &packet, ROUTER6).unwrap())];
        assert_eq!(bench.handle(&used_up(&packet)), expected);
        // Of a long one no more than its start is handed up, and its length does not matter.
        let long = limited(0, 1500);
        let expected = [Action::Send(answer::ipv6(complaint, &long, ROUTER6).unwrap())];
        assert_eq!(bench.handle(&used_up(&long[..1280])), expected);
        assert_eq!(bench.handle(&oversize6(&long)), expected);
        assert_eq!(bench.told, [("answered-encapsulation-limit", 3)]);
        assert!(bench.slow.carried.is_empty());
    }
}

#[test]
fn ip6gre1_answers_have_a_limit_and_errors_get_none() {
    let mut bench = Bench::new(entry6());
    let mut error = limited(0, 200);
    (error[40], error[48]) = (58, 1);
    assert_eq!(bench.handle(&used_up(&error)), []);
    assert_eq!(bench.told, [("encapsulation-limit", 1)]);
    for _ in 0..60 {
        bench.handle(&used_up(&limited(0, 200)));
    }
    let told =
        [("encapsulation-limit", 1), ("answered-encapsulation-limit", 50), ("rate-limited", 10)];
    assert_eq!(bench.told, told);
}

/// Eight bytes less of the path are left for the packet, where the tunnel has no limit of its own.
#[test]
fn ip6gre1_the_limit_is_sent_one_less_by_the_daemon_too() {
    let overhead = 52;
    for tunnel in [entry6(), unlimited6()] {
        let mut bench = Bench::new(tunnel);
        let fits = limited(5, 1500 - overhead);
        let outer = sent(bench.handle(&oversize6(&fits))).remove(0);
        assert_eq!(outer.len(), 1500);
        assert_eq!(
            (&outer[4..8], &outer[40..48]),
            (&[5, 180, 60, 64][..], &[47, 0, 4, 1, 4, 1, 1, 0][..])
        );
        assert_eq!(outer[48..], [&[0, 0, 0x86, 0xdd][..], &fits].concat());
        let exceeds = limited(5, 1501 - overhead);
        let complaint = Complaint::TooBig { mtu: 1500 - overhead as u16 };
        let expected = [Action::Send(answer::ipv6(complaint, &exceeds, ROUTER6).unwrap())];
        assert_eq!(bench.handle(&oversize6(&exceeds)), expected);
        assert_eq!(bench.told, [("encapsulated", 1), ("answered-too-big", 1)]);
    }
    // In a tunnel over IPv4 it is payload.
    let sources = Sources { v4: None, v6: Some(ROUTER6.into()) };
    let mut bench = Bench::new(TunnelEntry { sources, ..entry() });
    let packet = limited(0, 1476);
    let outer = sent(bench.handle(&oversize6(&packet))).remove(0);
    assert_eq!(outer[20..], [&[0, 0, 0x86, 0xdd][..], &packet].concat());
}
