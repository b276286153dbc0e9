//! Whatever bytes come, no program fails half way, and each packet has one outcome.

use std::collections::BTreeMap;

use gre_ebpf_common::outcome::Outcome;
use proptest::{prelude::*, sample::Index};

use crate::{
    bench::{Counter, Counts, Hook, bench},
    change,
    combinations::all,
    frame::{from_lan, routed, tagged, through},
    packet::{Packet, inbound, outbound, patch, to_gateway},
    world::{KEYED6, LAN, LAN_MAC, PLAIN6, TO_HOST, TUNNELS, VLAN, WAN, WAN_MAC, world},
};

const STACK: [(u16, u16); 2] = [(0x88a8, 100), (0x8100, 5)];

/// Valid frames, where they come in; XDP gets them with up to two tags as well.
fn valid() -> Vec<(Hook, Vec<u8>)> {
    let mut frames = Vec::new();
    for (tunnel, inside) in all() {
        let out = outbound(inside, tunnel).bytes();
        frames.push((Hook::Xdp(LAN), from_lan(&out)));
        frames.push((Hook::TcOut(tunnel.device()), routed(&out)));
        frames.push((Hook::TcOut(tunnel.peer()), routed(&out)));
        let to = if tunnel == KEYED6 { PLAIN6 } else { KEYED6 };
        let transit = Packet::new(tunnel.beyond(inside), to.beyond(inside));
        for packet in [inbound(inside, tunnel), to_gateway(inside, tunnel), transit] {
            for hook in [Hook::Xdp(WAN), Hook::TcIn(WAN)] {
                frames.push((hook, through(tunnel, &packet.bytes())));
            }
        }
    }
    let xdp = frames.clone().into_iter().filter(|(hook, _)| matches!(hook, Hook::Xdp(_)));
    frames.extend(xdp.flat_map(|(hook, frame)| {
        [&STACK[..1], &STACK[1..], &STACK].map(|tags| (hook, tagged(&frame, tags)))
    }));
    frames
}

/// The world with devices for these tags, and a next hop with one of its own.
fn plane() -> gre_userspace::dataplane::DataPlane {
    let mut plane = world();
    for tags in [&STACK[..1], &STACK[1..], &STACK] {
        change::vlan(&mut plane, LAN, tags, LAN_MAC, VLAN);
        change::vlan(&mut plane, WAN, tags, WAN_MAC, VLAN);
    }
    change::tag(&mut plane, TO_HOST, &STACK[1..]);
    plane
}

/// Of the bytes of the headers, mostly.
fn mutations() -> impl Strategy<Value = Vec<(usize, u8)>> {
    let offset = prop_oneof![4 => 12..110usize, 1 => 0..1500usize];
    proptest::collection::vec((offset, any::<u8>()), 0..6)
}

fn outcomes(moved: &Counts) -> Vec<&'static str> {
    let mut outcomes = Vec::new();
    for (counter, count) in moved {
        if let Counter::Outcome(_, label) = counter {
            outcomes.extend((0..*count).map(|_| *label));
        }
    }
    outcomes
}

/// TEST_RUN hands no program an IP packet that is shorter than its header, once it is a packet of
/// the kernel's.
fn shortest(hook: Hook, frame: &[u8]) -> usize {
    match (hook, frame.get(12..14)) {
        (Hook::TcIn(_) | Hook::TcOut(_), Some([0x86, 0xdd])) => 54,
        (Hook::TcIn(_) | Hook::TcOut(_), Some([8, 0])) => 34,
        _ => 14,
    }
}

/// Runs a frame, and tells what must not have happened.
fn judge(hook: Hook, frame: &[u8]) -> Result<(), TestCaseError> {
    let mut bench = bench();
    bench.apply(plane(), &BTreeMap::new());
    let (run, moved) = bench.run(hook, frame);
    let outcomes = outcomes(&moved);
    prop_assert_eq!(outcomes.len(), 1, "{:?} {:?} {:02x?}", moved, hook, frame);
    let outcome = Outcome::ALL.iter().find(|outcome| outcome.label() == outcomes[0]).unwrap();
    // Without the daemon TC has no way with so short a packet.
    let helpless = matches!(hook, Hook::TcIn(_)) && frame.len() < 14 + 40 + 16 + 40;
    prop_assert!(*outcome != Outcome::Aborted || helpless, "aborted, {:?} {:02x?}", hook, frame);
    let Hook::Xdp(_) = hook else { return Ok(()) };
    let carried = moved.keys().any(|counter| matches!(counter, Counter::Traffic(..)));
    let dropped = moved.keys().any(|counter| matches!(counter, Counter::Dropped(..)));
    match run.action {
        1 => {
            let counted = dropped || *outcome == Outcome::Keepalive;
            prop_assert!(!carried && counted, "{:?} {:02x?}", moved, frame);
        }
        2 => {
            prop_assert_eq!(&run.bytes, frame, "{:?}", moved);
            prop_assert!(!carried && !dropped, "{:?} {:02x?}", moved, frame);
        }
        4 => prop_assert!(carried && !dropped, "{:?} {:02x?}", moved, frame),
        action => prop_assert!(false, "action {} {:02x?}", action, frame),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 8192,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn mutilated_frames_are_passed_as_they_came_or_finished_and_counted_once(
        (which, mutations, cut) in (any::<Index>(), mutations(), any::<Option<Index>>()),
        sums in any::<bool>(),
    ) {
        let valid = valid();
        let (hook, mut frame) = which.get(&valid).clone();
        for (offset, byte) in mutations {
            let offset = offset % frame.len();
            frame[offset] = byte;
        }
        // With a right checksum the mutilation gets further.
        if sums {
            let header = if frame[12] == 0x81 { 18 } else { 14 };
            let packet = patch(&frame[header..], 0, &[]);
            frame.truncate(header);
            frame.extend(packet);
        }
        if let Some(cut) = cut {
            let shortest = shortest(hook, &frame);
            frame.truncate(shortest + cut.index(frame.len() - shortest + 1));
        }
        judge(hook, &frame)?;
    }

    #[test]
    fn random_frames_are_passed_as_they_came_or_finished_and_counted_once(
        which in 0..3usize,
        start in any::<[u8; 3]>(),
        rest in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let hook = [Hook::Xdp(WAN), Hook::TcIn(WAN), Hook::TcOut(TUNNELS[2].device())][which];
        // XDP alone sees tags.
        let kinds = if which == 0 { 4 } else { 2 };
        let ethertypes = [[8, 0], [0x86, 0xdd], [0x81, 0], [0x88, 0xa8]];
        let ethertype = ethertypes[usize::from(start[0] % kinds)];
        let mut frame = [&WAN_MAC[..], &[2; 6], &ethertype, &[start[1], start[2]], &rest].concat();
        // Half of them of the right version, or of a known VLAN.
        match start[0] % 8 {
            0 => frame[14] = 0x45,
            1 => frame[14] = 0x60,
            2 | 3 if which == 0 => {
                frame[14..16].copy_from_slice(&[0, 5]);
                frame.splice(16..16, [0x86, 0xdd, 0x60]);
            }
            _ => {}
        }
        if frame.len() < shortest(hook, &frame) {
            frame.resize(shortest(hook, &frame), 0);
        }
        judge(hook, &frame)?;
    }
}
