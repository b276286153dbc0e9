//! Protocol types: what comes out of a tunnel besides IPv4, and what does not.

use gre_ebpf_common::outcome::Outcome::*;

use crate::{
    bench::Hook,
    case::{Case, check},
    frame::{Options, frame, from_wan, inbound, received},
    gre_header::TIERS,
    world::{FREE, KEYED, PLAIN, Spec, add},
};

const ALL: Spec = Spec::new(FREE).with_checksums().with_sequence().with_key(0x77);
const TUNNELS: [Spec; 3] = [PLAIN, KEYED, ALL];

/// A packet of this protocol type, with all options of its tunnel.
fn case(what: String, hook: Hook, tunnel: Spec, protocol: u16, payload: &[u8]) -> Case {
    let outer = received(tunnel, Options::received(tunnel, 0).gre(protocol, payload));
    Case::new(what, hook, from_wan(&outer.bytes())).given(move |plane| {
        if tunnel == ALL {
            add(plane, tunnel);
        }
    })
}

/// To the device, with the protocol type as EtherType.
fn delivers(hook: Hook, tunnel: Spec, protocol: u16, payload: &[u8]) -> Case {
    let mut out = frame(tunnel.device_mac(), tunnel.peer_mac(), payload);
    out[12..14].copy_from_slice(&protocol.to_be_bytes());
    let what = format!("protocol type {protocol:#06x}, {} bytes", payload.len());
    case(what, hook, tunnel, protocol, payload)
        .sends(ToDevice, tunnel.peer(), move |_| out.clone())
        .received(tunnel, 1, payload.len())
}

/// Two labels and what they label.
fn mpls() -> Vec<u8> {
    let labels = [0x0001_0040u32, 0x0002_0140];
    let mut bytes: Vec<u8> = labels.iter().flat_map(|label| label.to_be_bytes()).collect();
    bytes.extend(inbound(PLAIN).bytes());
    bytes
}

#[test]
fn rfc4023_1_mpls_reaches_the_device_and_is_not_taken_for_ip() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in TUNNELS {
            for protocol in [0x8847, 0x8848] {
                cases.push(delivers(hook, tunnel, protocol, &mpls()));
            }
        }
    }
    check(cases);
}

/// What looks like IPv4 is IPv4 only by its protocol type.
#[test]
fn rfc2784_3_any_ethertype_reaches_the_device_whatever_it_carries() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in TUNNELS {
            for protocol in [0x0600, 0x0801, 0x0806, 0x8100, 0x880b, 0x88cc, 0xfffe, 0xffff] {
                cases.push(delivers(hook, tunnel, protocol, &inbound(PLAIN).bytes()));
                cases.push(delivers(hook, tunnel, protocol, &[0xff; 40]));
            }
        }
    }
    check(cases);
}

#[test]
fn d13_p5_wccp_and_erspan_are_the_hosts() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in TUNNELS {
            for protocol in [0x883e, 0x88be, 0x22eb] {
                for payload in [inbound(PLAIN).bytes(), vec![0; 4], Vec::new()] {
                    let what = format!("protocol type {protocol:#06x}");
                    let case = case(what, hook, tunnel, protocol, &payload);
                    cases.push(case.passes(ForeignProtocol));
                }
            }
        }
    }
    check(cases);
}

#[test]
fn l8_d14_no_ethernet_frame_comes_out_of_a_tunnel_for_ip() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in TUNNELS {
            let ethernet = frame([2; 6], [4; 6], &inbound(PLAIN).bytes());
            for payload in [ethernet, inbound(PLAIN).bytes(), Vec::new()] {
                let case = case("0x6558".into(), hook, tunnel, 0x6558, &payload);
                cases.push(case.drops(EthernetFrame, tunnel));
            }
        }
    }
    check(cases);
}

#[test]
fn rfc2784_3_a_protocol_type_that_is_a_length_is_dropped() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in TUNNELS {
            for protocol in [0, 1, 0x0008, 0x002a, 0x05dc, 0x05ff] {
                let case = case(format!("{protocol:#06x}"), hook, tunnel, protocol, &[0x45; 40]);
                cases.push(case.drops(ProtocolUnsupported, tunnel));
            }
            let case = case("one byte".into(), hook, tunnel, 0, &[0]);
            cases.push(case.drops(ProtocolUnsupported, tunnel));
        }
    }
    check(cases);
}

/// The kernel drops what has less than 8 bytes behind its GRE header, keepalives among them.
#[test]
fn d5_p1_what_is_shorter_than_the_kernel_takes_is_told_apart() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in TUNNELS {
            cases.push(case("a keepalive".into(), hook, tunnel, 0, &[]).consumes(Keepalive));
            for len in 0..20 {
                let case =
                    case(format!("IPv4, {len} bytes"), hook, tunnel, 0x0800, &vec![0x45; len]);
                cases.push(case.drops(InnerTruncated, tunnel));
            }
            if let Hook::Xdp(_) = hook {
                for len in 0..20 {
                    cases.push(delivers(hook, tunnel, 0x8847, &vec![7; len]));
                }
            }
        }
    }
    check(cases);
}
