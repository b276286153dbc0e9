//! IPv4 (RFC 791).

use super::checksum;

/// An IPv4 packet (RFC 791) of which at least the header is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4<'a>(&'a [u8]);

impl<'a> Ipv4<'a> {
    /// The packet may end early, as it does in an ICMP error.
    pub fn quoted(bytes: &'a [u8]) -> Option<Self> {
        let packet = Self(bytes);
        let first = *bytes.first()?;
        (first >> 4 == 4 && first & 0xf >= 5 && bytes.len() >= packet.header_len())
            .then_some(packet)
    }

    /// The packet is all there; what is behind it, such as Ethernet's padding, is left out.
    pub fn whole(bytes: &'a [u8]) -> Option<Self> {
        let packet = Self::quoted(bytes)?;
        let len = usize::from(packet.total_len());
        (len >= packet.header_len() && len <= bytes.len()).then(|| Self(&bytes[..len]))
    }

    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    pub fn header(self) -> &'a [u8] {
        &self.0[..self.header_len()]
    }

    pub fn payload(self) -> &'a [u8] {
        &self.0[self.header_len()..]
    }

    pub fn header_len(self) -> usize {
        usize::from(self.0[0] & 0xf) * 4
    }

    pub fn tos(self) -> u8 {
        self.0[1]
    }

    pub fn total_len(self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    pub fn identification(self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    pub fn dont_fragment(self) -> bool {
        self.0[6] & 0x40 != 0
    }

    pub fn more_fragments(self) -> bool {
        self.0[6] & 0x20 != 0
    }

    /// Bytes of the whole packet's payload in front of this fragment's.
    pub fn fragment_offset(self) -> usize {
        usize::from(u16::from_be_bytes([self.0[6], self.0[7]]) & 0x1fff) * 8
    }

    pub fn is_fragment(self) -> bool {
        self.more_fragments() || self.fragment_offset() != 0
    }

    pub fn protocol(self) -> u8 {
        self.0[9]
    }

    pub fn source(self) -> [u8; 4] {
        self.0[12..16].try_into().expect("the header is there")
    }

    pub fn destination(self) -> [u8; 4] {
        self.0[16..20].try_into().expect("the header is there")
    }

    pub fn checksum_is_right(self) -> bool {
        checksum(&[self.header()]) == [0, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_that_is_cut_short_is_quoted_but_not_whole() {
        let mut packet = [0u8; 30];
        (packet[0], packet[3]) = (0x45, 28);
        assert_eq!(Ipv4::whole(&packet).unwrap().bytes(), &packet[..28]);
        assert!(Ipv4::whole(&packet[..27]).is_none() && Ipv4::quoted(&packet[..27]).is_some());
        assert!(Ipv4::quoted(&packet[..19]).is_none());
        packet[0] = 0x44;
        assert!(Ipv4::quoted(&packet).is_none(), "a header of 16 bytes");
    }
}
