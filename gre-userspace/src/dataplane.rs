//! What the maps should say, worked out from what the user wants and what the kernel has. No I/O.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
};

use gre_ebpf_common::{
    demux::{Key, Kind},
    next_hop::{self, NextHop},
    port::{self, Port},
    route::Entry,
    tunnel::{self, Outer},
};

use crate::{
    ids::Ids,
    maps::routes::Prefixes,
    model::{Desired, Tunnel},
    observed::{Link, NeighbourState, RouteTarget, Snapshot, xdp_features},
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
    /// By interface index: ports, and the devices of tunnels.
    pub ports: BTreeMap<u32, Port>,
    /// By tunnel id.
    pub tunnels: BTreeMap<u32, tunnel::Tunnel>,
    pub demux: BTreeMap<Key, u32>,
    /// By next hop id, from 1.
    pub next_hops: BTreeMap<u32, NextHop>,
    pub tx_ports: BTreeSet<u32>,
    pub routes: Prefixes,
}

/// How a tunnel stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelState {
    pub id: u32,
    pub underlay: Option<Hop>,
    /// Why XDP does not encapsulate for it, in words.
    pub why_not: Option<String>,
}

/// A neighbour on a link, as a route names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hop {
    pub ifindex: u32,
    pub ip: Ipv4Addr,
    /// The route's own MTU (RTAX_MTU), in bytes.
    pub mtu: Option<u32>,
}

/// What a next hop id stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HopKey {
    Neighbour(Hop),
    /// The way to a tunnel's own device.
    Device(String),
}

/// Ids that stay with what they were given to.
#[derive(Debug, Default)]
pub struct Allocated {
    pub tunnels: Ids<String>,
    pub next_hops: Ids<HopKey>,
}

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
    pub peer: &'a Link,
}

/// The devices of the tunnels that have one, by tunnel name.
pub fn devices<'a>(desired: &Desired, snapshot: &'a Snapshot) -> BTreeMap<String, Device<'a>> {
    snapshot
        .links
        .values()
        .filter(|link| desired.tunnels.contains_key(&link.name))
        .filter(|link| is_device(link))
        .filter_map(|link| {
            let peer = snapshot.links.get(&link.link?)?;
            Some((link.name.clone(), Device { link, peer }))
        })
        .collect()
}

/// Works everything out. `ports` are the interfaces that the programs run on.
pub fn compile(
    desired: &Desired,
    snapshot: &Snapshot,
    ports: &BTreeMap<u32, Attachment>,
    allocated: &mut Allocated,
) -> (DataPlane, BTreeMap<String, TunnelState>) {
    let mut compiler = Compiler {
        snapshot,
        ports,
        rib: Rib::new(snapshot),
        macs: macs(snapshot),
        devices: devices(desired, snapshot),
        allocated,
        plane: DataPlane::default(),
        states: BTreeMap::new(),
    };
    compiler.allocated.tunnels.begin();
    compiler.allocated.next_hops.begin();
    compiler.ports(ports);
    for tunnel in desired.tunnels.values() {
        compiler.tunnel(tunnel, ports);
    }
    if !snapshot.custom_rules {
        compiler.routes();
    }
    compiler.allocated.tunnels.end();
    compiler.allocated.next_hops.end();
    (compiler.plane, compiler.states)
}

/// MAC addresses that can be sent to, by interface index and address.
fn macs(snapshot: &Snapshot) -> HashMap<(u32, Ipv4Addr), [u8; 6]> {
    snapshot
        .neighbours
        .iter()
        .filter(|neighbour| neighbour.state != NeighbourState::Unresolved)
        .filter_map(|neighbour| match neighbour.ip {
            IpAddr::V4(ip) => Some(((neighbour.ifindex, ip), neighbour.mac?)),
            IpAddr::V6(_) => None,
        })
        .collect()
}

struct Compiler<'a> {
    snapshot: &'a Snapshot,
    ports: &'a BTreeMap<u32, Attachment>,
    rib: Rib<'a>,
    macs: HashMap<(u32, Ipv4Addr), [u8; 6]>,
    devices: BTreeMap<String, Device<'a>>,
    allocated: &'a mut Allocated,
    plane: DataPlane,
    states: BTreeMap<String, TunnelState>,
}

