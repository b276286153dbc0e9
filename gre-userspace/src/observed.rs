//! What the kernel has: an immutable snapshot of links, addresses, routes, neighbours and rules of
//! one network namespace. Filled by `netlink`, read by `reconcile` and `dataplane`.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use ipnet::IpNet;

use crate::model::{Address, Tunnel};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// By interface index.
    pub links: BTreeMap<u32, Link>,
    /// By interface index; IPv4's before IPv6's, each in the kernel's order.
    pub addresses: BTreeMap<u32, Vec<Address>>,
    /// Of the tables that the kernel's own rules look in: local and main, and for IPv4 default;
    /// IPv4's before IPv6's, each in the kernel's order within a prefix.
    pub routes: Vec<Route>,
    pub neighbours: Vec<Neighbour>,
    /// Of IPv4: the kernel's are three (local, main, default).
    pub rules: Rules,
    /// Of IPv6: the kernel's are two (local, main).
    pub rules6: Rules,
    /// Another number whenever rules other than the kernel's, or what they lead to, may have changed.
    pub ruled: u32,
    /// What the bridges have learned and been told, by bridge, VLAN and address. Not what devices
    /// filter by, which the kernel lists beside it.
    pub stations: Vec<Station>,
    /// VLANs of bridges' members, by the member's interface index, in ascending order. Also where the
    /// bridge does not filter by them.
    pub bridge_vlans: BTreeMap<u32, Vec<VlanRange>>,
    /// The chains of netfilter that do something to packets on their way through this host.
    pub filters: Vec<FilterChain>,
    /// Changes have been lost, or could not be read: all of this may be out of date, and is being read
    /// again.
    pub in_doubt: bool,
}

/// Which routing rules there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rules {
    /// The kernel's own: a look-up in the tables that those name is the whole answer.
    #[default]
    Kernels,
    /// Besides them that of VRFs (`l3mdev`), which comes with the first of them and stays.
    Vrfs,
    /// Any other.
    Others,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub ifindex: u32,
    pub name: String,
    /// `None` where the link layer is not Ethernet.
    pub mac: Option<[u8; 6]>,
    pub mtu: u32,
    /// Administratively up (IFF_UP).
    pub up: bool,
    /// IFF_LOOPBACK.
    pub loopback: bool,
    /// IFLA_INFO_KIND: "veth", "bridge", "vrf"...; none for hardware.
    pub kind: Option<String>,
    /// IFLA_LINK: of a veth, its peer when that is in this namespace; of a VLAN, the port below.
    pub link: Option<u32>,
    pub vlan: Option<Vlan>,
    /// Of a GRE device of the kernel's own.
    pub tunnel: Option<Box<KernelTunnel>>,
    /// IFLA_MASTER: the bridge, bond or VRF it belongs to.
    pub master: Option<u32>,
    /// Of a bridge.
    pub bridge: Option<Bridge>,
    /// Of a bridge's member; the bridge is its `master`.
    pub bridge_port: Option<BridgePort>,
    /// IFLA_IFALIAS.
    pub alias: Option<String>,
    /// The XDP program attached, whoever attached it.
    pub xdp: Option<AttachedXdp>,
    /// net.ipv4.conf.IF.forwarding
    pub forwarding: bool,
    /// IPv6 packets that come in are forwarded: net.ipv6.conf.all.forwarding, which is all that the
    /// kernel looks at (ip6_forward), or IF.force_forwarding (Linux 6.17); never with
    /// IF.disable_ipv6.
    pub forwarding6: bool,
    /// The larger of net.ipv4.conf.{all,IF}.rp_filter: 0 off, 1 strict, 2 loose.
    pub rp_filter: u8,
    /// The netdev family's xdp-features bits; none on kernels before 6.3.
    pub xdp_features: Option<u64>,
}

/// Bits of [`Link::xdp_features`] (linux/netdev.h).
pub mod xdp_features {
    pub const BASIC: u64 = 1;
    pub const REDIRECT: u64 = 2;
    /// Packets can be redirected out of the device.
    pub const NDO_XMIT: u64 = 4;
    /// Frames in several buffers are received.
    pub const RX_SG: u64 = 32;
    /// Those in several buffers too.
    pub const NDO_XMIT_SG: u64 = 64;
}

