//! Outer fragments, in TC: a packet in two is put together there, and of any other the daemon gets
//! all. Without a daemon the kernel does.

use gre_ebpf_common::{
    event::Kind,
    outcome::Outcome::{self, *},
};

use crate::{
    bench::{Bench, Context, Counter, Counts, Hook, Run},
    case::{Case, check},
    frame::{Packet, from_wan, gre_of, inbound, received, set_tos, to_device},
    handed_up::{drain, ready},
    world::{FREE, KEYED, PLAIN, Spec, WAN, add},
};

const HOOK: Hook = Hook::TcIn(WAN);
const SUMMED: Spec = Spec::new(FREE).with_checksums();
const ALL: Spec = Spec::new(FREE).with_checksums().with_sequence().with_key(0x77);

/// The outer packet around an inner one of this many bytes.
fn outer(tunnel: Spec, inner: u16) -> (Packet, Vec<u8>) {
    let inner = inbound(tunnel).varied(inner).bytes();
    let outer = received(tunnel, gre_of(tunnel, &inner));
    (outer.with(|header| header.identification = 77), inner)
}

/// Frames of the fragments of a packet's payload that start at these bytes; no two in a row the same.
fn pieces<const N: usize>(packet: &Packet, starts: [usize; N]) -> [Vec<u8>; N] {
    let end = packet.payload.len();
    std::array::from_fn(|i| {
        let next = starts.get(i + 1).copied().unwrap_or(end);
        from_wan(&piece(packet, starts[i], next).bytes())
    })
}

fn piece(packet: &Packet, start: usize, end: usize) -> Packet {
    let mut piece = packet.clone().with(|header| {
        header.fragment_offset = u16::try_from(start / 8).unwrap().try_into().unwrap();
        header.more_fragments = end < packet.payload.len();
    });
    piece.payload = packet.payload[start..end].to_vec();
    piece
}

/// What the program makes of the other half.
fn joins(what: &str, tunnel: Spec, inner: &[u8], held: Vec<u8>, other: Vec<u8>) -> Case {
    let out = to_device(tunnel, inner);
    Case::new(format!("{what}, {tunnel:?}"), HOOK, other)
        .after([(HOOK, held)])
        .sends(ToDevice, tunnel.peer(), move |_| out.clone())
        .received(tunnel, 1, inner.len())
        .given(move |plane| {
            if tunnel.id == FREE {
                add(plane, tunnel);
            }
        })
}

#[test]
fn rfc791_two_fragments_become_the_packet_in_either_order() {
    let mut cases = Vec::new();
    for tunnel in [PLAIN, KEYED, SUMMED, ALL] {
        // The first fragment as long as a link takes, and the second, and neither.
        for (len, at) in [(1500, 1480), (1477, 1480), (1500, 8), (1500, 16), (1000, 504)] {
            let (outer, inner) = outer(tunnel, len);
            let [first, last] = pieces(&outer, [0, at]);
            let case = |what, held: &[u8], other: &[u8]| {
                joins(what, tunnel, &inner, held.to_vec(), other.to_vec())
            };
            cases.push(case("in order", &first, &last));
            cases.push(case("the last first", &last, &first));
        }
    }
    check(cases);
}

#[test]
fn a_fragment_that_comes_first_waits() {
    let (outer, _) = outer(PLAIN, 1500);
    let frames = pieces(&outer, [0, 1480]);
    check(frames.map(|frame| Case::new("alone", HOOK, frame).consumes(FragmentWaiting)));
}

/// Ethernet's padding is no part of a fragment. Behind the whole packet it is as it is behind one that
/// came whole.
#[test]
fn padding_of_a_fragment_is_not_taken_for_payload() {
    let (outer, inner) = outer(PLAIN, 1500);
    let padded = |frame: &Vec<u8>| {
        let mut frame = frame.clone();
        frame.resize(frame.len() + 6, 0xee);
        frame
    };
    let [first, last] = pieces(&outer, [0, 1480]);
    check([
        joins("held", PLAIN, &inner, padded(&last), first.clone()),
        joins("held, in order", PLAIN, &inner, padded(&first), last.clone()),
    ]);
    let out = [to_device(PLAIN, &inner), vec![0xee; 6]].concat();
    check([(first.clone(), padded(&last)), (last, padded(&first))].map(|(held, other)| {
        let out = out.clone();
        joins("the second", PLAIN, &inner, held, other)
            .sends(ToDevice, PLAIN.peer(), move |_| out.clone())
    }));
}

