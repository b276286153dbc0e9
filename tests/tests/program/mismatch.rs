//! What is remembered of packets that a tunnel does not take (RFC 2890 asks for it).

use gre_ebpf_common::outcome::Outcome::{self, *};

use crate::{
    bench::{Context, Hook, bench},
    frame::{CHECKSUM_BIT, KEY_BIT, Options, SEQUENCE_BIT, from_wan, gre, inbound, received},
    world::{FREE, KEYED, PLAIN, Spec, WAN, add, world},
};

const ALL: Spec = Spec::new(FREE).with_checksums().with_sequence().with_key(0x77);

/// What a packet of these flags and this key leaves behind.
struct Row {
    tunnel: Spec,
    sent: Options,
    outcome: Outcome,
    /// First half word of the GRE header.
    flags: u16,
    key: u32,
}

fn rows() -> Vec<Row> {
    let sent = |checksum, key, number| Options { checksum, key, number };
    let row = |tunnel, sent, outcome, flags, key| Row { tunnel, sent, outcome, flags, key };
    let all = CHECKSUM_BIT | KEY_BIT | SEQUENCE_BIT;
    vec![
        row(PLAIN, sent(false, Some(5), None), KeyUnexpected, KEY_BIT, 5),
        row(PLAIN, sent(false, Some(0), None), KeyUnexpected, KEY_BIT, 0),
        row(PLAIN, sent(true, None, None), ChecksumUnexpected, CHECKSUM_BIT, 0),
        row(KEYED, sent(false, None, None), KeyMissing, 0, 0),
        row(KEYED, sent(false, Some(7), Some(1)), KeyMismatch, KEY_BIT | SEQUENCE_BIT, 7),
        row(
            KEYED,
            sent(true, KEYED.key, None),
            ChecksumUnexpected,
            CHECKSUM_BIT | KEY_BIT,
            0x0102_0304,
        ),
        row(ALL, sent(true, Some(0x78), Some(1)), KeyMismatch, all, 0x78),
        row(ALL, sent(false, ALL.key, Some(1)), ChecksumMissing, KEY_BIT | SEQUENCE_BIT, 0x77),
        row(ALL, sent(true, ALL.key, None), SequenceMissing, CHECKSUM_BIT | KEY_BIT, 0x77),
    ]
}

fn arriving(tunnel: Spec, sent: Options) -> Vec<u8> {
    from_wan(&received(tunnel, sent.gre(0x0800, &inbound(tunnel).bytes())).bytes())
}

const HOOKS: [Hook; 3] = [Hook::Xdp(WAN), Hook::XdpAny(WAN), Hook::TcIn(WAN)];

#[test]
fn d3_the_last_packet_that_did_not_fit_is_remembered_with_its_reason() {
    let mut bench = bench();
    let mut plane = world();
    add(&mut plane, ALL);
    bench.apply(plane);
    for hook in HOOKS {
        for Row { tunnel, sent, outcome, flags, key } in rows() {
            bench.reset();
            for packets in 1..=3 {
                bench.run(hook, Context::default(), &arriving(tunnel, sent));
                let found = bench.mismatch(tunnel.id);
                let base = [flags.to_be_bytes(), [8, 0]].concat();
                assert_eq!(found.gre.to_ne_bytes()[..], base, "{hook:?} {sent:x?}");
                assert_eq!(found.key.to_ne_bytes(), key.to_be_bytes(), "{hook:?} {sent:x?}");
                assert_eq!(found.outcome, outcome as u32, "{hook:?} {sent:x?}");
                assert_eq!(found.packets, packets, "{hook:?} {sent:x?}");
                assert!(0 < found.first && found.first <= found.last);
                assert_eq!(found.first == found.last, packets == 1);
            }
        }
    }
}

/// Each other kind begins a count of its own, and tunnels do not share theirs.
#[test]
fn d3_another_kind_of_packet_starts_anew() {
    let mut bench = bench();
    bench.apply(world());
    bench.reset();
    let key = |key| Options { key: Some(key), ..Options::default() };
    for (tunnel, sent, packets) in [
        (PLAIN, key(1), 1),
        (PLAIN, key(1), 2),
        (PLAIN, key(2), 1),
        (KEYED, key(1), 1),
        (PLAIN, key(2), 2),
        (PLAIN, key(1), 1),
        (KEYED, key(1), 2),
    ] {
        bench.run(Hook::Xdp(WAN), Context::default(), &arriving(tunnel, sent));
        assert_eq!(bench.mismatch(tunnel.id).packets, packets, "{sent:?} on {}", tunnel.id);
    }
}

/// Neither do packets that fit leave anything behind, nor those that are no tunnel's, nor damaged ones.
#[test]
fn d3_nothing_else_is_remembered() {
    let mut bench = bench();
    let mut plane = world();
    add(&mut plane, ALL);
    bench.apply(plane);
    bench.reset();
    let mut damaged = arriving(ALL, Options::received(ALL, 0));
    *damaged.last_mut().expect("it is not empty") ^= 1;
    let routing = received(PLAIN, gre(0x4000, 0x0800, &[], &inbound(PLAIN).bytes()));
    for hook in HOOKS {
        for tunnel in [PLAIN, KEYED, ALL] {
            bench.run(hook, Context::default(), &arriving(tunnel, Options::received(tunnel, 0)));
        }
        bench.run(hook, Context::default(), &damaged);
        bench.run(hook, Context::default(), &from_wan(&routing.bytes()));
    }
    for tunnel in [PLAIN, KEYED, ALL] {
        assert_eq!(bench.mismatch(tunnel.id), Default::default(), "{}", tunnel.id);
    }
}
