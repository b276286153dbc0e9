//! IPv6 (RFC 8200): the fixed header, and the two extension headers that stand before GRE.

use network_types::ip::{IpProto, Ipv6Hdr};

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = Ipv6Hdr::LEN;

pub const NEXT_HEADER_HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
pub const NEXT_HEADER_ROUTING: u8 = IpProto::Ipv6Route as u8;
pub const NEXT_HEADER_FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
pub const NEXT_HEADER_AUTHENTICATION: u8 = IpProto::Ah as u8;
pub const NEXT_HEADER_DESTINATION_OPTIONS: u8 = IpProto::Ipv6Opts as u8;

/// Option type of a Tunnel Encapsulation Limit (RFC 2473, 4.1.1).
pub const TUNNEL_ENCAPSULATION_LIMIT: u8 = 4;
/// Bytes of the Destination Options header that carries one.
pub const ENCAPSULATION_LIMIT_LEN: usize = 8;

/// That header in front of `next_header`, in memory order, as Linux pads it: the option, then PadN of
/// one byte.
#[inline(always)]
pub const fn encapsulation_limit(next_header: u8, limit: u8) -> [u32; ENCAPSULATION_LIMIT_LEN / 4] {
    const PAD_N: u8 = 1;
    [
        u32::from_ne_bytes([next_header, 0, TUNNEL_ENCAPSULATION_LIMIT, 1]),
        u32::from_ne_bytes([limit, PAD_N, 1, 0]),
    ]
}

/// Bytes of an extension header whose second byte is this.
#[inline(always)]
pub const fn extension_len(length: u8) -> usize {
    (length as usize + 1) * 8
}

/// Flow label bits of the first word, host order.
pub const FLOW_LABEL: u32 = 0x000f_ffff;

/// A header of 40 bytes, as ten words in memory order.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6Header {
    pub words: [u32; 10],
}

impl Ipv6Header {
    pub fn from_bytes(bytes: [u8; HEADER_LEN]) -> Self {
        Self {
            words: core::array::from_fn(|i| {
                u32::from_ne_bytes([
                    bytes[4 * i],
                    bytes[4 * i + 1],
                    bytes[4 * i + 2],
                    bytes[4 * i + 3],
                ])
            }),
        }
    }

    #[inline(always)]
    const fn first(&self) -> u32 {
        u32::from_be(self.words[0])
    }

    #[inline(always)]
    pub const fn version(&self) -> u8 {
        (self.first() >> 28) as u8
    }

    #[inline(always)]
    pub const fn traffic_class(&self) -> u8 {
        (self.first() >> 20) as u8
    }

    /// 20 bits, host order.
    #[inline(always)]
    pub const fn flow_label(&self) -> u32 {
        self.first() & FLOW_LABEL
    }

    /// Bytes behind the fixed header.
    #[inline(always)]
    pub const fn payload_len(&self) -> u16 {
        let bytes = self.words[1].to_ne_bytes();
        u16::from_be_bytes([bytes[0], bytes[1]])
    }

    #[inline(always)]
    pub const fn next_header(&self) -> u8 {
        self.words[1].to_ne_bytes()[2]
    }

    #[inline(always)]
    pub const fn hop_limit(&self) -> u8 {
        self.words[1].to_ne_bytes()[3]
    }

    /// In memory order.
    #[inline(always)]
    pub const fn source(&self) -> [u32; 4] {
        [self.words[2], self.words[3], self.words[4], self.words[5]]
    }

    /// In memory order.
    #[inline(always)]
    pub const fn destination(&self) -> [u32; 4] {
        [self.words[6], self.words[7], self.words[8], self.words[9]]
    }

    #[inline(always)]
    pub const fn with_hop_limit(mut self, hop_limit: u8) -> Self {
        let [a, b, next_header, _] = self.words[1].to_ne_bytes();
        self.words[1] = u32::from_ne_bytes([a, b, next_header, hop_limit]);
        self
    }

    #[inline(always)]
    pub const fn with_traffic_class(mut self, class: u8) -> Self {
        self.words[0] = (self.first() & 0xf00f_ffff | (class as u32) << 20).to_be();
        self
    }

