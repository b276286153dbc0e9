//! What the outer header takes from the tunnel and from the inner packet, and what it tells the inner
//! packet when it comes off: TOS, ECN (RFC 6040), TTL, Don't Fragment.

use gre_ebpf_common::outcome::Outcome::*;

use crate::{
    bench::Hook,
    case::{Case, check},
    frame::{
        Packet, encapsulated, frame, from_lan, from_wan, gre_of, inbound, outbound, received,
        set_tos, to_device, to_host, to_underlay,
    },
    world::{FREE, HOST, KEYED, LAN, LAN_ADDRESS, PLAIN, Spec, WAN, add},
};

/// The packet through XDP from the LAN, and through TC as the kernel has forwarded it.
fn encapsulates(what: &str, tunnel: Spec, packet: &Packet) -> [Case; 2] {
    let len = packet.bytes().len();
    let forwarded = packet.forwarded();
    let device = frame([2; 6], [4; 6], &forwarded.bytes());
    let routed = forwarded.clone();
    [
        Case::new(what, Hook::Xdp(LAN), from_lan(&packet.bytes()))
            .sends(Encapsulated, WAN, move |id| {
                to_underlay(&encapsulated(tunnel, &forwarded, id).bytes())
            })
            .sent(tunnel, 1, len)
            .given(move |plane| add(plane, tunnel)),
        Case::new(what, Hook::TcOut(tunnel.device()), device)
            .sends(Encapsulated, WAN, move |id| {
                frame([0; 6], [4; 6], &encapsulated(tunnel, &routed, id).bytes())
            })
            .sent(tunnel, 1, len)
            .given(move |plane| add(plane, tunnel)),
    ]
}

#[test]
fn t2_d8_rfc6040_1_tos_is_fixed_or_copied_and_ecn_is_copied() {
    let mut cases = Vec::new();
    for tos in [0u8, 0x28, 0xfc, 0x03, 1] {
        // Bit 0 says `inherit`.
        let tunnel = Spec { tos: if tos == 3 { 1 } else { tos }, ..Spec::new(FREE) };
        for inner in 0..=255 {
            let packet = outbound(tunnel).with(|header| set_tos(header, inner));
            cases.extend(encapsulates(&format!("{inner:#x} in {tos:#x}"), tunnel, &packet));
        }
    }
    check(cases);
}

/// Spelled out, apart from the oracle: DSCP EF outside, AF11 inside, and the four ECN fields.
#[test]
fn rfc6040_1_d8_normal_mode_copies_all_four() {
    for (inner, outer) in [(0x28, 0xb8), (0x29, 0xb9), (0x2a, 0xba), (0x2b, 0xbb)] {
        let tunnel = Spec { tos: 0xb8, ..Spec::new(FREE) };
        let packet = outbound(tunnel).with(|header| set_tos(header, inner));
        assert_eq!(encapsulated(tunnel, &packet, 0).bytes()[1], outer);
        check(encapsulates("ECN", tunnel, &packet));
    }
}

#[test]
fn t3_ttl_is_fixed_or_copied() {
    let mut cases = Vec::new();
    for ttl in [0, 1, 64, 255] {
        let tunnel = Spec { ttl, ..Spec::new(FREE) };
        for inner in [2, 3, 64, 128, 255] {
            let packet = outbound(tunnel).with(|header| header.time_to_live = inner);
            cases.extend(encapsulates(&format!("{inner} in {ttl}"), tunnel, &packet));
        }
    }
    check(cases);
}

#[test]
fn t4_rfc7588_3_dont_fragment_is_the_tunnels_or_the_inner_packets() {
    let mut cases = Vec::new();
    for (pmtudisc, ignore_df, inner, outer) in [
        (true, false, false, true),
        (true, false, true, true),
        (true, true, false, true),
        (true, true, true, true),
        (false, false, false, false),
        (false, false, true, true),
        (false, true, false, false),
        (false, true, true, false),
    ] {
        let tunnel = Spec { pmtudisc, ignore_df, ..Spec::new(FREE) };
        let packet = outbound(tunnel).with(|header| header.dont_fragment = inner);
        let what = format!("pmtudisc {pmtudisc}, ignore-df {ignore_df}, DF {inner}");
        assert_eq!(encapsulated(tunnel, &packet, 0).header.dont_fragment, outer, "{what}");
        cases.extend(encapsulates(&what, tunnel, &packet));
    }
    check(cases);
}

