//! GRE (RFC 2784) with key and sequence number (RFC 2890).
//!
//! ```text
//! |C|R|K|S|s|Recur|  Flags  | Ver |         Protocol Type         |
//! |      Checksum (optional)      |     Reserved1 (optional)      |
//! |                         Key (optional)                        |
//! |                   Sequence Number (optional)                  |
//! ```

use crate::outcome::Outcome;

/// Bytes of the part that is always there.
pub const BASE_LEN: usize = 4;
/// Bytes with checksum, key and sequence number.
pub const MAX_LEN: usize = 16;

/// Protocol types, host order. All but ERSPAN's, WCCP's and a keepalive's are EtherTypes.
pub const PROTOCOL_IPV4: u16 = 0x0800;
pub const PROTOCOL_IPV6: u16 = 0x86dd;
pub const PROTOCOL_MPLS: u16 = 0x8847;
/// A whole Ethernet frame (Transparent Ethernet Bridging).
pub const PROTOCOL_ETHERNET: u16 = 0x6558;
pub const PROTOCOL_WCCP: u16 = 0x883e;
pub const PROTOCOL_ERSPAN: u16 = 0x88be;
pub const PROTOCOL_ERSPAN_3: u16 = 0x22eb;
/// Of the empty packet that answers a Cisco keepalive.
pub const PROTOCOL_KEEPALIVE: u16 = 0;

// Bits of the first half word, host order.
pub const CHECKSUM: u16 = 0x8000;
const ROUTING: u16 = 0x4000;
pub const KEY: u16 = 0x2000;
pub const SEQUENCE: u16 = 0x1000;
/// Bits 4 and 5: strict source route and the top bit of Recur. RFC 2784, 2.3: "a receiver MUST
/// discard a packet where any of bits 1-5 are non-zero", K and S excepted by RFC 2890.
const RESERVED: u16 = 0x0c00;
const VERSION: u16 = 0x0007;

/// The four bytes that every GRE header starts with, one word in memory order.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GreBase(pub u32);

impl GreBase {
    pub const fn new(flags: u16, protocol: u16) -> Self {
        let (flags, protocol) = (flags.to_be_bytes(), protocol.to_be_bytes());
        Self(u32::from_ne_bytes([flags[0], flags[1], protocol[0], protocol[1]]))
    }

    /// C, R, K, S, s, Recur, Flags and Ver, host order.
    #[inline(always)]
    pub const fn flags(&self) -> u16 {
        let bytes = self.0.to_ne_bytes();
        u16::from_be_bytes([bytes[0], bytes[1]])
    }

    /// Host order.
    #[inline(always)]
    pub const fn protocol(&self) -> u16 {
        let bytes = self.0.to_ne_bytes();
        u16::from_be_bytes([bytes[2], bytes[3]])
    }

    /// Whether this is a version 0 header that may be looked into, by the first row of
    /// differences in the checklist: R apart from the other reserved bits.
    #[inline(always)]
    pub const fn validate(&self) -> Result<(), Outcome> {
        let flags = self.flags();
        match flags & VERSION {
            0 => {}
            1 => return Err(Outcome::Pptp),
            _ => return Err(Outcome::GreVersion),
        }
        if flags & ROUTING != 0 {
            return Err(Outcome::GreRouting);
        }
        if flags & RESERVED != 0 {
            return Err(Outcome::GreReserved);
        }
        Ok(())
    }

    /// This header with a protocol type in place of its own, host order.
    #[inline(always)]
    pub const fn with_protocol(&self, protocol: u16) -> Self {
        let [a, b, ..] = self.0.to_ne_bytes();
        let protocol = protocol.to_be_bytes();
        Self(u32::from_ne_bytes([a, b, protocol[0], protocol[1]]))
    }

    #[inline(always)]
    pub const fn has_checksum(&self) -> bool {
        self.flags() & CHECKSUM != 0
    }

    #[inline(always)]
    pub const fn has_key(&self) -> bool {
        self.flags() & KEY != 0
    }

    #[inline(always)]
    pub const fn has_sequence(&self) -> bool {
        self.flags() & SEQUENCE != 0
    }

    /// Offset of the key from the start of the header, in bytes, where there is one.
    #[inline(always)]
    pub const fn key_offset(&self) -> usize {
        BASE_LEN + if self.has_checksum() { 4 } else { 0 }
    }

    /// Offset of the sequence number from the start of the header, in bytes, where there is one.
    #[inline(always)]
    pub const fn sequence_offset(&self) -> usize {
        self.key_offset() + if self.has_key() { 4 } else { 0 }
    }

    /// Bytes of the whole header.
    #[inline(always)]
    pub const fn header_len(&self) -> usize {
        self.sequence_offset() + if self.has_sequence() { 4 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p3_the_length_counts_each_optional_word() {
        for flags in 0..16u16 {
            let base = GreBase::new(flags << 12, PROTOCOL_IPV4);
            let words = (flags >> 3 & 1) + (flags >> 1 & 1) + (flags & 1);
            assert_eq!(base.header_len(), 4 + 4 * words as usize, "flags {:#06x}", flags << 12);
            assert_eq!(base.key_offset(), 4 + 4 * (flags >> 3 & 1) as usize);
        }
    }

    #[test]
    fn p2_only_version_zero_is_ours() {
        for version in 0..8 {
            let base = GreBase::new(version, PROTOCOL_IPV4);
            let expected = match version {
                0 => Ok(()),
                1 => Err(Outcome::Pptp),
                _ => Err(Outcome::GreVersion),
            };
            assert_eq!(base.validate(), expected, "version {version}");
        }
    }

    #[test]
    fn rfc2784_1_each_reserved_bit_is_discarded_or_ignored() {
        // Bit 0 is the most significant.
        for bit in 0..13 {
            let base = GreBase::new(0x8000 >> bit, PROTOCOL_IPV4);
            let expected = match bit {
                1 => Err(Outcome::GreRouting),
                4 | 5 => Err(Outcome::GreReserved),
                _ => Ok(()),
            };
            assert_eq!(base.validate(), expected, "bit {bit}");
        }
    }

    #[test]
    fn the_base_is_in_network_order() {
        let base = GreBase::new(KEY, PROTOCOL_IPV4);
        assert_eq!(base.0.to_ne_bytes(), [0x20, 0, 0x08, 0]);
        assert_eq!(base.protocol(), PROTOCOL_IPV4);
        assert!(base.has_key() && !base.has_checksum() && !base.has_sequence());
    }
}
