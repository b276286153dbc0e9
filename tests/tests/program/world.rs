//! What the maps hold while the programs are tested, and the interfaces that they name.
//!
//! ```text
//!   10.1.0.2            +--------------------+            192.0.2.254
//!   HOST ---------- LAN | 10.1.0.1 192.0.2.1 | WAN --------- GATEWAY --- 198.51.100.(1+ID)
//!                       +--------------------+                           remote of tunnel ID
//!                          device of tunnel ID: 10.(100+ID).0.0/16
//! ```

pub mod change;

use std::collections::BTreeSet;

use gre_ebpf_common::{
    demux::{Key, Kind},
    next_hop::{self, NextHop},
    port::{self, Port},
    route::Entry,
    tunnel::{self, Ends, Expected, Outer, Tunnel},
};
use gre_userspace::{dataplane::DataPlane, model::Limits};

/// Interface indexes.
pub const LAN: u32 = 10;
pub const WAN: u32 = 12;

pub const LAN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
pub const WAN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x12];
pub const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x20];
pub const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x21];

pub const HOST: [u8; 4] = [10, 1, 0, 2];
/// Of the gateway under test.
pub const LOCAL: [u8; 4] = [192, 0, 2, 1];
/// Of the gateway under test, in the LAN.
pub const LAN_ADDRESS: [u8; 4] = [10, 1, 0, 1];
/// An address that nothing is known about.
pub const STRANGER: [u8; 4] = [203, 0, 113, 77];
/// An address that is routed over the GATEWAY.
pub const ROUTED: [u8; 4] = [8, 8, 8, 8];

/// Next hop ids.
pub const TO_GATEWAY: u32 = 1;
pub const TO_HOST: u32 = 2;

pub const LIMITS: Limits = Limits {
    tunnels: 8,
    next_hops: 64,
    route_blocks: 16,
    interfaces: 256,
    fragments: 16,
    ..Limits::DEFAULT
};

/// A tunnel; how it differs from the others is what its tests are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    pub id: u32,
    /// Id of the tunnel that has this remote: its own, unless it shares one.
    pub remote_of: u32,
    /// Of received packets, as are those without `_sent`.
    pub key: Option<u32>,
    pub key_sent: Option<u32>,
    pub checksum: bool,
    pub checksum_sent: bool,
    pub sequence: bool,
    pub sequence_sent: bool,
    pub rfc2890: bool,
    /// 0 inherits.
    pub ttl: u8,
    /// Bit 0 inherits.
    pub tos: u8,
    pub pmtudisc: bool,
    pub ignore_df: bool,
    pub local_any: bool,
    pub remote_any: bool,
    /// Interface that it is bound to; 0 is any.
    pub link: u32,
    pub up: bool,
}

pub const PLAIN: Spec = Spec::new(0);
pub const KEYED: Spec = Spec { ttl: 255, ..Spec::new(1).with_key(0x0102_0304) };
pub const INHERIT: Spec = Spec { ttl: 0, tos: 1, pmtudisc: false, ..Spec::new(2) };
/// Its key is zero, which is not the same as none.
pub const FIXED: Spec = Spec { ttl: 7, tos: 0x28, pmtudisc: false, ..Spec::new(3).with_key(0) };
pub const TUNNELS: [Spec; 4] = [PLAIN, KEYED, INHERIT, FIXED];
/// Ids from here on are for tunnels that a test adds.
pub const FREE: u32 = TUNNELS.len() as u32;

impl Spec {
    /// Without any option.
    pub const fn new(id: u32) -> Self {
        Self {
            id,
            remote_of: id,
            key: None,
            key_sent: None,
            checksum: false,
            checksum_sent: false,
            sequence: false,
            sequence_sent: false,
            rfc2890: false,
            ttl: 64,
            tos: 0,
            pmtudisc: true,
            ignore_df: false,
            local_any: false,
            remote_any: false,
            link: 0,
            up: true,
        }
    }

    /// In both directions.
    pub const fn with_key(self, key: u32) -> Self {
        Self { key: Some(key), key_sent: Some(key), ..self }
    }

    pub const fn with_checksums(self) -> Self {
        Self { checksum: true, checksum_sent: true, ..self }
    }

    pub const fn with_sequence(self) -> Self {
        Self { sequence: true, sequence_sent: true, ..self }
    }

    pub const fn remote(&self) -> [u8; 4] {
        [198, 51, 100, 1 + self.remote_of as u8]
    }

