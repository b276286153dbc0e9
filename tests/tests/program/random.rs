//! Whatever bytes come, no program fails half way, and each packet has one outcome.

use gre_ebpf_common::outcome::Outcome;
use proptest::{prelude::*, sample::Index};

use crate::{
    bench::{Context, Counter, Counts, Hook, bench},
    decapsulate::to_the_gateway,
    encapsulate::fixtures,
    frame::{ETHERNET, Packet, frame, from_lan, inbound, patch, through},
    world::{KEYED, LAN, PLAIN, TUNNELS, WAN, world},
};

/// Valid frames, where they come in.
fn valid() -> Vec<(Hook, Vec<u8>)> {
    let mut frames = Vec::new();
    for (_, tunnel, packet) in fixtures() {
        frames.push((Hook::Xdp(LAN), from_lan(&packet.bytes())));
        frames.push((Hook::TcOut(tunnel.device()), frame([0; 6], [2; 6], &packet.bytes())));
    }
    let transit = Packet::new(PLAIN.beyond(), KEYED.beyond());
    let inner = to_the_gateway().into_iter().map(|(_, tunnel, packet)| (tunnel, packet));
    let inner =
        inner.chain(TUNNELS.map(|tunnel| (tunnel, inbound(tunnel)))).chain([(PLAIN, transit)]);
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

    #[test]
    fn mutilated_frames_are_never_aborted_and_counted_once(
        (which, mutations, cut) in (any::<Index>(), mutations(), any::<Option<Index>>()),
        sums in any::<bool>(),
    ) {
        let valid = valid();
        let (hook, mut frame) = which.get(&valid).clone();
        for (offset, byte) in mutations {
            let offset = offset % frame.len();
            frame[offset] = byte;
        }
        if let Some(cut) = cut {
            let shortest = hook.shortest();
            frame.truncate(shortest + cut.index(frame.len() - shortest + 1));
        }
        // As of IPv4, the kernel runs TC on no IPv6 shorter than its header.
        prop_assume!(matches!(hook, Hook::Xdp(_)) || frame[12..14] != [0x86, 0xdd]);
        // With a right checksum the mutilation gets further.
        if sums && frame.len() >= ETHERNET + 20 {
            let packet = patch(&frame[ETHERNET..], 0, &[]);
            frame.truncate(ETHERNET);
            frame.extend(packet);
        }
        let mut bench = bench();
        bench.apply(world());
        let (_, moved) = bench.run(hook, Context::default(), &frame);
        let outcomes = outcomes(&moved);
        prop_assert_eq!(outcomes.len(), 1, "{:?}", moved);
        prop_assert_ne!(outcomes[0], Outcome::Aborted.label(), "{:?} {:02x?}", hook, frame);
    }
}
