//! Which GRE headers are a tunnel's and which are not, in both tiers. Names begin with the rule.

use gre_ebpf_common::{
    counters::Tier,
    demux::{Key, Kind},
    outcome::Outcome::{self, *},
    tunnel::Ends,
};
use gre_userspace::dataplane::DataPlane;

use crate::{
    bench::Hook,
    case::{Case, check},
    frame::{
        CHECKSUM_BIT, IPV4, KEY_BIT, Packet, SEQUENCE_BIT, from_remote, from_wan, gre, gre_of,
        inbound, patch, received, through, to_device, to_host,
    },
    world::{FIXED, KEYED, LAN, LOCAL, PLAIN, STRANGER, Spec, TUNNELS, WAN},
};

const ROUTING_BIT: u16 = 0x4000;

pub const TIERS: [Hook; 2] = [Hook::Xdp(WAN), Hook::TcIn(WAN)];

/// The inner packet comes out: in XDP to the HOST, in TC to the device.
pub fn accepts(
    what: impl Into<String>,
    hook: Hook,
    tunnel: Spec,
    frame: Vec<u8>,
    inner: &Packet,
) -> Case {
    let case = Case::new(what, hook, frame).received(tunnel, 1, inner.bytes().len());
    match hook {
        Hook::Xdp(_) | Hook::XdpAny(_) => {
            let out = to_host(&inner.forwarded().bytes());
            case.sends(Decapsulated, LAN, move |_| out.clone())
        }
        Hook::TcIn(_) | Hook::TcOut(_) => {
            let out = to_device(tunnel, &inner.bytes());
            case.sends(ToDevice, tunnel.peer(), move |_| out.clone())
        }
    }
}

/// The header's optional words: checksum and offset, key, sequence number.
pub fn words(flags: u16, key: u32) -> Vec<u32> {
    let mut words = Vec::new();
    if flags & CHECKSUM_BIT != 0 {
        words.push(0);
    }
    if flags & KEY_BIT != 0 {
        words.push(key);
    }
    if flags & SEQUENCE_BIT != 0 {
        words.push(1);
    }
    words
}

/// All combinations of C, R, K and S with all versions.
pub fn combinations() -> impl Iterator<Item = u16> {
    (0..16u16).flat_map(|bits| (0..8).map(move |version| bits << 12 | version))
}

/// What becomes of a packet with these flags on a tunnel, whose key it has if it has one; none is
/// that it is decapsulated.
fn refusal(flags: u16, tunnel: Spec) -> Option<Outcome> {
    match flags & 7 {
        0 => {}
        1 => return Some(Pptp),
        _ => return Some(GreVersion),
    }
    match (flags & KEY_BIT != 0, tunnel.key.is_some()) {
        _ if flags & ROUTING_BIT != 0 => Some(GreRouting),
        (true, false) => Some(KeyUnexpected),
        (false, true) => Some(KeyMissing),
        _ if flags & CHECKSUM_BIT != 0 => Some(ChecksumUnexpected),
        _ => None,
    }
}

#[test]
fn p2_p3_every_combination_of_flags_and_versions_meets_its_reason() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in [PLAIN, KEYED, FIXED] {
            for flags in combinations() {
                let inner = inbound(tunnel);
                let words = words(flags, tunnel.key.unwrap_or(7));
                let outer = received(tunnel, gre(flags, 0x0800, &words, &inner.bytes()));
                let frame = from_wan(&outer.bytes());
                let what = format!("flags {flags:#06x} on {tunnel:?}");
                cases.push(match refusal(flags, tunnel) {
                    None => accepts(what, hook, tunnel, frame, &inner),
                    Some(Pptp) => Case::new(what, hook, frame).passes(Pptp),
                    Some(outcome) => Case::new(what, hook, frame).drops(outcome, tunnel),
                });
            }
        }
    }
    check(cases);
}