/// A GRE tunnel of the kernel's own, which `ip tunnel` or `ip link` made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelTunnel {
    pub tunnel: Tunnel,
    /// The options that it has and xgre does not do, in iproute2's words.
    pub beyond: Vec<&'static str>,
    /// The queue of tc that somebody has put there.
    pub qdisc: Option<String>,
    /// Filters of tc look at its packets.
    pub filtered: bool,
}

impl KernelTunnel {
    /// The device that the kernel makes by itself (`gre0`...), for packets of no other tunnel.
    pub fn is_fallback(&self) -> bool {
        let Tunnel { local, remote, ikey, .. } = &self.tunnel;
        local.is_unspecified()
            && remote.is_unspecified()
            && ikey.is_none()
            && self.beyond.is_empty()
    }
}

/// A tag that the link puts on what the port below sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vlan {
    pub id: u16,
    /// The tag's EtherType: 0x8100 (802.1Q) or 0x88a8 (802.1ad).
    pub protocol: u16,
}

/// How a bridge forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bridge {
    /// After which an address that sends nothing is forgotten, in milliseconds; 0 is at once.
    pub ageing_time: u64,
    pub vlan_filtering: bool,
    /// EtherType of the tags that VLANs are told by: 0x8100 (802.1Q) or 0x88a8 (802.1ad).
    pub vlan_protocol: u16,
    /// Each VLAN has a spanning tree of its own (MST).
    pub multiple_spanning_trees: bool,
    /// iptables or ip6tables see its frames: net.bridge.bridge-nf-call-iptables, -ip6tables, or the
    /// bridge's own settings of that name.
    pub netfilter: bool,
}

/// How a bridge treats a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BridgePort {
    /// Its spanning tree state is FORWARDING.
    pub forwarding: bool,
    /// Addresses are learned on it.
    pub learning: bool,
    /// A setting because of which not all its unicast frames simply go where their destination is,
    /// in the word of `bridge link`.
    pub special: Option<&'static str>,
}

/// VLANs of a bridge's member that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VlanRange {
    /// 1 to 4094.
    pub first: u16,
    pub last: u16,
    /// Untagged frames that come in are of this VLAN.
    pub pvid: bool,
    /// Its frames leave without a tag.
    pub untagged: bool,
    /// The spanning tree state of the VLAN itself is FORWARDING.
    pub forwarding: bool,
}

