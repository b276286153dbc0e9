//! The outer header for one inner packet. Used by the XDP and TC programs alike, so that both put
//! the same bytes on the wire.

use crate::{
    checksum,
    tunnel::{Flags, OUTER_WORDS, Tunnel},
    wire::ipv4::{DONT_FRAGMENT, Ipv4Header},
};

/// The outer IPv4 and GRE header of `inner`, which is `inner_len` bytes long, in memory order.
///
/// TTL and TOS are fixed or copied; ECN is copied in any case (RFC 6040, 4.1, normal mode); Don't
/// Fragment is the tunnel's or the inner packet's, as in the kernel (ip_tunnel_xmit). A length over
/// 65,535 bytes, which only a GSO packet has, is written as zero, as the kernel does.
#[inline(always)]
pub fn outer_header(
    tunnel: &Tunnel,
    inner: &Ipv4Header,
    inner_len: u32,
    identification: u16,
) -> [u32; OUTER_WORDS] {
    let mut outer = tunnel.outer;

    let [version, tos, ..] = outer[0].to_ne_bytes();
    let tos =
        if tunnel.flags.has(Flags::TOS_INHERIT) { inner.tos() } else { tos & !3 | inner.tos() & 3 };
    let total_len = inner_len + tunnel.overhead as u32;
    let len = if total_len > 0xffff { 0 } else { total_len as u16 }.to_be_bytes();
    outer[0] = u32::from_ne_bytes([version, tos, len[0], len[1]]);

    let [.., flags, offset] = outer[1].to_ne_bytes();
    let dont_fragment = if inner.dont_fragment() { (DONT_FRAGMENT >> 8) as u8 } else { 0 };
    let id = identification.to_be_bytes();
    outer[1] = u32::from_ne_bytes([id[0], id[1], flags | dont_fragment, offset]);

    let [ttl, protocol, ..] = outer[2].to_ne_bytes();
    let ttl = if tunnel.flags.has(Flags::TTL_INHERIT) { inner.ttl() } else { ttl };
    outer[2] = u32::from_ne_bytes([ttl, protocol, 0, 0]);
    let checksum =
        (!checksum::sum_ipv4(&[outer[0], outer[1], outer[2], outer[3], outer[4]])).to_ne_bytes();
    outer[2] = u32::from_ne_bytes([ttl, protocol, checksum[0], checksum[1]]);
    outer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::Outer;
    use etherparse::{IpNumber, Ipv4Header as Reference};
    use proptest::prelude::*;

    proptest! {
        /// etherparse builds the same header from the same wishes.
        #[test]
        fn the_outer_header_is_what_etherparse_builds(
            (ttl, tos, dont_fragment, key) in any::<(u8, u8, bool, Option<u32>)>(),
            (local, remote, id) in any::<([u8; 4], [u8; 4], u16)>(),
            (inner_ttl, inner_tos, inner_df) in (1u8.., any::<u8>(), any::<bool>()),
            inner_len in 20u16..65_000,
        ) {
            let mut inner =
                Reference::new(inner_len - 20, inner_ttl, IpNumber::UDP, [1; 4], [2; 4]).unwrap();
            inner.dscp = (inner_tos >> 2).try_into().unwrap();
            inner.ecn = (inner_tos & 3).try_into().unwrap();
            inner.dont_fragment = inner_df;
            let inner_header = Ipv4Header::from_bytes(inner.to_bytes()[..].try_into().unwrap());

            let tunnel = Tunnel::new(Outer {
                local: u32::from_ne_bytes(local),
                remote: u32::from_ne_bytes(remote),
                ttl,
                tos,
                dont_fragment,
                key,
            });
            let words = outer_header(&tunnel, &inner_header, inner_len.into(), id);

            let gre_len = if key.is_some() { 8 } else { 4 };
            let outer_ttl = if ttl == 0 { inner_ttl } else { ttl };
            let mut expected =
                Reference::new(inner_len + gre_len, outer_ttl, IpNumber::GRE, local, remote).unwrap();
            let outer_tos = if tos & 1 == 1 { inner_tos } else { tos & !3 | inner_tos & 3 };
            expected.dscp = (outer_tos >> 2).try_into().unwrap();
            expected.ecn = (outer_tos & 3).try_into().unwrap();
            expected.identification = id;
            expected.dont_fragment = dont_fragment || inner_df;
            expected.header_checksum = expected.calc_header_checksum();

            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            prop_assert_eq!(&bytes[..20], &expected.to_bytes()[..]);
            match key {
                Some(key) => {
                    prop_assert_eq!(&bytes[20..24], &[0x20, 0, 8, 0]);
                    prop_assert_eq!(&bytes[24..28], &key.to_be_bytes());
                }
                None => prop_assert_eq!(&bytes[20..24], &[0, 0, 8, 0]),
            }
            prop_assert_eq!(tunnel.overhead, 20 + gre_len);
        }
    }

    #[test]
    fn a_gso_packet_over_64k_has_length_zero() {
        let tunnel = Tunnel::new(Outer {
            local: 1,
            remote: 2,
            ttl: 64,
            tos: 0,
            dont_fragment: true,
            key: None,
        });
        let inner = Ipv4Header::from_bytes([0; 20]);
        assert_eq!(outer_header(&tunnel, &inner, 65_535, 0)[0].to_ne_bytes()[2..], [0, 0]);
        assert_eq!(outer_header(&tunnel, &inner, 65_511, 0)[0].to_ne_bytes()[2..], [0xff, 0xff]);
    }
}
