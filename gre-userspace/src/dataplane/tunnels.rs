//! Tunnels: their records, and by which keys packets find them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use gre_ebpf_common::{
    demux::{Key, Kind},
    port::Port,
    tunnel::{self, Addresses6, Ends, Expected, Outer},
};

use super::{Compiler, Device, Hop, RecordKey, TunnelState, underlay::link_of};
use crate::{
    model::{Desired, FlowLabel, Mode, Mss, SeqMode, Tunnel},
    observed::is_link_local,
};

/// Tunnels inside each other that a packet may go through: the fifth is one too many.
const MAX_NESTING: usize = 4;

impl Compiler<'_> {
    pub(super) fn tunnels(&mut self, desired: &Desired) {
        for tunnel in desired.tunnels.values() {
            let id = self.allocated.tunnels.get(&RecordKey::Tunnel(tunnel.name.clone()));
            if let Some(&device) = self.devices.get(&tunnel.name) {
                self.tunnel(desired, tunnel, id, device);
            }
        }
        self.find_by_keys(desired);
    }

    fn tunnel(&mut self, desired: &Desired, tunnel: &Tunnel, id: u32, device: Device<'_>) {
        let nested = self.is_nested(desired, tunnel);
        let device_hop = device.peer.map_or(0, |peer| self.device(&tunnel.name, device.link, peer));
        let mut legs = BTreeMap::new();
        let underlay = if tunnel.remote.is_unspecified() {
            for remote in self.remotes(device.link.ifindex, tunnel.remote.is_ipv4()) {
                let key = RecordKey::Leg(tunnel.name.clone(), remote);
                let leg = self.allocated.tunnels.get(&key);
                let hop = self.underlay(tunnel, remote);
                self.record(tunnel, leg, device, remote, hop, device_hop, nested);
                legs.insert(remote, leg);
            }
            None
        } else {
            self.underlay(tunnel, tunnel.remote)
        };
        self.record(tunnel, id, device, tunnel.remote, underlay, device_hop, nested);
        let ports = &mut self.plane.ports;
        if let Some(peer) = device.peer {
            ports.insert(device.link.ifindex, Port::device_of(id, device.link.ifindex));
            ports.insert(peer.ifindex, Port::peer_of(id, peer.ifindex));
        }
        let mut state = TunnelState { id, underlay, legs, why_not: None };
        state.why_not = self.why_not(tunnel, device, &state);
        self.states.insert(tunnel.name.clone(), state);
    }

    #[expect(clippy::too_many_arguments, reason = "a record has that many sources")]
    fn record(
        &mut self,
        tunnel: &Tunnel,
        id: u32,
        device: Device<'_>,
        remote: IpAddr,
        underlay: Option<Hop>,
        device_hop: u32,
        nested: bool,
    ) {
        let local = self.source(tunnel, remote, underlay);
        let mut record = tunnel::Tunnel::new(outer(tunnel, local, remote), expected(tunnel));
        let refused = self.refused.contains_key(&tunnel.name);
        let accelerated = !refused && self.respected(tunnel).is_none();
        let routes = accelerated && !self.snapshot.in_doubt;
        let path_mtu =
            self.known.path_mtus.get(&(tunnel.name.clone(), remote)).copied().unwrap_or(0);
        let mtu = device.link.mtu.min(u16::MAX.into()) as u16;
        record.flags = record
            .flags
            .with(tunnel::Flags::UP, device.link.up)
            .with(tunnel::Flags::FORWARDING, routes && device.link.forwarding)
            .with(tunnel::Flags::FORWARDING6, routes && device.link.forwarding6)
            .with(tunnel::Flags::REVERSE_PATH_STRICT, device.link.rp_filter == 1)
            .with(tunnel::Flags::REVERSE_PATH_LOOSE, device.link.rp_filter == 2)
            .with(tunnel::Flags::LOCAL_ANY, tunnel.local.is_unspecified())
            .with(tunnel::Flags::REMOTE_ANY, remote.is_unspecified())
            .with(tunnel::Flags::NESTED, nested)
            .with(tunnel::Flags::ADOPTED, device.peer.is_none());
        record.next_hop = match underlay {
            Some(hop) if accelerated => self.neighbour(hop),
            Some(hop) => self.by_kernel(hop),
            None => 0,
        };
        record.device = device_hop;
        record.ifindex = device.link.ifindex;
        record.path_mtu = path_mtu;
        record.mtu = match path_mtu {
            0 => mtu,
            path => mtu.min(path.saturating_sub(tunnel.overhead() as u16)),
        };
        // The device may be given more than the underlay takes in one piece.
        let next_hop = self.plane.next_hops.get(&record.next_hop);
        let unfragmented =
            next_hop.map_or(u32::MAX, |hop| hop.mtu.saturating_sub(tunnel.overhead()));
        let longest = u32::from(record.mtu).min(unfragmented) as u16;
        record.mss = segment_sizes(tunnel, longest);
        record.link = link_of(tunnel, self.snapshot).unwrap_or(0);
        if let (IpAddr::V6(local), IpAddr::V6(remote)) = (local, remote) {
            let addresses = Addresses6 { local: words(local), remote: words(remote) };
            self.plane.addresses6.insert(id, addresses);
        }
        self.plane.tunnels.insert(id, record);
    }

    /// The outer source address: the tunnel's, or where that is any, what the kernel would choose:
    /// the route's preferred source, else the outgoing interface's first address.
    fn source(&self, tunnel: &Tunnel, remote: IpAddr, underlay: Option<Hop>) -> IpAddr {
        if !tunnel.local.is_unspecified() {
            return tunnel.local;
        }
        let preferred = self.via(tunnel, remote).and_then(|via| via.prefsrc);
        let first = || {
            let addresses = self.snapshot.addresses.get(&underlay?.ifindex)?;
            let own = addresses.iter().map(|address| address.local.addr());
            own.into_iter()
                .find(|address| tunnel.mode.has_family_of(*address) && !is_link_local(*address))
        };
        preferred.or_else(first).unwrap_or(tunnel.local)
    }

    /// Whether a tunnel runs inside itself by way of others, or inside too many others.
    fn is_nested(&self, desired: &Desired, tunnel: &Tunnel) -> bool {
        let mut next = tunnel;
        for _ in 0..MAX_NESTING {
            let Some(hop) = self.underlay(next, next.remote) else { return false };
            match self.tunnel_of.get(&hop.ifindex) {
                // Inside itself at once is told apart.
                Some(name) if *name == next.name => return next.name != tunnel.name,
                Some(name) => match desired.tunnels.get(name) {
                    Some(outside) => next = outside,
                    None => return false,
                },
                None => return false,
            }
        }
        true
    }

    /// By which keys packets find the tunnels. Where several have one, ours come first, then those that are
    /// up, and then those that are not bound to an interface.
    fn find_by_keys(&mut self, desired: &Desired) {
        let mut any_local = false;
        let mut found: Vec<_> = desired
            .tunnels
            .values()
            .filter_map(|tunnel| {
                let id = self.states.get(&tunnel.name)?.id;
                Some((tunnel, id, self.plane.tunnels.get(&id)?.flags.has(tunnel::Flags::UP)))
            })
            .collect();
        let is_kernels = |name: &str| self.devices.get(name).is_some_and(|d| d.peer.is_none());
        found.sort_by_key(|(tunnel, _, up)| (is_kernels(&tunnel.name), !up, tunnel.dev.is_some()));
        for (tunnel, id, _) in found {
            any_local |= tunnel.local.is_unspecified();
            let ends = ends(tunnel.local, tunnel.remote);
            let kind = kind(tunnel);
            if let Some(link) = link_of(tunnel, self.snapshot) {
                self.plane.demux.insert(Key { ends, kind, link }, id);
            }
            self.plane.demux.entry(Key { ends, kind, link: 0 }).or_insert(id);
            let pair = Kind::PAIR.of_ethernet(tunnel.mode.is_ethernet());
            self.plane.demux.entry(Key { ends, kind: pair, link: 0 }).or_insert(id);
        }
        if any_local {
            self.own_addresses();
        }
    }

    /// The addresses at which packets for a tunnel with any local address arrive.
    fn own_addresses(&mut self) {
        let own: BTreeSet<IpAddr> = self
            .snapshot
            .addresses
            .values()
            .flatten()
            .map(|address| address.local.addr())
            .filter(|address| !address.is_loopback())
            .collect();
        for address in own {
            let any = if address.is_ipv4() { Mode::Gre } else { Mode::Ip6gre }.any();
            let key = Key { ends: ends(address, any), kind: Kind::ADDRESS, link: 0 };
            self.plane.demux.insert(key, 0);
        }
    }
}