/// An entry of a bridge's forwarding database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Station {
    /// Interface index of the bridge.
    pub bridge: u32,
    /// 0 is none: what a bridge looks in that does not filter VLANs.
    pub vlan: u16,
    pub mac: [u8; 6],
    /// Interface index of the member that it is behind, or that of the bridge.
    pub ifindex: u32,
    pub kind: StationKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StationKind {
    /// Learned, or set to be there: a host's.
    Host,
    /// The bridge's own, or a member's: what is sent there is for this host.
    Own,
    /// Seen on a locked member, and not yet let in.
    Locked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachedXdp {
    pub program_id: u32,
    pub generic: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub table: u32,
    pub destination: IpNet,
    /// Always 0 for IPv6.
    pub tos: u8,
    pub metric: u32,
    pub target: RouteTarget,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteTarget {
    /// A plain unicast route: one next hop, no encapsulation of its own.
    Unicast {
        ifindex: u32,
        gateway: Option<IpAddr>,
        /// The source that the kernel gives its own packets on this route (RTA_PREFSRC).
        prefsrc: Option<IpAddr>,
        /// RTAX_MTU.
        mtu: Option<u32>,
    },
    /// Several next hops that are alive, each for some flows.
    Multipath { paths: Vec<Path>, prefsrc: Option<IpAddr>, mtu: Option<u32> },
    /// Everything that only the kernel can act on: local, broadcast, multicast, blackhole,
    /// anycast, unreachable, prohibit, throw, lightweight tunnels, an IPv6 gateway of an IPv4 route,
    /// IPv6 routes for some sources only, dead next hops, several next hops where flows are not told
    /// apart by addresses alone.
    Kernel,
}

impl RouteTarget {
    /// The interface index and the gateway of each next hop.
    pub fn next_hops(&self) -> impl Iterator<Item = (u32, Option<IpAddr>)> {
        let (one, several) = match self {
            Self::Unicast { ifindex, gateway, .. } => (Some((*ifindex, *gateway)), &[][..]),
            Self::Multipath { paths, .. } => (None, paths.as_slice()),
            Self::Kernel => (None, &[][..]),
        };
        one.into_iter().chain(several.iter().map(|path| (path.ifindex, path.gateway)))
    }
}

/// One of a route's next hops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    pub ifindex: u32,
    pub gateway: Option<IpAddr>,
    /// From 1 to 256: its share of the flows is this of all weights.
    pub weight: u16,
}

/// The first bytes of a neighbour's MAC address that stands for an IPv4 address, of a tunnel's remote.
pub const MAPPED: [u8; 2] = [2, 0];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    pub ifindex: u32,
    pub ip: IpAddr,
    pub mac: Option<[u8; 6]>,
    pub state: NeighbourState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeighbourState {
    /// REACHABLE, PERMANENT, NOARP, DELAY or PROBE: the MAC is good.
    Valid,
    /// STALE: the MAC is good until shown otherwise; the kernel should be asked to confirm it.
    Stale,
    /// INCOMPLETE, FAILED or NONE: no MAC.
    Unresolved,
}

/// A base chain of netfilter that packets meet on their way through this host, and that has rules or
/// drops what no rule takes. Without either a chain does nothing, and is not listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilterChain {
    pub family: FilterFamily,
    pub table: String,
    pub name: String,
    pub hook: FilterHook,
    /// Of the older iptables (`iptables-legacy`), and not of nftables.
    pub legacy: bool,
    /// Rules in the chain itself, not in those that it jumps to.
    pub rules: u32,
    /// Its policy is to drop.
    pub drops: bool,
    /// The devices of ingress and egress, by name; none for the other hooks.
    pub devices: Vec<String>,
}

/// Whose packets a chain sees, in the word of `nft`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FilterFamily {
    Inet,
    Ip,
    Ip6,
    Bridge,
    Netdev,
}

/// Where on a packet's way through the host a chain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FilterHook {
    Ingress,
    Prerouting,
    Forward,
    Postrouting,
    Egress,
}

impl FilterFamily {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Bridge => "bridge",
            Self::Netdev => "netdev",
        }
    }
}

impl FilterHook {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Prerouting => "prerouting",
            Self::Forward => "forward",
            Self::Postrouting => "postrouting",
            Self::Egress => "egress",
        }
    }
}

impl FilterChain {
    /// The command that shows its rules.
    pub fn listing(&self) -> String {
        let Self { family, table, name, .. } = self;
        match (self.legacy, family) {
            (true, FilterFamily::Ip6) => format!("ip6tables-legacy -t {table} -S {name}"),
            (true, _) => format!("iptables-legacy -t {table} -S {name}"),
            (false, _) => format!("nft list chain {} {table} {name}", family.word()),
        }
    }
}

/// `chain FORWARD of table ip filter (forward, 3 rules, policy drop)`.
impl fmt::Display for FilterChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, table, name, hook, legacy, rules, drops, devices } = self;
        let generation = if *legacy { "legacy " } else { "" };
        write!(f, "chain {name} of {generation}table {} {table} ({}", family.word(), hook.word())?;
        if !devices.is_empty() {
            write!(f, " of {}", devices.join(", "))?;
        }
        let s = if *rules == 1 { "" } else { "s" };
        let policy = if *drops { ", policy drop" } else { "" };
        write!(f, ", {rules} rule{s}{policy})")
    }
}

/// Of IPv6, and for its link alone (RFC 4291, 2.5.6).
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