/// The header is the first fragment's, the second may have come another way.
#[test]
fn the_first_fragments_header_counts() {
    let (outer, inner) = outer(PLAIN, 1500);
    let first = piece(&outer, 0, 1480);
    let last = piece(&outer, 1480, 1504).with(|header| {
        header.time_to_live = 3;
        set_tos(header, 0x20);
    });
    let [first, last] = [first, last].map(|packet| from_wan(&packet.bytes()));
    check([
        joins("in order", PLAIN, &inner, first.clone(), last.clone()),
        joins("the last first", PLAIN, &inner, last, first),
    ]);
}

/// A packet whose GRE header is no good is refused once it is whole, as one that came whole.
#[test]
fn what_is_wrong_with_the_packet_is_found_when_it_is_whole() {
    let (outer, _) = outer(SUMMED, 1500);
    let mut damaged = outer.clone();
    damaged.payload[1490] ^= 1;
    let [first, last] = pieces(&damaged, [0, 1480]);
    let whole = from_wan(&Packet { payload: damaged.payload.clone(), ..outer }.bytes());
    check([Case::new("checksum", HOOK, last)
        .after([(HOOK, first)])
        .given(|plane| add(plane, SUMMED))
        .drops(ChecksumWrong, SUMMED)
        .leaves(whole)]);
}

/// What comes of frames, one after another: the action, the outcome, and what the daemon gets.
fn follow(bench: &mut Bench, frames: &[Vec<u8>]) -> Vec<(Run, Counts, Vec<Vec<u8>>)> {
    let mut buffers = bench.listen();
    bench.reset();
    let results = frames.iter().map(|frame| {
        let (run, moved) = bench.run(HOOK, Context::default(), frame);
        let events = drain(&mut buffers).into_iter().map(|(event, frame)| {
            assert_eq!(event.kind, Kind::OuterFragment as u32);
            assert_eq!((event.tunnel, event.ifindex), (PLAIN.id, WAN));
            frame
        });
        (run, moved, events.collect())
    });
    results.collect()
}

fn outcome(outcome: Outcome) -> Counts {
    [(Counter::Outcome(1, outcome.label()), 1)].into()
}

/// Each of these waits or is the daemon's; `given` says which frames it has after each.
fn check_handed_up(what: &str, frames: &[Vec<u8>], given: &[&[usize]]) {
    let mut bench = ready();
    for (i, (run, moved, events)) in follow(&mut bench, frames).into_iter().enumerate() {
        assert_eq!(run.action, 7, "{what}: frame {i}");
        let waits = given[i].is_empty();
        let expected = if waits { FragmentWaiting } else { Reassembling };
        assert_eq!(moved, outcome(expected), "{what}: frame {i}");
        let handed: Vec<_> = given[i].iter().map(|&i| frames[i].clone()).collect();
        assert_eq!(events, handed, "{what}: frame {i}");
    }
}

#[test]
fn rfc7588_5_of_three_fragments_the_daemon_gets_all_in_any_order() {
    let (outer, _) = outer(PLAIN, 1500);
    let [a, b, c] = pieces(&outer, [0, 800, 1200]);
    let check = |what, frames: [&Vec<u8>; 3], given| {
        check_handed_up(what, &frames.map(Clone::clone), given);
    };
    check("in order", [&a, &b, &c], &[&[], &[0, 1], &[2]]);
    check("backwards", [&c, &b, &a], &[&[], &[0, 1], &[2]]);
    check("the middle last", [&a, &c, &b], &[&[], &[0, 1], &[2]]);
    check("the middle last, backwards", [&c, &a, &b], &[&[], &[0, 1], &[2]]);
    check("the middle first", [&b, &a, &c], &[&[0], &[1], &[2]]);
}

#[test]
fn rfc5722_duplicates_overlaps_and_gaps_are_the_daemons() {
    let (outer, _) = outer(PLAIN, 1500);
    let frame = |start, end| from_wan(&piece(&outer, start, end).bytes());
    let end = outer.payload.len();
    let (first, last) = (frame(0, 1480), frame(1480, end));
    let twice = |frame: &Vec<u8>, other: &Vec<u8>| [frame.clone(), frame.clone(), other.clone()];
    check_handed_up("first twice", &twice(&first, &last), &[&[], &[0, 1], &[2]]);
    check_handed_up("last twice", &twice(&last, &first), &[&[], &[0, 1], &[2]]);
    for (what, start) in [("overlap", 1472), ("gap", 1488), ("all of it again", 8)] {
        let other = frame(start, end);
        let given: &[&[usize]] = &[&[], &[0, 1]];
        check_handed_up(what, &[first.clone(), other.clone()], given);
        check_handed_up(what, &[other, first.clone()], given);
    }
    let mut congested = piece(&outer, 1480, end);
    set_tos(&mut congested.header, 3);
    let congested = from_wan(&congested.bytes());
    check_handed_up("congestion on one", &[first, congested], &[&[], &[0, 1]]);
}

