//! What the daemon tells: the replies of the control socket, and so what every `show` and `stats`
//! prints. Counters are totals since the maps were created.

use serde::{Deserialize, Serialize};
use zlink::introspect::{CustomType, Type};

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
    /// Only reasons that have occurred, by label.
    pub drops: Vec<Count>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Count {
    /// The outcome's label, e.g. `key-mismatch`.
    pub reason: String,
    /// What it means, and what to look at.
    pub help: String,
    pub packets: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct TunnelStats {
    pub name: String,
    pub rx: Direction,
    pub tx: Direction,
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
    /// `gre`.
    pub mode: String,
    pub local: String,
    pub remote: String,
    /// 0 is inherit.
    pub ttl: u8,
    /// Bit 0 is inherit.
    pub tos: u8,
    pub key: Option<u32>,
    pub pmtudisc: bool,
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
}

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
