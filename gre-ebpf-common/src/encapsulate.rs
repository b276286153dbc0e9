//! The outer header for one inner packet. Used by the XDP and TC programs and by the daemon, so
//! that all put the same bytes on the wire.

use crate::{
    checksum, ecn,
    tunnel::{Addresses6, Flags, OUTER_WORDS, Tunnel},
    wire::{
        gre,
        ip::Ip,
        ipv4::{DONT_FRAGMENT, PROTOCOL_GRE},
        ipv6::{
            self, ENCAPSULATION_LIMIT_LEN, FLOW_LABEL, HEADER_LEN as IPV6_LEN,
            NEXT_HEADER_DESTINATION_OPTIONS,
        },
    },
};

/// What the outer header takes from the inner packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inner {
    /// GRE protocol type, host order.
    pub protocol: u16,
    /// None where it is not IP.
    pub dsfield: Dsfield,
    pub ttl: u8,
    pub dont_fragment: bool,
    /// 20 bits, host order.
    pub flow_label: u32,
    /// The encapsulation limit to send in place of the tunnel's, over IPv6 only: one less than the
    /// packet's own ([`crate::limit`]).
    pub limit: Option<u8>,
    /// Bytes.
    pub len: u32,
}

/// A DS field, or none: a number in either case, since the verifier takes what an `Option` leaves
/// undefined for a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dsfield(u16);

impl Dsfield {
    pub const NONE: Self = Self(1 << 8);

    #[inline(always)]
    pub const fn of(dsfield: u8) -> Self {
        Self(dsfield as u16)
    }

    #[inline(always)]
    const fn get(self) -> Option<u8> {
        if self.0 == Self::NONE.0 { None } else { Some(self.0 as u8) }
    }
}

/// TTL of an outer packet with `ttl inherit` around what has none (net.ipv4.ip_default_ttl).
const DEFAULT_TTL: u8 = 64;

impl Inner {
    /// `len` is the packet's own length, but for a GSO packet.
    #[inline(always)]
    pub fn of<I: Ip>(ip: &I, len: u32) -> Self {
        Self {
            protocol: u16::from_be(I::ETHERTYPE),
            dsfield: Dsfield::of(ip.dsfield()),
            ttl: ip.ttl(),
            dont_fragment: ip.dont_fragment(),
            flow_label: ip.flow_label(),
            limit: None,
            len,
        }
    }

    /// The frame around it, which is `len` bytes long.
    #[inline(always)]
    pub const fn framed(self, len: u32) -> Self {
        Self { protocol: gre::PROTOCOL_ETHERNET, len, limit: None, ..self }
    }

    /// Neither IPv4 nor IPv6.
    #[inline(always)]
    pub const fn other(protocol: u16, len: u32) -> Self {
        Self {
            protocol,
            dsfield: Dsfield::NONE,
            ttl: DEFAULT_TTL,
            dont_fragment: false,
            flow_label: 0,
            limit: None,
            len,
        }
    }
}

/// Bytes that encapsulation adds, if this encapsulation limit is sent in place of the tunnel's.
#[inline(always)]
pub const fn overhead(tunnel: &Tunnel, limit: Option<u8>) -> u16 {
    let more = limit.is_some() && !tunnel.flags.has(Flags::ENCAPSULATION_LIMIT);
    tunnel.overhead + if more { ENCAPSULATION_LIMIT_LEN as u16 } else { 0 }
}

/// The outer TOS or traffic class where `fixed` is the tunnel's: fixed or copied; ECN is copied in
/// any case.
#[inline(always)]
const fn dsfield(tunnel: &Tunnel, fixed: u8, inner: &Inner) -> u8 {
    match inner.dsfield.get() {
        Some(inner) if tunnel.flags.has(Flags::TOS_INHERIT) => inner,
        Some(inner) => ecn::encapsulate(fixed, inner),
        None => fixed,
    }
}

/// A length field, in memory order. One over 65,535 bytes, which only a GSO packet has, is written
/// as zero, as the kernel does.
#[inline(always)]
const fn length(len: u32) -> [u8; 2] {
    (if len > 0xffff { 0 } else { len as u16 }).to_be_bytes()
}

