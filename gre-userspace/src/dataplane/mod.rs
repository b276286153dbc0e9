//! What the maps should say, worked out from what the user wants and what the kernel has. No I/O.

mod adopted;
mod bridges;
mod hops;
mod netfilter;
mod routes;
#[cfg(test)]
mod tests;
mod tunnels;
mod underlay;
mod vrf;
mod why_not;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use gre_ebpf_common::{
    bridge::{Address, Member, Station},
    demux::Key,
    group::Group,
    next_hop::NextHop,
    port::{self, Port},
    tunnel::{self, Addresses6},
    wire::vlan::VlanKey,
};

pub use self::{
    adopted::{Kernels, devices_of_kernels, kernels},
    bridges::bridges_of_tunnels,
    hops::{Hop, HopKey, can_redirect, is_of_several, is_unsure, no_redirect, wire},
    netfilter::{RESPECTED, meets},
    routes::GROUPS,
    underlay::{Known, Question, Underlays, questions},
    vrf::is_vrf,
};
use crate::{
    ids::Ids,
    maps::{routes::Prefixes, routes6::Prefixes6},
    model::Desired,
    observed::{Link, NeighbourState, Snapshot},
    rib::Rib,
};

/// How XDP runs on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    Native,
    Generic,
    Off,
}

/// Contents of every map.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DataPlane {
    /// By interface index: ports, the devices of tunnels, and the other ends of these.
    pub ports: BTreeMap<u32, Port>,
    /// VLAN devices on ports.
    pub vlans: BTreeMap<VlanKey, Port>,
    /// By tunnel id.
    pub tunnels: BTreeMap<u32, tunnel::Tunnel>,
    /// By tunnel id: of those over IPv6.
    pub addresses6: BTreeMap<u32, Addresses6>,
    pub demux: BTreeMap<Key, u32>,
    /// By next hop id, from 1.
    pub next_hops: BTreeMap<u32, NextHop>,
    /// By group id.
    pub groups: BTreeMap<u32, Group>,
    /// Prefixes with several next hops that the kernel routes, since there are too many groups.
    pub groups_left_out: usize,
    pub tx_ports: BTreeSet<u32>,
    pub routes: Prefixes,
    pub routes6: Prefixes6,
    /// Hosts on links, by address in host order, to the words of their entries.
    pub hosts6: BTreeMap<u128, u32>,
    /// Members of bridges, by interface index.
    pub members: BTreeMap<u32, Member>,
    /// Where the hosts behind them are.
    pub stations: BTreeMap<Address, Station>,
}

/// How a tunnel stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelState {
    pub id: u32,
    pub underlay: Option<Hop>,
    /// Of a tunnel whose remote is any: its records by remote.
    pub legs: BTreeMap<IpAddr, u32>,
    /// Why XDP does not encapsulate for it, in words.
    pub why_not: Option<String>,
}

/// What a tunnel id stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RecordKey {
    /// By name.
    Tunnel(String),
    /// One remote of a tunnel whose remote is any.
    Leg(String, IpAddr),
}

/// Ids that stay with what they were given to.
#[derive(Debug, Default)]
pub struct Allocated {
    pub tunnels: Ids<RecordKey>,
    pub next_hops: Ids<HopKey>,
    /// By the words of their entries, with weights.
    pub groups: Ids<Vec<(u32, u16)>>,
}

/// The longest outer packets that paths are known to take, in bytes, by tunnel name and remote.
pub type PathMtus = BTreeMap<(String, IpAddr), u16>;

/// How the alias of every tunnel's device starts.
const ALIAS: &str = "xgre ";

/// Whether a link is the device of a tunnel, of this daemon or of one before it.
pub fn is_device(link: &Link) -> bool {
    link.kind.as_deref() == Some("veth")
        && link.alias.as_deref().is_some_and(|alias| alias.starts_with(ALIAS))
}

/// The device of a tunnel, as the kernel has it.
#[derive(Clone, Copy)]
pub struct Device<'a> {
    pub link: &'a Link,
    /// The other end; none of a device of the kernel's own GRE.
    pub peer: Option<&'a Link>,
}

/// The devices of the tunnels that have one of ours, by tunnel name.
pub fn devices<'a>(desired: &Desired, snapshot: &'a Snapshot) -> BTreeMap<String, Device<'a>> {
    snapshot
        .links
        .values()
        .filter(|link| desired.tunnels.contains_key(&link.name))
        .filter(|link| is_device(link))
        .filter_map(|link| {
            let peer = Some(snapshot.links.get(&link.link?)?);
            Some((link.name.clone(), Device { link, peer }))
        })
        .collect()
}

