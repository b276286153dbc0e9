//! Sequence numbers sent: from zero on, each once, whichever program sends.

use gre_ebpf_common::sequence::Sequence;

use crate::{
    bench::{Context, Hook},
    frame::{
        ETHERNET, Options, Packet, frame, from_lan, from_wan, numbered, outbound, received,
        to_underlay,
    },
    sequence::{ALL, LINUX, ready},
    world::{FREE, KEYED, LAN, PLAIN, WAN},
};

/// LAN, device and hub take numbers from one sequence.
#[test]
fn t8_rfc2890_2_numbers_sent_count_up_from_zero_across_the_tiers() {
    for tunnel in [LINUX, ALL] {
        let mut bench = ready(tunnel);
        let out = outbound(tunnel);
        let through = Packet::new(KEYED.beyond(), tunnel.beyond());
        let hub = from_wan(
            &received(KEYED, Options::received(KEYED, 0).gre(0x0800, &through.bytes())).bytes(),
        );
        let ways = [
            (Hook::Xdp(LAN), from_lan(&out.bytes()), out.forwarded()),
            (Hook::TcOut(tunnel.peer()), frame([0; 6], [2; 6], &out.bytes()), out.clone()),
            (Hook::XdpAny(LAN), from_lan(&out.bytes()), out.forwarded()),
            (Hook::Xdp(WAN), hub, through.forwarded()),
        ];
        for number in 0..40 {
            let (hook, frame, inner) = &ways[number as usize % ways.len()];
            let (run, _) = bench.run(*hook, Context::default(), frame);
            let id = u16::from_be_bytes([run.bytes[ETHERNET + 4], run.bytes[ETHERNET + 5]]);
            let expected = to_underlay(&numbered(tunnel, inner, id, number).bytes());
            assert_eq!(run.bytes[ETHERNET..], expected[ETHERNET..], "{number}, {hook:?}");
        }
        assert_eq!(bench.sequence(FREE).sent, 40);
    }
}

#[test]
fn rfc2890_2_numbers_sent_wrap() {
    let mut bench = ready(LINUX);
    let mut sequence = Sequence::default();
    sequence.sent = 0xffff_ffff;
    bench.set_sequence(FREE, sequence);
    let out = outbound(LINUX);
    for number in [u32::MAX, 0, 1] {
        let (run, _) = bench.run(Hook::Xdp(LAN), Context::default(), &from_lan(&out.bytes()));
        let id = u16::from_be_bytes([run.bytes[ETHERNET + 4], run.bytes[ETHERNET + 5]]);
        assert_eq!(run.bytes, to_underlay(&numbered(LINUX, &out.forwarded(), id, number).bytes()));
    }
}

/// A packet that is not sent takes no number with it.
#[test]
fn t8_what_is_passed_on_leaves_no_gap() {
    let mut bench = ready(LINUX);
    for packet in [outbound(LINUX).long(LINUX.mtu() + 1), outbound(PLAIN)] {
        bench.run(Hook::Xdp(LAN), Context::default(), &from_lan(&packet.bytes()));
    }
    // The device finishes it first.
    let device = frame([0; 6], [2; 6], &outbound(LINUX).bytes());
    bench.run(Hook::TcOut(LINUX.device()), Context::default(), &device);
    assert_eq!(bench.sequence(FREE).sent, 0);
}
