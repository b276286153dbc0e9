//! IPv4 (RFC 791), headers without options.

use network_types::ip::{IpProto, Ipv4Hdr};

use crate::checksum;

/// Bytes of a header without options.
pub const HEADER_LEN: usize = Ipv4Hdr::LEN;
/// Bytes of a header with as many options as there can be.
pub const LONGEST: usize = 60;
pub const PROTOCOL_GRE: u8 = IpProto::Gre as u8;

/// Don't Fragment, in the word of flags and offset, host order.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// More Fragments and the offset: not zero in a fragment.
const FRAGMENT: u16 = 0x3fff;
/// The offset alone, in units of eight bytes: zero in a first fragment.
const OFFSET: u16 = 0x1fff;
/// More Fragments alone.
pub const MORE_FRAGMENTS: u16 = 0x2000;

/// A header of 20 bytes, as five words in memory order.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Header {
    pub words: [u32; 5],
}

impl Ipv4Header {
    pub fn from_bytes(bytes: [u8; HEADER_LEN]) -> Self {
        Self {
            words: core::array::from_fn(|i| {
                u32::from_ne_bytes([
                    bytes[4 * i],
                    bytes[4 * i + 1],
                    bytes[4 * i + 2],
                    bytes[4 * i + 3],
                ])
            }),
        }
    }

    #[inline(always)]
    const fn byte(&self, index: usize) -> u8 {
        self.words[index / 4].to_ne_bytes()[index % 4]
    }

    #[inline(always)]
    const fn half(&self, index: usize) -> u16 {
        u16::from_be_bytes([self.byte(index), self.byte(index + 1)])
    }

    /// Version 4 and a header of exactly 20 bytes.
    #[inline(always)]
    pub const fn is_plain(&self) -> bool {
        self.byte(0) == 0x45
    }

    #[inline(always)]
    pub const fn version(&self) -> u8 {
        self.byte(0) >> 4
    }

    /// Bytes.
    #[inline(always)]
    pub const fn header_len(&self) -> usize {
        (self.byte(0) & 0xf) as usize * 4
    }

    #[inline(always)]
    pub const fn tos(&self) -> u8 {
        self.byte(1)
    }

    /// Bytes, header included.
    #[inline(always)]
    pub const fn total_len(&self) -> u16 {
        self.half(2)
    }

    #[inline(always)]
    pub const fn is_fragment(&self) -> bool {
        self.half(6) & FRAGMENT != 0
    }

    /// A fragment but the first: what follows the header is no transport header.
    #[inline(always)]
    pub const fn is_later_fragment(&self) -> bool {
        self.half(6) & OFFSET != 0
    }

    #[inline(always)]
    pub const fn more_fragments(&self) -> bool {
        self.half(6) & MORE_FRAGMENTS != 0
    }

    /// Where a fragment's payload belongs, in bytes.
    #[inline(always)]
    pub const fn fragment_offset(&self) -> u16 {
        (self.half(6) & OFFSET) << 3
    }

    /// In memory order.
    #[inline(always)]
    pub const fn identification(&self) -> u16 {
        u16::from_ne_bytes([self.byte(4), self.byte(5)])
    }

    #[inline(always)]
    pub const fn dont_fragment(&self) -> bool {
        self.half(6) & DONT_FRAGMENT != 0
    }

    #[inline(always)]
    pub const fn ttl(&self) -> u8 {
        self.byte(8)
    }

    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        self.byte(9)
    }

    /// In memory order.
    #[inline(always)]
    pub const fn source(&self) -> u32 {
        self.words[3]
    }

    /// In memory order.
    #[inline(always)]
    pub const fn destination(&self) -> u32 {
        self.words[4]
    }

    /// RFC 1812, 5.2.2: a router must not forward what fails this.
    #[inline(always)]
    pub const fn checksum_is_right(&self) -> bool {
        checksum::sum_ipv4(&self.words) == 0xffff
    }

    /// The third word (TTL, protocol, checksum) with the TTL one less and the checksum to match
    /// (RFC 1141). The TTL must not be zero.
    #[inline(always)]
    pub const fn decremented_ttl(&self) -> u32 {
        let [ttl, protocol, checksum @ ..] = self.words[2].to_ne_bytes();
        // The TTL is the first byte of its half word. 0xffff is zero, and written so: as where the
        // kernel does this (ip_decrease_ttl), and by RFC 1624.
        let sum = u16::from_ne_bytes(checksum) as u32 + u16::from_ne_bytes([1, 0]) as u32;
        let checksum = ((sum + (sum >= 0xffff) as u32) as u16).to_ne_bytes();
        u32::from_ne_bytes([ttl.wrapping_sub(1), protocol, checksum[0], checksum[1]])
    }

    /// With another TOS, and the checksum to match.
    #[inline(always)]
    pub const fn with_tos(mut self, tos: u8) -> Self {
        let [version, _, len @ ..] = self.words[0].to_ne_bytes();
        let first = u32::from_ne_bytes([version, tos, len[0], len[1]]);
        let [ttl, protocol, checksum @ ..] = self.words[2].to_ne_bytes();
        let checksum =
            checksum::replace(u16::from_ne_bytes(checksum), self.words[0], first).to_ne_bytes();
        self.words[0] = first;
        self.words[2] = u32::from_ne_bytes([ttl, protocol, checksum[0], checksum[1]]);
        self
    }

    /// With another length and another word of flags and offset, both in host order, and the checksum
    /// to match.
    #[inline(always)]
    pub const fn cut(mut self, len: u16, fragment: u16) -> Self {
        let [version, tos, ..] = self.words[0].to_ne_bytes();
        let [high, low] = len.to_be_bytes();
        self.words[0] = u32::from_ne_bytes([version, tos, high, low]);
        let [a, b, ..] = self.words[1].to_ne_bytes();
        let [high, low] = fragment.to_be_bytes();
        self.words[1] = u32::from_ne_bytes([a, b, high, low]);
        let [ttl, protocol, ..] = self.words[2].to_ne_bytes();
        self.words[2] = u32::from_ne_bytes([ttl, protocol, 0, 0]);
        let [high, low] = (!checksum::sum_ipv4(&self.words)).to_ne_bytes();
        self.words[2] = u32::from_ne_bytes([ttl, protocol, high, low]);
        self
    }

    /// A source address that no router forwards (RFC 1812, 5.3.7): 0/8, 127/8, multicast,
    /// reserved, broadcast.
    #[inline(always)]
    pub const fn source_is_martian(&self) -> bool {
        is_martian(self.byte(12))
    }

    /// A destination that is never a unicast host elsewhere: 0/8, 127/8, multicast and above.
    #[inline(always)]
    pub const fn destination_is_unicast(&self) -> bool {
        !is_martian(self.byte(16))
    }
}

