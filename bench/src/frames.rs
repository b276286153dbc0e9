//! What is sent through the programs, and the maps' contents that lead it through.

use std::net::Ipv4Addr;

use etherparse::{PacketBuilder, ip_number};
use gre_ebpf_common::{
    bridge::{self, Address, Member, Station},
    demux::{Key, Kind},
    next_hop::{self, NextHop},
    port::{self, Port},
    route::Entry,
    tunnel::{Addresses6, Ends, Expected, Flags, Outer, Tunnel},
    wire::ethernet::Mac,
};
use gre_userspace::dataplane::DataPlane;

use crate::aim::Shape;

/// Bytes of every frame, whatever its headers, so that none is cheaper to carry.
const FRAME: usize = 128;

const ETHERNET: usize = 14;
const IPV4: usize = 20;

/// Each /24 of a /12 is a destination, and so is each station behind a bridge's member.
pub const DESTINATIONS: u32 = 4096;

pub const PORT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SENDER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Where a /12 of destinations leads; a tunnel of the same number each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    Keyless = 0,
    Keyed = 1,
    /// The tunnel that transit leaves by.
    Onward = 2,
    NextHop = 3,
    /// Not in the table.
    Unknown = 4,
    /// Tunnels with other options, which the comparator does not know.
    Numbered = 5,
    Summed = 6,
    All = 7,
    Ipv6 = 8,
    /// A tunnel of Ethernet, the member of a bridge.
    Ethernet = 9,
}

impl Network {
    const TUNNELS: [Self; 8] = [
        Self::Keyless,
        Self::Keyed,
        Self::Onward,
        Self::Numbered,
        Self::Summed,
        Self::All,
        Self::Ipv6,
        Self::Ethernet,
    ];

    /// The first host.
    pub const fn host(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 16 * (self as u8 + 1), 0, 9)
    }

    const fn remote(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 51, 100, self as u8 + 1)
    }

    const fn key(self) -> Option<u32> {
        match self {
            Self::Keyed | Self::Numbered | Self::All => Some(0x0123_4567),
            _ => None,
        }
    }

    const fn prefix(self) -> (u32, u8) {
        (u32::from_be_bytes(self.host().octets()) & 0xfff0_0000, 12)
    }
}

/// A frame that is to be forwarded to a network, as a host on the port's link sends it.
pub fn plain(to: Network) -> Shape {
    let source = [172, 16, 0, 1];
    let builder = PacketBuilder::ethernet2(SENDER_MAC, PORT_MAC)
        .ipv4(source, to.host().octets(), 64)
        .udp(7, 7);
    let payload = vec![0; FRAME - builder.size(0)];
    let mut frame = Vec::new();
    builder.write(&mut frame, &payload).expect("a vector takes all");
    Shape { frame, inner: ETHERNET, outer: None, station: None }
}

/// A frame out of a tunnel, to be forwarded to another network.
pub fn encapsulated(tunnel: Network, to: Network) -> Shape {
    let mut packet = match tunnel.key() {
        Some(key) => [&[0x20, 0, 8, 0], &key.to_be_bytes()[..]].concat(),
        None => vec![0, 0, 8, 0],
    };
    let offset = ETHERNET + IPV4 + packet.len();
    let inner_len = FRAME - offset;
    let inner = PacketBuilder::ipv4([172, 17, 0, 1], to.host().octets(), 64).udp(7, 7);
    let payload = vec![0; inner_len - inner.size(0)];
    inner.write(&mut packet, &payload).expect("a vector takes all");
    let frame = from_remote(tunnel, &packet);
    Shape { frame, inner: offset, outer: Some(ETHERNET), station: None }
}

/// A frame from a station behind the port to one behind the tunnel of Ethernet.
pub fn bridged() -> Shape {
    let frame = between(Side::Port, Side::Tunnel, FRAME);
    Shape { frame, inner: ETHERNET, outer: None, station: Some(STATION) }
}

/// The other way: out of the tunnel, with such a frame in it.
pub fn bridged_out_of_tunnel() -> Shape {
    let offset = ETHERNET + IPV4 + 4;
    let inner = between(Side::Tunnel, Side::Egress, FRAME - offset);
    let frame = from_remote(Network::Ethernet, &[&[0, 0, 0x65, 0x58], &inner[..]].concat());
    let station = Some(offset + STATION);
    Shape { frame, inner: offset + ETHERNET, outer: Some(ETHERNET), station }
}

/// The last two bytes of the address that a frame is for.
const STATION: usize = 4;

/// The first station of one side to the first of the other, in a frame of `len` bytes.
fn between(from: Side, to: Side, len: usize) -> Vec<u8> {
    let host = Network::Ethernet.host().octets();
    let builder = PacketBuilder::ethernet2(from.station(0), to.station(0))
        .ipv4([172, 17, 0, 1], host, 64)
        .udp(7, 7);
    let payload = vec![0; len - builder.size(0)];
    let mut frame = Vec::new();
    builder.write(&mut frame, &payload).expect("a vector takes all");
    frame
}

