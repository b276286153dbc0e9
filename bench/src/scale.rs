//! A table of millions of routes and 100,000 tunnels, and traffic all over it.

use std::{collections::BTreeMap, net::Ipv4Addr};

use gre_ebpf_common::{
    demux::{Key, Kind},
    route::Entry,
};
use gre_userspace::{dataplane::DataPlane, model::Limits};

use crate::{
    aim::{Shape, TARGETS, Target},
    frames::{self, Network},
};

/// Of each of the three kinds below.
pub const ROUTES: usize = TARGETS as usize;
pub const TUNNELS: u32 = 100_000;
/// Of these, in the cases where not all have traffic.
pub const ACTIVE: usize = 4096;

/// Tunnel ids below are those of [`Network`].
pub const FIRST_TUNNEL: u32 = 16;

pub fn limits() -> Limits {
    Limits { tunnels: 1 << 17, ..Limits::default() }
}

/// /24s in no order, a host in each: all over the address space, so that hardly two are in one cache line
/// of the table, but for those that are side by side.
pub struct Scale {
    /// By way of all the tunnels in turn.
    to_tunnels: Vec<Ipv4Addr>,
    /// By way of [`Network::Keyless`].
    to_one_tunnel: Vec<Ipv4Addr>,
    beside_to_one_tunnel: Vec<Ipv4Addr>,
    /// Without a tunnel.
    to_next_hop: Vec<Ipv4Addr>,
    beside_to_next_hop: Vec<Ipv4Addr>,
}

/// Sixteen /8s each, which are a million /24s.
const BESIDE_TO_ONE_TUNNEL: u32 = 208;
const BESIDE_TO_NEXT_HOP: u32 = 176;

/// Who packets go to, and of tunnels whom they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variety {
    /// One destination, one tunnel.
    One,
    /// A million destinations, one tunnel.
    Routes,
    /// The same, but neighbours.
    Beside,
    /// A destination behind each of [`ACTIVE`] tunnels.
    Tunnels,
    /// A million destinations, all tunnels.
    Both,
}

impl Scale {
    pub fn new() -> Self {
        let mut all = (0..1 << 24).map(scattered).filter(|slot| is_free(slot >> 16));
        let mut some = || all.by_ref().take(ROUTES).map(host).collect();
        Self {
            to_tunnels: some(),
            to_one_tunnel: some(),
            beside_to_one_tunnel: beside(BESIDE_TO_ONE_TUNNEL),
            to_next_hop: some(),
            beside_to_next_hop: beside(BESIDE_TO_NEXT_HOP),
        }
    }

    /// Adds them to what there is.
    pub fn extend(&self, plane: &mut DataPlane) {
        let to_tunnel = |n: usize| Entry::Tunnel(FIRST_TUNNEL + tunnel_of(n));
        let entries = |addresses: &[Ipv4Addr], entry: &dyn Fn(usize) -> Entry| {
            let prefixes = addresses.iter().enumerate();
            prefixes.map(|(n, ip)| ((ip.to_bits() & !0xff, 24), entry(n))).collect::<Vec<_>>()
        };
        let to_one_tunnel = |_| Entry::Tunnel(Network::Keyless as u32);
        let to_next_hop = |_| Entry::NextHop(frames::LAN);
        let mut routes: BTreeMap<_, _> = [
            entries(&self.to_tunnels, &to_tunnel),
            entries(&self.to_one_tunnel, &to_one_tunnel),
            entries(&self.beside_to_one_tunnel, &to_one_tunnel),
            entries(&self.to_next_hop, &to_next_hop),
            entries(&self.beside_to_next_hop, &to_next_hop),
        ]
        .concat()
        .into_iter()
        .collect();
        plane.routes.append(&mut routes);
        for n in 0..TUNNELS {
            let (ends, record) = frames::plain_tunnel(remote(n));
            plane.tunnels.insert(FIRST_TUNNEL + n, record);
            for kind in [Kind::KEYLESS, Kind::PAIR] {
                plane.demux.insert(Key { ends, kind, link: 0 }, FIRST_TUNNEL + n);
            }
        }
    }

