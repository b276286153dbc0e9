//! Addresses: their dump (RTM_GETADDR), and adding and deleting one.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;
use netlink_packet_core::{DecodeError, NLM_F_CREATE, NLM_F_EXCL, NlasIterator};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage, AddressScope},
};
use nix::libc::{AF_INET, AF_INET6, EEXIST};

use super::{
    Added, Kernel, NetlinkError, device, family_of,
    socket::{self, Dump, split, word},
};
use crate::model::Address;

// linux/rtnetlink.h, linux/if_addr.h
const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

pub(super) async fn read() -> Result<BTreeMap<u32, Vec<Address>>, NetlinkError> {
    let mut addresses = BTreeMap::<u32, Vec<Address>>::new();
    for (what, family) in [("IPv4 addresses", AF_INET), ("IPv6 addresses", AF_INET6)] {
        let dump = Dump::route(what, RTM_GETADDR, family, 8);
        for (ifindex, address) in dump.read(|payload| parse(payload, family)).await? {
            addresses.entry(ifindex).or_default().push(address);
        }
    }
    Ok(addresses)
}

impl Kernel {
    /// `ip addr add LOCAL [peer PEER] dev DEV`: no broadcast address, as there.
    pub async fn add_address(&self, ifindex: u32, address: Address) -> Result<Added, NetlinkError> {
        let result = self
            .change(
                || format!("add the address {} to the device {}", words(address), device(ifindex)),
                RouteNetlinkMessage::NewAddress(message(ifindex, address)),
                NLM_F_CREATE | NLM_F_EXCL,
            )
            .await;
        match result {
            Ok(()) => Ok(Added::Now),
            // The kernel says so too of the same local address with another peer of the prefix, and
            // of the same IPv6 address with another prefix length.
            Err(refusal) if refusal.errno() == Some(EEXIST) => {
                let there = read().await?;
                if there.get(&ifindex).is_some_and(|there| there.contains(&normal(address))) {
                    Ok(Added::Before)
                } else {
                    Err(refusal)
                }
            }
            Err(refusal) => Err(refusal),
        }
    }

    pub async fn delete_address(&self, ifindex: u32, address: Address) -> Result<(), NetlinkError> {
        self.change(
            || format!("delete the address {} of the device {}", words(address), device(ifindex)),
            RouteNetlinkMessage::DelAddress(message(ifindex, address)),
            0,
        )
        .await
    }
}

fn message(ifindex: u32, address: Address) -> AddressMessage {
    let local = address.local.addr();
    // The kernel keeps one prefix length; with a peer it is the peer's.
    let remote = address.peer.unwrap_or(address.local);
    let mut message = AddressMessage::default();
    message.header.family = family_of(local);
    message.header.prefix_len = remote.prefix_len();
    message.header.index = ifindex;
    if local.is_loopback() {
        message.header.scope = AddressScope::Host;
    }
    message.attributes =
        vec![AddressAttribute::Local(local), AddressAttribute::Address(remote.addr())];
    message
}

/// `address` as a dump shows it.
fn normal(address: Address) -> Address {
    let remote = address.peer.unwrap_or(address.local);
    observed(address.local.addr(), remote)
}

/// The kernel's view is a local address, and the other end's address with the prefix length; the
/// two are the same unless there is a peer.
fn observed(local: IpAddr, remote: IpNet) -> Address {
    if local == remote.addr() {
        Address { local: remote, peer: None }
    } else {
        Address { local: local.into(), peer: Some(remote) }
    }
}

fn words(address: Address) -> String {
    match address.peer {
        None => address.local.to_string(),
        Some(peer) => format!("{} peer {peer}", address.local.addr()),
    }
}

/// An RTM_NEWADDR: `struct ifaddrmsg` and attributes. None for one of another family.
fn parse(payload: &[u8], family: i32) -> Result<Option<(u32, Address)>, DecodeError> {
    let (header, attributes) = split::<8>(payload)?;
    if i32::from(header[0]) != family {
        return Ok(None);
    }
    let (mut local, mut remote) = (None, None);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        match attribute.kind() {
            IFA_LOCAL => local = Some(socket::address(attribute.value())?),
            IFA_ADDRESS => remote = Some(socket::address(attribute.value())?),
            _ => {}
        }
    }
    // IPv6's local address is only told where there is a peer; IPv4's peer is left out where it is
    // 0.0.0.0, as a point-to-point device's other end can be.
    let (Some(local), remote) = (local.or(remote), remote.unwrap_or(Ipv4Addr::UNSPECIFIED.into()))
    else {
        return Err("an address message without an address".into());
    };
    let remote = IpNet::new(remote, header[1]).map_err(|error| error.to_string())?;
    Ok(Some((word(header, 4), observed(local, remote))))
}