#[test]
fn rfc2784_1_reserved_bits_are_discarded_or_ignored_one_by_one() {
    let inner = inbound(PLAIN);
    let mut cases = Vec::new();
    for hook in TIERS {
        // Bit 0 is the most significant; 1 to 3 and the version have their own tests.
        for bit in 4..13u16 {
            let outer = received(PLAIN, gre(0x8000 >> bit, 0x0800, &[], &inner.bytes()));
            let (what, frame) = (format!("bit {bit}"), from_wan(&outer.bytes()));
            cases.push(if bit <= 5 {
                Case::new(what, hook, frame).drops(GreReserved, PLAIN)
            } else {
                accepts(what, hook, PLAIN, frame, &inner)
            });
        }
    }
    check(cases);
}

#[test]
fn rfc2890_1_only_the_tunnels_own_key_opens_it() {
    let mut cases = Vec::new();
    for hook in TIERS {
        let keyed = |what: String, tunnel, key| {
            let inner = inbound(tunnel).bytes();
            let outer = received(tunnel, gre(KEY_BIT, 0x0800, &[key], &inner));
            Case::new(what, hook, from_wan(&outer.bytes()))
        };
        // The keys that differ in one bit.
        for bit in 0..32 {
            for (tunnel, own) in [(KEYED, 0x0102_0304u32), (FIXED, 0)] {
                let key = own ^ 1 << bit;
                cases.push(keyed(format!("key {key:#x}"), tunnel, key).drops(KeyMismatch, tunnel));
            }
        }
        let swapped = KEYED.key.unwrap().swap_bytes();
        cases.push(keyed("byte order".into(), KEYED, swapped).drops(KeyMismatch, KEYED));
        cases.push(keyed("key 0 is a key".into(), PLAIN, 0).drops(KeyUnexpected, PLAIN));
        let keyless = gre(0, 0x0800, &[], &inbound(FIXED).bytes());
        let frame = from_wan(&received(FIXED, keyless).bytes());
        cases.push(Case::new("none is not key 0", hook, frame).drops(KeyMissing, FIXED));
    }
    check(cases);
}

/// Whether its checksum is right or wrong, as in ip_tunnel_rcv.
#[test]
fn r1_a_checksum_on_a_tunnel_without_is_dropped() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for checksum in [0, 0xbeef_0000, 0xffff_0000] {
            let inner = inbound(PLAIN).bytes();
            let outer = received(PLAIN, gre(CHECKSUM_BIT, 0x0800, &[checksum], &inner));
            cases.push(
                Case::new(format!("checksum {checksum:#x}"), hook, from_wan(&outer.bytes()))
                    .drops(ChecksumUnexpected, PLAIN),
            );
        }
    }
    check(cases);
}

/// The packet says that it ends there, and the frame does, or goes on as padding.
#[test]
fn a_packet_that_ends_anywhere_in_the_headers_is_told_where() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in TUNNELS {
            let inner = inbound(tunnel).bytes();
            let packet = received(tunnel, gre_of(tunnel, &inner)).bytes();
            let gre_len = packet.len() - IPV4 - inner.len();
            for len in IPV4..packet.len() {
                let outcome = if len < IPV4 + gre_len { GreTruncated } else { InnerTruncated };
                let shorter = patch(&packet, 2, &(len as u16).to_be_bytes());
                for frame in [from_wan(&shorter[..len]), from_wan(&shorter)] {
                    let what = format!("{len} bytes in a frame of {}", frame.len());
                    cases.push(Case::new(what, hook, frame).drops(outcome, tunnel));
                }
            }
        }
    }
    check(cases);
}

/// Of every kind of header, whatever the tunnel takes.
#[test]
fn p1_p2_p3_every_header_cut_anywhere_is_told_by_what_is_left_of_it() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in [PLAIN, KEYED] {
            for flags in combinations() {
                let header = gre(flags, 0x0800, &words(flags, tunnel.key.unwrap_or(7)), &[]);
                let packet = received(tunnel, [&header[..], &inbound(tunnel).bytes()].concat());
                let packet = packet.bytes();
                for len in 0..header.len() {
                    let outcome = match flags & 7 {
                        _ if len < 4 => GreTruncated,
                        1 => Pptp,
                        2.. => GreVersion,
                        _ if flags & ROUTING_BIT != 0 => GreRouting,
                        _ => GreTruncated,
                    };
                    let shorter = patch(&packet, 2, &((IPV4 + len) as u16).to_be_bytes());
                    for frame in [from_wan(&shorter[..IPV4 + len]), from_wan(&shorter)] {
                        let what = format!("flags {flags:#06x}, {len} bytes of {}", frame.len());
                        let case = Case::new(what, hook, frame);
                        cases.push(match outcome {
                            Pptp => case.passes(Pptp),
                            outcome => case.drops(outcome, tunnel),
                        });
                    }
                }
            }
        }
    }
    check(cases);
}

