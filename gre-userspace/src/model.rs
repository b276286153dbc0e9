//! What the user asks for: tunnels and ports, however they were given (config file, command line,
//! control socket). Words and defaults are iproute2's.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A tunnel as configured; the identity on the wire is `(local, remote, key)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// The name of its network device, 1 to 15 bytes.
    pub name: String,
    pub mode: Mode,
    pub local: Ipv4Addr,
    pub remote: Ipv4Addr,
    /// Outer TTL; 0 copies the inner packet's (`ttl inherit`).
    pub ttl: u8,
    /// Outer TOS byte; bit 0 set copies the inner packet's (`tos inherit`), as in the kernel.
    pub tos: u8,
    /// GRE key in host byte order, the same in both directions.
    pub key: Option<u32>,
    /// Set Don't Fragment on the outer packet (`pmtudisc`, the default).
    pub pmtudisc: bool,
    /// Device MTU in bytes; by default the underlay's less the encapsulation.
    pub mtu: Option<u32>,
    /// Addresses that the daemon gives the device.
    pub addresses: Vec<Address>,
    /// Prefixes that the daemon routes into the device.
    pub routes: Vec<IpNet>,
    /// Bring the device up (config file); `xgre tunnel add` leaves that to `ip link set up`.
    pub up: bool,
}

impl Tunnel {
    /// Bytes that encapsulation adds: outer IPv4 header, GRE header, key.
    pub fn overhead(&self) -> u32 {
        20 + 4 + if self.key.is_some() { 4 } else { 0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// IPv4 in GRE over IPv4.
    Gre,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gre => f.write_str("gre"),
        }
    }
}

/// `ip addr add LOCAL [peer PEER]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    pub local: IpNet,
    pub peer: Option<IpNet>,
}

/// How XDP runs on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Native where the driver can, else generic.
    #[default]
    Auto,
    Native,
    Generic,
    /// No XDP: the TC programs do the work.
    Off,
}

/// Sizes fixed when the maps are created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub tunnels: u32,
    pub next_hops: u32,
    /// Second-level route blocks: one for each /24 that holds a longer prefix.
    pub route_blocks: u32,
    /// Highest interface index plus one.
    pub interfaces: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { tunnels: 1024, next_hops: 65_536, route_blocks: 16_384, interfaces: 65_536 }
    }
}

/// Everything the user asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// By device name.
    pub tunnels: BTreeMap<String, Tunnel>,
    /// Ports named in the config, by interface name. Where it is empty, every Ethernet interface
    /// that has an address is a port.
    pub ports: BTreeMap<String, XdpMode>,
    pub limits: Limits,
}
