//! What the daemon changes in the kernel: devices of tunnels, their addresses and routes.

use std::{collections::HashMap, net::Ipv4Addr};

use ipnet::Ipv4Net;
use netlink_packet_core::ErrorMessage;
use netlink_packet_route::{
    link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute},
    neighbour::{NeighbourFlags, NeighbourState},
    route::RouteScope,
};
use rtnetlink::{LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::model::Address;

use super::{Kernel, error::NetlinkError, features, links};

impl Kernel {
    /// Creates the device of a tunnel: a veth pair without ARP. `name` is what people see, still
    /// down; its other end `peer` is up, so that the device has a carrier whenever it is up.
    ///
    /// # Errors
    /// When the kernel refuses any step; then no device is left.
    pub async fn create_tunnel_device(
        &self,
        name: &str,
        peer: &str,
        mtu: u32,
        alias: &str,
    ) -> Result<(), NetlinkError> {
        let attempt = || format!("create the device {name}");
        self.handle
            .link()
            .add(LinkVeth::new(name, peer).build())
            .execute()
            .await
            .map_err(|error| refusal(attempt(), error))?;
        let result = self.set_up_pair(name, peer, mtu, alias).await;
        if result.is_err()
            && let Some(ifindex) = indexes(&[name]).await?.get(name)
        {
            self.delete_link(*ifindex).await?;
        }
        result
    }

    async fn set_up_pair(
        &self,
        name: &str,
        peer: &str,
        mtu: u32,
        alias: &str,
    ) -> Result<(), NetlinkError> {
        let indexes = indexes(&[name, peer]).await?;
        let index = |name: &str| {
            indexes.get(name).copied().ok_or_else(|| NetlinkError::Closed {
                attempt: format!("find the device {name} just created"),
            })
        };
        for (end, is_peer) in [(name, false), (peer, true)] {
            let ifindex = index(end)?;
            let mut message = LinkUnspec::new_with_index(ifindex).arp(false).mtu(mtu);
            if is_peer {
                // Whatever is sent through it is no longer than what the device takes.
                message = message.up();
            } else {
                message = message.alias(alias);
            }
            // No link-local address: the tunnel carries IPv4, and IPv6 would announce itself.
            let message = message
                .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
                    vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)],
                )]))
                .build();
            self.handle
                .link()
                .set(message)
                .execute()
                .await
                .map_err(|error| refusal(format!("set {end} up"), error))?;
            features::enable_gro(ifindex).await?;
        }
        Ok(())
    }

    /// # Errors
    /// When the kernel refuses, or the link is gone.
    pub async fn delete_link(&self, ifindex: u32) -> Result<(), NetlinkError> {
        let result = self.handle.link().del(ifindex).execute().await;
        result.map_err(|error| refusal(format!("delete interface {ifindex}"), error))
    }

    /// `mtu` in bytes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn set_mtu(&self, ifindex: u32, mtu: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(ifindex).mtu(mtu).build();
        let result = self.handle.link().set(message).execute().await;
        result.map_err(|error| refusal(format!("set the MTU of interface {ifindex}"), error))
    }

    /// `ip link set DEV up`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn set_up(&self, ifindex: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(ifindex).up().build();
        let result = self.handle.link().set(message).execute().await;
        result.map_err(|error| refusal(format!("set interface {ifindex} up"), error))
    }

    /// `ip addr add LOCAL [peer PEER] dev DEV`.
    ///
    /// # Errors
    /// When the kernel refuses; [`NetlinkError::is_exists`] when the device has the address.
    pub async fn add_address(&self, ifindex: u32, address: &Address) -> Result<(), NetlinkError> {
        let Address { local, peer } = address;
        let other = peer.unwrap_or(*local);
        let mut request =
            self.handle.address().add(ifindex, other.addr().into(), other.prefix_len());
        if peer.is_some() {
            use netlink_packet_route::address::AddressAttribute;
            let attributes = &mut request.message_mut().attributes;
            attributes.retain(|attribute| {
                !matches!(attribute, AddressAttribute::Local(_) | AddressAttribute::Broadcast(_))
            });
            attributes.push(AddressAttribute::Local(local.addr().into()));
        }
        let result = request.execute().await;
        result.map_err(|error| refusal(format!("add the address {local}"), error))
    }

    /// `ip route add PREFIX dev DEV`.
    ///
    /// # Errors
    /// When the kernel refuses; [`NetlinkError::is_exists`] when there is a route to the prefix.
    pub async fn add_route(&self, prefix: Ipv4Net, ifindex: u32) -> Result<(), NetlinkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(prefix.network(), prefix.prefix_len())
            .output_interface(ifindex)
            .scope(RouteScope::Link)
            .build();
        let result = self.handle.route().add(route).execute().await;
        result.map_err(|error| refusal(format!("add the route {prefix}"), error))
    }

    /// Has the kernel look a neighbour up, or make sure that it is still there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn confirm_neighbour(&self, ifindex: u32, ip: Ipv4Addr) -> Result<(), NetlinkError> {
        let result = self
            .handle
            .neighbours()
            .add(ifindex, ip.into())
            .replace()
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .execute()
            .await;
        result.map_err(|error| refusal(format!("confirm the neighbour {ip}"), error))
    }
}

/// Interface indexes by name.
async fn indexes(names: &[&str]) -> Result<HashMap<String, u32>, NetlinkError> {
    let links = links::read().await?;
    Ok(links
        .into_values()
        .filter(|link| names.contains(&link.name.as_str()))
        .map(|link| (link.name, link.ifindex))
        .collect())
}

fn refusal(attempt: String, error: rtnetlink::Error) -> NetlinkError {
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            let message: ErrorMessage = message;
            NetlinkError::refused(attempt, &message, 0)
        }
        _ => NetlinkError::Closed { attempt },
    }
}
