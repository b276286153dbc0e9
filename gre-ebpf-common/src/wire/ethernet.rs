//! Ethernet II (IEEE 802.3): destination, source, EtherType.

use network_types::eth::{EthHdr, EtherType};

/// Bytes.
pub const HEADER_LEN: usize = EthHdr::LEN;

/// EtherTypes in memory order, as they stand in a frame.
pub const ETHERTYPE_IPV4: u16 = EtherType::Ipv4 as u16;
pub const ETHERTYPE_IPV6: u16 = EtherType::Ipv6 as u16;

/// A header of 14 bytes, as seven half words in memory order.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EthernetHeader([u16; 7]);

impl EthernetHeader {
    pub fn from_bytes(bytes: [u8; HEADER_LEN]) -> Self {
        Self(core::array::from_fn(|i| u16::from_ne_bytes([bytes[2 * i], bytes[2 * i + 1]])))
    }

    /// The destination MAC address as three half words.
    #[inline(always)]
    pub const fn destination(&self) -> Mac {
        Mac([self.0[0], self.0[1], self.0[2]])
    }

    /// The source MAC address.
    #[inline(always)]
    pub const fn source(&self) -> Mac {
        Mac([self.0[3], self.0[4], self.0[5]])
    }

    /// Both addresses, in memory order.
    #[inline(always)]
    pub const fn addresses(&self) -> [u32; 3] {
        let [a, b, c, d, e, f, _] = self.0;
        [pair(a, b), pair(c, d), pair(e, f)]
    }

    /// All of it, in memory order.
    #[inline(always)]
    pub const fn words(&self) -> [u16; 7] {
        self.0
    }

    /// In memory order.
    #[inline(always)]
    pub const fn ethertype(&self) -> u16 {
        self.0[6]
    }
}

#[inline(always)]
const fn pair(first: u16, second: u16) -> u32 {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

/// A MAC address as three half words in memory order.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mac([u16; 3]);

impl Mac {
    pub const fn from_bytes(b: [u8; 6]) -> Self {
        Self([
            u16::from_ne_bytes([b[0], b[1]]),
            u16::from_ne_bytes([b[2], b[3]]),
            u16::from_ne_bytes([b[4], b[5]]),
        ])
    }

    /// In the low 48 bits of a word.
    #[inline(always)]
    pub const fn number(&self) -> u64 {
        self.first_word() as u64 | (self.0[2] as u64) << 32
    }

    #[inline(always)]
    pub const fn from_number(number: u64) -> Self {
        Self([number as u16, (number >> 16) as u16, (number >> 32) as u16])
    }

    /// Whether it is a group's: multicast, or broadcast.
    #[inline(always)]
    pub const fn is_group(&self) -> bool {
        self.0[0].to_ne_bytes()[0] & 1 != 0
    }

    #[inline(always)]
    pub const fn is_zero(&self) -> bool {
        self.0[0] | self.0[1] | self.0[2] == 0
    }

    /// Compares without a call: slices would go through `memcmp`.
    #[inline(always)]
    pub const fn is(&self, other: &Self) -> bool {
        self.first_word() == other.first_word() && self.0[2] == other.0[2]
    }

    /// The first two half words, which one load fetches.
    #[inline(always)]
    const fn first_word(&self) -> u32 {
        self.0[0] as u32 | (self.0[1] as u32) << 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_etherparse_puts_them() {
        let expected = etherparse::Ethernet2Header {
            destination: [2, 3, 4, 5, 6, 7],
            source: [8, 9, 10, 11, 12, 13],
            ether_type: etherparse::EtherType::IPV4,
        };
        let header = EthernetHeader::from_bytes(expected.to_bytes());
        assert!(header.destination().is(&Mac::from_bytes([2, 3, 4, 5, 6, 7])));
        assert!(header.source().is(&Mac::from_bytes([8, 9, 10, 11, 12, 13])));
        assert_eq!(header.ethertype(), ETHERTYPE_IPV4);
        let addresses = header.addresses().map(u32::to_ne_bytes);
        assert_eq!(addresses, [[2, 3, 4, 5], [6, 7, 8, 9], [10, 11, 12, 13]]);
    }

    #[test]
    fn ethertypes_are_in_memory_order() {
        assert_eq!(ETHERTYPE_IPV4.to_ne_bytes(), [0x08, 0x00]);
        assert_eq!(ETHERTYPE_IPV6.to_ne_bytes(), [0x86, 0xdd]);
    }

    #[test]
    fn groups_and_zero_are_told_from_stations() {
        let of = |first| Mac::from_bytes([first, 0, 0, 0, 0, 0]);
        assert!(of(1).is_group() && of(0xff).is_group() && !of(2).is_group());
        assert!(of(0).is_zero() && !of(2).is_zero());
    }

    #[test]
    fn one_differing_bit_makes_another_address() {
        let mac = [2, 3, 4, 5, 6, 7];
        for bit in 0..48 {
            let mut other = mac;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!Mac::from_bytes(mac).is(&Mac::from_bytes(other)), "bit {bit}");
            assert_eq!(Mac::from_number(Mac::from_bytes(other).number()), Mac::from_bytes(other));
        }
    }
}
