//! What the maps hold while the programs are tested, and the interfaces that they name.
//!
//! ```text
//!   10.1.0.2            +------------------------+            192.0.2.254
//!   2001:db8:1::2       | 10.1.0.1      192.0.2.1 |           2001:db8:2::fe
//!   HOST ---------- LAN | 2001:db8:1::1           | WAN ------ GATEWAY --- 198.51.100.(1+ID)
//!                       |           2001:db8:2::1 |                        2001:db8:f::(1+ID)
//!                       +------------------------+                         remote of tunnel ID
//!                 device of tunnel ID: 10.(100+ID).0.0/16, 2001:db8:(100+ID)::/48
//! ```
//!
//! The IPv6 prefix of the LAN is one of hosts: HOST is in `HOSTS6`, the route says so.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use gre_ebpf_common::{
    demux::{Key, Kind},
    next_hop::{self, NextHop},
    port::{self, Port},
    route::Entry,
    route6,
    tunnel::{self, Addresses6, Ends, Expected, Outer, Tunnel},
};
use gre_userspace::{dataplane::DataPlane, model::Limits};

use crate::change;

/// Interface indexes.
pub const LAN: u32 = 10;
pub const WAN: u32 = 12;
/// A VLAN device on the WAN, where TC gets its frames without the tag.
pub const VLAN: u32 = 14;

pub const LAN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
pub const WAN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x12];
pub const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x20];
pub const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x21];

/// Next hop ids.
pub const TO_GATEWAY: u32 = 1;
pub const TO_HOST: u32 = 2;

pub const LIMITS: Limits = Limits {
    tunnels: 16,
    next_hops: 64,
    route_blocks: 32,
    interfaces: 256,
    route6_nodes: 256,
    hosts6: 64,
    vlans: 16,
    fdb: 16,
};

/// A version of IP, inside or outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Family {
    /// A packet's header without options, in bytes.
    pub const fn header_len(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }

    pub const fn ethertype(self) -> u16 {
        match self {
            Self::V4 => 0x0800,
            Self::V6 => 0x86dd,
        }
    }

    const fn pick(self, v4: [u8; 4], v6: [u16; 8]) -> IpAddr {
        match self {
            Self::V4 => {
                let [a, b, c, d] = v4;
                IpAddr::V4(Ipv4Addr::new(a, b, c, d))
            }
            Self::V6 => {
                let [a, b, c, d, e, f, g, h] = v6;
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h))
            }
        }
    }

    pub const fn host(self) -> IpAddr {
        self.pick([10, 1, 0, 2], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 2])
    }

    /// Of the gateway under test, in the underlay.
    pub const fn local(self) -> IpAddr {
        self.pick([192, 0, 2, 1], [0x2001, 0xdb8, 2, 0, 0, 0, 0, 1])
    }

    /// Of the gateway under test, in the LAN.
    pub const fn lan_address(self) -> IpAddr {
        self.pick([10, 1, 0, 1], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 1])
    }

    /// An address that nothing is known about.
    pub const fn stranger(self) -> IpAddr {
        self.pick([203, 0, 113, 77], [0x2001, 0xdb8, 0xdead, 0, 0, 0, 0, 0x77])
    }

    pub const fn any(self) -> IpAddr {
        self.pick([0; 4], [0; 8])
    }
}

/// A tunnel; how it differs from the others is what its tests are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    pub id: u32,
    pub outside: Family,
    pub key: Option<u32>,
    pub checksum: bool,
    pub sequence: bool,
    pub limit: Option<u8>,
    /// 0 inherits.
    pub ttl: u8,
    /// Bit 0 inherits.
    pub tos: u8,
    /// None inherits.
    pub flow_label: Option<u32>,
}

const GRE: Spec = Spec {
    id: 0,
    outside: Family::V4,
    key: None,
    checksum: false,
    sequence: false,
    limit: None,
    ttl: 64,
    tos: 0,
    flow_label: Some(0),
};
const IP6GRE: Spec = Spec { outside: Family::V6, ..GRE };