/// RFC 6040, figure 4: inner, outer, and what comes out; none is a drop.
const ECN: [(u8, [Option<u8>; 4]); 4] = {
    const NOT_ECT: u8 = 0b00;
    const ECT_0: u8 = 0b10;
    const ECT_1: u8 = 0b01;
    const CE: u8 = 0b11;
    [
        (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
        (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
        (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
        (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
    ]
};
/// Of the columns: Not-ECT, ECT(0), ECT(1), CE.
const OUTER: [u8; 4] = [0b00, 0b10, 0b01, 0b11];

/// Each combination: inner, outer, result.
fn combinations() -> impl Iterator<Item = (u8, u8, Option<u8>)> {
    ECN.into_iter().flat_map(|(inner, row)| {
        OUTER.into_iter().zip(row).map(move |(outer, result)| (inner, outer, result))
    })
}

/// Inner DSCP is kept, outer DSCP stays outside.
const DSCP: u8 = 0xb8;

fn arriving(tunnel: Spec, inner: &Packet, ecn: u8) -> Vec<u8> {
    let outer = received(tunnel, gre_of(tunnel, &inner.bytes()));
    from_wan(&outer.with(|header| set_tos(header, 0x48 | ecn)).bytes())
}

#[test]
fn rfc6040_2_d9_r4_r5_decapsulation_follows_the_table_in_both_tiers() {
    let mut cases = Vec::new();
    let all_options = Spec::new(FREE).with_checksums().with_sequence().with_key(1);
    for tunnel in [PLAIN, KEYED, all_options] {
        for (inner, outer, result) in combinations() {
            for ttl in [64, 1] {
                let with = |ecn: u8, destination| {
                    Packet::new(tunnel.beyond(), destination).with(|header| {
                        set_tos(header, DSCP | ecn);
                        header.time_to_live = ttl;
                    })
                };
                for (hook, destination) in
                    [(Hook::Xdp(WAN), HOST), (Hook::Xdp(WAN), LAN_ADDRESS), (Hook::TcIn(WAN), HOST)]
                {
                    let what = format!("{inner:02b} in {outer:02b}, TTL {ttl}, to {destination:?}");
                    let frame = arriving(tunnel, &with(inner, destination), outer);
                    let case = Case::new(what, hook, frame);
                    let Some(ecn) = result else {
                        let case = case.drops(EcnInvalid, tunnel);
                        cases.push(case.given(move |plane| add(plane, tunnel)));
                        continue;
                    };
                    let to_lan = hook == Hook::Xdp(WAN) && destination == HOST && ttl > 1;
                    let out = with(ecn, destination);
                    let case = if to_lan {
                        let out = to_host(&out.forwarded().bytes());
                        case.sends(Decapsulated, LAN, move |_| out.clone())
                    } else {
                        let out = to_device(tunnel, &out.bytes());
                        case.sends(ToDevice, tunnel.peer(), move |_| out.clone())
                    };
                    let case = case.received(tunnel, 1, 60);
                    cases.push(case.given(move |plane| add(plane, tunnel)));
                }
            }
        }
    }
    check(cases);
}

/// With options the header is longer, and its checksum still right.
#[test]
fn rfc6040_2_an_inner_header_with_options_is_marked_as_well() {
    let mut cases = Vec::new();
    for (inner, outer, result) in combinations().filter(|(_, _, result)| result.is_some()) {
        let with = |ecn: u8| {
            inbound(PLAIN).with(|header| {
                set_tos(header, DSCP | ecn);
                header.options = [1, 7, 3, 4].into();
            })
        };
        for hook in [Hook::Xdp(WAN), Hook::TcIn(WAN)] {
            let out = to_device(PLAIN, &with(result.expect("others are left out")).bytes());
            cases.push(
                Case::new(
                    format!("{inner:02b} in {outer:02b}"),
                    hook,
                    arriving(PLAIN, &with(inner), outer),
                )
                .sends(ToDevice, PLAIN.peer(), move |_| out.clone())
                .received(PLAIN, 1, 64),
            );
        }
    }
    check(cases);
}

/// Congestion on the way in is passed on to the next tunnel's outer header.
#[test]
fn rfc6040_1_rfc6040_2_a_hub_hands_the_mark_on() {
    let mut cases = Vec::new();
    let to = Spec { tos: 0x20, ..Spec::new(FREE) };
    let marked = move |ecn: u8| {
        Packet::new(PLAIN.beyond(), to.beyond()).with(|header| set_tos(header, DSCP | ecn))
    };
    for (inner, outer, result) in combinations() {
        let what = format!("{inner:02b} in {outer:02b}");
        let case = Case::new(what, Hook::Xdp(WAN), arriving(PLAIN, &marked(inner), outer));
        let case = match result {
            None => case.drops(EcnInvalid, PLAIN),
            Some(ecn) => case
                .sends(Transit, WAN, move |id| {
                    to_underlay(&encapsulated(to, &marked(ecn).forwarded(), id).bytes())
                })
                .received(PLAIN, 1, 60)
                .sent(to, 1, 60),
        };
        cases.push(case.given(move |plane| add(plane, to)));
    }
    check(cases);
}
