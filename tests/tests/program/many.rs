//! As many tunnels as a large hub has: each is found, and no other.

use std::collections::BTreeSet;

use gre_ebpf_common::{
    demux::{Key, Kind},
    next_hop::{self, NextHop},
    outcome::Outcome,
    tunnel::{Ends, Expected, Flags, Outer, Tunnel},
};
use gre_userspace::{dataplane::DataPlane, model::Limits};

use crate::{
    bench::{Bench, Hook, bench},
    frame::{Options, Packet, from_remote, from_wan, to_host},
    world::{HOST, LIMITS, LOCAL, PLAIN, ROUTED, TO_GATEWAY, WAN, remove_all, world},
};

const TUNNELS: u32 = 100_000;
/// Every so many are looked up, a prime.
const STEP: usize = 251;

/// Even ones have an address of their own, odd ones share it with the one before and have a key.
fn remote(id: u32) -> [u8; 4] {
    (0x6440_0000 + id / 2).to_be_bytes()
}

fn key(id: u32) -> Option<u32> {
    (id % 2 == 1).then_some(id / 2)
}

fn ends(id: u32) -> Ends {
    Ends::v4(u32::from_ne_bytes(LOCAL), u32::from_ne_bytes(remote(id)))
}

fn hub() -> DataPlane {
    let mut plane = world();
    remove_all(&mut plane);
    for id in 0..TUNNELS {
        let outer = Outer { key: key(id), ..Outer::new(ends(id)) };
        let mut record = Tunnel::new(outer, Expected { key: key(id), ..Expected::default() });
        record.flags = record.flags.with(Flags::UP, true).with(Flags::FORWARDING, true);
        record.next_hop = TO_GATEWAY;
        record.device = PLAIN.way_to_device();
        record.ifindex = PLAIN.device();
        record.mtu = 1476;
        plane.tunnels.insert(id, record);
        for kind in [Kind::from_key(key(id).map(u32::to_be)), Kind::PAIR] {
            plane.demux.entry(Key { ends: ends(id), kind, link: 0 }).or_insert(id);
        }
    }
    let ready = next_hop::Flags::RESOLVED.with(next_hop::Flags::NATIVE_REDIRECT, true);
    let way = NextHop::new(PLAIN.device_mac(), PLAIN.peer_mac(), PLAIN.peer(), 1500, ready);
    plane.next_hops.insert(PLAIN.way_to_device(), way);
    plane
}

fn arriving(remote: [u8; 4], key: Option<u32>) -> Vec<u8> {
    let inner = Packet::new(ROUTED, HOST).bytes();
    from_wan(
        &from_remote(remote, Options { key, ..Options::default() }.gre(0x0800, &inner)).bytes(),
    )
}

const XDP: [Hook; 2] = [Hook::Xdp(WAN), Hook::XdpAny(WAN)];

#[test]
fn l1_each_of_a_hundred_thousand_tunnels_is_found_and_strangers_are_not() {
    // One at a time: both load the programs.
    let first = bench();
    let mut bench = Bench::new(&Limits { tunnels: TUNNELS, ..LIMITS });
    bench.enter();
    bench.apply(hub());
    let out = to_host(&Packet::new(ROUTED, HOST).forwarded().bytes());
    let mut counted = BTreeSet::new();
    for id in (0..TUNNELS).step_by(STEP).chain([1, TUNNELS - 1]) {
        for hook in XDP {
            let run = bench.send(hook, &arriving(remote(id), key(id)));
            assert_eq!((run.action, &run.bytes), (4, &out), "{id}, {hook:?}");
        }
        let device = bench.send(Hook::TcIn(WAN), &arriving(remote(id), key(id)));
        assert_eq!(device.action, 7, "{id}");
        // By this tunnel, and no other: those before it have had theirs.
        assert_eq!(bench.received(id), (3, 180), "{id}");
        assert!(counted.insert(id));
    }
    assert_eq!((0..TUNNELS).map(|id| bench.received(id).0).sum::<u64>(), 3 * counted.len() as u64);

    // All of them, where a frame alone must do: their keys' buckets may be full.
    for id in 0..TUNNELS {
        let run = bench.send(Hook::Xdp(WAN), &arriving(remote(id), key(id)));
        assert_eq!(run.action, 4, "{id}");
    }

    // Beyond the last remote, and before the first.
    let strangers = (0..400).map(|n| (0x6440_0000 + TUNNELS / 2 + n * 77).to_be_bytes());
    for stranger in strangers.chain([[0x64, 0x3f, 0xff, 0xff]]) {
        for hook in XDP.into_iter().chain([Hook::TcIn(WAN)]) {
            for key in [None, Some(7)] {
                let before = bench.outcome(hook.tier(), Outcome::NoTunnel);
                bench.send(hook, &arriving(stranger, key));
                let after = bench.outcome(hook.tier(), Outcome::NoTunnel);
                assert_eq!(after, before + 1, "{stranger:?}, {hook:?}");
            }
        }
    }
    // The key of another tunnel.
    for id in (1..TUNNELS).step_by(2 * STEP) {
        for hook in XDP.into_iter().chain([Hook::TcIn(WAN)]) {
            let before = bench.outcome(hook.tier(), Outcome::KeyUnexpected)
                + bench.outcome(hook.tier(), Outcome::KeyMismatch);
            bench.send(hook, &arriving(remote(id), Some(id / 2 + 1)));
            let after = bench.outcome(hook.tier(), Outcome::KeyUnexpected)
                + bench.outcome(hook.tier(), Outcome::KeyMismatch);
            assert_eq!(after, before + 1, "{id}, {hook:?}");
        }
    }
    drop(first);
}
