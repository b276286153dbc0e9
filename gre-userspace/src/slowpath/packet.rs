//! IP headers in byte slices, and the Internet checksum over bytes.

mod ipv4;
mod ipv6;

pub use self::{
    ipv4::Ipv4,
    ipv6::{Chain, FragmentHeader, Ipv6},
};

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Of a frame within a packet (RFC 7637, 3.2).
pub const ETHERTYPE_ETHERNET: u16 = 0x6558;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;

pub const PROTOCOL_ICMP: u8 = 1;
pub const PROTOCOL_GRE: u8 = 47;
pub const PROTOCOL_ICMPV6: u8 = 58;
pub const FRAGMENT_HEADER: u8 = 44;

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
    fn padding_is_trimmed_from_what_tells_its_length() {
        let mut packet = [0u8; 46];
        (packet[0], packet[3]) = (0x45, 28);
        assert_eq!(trimmed(ETHERTYPE_IPV4, &packet).len(), 28);
        assert_eq!(trimmed(0x8847, &packet).len(), 46);
        (packet[0], packet[5]) = (0x60, 2);
        assert_eq!(trimmed(ETHERTYPE_IPV6, &packet).len(), 42);
    }

    #[test]
    fn the_checksum_is_that_of_the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&[&bytes[..4], &bytes[4..]]), (!0xddf2u16).to_be_bytes());
        assert_eq!(checksum(&[&[0x12]]), (!0x1200u16).to_be_bytes());
    }
}