#[test]
fn a_frame_cut_anywhere_is_the_kernels_affair() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in [PLAIN, KEYED] {
            let frame = through(tunnel, &inbound(tunnel).bytes());
            for len in hook.shortest()..frame.len() {
                let what = format!("{len} bytes");
                cases.push(Case::new(what, hook, frame[..len].to_vec()).passes(Ipv4Malformed));
            }
        }
    }
    check(cases);
}

/// A fragment's GRE header is another's data, or not there at all. TC holds what may be one of two.
#[test]
fn r7588_5_fragments_are_for_the_reassembler() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in [PLAIN, KEYED] {
            let outer = || received(tunnel, gre_of(tunnel, &inbound(tunnel).bytes()));
            let last = |offset: u16| {
                outer().with(|header| {
                    header.fragment_offset = offset.try_into().unwrap();
                })
            };
            let middle = last(100).with(|header| header.more_fragments = true);
            cases.push(Case::new("middle", hook, from_wan(&middle.bytes())).passes(OuterFragment));
            for (what, packet) in [
                ("first", outer().with(|header| header.more_fragments = true)),
                ("last", last(1)),
                ("at the end of an address", last(0x1fff)),
            ] {
                let case = Case::new(what, hook, from_wan(&packet.bytes()));
                let is_first_of_odd_length = what == "first" && packet.payload.len() % 8 != 0;
                cases.push(if hook.tier() == Tier::Xdp || is_first_of_odd_length {
                    case.passes(OuterFragment)
                } else {
                    case.consumes(FragmentWaiting)
                });
            }
        }
    }
    check(cases);
}

/// A slot of the table holds 31 bits of a hash: where they meet those of another key, the tunnel's
/// record still tells the two apart.
#[test]
fn a_slot_that_is_another_keys_does_not_open_the_tunnel() {
    let slot = |remote: [u8; 4], kind, tunnel: Spec| {
        move |plane: &mut DataPlane| {
            let [local, remote] = [LOCAL, remote].map(u32::from_ne_bytes);
            let ends = Ends::v4(local, remote);
            plane.demux.insert(Key { ends, kind, link: 0 }, tunnel.id);
        }
    };
    let keyed = |tunnel: Spec| gre(KEY_BIT, 0x0800, &[7], &inbound(tunnel).bytes());
    let keyless = |tunnel: Spec| gre(0, 0x0800, &[], &inbound(tunnel).bytes());
    let key = Kind::keyed(7u32.to_be());
    let mut cases = Vec::new();
    for hook in TIERS {
        let case = |what, packet: Packet| Case::new(what, hook, from_wan(&packet.bytes()));
        cases.extend([
            case("another key", received(KEYED, keyed(KEYED)))
                .drops(KeyMismatch, KEYED)
                .given(slot(KEYED.remote(), key, KEYED)),
            case("a key, of a tunnel without", received(PLAIN, keyed(PLAIN)))
                .drops(KeyUnexpected, PLAIN)
                .given(slot(PLAIN.remote(), key, PLAIN)),
            case("no key, of key 0", received(FIXED, keyless(FIXED)))
                .drops(KeyMissing, FIXED)
                .given(slot(FIXED.remote(), Kind::KEYLESS, FIXED)),
            case("another remote", from_remote(STRANGER, keyless(PLAIN)))
                .passes(NoTunnel)
                .given(slot(STRANGER, Kind::KEYLESS, PLAIN)),
            case("another pair", from_remote(STRANGER, keyless(PLAIN)))
                .passes(NoTunnel)
                .given(slot(STRANGER, Kind::PAIR, PLAIN)),
        ]);
    }
    check(cases);
}
