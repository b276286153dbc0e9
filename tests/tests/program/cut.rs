//! Outer packets that are too long and may be cut: TC sends them in two fragments, of which the first
//! leaves at once, as a copy, and the second is what the program leaves behind.

use std::os::fd::{AsRawFd as _, OwnedFd};

use gre_ebpf_common::{next_hop::Flags, outcome::Outcome::*, wire::vlan::Tag};
use gre_userspace::dataplane::DataPlane;
use nix::{
    libc,
    sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket},
};

use crate::{
    bench::{Context, Counter, Hook, bench},
    case::{Case, check},
    frame::{ETHERNET, IPV4, Packet, frame, numbered, outbound, to_underlay},
    world::{FREE, Spec, TO_GATEWAY, WAN, add, change, world},
};

const CUT: Spec = Spec { pmtudisc: false, ignore_df: true, ..Spec::new(FREE) };
const TUNNELS: [Spec; 5] = [
    CUT,
    CUT.with_key(7),
    CUT.with_checksums(),
    CUT.with_sequence(),
    CUT.with_checksums().with_sequence().with_key(7),
];

/// As the kernel sends it out of the tunnel's device.
fn routed(hook: Hook, packet: &Packet) -> Vec<u8> {
    let Hook::TcOut(_) = hook else { panic!("{hook:?}") };
    frame([0x33, 0x33, 0, 0, 0, 1], [2, 9, 9, 9, 9, 9], &packet.bytes())
}

fn case(what: impl Into<String>, hook: Hook, packet: &Packet) -> Case {
    Case::new(what, hook, routed(hook, packet)).given(|plane| add(plane, CUT))
}

/// A packet socket that sees what leaves by the WAN.
struct Tap(OwnedFd);

impl Tap {
    fn new() -> Self {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let (family, kind) = (AddressFamily::Packet, SockType::Raw);
        Self(socket(family, kind, flags, SockProtocol::EthAll).expect("a packet socket"))
    }

    /// Frames with GRE in them since the last look.
    fn sent(&self) -> Vec<Vec<u8>> {
        let mut buffer = [0; 4096];
        let mut frames = Vec::new();
        while let Ok((len, from)) = recvfrom::<LinkAddr>(self.0.as_raw_fd(), &mut buffer) {
            let from = from.expect("packets have an interface");
            let left = from.pkttype() == libc::PACKET_OUTGOING && from.ifindex() == WAN as usize;
            let gre = buffer[12..14] == [8, 0] && buffer[ETHERNET + 9] == 47;
            if left && gre {
                frames.push(buffer[..len].to_vec());
            }
        }
        frames
    }
}

/// The fragments of a packet, as frames, of which the first has this much payload.
fn fragments(packet: &Packet, first: usize) -> [Vec<u8>; 2] {
    [(0, first), (first, packet.payload.len())].map(|(start, end)| {
        let mut piece = packet.clone().with(|header| {
            header.fragment_offset = u16::try_from(start / 8).unwrap().try_into().unwrap();
            header.more_fragments = start == 0;
        });
        piece.payload = packet.payload[start..end].to_vec();
        to_underlay(&piece.bytes())
    })
}

/// Sends a packet through a tunnel whose path takes `mtu`, and looks at all that comes of it.
fn check_fragments(tunnel: Spec, packet: &Packet, mtu: u16) {
    let mut plane = world();
    add(&mut plane, tunnel);
    change::tunnel(&mut plane, tunnel).path_mtu = mtu;
    let mut bench = bench();
    bench.apply(plane);
    bench.reset();
    let tap = Tap::new();

    let hook = Hook::TcOut(tunnel.peer());
    let (run, moved) = bench.run(hook, Context::default(), &routed(hook, packet));
    let what = format!("{tunnel:?}, {} bytes, path {mtu}", packet.bytes().len());
    assert_eq!(run.action, 7, "{what}: {moved:?}");
    let expected = [
        (Counter::Outcome(1, Fragmented.label()), 1),
        (Counter::Traffic(tunnel.id, 1, "tx_packets"), 1),
        (Counter::Traffic(tunnel.id, 1, "tx_bytes"), packet.bytes().len() as u64),
    ];
    assert_eq!(moved, expected.into(), "{what}");
    let identification = u16::from_be_bytes(run.bytes[ETHERNET + 4..][..2].try_into().unwrap());
    let outer = numbered(tunnel, packet, identification, 0);
    let first = (usize::from(mtu) - IPV4) & !7;
    let [start, end] = fragments(&outer, first);
    assert!(start.len() - ETHERNET <= mtu.into() && end.len() - ETHERNET <= mtu.into(), "{what}");
    assert_eq!(tap.sent(), [start], "{what}");
    assert_eq!(run.bytes, end, "{what}");
}

