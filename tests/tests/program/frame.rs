//! Frames, built with etherparse and independent of xgre's own header code.

use etherparse::{EtherType, Ethernet2Header, IpNumber, Ipv4Header, UdpHeader};

use crate::world::{GATEWAY_MAC, HOST, HOST_MAC, LAN_MAC, LOCAL, Spec, WAN_MAC};

pub const ETHERNET: usize = 14;
pub const IPV4: usize = 20;
/// Where the outer IPv4 header's identification stands in a frame.
pub const IDENTIFICATION: std::ops::Range<usize> = ETHERNET + 4..ETHERNET + 6;

/// An IPv4 packet. Length and checksum are worked out when it becomes bytes.
#[derive(Debug, Clone)]
pub struct Packet {
    pub header: Ipv4Header,
    pub payload: Vec<u8>,
}

impl Packet {
    /// UDP of 60 bytes in all with a TTL of 64.
    pub fn new(source: [u8; 4], destination: [u8; 4]) -> Self {
        let data: Vec<u8> = (0..32).collect();
        let header = ipv4(64, IpNumber::UDP, source, destination);
        let udp = UdpHeader::with_ipv4_checksum(4000, 9, &header, &data).unwrap();
        Self { header, payload: [&udp.to_bytes()[..], &data].concat() }
    }

    pub fn with(mut self, change: impl FnOnce(&mut Ipv4Header)) -> Self {
        change(&mut self.header);
        self
    }

    /// Of this many bytes in all.
    pub fn long(mut self, bytes: u16) -> Self {
        self.payload.resize(usize::from(bytes) - self.header.header_len(), 0xa5);
        self
    }

    /// Of this many bytes in all, of which no two half words in a row are alike.
    pub fn varied(mut self, bytes: u16) -> Self {
        let len = usize::from(bytes) - self.header.header_len();
        self.payload = (0..len).map(|i| (i * 7 + i / 256 * 3 + 1) as u8).collect();
        self
    }

    /// As the next router sends it.
    pub fn forwarded(&self) -> Self {
        self.clone().with(|header| header.time_to_live -= 1)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut header = self.header.clone();
        header.set_payload_len(self.payload.len()).unwrap();
        header.header_checksum = header.calc_header_checksum();
        [&header.to_bytes()[..], &self.payload].concat()
    }
}

/// A packet from the HOST, behind the LAN, to one behind a tunnel.
pub fn outbound(tunnel: Spec) -> Packet {
    Packet::new(HOST, tunnel.beyond())
}

/// A packet to the HOST from one behind a tunnel.
pub fn inbound(tunnel: Spec) -> Packet {
    Packet::new(tunnel.beyond(), HOST)
}

/// All else is zero, Don't Fragment as well.
fn ipv4(ttl: u8, protocol: IpNumber, source: [u8; 4], destination: [u8; 4]) -> Ipv4Header {
    let header = Ipv4Header::new(0, ttl, protocol, source, destination).unwrap();
    Ipv4Header { dont_fragment: false, ..header }
}

pub fn set_tos(header: &mut Ipv4Header, tos: u8) {
    header.dscp = (tos >> 2).try_into().unwrap();
    header.ecn = (tos & 3).try_into().unwrap();
}

pub fn frame(to: [u8; 6], from: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let header = Ethernet2Header { destination: to, source: from, ether_type: EtherType::IPV4 };
    [&header.to_bytes()[..], packet].concat()
}

/// As the HOST sends it to the gateway.
pub fn from_lan(packet: &[u8]) -> Vec<u8> {
    frame(LAN_MAC, HOST_MAC, packet)
}

/// As the underlay's GATEWAY sends it to the gateway.
pub fn from_wan(packet: &[u8]) -> Vec<u8> {
    frame(WAN_MAC, GATEWAY_MAC, packet)
}

pub fn to_host(packet: &[u8]) -> Vec<u8> {
    frame(HOST_MAC, LAN_MAC, packet)
}

pub fn to_underlay(packet: &[u8]) -> Vec<u8> {
    frame(GATEWAY_MAC, WAN_MAC, packet)
}

pub fn to_device(tunnel: Spec, packet: &[u8]) -> Vec<u8> {
    frame(tunnel.device_mac(), tunnel.peer_mac(), packet)
}

pub const CHECKSUM_BIT: u16 = 0x8000;
pub const KEY_BIT: u16 = 0x2000;
pub const SEQUENCE_BIT: u16 = 0x1000;

