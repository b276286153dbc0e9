mod icmp;
mod ipv6;

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use etherparse::{Ipv4Header, PacketBuilder};
use gre_ebpf_common::tunnel::{Expected, Outer, Tunnel};

use super::{
    super::{
        answer::{self, Complaint},
        fragment,
        oversize::Policy,
        reassemble::TIMEOUT,
        testing::{DEVICE_MAC, LOCAL, PEER_MAC, REMOTE, ends, entry},
    },
    *,
};

const HOST: [u8; 4] = [10, 1, 0, 2];
const ROUTER: [u8; 4] = [10, 1, 0, 1];
const OTHER: [u8; 4] = [10, 2, 0, 2];
const TUNNEL: u32 = 5;

/// A slow path, what has come of it so far, and the time.
struct Bench {
    slow: SlowPath,
    told: Vec<(&'static str, u64)>,
    now: Instant,
}

impl Bench {
    fn new(tunnel: TunnelEntry) -> Self {
        let mut slow = SlowPath::new(0);
        slow.set_tunnels(BTreeMap::from([(TUNNEL, tunnel)]));
        Self { slow, told: Vec::new(), now: Instant::now() }
    }

    fn handle(&mut self, input: &Input) -> Vec<Action> {
        let actions = self.slow.handle(input, Sequences(&[]), self.now);
        self.told = self.slow.counts.happened().map(|(label, _, n)| (label, n)).collect();
        actions
    }