/// Works everything out. `ports` are the interfaces that the programs run on.
pub fn compile(
    desired: &Desired,
    snapshot: &Snapshot,
    ports: &BTreeMap<u32, Attachment>,
    known: &Known,
    allocated: &mut Allocated,
) -> (DataPlane, BTreeMap<String, TunnelState>) {
    let kernels = kernels(desired, snapshot);
    let mut devices = devices(desired, snapshot);
    devices.extend(devices_of_kernels(&kernels, snapshot));
    let mut compiler = Compiler {
        snapshot,
        ports,
        known,
        rib: Rib::new(snapshot),
        macs: macs(snapshot),
        tunnel_of: devices
            .iter()
            .map(|(name, device)| (device.link.ifindex, name.clone()))
            .collect(),
        devices,
        refused: adopted::refusals(&kernels),
        allocated,
        plane: DataPlane::default(),
        states: BTreeMap::new(),
    };
    compiler.allocated.tunnels.begin();
    compiler.allocated.next_hops.begin();
    compiler.allocated.groups.begin();
    let recorded = adopted::with_recorded(desired, &kernels);
    compiler.ports(&recorded);
    compiler.tunnels(&recorded);
    compiler.bridges(&recorded);
    compiler.routes();
    compiler.allocated.tunnels.end();
    compiler.allocated.next_hops.end();
    compiler.allocated.groups.end();
    (compiler.plane, compiler.states)
}

/// MAC addresses that can be sent to, by interface index and address.
fn macs(snapshot: &Snapshot) -> HashMap<(u32, IpAddr), [u8; 6]> {
    snapshot
        .neighbours
        .iter()
        .filter(|neighbour| neighbour.state != NeighbourState::Unresolved)
        .filter_map(|neighbour| Some(((neighbour.ifindex, neighbour.ip), neighbour.mac?)))
        .collect()
}

struct Compiler<'a> {
    snapshot: &'a Snapshot,
    ports: &'a BTreeMap<u32, Attachment>,
    known: &'a Known,
    rib: Rib<'a>,
    macs: HashMap<(u32, IpAddr), [u8; 6]>,
    devices: BTreeMap<String, Device<'a>>,
    /// Why a tunnel of the kernel's own is not accelerated, by name.
    refused: BTreeMap<String, String>,
    /// The tunnel whose device this is, by interface index.
    tunnel_of: HashMap<u32, String>,
    allocated: &'a mut Allocated,
    plane: DataPlane,
    states: BTreeMap<String, TunnelState>,
}

impl Compiler<'_> {
    fn ports(&mut self, desired: &Desired) {
        let bound: BTreeSet<_> =
            desired.tunnels.values().filter_map(|tunnel| tunnel.dev.as_deref()).collect();
        for (&ifindex, &attachment) in self.ports {
            let Some(link) = self.snapshot.links.get(&ifindex) else { continue };
            let Some(mac) = link.mac else { continue };
            let Some((base, tags)) = wire(self.snapshot, ifindex) else { continue };
            // A VLAN device's frames are taken where they arrive.
            let attachment = self.ports.get(&base).copied().unwrap_or(attachment);
            // What is addressed to a bridge's member arrives on the bridge, and is routed there.
            let (mac, routes) = match link.bridge_port {
                Some(_) => ([0; 6], false),
                None => (mac, !self.snapshot.in_doubt),
            };
            let flags = port::Flags::default()
                .with(port::Flags::FORWARDING, routes && link.forwarding)
                .with(port::Flags::FORWARDING6, routes && link.forwarding6)
                .with(port::Flags::GENERIC, attachment == Attachment::Generic)
                .with(port::Flags::TUNNEL_BOUND, bound.contains(link.name.as_str()))
                .with(port::Flags::REVERSE_PATH_STRICT, link.rp_filter == 1)
                .with(port::Flags::REVERSE_PATH_LOOSE, link.rp_filter == 2);
            let port = Port::new(mac, flags, ifindex);
            self.plane.ports.insert(ifindex, port);
            if base != ifindex {
                self.plane.vlans.insert(VlanKey::new(base, tags), port);
            }
        }
    }

    fn is_tunnel(&self, ifindex: u32) -> bool {
        self.tunnel_of.contains_key(&ifindex)
    }
}
