//! ICMP errors about outer packets, and to inner senders.

use etherparse::{Icmpv4Header, Icmpv4Type, icmpv4};

use super::{super::super::path_mtu::LIFETIME, *};

fn path_mtu(mtu: Option<u16>) -> Action {
    Action::PathMtu(PathMtu { tunnel: "tunnel0".to_owned(), remote: REMOTE.into(), mtu })
}

fn frag_needed(mtu: u16) -> Input {
    let error = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
    icmp(error, &inner(1476, true))
}

/// An ICMP error of a router about a packet of the tunnel around `inner`.
fn icmp(error: icmpv4::DestUnreachableHeader, inner: &[u8]) -> Input {
    let quote = outer(inner, 1, [LOCAL, REMOTE]);
    let mut header = Icmpv4Header::new(Icmpv4Type::DestinationUnreachable(error));
    header.update_checksum(&quote);
    let message = [&header.to_bytes()[..], &quote].concat();
    let ip = Ipv4Header::new(message.len() as u16, 64, 1.into(), [203, 0, 113, 1], LOCAL).unwrap();
    Input::IcmpV4([&ip.to_bytes()[..], &message].concat())
}

#[test]
fn a_learned_path_mtu_is_told_to_senders_for_ten_minutes() {
    let mut bench = Bench::new(entry());
    let inner = inner(1400, true);

    let learned = bench.handle(&frag_needed(1300));
    assert_eq!(learned, [path_mtu(Some(1300))]);
    assert_eq!(bench.handle(&frag_needed(1300)), []);
    assert_eq!(bench.oversize(&inner), [told_mtu(&inner, 1276)]);
    let told = [("answered-too-big", 1), ("path-mtu-learned", 1), ("path-mtu-known", 1)];
    assert_eq!(bench.told, told);

    let expiry = bench.now + LIFETIME;
    assert_eq!(bench.slow.next_expiry(), Some(expiry));
    assert_eq!(bench.slow.expire(expiry), [path_mtu(None)]);
    assert_eq!(bench.slow.next_expiry(), None);
    bench.now = expiry;
    assert_eq!(sent(bench.oversize(&inner)).len(), 1);
    assert_eq!(bench.told[0], ("encapsulated", 1));
}

#[test]
fn other_errors_are_relayed_to_the_inner_sender() {
    let mut bench = Bench::new(entry());
    let inner = inner(28, true);
    let unreachable = icmp(icmpv4::DestUnreachableHeader::Network, &inner);

    let packets = sent(bench.handle(&unreachable));

    let complaint = Complaint::Unreachable;
    assert_eq!(packets, [answer::ipv4(complaint, &inner, ROUTER).unwrap()]);
    // A quote of the inner header and seven bytes, and one about a reflected error.
    let short = icmp(icmpv4::DestUnreachableHeader::Network, &inner[..27]);
    assert_eq!(bench.handle(&short), []);
    let mut error = inner.clone();
    (error[9], error[20]) = (1, 3);
    assert_eq!(bench.handle(&icmp(icmpv4::DestUnreachableHeader::Network, &error)), []);
    assert_eq!(bench.told, [("icmp-relayed", 1), ("icmp-unrelayable", 2)]);
}

#[test]
fn icmp_errors_about_others_packets_change_nothing() {
    let keyed = TunnelEntry { sent_key: Some(7), ..entry() };
    let elsewhere = TunnelEntry { local: OTHER.into(), ..entry() };
    for tunnel in [keyed, elsewhere] {
        let mut bench = Bench::new(tunnel);
        assert_eq!(bench.handle(&frag_needed(1300)), []);
        assert_eq!(bench.told, [("icmp-not-ours", 1)]);
    }
    let mut bench = Bench::new(entry());
    assert_eq!(bench.handle(&Input::IcmpV4(vec![0; 28])), []);
    assert_eq!(bench.handle(&Input::IcmpV6(vec![2; 7])), []);
    assert_eq!(bench.told, [("icmp-malformed", 2)]);
}

#[test]
fn icmp_errors_to_senders_are_limited() {
    let mut bench = Bench::new(entry());
    let inner = inner(1477, true);
    let answers: usize = (0..60).map(|_| bench.oversize(&inner).len()).sum();
    assert_eq!(answers, 50);
    assert_eq!(bench.told, [("answered-too-big", 50), ("rate-limited", 10)]);
}

#[test]
fn what_is_forgotten_with_a_tunnel() {
    let mut bench = Bench::new(entry());
    bench.handle(&frag_needed(1300));
    bench.oversize(&inner(1500, false));
    let moved = TunnelEntry { remote: OTHER.into(), ..entry() };
    bench.slow.set_tunnels(BTreeMap::from([(TUNNEL, moved)]));
    assert_eq!((bench.slow.next_expiry(), bench.slow.carried.len()), (None, 1));
    bench.slow.set_tunnels(BTreeMap::new());
    assert_eq!(bench.slow.carried.len(), 0);
    assert_eq!(bench.oversize(&inner(1500, true)), []);
    assert!(bench.told.contains(&("unknown-tunnel", 1)), "{:?}", bench.told);
}