    /// A host behind the tunnel.
    pub const fn beyond(&self) -> [u8; 4] {
        [10, 100 + self.id as u8, 0, 9]
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
    pub const fn overhead(&self) -> u16 {
        let words =
            self.key_sent.is_some() as u16 + self.checksum_sent as u16 + self.sequence_sent as u16;
        24 + 4 * words
    }

    /// Of the device.
    pub const fn mtu(&self) -> u16 {
        1500 - self.overhead()
    }

    /// As the tunnel is found by them.
    pub fn ends(&self) -> Ends {
        let any = |is_any, address| if is_any { [0; 4] } else { address };
        let (local, remote) = (any(self.local_any, LOCAL), any(self.remote_any, self.remote()));
        Ends::v4(u32::from_ne_bytes(local), u32::from_ne_bytes(remote))
    }

    pub fn record(&self) -> Tunnel {
        // Where any local address will do, the record has the one that is sent from.
        let local = u32::from_ne_bytes(LOCAL);
        let outer = Outer {
            ttl: self.ttl,
            tos: self.tos,
            dont_fragment: self.pmtudisc,
            ignore_df: self.ignore_df,
            key: self.key_sent,
            checksum: self.checksum_sent,
            sequence: self.sequence_sent,
            ..Outer::new(Ends::v4(local, self.ends().remote[0]))
        };
        let expected = Expected {
            key: self.key,
            checksum: self.checksum,
            sequence: self.sequence,
            rfc2890: self.rfc2890,
        };
        let mut record = Tunnel::new(outer, expected);
        record.flags = record
            .flags
            .with(tunnel::Flags::UP, self.up)
            .with(tunnel::Flags::FORWARDING, true)
            .with(tunnel::Flags::LOCAL_ANY, self.local_any)
            .with(tunnel::Flags::REMOTE_ANY, self.remote_any);
        record.next_hop = TO_GATEWAY;
        record.device = self.way_to_device();
        record.ifindex = self.device();
        record.mtu = self.mtu();
        record.link = self.link;
        record
    }
}

/// Everything up, resolved and forwarding; each test changes one thing, or nothing.
pub fn world() -> DataPlane {
    let mut plane = DataPlane::default();
    let ready = next_hop::Flags::RESOLVED.with(next_hop::Flags::NATIVE_REDIRECT, true);
    for (ifindex, mac) in [(LAN, LAN_MAC), (WAN, WAN_MAC)] {
        plane.ports.insert(ifindex, Port::new(mac, port::Flags::FORWARDING, ifindex));
    }
    for (id, to, from, ifindex) in
        [(TO_GATEWAY, GATEWAY_MAC, WAN_MAC, WAN), (TO_HOST, HOST_MAC, LAN_MAC, LAN)]
    {
        plane.next_hops.insert(id, NextHop::new(to, from, ifindex, 1500, ready));
    }
    for spec in TUNNELS {
        add(&mut plane, spec);
    }
    route(&mut plane, HOST, 24, Entry::Punt);
    route(&mut plane, HOST, 32, Entry::NextHop(TO_HOST));
    route(&mut plane, LAN_ADDRESS, 32, Entry::Punt);
    route(&mut plane, ROUTED, 8, Entry::NextHop(TO_GATEWAY));
    plane.tx_ports = every_interface();
    plane
}

/// Adds a tunnel, with its device and a route into it.
pub fn add(plane: &mut DataPlane, spec: Spec) {
    let ready = next_hop::Flags::RESOLVED.with(next_hop::Flags::NATIVE_REDIRECT, true);
    let (device, peer) = (spec.device_mac(), spec.peer_mac());
    let way = NextHop::new(device, peer, spec.peer(), 65_535, ready);
    plane.next_hops.insert(spec.way_to_device(), way);
    plane.ports.insert(spec.device(), Port::device_of(spec.id, spec.device()));
    plane.ports.insert(spec.peer(), Port::peer_of(spec.id, spec.peer()));
    let ends = spec.ends();
    let numbers_alone = spec.local_any && spec.remote_any;
    let key = spec.key.filter(|&key| key != 0 || !numbers_alone);
    let kind = Kind::from_key(key.map(u32::to_be));
    if spec.link != 0 {
        plane.demux.insert(Key { ends, kind, link: spec.link }, spec.id);
    }
    for kind in [kind, Kind::PAIR] {
        plane.demux.entry(Key { ends, kind, link: 0 }).or_insert(spec.id);
    }
    if spec.local_any {
        let ends = Ends::v4(u32::from_ne_bytes(LOCAL), 0);
        plane.demux.insert(Key { ends, kind: Kind::ADDRESS, link: 0 }, 0);
    }
    plane.tunnels.insert(spec.id, spec.record());
    route(plane, spec.beyond(), 16, Entry::Tunnel(spec.id));
}

/// Adds a tunnel's record towards one of its remotes. Only routes lead there.
pub fn add_leg(plane: &mut DataPlane, tunnel: Spec, leg: Spec) {
    let mut record = leg.record();
    record.device = tunnel.way_to_device();
    record.ifindex = tunnel.device();
    plane.tunnels.insert(leg.id, record);
    route(plane, leg.beyond(), 16, Entry::Tunnel(leg.id));
}

/// Takes the tunnels out that the world has.
pub fn remove_all(plane: &mut DataPlane) {
    plane.demux.clear();
    plane.tunnels.clear();
}

pub fn every_interface() -> BTreeSet<u32> {
    (0..LIMITS.tunnels).map(|id| Spec::new(id).peer()).chain([LAN, WAN]).collect()
}

/// Routes the prefix around `address`.
pub fn route(plane: &mut DataPlane, address: [u8; 4], len: u8, entry: Entry) {
    let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
    plane.routes.insert((u32::from_be_bytes(address) & mask, len), entry);
}

/// The commands for `ip -batch` that make the interfaces.
pub fn interfaces() -> String {
    let pair = |name: &str, index: u32, peer: u32| {
        format!(
            "link add {name} index {index} type veth peer name {name}-peer index {peer}\n\
             link set {name} up\nlink set {name}-peer up\n"
        )
    };
    let devices = (0..LIMITS.tunnels)
        .map(|id| pair(&format!("t{id}"), Spec::new(id).device(), Spec::new(id).peer()));
    devices.chain([pair("lan", LAN, LAN + 1), pair("wan", WAN, WAN + 1)]).collect()
}
