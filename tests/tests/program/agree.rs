//! The tiers put the same bytes on the wire and let the same packets out of a tunnel.

use crate::{
    bench::{Context, Hook, bench},
    decapsulate::to_the_gateway,
    encapsulate::fixtures,
    frame::{ETHERNET, frame, from_lan, patch, through},
    world::{LAN, WAN, world},
};

/// XDP gets the packet from the LAN, TC after the kernel has forwarded it.
#[test]
fn both_tiers_encapsulate_alike_but_for_the_identification() {
    let mut bench = bench();
    bench.apply(world());
    for (what, tunnel, packet) in fixtures() {
        let (xdp, _) = bench.run(Hook::Xdp(LAN), Context::default(), &from_lan(&packet.bytes()));
        let forwarded = frame([0; 6], [2; 6], &packet.forwarded().bytes());
        let (tc, _) = bench.run(Hook::TcOut(tunnel.device()), Context::default(), &forwarded);
        let [xdp, tc] = [xdp, tc].map(|run| patch(&run.bytes[ETHERNET..], 4, &[0, 0]));
        assert!(xdp.len() == packet.bytes().len() + usize::from(tunnel.overhead()), "{what}");
        assert_eq!(xdp, tc, "{what}");
    }
}

#[test]
fn both_tiers_hand_the_same_frame_to_the_device() {
    let mut bench = bench();
    bench.apply(world());
    for (what, tunnel, inner) in to_the_gateway() {
        let outer = through(tunnel, &inner.bytes());
        let (xdp, _) = bench.run(Hook::Xdp(WAN), Context::default(), &outer);
        let (tc, _) = bench.run(Hook::TcIn(WAN), Context::default(), &outer);
        assert_eq!(xdp.bytes.len(), ETHERNET + inner.bytes().len(), "{what}");
        assert_eq!(xdp.bytes, tc.bytes, "{what}");
    }
}
