//! GRE that is no tunnel's: nobody but the host has anything to say about it, in both tiers.

use gre_ebpf_common::outcome::Outcome::*;

use crate::{
    case::{Case, check},
    frame::{IPV4, KEY_BIT, from_remote, from_wan, gre, gre_of, inbound, patch, received},
    gre_header::{TIERS, combinations, words},
    world::{KEYED, PLAIN, STRANGER, TUNNELS},
};

/// GRE between addresses of no tunnel may be on its way through, or for another program: it is
/// never dropped, whatever it looks like.
#[test]
fn gre_of_strangers_is_passed_on_whatever_it_looks_like() {
    let mut cases = Vec::new();
    for hook in TIERS {
        let passes =
            |what: String, packet: &[u8]| Case::new(what, hook, from_wan(packet)).passes(NoTunnel);
        let inner = inbound(PLAIN).bytes();
        for flags in combinations() {
            let header = gre(flags, 0x0800, &words(flags, 0x0102_0304), &inner);
            let packet = from_remote(STRANGER, header).bytes();
            cases.push(passes(format!("flags {flags:#06x}"), &packet));
        }
        for bit in 0..16u16 {
            let packet = from_remote(STRANGER, gre(1 << bit, 0x0800, &[], &inner)).bytes();
            cases.push(passes(format!("bit {bit}"), &packet));
        }
        for protocol in [0, 0x6558, 0x86dd, 0x880b, 0x883e] {
            let packet = from_remote(STRANGER, gre(0, protocol, &[], &inner)).bytes();
            cases.push(passes(format!("protocol type {protocol:#06x}"), &packet));
        }
        let packet = from_remote(STRANGER, gre(KEY_BIT, 0x0800, &[7], &inner)).bytes();
        for len in IPV4..packet.len() {
            let shorter = patch(&packet, 2, &(len as u16).to_be_bytes());
            cases.push(passes(format!("{len} bytes"), &shorter[..len]));
        }
        let fragment = from_remote(STRANGER, gre(0, 0x0800, &[], &inner));
        let fragment = fragment.with(|header| header.more_fragments = true);
        cases.push(passes("a fragment".into(), &fragment.bytes()));
    }
    check(cases);
}

/// A tunnel is both its addresses: the right remote with another local is a stranger as well.
#[test]
fn one_address_of_a_tunnel_is_not_enough() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in [PLAIN, KEYED] {
            let outer = || received(tunnel, gre_of(tunnel, &inbound(tunnel).bytes()));
            for bit in 0..32 {
                let flip =
                    |address: [u8; 4]| (u32::from_be_bytes(address) ^ 1 << bit).to_be_bytes();
                let other = outer().with(|header| header.destination = flip(header.destination));
                let frame = from_wan(&other.bytes());
                cases.push(Case::new(format!("local, bit {bit}"), hook, frame).passes(NoTunnel));
                let other = outer().with(|header| header.source = flip(header.source));
                if TUNNELS.iter().all(|tunnel| tunnel.remote() != other.header.source) {
                    let frame = from_wan(&other.bytes());
                    let what = format!("remote, bit {bit}");
                    cases.push(Case::new(what, hook, frame).passes(NoTunnel));
                }
            }
            let swapped = outer().with(|header| {
                std::mem::swap(&mut header.source, &mut header.destination);
            });
            let frame = from_wan(&swapped.bytes());
            cases.push(Case::new("the other way", hook, frame).passes(NoTunnel));
        }
    }
    check(cases);
}
