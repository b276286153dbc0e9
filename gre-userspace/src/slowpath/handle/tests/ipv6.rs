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
