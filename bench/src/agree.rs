//! The comparator of P1 does what `xgre_xdp` does: of each packet it makes the same bytes, with the same
//! action and the same outcome, detours included. Only then is one's cost a measure of the other's.

use aya::{
    TestRunOptions,
    programs::{TestRun as _, Xdp, xdp::XdpMode},
};
use gre_ebpf_common::{
    counters::Tier,
    next_hop,
    outcome::Outcome,
    port,
    route::Entry,
    tunnel::Flags,
    wire::vlan::{ETHERTYPE_8021Q, Tag},
};
use gre_userspace::dataplane::DataPlane;

use crate::{
    Effort,
    aim::Shape,
    frames::{self, Network},
    lab::{LOOPBACK, Lab},
};

/// What is set otherwise than in the benchmark, by name.
type World = (&'static str, fn(&mut DataPlane));

const WORLDS: [World; 15] = [
    ("as in the benchmark", |_| ()),
    ("a strict reverse path", |plane| reverse_path(plane, port::Flags::REVERSE_PATH_STRICT)),
    ("a strict reverse path that is on a VLAN", |plane| {
        reverse_path(plane, port::Flags::REVERSE_PATH_STRICT);
        let back = plane.next_hops.get_mut(&BACK).expect("it has just been made");
        back.tags[0] = Tag::new(u16::from_be(ETHERTYPE_8021Q), 7);
    }),
    ("a strict reverse path with several next hops", |plane| {
        reverse_path(plane, port::Flags::REVERSE_PATH_STRICT);
        plane.routes.insert(SOURCES, Entry::Group(0));
    }),
    ("a loose reverse path", |plane| reverse_path(plane, port::Flags::REVERSE_PATH_LOOSE)),
    ("no way back", |plane| {
        reverse_path(plane, port::Flags::REVERSE_PATH_LOOSE);
        plane.routes.remove(&SOURCES);
    }),
    ("a strict reverse path of tunnels", |plane| flags(plane, Flags::REVERSE_PATH_STRICT, true)),
    ("no forwarding", |plane| {
        flags(plane, Flags::FORWARDING, false);
        ports(plane, port::Flags::FORWARDING, false);
    }),
    ("tunnels that are down", |plane| flags(plane, Flags::UP, false)),
    ("tunnels that copy", |plane| {
        flags(plane, Flags::TTL_INHERIT.and(Flags::TOS_INHERIT).and(Flags::IGNORE_DF), true);
    }),
    ("tunnels that lower segment sizes", |plane| {
        plane.tunnels.values_mut().for_each(|tunnel| tunnel.mss = [500; 2]);
    }),
    ("short packets alone", |plane| plane.tunnels.values_mut().for_each(|t| t.mtu = 90)),
    ("several next hops", |plane| {
        let entries: Vec<_> = plane.routes.keys().copied().collect();
        plane.routes.extend(entries.into_iter().map(|prefix| (prefix, Entry::Group(0))));
    }),
    ("ports that other tunnels are bound to", |plane| {
        ports(plane, port::Flags::TUNNEL_BOUND, true)
    }),
    ("next hops that do not answer", |plane| {
        plane.next_hops.values_mut().for_each(|hop| hop.flags = next_hop::Flags::default());
    }),
];

/// What packets come from, and those in tunnels.
const SOURCES: (u32, u8) = (0xac10_0000, 12);

fn reverse_path(plane: &mut DataPlane, flag: port::Flags) {
    ports(plane, flag, true);
    let mut back = plane.next_hops[&frames::LAN];
    back.ifindex = LOOPBACK;
    plane.next_hops.insert(BACK, back);
    plane.routes.insert(SOURCES, Entry::NextHop(BACK));
}

const BACK: u32 = 9;

fn ports(plane: &mut DataPlane, flag: port::Flags, on: bool) {
    plane.ports.values_mut().for_each(|port| port.flags = port.flags.with(flag, on));
}

fn flags(plane: &mut DataPlane, flag: Flags, on: bool) {
    plane.tunnels.values_mut().for_each(|tunnel| tunnel.flags = tunnel.flags.with(flag, on));
}

/// Packets of every kind.
fn shapes() -> Vec<Shape> {
    let out_of = frames::encapsulated;
    let mut shapes = vec![
        frames::plain(Network::Keyless),
        frames::plain(Network::Keyed),
        frames::plain(Network::Numbered),
        frames::plain(Network::Ipv6),
        frames::plain(Network::Unknown),
        out_of(Network::Keyless, Network::NextHop),
        out_of(Network::Keyed, Network::Onward),
        out_of(Network::Keyless, Network::Keyless),
        out_of(Network::Onward, Network::Unknown),
        frames::bridged(),
        frames::bridged_out_of_tunnel(),
    ];
    for index in [0, 5] {
        let mut syn = shapes[index].clone();
        syn.frame[syn.inner + 9] = 6;
        syn.frame[syn.inner + 20 + 13] = 2;
        shapes.push(syn.summed());
    }
    shapes
}

/// Bytes that mean something in some header, besides what a single bit makes of what is there.
const BYTES: [u8; 12] = [0, 1, 2, 6, 0x20, 0x3f, 0x45, 0x46, 0x7f, 0x80, 0xe0, 0xff];

/// The packet with each byte of its headers changed, to these as well, and with the checksums that then
/// belong there.
fn mutations(shape: &Shape, bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = vec![shape.frame.clone()];
    for at in 0..shape.inner + 34 {
        let flips = (0..8).map(|bit| shape.frame[at] ^ 1 << bit);
        for byte in flips.chain(bytes.iter().copied()) {
            let mut changed = shape.clone();
            changed.frame[at] = byte;
            frames.push(changed.frame.clone());
            frames.push(changed.summed().frame);
        }
    }
    let short = [14, 33, 34, 37, 38, 41, 42, 57, 58, 61, 62];
    frames.extend(short.map(|len| shape.frame[..len].to_owned()));
    frames
}

/// What a program makes of a packet.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    action: u32,
    outcomes: Vec<(Outcome, u64)>,
    frame: Vec<u8>,
}

