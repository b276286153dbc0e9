//! IPv4 addresses (RTM_GETADDR; linux/if_addr.h).

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use netlink_packet_core::{DecodeError, NlasIterator};
use nix::libc;

use crate::model::Address;

use super::{
    error::NetlinkError,
    socket::{Dump, ipv4, split, word},
};

const RTM_GETADDR: u16 = 22;
/// struct ifaddrmsg: family, prefix length, flags, scope, index.
const HEADER: usize = 8;

/// The other end's address where there is one, else the same as IFA_LOCAL.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

pub(super) async fn read() -> Result<BTreeMap<u32, Vec<Address>>, NetlinkError> {
    let mut addresses: BTreeMap<u32, Vec<Address>> = BTreeMap::new();
    let read = Dump::route("addresses", RTM_GETADDR, libc::AF_INET, HEADER).read(parse).await?;
    for (ifindex, address) in read {
        addresses.entry(ifindex).or_default().push(address);
    }
    Ok(addresses)
}

fn parse(payload: &[u8]) -> Result<Option<(u32, Address)>, DecodeError> {
    let (header, attributes) = split::<HEADER>(payload)?;
    let prefix_len = header[1];
    let (mut local, mut other) = (None, None);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        match attribute.kind() {
            IFA_LOCAL => local = Some(ipv4(attribute.value())?),
            IFA_ADDRESS => other = Some(ipv4(attribute.value())?),
            _ => {}
        }
    }
    let Some(own) = local.or(other) else { return Ok(None) };
    let net = |address| {
        Ipv4Net::new(address, prefix_len)
            .map_err(|_| DecodeError::from(format!("a prefix of {prefix_len} bits")))
    };
    let peer = other.filter(|other| *other != own).map(net).transpose()?;
    Ok(Some((word(header, 4), Address { local: net(own)?, peer })))
}
