//! Ethernet II (IEEE 802.3): destination, source, EtherType.

use network_types::eth::{EthHdr, EtherType};

/// Bytes.
pub const HEADER_LEN: usize = EthHdr::LEN;

/// EtherTypes in memory order, as they stand in a frame.
pub const ETHERTYPE_IPV4: u16 = EtherType::Ipv4 as u16;
pub const ETHERTYPE_IPV6: u16 = EtherType::Ipv6 as u16;

/// Where the EtherType is in a frame, in bytes.
pub const ETHERTYPE_OFFSET: usize = 12;

/// A MAC address as three half words in memory order.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mac([u16; 3]);

impl Mac {
    pub const fn from_bytes(b: [u8; 6]) -> Self {
        Self([
            u16::from_ne_bytes([b[0], b[1]]),
            u16::from_ne_bytes([b[2], b[3]]),
            u16::from_ne_bytes([b[4], b[5]]),
        ])
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
    }

    #[test]
    fn ethertypes_are_in_memory_order() {
        assert_eq!(ETHERTYPE_IPV4.to_ne_bytes(), [0x08, 0x00]);
        assert_eq!(ETHERTYPE_IPV6.to_ne_bytes(), [0x86, 0xdd]);
    }

    #[test]
    fn one_differing_bit_makes_another_address() {
        let frame = [2, 3, 4, 5, 6, 7, 8, 9];
        for bit in 0..64 {
            let mut other = frame;
            other[bit / 8] ^= 1 << (bit % 8);
            let is_same = Mac::from_bytes([2, 3, 4, 5, 6, 7]).is_destination(start(&other));
            assert_eq!(is_same, bit >= 48, "bit {bit}");
        }
    }
}
