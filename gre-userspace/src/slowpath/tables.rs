//! What the slow path knows of the tunnels. The daemon replaces it whole when it refreshes the maps.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use gre_ebpf_common::tunnel::{Flags, Tunnel};

use super::oversize::Policy;

/// A tunnel that is up, or of one with many remotes the leg towards one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelEntry {
    /// As in the map `TUNNELS`.
    pub record: Tunnel,
    pub name: String,
    /// Source of what is sent; unspecified where there is none.
    pub local: IpAddr,
    /// Unspecified is any: nothing is sent but through legs.
    pub remote: IpAddr,
    /// A leg: received packets are the tunnel's.
    pub leg: bool,
    /// Keys that received and sent packets carry, in host order.
    pub received_key: Option<u32>,
    pub sent_key: Option<u32>,
    /// MTU of the interface that outer packets leave by, in bytes, or [`NO_UNDERLAY`].
    pub underlay_mtu: u16,
    pub device: Device,
    pub policy: Policy,
    pub sources: Sources,
}

/// No route leads to the remote.
pub const NO_UNDERLAY: u16 = u16::MAX;

impl TunnelEntry {
    /// By what packets received on an interface find it.
    fn received(&self, link: u32) -> Ends {
        let any_local = self.record.flags.has(Flags::LOCAL_ANY);
        let local = if any_local { unspecified_like(self.remote) } else { self.local };
        Ends::new(self.is_ethernet(), local, self.remote, self.received_key, link)
    }

    /// Frames go inside, not packets.
    pub fn is_ethernet(&self) -> bool {
        self.record.flags.has(Flags::ETHERNET)
    }

    /// The kernel does with what comes, and with errors, what it does: only path MTUs are learned.
    pub fn is_adopted(&self) -> bool {
        self.record.flags.has(Flags::ADOPTED)
    }

    pub fn ttl_inherit(&self) -> bool {
        self.record.flags.has(Flags::TTL_INHERIT)
    }
}

/// The pair of veths that people see the tunnel as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Device {
    pub ifindex: u32,
    /// MAC address of the device.
    pub mac: [u8; 6],
    /// The other end, from which what is sent arrives on the device; 0 of one that is the kernel's own.
    pub peer_ifindex: u32,
    pub peer_mac: [u8; 6],
}

/// Addresses of this host that ICMP errors to inner senders come from: the device's, or any that
/// may be told to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sources {
    /// Without one the kernel takes the address from which it reaches the sender.
    pub v4: Option<Ipv4Addr>,
    /// Without one no ICMPv6 error is sent.
    pub v6: Option<Ipv6Addr>,
}

#[derive(Debug, Default)]
pub struct Tables {
    tunnels: BTreeMap<u32, TunnelEntry>,
    by_ends: HashMap<Ends, u32>,
    /// Tunnels with one remote, by it.
    by_remote: HashMap<IpAddr, Vec<u32>>,
}

/// What tells received packets apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Ends {
    ethernet: bool,
    local: IpAddr,
    remote: IpAddr,
    key: Option<u32>,
    /// The interface that the tunnel is bound to; 0 is none.
    link: u32,
}

impl Ends {
    /// Only IPv4 with an address given tells a key of zero from none, as in the kernel.
    fn new(ethernet: bool, local: IpAddr, remote: IpAddr, key: Option<u32>, link: u32) -> Self {
        let numbers_alone = remote.is_ipv6() || local.is_unspecified() && remote.is_unspecified();
        let key = if numbers_alone { key.filter(|&number| number != 0) } else { key };
        Self { ethernet, local, remote, key, link }
    }
}

impl Tables {
    /// By tunnel id.
    pub fn new(tunnels: BTreeMap<u32, TunnelEntry>) -> Self {
        let mut by_ends = HashMap::new();
        let mut by_remote: HashMap<_, Vec<_>> = HashMap::new();
        // Of several the first is found, and one that is bound to an interface after one that is not,
        // as the maps have it.
        let (unbound, bound): (Vec<_>, Vec<_>) =
            tunnels.iter().partition(|(_, tunnel)| tunnel.record.link == 0);
        for (&id, tunnel) in unbound.into_iter().chain(bound) {
            for link in [tunnel.record.link, 0] {
                if !tunnel.leg && !tunnel.is_adopted() {
                    by_ends.entry(tunnel.received(link)).or_insert(id);
                }
            }
            if !tunnel.remote.is_unspecified() {
                by_remote.entry(tunnel.remote).or_default().push(id);
            }
        }
        Self { tunnels, by_ends, by_remote }
    }

    pub fn get(&self, id: u32) -> Option<&TunnelEntry> {
        self.tunnels.get(&id)
    }

    /// The tunnel of a packet, or of a frame, received on an interface, in the programs' order of preference: those
    /// bound to the interface first, and then as the kernel has it (ip_tunnel_lookup).
    pub fn receiver(
        &self,
        ethernet: bool,
        local: IpAddr,
        remote: IpAddr,
        key: Option<u32>,
        ifindex: u32,
    ) -> Option<(u32, &TunnelEntry)> {
        let any = unspecified_like(local);
        let levels = [(local, remote), (any, remote), (local, any), (any, any)];
        let id = [ifindex, 0].into_iter().find_map(|link| {
            levels
                .into_iter()
                .map(|(local, remote)| Ends::new(ethernet, local, remote, key, link))
                .find_map(|ends| self.by_ends.get(&ends))
        })?;
        Some((*id, &self.tunnels[id]))
    }

    pub fn towards(&self, remote: IpAddr) -> impl Iterator<Item = (u32, &TunnelEntry)> {
        let ids = self.by_remote.get(&remote).map(Vec::as_slice).unwrap_or_default();
        ids.iter().map(|id| (*id, &self.tunnels[id]))
    }
}

fn unspecified_like(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests;
