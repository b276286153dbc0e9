//! What a received packet must be to leave its tunnel. Used by the XDP and TC programs and by the
//! daemon alike. The checks come in the kernel's order (ip_tunnel_rcv), so that the same packet is
//! refused for the same reason.

use crate::{
    ecn,
    outcome::Outcome,
    tunnel::{Flags, Tunnel},
    wire::{
        ethernet::Mac,
        gre::{self, GreBase},
        ip::Ip,
        ipv4::{self, Ipv4Header},
        ipv6::{self, Ipv6Header},
    },
};

/// Whether a tunnel takes packets with these flags. Checksums must agree in both directions; sequence
/// numbers may be there without being asked for, and missing with [`Flags::RFC2890`].
#[inline(always)]
pub const fn flags(tunnel: &Tunnel, gre: GreBase) -> Result<(), Outcome> {
    match (gre.has_checksum(), tunnel.flags.has(Flags::CHECKSUM)) {
        (true, false) => return Err(Outcome::ChecksumUnexpected),
        (false, true) => return Err(Outcome::ChecksumMissing),
        (true, true) | (false, false) => {}
    }
    let wants_sequence = tunnel.flags.has(Flags::SEQUENCE) && !tunnel.flags.has(Flags::RFC2890);
    if wants_sequence && !gre.has_sequence() {
        return Err(Outcome::SequenceMissing);
    }
    Ok(())
}

/// What a protocol type says is in the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    Ipv4,
    Ipv6,
    /// A frame.
    Ethernet,
    /// Anything else with an EtherType, which is in host order.
    Other(u16),
}

/// The smallest EtherType (IEEE 802.3, 3.2.6): below are lengths.
const FIRST_ETHERTYPE: u16 = 0x600;

/// What is in a tunnel's packet with this GRE header and `room` bytes behind it. Ethernet comes out of
/// tunnels for Ethernet alone, and nothing else does.
#[inline(always)]
pub const fn payload(tunnel: &Tunnel, gre: GreBase, room: u32) -> Result<Payload, Outcome> {
    let ethernet = tunnel.flags.has(Flags::ETHERNET);
    match gre.protocol() {
        gre::PROTOCOL_ETHERNET if ethernet => Ok(Payload::Ethernet),
        gre::PROTOCOL_IPV4 | gre::PROTOCOL_IPV6 if ethernet => Err(Outcome::NotEthernet),
        gre::PROTOCOL_IPV4 => Ok(Payload::Ipv4),
        gre::PROTOCOL_IPV6 => Ok(Payload::Ipv6),
        gre::PROTOCOL_ETHERNET => Err(Outcome::EthernetFrame),
        gre::PROTOCOL_WCCP | gre::PROTOCOL_ERSPAN | gre::PROTOCOL_ERSPAN_3 => {
            Err(Outcome::ForeignProtocol)
        }
        gre::PROTOCOL_KEEPALIVE if room == 0 => Err(Outcome::Keepalive),
        _ if ethernet => Err(Outcome::NotEthernet),
        protocol if protocol < FIRST_ETHERTYPE => Err(Outcome::ProtocolUnsupported),
        protocol => Ok(Payload::Other(protocol)),
    }
}

/// A header that is what the protocol type says, in a packet that is whole.
pub trait Payloads: Ip {
    /// Checks it against the `room` bytes that there are from its start on.
    fn inspect(&self, room: u32) -> Result<(), Outcome>;
}

impl Payloads for Ipv4Header {
    #[inline(always)]
    fn inspect(&self, room: u32) -> Result<(), Outcome> {
        let (header_len, total_len) = (self.header_len(), u32::from(self.total_len()));
        if self.version() != 4 || header_len < ipv4::HEADER_LEN || total_len < header_len as u32 {
            return Err(Outcome::InnerMalformed);
        }
        if total_len > room {
            return Err(Outcome::InnerTruncated);
        }
        // With options the kernel, which gets the packet, checks the sum over all of the header.
        if self.is_plain() && !self.checksum_is_right() {
            return Err(Outcome::InnerChecksum);
        }
        if self.source_is_martian() {
            return Err(Outcome::InnerMartian);
        }
        Ok(())
    }
}

impl Payloads for Ipv6Header {
    #[inline(always)]
    fn inspect(&self, room: u32) -> Result<(), Outcome> {
        if self.version() != 6 {
            return Err(Outcome::InnerMalformed);
        }
        if self.payload_len() as u32 + ipv6::HEADER_LEN as u32 > room {
            return Err(Outcome::InnerTruncated);
        }
        if self.source_is_martian() {
            return Err(Outcome::InnerMartian);
        }
        Ok(())
    }
}

