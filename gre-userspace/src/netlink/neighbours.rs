//! IPv4 neighbours (RTM_GETNEIGH; linux/neighbour.h).

use netlink_packet_core::{DecodeError, NlasIterator};
use nix::libc;

use crate::observed::{Neighbour, NeighbourState};

use super::{
    error::NetlinkError,
    socket::{Dump, ipv4, split, word},
};

const RTM_GETNEIGH: u16 = 30;
/// struct ndmsg: family, padding, index, state (u16), flags, type.
const HEADER: usize = 12;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

const REACHABLE: u16 = 0x02;
const STALE: u16 = 0x04;
const DELAY: u16 = 0x08;
const PROBE: u16 = 0x10;
const NOARP: u16 = 0x40;
const PERMANENT: u16 = 0x80;

const RTN_UNICAST: u8 = 1;

pub(super) async fn read() -> Result<Vec<Neighbour>, NetlinkError> {
    Dump::route("neighbours", RTM_GETNEIGH, libc::AF_INET, HEADER).read(parse).await
}

fn parse(payload: &[u8]) -> Result<Option<Neighbour>, DecodeError> {
    let (header, attributes) = split::<HEADER>(payload)?;
    if header[11] != RTN_UNICAST {
        return Ok(None);
    }
    let state = u16::from_ne_bytes([header[8], header[9]]);
    let (mut ip, mut mac) = (None, None);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        match attribute.kind() {
            NDA_DST => ip = Some(ipv4(attribute.value())?),
            NDA_LLADDR => mac = attribute.value().try_into().ok(),
            _ => {}
        }
    }
    let state = if state & (REACHABLE | DELAY | PROBE | NOARP | PERMANENT) != 0 {
        NeighbourState::Valid
    } else if state & STALE != 0 {
        NeighbourState::Stale
    } else {
        NeighbourState::Unresolved
    };
    Ok(ip.map(|ip| Neighbour { ifindex: word(header, 4), ip, mac, state }))
}
