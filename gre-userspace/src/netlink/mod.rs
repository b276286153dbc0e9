//! What the daemon reads from the kernel, and what it changes there, over netlink. One network
//! namespace: the one the calling thread is in.
//!
//! Reading is in dumps, whole tables that replace what was known ([`Kernel::snapshot`]); changes go
//! one at a time and wait for the kernel's answer.

mod addresses;
mod bridges;
mod error;
mod features;
mod iptables;
mod kernel_tunnels;
mod link_reports;
mod links;
mod neighbours;
mod nftables;
mod routes;
mod rules;
pub(crate) mod socket;
mod traffic_control;
mod tunnel_device;
mod ways;

use std::{
    io,
    net::IpAddr,
    ops::{BitOr, BitOrAssign},
    sync::Arc,
};

use futures_util::StreamExt;
use genetlink::GenetlinkHandle;
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{AsyncSocket, Socket};
use nix::{
    libc::{AF_INET, AF_INET6},
    net::if_::if_indextoname,
};
use tokio::sync::OnceCell;

pub(crate) use self::{
    bridges::netfilter_sees_bridges,
    iptables::chains as legacy_chains,
    nftables::{NFNLGRP_NFTABLES, is_of_chains},
    routes::is_looked_up,
    traffic_control::filters,
};
pub use self::{
    error::{DumpFault, NetlinkError},
    link_reports::{LinkReport, link_reports},
    tunnel_device::TunnelDevice,
};
use crate::observed::{FilterChain, Route, Rules, Snapshot};

/// The kernel, as seen from this network namespace; cheap to clone.
#[derive(Clone, Debug)]
pub struct Kernel {
    route: rtnetlink::Handle,
    generic: GenetlinkHandle,
    /// Tells XDP features; none before Linux 6.3.
    netdev: Arc<OnceCell<Option<features::NetdevFamily>>>,
}

/// What became of a request to add something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    Now,
    /// Exactly this was there already.
    Before,
}

impl Kernel {
    /// Opens the sockets for changes. Must be called inside a Tokio runtime, whose tasks then serve
    /// them.
    pub fn connect() -> Result<Self, NetlinkError> {
        let socket = |purpose| move |source| NetlinkError::Socket { purpose, source };

        let (mut connection, route, _) =
            rtnetlink::new_connection().map_err(socket("for links, addresses and routes"))?;
        connection.set_forward_ack(true);
        want_reasons(connection.socket_mut().socket_ref())
            .map_err(socket("for links, addresses and routes"))?;
        tokio::spawn(connection);

        let (mut connection, generic, _) =
            genetlink::new_connection().map_err(socket("for device features"))?;
        connection.set_forward_ack(true);
        want_reasons(connection.socket_mut().socket_ref())
            .map_err(socket("for device features"))?;
        tokio::spawn(connection);

        Ok(Self { route, generic, netdev: Arc::default() })
    }

    /// Everything, read now.
    pub async fn snapshot(&self) -> Result<Snapshot, NetlinkError> {
        self.refresh(&Snapshot::default(), Classes::ALL).await
    }

    /// Everything that is told without CAP_NET_ADMIN.
    pub async fn snapshot_without_filters(&self) -> Result<Snapshot, NetlinkError> {
        self.refresh(&Snapshot::default(), Classes::TOLD_TO_ALL).await
    }

