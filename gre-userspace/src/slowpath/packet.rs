//! IP headers in byte slices, and the Internet checksum over bytes.

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;

pub const PROTOCOL_ICMP: u8 = 1;
pub const PROTOCOL_GRE: u8 = 47;
pub const PROTOCOL_ICMPV6: u8 = 58;
pub const FRAGMENT_HEADER: u8 = 44;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;

/// Every link carries IPv4 packets of this many bytes (RFC 791, 3.2).
pub const MIN_MTU_IPV4: u16 = 68;
/// Every link carries IPv6 packets of this many bytes (RFC 8200, 5).
pub const MIN_MTU_IPV6: u16 = 1280;

/// The EtherType of a frame and what follows it, behind up to two VLAN tags.
pub fn network_layer(frame: &[u8]) -> Option<(u16, &[u8])> {
    let mut at = 12;
    for _ in 0..2 {
        if !matches!(half(frame, at)?, ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN) {
            break;
        }
        at += 4;
    }
    Some((half(frame, at)?, &frame[at + 2..]))
}

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

/// An IPv6 packet (RFC 8200) of which at least the fixed header is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6<'a>(&'a [u8]);

/// What the headers of an IPv6 packet lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// The protocol behind the extension headers; [`FRAGMENT_HEADER`] ends the chain.
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

/// The packet behind an EtherType, without what Ethernet padded it with.
pub fn trimmed(ethertype: u16, packet: &[u8]) -> &[u8] {
    let inner = match ethertype {
        ETHERTYPE_IPV4 => Ipv4::whole(packet).map(Ipv4::bytes),
        ETHERTYPE_IPV6 => Ipv6::whole(packet).map(Ipv6::bytes),
        _ => None,
    };
    inner.unwrap_or(packet)
}

/// The checksum (RFC 1071) of the parts one after another, each but the last of an even length:
/// zero over what has a right one in it.
pub fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let mut sum = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (!(sum as u16)).to_be_bytes()
}

/// Writes the checksum of an IPv4 header into it.
pub fn seal_ipv4(header: &mut [u8]) {
    header[10..12].fill(0);
    let checksum = checksum(&[header]);
    header[10..12].copy_from_slice(&checksum);
}

/// A big-endian half word.
pub fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlan_tags_are_skipped_up_to_two() {
        let frame = |tags: &[[u8; 4]]| [&[0; 12][..], &tags.concat(), &[8, 0, 7]].concat();
        let (customer, service) = ([0x81, 0, 0, 5], [0x88, 0xa8, 0, 6]);
        for tags in [&[][..], &[customer], &[service, customer]] {
            assert_eq!(network_layer(&frame(tags)), Some((0x0800, &[7][..])));
        }
        assert_eq!(network_layer(&frame(&[customer; 3])).unwrap().0, 0x8100);
        assert_eq!(network_layer(&[0; 13]), None);
    }

    #[test]
    fn a_packet_that_is_cut_short_is_quoted_but_not_whole() {
        let mut packet = [0u8; 30];
        (packet[0], packet[3]) = (0x45, 28);
        assert_eq!(Ipv4::whole(&packet).unwrap().bytes(), &packet[..28]);
        assert!(Ipv4::whole(&packet[..27]).is_none() && Ipv4::quoted(&packet[..27]).is_some());
        assert!(Ipv4::quoted(&packet[..19]).is_none());
        packet[0] = 0x44;
        assert!(Ipv4::quoted(&packet).is_none(), "a header of 16 bytes");
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
    fn padding_is_trimmed_from_what_tells_its_length() {
        let mut packet = [0u8; 46];
        (packet[0], packet[3]) = (0x45, 28);
        assert_eq!(trimmed(ETHERTYPE_IPV4, &packet).len(), 28);
        assert_eq!(trimmed(0x8847, &packet).len(), 46);
        (packet[0], packet[5]) = (0x60, 2);
        assert_eq!(trimmed(ETHERTYPE_IPV6, &packet).len(), 42);
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

    #[test]
    fn the_checksum_is_that_of_the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&[&bytes[..4], &bytes[4..]]), (!0xddf2u16).to_be_bytes());
        assert_eq!(checksum(&[&[0x12]]), (!0x1200u16).to_be_bytes());
    }
}
