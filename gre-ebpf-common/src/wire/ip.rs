//! What tunnels need to know of an IP packet, whatever its version.

use network_types::ip::IpProto;

use crate::wire::{
    ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    ipv4::{self, Ipv4Header},
    ipv6::{self, Ipv6Header},
};

pub const PROTOCOL_TCP: u8 = IpProto::Tcp as u8;

/// A header of either version that is whole and right, as far as the header itself tells.
pub trait Ip: Copy {
    /// In memory order.
    const ETHERTYPE: u16;
    /// Bytes of the part that is always there.
    const HEADER_LEN: usize;

    /// Bytes of the packet, this header included.
    fn total_len(&self) -> u32;
    /// TOS or traffic class.
    fn dsfield(&self) -> u8;
    /// TTL or hop limit.
    fn ttl(&self) -> u8;
    fn dont_fragment(&self) -> bool;
    /// 20 bits, host order; 0 for IPv4.
    fn flow_label(&self) -> u32;
    /// Protocol or next header.
    fn protocol(&self) -> u8;
    /// One less to live (RFC 1812, 5.3.1; RFC 8200, 3). It must not be zero.
    fn forwarded(self) -> Self;
    fn with_dsfield(self, dsfield: u8) -> Self;
}

impl Ip for Ipv4Header {
    const ETHERTYPE: u16 = ETHERTYPE_IPV4;
    const HEADER_LEN: usize = ipv4::HEADER_LEN;

    #[inline(always)]
    fn total_len(&self) -> u32 {
        Ipv4Header::total_len(self).into()
    }

    #[inline(always)]
    fn dsfield(&self) -> u8 {
        self.tos()
    }

    #[inline(always)]
    fn ttl(&self) -> u8 {
        Ipv4Header::ttl(self)
    }

    #[inline(always)]
    fn dont_fragment(&self) -> bool {
        Ipv4Header::dont_fragment(self)
    }

    #[inline(always)]
    fn flow_label(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        Ipv4Header::protocol(self)
    }

    #[inline(always)]
    fn forwarded(mut self) -> Self {
        self.words[2] = self.decremented_ttl();
        self
    }

    #[inline(always)]
    fn with_dsfield(self, dsfield: u8) -> Self {
        self.with_tos(dsfield)
    }
}

impl Ip for Ipv6Header {
    const ETHERTYPE: u16 = ETHERTYPE_IPV6;
    const HEADER_LEN: usize = ipv6::HEADER_LEN;

    #[inline(always)]
    fn total_len(&self) -> u32 {
        self.payload_len() as u32 + ipv6::HEADER_LEN as u32
    }

    #[inline(always)]
    fn dsfield(&self) -> u8 {
        self.traffic_class()
    }

    #[inline(always)]
    fn ttl(&self) -> u8 {
        self.hop_limit()
    }

    /// No router fragments IPv6, but the tunnel may fragment its own packet (RFC 2473, 7.1): the
    /// kernel does not set Don't Fragment outside on account of IPv6 inside.
    #[inline(always)]
    fn dont_fragment(&self) -> bool {
        false
    }

    #[inline(always)]
    fn flow_label(&self) -> u32 {
        Ipv6Header::flow_label(self)
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.next_header()
    }

    #[inline(always)]
    fn forwarded(self) -> Self {
        self.with_hop_limit(self.hop_limit().wrapping_sub(1))
    }

    #[inline(always)]
    fn with_dsfield(self, dsfield: u8) -> Self {
        self.with_traffic_class(dsfield)
    }
}
