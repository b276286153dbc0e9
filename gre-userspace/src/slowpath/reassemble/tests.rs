use proptest::prelude::*;

use super::{
    super::{
        fragment::{self, tests::packet_v4, tests::packet_v6},
        packet::seal_ipv4,
    },
    *,
};

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| i as u8).collect()
}

/// What has happened, by label.
fn told(counts: &Counts) -> Vec<(&'static str, u64)> {
    counts.happened().map(|(label, _, packets)| (label, packets)).collect()
}

/// Adds all; the packets that became whole.
fn add(reassembler: &mut Reassembler, fragments: &[Vec<u8>], counts: &mut Counts) -> Vec<Vec<u8>> {
    let now = Instant::now();
    fragments.iter().filter_map(|fragment| reassembler.add(fragment, now, counts)).collect()
}

/// Adds all to an empty one; the packets that became whole, and what else happened.
fn result(fragments: &[Vec<u8>]) -> (Vec<Vec<u8>>, Vec<(&'static str, u64)>) {
    let (mut reassembler, mut counts) = (Reassembler::default(), Counts::default());
    let whole = add(&mut reassembler, fragments, &mut counts);
    (whole, told(&counts))
}

/// A fragment of IPv4 with the payload `bytes[at..to]`.
fn cut(bytes: &[u8], at: usize, to: usize, more: bool) -> Vec<u8> {
    let mut packet = packet_v4(&bytes[at..to], &[]);
    let word = (at / 8) as u16 | u16::from(more) << 13;
    packet[6..8].copy_from_slice(&word.to_be_bytes());
    seal_ipv4(&mut packet[..20]);
    packet
}

proptest! {
    /// In any order, each any number of times.
    #[test]
    fn fragments_in_any_order_make_up_the_packet(
        (len, mtu, v6) in (1500usize..9000, 1280usize..1500, any::<bool>()),
        order in Just((0..8).collect::<Vec<usize>>()).prop_shuffle(),
        twice in 0usize..8,
    ) {
        let packet = if v6 { packet_v6(&payload(len)) } else { packet_v4(&payload(len), &[]) };
        let fragments = if v6 {
            fragment::ipv6(&packet, mtu, 7).unwrap()
        } else {
            fragment::ipv4(&packet, mtu).unwrap()
        };
        let mut order: Vec<_> = order.into_iter().filter(|&i| i < fragments.len()).collect();
        let twice = twice % fragments.len();
        if order.last() != Some(&twice) {
            order.insert(order.iter().position(|&i| i == twice).unwrap(), twice);
        }
        let shuffled: Vec<_> = order.iter().map(|&i| fragments[i].clone()).collect();
        let (mut reassembler, mut counts) = (Reassembler::default(), Counts::default());
        prop_assert_eq!(add(&mut reassembler, &shuffled, &mut counts), [packet]);
        let duplicates = (order.len() - fragments.len()) as u64;
        let held = fragments.len() as u64 - 1;
        let expected = [("fragment-held", held), ("fragment-duplicate", duplicates)];
        let expected: Vec<_> = expected.into_iter().filter(|(_, n)| *n > 0).collect();
        prop_assert_eq!(told(&counts), expected);
        prop_assert_eq!((reassembler.bytes, reassembler.by_age.len()), (0, 0));
    }
}

#[test]
fn what_is_no_fragment_is_whole_at_once() {
    for packet in [packet_v4(&payload(40), &[]), packet_v6(&payload(40))] {
        assert_eq!(result(std::slice::from_ref(&packet)), (vec![packet], vec![]));
    }
    // RFC 6946: an atomic fragment.
    let packet = packet_v6(&payload(40));
    let mut atomic = fragment::ipv6(&packet, 1280, 7).unwrap();
    assert_eq!(atomic[0].len(), packet.len() + 8);
    assert_eq!(result(&atomic), (vec![packet.clone()], vec![]));
    // It has nothing to do with fragments of its identification.
    let mut others = fragment::ipv6(&packet_v6(&payload(2000)), 1280, 7).unwrap();
    others.insert(1, atomic.remove(0));
    let whole = vec![packet, packet_v6(&payload(2000))];
    assert_eq!(result(&others), (whole, vec![("fragment-held", 1)]));
}

#[test]
fn overlapping_fragments_take_their_packet_with_them() {
    let bytes = payload(64);
    let ok = [cut(&bytes, 0, 32, true), cut(&bytes, 32, 64, false)];
    assert_eq!(result(&ok).0, [packet_v4(&bytes, &[])]);
    let mut other = bytes.clone();
    other[3] ^= 1;
    for overlapping in [
        cut(&bytes, 0, 16, true),
        cut(&bytes, 8, 16, true),
        cut(&bytes, 24, 40, true),
        cut(&other, 0, 32, true),
    ] {
        let fragments = [ok[0].clone(), overlapping, ok[1].clone(), ok[0].clone()];
        let expected = vec![("fragment-held", 1), ("fragment-overlap", 3)];
        assert_eq!(result(&fragments), (vec![], expected));
    }
    // Behind the end, and an end in front of what has come.
    for fragments in [
        [cut(&bytes, 32, 40, false), cut(&bytes, 40, 48, true)],
        [cut(&bytes, 40, 48, true), cut(&bytes, 32, 40, false)],
        [cut(&bytes, 32, 40, false), cut(&bytes, 40, 48, false)],
        [cut(&bytes, 32, 40, false), cut(&bytes, 32, 40, true)],
    ] {
        let expected = vec![("fragment-held", 1), ("fragment-overlap", 1)];
        assert_eq!(result(&fragments), (vec![], expected));
    }
}

#[test]
fn impossible_fragments_are_refused() {
    let bytes = payload(65_000);
    for fragment in [
        cut(&bytes, 0, 12, true),
        cut(&bytes, 8, 8, true),
        packet_v4(&bytes[..30], &[])[..40].to_vec(),
    ] {
        assert_eq!(result(&[fragment]), (vec![], vec![("fragment-malformed", 1)]));
    }
    // Longer together than a packet can be.
    let mut far = cut(&bytes, 0, 16, false);
    far[6..8].copy_from_slice(&0x1fffu16.to_be_bytes());
    assert_eq!(result(&[far]), (vec![], vec![("fragment-malformed", 1)]));
}

#[test]
fn packets_of_other_addresses_or_identifications_are_others() {
    let bytes = payload(64);
    let (first, last) = (cut(&bytes, 0, 32, true), cut(&bytes, 32, 64, false));
    for at in [4, 9, 12, 16] {
        let mut last = last.clone();
        last[at] ^= 1;
        assert_eq!(result(&[first.clone(), last]), (vec![], vec![("fragment-held", 2)]));
    }
}

#[test]
fn congestion_on_a_fragment_is_congestion_on_the_packet() {
    let bytes = payload(64);
    let marked = |ecn: [u8; 2]| {
        let mut fragments = [cut(&bytes, 0, 32, true), cut(&bytes, 32, 64, false)];
        for (fragment, ecn) in fragments.iter_mut().zip(ecn) {
            fragment[1] = ecn;
        }
        result(&fragments)
    };
    for (ecn, expected) in [([2, 3], 3), ([3, 2], 3), ([3, 3], 3), ([2, 2], 2), ([0, 2], 0)] {
        let packet = marked(ecn).0.remove(0);
        assert_eq!(packet[1], expected, "{ecn:?}");
        assert!(Ipv4::whole(&packet).unwrap().checksum_is_right());
    }
    let dropped = vec![("fragment-held", 1), ("fragment-ecn", 1)];
    assert_eq!(marked([0, 3]), (vec![], dropped));
}

#[test]
fn incomplete_packets_are_given_up_after_thirty_seconds() {
    let bytes = payload(64);
    let (mut reassembler, mut counts) = (Reassembler::default(), Counts::default());
    let start = Instant::now();
    let (first, last) = (cut(&bytes, 0, 32, true), cut(&bytes, 32, 64, false));
    reassembler.add(&first, start, &mut counts);
    assert_eq!(reassembler.next_expiry(), Some(start + TIMEOUT));
    let late = start + TIMEOUT;
    reassembler.expire(late - Duration::from_nanos(1), &mut counts);
    assert_eq!(told(&counts), [("fragment-held", 1)]);
    assert_eq!(reassembler.add(&last, late, &mut counts), None);
    assert_eq!(told(&counts), [("fragment-held", 2), ("reassembly-timeout", 1)]);
    assert_eq!(reassembler.waiting.len(), 1);
}

#[test]
fn the_oldest_gives_way_when_there_are_too_many() {
    let bytes = payload(64);
    let numbered = |id: u8, fragment: &[u8]| [&fragment[..5], &[id], &fragment[6..]].concat();
    let first: Vec<_> = (0..3).map(|id| numbered(id, &cut(&bytes, 0, 32, true))).collect();
    let last: Vec<_> = (0..3).map(|id| numbered(id, &cut(&bytes, 32, 64, false))).collect();
    for bounds in [Bounds { packets: 2, bytes: 1 << 20 }, Bounds { packets: 9, bytes: 1000 }] {
        let (mut reassembler, mut counts) = (Reassembler::new(bounds), Counts::default());
        assert_eq!(add(&mut reassembler, &first, &mut counts).len(), 0);
        assert_eq!(told(&counts), [("fragment-held", 3), ("reassembly-evicted", 1)]);
        assert!(reassembler.bytes <= bounds.bytes);
        assert_eq!(add(&mut reassembler, &last[1..], &mut counts).len(), 2);
        assert_eq!((reassembler.bytes, reassembler.by_age.len()), (0, 0));
    }
}