    /// Packets of hosts, into tunnels.
    pub fn encapsulated(&self, variety: Variety) -> (Shape, Vec<Target>) {
        let shape = frames::plain(Network::Keyless);
        let source = shape.target().source;
        let targets = targets(|n| {
            let destination = match variety {
                Variety::One => self.to_one_tunnel[0],
                Variety::Routes => self.to_one_tunnel[n],
                Variety::Beside => self.beside_to_one_tunnel[n],
                Variety::Tunnels => self.to_tunnels[n % ACTIVE],
                Variety::Both => self.to_tunnels[n],
            };
            Target { destination, source, station: 0 }
        });
        (shape, targets)
    }

    /// Packets out of tunnels, to hosts.
    pub fn decapsulated(&self, variety: Variety) -> (Shape, Vec<Target>) {
        let shape = frames::encapsulated(Network::Keyless, Network::NextHop);
        let one = shape.target().source;
        let targets = targets(|n| {
            let (source, destination) = match variety {
                Variety::One => (one, self.to_next_hop[0]),
                Variety::Routes => (one, self.to_next_hop[n]),
                Variety::Beside => (one, self.beside_to_next_hop[n]),
                Variety::Tunnels => (remote(tunnel_of(n % ACTIVE)), self.to_next_hop[0]),
                Variety::Both => (remote(tunnel_of(n)), self.to_next_hop[n]),
            };
            Target { destination, source, station: 0 }
        });
        (shape, targets)
    }

    /// Packets out of tunnels, into others that had none of the packets just before.
    pub fn transit(&self, variety: Variety) -> (Shape, Vec<Target>) {
        let shape = frames::encapsulated(Network::Onward, Network::Keyless);
        let one = shape.target().source;
        let targets = targets(|n| {
            let (source, destination) = match variety {
                Variety::One => (one, self.to_one_tunnel[0]),
                Variety::Routes => (one, self.to_one_tunnel[n]),
                Variety::Beside => (one, self.beside_to_one_tunnel[n]),
                Variety::Tunnels => {
                    (remote(tunnel_of((n + ACTIVE / 2) % ACTIVE)), self.to_tunnels[n % ACTIVE])
                }
                Variety::Both => (remote(tunnel_of(n + TUNNELS as usize / 2)), self.to_tunnels[n]),
            };
            Target { destination, source, station: 0 }
        });
        (shape, targets)
    }
}

fn targets(target: impl Fn(usize) -> Target) -> Vec<Target> {
    (0..ROUTES).map(target).collect()
}

/// A number of 24 bits for each, none twice: like a hash, but one that can be undone step by step.
fn scattered(n: u32) -> u32 {
    const MASK: u32 = (1 << 24) - 1;
    let n = (n ^ n >> 12).wrapping_mul(0x5bd1_e995) & MASK;
    let n = (n ^ n >> 13).wrapping_mul(0x27d4_eb2d) & MASK;
    n ^ n >> 11
}

/// Whether a /8 has hosts that may be routed to, and none of [`frames`] or of those side by side.
fn is_free(first: u32) -> bool {
    !matches!(first, 0 | 10 | 127 | 172 | 192 | 198 | 176..192 | 208..)
}

fn host(slot: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(slot << 8 | 9)
}

/// All /24s from this /8 on, in no order.
fn beside(first: u32) -> Vec<Ipv4Addr> {
    let offsets = (0..1 << 24).map(scattered).filter(|&offset| offset < ROUTES as u32);
    offsets.map(|offset| host((first << 16) + offset)).collect()
}

/// The tunnel of a route: each has one before any has another, and neighbours' are far apart.
fn tunnel_of(n: usize) -> u32 {
    (n as u64 * 38_603 % u64::from(TUNNELS)) as u32
}

fn remote(tunnel: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + tunnel)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_destination_is_there_twice_and_each_tunnel_has_its_share() {
        let scale = Scale::new();
        let all: HashSet<_> = [&scale.to_tunnels, &scale.to_one_tunnel, &scale.to_next_hop]
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(all.len(), 3 * ROUTES);
        let tunnels: HashSet<_> = (0..TUNNELS as usize).map(tunnel_of).collect();
        assert_eq!(tunnels.len(), TUNNELS as usize);
    }
}