pub const PLAIN4: Spec = GRE;
pub const ALL4: Spec = Spec { id: 1, key: Some(77), checksum: true, sequence: true, ..GRE };
pub const PLAIN6: Spec = Spec { id: 2, ..IP6GRE };
pub const KEYED6: Spec = Spec { id: 3, key: Some(0x0102_0304), ..IP6GRE };
pub const SUMMED6: Spec = Spec { id: 4, checksum: true, ..IP6GRE };
pub const NUMBERED6: Spec = Spec { id: 5, sequence: true, ..IP6GRE };
pub const ALL6: Spec =
    Spec { id: 6, key: Some(0xfefd_fcfb), checksum: true, sequence: true, ttl: 255, ..IP6GRE };
pub const LIMITED6: Spec = Spec { id: 7, key: Some(7), limit: Some(4), ..IP6GRE };
pub const INHERIT6: Spec = Spec { id: 8, ttl: 0, tos: 1, flow_label: None, ..IP6GRE };
pub const FIXED6: Spec =
    Spec { id: 9, ttl: 7, tos: 0x28, flow_label: Some(0xabcde), limit: Some(0), ..IP6GRE };
/// Like `PLAIN4` with TTL and TOS of the inner packet.
pub const INHERIT4: Spec = Spec { id: 10, ttl: 0, tos: 1, ..GRE };

pub const TUNNELS: [Spec; 11] =
    [PLAIN4, ALL4, PLAIN6, KEYED6, SUMMED6, NUMBERED6, ALL6, LIMITED6, INHERIT6, FIXED6, INHERIT4];

impl Spec {
    pub const fn remote(&self) -> IpAddr {
        let last = 1 + self.id as u8;
        self.outside.pick([198, 51, 100, last], [0x2001, 0xdb8, 0xf, 0, 0, 0, 0, last as u16])
    }

    /// A host behind the tunnel.
    pub const fn beyond(&self, inside: Family) -> IpAddr {
        let net = 100 + self.id as u8;
        inside.pick([10, net, 0, 9], [0x2001, 0xdb8, net as u16, 0, 0, 0, 0, 9])
    }

    /// Interface index of the device.
    pub const fn device(&self) -> u32 {
        100 + 2 * self.id
    }

    /// Interface index of the device's other end.
    pub const fn peer(&self) -> u32 {
        101 + 2 * self.id
    }

    pub const fn device_mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 1, self.id as u8]
    }

    pub const fn peer_mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 2, self.id as u8]
    }

    /// Next hop id of the way to the device.
    pub const fn way_to_device(&self) -> u32 {
        10 + self.id
    }

    /// Bytes that encapsulation adds.
    pub const fn overhead(&self) -> usize {
        let options = self.key.is_some() as usize + self.checksum as usize + self.sequence as usize;
        let limit = if self.limit.is_some() { 8 } else { 0 };
        self.outside.header_len() + limit + 4 + 4 * options
    }

    /// Of the device.
    pub const fn mtu(&self) -> usize {
        1500 - self.overhead()
    }

    pub fn ends(&self) -> Ends {
        ends(self.outside.local(), self.remote())
    }

    pub fn kind(&self) -> Kind {
        Kind::from_key(self.key.map(u32::to_be))
    }

    fn record(&self) -> Tunnel {
        let outer = Outer {
            ttl: self.ttl,
            tos: self.tos,
            key: self.key,
            checksum: self.checksum,
            sequence: self.sequence,
            encapsulation_limit: self.limit,
            flow_label: self.flow_label,
            ..Outer::new(self.ends())
        };
        let Self { key, checksum, sequence, .. } = *self;
        let expected = Expected { key, checksum, sequence, rfc2890: false };
        let mut record = Tunnel::new(outer, expected);
        record.flags = record
            .flags
            .with(tunnel::Flags::UP, true)
            .with(tunnel::Flags::FORWARDING, true)
            .with(tunnel::Flags::FORWARDING6, true);
        record.next_hop = TO_GATEWAY;
        record.device = self.way_to_device();
        record.ifindex = self.device();
        record.mtu = self.mtu() as u16;
        record
    }
}

