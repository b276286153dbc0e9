//! Explicit Congestion Notification (RFC 6040) through tunnels of either version, with either inside.

use gre_ebpf_common::outcome::Outcome::*;

use crate::{
    bench::Hook,
    case::{Case, check},
    combinations::transits,
    frame::{carried, from_lan, from_wan, routed, to_device, to_host},
    packet::{Packet, inbound, outbound, to_gateway},
    world::{ALL4, ALL6, FAMILIES, INHERIT4, INHERIT6, LAN, PLAIN4, PLAIN6, WAN},
};

const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;
const ALL: [u8; 4] = [NOT_ECT, ECT_0, ECT_1, CE];

/// RFC 6040, figure 4: of each inner field what comes out for outer Not-ECT, ECT(0), ECT(1) and CE;
/// none is dropped.
const TABLE: [(u8, [Option<u8>; 4]); 4] = [
    (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
    (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
    (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
    (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
];

/// The 64 combinations in each way that a packet can go. The oracle works the inner IPv4 checksum
/// out from the start; DSCPs are such that it wraps in some.
#[test]
fn rfc6040_2_d9_r4_r5_every_combination_comes_out_as_the_table_says() {
    let mut cases = Vec::new();
    for tunnel in [PLAIN4, PLAIN6, ALL4, ALL6] {
        for inside in FAMILIES {
            for (inner, row) in TABLE {
                for (outer, out) in ALL.into_iter().zip(row) {
                    for (inner_dscp, outer_dscp) in [(0, 0xb8), (0xfc, 0), (0x48, 0xfc)] {
                        let what =
                            format!("{inside:?} in {tunnel:?}, inner {inner}, outer {outer}");
                        let marked =
                            |packet: Packet| packet.with(|packet| packet.tos = inner_dscp | inner);
                        let frame = |packet: &Packet| {
                            let packet = carried(tunnel, &packet.bytes());
                            from_wan(&packet.with(|p| p.tos = outer_dscp | outer).bytes())
                        };
                        let (forward, local) =
                            (marked(inbound(inside, tunnel)), marked(to_gateway(inside, tunnel)));
                        let onward =
                            marked(Packet::new(tunnel.beyond(inside), INHERIT6.beyond(inside)));
                        let case = |hook, packet: &Packet| Case::new(&what, hook, frame(packet));
                        let (xdp, tc) = (Hook::Xdp(WAN), Hook::TcIn(WAN));
                        let Some(out) = out else {
                            for (hook, packet) in
                                [(xdp, &forward), (xdp, &local), (xdp, &onward), (tc, &local)]
                            {
                                cases.push(case(hook, packet).drops(EcnInvalid, tunnel));
                            }
                            continue;
                        };
                        let after = |packet: &Packet| {
                            packet.clone().with(|packet| packet.tos = inner_dscp | out)
                        };
                        let host = to_host(&after(&forward).forwarded().bytes());
                        cases.push(
                            case(xdp, &forward)
                                .sends(Decapsulated, LAN, move |_| host.clone())
                                .received(tunnel, 72),
                        );
                        for hook in [xdp, tc] {
                            let device = to_device(tunnel, &after(&local).bytes());
                            cases.push(
                                case(hook, &local)
                                    .sends(ToDevice, tunnel.peer(), move |_| device.clone())
                                    .received(tunnel, 72),
                            );
                        }
                        // The next outer header copies what came out.
                        let frame = frame(&onward);
                        cases.push(transits(&what, frame, &after(&onward), tunnel, INHERIT6));
                    }
                }
            }
        }
    }
    check(cases);
}

/// All four are copied, whatever the tunnel's own DS field is.
#[test]
fn rfc6040_1_d8_t2_encapsulation_copies_all_four() {
    let mut cases = Vec::new();
    for tunnel in [PLAIN4, PLAIN6, INHERIT4, INHERIT6, ALL4, ALL6] {
        for inside in FAMILIES {
            for ecn in ALL {
                for dscp in [0, 0x28, 0xfc] {
                    let packet = outbound(inside, tunnel).with(|packet| packet.tos = dscp | ecn);
                    let what = format!("{inside:?} in {tunnel:?}, {ecn}");
                    let frame = from_lan(&packet.bytes());
                    cases.push(
                        Case::new(&what, Hook::Xdp(LAN), frame)
                            .encapsulates(tunnel, &packet.forwarded()),
                    );
                    let hook = Hook::TcOut(tunnel.peer());
                    cases.push(
                        Case::new(what, hook, routed(&packet.bytes()))
                            .encapsulates(tunnel, &packet),
                    );
                }
            }
        }
    }
    check(cases);
}
