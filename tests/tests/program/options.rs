//! Checksum, key and sequence number in all combinations, which may differ in the two directions.

use gre_ebpf_common::outcome::Outcome::{self, *};

use crate::{
    bench::Hook,
    case::{Case, check},
    frame::{
        Options, Packet, encapsulated, frame, from_lan, from_wan, inbound, outbound, received,
        to_device, to_underlay,
    },
    gre_header::{TIERS, accepts},
    world::{FREE, LAN, LAN_ADDRESS, PLAIN, Spec, WAN, add},
};

const KEY: u32 = 0xdead_beef;
const KEY_SENT: u32 = 0x0000_0007;

/// Tunnels with these options in the one direction and none in the other.
fn receiving(id: u32) -> impl Iterator<Item = Spec> {
    Options::all(KEY, 0).map(move |options| Spec {
        key: options.key,
        checksum: options.checksum,
        sequence: options.number.is_some(),
        ..Spec::new(id)
    })
}

/// All combinations in either direction.
fn tunnels(id: u32) -> impl Iterator<Item = Spec> {
    receiving(id).flat_map(|tunnel| {
        Options::all(KEY_SENT, 0).map(move |options| Spec {
            key_sent: options.key,
            checksum_sent: options.checksum,
            sequence_sent: options.number.is_some(),
            ..tunnel
        })
    })
}

/// What becomes of a packet with these options on a tunnel (ip_tunnel_lookup, ip_tunnel_rcv); none is
/// that it is decapsulated.
fn refusal(tunnel: Spec, sent: Options) -> Option<Outcome> {
    match (sent.key, tunnel.key) {
        (Some(_), None) => return Some(KeyUnexpected),
        (None, Some(_)) => return Some(KeyMissing),
        (sent, expected) if sent != expected => return Some(KeyMismatch),
        _ => {}
    }
    match (sent.checksum, tunnel.checksum) {
        (true, false) => return Some(ChecksumUnexpected),
        (false, true) => return Some(ChecksumMissing),
        _ => {}
    }
    (tunnel.sequence && sent.number.is_none() && !tunnel.rfc2890).then_some(SequenceMissing)
}

fn receives(what: String, hook: Hook, tunnel: Spec, sent: Options) -> Case {
    let inner = inbound(tunnel);
    let frame = from_wan(&received(tunnel, sent.gre(0x0800, &inner.bytes())).bytes());
    let case = match refusal(tunnel, sent) {
        None => accepts(what, hook, tunnel, frame, &inner),
        Some(outcome) => Case::new(what, hook, frame).drops(outcome, tunnel),
    };
    case.given(move |plane| add(plane, tunnel))
}

/// Checksums must be there or not as the tunnel says; sequence numbers may come unasked for.
#[test]
fn r1_r2_r7_d6_l1_p3_every_combination_meets_every_tunnel() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for plain in receiving(FREE) {
            for tunnel in [plain, Spec { rfc2890: true, ..plain }] {
                for key in [KEY, KEY ^ 1, 0] {
                    for sent in Options::all(key, 77) {
                        let what = format!("{sent:x?} on {tunnel:x?}");
                        cases.push(receives(what, hook, tunnel, sent));
                    }
                }
            }
        }
    }
    check(cases);
}

/// Out of the LAN's port in XDP; out of the other end of its device in TC, or of the device itself if
/// neither checksum nor number is sent.
#[test]
fn rfc2890_5_t8_mtu_csum_what_is_sent_has_the_options_in_their_order() {
    let mut cases = Vec::new();
    for tunnel in tunnels(FREE) {
        let packet = outbound(tunnel).varied(61);
        let len = packet.bytes().len();
        let what = format!("{tunnel:x?}");
        let forwarded = packet.forwarded();
        cases.push(
            Case::new(what.clone(), Hook::Xdp(LAN), from_lan(&packet.bytes()))
                .sends(Encapsulated, WAN, move |id| {
                    to_underlay(&encapsulated(tunnel, &forwarded, id).bytes())
                })
                .sent(tunnel, 1, len)
                .given(move |plane| add(plane, tunnel)),
        );
        let finishes = tunnel.checksum_sent || tunnel.sequence_sent;
        for device in [tunnel.device(), tunnel.peer()] {
            let case = Case::new(
                what.clone(),
                Hook::TcOut(device),
                frame([2; 6], [4; 6], &packet.bytes()),
            );
            let case = if finishes && device == tunnel.device() {
                case.passes(DeviceFinishes)
            } else {
                let packet = packet.clone();
                case.sends(Encapsulated, WAN, move |id| {
                    frame([0; 6], [4; 6], &encapsulated(tunnel, &packet, id).bytes())
                })
                .sent(tunnel, 1, len)
            };
            cases.push(case.given(move |plane| add(plane, tunnel)));
        }
    }
    check(cases);
}