/// No room, no such lengths, options: the daemon may know better.
#[test]
fn fragments_that_are_not_held_go_to_the_daemon() {
    let (outer, _) = outer(PLAIN, 3000);
    let short = piece(&outer, 0, 1480);
    let odd = {
        let mut packet = short.clone();
        packet.payload.pop();
        packet
    };
    let empty = Packet { payload: Vec::new(), ..piece(&outer, 1480, 3004) };
    let options = short.clone().with(|header| header.options = [1; 4].into());
    let long = piece(&outer, 0, 2016);
    for (what, packet) in
        [("odd", odd), ("empty", empty), ("options", options), ("too long to hold", long)]
    {
        check_handed_up(what, &[from_wan(&packet.bytes())], &[&[0]]);
    }
    // And the longest that is held.
    let held = from_wan(&piece(&outer, 0, 2008).bytes());
    check_handed_up("2042 bytes", &[held], &[&[]]);
}

#[test]
fn packets_between_the_same_addresses_do_not_get_in_each_others_way() {
    let mut bench = ready();
    let packets: Vec<_> = (0..3u16)
        .map(|id| {
            let (outer, inner) = outer(PLAIN, 1400 + id);
            (outer.with(|header| header.identification = id * 1000), inner)
        })
        .collect();
    let cut: Vec<_> = packets.iter().map(|(outer, _)| pieces(outer, [0, 1400])).collect();
    let all = [0, 1].map(|half| cut.iter().map(move |pieces| pieces[half].clone()));
    let frames: Vec<_> = all.into_iter().flatten().collect();
    let results = follow(&mut bench, &frames);
    for (i, (_, inner)) in packets.iter().enumerate() {
        assert_eq!(results[i].1, outcome(FragmentWaiting));
        assert_eq!(results[3 + i].0.bytes, to_device(PLAIN, inner));
    }
}

#[test]
fn what_has_waited_too_long_is_not_used() {
    let mut bench = ready();
    bench.reset();
    let (outer, inner) = outer(PLAIN, 1500);
    let [first, last] = pieces(&outer, [0, 1480]);
    let mut run = |frame: &Vec<u8>| bench.run(HOOK, Context::default(), frame);
    assert_eq!(run(&first).1, outcome(FragmentWaiting));
    bench.age_fragments();
    // The last of another packet, that has the same identification by now, and that packet's first.
    let mut run = |frame: &Vec<u8>| bench.run(HOOK, Context::default(), frame);
    assert_eq!(run(&last).1, outcome(FragmentWaiting));
    assert_eq!(run(&first).0.bytes, to_device(PLAIN, &inner));
}

/// More than there is room for wait: those of the daemon are the newer ones, and the old ones count
/// as lost when others take their places.
#[test]
fn what_finds_no_room_is_the_daemons_and_what_gives_way_is_counted() {
    let mut bench = ready();
    let (outer, _) = outer(PLAIN, 1500);
    let frames: Vec<_> = (0..64u16)
        .map(|id| {
            let outer = outer.clone().with(|header| header.identification = id);
            pieces(&outer, [0, 1480]).into_iter().next().unwrap()
        })
        .collect();
    let results = follow(&mut bench, &frames);
    let waiting = results.iter().filter(|(_, moved, _)| *moved == outcome(FragmentWaiting)).count();
    assert_eq!(waiting, 16, "all slots are used");
    for (i, (_, moved, events)) in results.iter().enumerate() {
        let handed: &[_] = if *moved == outcome(FragmentWaiting) { &[] } else { &frames[i..=i] };
        assert_eq!(events, handed);
    }
    bench.age_fragments();
    let mut lost = 0;
    for frame in &frames {
        let (_, moved) = bench.run(HOOK, Context::default(), frame);
        lost += moved.get(&Counter::Dropped(PLAIN.id, FragmentAlone.label())).unwrap_or(&0);
    }
    assert_eq!(lost, 16);
}

/// The kernel gets what can be passed on; what was kept is lost, and counted.
#[test]
fn without_a_daemon_what_was_held_in_vain_is_counted_as_lost() {
    let (outer, _) = outer(PLAIN, 1500);
    let [first, middle, _] = pieces(&outer, [0, 800, 1200]);
    check([
        Case::new("the middle one", HOOK, middle.clone()).passes(OuterFragment),
        Case::new("the middle one, later", HOOK, middle)
            .after([(HOOK, first)])
            .passes(OuterFragment)
            .counting(Counter::Dropped(PLAIN.id, FragmentAlone.label()), 1),
    ]);
}