/// The outer IPv4 header, in memory order.
///
/// TTL and TOS are fixed or copied; Don't Fragment is the tunnel's or, unless it is ignored, the
/// inner packet's, as in the kernel (ip_tunnel_xmit).
#[inline(always)]
pub const fn ipv4(tunnel: &Tunnel, inner: &Inner, identification: u16) -> [u32; OUTER_WORDS] {
    let mut outer = tunnel.outer;

    let [version, tos, ..] = outer[0].to_ne_bytes();
    let len = length(inner.len + tunnel.overhead as u32);
    outer[0] = u32::from_ne_bytes([version, dsfield(tunnel, tos, inner), len[0], len[1]]);

    let [.., flags, offset] = outer[1].to_ne_bytes();
    let copied = inner.dont_fragment && !tunnel.flags.has(Flags::IGNORE_DF);
    let dont_fragment = if copied { (DONT_FRAGMENT >> 8) as u8 } else { 0 };
    let id = identification.to_be_bytes();
    outer[1] = u32::from_ne_bytes([id[0], id[1], flags | dont_fragment, offset]);

    let [ttl, protocol, ..] = outer[2].to_ne_bytes();
    let ttl = if tunnel.flags.has(Flags::TTL_INHERIT) { inner.ttl } else { ttl };
    outer[2] = u32::from_ne_bytes([ttl, protocol, 0, 0]);
    let checksum = (!checksum::sum_ipv4(&outer)).to_ne_bytes();
    outer[2] = u32::from_ne_bytes([ttl, protocol, checksum[0], checksum[1]]);
    outer
}

/// Words of the outer IPv6 header.
pub const IPV6_WORDS: usize = IPV6_LEN / 4;

/// The outer IPv6 header, in memory order; behind it comes the Destination Options header, if any
/// ([`encapsulation_limit`]).
#[inline(always)]
pub const fn ipv6(tunnel: &Tunnel, ends: &Addresses6, inner: &Inner) -> [u32; IPV6_WORDS] {
    let first = u32::from_be(tunnel.outer[0]);
    let fixed = (first >> 20) as u8;
    // The kernel does not copy congestion into a class that is fixed, though RFC 6040 (4.1) asks for it: one
    // of its own tunnels sends the same with XDP and without.
    let is_kernels = tunnel.flags.has(Flags::ADOPTED) && !tunnel.flags.has(Flags::TOS_INHERIT);
    let class = if is_kernels { fixed } else { dsfield(tunnel, fixed, inner) } as u32;
    let label = if tunnel.flags.has(Flags::FLOW_LABEL_INHERIT) {
        inner.flow_label
    } else {
        first & FLOW_LABEL
    };
    let first = (first & 0xf000_0000 | class << 20 | label).to_be();

    let [.., next_header, hop_limit] = tunnel.outer[1].to_ne_bytes();
    let next_header =
        if inner.limit.is_some() { NEXT_HEADER_DESTINATION_OPTIONS } else { next_header };
    let hop_limit = if tunnel.flags.has(Flags::TTL_INHERIT) { inner.ttl } else { hop_limit };
    let len = length(inner.len + overhead(tunnel, inner.limit) as u32 - IPV6_LEN as u32);
    let second = u32::from_ne_bytes([len[0], len[1], next_header, hop_limit]);

    let Addresses6 { local: l, remote: r } = ends;
    [first, second, l[0], l[1], l[2], l[3], r[0], r[1], r[2], r[3]]
}

/// The Destination Options header that follows, where the tunnel or the inner packet asks for one.
#[inline(always)]
pub const fn encapsulation_limit(tunnel: &Tunnel, inner: &Inner) -> Option<[u32; 2]> {
    match inner.limit {
        Some(limit) => Some(ipv6::encapsulation_limit(PROTOCOL_GRE, limit)),
        None if tunnel.flags.has(Flags::ENCAPSULATION_LIMIT) => {
            Some([tunnel.outer[2], tunnel.outer[3]])
        }
        None => None,
    }
}

