//! From a frame to the IPv4 packet in it that a router may handle.

use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use gre_ebpf_common::{
    outcome::Outcome,
    port::{Flags, Port},
    wire::{
        ethernet::{self, ETHERTYPE_IPV4, EthernetHeader},
        ipv4::{self, Ipv4Header},
    },
};

use crate::packet::Packet;

/// Interface index to port.
#[map]
static PORTS: Array<Port> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The port or tunnel device with this interface index; none where `xgre` has nothing to do.
#[inline(always)]
pub fn port(ifindex: u32) -> Option<&'static Port> {
    PORTS.get(ifindex).filter(|port| port.flags.has(Flags::VALID))
}

/// The IPv4 header of a frame addressed to `port`, whole and without options.
#[inline(always)]
pub fn ipv4(packet: &Packet, port: &Port) -> Result<Ipv4Header, Outcome> {
    let ethernet: EthernetHeader = packet.read(0).ok_or(Outcome::NotIpv4)?;
    if !ethernet.destination().is(&port.mac) {
        return Err(Outcome::OtherHost);
    }
    if ethernet.ethertype() != ETHERTYPE_IPV4 {
        return Err(Outcome::NotIpv4);
    }
    let header: Ipv4Header = packet.read(ethernet::HEADER_LEN).ok_or(Outcome::Ipv4Malformed)?;
    if !header.is_plain() {
        let options = header.version() == 4 && header.header_len() > ipv4::HEADER_LEN;
        return Err(if options { Outcome::Ipv4Options } else { Outcome::Ipv4Malformed });
    }
    let len = u32::from(header.total_len());
    if len < ipv4::HEADER_LEN as u32
        || packet.len() < ethernet::HEADER_LEN as u32 + len
        || !header.checksum_is_right()
    {
        return Err(Outcome::Ipv4Malformed);
    }
    Ok(header)
}