    /// From the tunnel's device.
    fn oversize(&mut self, packet: &[u8]) -> Vec<Action> {
        self.handle(&handed_up(Kind::Oversize, packet))
    }
}

fn handed_up(kind: Kind, packet: &[u8]) -> Input {
    let frame = [&[0; 12][..], &[8, 0], packet].concat();
    Input::HandedUp(HandedUp { kind, tunnel: TUNNEL, ifindex: 7, frame })
}

/// An inner UDP packet of `len` bytes.
fn inner(len: usize, dont_fragment: bool) -> Vec<u8> {
    let mut header = Ipv4Header::new(0, 63, 17.into(), HOST, OTHER).unwrap();
    header.dont_fragment = dont_fragment;
    header.identification = 0x1234;
    let mut packet = Vec::new();
    let payload: Vec<_> = (0..len - 28).map(|i| i as u8).collect();
    PacketBuilder::ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
        .udp(7, 9)
        .write(&mut packet, &payload)
        .unwrap();
    packet
}

/// As etherparse encapsulates it.
fn outer(inner: &[u8], identification: u16, addresses: [[u8; 4]; 2]) -> Vec<u8> {
    let len = inner.len() as u16 + 4;
    let [source, destination] = addresses;
    let mut header = Ipv4Header::new(len, 64, 47.into(), source, destination).unwrap();
    header.identification = identification;
    header.dont_fragment = true;
    header.header_checksum = header.calc_header_checksum();
    [&header.to_bytes()[..], &[0, 0, 8, 0], inner].concat()
}

fn to_device(inner: &[u8]) -> Action {
    let frame = [&DEVICE_MAC[..], &PEER_MAC, &[8, 0], inner].concat();
    Action::SendFrame { ifindex: 8, frame }
}

/// The ICMP error that tells of `mtu`.
fn told_mtu(offender: &[u8], mtu: u16) -> Action {
    let complaint = Complaint::TooBig { mtu };
    Action::Send(answer::ipv4(complaint, offender, ROUTER).unwrap())
}

fn sent(actions: Vec<Action>) -> Vec<Vec<u8>> {
    let packets = actions.into_iter().map(|action| match action {
        Action::Send(packet) => packet,
        other => panic!("{other:?}"),
    });
    packets.collect()
}

/// The path leaves 1500 - 24 - 14 bytes for the packet in a frame.
#[test]
fn padding_is_carried_as_far_as_the_path_has_room_for_it() {
    let ethernet = Outer { ttl: 64, ethernet: true, ..Outer::new(ends()) };
    let record = Tunnel::new(ethernet, Expected::default());
    for (padding, carried) in [(0, 0), (9, 9), (12, 12), (13, 12), (100, 12)] {
        let mut bench = Bench::new(TunnelEntry { record, ..entry() });
        let packet = [inner(1450, false), vec![0; padding]].concat();
        let outers = sent(bench.oversize(&packet));
        let frame = [&[0; 12][..], &[8, 0], &packet[..1450 + carried]].concat();
        assert_eq!(outers.len(), 1);
        assert_eq!(outers[0][24..], frame[..], "{padding} bytes of padding");
        assert_eq!(bench.told, [("encapsulated", 1)]);
    }
}

#[test]
fn an_outer_packet_in_fragments_is_decapsulated_once_it_is_whole() {
    let mut bench = Bench::new(entry());
    let inner = inner(1476, true);
    let whole = outer(&inner, 9, [REMOTE, LOCAL]);
    let fragments = fragment::ipv4(&whole, 1000).unwrap();
    assert_eq!(fragments.len(), 2);

    assert_eq!(bench.handle(&handed_up(Kind::OuterFragment, &fragments[1])), []);
    let actions = bench.handle(&handed_up(Kind::OuterFragment, &fragments[0]));

    assert_eq!(actions, [to_device(&inner)]);
    assert_eq!(bench.told, [("to-device", 1), ("fragment-held", 1)]);
    let rx = Traffic { packets: 1, bytes: 1476 };
    assert_eq!(bench.slow.carried[&TUNNEL], Carried { rx, ..Carried::default() });
}

#[test]
fn an_outer_packet_with_options_is_decapsulated() {
    let mut bench = Bench::new(entry());
    let inner = inner(100, true);
    let mut header = Ipv4Header::new(104, 64, 47.into(), REMOTE, LOCAL).unwrap();
    header.options = [0x94, 4, 0, 0].into();
    header.set_payload_len(104).unwrap();
    header.header_checksum = header.calc_header_checksum();
    let mut packet = [&header.to_bytes()[..], &[0, 0, 8, 0], &inner].concat();

    assert_eq!(bench.handle(&handed_up(Kind::OuterOptions, &packet)), [to_device(&inner)]);

    packet[10] ^= 1;
    assert_eq!(bench.handle(&handed_up(Kind::OuterOptions, &packet)), []);
    let elsewhere = outer(&inner, 9, [OTHER, LOCAL]);
    assert_eq!(bench.handle(&handed_up(Kind::OuterOptions, &elsewhere)), []);
    assert_eq!(bench.told, [("to-device", 1), ("ipv4-malformed", 1), ("no-tunnel", 1)]);
}

#[test]
fn a_long_packet_that_may_be_cut_is_encapsulated_in_pieces() {
    let mut bench = Bench::new(entry());
    let inner = inner(1500, false);
    let pieces = fragment::ipv4(&inner, 1476).unwrap();

    let packets = sent(bench.oversize(&inner));

    let expected: Vec<_> =
        pieces.iter().zip(1..).map(|(piece, id)| outer(piece, id, [LOCAL, REMOTE])).collect();
    // Don't Fragment is the tunnel's.
    assert_eq!(packets, expected);
    assert_eq!(packets.iter().map(Vec::len).collect::<Vec<_>>(), [1500, 68]);
    assert_eq!(bench.told, [("inner-fragmented", 1)]);
    let tx = Traffic { packets: 2, bytes: 1476 + 44 };
    assert_eq!(bench.slow.carried[&TUNNEL], Carried { tx, ..Carried::default() });
}

#[test]
fn the_sender_of_a_long_packet_that_may_not_be_cut_is_told_the_payload_mtu() {
    let mut bench = Bench::new(entry());
    let inner = inner(1477, true);
    assert_eq!(bench.oversize(&inner), [told_mtu(&inner, 1476)]);
    assert_eq!(bench.told, [("answered-too-big", 1)]);

    // What a local socket left to the device is completed before it is cut, and only then.
    let mut fits = inner.clone();
    fits.truncate(1400);
    fits[2..4].copy_from_slice(&1400u16.to_be_bytes());
    packet::seal_ipv4(&mut fits[..20]);
    assert_eq!(sent(bench.oversize(&fits)), [outer(&fits, 1, [LOCAL, REMOTE])]);
    assert_eq!(bench.told, [("encapsulated", 1), ("answered-too-big", 1)]);
}

#[test]
fn with_ignore_df_the_outer_packet_is_cut() {
    let policy = Policy { pmtudisc: false, ignore_df: true };
    let mut bench = Bench::new(TunnelEntry { policy, ..entry() });
    let inner = inner(2000, true);

    let packets = sent(bench.oversize(&inner));

    let expected = fragment::ipv4(&outer(&inner, 1, [LOCAL, REMOTE]), 1500).unwrap();
    assert_eq!(packets, expected);
    assert!(packets.iter().all(|packet| packet.len() <= 1500 && packet[6] & 0x40 == 0));
    assert_eq!(bench.told, [("outer-fragmented", 1)]);
}

#[test]
fn fragments_that_stay_alone_are_given_up() {
    let mut bench = Bench::new(entry());
    let whole = outer(&inner(1476, true), 9, [REMOTE, LOCAL]);
    let fragments = fragment::ipv4(&whole, 1000).unwrap();
    bench.handle(&handed_up(Kind::OuterFragment, &fragments[0]));
    assert_eq!(bench.slow.next_expiry(), Some(bench.now + TIMEOUT));
    assert_eq!(bench.slow.expire(bench.now + TIMEOUT), []);
    bench.now += TIMEOUT + Duration::from_secs(1);
    assert_eq!(bench.handle(&handed_up(Kind::OuterFragment, &fragments[1])), []);
    assert_eq!(bench.told, [("fragment-held", 2), ("reassembly-timeout", 1)]);
}

#[test]
fn a_tunnel_without_a_remote_or_a_source_sends_nothing() {
    let any: IpAddr = [0; 4].into();
    for tunnel in [TunnelEntry { remote: any, ..entry() }, TunnelEntry { local: any, ..entry() }] {
        let mut bench = Bench::new(tunnel);
        assert_eq!(bench.oversize(&inner(1500, false)), []);
        assert_eq!(bench.told, [("no-route", 1)]);
    }
}

#[test]
fn sequence_numbers_are_given_out_and_judged() {
    let words: Vec<_> = (0..64).map(|_| std::sync::atomic::AtomicU64::new(0)).collect();
    let sequences = Sequences(&words);
    let mut tunnel = entry();
    tunnel.record = Tunnel::new(
        Outer { ttl: 64, sequence: true, ..Outer::new(ends()) },
        Expected { sequence: true, ..Expected::default() },
    );
    let mut bench = Bench::new(tunnel);
    let long = handed_up(Kind::Oversize, &inner(1500, false));
    let packets = sent(bench.slow.handle(&long, sequences, bench.now));
    let numbers: Vec<_> = packets.iter().map(|packet| packet[24..28].to_vec()).collect();
    assert_eq!(numbers, [[0, 0, 0, 0], [0, 0, 0, 1]]);

    // The second comes back, twice.
    let mut packet = packets[1].clone();
    packet[12..16].copy_from_slice(&REMOTE);
    packet[16..20].copy_from_slice(&LOCAL);
    let received = handed_up(Kind::OuterOptions, &packet);
    assert_eq!(bench.slow.handle(&received, sequences, bench.now), [to_device(&packet[28..])]);
    assert_eq!(bench.slow.handle(&received, sequences, bench.now), []);
    let told: Vec<_> = bench.slow.counts.happened().map(|(label, _, n)| (label, n)).collect();
    assert_eq!(told, [("to-device", 1), ("sequence-duplicate", 1), ("inner-fragmented", 1)]);
}

#[test]
fn a_frame_that_is_none_is_counted() {
    let mut bench = Bench::new(entry());
    let frame = vec![0; 13];
    let input =
        Input::HandedUp(HandedUp { kind: Kind::Oversize, tunnel: TUNNEL, ifindex: 7, frame });
    assert_eq!(bench.handle(&input), []);
    assert_eq!(bench.told, [("frame-malformed", 1)]);
}
