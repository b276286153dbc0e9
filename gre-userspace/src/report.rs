//! What the daemon tells: the replies of the control socket, and so what every `show` and `stats`
//! prints. Counters are totals since the maps were created.

use std::fmt;

use serde::{Deserialize, Serialize};
use zlink::introspect::{CustomType, Type};

use crate::{
    model::{Netfilter, Tunnel},
    slowpath::packet::MIN_MTU_IPV6,
};

/// Packets and bytes; bytes are of the inner packet, as the kernel's GRE counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, CustomType)]
pub struct Traffic {
    pub packets: u64,
    pub bytes: u64,
}

/// One direction of one tunnel, split by the tier that did the work.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, CustomType)]
pub struct Direction {
    pub xdp: Traffic,
    pub tc: Traffic,
    /// Fragments, and what they were made of.
    #[serde(default)]
    pub daemon: Traffic,
    /// Only reasons that have occurred, by label.
    pub drops: Vec<Count>,
}

/// How often something happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Count {
    /// The outcome's label, e.g. `key-mismatch`.
    pub reason: String,
    /// What it means, and what to look at.
    pub help: String,
    pub packets: u64,
}

/// What a tunnel has carried, and what it has not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct TunnelStats {
    pub name: String,
    pub rx: Direction,
    pub tx: Direction,
    /// What the peer sends that does not fit, where it lately has.
    pub mismatch: Option<Mismatch>,
}

/// What a peer sends and its tunnel does not take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Mismatch {
    /// The outcome's label, e.g. `key-mismatch`.
    pub reason: String,
    /// E.g. `key 42, no checksum`.
    pub sends: String,
    /// The same of what the tunnel takes.
    pub expects: String,
    /// When the first such packet came, in Unix seconds.
    pub since: u64,
    /// When the last came, in Unix seconds.
    pub last: u64,
    pub packets: u64,
    /// The command that makes the tunnel take them.
    pub fix: String,
}

/// A path MTU that an ICMP error taught.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct PathMtu {
    pub remote: String,
    /// Of the outer packet, in bytes.
    pub mtu: u32,
    /// In seconds.
    pub expires_in: u32,
}

/// Where the sequence numbers of a tunnel stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Sequence {
    pub next_sent: u64,
    pub next_expected: u64,
    /// How often the peer was found to have started anew.
    pub resynchronised: u64,
}

/// How often each outcome happened in a tier, over all ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct TierOutcomes {
    /// `xdp` or `tc`.
    pub tier: String,
    pub outcomes: Vec<Count>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct Stats {
    pub tunnels: Vec<TunnelStats>,
    pub tiers: Vec<TierOutcomes>,
}

/// A tunnel, as configured and as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct TunnelInfo {
    pub name: String,
    /// `gre`, `ip6gre`, `gretap` or `ip6gretap`.
    pub mode: String,
    /// `0.0.0.0` or `::` is any.
    pub local: String,
    /// As `local`.
    pub remote: String,
    /// The underlay interface that it is bound to.
    pub dev: Option<String>,
    /// 0 is inherit.
    pub ttl: u8,
    /// Bit 0 is inherit.
    pub tos: u8,
    /// Where it is the same in both directions.
    pub key: Option<u32>,
    pub ikey: Option<u32>,
    pub okey: Option<u32>,
    pub icsum: bool,
    pub ocsum: bool,
    pub iseq: bool,
    pub oseq: bool,
    /// `linux` or `rfc2890`.
    pub seq_mode: String,
    pub pmtudisc: bool,
    pub ignore_df: bool,
    /// None is `encaplimit none`.
    pub encap_limit: Option<u8>,
    /// `inherit`, or a number such as `0x00000`.
    pub flow_label: String,
    /// `off`, `auto`, or a number of bytes.
    pub mss: String,
    /// `respect` or `bypass`: what becomes of its packets where rules of netfilter are on their way.
    #[serde(default = "respect")]
    pub netfilter: String,
    /// Of a tunnel of the kernel's own, which `ip tunnel` or `ip link` made: whether it is to be accelerated.
    #[serde(default)]
    pub adopted: Option<bool>,
    pub ifindex: Option<u32>,
    /// The device is administratively up.
    pub up: bool,
    pub mtu: Option<u32>,
    /// The interface that encapsulated packets leave by.
    pub underlay: Option<String>,
    /// The next hop's address on the underlay.
    pub via: Option<String>,
    /// XDP encapsulates for this tunnel; otherwise `why_not` says what it waits for.
    pub fast: bool,
    pub why_not: Option<String>,
    /// What the peer sends that does not fit, where it lately has.
    pub mismatch: Option<Mismatch>,
    /// Lower than the underlay's, as learned.
    pub path_mtus: Vec<PathMtu>,
    /// The longest inner packet that the ways to all remotes carry in one outer packet, in bytes: what
    /// has been learned, or else the underlay's MTU, less the headers. While the tunnel is up and
    /// there is such a way.
    #[serde(default)]
    pub payload_mtu: Option<u32>,
    /// With sequence numbers in either direction.
    pub sequence: Option<Sequence>,
}

