//! Neighbours: their dump (RTM_GETNEIGH), and asking the kernel to confirm one.

use std::net::IpAddr;

use netlink_packet_core::{DecodeError, NLM_F_CREATE, NLM_F_REPLACE, NlasIterator};
use netlink_packet_route::{
    RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage},
};
use nix::libc::{AF_INET, AF_INET6};

use super::{
    Kernel, NetlinkError, device, family_of,
    socket::{Dump, address, split, word},
};
use crate::observed::{MAPPED, Neighbour, NeighbourState};

// linux/rtnetlink.h, linux/neighbour.h
const RTM_GETNEIGH: u16 = 30;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_REACHABLE: u16 = 0x02;
const NUD_STALE: u16 = 0x04;
const NUD_DELAY: u16 = 0x08;
const NUD_PROBE: u16 = 0x10;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;

/// By interface and address: the kernel's own order is a hash table's, which changes with its size.
pub(super) async fn read() -> Result<Vec<Neighbour>, NetlinkError> {
    let mut neighbours = Vec::new();
    for (what, family) in [("IPv4 neighbours", AF_INET), ("IPv6 neighbours", AF_INET6)] {
        let dump = Dump::route(what, RTM_GETNEIGH, family, 12);
        neighbours.extend(dump.read(|payload| parse(payload, family)).await?);
    }
    neighbours.sort_unstable_by_key(|neighbour| (neighbour.ifindex, neighbour.ip));
    Ok(neighbours)
}

impl Kernel {
    /// Has the kernel look for `ip` as it does when it has a packet for it: it resolves a neighbour
    /// that is missing or failed, and makes sure of one that is stale.
    pub async fn confirm_neighbour(&self, ifindex: u32, ip: IpAddr) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family_of(ip);
        message.header.ifindex = ifindex;
        message.header.flags = NeighbourFlags::Use;
        let destination = match ip {
            IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
            IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
        };
        message.attributes = vec![NeighbourAttribute::Destination(destination)];
        self.change(
            || format!("have the neighbour {ip} confirmed on the device {}", device(ifindex)),
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
        .await
    }
}

/// A MAC address; the remote address that the kernel's own GRE over IPv4 has there in the form in which it
/// stands on a device of ours.
fn link_address(value: &[u8]) -> Option<[u8; 6]> {
    match *value {
        [a, b, c, d] => Some([MAPPED[0], MAPPED[1], a, b, c, d]),
        _ => value.try_into().ok(),
    }
}

/// An RTM_NEWNEIGH: `struct ndmsg` and attributes. None for one of another family.
fn parse(payload: &[u8], family: i32) -> Result<Option<Neighbour>, DecodeError> {
    let (header, attributes) = split::<12>(payload)?;
    if i32::from(header[0]) != family {
        return Ok(None);
    }
    let state = match u16::from_ne_bytes([header[8], header[9]]) {
        NUD_REACHABLE | NUD_PERMANENT | NUD_NOARP | NUD_DELAY | NUD_PROBE => NeighbourState::Valid,
        NUD_STALE => NeighbourState::Stale,
        _ => NeighbourState::Unresolved,
    };
    let (mut ip, mut mac) = (None, None);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        match attribute.kind() {
            NDA_DST => ip = Some(address(attribute.value())?),
            NDA_LLADDR => mac = link_address(attribute.value()),
            _ => {}
        }
    }
    let ip = ip.ok_or("a neighbour message without an address")?;
    Ok(Some(Neighbour { ifindex: word(header, 4), ip, mac, state }))
}