/// By the first byte of an address. Of 0 one less is above all others.
#[inline(always)]
const fn is_martian(first: u8) -> bool {
    first.wrapping_sub(1) >= 223 || first == 127
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{IpNumber, Ipv4Header as Reference};
    use proptest::prelude::*;

    fn reference() -> impl Strategy<Value = Reference> {
        (any::<[u8; 4]>(), any::<[u8; 4]>(), any::<(u8, u16, u8, u16, bool, bool, u16)>()).prop_map(
            |(source, destination, (tos, len, ttl, id, dont_fragment, more_fragments, offset))| {
                let mut header =
                    Reference::new(len % 1480, ttl, IpNumber::GRE, source, destination).unwrap();
                header.dscp = (tos >> 2).try_into().unwrap();
                header.ecn = (tos & 3).try_into().unwrap();
                header.identification = id;
                header.dont_fragment = dont_fragment;
                header.more_fragments = more_fragments;
                header.fragment_offset = (offset & 0x1fff).try_into().unwrap();
                header.header_checksum = header.calc_header_checksum();
                header
            },
        )
    }

    fn bytes(reference: &Reference) -> [u8; HEADER_LEN] {
        reference.to_bytes()[..].try_into().unwrap()
    }

    proptest! {
        #[test]
        fn fields_are_where_etherparse_puts_them(reference in reference()) {
            let header = Ipv4Header::from_bytes(bytes(&reference));
            prop_assert!(header.is_plain() && header.checksum_is_right());
            prop_assert_eq!((header.version(), header.header_len()), (4, 20));
            prop_assert_eq!(header.tos(), reference.dscp.value() << 2 | reference.ecn.value());
            prop_assert_eq!(header.total_len(), reference.total_len);
            prop_assert_eq!(header.is_fragment(), reference.is_fragmenting_payload());
            prop_assert_eq!(header.is_later_fragment(), reference.fragment_offset.value() != 0);
            prop_assert_eq!(header.dont_fragment(), reference.dont_fragment);
            prop_assert_eq!(header.ttl(), reference.time_to_live);
            prop_assert_eq!(header.protocol(), PROTOCOL_GRE);
            prop_assert_eq!(header.source().to_ne_bytes(), reference.source);
            prop_assert_eq!(header.destination().to_ne_bytes(), reference.destination);
        }

        #[test]
        fn one_wrong_bit_is_a_wrong_checksum(reference in reference(), bit in 0usize..160) {
            let mut bytes = bytes(&reference);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!Ipv4Header::from_bytes(bytes).checksum_is_right());
        }

        #[test]
        fn another_tos_keeps_the_checksum_right(reference in reference(), tos: u8) {
            let header = Ipv4Header::from_bytes(bytes(&reference)).with_tos(tos);
            prop_assert_eq!(header.tos(), tos);
            prop_assert!(header.checksum_is_right());
        }

        #[test]
        fn decrementing_the_ttl_keeps_the_checksum_right(reference in reference()) {
            prop_assume!(reference.time_to_live > 0);
            let mut header = Ipv4Header::from_bytes(bytes(&reference));
            header.words[2] = header.decremented_ttl();
            prop_assert_eq!(header.ttl(), reference.time_to_live - 1);
            prop_assert!(header.checksum_is_right());
        }
    }

    #[test]
    fn martian_sources_and_unicast_destinations_follow_rfc_1812() {
        for (first, martian) in [
            (0, true),
            (1, false),
            (10, false),
            (127, true),
            (223, false),
            (224, true),
            (255, true),
        ] {
            let mut bytes = [0; HEADER_LEN];
            bytes[12] = first;
            bytes[16] = first;
            let header = Ipv4Header::from_bytes(bytes);
            assert_eq!(header.source_is_martian(), martian, "{first}/8");
            assert_eq!(header.destination_is_unicast(), !martian, "{first}/8");
        }
    }
}
