//! What TC hands to the daemon, once somebody reads what is handed up: the packet ends here, and the
//! daemon has all of it.

use aya::maps::{MapData, perf::PerfEvent, perf::PerfEventArrayBuffer};
use gre_ebpf_common::{
    event::{Event, Kind},
    outcome::Outcome::{self, *},
};

use crate::{
    bench::{Bench, Context, Counter, Hook, bench},
    frame::{
        ETHERNET, Options, Packet, frame, from_remote, from_wan, gre, gre_of, inbound, outbound,
        received,
    },
    world::{FREE, KEYED, LAN, PLAIN, STRANGER, Spec, WAN, add, add_leg, change, route, world},
};

const ALL: Spec = Spec::new(FREE).with_checksums().with_sequence().with_key(0x77);
const HUB: Spec = Spec { remote_any: true, ..Spec::new(FREE + 1) };
const LEG: Spec = Spec::new(FREE + 2);

/// A packet, and what becomes of it.
struct Row {
    what: &'static str,
    hook: Hook,
    context: Context,
    frame: Vec<u8>,
    outcome: Outcome,
    event: Event,
}

fn row(
    what: &'static str,
    hook: Hook,
    frame: Vec<u8>,
    outcome: Outcome,
    kind: Kind,
    tunnel: Spec,
) -> Row {
    let (Hook::Xdp(ifindex) | Hook::XdpAny(ifindex) | Hook::TcIn(ifindex) | Hook::TcOut(ifindex)) =
        hook;
    let len = frame.len() as u32;
    let event = Event { kind: kind as u32, tunnel: tunnel.id, ifindex, len, tags: [0; 2] };
    Row { what, hook, context: Context::default(), frame, outcome, event }
}

/// Events that the buffers hold, with their frames; what the kernel pads them with is cut off.
pub fn drain(buffers: &mut [PerfEventArrayBuffer<MapData>]) -> Vec<(Event, Vec<u8>)> {
    let mut events = Vec::new();
    for buffer in buffers {
        buffer.for_each(|event| match event {
            PerfEvent::Sample { head, tail } => {
                let bytes = [head, tail].concat();
                let (event, frame) = bytes.split_first_chunk().expect("an event has a header");
                let event = Event::from_bytes(*event);
                events.push((event, frame[..event.len as usize].to_vec()));
            }
            PerfEvent::Lost { count } => panic!("{count} events were lost"),
        });
    }
    events
}

pub fn ready() -> std::sync::MutexGuard<'static, Bench> {
    let mut bench = bench();
    let mut plane = world();
    add(&mut plane, ALL);
    add(&mut plane, HUB);
    change::tunnel(&mut plane, HUB).next_hop = 0;
    route(&mut plane, HUB.beyond(), 16, gre_ebpf_common::route::Entry::Punt);
    add_leg(&mut plane, HUB, LEG);
    bench.apply(plane);
    bench.reset();
    bench
}

fn check(rows: Vec<Row>) {
    let mut bench = ready();
    let mut buffers = bench.listen();
    for Row { what, hook, context, frame, outcome, event } in rows {
        let (run, moved) = bench.run(hook, context, &frame);
        let expected = [(Counter::Outcome(1, outcome.label()), 1)].into();
        // TC_ACT_REDIRECT, to nowhere.
        assert_eq!((run.action, moved), (7, expected), "{what}, {hook:?}");
        let handed_up = frame[..event.len as usize].to_vec();
        assert_eq!(drain(&mut buffers), [(event, handed_up)], "{what}, {hook:?}");
    }
}

#[test]
fn rfc7588_5_fragments_are_given_to_the_reassembler_whole() {
    let mut rows = Vec::new();
    for tunnel in [PLAIN, KEYED, ALL] {
        let outer = || received(tunnel, gre_of(tunnel, &inbound(tunnel).bytes()));
        let fragment = |offset: u16, more: bool| {
            let outer = outer().with(|header| {
                header.fragment_offset = offset.try_into().unwrap();
                header.more_fragments = more;
            });
            from_wan(&outer.bytes())
        };
        // Of more than two.
        for (what, frame) in [("middle", fragment(100, true)), ("another", fragment(200, true))] {
            let hook = Hook::TcIn(WAN);
            rows.push(row(what, hook, frame, Reassembling, Kind::OuterFragment, tunnel));
        }
    }
    // Of a tunnel with any remote, whoever sends it.
    let anybodys =
        from_remote(STRANGER, gre(0, 0x0800, &[], &inbound(PLAIN).bytes())).with(|header| {
            header.fragment_offset = 100.try_into().unwrap();
            header.more_fragments = true;
        });
    let frame = from_wan(&anybodys.bytes());
    rows.push(row("any", Hook::TcIn(WAN), frame, Reassembling, Kind::OuterFragment, HUB));
    check(rows);
}