/// The key under which packets find a tunnel: with one address given at least, IPv4 tells a key of
/// zero from none (ip_tunnel_lookup, ip6gre_tunnel_lookup).
fn kind(tunnel: &Tunnel) -> Kind {
    let neither = tunnel.local.is_unspecified() && tunnel.remote.is_unspecified();
    let numbers_alone = neither || tunnel.mode.is_over_ipv6();
    let key = tunnel.ikey.filter(|&key| key != 0 || !numbers_alone);
    Kind::from_key(key.map(u32::to_be)).of_ethernet(tunnel.mode.is_ethernet())
}

fn outer(tunnel: &Tunnel, local: IpAddr, remote: IpAddr) -> Outer {
    Outer {
        ends: ends(local, remote),
        ethernet: tunnel.mode.is_ethernet(),
        ttl: tunnel.ttl,
        tos: tunnel.tos,
        dont_fragment: tunnel.pmtudisc,
        ignore_df: tunnel.ignore_df,
        key: tunnel.okey,
        checksum: tunnel.ocsum,
        sequence: tunnel.oseq,
        encapsulation_limit: tunnel.encap_limit,
        flow_label: match tunnel.flow_label {
            FlowLabel::Fixed(label) => Some(label),
            FlowLabel::Inherit => None,
        },
    }
}

