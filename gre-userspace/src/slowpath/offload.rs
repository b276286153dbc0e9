//! Checksums that the kernel left to a device: what a program hands up from the tunnel's device may
//! be a local socket's, of which TCP or UDP has summed the pseudo header alone (CHECKSUM_PARTIAL).

use super::packet::{Ipv4, Ipv6, checksum};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Completes the checksum of a whole IP packet's TCP or UDP, where it is nothing but the sum of the
/// pseudo header. Fragments have none left to complete.
pub fn complete_checksum(packet: &mut [u8]) {
    let Some((protocol, at, pseudo_header)) = transport(packet) else { return };
    let field = at + if protocol == TCP { 16 } else { 6 };
    let Some(found) = packet.get(field..field + 2) else { return };
    // The complement of the complement: the plain sum.
    let partial = checksum(&[&pseudo_header]).map(|byte| !byte);
    if found != partial || checksum(&[&pseudo_header, &packet[at..]]) == [0, 0] {
        return;
    }
    packet[field..field + 2].fill(0);
    let mut sum = checksum(&[&pseudo_header, &packet[at..]]);
    // Zero would mean that UDP has none (RFC 768).
    if sum == [0, 0] {
        sum = [0xff, 0xff];
    }
    packet[field..field + 2].copy_from_slice(&sum);
}

/// Protocol, where its header starts, and the pseudo header (RFC 9293, 3.1; RFC 8200, 8.1).
fn transport(packet: &[u8]) -> Option<(u8, usize, Vec<u8>)> {
    let (protocol, at, addresses) = if let Some(packet) = Ipv4::whole(packet) {
        let addresses = [packet.source(), packet.destination()].concat();
        (!packet.is_fragment()).then_some((packet.protocol(), packet.header_len(), addresses))?
    } else {
        let packet = Ipv6::whole(packet)?;
        let chain = packet.chain()?;
        (chain.protocol, chain.at, [packet.source(), packet.destination()].concat())
    };
    let len = (packet.len() - at) as u32;
    matches!(protocol, TCP | UDP).then(|| {
        let pseudo_header = [&addresses[..], &len.to_be_bytes(), &[0, 0, 0, protocol]].concat();
        (protocol, at, pseudo_header)
    })
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    /// TCP and UDP over both families, with where the checksum is.
    fn packets() -> [(Vec<u8>, usize); 4] {
        let v4 = || PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9);
        let v6 = || PacketBuilder::ipv6([0xfd; 16], [0xfe; 16], 9);
        let payload = [1, 2, 3];
        let mut packets = [const { Vec::new() }; 4];
        v4().udp(1, 2).write(&mut packets[0], &payload).unwrap();
        v4().tcp(1, 2, 3, 4).write(&mut packets[1], &payload).unwrap();
        v6().udp(1, 2).write(&mut packets[2], &payload).unwrap();
        v6().tcp(1, 2, 3, 4).write(&mut packets[3], &payload).unwrap();
        let mut fields = [26, 36, 46, 56].into_iter();
        packets.map(|packet| (packet, fields.next().unwrap()))
    }

    #[test]
    fn a_partial_checksum_is_completed_as_etherparse_does() {
        for (expected, field) in packets() {
            let mut packet = expected.clone();
            let (_, _, pseudo_header) = transport(&packet).unwrap();
            let partial = checksum(&[&pseudo_header]).map(|byte| !byte);
            packet[field..field + 2].copy_from_slice(&partial);
            assert_ne!(packet, expected);
            complete_checksum(&mut packet);
            assert_eq!(packet, expected);
        }
    }

    #[test]
    fn a_checksum_that_is_right_or_wrong_otherwise_is_left_alone() {
        for (packet, field) in packets() {
            for flip in [0, 1] {
                let mut expected = packet.clone();
                expected[field] ^= flip;
                let mut packet = expected.clone();
                complete_checksum(&mut packet);
                assert_eq!(packet, expected);
            }
        }
        for mut short in [vec![], vec![0x45; 19], packets()[1].0[..30].to_vec()] {
            let before = short.clone();
            complete_checksum(&mut short);
            assert_eq!(short, before);
        }
    }
}