    /// `known` with the classes in `stale` read again.
    pub(crate) async fn refresh(
        &self,
        known: &Snapshot,
        stale: Classes,
    ) -> Result<Snapshot, NetlinkError> {
        let [rules, rules6] = match stale.contains(Classes::RULES) {
            true => [rules::read().await?, rules::read6().await?],
            false => [known.rules, known.rules6],
        };
        let others = stale.contains(Classes::RULES) || stale.contains(Classes::OTHER_TABLES);
        let ruled = others && [rules, rules6].contains(&Rules::Others);
        Ok(Snapshot {
            links: if stale.contains(Classes::LINKS) {
                links::read(self).await?
            } else {
                known.links.clone()
            },
            addresses: if stale.contains(Classes::ADDRESSES) {
                addresses::read().await?
            } else {
                known.addresses.clone()
            },
            routes: [
                self.routes(known, stale.contains(Classes::ROUTES4), AF_INET).await?,
                self.routes(known, stale.contains(Classes::ROUTES6), AF_INET6).await?,
            ]
            .concat(),
            neighbours: if stale.contains(Classes::NEIGHBOURS) {
                neighbours::read().await?
            } else {
                known.neighbours.clone()
            },
            rules,
            rules6,
            ruled: known.ruled.wrapping_add(ruled.into()),
            stations: if stale.contains(Classes::STATIONS) {
                bridges::stations().await?
            } else {
                known.stations.clone()
            },
            bridge_vlans: if stale.contains(Classes::BRIDGE_VLANS) {
                bridges::vlans().await?
            } else {
                known.bridge_vlans.clone()
            },
            filters: if stale.contains(Classes::FILTERS) {
                self.filter_chains().await?
            } else {
                known.filters.clone()
            },
            in_doubt: false,
        })
    }

    /// The chains of netfilter that packets on their way through this host meet, in order.
    ///
    /// # Errors
    /// Without CAP_NET_ADMIN.
    pub async fn filter_chains(&self) -> Result<Vec<FilterChain>, NetlinkError> {
        let mut chains = nftables::chains().await?;
        chains.extend(iptables::chains());
        chains.sort();
        Ok(chains)
    }

    /// The routes of one family: `known` ones, or read again. Full tables of IPv4 need not be read for
    /// each router advertisement.
    async fn routes(
        &self,
        known: &Snapshot,
        stale: bool,
        family: i32,
    ) -> Result<Vec<Route>, NetlinkError> {
        if stale {
            return routes::read(family).await;
        }
        let of_family = |route: &&Route| route.destination.addr().is_ipv6() == (family == AF_INET6);
        Ok(known.routes.iter().filter(of_family).cloned().collect())
    }

    /// Sends one rtnetlink request and waits for the kernel's verdict. `attempt` completes the
    /// sentence "cannot ...".
    async fn change(
        &self,
        attempt: impl Fn() -> String,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut replies = self
            .route
            .clone()
            .request(request)
            .map_err(|_| NetlinkError::Closed { attempt: attempt() })?;
        while let Some(reply) = replies.next().await {
            if let NetlinkPayload::Error(error) = &reply.payload {
                return match error.code {
                    None => Ok(()),
                    Some(_) => Err(NetlinkError::refused(attempt(), error, reply.header.flags)),
                };
            }
        }
        // Success is an answer as well, so this is not one.
        Err(NetlinkError::Closed { attempt: attempt() })
    }
}

/// Asks for the kernel's own words with an error, and for errors that do not repeat the request.
fn want_reasons(socket: &Socket) -> io::Result<()> {
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)
}

fn family_of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// A device's name for messages.
fn device(ifindex: u32) -> String {
    match if_indextoname(ifindex) {
        Ok(name) => name.to_string_lossy().into_owned(),
        Err(_) => format!("with index {ifindex}"),
    }
}

/// The parts of a snapshot that are read together.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Classes(u16);

impl Classes {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const LINKS: Self = Self(1);
    pub(crate) const ADDRESSES: Self = Self(2);
    pub(crate) const ROUTES4: Self = Self(4);
    pub(crate) const NEIGHBOURS: Self = Self(8);
    pub(crate) const RULES: Self = Self(16);
    pub(crate) const ROUTES6: Self = Self(32);
    pub(crate) const ROUTES: Self = Self(Self::ROUTES4.0 | Self::ROUTES6.0);
    pub(crate) const STATIONS: Self = Self(64);
    pub(crate) const BRIDGE_VLANS: Self = Self(128);
    pub(crate) const FILTERS: Self = Self(256);
    /// Routes of tables that only rules lead to, which are not read.
    pub(crate) const OTHER_TABLES: Self = Self(512);
    pub(crate) const TOLD_TO_ALL: Self = Self(255);
    pub(crate) const ALL: Self = Self(1023);

    pub(crate) fn contains(self, class: Self) -> bool {
        self.0 & class.0 == class.0
    }
}

impl BitOr for Classes {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Classes {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}