fn expected(tunnel: &Tunnel) -> Expected {
    Expected {
        key: tunnel.ikey,
        checksum: tunnel.icsum,
        sequence: tunnel.iseq,
        rfc2890: tunnel.seq_mode == SeqMode::Rfc2890,
    }
}

/// What is in front of TCP's data in the smallest of packets: IPv4 or IPv6 and TCP, without options.
const TCP_OVERHEAD: [u16; 2] = [40, 60];

fn segment_sizes(tunnel: &Tunnel, mtu: u16) -> [u16; 2] {
    match tunnel.mss {
        Mss::Off => [0; 2],
        Mss::Auto => TCP_OVERHEAD.map(|overhead| mtu.saturating_sub(overhead).max(1)),
        Mss::Fixed(size) => [size; 2],
    }
}

/// Both of one family, which the mode's is.
fn ends(local: IpAddr, remote: IpAddr) -> Ends {
    match (local, remote) {
        (IpAddr::V4(local), IpAddr::V4(remote)) => {
            Ends::v4(u32::from(local).to_be(), u32::from(remote).to_be())
        }
        (IpAddr::V6(local), IpAddr::V6(remote)) => Ends::v6(words(local), words(remote)),
        _ => unreachable!("a tunnel's addresses are of its mode's family"),
    }
}

/// As it stands in a header.
fn words(address: std::net::Ipv6Addr) -> [u32; 4] {
    let octets = address.octets();
    std::array::from_fn(|i| {
        let at = 4 * i;
        u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
    })
}