#[test]
fn the_comparator_makes_of_every_packet_what_xgre_xdp_makes_of_it() {
    let effort = Effort { rounds: 5, quick: true, earlier: None };
    for (number, (world, change)) in WORLDS.into_iter().enumerate() {
        let mut lab = Lab::changed(&effort, change).unwrap();
        // Where there is no other program a detour is an outcome.
        lab.subjects.remove_detours().unwrap();
        let ends = [lab.generator, lab.sink];
        for ((_, program), end) in lab.subjects.all().unwrap().into_iter().zip(ends) {
            program.attach_to_if_index(end, XdpMode::Driver).unwrap();
        }
        let mut seen = Vec::new();
        let bytes = if number == 0 { &BYTES[..] } else { &[] };
        for shape in shapes() {
            for frame in mutations(&shape, bytes) {
                let Lab { subjects, maps, .. } = &mut lab;
                let mut answers = Vec::new();
                for (_, program) in subjects.all().unwrap() {
                    // The outer header's identification is made from these.
                    (0..10).for_each(|tunnel| maps.counters.reset(tunnel));
                    let count = |outcome: Outcome| maps.counters.outcome(Tier::Xdp, outcome);
                    let before: Vec<_> =
                        Outcome::ALL.iter().map(|&outcome| count(outcome)).collect();
                    let (action, frame) = run(program, &frame);
                    let changes = Outcome::ALL.iter().zip(before);
                    let outcomes = changes
                        .map(|(&outcome, before)| (outcome, count(outcome) - before))
                        .filter(|(_, count)| *count > 0)
                        .collect();
                    answers.push(Answer { action, outcomes, frame });
                }
                let [rust, c] = &answers[..] else { panic!("two programs") };
                assert_eq!(rust, c, "{world}: {frame:02x?}");
                let [(outcome, 1)] = rust.outcomes[..] else { panic!("{world}: one outcome") };
                if !seen.contains(&outcome) {
                    seen.push(outcome);
                }
            }
        }
        println!("{world}: {seen:?}");
        assert!(seen.contains(&Outcome::Detour), "{world}");
    }
}

fn run(program: &mut Xdp, frame: &[u8]) -> (u32, Vec<u8>) {
    let mut out = vec![0; frame.len() + 64];
    let options =
        TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
    let result = program.test_run(options).unwrap();
    out.truncate(result.data_size_out as usize);
    (result.return_value, out)
}
