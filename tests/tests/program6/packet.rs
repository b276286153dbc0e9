//! IP packets of either version, built with etherparse and independent of xgre's own header code.

use std::net::IpAddr;

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header};

use crate::world::{Family, Spec};

pub const UDP: u8 = 17;
pub const GRE: u8 = 47;

/// An IP packet. Lengths and checksums are worked out when it becomes bytes.
#[derive(Debug, Clone)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Protocol, or next header.
    pub protocol: u8,
    /// TTL, or hop limit.
    pub ttl: u8,
    /// TOS, or traffic class.
    pub tos: u8,
    /// Of IPv6 only.
    pub flow_label: u32,
    /// Of IPv4 only, as are the next two.
    pub dont_fragment: bool,
    pub more_fragments: bool,
    pub identification: u16,
    pub payload: Vec<u8>,
}

impl Packet {
    /// 72 bytes in all, with a TTL of 64, that claim to be UDP.
    pub fn new(source: IpAddr, destination: IpAddr) -> Self {
        let family = if source.is_ipv4() { Family::V4 } else { Family::V6 };
        Self {
            source,
            destination,
            protocol: UDP,
            ttl: 64,
            tos: 0,
            flow_label: 0,
            dont_fragment: false,
            more_fragments: false,
            identification: 0,
            payload: (0..72 - family.header_len() as u8).collect(),
        }
    }

    pub fn family(&self) -> Family {
        if self.source.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Of this many bytes in all.
    pub fn long(mut self, bytes: usize) -> Self {
        self.payload.resize(bytes - self.family().header_len(), 0xa5);
        self
    }

    /// As the next router sends it.
    pub fn forwarded(&self) -> Self {
        self.clone().with(|packet| packet.ttl -= 1)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let header = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = Ipv4Header {
                    dscp: (self.tos >> 2).try_into().unwrap(),
                    ecn: (self.tos & 3).try_into().unwrap(),
                    total_len: (20 + self.payload.len()) as u16,
                    identification: self.identification,
                    dont_fragment: self.dont_fragment,
                    more_fragments: self.more_fragments,
                    fragment_offset: IpFragOffset::ZERO,
                    time_to_live: self.ttl,
                    protocol: IpNumber(self.protocol),
                    header_checksum: 0,
                    source: source.octets(),
                    destination: destination.octets(),
                    options: [].into(),
                };
                header.header_checksum = header.calc_header_checksum();
                header.to_bytes().to_vec()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => Ipv6Header {
                traffic_class: self.tos,
                flow_label: Ipv6FlowLabel::try_new(self.flow_label).unwrap(),
                payload_length: self.payload.len() as u16,
                next_header: IpNumber(self.protocol),
                hop_limit: self.ttl,
                source: source.octets(),
                destination: destination.octets(),
            }
            .to_bytes()
            .to_vec(),
            (source, destination) => panic!("from {source} to {destination}"),
        };
        [&header[..], &self.payload].concat()
    }
}

/// A packet from the HOST, behind the LAN, to one behind a tunnel.
pub fn outbound(inside: Family, tunnel: Spec) -> Packet {
    Packet::new(inside.host(), tunnel.beyond(inside))
}

/// A packet to the HOST from one behind a tunnel.
pub fn inbound(inside: Family, tunnel: Spec) -> Packet {
    Packet::new(tunnel.beyond(inside), inside.host())
}

/// A packet to the gateway's own address in the LAN from one behind a tunnel.
pub fn to_gateway(inside: Family, tunnel: Spec) -> Packet {
    Packet::new(tunnel.beyond(inside), inside.lan_address())
}

/// With other bytes in it, and an IPv4 header's checksum put right.
pub fn patch(packet: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut packet = spoil(packet, at, bytes);
    if packet.len() >= 20 && packet[0] >> 4 == 4 {
        packet[10..12].fill(0);
        let checksum = sum(&packet[..20]);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    packet
}

/// With other bytes, and nothing else put right.
pub fn spoil(packet: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    packet
}

/// The Internet checksum (RFC 1071), of an odd length as if a zero followed.
pub fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u64 = bytes
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