/// The kernel's helper shrinks no packet below an IPv4 header.
#[test]
fn d5_p1_very_short_packets_are_unwrapped_by_the_daemon() {
    let mut rows = Vec::new();
    for tunnel in [PLAIN, KEYED, ALL] {
        for len in 0..20 {
            let options = Options::received(tunnel, len);
            let outer = received(tunnel, options.gre(0x8847, &vec![7; len as usize]));
            let frame = from_wan(&outer.bytes());
            rows.push(row("short", Hook::TcIn(WAN), frame, Unwrapping, Kind::OuterOptions, tunnel));
        }
    }
    check(rows);
}

#[test]
fn what_is_too_long_is_for_the_daemon_to_answer_or_fragment() {
    let mut rows = Vec::new();
    for (device, tunnel) in [(PLAIN, PLAIN), (KEYED, KEYED), (HUB, LEG)] {
        for hook in [Hook::TcOut(device.device()), Hook::TcOut(device.peer())] {
            for dont_fragment in [false, true] {
                let packet = outbound(tunnel).varied(tunnel.mtu() + 1);
                let packet = packet.with(|header| header.dont_fragment = dont_fragment);
                let frame = frame([2; 6], [4; 6], &packet.bytes());
                rows.push(row("a byte more", hook, frame, Oversize, Kind::Oversize, tunnel));
            }
        }
    }
    check(rows);
}

/// An answer quotes no more.
#[test]
fn of_a_super_packet_the_daemon_gets_the_start() {
    let packet = outbound(PLAIN).varied(3000).bytes();
    let context = Context { segments: 3, segment_size: 1476 - 28 + 1, ..Context::default() };
    let hook = Hook::TcOut(PLAIN.device());
    let frame = frame([2; 6], [4; 6], &packet);
    let row = row("segments too long", hook, frame, Oversize, Kind::Oversize, PLAIN);
    check(vec![Row { context, event: Event { len: 1294, ..row.event }, ..row }]);
}

#[test]
fn rfc4023_1_what_is_not_ip_is_encapsulated_by_the_daemon() {
    let mut rows = Vec::new();
    for hook in [Hook::TcOut(PLAIN.device()), Hook::TcOut(PLAIN.peer()), Hook::TcOut(ALL.peer())] {
        let tunnel = if hook == Hook::TcOut(ALL.peer()) { ALL } else { PLAIN };
        for ethertype in [0x8847u16, 0x8848, 0x0806] {
            let mut frame = frame([2; 6], [4; 6], &[9; 30]);
            frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
            rows.push(row("not IP", hook, frame, Unwrapping, Kind::OtherProtocol, tunnel));
        }
    }
    check(rows);
}

/// What nobody but the kernel, or nobody at all, can do anything with.
#[test]
fn nothing_else_is_handed_up() {
    let mut bench = ready();
    let mut buffers = bench.listen();
    let strange = from_remote(STRANGER, gre(0, 0x0800, &[], &inbound(PLAIN).bytes()));
    // To an address that not even a tunnel with any remote has.
    let fragment = strange.clone().with(|header| {
        header.more_fragments = true;
        header.destination = [192, 0, 2, 9];
    });
    let mut damaged = from_wan(&received(ALL, gre_of(ALL, &inbound(ALL).bytes())).bytes());
    *damaged.last_mut().expect("it is not empty") ^= 1;
    let ours =
        |tunnel| from_wan(&received(tunnel, gre_of(tunnel, &inbound(tunnel).bytes())).bytes());
    let outer = received(PLAIN, gre_of(PLAIN, &inbound(PLAIN).bytes()));
    let piece = outer.with(|header| header.more_fragments = true);
    let udp = Packet::new(STRANGER, STRANGER).with(|header| header.more_fragments = true);
    let long = outbound(PLAIN).long(1500);
    let routed = frame([2; 6], [4; 6], &outbound(PLAIN).bytes());
    for (hook, frame) in [
        (Hook::TcIn(WAN), from_wan(&strange.bytes())),
        (Hook::TcIn(WAN), from_wan(&fragment.bytes())),
        (Hook::TcIn(WAN), from_wan(&udp.bytes())),
        (Hook::TcIn(WAN), damaged),
        (Hook::TcIn(WAN), ours(PLAIN)),
        (Hook::TcIn(WAN), ours(ALL)),
        (Hook::TcOut(PLAIN.device()), routed.clone()),
        (Hook::TcOut(ALL.device()), routed),
        (Hook::Xdp(WAN), from_wan(&piece.bytes())),
        (Hook::XdpAny(WAN), from_wan(&piece.bytes())),
        (Hook::Xdp(LAN), frame([2; 6], [4; 6], &long.bytes())),
    ] {
        bench.send(hook, &frame);
        assert_eq!(drain(&mut buffers), [], "{hook:?} {:02x?}", &frame[ETHERNET..]);
    }
}