/// Each direction has its own.
#[test]
fn l1_what_is_received_may_differ_from_what_is_sent() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in tunnels(FREE) {
            cases.push(receives(
                format!("{tunnel:x?}"),
                hook,
                tunnel,
                Options::received(tunnel, 9),
            ));
        }
    }
    check(cases);
}

#[test]
fn p3_what_is_for_this_host_comes_out_of_every_header() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in receiving(FREE) {
            let inner = Packet::new(tunnel.beyond(), LAN_ADDRESS).varied(99).bytes();
            let options = Options::received(tunnel, 0xffff_fffe);
            let frame = from_wan(&received(tunnel, options.gre(0x0800, &inner)).bytes());
            let out = to_device(tunnel, &inner);
            cases.push(
                Case::new(format!("{tunnel:x?}"), hook, frame)
                    .sends(ToDevice, tunnel.peer(), move |_| out.clone())
                    .received(tunnel, 1, 99)
                    .given(move |plane| add(plane, tunnel)),
            );
        }
    }
    check(cases);
}

/// The headers of the two tunnels differ in length either way.
#[test]
fn p3_rfc2890_5_a_hub_takes_any_header_off_and_puts_any_other_on() {
    let mut cases = Vec::new();
    for from in receiving(FREE) {
        for to in tunnels(FREE + 1).filter(|to| *to == sending_only(*to)) {
            let inner = Packet::new(from.beyond(), to.beyond()).varied(83);
            let options = Options::received(from, 3);
            let frame = from_wan(&received(from, options.gre(0x0800, &inner.bytes())).bytes());
            let forwarded = inner.forwarded();
            cases.push(
                Case::new(format!("from {from:x?} to {to:x?}"), Hook::Xdp(WAN), frame)
                    .sends(Transit, WAN, move |id| {
                        to_underlay(&encapsulated(to, &forwarded, id).bytes())
                    })
                    .received(from, 1, 83)
                    .sent(to, 1, 83)
                    .given(move |plane| {
                        add(plane, from);
                        add(plane, to);
                    }),
            );
        }
    }
    check(cases);
}

/// Without what it receives with.
fn sending_only(tunnel: Spec) -> Spec {
    Spec { key: None, checksum: false, sequence: false, ..tunnel }
}

/// RFC 2784, 2.4: the first word's flags, version and reserved bits are zero but for C, K and S.
#[test]
fn rfc1701_4_rfc1701_5_rfc2784_1_no_other_bit_is_sent() {
    for options in Options::all(KEY, 0) {
        let tunnel = Spec {
            key_sent: options.key,
            checksum_sent: options.checksum,
            sequence_sent: options.number.is_some(),
            ..Spec::new(FREE)
        };
        let sent = encapsulated(tunnel, &outbound(tunnel), 0).payload;
        let bits = u8::from(options.checksum) << 7
            | u8::from(options.key.is_some()) << 5
            | u8::from(options.number.is_some()) << 4;
        // The oracle, to which the programs are held above.
        assert_eq!(sent[..4], [bits, 0, 8, 0]);
        assert_eq!(sent.len(), usize::from(tunnel.overhead()) - 20 + 60);
    }
    assert_eq!(encapsulated(PLAIN, &outbound(PLAIN), 0).payload[..4], [0, 0, 8, 0]);
}