    /// Whether a router may forward from the source to the destination: neither is multicast,
    /// unspecified or loopback (RFC 4291, 2.5 and 2.7), nor link-local, which stays on its link
    /// (2.5.6).
    #[inline(always)]
    pub const fn is_routable(&self) -> bool {
        is_routable(self.words[2], &self.source())
            && is_routable(self.words[6], &self.destination())
    }

    /// A source that no packet has: multicast or loopback (RFC 4291, 2.5.3 and 2.7).
    #[inline(always)]
    pub const fn source_is_martian(&self) -> bool {
        self.words[2].to_ne_bytes()[0] == 0xff || is_low(&self.source(), 1)
    }
}

/// Whether the address is `::` followed by `low`.
#[inline(always)]
const fn is_low(address: &[u32; 4], low: u32) -> bool {
    address[0] | address[1] | address[2] == 0 && address[3] == low.to_be()
}

#[inline(always)]
const fn is_routable(first: u32, address: &[u32; 4]) -> bool {
    let [a, b, ..] = first.to_ne_bytes();
    let link_local = a == 0xfe && b & 0xc0 == 0x80;
    a != 0xff && !link_local && !is_low(address, 0) && !is_low(address, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{IpNumber, Ipv6FlowLabel, Ipv6Header as Reference};
    use proptest::prelude::*;
    use std::net::Ipv6Addr;

    fn header(reference: &Reference) -> Ipv6Header {
        Ipv6Header::from_bytes(reference.to_bytes())
    }

    proptest! {
        #[test]
        fn fields_are_where_etherparse_puts_them(
            (source, destination) in any::<([u8; 16], [u8; 16])>(),
            (class, flow, len, next, hops) in any::<(u8, u32, u16, u8, u8)>(),
            (other_class, other_hops) in any::<(u8, u8)>(),
        ) {
            let reference = Reference {
                traffic_class: class,
                flow_label: Ipv6FlowLabel::try_new(flow & FLOW_LABEL).unwrap(),
                payload_length: len,
                next_header: IpNumber(next),
                hop_limit: hops,
                source,
                destination,
            };
            let header = header(&reference);
            prop_assert_eq!(header.version(), 6);
            prop_assert_eq!(header.traffic_class(), class);
            prop_assert_eq!(header.flow_label(), flow & FLOW_LABEL);
            prop_assert_eq!(header.payload_len(), len);
            prop_assert_eq!(header.next_header(), next);
            prop_assert_eq!(header.hop_limit(), hops);
            let bytes = |words: [u32; 4]| words.map(u32::to_ne_bytes).concat();
            prop_assert_eq!(bytes(header.source()), source.to_vec());
            prop_assert_eq!(bytes(header.destination()), destination.to_vec());

            let changed = header.with_traffic_class(other_class).with_hop_limit(other_hops);
            let expected = Reference {
                traffic_class: other_class,
                hop_limit: other_hops,
                ..reference
            };
            prop_assert_eq!(changed, self::header(&expected));
        }
    }

    #[test]
    fn only_unicast_addresses_beyond_the_link_are_routable() {
        let to = |text: &str| {
            let destination = text.parse::<Ipv6Addr>().unwrap().octets();
            let source = "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets();
            let there = Reference { source, destination, ..Reference::default() };
            let back = Reference { source: destination, destination: source, ..there.clone() };
            assert_eq!(header(&there).is_routable(), header(&back).is_routable(), "{text}");
            (header(&there).is_routable(), header(&back).source_is_martian())
        };
        for address in ["2001:db8::2", "fd00::1", "::2", "fec0::1", "fe00::1"] {
            assert_eq!(to(address), (true, false), "{address}");
        }
        for address in ["::", "fe80::1", "febf::1"] {
            assert_eq!(to(address), (false, false), "{address}");
        }
        for address in ["::1", "ff02::1", "ffff::"] {
            assert_eq!(to(address), (false, true), "{address}");
        }
    }

    #[test]
    fn the_encapsulation_limit_is_an_option_that_etherparse_reads() {
        let bytes = encapsulation_limit(47, 4).map(u32::to_ne_bytes).concat();
        let (header, rest) = etherparse::Ipv6RawExtHeader::from_slice(&bytes).unwrap();
        assert_eq!((header.next_header, header.header_len()), (IpNumber::GRE, 8));
        assert_eq!(header.payload(), [4, 1, 4, 1, 1, 0]);
        assert!(rest.is_empty());
        assert_eq!(extension_len(bytes[1]), bytes.len());
    }
}