/// A GRE header of flags, protocol type and optional words, and what it carries.
pub fn gre(flags: u16, protocol: u16, words: &[u32], payload: &[u8]) -> Vec<u8> {
    let mut bytes = [flags.to_be_bytes(), protocol.to_be_bytes()].concat();
    bytes.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    bytes.extend_from_slice(payload);
    bytes
}

/// What a GRE header has beside its protocol type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    pub checksum: bool,
    pub key: Option<u32>,
    pub number: Option<u32>,
}

impl Options {
    /// All combinations, with this key and this number.
    pub fn all(key: u32, number: u32) -> impl Iterator<Item = Self> {
        (0..8).map(move |bits| Self {
            checksum: bits & 1 != 0,
            key: (bits & 2 != 0).then_some(key),
            number: (bits & 4 != 0).then_some(number),
        })
    }

    /// Those that a tunnel's packets come with.
    pub fn received(tunnel: Spec, number: u32) -> Self {
        let number = tunnel.sequence.then_some(number);
        Self { checksum: tunnel.checksum, key: tunnel.key, number }
    }

    /// Those that a tunnel sends its packets with.
    pub fn sent(tunnel: Spec, number: u32) -> Self {
        let number = tunnel.sequence_sent.then_some(number);
        Self { checksum: tunnel.checksum_sent, key: tunnel.key_sent, number }
    }

    /// GRE header and payload.
    pub fn gre(self, protocol: u16, payload: &[u8]) -> Vec<u8> {
        let flags = [
            (self.checksum, CHECKSUM_BIT),
            (self.key.is_some(), KEY_BIT),
            (self.number.is_some(), SEQUENCE_BIT),
        ];
        let flags = flags.iter().filter(|(on, _)| *on).map(|(_, bit)| bit).sum();
        let words: Vec<u32> =
            [self.checksum.then_some(0), self.key, self.number].into_iter().flatten().collect();
        let mut bytes = gre(flags, protocol, &words, payload);
        if self.checksum {
            let checksum = internet_checksum(&bytes);
            bytes[4..6].copy_from_slice(&checksum.to_be_bytes());
        }
        bytes
    }
}

/// RFC 1071, half word by half word.
pub fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !sum as u16
}

/// The GRE header that a tunnel's packets come with, the first of them.
pub fn gre_of(tunnel: Spec, payload: &[u8]) -> Vec<u8> {
    Options::received(tunnel, 0).gre(0x0800, payload)
}

/// A packet that has come from a tunnel's remote, with any payload.
pub fn received(tunnel: Spec, gre: Vec<u8>) -> Packet {
    from_remote(tunnel.remote(), gre)
}

pub fn from_remote(remote: [u8; 4], gre: Vec<u8>) -> Packet {
    let header = ipv4(60, IpNumber::GRE, remote, LOCAL);
    Packet { header, payload: gre }
}

/// A frame from the WAN with an inner packet that has come through a tunnel.
pub fn through(tunnel: Spec, inner: &[u8]) -> Vec<u8> {
    from_wan(&received(tunnel, gre_of(tunnel, inner)).bytes())
}

/// The outer packet that a tunnel must make of `inner`, which is as it goes into the tunnel: with
/// the TTL that forwarding has left it. The rules once more, in other words than the programs'
/// (ip_tunnel_xmit; RFC 6040, 4.1, normal mode).
pub fn encapsulated(tunnel: Spec, inner: &Packet, identification: u16) -> Packet {
    numbered(tunnel, inner, identification, 0)
}

/// As the tunnel's packet of this number, if it numbers them.
pub fn numbered(tunnel: Spec, inner: &Packet, identification: u16, number: u32) -> Packet {
    let ttl = if tunnel.ttl == 0 { inner.header.time_to_live } else { tunnel.ttl };
    let mut header = ipv4(ttl, IpNumber::GRE, LOCAL, tunnel.remote());
    header.dscp = match tunnel.tos {
        1 => inner.header.dscp,
        fixed => (fixed >> 2).try_into().unwrap(),
    };
    header.ecn = inner.header.ecn;
    header.dont_fragment = tunnel.pmtudisc || inner.header.dont_fragment && !tunnel.ignore_df;
    header.identification = identification;
    let payload = Options::sent(tunnel, number).gre(0x0800, &inner.bytes());
    Packet { header, payload }
}

/// With other bytes in an IPv4 header, and the checksum to match.
pub fn patch(packet: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut packet = spoil(packet, at, bytes);
    packet[10..12].fill(0);
    let sum: u32 = packet[..IPV4]
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes(pair.try_into().expect("two bytes"))))
        .sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// With other bytes, and nothing else put right.
pub fn spoil(packet: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    packet
}