impl Compiler<'_> {
    fn ports(&mut self, ports: &BTreeMap<u32, Attachment>) {
        for (&ifindex, &attachment) in ports {
            let Some(link) = self.snapshot.links.get(&ifindex) else { continue };
            let Some(mac) = link.mac else { continue };
            let flags = port::Flags::default()
                .with(port::Flags::FORWARDING, link.forwarding)
                .with(port::Flags::GENERIC, attachment == Attachment::Generic)
                .with(port::Flags::REVERSE_PATH_STRICT, link.rp_filter == 1)
                .with(port::Flags::REVERSE_PATH_LOOSE, link.rp_filter == 2);
            self.plane.ports.insert(ifindex, Port::new(mac, flags));
        }
    }

    fn tunnel(&mut self, tunnel: &Tunnel, ports: &BTreeMap<u32, Attachment>) {
        let id = self.allocated.tunnels.get(&tunnel.name);
        let Some(&device) = self.devices.get(&tunnel.name) else { return };
        let underlay = self.underlay(tunnel.remote);
        let next_hop = underlay.map(|hop| self.neighbour(hop));

        let mut record = tunnel::Tunnel::new(Outer {
            local: u32::from(tunnel.local).to_be(),
            remote: u32::from(tunnel.remote).to_be(),
            ttl: tunnel.ttl,
            tos: tunnel.tos,
            dont_fragment: tunnel.pmtudisc,
            key: tunnel.key,
        });
        record.flags = record
            .flags
            .with(tunnel::Flags::UP, device.link.up)
            .with(tunnel::Flags::FORWARDING, device.link.forwarding)
            .with(tunnel::Flags::REVERSE_PATH_STRICT, device.link.rp_filter == 1)
            .with(tunnel::Flags::REVERSE_PATH_LOOSE, device.link.rp_filter == 2);
        record.next_hop = next_hop.unwrap_or(0);
        record.device = self.device(&tunnel.name, device);
        record.ifindex = device.link.ifindex;
        record.mtu = device.link.mtu.min(u16::MAX.into()) as u16;

        let (local, remote) = (record.local(), record.remote());
        let kind = Kind::from_key(tunnel.key.map(u32::to_be));
        self.plane.demux.insert(Key { local, remote, kind }, id);
        self.plane.demux.entry(Key { local, remote, kind: Kind::Pair }).or_insert(id);
        self.plane.ports.insert(device.link.ifindex, Port::device_of(id));
        self.plane.tunnels.insert(id, record);
        let why_not = self.why_not(tunnel, device, underlay, next_hop, ports);
        self.states.insert(tunnel.name.clone(), TunnelState { id, underlay, why_not });
    }

    /// The next hop towards a tunnel's remote, if any route leads there.
    fn underlay(&self, remote: Ipv4Addr) -> Option<Hop> {
        match *self.rib.lookup(remote.into())? {
            RouteTarget::Unicast { ifindex, gateway: Some(IpAddr::V4(ip)), mtu, .. } => {
                Some(Hop { ifindex, ip, mtu })
            }
            RouteTarget::Unicast { ifindex, gateway: None, mtu, .. } => {
                Some(Hop { ifindex, ip: remote, mtu })
            }
            RouteTarget::Unicast { .. } | RouteTarget::Kernel => None,
        }
    }

    /// The id of a neighbour, whose record is made if it is new. Without a MAC address the record
    /// still names the interface, which is all that tier 2 needs.
    fn neighbour(&mut self, hop: Hop) -> u32 {
        let id = self.allocated.next_hops.get(&HopKey::Neighbour(hop)) + 1;
        let Some(link) = self.snapshot.links.get(&hop.ifindex) else { return id };
        let mtu = hop.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
        let destination = self.macs.get(&(hop.ifindex, hop.ip));
        let attachment = self.ports.get(&hop.ifindex).copied();
        let record = match (destination, link.mac) {
            (Some(&destination), Some(source)) => {
                let flags = next_hop::Flags::default()
                    .with(next_hop::Flags::RESOLVED, link.up && !self.is_tunnel(hop.ifindex))
                    .with(next_hop::Flags::NATIVE_REDIRECT, can_redirect(link, attachment));
                self.plane.tx_ports.insert(hop.ifindex);
                NextHop::new(destination, source, hop.ifindex, mtu, flags)
            }
            _ => NextHop::new([0; 6], [0; 6], hop.ifindex, mtu, next_hop::Flags::default()),
        };
        self.plane.next_hops.insert(id, record);
        id
    }

    /// The id of the way to a tunnel's device: out of its peer, addressed to it.
    fn device(&mut self, name: &str, device: Device<'_>) -> u32 {
        let id = self.allocated.next_hops.get(&HopKey::Device(name.to_owned())) + 1;
        let mac = |link: &Link| link.mac.unwrap_or_default();
        let flags = next_hop::Flags::RESOLVED
            // Where the kernel does not say: GRO is on at both ends, since we turned it on.
            .with(
                next_hop::Flags::NATIVE_REDIRECT,
                is_unsure(device.peer) || can_redirect(device.peer, None),
            );
        let record =
            NextHop::new(mac(device.link), mac(device.peer), device.peer.ifindex, 65_535, flags);
        self.plane.next_hops.insert(id, record);
        self.plane.tx_ports.insert(device.peer.ifindex);
        id
    }

    fn is_tunnel(&self, ifindex: u32) -> bool {
        self.tunnel_of(ifindex).is_some()
    }

    fn tunnel_of(&self, ifindex: u32) -> Option<&str> {
        self.devices
            .iter()
            .find(|(_, device)| device.link.ifindex == ifindex)
            .map(|(name, _)| name.as_str())
    }

    /// Every prefix of the kernel's, since a longer one that leads elsewhere must win over a
    /// tunnel's, and every neighbour that is reached directly.
    fn routes(&mut self) {
        let by_ifindex: HashMap<u32, u32> = self
            .devices
            .iter()
            .filter_map(|(name, device)| Some((device.link.ifindex, self.states.get(name)?.id)))
            .collect();
        let prefixes: Vec<_> = self.rib.iter4().collect();
        for (prefix, target) in prefixes {
            let entry = match *target {
                RouteTarget::Unicast { ifindex, gateway, mtu, .. } => {
                    match (by_ifindex.get(&ifindex), gateway) {
                        (Some(&tunnel), _) => Entry::Tunnel(tunnel),
                        (None, Some(IpAddr::V4(ip))) => {
                            Entry::NextHop(self.neighbour(Hop { ifindex, ip, mtu }))
                        }
                        // Each host of the prefix is a next hop of its own.
                        (None, None | Some(IpAddr::V6(_))) => Entry::Punt,
                    }
                }
                RouteTarget::Kernel => Entry::Punt,
            };
            self.plane.routes.insert(prefix, entry);
        }
        let hosts: Vec<_> = self.macs.keys().copied().collect();
        for (ifindex, ip) in hosts {
            if let Some(&RouteTarget::Unicast { ifindex: out, gateway: None, mtu, .. }) =
                self.rib.lookup(ip.into())
                && out == ifindex
                && !by_ifindex.contains_key(&ifindex)
            {
                let id = self.neighbour(Hop { ifindex, ip, mtu });
                self.plane.routes.insert((ip.into(), 32), Entry::NextHop(id));
            }
        }
    }

    /// What keeps XDP from encapsulating for a tunnel, the first thing to mend first.
    fn why_not(
        &self,
        tunnel: &Tunnel,
        device: Device<'_>,
        underlay: Option<Hop>,
        next_hop: Option<u32>,
        ports: &BTreeMap<u32, Attachment>,
    ) -> Option<String> {
        let name = &tunnel.name;
        if !device.link.up {
            return Some(format!("the device is down: `ip link set {name} up`"));
        }
        let Some(hop) = underlay else {
            let remote = tunnel.remote;
            return Some(format!("no route to {remote}: `ip route get {remote}`"));
        };
        if let Some(other) = self.tunnel_of(hop.ifindex) {
            return Some(if other == name {
                format!("the route to {} leads into {name} itself", tunnel.remote)
            } else {
                format!("it runs inside {other}: the kernel encapsulates it")
            });
        }
        if self.snapshot.custom_rules {
            return Some("policy routing rules are in use: the kernel routes (`ip rule`)".into());
        }
        let link = self.snapshot.links.get(&hop.ifindex)?;
        let record = self.plane.next_hops.get(&next_hop?)?;
        if !record.flags.has(next_hop::Flags::RESOLVED) {
            return Some(format!("{} on {} is not resolved yet: `ip neigh`", hop.ip, link.name));
        }
        let attached = |attachment| ports.values().any(|port| *port == attachment);
        let native_only = attached(Attachment::Native) && !attached(Attachment::Generic);
        if native_only && !record.flags.has(next_hop::Flags::NATIVE_REDIRECT) {
            return Some(format!(
                "packets cannot be redirected out of {}: {}",
                link.name,
                no_redirect(link)
            ));
        }
        if !attached(Attachment::Native) && !attached(Attachment::Generic) {
            return Some("XDP is off on every port".into());
        }
        None
    }
}

