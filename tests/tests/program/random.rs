//! Whatever bytes come, no program fails half way, and each packet has one outcome.

use gre_ebpf_common::outcome::Outcome;
use gre_userspace::dataplane::DataPlane;
use nix::{
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};
use proptest::{prelude::*, sample::Index};

use crate::{
    bench::{Context, Counter, Counts, Hook, bench},
    decapsulate::to_the_gateway,
    encapsulate::fixtures,
    frame::{ETHERNET, Packet, frame, from_lan, inbound, outbound, patch, through},
    world::{FREE, KEYED, LAN, PLAIN, Spec, TUNNELS, WAN, add, world},
};

const ALL: Spec = Spec::new(FREE).with_checksums().with_sequence().with_key(0x0102_0305);

/// Valid frames, where they come in.
fn valid() -> Vec<(Hook, Vec<u8>)> {
    let mut frames = Vec::new();
    for (_, tunnel, packet) in fixtures() {
        frames.push((Hook::Xdp(LAN), from_lan(&packet.bytes())));
        frames.push((Hook::TcOut(tunnel.device()), frame([0; 6], [2; 6], &packet.bytes())));
    }
    frames.push((Hook::Xdp(LAN), from_lan(&outbound(ALL).bytes())));
    frames.push((Hook::TcOut(ALL.peer()), frame([0; 6], [2; 6], &outbound(ALL).bytes())));
    let transit = Packet::new(PLAIN.beyond(), KEYED.beyond());
    let back = Packet::new(ALL.beyond(), KEYED.beyond());
    let there = Packet::new(KEYED.beyond(), ALL.beyond());
    let inner = to_the_gateway().into_iter().map(|(_, tunnel, packet)| (tunnel, packet));
    let inner = inner.chain(TUNNELS.map(|tunnel| (tunnel, inbound(tunnel)))).chain([
        (PLAIN, transit),
        (ALL, back),
        (KEYED, there),
        (ALL, inbound(ALL)),
    ]);
    for (tunnel, packet) in inner {
        for hook in [Hook::Xdp(WAN), Hook::TcIn(WAN)] {
            frames.push((hook, through(tunnel, &packet.bytes())));
        }
    }
    frames
}

/// Of the bytes of the headers, mostly.
fn mutations() -> impl Strategy<Value = Vec<(usize, u8)>> {
    let offset = prop_oneof![4 => 0..80usize, 1 => 0..1500usize];
    proptest::collection::vec((offset, any::<u8>()), 0..6)
}

fn mutilated(
    hook: Hook,
    mut frame: Vec<u8>,
    mutations: Vec<(usize, u8)>,
    cut: Option<Index>,
    sums: bool,
) -> Vec<u8> {
    for (offset, byte) in mutations {
        let offset = offset % frame.len();
        frame[offset] = byte;
    }
    if let Some(cut) = cut {
        let shortest = hook.shortest();
        frame.truncate(shortest + cut.index(frame.len() - shortest + 1));
    }
    // With a right checksum the mutilation gets further.
    if sums && frame.len() >= ETHERNET + 20 {
        let packet = patch(&frame[ETHERNET..], 0, &[]);
        frame.truncate(ETHERNET);
        frame.extend(packet);
    }
    frame
}

/// The world with a tunnel that has all options, and segment sizes to lower.
fn options() -> DataPlane {
    let mut plane = world();
    add(&mut plane, ALL);
    for tunnel in plane.tunnels.values_mut() {
        tunnel.mss = [1000, 1000];
    }
    plane
}

/// Identifications differ from CPU to CPU.
fn stay_on_a_cpu() {
    let mut cpus = CpuSet::new();
    cpus.set(sched_getcpu().expect("sched_getcpu")).expect("it is a CPU's number");
    sched_setaffinity(Pid::from_raw(0), &cpus).expect("sched_setaffinity");
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

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 8192,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// What the plain program does itself it does as the other would.
    #[test]
    fn both_xdp_programs_do_the_same_with_any_frame(
        (which, mutations, cut) in (any::<Index>(), mutations(), any::<Option<Index>>()),
        sums in any::<bool>(),
    ) {
        let valid = valid();
        let valid: Vec<_> = valid.iter().filter(|(hook, _)| matches!(hook, Hook::Xdp(_))).collect();
        let (hook, frame) = which.get(&valid);
        let Hook::Xdp(port) = hook else { unreachable!("others were left out") };
        let frame = mutilated(*hook, frame.clone(), mutations, cut, sums);
        let mut bench = bench();
        stay_on_a_cpu();
        bench.apply(options());
        let [plain, any] = [*hook, Hook::XdpAny(*port)].map(|hook| {
            bench.reset();
            bench.run(hook, Context::default(), &frame)
        });
        prop_assert_eq!(plain, any, "{:?} {:02x?}", hook, frame);
    }

    #[test]
    fn mutilated_frames_are_never_aborted_and_counted_once(
        (which, mutations, cut) in (any::<Index>(), mutations(), any::<Option<Index>>()),
        sums in any::<bool>(),
    ) {
        let valid = valid();
        let (hook, frame) = which.get(&valid).clone();
        let frame = mutilated(hook, frame, mutations, cut, sums);
        // As of IPv4, the kernel runs TC on no IPv6 shorter than its header.
        prop_assume!(matches!(hook, Hook::Xdp(_)) || frame[12..14] != [0x86, 0xdd]);
        let mut bench = bench();
        bench.apply(options());
        let (_, moved) = bench.run(hook, Context::default(), &frame);
        let outcomes = outcomes(&moved);
        prop_assert_eq!(outcomes.len(), 1, "{:?}", moved);
        prop_assert_ne!(outcomes[0], Outcome::Aborted.label(), "{:?} {:02x?}", hook, frame);
    }
}
