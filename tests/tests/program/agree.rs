//! The tiers put the same bytes on the wire and let the same packets out of a tunnel.

use gre_ebpf_common::outcome::Outcome::{Decapsulated, Detour, Encapsulated};

use crate::{
    bench::{Context, Counter, Hook, bench},
    decapsulate::to_the_gateway,
    encapsulate::fixtures,
    frame::{ETHERNET, Packet, frame, from_lan, inbound, outbound, patch, through},
    world::{FREE, KEYED, LAN, Spec, WAN, add, world},
};

/// With everything that the plain program leaves to the other.
const ALL: Spec = Spec::new(FREE).with_checksums().with_sequence().with_key(0x0506_0708);

/// XDP gets the packet from the LAN, TC after the kernel has forwarded it.
#[test]
fn all_programs_encapsulate_alike_but_for_the_identification() {
    let mut bench = bench();
    bench.apply(world());
    for (what, tunnel, packet) in fixtures() {
        let forwarded = frame([0; 6], [2; 6], &packet.forwarded().bytes());
        let [plain, any, device, peer] = [
            (Hook::Xdp(LAN), from_lan(&packet.bytes())),
            (Hook::XdpAny(LAN), from_lan(&packet.bytes())),
            (Hook::TcOut(tunnel.device()), forwarded.clone()),
            (Hook::TcOut(tunnel.peer()), forwarded),
        ]
        .map(|(hook, frame)| patch(&bench.send(hook, &frame).bytes[ETHERNET..], 4, &[0, 0]));
        assert!(plain.len() == packet.bytes().len() + usize::from(tunnel.overhead()), "{what}");
        assert_eq!(plain, any, "{what}");
        assert_eq!(plain, device, "{what}");
        assert_eq!(plain, peer, "{what}");
    }
}

#[test]
fn all_programs_hand_the_same_frame_to_the_device() {
    let mut bench = bench();
    bench.apply(world());
    for (what, tunnel, inner) in to_the_gateway() {
        let outer = through(tunnel, &inner.bytes());
        let [plain, any, tc] = [Hook::Xdp(WAN), Hook::XdpAny(WAN), Hook::TcIn(WAN)]
            .map(|hook| bench.send(hook, &outer).bytes);
        assert_eq!(plain.len(), ETHERNET + inner.bytes().len(), "{what}");
        assert_eq!(plain, any, "{what}");
        assert_eq!(plain, tc, "{what}");
    }
}

/// Where the other program is missing, packets that are not plain are the kernel's, and the plain
/// ones go on.
#[test]
fn without_the_other_program_xdp_leaves_to_the_kernel_what_is_not_plain() {
    let mut bench = bench();
    let mut plane = world();
    add(&mut plane, ALL);
    bench.apply(plane);
    bench.lay_detour(false);
    let plain = [
        (Hook::Xdp(LAN), from_lan(&outbound(KEYED).bytes()), Encapsulated),
        (Hook::Xdp(WAN), through(KEYED, &inbound(KEYED).bytes()), Decapsulated),
    ];
    let others = [
        (Hook::Xdp(LAN), from_lan(&outbound(ALL).bytes()), Detour),
        (Hook::Xdp(WAN), through(ALL, &inbound(ALL).bytes()), Detour),
    ];
    let results: Vec<_> = plain
        .into_iter()
        .chain(others)
        .map(|(hook, frame, outcome)| (bench.run(hook, Context::default(), &frame), frame, outcome))
        .collect();
    // Before anything is asserted, for the tests to come.
    bench.lay_detour(true);
    for ((run, moved), frame, outcome) in results {
        assert_eq!(moved.get(&Counter::Outcome(0, outcome.label())), Some(&1), "{outcome:?}");
        if outcome == Detour {
            assert_eq!((run.action, run.bytes, moved.len()), (2, frame, 1));
        }
    }
}

/// A plain packet that has to take a detour on its way from one tunnel to another does so before it
/// is changed.
#[test]
fn a_detour_is_taken_before_the_packet_is_changed() {
    let mut bench = bench();
    let mut plane = world();
    add(&mut plane, ALL);
    bench.apply(plane);
    let inner = Packet::new(KEYED.beyond(), ALL.beyond());
    let frame = through(KEYED, &inner.bytes());
    bench.lay_detour(false);
    let (run, moved) = bench.run(Hook::Xdp(WAN), Context::default(), &frame);
    bench.lay_detour(true);
    assert_eq!((run.action, run.bytes), (2, frame));
    assert_eq!(moved, [(Counter::Outcome(0, "detour"), 1)].into());
}