/// A tunnel's packet, GRE header and all, as it comes in on the port.
fn from_remote(tunnel: Network, packet: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(SENDER_MAC, PORT_MAC)
        .ipv4(tunnel.remote().octets(), LOCAL.octets(), 64)
        .write(&mut frame, ip_number::GRE, packet)
        .expect("a vector takes all");
    frame
}

/// Members of the bridge.
#[derive(Clone, Copy)]
enum Side {
    /// Where frames come in. What is addressed to the port itself is no bridge's.
    Port,
    Tunnel,
    Egress,
}

impl Side {
    fn station(self, n: u32) -> [u8; 6] {
        let [.., high, low] = n.to_be_bytes();
        [2, 0, 1, self as u8, high, low]
    }
}

/// Interface indices of no device here: the bridge's, and that of the tunnel's device.
const BRIDGE: u32 = 200;
const DEVICE_IFINDEX: u32 = 201;

/// Next hop ids.
const UNDERLAY: u32 = 1;
pub const LAN: u32 = 2;
const DEVICE: u32 = 3;

/// Maps in which frames that come in on `ports` leave by `out`.
pub fn plane(ports: &[u32], out: u32) -> DataPlane {
    let mut plane = DataPlane::default();
    for &port in ports {
        let flags = port::Flags::FORWARDING.with(port::Flags::BRIDGED, true);
        plane.ports.insert(port, Port::new(PORT_MAC, flags, port));
        join(&mut plane, port, Side::Port, Station::behind_port(port, 0, false));
    }
    let device = Station::behind_tunnel(DEVICE_IFINDEX, Network::Ethernet as u32, DEVICE, false);
    join(&mut plane, DEVICE_IFINDEX, Side::Tunnel, device);
    join(&mut plane, out, Side::Egress, Station::behind_port(out, LAN, false));
    let flags = next_hop::Flags::RESOLVED.with(next_hop::Flags::NATIVE_REDIRECT, true);
    for id in [UNDERLAY, LAN, DEVICE] {
        let neighbour = [2, 0, 0, 0, 1, id as u8];
        plane.next_hops.insert(id, NextHop::new(neighbour, PORT_MAC, out, 1500, flags));
    }
    plane.tx_ports.insert(out);
    for network in Network::TUNNELS {
        let id = network as u32;
        let record = record(network);
        let ends = ends(network);
        if network == Network::Ipv6 {
            let addresses = Addresses6 { local: ends.local, remote: ends.remote };
            plane.addresses6.insert(id, addresses);
        }
        for kind in [Kind::from_key(network.key().map(u32::to_be)), Kind::PAIR] {
            let kind = kind.of_ethernet(network == Network::Ethernet);
            plane.demux.insert(Key { ends, kind, link: 0 }, id);
        }
        plane.tunnels.insert(id, record);
        plane.routes.insert(network.prefix(), Entry::Tunnel(id));
    }
    plane.routes.insert(Network::NextHop.prefix(), Entry::NextHop(LAN));
    plane
}

/// A member of the bridge, and where its stations are.
fn join(plane: &mut DataPlane, ifindex: u32, side: Side, mut place: Station) {
    let member = Member::new(BRIDGE, 0, bridge::Flags::default(), u32::MAX);
    plane.members.insert(ifindex, member);
    // The kernel need not see any of their frames.
    place.refresh_at = u64::MAX;
    for n in 0..DESTINATIONS {
        let mac = Mac::from_bytes(side.station(n));
        plane.stations.insert(Address::new(BRIDGE, 0, mac), place);
    }
}

fn ends(network: Network) -> Ends {
    let [local, remote] = [LOCAL, network.remote()].map(|ip| u32::from_ne_bytes(ip.octets()));
    match network {
        // IPv4-mapped: any address will do.
        Network::Ipv6 => Ends::v6([0, 0, !0, local], [0, 0, !0, remote]),
        _ => Ends::v4(local, remote),
    }
}

fn record(network: Network) -> Tunnel {
    let key = network.key();
    let checksum = matches!(network, Network::Summed | Network::All);
    let sequence = matches!(network, Network::Numbered | Network::All);
    let ethernet = network == Network::Ethernet;
    let outer =
        Outer { ttl: 64, tos: 1, key, checksum, sequence, ethernet, ..Outer::new(ends(network)) };
    let expected = Expected { key, checksum, sequence, rfc2890: false };
    up(Tunnel::new(outer, expected))
}

/// A tunnel without options, by way of the same next hop as the others.
pub fn plain_tunnel(remote: Ipv4Addr) -> (Ends, Tunnel) {
    let [local, remote] = [LOCAL, remote].map(|ip| u32::from_ne_bytes(ip.octets()));
    let ends = Ends::v4(local, remote);
    let outer = Outer { ttl: 64, tos: 1, ..Outer::new(ends) };
    (ends, up(Tunnel::new(outer, Expected::default())))
}

fn up(mut record: Tunnel) -> Tunnel {
    record.flags = record.flags.with(Flags::UP, true).with(Flags::FORWARDING, true);
    (record.next_hop, record.device, record.mtu) = (UNDERLAY, DEVICE, 1472);
    record.ifindex = DEVICE_IFINDEX;
    record
}
