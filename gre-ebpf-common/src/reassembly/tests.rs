use etherparse::{IpNumber, Ipv4Header as Reference};
use proptest::prelude::*;

use super::*;

const FIRST: Fragment = Fragment {
    source: 1,
    destination: 2,
    identification: 3,
    offset: 0,
    len: 1480,
    ecn: 0,
    more: true,
};
const LAST: Fragment = Fragment { offset: 1480, len: 24, more: false, ..FIRST };
const MIDDLE: Fragment = Fragment { more: true, ..LAST };
const OTHER: Fragment = Fragment { identification: 4, ..FIRST };

const NOW: u64 = 100 * TIMEOUT_NS;

fn slot(state: State, fragment: Fragment, age: u64) -> Slot {
    Slot { fragment, since: NOW - age, tunnel: 0, state: state as u32 }
}

fn next(slots: &[Slot], fragment: Fragment) -> (Action, usize) {
    let mut all = [Slot::default(); WAYS];
    all[..slots.len()].copy_from_slice(slots);
    step(&all, &fragment, NOW)
}

#[test]
fn rfc791_two_fragments_are_a_packet_in_either_order() {
    for (held, fragment) in [(FIRST, LAST), (LAST, FIRST)] {
        assert_eq!(next(&[], held), (Action::Hold, 0));
        let others = slot(State::Held, OTHER, 0);
        let held = slot(State::Held, held, TIMEOUT_NS - 1);
        assert_eq!(next(&[held], fragment), (Action::Join, 0));
        assert_eq!(next(&[others, Slot::default(), held], fragment), (Action::Join, 2));
    }
}

#[test]
fn rfc5722_what_is_not_exactly_adjacent_is_for_the_daemon() {
    for (held, fragment) in [
        (FIRST, FIRST),
        (LAST, LAST),
        (FIRST, Fragment { offset: 1472, ..LAST }),
        (FIRST, Fragment { offset: 1488, ..LAST }),
        (Fragment { offset: 1472, ..LAST }, FIRST),
        (FIRST, MIDDLE),
        (LAST, MIDDLE),
        (FIRST, Fragment { ecn: 3, ..LAST }),
    ] {
        let held = [slot(State::Held, held, 5)];
        assert_eq!(next(&held, fragment), (Action::Release, 0), "{held:?} {fragment:?}");
    }
    assert_eq!(next(&[], MIDDLE), (Action::Divert, 0));
}

#[test]
fn what_follows_a_fragment_that_the_daemon_has_it_gets_as_well() {
    for fragment in [FIRST, MIDDLE, LAST] {
        let slots = [slot(State::Held, OTHER, 0), slot(State::WithDaemon, MIDDLE, 9)];
        assert_eq!(next(&slots, fragment), (Action::Daemon, 1));
    }
}

#[test]
fn of_another_packet_none_is_taken() {
    for other in [
        Fragment { source: 9, ..LAST },
        Fragment { destination: 9, ..LAST },
        Fragment { identification: 9, ..LAST },
    ] {
        assert_eq!(next(&[slot(State::Held, FIRST, 0)], other), (Action::Hold, 1));
    }
}

#[test]
fn what_has_waited_too_long_is_not_used_and_gives_way() {
    let held = slot(State::Held, FIRST, TIMEOUT_NS);
    assert_eq!(next(&[held; WAYS], LAST), (Action::Hold, 0));
    let young = slot(State::Held, OTHER, TIMEOUT_NS - 1);
    assert_eq!(next(&[young, young, held, young], LAST), (Action::Hold, 2));
}

#[test]
fn a_full_bucket_keeps_what_waits_and_forgets_what_the_daemon_has_longest() {
    let waits = slot(State::Held, OTHER, 10);
    assert_eq!(next(&[waits; WAYS], FIRST), (Action::Daemon, 0));
    assert_eq!(next(&[waits; WAYS], MIDDLE), (Action::Daemon, 0));
    let gone = |age| slot(State::WithDaemon, OTHER, age);
    assert_eq!(next(&[waits, gone(5), gone(7), gone(6)], FIRST), (Action::Hold, 2));
    assert_eq!(next(&[waits, gone(5), gone(7), Slot::default()], FIRST), (Action::Hold, 3));
}

#[test]
fn packets_one_after_another_spread_over_the_buckets() {
    const BUCKETS: u32 = 256;
    let mut counts = [0; BUCKETS as usize];
    for identification in 0..1024u16 {
        let fragment = Fragment { identification: identification.to_be(), ..FIRST };
        counts[fragment.bucket(BUCKETS) as usize] += 1;
    }
    assert!(counts.iter().all(|&count| count <= 16), "{counts:?}");
    assert!(counts.iter().filter(|&&count| count > 0).count() > 200);
}

fn header(reference: &Reference) -> Ipv4Header {
    Ipv4Header::from_bytes(reference.to_bytes()[..].try_into().unwrap())
}

proptest! {
    #[test]
    fn a_fragment_is_what_etherparse_says(
        len in 0u16..2000, offset in 0u16..0x2000, more: bool, id: u16, tos: u8,
    ) {
        let mut reference = Reference::new(len, 9, IpNumber::GRE, [1; 4], [2; 4]).unwrap();
        reference.identification = id;
        reference.fragment_offset = offset.try_into().unwrap();
        reference.more_fragments = more;
        reference.ecn = (tos & 3).try_into().unwrap();
        let fragment = Fragment::of(&header(&reference));
        prop_assert_eq!(fragment.is_some(), len > 0 && (!more || len % 8 == 0));
        if let Some(fragment) = fragment {
            prop_assert_eq!(fragment.offset, offset * 8);
            prop_assert_eq!((fragment.len, fragment.more, fragment.ecn), (len, more, tos & 3));
            prop_assert_eq!(u16::from_be(fragment.identification), id);
        }
    }

    #[test]
    fn the_whole_packet_has_the_first_fragments_header(len in 28u16..4000, id: u16, tos: u8) {
        let mut reference = Reference::new(8, 9, IpNumber::GRE, [1; 4], [2; 4]).unwrap();
        reference.identification = id;
        reference.more_fragments = true;
        reference.dont_fragment = false;
        reference.dscp = (tos >> 2).try_into().unwrap();
        let first = header(&reference);
        reference.more_fragments = false;
        reference.total_len = len;
        reference.header_checksum = reference.calc_header_checksum();
        prop_assert_eq!(first.cut(len, 0), header(&reference));
    }
}
