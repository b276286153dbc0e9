//! IP headers in packets: where they lead, and how they are changed.

use gre_ebpf_common::{
    decapsulate::Payloads,
    group, limit, port,
    route::Entry,
    tunnel,
    wire::{
        ip::Ip,
        ipv4::Ipv4Header,
        ipv6::{Ipv6Header, NEXT_HEADER_HOP_BY_HOP},
    },
};

use crate::{
    forward,
    packet::{Packet, Plain},
    tunnels,
};

/// A header of either version, as the programs handle it.
pub trait Header: Payloads + Plain {
    /// Whether the fast path may forward the packet: its header is plain, it may cross a router, and
    /// lives on after that.
    fn may_be_forwarded(&self) -> bool;
    fn destination_is_unicast(&self) -> bool;
    /// Whether there are options that every router has to look at.
    fn has_options(&self) -> bool;
    /// Whether a router may forward between its addresses.
    fn is_routable(&self) -> bool;
    /// Whether its source is this IPv6 address, which is in memory order.
    fn is_from6(&self, address: &[u32; 4]) -> bool;
    /// Whether it may bring an encapsulation limit along, as far as this header tells.
    fn may_be_limited(&self) -> bool;
    fn route(&self) -> Entry;
    fn reverse_route(&self) -> Entry;
    /// The hash by which the packets of a flow take one of several next hops.
    fn flow(&self, seed: u32) -> u32;
    /// Whether forwarding of this version is on where packets come in.
    fn port_forwards(flags: port::Flags) -> bool;
    fn tunnel_forwards(flags: tunnel::Flags) -> bool;
    /// Where the transport header is, from the start of this one; none behind what is not looked at.
    fn transport_offset(&self) -> usize;
    /// Whether the transport header is in another packet.
    fn is_later_fragment(&self) -> bool;
    /// Writes TTL and DS field into the packet whose header is at `offset`.
    fn write_back(&self, packet: &Packet, offset: usize) -> Option<()>;
    /// Writes the TTL alone.
    fn write_ttl(&self, packet: &Packet, offset: usize) -> Option<()>;
    /// Whether rp_filter applies: there is none for IPv6.
    const HAS_REVERSE_PATH: bool;
    /// Which of a tunnel's segment sizes is this version's.
    const MSS_INDEX: usize;
}

impl Header for Ipv4Header {
    const HAS_REVERSE_PATH: bool = true;
    const MSS_INDEX: usize = 0;

    #[inline(always)]
    fn may_be_forwarded(&self) -> bool {
        self.is_plain() && Ip::ttl(self) > 1 && Self::destination_is_unicast(self)
    }

    #[inline(always)]
    fn has_options(&self) -> bool {
        !self.is_plain()
    }

    #[inline(always)]
    fn destination_is_unicast(&self) -> bool {
        Self::destination_is_unicast(self)
    }

    #[inline(always)]
    fn is_routable(&self) -> bool {
        Self::destination_is_unicast(self) && !self.source_is_martian()
    }

    #[inline(always)]
    fn is_from6(&self, _: &[u32; 4]) -> bool {
        false
    }

    #[inline(always)]
    fn may_be_limited(&self) -> bool {
        false
    }

    #[inline(always)]
    fn route(&self) -> Entry {
        forward::route4(self.destination())
    }

    #[inline(always)]
    fn reverse_route(&self) -> Entry {
        forward::route4(self.source())
    }

    #[inline(always)]
    fn flow(&self, seed: u32) -> u32 {
        group::hash4(seed, self.source(), self.destination())
    }

    #[inline(always)]
    fn port_forwards(flags: port::Flags) -> bool {
        flags.has(port::Flags::FORWARDING)
    }

    #[inline(always)]
    fn tunnel_forwards(flags: tunnel::Flags) -> bool {
        flags.has(tunnel::Flags::FORWARDING)
    }

    #[inline(always)]
    fn transport_offset(&self) -> usize {
        self.header_len()
    }

    #[inline(always)]
    fn is_later_fragment(&self) -> bool {
        Self::is_later_fragment(self)
    }

    #[inline(always)]
    fn write_back(&self, packet: &Packet, offset: usize) -> Option<()> {
        packet.write(offset, [self.words[0]])?;
        self.write_ttl(packet, offset)
    }

    #[inline(always)]
    fn write_ttl(&self, packet: &Packet, offset: usize) -> Option<()> {
        packet.write(offset + 8, [self.words[2]])
    }
}

impl Header for Ipv6Header {
    const HAS_REVERSE_PATH: bool = false;
    const MSS_INDEX: usize = 1;

    #[inline(always)]
    fn may_be_forwarded(&self) -> bool {
        !self.has_options() && self.hop_limit() > 1 && self.is_routable()
    }

    #[inline(always)]
    fn has_options(&self) -> bool {
        self.next_header() == NEXT_HEADER_HOP_BY_HOP
    }

    #[inline(always)]
    fn destination_is_unicast(&self) -> bool {
        self.is_routable()
    }

    #[inline(always)]
    fn is_routable(&self) -> bool {
        Self::is_routable(self)
    }

    #[inline(always)]
    fn is_from6(&self, address: &[u32; 4]) -> bool {
        tunnels::is_same(&self.source(), address)
    }

    #[inline(always)]
    fn may_be_limited(&self) -> bool {
        limit::Search::may_find(self.next_header())
    }

    #[inline(always)]
    fn route(&self) -> Entry {
        forward::route6(&self.destination())
    }

    #[inline(always)]
    fn reverse_route(&self) -> Entry {
        forward::route6(&self.source())
    }

    #[inline(always)]
    fn flow(&self, seed: u32) -> u32 {
        group::hash6(seed, self.flow_label(), &self.source(), &self.destination())
    }

    #[inline(always)]
    fn port_forwards(flags: port::Flags) -> bool {
        flags.has(port::Flags::FORWARDING6)
    }

    #[inline(always)]
    fn tunnel_forwards(flags: tunnel::Flags) -> bool {
        flags.has(tunnel::Flags::FORWARDING6)
    }

    #[inline(always)]
    fn transport_offset(&self) -> usize {
        Self::HEADER_LEN
    }

    /// With a fragment header no transport protocol is seen.
    #[inline(always)]
    fn is_later_fragment(&self) -> bool {
        false
    }

    #[inline(always)]
    fn write_back(&self, packet: &Packet, offset: usize) -> Option<()> {
        packet.write(offset, [self.words[0], self.words[1]])
    }

    #[inline(always)]
    fn write_ttl(&self, packet: &Packet, offset: usize) -> Option<()> {
        packet.write(offset + 4, [self.words[1]])
    }
}
