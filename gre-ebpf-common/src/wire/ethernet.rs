//! Ethernet II (IEEE 802.3): destination, source, EtherType.

use network_types::eth::{EthHdr, EtherType};

/// Bytes.
pub const HEADER_LEN: usize = EthHdr::LEN;

/// EtherTypes in memory order, as they stand in a frame.
pub const ETHERTYPE_IPV4: u16 = EtherType::Ipv4 as u16;
pub const ETHERTYPE_IPV6: u16 = EtherType::Ipv6 as u16;

/// Where the EtherType is in a frame, in bytes.
pub const ETHERTYPE_OFFSET: usize = 12;

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
        let [a, b, c] = self.0;
        a as u64 | (b as u64) << 16 | (c as u64) << 32
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
    pub const fn is_broadcast(&self) -> bool {
        self.0[0] & self.0[1] & self.0[2] == u16::MAX
    }

    #[inline(always)]
    pub const fn is_zero(&self) -> bool {
        self.0[0] | self.0[1] | self.0[2] == 0
    }

    /// Whether it is the destination of a frame that begins with these bytes, in memory order.
    #[inline(always)]
    pub const fn is_destination(&self, frame: u64) -> bool {
        let [a, b, c] = self.0;
        frame as u32 == a as u32 | (b as u32) << 16 && (frame >> 32) as u16 == c
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(frame: &[u8]) -> u64 {
        u64::from_ne_bytes(frame[..8].try_into().unwrap())
    }

    #[test]
    fn fields_are_where_etherparse_puts_them() {
        let frame = etherparse::Ethernet2Header {
            destination: [2, 3, 4, 5, 6, 7],
            source: [8, 9, 10, 11, 12, 13],
            ether_type: etherparse::EtherType::IPV4,
        }
        .to_bytes();
        assert!(Mac::from_bytes([2, 3, 4, 5, 6, 7]).is_destination(start(&frame)));
        let ethertype = [frame[ETHERTYPE_OFFSET], frame[ETHERTYPE_OFFSET + 1]];
        assert_eq!(u16::from_ne_bytes(ethertype), ETHERTYPE_IPV4);
        let header = EthernetHeader::from_bytes(frame);
        assert_eq!(header.destination(), Mac::from_bytes([2, 3, 4, 5, 6, 7]));
        assert_eq!(header.source(), Mac::from_bytes([8, 9, 10, 11, 12, 13]));
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
        let broadcast = Mac::from_bytes([0xff; 6]);
        assert!(broadcast.is_broadcast() && broadcast.is_group());
        for byte in 0..6 {
            let mut bytes = [0xff; 6];
            bytes[byte] = 0x7f;
            assert!(!Mac::from_bytes(bytes).is_broadcast());
        }
        assert!(of(0).is_zero() && !of(2).is_zero());
    }

    #[test]
    fn one_differing_bit_makes_another_address() {
        let frame = [2, 3, 4, 5, 6, 7, 8, 9];
        for bit in 0..64 {
            let mut other = frame;
            other[bit / 8] ^= 1 << (bit % 8);
            let is_same = Mac::from_bytes([2, 3, 4, 5, 6, 7]).is_destination(start(&other));
            assert_eq!(is_same, bit >= 48, "bit {bit}");
            let [a, b, c, d, e, f, ..] = other;
            let mac = Mac::from_bytes([a, b, c, d, e, f]);
            assert_eq!(Mac::from_number(mac.number()), mac);
        }
    }
}
