//! IPv6 (RFC 8200) with its extension headers.

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;

/// An IPv6 packet (RFC 8200) of which at least the fixed header is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6<'a>(&'a [u8]);

/// What the headers of an IPv6 packet lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// The protocol behind the extension headers; [`super::FRAGMENT_HEADER`] ends the chain.
    pub protocol: u8,
    /// Where its header starts.
    pub at: usize,
    /// Where the byte is that names it.
    pub named_at: usize,
}

impl<'a> Ipv6<'a> {
    pub const HEADER_LEN: usize = 40;

    /// The packet may end early, as it does in an ICMP error.
    pub fn quoted(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() >= Self::HEADER_LEN && bytes[0] >> 4 == 6).then_some(Self(bytes))
    }

    /// The packet is all there; what is behind it, such as Ethernet's padding, is left out.
    pub fn whole(bytes: &'a [u8]) -> Option<Self> {
        let packet = Self::quoted(bytes)?;
        let len = Self::HEADER_LEN + usize::from(packet.payload_len());
        // A length of zero with something in it is that of a packet over 64 KiB.
        let jumbo = packet.payload_len() == 0 && bytes[6] != NO_NEXT_HEADER;
        (!jumbo && len <= bytes.len()).then(|| Self(&bytes[..len]))
    }

    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    pub fn traffic_class(self) -> u8 {
        self.0[0] << 4 | self.0[1] >> 4
    }

    pub fn payload_len(self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    pub fn source(self) -> [u8; 16] {
        self.0[8..24].try_into().expect("the header is there")
    }

    pub fn destination(self) -> [u8; 16] {
        self.0[24..40].try_into().expect("the header is there")
    }

    /// Walks over hop-by-hop options, destination options and routing headers: the part that every
    /// fragment repeats, as the kernel cuts it (ip6_find_1stfragopt), so that each carries the
    /// tunnel encapsulation limit. A routing header that leads on to another node ends the chain.
    /// `None` where the packet ends in between.
    pub fn chain(self) -> Option<Chain> {
        let mut chain = Chain { protocol: self.0[6], at: Self::HEADER_LEN, named_at: 6 };
        while matches!(chain.protocol, HOP_BY_HOP | DESTINATION_OPTIONS | ROUTING) {
            let [next, len, _, segments_left] = *self.0.get(chain.at..chain.at + 4)? else {
                return None;
            };
            if chain.protocol == ROUTING && segments_left > 0 {
                break;
            }
            let end = chain.at + 8 + 8 * usize::from(len);
            chain = Chain { protocol: next, at: end, named_at: chain.at };
        }
        (chain.at <= self.0.len()).then_some(chain)
    }
}

/// A Fragment header (RFC 8200, 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentHeader {
    pub protocol: u8,
    /// Bytes.
    pub offset: usize,
    pub more: bool,
    pub identification: u32,
}

impl FragmentHeader {
    pub const LEN: usize = 8;

    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..Self::LEN)?;
        let offset = u16::from_be_bytes([bytes[2], bytes[3]]);
        Some(Self {
            protocol: bytes[0],
            offset: usize::from(offset & 0xfff8),
            more: offset & 1 != 0,
            identification: u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
    }

    /// The offset must be below 65,536.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let [a, b] = (self.offset as u16 | u16::from(self.more)).to_be_bytes();
        let [c, d, e, f] = self.identification.to_be_bytes();
        [self.protocol, 0, a, b, c, d, e, f]
    }
}

#[cfg(test)]
mod tests {
    use super::{super::PROTOCOL_GRE, *};

    #[test]
    fn a_packet_that_is_cut_short_is_quoted_but_not_whole() {
        let mut packet = [0u8; 50];
        (packet[0], packet[5]) = (0x60, 8);
        assert_eq!(Ipv6::whole(&packet).unwrap().bytes(), &packet[..48]);
        assert!(Ipv6::whole(&packet[..47]).is_none() && Ipv6::quoted(&packet[..40]).is_some());
        (packet[5], packet[6]) = (0, 6);
        assert!(Ipv6::whole(&packet).is_none(), "TCP of more than 64 KiB");
        packet[6] = NO_NEXT_HEADER;
        assert_eq!(Ipv6::whole(&packet).unwrap().bytes(), &packet[..40]);
    }

    #[test]
    fn the_chain_ends_at_what_is_no_option_and_never_behind_the_packet() {
        let mut packet = vec![0u8; 64];
        (packet[0], packet[6]) = (0x60, DESTINATION_OPTIONS);
        (packet[40], packet[41]) = (PROTOCOL_GRE, 1);
        let chain = Chain { protocol: PROTOCOL_GRE, at: 56, named_at: 40 };
        assert_eq!(Ipv6::quoted(&packet).unwrap().chain(), Some(chain));
        assert_eq!(Ipv6::quoted(&packet[..55]).unwrap().chain(), None);
        packet[6] = ROUTING;
        assert_eq!(Ipv6::quoted(&packet).unwrap().chain(), Some(chain));
        packet[43] = 1;
        let elsewhere = Chain { protocol: ROUTING, at: 40, named_at: 6 };
        assert_eq!(Ipv6::quoted(&packet).unwrap().chain(), Some(elsewhere));
    }
}
