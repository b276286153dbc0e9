//! Which of several tunnels a packet is for: the kernel's order (ip_tunnel_lookup), in all programs.

use gre_ebpf_common::outcome::Outcome::{self, *};
use gre_userspace::dataplane::DataPlane;
use proptest::{prelude::*, sample::subsequence};

use crate::{
    bench::Hook,
    case::{Case, check},
    frame::{Options, Packet, from_wan, received},
    gre_header::{TIERS, accepts},
    world::{HOST, LAN, PLAIN, ROUTED, Spec, WAN, add, remove_all},
};

const KEY: u32 = 0x0a0b_0c0d;

/// Both addresses, the remote one, the local one, neither.
const LEVELS: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

/// A tunnel whose remote is PLAIN's, if it has one.
fn tunnel(id: u32, level: usize, key: Option<u32>, link: u32) -> Spec {
    let (local_any, remote_any) = LEVELS[level];
    Spec { remote_of: PLAIN.id, key, link, local_any, remote_any, ..Spec::new(id) }
}

/// Only these tunnels. Those that are up are put in first, and those that are bound to nothing.
fn only(mut tunnels: Vec<Spec>) -> impl Fn(&mut DataPlane) {
    tunnels.sort_by_key(|tunnel| (!tunnel.up, tunnel.link != 0));
    move |plane| {
        remove_all(plane);
        for &tunnel in &tunnels {
            add(plane, tunnel);
        }
        let bound = tunnels.iter().any(|tunnel| tunnel.link == WAN);
        let port = plane.ports.get_mut(&WAN).expect("the world has the port");
        port.flags = port.flags.with(gre_ebpf_common::port::Flags::TUNNEL_BOUND, bound);
    }
}

/// As a packet with this key comes from PLAIN's remote.
fn arriving(key: Option<u32>) -> (Packet, Vec<u8>) {
    let inner = Packet::new(ROUTED, HOST);
    let options = Options { key, ..Options::default() };
    let outer = received(PLAIN, options.gre(0x0800, &inner.bytes()));
    (inner, outer.bytes())
}

fn case(
    what: String,
    hook: Hook,
    tunnels: &[Spec],
    key: Option<u32>,
    wanted: Result<u32, Outcome>,
) -> Case {
    let (inner, packet) = arriving(key);
    let frame = from_wan(&packet);
    let pair = tunnels.iter().filter(|tunnel| !tunnel.local_any && !tunnel.remote_any);
    let pair = pair.min_by_key(|tunnel| (!tunnel.up, tunnel.link != 0));
    let case = match wanted {
        Ok(id) => accepts(what, hook, Spec { id, ..PLAIN }, frame, &inner),
        Err(outcome @ (NoTunnel | TunnelDown)) => Case::new(what, hook, frame).passes(outcome),
        Err(outcome) => Case::new(what, hook, frame).drops(outcome, *pair.expect("it missed one")),
    };
    case.given(only(tunnels.to_vec()))
}

/// ip_tunnel_lookup, step by step, and what is said of a packet that it finds no tunnel for.
fn kernel(tunnels: &[Spec], key: Option<u32>) -> Result<u32, Outcome> {
    let mut candidate: Option<Spec> = None;
    for (local_any, remote_any) in LEVELS {
        let numbers_alone = local_any && remote_any;
        let fits = |tunnel: &&Spec| {
            tunnel.up
                && (tunnel.local_any, tunnel.remote_any) == (local_any, remote_any)
                && if numbers_alone {
                    tunnel.key.unwrap_or(0) == key.unwrap_or(0)
                } else {
                    tunnel.key == key
                }
        };
        let fitting: Vec<_> = tunnels.iter().filter(fits).collect();
        if let Some(bound) = fitting.iter().find(|tunnel| tunnel.link == WAN) {
            return Ok(bound.id);
        }
        // Among those that the kernel may take either of, one that is bound to nothing.
        let best = fitting.into_iter().min_by_key(|tunnel| tunnel.link != 0);
        candidate = candidate.or(best.copied());
    }
    if let Some(tunnel) = candidate {
        return Ok(tunnel.id);
    }
    let exact = tunnels.iter().filter(|tunnel| !tunnel.local_any && !tunnel.remote_any);
    match exact.min_by_key(|tunnel| (!tunnel.up, tunnel.link != 0)) {
        None => Err(NoTunnel),
        Some(tunnel) if !tunnel.up => Err(TunnelDown),
        Some(tunnel) => Err(match (key, tunnel.key) {
            (Some(_), None) => KeyUnexpected,
            (None, Some(_)) => KeyMissing,
            _ => KeyMismatch,
        }),
    }
}

/// Levels, keys and interfaces.
fn distinct() -> Vec<(usize, Option<u32>, u32)> {
    let mut all = Vec::new();
    for level in 0..4 {
        for key in [None, Some(0), Some(KEY)] {
            for link in [0, WAN, LAN] {
                all.push((level, key, link));
            }
        }
    }
    all
}

