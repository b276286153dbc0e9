//! Where packets lead: every prefix of the kernel's, since a longer one that leads elsewhere must win
//! over a tunnel's, and every neighbour that is reached directly.

use std::{collections::BTreeMap, net::IpAddr};

use gre_ebpf_common::{group::Group, route::Entry, route6, tunnel};

use super::{Compiler, Hop};
use crate::observed::{MAPPED, Path, RouteTarget, Rules};

/// Of routes with several next hops; those that have the same ones share a group.
pub const GROUPS: u32 = 4096;

impl Compiler<'_> {
    pub(super) fn routes(&mut self) {
        if self.vrf_of_any().is_some() {
            return;
        }
        if self.snapshot.rules == Rules::Kernels {
            self.routes4();
        }
        if self.snapshot.rules6 == Rules::Kernels {
            self.routes6();
        }
    }

    fn routes4(&mut self) {
        let prefixes: Vec<_> = self.rib.iter4().collect();
        for (prefix, target) in prefixes {
            // Each host of a prefix on a link is a next hop of its own.
            let entry = self.entry(target, Entry::Punt);
            self.plane.routes.insert(prefix, entry);
        }
        for (address, entry) in self.hosts() {
            if let IpAddr::V4(address) = address {
                self.plane.routes.insert((address.into(), 32), entry);
            }
        }
    }

    fn routes6(&mut self) {
        let prefixes: Vec<_> = self.rib.iter6().collect();
        for (prefix, target) in prefixes {
            let entry = self.entry(target, route6::HOSTS);
            self.plane.routes6.insert(prefix, entry);
        }
        for (address, entry) in self.hosts() {
            if let IpAddr::V6(address) = address {
                self.plane.hosts6.insert(address.into(), entry.to_word());
            }
        }
    }

    /// What a route says; `on_link` where it reaches its hosts directly.
    fn entry(&mut self, target: &RouteTarget, on_link: Entry) -> Entry {
        match *target {
            RouteTarget::Unicast { ifindex, gateway, mtu, .. } => {
                self.entry_of(ifindex, gateway, mtu, on_link)
            }
            RouteTarget::Multipath { ref paths, mtu, .. } => self.group(paths, mtu),
            RouteTarget::Kernel => Entry::Punt,
        }
    }

    /// Of a route with several next hops. A host on the link of one is for the kernel to find.
    fn group(&mut self, paths: &[Path], mtu: Option<u32>) -> Entry {
        let member = |path: &Path| {
            let entry = self.entry_of(path.ifindex, path.gateway, mtu, Entry::Punt);
            (entry.to_word(), path.weight)
        };
        let members: Vec<_> = paths.iter().map(member).collect();
        if members.iter().all(|&(word, _)| word == Entry::Punt.to_word()) {
            return Entry::Punt;
        }
        let id = self.allocated.groups.get(&members);
        if id >= GROUPS {
            self.plane.groups_left_out += 1;
            return Entry::Punt;
        }
        self.plane.groups.insert(id, Group::new(&members));
        Entry::Group(id)
    }

    /// Of one next hop.
    fn entry_of(
        &mut self,
        ifindex: u32,
        gateway: Option<IpAddr>,
        mtu: Option<u32>,
        on_link: Entry,
    ) -> Entry {
        if let Some(name) = self.tunnel_of.get(&ifindex) {
            let Some(state) = self.states.get(name) else { return Entry::Punt };
            // What goes into a tunnel of Ethernet needs the MAC address of a neighbour first.
            let record = self.plane.tunnels.get(&state.id);
            if record.is_some_and(|record| record.flags.has(tunnel::Flags::ETHERNET)) {
                return Entry::Punt;
            }
            return match gateway.and_then(|gateway| self.leg_behind(ifindex, gateway)) {
                _ if state.legs.is_empty() => Entry::Tunnel(state.id),
                Some(remote) => {
                    state.legs.get(&remote).map_or(Entry::Punt, |&id| Entry::Tunnel(id))
                }
                None => on_link,
            };
        }
        match gateway {
            Some(ip) => Entry::NextHop(self.neighbour(Hop { ifindex, ip, mtu })),
            None => on_link,
        }
    }

    /// The neighbours that a route reaches directly.
    fn hosts(&mut self) -> BTreeMap<IpAddr, Entry> {
        let known: Vec<_> = self.macs.iter().map(|(&at, &mac)| (at, mac)).collect();
        let mut hosts = BTreeMap::new();
        for ((ifindex, ip), mac) in known {
            let Some(&RouteTarget::Unicast { ifindex: out, gateway: None, mtu, .. }) =
                self.rib.lookup(ip)
            else {
                continue;
            };
            if out != ifindex {
                continue;
            }
            let entry = match self.tunnel_of.get(&ifindex).and_then(|name| self.states.get(name)) {
                Some(state) => match state.legs.get(&mapped(mac)) {
                    Some(&id) => Entry::Tunnel(id),
                    None => continue,
                },
                None => Entry::NextHop(self.neighbour(Hop { ifindex, ip, mtu })),
            };
            hosts.insert(ip, entry);
        }
        hosts
    }

    /// The remotes that the kernel's routes and neighbours name for a tunnel whose remote is any, as
    /// its NBMA mode finds them (ip_tunnel_xmit): a route's gateway, or a neighbour's link-layer
    /// address, which on our Ethernet-like device is the remote behind [`MAPPED`].
    pub(super) fn remotes(&self, ifindex: u32, is_ipv4: bool) -> Vec<IpAddr> {
        let next_hops = self.snapshot.routes.iter().flat_map(|route| route.target.next_hops());
        let gateways = next_hops
            .filter(|(out, _)| *out == ifindex)
            .filter_map(|(_, gateway)| self.leg_behind(ifindex, gateway?));
        let neighbours = self
            .macs
            .keys()
            .filter(|(at, _)| *at == ifindex)
            .filter_map(|&(at, ip)| self.mapped_neighbour(at, ip));
        let mut remotes: Vec<_> =
            gateways.chain(neighbours).filter(|remote| remote.is_ipv4() == is_ipv4).collect();
        remotes.sort();
        remotes.dedup();
        remotes
    }

    /// The remote that a gateway stands for: what its neighbour entry says, and where there is none
    /// the gateway itself. The kernel's own device goes by the entry alone.
    fn leg_behind(&self, ifindex: u32, gateway: IpAddr) -> Option<IpAddr> {
        let is_kernels = self.snapshot.links.get(&ifindex)?.tunnel.is_some();
        let itself = || leg_address(gateway).filter(|_| !is_kernels);
        self.mapped_neighbour(ifindex, gateway).or_else(itself)
    }

    /// The remote that a neighbour's MAC address stands for. Where nobody has set one, the kernel
    /// gives each neighbour the device's own.
    fn mapped_neighbour(&self, ifindex: u32, ip: IpAddr) -> Option<IpAddr> {
        let &mac = self.macs.get(&(ifindex, ip))?;
        let device = self.snapshot.links.get(&ifindex)?;
        let local = device.tunnel.as_ref().map(|kernel| kernel.tunnel.local);
        let is_own = device.mac == Some(mac) || local == Some(mapped(mac));
        (mac[..2] == MAPPED && !is_own).then(|| mapped(mac))
    }
}

fn mapped(mac: [u8; 6]) -> IpAddr {
    let [_, _, a, b, c, d] = mac;
    IpAddr::from([a, b, c, d])
}

/// The underlay's address in a gateway: that itself, or the IPv4 address in an IPv4-compatible one
/// (RFC 4291, 2.5.5.1), with which the kernel routes IPv6 into a tunnel over IPv4.
fn leg_address(gateway: IpAddr) -> Option<IpAddr> {
    match gateway {
        IpAddr::V6(v6) if v6.segments()[..6] == [0; 6] => {
            let [.., a, b, c, d] = v6.octets();
            Some(IpAddr::from([a, b, c, d]))
        }
        _ => Some(gateway),
    }
}