/// Whether frames that XDP received natively can be redirected out of the device, which is a port
/// with this attachment or none.
///
/// Where the kernel does not say, it is taken for granted, except on veth, where it depends on the
/// other end: there only a port that XDP runs on natively, which then the config asks for in so many
/// words (see [`is_unsure`]), is trusted.
pub fn can_redirect(link: &Link, attachment: Option<Attachment>) -> bool {
    match link.xdp_features {
        Some(features) => features & xdp_features::NDO_XMIT != 0,
        None => !is_unsure(link) || attachment == Some(Attachment::Native),
    }
}

/// A veth on a kernel before 6.3, which has no family "netdev" to say whether the other end receives
/// what is redirected to it. What it does not receive is lost, and counted nowhere: `xdp = "auto"` is
/// then generic, which can send anywhere.
pub fn is_unsure(link: &Link) -> bool {
    link.xdp_features.is_none() && link.kind.as_deref() == Some("veth")
}

/// What to do where [`can_redirect`] says no.
pub fn no_redirect(link: &Link) -> &'static str {
    match link.kind.as_deref() {
        Some("veth") => "turn GRO on at the other end of this veth (`ethtool -K PEER gro on`)",
        _ => "its driver cannot transmit redirected frames (ndo_xdp_xmit)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        observed::{Neighbour, Route},
        testing::{desired, link, tunnel, veth},
    };

    const LAN: u32 = 2;
    const WAN: u32 = 3;
    const DEVICE: u32 = 4;
    const GATEWAY: &str = "192.0.2.254";

    fn route(destination: &str, ifindex: u32, gateway: Option<&str>) -> Route {
        let gateway = gateway.map(|gateway| gateway.parse().unwrap());
        Route {
            table: 254,
            destination: destination.parse().unwrap(),
            tos: 0,
            metric: 0,
            target: RouteTarget::Unicast { ifindex, gateway, prefsrc: None, mtu: None },
        }
    }

    fn neighbour(ifindex: u32, ip: &str) -> Neighbour {
        let mac = Some([2, 0, 0, 0, 9, 9]);
        Neighbour { ifindex, ip: ip.parse().unwrap(), mac, state: NeighbourState::Valid }
    }

    /// A gateway with a LAN 10.1.0.0/16, an underlay by way of [`GATEWAY`], and 10.2.0.0/16 in the
    /// tunnel.
    fn snapshot() -> Snapshot {
        let [device, peer] = veth(DEVICE, "tunnel0", "xgre config mode gre");
        let links = [link(LAN, "lan"), link(WAN, "wan"), device, peer];
        Snapshot {
            links: links.into_iter().map(|link| (link.ifindex, link)).collect(),
            routes: vec![
                route("10.1.0.0/16", LAN, None),
                route("0.0.0.0/0", WAN, Some(GATEWAY)),
                route("10.2.0.0/16", DEVICE, None),
            ],
            neighbours: vec![neighbour(WAN, GATEWAY), neighbour(LAN, "10.1.2.3")],
            ..Snapshot::default()
        }
    }

    fn compiled(snapshot: &Snapshot) -> (DataPlane, TunnelState) {
        let desired = desired([tunnel("tunnel0")]);
        let ports = [(LAN, Attachment::Native), (WAN, Attachment::Native)].into();
        let (plane, mut states) = compile(&desired, snapshot, &ports, &mut Allocated::default());
        let state = states.remove("tunnel0").unwrap();
        (plane, state)
    }

    fn why_not(change: impl FnOnce(&mut Snapshot)) -> String {
        let mut snapshot = snapshot();
        change(&mut snapshot);
        compiled(&snapshot).1.why_not.expect("it is not accelerated")
    }

    #[test]
    fn routes_lead_into_the_tunnel_to_neighbours_and_to_the_kernel() {
        let (plane, state) = compiled(&snapshot());
        assert_eq!(state.why_not, None);
        let entry = |start: [u8; 4], len| plane.routes[&(u32::from_be_bytes(start), len)];
        assert_eq!(entry([10, 2, 0, 0], 16), Entry::Tunnel(state.id));
        assert_eq!(entry([10, 1, 0, 0], 16), Entry::Punt, "each host is a next hop of its own");
        let Entry::NextHop(host) = entry([10, 1, 2, 3], 32) else { panic!("no host route") };
        let Entry::NextHop(gateway) = entry([0, 0, 0, 0], 0) else { panic!("no default route") };
        assert_eq!(plane.next_hops[&host].ifindex, LAN);
        assert_eq!(plane.next_hops[&gateway].ifindex, WAN);
        assert_eq!(plane.tunnels[&state.id].next_hop, gateway);
        assert_eq!(plane.tx_ports, [LAN, WAN, DEVICE + 1].into());
    }

    #[test]
    fn each_tunnel_is_found_by_its_key_and_by_its_addresses() {
        let (plane, state) = compiled(&snapshot());
        let record = &plane.tunnels[&state.id];
        let (local, remote) = (record.local(), record.remote());
        let keys = [Kind::Keyless, Kind::Pair].map(|kind| (Key { local, remote, kind }, state.id));
        assert_eq!(plane.demux, keys.into());
    }

    #[test]
    fn with_rules_of_the_users_nothing_is_routed_here() {
        let mut snapshot = snapshot();
        snapshot.custom_rules = true;
        let (plane, state) = compiled(&snapshot);
        assert_eq!(plane.routes, Prefixes::new());
        assert!(state.why_not.is_some_and(|why| why.contains("ip rule")));
    }

    #[test]
    fn what_keeps_a_tunnel_slow_is_told_with_what_to_do() {
        let down = why_not(|s| s.links.get_mut(&DEVICE).unwrap().up = false);
        assert_eq!(down, "the device is down: `ip link set tunnel0 up`");
        let unreachable = why_not(|s| s.routes.retain(|route| route.destination.prefix_len() > 0));
        assert_eq!(unreachable, "no route to 198.51.100.1: `ip route get 198.51.100.1`");
        let inside = why_not(|s| s.routes.push(route("198.51.100.0/24", DEVICE, None)));
        assert_eq!(inside, "the route to 198.51.100.1 leads into tunnel0 itself");
        let unresolved = why_not(|s| s.neighbours.clear());
        assert_eq!(unresolved, "192.0.2.254 on wan is not resolved yet: `ip neigh`");
        let driver = why_not(|s| s.links.get_mut(&WAN).unwrap().xdp_features = Some(0));
        assert!(driver.starts_with("packets cannot be redirected out of wan"), "{driver}");
    }

    /// Before Linux 6.3 nothing tells whether the other end of a veth takes redirected frames.
    #[test]
    fn a_veth_of_which_the_kernel_does_not_tell_is_trusted_where_native_xdp_was_asked_for() {
        let mut snapshot = snapshot();
        for link in snapshot.links.values_mut() {
            (link.kind, link.xdp_features) = (Some("veth".into()), None);
        }
        let wan = &snapshot.links[&WAN];
        assert!(is_unsure(wan) && can_redirect(wan, Some(Attachment::Native)));
        assert!(!can_redirect(wan, Some(Attachment::Generic)) && !can_redirect(wan, None));

        let (plane, state) = compiled(&snapshot);
        let native = |id: u32| plane.next_hops[&id].flags.has(next_hop::Flags::NATIVE_REDIRECT);
        let record = &plane.tunnels[&state.id];
        assert!(native(record.next_hop) && native(record.device));
        assert_eq!(state.why_not, None);
    }

    #[test]
    fn state_of_the_kernel_becomes_flags() {
        let mut snapshot = snapshot();
        let device = snapshot.links.get_mut(&DEVICE).unwrap();
        (device.forwarding, device.rp_filter) = (false, 1);
        snapshot.links.get_mut(&LAN).unwrap().rp_filter = 2;
        let (plane, state) = compiled(&snapshot);
        let flags = plane.tunnels[&state.id].flags;
        assert!(flags.has(tunnel::Flags::UP) && !flags.has(tunnel::Flags::FORWARDING));
        assert!(flags.has(tunnel::Flags::REVERSE_PATH_STRICT));
        assert!(plane.ports[&LAN].flags.has(port::Flags::REVERSE_PATH_LOOSE));
        assert!(!plane.ports[&WAN].flags.has(port::Flags::REVERSE_PATH_LOOSE));
    }

    #[test]
    fn the_routes_own_mtu_limits_its_next_hop() {
        let mut snapshot = snapshot();
        let RouteTarget::Unicast { mtu, .. } = &mut snapshot.routes[1].target else { panic!() };
        *mtu = Some(1300);
        let (plane, state) = compiled(&snapshot);
        let record = &plane.tunnels[&state.id];
        assert_eq!(plane.next_hops[&record.next_hop].mtu, 1300);
    }
}