/// Everything up, resolved and forwarding; each test changes one thing, or nothing.
pub fn world() -> DataPlane {
    let mut plane = DataPlane::default();
    let ready = next_hop::Flags::RESOLVED.with(next_hop::Flags::NATIVE_REDIRECT, true);
    for (ifindex, mac) in [(LAN, LAN_MAC), (WAN, WAN_MAC), (VLAN, WAN_MAC)] {
        plane.ports.insert(ifindex, Port::new(mac, both(), ifindex));
    }
    for (id, to, from, ifindex) in
        [(TO_GATEWAY, GATEWAY_MAC, WAN_MAC, WAN), (TO_HOST, HOST_MAC, LAN_MAC, LAN)]
    {
        plane.next_hops.insert(id, NextHop::new(to, from, ifindex, 1500, ready));
    }
    for spec in TUNNELS {
        let (device, peer) = (spec.device_mac(), spec.peer_mac());
        let way = NextHop::new(device, peer, spec.peer(), 65_535, ready);
        plane.next_hops.insert(spec.way_to_device(), way);
        plane.ports.insert(spec.device(), Port::device_of(spec.id, spec.device()));
        plane.ports.insert(spec.peer(), Port::peer_of(spec.id, spec.peer()));
        for kind in [spec.kind(), Kind::PAIR] {
            plane.demux.insert(Key { ends: spec.ends(), kind, link: 0 }, spec.id);
        }
        if let (IpAddr::V6(local), IpAddr::V6(remote)) = (spec.outside.local(), spec.remote()) {
            let addresses = Addresses6 { local: words(local), remote: words(remote) };
            plane.addresses6.insert(spec.id, addresses);
        }
        plane.tunnels.insert(spec.id, spec.record());
        change::route(&mut plane, spec.beyond(Family::V4), 16, Entry::Tunnel(spec.id));
        change::route(&mut plane, spec.beyond(Family::V6), 48, Entry::Tunnel(spec.id));
    }
    change::route(&mut plane, Family::V4.host(), 24, Entry::Punt);
    change::route(&mut plane, Family::V4.host(), 32, Entry::NextHop(TO_HOST));
    change::route(&mut plane, Family::V4.lan_address(), 32, Entry::Punt);
    change::route(&mut plane, Family::V6.host(), 64, route6::HOSTS);
    change::host6(&mut plane, Family::V6.host(), Entry::NextHop(TO_HOST));
    plane.tx_ports = every_interface();
    plane
}

/// Flags of a port that forwards both versions.
pub fn both() -> port::Flags {
    port::Flags::FORWARDING.with(port::Flags::FORWARDING6, true)
}

pub fn every_interface() -> BTreeSet<u32> {
    TUNNELS.iter().map(Spec::peer).chain([LAN, WAN]).collect()
}

/// The commands for `ip -batch` that make the interfaces.
pub fn interfaces() -> String {
    let pair = |name: &str, index: u32, peer: u32| {
        format!(
            "link add {name} index {index} type veth peer name {name}-peer index {peer}\n\
             link set {name} up\nlink set {name}-peer up\n"
        )
    };
    let devices =
        TUNNELS.iter().map(|spec| pair(&format!("t{}", spec.id), spec.device(), spec.peer()));
    let ports = [("lan", LAN), ("wan", WAN), ("vlan", VLAN)];
    devices.chain(ports.map(|(name, index)| pair(name, index, index + 1))).collect()
}

/// An address as it stands in a header.
pub fn words(address: Ipv6Addr) -> [u32; 4] {
    let octets = address.octets();
    [0, 4, 8, 12].map(|i| u32::from_ne_bytes(octets[i..i + 4].try_into().expect("four bytes")))
}

pub fn ends(local: IpAddr, remote: IpAddr) -> Ends {
    match (local, remote) {
        (IpAddr::V4(local), IpAddr::V4(remote)) => {
            Ends::v4(u32::from_ne_bytes(local.octets()), u32::from_ne_bytes(remote.octets()))
        }
        (IpAddr::V6(local), IpAddr::V6(remote)) => Ends::v6(words(local), words(remote)),
        _ => panic!("{local} and {remote} are of different versions"),
    }
}