/// Whether frames may come from this address: it is a station's, not a group's (IEEE 802.3, 3.2.3).
#[inline(always)]
pub const fn source(mac: Mac) -> Result<(), Outcome> {
    if mac.is_group() || mac.is_zero() { Err(Outcome::FrameSource) } else { Ok(()) }
}

/// The inner header after the outer DS field has been taken into account (RFC 6040).
#[inline(always)]
pub fn congestion<I: Ip>(inner: I, outer_dsfield: u8) -> Result<I, Outcome> {
    match ecn::decapsulate(outer_dsfield, inner.dsfield()) {
        Some(dsfield) if dsfield != inner.dsfield() => Ok(inner.with_dsfield(dsfield)),
        Some(_) => Ok(inner),
        None => Err(Outcome::EcnInvalid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::{Ends, Expected, Outer};

    fn tunnel(expected: Expected) -> Tunnel {
        Tunnel::new(Outer::new(Ends::v4(1, 2)), expected)
    }

    #[test]
    fn r1_r2_checksums_must_agree_and_sequence_numbers_may_only_be_missing_with_rfc2890() {
        for checksum in [false, true] {
            for (sequence, rfc2890) in [(false, false), (true, false), (true, true)] {
                let expected = Expected { checksum, sequence, rfc2890, key: None };
                let tunnel = tunnel(expected);
                for (sent_checksum, sent_sequence) in
                    [(false, false), (false, true), (true, false), (true, true)]
                {
                    let bits = if sent_checksum { gre::CHECKSUM } else { 0 }
                        | if sent_sequence { gre::SEQUENCE } else { 0 };
                    let wanted = match (checksum, sent_checksum) {
                        (false, true) => Err(Outcome::ChecksumUnexpected),
                        (true, false) => Err(Outcome::ChecksumMissing),
                        _ if sequence && !rfc2890 && !sent_sequence => {
                            Err(Outcome::SequenceMissing)
                        }
                        _ => Ok(()),
                    };
                    let base = GreBase::new(bits, gre::PROTOCOL_IPV4);
                    assert_eq!(flags(&tunnel, base), wanted, "{expected:?} {bits:#x}");
                }
            }
        }
    }

    #[test]
    fn rfc2784_3_protocol_types_are_ethertypes_with_a_few_exceptions() {
        let tunnel = tunnel(Expected::default());
        let of = |protocol, room| payload(&tunnel, GreBase::new(0, protocol), room);
        assert_eq!(of(0x0800, 20), Ok(Payload::Ipv4));
        assert_eq!(of(0x86dd, 40), Ok(Payload::Ipv6));
        assert_eq!(of(0x8847, 4), Ok(Payload::Other(0x8847)));
        assert_eq!(of(0x6558, 14), Err(Outcome::EthernetFrame));
        assert_eq!(of(0x883e, 20), Err(Outcome::ForeignProtocol));
        assert_eq!(of(0x88be, 20), Err(Outcome::ForeignProtocol));
        assert_eq!(of(0x22eb, 20), Err(Outcome::ForeignProtocol));
        assert_eq!(of(0, 0), Err(Outcome::Keepalive));
        assert_eq!(of(0, 1), Err(Outcome::ProtocolUnsupported));
        assert_eq!(of(0x5ff, 20), Err(Outcome::ProtocolUnsupported));
        assert_eq!(of(0x600, 20), Ok(Payload::Other(0x600)));
    }

    #[test]
    fn ethernet_comes_out_of_tunnels_for_ethernet_and_nothing_else_does() {
        let outer = Outer { ethernet: true, ..Outer::new(Ends::v4(1, 2)) };
        let tunnel = Tunnel::new(outer, Expected::default());
        let of = |protocol, room| payload(&tunnel, GreBase::new(0, protocol), room);
        assert_eq!(of(0x6558, 14), Ok(Payload::Ethernet));
        for protocol in [0x0800, 0x86dd, 0x8847, 0x600, 0x5ff] {
            assert_eq!(of(protocol, 40), Err(Outcome::NotEthernet), "{protocol:#06x}");
        }
        assert_eq!(of(0, 0), Err(Outcome::Keepalive));
        assert_eq!(of(0x88be, 20), Err(Outcome::ForeignProtocol));
    }

    #[test]
    fn sources_of_frames_are_stations() {
        for (first, expected) in [(0, Err(Outcome::FrameSource)), (1, Err(Outcome::FrameSource))] {
            assert_eq!(source(Mac::from_bytes([first, 0, 0, 0, 0, 0])), expected);
        }
        assert_eq!(source(Mac::from_bytes([0xff; 6])), Err(Outcome::FrameSource));
        assert_eq!(source(Mac::from_bytes([2, 0, 0, 0, 0, 1])), Ok(()));
    }
}