/// What a daemon does that does not say.
fn respect() -> String {
    Netfilter::Respect.to_string()
}

impl TunnelInfo {
    /// As configured; it has no device, and nothing is known of how it stands.
    pub fn configured(tunnel: &Tunnel) -> Self {
        Self {
            name: tunnel.name.clone(),
            mode: tunnel.mode.to_string(),
            local: tunnel.local.to_string(),
            remote: tunnel.remote.to_string(),
            dev: tunnel.dev.clone(),
            ttl: tunnel.ttl,
            tos: tunnel.tos,
            key: tunnel.ikey.filter(|_| tunnel.ikey == tunnel.okey),
            ikey: tunnel.ikey,
            okey: tunnel.okey,
            icsum: tunnel.icsum,
            ocsum: tunnel.ocsum,
            iseq: tunnel.iseq,
            oseq: tunnel.oseq,
            seq_mode: tunnel.seq_mode.to_string(),
            pmtudisc: tunnel.pmtudisc,
            ignore_df: tunnel.ignore_df,
            encap_limit: tunnel.encap_limit,
            flow_label: tunnel.flow_label.to_string(),
            mss: tunnel.mss.to_string(),
            netfilter: tunnel.netfilter.to_string(),
            adopted: None,
            ifindex: None,
            up: false,
            mtu: None,
            underlay: None,
            via: None,
            fast: false,
            why_not: None,
            mismatch: None,
            path_mtus: Vec::new(),
            payload_mtu: None,
            sequence: None,
        }
    }

    /// Whether packets that IPv6 is promised to be carried are longer than the path takes, and so go in
    /// outer fragments (RFC 7676, 3.2). On a device with a lower MTU there is no IPv6.
    pub fn fragments_ipv6(&self) -> bool {
        fragments_ipv6(self.mtu, self.payload_mtu)
    }
}

/// The same of the MTU of a tunnel's device and the longest inner packet that its path takes.
pub fn fragments_ipv6(device: Option<u32>, payload: Option<u32>) -> bool {
    let promised = u32::from(MIN_MTU_IPV6);
    device.is_some_and(|mtu| mtu >= promised) && payload.is_some_and(|mtu| mtu < promised)
}

/// The device of a tunnel as the kernel has it, in the words of `ip link show`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, CustomType)]
pub struct LinkInfo {
    pub name: String,
    pub ifindex: u32,
    /// IFF_UP and others, as in linux/if.h.
    pub flags: u32,
    /// In bytes.
    pub mtu: u32,
    pub qdisc: Option<String>,
    /// The bridge, or another device, that it belongs to.
    pub master: Option<String>,
    /// RFC 2863's state: `UP`, `DOWN`, `LOWERLAYERDOWN`...
    pub operstate: String,
    /// `DEFAULT` or `DORMANT`.
    pub linkmode: String,
    pub group: u32,
    /// In packets.
    pub txqlen: u32,
    /// Of Ethernet: its own address.
    pub address: Option<String>,
    /// Of Ethernet.
    pub broadcast: Option<String>,
    pub promiscuity: Option<u32>,
    pub allmulti: Option<u32>,
    pub min_mtu: Option<u32>,
    pub max_mtu: Option<u32>,
    /// How it makes IPv6 addresses; none where it has no IPv6.
    pub addrgenmode: Option<String>,
    pub num_tx_queues: Option<u32>,
    pub num_rx_queues: Option<u32>,
    pub gso_max_size: Option<u32>,
    pub gso_max_segs: Option<u32>,
    pub tso_max_size: Option<u32>,
    pub tso_max_segs: Option<u32>,
    pub gro_max_size: Option<u32>,
    /// How often it has come up or gone down.
    pub carrier_changes: Option<u32>,
    /// The underlay interface that the tunnel is bound to is down.
    pub underlay_down: bool,
}

/// An interface that packets are forwarded between.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct PortInfo {
    pub name: String,
    pub ifindex: u32,
    /// `native`, `generic` or `off`.
    pub xdp: String,
    /// Why a better mode is not in use, or why packets cannot be redirected out of this port.
    pub note: Option<String>,
    pub forwarding: bool,
}

/// [`PlanStep::action`].
pub const ADD: &str = "add";
/// As [`ADD`].
pub const CHANGE: &str = "change";
/// As [`ADD`].
pub const DELETE: &str = "delete";

/// One change that applying a config makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct PlanStep {
    /// `add`, `change` or `delete`.
    pub action: String,
    /// `tunnel`, `port` or `control`.
    pub object: String,
    /// `*` is every port that is not named.
    pub name: String,
    /// In config keys: the options, or what they change from and to.
    pub what: String,
}

/// A line such as `~ tunnel tunnel0: ttl 64 -> 245`.
impl fmt::Display for PlanStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.action.as_str() {
            ADD => '+',
            DELETE => '-',
            _ => '~',
        };
        write!(f, "{sign} {} {}: {}", self.object, self.name, self.what)
    }
}