/// The first word of the GRE header for this protocol type, host order. Behind it come, where its
/// flags say so: checksum and zero, key, sequence number.
#[inline(always)]
pub const fn gre(tunnel: &Tunnel, protocol: u16) -> gre::GreBase {
    tunnel.gre.with_protocol(protocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        tunnel::{Ends, Expected, Outer},
        wire::{ipv4::Ipv4Header, ipv6::Ipv6Header},
    };
    use etherparse::{IpNumber, Ipv4Header as Reference, Ipv6FlowLabel, Ipv6Header as Reference6};
    use proptest::prelude::*;

    fn ends6(local: [u8; 16], remote: [u8; 16]) -> Addresses6 {
        let words = |bytes: [u8; 16]| {
            core::array::from_fn(|i| u32::from_ne_bytes(bytes[4 * i..][..4].try_into().unwrap()))
        };
        Addresses6 { local: words(local), remote: words(remote) }
    }

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    /// An inner packet of either version.
    fn inner() -> impl Strategy<Value = Inner> {
        (1u8.., any::<u8>(), any::<bool>(), any::<u32>(), 40u16..65_000, 0..3u8).prop_map(
            |(ttl, tos, dont_fragment, flow, len, version)| match version {
                0 => {
                    let mut header =
                        Reference::new(len - 20, ttl, IpNumber::UDP, [1; 4], [2; 4]).unwrap();
                    header.dscp = (tos >> 2).try_into().unwrap();
                    header.ecn = (tos & 3).try_into().unwrap();
                    header.dont_fragment = dont_fragment;
                    let bytes = header.to_bytes()[..].try_into().unwrap();
                    Inner::of(&Ipv4Header::from_bytes(bytes), len.into())
                }
                1 => {
                    let header = Reference6 {
                        traffic_class: tos,
                        flow_label: Ipv6FlowLabel::try_new(flow & FLOW_LABEL).unwrap(),
                        payload_length: len - 40,
                        next_header: IpNumber::UDP,
                        hop_limit: ttl,
                        ..Reference6::default()
                    };
                    Inner::of(&Ipv6Header::from_bytes(header.to_bytes()), len.into())
                }
                _ => Inner::other(gre::PROTOCOL_MPLS, len.into()),
            },
        )
    }

    /// What the tunnel's fixed TOS and the inner packet make of the outer one, spelled out.
    fn expected_dsfield(tos: u8, inner: &Inner) -> u8 {
        match (inner.dsfield.get(), tos & 1) {
            (Some(inner), 1) => inner,
            (Some(inner), _) => tos & 0xfc | inner & 3,
            (None, _) => tos & 0xfe,
        }
    }

    proptest! {
        /// etherparse builds the same header from the same wishes.
        #[test]
        fn t2_t3_t4_the_outer_ipv4_header_is_what_etherparse_builds(
            (ttl, tos, dont_fragment, ignore_df) in any::<(u8, u8, bool, bool)>(),
            (local, remote, id) in any::<([u8; 4], [u8; 4], u16)>(),
            (key, checksum, sequence) in any::<(Option<u32>, bool, bool)>(),
            inner in inner(),
        ) {
            let (l, r) = (u32::from_ne_bytes(local), u32::from_ne_bytes(remote));
            let ends = Ends::v4(l, r);
            let wishes =
                Outer { ttl, tos, dont_fragment, ignore_df, key, checksum, sequence, ..Outer::new(ends) };
            let tunnel = Tunnel::new(wishes, Expected::default());
            let gre_len = 4 + 4 * (key.is_some() as u16 + checksum as u16 + sequence as u16);
            prop_assert_eq!(tunnel.overhead, 20 + gre_len);

            let outer_ttl = if ttl == 0 { inner.ttl } else { ttl };
            let len = inner.len as u16 + gre_len;
            let mut expected = Reference::new(len, outer_ttl, IpNumber::GRE, local, remote).unwrap();
            let outer_tos = expected_dsfield(tos, &inner);
            expected.dscp = (outer_tos >> 2).try_into().unwrap();
            expected.ecn = (outer_tos & 3).try_into().unwrap();
            expected.identification = id;
            expected.dont_fragment = dont_fragment || inner.dont_fragment && !ignore_df;
            expected.header_checksum = expected.calc_header_checksum();
            prop_assert_eq!(bytes(&ipv4(&tunnel, &inner, id)), expected.to_bytes().to_vec());

            let flags = (checksum as u8) << 7 | (key.is_some() as u8) << 5 | (sequence as u8) << 4;
            let [high, low] = inner.protocol.to_be_bytes();
            let base = gre(&tunnel, inner.protocol);
            prop_assert_eq!(base.0.to_ne_bytes(), [flags, 0, high, low]);
            prop_assert_eq!(tunnel.sent_key.to_ne_bytes(), key.unwrap_or(0).to_be_bytes());
        }

        /// A limit that the inner packet brings along stands in place of the tunnel's.
        #[test]
        fn t2_t3_ip6gre1_the_outer_ipv6_header_is_what_etherparse_builds(
            (hops, class, label, limit) in any::<(u8, u8, Option<u32>, Option<u8>)>(),
            (local, remote, key) in any::<([u8; 16], [u8; 16], Option<u32>)>(),
            (inner, brought, adopted) in (inner(), any::<Option<u8>>(), any::<bool>()),
        ) {
            let inner = Inner { limit: brought, ..inner };
            let addresses = ends6(local, remote);
            let Addresses6 { local: l, remote: r } = addresses;
            let wishes = Outer {
                ttl: hops,
                tos: class,
                key,
                encapsulation_limit: limit,
                flow_label: label,
                ..Outer::new(Ends::v6(l, r))
            };
            let mut tunnel = Tunnel::new(wishes, Expected::default());
            tunnel.flags = tunnel.flags.with(Flags::ADOPTED, adopted);
            let behind = 4 + if key.is_some() { 4 } else { 0 } + if limit.is_some() { 8 } else { 0 };
            prop_assert_eq!(tunnel.overhead, 40 + behind);
            let more = if brought.is_some() && limit.is_none() { 8 } else { 0 };
            prop_assert_eq!(overhead(&tunnel, brought), 40 + behind + more);
            let sent = brought.or(limit);

            let flow = label.map_or(inner.flow_label, |label| label & FLOW_LABEL);
            let expected = Reference6 {
                traffic_class: match adopted && class & 1 == 0 {
                    true => class,
                    false => expected_dsfield(class, &inner),
                },
                flow_label: Ipv6FlowLabel::try_new(flow).unwrap(),
                payload_length: inner.len as u16 + behind + more,
                next_header: if sent.is_some() { IpNumber(60) } else { IpNumber::GRE },
                hop_limit: if hops == 0 { inner.ttl } else { hops },
                source: local,
                destination: remote,
            };
            prop_assert_eq!(bytes(&ipv6(&tunnel, &addresses, &inner)), expected.to_bytes().to_vec());
            let options = encapsulation_limit(&tunnel, &inner).map(|words| bytes(&words));
            prop_assert_eq!(options, sent.map(|limit| vec![47, 0, 4, 1, limit, 1, 1, 0]));
        }
    }

    #[test]
    fn a_gso_packet_over_64k_has_length_zero() {
        let v4 = Ends::v4(1, 2);
        let tunnel = Tunnel::new(Outer::new(v4), Expected::default());
        let length = |len| ipv4(&tunnel, &Inner::other(0, len), 0)[0].to_ne_bytes()[2..].to_vec();
        assert_eq!(length(65_535), [0, 0]);
        assert_eq!(length(65_511), [0xff, 0xff]);

        let Addresses6 { local, remote } = ends6([1; 16], [2; 16]);
        let tunnel = Tunnel::new(Outer::new(Ends::v6(local, remote)), Expected::default());
        let ends = Addresses6 { local, remote };
        let length =
            |len| ipv6(&tunnel, &ends, &Inner::other(0, len))[1].to_ne_bytes()[..2].to_vec();
        assert_eq!(length(65_532), [0, 0]);
        assert_eq!(length(65_531), [0xff, 0xff]);
    }
}
