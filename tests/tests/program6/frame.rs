//! GRE headers and frames, built by hand.

use crate::{
    packet::{GRE, Packet, sum},
    world::{Family, GATEWAY_MAC, HOST_MAC, LAN_MAC, Spec, WAN_MAC},
};

pub const ETHERNET: usize = 14;

pub const CHECKSUM_BIT: u16 = 0x8000;
pub const KEY_BIT: u16 = 0x2000;
pub const SEQUENCE_BIT: u16 = 0x1000;

/// TPID and tag control information of a frame's VLAN tags, outer first.
pub type Tags<'a> = &'a [(u16, u16)];

pub fn frame(to: [u8; 6], from: [u8; 6], tags: Tags<'_>, ethertype: u16, data: &[u8]) -> Vec<u8> {
    let mut frame = [to, from].concat();
    for (tpid, control) in tags {
        frame.extend(tpid.to_be_bytes());
        frame.extend(control.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend_from_slice(data);
    frame
}

/// The EtherType of an IP packet, by its version.
fn ethertype(packet: &[u8]) -> u16 {
    if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 }
}

/// As the HOST sends it to the gateway.
pub fn from_lan(packet: &[u8]) -> Vec<u8> {
    frame(LAN_MAC, HOST_MAC, &[], ethertype(packet), packet)
}

/// As the underlay's GATEWAY sends it to the gateway.
pub fn from_wan(packet: &[u8]) -> Vec<u8> {
    frame(WAN_MAC, GATEWAY_MAC, &[], ethertype(packet), packet)
}

pub fn to_host(packet: &[u8]) -> Vec<u8> {
    frame(HOST_MAC, LAN_MAC, &[], ethertype(packet), packet)
}

pub fn to_underlay(packet: &[u8]) -> Vec<u8> {
    frame(GATEWAY_MAC, WAN_MAC, &[], ethertype(packet), packet)
}

pub fn to_device(tunnel: Spec, packet: &[u8]) -> Vec<u8> {
    frame(tunnel.device_mac(), tunnel.peer_mac(), &[], ethertype(packet), packet)
}

/// What the kernel writes on a device without ARP does not matter.
pub const ROUTED_FROM: [u8; 6] = [2, 9, 9, 9, 9, 9];

/// As the kernel sends it out of a tunnel's device.
pub fn routed(packet: &[u8]) -> Vec<u8> {
    frame([0x33, 0x33, 0, 0, 0, 1], ROUTED_FROM, &[], ethertype(packet), packet)
}

/// As TC hands it to `bpf_redirect_neigh`, which writes the addresses later.
pub fn encapsulated_by_tc(packet: &[u8]) -> Vec<u8> {
    frame([0; 6], ROUTED_FROM, &[], ethertype(packet), packet)
}

/// The same frame with VLAN tags.
pub fn tagged(frame: &[u8], tags: Tags<'_>) -> Vec<u8> {
    let tags = tags.iter().flat_map(|(tpid, tci)| [tpid.to_be_bytes(), tci.to_be_bytes()].concat());
    [&frame[..12], &tags.collect::<Vec<_>>(), &frame[12..]].concat()
}

/// A GRE header of flags, protocol type and optional words, and what it carries; where the flags say
/// so the checksum, first of the words, is worked out.
pub fn gre(flags: u16, protocol: u16, words: &[u32], payload: &[u8]) -> Vec<u8> {
    let mut bytes = [flags.to_be_bytes(), protocol.to_be_bytes()].concat();
    bytes.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    bytes.extend_from_slice(payload);
    if flags & CHECKSUM_BIT != 0 {
        bytes[4..6].fill(0);
        let checksum = sum(&bytes);
        bytes[4..6].copy_from_slice(&checksum.to_be_bytes());
    }
    bytes
}

/// Flags and optional words of a tunnel's packets.
pub fn flags_of(tunnel: Spec, sequence: u32) -> (u16, Vec<u32>) {
    let mut flags = 0;
    let mut words = Vec::new();
    if tunnel.checksum {
        flags |= CHECKSUM_BIT;
        words.push(0);
    }
    if let Some(key) = tunnel.key {
        flags |= KEY_BIT;
        words.push(key);
    }
    if tunnel.sequence {
        flags |= SEQUENCE_BIT;
        words.push(sequence);
    }
    (flags, words)
}

/// The GRE header that a tunnel's packets have, and what it carries.
pub fn gre_of(tunnel: Spec, sequence: u32, protocol: u16, payload: &[u8]) -> Vec<u8> {
    let (flags, words) = flags_of(tunnel, sequence);
    gre(flags, protocol, &words, payload)
}

/// A packet that has come from a tunnel's remote, with any payload. Its DS field, TTL and flow label
/// are not those that the tunnel sends with.
pub fn received(tunnel: Spec, gre: Vec<u8>) -> Packet {
    Packet { protocol: GRE, ttl: 60, payload: gre, ..from_remote(tunnel) }
}

fn from_remote(tunnel: Spec) -> Packet {
    Packet::new(tunnel.remote(), tunnel.outside.local())
}

/// A packet that has come through a tunnel, with the first sequence number.
pub fn carried(tunnel: Spec, inner: &[u8]) -> Packet {
    received(tunnel, gre_of(tunnel, 0, ethertype(inner), inner))
}

/// A frame from the WAN with an inner packet that has come through a tunnel.
pub fn through(tunnel: Spec, inner: &[u8]) -> Vec<u8> {
    from_wan(&carried(tunnel, inner).bytes())
}

/// The outer packet that a tunnel must make of `inner`, which is as it goes into the tunnel: with
/// the TTL that forwarding has left it. The rules once more, in other words than the programs'
/// (ip_tunnel_xmit, ip6_tnl_xmit; RFC 6040, 4.1, normal mode). Of `found`, what was made, it takes
/// the identification.
pub fn encapsulated(tunnel: Spec, inner: &Packet, sequence: u32, found: &[u8]) -> Packet {
    let gre = gre_of(tunnel, sequence, inner.family().ethertype(), &inner.bytes());
    let (protocol, payload) = match tunnel.limit {
        Some(limit) => (60, [&[GRE, 0, 4, 1, limit, 1, 1, 0], &gre[..]].concat()),
        None => (GRE, gre),
    };
    let tos = if tunnel.tos & 1 == 1 { inner.tos } else { tunnel.tos & 0xfc | inner.tos & 3 };
    let inherited = if inner.family() == Family::V6 { inner.flow_label } else { 0 };
    Packet {
        protocol,
        payload,
        tos,
        ttl: if tunnel.ttl == 0 { inner.ttl } else { tunnel.ttl },
        flow_label: tunnel.flow_label.unwrap_or(inherited),
        dont_fragment: true,
        identification: identification(found),
        ..Packet::new(tunnel.outside.local(), tunnel.remote())
    }
}

/// The identification of the IPv4 packet in a frame.
fn identification(frame: &[u8]) -> u16 {
    let tags = frame.get(12..).map_or(0, |rest| {
        rest.chunks(4).take_while(|tag| matches!(tag, [0x81, 0, ..] | [0x88, 0xa8, ..])).count()
    });
    let at = ETHERNET + 4 * tags + 4;
    frame.get(at..at + 2).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
}
