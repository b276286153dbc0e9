//! Frames that are none of xgre's business, or that the kernel must judge: both programs of a port
//! pass them on as they came.

use gre_ebpf_common::{outcome::Outcome::*, port::Port};

use crate::{
    bench::Hook,
    case::{Case, check},
    frame::{
        ETHERNET, Packet, from_lan, from_wan, gre_of, inbound, outbound, patch, received, spoil,
        to_device,
    },
    world::{LAN, PLAIN, WAN},
};

/// A packet that would be encapsulated, and one that would be decapsulated.
fn valid() -> [(Hook, Packet); 3] {
    let outer = || received(PLAIN, gre_of(PLAIN, &inbound(PLAIN).bytes()));
    [(Hook::Xdp(LAN), outbound(PLAIN)), (Hook::Xdp(WAN), outer()), (Hook::TcIn(WAN), outer())]
}

/// As it arrives at the hook's port.
fn arriving(hook: Hook, packet: &[u8]) -> Vec<u8> {
    if hook == Hook::Xdp(LAN) { from_lan(packet) } else { from_wan(packet) }
}

#[test]
fn a_frame_for_another_mac_address_is_not_for_the_port() {
    let mut cases = Vec::new();
    for (hook, packet) in valid() {
        let frame = arriving(hook, &packet.bytes());
        let mut passes = |what: String, destination: &[u8]| {
            cases.push(Case::new(what, hook, spoil(&frame, 0, destination)).passes(OtherHost));
        };
        passes("broadcast".into(), &[0xff; 6]);
        passes("multicast".into(), &[1, 0, 0x5e, 0, 0, 5]);
        passes("none".into(), &[0; 6]);
        for bit in 0..48 {
            let mut destination: [u8; 6] = frame[..6].try_into().unwrap();
            destination[bit / 8] ^= 1 << (bit % 8);
            passes(format!("bit {bit}"), &destination);
        }
    }
    check(cases);
}

#[test]
fn whatever_is_not_ip_is_the_kernels() {
    let mut cases = Vec::new();
    for (hook, packet) in valid() {
        let frame = arriving(hook, &packet.bytes());
        // A length, the bytes swapped, IPv4 but a bit, ARP, MPLS; tags of no VLAN; IPv6 that is none.
        for (ethertype, outcome) in [
            (0x0064u16, NotIp),
            (0x0008, NotIp),
            (0x0801, NotIp),
            (0x0806, NotIp),
            (0x8847, NotIp),
            (0x8100, VlanUnknown),
            (0x88a8, VlanUnknown),
            (0x86dd, Ipv6Malformed),
        ] {
            let frame = spoil(&frame, 12, &ethertype.to_be_bytes());
            cases.push(Case::new(format!("{ethertype:#06x}"), hook, frame).passes(outcome));
        }
    }
    check(cases);
}

/// XDP leaves them to the kernel, which calls TC on the way.
#[test]
fn options_are_not_xdps_affair() {
    let mut cases = Vec::new();
    for (hook, packet) in valid() {
        for words in 1..=10 {
            let options = vec![1; 4 * words];
            let with_options = packet.clone().with(|header| {
                header.options = options[..].try_into().unwrap();
            });
            let frame = arriving(hook, &with_options.bytes());
            let wrong = spoil(&frame, ETHERNET + 20, &[0]);
            let case = |frame| Case::new(format!("{words} words"), hook, frame);
            cases.extend(match hook {
                Hook::TcIn(_) => {
                    let inner = inbound(PLAIN).bytes();
                    let out = to_device(PLAIN, &inner);
                    [
                        case(frame).sends(ToDevice, PLAIN.peer(), move |_| out.clone()).received(
                            PLAIN,
                            1,
                            inner.len(),
                        ),
                        case(wrong).passes(Ipv4Malformed),
                    ]
                }
                _ => [case(frame).passes(Ipv4Options), case(wrong).passes(Ipv4Options)],
            });
        }
        let beyond = patch(&packet.bytes()[..24], 0, &[0x4f, 0, 0, 24]);
        let frame = arriving(hook, &beyond);
        cases.push(Case::new("beyond the packet", hook, frame).passes(Ipv4Malformed));
    }
    check(cases);
}

#[test]
fn an_ipv4_header_that_lies_is_left_to_the_kernel_to_drop_and_count() {
    let mut cases = Vec::new();
    for (hook, packet) in valid() {
        let packet = packet.bytes();
        let length = |len: u16| patch(&packet, 2, &len.to_be_bytes());
        let checksum = u16::from_be_bytes([packet[10], packet[11]]);
        let mut passes = |what: String, packet: &[u8]| {
            let frame = arriving(hook, packet);
            cases.push(Case::new(what, hook, frame).passes(Ipv4Malformed));
        };
        for first in [0x05, 0x35, 0x55, 0x65, 0xf5, 0x44, 0x41, 0x40] {
            passes(format!("version and IHL {first:#x}"), &patch(&packet, 0, &[first]));
        }
        for len in [0, 1, 19, packet.len() as u16 + 1, u16::MAX] {
            passes(format!("a length of {len}"), &length(len));
        }
        for bit in 0..16 {
            let wrong = spoil(&packet, 10, &(checksum ^ 1 << bit).to_be_bytes());
            passes(format!("checksum, bit {bit}"), &wrong);
        }
        for len in hook.shortest() - ETHERNET..packet.len() {
            passes(format!("cut to {len}"), &packet[..len]);
        }
    }
    check(cases);
}

#[test]
fn an_interface_that_is_no_port_passes_everything_on() {
    let mut cases = Vec::new();
    for (hook, packet) in valid() {
        let frame = arriving(hook, &packet.bytes());
        let gone = Case::new("not in the map", hook, frame.clone()).passes(UnknownPort);
        cases.push(gone.given(|plane| plane.ports.retain(|&port, _| port != LAN && port != WAN)));
        let empty = Case::new("all zero", hook, frame.clone()).passes(UnknownPort);
        cases.push(empty.given(|plane| {
            plane.ports.extend([(LAN, Port::default()), (WAN, Port::default())]);
        }));
    }
    check(cases);
}

/// On the ingress of a port TC only takes GRE off; the kernel routes the rest into the tunnels.
#[test]
fn tc_leaves_what_is_not_gre_to_the_kernel() {
    let frame = from_lan(&outbound(PLAIN).bytes());
    check([Case::new("to a tunnel", Hook::TcIn(LAN), frame).passes(NoTunnelRoute)]);
}
