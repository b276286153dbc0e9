//! Cuts an outer IPv4 packet into two fragments (RFC 791, 3.2). What takes more is the daemon's.

use crate::wire::ipv4::{HEADER_LEN, Ipv4Header, MORE_FRAGMENTS};

/// Bytes of payload in the longest packet that is cut.
pub const LONGEST: usize = 4096;

/// Bytes of payload in the first of two fragments of at most `mtu` bytes of a packet of `len` bytes;
/// none where two are not enough, or one is.
#[inline(always)]
pub const fn in_two(len: u32, mtu: u32) -> Option<u32> {
    let (payload, room) =
        (len.saturating_sub(HEADER_LEN as u32), mtu.saturating_sub(HEADER_LEN as u32));
    let first = room & !7;
    if payload <= room || payload > LONGEST as u32 || first == 0 || payload - first > room {
        return None;
    }
    Some(first)
}

/// The headers of both fragments: as `whole`, with `first` bytes of payload in the first one and `rest`
/// in the second.
#[inline(always)]
pub fn headers(whole: &Ipv4Header, first: u32, rest: u32) -> [Ipv4Header; 2] {
    let len = |payload: u32| HEADER_LEN as u16 + payload as u16;
    [whole.cut(len(first), MORE_FRAGMENTS), whole.cut(len(rest), (first >> 3) as u16)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{IpNumber, Ipv4Header as Reference};
    use proptest::prelude::*;

    #[test]
    fn rfc791_the_first_fragment_is_as_long_as_it_may_be() {
        for (len, mtu, first) in [
            (1500, 1500, None),
            (1501, 1500, Some(1480)),
            (1524, 1500, Some(1480)),
            (1524, 1499, Some(1472)),
            (2980, 1500, Some(1480)),
            (2981, 1500, None),
            (4116, 4000, Some(3976)),
            (4117, 4000, None),
            (70, 68, Some(48)),
            (70, 27, None),
            (70, 0, None),
            (0, 0, None),
        ] {
            assert_eq!(in_two(len, mtu), first, "{len} bytes, MTU {mtu}");
        }
    }

    proptest! {
        #[test]
        fn both_fragments_fit_and_are_the_packet(len in 20u32..5000, mtu in 0u32..5000) {
            if let Some(first) = in_two(len, mtu) {
                let rest = len - 20 - first;
                prop_assert!(first > 0 && first % 8 == 0 && first + 20 <= mtu);
                prop_assert!(rest > 0 && rest + 20 <= mtu);
            }
        }

        #[test]
        fn headers_are_those_of_etherparse(
            first in 1u32..1000, rest in 1u32..2000, id: u16, tos: u8,
        ) {
            let first = first * 8;
            let reference = |payload: u32, offset: u32, more: bool| {
                let mut header =
                    Reference::new(payload as u16, 9, IpNumber::GRE, [1; 4], [2; 4]).unwrap();
                header.identification = id;
                header.dscp = (tos >> 2).try_into().unwrap();
                header.dont_fragment = false;
                header.more_fragments = more;
                header.fragment_offset = (offset as u16 / 8).try_into().unwrap();
                header.header_checksum = header.calc_header_checksum();
                Ipv4Header::from_bytes(header.to_bytes()[..].try_into().unwrap())
            };
            let whole = reference(first + rest, 0, false);
            let fragments = [reference(first, 0, true), reference(rest, first, false)];
            prop_assert_eq!(headers(&whole, first, rest), fragments);
        }
    }
}