#[test]
fn rfc791_what_is_too_long_is_sent_in_two_fragments() {
    for tunnel in TUNNELS {
        for len in [tunnel.mtu() + 1, tunnel.mtu() + 8, 1500, 2980 - tunnel.overhead()] {
            for dont_fragment in [false, true] {
                let packet = outbound(tunnel).varied(len);
                let packet = packet.with(|header| header.dont_fragment = dont_fragment);
                check_fragments(tunnel, &packet, 1500);
            }
        }
        for len in [960, 1000, 1500] {
            check_fragments(tunnel, &outbound(tunnel).varied(len), 983);
        }
    }
    // The second is shorter than the first, as long, and longer.
    for len in [20, 28, 35] {
        check_fragments(CUT, &outbound(CUT).varied(len), 43);
    }
}

#[test]
fn packets_in_fragments_have_identifications_of_their_own() {
    let mut plane = world();
    add(&mut plane, CUT);
    let mut bench = bench();
    bench.apply(plane);
    let hook = Hook::TcOut(CUT.peer());
    let frame = routed(hook, &outbound(CUT).varied(1500));
    let identifications: Vec<_> = (0..4)
        .map(|_| u16::from_be_bytes(bench.send(hook, &frame).bytes[18..20].try_into().unwrap()))
        .collect();
    for pair in identifications.windows(2) {
        assert_eq!(pair[1], pair[0].wrapping_add(1), "{identifications:?}");
    }
}

/// It cuts what is to be cut, and does the checksums that nobody has done yet.
#[test]
fn offload1_what_is_to_be_cut_goes_through_the_device_first() {
    let hook = Hook::TcOut(CUT.device());
    let packet = outbound(CUT).varied(1500);
    // Each segment is cut once more.
    let merged = outbound(CUT).varied(2972);
    let context = Context { segments: 2, segment_size: 1472, ..Context::default() };
    check([
        case("too long", hook, &packet).passes(DeviceFinishes),
        case("segments too long", hook, &merged).passes(DeviceFinishes).context(context),
    ]);
}

#[test]
fn what_does_not_go_in_two_fragments_is_the_daemons() {
    let packet = outbound(CUT).varied(1500);
    let merged = Context { segments: 2, segment_size: 1477, ..Context::default() };
    let cases = [Hook::TcOut(CUT.device()), Hook::TcOut(CUT.peer())].into_iter().flat_map(|hook| {
        let daemons = |what: &str, packet: &Packet, change: fn(&mut DataPlane)| {
            case(what, hook, packet).drops(TooBigForUnderlay, CUT).given(move |plane| {
                add(plane, CUT);
                change(plane);
            })
        };
        [
            daemons("three", &outbound(CUT).varied(2980 - 24 + 1), |_| ()),
            daemons("no MAC address", &packet, |plane| change::unresolved(plane, TO_GATEWAY)),
            daemons("VLAN tags", &packet, |plane| {
                change::next_hop(plane, TO_GATEWAY).tags[0] = Tag::from_frame(0x0081, 0x0500);
            }),
            daemons("no address and no interface's", &packet, |plane| {
                change::next_hop(plane, TO_GATEWAY).flags = Flags::default();
            }),
            daemons("nopmtudisc alone", &packet, |plane| {
                add(plane, Spec { ignore_df: false, ..CUT });
            }),
            daemons("Don't Fragment set", &packet, |plane| {
                add(plane, Spec { pmtudisc: true, ..CUT })
            }),
        ]
    });
    check(cases.collect::<Vec<_>>());
    let hook = Hook::TcOut(CUT.peer());
    check([case("a super-packet", hook, &outbound(CUT).varied(2972))
        .context(merged)
        .drops(TooBigForUnderlay, CUT)]);
}