/// Whether two tunnels cannot be told apart: with neither address a key of zero is none.
fn collide(a: (usize, Option<u32>, u32), b: (usize, Option<u32>, u32)) -> bool {
    let number = |key: Option<u32>| key.unwrap_or(0);
    (a.0, a.2) == (b.0, b.2) && (a.1 == b.1 || a.0 == 3 && number(a.1) == number(b.1))
}

const KEYS: [Option<u32>; 4] = [None, Some(0), Some(KEY), Some(KEY + 1)];

/// Each alone, up and down.
#[test]
fn l1_l2_l3_l4_l7_d11_each_level_takes_its_own_key_and_only_when_up() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for (level, key, link) in distinct() {
            for up in [true, false] {
                let tunnels = [Spec { up, ..tunnel(5, level, key, link) }];
                for sent in KEYS {
                    let what =
                        format!("{sent:x?}, level {level}, key {key:x?}, on {link}, up {up}");
                    cases.push(case(what, hook, &tunnels, sent, kernel(&tunnels, sent)));
                }
            }
        }
    }
    check(cases);
}

/// Any two, each of them up or down.
#[test]
fn l1_l2_l3_l4_l5_l7_d11_of_two_tunnels_the_kernels_choice_is_taken() {
    let mut cases = Vec::new();
    let all = distinct();
    for hook in TIERS {
        for (n, &(level, key, link)) in all.iter().enumerate() {
            let others = all[n + 1..].iter().filter(|&&other| !collide((level, key, link), other));
            for &(other_level, other_key, other_link) in others {
                for up in [(true, true), (false, true), (true, false)] {
                    let tunnels = [
                        Spec { up: up.0, ..tunnel(2, level, key, link) },
                        Spec { up: up.1, ..tunnel(6, other_level, other_key, other_link) },
                    ];
                    // The key of either is what they might differ over.
                    for sent in [key, other_key] {
                        let what = format!("{sent:x?} to {tunnels:x?}");
                        cases.push(case(what, hook, &tunnels, sent, kernel(&tunnels, sent)));
                    }
                }
            }
        }
    }
    check(cases);
}

/// Spelled out, in case the model above and the programs err alike: the first of each row wins.
#[test]
fn l1_l2_l3_l4_l5_d11_the_order_is_exact_remote_local_neither_and_bound_before_all() {
    let (exact, remote, local, neither) = (0, 1, 2, 3);
    let rows: [&[(usize, u32)]; 7] = [
        &[(exact, 0), (remote, 0), (local, 0), (neither, 0)],
        &[(remote, 0), (local, 0), (neither, 0)],
        &[(local, 0), (neither, 0)],
        &[(neither, 0)],
        &[(exact, WAN), (remote, WAN), (exact, 0), (remote, 0)],
        &[(neither, WAN), (exact, 0), (remote, 0), (local, 0), (exact, LAN)],
        &[(exact, 0), (exact, LAN), (remote, LAN)],
    ];
    let mut cases = Vec::new();
    for hook in TIERS {
        for row in rows {
            for key in [None, Some(KEY)] {
                let tunnels: Vec<_> = (0..)
                    .zip(row)
                    .map(|(id, &(level, link))| tunnel(id, level, key, link))
                    .collect();
                cases.push(case(format!("{row:?}"), hook, &tunnels, key, Ok(0)));
                cases.push(case(format!("{row:?}"), hook, &tunnels, key, kernel(&tunnels, key)));
            }
        }
    }
    check(cases);
}

/// Others' GRE is on its way through, and no tunnel's of ours.
#[test]
fn l2_l4_any_local_address_is_any_of_this_host() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for level in 0..4 {
            let tunnels = vec![tunnel(1, level, None, 0)];
            let (_, packet) = arriving(None);
            // To another address that nothing leads to.
            let mut other = Packet::new(PLAIN.remote(), [192, 0, 2, 2])
                .with(|header| header.protocol = 47.into());
            other.payload = packet[20..].to_vec();
            cases.push(
                Case::new(format!("level {level}"), hook, from_wan(&other.bytes()))
                    .passes(NoTunnel)
                    .given(only(tunnels)),
            );
        }
    }
    check(cases);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn l1_l2_l3_l4_l5_l7_d11_of_many_tunnels_the_kernels_choice_is_taken(
        chosen in subsequence(distinct(), 3..=8),
        up in any::<[bool; 8]>(),
        sent in prop_oneof![Just(None), Just(Some(0)), Just(Some(KEY))],
    ) {
        let mut distinct: Vec<(usize, Option<u32>, u32)> = Vec::new();
        for tunnel in chosen {
            if !distinct.iter().any(|&other| collide(tunnel, other)) {
                distinct.push(tunnel);
            }
        }
        let tunnels: Vec<_> = (0..)
            .zip(distinct)
            .map(|(id, (level, key, link))| Spec {
                up: up[id as usize],
                ..tunnel(id, level, key, link)
            })
            .collect();
        check(TIERS.map(|hook| {
            case(format!("{sent:x?} to {tunnels:x?}"), hook, &tunnels, sent, kernel(&tunnels, sent))
        }));
    }
}
